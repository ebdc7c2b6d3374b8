//! The triggers of a record's table: they note each changed key in the change log and keep the
//! framework's times right, and refuse rows that nobody could be sent.

use super::channel_id;
use super::keys::Keys;
use super::rows::size;
use crate::Result;
use crate::record::{Role, Schema};
use crate::sql::select::RowText;
use crate::sql::{SqlType, quote};

/// Rises when the triggers' text changes: rooms then make them anew.
pub(super) const TRIGGERS: u32 = 3;

/// What SQLite says of a row that the trigger refuses.
pub(crate) const ROW_TOO_LARGE: &str = "partysync: a row is over 1 MiB as JSON";

/// What a row may take as JSON, in bytes. A row that is larger could not be sent to anybody.
const ROW_BYTES: u32 = 1024 * 1024;
/// What its cells may take without a closer look: JSON has at most six bytes for one of text.
const RAW_BYTES: u32 = 150_000;

const EVENTS: [&str; 6] = ["insert", "update", "delete", "touch", "fits_insert", "fits_update"];

fn trigger_name(schema: &Schema, event: &str) -> String {
    quote(&format!("_partysync_{}_{event}", schema.table))
}

/// The statements that take a table's triggers away.
pub(super) fn drop_triggers(schema: &Schema) -> Vec<String> {
    let drop = |event: &&str| format!("DROP TRIGGER IF EXISTS {}", trigger_name(schema, event));
    EVENTS.iter().map(drop).collect()
}

/// The triggers that note each changed key in the change log, keep the timestamps right, and
/// refuse rows that are too large to be sent.
pub(super) fn triggers(schema: &Schema) -> Result<Vec<String>> {
    make(schema, true)
}

/// The statements after which an update that leaves a row's `updated_at` as it was changes no time,
/// or after which it does again.
pub(super) fn touches(schema: &Schema, touches: bool) -> Result<Vec<String>> {
    match schema.role(Role::UpdatedAt) {
        Some(_) => make(schema, touches),
        None => Ok(Vec::new()),
    }
}

fn make(schema: &Schema, touches: bool) -> Result<Vec<String>> {
    let (table, channel) = (schema.quoted(), channel_id(schema.table));
    let keys = Keys::of(schema);
    let now = "(SELECT now FROM _partysync_meta)";
    let scope = Scope::of(schema);
    // A plain INSERT that gets its rowid from SQLite never conflicts: inside a trigger the outer
    // statement's conflict clause would decide what happens then.
    let note_old = |row: &str, old: Option<&str>, when: &str| {
        let (column, old) = old
            .map_or((String::new(), String::new()), |old| (", old".to_owned(), format!(", {old}")));
        format!(
            "INSERT INTO _partysync_change (channel, key, at{column}) \
             SELECT {channel}, {key}, {now}{old} WHERE {when};",
            key = keys.logged(row),
        )
    };
    let note = |row: &str, when: &str| note_old(row, None, when);
    let trigger = |event: &str, on: &str, body: &str| {
        let name = trigger_name(schema, event);
        format!("CREATE TRIGGER {name} {on} BEGIN {body} END")
    };
    let by = |role: Role| schema.role(role).map(|(_, column)| quote(column.name));

    // A time that the statement has left out is put in by an update, which is noted itself.
    let times: Vec<_> = [by(Role::CreatedAt), by(Role::UpdatedAt)].into_iter().flatten().collect();
    let sets: Vec<_> = times.iter().map(|t| format!("{t} = iif({t} = 0, {now}, {t})")).collect();
    let unset: Vec<_> = times.iter().map(|t| format!("NEW.{t} = 0")).collect();
    let on_insert = if times.is_empty() {
        note("NEW", "TRUE")
    } else {
        let (sets, unset) = (sets.join(", "), unset.join(" OR "));
        let this = keys.compare("", "= ", "NEW");
        format!("UPDATE {table} SET {sets} WHERE {this} AND ({unset});")
            + &note("NEW", &format!("NOT ({unset})"))
    };
    // The same for an update that leaves `updated_at` as it was.
    let untouched = by(Role::UpdatedAt)
        .filter(|_| touches)
        .map(|column| format!("NEW.{column} IS OLD.{column} AND NEW.{column} IS NOT {now}"));
    let touched = untouched.as_ref().map_or("TRUE".to_owned(), |u| format!("NOT ({u})"));
    let same_key = keys.compare("OLD", "IS ", "NEW");
    let rekeyed = format!("NOT ({same_key})");
    let on_update = match &scope {
        None => note("NEW", &touched) + &note("OLD", &rekeyed),
        // A row that left a view is noted here: an update of its time alone follows it.
        Some(Scope { left, old, gone }) => {
            let left = format!("{same_key} AND {left}");
            note_old(
                "NEW",
                Some(&format!("iif({left}, {old}, NULL)")),
                &format!("({touched}) OR ({left})"),
            ) + &note_old("OLD", Some(gone), &rekeyed)
        }
    };
    // One that was softly deleted is gone for everybody already.
    let was_here =
        by(Role::DeletedAt).map_or("TRUE".to_owned(), |column| format!("OLD.{column} IS NULL"));
    let on_delete = if crate::__mutated("tombstones") {
        "SELECT 1;".to_owned()
    } else {
        note_old("OLD", scope.as_ref().map(|scope| scope.gone.as_str()), &was_here)
    };
    let mut steps = drop_triggers(schema);
    steps.push(trigger("insert", &format!("AFTER INSERT ON {table}"), &on_insert));
    steps.push(trigger("update", &format!("AFTER UPDATE ON {table}"), &on_update));
    steps.push(trigger("delete", &format!("AFTER DELETE ON {table}"), &on_delete));
    if let (Some(column), Some(untouched)) = (by(Role::UpdatedAt), untouched) {
        // The condition ends the recursion: this update changes the column.
        let on = format!("AFTER UPDATE ON {table} WHEN {untouched}");
        let this = keys.compare("", "= ", "NEW");
        let touch = format!("UPDATE {table} SET {column} = {now} WHERE {this};");
        steps.push(trigger("touch", &on, &touch));
    }
    if schema.columns.iter().any(|c| !matches!(c.sql_type, SqlType::Integer | SqlType::Real)) {
        let (size, json) = (size(schema, "NEW"), RowText::new(schema, "NEW").size());
        let refuse = format!("SELECT RAISE(ABORT, '{ROW_TOO_LARGE}') WHERE {json} > {ROW_BYTES};");
        for (event, on) in [("fits_insert", "INSERT"), ("fits_update", "UPDATE")] {
            let on = format!("BEFORE {on} ON {table} WHEN {size} > {RAW_BYTES}");
            steps.push(trigger(event, &on, &refuse));
        }
    }
    Ok(steps)
}

/// What the log holds of a row that may have left a view, as expressions of an update or a delete.
struct Scope {
    /// Whether it was there, and is in no view any more or may be in others.
    left: String,
    /// What it held in the columns that views may name, as JSON.
    old: String,
    /// The same where the row itself is gone; NULL if it was softly deleted before.
    gone: String,
}

impl Scope {
    /// `None` for a record without such columns.
    fn of(schema: &Schema) -> Option<Self> {
        if !schema.has_scope() {
            return None;
        }
        let names: Vec<_> = schema.scope().map(|column| quote(column.name)).collect();
        let mut changed: Vec<_> = names.iter().map(|n| format!("OLD.{n} IS NOT NEW.{n}")).collect();
        let mut was_here = "TRUE".to_owned();
        if let Some((_, column)) = schema.role(Role::DeletedAt) {
            let deleted_at = quote(column.name);
            changed.push(format!("NEW.{deleted_at} IS NOT NULL"));
            was_here = format!("OLD.{deleted_at} IS NULL");
        }
        changed.push("FALSE".to_owned());
        let left = changed.join(" OR ");
        let cells: Vec<_> = names.iter().map(|n| format!("OLD.{n}")).collect();
        // A function takes 32 arguments in a Durable Object: longer ones are nested.
        let parts = cells.chunks(PART).map(|part| format!("json_array({})", part.join(", ")));
        let old = format!("json_array({})", parts.collect::<Vec<_>>().join(", "));
        let gone = format!("iif({was_here}, {old}, NULL)");
        Some(Self { left: format!("{was_here} AND ({left})"), old, gone })
    }
}

/// So many values are in one of the arrays of [`Scope::old`].
const PART: usize = 30;

/// What a change's `old` holds of the scope column at this place, as an expression.
pub(super) fn old_cell(old: &str, place: usize) -> String {
    format!("json_extract({old}, '$[{}][{}]')", place / PART, place % PART)
}
