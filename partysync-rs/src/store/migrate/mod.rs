//! From the schema that is stored to the schema of the type, with the rows kept - or a refusal
//! that names the column and the remedy, before anything is altered.
//!
//! What rows mean is for the application to migrate, in batches: [`step`] knows how far it is.
//!
//! [`stored`] is what a table looked like when it was last migrated, [`plan`] compares that with
//! the type and reads no database, [`ddl`] writes the statements, [`run`] carries a plan out.
//!
//! A table is never built anew: `DROP TABLE` would delete the rows of tables that refer to it, and
//! takes the application's own indexes and triggers along. SQLite cannot alter a column, but it
//! can add one, drop one and rename one, which is the same.

mod ddl;
mod plan;
mod run;
mod step;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use step::{Step, finish, hold_times, next_step};

use super::channel_id;
use crate::record::Schema;
use crate::sql::Sql;
use crate::{Code, Error, Result, params};
use plan::Plan;
use std::collections::BTreeMap;
use stored::Stored;

/// What a migration did that clients have to be told.
#[derive(Debug, Default)]
pub(crate) struct Migrated {
    /// The tables in which values of rows changed without a version: a client that holds such
    /// rows holds what is no longer there, whatever its `since` says.
    pub(crate) rewritten: Vec<&'static str>,
    /// Whether there are rows of an older version.
    pub(crate) due: bool,
    /// What whoever runs the room should know.
    pub(crate) notes: Vec<String>,
}

/// Makes every channel's table what its schema says. Runs inside the caller's transaction; all
/// that can be checked is checked before the first change.
pub(crate) fn migrate(schemas: &[&Schema], sql: &dyn Sql) -> Result<Migrated> {
    let stored = load(sql)?;
    let mut tables = Vec::new();
    let mut found: Vec<(&str, &Schema)> = Vec::new();
    for schema in schemas {
        if schema.table.starts_with("_partysync") || schema.table.starts_with("sqlite") {
            return Err(refuse(schema, "names that begin so are reserved: rename the table"));
        }
        let table = find(schema, schemas, &stored, &found)?;
        found.extend(table.as_ref().map(|(table, _)| (*table, *schema)));
        tables.push((schema, table));
    }
    check_references(schemas)?;
    let names = tables.iter().filter_map(|(schema, table)| {
        let (from, _) = table.as_ref()?;
        (*from != schema.table).then_some((*from, schema.table))
    });
    let renamed: Vec<(&str, &str)> = names.collect();
    let is_older = |(schema, table): &(&&Schema, Option<(&str, Stored)>)| {
        table.as_ref().is_some_and(|(_, before)| before.version < schema.version)
    };
    let due = tables.iter().any(is_older);
    let mut plans = Vec::new();
    for (schema, table) in &tables {
        let plan = match table {
            None => Plan::create(schema),
            Some((table, before)) => Plan::alter(schema, table, before, (&renamed, due))?,
        };
        if plan.changes() {
            run::check(&plan, sql)?;
            plans.push(plan);
        }
    }
    let mut migrated = Migrated { due, ..Migrated::default() };
    // A row refers to a table that is there, by its name: tables are renamed first, and made next.
    plans.iter().try_for_each(|plan| run::rename(plan, sql))?;
    plans.sort_by_key(|plan| plan.table.is_some());
    for plan in &plans {
        if run::run(plan, sql)? {
            migrated.rewritten.push(plan.schema.table);
        }
        migrated.notes.extend(plan.note());
        let json = serde_json::to_string(&plan.next).map_err(corrupt)?;
        sql.run(
            "INSERT INTO _partysync_schema (channel, columns) VALUES (?, ?)
             ON CONFLICT (channel) DO UPDATE SET columns = excluded.columns",
            &params![plan.schema.table.to_owned(), json],
            &mut |_| Ok(()),
        )?;
    }
    Ok(migrated)
}

/// The stored schemas, as JSON, by table.
fn load(sql: &dyn Sql) -> Result<BTreeMap<String, String>> {
    let row = |row: &crate::sql::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows: Vec<_> = sql.query_map("SELECT channel, columns FROM _partysync_schema", [], row)?;
    // Collecting sorts first, which is two kilobytes of code.
    let mut stored = BTreeMap::new();
    stored.extend(rows);
    Ok(stored)
}

/// The table in which this schema's rows are, and what it looked like: the table of its name, or
/// one that is to be renamed, or one that was renamed by code that is not running any more. No
/// table of those that were `found` for other schemas.
fn find<'a>(
    schema: &Schema,
    schemas: &[&Schema],
    stored: &'a BTreeMap<String, String>,
    found: &[(&str, &Schema)],
) -> Result<Option<(&'a str, Stored)>> {
    let parse = |(table, json): (&'a String, &String)| {
        Ok((table.as_str(), serde_json::from_str::<Stored>(json).map_err(corrupt)?))
    };
    let is_record = |table: &str| schemas.iter().any(|schema| schema.table == table);
    let former = schema.renamed_from.iter().find_map(|from| stored.get_key_value(*from));
    if let Some(entry) = stored.get_key_value(schema.table) {
        let (table, before) = parse(entry)?;
        if let Some((from, _)) = former
            && !is_record(from)
            && !before.names.contains(from)
        {
            let why = format!(
                "it is renamed from `{from}`, but both tables are there: remove `renamed_from`, \
                 and copy the rows over in `on_start`"
            );
            return Err(refuse(schema, &why));
        }
        return Ok(Some((table, before)));
    }
    if let Some(entry) = former {
        if is_record(entry.0) {
            let why = format!(
                "it is renamed from `{}`, which is still a record's table: remove `renamed_from`, \
                 or that record",
                entry.0
            );
            return Err(refuse(schema, &why));
        }
        if let Some((from, other)) = found.iter().find(|(table, _)| table == entry.0) {
            let why = format!("`{}` is renamed from `{from}`, too: remove one", other.table);
            return Err(refuse(schema, &why));
        }
        return parse(entry).map(Some);
    }
    for entry in stored.iter().filter(|(table, _)| !is_record(table)) {
        let claimed = schemas.iter().any(|s| s.renamed_from.contains(&entry.0.as_str()))
            || found.iter().any(|(table, _)| table == entry.0);
        let (table, before) = parse(entry)?;
        let had =
            |name: &String| name == schema.table || schema.renamed_from.contains(&name.as_str());
        if !claimed && before.names.iter().any(had) {
            return Ok(Some((table, before)));
        }
    }
    Ok(None)
}

/// That each reference is to the key of a record of the same server.
fn check_references(schemas: &[&Schema]) -> Result<()> {
    for schema in schemas {
        for column in schema.columns {
            let (name, Some(reference)) = (column.name, column.references) else { continue };
            let table = reference.table;
            let Some(other) = schemas.iter().find(|other| other.table == table) else {
                let why = format!(
                    "column `{name}` references `{table}`, which is no record of this server: write \
                     the table of one, or add that record's actions to the enum of `channels`"
                );
                return Err(refuse(schema, &why));
            };
            let [key] = other.key() else {
                let names: Vec<_> = other.key().iter().map(|column| column.name).collect();
                let names = names.join(", ");
                let why = format!(
                    "column `{name}` references `{table}`, whose key has several columns: give that \
                     record a key of one column, and `unique = \"{names}\"`"
                );
                return Err(refuse(schema, &why));
            };
            let (key, kind) = (key.sql_type.name(), column.sql_type.name());
            if key != kind {
                let why = format!(
                    "column `{name}` is {kind}, and the key of `{table}`, which it references, is \
                     {key}: give the field the type of that key"
                );
                return Err(refuse(schema, &why));
            }
        }
    }
    Ok(())
}

/// Moves what the framework's own tables know of a table to the table's new name.
fn renamed(from: &str, to: &str, sql: &dyn Sql) -> Result<()> {
    let schema = "UPDATE _partysync_schema SET channel = ? WHERE channel = ?";
    sql.exec(schema, &params![to, from])?;
    let changes = "UPDATE _partysync_change SET channel = ? WHERE channel = ?";
    sql.exec(changes, &params![channel_id(to), channel_id(from)])
}

fn refuse(schema: &Schema, why: &str) -> Error {
    Error::new(Code::Migration, format!("table `{}`: {why}", schema.table))
}

#[allow(clippy::needless_pass_by_value)]
fn corrupt(error: serde_json::Error) -> Error {
    Error::new(Code::Migration, format!("the stored schema cannot be read: {error}"))
}
