//! [`Action`]: an intent, and what it does to rows - in the client through a [`Draft`], in the
//! server through SQL. Both come from one [`Operation`], so they agree.

use crate::record::{Key, Role, Schema};
use crate::sql::{Sql, Value};
use crate::store::apply;
use crate::{Code, Error, Identity, Record, Result, Timestamp};
use serde_json::Value as Json;
use std::marker::PhantomData;

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
    /// These cells of the row with this key.
    Update(Value, Vec<(usize, Value)>),
    /// These cells of the row with this key, or a new row with them.
    Upsert(Value, Vec<(usize, Value)>),
    /// The row with this key goes.
    Delete(Value),
}

/// The rows that a reducer works on, by channel. A client's replica is one.
pub trait Tables {
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

    /// Takes every row out that fits. When a row changes, it may be judged again without the
    /// others.
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

/// A record's rows while a reducer changes them: of the action's own record, and no other. What an
/// action does to other records is shown when the server has done it.
///
/// Soft deletes are settled: a deleted row is gone here.
pub struct Draft<'a, R> {
    tables: &'a mut dyn Tables,
    record: PhantomData<R>,
}

impl<R> std::fmt::Debug for Draft<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

impl<'a, R: Record> Draft<'a, R> {
    /// A draft over these rows.
    pub fn new(tables: &'a mut dyn Tables) -> Self {
        Self { tables, record: PhantomData }
    }

    /// The time that the action's rows get.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.tables.now()
    }

    /// Who does this, as [`Router::identify`](crate::worker::Router::identify) has told the client
    /// when it was connected last; `None` before that, and where nobody was asked. `on_action` reads
    /// the same from [`Room::identity`](crate::Room::identity).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    pub fn identity<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        self.tables.identity().map(Identity::read).transpose()
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the stored row does not fit the type.
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<R>> {
        self.tables.get(R::SCHEMA.table, &key.into()).map(R::from_row).transpose()
    }

    /// All rows, by key, without those that do not fit the type, as of a newer version of the
    /// application. Costs the whole table, and again when any of its rows changes while the action has
    /// no answer.
    ///
    /// # Errors
    /// None: what cannot be read is left out.
    pub fn rows(&self) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        self.tables.each(R::SCHEMA.table, &mut |row| rows.extend(R::from_row(row.to_vec())));
        Ok(rows)
    }

    /// Puts a row in, over one with its key if there is one.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a `json` field cannot be written as JSON, [`Code::Constraint`]
    /// when a float is NaN, which SQLite stores as NULL, and its column takes none.
    pub fn put(&mut self, row: &R) -> Result<()> {
        set(R::SCHEMA, self.tables, row.key(), row.to_row()?)
    }

    /// Changes the row with this key; `false` when there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`put`](Self::put); [`Code::InvalidValue`] when `change` gives the
    /// row another key. Nothing is changed then.
    pub fn update(&mut self, key: impl Into<Key>, change: impl FnOnce(&mut R)) -> Result<bool> {
        let key = key.into();
        let Some(mut row) = self.get(key.clone())? else { return Ok(false) };
        change(&mut row);
        if row.key() != key {
            let message = format!(
                "an update of `{}` changed a row's key: `delete` the row and `put` one with the \
                 new key instead",
                R::SCHEMA.table
            );
            return Err(Error::new(Code::InvalidValue, message));
        }
        let mut cells = row.to_row()?;
        if let Some((index, _)) = R::SCHEMA.role(Role::UpdatedAt)
            && let Some(cell) = cells.get_mut(index)
        {
            *cell = Value::Integer(self.now().as_millis());
        }
        set(R::SCHEMA, self.tables, key, cells)?;
        Ok(true)
    }

    /// Takes the row with this key out.
    pub fn delete(&mut self, key: impl Into<Key>) {
        self.tables.set(R::SCHEMA.table, key.into(), None);
    }

    /// Takes every row out that fits. Costs the whole table once; while the action has no answer, a
    /// row that changes is judged again alone. So `fits` has to say the same of the same row, and to note
    /// nothing of what it sees.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn delete_where(&mut self, fits: impl Fn(&R) -> bool) -> Result<()> {
        let mut fits = |row: &[Value]| Ok(R::from_row(row.to_vec()).is_ok_and(|row| fits(&row)));
        self.tables.delete_where(R::SCHEMA.table, &mut fits)
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
            Self::Update(key, cells) => {
                let key = Key::try_from(key.clone())?;
                let row =
                    tables.get(schema.table, &key).ok_or_else(|| apply::not_found(schema, &key))?;
                change_row(schema, tables, key, row, cells)?;
            }
            Self::Upsert(key, cells) => {
                let key = Key::try_from(key.clone())?;
                match tables.get(schema.table, &key) {
                    Some(row) => change_row(schema, tables, key, row, cells)?,
                    None => Self::Insert(cells.clone()).reduce(schema, tables)?,
                }
            }
            Self::Delete(key) => tables.set(schema.table, Key::try_from(key.clone())?, None),
        }
        Ok(())
    }

    /// Runs the operation's SQL.
    pub(crate) fn apply(&self, schema: &Schema, sql: &dyn Sql) -> Result<()> {
        match self {
            Self::Insert(cells) => apply::insert(schema, cells, sql),
            Self::Update(key, cells) => apply::update(schema, key, cells, sql),
            Self::Upsert(key, cells) => apply::upsert(schema, key, cells, sql),
            Self::Delete(key) => apply::delete(schema, key, sql),
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
    let touched = cells.iter().any(|(index, _)| *index != 0);
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
fn set(schema: &Schema, tables: &mut dyn Tables, key: Key, mut row: Vec<Value>) -> Result<()> {
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
    let deleted = schema.is_deleted(&row);
    tables.set(schema.table, key, (!deleted).then_some(row));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct Note {
        #[record(key)]
        id: String,
        text: String,
    }

    #[derive(Default)]
    struct Rows(BTreeMap<Key, Vec<Value>>);

    impl Tables for Rows {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1)
        }

        fn get(&self, _: &str, key: &Key) -> Option<Vec<Value>> {
            self.0.get(key).cloned()
        }

        fn set(&mut self, _: &str, key: Key, row: Option<Vec<Value>>) {
            match row {
                Some(row) => self.0.insert(key, row),
                None => self.0.remove(&key),
            };
        }

        fn keys(&self, _: &str) -> Vec<Key> {
            self.0.keys().cloned().collect()
        }
    }

    #[test]
    fn an_update_that_changes_the_key_is_an_error_and_changes_nothing() {
        let mut rows = Rows::default();
        let mut draft = Draft::<Note>::new(&mut rows);
        let note = Note { id: "a".into(), text: "text".into() };
        draft.put(&note).unwrap();
        let error = draft.update("a", |note| note.id = "b".into()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidValue);
        assert!(error.message().contains("`delete`"), "{error}");
        assert_eq!(draft.rows().unwrap(), [note]);
        assert!(draft.update("a", |note| note.text.push('!')).unwrap());
        assert_eq!(draft.get("a").unwrap().unwrap().text, "text!");
    }

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "measures")]
    struct Measure {
        #[record(key)]
        id: String,
        may_lack: Option<f64>,
        has: f64,
    }

    #[test]
    fn what_is_no_number_is_null_as_in_sqlite_or_an_error() {
        let mut rows = Rows::default();
        let mut draft = Draft::<Measure>::new(&mut rows);
        let measure = |may_lack, has| Measure { id: "a".into(), may_lack, has };
        draft.put(&measure(Some(f64::NAN), 1.0)).unwrap();
        assert_eq!(draft.rows().unwrap(), [measure(None, 1.0)]);
        let error = draft.put(&measure(None, f64::NAN)).unwrap_err();
        assert_eq!(error.code(), Code::Constraint);
        let error = draft.update("a", |measure| measure.has = f64::NAN).unwrap_err();
        assert!(error.message().contains("`has`"), "{error}");
        draft.update("a", |measure| measure.may_lack = Some(2.0)).unwrap();
        draft.update("a", |measure| measure.may_lack = Some(f64::NAN)).unwrap();
        assert_eq!(draft.rows().unwrap(), [measure(None, 1.0)]);
    }
}
