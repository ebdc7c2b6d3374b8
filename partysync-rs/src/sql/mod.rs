//! The SQL that a room runs: the [`Sql`] trait, parameters and rows.
//!
//! One database, two adapters: Durable Object SQLite (feature `worker`) and rusqlite (feature
//! `sqlite`). Everything above sees only [`Sql`].

pub(crate) mod select;
#[cfg(all(feature = "sqlite", not(target_arch = "wasm32")))]
mod sqlite;
mod value;

pub(crate) use value::check_text;
pub use value::{SqlType, Value};

#[cfg(all(feature = "sqlite", not(target_arch = "wasm32")))]
pub use sqlite::Sqlite;

use crate::{Code, Column, Error, Key, Record, Result, Timestamp};
use std::ops::ControlFlow;

/// A SQLite database. Adapters implement it; users call the methods of `dyn Sql`.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// # #[cfg(all(feature = "sqlite", not(target_arch = "wasm32")))] {
/// use partysync::{params, sql::{Sql, Sqlite}};
///
/// let db = Sqlite::in_memory()?;
/// let sql: &dyn Sql = &db;
/// sql.execute("CREATE TABLE kv (k TEXT PRIMARY KEY, v INTEGER)", params![])?;
/// let changed = sql.execute("INSERT INTO kv VALUES (?, ?), (?, ?)", params!["a", 1, "b", 2])?;
/// assert_eq!(changed, 2);
/// let total: i64 = sql.query_one("SELECT sum(v) FROM kv", params![], |row| row.get(0))?;
/// assert_eq!(total, 3);
/// # } Ok(()) }
/// ```
pub trait Sql {
    /// Runs one statement and hands its rows to `each` until that breaks: rows behind it are
    /// neither read nor held. The building block of all others.
    ///
    /// A Durable Object keeps a statement that was not read to its end open for a while: its
    /// tables cannot be dropped or altered then.
    ///
    /// # Errors
    /// What SQLite says of the statement, or what `each` returns.
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()>;

    /// Runs one statement and hands each row to `each`. The methods of `dyn Sql` are nicer to
    /// call.
    ///
    /// # Errors
    /// What SQLite says of the statement, or what `each` returns.
    fn run(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        self.scan(sql, params, &mut |row| each(row).map(ControlFlow::Continue))
    }

    /// Runs one statement whose rows nobody reads.
    ///
    /// # Errors
    /// What SQLite says of the statement.
    fn exec(&self, sql: &str, params: &[Value]) -> Result<()> {
        self.run(sql, params, &mut |_| Ok(()))
    }

    /// Runs `body` as one transaction: all that it wrote is kept if it returns `Ok`, and gone if
    /// it returns `Err`. May be nested.
    ///
    /// # Errors
    /// What `body` returns, or what SQLite says of the commit.
    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()>;
}

/// A database whose outermost transaction is opened and ended by hand, as a room's driver does
/// with each turn. A Durable Object needs none: the runtime commits what a turn has written.
pub trait Turns: Sql {
    /// Opens the turn's transaction.
    ///
    /// # Errors
    /// What SQLite says.
    fn begin(&self) -> Result<()>;

    /// Keeps what the turn has written.
    ///
    /// # Errors
    /// What SQLite says; nothing of the turn is kept then.
    fn commit(&self) -> Result<()>;

    /// Takes back what the turn has written.
    ///
    /// # Errors
    /// What SQLite says.
    fn roll_back(&self) -> Result<()>;
}

impl<D: Sql + ?Sized> Sql for std::rc::Rc<D> {
    fn exec(&self, sql: &str, params: &[Value]) -> Result<()> {
        (**self).exec(sql, params)
    }

    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        (**self).scan(sql, params, each)
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        (**self).transaction(body)
    }
}

/// Asked before a statement whose changes are counted.
pub(crate) const COUNT_BEFORE: &str = "SELECT total_changes()";

impl dyn Sql + '_ {
    /// Runs a statement and returns how many rows it inserted, updated or deleted (0 for one
    /// that changes none).
    ///
    /// # Errors
    /// [`Code::Constraint`] or [`Code::Sql`], with SQLite's message.
    pub fn execute(&self, sql: &str, params: impl AsRef<[Value]>) -> Result<u64> {
        // `changes()` keeps its value over statements that are not DML: compare the totals.
        let before: i64 = self.query_one(COUNT_BEFORE, [], |row| row.get(0))?;
        self.exec(sql, params.as_ref())?;
        let (after, changes) = self.query_one("SELECT total_changes(), changes()", [], |row| {
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
        })?;
        Ok(if after == before { 0 } else { changes.unsigned_abs() })
    }

    /// Runs a query and collects what `map` makes of each row.
    ///
    /// # Errors
    /// What SQLite says of the query, or what `map` returns.
    pub fn query_map<T>(
        &self,
        sql: &str,
        params: impl AsRef<[Value]>,
        mut map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.run(sql, params.as_ref(), &mut |row| {
            rows.push(map(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row of a query, if it has one; rows behind it are not read.
    ///
    /// # Errors
    /// What SQLite says of the query, or what `map` returns.
    pub fn query_opt<T>(
        &self,
        sql: &str,
        params: impl AsRef<[Value]>,
        mut map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut first = None;
        self.scan(sql, params.as_ref(), &mut |row| {
            // Of a query with one row the end is seen: one that is not read to its end keeps its
            // table busy.
            if first.is_some() {
                return Ok(ControlFlow::Break(()));
            }
            first = Some(map(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(first)
    }

    /// The first row of a query that always has one.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is no row; what SQLite or `map` says.
    pub fn query_one<T>(
        &self,
        sql: &str,
        params: impl AsRef<[Value]>,
        map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.query_opt(sql, params, map)?
            .ok_or_else(|| Error::new(Code::NotFound, "the query returned no row"))
    }

    /// The records that a condition selects: `condition` is what follows `FROM table`, such as
    /// `"WHERE completed ORDER BY created_at"`; soft-deleted rows are not excluded for you.
    /// Integers of 64 bits arrive whole, which a plain query cannot promise in a Durable Object.
    ///
    /// # Errors
    /// What SQLite says of the query; [`Code::InvalidValue`] when a row does not fit the type.
    pub fn records<R: Record>(
        &self,
        condition: &str,
        params: impl AsRef<[Value]>,
    ) -> Result<Vec<R>> {
        let text = select::RowText::new(R::SCHEMA, "");
        let sql = format!("SELECT {} FROM {} {condition}", text.sql(), R::SCHEMA.quoted());
        self.query_map(&sql, params, |row| R::from_row(R::SCHEMA.parse_row(&text.read(row, 0)?)?))
    }
}

/// One row of a result.
#[derive(Debug)]
pub struct Row<'a> {
    values: &'a [Value],
}

impl<'a> Row<'a> {
    /// A row of these values; for adapters.
    #[must_use]
    pub fn new(values: &'a [Value]) -> Self {
        Self { values }
    }

    /// The cell at `index`, from 0, as a column type.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when there is no such cell or it does not fit the type.
    pub fn get<T: Column>(&self, index: usize) -> Result<T> {
        let value = self.values.get(index).ok_or_else(|| {
            Error::new(Code::InvalidValue, format!("the row has no column {index}"))
        })?;
        T::from_value(value.clone()).map_err(|e| e.context(format_args!("column {index}")))
    }
}

/// What can be a parameter of a statement: any [`Column`] type, a reference to one of the built-in
/// ones, `&str`, a [`Key`], and [`Value`] itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a statement",
    label = "not a column type"
)]
pub trait ToSql {
    /// The parameter's value.
    fn to_sql(&self) -> Value;
}

impl<T: Column> ToSql for T {
    fn to_sql(&self) -> Value {
        self.to_value()
    }
}

impl ToSql for &str {
    fn to_sql(&self) -> Value {
        Value::from(*self)
    }
}

/// What a match on a reference binds is a parameter as it is.
macro_rules! by_reference {
    ($($type:ty),*) => {$(
        impl ToSql for &$type {
            fn to_sql(&self) -> Value {
                self.to_value()
            }
        }

        impl ToSql for &Option<$type> {
            fn to_sql(&self) -> Value {
                self.to_value()
            }
        }
    )*};
}

impl ToSql for Key {
    fn to_sql(&self) -> Value {
        self.to_value()
    }
}

impl ToSql for &Key {
    fn to_sql(&self) -> Value {
        self.to_value()
    }
}

by_reference!(String, Vec<u8>, bool, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, Timestamp);

impl ToSql for Value {
    fn to_sql(&self) -> Value {
        self.clone()
    }
}

/// The parameters of a statement, in the order of its `?`; see [`sql::ToSql`](crate::sql::ToSql).
///
/// ```
/// use partysync::{params, sql::Value};
/// let id = &String::from("a");
/// assert_eq!(params![id, "b", true, None::<i64>], [
///     Value::from("a"), Value::from("b"), Value::Integer(1), Value::Null,
/// ]);
/// ```
#[macro_export]
macro_rules! params {
    () => { [] as [$crate::sql::Value; 0] };
    ($($value:expr),+ $(,)?) => { [$($crate::sql::ToSql::to_sql(&$value)),+] };
}

/// `name` as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
