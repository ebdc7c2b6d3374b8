//! The framework's tables: epoch, version and time; the change log; what each client was
//! answered.

use super::Limits;
use crate::record::Schema;
use crate::sql::{Sql, quote};
use crate::{Code, Error, Result, Timestamp, params};

const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS _partysync_meta (
        id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, version INTEGER NOT NULL,
        now INTEGER NOT NULL, trimmed_to INTEGER NOT NULL DEFAULT 0,
        trimmed_at INTEGER NOT NULL DEFAULT 0, trim_at INTEGER, alarm_at INTEGER) STRICT",
    "CREATE TABLE IF NOT EXISTS _partysync_schema (
        channel TEXT NOT NULL PRIMARY KEY, columns TEXT NOT NULL) STRICT, WITHOUT ROWID",
    // A key keeps the type of its table's: the column has none.
    "CREATE TABLE IF NOT EXISTS _partysync_change (
        channel TEXT NOT NULL, key NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (channel, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS _partysync_change_version ON _partysync_change (channel, version)",
    "CREATE TABLE IF NOT EXISTS _partysync_client (
        client TEXT NOT NULL PRIMARY KEY, seq INTEGER NOT NULL, seen_at INTEGER NOT NULL)
        STRICT, WITHOUT ROWID",
];

const REJECTS: &str = "CREATE TABLE IF NOT EXISTS _partysync_reject (
    client TEXT NOT NULL, seq INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (client, seq)) STRICT, WITHOUT ROWID";

/// What `_partysync_meta` holds.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) epoch: String,
    pub(crate) version: u64,
    pub(crate) now: Timestamp,
    pub(crate) trimmed_to: u64,
    pub(crate) trimmed_at: i64,
}

fn run(sql: &dyn Sql, statement: &str, params: impl AsRef<[crate::sql::Value]>) -> Result<()> {
    sql.run(statement, params.as_ref(), &mut |_| Ok(()))
}

/// Makes the tables if they are not there and reads the meta row. Runs in a transaction.
pub(crate) fn open(sql: &dyn Sql, now: Timestamp, fresh_epoch: &str) -> Result<Meta> {
    for table in TABLES.iter().chain([&REJECTS]) {
        run(sql, table, [])?;
    }
    run(
        sql,
        "INSERT INTO _partysync_meta (id, epoch, version, now) VALUES (1, ?, 0, ?)
         ON CONFLICT (id) DO UPDATE SET now = max(now, excluded.now)",
        params![fresh_epoch.to_owned(), now],
    )?;
    sql.query_one(
        "SELECT epoch, version, now, trimmed_to, trimmed_at FROM _partysync_meta",
        [],
        |row| {
            Ok(Meta {
                epoch: row.get(0)?,
                version: row.get::<i64>(1)?.unsigned_abs(),
                now: row.get(2)?,
                trimmed_to: row.get::<i64>(3)?.unsigned_abs(),
                trimmed_at: row.get(4)?,
            })
        },
    )
}

pub(crate) fn set_now(sql: &dyn Sql, now: Timestamp) -> Result<()> {
    run(sql, "UPDATE _partysync_meta SET now = ?", params![now])
}

pub(crate) fn set_version(sql: &dyn Sql, version: u64) -> Result<()> {
    run(sql, "UPDATE _partysync_meta SET version = ?", params![to_sql(version)?])
}

/// Whether rows changed that belong to no version yet.
pub(crate) fn has_unversioned(sql: &dyn Sql, schemas: &[&Schema], version: u64) -> Result<bool> {
    for schema in schemas {
        let found = sql.query_opt(
            "SELECT 1 FROM _partysync_change WHERE channel = ? AND version > ? LIMIT 1",
            params![schema.table.to_owned(), to_sql(version)?],
            |row| row.get::<i64>(0),
        )?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last seq of a client that was answered; `None` for one never seen.
pub(crate) fn client_seq(sql: &dyn Sql, client: &str) -> Result<Option<u64>> {
    sql.query_opt(
        "SELECT seq FROM _partysync_client WHERE client = ?",
        params![client.to_owned()],
        |row| Ok(row.get::<i64>(0)?.unsigned_abs()),
    )
}

pub(crate) fn set_client_seq(sql: &dyn Sql, client: &str, seq: u64, now: Timestamp) -> Result<()> {
    run(
        sql,
        "INSERT INTO _partysync_client (client, seq, seen_at) VALUES (?, ?, ?)
         ON CONFLICT (client) DO UPDATE SET seq = excluded.seq, seen_at = excluded.seen_at",
        params![client.to_owned(), to_sql(seq)?, now],
    )
}

/// Remembers that an action was refused, so that a resend hears the same.
pub(crate) fn add_reject(sql: &dyn Sql, client: &str, seq: u64, error: &Error) -> Result<()> {
    run(
        sql,
        "INSERT INTO _partysync_reject (client, seq, code, message) VALUES (?, ?, ?, ?)",
        params![
            client.to_owned(),
            to_sql(seq)?,
            error.code().as_str().to_owned(),
            error.message().to_owned()
        ],
    )
}

/// What an action that was answered before was answered.
pub(crate) fn outcome(sql: &dyn Sql, client: &str, seq: u64) -> Result<Result<()>> {
    let reject = sql.query_opt(
        "SELECT code, message FROM _partysync_reject WHERE client = ? AND seq = ?",
        params![client.to_owned(), to_sql(seq)?],
        |row| Ok(Error::new(Code::from_name(&row.get::<String>(0)?), row.get::<String>(1)?)),
    )?;
    Ok(reject.map_or(Ok(()), Err))
}

/// The client has these answers: they need not be kept.
pub(crate) fn forget_rejects(sql: &dyn Sql, client: &str, seq: u64) -> Result<()> {
    run(
        sql,
        "DELETE FROM _partysync_reject WHERE client = ? AND seq <= ?",
        params![client.to_owned(), to_sql(seq)?],
    )
}

/// When the application wants its alarm.
pub(crate) fn set_alarm(sql: &dyn Sql, at: Option<Timestamp>) -> Result<()> {
    run(sql, "UPDATE _partysync_meta SET alarm_at = ?", params![at])
}

/// Sets a time for trimming if there is none yet.
pub(crate) fn plan_trim(sql: &dyn Sql, at: Timestamp) -> Result<()> {
    run(sql, "UPDATE _partysync_meta SET trim_at = ? WHERE trim_at IS NULL", params![at])
}

/// The application's alarm and the framework's.
pub(crate) fn alarms(sql: &dyn Sql) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
    sql.query_one("SELECT alarm_at, trim_at FROM _partysync_meta", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Forgets old deletions and clients long unseen.
pub(crate) fn trim(
    sql: &dyn Sql,
    schemas: &[&Schema],
    limits: &Limits,
    meta: &mut Meta,
) -> Result<()> {
    let before = meta.now.plus_millis(-limits.retention_ms);
    let mut left: i64 = 0;
    for schema in schemas {
        let (table, key) = (schema.quoted(), quote(schema.key()?.name));
        let gone = format!(
            "FROM _partysync_change AS c WHERE c.channel = ? \
             AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.{key} = c.key)"
        );
        let channel = schema.table.to_owned();
        let (version, at) = sql.query_one(
            &format!("SELECT max(c.version), max(c.at) {gone} AND c.at <= ?"),
            params![channel, before],
            |row| Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?)),
        )?;
        if let (Some(version), Some(at)) = (version, at) {
            meta.trimmed_to = meta.trimmed_to.max(version.unsigned_abs());
            meta.trimmed_at = meta.trimmed_at.max(at);
            run(sql, &format!("DELETE {gone} AND c.at <= ?"), params![channel, before])?;
        }
        left += sql.query_one(&format!("SELECT count(*) {gone}"), params![channel], |row| {
            row.get::<i64>(0)
        })?;
    }
    let unseen = meta.now.plus_millis(-limits.client_retention_ms);
    run(
        sql,
        "DELETE FROM _partysync_reject WHERE client IN
         (SELECT client FROM _partysync_client WHERE seen_at <= ?)",
        params![unseen],
    )?;
    run(sql, "DELETE FROM _partysync_client WHERE seen_at <= ?", params![unseen])?;
    left += sql.query_one("SELECT count(*) FROM _partysync_client", [], |row| row.get::<i64>(0))?;
    let next = (left > 0).then(|| meta.now.plus_millis(limits.retention_ms));
    run(
        sql,
        "UPDATE _partysync_meta SET trimmed_to = ?, trimmed_at = ?, trim_at = ?",
        params![to_sql(meta.trimmed_to)?, meta.trimmed_at, next],
    )
}

/// A version or seq as SQL stores it.
pub(crate) fn to_sql(n: u64) -> Result<i64> {
    i64::try_from(n)
        .map_err(|_| Error::new(Code::InvalidFrame, format!("{n} is too large a number")))
}
