//! [`SqliteStore`]: a replica in a SQLite file, for desktop and command-line programs.

use super::{Saved, SavedAction, SavedChannel, Store, Write};
use partysync::sql::{Sql, Sqlite, Value};
use partysync::{Code, Error, Result, params};
use serde_json::Value as Json;
use std::path::Path;

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS partysync_replica (
        id INTEGER PRIMARY KEY CHECK (id = 1), client TEXT NOT NULL, epoch TEXT,
        next_seq INTEGER NOT NULL, pushed INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_channel (
        channel TEXT NOT NULL PRIMARY KEY, version INTEGER, schema TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_row (
        channel TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL,
        PRIMARY KEY (channel, key)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS partysync_pending (
        seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, action TEXT NOT NULL,
        made_at INTEGER NOT NULL, attempts INTEGER NOT NULL) STRICT",
];

/// Keeps a replica in a SQLite database. Each batch of writes is one transaction: a program that
/// is killed at any moment finds a replica that once was whole.
///
/// One file holds one replica, and one client at a time may use it.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// use partysync_client::store::{SqliteStore, Store};
///
/// let store = SqliteStore::in_memory()?;
/// assert_eq!(store.load()?, None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    db: Sqlite,
}

impl SqliteStore {
    /// The replica in this file, made if it is not there.
    ///
    /// # Errors
    /// [`Code::Sql`] when the file cannot be opened or is no database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Sqlite::open(path)?)
    }

    /// A replica that ends with the store; for tests.
    ///
    /// # Errors
    /// [`Code::Sql`].
    pub fn in_memory() -> Result<Self> {
        Self::of(Sqlite::in_memory()?)
    }

    fn of(db: Sqlite) -> Result<Self> {
        let store = Self { db };
        let sql = store.sql();
        sql.transaction(&mut || TABLES.iter().try_for_each(|table| run(sql, table, &[])))?;
        Ok(store)
    }

    fn sql(&self) -> &dyn Sql {
        &self.db
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Option<Saved>> {
        let sql = self.sql();
        let replica = sql.query_opt(
            "SELECT client, epoch, next_seq, pushed FROM partysync_replica",
            [],
            |row| {
                Ok(Saved {
                    client: row.get(0)?,
                    epoch: row.get(1)?,
                    next_seq: row.get::<i64>(2)?.unsigned_abs(),
                    pushed: row.get::<i64>(3)?.unsigned_abs(),
                    ..Saved::default()
                })
            },
        )?;
        let Some(mut saved) = replica else { return Ok(None) };
        sql.run("SELECT channel, version, schema FROM partysync_channel", &[], &mut |row| {
            let version: Option<i64> = row.get(1)?;
            let channel = SavedChannel {
                version: version.map(i64::unsigned_abs),
                schema: row.get(2)?,
                ..SavedChannel::default()
            };
            saved.channels.insert(row.get(0)?, channel);
            Ok(())
        })?;
        sql.run("SELECT channel, key, row FROM partysync_row", &[], &mut |row| {
            let channel: String = row.get(0)?;
            let json = parse(&row.get::<String>(2)?)?;
            saved.channels.entry(channel).or_default().rows.insert(row.get(1)?, json);
            Ok(())
        })?;
        let pending = "SELECT seq, channel, action, made_at, attempts FROM partysync_pending";
        sql.run(pending, &[], &mut |row| {
            let action = SavedAction {
                channel: row.get(1)?,
                action: parse(&row.get::<String>(2)?)?,
                made_at: row.get(3)?,
                attempts: row.get(4)?,
            };
            saved.pending.insert(row.get::<i64>(0)?.unsigned_abs(), action);
            Ok(())
        })?;
        Ok(Some(saved))
    }

    fn write(&self, client: &str, writes: Vec<Write>) -> Result<()> {
        let sql = self.sql();
        sql.transaction(&mut || {
            let fresh = "INSERT OR IGNORE INTO partysync_replica VALUES (1, ?, NULL, 1, 0)";
            run(sql, fresh, &params![client])?;
            writes.iter().try_for_each(|write| self.apply(write))
        })
    }
}

impl SqliteStore {
    fn apply(&self, write: &Write) -> Result<()> {
        let sql = self.sql();
        match write {
            Write::Epoch(epoch) => {
                run(sql, "UPDATE partysync_replica SET epoch = ?", &params![epoch.as_str()])
            }
            Write::Version(channel, None) => run(
                sql,
                "UPDATE partysync_channel SET version = NULL WHERE channel = ?",
                &params![*channel],
            ),
            Write::Version(channel, Some((version, schema))) => run(
                sql,
                "INSERT INTO partysync_channel VALUES (?, ?, ?) ON CONFLICT (channel)
                 DO UPDATE SET version = excluded.version, schema = excluded.schema",
                &params![*channel, integer(*version)?, schema.as_str()],
            ),
            Write::Row { channel, key, row: Some(row) } => run(
                sql,
                "INSERT OR REPLACE INTO partysync_row VALUES (?, ?, ?)",
                &params![*channel, key.as_str(), row.to_string()],
            ),
            Write::Row { channel, key, row: None } => run(
                sql,
                "DELETE FROM partysync_row WHERE channel = ? AND key = ?",
                &params![*channel, key.as_str()],
            ),
            Write::Act { seq, channel, action, made_at } => {
                let seq = integer(*seq)?;
                run(
                    sql,
                    "INSERT INTO partysync_pending VALUES (?, ?, ?, ?, 0)",
                    &params![seq, channel.as_str(), action.to_string(), *made_at],
                )?;
                run(sql, "UPDATE partysync_replica SET next_seq = ?", &params![seq + 1])
            }
            Write::Answered(seq) => {
                run(sql, "DELETE FROM partysync_pending WHERE seq = ?", &params![integer(*seq)?])
            }
            Write::Pushed(seq) => {
                run(sql, "UPDATE partysync_replica SET pushed = ?", &params![integer(*seq)?])
            }
            Write::Attempts(seq, attempts) => run(
                sql,
                "UPDATE partysync_pending SET attempts = ? WHERE seq = ?",
                &params![*attempts, integer(*seq)?],
            ),
            Write::Client(client) => run(
                sql,
                "UPDATE partysync_replica SET client = ?, pushed = 0",
                &params![client.as_str()],
            ),
        }
    }
}

fn run(sql: &dyn Sql, statement: &str, params: &[Value]) -> Result<()> {
    sql.run(statement, params, &mut |_| Ok(()))
}

fn parse(json: &str) -> Result<Json> {
    serde_json::from_str(json)
        .map_err(|e| Error::new(Code::InvalidValue, format!("the stored replica: {e}")))
}

fn integer(n: u64) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::new(Code::InvalidValue, format!("{n} is too large")))
}
