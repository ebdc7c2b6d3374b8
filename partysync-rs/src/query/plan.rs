//! Queries as plain data: what a [`Query`](super::Query) has put together.

use crate::sql::Value;
use crate::{Code, Error, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use std::hash::{Hash, Hasher};

/// A query: which rows of a table, in which order, with which rows of others. Equal plans have
/// equal results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The table.
    pub table: String,
    /// Which of its rows.
    #[serde(default, skip_serializing_if = "Filter::is_all")]
    pub filter: Filter,
    /// In which order; rows that are equal in all of this are in the order of their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<Order>,
    /// The row behind which the result begins: its values of [`order`](Self::order), and those of
    /// its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<Scalar>>,
    /// The most rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What comes with each row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

impl Plan {
    /// Looks whether all that it says means something.
    pub(super) fn check(&self) -> Result<()> {
        self.filter.check()?;
        self.related.iter().try_for_each(|Related { shape, plan, .. }| match shape {
            Shape::Count => plan.check_counted(),
            Shape::Many | Shape::One => plan.check(),
        })
    }

    /// As [`check`](Self::check), where its rows are only counted or looked for.
    pub(super) fn check_counted(&self) -> Result<()> {
        let said = [
            ("limit", self.limit.is_some()),
            ("order_by", !self.order.is_empty()),
            ("start_after", self.after.is_some()),
            ("with", !self.related.is_empty()),
        ];
        if let Some((what, _)) = said.into_iter().find(|(_, said)| *said) {
            let message = format!(
                "rows of `{}` are counted, or only looked for: all that its filter finds; leave \
                 out `{what}`",
                self.table
            );
            return Err(Error::new(Code::InvalidValue, message));
        }
        self.filter.check()
    }
}

/// A column that rows are ordered by. NULL is before all else, text is ordered by its bytes, as in
/// SQLite.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The column.
    pub column: String,
    /// Whether the largest value comes first, and NULL last.
    #[serde(default)]
    pub descending: bool,
}

/// Which rows. A condition holds or does not: NULL equals NULL, and is neither less nor more than
/// anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Those for which all of these hold; without any, all.
    All(Vec<Filter>),
    /// Those for which any of these holds.
    Any(Vec<Filter>),
    /// Those for which this does not hold.
    Not(Box<Filter>),
    /// Those whose column compares so with a value.
    Compare(String, Comparison, Scalar),
    /// Those whose column has one of these values.
    In(String, Vec<Scalar>),
    /// Those whose column is a text that holds this one.
    Contains(String, String),
    /// Those whose column is a text that begins with this one.
    StartsWith(String, String),
    /// Those with a related row of this plan's table and filter.
    Exists(Join, Box<Plan>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Filter {
    /// Whether it is the filter of all rows.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// As [`Plan::check`].
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().try_for_each(Self::check),
            Self::Not(filter) => filter.check(),
            Self::Exists(_, plan) => plan.check_counted(),
            _ => Ok(()),
        }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All(mut all), Self::All(more)) => {
                all.extend(more);
                Self::All(all)
            }
            (Self::All(mut all), one) => {
                all.push(one);
                Self::All(all)
            }
            (one, Self::All(mut all)) => {
                all.insert(0, one);
                Self::All(all)
            }
            (one, two) => Self::All(vec![one, two]),
        }
    }
}

/// How a column compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// It is equal; NULL to NULL.
    Eq,
    /// It is not.
    Ne,
    /// It is less.
    Lt,
    /// It is less, or equal.
    Le,
    /// It is more.
    Gt,
    /// It is more, or equal.
    Ge,
}

/// Rows of two tables belong together whose columns are equal; NULL belongs to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Join {
    /// The column of the row at hand.
    pub here: String,
    /// The column of the related table.
    pub there: String,
}

/// What comes with each row of a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Related {
    /// Which rows belong to it.
    pub join: Join,
    /// What comes of them.
    pub shape: Shape,
    /// The rows.
    pub plan: Plan,
}

/// What comes of related rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// All of them.
    Many,
    /// The first.
    One,
    /// How many there are.
    Count,
}

/// An SQL value that can be compared, hashed and written as JSON.
#[derive(Clone, Debug)]
pub struct Scalar(Value);

impl Scalar {
    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl From<Value> for Scalar {
    fn from(value: Value) -> Self {
        Self(match value {
            // As SQLite stores them.
            Value::Real(x) if x.is_nan() => Value::Null,
            Value::Real(0.0) => Value::Real(0.0),
            value => value,
        })
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// No value is NaN.
impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(&self.0).hash(state);
        match &self.0 {
            Value::Null => {}
            Value::Integer(n) => n.hash(state),
            Value::Real(x) => x.to_bits().hash(state),
            Value::Text(text) => text.hash(state),
            Value::Blob(bytes) => bytes.hash(state),
        }
    }
}

/// A value as JSON: `null`, a text, or an object that says what it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Tagged {
    Integer(i64),
    Real(Json),
    Blob(Vec<u8>),
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Integer(n) => Tagged::Integer(*n).serialize(serializer),
            Value::Real(x) => {
                let json = self.0.to_json(crate::sql::SqlType::Real);
                Tagged::Real(json.unwrap_or_else(|_| Json::from(*x))).serialize(serializer)
            }
            Value::Blob(bytes) => Tagged::Blob(bytes.clone()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Null(()),
            Text(String),
            Tagged(Tagged),
        }
        let value = match Any::deserialize(deserializer)? {
            Any::Null(()) => Value::Null,
            Any::Text(text) => Value::Text(text),
            Any::Tagged(Tagged::Integer(n)) => Value::Integer(n),
            Any::Tagged(Tagged::Blob(bytes)) => Value::Blob(bytes),
            Any::Tagged(Tagged::Real(json)) => {
                let real = Value::from_json(&json, crate::sql::SqlType::Real);
                real.map_err(|error| D::Error::custom(error.message()))?
            }
        };
        Ok(value.into())
    }
}

/// How many rows of a table, and what a column of them sums up to; of all, or for each value of a
/// column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// The table.
    pub table: String,
    /// Which of its rows.
    #[serde(default, skip_serializing_if = "Filter::is_all")]
    pub filter: Filter,
    /// The column by whose values they are grouped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The column of integers that is summed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<String>,
}
