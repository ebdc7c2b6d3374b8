//! What foreign keys do to a client's rows: which go with a row that is deleted, which keep it, and
//! that a row refers to one that is there.

use crate::action::Tables;
use crate::record::{Key, Role, Schema};
use crate::sql::Value;
use crate::wire::clip;
use crate::{Code, Error, OnDelete, Result};
use std::collections::{BTreeMap, BTreeSet};

/// So many rows deep a cascade goes, as each is a trigger's in SQLite: what Durable Objects take.
const DEEPEST: usize = 10;

/// Whether other rows hang on those of a table: not where deletes are soft, which are updates.
pub(crate) fn is_referred(schema: &Schema, tables: &dyn Tables) -> bool {
    let mut referring = referring_to(tables.schemas(), schema.table);
    schema.role(Role::DeletedAt).is_none() && referring.next().is_some()
}

/// Takes rows out, with what hangs on them, as one `DELETE` does.
///
/// # Errors
/// [`Code::Constraint`] when a row that stays refers to one of them, [`Code::Sql`] when a cascade is too
/// deep; nothing is changed then.
pub(crate) fn delete(schema: &Schema, tables: &mut dyn Tables, keys: Vec<Key>) -> Result<()> {
    if !is_referred(schema, tables) {
        keys.into_iter().for_each(|key| tables.set(schema.table, key, None));
        return Ok(());
    }
    let there = keys.into_iter().filter(|key| tables.get(schema.table, key).is_some()).collect();
    let mut gone: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
    let (mut cleared, mut kept) = (Vec::new(), Vec::new());
    // What goes with what: each table is looked through once for all rows of a level.
    let mut level: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::from([(schema.table, there)]);
    for depth in 1.. {
        level.retain(|_, keys| !keys.is_empty());
        if level.is_empty() {
            break;
        }
        if depth > DEEPEST {
            let message = format!(
                "rows that are deleted with others refer to each other more than {DEEPEST} deep: \
                 delete the last ones first"
            );
            return Err(Error::new(Code::Sql, message));
        }
        for (table, keys) in &level {
            gone.entry(table).or_default().extend(keys.iter().cloned());
        }
        let mut next: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
        for (table, keys) in &level {
            for (child, index, on_delete) in referring_to(tables.schemas(), table) {
                for (row, key) in tables.referring(child.table, index, keys) {
                    match on_delete {
                        OnDelete::Cascade => {
                            if !gone.get(child.table).is_some_and(|gone| gone.contains(&row)) {
                                next.entry(child.table).or_default().insert(row);
                            }
                        }
                        OnDelete::SetNull => cleared.push((child, row, index)),
                        OnDelete::Restrict => kept.push((child.table, row, *table, key)),
                    }
                }
            }
        }
        level = next;
    }
    let goes = |table: &str, row: &Key| gone.get(table).is_some_and(|gone| gone.contains(row));
    // It counts what is there when the statement is done.
    for (table, row, referred, key) in kept {
        if !goes(table, &row) {
            let (row, key) = (clip(&row.to_string()), clip(&key.to_string()));
            let message = format!(
                "the row `{row}` of `{table}` refers to `{key}` of `{referred}`: delete it first"
            );
            return Err(Error::new(Code::Constraint, message));
        }
    }
    for (child, key, index) in cleared {
        let there = !goes(child.table, &key);
        if let Some(mut row) = tables.get(child.table, &key).filter(|_| there) {
            let now = Value::Integer(tables.now().as_millis());
            let touched = child.role(Role::UpdatedAt).map(|(index, _)| (index, now));
            for (index, value) in touched.into_iter().chain([(index, Value::Null)]) {
                if let Some(cell) = row.get_mut(index) {
                    *cell = value;
                }
            }
            tables.set(child.table, key, Some(row));
        }
    }
    for (table, keys) in gone {
        keys.into_iter().for_each(|key| tables.set(table, key, None));
    }
    Ok(())
}

/// The columns that refer to a table, and what becomes of their rows.
fn referring_to<'a>(
    schemas: &'a [&'static Schema],
    table: &'a str,
) -> impl Iterator<Item = (&'static Schema, usize, OnDelete)> + 'a {
    schemas.iter().flat_map(move |child| {
        child.columns.iter().enumerate().filter_map(move |(index, column)| {
            let reference = column.references.filter(|reference| reference.table == table)?;
            Some((*child, index, reference.on_delete))
        })
    })
}

/// Looks whether a row refers to rows that are there, where it did not do so before. One that is
/// softly deleted is there for the server, which alone can tell.
///
/// # Errors
/// [`Code::Constraint`] when it does not.
pub(crate) fn check(schema: &Schema, tables: &dyn Tables, key: &Key, row: &[Value]) -> Result<()> {
    if schema.columns.iter().all(|column| column.references.is_none()) {
        return Ok(());
    }
    let before = tables.get(schema.table, key);
    for (index, (column, cell)) in schema.columns.iter().zip(row).enumerate() {
        let Some(reference) = column.references.filter(|_| *cell != Value::Null) else { continue };
        let other = tables.schemas().iter().find(|other| other.table == reference.table);
        let is_same = before.as_ref().and_then(|before| before.get(index)) == Some(cell);
        if is_same || other.is_none_or(|other| other.role(Role::DeletedAt).is_some()) {
            continue;
        }
        let referred = Key::try_from(cell.clone())?;
        let is_itself = reference.table == schema.table && referred == *key;
        if !is_itself && tables.get(reference.table, &referred).is_none() {
            let referred = clip(&referred.to_string());
            let message = format!(
                "`{}` of `{}` refers to `{referred}` of `{}`, which is not there",
                column.name, schema.table, reference.table
            );
            return Err(Error::new(Code::Constraint, message));
        }
    }
    Ok(())
}
