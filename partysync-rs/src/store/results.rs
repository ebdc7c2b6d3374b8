//! What actions were answered with, as long as their clients may ask for it again. The table is made
//! with the first: a room whose actions give no results pays nothing for them.

use super::integer;
use crate::sql::Sql;
use crate::{Code, Error, Result, params};
use serde_json::Value as Json;

pub(super) const TABLE: &str = "_partysync_result";

/// Makes the table, unless it is there.
pub(crate) fn make_results(sql: &dyn Sql) -> Result<()> {
    sql.exec(
        "CREATE TABLE IF NOT EXISTS _partysync_result (
            client TEXT NOT NULL, seq INTEGER NOT NULL, result TEXT NOT NULL,
            PRIMARY KEY (client, seq)) STRICT, WITHOUT ROWID",
        &[],
    )
}

/// Keeps the result of an action, so that a resend is answered the same.
pub(crate) fn add_result(sql: &dyn Sql, client: &str, seq: u64, result: &str) -> Result<()> {
    sql.exec(
        "INSERT OR REPLACE INTO _partysync_result (client, seq, result) VALUES (?, ?, ?)",
        &params![client, integer(seq), result],
    )
}

/// The result of an action that was done before, and the bytes that it has.
pub(crate) fn result(sql: &dyn Sql, client: &str, seq: u64) -> Result<Option<(Json, usize)>> {
    let kept = "SELECT result FROM _partysync_result WHERE client = ? AND seq = ?";
    let kept = sql.query_opt(kept, params![client, integer(seq)], |row| row.get::<String>(0))?;
    let read = |text: String| match serde_json::from_str(&text) {
        Ok(json) => Ok((json, text.len())),
        Err(error) => Err(Error::new(Code::Storage, format!("a result that was kept: {error}"))),
    };
    kept.map(read).transpose()
}

/// The last action of a client whose result is kept; 0 when there is none.
pub(crate) fn last_result(sql: &dyn Sql, client: &str) -> Result<u64> {
    let last = "SELECT coalesce(max(seq), 0) FROM _partysync_result WHERE client = ?";
    sql.query_one(last, params![client], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))
}

/// The client has the answers up to this seq: their results need not be kept.
pub(crate) fn forget_results(sql: &dyn Sql, client: &str, seq: u64) -> Result<()> {
    let forget = "DELETE FROM _partysync_result WHERE client = ? AND seq <= ?";
    sql.exec(forget, &params![client, integer(seq)])
}
