//! [`Record`]: a row and its table, described by a [`Schema`].

use crate::sql::{SqlType, Value, literal, quote};
use crate::{Code, Column, Error, IndexDef, Reference, Result, Timestamp};
use serde_json::Value as Json;
use std::sync::Arc;

/// A row of one table, and through its table's name a channel that clients follow.
///
/// Derive it; nobody writes it by hand. The key is the first field, or the first few, and `deleted_at`,
/// where there is one, the last: a row travels as a JSON array in the order of its fields. A record has
/// at most 100 fields, which is what a Durable Object takes.
///
/// # Attributes
///
/// On the struct, in `#[record(...)]`:
///
/// | attribute | meaning |
/// |---|---|
/// | `table = "todos"` | the table's name, which is the channel's |
/// | `renamed_from = "name"` | a name that the table had before: its rows move over; repeatable |
/// | `dropped = "column"` | a column that goes, with its values; repeatable |
/// | `version = 2` | the version of what rows mean, from 1: see [data migrations](#data-migrations) |
/// | `compatible = 1` | the oldest version whose code can work with these rows; if it is not said, none but this one |
/// | `index = "a, b"`, `unique = "a, b"` | an index of several columns; repeatable |
/// | `check = "length(text) > 0"` | an expression in SQL of the row's columns that no row may make false; repeatable |
/// | `crate = "path"` | where this crate is, if not at `::partysync` |
///
/// On a field, in `#[record(...)]`:
///
/// | attribute | meaning |
/// |---|---|
/// | `key` | the primary key: text, an integer or bytes; the first field. On several fields: a [key of several columns](#a-key-of-several-columns) |
/// | `created_at`, `updated_at` | a [`Timestamp`] that the framework sets: when the room commits, which for what was made offline is when it arrives, and the same for all of a push |
/// | `deleted_at` | an `Option<Timestamp>`; with it deletes are soft; the last field |
/// | `default = literal` | what a new row holds where an insert does not say |
/// | `index`, `unique` | an index; one that allows each value once |
/// | `references = "cards"` | the column holds the key of a row of that table, which is a record of the same server: see [references](#references) |
/// | `on_delete = "cascade"` | what becomes of the row when that one is deleted: `cascade`, `set_null`, or `restrict`, which it is if it is not said |
/// | `check = "length(text) > 0"` | as on the struct |
/// | `scope` | what [`Visible`](crate::Visible) may name of a row: text, an integer or JSON. Where any column is one, the key is, too |
/// | `json` | any serde type, stored as JSON text |
/// | `rename = "name"` | the column's name, where it is not the field's |
/// | `renamed_from = "name"` | a name that the column had before: its values move over; repeatable |
/// | `constant = "name"` | what [queries](crate::query) call the column, where the record has a function of the field's name |
///
/// ```
/// use partysync::{Record, Timestamp};
///
/// #[derive(Record, Clone, PartialEq, Debug)]
/// #[record(table = "todos")]
/// struct Todo {
///     #[record(key)]
///     id: String,
///     text: String,
///     #[record(default = false)]
///     completed: bool,
///     #[record(json)]
///     tags: Vec<String>,
///     #[record(created_at)]
///     created_at: Timestamp,
///     #[record(deleted_at)]
///     deleted_at: Option<Timestamp>,
/// }
///
/// assert_eq!(Todo::SCHEMA.table, "todos");
/// assert_eq!(Todo::SCHEMA.columns.len(), 6);
/// ```
///
/// # A key of several columns
///
/// What belongs to two things at once, as a label to a card, a member to a team or a vote to a question,
/// is the row of that pair, and there once for each. Its record's first fields, up to eight, are `key`,
/// each text or an integer:
///
/// ```
/// use partysync::{Action, Key, Record};
///
/// #[derive(Record, Clone, Debug, PartialEq)]
/// #[record(table = "votes")]
/// struct Vote {
///     #[record(key, references = "questions", on_delete = "cascade")]
///     question: String,
///     #[record(key, index)]
///     user: String,
///     points: i64,
/// }
///
/// #[derive(Action, Clone, Debug)]
/// #[action(record = Vote)]
/// enum VoteAction {
///     // The row is named by all fields of its key.
///     #[action(upsert)]
///     Vote { question: String, user: String, points: i64 },
///     #[action(delete)]
///     Withdraw { question: String, user: String },
/// }
///
/// let vote = Vote { question: "q1".into(), user: "ada".into(), points: 3 };
/// assert_eq!(vote.key(), Key::from(("q1", "ada")));
/// ```
///
/// Rows are in the order of the key's first column, then of its second. SQLite finds those of one
/// question at once, and those of one user by the `index`. No column `references` such a record, and no
/// [query](crate::query) joins by its key: give it a key of one column and `unique = "question, user"`
/// where others refer to it. Clients of protocol 1, which know a row by its first column, are not given
/// the channel. Followers of a history are told the JSON array as its `key`.
///
/// # References
///
/// A column that `references` a table has a foreign key in SQL. A reducer does what that does, as far as
/// its client can know: a `delete` takes the rows that refer with `cascade` along, clears the columns
/// of those that refer with `set_null`, and is refused with [`Code::Constraint`] where others refer; so
/// is a row that refers to none. It does so to rows of pending actions as well.
///
/// A soft delete is an update: it cascades nothing, and the row may be referred to. The row goes for good
/// after [`Limits::retention_ms`](crate::Limits::retention_ms), and `on_delete` is done then. A client
/// knows no softly deleted row: that one refers, or is referred to, is left to the server. So are
/// `unique` and `check`.
///
/// # Migrations
///
/// A room compares the stored schema with the type's when it starts, in one transaction. A change
/// that could lose or break rows is refused with [`Code::Migration`], which names the column and
/// the remedy, and nothing is altered.
///
/// | the type changes | the table |
/// |---|---|
/// | a field is new | gets the column, if it has a `default` or is an `Option`; else it is refused |
/// | a field is gone | keeps the column and its values (see below) |
/// | a field is gone and `dropped` | loses the column |
/// | a field has `renamed_from` | its column is renamed |
/// | `default` changes | new rows get the new one; rows that are there stay |
/// | an `Option` is no longer one | rows with NULL get the `default`; without one it is refused |
/// | a field becomes an `Option`, `index` or `unique` come or go, also of several columns | follows |
/// | `references` or `on_delete` come, go or change | follows; refused where rows refer to none, which are named |
/// | `check` comes or goes | follows; refused where rows do not fit, which are named |
/// | the type of a column, or the key | refused: use a new column or table, filled in a [data migration](#data-migrations) |
/// | `table` changes, with `renamed_from` | is renamed |
/// | `scope` comes or goes | stays; all clients of the room start over once |
/// | the record is gone | stays, with its rows |
///
/// A client that was built with other columns does not show the rows of that record that it has
/// stored before it has connected: they are fetched anew.
///
/// **A rollback loses nothing.** A column that the running code does not know stays in the table
/// and takes NULL from now on, unless it has a default. When code that knows it runs again, the
/// column is there with its values; rows that were inserted meanwhile hold NULL or its default
/// (it is refused if such a row has NULL where the code takes none). The same holds for
/// a rename: a room remembers the names that its tables and columns had, so that older code
/// finds them under the older name and newer code under the newer. To use a name anew for
/// something else, say `dropped` of the column that had it.
///
/// A rename without `renamed_from` therefore keeps the values, in the column of the older name.
/// When `renamed_from` is added later, rooms that hold both are refused, as only the application
/// can tell which values are right: leave `renamed_from` out, and copy the values in `on_start`
/// of rooms in which `PRAGMA table_info` still has the older column.
///
/// **`dropped` loses values**, in each room when it next starts, before `on_start` and after all
/// [data migrations](#data-migrations), which may read the column still: write it in a version after
/// the last one that reads the column.
///
/// A table that is no record's any more stays, with its rows, for code that reads it by its name;
/// `DROP TABLE` in `on_start` is how it goes.
///
/// The application's own indexes, triggers and views on the table stay. A column whose `default`
/// or `Option` changes is written anew for each row, without a call of the application's
/// triggers. A column that a view or trigger names is not dropped.
///
/// # Data migrations
///
/// What the columns hold may change its meaning: amounts in another unit, JSON of another shape. Raise
/// the record's `version` then, and say in [`SyncServer::migrate`](crate::SyncServer::migrate) how
/// rows of the version before become those of the new one: the room calls it when it opens, in
/// batches, one version after the other. A version that rises without code for it is refused.
///
/// The version is a part of what a page says that it knows. **A page of an older version** is told to
/// reload, and keeps what is pending: it might read the rows wrongly. Actions come as they were made:
/// let those take the older shape too (an untagged enum of serde's). **A rollback** to code of an
/// older version is refused, as a column of the wrong type is, and so is one while rows are on their
/// way. If the older code can work with the new rows, and the new code with those that the older code
/// goes on writing, say `compatible = N`: pages and servers from version `N` on go on.
///
/// Where most rows stay what they are, the version need not rise: an enum that gets a variant, or a
/// field of JSON that becomes an `Option`. A page that does not know the new ones leaves such rows
/// out, and says so (`Status::unreadable` of the client).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    note = "derive it: #[derive(partysync::Record)]"
)]
pub trait Record: Clone + 'static {
    /// The table's description.
    const SCHEMA: &'static Schema;

    /// The row's key.
    fn key(&self) -> Key;

    /// The row's cells, in the order of [`Schema::columns`].
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a `json` field cannot be written as JSON.
    fn to_row(&self) -> Result<Vec<Value>>;

    /// The record of a row's cells.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a cell does not fit its field.
    fn from_row(row: Vec<Value>) -> Result<Self>;

    /// Whether [`from_row`](Self::from_row) takes these cells.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a cell does not fit its field.
    fn check_row(row: &[Value]) -> Result<()> {
        Self::from_row(row.to_vec()).map(drop)
    }

    /// A query for all rows, to be narrowed down: see [`query`](crate::query).
    #[must_use]
    fn query() -> crate::query::Query<Self> {
        crate::query::Query::new()
    }
}

/// A row's key, as a map wants it: ordered and comparable. Clones share their text or bytes.
///
/// ```
/// use partysync::Key;
/// assert!(Key::from(2) < Key::from(10));
/// assert_eq!(Key::from("a").to_string(), "a");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An integer.
    Integer(i64),
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Blob(Arc<[u8]>),
    /// Those of a [key of several columns](Record#a-key-of-several-columns), in their order.
    Several(Arc<[Key]>),
}

impl Key {
    /// The key that a column's value is.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for NULL and for a float, which cannot be keys.
    pub fn new(value: &impl Column) -> Result<Self> {
        Self::try_from(value.to_value())
    }

    /// The key as a SQL value. One of several columns is the text of a JSON array: what its columns hold
    /// are its [`parts`](Self::parts).
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Integer(n) => Value::Integer(*n),
            Self::Text(text) => Value::Text(text.as_ref().to_owned()),
            Self::Blob(bytes) => Value::Blob(bytes.to_vec()),
            Self::Several(_) => Value::Text(self.to_string()),
        }
    }

    /// What each column of the key holds: of a key of one column, the key itself.
    ///
    /// ```
    /// use partysync::Key;
    /// assert_eq!(Key::from(("q1", 7)).parts(), [Key::from("q1"), Key::from(7)]);
    /// assert_eq!(Key::from("q1").parts(), [Key::from("q1")]);
    /// ```
    #[must_use]
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Several(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Integer(n) => Json::from(*n),
            Self::Text(text) => Json::from(text.as_ref()),
            Self::Blob(_) => Json::from(self.to_string()),
            Self::Several(parts) => parts.iter().map(Self::to_json).collect(),
        }
    }
}

macro_rules! several {
    ($($kind:ident $part:ident),*) => {
        impl<$($kind: Into<Key>),*> From<($($kind,)*)> for Key {
            fn from(($($part,)*): ($($kind,)*)) -> Self {
                Self::Several([$($part.into()),*].into())
            }
        }
    };
}

several!(A a, B b);
several!(A a, B b, C c);
several!(A a, B b, C c, D d);

impl TryFrom<Value> for Key {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::Integer(n) => Ok(Self::Integer(n)),
            Value::Text(text) => Ok(Self::Text(text.into())),
            Value::Blob(bytes) => Ok(Self::Blob(bytes.into())),
            Value::Null | Value::Real(_) => {
                Err(Error::new(Code::InvalidValue, "a key cannot be NULL or a float"))
            }
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Key {
    fn from(n: i64) -> Self {
        Self::Integer(n)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
            Self::Blob(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
            Self::Several(_) => write!(f, "{}", self.to_json()),
        }
    }
}

/// A table: its name and its columns, those of the key first.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub struct Schema {
    /// The table's name, which is the channel's too.
    pub table: &'static str,
    /// The names that the table had before.
    pub renamed_from: &'static [&'static str],
    /// Columns that are dropped from tables which have them.
    pub dropped: &'static [&'static str],
    /// The version of the rows' meaning, from 1: see [`SyncServer::migrate`](crate::SyncServer::migrate).
    pub version: u32,
    /// The oldest version whose code can work with these rows.
    pub compatible: u32,
    /// The columns, in the order of the struct's fields.
    pub columns: &'static [ColumnDef],
    /// Indexes of several columns.
    pub indexes: &'static [IndexDef],
    /// What holds of each row, in SQL.
    pub checks: &'static [&'static str],
    pub(crate) check: RowCheck,
}

/// The version of a record that says none; it is not written, on the wire or in storage.
pub(crate) fn first_version() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn is_first_version(version: &u32) -> bool {
    *version == first_version()
}

/// Whether a row's cells are what the record's fields hold. All are equal: the columns tell two
/// schemas apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowCheck(pub(crate) fn(&[Value]) -> Result<()>);

impl PartialEq for RowCheck {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One column of a table.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub struct ColumnDef {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it takes NULL.
    pub nullable: bool,
    /// What it is for.
    pub role: Role,
    /// What a new row holds where an insert does not say.
    pub default: Option<Literal>,
    /// Whether it is indexed.
    pub index: bool,
    /// Whether each value may be there once only.
    pub unique: bool,
    /// Whose key it holds.
    pub references: Option<Reference>,
    /// The names that it had before.
    pub renamed_from: &'static [&'static str],
    /// Whether [`Visible`](crate::Visible) may name it.
    pub scope: bool,
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The application's data.
    Plain,
    /// The primary key, or one of its columns.
    Key,
    /// When the row was inserted.
    CreatedAt,
    /// When the row was last written.
    UpdatedAt,
    /// When the row was deleted, NULL while it is not.
    DeletedAt,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Key => "key",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::DeletedAt => "deleted_at",
        }
    }
}

/// The value of a `default` attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Literal {
    /// An integer, or a boolean as 0 or 1.
    Integer(i64),
    /// A float.
    Real(f64),
    /// Text.
    Text(&'static str),
}

impl Literal {
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Integer(n) => Value::Integer(n),
            Self::Real(x) => Value::Real(x),
            Self::Text(text) => Value::Text(text.to_owned()),
        }
    }

    pub(crate) fn ddl(self) -> String {
        match self {
            Self::Integer(n) => n.to_string(),
            Self::Real(x) => format!("{x:?}"),
            Self::Text(text) => literal(text),
        }
    }
}

impl ColumnDef {
    /// The column as a client's `hello` says it, under this name: `name?:TYPE`, with its role
    /// behind it where it has one; without the `?` it takes no null.
    pub(crate) fn signature(&self, name: &str) -> String {
        let (null, kind) = (if self.nullable { "?" } else { "" }, self.sql_type.name());
        match self.role {
            Role::Plain => format!("{name}{null}:{kind}"),
            role => format!("{name}{null}:{kind}:{}", role.name()),
        }
    }

    /// What a new row holds where an insert does not say; `None` where it has to.
    pub(crate) fn initial(&self, now: Timestamp) -> Option<Value> {
        match self.role {
            Role::CreatedAt | Role::UpdatedAt => Some(now.to_value()),
            _ => match self.default {
                Some(default) => Some(default.to_value()),
                None if self.nullable => Some(Value::Null),
                None => None,
            },
        }
    }
}

impl Schema {
    /// The table's name as an SQL identifier.
    pub(crate) fn quoted(&self) -> String {
        quote(self.table)
    }

    /// The columns of the key: one, or some. They are the first.
    ///
    /// ```
    /// # use partysync::Record;
    /// # #[derive(Record, Clone)] #[record(table = "a")]
    /// # struct A { #[record(key)] card: String, #[record(key)] label: String, by: String }
    /// let names: Vec<_> = A::SCHEMA.key().iter().map(|column| column.name).collect();
    /// assert_eq!(names, ["card", "label"]);
    /// ```
    #[must_use]
    pub fn key(&self) -> &'static [ColumnDef] {
        let others = self.columns.iter().position(|column| column.role != Role::Key);
        self.columns.get(..others.unwrap_or(self.columns.len())).unwrap_or_default()
    }

    /// Whether views may name any column.
    pub(crate) fn has_scope(&self) -> bool {
        self.columns.iter().any(|column| column.scope)
    }

    /// The columns that views may name beside the key.
    pub(crate) fn scope(&self) -> impl Iterator<Item = &ColumnDef> {
        self.columns.iter().filter(|column| column.scope && column.role != Role::Key)
    }

    /// The column with this role and its place.
    #[must_use]
    pub fn role(&self, role: Role) -> Option<(usize, &ColumnDef)> {
        self.columns.iter().enumerate().find(|(_, column)| column.role == role)
    }

    /// Whether deletes are soft and this row is deleted.
    #[must_use]
    pub fn is_deleted(&self, row: &[Value]) -> bool {
        self.role(Role::DeletedAt)
            .is_some_and(|(index, _)| row.get(index).is_some_and(|cell| *cell != Value::Null))
    }

    /// Whether a row's cells fit the record: a row of another version of the application may hold
    /// a variant of an enum, or a shape of JSON, that this one does not know.
    ///
    /// # Errors
    /// [`Code::InvalidValue`], with the column.
    pub fn check_row(&self, row: &[Value]) -> Result<()> {
        (self.check.0)(row)
    }

    /// The key of a row's cells.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when one of the first cells cannot be a key.
    pub fn key_of(&self, row: &[Value]) -> Result<Key> {
        match row.get(..self.key().len()) {
            Some([one]) => Key::try_from(one.clone()),
            Some(parts) => {
                let parts = parts.iter().cloned().map(Key::try_from);
                parts.collect::<Result<_>>().map(Key::Several)
            }
            None => Err(Error::new(Code::InvalidValue, format!("no key of `{}`", self.table))),
        }
    }

    /// A key from its JSON: that of its column, or an array where it has several.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not what the columns hold.
    pub fn key_from_json(&self, json: &Json) -> Result<Key> {
        let part = |(column, json): (&ColumnDef, &Json)| {
            Key::try_from(Value::from_json(json, column.sql_type)?)
        };
        let columns = self.key();
        if let [column] = columns {
            return part((column, json));
        }
        let parts = json.as_array().filter(|parts| parts.len() == columns.len());
        let parts = parts.ok_or_else(|| {
            let message = format!("a key of `{}` is an array of {}", self.table, columns.len());
            Error::new(Code::InvalidValue, message)
        })?;
        columns.iter().zip(parts).map(part).collect::<Result<_>>().map(Key::Several)
    }

    /// The key among the cells of some columns.
    pub(crate) fn key_among(&self, cells: &[(usize, Value)]) -> Result<Key> {
        let cell = |place: usize| {
            let cell = cells.iter().find(|(index, _)| *index == place);
            cell.map_or(Value::Null, |(_, value)| value.clone())
        };
        let cells: Vec<_> = (0..self.key().len()).map(cell).collect();
        self.key_of(&cells)
    }

    /// Whether the column at this place is the key by itself.
    #[must_use]
    pub fn is_key(&self, column: usize) -> bool {
        column == 0 && self.key().len() == 1
    }

    /// A row's cells from its JSON array.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not an array of this table's columns.
    pub fn row_from_json(&self, json: &Json) -> Result<Vec<Value>> {
        let cells = json.as_array().filter(|cells| cells.len() == self.columns.len());
        let cells = cells.ok_or_else(|| {
            let (table, columns) = (self.table, self.columns.len());
            Error::new(
                Code::InvalidValue,
                format!("a row of `{table}` is an array of {columns} values"),
            )
        })?;
        let cell = |(column, json): (&ColumnDef, &Json)| {
            if json.is_null() && !column.nullable {
                let message = format!("column `{}` does not take null", column.name);
                return Err(Error::new(Code::InvalidValue, message));
            }
            Value::from_json(json, column.sql_type)
                .map_err(|e| e.context(format_args!("column `{}`", column.name)))
        };
        self.columns.iter().zip(cells).map(cell).collect()
    }

    /// A row's JSON array from its cells.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a JSON column does not hold JSON.
    pub fn row_to_json(&self, row: &[Value]) -> Result<Json> {
        let cells = self.columns.iter().zip(row);
        cells
            .map(|(column, cell)| cell.to_json(column.sql_type))
            .collect::<Result<_>>()
            .map(Json::Array)
    }

    pub(crate) fn parse_row(&self, json: &str) -> Result<Vec<Value>> {
        let json = serde_json::from_str(json)
            .map_err(|e| Error::new(Code::InvalidValue, format!("row: {e}")))?;
        self.row_from_json(&json)
    }

    /// The columns as a client's `hello` says them; see
    /// [`Subscription::columns`](crate::wire::v2::Subscription::columns).
    ///
    /// ```
    /// # use partysync::Record;
    /// # #[derive(Record, Clone)] #[record(table = "a")]
    /// # struct A { #[record(key)] id: i64, text: Option<String> }
    /// assert_eq!(A::SCHEMA.signature(), ["id:INTEGER:key", "text?:TEXT"]);
    /// ```
    #[must_use]
    pub fn signature(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.signature(column.name)).collect()
    }

    /// A number that changes when what travels changes: the columns' names, types, order and
    /// roles, and the record's version. Client and server compare it in `hello` (FNV-1a, 64 bits, as hexadecimal digits).
    ///
    /// ```
    /// # use partysync::Record;
    /// # #[derive(Record, Clone)] #[record(table = "a")] struct A { #[record(key)] id: i64 }
    /// # #[derive(Record, Clone)] #[record(table = "a")] struct B { #[record(key)] id: String }
    /// assert_ne!(A::SCHEMA.hash(), B::SCHEMA.hash());
    /// ```
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = FNV;
        let mut feed = |text: &str| hash = fnv1a(hash, text.bytes().chain([0]));
        feed(self.table);
        for column in self.columns {
            feed(column.name);
            feed(column.sql_type.name());
            feed(if column.nullable { "?" } else { "" });
            feed(column.role.name());
        }
        // What was hashed before there were versions is the same still.
        if self.version > 1 {
            feed(&self.version.to_string());
        }
        format!("{hash:016x}")
    }
}

/// Where FNV-1a begins.
pub(crate) const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with FNV-1a, 64 bits.
pub(crate) fn fnv1a(hash: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
