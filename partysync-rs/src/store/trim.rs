//! What a room forgets, by the alarm: old deletions, entries of the change log that later ones
//! supersede, clients long unseen.

use super::{Meta, channel_id, integer, last_before, set_trim};
use crate::record::{Role, Schema};
use crate::room::Limits;
use crate::sql::{Sql, quote};
use crate::{Result, params};

/// Rows that one step purges of each table.
const PURGED: u32 = 1_000;
/// The log is compacted when it has at least this many entries more than after the last time,
/// and at least as many more as it had then: an entry costs one compaction, whatever the load.
const LEAST: u32 = 1_000;

/// Whether the log has grown so much that it is worth compacting.
pub(crate) fn is_due(meta: &Meta, limits: &Limits) -> bool {
    let least = u64::from(LEAST.min(limits.compacted_entries.max(1)));
    meta.version - meta.compacted_to.min(meta.version) >= meta.compacted_size.max(least)
}

/// Forgets what is to be forgotten, and sets the time for the next. Runs in a transaction.
pub(crate) fn trim(
    sql: &dyn Sql,
    schemas: &[&Schema],
    limits: &Limits,
    meta: &mut Meta,
) -> Result<()> {
    let before = meta.now.plus_millis(-limits.retention_ms);
    let (mut more, mut left) = (false, false);
    for schema in schemas {
        more |= purge(sql, schema, before.as_millis())?;
    }
    if more {
        // The log is looked at when the rows are gone.
        meta.trim_at = Some(meta.now);
        return set_trim(sql, meta.trim_at);
    }
    let old = last_before(sql, before.as_millis() + 1)?;
    for schema in schemas {
        let (table, key) = (schema.quoted(), quote(schema.key()?.name));
        let gone = format!(
            "FROM _partysync_change AS c WHERE c.channel = ? \
             AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.{key} = c.key) AND c.version"
        );
        let params = params![channel_id(schema.table), integer(old)];
        let last = format!("SELECT max(c.version), max(c.at) {gone} <= ?");
        let last = sql.query_one(&last, params.clone(), |row| {
            Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?))
        })?;
        if let (Some(version), Some(at)) = last {
            meta.trimmed_to = meta.trimmed_to.max(version.unsigned_abs());
            meta.trimmed_at = meta.trimmed_at.max(at);
            // The last entry of all stays: its rowid is the room's version.
            let but_last = format!(
                "DELETE {gone} <= ? AND c.version < (SELECT max(version) FROM _partysync_change)"
            );
            sql.exec(&but_last, &params)?;
        }
        left |= sql.query_one(&format!("SELECT EXISTS (SELECT 1 {gone} > ?)"), params, |row| {
            row.get::<bool>(0)
        })?;
    }
    if meta.compacting > 0 || is_due(meta, limits) {
        compact(sql, limits, meta)?;
    }
    let unseen = meta.now.plus_millis(-limits.client_retention_ms);
    sql.exec(
        "DELETE FROM _partysync_reject WHERE client IN \
         (SELECT client FROM _partysync_client WHERE seen_at <= ?)",
        &params![unseen],
    )?;
    sql.exec("DELETE FROM _partysync_client WHERE seen_at <= ?", &params![unseen])?;
    left |= sql.query_one("SELECT EXISTS (SELECT 1 FROM _partysync_client)", [], |row| {
        row.get::<bool>(0)
    })?;
    let next = if meta.compacting > 0 { 0 } else { limits.retention_ms };
    meta.trim_at = (left || meta.compacting > 0).then(|| meta.now.plus_millis(next));
    sql.exec(
        "UPDATE _partysync_meta SET trimmed_to = ?, trimmed_at = ?, compacting = ?, \
         compacted_to = ?, compacted_size = ?, trim_at = ?",
        &params![
            integer(meta.trimmed_to),
            meta.trimmed_at,
            integer(meta.compacting),
            integer(meta.compacted_to),
            integer(meta.compacted_size),
            meta.trim_at
        ],
    )
}

/// Deletes rows for good that were softly deleted before `before`; `true` when some are left.
fn purge(sql: &dyn Sql, schema: &Schema, before: i64) -> Result<bool> {
    let Some((_, deleted_at)) = schema.role(Role::DeletedAt) else { return Ok(false) };
    let (table, key) = (schema.quoted(), quote(schema.key()?.name));
    let deleted_at = quote(deleted_at.name);
    let purge = format!(
        "DELETE FROM {table} WHERE {key} IN \
         (SELECT {key} FROM {table} WHERE {deleted_at} <= ? LIMIT {PURGED}) RETURNING 1"
    );
    let mut purged = 0;
    sql.run(&purge, &params![before], &mut |_| {
        purged += 1;
        Ok(())
    })?;
    Ok(purged >= PURGED)
}

/// Keeps the last entry of each row, of so many at a time. A row that comes again later keeps more
/// than one, until they are closer to each other.
fn compact(sql: &dyn Sql, limits: &Limits, meta: &mut Meta) -> Result<()> {
    let last = "SELECT max(version) FROM (SELECT version FROM _partysync_change \
                WHERE version > ? ORDER BY version LIMIT ?)";
    let params = params![integer(meta.compacting), limits.compacted_entries.max(1)];
    let last = sql.query_one(last, params, |row| row.get::<Option<i64>>(0))?;
    let to = last.map_or(meta.version, i64::unsigned_abs);
    let (from, end) = (integer(meta.compacting), integer(to));
    let kept = if crate::__mutated("compact") { "min" } else { "max" };
    let compact = format!(
        "DELETE FROM _partysync_change WHERE version > ? AND version <= ? AND version NOT IN \
         (SELECT {kept}(version) FROM _partysync_change WHERE version > ? AND version <= ? \
          GROUP BY channel, key)"
    );
    sql.exec(&compact, &params![from.clone(), end.clone(), from, end])?;
    meta.compacting = to;
    if meta.compacting < meta.version {
        return Ok(());
    }
    let size = "SELECT count(*) FROM _partysync_change";
    (meta.compacting, meta.compacted_to) = (0, meta.version);
    meta.compacted_size = sql.query_one(size, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))?;
    Ok(())
}
