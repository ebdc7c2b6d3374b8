//! A SQL value, and its form in JSON.

use crate::{Code, Error, Result};
use serde_json::Value as Json;

/// What one cell of SQLite holds.
///
/// ```
/// use partysync::sql::Value;
/// assert_eq!(Value::from("a"), Value::Text("a".into()));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text in UTF-8.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// The type of a column: SQLite's storage classes, and text that holds JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `INTEGER`; a JSON number.
    Integer,
    /// `REAL`; a JSON number, or `"Infinity"` and `"-Infinity"`.
    Real,
    /// `TEXT`; a JSON string.
    Text,
    /// `BLOB`; a JSON string of hexadecimal digits.
    Blob,
    /// `TEXT` that holds JSON; that JSON.
    Json,
}

impl SqlType {
    /// The type's name in `CREATE TABLE`.
    #[must_use]
    pub const fn ddl(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text | Self::Json => "TEXT",
            Self::Blob => "BLOB",
        }
    }

    /// The type's own name: as [`ddl`](Self::ddl), but `JSON` for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            other => other.ddl(),
        }
    }
}

impl Value {
    /// The value in JSON, as a row carries it (see [`SqlType`]).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for text in a JSON column that is not JSON.
    pub fn to_json(&self, sql_type: SqlType) -> Result<Json> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Integer(n) => Json::from(*n),
            Self::Real(x) if x.is_nan() => Json::Null,
            Self::Real(x) if x.is_infinite() => {
                Json::from(if *x > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Self::Real(x) => Json::from(*x),
            Self::Text(text) if sql_type == SqlType::Json => serde_json::from_str(text)
                .map_err(|e| Error::new(Code::InvalidValue, format!("not JSON: {e}")))?,
            Self::Text(text) => Json::from(text.as_str()),
            Self::Blob(bytes) => Json::from(hex(bytes)),
        })
    }

    /// The value that a JSON value stands for in a column of this type. `true` and `false` are
    /// taken for 1 and 0.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the JSON is of another type, a number is out of range or a
    /// text holds a NUL.
    pub fn from_json(json: &Json, sql_type: SqlType) -> Result<Self> {
        let wrong = || {
            let found = match json {
                Json::Null => "null",
                Json::Bool(_) => "a boolean",
                Json::Number(n) if n.as_i64().is_none() => "a number out of range",
                Json::Number(_) => "a number",
                Json::String(_) => "a string",
                Json::Array(_) => "an array",
                Json::Object(_) => "an object",
            };
            let expected = sql_type.name();
            Error::new(Code::InvalidValue, format!("expected {expected}, found {found}"))
        };
        Ok(match (sql_type, json) {
            (_, Json::Null) => Self::Null,
            (SqlType::Json, json) => Self::Text(serde_json::to_string(json).unwrap_or_default()),
            (SqlType::Integer, Json::Bool(b)) => Self::Integer(i64::from(*b)),
            (SqlType::Integer, Json::Number(n)) => match (n.as_i64(), n.as_f64()) {
                (Some(n), _) => Self::Integer(n),
                // JavaScript writes large integers as 1e21, and some writers write 1.0.
                (None, Some(x)) if x.fract() == 0.0 && x.abs() < 9.007_199_254_740_992e15 =>
                {
                    #[allow(clippy::cast_possible_truncation)]
                    Self::Integer(x as i64)
                }
                _ => return Err(wrong()),
            },
            (SqlType::Real, Json::Number(n)) => Self::Real(n.as_f64().ok_or_else(wrong)?),
            (SqlType::Real, Json::String(s)) if s == "Infinity" => Self::Real(f64::INFINITY),
            (SqlType::Real, Json::String(s)) if s == "-Infinity" => Self::Real(f64::NEG_INFINITY),
            (SqlType::Text, Json::String(s)) => {
                check_text(s)?;
                Self::Text(s.clone())
            }
            (SqlType::Blob, Json::String(s)) => Self::Blob(unhex(s).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }
}

/// SQLite ends text at a NUL in places, so a NUL never gets in.
pub(crate) fn check_text(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::new(Code::InvalidValue, "text must not contain a NUL character"));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02X}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<crate::Key> for Value {
    fn from(key: crate::Key) -> Self {
        key.to_value()
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Integer(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = (Value, SqlType)> {
        prop_oneof![
            Just((Value::Null, SqlType::Text)),
            any::<i64>().prop_map(|n| (Value::Integer(n), SqlType::Integer)),
            prop_oneof![any::<f64>().prop_filter("a number", |x| !x.is_nan()), Just(f64::INFINITY)]
                .prop_map(|x| (Value::Real(x), SqlType::Real)),
            "[^\0]*".prop_map(|s| (Value::Text(s), SqlType::Text)),
            any::<Vec<u8>>().prop_map(|b| (Value::Blob(b), SqlType::Blob)),
        ]
    }

    proptest! {
        #[test]
        fn a_value_survives_json((value, sql_type) in value()) {
            let json = value.to_json(sql_type).unwrap().to_string();
            let json: Json = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(Value::from_json(&json, sql_type).unwrap(), value);
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused() {
        let refuse = |json: Json, sql_type| {
            let error = Value::from_json(&json, sql_type).unwrap_err();
            assert_eq!(error.code(), Code::InvalidValue, "{json}");
        };
        refuse(serde_json::from_str("9223372036854775808").unwrap(), SqlType::Integer);
        refuse(Json::from(1.5), SqlType::Integer);
        refuse(Json::from("1"), SqlType::Integer);
        refuse(Json::from("a\0b"), SqlType::Text);
        refuse(Json::from(1), SqlType::Text);
        refuse(Json::from("ABC"), SqlType::Blob);
        refuse(Json::from("GG"), SqlType::Blob);
        refuse(Json::from("NaN"), SqlType::Real);
    }
}
