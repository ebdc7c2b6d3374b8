//! The triggers of a record's table: they note each changed key in the change log and keep the
//! framework's times right.

use crate::Result;
use crate::record::{Role, Schema};
use crate::sql::{literal, quote};

/// Rises when the triggers' text changes: rooms then make them anew.
pub(super) const TRIGGERS: u32 = 1;

const EVENTS: [&str; 4] = ["insert", "update", "delete", "touch"];

fn trigger_name(schema: &Schema, event: &str) -> String {
    quote(&format!("_partysync_{}_{event}", schema.table))
}

/// The statements that take a table's triggers away.
pub(super) fn drop_triggers(schema: &Schema) -> Vec<String> {
    let drop = |event: &&str| format!("DROP TRIGGER IF EXISTS {}", trigger_name(schema, event));
    EVENTS.iter().map(drop).collect()
}

/// The triggers that note each changed key in the change log and keep the timestamps right.
pub(super) fn triggers(schema: &Schema) -> Result<Vec<String>> {
    let (table, channel) = (schema.quoted(), literal(schema.table));
    let key = quote(schema.key()?.name);
    // Not INSERT OR REPLACE: inside a trigger that obeys the outer statement's conflict clause.
    // A write belongs to the version that the room commits next.
    let note = |row: &str, when: &str| {
        format!(
            "INSERT INTO _partysync_change (channel, key, version, at) \
             SELECT {channel}, {row}.{key}, version + 1, now FROM _partysync_meta WHERE {when} \
             ON CONFLICT (channel, key) DO UPDATE SET version = excluded.version, at = excluded.at \
             WHERE version <> excluded.version;"
        )
    };
    let trigger = |event: &str, on: &str, body: &str| {
        let name = trigger_name(schema, event);
        format!("CREATE TRIGGER {name} AFTER {on} ON {table} BEGIN {body} END")
    };
    let now = "(SELECT now FROM _partysync_meta)";
    let by = |role: Role| schema.role(role).map(|(_, column)| quote(column.name));

    let mut on_insert = note("NEW", "TRUE");
    for column in [by(Role::CreatedAt), by(Role::UpdatedAt)].into_iter().flatten() {
        on_insert.push_str(&format!(
            "UPDATE {table} SET {column} = {now} WHERE {key} = NEW.{key} AND NEW.{column} = 0;"
        ));
    }
    let on_update = note("NEW", "TRUE") + &note("OLD", &format!("OLD.{key} IS NOT NEW.{key}"));
    let mut steps = drop_triggers(schema);
    steps.push(trigger("insert", "INSERT", &on_insert));
    steps.push(trigger("update", "UPDATE", &on_update));
    let noted = if crate::__mutated("tombstones") { "FALSE" } else { "TRUE" };
    steps.push(trigger("delete", "DELETE", &note("OLD", noted)));
    if let Some(column) = by(Role::UpdatedAt) {
        // The guard ends the recursion: the trigger's own update changes the column.
        let name = trigger_name(schema, "touch");
        steps.push(format!(
            "CREATE TRIGGER {name} AFTER UPDATE ON {table} \
             WHEN NEW.{column} IS OLD.{column} AND NEW.{column} IS NOT {now} \
             BEGIN UPDATE {table} SET {column} = {now} WHERE {key} = NEW.{key}; END"
        ));
    }
    Ok(steps)
}
