//! [`Sql`] over rusqlite: for tests and native hosts.

use super::{Row, Sql, Turns, Value};
use crate::{Code, Error, Result};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::limits::Limit;
use rusqlite::{Batch, Connection, Statement, params_from_iter, types};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

/// What a Durable Object's SQLite allows (workerd's `sqlite.c++`): a program that works here
/// works there.
const LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_LENGTH, 2_200_000),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (Limit::SQLITE_LIMIT_COLUMN, 100),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 5),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 32),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 100),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 10),
];

/// A SQLite database through rusqlite, set up as a room needs it and with the limits of a Durable
/// Object's: 2.2 MB for a value, 100 parameters, 100 columns, 100 KB for a statement.
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

    /// A copy of the database as it is now, in memory.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn copy(&self) -> Result<Self> {
        let mut copy = Connection::open_in_memory().map_err(sqlite_error)?;
        rusqlite::backup::Backup::new(&self.connection, &mut copy)
            .and_then(|backup| backup.run_to_completion(i32::MAX, std::time::Duration::ZERO, None))
            .map_err(sqlite_error)?;
        Self::of(copy)
    }

    fn of(connection: Connection) -> Result<Self> {
        connection
            .execute_batch("PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL;")
            .map_err(sqlite_error)?;
        for (limit, value) in LIMITS {
            connection.set_limit(limit, value).map_err(sqlite_error)?;
        }
        // A room runs a few dozen statements again and again; the default keeps sixteen.
        connection.set_prepared_statement_cache_capacity(128);
        Ok(Self { connection, depth: Cell::new(0) })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(sqlite_error)
    }

    /// Runs all statements of a text but the last, and gives that one, as workerd's `exec` does.
    fn last(&self, sql: &str) -> Result<Statement<'_>> {
        let refused = |message: &str| Error::new(Code::Sql, message);
        let mut rest = sql;
        loop {
            let mut statements = Batch::new(&self.connection, rest);
            let Some(mut statement) = statements.next().map_err(sqlite_error)? else {
                return Err(refused("SQL code did not contain a statement."));
            };
            if statement.parameter_count() > 0 {
                return match statements.next() {
                    Ok(None) => Ok(statement),
                    Ok(Some(_)) | Err(_) => Err(refused(
                        "When executing multiple SQL statements in a single call, only the last \
                         statement can have parameters.",
                    )),
                };
            }
            // Without parameters it is the text as it was.
            let text = statement.expanded_sql().unwrap_or_default();
            let behind = rest.get(text.len()..).unwrap_or_default().trim_start();
            if behind.is_empty() {
                return Ok(statement);
            }
            let mut rows = statement.query([]).map_err(sqlite_error)?;
            while rows.next().map_err(sqlite_error)?.is_some() {}
            rest = behind;
        }
    }
}

/// Whether a text may hold more than one statement: a trigger or a text in quotes may, too.
fn may_be_several(sql: &str) -> bool {
    let sql = sql.trim_end();
    sql.strip_suffix(';').unwrap_or(sql).contains(';') || sql.is_empty()
}

/// Hands the rows of a statement to `each` until that breaks.
fn read(
    statement: &mut Statement<'_>,
    params: &[Value],
    each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let columns = statement.column_count();
    let params = params_from_iter(params.iter().map(to_sqlite));
    let mut rows = statement.query(params).map_err(sqlite_error)?;
    let mut values = Vec::with_capacity(columns);
    while let Some(row) = rows.next().map_err(sqlite_error)? {
        values.clear();
        for index in 0..columns {
            values.push(from_sqlite(row.get_ref(index).map_err(sqlite_error)?)?);
        }
        if each(&Row::new(&values))?.is_break() {
            break;
        }
    }
    Ok(())
}

impl Sql for Sqlite {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if may_be_several(sql) {
            return read(&mut self.last(sql)?, params, each);
        }
        read(&mut *self.connection.prepare_cached(sql).map_err(sqlite_error)?, params, each)
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

impl Turns for Sqlite {
    fn begin(&self) -> Result<()> {
        self.batch("BEGIN")
    }

    fn commit(&self) -> Result<()> {
        self.batch("COMMIT")
    }

    fn roll_back(&self) -> Result<()> {
        self.batch("ROLLBACK")
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
