//! What derived code calls. Not for people, and free to change.

use crate::action::Operation;
use crate::record::{ColumnDef, RowCheck, Schema};
use crate::sql::{Sql, SqlType, Value};
use crate::{Action, Code, Column, Error, Key, Record, RecordAction, Result};
use crate::{IndexDef, Reference};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

pub use crate::OnDelete;
pub use crate::action::{Operation as Op, Tables};
pub use crate::record::{Literal, Role};
pub use serde;
pub use serde_json;

/// A record's table; its fields may become more.
#[allow(clippy::too_many_arguments)]
pub const fn schema(
    table: &'static str,
    renamed_from: &'static [&'static str],
    dropped: &'static [&'static str],
    (version, compatible): (u32, u32),
    columns: &'static [ColumnDef],
    indexes: &'static [IndexDef],
    checks: &'static [&'static str],
    check: fn(&[Value]) -> Result<()>,
) -> Schema {
    Schema {
        table,
        renamed_from,
        dropped,
        version,
        compatible,
        columns,
        indexes,
        checks,
        check: RowCheck(check),
    }
}

/// A column of a record's table; its fields may become more.
#[allow(clippy::too_many_arguments)]
pub const fn column(
    name: &'static str,
    sql_type: SqlType,
    nullable: bool,
    role: Role,
    default: Option<Literal>,
    index: bool,
    unique: bool,
    references: Option<Reference>,
    renamed_from: &'static [&'static str],
    scope: bool,
) -> ColumnDef {
    ColumnDef {
        name,
        sql_type,
        nullable,
        role,
        default,
        index,
        unique,
        references,
        renamed_from,
        scope,
    }
}

/// Whose key a column holds; its fields may become more.
pub const fn reference(table: &'static str, on_delete: OnDelete) -> Reference {
    Reference::of(table, on_delete)
}

/// An index of several columns; its fields may become more.
pub const fn index(columns: &'static [&'static str], unique: bool) -> IndexDef {
    IndexDef::of(columns, unique)
}

/// A field of an action that sets a column: the column's type, or what is in its `Option`.
#[diagnostic::on_unimplemented(
    message = "the column holds `{T}`, this field `{Self}`",
    label = "not the column's type",
    note = "give the field the type that the record's field has"
)]
pub trait IntoColumn<T> {
    fn into_column(self) -> T;
}

impl<T> IntoColumn<T> for T {
    fn into_column(self) -> T {
        self
    }
}

impl<T> IntoColumn<Option<T>> for T {
    fn into_column(self) -> Option<T> {
        Some(self)
    }
}

/// A field of a record out of its row.
pub fn cell(row: &mut [Value], index: usize) -> Value {
    row.get_mut(index).map_or(Value::Null, |cell| std::mem::replace(cell, Value::Null))
}

/// Whether a cell fits the field that it is read as.
pub fn check_cell<T: Column>(row: &[Value], index: usize, column: &str) -> Result<()> {
    T::check(row.get(index).unwrap_or(&Value::Null)).map_err(|e| in_column(e, column))
}

/// Whether a cell fits the `json` field that it is read as.
pub fn check_json<T: DeserializeOwned>(row: &[Value], index: usize, column: &str) -> Result<()> {
    let read = json_from_value::<T>(row.get(index).unwrap_or(&Value::Null));
    read.map(drop).map_err(|e| in_column(e, column))
}

/// A `json` field as SQL stores it.
pub fn json_to_value<T: Serialize>(value: &T) -> Result<Value> {
    match serde_json::to_value(value) {
        Ok(Json::Null) => Ok(Value::Null),
        Ok(json) => Ok(Value::Text(json.to_string())),
        Err(error) => Err(Error::new(Code::InvalidValue, error.to_string())),
    }
}

/// A `json` field out of its cell.
pub fn json_from_value<T: DeserializeOwned>(value: &Value) -> Result<T> {
    let parsed = match value {
        Value::Null => serde_json::from_str("null"),
        Value::Text(text) => serde_json::from_str(text),
        _ => return Err(Error::new(Code::InvalidValue, "expected JSON text")),
    };
    parsed.map_err(|e| Error::new(Code::InvalidValue, format!("not what the field holds: {e}")))
}

/// Adds the field's name to an error.
pub fn in_column(error: Error, column: &str) -> Error {
    error.context(format_args!("column `{column}`"))
}

/// A key of several columns.
pub fn several<const N: usize>(parts: [Key; N]) -> Key {
    Key::Several(parts.into())
}

/// The column of the key that these names leave out; checked when a derive is compiled.
#[allow(clippy::indexing_slicing)]
pub const fn without_key(schema: &Schema, names: &[&str]) -> Option<&'static str> {
    let mut i = 0;
    while i < schema.columns.len() && matches!(schema.columns[i].role, Role::Key) {
        if !is_among(schema.columns[i].name, names) {
            return Some(schema.columns[i].name);
        }
        i += 1;
    }
    None
}

/// How many columns a record's key has; checked when a derive is compiled.
#[allow(clippy::indexing_slicing)]
pub const fn key_columns(schema: &Schema) -> usize {
    let mut i = 0;
    while i < schema.columns.len() && matches!(schema.columns[i].role, Role::Key) {
        i += 1;
    }
    i
}

#[allow(clippy::indexing_slicing)]
const fn is_among(name: &str, names: &[&str]) -> bool {
    let mut i = 0;
    while i < names.len() {
        if same(name.as_bytes(), names[i].as_bytes()) {
            return true;
        }
        i += 1;
    }
    false
}

/// The column that an insert of these names leaves without a value; checked when a derive is
/// compiled.
#[allow(clippy::indexing_slicing)]
pub const fn left_out(schema: &Schema, names: &[&str]) -> Option<&'static str> {
    let mut i = 0;
    while i < schema.columns.len() {
        let column = &schema.columns[i];
        let own = matches!(column.role, Role::Plain) && !column.nullable;
        if own && column.default.is_none() && !is_among(column.name, names) {
            return Some(column.name);
        }
        i += 1;
    }
    None
}

/// A text that is put together when it is compiled, cut where it is too long.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    bytes: [u8; 256],
    length: usize,
}

impl Message {
    /// These parts, one after the other.
    #[allow(clippy::indexing_slicing)]
    pub const fn of(parts: &[&str]) -> Self {
        let (mut message, mut part) = (Self { bytes: [0; 256], length: 0 }, 0);
        while part < parts.len() {
            let (bytes, mut at) = (parts[part].as_bytes(), 0);
            while at < bytes.len() && message.length < message.bytes.len() {
                message.bytes[message.length] = bytes[at];
                message.length += 1;
                at += 1;
            }
            part += 1;
        }
        message
    }

    /// The text.
    pub const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

#[allow(clippy::indexing_slicing)]
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Whether the channel at this place has a name that none before it has; checked when a derive is
/// compiled.
pub const fn is_new_channel(channels: &[&Schema], place: usize) -> bool {
    let mut i = 0;
    while i < place && i < channels.len() && place < channels.len() {
        #[allow(clippy::indexing_slicing)]
        if channels[i].table.eq_ignore_ascii_case(channels[place].table) {
            return false;
        }
        i += 1;
    }
    true
}

/// Runs an operation on a client's rows.
pub fn reduce<A: RecordAction>(operation: &Operation, tables: &mut dyn Tables) -> Result<()> {
    operation.reduce(A::Record::SCHEMA, tables)
}

/// Runs an operation's SQL.
pub fn apply<A: RecordAction>(operation: &Operation, sql: &dyn Sql) -> Result<()> {
    operation.apply(A::Record::SCHEMA, sql)
}

/// What `apply` says of a custom action.
pub fn unhandled(name: &str) -> Error {
    let message = format!("`{name}` is a custom action: match it in `on_action`");
    Error::new(Code::UnhandledAction, message)
}

/// What a channel enum says of a channel that it has not.
pub fn unknown_channel(channel: &str) -> Error {
    Error::new(Code::UnknownChannel, format!("there is no channel `{channel}` here"))
}

/// What a derived action says of a type that it has not.
pub fn unknown_action(name: &str, known: &str) -> Error {
    let name = crate::wire::clip(name);
    Error::new(Code::UnknownAction, format!("there is no action `{name}`: it is one of {known}"))
}

/// The fields of a JSON object, each as it is written: of the actions that a room is sent nothing
/// is read that it does not ask for.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of an object; `what` is what to call any other JSON.
    fn of(json: &'a str, what: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Fields<'de>, M::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        let mut json = serde_json::Deserializer::from_str(json);
        let fields = serde::Deserializer::deserialize_map(&mut json, Visitor)
            .and_then(|fields| json.end().map(|()| fields));
        fields.map_err(|e| {
            let why = if e.is_data() { what.to_owned() } else { format!("{what}: {e}") };
            Error::new(Code::InvalidAction, why)
        })
    }

    /// The same fields under the names that they have now; `names` are those of all fields that
    /// there are, each with what it was called before, and so is the column of a field in `schema`.
    ///
    /// # Errors
    /// [`Code::ActionMismatch`] for one that is not known, which would be lost without a word.
    pub fn under_names(
        mut self,
        action: &str,
        schema: Option<&Schema>,
        names: &[(&'static str, &[&str])],
    ) -> Result<Self> {
        let known = |name: &str| names.iter().any(|(known, _)| *known == name);
        let columns = schema.map_or(&[][..], |schema| schema.columns);
        let mut renamed: Vec<&str> = Vec::new();
        for (name, _) in self.0.iter_mut().filter(|(name, _)| !known(name)) {
            let now = names.iter().find(|(now, before)| {
                let column = columns.iter().find(|column| column.name == *now);
                let former = column.map_or(&[][..], |column| column.renamed_from);
                before.iter().chain(former).any(|before| *before == &**name)
            });
            let Some((now, _)) = now else {
                let named = names.iter().map(|(name, _)| format!("`{name}`"));
                let named = named.collect::<Vec<_>>().join(", ");
                let there = if named.is_empty() { "none".to_owned() } else { named };
                let why = format!("there is no such field: there is {there}");
                return Err(mismatch(action, &crate::wire::clip(name), &why));
            };
            *name = Cow::Borrowed(*now);
            renamed.push(now);
        }
        let twice = |now: &&&str| self.0.iter().filter(|(name, _)| name == **now).count() > 1;
        match renamed.iter().find(twice) {
            Some(now) => Err(mismatch(action, now, "it is there twice, by an older name too")),
            None => Ok(self),
        }
    }

    /// The text of a field: the last, if it is there several times.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// A field's value; null for one that is not there.
    fn value(&self, action: &str, field: &str) -> Result<Json> {
        match self.get(field) {
            None => Ok(Json::Null),
            Some(text) => serde_json::from_str(text).map_err(|e| invalid(action, field, e)),
        }
    }
}

/// The name and the payload of an action's JSON.
pub fn open_action(json: &str) -> Result<(String, Fields<'_>)> {
    let object = Fields::of(json, "an action is an object")?;
    let name = object.get("type").and_then(|name| serde_json::from_str(name).ok());
    let name =
        name.ok_or_else(|| Error::new(Code::InvalidAction, "an action needs `type`, a string"))?;
    let payload = object.get("payload").filter(|payload| *payload != "null");
    let payload = payload.map(|payload| Fields::of(payload, "`payload` is an object"));
    Ok((name, payload.transpose()?.unwrap_or_default()))
}

/// An action's JSON.
pub fn close_action(name: &str, payload: Map<String, Json>) -> Json {
    let mut object = Map::new();
    object.insert("type".to_owned(), Json::from(name));
    object.insert("payload".to_owned(), Json::Object(payload));
    Json::Object(object)
}

fn invalid(action: &str, field: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidAction, format!("`{field}` of `{action}`: {why}"))
}

/// What an action has that it has not in this version of the application, or the reverse.
fn mismatch(action: &str, field: &str, why: &str) -> Error {
    Error::new(Code::ActionMismatch, format!("`{field}` of `{action}`: {why}"))
}

fn missing(action: &str, field: &str) -> Error {
    mismatch(action, field, "is missing")
}

/// A field of a column type.
pub fn take<T: Column>(payload: &Fields<'_>, action: &str, field: &str) -> Result<T> {
    match payload.value(action, field)? {
        Json::Null if !T::NULLABLE => Err(missing(action, field)),
        json => T::from_json(&json).map_err(|error| {
            match crate::sql::Value::from_json(&json, T::TYPE) {
                // What the column's type does not know, another version of the application does.
                Ok(_) => mismatch(action, field, error.message()),
                Err(_) => invalid(action, field, error),
            }
        }),
    }
}

/// An `Option` of an update: absent or null leaves the column alone.
pub fn take_option<T: Column>(
    payload: &Fields<'_>,
    action: &str,
    field: &str,
) -> Result<Option<T>> {
    match payload.get(field) {
        None => Ok(None),
        Some("null") if !T::NULLABLE => Ok(None),
        Some(_) => take(payload, action, field).map(Some),
    }
}

/// A field of any serde type.
pub fn take_json<T: DeserializeOwned>(
    payload: &Fields<'_>,
    action: &str,
    field: &str,
) -> Result<T> {
    let json = payload.value(action, field)?;
    if let Some(text) = find_nul(&json) {
        crate::sql::check_text(text).map_err(|e| invalid(action, field, e))?;
    }
    serde_json::from_value(json).map_err(|e| mismatch(action, field, &e.to_string()))
}

/// An `Option` of any serde type in an update.
pub fn take_json_option<T: DeserializeOwned>(
    payload: &Fields<'_>,
    action: &str,
    field: &str,
) -> Result<Option<T>> {
    match payload.get(field) {
        None => Ok(None),
        Some(_) => take_json(payload, action, field).map(Some),
    }
}

/// The arguments of an event.
#[cfg(feature = "livestore")]
pub fn open_arguments<'a>(event: &str, args: Option<&'a str>) -> Result<Fields<'a>> {
    let args = args.unwrap_or("{}");
    let wrong =
        |error: Error| Error::new(Code::InvalidValue, format!("`{event}`: {}", error.message()));
    Fields::of(args, "an event's arguments are an object").map_err(wrong)
}

/// An argument of an event; one that is not there is null.
#[cfg(feature = "livestore")]
pub fn take_argument<T: DeserializeOwned>(
    args: &Fields<'_>,
    event: &str,
    argument: &str,
) -> Result<T> {
    let taken = take_json(args, event, argument).map_err(|error| match args.get(argument) {
        Some(_) => error,
        None => missing(event, argument),
    });
    taken.map_err(|error| Error::new(Code::InvalidValue, error.message()))
}

fn find_nul(json: &Json) -> Option<&str> {
    match json {
        Json::String(text) => text.contains('\0').then_some(text),
        Json::Array(items) => items.iter().find_map(find_nul),
        Json::Object(map) => map.values().find_map(find_nul),
        _ => None,
    }
}

/// Puts a field of a column type into a payload.
pub fn put<T: Column>(payload: &mut Map<String, Json>, field: &str, value: &T) -> Result<()> {
    payload.insert(field.to_owned(), value.to_json()?);
    Ok(())
}

/// Puts a field of any serde type into a payload.
pub fn put_json<T: Serialize>(
    payload: &mut Map<String, Json>,
    field: &str,
    value: &T,
) -> Result<()> {
    let json = serde_json::to_value(value)
        .map_err(|e| Error::new(Code::InvalidValue, format!("`{field}`: {e}")))?;
    payload.insert(field.to_owned(), json);
    Ok(())
}

/// A field of a custom action. Derived code calls `CustomField::<T>::put` and `take`: for a column
/// these are its own functions, as in any other action, and otherwise, since its own come first
/// where they are, those of [`SerdeField`].
#[derive(Debug)]
pub struct CustomField<T>(std::marker::PhantomData<T>);

impl<T: Column> CustomField<T> {
    /// Puts a column into a payload.
    pub fn put(payload: &mut Map<String, Json>, field: &str, value: &T) -> Result<()> {
        put(payload, field, value)
    }

    /// Takes a column out of a payload.
    pub fn take(payload: &Fields<'_>, action: &str, field: &str) -> Result<T> {
        take(payload, action, field)
    }
}

/// A field of a custom action that is no column. What the type has to be is asked by the functions
/// and not by the trait: so the error is ours.
pub trait SerdeField<T> {
    /// Puts any serde type into a payload.
    fn put(payload: &mut Map<String, Json>, field: &str, value: &T) -> Result<()>
    where
        T: Travels,
    {
        put_json(payload, field, value)
    }

    /// Takes any serde type out of a payload.
    fn take(payload: &Fields<'_>, action: &str, field: &str) -> Result<T>
    where
        T: Travels,
    {
        take_json(payload, action, field)
    }
}

impl<T> SerdeField<T> for CustomField<T> {}

/// What serde can write and read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a custom action",
    label = "neither a column type nor a serde type",
    note = "derive `partysync::Column` for a unit enum or a newtype of your own, and `serde::Serialize` and `serde::Deserialize` for any other type"
)]
pub trait Travels: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Travels for T {}

/// `Serialize` of an action.
pub fn serialize<A: Action, S: serde::Serializer>(action: &A, to: S) -> Result<S::Ok, S::Error> {
    action.to_json().map_err(serde::ser::Error::custom)?.serialize(to)
}

/// `Deserialize` of an action of one record.
pub fn deserialize<'de, A: RecordAction, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<A, D::Error> {
    let json = <Json as serde::Deserialize>::deserialize(from)?;
    A::from_json(A::Record::SCHEMA.table, &json.to_string()).map_err(serde::de::Error::custom)
}

/// An action as [`serialize_in_channel`] writes it.
#[derive(Serialize, serde::Deserialize)]
struct InChannel<T> {
    channel: T,
    action: Json,
}

/// `Serialize` of an action of several records: `{"channel": "todos", "action": {...}}`.
pub fn serialize_in_channel<A: Action, S: serde::Serializer>(
    action: &A,
    to: S,
) -> Result<S::Ok, S::Error> {
    let json = action.to_json().map_err(serde::ser::Error::custom)?;
    InChannel { channel: action.channel(), action: json }.serialize(to)
}

/// `Deserialize` of an action of several records.
pub fn deserialize_in_channel<'de, A: Action, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<A, D::Error> {
    let InChannel { channel, action } = serde::Deserialize::deserialize(from)?;
    let channel: String = channel;
    A::from_json(&channel, &action.to_string()).map_err(serde::de::Error::custom)
}
