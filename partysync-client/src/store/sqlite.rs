//! [`SqliteStore`]: a replica in a SQLite file, for desktop and command-line programs.

use super::saved::Fit;
use super::{Outbox, RowsWrite, Saved, SavedAction, SavedChannel, Store, Stored, Write};
use futures::future;
use partysync::sql::{Sql, Sqlite, Value};
use partysync::{Code, Error, Result, params};
use serde_json::Value as Json;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS partysync_replica (
        id INTEGER PRIMARY KEY CHECK (id = 1), client TEXT NOT NULL, epoch TEXT,
        next_seq INTEGER NOT NULL, pushed INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_channel (
        channel TEXT NOT NULL PRIMARY KEY, epoch TEXT NOT NULL, version INTEGER,
        schema TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_row (
        channel TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL,
        PRIMARY KEY (channel, key)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS partysync_pending (
        seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, action TEXT NOT NULL,
        made_at INTEGER NOT NULL, blame INTEGER NOT NULL) STRICT",
];

/// Keeps a replica in a SQLite database. Each batch of writes is one transaction: a program that
/// is killed at any moment finds a replica that once was whole.
///
/// One file holds one replica: it is locked as long as the store lives.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// use partysync_client::store::SqliteStore;
///
/// let store = SqliteStore::in_memory()?;
/// assert_eq!(store.load_now()?.outbox, None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    db: Mutex<Sqlite>,
}

impl SqliteStore {
    /// The replica in this file, made if it is not there.
    ///
    /// # Errors
    /// [`Code::Sql`] when the file cannot be opened, is no database, or is in use.
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
        let sql: &dyn Sql = &db;
        // Two programs that push under one client id would take each other's seqs.
        run(sql, "PRAGMA locking_mode = EXCLUSIVE", &[])?;
        sql.transaction(&mut || TABLES.iter().try_for_each(|table| run(sql, table, &[])))?;
        // A transaction that writes nothing takes no lock.
        run(sql, "DELETE FROM partysync_replica WHERE FALSE", &[])?;
        Ok(Self { db: Mutex::new(db) })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Sqlite>> {
        let broken = |_| Error::new(Code::Store, "the store broke in another thread");
        self.db.lock().map_err(broken)
    }

    /// What is kept.
    ///
    /// # Errors
    /// [`Code::Sql`], or [`Code::InvalidValue`] when it is not what a store has written.
    pub fn load_now(&self) -> Result<Saved> {
        let db = self.lock()?;
        let sql: &dyn Sql = &*db;
        let mut saved = Saved::default();
        let replica = "SELECT client, epoch, next_seq, pushed FROM partysync_replica";
        saved.outbox = sql.query_opt(replica, [], |row| {
            Ok(Outbox {
                client: row.get(0)?,
                epoch: row.get(1)?,
                next_seq: row.get::<i64>(2)?.unsigned_abs(),
                pushed: row.get::<i64>(3)?.unsigned_abs(),
                ..Outbox::default()
            })
        })?;
        sql.run(
            "SELECT channel, epoch, version, schema FROM partysync_channel",
            &[],
            &mut |row| {
                let version: Option<i64> = row.get(2)?;
                let channel = SavedChannel {
                    epoch: row.get(1)?,
                    version: version.map(i64::unsigned_abs),
                    schema: row.get(3)?,
                    ..SavedChannel::default()
                };
                saved.channels.insert(row.get(0)?, channel);
                Ok(())
            },
        )?;
        sql.run("SELECT channel, key, row FROM partysync_row", &[], &mut |row| {
            let channel: String = row.get(0)?;
            let json = parse(&row.get::<String>(2)?)?;
            saved.channels.entry(channel).or_default().rows.insert(row.get(1)?, json);
            Ok(())
        })?;
        let Some(outbox) = &mut saved.outbox else { return Ok(saved) };
        let pending = "SELECT seq, channel, action, made_at, blame FROM partysync_pending";
        sql.run(pending, &[], &mut |row| {
            let action = SavedAction {
                channel: row.get(1)?,
                action: parse(&row.get::<String>(2)?)?,
                made_at: row.get(3)?,
                blame: row.get(4)?,
            };
            outbox.pending.insert(row.get::<i64>(0)?.unsigned_abs(), action);
            Ok(())
        })?;
        Ok(saved)
    }

    /// Keeps these writes in one transaction.
    ///
    /// # Errors
    /// [`Code::Sql`].
    pub fn write_now(&self, client: &str, writes: &[Write]) -> Result<()> {
        let db = self.lock()?;
        let sql: &dyn Sql = &*db;
        sql.transaction(&mut || {
            let fresh = "INSERT OR IGNORE INTO partysync_replica VALUES (1, ?, NULL, 1, 0)";
            run(sql, fresh, &params![client])?;
            writes.iter().try_for_each(|write| apply(sql, write))
        })
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Stored<'_, Saved> {
        Box::pin(future::ready(self.load_now()))
    }

    fn write<'a>(&'a self, client: &'a str, writes: Vec<Write>) -> Stored<'a, ()> {
        Box::pin(future::ready(self.write_now(client, &writes)))
    }
}

fn apply(sql: &dyn Sql, write: &Write) -> Result<()> {
    match write {
        Write::Rows(rows) => apply_rows(sql, rows),
        Write::Stale(channel) => run(
            sql,
            "UPDATE partysync_channel SET version = NULL WHERE channel = ?",
            &params![*channel],
        ),
        Write::Epoch(epoch) => {
            run(sql, "UPDATE partysync_replica SET epoch = ?", &params![epoch.as_str()])
        }
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
        Write::Blame(seq, blame) => run(
            sql,
            "UPDATE partysync_pending SET blame = ? WHERE seq = ?",
            &params![*blame, integer(*seq)?],
        ),
        Write::Client(client) => run(
            sql,
            "UPDATE partysync_replica SET client = ?, pushed = 0",
            &params![client.as_str()],
        ),
    }
}

fn apply_rows(sql: &dyn Sql, write: &RowsWrite) -> Result<()> {
    let kept = sql.query_opt(
        "SELECT epoch, schema, version FROM partysync_channel WHERE channel = ?",
        params![write.channel],
        |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<Option<i64>>(2)?)),
    )?;
    let (epoch, schema, version) = kept.unwrap_or_default();
    match write.fits(&epoch, &schema, version.map(i64::unsigned_abs)) {
        Fit::Not => return Ok(()),
        Fit::Over => {}
        Fit::Instead => {
            run(sql, "DELETE FROM partysync_row WHERE channel = ?", &params![write.channel])?;
        }
    }
    run(
        sql,
        "INSERT OR REPLACE INTO partysync_channel VALUES (?, ?, ?, ?)",
        &params![write.channel, write.epoch.as_str(), integer(write.to)?, write.schema.as_str()],
    )?;
    for (key, row) in &write.rows {
        match row {
            Some(row) => run(
                sql,
                "INSERT OR REPLACE INTO partysync_row VALUES (?, ?, ?)",
                &params![write.channel, key.as_str(), row.to_string()],
            )?,
            None => run(
                sql,
                "DELETE FROM partysync_row WHERE channel = ? AND key = ?",
                &params![write.channel, key.as_str()],
            )?,
        }
    }
    Ok(())
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
