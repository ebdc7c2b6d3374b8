//! What foreign keys do to a client's rows: which go with a row that is deleted, which keep it, and
//! that a row refers to one that is there.

use crate::action::Tables;
use crate::record::{Key, Role, Schema};
use crate::sql::Value;
use crate::wire::clip;
use crate::{Code, Error, OnDelete, Result};
use std::collections::BTreeSet;

/// So many rows deep a cascade goes, as each is a trigger's in SQLite: what Durable Objects take.
const DEEPEST: usize = 10;

type At = (&'static str, Key);

/// Whether other rows hang on those of a table: not where deletes are soft, which are updates.
pub(crate) fn is_referred(schema: &Schema, tables: &dyn Tables) -> bool {
    let refers = |other: &&Schema| {
        let mut references = other.columns.iter().filter_map(|column| column.references);
        references.any(|reference| reference.table == schema.table)
    };
    schema.role(Role::DeletedAt).is_none() && tables.schemas().iter().copied().any(|s| refers(&s))
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
    let schemas = tables.schemas();
    let Some(schema) = schemas.iter().find(|known| known.table == schema.table) else {
        return Ok(());
    };
    let there = keys.into_iter().filter(|key| tables.get(schema.table, key).is_some());
    let mut rows: Vec<(&Schema, Key, usize)> = there.map(|key| (*schema, key, 1)).collect();
    let mut gone: BTreeSet<At> = rows.iter().map(|(s, key, _)| (s.table, key.clone())).collect();
    let (mut cleared, mut kept) = (Vec::new(), Vec::new());
    let mut next = 0;
    while let Some((schema, key, depth)) = rows.get(next).cloned() {
        next += 1;
        if depth > DEEPEST {
            let message = format!(
                "rows that are deleted with others refer to each other more than {DEEPEST} deep: \
                 delete the last ones first"
            );
            return Err(Error::new(Code::Sql, message));
        }
        for child in schemas.iter().copied() {
            for (index, column) in child.columns.iter().enumerate() {
                let Some(reference) = column.references.filter(|r| r.table == schema.table) else {
                    continue;
                };
                for row in tables.referring(child.table, index, &key) {
                    match reference.on_delete {
                        OnDelete::Cascade => {
                            if gone.insert((child.table, row.clone())) {
                                rows.push((child, row, depth + 1));
                            }
                        }
                        OnDelete::SetNull => cleared.push((child, row, index)),
                        OnDelete::Restrict => kept.push((child.table, row, schema, key.clone())),
                    }
                }
            }
        }
    }
    // It counts what is there when the statement is done.
    for (table, row, schema, key) in kept {
        if !gone.contains(&(table, row.clone())) {
            let (row, key) = (clip(&row.to_string()), clip(&key.to_string()));
            let message = format!(
                "the row `{row}` of `{table}` refers to `{key}` of `{}`: delete it first",
                schema.table
            );
            return Err(Error::new(Code::Constraint, message));
        }
    }
    for (child, key, index) in cleared {
        let there = !gone.contains(&(child.table, key.clone()));
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
    rows.into_iter().for_each(|(schema, key, _)| tables.set(schema.table, key, None));
    Ok(())
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
