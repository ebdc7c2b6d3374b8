//! What v1 connections are sent: the results of their calls, broadcasts, and the answers to a sync.
//!
//! The protocol has no pages that are asked for, and no way to say what was read. What is large is
//! sent a window in each turn. A client that reconnects asks for what changed since the latest time
//! that it has seen: while rows of a channel are on their way to a connection, all of the channel
//! comes that way and in its order, so that nothing overtakes them. Who is cut off within more than
//! a window may still lack rows that it does not ask for: a row is sent as it is, with its latest
//! time, and a table goes by key. v2 has no such gap.

use super::project::Followed;
use super::seeing::Heard;
use super::sight::{self, Seen};
use super::view::{Changed, ViewId};
use super::{Effect, Machine, Protocol, Slot};
use crate::record::{Role, Schema};
use crate::sql::Sql;
use crate::store::{self, Change};
use crate::wire::v1::Frame;
use crate::wire::write::separate;
use crate::{Code, Error, Key, Result, SyncServer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Bytes of a page for each entry of the change log that it looks at.
const ENTRY_BYTES: usize = 8;
/// What a client that syncs pays for each entry of the log that is read for it, as if it were sent
/// so many bytes.
const READ_BYTES: usize = 10;
/// Pages that are sent in a turn, 8 MiB by default. Those of a table go by key: what is smaller
/// than this comes to a client whole.
const WINDOW: usize = 64;

/// A call of an action.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) channel: String,
    pub(super) id: String,
}

/// Rows of a channel on their way to some connections, page by page. A connection has one at most
/// for each channel.
#[derive(Debug)]
pub(super) struct Backlog {
    slots: Vec<Slot>,
    /// The channel's place among the room's.
    place: usize,
    /// What they see of it.
    seen: Seen,
    at: At,
    /// The version that the log is sent from in the end, whatever of it was sent already.
    since: u64,
    /// Whether it is the answer to a sync and nothing was sent yet: the first frame says so, what
    /// follows is put to those rows.
    answers: bool,
}

/// Where the next page begins.
#[derive(Debug)]
enum At {
    /// Live rows, behind this key; then what has changed behind this version.
    Keys(Option<Key>, u64),
    /// What changed behind this version.
    Log(u64),
}

impl<S: SyncServer> Machine<S> {
    /// A client of v1 has connected: it may ask for any channel.
    pub(super) fn follow_all(&mut self, server: &S, sql: &dyn Sql, slot: Slot) -> Result<()> {
        let mut followed = Self::v1_channels();
        let places = followed.iter().filter_map(|followed| Self::place(&followed.channel).ok());
        let Some(seen) = self.see_all(server, sql, slot, places)? else { return Ok(()) };
        for (followed, seen) in followed.iter_mut().zip(&seen) {
            followed.view = sight::token(seen).map(str::to_owned);
        }
        let view = self.intern(&followed, &seen);
        followed.retain(|followed| followed.view.is_some());
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.view = Some(view);
            entry.connection.channels = followed;
        }
        self.dirty.insert(slot);
        Ok(())
    }

    /// All channels that v1 has, with all columns. Its clients know a row by its first column.
    pub(super) fn v1_channels() -> Vec<Followed> {
        let followed = |schema: &&Schema| Followed {
            channel: schema.table.to_owned(),
            columns: None,
            view: None,
        };
        Self::SCHEMAS.iter().filter(|schema| schema.key().len() == 1).map(followed).collect()
    }

    /// Sends what changed since a version: the rows of a call to its caller as the result, to the
    /// others as broadcasts.
    pub(super) fn flush_v1(
        &mut self,
        from: u64,
        changed: Option<&Changed>,
        heard: &Heard,
        call: Option<(Slot, Call, Result<()>)>,
    ) {
        let mut views: BTreeMap<ViewId, Vec<Slot>> = BTreeMap::new();
        for (slot, entry) in self.slots.open(Protocol::V1) {
            if let Some(view) = entry.view {
                views.entry(view).or_default().push(slot);
            }
        }
        let mut call = call;
        for (view, slots) in views {
            let call = call.take_if(|(slot, ..)| slots.contains(slot));
            self.flush_v1_view(from, (view, &slots), changed, heard, call);
        }
    }

    /// As [`flush_v1`](Self::flush_v1), for those who see the same.
    fn flush_v1_view(
        &mut self,
        from: u64,
        (id, others): (ViewId, &[Slot]),
        changed: Option<&Changed>,
        heard: &Heard,
        call: Option<(Slot, Call, Result<()>)>,
    ) {
        let view = self.views.get(id);
        let mut own = None;
        let mut rows: Vec<(usize, String)> = Vec::new();
        for (place, list) in changed.into_iter().flatten() {
            let followed = view.iter().find(|followed| followed.channel == *place);
            let (Some(schema), Some(followed)) = (Self::SCHEMAS.get(*place), followed) else {
                continue;
            };
            let mut text = String::new();
            for change in list {
                let heard = heard.get(&(id, *place)).and_then(|heard| heard.get(&change.version));
                match (&followed.seen, heard) {
                    (None, _) => add(&mut text, schema, change, change.row.as_deref()),
                    (_, Some(true)) => add(&mut text, schema, change, change.row.as_deref()),
                    (_, Some(false)) => add(&mut text, schema, change, None),
                    (_, None) => {}
                }
            }
            if followed.seen.is_none() || !text.is_empty() {
                rows.push((*place, text));
            }
        }
        if let Some((slot, Call { channel, id }, outcome)) = call {
            let frame = match &outcome {
                Ok(()) => {
                    own = Self::place(&channel).ok().map(|place| (slot, place));
                    let result = rows.iter().find(|(place, _)| own == Some((slot, *place)));
                    let rows = result.map_or("", |(_, rows)| rows);
                    Frame::Success { channel: &channel, id: &id, rows }.to_text()
                }
                Err(error) => {
                    Frame::Failure { channel: &channel, id: &id, message: error.message() }
                        .to_text()
                }
            };
            self.send(slot, frame);
        }
        for (place, rows) in &rows {
            let Some(schema) = Self::SCHEMAS.get(*place) else { continue };
            let mut slots = self.without_backlog(others, *place);
            slots.retain(|slot| own != Some((*slot, *place)));
            let update = Frame::Update { channel: schema.table, rows };
            self.send_all(slots, update.to_text());
        }
        if changed.is_none() {
            for place in 0..self.plans.len() {
                let Some(followed) = view.iter().find(|followed| followed.channel == place) else {
                    continue;
                };
                let (slots, at) = (self.without_backlog(others, place), At::Log(from));
                self.dirty.extend(&slots);
                let (seen, since) = (followed.seen.clone(), from);
                let backlog = Backlog { slots, place, seen, at, since, answers: false };
                self.backlogs.push_back(backlog);
            }
        }
    }

    /// A client asks for the rows of a channel that changed at a time or later, or for all.
    pub(super) fn sync_v1(
        &mut self,
        sql: &dyn Sql,
        slot: Slot,
        place: usize,
        from: Option<i64>,
    ) -> Result<()> {
        let view = self.slots.get(slot).and_then(|entry| entry.view);
        let view = view.map(|view| self.views.get(view));
        let followed = view.iter().flat_map(|view| view.iter()).find(|f| f.channel == place);
        let Some(seen) = followed.map(|followed| followed.seen.clone()) else {
            let table = Self::SCHEMAS.get(place).map_or("", |schema| schema.table);
            let message = format!(
                "`{table}` has a key of several columns, and clients of protocol 1 know a row by its \
                 first one: ask by protocol 2"
            );
            self.tell(slot, &Error::new(Code::UnknownChannel, message));
            return Ok(());
        };
        // Deletions from before were forgotten, or nobody knows which rows it saw then, also where it
        // sees all now: start over.
        let scoped = Self::SCHEMAS.get(place).is_some_and(|schema| schema.has_scope());
        let stale = from.is_some_and(|from| {
            scoped || seen.is_some() || self.meta.trimmed_to > 0 && from <= self.meta.trimmed_at
        });
        if stale {
            self.start_over(&[slot], place);
        }
        // One that is on its way begins anew: the answer holds what that would have sent, with
        // the deletions behind its version.
        let before = self.backlogs.iter_mut().find_map(|backlog| {
            let own = backlog.slots.iter().position(|other| *other == slot);
            let own = own.filter(|_| backlog.place == place)?;
            backlog.slots.swap_remove(own);
            Some(match backlog.at {
                _ if backlog.seen.is_some() => At::Keys(None, backlog.since),
                At::Log(version) => At::Log(version),
                At::Keys(_, floor) => At::Keys(None, floor),
            })
        });
        let since =
            |from| -> Result<u64> { Ok(store::last_before(sql, from)?.max(self.meta.trimmed_to)) };
        let at = match (from, before) {
            // It has dropped all rows, with those that are gone.
            _ if stale => At::Keys(None, self.flushed),
            (Some(from), None) => At::Log(since(from)?),
            (Some(from), Some(At::Log(version))) => At::Log(version.min(since(from)?)),
            (None, Some(At::Log(floor))) | (_, Some(At::Keys(_, floor))) => At::Keys(None, floor),
            (None, None) => At::Keys(None, self.flushed),
        };
        if let (At::Log(from), Some(entry)) = (&at, self.slots.get_mut(slot)) {
            // The log is read from there, whatever of it is this channel's.
            let entries = self.meta.log_size().min(self.flushed.saturating_sub(*from));
            let entries = usize::try_from(entries).unwrap_or(usize::MAX);
            entry.rate.charge(self.meta.now, entries.saturating_mul(READ_BYTES));
        }
        let since = match at {
            At::Keys(_, floor) => floor,
            At::Log(version) => version,
        };
        let slots = vec![slot];
        self.backlogs.push_back(Backlog { slots, place, seen, at, since, answers: true });
        self.dirty.insert(slot);
        Ok(())
    }

    /// Tells connections to drop all rows of a channel.
    fn start_over(&mut self, slots: &[Slot], place: usize) {
        if let Some(schema) = Self::SCHEMAS.get(place) {
            let frame = Frame::DeleteAll { channel: schema.table }.to_text();
            self.send_all(slots.to_vec(), frame);
        }
    }

    /// The connections that rows of any channel are on their way to.
    pub(super) fn with_backlog(&self) -> BTreeSet<Slot> {
        let mut slots = BTreeSet::new();
        slots.extend(self.backlogs.iter().flat_map(|backlog| &backlog.slots));
        slots
    }

    /// Those of some connections that no rows of a channel are on their way to.
    fn without_backlog(&self, slots: &[Slot], place: usize) -> Vec<Slot> {
        let mut with: BTreeSet<Slot> = BTreeSet::new();
        let those = self.backlogs.iter().filter(|backlog| backlog.place == place);
        with.extend(those.flat_map(|backlog| &backlog.slots));
        slots.iter().copied().filter(|slot| !with.contains(slot)).collect()
    }

    /// A connection is gone: nothing is for whoever has its slot next.
    pub(super) fn forget_backlogs(&mut self, slot: Slot) {
        for backlog in &mut self.backlogs {
            backlog.slots.retain(|other| *other != slot);
        }
    }

    /// Sends a window of what is on its way; the rest is for the next turn.
    pub(super) fn feed_v1(&mut self, sql: &dyn Sql) -> Result<()> {
        let (mut sent, window) = (0, WINDOW * self.limits.page_bytes);
        while sent < window
            && let Some(mut backlog) = self.backlogs.pop_front()
        {
            backlog.slots.retain(|slot| self.slots.get(*slot).is_some_and(|e| !e.closing));
            if backlog.slots.is_empty() {
                continue;
            }
            let (bytes, more) = match self.page_v1(sql, &mut backlog) {
                Err(error) if backlog.seen.is_some() => {
                    for slot in backlog.slots {
                        self.blind_one(slot, error.clone())?;
                    }
                    continue;
                }
                page => page?,
            };
            sent += bytes;
            if let [slot] = backlog.slots.as_slice()
                && let Some(entry) = self.slots.get_mut(*slot)
            {
                // Who syncs often pays for what it is sent.
                entry.rate.charge(self.meta.now, bytes);
            }
            if more {
                // One after the other, so that each comes in as few turns as may be.
                self.backlogs.push_front(backlog);
            } else {
                self.dirty.extend(&backlog.slots);
            }
        }
        if !self.backlogs.is_empty() {
            self.effect(Effect::Again);
        }
        Ok(())
    }

    /// Sends a page; how many bytes that was, and whether there may be more.
    fn page_v1(&mut self, sql: &dyn Sql, backlog: &mut Backlog) -> Result<(usize, bool)> {
        let Some(id) = self.plans.get(backlog.place).map(|plan| plan.id) else {
            return Ok((0, false));
        };
        let last = self.last_of(sql, id)?;
        let Some(plan) = self.plans.get(backlog.place) else { return Ok((0, false)) };
        let (plan, given) = sight::plan(&backlog.seen, plan);
        let (schema, page_bytes) = (plan.schema, self.limits.page_bytes);
        // What a row was since the beginning decides whether it is gone for them.
        let needs = |from: u64| if backlog.seen.is_some() { backlog.since } else { from };
        let (mut rows, mut gone) = (String::new(), String::new());
        let next = match &backlog.at {
            At::Log(from) if needs(*from) < self.meta.trimmed_to => {
                // What it lacks was forgotten meanwhile.
                self.start_over(&backlog.slots, backlog.place);
                (backlog.at, backlog.since) = (At::Keys(None, self.flushed), self.flushed);
                return Ok((0, true));
            }
            At::Keys(after, floor) => {
                let page = plan.page(sql, given, after.as_ref())?;
                rows = match schema.role(Role::DeletedAt) {
                    Some(_) => page.rows,
                    None => with_null(&page.rows)?,
                };
                match page.next {
                    Some(key) => Some(At::Keys(Some(key), *floor)),
                    None if *floor < self.flushed => Some(At::Log(*floor)),
                    None => None,
                }
            }
            At::Log(from) if last <= *from => None,
            At::Log(from) => {
                let entries = u32::try_from(page_bytes / ENTRY_BYTES).unwrap_or(u32::MAX).max(1);
                let mut end = store::next_versions(sql, plan.id, *from, entries)?;
                let versions = (backlog.since, *from, end.unwrap_or(*from));
                plan.changes(sql, given, versions, &mut |change| {
                    let list = if change.gone { &mut gone } else { &mut rows };
                    add(list, schema, &change, change.row.as_deref());
                    if rows.len() + gone.len() > page_bytes {
                        end = Some(change.version);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
                end.map(At::Log)
            }
        };
        let channel = schema.table;
        let mut frames = Vec::new();
        if backlog.answers {
            frames.push(Frame::Sync { channel, rows: &rows }.to_text());
        } else if !rows.is_empty() {
            frames.push(Frame::Update { channel, rows: &rows }.to_text());
        }
        // A broadcast is what makes a TypeScript client drop them.
        if !gone.is_empty() {
            frames.push(Frame::Update { channel, rows: &gone }.to_text());
        }
        backlog.answers = false;
        let bytes = frames.iter().map(String::len).sum();
        for frame in frames {
            self.send_all(backlog.slots.clone(), frame);
        }
        let more = next.is_some();
        if let Some(next) = next {
            backlog.at = next;
        }
        Ok((bytes, more))
    }
}

/// Adds a row as v1 carries it: its last value says whether it is deleted. Without the row it was
/// deleted for good.
fn add(rows: &mut String, schema: &Schema, change: &Change, row: Option<&str>) {
    separate(rows);
    let soft = schema.role(Role::DeletedAt).is_some();
    match row {
        Some(row) if soft => rows.push_str(row),
        Some(row) => {
            rows.push_str(row.strip_suffix(']').unwrap_or(row));
            rows.push_str(",null]");
        }
        None => {
            let nulls = schema.columns.len() - if soft { 2 } else { 1 };
            let nulls = ",null".repeat(nulls);
            rows.push_str(&format!("[{}{nulls},{}]", change.key, change.at));
        }
    }
}

/// Live rows of a record without `deleted_at`, with a null at the end of each.
fn with_null(rows: &str) -> Result<String> {
    use serde_json::value::RawValue;
    let rows = format!("[{rows}]");
    let rows: Vec<&RawValue> = serde_json::from_str(&rows).map_err(super::project::broken)?;
    let mut out = String::new();
    for row in rows {
        separate(&mut out);
        out.push_str(row.get().strip_suffix(']').unwrap_or_default());
        out.push_str(",null]");
    }
    Ok(out)
}
