//! [`SqliteStore`]: a replica in a SQLite file, for desktop and command-line programs.

use super::saved::Fit;
use super::{
    Abandoned, Outbox, RowsWrite, Saved, SavedAction, SavedChannel, Store, Stored, Suspicion, Write,
};
use crate::place::Place;
use futures::FutureExt;
use futures::channel::oneshot;
use partysync::sql::{Sql, Sqlite, Value};
use partysync::{Code, Error, Result, Timestamp, params};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

const TABLES: [&str; 7] = [
    "CREATE TABLE IF NOT EXISTS partysync_place (name TEXT NOT NULL PRIMARY KEY) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_outbox (
        client TEXT NOT NULL PRIMARY KEY, pushed INTEGER NOT NULL, pushed_at INTEGER) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_pending (
        client TEXT NOT NULL, seq INTEGER NOT NULL, channel TEXT NOT NULL, action TEXT NOT NULL,
        made_at INTEGER NOT NULL, points INTEGER NOT NULL, millis INTEGER NOT NULL,
        PRIMARY KEY (client, seq)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS partysync_channel (
        channel TEXT NOT NULL PRIMARY KEY, epoch TEXT NOT NULL, version INTEGER,
        schema TEXT NOT NULL, view TEXT) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_row (
        channel TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL,
        PRIMARY KEY (channel, key)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS partysync_abandoned (
        id TEXT NOT NULL PRIMARY KEY, channel TEXT NOT NULL, action TEXT NOT NULL,
        made_at INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS partysync_identity (identity TEXT NOT NULL) STRICT",
];

/// Keeps a replica in a SQLite database. Each batch of writes is one transaction: a program that
/// is killed at any moment finds a replica that once was whole.
///
/// One file holds one replica: it is locked as long as the store lives.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// use partysync_client::store::{Saved, SqliteStore};
///
/// let store = SqliteStore::in_memory()?;
/// // Nobody else has this file: what stands in it was left behind by a client that has ended.
/// assert_eq!(store.read()?, Saved { alone: true, ..Saved::default() });
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    file: Arc<File>,
    /// What is done in the store's thread, in turn: a disk that takes its time holds up nothing
    /// else of the program.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct File {
    db: Mutex<Sqlite>,
    /// Whether its outboxes were handed out.
    opened: AtomicBool,
}

type Job = Box<dyn FnOnce(&File) + Send>;

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // What was asked for is done, and the file is let go of.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl SqliteStore {
    /// The replica of a place in this file, made if it is not there.
    ///
    /// # Errors
    /// [`Code::Sql`] when the file cannot be opened, is no database, or is in use by another
    /// program, for which it waits some seconds; [`Code::Storage`] when the disk is full;
    /// [`Code::Store`] when it keeps the replica of another place. A program that is to work all
    /// the same goes on with a [`MemoryStore`](super::MemoryStore).
    ///
    /// It does not return before the file is open: a task that waits for it keeps its thread. A
    /// client of this program that had the file lets go of it when its
    /// [`closed`](crate::SyncClient::closed) returns, and not before.
    pub fn open(path: impl AsRef<Path>, place: &Place) -> Result<Self> {
        let path = path.as_ref();
        let store = Sqlite::open(path).and_then(Self::of);
        let store = store.map_err(|error| error.context(path.display()))?;
        store.is_of(place).map_err(|error| error.context(path.display()))?;
        Ok(store)
    }

    /// What was made in one room is not to be sent to another, nor what one user made in the name
    /// of the next.
    fn is_of(&self, place: &Place) -> Result<()> {
        let (db, wanted) = (self.file.lock()?, place.to_string());
        let sql: &dyn Sql = &*db;
        let kept = "SELECT name FROM partysync_place";
        match sql.query_opt(kept, [], |row| row.get::<String>(0))? {
            None => run(sql, "INSERT INTO partysync_place VALUES (?)", &params![wanted]),
            Some(kept) if kept == wanted => Ok(()),
            Some(kept) => {
                let message = format!("the file keeps `{kept}`: use another for `{wanted}`");
                Err(Error::new(Code::Store, message))
            }
        }
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
        run(sql, "PRAGMA secure_delete = ON", &[])?;
        sql.transaction(&mut || TABLES.iter().try_for_each(|table| run(sql, table, &[])))?;
        // A transaction that writes nothing takes no lock.
        run(sql, "DELETE FROM partysync_outbox WHERE FALSE", &[])?;
        let file = Arc::new(File { db: Mutex::new(db), opened: AtomicBool::new(false) });
        let (jobs, asked) = channel::<Job>();
        let own = file.clone();
        let thread = std::thread::Builder::new()
            .name("partysync-store".to_owned())
            .spawn(move || asked.into_iter().for_each(|job| job(&own)))
            .map_err(|error| {
                Error::new(Code::Store, format!("no thread for the store: {error}"))
            })?;
        Ok(Self { file, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does something in the store's thread.
    fn ask<T: Send + 'static>(
        &self,
        body: impl FnOnce(&File) -> Result<T> + Send + 'static,
    ) -> Stored<'_, T> {
        let (told, answer) = oneshot::channel();
        let job: Job = Box::new(move |file| drop(told.send(body(file))));
        // Without a thread `answer` ends, too.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
        let broken = |_| Err(Error::new(Code::Store, "the store's thread has ended"));
        Box::pin(answer.map(move |answer| answer.unwrap_or_else(broken)))
    }

    /// What is kept.
    ///
    /// # Errors
    /// [`Code::Sql`], or [`Code::InvalidValue`] when it is not what a store has written.
    pub fn read(&self) -> Result<Saved> {
        self.file.read()
    }

    /// Keeps these writes in one transaction.
    ///
    /// # Errors
    /// [`Code::Sql`].
    pub fn write_now(&self, writes: &[Write]) -> Result<()> {
        self.file.write(writes)
    }
}

impl File {
    fn lock(&self) -> Result<MutexGuard<'_, Sqlite>> {
        let broken = |_| Error::new(Code::Store, "the store broke in another thread");
        self.db.lock().map_err(broken)
    }

    fn read(&self) -> Result<Saved> {
        let db = self.lock()?;
        let sql: &dyn Sql = &*db;
        let mut saved = Saved { alone: true, ..Saved::default() };
        sql.run(
            "SELECT channel, epoch, version, schema, view FROM partysync_channel",
            &[],
            &mut |row| {
                let version: Option<i64> = row.get(2)?;
                let channel = SavedChannel {
                    epoch: row.get(1)?,
                    version: version.map(i64::unsigned_abs),
                    schema: row.get(3)?,
                    view: row.get(4)?,
                    ..SavedChannel::default()
                };
                saved.channels.insert(row.get(0)?, channel);
                Ok(())
            },
        )?;
        let mut unreadable = BTreeSet::new();
        sql.run("SELECT channel, key, row FROM partysync_row", &[], &mut |row| {
            let channel: String = row.get(0)?;
            // Rows that cannot be read are fetched anew, with all of their channel.
            match parse(&row.get::<String>(2)?) {
                Ok(json) => {
                    let channel = saved.channels.entry(channel).or_default();
                    channel.rows.insert(row.get(1)?, json);
                }
                Err(_) => drop(unreadable.insert(channel)),
            }
            Ok(())
        })?;
        for channel in &unreadable {
            run(sql, "DELETE FROM partysync_row WHERE channel = ?", &params![channel.as_str()])?;
            run(
                sql,
                "DELETE FROM partysync_channel WHERE channel = ?",
                &params![channel.as_str()],
            )?;
            saved.channels.remove(channel);
        }
        let mut outboxes: BTreeMap<String, Outbox> = BTreeMap::new();
        let heads = "SELECT client, pushed, pushed_at FROM partysync_outbox";
        sql.run(heads, &[], &mut |row| {
            let outbox = Outbox {
                client: row.get(0)?,
                pushed: row.get::<i64>(1)?.unsigned_abs(),
                pushed_at: row.get(2)?,
                ..Outbox::default()
            };
            outboxes.insert(outbox.client.clone(), outbox);
            Ok(())
        })?;
        let pending =
            "SELECT client, seq, channel, action, made_at, points, millis FROM partysync_pending";
        sql.run(pending, &[], &mut |row| {
            let action = SavedAction {
                channel: row.get(2)?,
                // What cannot be read the server answers, and its seq is not missed.
                action: parse(&row.get::<String>(3)?).unwrap_or_default(),
                made_at: row.get(4)?,
                suspicion: Suspicion {
                    points: row.get(5)?,
                    millis: row.get::<i64>(6)?.unsigned_abs(),
                },
            };
            let client: String = row.get(0)?;
            let outbox = outboxes.entry(client.clone()).or_insert_with(|| Outbox::new(client));
            outbox.pending.insert(row.get::<i64>(1)?.unsigned_abs(), action);
            Ok(())
        })?;
        saved.outboxes = outboxes.into_values().filter(|o| !o.pending.is_empty()).collect();
        let abandoned =
            "SELECT id, channel, action, made_at, code, message FROM partysync_abandoned";
        sql.run(abandoned, &[], &mut |row| {
            let abandoned = Abandoned {
                channel: row.get(1)?,
                action: parse(&row.get::<String>(2)?).unwrap_or_default(),
                made_at: row.get(3)?,
                code: row.get(4)?,
                message: row.get(5)?,
            };
            saved.abandoned.insert(row.get(0)?, abandoned);
            Ok(())
        })?;
        sql.run("SELECT identity FROM partysync_identity", &[], &mut |row| {
            // One that cannot be read is asked for anew.
            saved.identity = serde_json::from_str(&row.get::<String>(0)?).ok();
            Ok(())
        })?;
        Ok(saved)
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let db = self.lock()?;
        let sql: &dyn Sql = &*db;
        sql.transaction(&mut || writes.iter().try_for_each(|write| apply(sql, write)))
    }

    fn delete(&self) -> Result<()> {
        let tables = ["place", "outbox", "pending", "channel", "row", "abandoned", "identity"];
        let db = self.lock()?;
        let sql: &dyn Sql = &*db;
        sql.transaction(&mut || {
            let delete = |table| run(sql, &format!("DELETE FROM partysync_{table}"), &[]);
            tables.into_iter().try_for_each(delete)
        })?;
        // Nor is it to be read in what the file does not use any more.
        run(sql, "VACUUM", &[])?;
        run(sql, "PRAGMA wal_checkpoint(TRUNCATE)", &[])
    }
}

impl Store for SqliteStore {
    fn open<'a>(&'a self, _: &'a str) -> Stored<'a, Saved> {
        self.ask(|file| {
            let mut saved = file.read()?;
            if file.opened.swap(true, Ordering::Relaxed) {
                saved.outboxes.clear();
            }
            Ok(saved)
        })
    }

    fn write(&self, writes: Vec<Write>) -> Stored<'_, ()> {
        self.ask(move |file| file.write(&writes))
    }

    fn delete(&self) -> Stored<'_, ()> {
        self.ask(File::delete)
    }
}

fn insert_action(sql: &dyn Sql, client: &str, seq: u64, saved: &SavedAction) -> Result<()> {
    let SavedAction { channel, action, made_at, suspicion } = saved;
    run(
        sql,
        "INSERT OR REPLACE INTO partysync_pending VALUES (?, ?, ?, ?, ?, ?, ?)",
        &params![
            client,
            integer(seq)?,
            channel.as_str(),
            action.to_string(),
            *made_at,
            suspicion.points,
            integer(suspicion.millis)?
        ],
    )
}

fn set_pushed(sql: &dyn Sql, client: &str, seq: u64, at: Option<Timestamp>) -> Result<()> {
    run(
        sql,
        "INSERT OR REPLACE INTO partysync_outbox VALUES (?, ?, ?)",
        &params![client, integer(seq)?, at],
    )
}

/// Lets go of an outbox in which nothing is left.
fn remove_if_empty(sql: &dyn Sql, client: &str) -> Result<()> {
    run(
        sql,
        "DELETE FROM partysync_outbox WHERE client = ?1 \
         AND NOT EXISTS (SELECT 1 FROM partysync_pending WHERE client = ?1)",
        &params![client],
    )
}

fn apply(sql: &dyn Sql, write: &Write) -> Result<()> {
    match write {
        Write::Rows(rows) => apply_rows(sql, rows),
        Write::Stale(channel) => run(
            sql,
            "UPDATE partysync_channel SET version = NULL WHERE channel = ?",
            &params![*channel],
        ),
        Write::Outbox(Outbox { client, pushed, pushed_at, pending }) => {
            let client = client.as_str();
            run(sql, "DELETE FROM partysync_pending WHERE client = ?", &params![client])?;
            pending.iter().try_for_each(|(seq, saved)| insert_action(sql, client, *seq, saved))?;
            set_pushed(sql, client, *pushed, *pushed_at)?;
            remove_if_empty(sql, client)
        }
        Write::Act { client, seq, action } => insert_action(sql, client, *seq, action),
        Write::Answered { client, from, to } => {
            run(
                sql,
                "DELETE FROM partysync_pending WHERE client = ? AND seq BETWEEN ? AND ?",
                &params![&**client, integer(*from)?, integer(*to)?],
            )?;
            remove_if_empty(sql, client)
        }
        Write::Pushed { client, seq, at } => set_pushed(sql, client, *seq, Some(*at)),
        Write::Suspect { client, seq, suspicion } => run(
            sql,
            "UPDATE partysync_pending SET points = ?, millis = ? WHERE client = ? AND seq = ?",
            &params![suspicion.points, integer(suspicion.millis)?, &**client, integer(*seq)?],
        ),
        Write::Abandon { id, abandoned } => {
            let Abandoned { channel, action, made_at, code, message } = abandoned;
            run(
                sql,
                "INSERT OR REPLACE INTO partysync_abandoned VALUES (?, ?, ?, ?, ?, ?)",
                &params![
                    id.as_str(),
                    channel.as_str(),
                    action.to_string(),
                    *made_at,
                    code.as_str(),
                    message.as_str()
                ],
            )
        }
        Write::Discard(id) => {
            run(sql, "DELETE FROM partysync_abandoned WHERE id = ?", &params![id.as_str()])
        }
        Write::Identity(identity) => {
            run(sql, "DELETE FROM partysync_identity", &[])?;
            let Some(identity) = identity else { return Ok(()) };
            let text = serde_json::to_string(identity)
                .map_err(|e| Error::new(Code::InvalidValue, format!("an identity: {e}")))?;
            run(sql, "INSERT INTO partysync_identity VALUES (?)", &params![text])
        }
    }
}

fn apply_rows(sql: &dyn Sql, write: &RowsWrite) -> Result<()> {
    let kept = sql.query_opt(
        "SELECT epoch, schema, view, version FROM partysync_channel WHERE channel = ?",
        params![write.channel],
        |row| {
            let (epoch, schema) = (row.get::<String>(0)?, row.get::<String>(1)?);
            Ok((epoch, schema, row.get::<Option<String>>(2)?, row.get::<Option<i64>>(3)?))
        },
    )?;
    let (epoch, schema, view, version) = kept.unwrap_or_default();
    match write.fits(&epoch, &schema, view.as_deref(), version.map(i64::unsigned_abs)) {
        Fit::Not => return Ok(()),
        Fit::Over => {}
        Fit::Instead => {
            run(sql, "DELETE FROM partysync_row WHERE channel = ?", &params![write.channel])?;
        }
    }
    run(
        sql,
        "INSERT OR REPLACE INTO partysync_channel VALUES (?, ?, ?, ?, ?)",
        &params![
            write.channel,
            write.epoch.as_str(),
            integer(write.to)?,
            write.schema.as_str(),
            &write.view
        ],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_its_time_holds_up_nothing_else() -> Result<()> {
        let store = SqliteStore::in_memory()?;
        let (go, waits) = channel::<()>();
        let slow = store.ask(move |_| Ok(waits.recv().is_ok()));
        // Asked for meanwhile: it waits, and whoever asks does not.
        let mut write = store.write(Vec::new());
        assert!((&mut write).now_or_never().is_none());
        let _ = go.send(());
        assert!(futures::executor::block_on(slow)?);
        futures::executor::block_on(write)
    }

    #[test]
    fn what_was_asked_for_is_done_when_the_store_has_gone() -> Result<()> {
        let store = SqliteStore::in_memory()?;
        let (done, hears) = channel::<()>();
        drop(store.ask(move |_| Ok(done.send(()).is_ok())));
        drop(store);
        assert!(hears.recv().is_ok());
        Ok(())
    }
}
