//! What a room keeps in its database beside the records' rows: the only place that writes
//! `_partysync_*`.
//!
//! - [`Meta`]: epoch, time, alarms, how far the change log was trimmed
//! - the change log (`log.rs`): append-only; an entry's rowid is the room's version
//! - `jobs.rs`: what it does at a time
//! - `clients.rs`: what each client was answered
//! - `results.rs`: what its actions gave it
//! - `keys.rs`: how rows and entries of the log are found by keys
//! - `rows.rs`: pages of a table, and of what changed in it
//! - `filter.rs`, `predicate.rs`: which of it somebody may see
//! - `migrate.rs`, `triggers.rs`: the records' tables
//! - `apply.rs`: the SQL of derived actions
//! - `trim.rs`: what is forgotten, and the compaction of the log

pub(crate) mod apply;
mod clients;
mod filter;
mod jobs;
mod keys;
mod log;
mod migrate;
mod predicate;
mod results;
mod rows;
mod triggers;
mod trim;

pub(crate) use clients::{add_reject, client_seq, forget_rejects, outcome, set_client_seq};
pub(crate) use filter::Filter;
pub(crate) use jobs::{all_jobs, has_jobs, job, jobs, make_jobs, next_job, put_job, remove_job};
pub(crate) use keys::Keys;
pub(crate) use log::{
    changed_after, last_before, last_of, next_versions, set_alarm, set_forgetting, set_now, unsent,
};
pub(crate) use migrate::{Step, finish, hold_times, next_step};
pub(crate) use results::{add_result, forget_results, last_result, make_results, result};
pub(crate) use rows::{Change, Given, Plan};
pub(crate) use triggers::ROW_TOO_LARGE;
pub(crate) use trim::{compact, compaction_is_due, trim};

use crate::record::Schema;
use crate::sql::{Sql, Value};
use crate::{Code, Error, Result, Timestamp, params};

/// The format of these tables.
const FORMAT: u32 = 1;

const TABLES: [&str; 5] = [
    "CREATE TABLE _partysync_meta (
        id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL DEFAULT 1,
        epoch TEXT NOT NULL, name TEXT, now INTEGER NOT NULL,
        trimmed_to INTEGER NOT NULL DEFAULT 0, trimmed_at INTEGER NOT NULL DEFAULT 0,
        trimming INTEGER, compacting INTEGER NOT NULL DEFAULT 0,
        compact_parts INTEGER NOT NULL DEFAULT 0, compacted_to INTEGER NOT NULL DEFAULT 0,
        compacted_size INTEGER NOT NULL DEFAULT 0, compact_at INTEGER,
        trim_at INTEGER, alarm_at INTEGER, alarm_failures INTEGER NOT NULL DEFAULT 0) STRICT",
    "CREATE TABLE _partysync_schema (
        channel TEXT NOT NULL PRIMARY KEY, columns TEXT NOT NULL) STRICT, WITHOUT ROWID",
    // Only appended to, so that a commit touches the table's last page alone.
    "CREATE TABLE _partysync_change (
        version INTEGER PRIMARY KEY, channel INTEGER NOT NULL, key ANY NOT NULL,
        at INTEGER NOT NULL) STRICT",
    "CREATE TABLE _partysync_client (
        client TEXT NOT NULL PRIMARY KEY, seq INTEGER NOT NULL, seen_at INTEGER NOT NULL)
        STRICT, WITHOUT ROWID",
    "CREATE TABLE _partysync_reject (
        client TEXT NOT NULL, seq INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
        PRIMARY KEY (client, seq)) STRICT, WITHOUT ROWID",
];

/// What `_partysync_meta` holds, and the room's version. The room is the only writer of its
/// database: what was read once is not asked again.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) epoch: String,
    pub(crate) name: Option<String>,
    /// The version of the last entry of the change log.
    pub(crate) version: u64,
    pub(crate) now: Timestamp,
    pub(crate) trimmed_to: u64,
    pub(crate) trimmed_at: i64,
    /// Up to which entry the log was looked at, as long as old deletions are being forgotten.
    pub(crate) trimming: Option<u64>,
    /// How many parts of the log are still to be compacted, and how many it had.
    pub(crate) compacting: u64,
    pub(crate) compact_parts: u64,
    /// The version that the log was last compacted at, and how many entries it had then.
    pub(crate) compacted_to: u64,
    pub(crate) compacted_size: u64,
    /// When the log is compacted, as it has grown so much.
    pub(crate) compact_at: Option<Timestamp>,
    pub(crate) trim_at: Option<Timestamp>,
    pub(crate) alarm_at: Option<Timestamp>,
    /// How often `on_alarm` has failed since it last worked.
    pub(crate) alarm_failures: u32,
    /// Whether there is a table of jobs.
    pub(crate) has_jobs: bool,
    /// Whether there is a table of results.
    pub(crate) has_results: bool,
    /// When the next job runs.
    pub(crate) job_at: Option<Timestamp>,
    /// Whether there are rows of an older version of the application.
    pub(crate) migrates: bool,
    /// What whoever runs the room should know of the migration of its tables.
    pub(crate) notes: Vec<String>,
}

impl Meta {
    /// About how many entries the change log has, and never less.
    pub(crate) fn log_size(&self) -> u64 {
        self.compacted_size + self.version - self.compacted_to.min(self.version)
    }

    /// When the alarm has to ring next.
    pub(crate) fn next_alarm(&self) -> Option<Timestamp> {
        let Self { alarm_at, job_at, trim_at, compact_at, .. } = *self;
        [alarm_at, job_at, trim_at, compact_at].into_iter().flatten().min()
    }
}

/// Opens a room's database: makes the framework's tables in one that is new, and the records'
/// tables what their types say. Runs in a transaction.
///
/// # Errors
/// [`Code::Migration`] when a stored schema cannot be changed safely; nothing was altered.
pub(crate) fn open(
    sql: &dyn Sql,
    schemas: &[&'static Schema],
    now: Timestamp,
    fresh_epoch: &str,
) -> Result<Meta> {
    distinct(schemas)?;
    let known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN (?, ?, ?)";
    let names = params!["_partysync_meta", jobs::TABLE, results::TABLE];
    let known = sql.query_map(known, names, |row| row.get::<String>(0))?;
    let has_jobs = known.iter().any(|name| name == jobs::TABLE);
    let has_results = known.iter().any(|name| name == results::TABLE);
    if !known.iter().any(|name| name == "_partysync_meta") {
        for table in TABLES {
            sql.exec(table, &[])?;
        }
        let first = "INSERT INTO _partysync_meta (id, epoch, now) VALUES (1, ?, ?)";
        sql.exec(first, &params![fresh_epoch, now])?;
    }
    let format =
        sql.query_one("SELECT format FROM _partysync_meta", [], |row| row.get::<u32>(0))?;
    if format != FORMAT {
        let message = format!(
            "the room's tables are of format {format}, and this version of partysync reads {FORMAT}"
        );
        return Err(Error::new(Code::Migration, message));
    }
    let meta = "SELECT epoch, name, now, trimmed_to, trimmed_at, trimming, compacting, \
                compact_parts, compacted_to, compacted_size, compact_at, trim_at, alarm_at, \
                alarm_failures, \
                coalesce((SELECT max(version) FROM _partysync_change), 0) FROM _partysync_meta";
    let read = |row: &crate::sql::Row<'_>| {
        let unsigned = |index| row.get::<i64>(index).map(i64::unsigned_abs);
        Ok(Meta {
            epoch: row.get(0)?,
            name: row.get(1)?,
            now: row.get::<Timestamp>(2)?.max(now),
            trimmed_to: unsigned(3)?,
            trimmed_at: row.get(4)?,
            trimming: row.get::<Option<i64>>(5)?.map(i64::unsigned_abs),
            compacting: unsigned(6)?,
            compact_parts: unsigned(7)?,
            compacted_to: unsigned(8)?,
            compacted_size: unsigned(9)?,
            compact_at: row.get(10)?,
            trim_at: row.get(11)?,
            alarm_at: row.get(12)?,
            alarm_failures: row.get::<u32>(13)?,
            version: unsigned(14)?,
            has_jobs,
            has_results,
            job_at: None,
            migrates: false,
            notes: Vec::new(),
        })
    };
    let mut meta = sql.query_one(meta, [], read)?;
    if schemas.iter().any(|schema| schema.has_scope()) {
        keep_old(sql)?;
    }
    if has_jobs && !crate::__mutated("job_asleep") {
        meta.job_at = next_job(sql)?;
    }
    let migrated = migrate::migrate(schemas, sql)?;
    if !migrated.rewritten.is_empty() {
        start_over(sql, &mut meta)?;
    }
    (meta.migrates, meta.notes) = (migrated.due, migrated.notes);
    Ok(meta)
}

/// Has the log hold what a row was in the columns that views may name, before it changed there.
fn keep_old(sql: &dyn Sql) -> Result<()> {
    let columns =
        sql.query_map("PRAGMA table_info(_partysync_change)", [], |row| row.get::<String>(1))?;
    if columns.iter().any(|column| column == "old") {
        return Ok(());
    }
    sql.exec("ALTER TABLE _partysync_change ADD COLUMN old TEXT", &[])
}

/// Rows have changed without a version of their own: whoever has an older one starts over.
fn start_over(sql: &dyn Sql, meta: &mut Meta) -> Result<()> {
    // An entry of no channel's, for a version that nobody has.
    let entry =
        "INSERT INTO _partysync_change (channel, key, at) VALUES (0, 0, ?) RETURNING version";
    let version = sql.query_one(entry, params![meta.now], |row| row.get::<i64>(0))?;
    meta.version = version.unsigned_abs();
    (meta.trimmed_to, meta.trimmed_at) = (meta.version, meta.now.as_millis());
    let trimmed = "UPDATE _partysync_meta SET trimmed_to = ?, trimmed_at = ?";
    sql.exec(trimmed, &params![integer(meta.trimmed_to), meta.trimmed_at])
}

/// Keeps the room's name, for events that come without one.
pub(crate) fn set_name(sql: &dyn Sql, name: &str) -> Result<()> {
    sql.exec("UPDATE _partysync_meta SET name = ?", &params![name])
}

/// Gives the storage another epoch: every client starts over.
pub(crate) fn set_epoch(sql: &dyn Sql, epoch: &str) -> Result<()> {
    sql.exec("UPDATE _partysync_meta SET epoch = ?", &params![epoch])
}

/// A channel as the change log names it: the first 31 bits of the table's FNV-1a hash, which
/// stays the same whatever other tables there are.
pub(crate) fn channel_id(table: &str) -> i64 {
    i64::from(hash(table) >> 1)
}

/// FNV-1a, 32 bits.
pub(crate) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Refuses two tables whose names have the same hash, and one table twice.
fn distinct(schemas: &[&'static Schema]) -> Result<()> {
    for (index, schema) in schemas.iter().enumerate() {
        let id = channel_id(schema.table);
        if let Some(other) = schemas.iter().take(index).find(|o| channel_id(o.table) == id) {
            let (one, two) = (other.table, schema.table);
            let message = format!("tables `{one}` and `{two}` cannot be told apart: rename one");
            return Err(Error::new(Code::Migration, message));
        }
    }
    Ok(())
}

/// A version or seq as SQL stores it. Frames with larger numbers are refused where they are read.
pub(crate) fn integer(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}
