//! [`Visible`]: which rows of a channel somebody may see.

use crate::sql::Value;
use crate::{Code, Error, Result};

/// Which rows of a channel somebody may see: what [`SyncServer::visible`](crate::SyncServer::visible)
/// returns.
///
/// ```
/// use partysync::{Visible, params};
///
/// let boards = serde_json::json!(["b1", "b2"]).to_string();
/// let own = Visible::rows(
///     "owner = ? OR board IN (SELECT value FROM json_each(?))",
///     params!["ada", boards],
/// );
/// assert_ne!(own, Visible::all());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Visible {
    pub(crate) rows: Option<Rows>,
}

/// The rows for which a condition holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) condition: String,
    pub(crate) params: Vec<Value>,
}

/// The condition of no row.
pub(crate) const NOTHING: &str = "FALSE";

impl Visible {
    /// All rows.
    ///
    /// ```
    /// # use partysync::Visible;
    /// assert_eq!(Visible::all(), Visible::all());
    /// ```
    #[must_use]
    pub fn all() -> Self {
        Self { rows: None }
    }

    /// No row.
    ///
    /// ```
    /// # use partysync::Visible;
    /// assert_ne!(Visible::nothing(), Visible::all());
    /// ```
    #[must_use]
    pub fn nothing() -> Self {
        Self::rows(NOTHING, [])
    }

    /// The rows for which a condition of SQL holds: over the record's columns that are marked
    /// `#[record(scope)]`, and its key. It may not read tables: what else it takes to decide is read
    /// in [`visible`](crate::SyncServer::visible) and comes as a parameter, each a `?`; a list is a
    /// JSON array for `json_each(?)`, as in `id IN (SELECT value FROM json_each(?))`: within that
    /// `SELECT` the names `id`, `key`, `value`, `type`, `path` and `parent` are the array's. It is to
    /// depend on nothing else, such as the time.
    ///
    /// A condition that is none, or that names what it may not, is an error when it is first used:
    /// whoever connects is refused, and the log says why.
    ///
    /// ```
    /// use partysync::{Visible, params};
    /// let own = Visible::rows("owner = ?", params!["ada"]);
    /// assert_eq!(own, own.clone());
    /// ```
    #[must_use]
    pub fn rows(condition: impl Into<String>, params: impl AsRef<[Value]>) -> Self {
        let (condition, params) = (condition.into(), params.as_ref().to_vec());
        Self { rows: Some(Rows { condition, params }) }
    }

    /// Whether it is all rows.
    #[cfg(feature = "livestore")]
    pub(crate) fn is_all(&self) -> bool {
        self.rows.is_none()
    }
}

impl Rows {
    /// The parameters as a JSON array.
    ///
    /// # Errors
    /// [`Code::Sql`] for one that JSON does not have.
    pub(crate) fn json(&self) -> Result<String> {
        let json = |value: &Value| {
            let (json, what) = match value {
                Value::Null => (Some("null".to_owned()), ""),
                Value::Integer(n) => (Some(n.to_string()), ""),
                Value::Real(x) => (serde_json::to_string(x).ok(), "a number that is none"),
                Value::Text(text) => (serde_json::to_string(text).ok(), "a text"),
                Value::Blob(_) => (None, "bytes"),
            };
            let json = json.filter(|json| json != "null" || *value == Value::Null);
            json.ok_or_else(|| {
                let message = format!(
                    "{what} as a parameter of `Visible::rows`: it takes NULL, integers, floats and \
                     texts"
                );
                Error::new(Code::Sql, message)
            })
        };
        let json = self.params.iter().map(json).collect::<Result<Vec<_>>>()?;
        Ok(format!("[{}]", json.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;

    #[test]
    fn parameters_are_what_json_has() {
        let json =
            |params: &[Value]| Rows { condition: String::new(), params: params.to_vec() }.json();
        let some = params![None::<i64>, i64::MIN, 1.5, "\"a", true];
        assert_eq!(json(&some).unwrap(), "[null,-9223372036854775808,1.5,\"\\\"a\",1]");
        for wrong in [Value::Blob(vec![1]), Value::Real(f64::INFINITY), Value::Real(f64::NAN)] {
            assert_eq!(json(&[wrong]).unwrap_err().code(), Code::Sql);
        }
    }
}
