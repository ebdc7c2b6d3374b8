//! What goes out after a commit: a patch is written once for all connections that follow the same,
//! and has the answers to each one's actions.

use super::feed::Feed;
use super::seeing::Heard;
use super::v1::Call;
use super::view::{self, Changed, ViewId};
use super::{Machine, Protocol, Slot};
use crate::sql::Sql;
use crate::store;
use crate::wire::pages::PatchPage;
use crate::{Result, SyncServer};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Bytes of a page for each entry of the change log that a patch holds; it holds two pages of
/// rows at most. More is sent as each connection reads it.
const ENTRY_BYTES: usize = 32;

impl<S: SyncServer> Machine<S> {
    /// Sends every connection what changed since the last flush, and answers with it. `call` is a
    /// v1 call with its outcome, whose changes these are.
    pub(super) fn flush(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        call: Option<(Slot, Call, Result<()>)>,
    ) -> Result<()> {
        let from = self.flushed;
        let (to, changed) = match self.written.rows.take() {
            true => self.load(sql, from)?,
            false => (from, Some(Changed::new())),
        };
        if std::mem::take(&mut self.review_due) {
            self.review(server, sql)?;
        }
        if to == from && self.acked.is_empty() && call.is_none() {
            return Ok(());
        }
        (self.meta.version, self.flushed) = (to, to);
        if to > from {
            self.plan_trim();
            self.plan_compaction();
        }
        let heard = match &changed {
            Some(changed) if to > from => self.heard(sql, (from, to), changed)?,
            _ => Heard::new(),
        };
        self.flush_v1(from, changed.as_ref(), &heard, call);
        self.flush_v2(from, changed.as_ref(), &heard)
    }

    /// The version now, and what changed, if it fits into a patch.
    fn load(&mut self, sql: &dyn Sql, from: u64) -> Result<(u64, Option<Changed>)> {
        let page_bytes = self.limits.page_bytes;
        let unsent = store::unsent(sql, from)?;
        for (channel, last) in &unsent.channels {
            self.lasts.insert(*channel, *last);
            let place = self.plans.iter().position(|plan| plan.id == *channel);
            self.review_due |= place.is_some_and(|place| self.rights.contains(&place));
        }
        let mut changed = Changed::new();
        if self.slots.len() == 0 {
            return Ok((unsent.to, Some(changed)));
        }
        if unsent.entries > (page_bytes / ENTRY_BYTES) as u64 {
            return Ok((unsent.to, None));
        }
        let mut bytes = 0;
        for (place, plan) in self.plans.iter().enumerate() {
            if !unsent.channels.iter().any(|(channel, _)| *channel == plan.id) {
                continue;
            }
            let mut list = Vec::new();
            plan.changes(sql, None, (from, from, unsent.to), &mut |change| {
                bytes += change.row.as_ref().map_or(0, String::len) + change.key.len();
                list.push(change);
                if bytes > 2 * page_bytes {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if bytes > 2 * page_bytes {
                return Ok((unsent.to, None));
            }
            changed.push((place, list));
        }
        Ok((unsent.to, Some(changed)))
    }

    fn flush_v2(&mut self, from: u64, changed: Option<&Changed>, heard: &Heard) -> Result<()> {
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
        for (id, slots) in groups {
            let view = self.views.get(id);
            let changes = view::render((id, &view), changed, heard)?;
            let patch = |acks: &[_]| {
                PatchPage { from, to, changes: &changes, acks, page: 0, more: false }.to_text()
            };
            let (own, shared): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| self.acked.contains(slot));
            for slot in own {
                self.acked.remove(&slot);
                let Some(entry) = self.slots.get_mut(slot) else { continue };
                let acks = entry.take_acks();
                self.send(slot, patch(&acks));
            }
            if !shared.is_empty() {
                self.send_all(shared, patch(&[]));
            }
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
        if self.meta.compact_at.is_none() && store::compaction_is_due(&self.meta, &self.limits) {
            self.meta.compact_at = Some(self.meta.now.plus_millis(SOON));
        }
    }
}
