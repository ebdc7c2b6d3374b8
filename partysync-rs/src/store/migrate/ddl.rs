//! The statements that make a table, its columns, its indexes and the triggers that guard a
//! column which cannot be NOT NULL itself.

use super::stored::StoredColumn;
use crate::record::{Role, Schema};
use crate::sql::{literal, quote};

/// How the names of all that the framework makes begin.
pub(super) const OWN: &str = "_partysync";

pub(super) fn create_table(schema: &Schema, columns: &[StoredColumn]) -> String {
    let columns: Vec<_> = columns.iter().map(|column| column_ddl(&column.name, column)).collect();
    format!("CREATE TABLE {} ({}) STRICT", schema.quoted(), columns.join(", "))
}

/// The column's definition, under this name.
pub(super) fn column_ddl(name: &str, column: &StoredColumn) -> String {
    let name = quote(name);
    let json = column.r#type == "JSON";
    let mut ddl = format!("{name} {}", if json { "TEXT" } else { &column.r#type });
    if !column.takes_null() {
        ddl.push_str(" NOT NULL");
    }
    if column.key {
        ddl.push_str(" PRIMARY KEY");
    }
    if let Some(default) = &column.default {
        ddl.push_str(" DEFAULT ");
        ddl.push_str(default);
    }
    if json {
        ddl.push_str(&format!(" CHECK ({name} IS NULL OR json_valid({name}))"));
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
    let mut statements = Vec::new();
    for column in schema.columns {
        let name = quote(column.name);
        if column.index {
            let index = name_of(schema, column.name, "index");
            statements.push(format!("CREATE INDEX {index} ON {table} ({name})"));
        }
        if column.unique {
            let index = name_of(schema, column.name, "unique");
            // A row that was softly deleted does not hold its value against new ones.
            let alive = match schema.role(Role::DeletedAt) {
                Some((_, deleted_at)) => format!(" WHERE {} IS NULL", quote(deleted_at.name)),
                None => String::new(),
            };
            statements.push(format!("CREATE UNIQUE INDEX {index} ON {table} ({name}){alive}"));
        }
    }
    statements
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
