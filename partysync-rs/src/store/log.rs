//! The change log: one entry for each row that a statement touched, appended by triggers; its
//! rowid is the room's version.

use super::integer;
use crate::sql::Sql;
use crate::{Result, Timestamp, params};

/// Moves the room's time on, for the triggers and for SQL that asks for it.
pub(crate) fn set_now(sql: &dyn Sql, now: Timestamp) -> Result<()> {
    sql.exec("UPDATE _partysync_meta SET now = ?", &params![now])
}

/// When the application wants its alarm, and how often that has failed.
pub(crate) fn set_alarm(sql: &dyn Sql, at: Option<Timestamp>, failures: u32) -> Result<()> {
    let set = "UPDATE _partysync_meta SET alarm_at = ?, alarm_failures = ?";
    sql.exec(set, &params![at, failures])
}

/// When the framework wants to forget old deletions.
pub(crate) fn set_forgetting(
    sql: &dyn Sql,
    trim_at: Option<Timestamp>,
    compact_at: Option<Timestamp>,
) -> Result<()> {
    sql.exec(
        "UPDATE _partysync_meta SET trim_at = ?, compact_at = ?",
        &params![trim_at, compact_at],
    )
}

/// What was appended behind a version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unsent {
    /// The last version; the one asked for when nothing was appended.
    pub(crate) to: u64,
    /// The channels that changed, each with its last version.
    pub(crate) channels: Vec<(i64, u64)>,
    /// How many entries there are.
    pub(crate) entries: u64,
}

impl Unsent {
    pub(crate) fn nothing(version: u64) -> Self {
        Self { to: version, channels: Vec::new(), entries: 0 }
    }
}

/// What was appended behind `version`.
pub(crate) fn unsent(sql: &dyn Sql, version: u64) -> Result<Unsent> {
    let mut unsent = Unsent::nothing(version);
    let appended = "SELECT channel, max(version), count(*) FROM _partysync_change \
                    WHERE version > ? GROUP BY channel";
    sql.run(appended, &[integer(version)], &mut |row| {
        let last = row.get::<i64>(1)?.unsigned_abs();
        unsent.channels.push((row.get(0)?, last));
        unsent.to = unsent.to.max(last);
        unsent.entries += row.get::<i64>(2)?.unsigned_abs();
        Ok(())
    })?;
    Ok(unsent)
}

/// The version that at most `limit` entries of a channel behind `version` end with; `None` when
/// there is no entry.
pub(crate) fn next_versions(
    sql: &dyn Sql,
    channel: i64,
    version: u64,
    limit: u32,
) -> Result<Option<u64>> {
    let next = "SELECT max(version) FROM (SELECT version FROM _partysync_change \
                WHERE version > ? AND channel = ? ORDER BY version LIMIT ?)";
    sql.query_one(next, params![integer(version), channel, limit], |row| {
        Ok(row.get::<Option<i64>>(0)?.map(i64::unsigned_abs))
    })
}

/// How many rows of a channel have changed behind `version`.
pub(crate) fn changed_after(sql: &dyn Sql, channel: i64, version: u64) -> Result<u64> {
    let count =
        "SELECT count(DISTINCT key) FROM _partysync_change WHERE version > ? AND channel = ?";
    sql.query_one(count, params![integer(version), channel], |row| {
        Ok(row.get::<i64>(0)?.unsigned_abs())
    })
}

/// The last version of a channel; 0 if the log has none.
pub(crate) fn last_of(sql: &dyn Sql, channel: i64) -> Result<u64> {
    let last = "SELECT version FROM _partysync_change WHERE channel = ? \
                ORDER BY version DESC LIMIT 1";
    let found = sql.query_opt(last, params![channel], |row| row.get::<i64>(0))?;
    Ok(found.map_or(0, i64::unsigned_abs))
}

/// The last version from before `at`, in ms. Time never goes back in the log, so that it is found
/// by halves.
pub(crate) fn last_before(sql: &dyn Sql, at: i64) -> Result<u64> {
    let max = "SELECT coalesce(max(version), 0) FROM _partysync_change";
    let max = sql.query_one(max, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))?;
    let below = "SELECT version, at FROM _partysync_change WHERE version <= ? \
                 ORDER BY version DESC LIMIT 1";
    // What is up to `low` is from before, what is from `high` on is not.
    let (mut found, mut low, mut high) = (0, 0, max + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let entry = sql.query_opt(below, [integer(middle)], |row| {
            Ok((row.get::<i64>(0)?.unsigned_abs(), row.get::<i64>(1)?))
        })?;
        match entry.filter(|(version, _)| *version > low) {
            Some((version, time)) if time >= at => high = version,
            Some((version, _)) => (found, low) = (version, middle),
            None => low = middle,
        }
    }
    Ok(found)
}
