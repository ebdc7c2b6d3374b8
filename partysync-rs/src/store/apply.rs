//! The SQL of the derived operations: insert, update, upsert, delete.

use crate::record::{Key, Role, Schema};
use crate::sql::{Sql, Value, quote};
use crate::{Code, Error, Result};

const NOW: &str = "(SELECT now FROM _partysync_meta)";

pub(crate) fn key_exists(schema: &Schema, key: &Key) -> Error {
    Error::new(
        Code::KeyExists,
        format!("`{}` has a row with the key `{key}` already", schema.table),
    )
}

pub(crate) fn not_found(schema: &Schema, key: &Key) -> Error {
    Error::new(Code::NotFound, format!("`{}` has no row with the key `{key}`", schema.table))
}

/// A new row. One that was softly deleted does not stand in its way.
pub(crate) fn insert(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<()> {
    let (table, key_column) = (schema.quoted(), schema.key()?);
    let key = cells.iter().find(|(index, _)| *index == 0).map(|(_, value)| value.clone());
    if let (Some((_, deleted_at)), Some(key)) = (schema.role(Role::DeletedAt), &key) {
        let (name, deleted_at) = (quote(key_column.name), quote(deleted_at.name));
        let purge = format!("DELETE FROM {table} WHERE {name} = ? AND {deleted_at} IS NOT NULL");
        sql.run(&purge, std::slice::from_ref(key), &mut |_| Ok(()))?;
    }
    let mut names = Vec::new();
    let mut holders = Vec::new();
    let mut params = Vec::new();
    for (index, column) in schema.columns.iter().enumerate() {
        let given = cells.iter().find(|(i, _)| *i == index);
        if let Some((_, value)) = given {
            holders.push("?");
            params.push(value.clone());
        } else if matches!(column.role, Role::CreatedAt | Role::UpdatedAt) {
            holders.push(NOW);
        } else {
            continue;
        }
        names.push(quote(column.name));
    }
    let (names, holders) = (names.join(", "), holders.join(", "));
    let statement = format!("INSERT INTO {table} ({names}) VALUES ({holders})");
    sql.run(&statement, &params, &mut |_| Ok(())).map_err(|error| {
        let error = error.with_keys(&[schema]);
        match key.map(Key::try_from) {
            Some(Ok(key)) if error.code() == Code::KeyExists => key_exists(schema, &key),
            _ => error,
        }
    })
}

/// Some cells of a row that is there.
pub(crate) fn update(
    schema: &Schema,
    key: &Value,
    cells: &[(usize, Value)],
    sql: &dyn Sql,
) -> Result<()> {
    if change(schema, key, cells, sql)? {
        return Ok(());
    }
    Err(not_found(schema, &Key::try_from(key.clone())?))
}

/// Some cells of a row that is there, or a new row.
pub(crate) fn upsert(
    schema: &Schema,
    key: &Value,
    cells: &[(usize, Value)],
    sql: &dyn Sql,
) -> Result<()> {
    if change(schema, key, cells, sql)? { Ok(()) } else { insert(schema, cells, sql) }
}

/// The row goes; softly, if the record has `deleted_at`. One that is gone stays so.
pub(crate) fn delete(schema: &Schema, key: &Value, sql: &dyn Sql) -> Result<()> {
    let (table, name) = (schema.quoted(), quote(schema.key()?.name));
    let statement = match schema.role(Role::DeletedAt) {
        Some((_, column)) => {
            let column = quote(column.name);
            format!("UPDATE {table} SET {column} = {NOW} WHERE {name} = ? AND {column} IS NULL")
        }
        None => format!("DELETE FROM {table} WHERE {name} = ?"),
    };
    sql.run(&statement, std::slice::from_ref(key), &mut |_| Ok(()))
}

/// Whether the row was there to be changed.
fn change(schema: &Schema, key: &Value, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<bool> {
    let (table, name) = (schema.quoted(), quote(schema.key()?.name));
    let mut sets = Vec::new();
    let mut params = Vec::new();
    for (index, value) in cells.iter().filter(|(index, _)| *index != 0) {
        if let Some(column) = schema.columns.get(*index) {
            sets.push(format!("{} = ?", quote(column.name)));
            params.push(value.clone());
        }
    }
    let alive = match schema.role(Role::DeletedAt) {
        Some((_, column)) => format!(" AND {} IS NULL", quote(column.name)),
        None => String::new(),
    };
    params.push(key.clone());
    let statement = if sets.is_empty() {
        format!("SELECT 1 FROM {table} WHERE {name} = ?{alive}")
    } else {
        if let Some((index, column)) = schema.role(Role::UpdatedAt)
            && !cells.iter().any(|(i, _)| *i == index)
        {
            sets.push(format!("{} = {NOW}", quote(column.name)));
        }
        format!("UPDATE {table} SET {} WHERE {name} = ?{alive} RETURNING 1", sets.join(", "))
    };
    let mut found = false;
    sql.run(&statement, &params, &mut |_| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}
