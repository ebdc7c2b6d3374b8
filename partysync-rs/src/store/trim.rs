//! What a room forgets, by the alarm: old deletions, entries of the change log that later ones
//! supersede, clients long unseen. Each step looks at so much of the log, and is a turn's work.

use super::keys::Keys;
use super::{Meta, channel_id, integer, last_before, results};
use crate::record::{Role, Schema};
use crate::room::Limits;
use crate::sql::{Sql, quote};
use crate::{Code, Error, Result, Timestamp, params};

/// The log is compacted when it has at least this many entries more than after the last time,
/// and at least as many more as it had then: an entry costs one compaction, whatever the load.
const LEAST: u32 = 1_000;
/// Between two times of forgetting, ms, at least: an alarm that rings all the time is paid for.
const SELDOM: i64 = 60_000;

/// Whether the log has grown so much that it is worth compacting.
pub(crate) fn compaction_is_due(meta: &Meta, limits: &Limits) -> bool {
    let least = u64::from(LEAST.min(limits.log_entries.max(1)));
    meta.log_size() - meta.compacted_size >= meta.compacted_size.max(least)
}

/// Takes away entries of rows that have later ones, for a part of all keys: as many parts as the
/// log has times [`Limits::log_entries`]. What says which views a row has left stays. Runs in a
/// transaction.
pub(crate) fn compact(
    sql: &dyn Sql,
    schemas: &[&Schema],
    limits: &Limits,
    meta: &mut Meta,
) -> Result<()> {
    if meta.compacting == 0 {
        meta.compact_parts = meta.log_size().div_ceil(limits.log_entries.max(1).into()).max(1);
        meta.compacting = meta.compact_parts;
    }
    meta.compacting -= 1;
    let kept = if crate::__mutated("compact") { "min" } else { "max" };
    let part = if meta.compact_parts > 1 {
        format!("{PART} % {} = {}", meta.compact_parts, meta.compacting)
    } else {
        "TRUE".to_owned()
    };
    let scoped = schemas.iter().any(|schema| schema.has_scope());
    let left = if scoped && !crate::__mutated("visible_compact") { "AND old IS NULL" } else { "" };
    let compact = format!(
        "DELETE FROM _partysync_change WHERE {part} {left} AND version NOT IN \
         (SELECT {kept}(version) FROM _partysync_change WHERE {part} GROUP BY channel, key)"
    );
    sql.exec(&compact, &[])?;
    if meta.compacting == 0 {
        let size = "SELECT count(*) FROM _partysync_change";
        meta.compacted_to = meta.version;
        meta.compacted_size =
            sql.query_one(size, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))?;
    }
    sql.exec(
        "UPDATE _partysync_meta SET compacting = ?, compact_parts = ?, compacted_to = ?, \
         compacted_size = ?",
        &params![
            integer(meta.compacting),
            integer(meta.compact_parts),
            integer(meta.compacted_to),
            integer(meta.compacted_size)
        ],
    )
}

/// A number made of a key: of its last letters, in which most keys differ. One of several columns ends
/// with those of the last one, before a bracket and maybe a quote, and has those of the first before a
/// comma.
const PART: &str = "abs(CASE typeof(key) WHEN 'integer' THEN key % 1000000007 ELSE \
     coalesce(unicode(substr(key, -1)), 0) + 131 * coalesce(unicode(substr(key, -2, 1)), 0) + \
     17161 * coalesce(unicode(substr(key, -3, 1)), 0) + \
     211 * coalesce(unicode(substr(key, -4, 1)), 0) + \
     23 * coalesce(unicode(substr(key, instr(key, ',') - 1, 1)), 0) + \
     3 * coalesce(unicode(substr(key, instr(key, ',') - 2, 1)), 0) + \
     7 * coalesce(unicode(substr(key, instr(key, ',') - 3, 1)), 0) + length(key) END)";

/// Forgets the deletions among some old entries of the log; clients when there are none left.
/// Sets the time for the next step. Runs in a transaction. Gives why soft-deleted rows were not
/// removed, where something of the application's keeps them.
pub(crate) fn trim(
    sql: &dyn Sql,
    schemas: &[&Schema],
    limits: &Limits,
    meta: &mut Meta,
) -> Result<Option<Error>> {
    let before = meta.now.plus_millis(-limits.retention_ms);
    let old = last_before(sql, before.as_millis().saturating_add(1))?;
    let from = meta.trimming.unwrap_or_default();
    let window = "SELECT max(version) FROM (SELECT version FROM _partysync_change \
                  WHERE version > ? AND version <= ? ORDER BY version LIMIT ?)";
    let params = params![integer(from), integer(old), limits.log_entries.max(1)];
    let end = sql.query_one(window, params, |row| row.get::<Option<i64>>(0))?;
    let (end, mut kept) = (end.map(i64::unsigned_abs), None);
    if let Some(end) = end {
        for schema in schemas {
            purge(sql, schema, (from, end), before, &mut kept)?;
            forget(sql, schema, (from, end), meta)?;
        }
    }
    meta.trimming = end.filter(|end| *end < old);
    if meta.trimming.is_some() {
        meta.trim_at = Some(meta.now);
    } else {
        forget_clients(sql, limits, meta)?;
        let next = next(sql, limits, old, meta.now, kept.is_some())?;
        meta.trim_at = next.map(|at| at.max(meta.now.plus_millis(SELDOM)));
    }
    sql.exec(
        "UPDATE _partysync_meta SET trimmed_to = ?, trimmed_at = ?, trimming = ?, trim_at = ?",
        &params![
            integer(meta.trimmed_to),
            meta.trimmed_at,
            meta.trimming.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
            meta.trim_at
        ],
    )?;
    Ok(kept)
}

/// Removes the rows of these entries that were softly deleted before `before`. The log notes
/// nothing of it: they are gone for everybody already. What the application's constraints keep
/// stays, and keeps no other row.
fn purge(
    sql: &dyn Sql,
    schema: &Schema,
    (from, to): (u64, u64),
    before: Timestamp,
    kept: &mut Option<Error>,
) -> Result<()> {
    let Some((_, deleted_at)) = schema.role(Role::DeletedAt) else { return Ok(()) };
    let (table, keys) = (schema.quoted(), Keys::of(schema));
    let (key, parts, deleted_at) = (keys.tuple(""), keys.parts("key"), quote(deleted_at.name));
    let purge = format!(
        "DELETE FROM {table} WHERE {key} IN (SELECT {parts} FROM _partysync_change \
         WHERE version > ? AND version <= ? AND channel = ?) AND {deleted_at} <= ?"
    );
    let mut ranges = vec![(from, to)];
    while let Some((from, to)) = ranges.pop() {
        let params = params![integer(from), integer(to), channel_id(schema.table), before];
        match sql.transaction(&mut || sql.exec(&purge, &params)) {
            Ok(()) => {}
            Err(error) if error.code() == Code::Storage => return Err(error),
            // One of them: it is looked for.
            Err(_) if to - from > 1 => {
                let middle = from + (to - from) / 2;
                ranges.extend([(middle, to), (from, middle)]);
            }
            Err(error) => drop(kept.get_or_insert(error)),
        }
    }
    Ok(())
}

/// Takes these entries out whose row is gone, and what they say of views that a row has left: who
/// has not heard of it starts over.
fn forget(sql: &dyn Sql, schema: &Schema, (from, to): (u64, u64), meta: &mut Meta) -> Result<()> {
    let (table, found) = (schema.quoted(), Keys::of(schema).is("t", "c.key"));
    let scoped = schema.has_scope();
    let (log, these) =
        ("_partysync_change AS c", "c.version > ? AND c.version <= ? AND c.channel = ?");
    let gone = format!("NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {found})");
    let left = if scoped { format!("({gone} OR c.old IS NOT NULL)") } else { gone.clone() };
    let params = params![integer(from), integer(to), channel_id(schema.table)];
    let last = format!("SELECT max(c.version), max(c.at) FROM {log} WHERE {these} AND {left}");
    let last = sql.query_one(&last, &params, |row| {
        Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?))
    })?;
    let (Some(version), Some(at)) = last else { return Ok(()) };
    meta.trimmed_to = meta.trimmed_to.max(version.unsigned_abs());
    meta.trimmed_at = meta.trimmed_at.max(at);
    // The last entry of all stays: its rowid is the room's version.
    let but_last = format!(
        "DELETE FROM {log} WHERE {these} AND {gone} \
         AND c.version < (SELECT max(version) FROM _partysync_change)"
    );
    sql.exec(&but_last, &params)?;
    if scoped {
        // Compaction may take them from here on.
        let left = format!("UPDATE {log} SET old = NULL WHERE {these} AND c.old IS NOT NULL");
        sql.exec(&left, &params)?;
    }
    Ok(())
}

fn forget_clients(sql: &dyn Sql, limits: &Limits, meta: &Meta) -> Result<()> {
    let unseen = meta.now.plus_millis(-limits.client_retention_ms);
    let answers = [Some("_partysync_reject"), meta.has_results.then_some(results::TABLE)];
    for table in answers.into_iter().flatten() {
        let forget = format!(
            "DELETE FROM {table} WHERE client IN \
             (SELECT client FROM _partysync_client WHERE seen_at <= ?)"
        );
        sql.exec(&forget, &params![unseen])?;
    }
    sql.exec("DELETE FROM _partysync_client WHERE seen_at <= ?", &params![unseen])
}

/// When there is something to forget again: `None` for a room without clients whose last change
/// was looked at.
fn next(
    sql: &dyn Sql,
    limits: &Limits,
    old: u64,
    now: Timestamp,
    kept: bool,
) -> Result<Option<Timestamp>> {
    let young = "SELECT at FROM _partysync_change WHERE version > ? ORDER BY version LIMIT 1";
    let young = sql.query_opt(young, [integer(old)], |row| row.get::<Timestamp>(0))?;
    let young = young.map(|at| at.plus_millis(limits.retention_ms));
    let seen = "SELECT min(seen_at) FROM _partysync_client";
    let seen = sql.query_one(seen, [], |row| row.get::<Option<Timestamp>>(0))?;
    let seen = seen.map(|at| at.plus_millis(limits.client_retention_ms));
    let again = kept.then(|| now.plus_millis(limits.retention_ms));
    Ok(young.into_iter().chain(seen).chain(again).min())
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::sql::Sqlite;

    /// Of a thousand such keys, the most that one of ten steps looks at.
    fn most(key: &str) -> Result<i64> {
        let all = format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999), \
             k(key) AS (SELECT {key} FROM n) \
             SELECT max(c) FROM (SELECT count(*) AS c FROM k GROUP BY {PART} % 10)"
        );
        let db = Sqlite::in_memory()?;
        let sql: &dyn Sql = &db;
        sql.query_one(&all, [], |row| row.get(0))
    }

    #[test]
    fn the_steps_of_a_compaction_are_about_as_large() -> Result<()> {
        for key in [
            "i",
            "printf('note-%05d', i)",
            "json_array(printf('team-%05d', i), 'ada')",
            "json_array('team', printf('user-%05d', i))",
            "json_array(i, 7)",
            "json_array(i / 30, i % 30)",
        ] {
            assert!(most(key)? < 300, "{key}: {}", most(key)?);
        }
        Ok(())
    }
}
