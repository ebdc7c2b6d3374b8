//! [`D1Archive`]: chunks in a D1 database.

use super::{Archive, Part};
use crate::{Code, Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::cell::Cell;
use worker::{D1Database, D1Type};

/// Chunks in a D1 database, in the table `durable_streams`, which is made if it is not there.
///
/// Every statement crosses the network, and answers have to stay below 1 MB: chunks are 256 to
/// 512 KiB, as base64, since D1 writes a blob as a list of numbers.
#[derive(Debug)]
pub struct D1Archive {
    database: D1Database,
    ready: Cell<bool>,
}

impl D1Archive {
    /// Chunks in this database.
    #[must_use]
    pub fn new(database: D1Database) -> Self {
        Self { database, ready: Cell::new(false) }
    }

    async fn prepare(&self) -> Result<()> {
        if !self.ready.get() {
            let table = "CREATE TABLE IF NOT EXISTS durable_streams \
                         (key TEXT PRIMARY KEY, bytes TEXT NOT NULL) WITHOUT ROWID";
            self.database.prepare(table).run().await.map_err(unavailable)?;
            self.ready.set(true);
        }
        Ok(())
    }

    async fn run(&self, sql: &str, texts: &[&str]) -> Result<worker::D1Result> {
        self.prepare().await?;
        let texts: Vec<_> = texts.iter().map(|text| D1Type::Text(text)).collect();
        let statement = self.database.prepare(sql).bind_refs(&texts).map_err(unavailable)?;
        statement.all().await.map_err(unavailable)
    }
}

#[allow(clippy::needless_pass_by_value)]
fn unavailable(error: worker::Error) -> Error {
    Error::new(Code::Store, format!("D1: {error}"))
}

#[derive(serde::Deserialize)]
struct Row {
    bytes: String,
}

impl Archive for D1Archive {
    fn chunk_bytes(&self) -> usize {
        256 * 1024
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let sql =
            "INSERT INTO durable_streams (key, bytes) VALUES (?, ?) ON CONFLICT (key) DO NOTHING";
        self.run(sql, &[key, &STANDARD.encode(bytes)]).await.map(drop)
    }

    async fn get(&self, key: &str, _: u64, _: u64) -> Result<Option<Part>> {
        let found = self.run("SELECT bytes FROM durable_streams WHERE key = ?", &[key]).await?;
        let rows: Vec<Row> = found.results().map_err(unavailable)?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let bytes = STANDARD.decode(row.bytes);
        bytes
            .map(|bytes| Some(Part::Whole(bytes)))
            .map_err(|e| Error::new(Code::Internal, e.to_string()))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.run("DELETE FROM durable_streams WHERE key = ?", &[key]).await.map(drop)
    }
}
