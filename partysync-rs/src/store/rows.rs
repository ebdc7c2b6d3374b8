//! Pages of a table as a client is sent them: all live rows by key, or what changed by version.
//! Rows cross from SQLite as JSON text, never more at once than a page and a row.

use super::filter::Filter;
use super::keys::Keys;
use super::{channel_id, integer};
use crate::record::{Role, Schema};
use crate::sql::select::RowText;
use crate::sql::{Sql, SqlType, Value, quote};
use crate::{Code, Error, Key, Result};
use serde_json::Value as Json;
use std::cell::Cell;
use std::ops::ControlFlow;

/// What the cells of a page's rows take in SQLite, at most: written as JSON this is at most six
/// times as much, and SQLite makes no text over 2.2 MB.
const RAW_BYTES: usize = 160 * 1024;
/// Rows that a page has at most, and those that the first is tried with.
const PAGE_ROWS: u32 = 4_096;
const FIRST_ROWS: u32 = 256;

/// One row that changed, as the table has it now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// The version that it changed with last.
    pub(crate) version: u64,
    /// When that was, ms.
    pub(crate) at: i64,
    /// The key as JSON.
    pub(crate) key: String,
    /// The row as JSON; `None` when it is not in the table any more.
    pub(crate) row: Option<String>,
    /// Whether it is gone or softly deleted.
    pub(crate) gone: bool,
}

/// Rows in the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page {
    /// JSON arrays, with commas between them.
    pub(crate) rows: String,
    pub(crate) count: u64,
    /// The key to go on behind; `None` when that was the last page.
    pub(crate) next: Option<Key>,
}

/// The SQL that reads one record type's rows, written once.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) schema: &'static Schema,
    pub(crate) id: i64,
    text: RowText,
    changes: String,
    /// How many those are, with a filter.
    changed: String,
    total: String,
    /// Rows that a page was last seen to have room for.
    fits: Cell<u32>,
    raw_bytes: usize,
    /// So many rows: how many there are, how large they are, and the last of them; from the
    /// beginning and behind a key.
    sizes: [String; 2],
    /// Where a page ends whose rows are too large for that.
    bounds: [String; 2],
    /// A page up to that end.
    pages: [String; 2],
    whole: bool,
    /// Which rows these are; `None` for all.
    pub(crate) filter: Option<Filter>,
}

/// Whose rows are read: nothing for a plan of all rows, else the parameters of its filter.
pub(crate) type Given<'a> = Option<&'a Value>;

impl Plan {
    /// The plan for a record type, with pages of about this size.
    pub(crate) fn new(schema: &'static Schema, page_bytes: usize) -> Result<Self> {
        Self::of(schema, page_bytes, None)
    }

    /// The plan for those of its rows that a filter leaves.
    pub(crate) fn filtered(filter: Filter, page_bytes: usize) -> Result<Self> {
        Self::of(filter.schema, page_bytes, Some(filter))
    }

    fn of(schema: &'static Schema, page_bytes: usize, filter: Option<Filter>) -> Result<Self> {
        let raw_bytes = RAW_BYTES.min(page_bytes / 8 * 5);
        let (id, table) = (channel_id(schema.table), schema.quoted());
        let keys = Keys::of(schema);
        let (json_key, missing, found) =
            (keys.json("c.key"), keys.missing("t"), keys.is("t", "c.key"));
        let deleted = match schema.role(Role::DeletedAt) {
            Some((_, column)) => format!("t.{} IS NOT NULL", quote(column.name)),
            None => "FALSE".to_owned(),
        };
        let text = RowText::new(schema, "t");
        let row = text.sql();
        // The log's entries are sorted before their rows are looked up: one at a time is held.
        let changes = match &filter {
            None => format!(
                "SELECT c.v, c.a, {json_key}, {missing}, {deleted}, {row} \
                 FROM (SELECT max(version) AS v, max(at) AS a, key FROM _partysync_change \
                       WHERE version > ? AND version <= ? AND channel = {id} \
                       GROUP BY key ORDER BY 1) AS c \
                 LEFT JOIN {table} AS t ON {found}",
            ),
            Some(filter) => format!(
                "SELECT s.v, c.at, {json_key}, {missing}, FALSE, {row} \
                 FROM ({seen}) AS s CROSS JOIN _partysync_change AS c ON c.version = s.v \
                 LEFT JOIN {table} AS t ON {found} AND s.n",
                seen = filter.changes(),
            ),
        };
        let changed = match &filter {
            None => String::new(),
            Some(filter) => format!("SELECT count(*) FROM ({})", filter.changes()),
        };
        let rows = match &filter {
            None => format!("{table} AS t WHERE NOT ({deleted})"),
            Some(filter) => filter.rows(),
        };
        // A filter's parameters are the first.
        let (after, most, most_behind) =
            if filter.is_some() { ("?2", "?2", "?3") } else { ("?1", "?1", "?2") };
        let (size, order) = (size(schema, "t"), keys.columns("t"));
        let ((last, latest), numbers) = (keys.last(), keys.numbers());
        let sized = |behind: &str, most: &str| {
            let numbered = keys.numbered("t");
            let first = format!("FROM {rows} {behind} ORDER BY {order} LIMIT {most}");
            keys.counted(format!("SELECT {numbered}, {size} AS n {first}"))
        };
        let bound = |behind: &str| {
            let sized = sized(behind, &PAGE_ROWS.to_string());
            format!(
                "SELECT count(*), {last}{latest} FROM (SELECT *, sum(n) OVER \
                 (ORDER BY {numbers} ROWS UNBOUNDED PRECEDING) - n AS before FROM ({sized})) \
                 WHERE before < {raw_bytes}"
            )
        };
        let sizes = |behind: &str, most: &str| {
            let sized = sized(behind, most);
            format!("SELECT count(*), {last}, coalesce(sum(n), 0){latest} FROM ({sized})")
        };
        let whole = text.whole();
        let page = |behind: &str, most: &str| {
            let rows = format!("FROM {rows} {behind} ORDER BY {order} LIMIT {most}");
            match &whole {
                Some(row) => format!("SELECT group_concat(r, ',') FROM (SELECT {row} AS r {rows})"),
                None => format!("SELECT {row} {rows}"),
            }
        };
        let behind = format!("AND {}", keys.behind("t", after));
        Ok(Self {
            schema,
            id,
            total: format!("SELECT count(*) FROM {rows}"),
            fits: Cell::new(FIRST_ROWS),
            raw_bytes,
            sizes: [sizes("", most), sizes(&behind, most_behind)],
            bounds: [bound(""), bound(&behind)],
            pages: [page("", most), page(&behind, most_behind)],
            whole: whole.is_some(),
            changes,
            changed,
            text,
            filter,
        })
    }

    /// How many live rows there are.
    pub(crate) fn total(&self, sql: &dyn Sql, given: Given<'_>) -> Result<u64> {
        let params: Vec<_> = given.cloned().into_iter().collect();
        sql.query_one(&self.total, params, |row| Ok(row.get::<i64>(0)?.unsigned_abs()))
    }

    /// How many rows have changed between two versions.
    pub(crate) fn changed(
        &self,
        sql: &dyn Sql,
        given: Given<'_>,
        from: u64,
        to: u64,
    ) -> Result<u64> {
        let Some(given) = given else { return super::changed_after(sql, self.id, from) };
        let params = [given.clone(), integer(from), integer(from), integer(to)];
        sql.query_one(&self.changed, params, |row| Ok(row.get::<i64>(0)?.unsigned_abs()))
    }

    /// What changed after `from` and up to `to`, in that order, until `each` breaks. A filter's rows
    /// may be had as they were at `since`, or later.
    pub(crate) fn changes(
        &self,
        sql: &dyn Sql,
        given: Given<'_>,
        (since, from, to): (u64, u64, u64),
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut params = Vec::with_capacity(4);
        if let Some(given) = given {
            params.extend([given.clone(), integer(since)]);
        }
        params.extend([integer(from), integer(to)]);
        sql.scan(&self.changes, &params, &mut |row| {
            let missing: bool = row.get(3)?;
            Ok(each(Change {
                version: row.get::<i64>(0)?.unsigned_abs(),
                at: row.get(1)?,
                key: row.get(2)?,
                row: if missing { None } else { Some(self.text.read(row, 5)?) },
                gone: missing || row.get::<bool>(4)?,
            }))
        })
    }

    /// A page of live rows behind a key.
    pub(crate) fn page(
        &self,
        sql: &dyn Sql,
        given: Given<'_>,
        after: Option<&Key>,
    ) -> Result<Page> {
        let after = after.map(Key::to_value);
        let after = after.as_ref();
        let (count, last) = self.end(sql, given, after)?;
        if count == 0 {
            return Ok(Page { rows: String::new(), count: 0, next: None });
        }
        let mut params: Vec<Value> = given.into_iter().chain(after).cloned().collect();
        params.push(Value::Integer(count));
        let mut rows = String::new();
        sql.run(which(&self.pages, after), &params, &mut |row| {
            if self.whole {
                rows = row.get(0)?;
                return Ok(());
            }
            if !rows.is_empty() {
                rows.push(',');
            }
            rows.push_str(&self.text.read(row, 0)?);
            Ok(())
        })?;
        // The last key crosses as JSON: a 64-bit integer stays whole.
        let last: Json = last
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|e| Error::new(Code::Internal, format!("a key: {e}")))?
            .unwrap_or_default();
        let next = Some(self.schema.key_from_json(&last)?);
        Ok(Page { rows, count: count.unsigned_abs(), next })
    }
}

impl Plan {
    /// Where a page behind a key ends: how many rows it has, and the last key as JSON.
    fn end(
        &self,
        sql: &dyn Sql,
        given: Given<'_>,
        after: Option<&Value>,
    ) -> Result<(i64, Option<String>)> {
        let mut params: Vec<Value> = given.into_iter().chain(after).cloned().collect();
        // Sums are cheaper than finding the row that is one too many: rows are alike, mostly.
        let limit = self.fits.get();
        params.push(Value::Integer(limit.into()));
        let (count, last, bytes) = sql.query_one(which(&self.sizes, after), &params, |row| {
            Ok((row.get::<i64>(0)?, row.get(1)?, row.get::<i64>(2)?.unsigned_abs()))
        })?;
        if count > 0 {
            let room = (self.raw_bytes as u64).saturating_mul(count.unsigned_abs()) / bytes.max(1);
            let fits = u32::try_from(room / 10 * 9).unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS);
            self.fits.set(fits);
        }
        if bytes <= self.raw_bytes as u64 {
            return Ok((count, last));
        }
        params.pop();
        sql.query_one(which(&self.bounds, after), &params, |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

/// The statement that begins at the beginning, or the one that goes on behind a key.
fn which<'s>([first, behind]: &'s [String; 2], after: Option<&Value>) -> &'s str {
    if after.is_some() { behind } else { first }
}

/// The bytes of a row's texts and blobs, and some for the rest, as an expression.
pub(super) fn size(schema: &Schema, alias: &str) -> String {
    let mut sizes = vec![(schema.columns.len() * 8).to_string()];
    for column in schema.columns {
        if matches!(column.sql_type, SqlType::Text | SqlType::Blob | SqlType::Json) {
            sizes.push(format!("coalesce(octet_length({alias}.{}), 0)", quote(column.name)));
        }
    }
    // Sums of sums: SQLite bounds how deep an expression may be.
    let sums: Vec<_> = sizes.chunks(10).map(|part| format!("({})", part.join(" + "))).collect();
    sums.join(" + ")
}
