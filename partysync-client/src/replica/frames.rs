//! What a server's frames do to a replica: catch-up, patches, and the step in which confirmed rows
//! take the place of optimistic ones.

use super::{Changes, Replica, Row, Table};
use crate::store::{RowsWrite, Write};
use partysync::sql::Value;
use partysync::wire::v2::{Ack, CatchUp, Patch};
use partysync::{Action, Code, Error, Key, Result, Schema};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What a frame did to the replica.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) changes: Changes,
    pub(crate) answers: Vec<(u64, Result<()>)>,
}

impl<A: Action> Replica<A> {
    /// A page of catch-up. Rows are put in when the last page has come; `true` then.
    pub(crate) fn catch_up(&mut self, page: CatchUp) -> Result<(bool, Changes)> {
        let table = self.table(&page.channel)?;
        if page.from.is_some() && page.from != table.version {
            return Err(out_of_step());
        }
        // What was sent up to here has come, or a page was lost.
        let before = table.staged.last().map_or(0, |page| page.sent);
        let came = before + (page.rows.len() + page.gone.len()) as u64;
        if page.sent != came && !partysync::__mutated("page") {
            table.staged.clear();
            return Err(out_of_step());
        }
        let (more, whole, to) = (page.more, page.from.is_none(), page.to);
        table.staged.push(page);
        if more {
            return Ok((false, Changes::new()));
        }
        let pages = std::mem::take(&mut table.staged);
        let (schema, channel) = (table.schema, table.schema.table);
        let from = table.version.filter(|_| !whole);
        let mut rows = BTreeMap::new();
        for page in pages {
            read_rows(schema, &page.rows, &page.gone, &mut rows)?;
        }
        if whole {
            // What the snapshot does not hold is gone.
            for key in table.confirmed.keys() {
                rows.entry(key.clone()).or_insert(None);
            }
        }
        // Rows that go are stored by what takes their place.
        let stored = rows.iter().filter(|(_, row)| !whole || row.is_some());
        let stored = stored.map(|(key, row)| RowsWrite::row(schema, key, row.as_deref())).collect();
        self.set_version(channel, from, to, stored);
        Ok((true, self.confirm([(channel, rows)].into(), &[])))
    }

    /// A patch, with its answers.
    pub(crate) fn patch(&mut self, patch: Patch) -> Result<Applied> {
        let current = |table: &Table| table.version == Some(patch.from);
        // A frame that came twice changes nothing; its answers still count.
        let old = self.tables.values().all(|t| t.version.is_some_and(|v| v >= patch.to));
        if !old && !self.tables.values().all(current) && !partysync::__mutated("version") {
            return Err(out_of_step());
        }
        if patch.page != self.pages && !partysync::__mutated("page") {
            return Err(out_of_step());
        }
        if !old {
            self.partial.extend(patch.changes);
        }
        if patch.more {
            self.pages += 1;
            return Ok(Applied::default());
        }
        self.pages = 0;
        let mut rows: BTreeMap<&'static str, BTreeMap<Key, Option<Row>>> = BTreeMap::new();
        for change in std::mem::take(&mut self.partial) {
            let schema = self.table(&change.channel)?.schema;
            let changed = rows.entry(schema.table).or_default();
            read_rows(schema, &change.rows, &change.gone, changed)?;
        }
        if !old && patch.to != patch.from {
            let schemas: Vec<_> = self.tables.values().map(|table| table.schema).collect();
            for schema in schemas {
                let changed = rows.get(schema.table).into_iter().flatten();
                let stored = changed.map(|(key, row)| RowsWrite::row(schema, key, row.as_deref()));
                self.set_version(schema.table, Some(patch.from), patch.to, stored.collect());
            }
        }
        let changes = self.confirm(rows, &patch.acks);
        let answers = patch.acks.iter().map(|ack| (ack.seq, ack.outcome())).collect();
        Ok(Applied { changes, answers })
    }

    fn table(&mut self, channel: &str) -> Result<&mut Table> {
        self.tables.get_mut(channel).ok_or_else(|| {
            let message = format!("the server sent rows of `{channel}`, which this client lacks");
            Error::new(Code::UnknownChannel, message)
        })
    }

    /// A channel is at another version now, and these rows brought it there.
    fn set_version(
        &mut self,
        channel: &'static str,
        from: Option<u64>,
        to: u64,
        rows: Vec<(String, Option<Json>)>,
    ) {
        if let Some(table) = self.tables.get_mut(channel) {
            table.version = Some(to);
            let (schema, epoch) = (table.schema.hash(), self.epoch.clone().unwrap_or_default());
            self.writes.push(Write::Rows(RowsWrite { channel, schema, epoch, from, to, rows }));
        }
    }

    /// Puts confirmed rows in, drops answered actions and replays the rest: one step.
    fn confirm(
        &mut self,
        rows: BTreeMap<&'static str, BTreeMap<Key, Option<Row>>>,
        acks: &[Ack],
    ) -> Changes {
        let touched = rows
            .iter()
            .flat_map(|(channel, rows)| rows.keys().map(move |key| (*channel, key.clone())))
            .collect();
        let before = self.snapshot_of(&touched);
        for (channel, rows) in rows {
            let Some(table) = self.tables.get_mut(channel) else { continue };
            for (key, row) in rows {
                match row {
                    Some(row) => table.confirmed.insert(key, row),
                    None => table.confirmed.remove(&key),
                };
            }
        }
        if !acks.is_empty() {
            self.pending.retain(|pending| !acks.iter().any(|ack| ack.seq == pending.seq));
            self.writes.extend(acks.iter().map(|ack| Write::Answered(ack.seq)));
        }
        self.drop_guests();
        self.replay();
        self.changes_since(before)
    }
}

/// The rows and keys of a frame, as changes to a table.
fn read_rows(
    schema: &Schema,
    rows: &[Json],
    gone: &[Json],
    into: &mut BTreeMap<Key, Option<Row>>,
) -> Result<()> {
    for row in rows {
        let row = schema.row_from_json(row)?;
        into.insert(schema.key_of(&row)?, Some(row));
    }
    for key in gone {
        into.insert(key_from_json(schema, key)?, None);
    }
    Ok(())
}

fn key_from_json(schema: &Schema, json: &Json) -> Result<Key> {
    let sql_type = schema.columns.first().map_or(partysync::sql::SqlType::Text, |c| c.sql_type);
    Key::try_from(Value::from_json(json, sql_type)?)
}

/// A frame does not go on from where the replica is: one was lost.
fn out_of_step() -> Error {
    Error::new(Code::InvalidFrame, "a frame does not continue the rows that are here")
}
