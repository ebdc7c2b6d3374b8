//! A room's history: its changes as messages of the State Protocol, one for each row, for a
//! durable stream that any client can follow.

use super::{Effect, Machine};
use crate::sql::Sql;
use crate::store::Change;
use crate::streams::rfc3339;
use crate::wire::write::Object;
use crate::{Code, Error, Result, Schema, SyncServer, Timestamp};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::ops::ControlFlow;

/// Changes that are published at once.
const ENTRIES: u64 = 500;
/// How often that is done in one turn; the alarm goes on with the rest.
const ROUNDS: u32 = 20;
/// Has followers drop what they have: all rows follow.
const RESET: &str = r#"{"headers":{"control":"reset"}}"#;

impl<S: SyncServer> Machine<S> {
    /// Publishes what changed since the last turn, in the order in which it did, in pages.
    ///
    /// A row that is there is an `update`, whether or not it was there before: it replaces what a
    /// follower has. Values are written as in `docs/protocol.md`; integers have all their digits.
    /// Where deletions were forgotten before they were published, as in a room that kept no history
    /// for a while, followers start over.
    pub(super) fn publish(&mut self, sql: &dyn Sql) -> Result<()> {
        let lacks = |published: u64| 0 < published && published < self.meta.trimmed_to;
        if self.published.is_some_and(lacks) && self.reset_for < self.meta.trimmed_to {
            self.reset_for = self.meta.trimmed_to;
            self.published = Some(0);
            self.effect(Effect::Publish { to: 0, messages: vec![RESET.to_owned()] });
        }
        for _ in 0..ROUNDS {
            let unpublished = self.published.filter(|published| *published < self.flushed);
            let Some(from) = unpublished else { break };
            let to = self.flushed.min(from.saturating_add(ENTRIES));
            let mut messages = Vec::new();
            for plan in &self.plans {
                let mut failed = Ok(());
                plan.changes(sql, None, (from, from, to), &mut |change| match message(
                    plan.schema,
                    &change,
                ) {
                    Ok(message) => {
                        messages.push((change.version, message));
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        failed = Err(error);
                        ControlFlow::Break(())
                    }
                })?;
                failed?;
            }
            // A transaction may have changed several tables: what was first comes first.
            messages.sort_by_key(|(version, _)| *version);
            let messages = messages.into_iter().map(|(_, message)| message).collect();
            self.published = Some(to);
            self.effect(Effect::Publish { to, messages });
        }
        Ok(())
    }
}

fn message(schema: &Schema, change: &Change) -> Result<String> {
    // A follower's keys are texts.
    let key = match serde_json::from_str(&change.key) {
        Ok(Json::String(text)) => text,
        _ => change.key.clone(),
    };
    let row = change.row.as_deref().filter(|_| !change.gone);
    let mut headers = Object::new();
    headers
        .text("operation", if row.is_some() { "update" } else { "delete" })
        .text("txid", &change.version.to_string())
        .text("timestamp", &rfc3339(Timestamp::from_millis(change.at)));
    let mut message = Object::new();
    message.text("type", schema.table).text("key", &key);
    if let Some(row) = row {
        message.json("value", &object(schema, row)?);
    }
    message.json("headers", &headers.end());
    Ok(message.end())
}

/// A row as an object: its columns by their names.
fn object(schema: &Schema, row: &str) -> Result<String> {
    let unreadable = |e: serde_json::Error| Error::new(Code::Internal, e.to_string());
    let values: Vec<&RawValue> = serde_json::from_str(row).map_err(unreadable)?;
    let mut object = Object::with_capacity(row.len());
    for (column, value) in schema.columns.iter().zip(values) {
        object.json(column.name, value.get());
    }
    Ok(object.end())
}
