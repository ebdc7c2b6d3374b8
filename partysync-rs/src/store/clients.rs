//! What each client was answered: the seq of its last action, and which of them were refused.

use super::integer;
use crate::sql::Sql;
use crate::{Code, Error, Result, Timestamp, params};

/// The last seq of a client that was answered; `None` for one that the room does not know.
pub(crate) fn client_seq(sql: &dyn Sql, client: &str) -> Result<Option<u64>> {
    let known = "SELECT seq FROM _partysync_client WHERE client = ?";
    sql.query_opt(known, params![client], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))
}

/// Notes the last seq of a client that was answered.
pub(crate) fn set_client_seq(sql: &dyn Sql, client: &str, seq: u64, now: Timestamp) -> Result<()> {
    sql.exec(
        "INSERT INTO _partysync_client (client, seq, seen_at) VALUES (?, ?, ?) \
         ON CONFLICT (client) DO UPDATE SET seq = excluded.seq, seen_at = excluded.seen_at",
        &params![client, integer(seq), now],
    )
}

/// Remembers that an action was refused, so that a resend is answered the same.
pub(crate) fn add_reject(sql: &dyn Sql, client: &str, seq: u64, error: &Error) -> Result<()> {
    sql.exec(
        "INSERT OR REPLACE INTO _partysync_reject (client, seq, code, message) VALUES (?, ?, ?, ?)",
        &params![client, integer(seq), error.code().as_str(), error.message()],
    )
}

/// What an action that was answered before was answered.
pub(crate) fn outcome(sql: &dyn Sql, client: &str, seq: u64) -> Result<Result<()>> {
    let reject = "SELECT code, message FROM _partysync_reject WHERE client = ? AND seq = ?";
    let reject = sql.query_opt(reject, params![client, integer(seq)], |row| {
        Ok(Error::new(Code::from_name(&row.get::<String>(0)?), row.get::<String>(1)?))
    })?;
    Ok(reject.map_or(Ok(()), Err))
}

/// The client has the answers up to this seq: they need not be kept.
pub(crate) fn forget_rejects(sql: &dyn Sql, client: &str, seq: u64) -> Result<()> {
    let forget = "DELETE FROM _partysync_reject WHERE client = ? AND seq <= ?";
    sql.exec(forget, &params![client, integer(seq)])
}
