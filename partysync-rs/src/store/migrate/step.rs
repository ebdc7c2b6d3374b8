//! How far a room's rows are on their way to the version of the running code: a version of a table
//! after the other, each in batches whose ends are kept with what they have changed.

use super::super::triggers::touches;
use super::stored::{Cursor, Stored};
use super::{corrupt, load, migrate};
use crate::record::Schema;
use crate::sql::Sql;
use crate::{Code, Error, Key, Result, params};

/// The next batch.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) schema: &'static Schema,
    /// The version that the table's rows are of; it becomes the next one.
    pub(crate) from: u32,
    /// Where the last batch has ended; `None` for the first.
    pub(crate) cursor: Option<Key>,
}

/// What is to be migrated next, if anything is.
pub(crate) fn next_step(sql: &dyn Sql, schemas: &[&'static Schema]) -> Result<Option<Step>> {
    let stored = load(sql)?;
    for schema in schemas {
        let Some(json) = stored.get(schema.table) else { continue };
        let stored: Stored = serde_json::from_str(json).map_err(corrupt)?;
        if stored.version < schema.version {
            let cursor = stored.cursor.as_ref().map(Key::from);
            return Ok(Some(Step { schema, from: stored.version, cursor }));
        }
    }
    Ok(None)
}

/// Whether what changes rows of these records from here on is their migration, which is no edit of
/// theirs: it leaves their `updated_at` as it is.
pub(crate) fn hold_times(sql: &dyn Sql, schemas: &[&'static Schema], held: bool) -> Result<()> {
    for schema in schemas {
        touches(schema, !held)?.iter().try_for_each(|statement| sql.exec(statement, &[]))?;
    }
    Ok(())
}

impl Step {
    /// Keeps where a batch has ended; `None` when the rows are of the next version now. To be called
    /// in the batch's transaction.
    ///
    /// # Errors
    /// [`Code::Migration`] when it is where it began: it would never be done.
    pub(crate) fn keep(&self, sql: &dyn Sql, cursor: Option<&Key>) -> Result<()> {
        let table = self.schema.table;
        if cursor.is_some() && cursor == self.cursor.as_ref() {
            let message = "a batch has to end behind the one before it, and its cursor is the same";
            return Err(Error::new(Code::Migration, message));
        }
        let find = "SELECT columns FROM _partysync_schema WHERE channel = ?";
        let json = sql.query_one(find, params![table], |row| row.get::<String>(0))?;
        let mut stored: Stored = serde_json::from_str(&json).map_err(corrupt)?;
        stored.cursor = cursor.filter(|_| !crate::__mutated("migration")).map(Cursor::from);
        if cursor.is_none() {
            stored.version = self.from.saturating_add(1);
            // Only of the last version is it known who can work with it.
            stored.compatible = match stored.version == self.schema.version {
                true => self.schema.compatible,
                false => stored.version,
            };
        }
        let json = serde_json::to_string(&stored).map_err(corrupt)?;
        let keep = "UPDATE _partysync_schema SET columns = ? WHERE channel = ?";
        sql.exec(keep, &params![json, table])
    }
}

/// All rows are of the running code's version: what was kept for that is dropped.
pub(crate) fn finish(sql: &dyn Sql, schemas: &[&'static Schema]) -> Result<()> {
    let schemas: Vec<&Schema> = schemas.to_vec();
    migrate(&schemas, sql).map(drop)
}
