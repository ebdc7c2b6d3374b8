//! [`Keys`]: how SQL finds rows by their keys, and the change log's entries of rows.
//!
//! The log has one value for a key: of several columns, a JSON array of what they hold. Conditions name
//! the columns one by one, so that SQLite finds rows by the primary key.

use crate::record::Schema;
use crate::sql::{SqlType, quote, select};

/// The columns of a record's key, in SQL.
#[derive(Debug)]
pub(crate) struct Keys {
    columns: Vec<(String, SqlType)>,
}

impl Keys {
    pub(crate) fn of(schema: &Schema) -> Self {
        let columns = schema.key().iter().map(|column| (quote(column.name), column.sql_type));
        Self { columns: columns.collect() }
    }

    fn names(&self, alias: &str) -> Vec<String> {
        let dot = if alias.is_empty() { "" } else { "." };
        self.columns.iter().map(|(name, _)| format!("{alias}{dot}{name}")).collect()
    }

    fn has_several(&self) -> bool {
        self.columns.len() > 1
    }

    /// The columns, with commas between them.
    pub(crate) fn columns(&self, alias: &str) -> String {
        self.names(alias).join(", ")
    }

    /// The columns, as what is compared with other keys.
    pub(crate) fn tuple(&self, alias: &str) -> String {
        format!("({})", self.columns(alias))
    }

    /// What the log holds of a row's key.
    pub(crate) fn logged(&self, alias: &str) -> String {
        if !self.has_several() {
            return self.columns(alias);
        }
        self.array(self.names(alias))
    }

    /// What the column at this place holds, out of the log.
    pub(crate) fn part(&self, logged: &str, place: usize) -> String {
        if self.has_several() {
            format!("json_extract({logged}, '$[{place}]')")
        } else {
            logged.to_owned()
        }
    }

    /// What all columns hold, out of the log.
    pub(crate) fn parts(&self, logged: &str) -> String {
        let parts: Vec<_> = (0..self.columns.len()).map(|n| self.part(logged, n)).collect();
        parts.join(", ")
    }

    /// Whether a row has this key of the log.
    pub(crate) fn is(&self, alias: &str, logged: &str) -> String {
        self.all(alias, |n| self.part(logged, n))
    }

    /// Whether each column holds what this makes of its place.
    fn all(&self, alias: &str, made: impl Fn(usize) -> String) -> String {
        let names = self.names(alias).into_iter().enumerate();
        let same = names.map(|(n, name)| format!("{name} = {}", made(n)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// Each column of one row with that of another, compared so, all of them.
    pub(crate) fn compare(&self, one: &str, how: &str, other: &str) -> String {
        let names = self.names(one).into_iter().zip(self.names(other));
        names.map(|(one, other)| format!("{one} {how}{other}")).collect::<Vec<_>>().join(" AND ")
    }

    /// Whether a row comes behind this key of the log.
    pub(crate) fn behind(&self, alias: &str, logged: &str) -> String {
        format!("{} > ({})", self.tuple(alias), self.parts(logged))
    }

    /// Whether a join has found no row.
    pub(crate) fn missing(&self, alias: &str) -> String {
        let first = self.names(alias).into_iter().next().unwrap_or_default();
        format!("{first} IS NULL")
    }

    /// A key of the log as JSON.
    pub(crate) fn json(&self, logged: &str) -> String {
        match self.columns.as_slice() {
            [(_, sql_type)] => format!("json_quote({})", select::cell(logged, *sql_type)),
            _ => logged.to_owned(),
        }
    }

    /// A row's key as it is told to people.
    pub(crate) fn told(&self, alias: &str) -> String {
        let names: Vec<_> = self.names(alias).iter().map(|name| format!("quote({name})")).collect();
        names.join(" || ', ' || ")
    }

    /// The columns under names of their own, for queries around one that gives them.
    pub(crate) fn numbered(&self, alias: &str) -> String {
        let names = self.names(alias).into_iter().enumerate();
        names.map(|(n, name)| format!("{name} AS k{n}")).collect::<Vec<_>>().join(", ")
    }

    /// Whether a row has the key that such a query gives.
    pub(crate) fn is_numbered(&self, alias: &str, other: &str) -> String {
        self.all(alias, |n| format!("{other}.k{n}"))
    }

    /// Those names.
    pub(crate) fn numbers(&self) -> String {
        (0..self.columns.len()).map(|n| format!("k{n}")).collect::<Vec<_>>().join(", ")
    }

    /// Numbers the rows of a query that gives those names, where the last one is found by its number.
    pub(crate) fn counted(&self, rows: String) -> String {
        let order = self.numbers();
        if !self.has_several() {
            return rows;
        }
        format!("SELECT *, row_number() OVER (ORDER BY {order}) AS i FROM ({rows})")
    }

    /// The last key of such rows, as JSON, and what a query needs behind all other columns for that:
    /// SQLite takes what is no aggregate from the row of the largest number.
    pub(crate) fn last(&self) -> (String, &'static str) {
        match self.columns.as_slice() {
            [_] => (self.json("max(k0)"), ""),
            columns => (self.array((0..columns.len()).map(|n| format!("k{n}"))), ", max(i)"),
        }
    }

    /// What these expressions hold, as the log has it.
    fn array(&self, names: impl IntoIterator<Item = String>) -> String {
        let cell = |(name, (_, sql_type)): (String, &(String, SqlType))| match sql_type {
            // A text that a statement has made as JSON would be taken for JSON still.
            SqlType::Text => format!("{name} || ''"),
            _ => name,
        };
        let cells: Vec<_> = names.into_iter().zip(&self.columns).map(cell).collect();
        format!("json_array({})", cells.join(", "))
    }
}
