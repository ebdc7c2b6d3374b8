//! [`Action`]: an intent, and what it does to rows - in the client through a [`Draft`], in the
//! server through SQL. Both come from one [`Operation`], so they agree.

use crate::record::{Key, Role, Schema};
use crate::sql::{Sql, Value};
use crate::store::apply;
use crate::{Code, Draft, Error, Identity, Record, Result, Timestamp, referring};
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// What a client may ask of a room: one record's actions, or an enum of several records' actions.
///
/// Derive it. Each variant travels as `{"type": "create", "payload": {...}}`, its name in snake
/// case.
///
/// # Attributes
///
/// On the enum: `#[action(record = Todo)]`; or `#[action(channels)]` on an enum whose variants
/// each hold the actions of another record, for a server with several. A record has one enum of
/// actions. `crate = "path"` says where this crate is, if not at `::partysync`.
///
/// On a variant, in `#[action(...)]`:
///
/// | attribute | meaning |
/// |---|---|
/// | `insert` | a new row; fields are columns; what is not given takes its default |
/// | `update` | changes a row; an `Option` field left `None` is left alone |
/// | `upsert` | changes the row, or inserts it |
/// | `delete` | deletes the row, softly if the record has `deleted_at` |
/// | `custom` | does what [`Reduce`] (client) and `on_action` (server) say |
/// | `rename = "name"` | the name on the wire |
/// | `alias = "name"` | a name that it had on the wire before, which is still taken; repeatable |
///
/// Derived too: `Serialize` and `Deserialize`, in the form above; an enum of `channels` puts the
/// channel beside it, `{"channel": "todos", "action": {...}}`.
///
/// The fields of a custom action are of any types: a [`Column`](crate::Column) travels as it does in
/// other actions, and any other type as serde has it.
///
/// On a field: `json` where the record's column is `json`, `rename = "column"`, and `alias =
/// "name"` for one that clients of before send, which are taken as well as the column's
/// `renamed_from`. A field that is not known is refused, and nothing done: what a client of another
/// version has asked is not lost without a word. It keeps such an action
/// ([`Code::Outdated`](crate::Code::Outdated)).
///
/// ```
/// use partysync::{Action, Record};
///
/// #[derive(Record, Clone)]
/// #[record(table = "notes")]
/// struct Note {
///     #[record(key)]
///     id: String,
///     text: String,
/// }
///
/// #[derive(Action, Clone, Debug, PartialEq)]
/// #[action(record = Note)]
/// enum NoteAction {
///     #[action(insert)]
///     Create { id: String, text: String },
///     #[action(update)]
///     Update { id: String, text: Option<String> },
///     #[action(delete)]
///     Delete { id: String },
/// }
///
/// let action = NoteAction::Delete { id: "a".into() };
/// let json = action.to_json().unwrap();
/// assert_eq!(json.to_string(), r#"{"payload":{"id":"a"},"type":"delete"}"#);
/// assert_eq!(NoteAction::from_json("notes", &json.to_string()).unwrap(), action);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an action",
    note = "derive it: #[derive(partysync::Action)]"
)]
pub trait Action: Clone + std::fmt::Debug + 'static {
    /// The records that the actions are about; each is a channel.
    const CHANNELS: &'static [&'static Schema];

    /// The channel of this action: its record's table.
    fn channel(&self) -> &'static str;

    /// The action as it travels.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a field has no JSON form.
    fn to_json(&self) -> Result<Json>;

    /// The action that travelled, out of its text.
    ///
    /// # Errors
    /// [`Code::UnknownChannel`], [`Code::UnknownAction`], [`Code::ActionMismatch`] when a field is
    /// missing or not known, or [`Code::InvalidAction`] when one is of the wrong type.
    fn from_json(channel: &str, json: &str) -> Result<Self>;

    /// Does to a copy of the rows what the server will do to the real ones.
    ///
    /// # Errors
    /// What the server would refuse, as far as a client can know it.
    fn reduce(&self, tables: &mut dyn Tables) -> Result<()>;

    /// Runs the SQL of an `insert`, `update`, `upsert` or `delete`.
    ///
    /// # Errors
    /// [`Code::KeyExists`], [`Code::NotFound`], [`Code::Constraint`]; [`Code::UnhandledAction`]
    /// for a custom action.
    fn apply(&self, sql: &dyn Sql) -> Result<()>;
}

/// An action of one record; derived beside [`Action`].
pub trait RecordAction: Action {
    /// The record.
    type Record: Record;
}

/// What a `custom` action does to the client's rows until the server has answered.
///
/// ```
/// # use partysync::{Action, Draft, Record, Reduce, Result};
/// # #[derive(Record, Clone)] #[record(table = "todos")]
/// # struct Todo { #[record(key)] id: String, completed: bool }
/// #[derive(Action, Clone, Debug)]
/// #[action(record = Todo)]
/// enum TodoAction {
///     #[action(custom)]
///     ClearCompleted,
/// }
///
/// impl Reduce for TodoAction {
///     fn reduce_custom(&self, draft: &mut Draft<'_, Todo>) -> Result<()> {
///         match self {
///             TodoAction::ClearCompleted => draft.delete_where(|todo| todo.completed),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a custom action but does not say what it does",
    label = "needs `impl Reduce`",
    note = "write `impl partysync::Reduce for {Self}`: what a custom action does to the client's rows"
)]
pub trait Reduce: RecordAction {
    /// Changes the rows as the server will. Called for `custom` variants only, and again whenever
    /// rows change under an action that has no answer yet: a row that was there when it was made
    /// may be gone. Return an error then, and do not panic: that ends a page.
    ///
    /// # Errors
    /// Anything: the action is sent all the same, with no effect shown until the server answers.
    fn reduce_custom(&self, draft: &mut Draft<'_, Self::Record>) -> Result<()>;
}

/// What an action does to its record, worked out once for client and server.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A new row with these cells.
    Insert(Vec<(usize, Value)>),
    /// These cells, of the row whose key is among them.
    Update(Vec<(usize, Value)>),
    /// These cells, of the row whose key is among them, or a new row.
    Upsert(Vec<(usize, Value)>),
    /// The row goes whose key these cells are.
    Delete(Vec<(usize, Value)>),
}

/// The rows that a reducer works on, by channel. A client's replica is one.
pub trait Tables {
    /// The records that there are.
    fn schemas(&self) -> &'static [&'static Schema];
    /// The time that new rows get.
    fn now(&self) -> Timestamp;
    /// Who the client is to the room, if that is known.
    fn identity(&self) -> Option<&Identity> {
        None
    }
    /// The row with this key, if it is there.
    fn get(&self, channel: &str, key: &Key) -> Option<Vec<Value>>;
    /// Puts a row in, or takes it out.
    fn set(&mut self, channel: &str, key: Key, row: Option<Vec<Value>>);
    /// The keys of all rows, in order.
    fn keys(&self, channel: &str) -> Vec<Key>;

    /// Calls `f` with every row, by key.
    fn each(&self, channel: &str, f: &mut dyn FnMut(&[Value])) {
        let keys = self.keys(channel);
        keys.iter().filter_map(|key| self.get(channel, key)).for_each(|row| f(&row));
    }

    /// The keys of the rows whose column at this place holds one of these keys, each with that one.
    fn referring(&self, channel: &str, column: usize, to: &BTreeSet<Key>) -> Vec<(Key, Key)> {
        let mut found = Vec::new();
        let schema = self.schemas().iter().find(|schema| schema.table == channel);
        self.each(channel, &mut |row| {
            let referred = row.get(column).and_then(|cell| Key::try_from(cell.clone()).ok());
            let referred = referred.filter(|key| to.contains(key));
            found.extend(schema.and_then(|schema| schema.key_of(row).ok()).zip(referred));
        });
        found
    }

    /// Takes every row out that fits, and no other. When a row changes, it may be judged again without
    /// the others.
    ///
    /// # Errors
    /// Those of `fits`; nothing is changed then.
    fn delete_where(
        &mut self,
        channel: &str,
        fits: &mut dyn FnMut(&[Value]) -> Result<bool>,
    ) -> Result<()> {
        let mut gone = Vec::new();
        for key in self.keys(channel) {
            let fits = self.get(channel, &key).map_or(Ok(false), |row| fits(&row))?;
            gone.extend(fits.then_some(key));
        }
        gone.into_iter().for_each(|key| self.set(channel, key, None));
        Ok(())
    }
}

impl Operation {
    /// What the operation does to a client's rows.
    pub(crate) fn reduce(&self, schema: &Schema, tables: &mut dyn Tables) -> Result<()> {
        match self {
            Self::Insert(cells) => {
                let row = new_row(schema, cells, tables.now())?;
                let key = schema.key_of(&row)?;
                if tables.get(schema.table, &key).is_some() {
                    return Err(apply::key_exists(schema, &key));
                }
                set(schema, tables, key, row)?;
            }
            Self::Update(cells) => {
                let key = schema.key_among(cells)?;
                let row =
                    tables.get(schema.table, &key).ok_or_else(|| apply::not_found(schema, &key))?;
                change_row(schema, tables, key, row, cells)?;
            }
            Self::Upsert(cells) => {
                let key = schema.key_among(cells)?;
                match tables.get(schema.table, &key) {
                    Some(row) => change_row(schema, tables, key, row, cells)?,
                    None => Self::Insert(cells.clone()).reduce(schema, tables)?,
                }
            }
            Self::Delete(cells) => {
                referring::delete(schema, tables, vec![schema.key_among(cells)?])?;
            }
        }
        Ok(())
    }

    /// Runs the operation's SQL.
    pub(crate) fn apply(&self, schema: &Schema, sql: &dyn Sql) -> Result<()> {
        match self {
            Self::Insert(cells) => apply::insert(schema, cells, sql),
            Self::Update(cells) => apply::update(schema, cells, sql),
            Self::Upsert(cells) => apply::upsert(schema, cells, sql),
            Self::Delete(cells) => apply::delete(schema, cells, sql),
        }
    }
}

fn new_row(schema: &Schema, cells: &[(usize, Value)], now: Timestamp) -> Result<Vec<Value>> {
    let cell = |(index, column): (usize, &crate::record::ColumnDef)| {
        let given = cells.iter().find(|(i, _)| *i == index).map(|(_, value)| value.clone());
        given.or_else(|| column.initial(now)).ok_or_else(|| {
            let (column, table) = (column.name, schema.table);
            Error::new(
                Code::Constraint,
                format!("a new row of `{table}` needs a value for `{column}`"),
            )
        })
    };
    schema.columns.iter().enumerate().map(cell).collect()
}

fn change_row(
    schema: &Schema,
    tables: &mut dyn Tables,
    key: Key,
    mut row: Vec<Value>,
    cells: &[(usize, Value)],
) -> Result<()> {
    let touched = cells.iter().any(|(index, _)| *index >= schema.key().len());
    let now = schema
        .role(Role::UpdatedAt)
        .filter(|(index, _)| touched && !cells.iter().any(|(i, _)| i == index))
        .map(|(index, _)| (index, Value::Integer(tables.now().as_millis())));
    for (index, value) in cells.iter().cloned().chain(now) {
        if let Some(cell) = row.get_mut(index) {
            *cell = value;
        }
    }
    set(schema, tables, key, row)
}

/// Puts a row in as SQLite stores it: there NaN is NULL. One that is deleted goes.
pub(crate) fn set(
    schema: &Schema,
    tables: &mut dyn Tables,
    key: Key,
    mut row: Vec<Value>,
) -> Result<()> {
    for (column, cell) in schema.columns.iter().zip(&mut row) {
        if !matches!(cell, Value::Real(x) if x.is_nan()) {
            continue;
        }
        if !column.nullable {
            let (column, table) = (column.name, schema.table);
            let message = format!("`{column}` of `{table}` takes no NULL, which NaN is in SQLite");
            return Err(Error::new(Code::Constraint, message));
        }
        *cell = Value::Null;
    }
    referring::check(schema, tables, &key, &row)?;
    let deleted = schema.is_deleted(&row);
    tables.set(schema.table, key, (!deleted).then_some(row));
    Ok(())
}
