//! SQL that reads records as JSON text: SQLite builds it, so 64-bit integers stay whole and a
//! page of rows crosses to the host as one string. Doubles are the exception: SQLite's decimals
//! are not exact at the ends of the range, so they cross as numbers and are written here.

use super::{Row, SqlType, Value, quote};
use crate::Result;
use crate::record::Schema;

/// How a record's rows are read as JSON text: runs of columns that SQLite writes, with doubles
/// between them.
#[derive(Debug)]
pub(crate) struct RowText {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// Expressions of the columns of one `json_array`.
    Json(Vec<String>),
    /// A column of doubles.
    Real(String),
}

/// Durable Objects allow a function 32 arguments: longer rows are joined from parts.
const MOST_ARGUMENTS: usize = 30;

impl RowText {
    /// The rows of this schema; `alias` is the table's in the query, or empty.
    pub(crate) fn new(schema: &Schema, alias: &str) -> Self {
        let mut parts = Vec::new();
        for column in schema.columns {
            let name = match alias {
                "" => quote(column.name),
                alias => format!("{alias}.{}", quote(column.name)),
            };
            match (column.sql_type, parts.last_mut()) {
                (SqlType::Real, _) => parts.push(Part::Real(name)),
                (sql_type, Some(Part::Json(cells))) if cells.len() < MOST_ARGUMENTS => {
                    cells.push(cell(&name, sql_type));
                }
                (sql_type, _) => parts.push(Part::Json(vec![cell(&name, sql_type)])),
            }
        }
        Self { parts }
    }

    /// The expressions to select.
    pub(crate) fn sql(&self) -> String {
        let part = |part: &Part| match part {
            Part::Json(cells) => format!("json_array({})", cells.join(",")),
            Part::Real(name) => name.clone(),
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    /// About how many bytes the row takes as JSON, as an expression.
    pub(crate) fn size(&self) -> String {
        let part = |part: &Part| match part {
            Part::Json(cells) => format!("octet_length(json_array({}))", cells.join(",")),
            Part::Real(_) => "24".to_owned(),
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(" + ")
    }

    /// The one expression that is the whole row, where SQLite can write it.
    pub(crate) fn whole(&self) -> Option<String> {
        match self.parts.as_slice() {
            [Part::Json(_)] => Some(self.sql()),
            _ => None,
        }
    }

    /// The row's JSON array, whose expressions begin at this column of the result.
    pub(crate) fn read(&self, row: &Row<'_>, first: usize) -> Result<String> {
        let mut text = String::from("[");
        for (part, index) in self.parts.iter().zip(first..) {
            if text.len() > 1 {
                text.push(',');
            }
            match part {
                Part::Json(_) => {
                    let json: String = row.get(index)?;
                    let inner = json.strip_prefix('[').and_then(|json| json.strip_suffix(']'));
                    text.push_str(inner.unwrap_or(&json));
                }
                Part::Real(_) => {
                    let number: Option<f64> = row.get(index)?;
                    let value = number.map_or(Value::Null, Value::Real);
                    text.push_str(
                        &serde_json::to_string(&value.to_json(SqlType::Real)?).unwrap_or_default(),
                    );
                }
            }
        }
        text.push(']');
        Ok(text)
    }
}

/// An expression of this type as a JSON value (see [`SqlType`]). Not for doubles.
pub(crate) fn cell(name: &str, sql_type: SqlType) -> String {
    match sql_type {
        SqlType::Integer | SqlType::Text | SqlType::Real => name.to_owned(),
        SqlType::Blob => format!("CASE WHEN {name} IS NOT NULL THEN hex({name}) END"),
        SqlType::Json => format!("json({name})"),
    }
}
