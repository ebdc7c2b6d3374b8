//! The statements that make a table, its columns, its indexes, the triggers that guard a column
//! which cannot be NOT NULL itself, and those that check rows.

use super::super::keys::Keys;
use super::stored::StoredColumn;
use crate::constraint::references_ddl;
use crate::record::{ColumnDef, Role, Schema};
use crate::sql::{literal, quote};

/// How the names of all that the framework makes begin.
pub(super) const OWN: &str = "_partysync";

pub(super) fn create_table(schema: &Schema, columns: &[StoredColumn]) -> String {
    let key: Vec<_> = columns.iter().filter(|column| column.key).collect();
    let own = |column: &StoredColumn| {
        let primary = if column.key && key.len() == 1 { " PRIMARY KEY" } else { "" };
        column_ddl(&column.name, column, primary)
    };
    let mut parts: Vec<_> = columns.iter().map(own).collect();
    if key.len() > 1 {
        let names: Vec<_> = key.iter().map(|column| quote(&column.name)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    format!("CREATE TABLE {} ({}) STRICT", schema.quoted(), parts.join(", "))
}

/// The column's definition, under this name, with this constraint.
pub(super) fn column_ddl(name: &str, column: &StoredColumn, constraint: &str) -> String {
    let name = quote(name);
    let json = column.r#type == "JSON";
    let mut ddl = format!("{name} {}", if json { "TEXT" } else { &column.r#type });
    if !column.takes_null() {
        ddl.push_str(" NOT NULL");
    }
    ddl.push_str(constraint);
    if let Some(default) = &column.default {
        ddl.push_str(" DEFAULT ");
        ddl.push_str(default);
    }
    if json {
        ddl.push_str(&format!(" CHECK ({name} IS NULL OR json_valid({name}))"));
    }
    if let Some(reference) = &column.references {
        ddl.push_str(&references_ddl(&reference.table, &reference.on_delete));
    }
    ddl
}

/// The name of something that belongs to a table's column. `$` is in no identifier of a record,
/// so that the names of two tables never meet.
fn name_of(schema: &Schema, column: &str, what: &str) -> String {
    quote(&format!("{OWN}${}${column}${what}", schema.table))
}

/// The statements that make the table's indexes.
pub(super) fn indexes(schema: &Schema) -> Vec<String> {
    let table = schema.quoted();
    // A row that was softly deleted does not hold its value against new ones.
    let alive = match schema.role(Role::DeletedAt) {
        Some((_, deleted_at)) => format!(" WHERE {} IS NULL", quote(deleted_at.name)),
        None => String::new(),
    };
    let mut statements = Vec::new();
    let mut make = |columns: &[&str], unique: bool| {
        let what = if unique { "unique" } else { "index" };
        let index = name_of(schema, &columns.join("$"), what);
        let columns: Vec<_> = columns.iter().map(|name| quote(name)).collect();
        let columns = columns.join(", ");
        statements.push(if unique {
            format!("CREATE UNIQUE INDEX {index} ON {table} ({columns}){alive}")
        } else {
            format!("CREATE INDEX {index} ON {table} ({columns})")
        });
    };
    for column in schema.columns {
        if column.index {
            make(&[column.name], false);
        }
        if column.unique {
            make(&[column.name], true);
        }
    }
    schema.indexes.iter().for_each(|index| make(index.columns, index.unique));
    statements
}

/// The triggers that refuse rows of which an expression is false. They say what SQLite says of a
/// CHECK, which cannot be added to a table that is there.
pub(super) fn checks(schema: &Schema) -> Vec<String> {
    let table = schema.quoted();
    let cell = |column: &ColumnDef| format!("NEW.{0} AS {0}", quote(column.name));
    let cells = schema.columns.iter().map(cell).collect::<Vec<_>>().join(", ");
    let mut statements = Vec::new();
    for (place, check) in schema.checks.iter().enumerate() {
        let message = literal(&format!("CHECK constraint failed: {check}"));
        for on in ["INSERT", "UPDATE"] {
            // No column begins with a digit.
            let trigger = name_of(schema, &place.to_string(), &format!("check_{on}"));
            statements.push(format!(
                "CREATE TRIGGER {trigger} BEFORE {on} ON {table} BEGIN \
                 SELECT RAISE(ABORT, {message}) FROM (SELECT {cells}) WHERE NOT ({check}); END"
            ));
        }
    }
    statements
}

/// The rows, by their keys, of which an expression is false.
pub(super) fn breaking(schema: &Schema, check: &str) -> String {
    let (table, key) = (schema.quoted(), Keys::of(schema).told(""));
    let cells = schema.columns.iter().map(|column| quote(column.name)).collect::<Vec<_>>();
    let cells = cells.join(", ");
    format!("SELECT {key} FROM (SELECT {cells} FROM {table}) WHERE NOT ({check})")
}

/// The triggers that keep NULL out of a column which takes it: SQLite cannot add one that is NOT
/// NULL and has no default. They say what SQLite says.
pub(super) fn guards(schema: &Schema, column: &StoredColumn) -> [String; 2] {
    let (table, name) = (schema.quoted(), quote(&column.name));
    let message = format!("NOT NULL constraint failed: {}.{}", schema.table, column.name);
    let guard = |what: &str, on: &str| {
        let trigger = name_of(schema, &column.name, what);
        format!(
            "CREATE TRIGGER {trigger} BEFORE {on} ON {table} WHEN NEW.{name} IS NULL \
             BEGIN SELECT RAISE(ABORT, {}); END",
            literal(&message)
        )
    };
    [guard("insert", "INSERT"), guard("update", &format!("UPDATE OF {name}"))]
}
