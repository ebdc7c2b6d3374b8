//! SQL that reads records as JSON text: SQLite builds it, so 64-bit integers stay whole and a
//! page of rows crosses to the host as one string.

use super::{SqlType, quote};
use crate::record::{ColumnDef, Schema};

/// `json_array(...)` of a record's columns, in their order. `alias` is the table's, or empty.
pub(crate) fn json_row(schema: &Schema, alias: &str) -> String {
    json_array(schema.columns.iter().map(|c| json_cell(c, alias)).collect())
}

/// `json_array(...)` of any number of expressions. Durable Objects allow a function 32 arguments:
/// longer arrays are joined from shorter ones.
pub(crate) fn json_array(cells: Vec<String>) -> String {
    const MOST: usize = 30;
    let mut arrays = cells.chunks(MOST).map(|cells| format!("json_array({})", cells.join(",")));
    match (arrays.next(), cells.len() > MOST) {
        (None, _) => "json_array()".to_owned(),
        (Some(only), false) => only,
        (Some(first), true) => {
            let parts: Vec<_> = std::iter::once(first)
                .chain(arrays)
                .map(|array| format!("substr({array}, 2, length({array}) - 2)"))
                .collect();
            format!("json('[' || {} || ']')", parts.join(" || ',' || "))
        }
    }
}

/// One column as a JSON value (see [`SqlType`]).
pub(crate) fn json_cell(column: &ColumnDef, alias: &str) -> String {
    let name = match alias {
        "" => quote(column.name),
        alias => format!("{alias}.{}", quote(column.name)),
    };
    cell(&name, column.sql_type)
}

/// The expression `name`, of this type, as a JSON value.
pub(crate) fn cell(name: &str, sql_type: SqlType) -> String {
    match sql_type {
        SqlType::Integer | SqlType::Text => name.to_owned(),
        // json_array() writes 15 digits; a double needs 17.
        SqlType::Real => format!(
            "CASE WHEN abs({name}) <= 1.7976931348623157e308 THEN json(printf('%!.17g', {name})) \
             WHEN {name} > 0 THEN 'Infinity' WHEN {name} < 0 THEN '-Infinity' END"
        ),
        SqlType::Blob => format!("CASE WHEN {name} IS NOT NULL THEN hex({name}) END"),
        SqlType::Json => format!("json({name})"),
    }
}
