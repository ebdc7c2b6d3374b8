//! The SQL of the derived operations: insert, update, upsert, delete.

use crate::record::{Key, Role, Schema};
use crate::sql::{Sql, Value, quote};
use crate::wire::clip;
use crate::{Code, Error, Result};

const NOW: &str = "(SELECT now FROM _partysync_meta)";

pub(crate) fn key_exists(schema: &Schema, key: &Key) -> Error {
    let key = clip(&key.to_string());
    Error::new(
        Code::KeyExists,
        format!("`{}` has a row with the key `{key}` already", schema.table),
    )
}

pub(crate) fn not_found(schema: &Schema, key: &Key) -> Error {
    let key = clip(&key.to_string());
    Error::new(Code::NotFound, format!("`{}` has no row with the key `{key}`", schema.table))
}

/// A new row. One that was softly deleted does not stand in its way: it is written over, so that
/// what refers to it by a foreign key stays.
pub(crate) fn insert(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<()> {
    let table = schema.quoted();
    let (mut names, mut holders, mut params) = (Vec::new(), Vec::new(), Vec::new());
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
    let Err(error) = sql.exec(&statement, &params) else { return Ok(()) };
    let error = error.with_keys(&[schema]);
    if error.code() != Code::KeyExists {
        return Err(error);
    }
    if revive(schema, cells, sql)? {
        Ok(())
    } else {
        Err(key_exists(schema, &schema.key_among(cells)?))
    }
}

/// Which row these cells are of, as a condition, with its parameters.
fn this_row(schema: &Schema, cells: &[(usize, Value)]) -> Result<(String, Vec<Value>)> {
    let names = schema.key().iter().map(|column| format!("{} = ?", quote(column.name)));
    let condition = names.collect::<Vec<_>>().join(" AND ");
    let key = schema.key_among(cells)?;
    Ok((condition, key.parts().iter().map(Key::to_value).collect()))
}

/// Makes a softly deleted row a new one; `false` when there is none.
fn revive(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<bool> {
    let Some((_, deleted_at)) = schema.role(Role::DeletedAt) else { return Ok(false) };
    let (mut sets, mut params) = (Vec::new(), Vec::new());
    for (index, column) in schema.columns.iter().enumerate().skip(schema.key().len()) {
        let name = quote(column.name);
        let given = cells.iter().find(|(i, _)| *i == index);
        if let Some((_, value)) = given {
            sets.push(format!("{name} = ?"));
            params.push(value.clone());
        } else if matches!(column.role, Role::CreatedAt | Role::UpdatedAt) {
            sets.push(format!("{name} = {NOW}"));
        } else {
            let default = column.default.map_or("NULL".to_owned(), crate::record::Literal::ddl);
            sets.push(format!("{name} = {default}"));
        }
    }
    let (table, sets, deleted_at) = (schema.quoted(), sets.join(", "), quote(deleted_at.name));
    let (this, key) = this_row(schema, cells)?;
    params.extend(key);
    let statement =
        format!("UPDATE {table} SET {sets} WHERE {this} AND {deleted_at} IS NOT NULL RETURNING 1");
    Ok(sql.query_opt(&statement, &params, |_| Ok(()))?.is_some())
}

/// Some cells of a row that is there.
pub(crate) fn update(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<()> {
    if change(schema, cells, sql)? {
        return Ok(());
    }
    Err(not_found(schema, &schema.key_among(cells)?))
}

/// Some cells of a row that is there, or a new row.
pub(crate) fn upsert(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<()> {
    if change(schema, cells, sql)? { Ok(()) } else { insert(schema, cells, sql) }
}

/// The row goes; softly, if the record has `deleted_at`. One that is gone stays so.
pub(crate) fn delete(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<()> {
    let (table, (this, key)) = (schema.quoted(), this_row(schema, cells)?);
    let statement = match schema.role(Role::DeletedAt) {
        Some((_, column)) => {
            let column = quote(column.name);
            format!("UPDATE {table} SET {column} = {NOW} WHERE {this} AND {column} IS NULL")
        }
        None => format!("DELETE FROM {table} WHERE {this}"),
    };
    sql.exec(&statement, &key)
}

/// Whether the row was there to be changed.
fn change(schema: &Schema, cells: &[(usize, Value)], sql: &dyn Sql) -> Result<bool> {
    let (table, (this, key)) = (schema.quoted(), this_row(schema, cells)?);
    let mut sets = Vec::new();
    let mut params = Vec::new();
    for (index, value) in cells.iter().filter(|(index, _)| *index >= schema.key().len()) {
        if let Some(column) = schema.columns.get(*index) {
            sets.push(format!("{} = ?", quote(column.name)));
            params.push(value.clone());
        }
    }
    let alive = match schema.role(Role::DeletedAt) {
        Some((_, column)) => format!(" AND {} IS NULL", quote(column.name)),
        None => String::new(),
    };
    params.extend(key);
    let statement = if sets.is_empty() {
        format!("SELECT 1 FROM {table} WHERE {this}{alive}")
    } else {
        if let Some((index, column)) = schema.role(Role::UpdatedAt)
            && !cells.iter().any(|(i, _)| *i == index)
        {
            sets.push(format!("{} = {NOW}", quote(column.name)));
        }
        format!("UPDATE {table} SET {} WHERE {this}{alive} RETURNING 1", sets.join(", "))
    };
    Ok(sql.query_opt(&statement, &params, |_| Ok(()))?.is_some())
}
