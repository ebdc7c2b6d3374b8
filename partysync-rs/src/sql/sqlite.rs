//! [`Sql`] over rusqlite: for tests and native hosts.

use super::{Row, Sql, Value};
use crate::{Code, Error, Result};
use rusqlite::{Connection, types};
use std::cell::Cell;
use std::path::Path;

/// A SQLite database through rusqlite, set up as a room needs it.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// let db = partysync::sql::Sqlite::in_memory()?;
/// # let _ = db; Ok(()) }
/// ```
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    depth: Cell<u32>,
}

impl Sqlite {
    /// A database that lives as long as the value.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn in_memory() -> Result<Self> {
        Self::of(Connection::open_in_memory().map_err(sqlite_error)?)
    }

    /// The database in this file, made if it is not there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Connection::open(path).map_err(sqlite_error)?)
    }

    fn of(connection: Connection) -> Result<Self> {
        connection
            .execute_batch("PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL;")
            .map_err(sqlite_error)?;
        // A room runs a few dozen statements again and again; the default keeps sixteen.
        connection.set_prepared_statement_cache_capacity(128);
        Ok(Self { connection, depth: Cell::new(0) })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(sqlite_error)
    }
}

impl Sql for Sqlite {
    fn run(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite_error)?;
        let columns = statement.column_count();
        let mut rows = statement
            .query(rusqlite::params_from_iter(params.iter().map(to_sqlite)))
            .map_err(sqlite_error)?;
        let mut values = Vec::with_capacity(columns);
        while let Some(row) = rows.next().map_err(sqlite_error)? {
            values.clear();
            for index in 0..columns {
                values.push(from_sqlite(row.get_ref(index).map_err(sqlite_error)?)?);
            }
            each(&Row::new(&values))?;
        }
        Ok(())
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let depth = self.depth.get();
        let name = format!("_partysync_{depth}");
        self.batch(&format!("SAVEPOINT {name}"))?;
        self.depth.set(depth + 1);
        let result = body();
        self.depth.set(depth);
        match result.and_then(|()| self.batch(&format!("RELEASE {name}"))) {
            Ok(()) => Ok(()),
            Err(error) if crate::__mutated("transaction") => {
                self.batch(&format!("RELEASE {name}"))?;
                Err(error)
            }
            Err(error) => {
                self.batch(&format!("ROLLBACK TO {name}; RELEASE {name}"))?;
                Err(error)
            }
        }
    }
}

fn to_sqlite(value: &Value) -> types::Value {
    match value {
        Value::Null => types::Value::Null,
        Value::Integer(n) => types::Value::Integer(*n),
        Value::Real(x) => types::Value::Real(*x),
        Value::Text(text) => types::Value::Text(text.clone()),
        Value::Blob(bytes) => types::Value::Blob(bytes.clone()),
    }
}

fn from_sqlite(value: types::ValueRef<'_>) -> Result<Value> {
    Ok(match value {
        types::ValueRef::Null => Value::Null,
        types::ValueRef::Integer(n) => Value::Integer(n),
        types::ValueRef::Real(x) => Value::Real(x),
        types::ValueRef::Text(bytes) => Value::Text(
            String::from_utf8(bytes.to_vec())
                .map_err(|_| Error::new(Code::InvalidValue, "text that is not UTF-8"))?,
        ),
        types::ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    })
}

#[allow(clippy::needless_pass_by_value)]
fn sqlite_error(error: rusqlite::Error) -> Error {
    Error::from_sqlite(&error.to_string())
}
