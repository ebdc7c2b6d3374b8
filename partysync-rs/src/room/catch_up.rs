//! What a client lacks: a snapshot or a delta of one channel, in pages.

use crate::record::{Role, Schema};
use crate::sql::select::{self, RowText};
use crate::sql::{Sql, Value, quote};
use crate::{Result, params};
use serde_json::Value as Json;

use super::log::to_sql;

/// Frames stay under 512 KiB; a page stops at half of that, a row may go over.
pub(crate) const PAGE_BYTES: usize = 256 * 1024;

/// One row of the change log with what the table holds for it now.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The row as JSON; `None` when it is gone from the table.
    pub(crate) row: Option<String>,
    /// The key as JSON.
    pub(crate) key: String,
    /// Whether the row is gone or softly deleted.
    pub(crate) gone: bool,
    /// When it changed, ms.
    pub(crate) at: i64,
    /// The version that it has changed with.
    #[cfg_attr(not(feature = "streams"), expect(dead_code))]
    pub(crate) version: u64,
}

/// A key column as JSON text.
fn json_key(schema: &Schema, name: &str) -> Result<String> {
    let cell = select::cell(name, schema.key()?.sql_type);
    Ok(format!("json_quote({cell})"))
}

fn deleted(schema: &Schema, alias: &str) -> String {
    match schema.role(Role::DeletedAt) {
        Some((_, column)) => format!("{alias}.{} IS NOT NULL", quote(column.name)),
        None => "FALSE".to_owned(),
    }
}

/// The keys of a channel that changed after `version` (or, for v1, at `at` or later), in the
/// order in which they changed.
pub(crate) fn changed(sql: &dyn Sql, schema: &Schema, after: After) -> Result<Vec<Changed>> {
    let (table, key) = (schema.quoted(), quote(schema.key()?.name));
    let (column, bound) = match after {
        After::Version(version) => ("c.version > ?", to_sql(version)?),
        After::Time(at) => ("c.at >= ?", at),
    };
    let text = RowText::new(schema, "t");
    let statement = format!(
        "SELECT t.{key} IS NULL, {deleted}, {json_key}, c.at, c.version, {row} \
         FROM _partysync_change AS c LEFT JOIN {table} AS t ON t.{key} = c.key \
         WHERE c.channel = ? AND {column} ORDER BY c.version",
        row = text.sql(),
        json_key = json_key(schema, "c.key")?,
        deleted = deleted(schema, "t"),
    );
    sql.query_map(&statement, params![schema.table.to_owned(), bound], |row| {
        let missing: bool = row.get(0)?;
        Ok(Changed {
            row: if missing { None } else { Some(text.read(row, 5)?) },
            key: row.get(2)?,
            gone: missing || row.get::<bool>(1)?,
            at: row.get(3)?,
            version: row.get::<i64>(4)?.unsigned_abs(),
        })
    })
}

/// Where [`changed`] begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// After this version.
    Version(u64),
    /// At this time or later, ms.
    Time(i64),
}

/// All live rows of a channel, a page at a time: each page's rows as one JSON array, and how many
/// there are in it.
pub(crate) fn snapshot(
    sql: &dyn Sql,
    schema: &Schema,
    mut page: impl FnMut(Page) -> Result<()>,
) -> Result<()> {
    let (table, key) = (schema.quoted(), quote(schema.key()?.name));
    let alive = format!("NOT ({})", deleted(schema, "t"));
    let total: i64 =
        sql.query_one(&format!("SELECT count(*) FROM {table} AS t WHERE {alive}"), [], |row| {
            row.get(0)
        })?;
    let text = RowText::new(schema, "t");
    let json_key = json_key(schema, &format!("t.{key}"))?;
    let key_type = schema.key()?.sql_type;
    let (mut after, mut sent, mut limit) = (None::<Value>, 0, 512);
    while sent < total {
        let (from, params) = match &after {
            None => (String::new(), vec![]),
            Some(last) => (format!("AND t.{key} > ?"), vec![last.clone()]),
        };
        let table = format!("{table} AS t WHERE {alive} {from} ORDER BY t.{key} LIMIT {limit}");
        // The last key as JSON: a 64-bit integer stays whole on its way through the host.
        let (rows, count, last) = match text.whole() {
            Some(row) => sql.query_one(
                &format!(
                    "SELECT json_group_array(json(r)), count(*), json_group_array(json(k)) -> '$[#-1]' \
                     FROM (SELECT {row} AS r, {json_key} AS k FROM {table})"
                ),
                params,
                |row| Ok((row.get(0)?, row.get::<i64>(1)?, row.get(2)?)),
            )?,
            None => {
                let columns = text.sql();
                let select = format!("SELECT {json_key}, {columns} FROM {table}");
                let rows = sql.query_map(&select, params, |row| {
                    Ok((row.get::<String>(0)?, text.read(row, 1)?))
                })?;
                let last = rows.last().map(|(key, _)| key.clone()).unwrap_or_default();
                let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
                let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
                (format!("[{}]", rows.join(",")), count, last)
            }
        };
        if count == 0 {
            break;
        }
        if rows.len() > PAGE_BYTES && count > 1 {
            limit = (count / 2).max(1);
            continue;
        }
        if rows.len() < PAGE_BYTES / 4 {
            limit = (limit * 2).min(8192);
        }
        sent += count;
        let last: Json = serde_json::from_str(&last).unwrap_or_default();
        after = Some(Value::from_json(&last, key_type)?);
        page(Page { rows, sent, total, more: sent < total })?;
    }
    if total == 0 {
        page(Page { rows: "[]".to_owned(), sent: 0, total: 0, more: false })?;
    }
    Ok(())
}

/// One page of a snapshot.
#[derive(Debug)]
pub(crate) struct Page {
    /// A JSON array of rows.
    pub(crate) rows: String,
    pub(crate) sent: i64,
    pub(crate) total: i64,
    pub(crate) more: bool,
}
