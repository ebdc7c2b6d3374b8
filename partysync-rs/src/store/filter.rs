//! The SQL of rows that only some may see: those of a table for which a condition holds, and what a
//! part of the change log means to whom.
//!
//! Between two versions, as a client sees it that is at the first: a row for which the condition
//! holds is sent; any other whose condition held in *any* state that the log holds of it is gone.
//! Any, not the first: rows are read as they are when their page is made, so that a client may have
//! been sent a state from behind its page's end.
//!
//! A condition stands in a query over the columns that it may name and nothing else. Parameters of
//! these statements have numbers: `?1` is that of the condition, or of many.

use super::channel_id;
use super::keys::Keys;
use super::predicate::Predicate;
use super::triggers::old_cell;
use crate::record::{ColumnDef, Role, Schema};
use crate::sql::{Sql, Value, quote};
use crate::{Result, params};

/// A condition over the rows of a record.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(super) schema: &'static Schema,
    predicate: Predicate,
    /// What many see of some changes.
    seen: String,
}

/// The names that the framework's queries have beside a condition. It has none of them: it was looked
/// at without.
const VERSION: &str = "\"_partysync_version\"";
const NOW: &str = "\"_partysync_now\"";
const VIEW: &str = "\"_partysync_view\"";
const PARAMETERS: &str = "\"_partysync_parameters\"";

impl Filter {
    /// Looks whether the text is a condition over the columns that it may name, with these
    /// parameters, as a JSON array.
    ///
    /// # Errors
    /// [`Code::Sql`](crate::Code::Sql), with what is wrong.
    pub(crate) fn new(
        schema: &'static Schema,
        text: &str,
        parameters: &str,
        sql: &dyn Sql,
    ) -> Result<Self> {
        let predicate = Predicate::parse(text)?;
        let columns: Vec<_> = nameable(schema).map(|column| column.name).collect();
        let known = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')";
        predicate.check_names(&columns, &sql.query_map(known, [], |row| row.get(0))?)?;
        let mut filter = Self { schema, predicate, seen: String::new() };
        let nulls = filter.columns(|column, _| cast("NULL", column));
        let holds = filter.predicate.over("?1");
        let look = format!("SELECT 1 FROM (SELECT {nulls}) WHERE {holds} AND ?1 IS NOT NULL");
        sql.exec(&look, &params![parameters]).map_err(|error| {
            let hint = "the columns that it may name are the key, and those that are marked \
                        `#[record(scope)]`";
            if error.message().contains("no such column") { error.context(hint) } else { error }
        })?;
        filter.seen = filter.seen();
        Ok(filter)
    }

    /// How many parameters the condition takes.
    pub(crate) fn parameters(&self) -> usize {
        self.predicate.parameters()
    }

    /// `t`, the live rows for which the condition holds, as what follows `FROM`, with a `WHERE`.
    pub(super) fn rows(&self) -> String {
        let (table, keys) = (self.schema.quoted(), Keys::of(self.schema));
        let columns = self.columns(|column, _| format!("t.{}", quote(column.name)));
        let (alive, holds) = (alive(self.schema), self.predicate.over("?1"));
        let (key, found) = (keys.numbered(""), keys.is_numbered("t", "s"));
        format!(
            "(SELECT {key} FROM (SELECT {columns} FROM {table} AS t WHERE {alive}) \
             WHERE {holds}) AS s JOIN {table} AS t ON {found} WHERE ?1 IS NOT NULL"
        )
    }

    /// What changed behind `?3` and up to `?4` for somebody who may have rows as they were at `?2`:
    /// the last version `v` of each key, and `n`, whether its row is seen now; else it is gone.
    pub(super) fn changes(&self) -> String {
        let (now, old) = self.states();
        let holds = self.predicate.over("?1");
        let state = |state: &str, holds: &str| {
            format!("SELECT {VERSION} AS v, {NOW} AS n FROM ({state}) WHERE {holds}")
        };
        let old = old.map(|old| state(&old, held(&holds)));
        let states = join(state(&now, &holds), old);
        format!("SELECT v, max(n) AS n FROM ({states}) GROUP BY v ORDER BY v")
    }

    /// As [`changes`](Self::changes), for many: `?1` is an array of their parameters.
    fn seen(&self) -> String {
        let (now, old) = self.states();
        let holds = self.predicate.over(PARAMETERS);
        // For each of them the states, not the reverse: SQLite keeps the parameters parsed.
        let state = |state: &str, holds: &str| {
            format!(
                "SELECT {VIEW} AS i, {VERSION} AS v, {NOW} AS n FROM (SELECT key AS {VIEW}, \
                 value AS {PARAMETERS} FROM json_each(?1)) CROSS JOIN ({state}) WHERE {holds}"
            )
        };
        let old = old.map(|old| state(&old, held(&holds)));
        let states = join(state(&now, &holds), old);
        format!("SELECT i, v, max(n) FROM ({states}) GROUP BY i, v")
    }

    /// What these see of what changed between two versions: the place among them, the version of the
    /// change, and whether the row is there; else it is gone.
    pub(crate) fn see(
        &self,
        sql: &dyn Sql,
        parameters: &str,
        (from, to): (u64, u64),
        each: &mut dyn FnMut(usize, u64, bool),
    ) -> Result<()> {
        let (from, to) = (super::integer(from), super::integer(to));
        let params = [Value::from(parameters), from.clone(), from, to];
        sql.run(&self.seen, &params, &mut |row| {
            let view = usize::try_from(row.get::<i64>(0)?).unwrap_or(usize::MAX);
            each(view, row.get::<i64>(1)?.unsigned_abs(), row.get(2)?);
            Ok(())
        })
    }

    /// The states of changed rows: as they are, and as they were. Without columns that a condition may
    /// name the log does not hold those.
    fn states(&self) -> (String, Option<String>) {
        let (table, keys) = (self.schema.quoted(), Keys::of(self.schema));
        let id = channel_id(self.schema.table);
        let last = format!(
            "(SELECT max(version) AS v, key FROM _partysync_change WHERE version > ?3 \
             AND version <= ?4 AND channel = {id} GROUP BY key) AS c"
        );
        let columns = self.columns(|column, _| format!("t.{}", quote(column.name)));
        let now = format!(
            "SELECT c.v AS {VERSION}, 1 AS {NOW}, {columns} FROM {last} \
             JOIN {table} AS t ON {found} WHERE {alive}",
            found = keys.is("t", "c.key"),
            alive = alive(self.schema),
        );
        if !self.schema.has_scope() {
            return (now, None);
        }
        let columns =
            self.columns(|column, place| match place.checked_sub(self.schema.key().len()) {
                None => cast(&keys.part("o.key", place), column),
                Some(place) => cast(&old_cell("o.old", place), column),
            });
        let old = format!(
            "SELECT c.v AS {VERSION}, 0 AS {NOW}, {columns} FROM {last} \
             JOIN _partysync_change AS o ON o.key = c.key WHERE o.version > ?2 \
             AND o.version <= ?4 AND o.channel = {id} AND o.old IS NOT NULL"
        );
        (now, Some(old))
    }

    /// The columns that the condition may name, each made by `made` of itself and its place.
    fn columns(&self, made: impl Fn(&ColumnDef, usize) -> String) -> String {
        let named = |(place, column): (usize, &ColumnDef)| {
            format!("{} AS {}", made(column, place), quote(column.name))
        };
        let named: Vec<_> = nameable(self.schema).enumerate().map(named).collect();
        named.join(", ")
    }
}

/// The key, and the columns that say so.
fn nameable(schema: &'static Schema) -> impl Iterator<Item = &'static ColumnDef> {
    schema.key().iter().chain(schema.scope())
}

/// The value as the column holds it: it is compared as that is.
fn cast(value: &str, column: &ColumnDef) -> String {
    format!("CAST({value} AS {})", column.sql_type.ddl())
}

fn alive(schema: &Schema) -> String {
    match schema.role(Role::DeletedAt) {
        Some((_, column)) => format!("t.{} IS NULL", quote(column.name)),
        None => "TRUE".to_owned(),
    }
}

/// Whether the condition held before.
fn held(holds: &str) -> &str {
    if crate::__mutated("visible_before") { "TRUE" } else { holds }
}

fn join(now: String, old: Option<String>) -> String {
    old.map_or_else(|| now.clone(), |old| format!("{now} UNION ALL {old}"))
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::sql::Sqlite;
    use crate::{Record, Timestamp, store};

    #[derive(Record, Clone)]
    #[record(table = "notes")]
    struct Note {
        #[record(key)]
        id: String,
        #[record(scope, index)]
        owner: String,
        #[record(scope, index)]
        board: Option<i64>,
        #[record(scope)]
        color: String,
    }

    /// How SQLite finds the rows for which a condition holds.
    fn plan(condition: &str) -> Result<Vec<String>> {
        let db = Sqlite::in_memory()?;
        store::open(&db, &[Note::SCHEMA], Timestamp::from_millis(1), "epoch")?;
        let filter = Filter::new(Note::SCHEMA, condition, "[\"ada\",\"[1,2]\"]", &db)?;
        let sql: &dyn Sql = &db;
        let explain = format!("EXPLAIN QUERY PLAN SELECT s.k0 FROM {}", filter.rows());
        sql.query_map(&explain, params!["[\"ada\",\"[1,2]\"]"], |row| row.get(3))
    }

    #[test]
    fn rows_that_a_condition_names_by_an_index_are_found_by_it() -> Result<()> {
        let scans = |plan: &[String]| plan.iter().any(|step| step == "SCAN t");
        for condition in
            ["owner = ?", "owner = ? OR board IN (SELECT value FROM json_each(?))", "id = ?"]
        {
            let plan = plan(condition)?;
            assert!(!scans(&plan), "{condition}: {plan:?}");
        }
        assert!(scans(&plan("color = ?")?));
        Ok(())
    }
}
