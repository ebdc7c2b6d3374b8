//! [`Column`]: what a cell can hold, and [`Timestamp`].

#[cfg(any(feature = "chrono", feature = "time", feature = "decimal"))]
mod foreign;

use crate::sql::{SqlType, Value, check_text};
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::borrow::Cow;

/// A type that one column of a record can hold.
///
/// | type | in SQL |
/// |---|---|
/// | `String`, `Cow<'static, str>`, [`Position`](crate::Position) | `TEXT` |
/// | `bool`, integers up to 64 bits, [`Timestamp`] | `INTEGER`; a `u64` up to `i64::MAX` |
/// | `f32`, `f64` | `REAL` |
/// | `Vec<u8>`, `[u8; N]` | `BLOB` |
/// | `uuid::Uuid` (feature `uuid`) | `TEXT`, in lower case with hyphens |
/// | `chrono::DateTime<Utc>` (feature `chrono`), `time::OffsetDateTime` (feature `time`) | `TEXT` in UTC to the nanosecond, `2026-01-31T09:30:00.000000000Z`, in the order of time; years 0 to 9999 |
/// | `rust_decimal::Decimal` (feature `decimal`) | `TEXT`, with all its digits, and in no order |
/// | `Option` of these | takes NULL |
///
/// Derive it for your own newtype (stored as what it wraps) or unit enum (stored as text, in
/// snake case). On the type, `#[column(crate = "path")]` says where this crate is, if not at
/// `::partysync`; on a variant, `#[column(rename = "name")]` how it is stored.
///
/// ```
/// use partysync::{Column, sql::Value};
///
/// #[derive(Column, Clone, PartialEq, Debug)]
/// enum Priority { Low, VeryHigh }
///
/// #[derive(Column, Clone, PartialEq, Debug)]
/// struct UserId(String);
///
/// assert_eq!(Priority::VeryHigh.to_value(), Value::Text("very_high".into()));
/// assert_eq!(UserId::from_value(Value::from("u1")).unwrap(), UserId("u1".into()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column",
    label = "not a column type",
    note = "derive `Column` for a newtype or a unit enum of your own, or store any serde type as JSON with the attribute `json` on the field"
)]
pub trait Column: Sized {
    /// The type of the column in SQL.
    const TYPE: SqlType;
    /// Whether the column takes NULL.
    const NULLABLE: bool = false;

    /// The value as SQL stores it.
    fn to_value(&self) -> Value;

    /// The value as SQL stores it, or why it cannot: what derived code calls.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when SQL has no such value, as for a `u64` beyond `i64::MAX`.
    fn try_to_value(&self) -> Result<Value> {
        Ok(self.to_value())
    }

    /// The value that SQL stored.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the cell does not fit the type.
    fn from_value(value: Value) -> Result<Self>;

    /// Whether [`from_value`](Self::from_value) takes this.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the cell does not fit the type.
    fn check(value: &Value) -> Result<()> {
        Self::from_value(value.clone()).map(drop)
    }

    /// The value as a row carries it in JSON.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    fn to_json(&self) -> Result<Json> {
        self.try_to_value()?.to_json(Self::TYPE)
    }

    /// The value that a row carried in JSON.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the JSON does not fit the type.
    fn from_json(json: &Json) -> Result<Self> {
        Self::from_value(Value::from_json(json, Self::TYPE)?)
    }
}

fn unexpected(value: &Value, expected: &str) -> Error {
    let found = match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => format!("the integer {n}"),
        Value::Real(x) => format!("the number {x}"),
        Value::Text(_) => "text".to_owned(),
        Value::Blob(_) => "bytes".to_owned(),
    };
    Error::new(Code::InvalidValue, format!("expected {expected}, found {found}"))
}

impl Column for bool {
    const TYPE: SqlType = SqlType::Integer;

    fn to_value(&self) -> Value {
        Value::Integer(i64::from(*self))
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            other => Err(unexpected(&other, "0 or 1")),
        }
    }
}

impl Column for i64 {
    const TYPE: SqlType = SqlType::Integer;

    fn to_value(&self) -> Value {
        Value::Integer(*self)
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Integer(n) => Ok(n),
            // How an integer beyond 2^53 is asked for in a Durable Object: CAST(n AS TEXT).
            Value::Text(ref text) => text.parse().map_err(|_| unexpected(&value, "an integer")),
            Value::Real(x) if x.fract() == 0.0 && x.abs() >= 9.007_199_254_740_992e15 => {
                Err(Error::new(
                    Code::InvalidValue,
                    "an integer beyond 2^53 lost precision on its way: \
                     read it with `records`, or select CAST(column AS TEXT)",
                ))
            }
            other => Err(unexpected(&other, "an integer")),
        }
    }
}

macro_rules! small_integer {
    ($($type:ty)*) => {$(
        impl Column for $type {
            const TYPE: SqlType = SqlType::Integer;

            fn to_value(&self) -> Value {
                Value::Integer(i64::from(*self))
            }

            fn from_value(value: Value) -> Result<Self> {
                let n = i64::from_value(value)?;
                Self::try_from(n)
                    .map_err(|_| unexpected(&Value::Integer(n), stringify!($type)))
            }
        }
    )*};
}
small_integer!(i8 i16 i32 u8 u16 u32);

impl Column for u64 {
    const TYPE: SqlType = SqlType::Integer;

    /// Beyond `i64::MAX` the digits, which no `INTEGER` column stores or equals.
    fn to_value(&self) -> Value {
        self.try_to_value().unwrap_or_else(|_| Value::Text(self.to_string()))
    }

    fn try_to_value(&self) -> Result<Value> {
        i64::try_from(*self).map(Value::Integer).map_err(|_| {
            let message = format!(
                "{self} is beyond the largest integer of SQLite, {}: store it as text",
                i64::MAX
            );
            Error::new(Code::InvalidValue, message)
        })
    }

    fn from_value(value: Value) -> Result<Self> {
        let n = i64::from_value(value)?;
        Self::try_from(n).map_err(|_| unexpected(&Value::Integer(n), "u64"))
    }
}

impl Column for f64 {
    const TYPE: SqlType = SqlType::Real;

    fn to_value(&self) -> Value {
        Value::Real(*self)
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Real(x) => Ok(x),
            #[allow(clippy::cast_precision_loss)]
            Value::Integer(n) => Ok(n as f64),
            other => Err(unexpected(&other, "a number")),
        }
    }
}

impl Column for f32 {
    const TYPE: SqlType = SqlType::Real;

    fn to_value(&self) -> Value {
        Value::Real(f64::from(*self))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn from_value(value: Value) -> Result<Self> {
        f64::from_value(value).map(|x| x as f32)
    }
}

impl Column for String {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(unexpected(&other, "text")),
        }
    }

    fn check(value: &Value) -> Result<()> {
        match value {
            Value::Text(_) => Ok(()),
            other => Err(unexpected(other, "text")),
        }
    }

    fn from_json(json: &Json) -> Result<Self> {
        if let Json::String(text) = json {
            check_text(text)?;
        }
        Self::from_value(Value::from_json(json, Self::TYPE)?)
    }
}

impl Column for Vec<u8> {
    const TYPE: SqlType = SqlType::Blob;

    fn to_value(&self) -> Value {
        Value::Blob(self.clone())
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Blob(bytes) => Ok(bytes),
            other => Err(unexpected(&other, "bytes")),
        }
    }

    fn check(value: &Value) -> Result<()> {
        match value {
            Value::Blob(_) => Ok(()),
            other => Err(unexpected(other, "bytes")),
        }
    }
}

impl Column for Cow<'static, str> {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::from(&**self)
    }

    fn from_value(value: Value) -> Result<Self> {
        String::from_value(value).map(Cow::Owned)
    }

    fn check(value: &Value) -> Result<()> {
        String::check(value)
    }
}

impl<const N: usize> Column for [u8; N] {
    const TYPE: SqlType = SqlType::Blob;

    fn to_value(&self) -> Value {
        Value::Blob(self.to_vec())
    }

    fn from_value(value: Value) -> Result<Self> {
        Vec::from_value(value)?.try_into().map_err(|bytes: Vec<u8>| {
            let message = format!("expected {N} bytes, found {}", bytes.len());
            Error::new(Code::InvalidValue, message)
        })
    }
}

#[cfg(feature = "uuid")]
impl Column for uuid::Uuid {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }

    fn from_value(value: Value) -> Result<Self> {
        let text = String::from_value(value)?;
        text.parse().map_err(|_| Error::new(Code::InvalidValue, "expected a UUID"))
    }
}

impl<T: Column> Column for Option<T> {
    const TYPE: SqlType = T::TYPE;
    const NULLABLE: bool = true;

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }

    fn try_to_value(&self) -> Result<Value> {
        self.as_ref().map_or(Ok(Value::Null), T::try_to_value)
    }

    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }

    fn check(value: &Value) -> Result<()> {
        match value {
            Value::Null => Ok(()),
            value => T::check(value),
        }
    }
}

/// A moment: milliseconds since 1970, UTC. Stored and sent as an integer.
///
/// The framework takes it from its host (never from a clock of its own), so that a room can be
/// replayed: `room.now()` in a server, the optimistic rows' times in a client.
///
/// ```
/// use partysync::Timestamp;
/// let later = Timestamp::from_millis(1_000).plus_millis(500);
/// assert_eq!(later.as_millis(), 1_500);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This many milliseconds after 1970 began.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The moment this many milliseconds later (earlier, if negative).
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl Column for Timestamp {
    const TYPE: SqlType = SqlType::Integer;

    fn to_value(&self) -> Value {
        Value::Integer(self.0)
    }

    fn from_value(value: Value) -> Result<Self> {
        i64::from_value(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives<T: Column + PartialEq + std::fmt::Debug>(column: T) {
        assert_eq!(T::from_value(column.try_to_value().unwrap()).unwrap(), column);
        assert_eq!(T::from_json(&column.to_json().unwrap()).unwrap(), column);
    }

    #[test]
    fn a_column_survives_sql_and_json() {
        survives(u64::MIN);
        survives(i64::MAX.unsigned_abs());
        survives(Some(5_u64));
        survives(Cow::Borrowed("text"));
        survives([0_u8, 1, 255]);
        survives([0_u8; 0]);
        #[cfg(feature = "uuid")]
        survives(uuid::Uuid::from_u128(7));
    }

    #[test]
    fn a_u64_beyond_the_integers_of_sqlite_is_an_error_and_never_another_number() {
        let large = i64::MAX.unsigned_abs() + 1;
        for error in [
            large.try_to_value().unwrap_err(),
            large.to_json().unwrap_err(),
            Some(large).try_to_value().unwrap_err(),
            u64::from_json(&Json::from(large)).unwrap_err(),
            u64::from_value(Value::Integer(-1)).unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::InvalidValue, "{error}");
        }
        assert_eq!(large.to_value(), Value::from("9223372036854775808"));
    }

    #[test]
    fn bytes_of_another_length_are_an_error() {
        let error = <[u8; 4]>::from_value(Value::Blob(vec![1, 2, 3])).unwrap_err();
        assert_eq!(error.message(), "expected 4 bytes, found 3");
    }
}
