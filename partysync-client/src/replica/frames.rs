//! What a server's frames do to a replica: catch-up, patches, and the step in which confirmed rows
//! take the place of optimistic ones.

use super::overlay::NewRows;
use super::pending::Whose;
use super::{Changes, Replica, Row, Staged, Table};
use crate::answer::Outcome;
use crate::gathered::gathered;
use crate::store::{RowsWrite, SavedAction, Write};
use partysync::wire::v2::{Ack, CatchUp, Patch};
use partysync::{Action, Code, Error, Key, Result, Schema};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An action that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) client: Arc<str>,
    pub(crate) seq: u64,
    /// Whether this client has made it.
    pub(crate) own: bool,
    pub(crate) outcome: Outcome,
    pub(crate) action: SavedAction,
}

/// What a frame did to the replica.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) changes: Changes,
    pub(crate) answers: Vec<Answered>,
}

impl<A: Action> Replica<A> {
    /// A page of catch-up. Rows are put in when the last page has come; `true` then.
    pub(crate) fn catch_up(&mut self, page: CatchUp) -> Result<(bool, Changes)> {
        let table = self.table(&page.channel)?;
        if page.from.is_some() && page.from != table.version {
            return Err(out_of_step());
        }
        // What was sent up to here has come, or a page was lost.
        let came = table.staged.sent + (page.rows.len() + page.gone.len()) as u64;
        if page.sent != came && !partysync::__mutated("page") {
            table.staged = Staged::default();
            return Err(out_of_step());
        }
        let (more, whole, to) = (page.more, page.from.is_none(), page.to);
        let view = page.view.clone();
        table.staged.read(table.schema, page)?;
        if more {
            return Ok((false, Changes::new()));
        }
        let Staged { rows, gone, mut stored, .. } = std::mem::take(&mut table.staged);
        let (schema, channel) = (table.schema, table.schema.table);
        if whole && !gone.is_empty() {
            // What went while the snapshot was sent is in it, and is not to be kept.
            let row = |(key, row): (&Key, &Row)| RowsWrite::row(schema, key, Some(row));
            stored = rows.iter().map(row).collect();
        }
        let from = table.version.filter(|_| !whole);
        if whole {
            table.view = view;
        }
        let first = whole && table.confirmed.is_empty();
        self.set_version(channel, from, to, stored);
        let done = self.held_by_rows();
        if first && gone.is_empty() && done.is_empty() && self.index.is_empty() {
            return Ok((true, self.put_first(channel, rows)));
        }
        let mut changed: BTreeMap<_, _> = gathered(gone.into_iter().map(|key| (key, None)));
        if whole {
            // What the snapshot does not hold is gone.
            let here = self.tables.get(channel).map(|table| table.confirmed.keys());
            changed.extend(here.into_iter().flatten().map(|key| (key.clone(), None)));
        }
        changed.extend(rows.into_iter().map(|(key, row)| (key, Some(row))));
        Ok((true, self.confirm(gathered([(channel, changed)]), done)))
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
        let mut rows = NewRows::new();
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
        let mut gone = Vec::new();
        let mut answers = Vec::new();
        for ack in patch.acks {
            self.answered(ack, &mut gone, &mut answers);
        }
        gone.extend(self.held_by_rows());
        let changes = self.confirm(rows, gone);
        Ok(Applied { changes, answers })
    }

    /// An answer to an action of this client's, or to one that it has adopted. One that came twice
    /// was heard the first time.
    fn answered(
        &mut self,
        ack: Ack,
        gone: &mut Vec<super::Pending<A>>,
        answers: &mut Vec<Answered>,
    ) {
        let whose = |queue: &&mut super::Queue<A>| match &ack.client {
            None => queue.whose == Whose::Own,
            Some(client) => queue.whose == Whose::Adopted && *queue.client == **client,
        };
        let Some(queue) = self.queues.iter_mut().find(whose) else { return };
        let Some(pending) = queue.take(ack.seq) else { return };
        let (client, own) = (queue.client.clone(), queue.whose == Whose::Own);
        let (action, outcome) = (pending.saved(), ack.outcome().map(|()| ack.result));
        gone.push(pending);
        let write = Write::Answered { client: client.clone(), from: ack.seq, to: ack.seq };
        match self.writes.last_mut() {
            Some(Write::Answered { client: last, to, .. })
                if *last == client && to.checked_add(1) == Some(ack.seq) =>
            {
                *to = ack.seq;
            }
            _ => self.writes.push(write),
        }
        answers.push(Answered { client, seq: ack.seq, own, outcome, action });
    }

    /// Looks whether this client follows a channel.
    ///
    /// # Errors
    /// It does not: the server speaks of something else.
    pub(crate) fn follows(&mut self, channel: &str) -> Result<()> {
        self.table(channel).map(drop)
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
            (table.version, table.complete) = (Some(to), true);
            let (schema, epoch) = (table.schema.hash(), self.epoch.clone().unwrap_or_default());
            let view = table.view.clone();
            let rows = RowsWrite { channel, schema, epoch, view, from, to, rows };
            self.writes.push(Write::Rows(rows));
        }
    }
}

impl Staged {
    /// Reads a page. A key comes once in a catch-up; if it does not, the last time counts.
    fn read(&mut self, schema: &Schema, page: CatchUp) -> Result<()> {
        self.sent = page.sent;
        for json in page.rows {
            let (key, row) = keyed(schema, &json)?;
            self.stored.push((key.to_string(), Some(json)));
            self.gone.remove(&key);
            self.rows.insert(key, row);
        }
        for key in page.gone {
            let key = schema.key_from_json(&key)?;
            self.stored.push((key.to_string(), None));
            self.rows.remove(&key);
            self.gone.insert(key);
        }
        Ok(())
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
        let (key, row) = keyed(schema, row)?;
        into.insert(key, Some(row));
    }
    for key in gone {
        into.insert(schema.key_from_json(key)?, None);
    }
    Ok(())
}

/// A row from its JSON, with its key.
pub(super) fn keyed(schema: &Schema, json: &Json) -> Result<(Key, Row)> {
    let row = schema.row_from_json(json)?;
    Ok((schema.key_of(&row)?, row.into()))
}

/// A frame does not go on from where the replica is: one was lost.
fn out_of_step() -> Error {
    Error::new(Code::InvalidFrame, "a frame does not continue the rows that are here")
}
