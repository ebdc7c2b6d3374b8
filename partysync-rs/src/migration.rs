//! [`Migration`]: a step of a data migration, and what has come of it.

use crate::record::Schema;
use crate::sql::{Sql, Value};
use crate::store::{Keys, Step};
use crate::{Code, Error, Key, Result};

/// One batch of one step of a data migration: rows of one table become those of the next version.
/// See [`SyncServer::migrate`](crate::SyncServer::migrate).
#[derive(Clone, Debug)]
pub struct Migration {
    schema: &'static Schema,
    from: u32,
    cursor: Option<Key>,
}

/// What a batch has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// All rows are of the next version now.
    Done,
    /// There may be more: the next batch is given this as its [`cursor`](Migration::cursor).
    More(Key),
}

impl Migration {
    pub(crate) fn new(step: &Step) -> Self {
        Self { schema: step.schema, from: step.from, cursor: step.cursor.clone() }
    }

    /// The record's table.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.schema.table
    }

    /// The version that its rows are of.
    #[must_use]
    pub fn from(&self) -> u32 {
        self.from
    }

    /// The version that they are to be of: the next one. A room that has slept through several is
    /// taken through each of them.
    #[must_use]
    pub fn to(&self) -> u32 {
        self.from.saturating_add(1)
    }

    /// What the last batch has ended with; `None` for the first.
    #[must_use]
    pub fn cursor(&self) -> Option<&Key> {
        self.cursor.as_ref()
    }

    /// The keys of the next rows behind the cursor, in order: so many at most.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn keys(&self, sql: &dyn Sql, limit: u32) -> Result<Vec<Key>> {
        let (table, keys) = (self.schema.quoted(), Keys::of(self.schema));
        let order = keys.columns("");
        // As JSON: a Durable Object gives an integer beyond 2^53 whole as text only.
        let key = keys.json(&keys.logged(""));
        let behind = self.cursor.as_ref().map(|_| format!("WHERE {}", keys.behind("", "?2")));
        let behind = behind.unwrap_or_default();
        let select = format!("SELECT {key} FROM {table} {behind} ORDER BY {order} LIMIT ?1");
        let limit = Value::from(i64::from(limit));
        let values: Vec<_> =
            std::iter::once(limit).chain(self.cursor.as_ref().map(Key::to_value)).collect();
        sql.query_map(&select, values, |row| {
            let json = serde_json::from_str(&row.get::<String>(0)?)
                .map_err(|e| Error::new(Code::Internal, format!("a key: {e}")))?;
            self.schema.key_from_json(&json)
        })
    }

    /// Migrates the next rows behind the cursor, so many at most, one after the other: `row` is given
    /// each one's key.
    ///
    /// # Errors
    /// What SQLite says, or `row` returns.
    pub fn each(
        &self,
        sql: &dyn Sql,
        limit: u32,
        row: impl FnMut(&Key) -> Result<()>,
    ) -> Result<Migrated> {
        let keys = self.keys(sql, limit)?;
        keys.iter().try_for_each(row)?;
        Ok(Migrated::behind(keys.last()))
    }

    /// That nobody says how to take this step.
    #[must_use]
    pub fn unknown(&self) -> Error {
        let message = format!(
            "no code says how: write it in `SyncServer::migrate`, for (\"{}\", {})",
            self.table(),
            self.to()
        );
        Error::new(Code::Migration, message)
    }
}

impl Migrated {
    /// More behind this key, which is the last of those that were migrated; done without one.
    #[must_use]
    pub fn behind(last: Option<&Key>) -> Self {
        last.map_or(Self::Done, |key| Self::More(key.clone()))
    }
}
