//! What goes out after a commit: patches and answers (v2), results and broadcasts (v1). A patch is
//! written once for all connections that follow the same.

use super::feed::Feed;
use super::view::{self, Changed, ViewId};
use super::{Machine, Protocol, Slot};
use crate::record::{Role, Schema};
use crate::sql::Sql;
use crate::store::{self, Change, Plan};
use crate::wire::pages::PatchPage;
use crate::wire::v1::Frame;
use crate::wire::write::separate;
use crate::{Result, SyncServer, Timestamp};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Bytes of a page for each entry of the change log that a patch holds; it holds two pages of
/// rows at most. More is sent as each connection reads it.
const ENTRY_BYTES: usize = 64;

/// A v1 call.
#[derive(Debug)]
pub(super) struct V1Call {
    pub(super) channel: String,
    pub(super) id: String,
}

impl<S: SyncServer> Machine<S> {
    /// Sends every connection what changed since the last flush, and answers with it. `call` is a
    /// v1 call with its outcome, whose changes these are.
    pub(super) fn flush(
        &mut self,
        sql: &dyn Sql,
        call: Option<(Slot, V1Call, Result<()>)>,
    ) -> Result<()> {
        let from = self.flushed;
        let (to, changed) = match self.written.rows.take() {
            true => self.load(sql, from)?,
            false => (from, Some(Changed::new())),
        };
        if to == from && self.acked.is_empty() && call.is_none() {
            return Ok(());
        }
        (self.meta.version, self.flushed) = (to, to);
        if to > from {
            self.plan_trim();
            self.plan_compaction();
        }
        self.flush_v1(sql, from, changed.as_ref(), call)?;
        self.flush_v2(from, changed.as_ref())
    }

    /// The version now, and what changed, if it fits into a patch.
    fn load(&self, sql: &dyn Sql, from: u64) -> Result<(u64, Option<Changed>)> {
        let (most, page_bytes) = (self.limits.page_bytes / ENTRY_BYTES, self.limits.page_bytes);
        let (mut bytes, mut rows, mut version) = (0, 0, from);
        let mut read = |plan: &Plan, to| -> Result<_> {
            let mut list = Vec::new();
            plan.changes(sql, from, to, &mut |change| {
                bytes += change.row.as_ref().map_or(0, String::len) + change.key.len();
                rows += 1;
                version = version.max(change.version);
                list.push(change);
                if bytes > 2 * page_bytes || rows > most {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok((bytes <= 2 * page_bytes && rows <= most).then_some(list))
        };
        // With one table nobody need be asked which have changed.
        if let [plan] = self.plans.as_slice()
            && self.slots.len() > 0
            && let Some(list) = read(plan, u64::MAX)?
        {
            return Ok((version, Some(vec![(0, list)])));
        }
        let unsent = store::unsent(sql, from)?;
        let mut changed = Changed::new();
        if unsent.entries > most as u64 {
            return Ok((unsent.to, None));
        }
        for (place, plan) in self.plans.iter().enumerate() {
            if self.slots.len() == 0 || !unsent.channels.contains(&plan.id) {
                continue;
            }
            let Some(list) = read(plan, unsent.to)? else { return Ok((unsent.to, None)) };
            changed.push((place, list));
        }
        Ok((unsent.to, Some(changed)))
    }

    fn flush_v2(&mut self, from: u64, changed: Option<&Changed>) -> Result<()> {
        let (to, limit) = (self.flushed, self.unread_limit());
        let mut groups: BTreeMap<ViewId, Vec<Slot>> = BTreeMap::new();
        let mut behind = Vec::new();
        for (slot, entry) in self.slots.open(Protocol::V2) {
            // Before `hello` it is sent nothing; who is fed gets this from the log.
            let (Some(view), None) = (entry.view, &entry.feed) else { continue };
            if to > from && (changed.is_none() || entry.unread > limit) {
                behind.push((slot, view));
            } else if to > from || self.acked.contains(&slot) {
                groups.entry(view).or_default().push(slot);
            }
        }
        for (slot, view) in behind {
            let view = self.views.get(view);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.feed = Some(Feed::behind(&view, from));
            }
            self.hungry.insert(slot);
            self.acked.remove(&slot);
        }
        let nothing = Changed::new();
        let changed = changed.unwrap_or(&nothing);
        for (view, slots) in groups {
            let view = self.views.get(view);
            let changes = view::render(&view, changed)?;
            let patch = |acks: &[_]| {
                PatchPage { from, to, changes: &changes, acks, page: 0, more: false }.to_text()
            };
            let (own, shared): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| self.acked.contains(slot));
            for slot in own {
                self.acked.remove(&slot);
                let Some(entry) = self.slots.get_mut(slot) else { continue };
                let acks = std::mem::take(&mut entry.acks);
                self.send(slot, patch(&acks));
            }
            if !shared.is_empty() {
                self.send_all(shared, patch(&[]));
            }
        }
        Ok(())
    }

    fn flush_v1(
        &mut self,
        sql: &dyn Sql,
        from: u64,
        changed: Option<&Changed>,
        call: Option<(Slot, V1Call, Result<()>)>,
    ) -> Result<()> {
        let others: Vec<Slot> = self.slots.open(Protocol::V1).map(|(slot, _)| slot).collect();
        if others.is_empty() {
            return Ok(());
        }
        let mut own = None;
        let mut rows: Vec<(usize, String)> = Vec::new();
        for (place, list) in changed.into_iter().flatten() {
            if let Some(schema) = Self::SCHEMAS.get(*place) {
                rows.push((*place, v1_rows(schema, list.iter())));
            }
        }
        if let Some((slot, V1Call { channel, id }, outcome)) = call {
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
            let slots = others.iter().copied().filter(|slot| own != Some((*slot, *place)));
            let update = Frame::Update { channel: schema.table, rows };
            self.send_all(slots.collect(), update.to_text());
        }
        if changed.is_none() {
            self.broadcast_v1(sql, from, &others)?;
        }
        Ok(())
    }

    /// Sends v1 connections a change that is larger than a patch, page by page.
    fn broadcast_v1(&mut self, sql: &dyn Sql, from: u64, slots: &[Slot]) -> Result<()> {
        let page_bytes = self.limits.page_bytes;
        let mut frames = Vec::new();
        for plan in &self.plans {
            pages(
                from,
                page_bytes,
                |from, rows| {
                    let mut end = None;
                    plan.changes(sql, from, self.flushed, &mut |change| {
                        end = Some(change.version);
                        separate(rows);
                        rows.push_str(&v1_row(plan.schema, &change));
                        match rows.len() > page_bytes {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    })?;
                    Ok(end)
                },
                |rows| {
                    frames.push(Frame::Update { channel: plan.schema.table, rows }.to_text());
                },
            )?;
        }
        for frame in frames {
            self.send_all(slots.to_vec(), frame);
        }
        Ok(())
    }

    /// The answer to a v1 sync: live rows first, and then the deletions as a broadcast, which is
    /// what makes a TypeScript client drop them. What is large comes in several frames: the rows
    /// behind the first page as broadcasts, which the client puts to those it has.
    pub(super) fn sync_v1(
        &mut self,
        sql: &dyn Sql,
        slot: Slot,
        place: usize,
        from: Option<i64>,
    ) -> Result<()> {
        let Some(plan) = self.plans.get(place) else { return Ok(()) };
        let page_bytes = self.limits.page_bytes;
        let (schema, channel) = (plan.schema, plan.schema.table);
        // Deletions from before were forgotten: start over.
        let stale =
            from.is_some_and(|from| self.meta.trimmed_to > 0 && from <= self.meta.trimmed_at);
        let mut frames = Vec::new();
        if stale {
            frames.push(Frame::DeleteAll { channel }.to_text());
        }
        let (mut first, mut gone) = (true, String::new());
        let mut page = |rows: &str| {
            let update = Frame::Update { channel, rows };
            let frame = if first { Frame::Sync { channel, rows } } else { update };
            first = false;
            frames.push(frame.to_text());
        };
        match from.filter(|_| !stale) {
            None => {
                let soft = schema.role(Role::DeletedAt).is_some();
                let mut after = None;
                loop {
                    let mut read = plan.page(sql, after.as_ref())?;
                    if read.count > 0 || after.is_none() {
                        if !soft {
                            read.rows = with_null(&read.rows)?;
                        }
                        page(&read.rows);
                    }
                    after = read.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            Some(from) => {
                let mut at = store::last_before(sql, from)?;
                loop {
                    let (mut rows, mut end) = (String::new(), None);
                    plan.changes(sql, at, self.flushed, &mut |change| {
                        end = Some(change.version);
                        let list = if change.gone { &mut gone } else { &mut rows };
                        separate(list);
                        list.push_str(&v1_row(schema, &change));
                        match rows.len() > page_bytes {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    })?;
                    if !rows.is_empty() || at == 0 || end.is_none() {
                        page(&rows);
                    }
                    match end.filter(|_| rows.len() > page_bytes) {
                        Some(end) => at = end,
                        None => break,
                    }
                }
            }
        }
        if !gone.is_empty() {
            frames.push(Frame::Update { channel, rows: &gone }.to_text());
        }
        // The protocol has no pages that are asked for: who syncs often pays for what it is sent.
        let (bytes, now) = (frames.iter().map(String::len).sum(), self.meta.now);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.rate.charge(now, bytes);
        }
        for frame in frames {
            self.send(slot, frame);
        }
        Ok(())
    }

    /// Sets a time for forgetting old deletions, if there is none yet.
    pub(super) fn plan_trim(&mut self) {
        let at = self.meta.now.plus_millis(self.limits.retention_ms);
        self.meta.trim_at.get_or_insert(at);
    }

    /// The change log has grown so much that it is to be compacted soon.
    fn plan_compaction(&mut self) {
        const SOON: i64 = 60_000;
        if store::compaction_is_due(&self.meta) {
            let soon: Timestamp = self.meta.now.plus_millis(SOON);
            self.meta.trim_at = Some(self.meta.trim_at.map_or(soon, |at| at.min(soon)));
        }
    }
}

/// Reads pages behind a version until one is not full.
fn pages(
    mut from: u64,
    page_bytes: usize,
    mut read: impl FnMut(u64, &mut String) -> Result<Option<u64>>,
    mut page: impl FnMut(&str),
) -> Result<()> {
    loop {
        let mut rows = String::new();
        let end = read(from, &mut rows)?;
        if !rows.is_empty() {
            page(&rows);
        }
        match end.filter(|_| rows.len() > page_bytes) {
            Some(end) => from = end,
            None => return Ok(()),
        }
    }
}

/// A row as v1 carries it: its last value says whether it is deleted.
fn v1_row(schema: &Schema, change: &Change) -> String {
    let soft = schema.role(Role::DeletedAt).is_some();
    match &change.row {
        Some(row) if soft => row.clone(),
        Some(row) => format!("{},null]", row.strip_suffix(']').unwrap_or(row)),
        None => {
            let nulls = schema.columns.len() - if soft { 2 } else { 1 };
            format!("[{}{},{}]", change.key, ",null".repeat(nulls), change.at)
        }
    }
}

/// Rows as v1 carries them, with commas between them.
fn v1_rows<'c>(schema: &Schema, changes: impl Iterator<Item = &'c Change>) -> String {
    let mut rows = String::new();
    for change in changes {
        separate(&mut rows);
        rows.push_str(&v1_row(schema, change));
    }
    rows
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
