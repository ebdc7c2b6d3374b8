//! From the schema that is stored to the schema of the type, with the rows kept - or a refusal
//! that names the column and the remedy, before anything is altered.

use super::triggers::{TRIGGERS, drop_triggers, triggers};
use crate::record::{ColumnDef, Role, Schema};
use crate::sql::{Sql, SqlType, quote};
use crate::{Code, Error, Result, params};
use serde::{Deserialize, Serialize};

/// What a table looked like when it was last migrated; kept as JSON.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Stored {
    /// Rises when the triggers' text changes.
    triggers: u32,
    columns: Vec<StoredColumn>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct StoredColumn {
    name: String,
    r#type: String,
    nullable: bool,
    key: bool,
    default: Option<String>,
    index: bool,
    unique: bool,
}

impl Stored {
    fn of(schema: &Schema) -> Self {
        let column = |column: &ColumnDef| StoredColumn {
            name: column.name.to_owned(),
            r#type: column.sql_type.name().to_owned(),
            nullable: column.nullable,
            key: column.role == Role::Key,
            default: default_ddl(column),
            index: column.index,
            unique: column.unique,
        };
        Self { triggers: TRIGGERS, columns: schema.columns.iter().map(column).collect() }
    }
}

/// Makes every channel's table what its schema says. Runs inside the caller's transaction.
pub(crate) fn migrate(schemas: &[&Schema], sql: &dyn Sql) -> Result<()> {
    let mut plans = Vec::new();
    for schema in schemas {
        if schema.table.starts_with("_partysync") || schema.table.starts_with("sqlite") {
            return Err(refuse(schema, "names that begin so are reserved: rename the table"));
        }
        let stored: Option<String> = sql.query_opt(
            "SELECT columns FROM _partysync_schema WHERE channel = ?",
            params![schema.table.to_owned()],
            |row| row.get(0),
        )?;
        let wanted = serde_json::to_string(&Stored::of(schema)).map_err(corrupt)?;
        if stored.as_ref() == Some(&wanted) {
            continue;
        }
        let mut steps = match stored {
            None => create(schema, sql)?,
            Some(json) => alter(schema, &serde_json::from_str(&json).map_err(corrupt)?, sql)?,
        };
        steps.extend(triggers(schema)?);
        plans.push((schema, wanted, steps));
    }
    for (schema, wanted, steps) in plans {
        for step in steps {
            sql.run(&step, &[], &mut |_| Ok(())).map_err(|error| match error.code() {
                Code::Storage => error,
                Code::Constraint => refuse(
                    schema,
                    &format!(
                        "{}: two rows hold the same value where `unique` was added: \
                         make the values differ first",
                        error.message()
                    ),
                ),
                _ => refuse(schema, error.message()),
            })?;
        }
        sql.run(
            "INSERT INTO _partysync_schema (channel, columns) VALUES (?, ?)
             ON CONFLICT (channel) DO UPDATE SET columns = excluded.columns",
            &params![schema.table.to_owned(), wanted],
            &mut |_| Ok(()),
        )?;
    }
    Ok(())
}

fn refuse(schema: &Schema, why: &str) -> Error {
    Error::new(Code::Migration, format!("table `{}`: {why}", schema.table))
}

#[allow(clippy::needless_pass_by_value)]
fn corrupt(error: serde_json::Error) -> Error {
    Error::new(Code::Migration, format!("the stored schema cannot be read: {error}"))
}

fn default_ddl(column: &ColumnDef) -> Option<String> {
    match column.role {
        // The triggers put the time in.
        Role::CreatedAt | Role::UpdatedAt => Some("0".to_owned()),
        _ => column.default.map(crate::record::Literal::ddl),
    }
}

fn column_ddl(column: &ColumnDef) -> String {
    let name = quote(column.name);
    let mut ddl = format!("{name} {}", column.sql_type.ddl());
    if !column.nullable {
        ddl.push_str(" NOT NULL");
    }
    if column.role == Role::Key {
        ddl.push_str(" PRIMARY KEY");
    }
    if let Some(default) = default_ddl(column) {
        ddl.push_str(" DEFAULT ");
        ddl.push_str(&default);
    }
    if column.sql_type == SqlType::Json {
        ddl.push_str(&format!(" CHECK ({name} IS NULL OR json_valid({name}))"));
    }
    ddl
}

fn create_table(schema: &Schema, name: &str) -> String {
    let columns: Vec<_> = schema.columns.iter().map(column_ddl).collect();
    format!("CREATE TABLE {name} ({}) STRICT", columns.join(", "))
}

fn table_exists(name: &str, sql: &dyn Sql) -> Result<bool> {
    let found = sql.query_opt(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
        params![name.to_owned()],
        |row| row.get::<i64>(0),
    )?;
    Ok(found.is_some())
}

fn create(schema: &Schema, sql: &dyn Sql) -> Result<Vec<String>> {
    if table_exists(schema.table, sql)? {
        return Err(refuse(
            schema,
            "there is a table of that name which this record did not make: \
             rename that table, and copy its rows over in `on_start`",
        ));
    }
    let mut steps = vec![create_table(schema, &schema.quoted())];
    for column in schema.columns {
        steps.extend(index_ddl(schema, column));
    }
    Ok(steps)
}

fn index_name(schema: &Schema, column: &str, unique: bool) -> String {
    quote(&format!(
        "_partysync_{}_{column}_{}",
        schema.table,
        if unique { "unique" } else { "index" }
    ))
}

fn index_ddl(schema: &Schema, column: &ColumnDef) -> Vec<String> {
    let (table, name) = (schema.quoted(), quote(column.name));
    let mut steps = Vec::new();
    if column.index {
        let index = index_name(schema, column.name, false);
        steps.push(format!("CREATE INDEX {index} ON {table} ({name})"));
    }
    if column.unique {
        let index = index_name(schema, column.name, true);
        // A row that was softly deleted does not hold its value against new ones.
        let alive = match schema.role(Role::DeletedAt) {
            Some((_, deleted_at)) => format!(" WHERE {} IS NULL", quote(deleted_at.name)),
            None => String::new(),
        };
        steps.push(format!("CREATE UNIQUE INDEX {index} ON {table} ({name}){alive}"));
    }
    steps
}

/// The steps from `stored` to `schema`. Checks everything before it gives the first.
fn alter(schema: &Schema, stored: &Stored, sql: &dyn Sql) -> Result<Vec<String>> {
    let table = schema.quoted();
    let mut steps = Vec::new();
    for column in &stored.columns {
        for (is, unique) in [(column.index, false), (column.unique, true)] {
            if is {
                let index = index_name(schema, &column.name, unique);
                steps.push(format!("DROP INDEX IF EXISTS {index}"));
            }
        }
    }
    // A trigger that names a column would keep it from being dropped.
    steps.extend(drop_triggers(schema));

    let mut old: Vec<StoredColumn> = stored.columns.clone();
    let mut added = Vec::new();
    let mut rebuild = false;
    for column in schema.columns {
        if !old.iter().any(|c| c.name == column.name)
            && let Some(from) = column.renamed_from
            && let Some(before) = old.iter_mut().find(|c| c.name == from)
        {
            if schema.columns.iter().any(|c| c.name == from) {
                let why = format!(
                    "column `{}` is renamed from `{from}`, which is still a column: \
                     remove one of the two",
                    column.name
                );
                return Err(refuse(schema, &why));
            }
            column.name.clone_into(&mut before.name);
            let (from, to) = (quote(from), quote(column.name));
            steps.push(format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"));
        }
        match old.iter().find(|c| c.name == column.name) {
            Some(before) => rebuild |= compare(schema, before, column)?,
            None => added.push(column),
        }
    }
    for column in &added {
        if column.role == Role::Key {
            let why = format!(
                "column `{}` cannot become the key of rows that are there: \
                 use a new table and copy the rows over in `on_start`",
                column.name
            );
            return Err(refuse(schema, &why));
        }
        if !column.nullable && default_ddl(column).is_none() {
            let why = format!(
                "column `{}` is new and the rows that are there would have nothing in it: \
                 give it `default = ...` or make it an `Option`",
                column.name
            );
            return Err(refuse(schema, &why));
        }
        steps.push(format!("ALTER TABLE {table} ADD COLUMN {}", column_ddl(column)));
        if matches!(column.role, Role::CreatedAt | Role::UpdatedAt) {
            let name = quote(column.name);
            steps.push(format!("UPDATE {table} SET {name} = (SELECT now FROM _partysync_meta)"));
        }
    }
    for column in old.iter().filter(|c| !schema.columns.iter().any(|n| n.name == c.name)) {
        steps.push(format!("ALTER TABLE {table} DROP COLUMN {}", quote(&column.name)));
    }
    if rebuild {
        steps.extend(rebuild_steps(schema, sql)?);
    }
    for column in schema.columns {
        steps.extend(index_ddl(schema, column));
    }
    Ok(steps)
}

/// Whether the table has to be rebuilt for this column; an error if that would not be safe.
fn compare(schema: &Schema, before: &StoredColumn, column: &ColumnDef) -> Result<bool> {
    let name = column.name;
    if before.key != (column.role == Role::Key) {
        let why = format!(
            "the key changed at column `{name}`: use a new table and copy the rows over in `on_start`"
        );
        return Err(refuse(schema, &why));
    }
    if before.r#type != column.sql_type.name() {
        let (old, new) = (&before.r#type, column.sql_type.name());
        let why = format!(
            "column `{name}` changed from {old} to {new}: \
             add a column of the new type under another name and fill it in `on_start`"
        );
        return Err(refuse(schema, &why));
    }
    if before.nullable && !column.nullable && default_ddl(column).is_none() {
        let why = format!(
            "column `{name}` no longer takes NULL, which rows may hold: \
             give it `default = ...`, which those rows then get"
        );
        return Err(refuse(schema, &why));
    }
    Ok(before.nullable != column.nullable || before.default != default_ddl(column))
}

/// SQLite cannot alter NOT NULL or DEFAULT: the rows move to a new table of the same name.
fn rebuild_steps(schema: &Schema, sql: &dyn Sql) -> Result<Vec<String>> {
    let referenced: Option<String> = sql.query_opt(
        "SELECT m.name FROM sqlite_master m, pragma_foreign_key_list(m.name) f
         WHERE m.type = 'table' AND f.\"table\" = ?",
        params![schema.table.to_owned()],
        |row| row.get(0),
    )?;
    if let Some(other) = referenced {
        let why = format!(
            "a column's NULL or default changed, which needs the table rebuilt, but the foreign \
             key of `{other}` refers to it: drop that foreign key first"
        );
        return Err(refuse(schema, &why));
    }
    let (table, new) = (schema.quoted(), quote("_partysync_rebuild"));
    let names: Vec<_> = schema.columns.iter().map(|c| quote(c.name)).collect();
    let values: Vec<_> = schema
        .columns
        .iter()
        .map(|column| match default_ddl(column) {
            Some(default) if !column.nullable => {
                format!("coalesce({}, {default})", quote(column.name))
            }
            _ => quote(column.name),
        })
        .collect();
    let (names, values) = (names.join(", "), values.join(", "));
    Ok(vec![
        create_table(schema, &new),
        format!("INSERT INTO {new} ({names}) SELECT {values} FROM {table}"),
        format!("DROP TABLE {table}"),
        format!("ALTER TABLE {new} RENAME TO {table}"),
    ])
}
