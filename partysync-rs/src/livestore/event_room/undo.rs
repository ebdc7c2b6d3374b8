//! Taking changes back: what a row was before an event changed it is kept in a table beside the
//! record's, by triggers, for as long as the backend has not taken the event.

use crate::Result;
use crate::record::{Role, Schema};
use crate::sql::{Sql, literal, quote};
use crate::store::{self, Keys};

const EVENTS: [&str; 4] = ["insert", "update", "moved", "delete"];

fn name(schema: &Schema) -> String {
    quote(&format!("_partysync_undo_{}", schema.table))
}

fn trigger_name(schema: &Schema, event: &str) -> String {
    format!("_partysync_undo_{}_{event}", schema.table)
}

fn columns(schema: &Schema, of: &str) -> String {
    let columns = schema.columns.iter().map(|column| format!("{of}{}", quote(column.name)));
    columns.collect::<Vec<_>>().join(", ")
}

/// Makes the tables and triggers of a record anew.
pub(super) fn open(sql: &dyn Sql, schema: &Schema) -> Result<()> {
    let (undo, table) = (name(schema), schema.quoted());
    for event in EVENTS {
        sql.exec(&format!("DROP TRIGGER IF EXISTS {}", quote(&trigger_name(schema, event))), &[])?;
    }
    sql.exec(&format!("DROP TABLE IF EXISTS {undo}"), &[])?;
    let keys = Keys::of(schema);
    let (key, all) = (keys.columns(""), columns(schema, ""));
    // Without types: values stay what they are.
    sql.exec(
        &format!(
            "CREATE TABLE {undo} (_event INTEGER NOT NULL, _there INTEGER NOT NULL, {all}, \
             PRIMARY KEY ({key}, _event)) WITHOUT ROWID"
        ),
        &[],
    )?;
    // The `+` takes the affinity of an integer key away, with which no index would be used. The
    // first state of each key counts. Asked for, and not left to a conflict: in a trigger the
    // outer statement's conflict clause decides what comes of one.
    let note = |row: &str, values: &str, names: &str, there: u8| {
        let same = keys.compare("", "= +", row);
        format!(
            "INSERT INTO {undo} (_event, _there, {names}) \
             SELECT applying, {there}, {values} FROM _partysync_events \
             WHERE applying IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM {undo} WHERE {same} AND _event = applying);"
        )
    };
    let was = note("OLD", &columns(schema, "OLD."), &all, 1);
    let was_not = note("NEW", &keys.columns("NEW"), &key, 0);
    let same = keys.compare("OLD", "IS ", "NEW");
    let bodies = [
        ("insert", "AFTER INSERT", "", &was_not),
        ("update", "BEFORE UPDATE", "", &was),
        ("moved", "AFTER UPDATE", &*format!(" WHEN NOT ({same})"), &was_not),
        ("delete", "BEFORE DELETE", "", &was),
    ];
    for (event, on, when, body) in bodies {
        let trigger = quote(&trigger_name(schema, event));
        sql.exec(&format!("CREATE TRIGGER {trigger} {on} ON {table}{when} BEGIN {body} END"), &[])?;
    }
    Ok(())
}

/// Whether the triggers of a record are there.
pub(super) fn is_open(sql: &dyn Sql, schema: &Schema) -> Result<bool> {
    let names = EVENTS.map(|event| literal(&trigger_name(schema, event)));
    let there = format!(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN ({})",
        names.join(", ")
    );
    let there = sql.query_one(&there, [], |row| row.get::<i64>(0))?;
    Ok(usize::try_from(there) == Ok(EVENTS.len()))
}

/// Gives a record's rows the state that they had before the first event that is noted.
///
/// # Errors
/// What SQLite says, as where two rows have changed a unique value between them.
pub(super) fn undo(sql: &dyn Sql, schema: &Schema) -> Result<()> {
    let (undo, table) = (name(schema), schema.quoted());
    let keys = Keys::of(schema);
    let (key, tuple) = (keys.columns(""), keys.tuple(""));
    let first = format!(
        "FROM {undo} AS u WHERE _event = (SELECT min(_event) FROM {undo} WHERE {})",
        keys.compare("", "= ", "u")
    );
    let gone = format!("SELECT {key} {first} AND NOT _there");
    sql.exec(&format!("DELETE FROM {table} WHERE {tuple} IN ({gone})"), &[])?;
    let updated_at = schema.role(Role::UpdatedAt).map(|(_, column)| quote(column.name));
    if let Some(time) = &updated_at {
        // A time that stays what it is would be set by the record's triggers: it becomes another
        // one first.
        let this = keys.compare("u", "= +", &table);
        let other = format!("(SELECT u.{time} + 1 {first} AND {this})");
        let there = format!("SELECT {key} {first} AND _there");
        let set = format!("UPDATE {table} SET {time} = {other} WHERE {tuple} IN ({there})");
        sql.exec(&set, &[])?;
    }
    let all = columns(schema, "");
    let sets: Vec<_> = schema
        .columns
        .iter()
        .skip(schema.key().len())
        .map(|column| quote(column.name))
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let conflict = match sets.as_slice() {
        [] => "DO NOTHING".to_owned(),
        sets => format!("({key}) DO UPDATE SET {}", sets.join(", ")),
    };
    let back = format!(
        "INSERT INTO {table} ({all}) SELECT {} {first} AND _there ON CONFLICT {conflict}",
        columns(schema, "u.")
    );
    sql.exec(&back, &[])?;
    sql.exec(&format!("DELETE FROM {undo}"), &[])
}

/// What was before events up to this one is not needed any more.
pub(super) fn forget(sql: &dyn Sql, schema: &Schema, upto: u64) -> Result<()> {
    let forget = format!("DELETE FROM {} WHERE _event <= ?", name(schema));
    sql.exec(&forget, &[store::integer(upto)])
}

/// Takes every row out.
pub(super) fn clear(sql: &dyn Sql, schema: &Schema) -> Result<()> {
    sql.exec(&format!("DELETE FROM {}", schema.quoted()), &[])?;
    sql.exec(&format!("DELETE FROM {}", name(schema)), &[])
}
