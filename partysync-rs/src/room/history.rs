//! A room's history: its changes as messages of the State Protocol, one for each row, for a
//! durable stream that any client can follow.

use super::Engine;
use super::catch_up::{After, Changed, changed};
use crate::sql::Sql;
use crate::streams::rfc3339;
use crate::{Action, Code, Error, Result, Schema, Timestamp};
use serde_json::Value as Json;
use serde_json::value::RawValue;

impl<A: Action> Engine<A> {
    /// What changed after `version`, in the order in which it did, as JSON messages.
    ///
    /// A row that is there is an `update`, whether or not it was there before: it replaces what a
    /// follower has. Values are written as in `docs/protocol.md`; integers have all their digits.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn history(&self, sql: &dyn Sql, version: u64) -> Result<Vec<String>> {
        let mut messages = Vec::new();
        for schema in A::CHANNELS {
            for change in changed(sql, schema, After::Version(version))? {
                messages.push((change.version, message(schema, &change)?));
            }
        }
        // A transaction may have changed several tables: what was first comes first.
        messages.sort_by_key(|(version, _)| *version);
        Ok(messages.into_iter().map(|(_, message)| message).collect())
    }
}

fn message(schema: &Schema, change: &Changed) -> Result<String> {
    // A follower's keys are texts.
    let key = match serde_json::from_str(&change.key) {
        Ok(Json::String(text)) => text,
        _ => change.key.clone(),
    };
    let (kind, key) = (Json::from(schema.table), Json::from(key));
    let time = Json::from(rfc3339(Timestamp::from_millis(change.at)));
    let headers = |operation: &str| {
        format!(r#"{{"operation":"{operation}","txid":"{}","timestamp":{time}}}"#, change.version)
    };
    let row = change.row.as_deref().filter(|_| !change.gone);
    Ok(match row {
        Some(row) => {
            let value = object(schema, row)?;
            let headers = headers("update");
            format!(r#"{{"type":{kind},"key":{key},"value":{value},"headers":{headers}}}"#)
        }
        None => format!(r#"{{"type":{kind},"key":{key},"headers":{}}}"#, headers("delete")),
    })
}

/// A row as an object: its columns by their names.
fn object(schema: &Schema, row: &str) -> Result<String> {
    let unreadable = |e: serde_json::Error| Error::new(Code::Internal, e.to_string());
    let values: Vec<&RawValue> = serde_json::from_str(row).map_err(unreadable)?;
    let members = schema.columns.iter().zip(values);
    let members = members.map(|(column, value)| format!("{}:{value}", Json::from(column.name)));
    Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
}
