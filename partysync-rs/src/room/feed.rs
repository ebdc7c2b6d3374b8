//! What a connection lacks, sent in pages as it reads: a snapshot by key and then the change log,
//! or the change log alone. Never more than a window is under way, and never more than a page in
//! memory; connections that come back with the same versions share the pages.
//!
//! A snapshot takes as long as its client reads, and rows change meanwhile. What changed since it
//! began follows it from the log, and all of it takes effect with the last page: the client never
//! shows a mixture.

use super::view::{self, ChannelView, Columns};
use super::{Machine, Slot, project, sight};
use crate::sql::Sql;
use crate::store::{self, Plan};
use crate::wire::pages::{CatchUpPage, Changes, PatchPage, Rows};
use crate::{Key, Result, SyncServer, wire};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Bytes of a page for each entry of the change log that it looks at: of a row that is there
/// several times only the last counts.
const ENTRY_BYTES: usize = 8;
/// A delta of fewer rows is not worth counting the table for.
const SMALL: u64 = 1_000;
/// Bytes of pages that are kept for others.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Where a channel's pages come from next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// Live rows, behind this key.
    Keys(Option<Key>),
    /// What changed behind this version.
    Log(u64),
}

/// One channel that is fed.
#[derive(Debug)]
struct Channel {
    view: ChannelView,
    /// The version that the client's rows are of; `None` for a snapshot.
    from: Option<u64>,
    at: At,
    /// The version of the snapshot's first page, or that of a client that has rows: what changed
    /// behind it follows from the log.
    floor: u64,
    sent: u64,
    total: u64,
    /// The last page, which goes out when it is known whether it is the last of all.
    held: Option<Rc<FeedPage>>,
}

/// What a connection lacks.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The version that a live connection has, which is given a patch in pages; `None` after
    /// `hello`.
    live: Option<u64>,
    /// Frames of that patch that were sent.
    pages: u64,
    channels: Vec<Channel>,
}

/// A page, for all connections with the same columns.
#[derive(Debug)]
pub(crate) struct FeedPage {
    rows: Rows,
    count: u64,
    next: At,
    /// The room's version when it was read.
    version: u64,
}

impl Feed {
    /// What follows a `hello`.
    pub(crate) fn greeting() -> Self {
        Self { live: None, pages: 0, channels: Vec::new() }
    }

    /// A live connection that has this version, and lacks more than one patch holds.
    pub(crate) fn behind(view: &[ChannelView], version: u64) -> Self {
        let channel = |view: &ChannelView| Channel {
            view: view.clone(),
            from: Some(version),
            at: At::Log(version),
            floor: version,
            sent: 0,
            total: 0,
            held: None,
        };
        Self { live: Some(version), pages: 0, channels: view.iter().map(channel).collect() }
    }

    /// Whether it follows a `hello`.
    pub(crate) fn is_greeting(&self) -> bool {
        self.live.is_none()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Adds a channel, whose last change is `last`, from a version or from the beginning. A delta that is larger than the
    /// table becomes a snapshot.
    pub(crate) fn follow(
        &mut self,
        sql: &dyn Sql,
        (plan, cache): (&Plan, &mut Cache),
        view: &ChannelView,
        (since, last): (Option<u64>, u64),
        version: u64,
    ) -> Result<()> {
        let (plan, given) = sight::plan(&view.seen, plan);
        let delta = match since {
            // Without a look at the log where it has nothing for the channel.
            Some(since) if since < last => plan.changed(sql, given, since, version)?,
            _ => 0,
        };
        let rows = match since.is_none() || delta > SMALL {
            true if given.is_some() => plan.total(sql, given)?,
            true => cache.total(sql, view.channel, plan, version)?,
            false => 0,
        };
        let since = since.filter(|_| delta <= rows.max(SMALL));
        self.channels.push(Channel {
            view: view.clone(),
            from: since,
            at: since.map_or(At::Keys(None), At::Log),
            floor: since.unwrap_or(version),
            sent: 0,
            total: if since.is_some() { delta } else { rows },
            held: None,
        });
        Ok(())
    }

    /// The lowest version of the log that it still needs.
    fn needs(&self) -> u64 {
        let channel = |channel: &Channel| match channel.at {
            At::Log(version) if channel.view.seen.is_none() => version,
            // What a row was since then decides whether it is gone.
            At::Keys(_) | At::Log(_) => channel.floor,
        };
        self.channels.iter().map(channel).min().unwrap_or(u64::MAX)
    }
}

/// Pages that others will want: after a deployment or a bulk change, many connections lack the
/// same.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pages: BTreeMap<(usize, Columns, At), Rc<FeedPage>>,
    bytes: usize,
    /// How many live rows each channel has, at a version.
    totals: BTreeMap<usize, (u64, u64)>,
}

impl Cache {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many live rows a channel has.
    fn total(&mut self, sql: &dyn Sql, place: usize, plan: &Plan, version: u64) -> Result<u64> {
        match self.totals.get(&place) {
            Some((at, total)) if *at == version => Ok(*total),
            _ => {
                let total = plan.total(sql, None)?;
                self.totals.insert(place, (version, total));
                Ok(total)
            }
        }
    }

    fn keep(&mut self, key: (usize, Columns, At), page: &Rc<FeedPage>) {
        if self.bytes > CACHE_BYTES {
            self.clear();
        }
        self.bytes += page.rows.len() + 64;
        self.pages.insert(key, page.clone());
    }
}

impl<S: SyncServer> Machine<S> {
    /// Sends a connection more of what it lacks, as far as it has read what it was sent.
    pub(super) fn feed(&mut self, sql: &dyn Sql, slot: Slot) -> Result<()> {
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else {
            return Ok(());
        };
        let Some(mut feed) = entry.feed.take() else { return Ok(()) };
        self.dirty.insert(slot);
        if feed.needs() < self.meta.trimmed_to {
            // It has read so slowly that what it lacks was forgotten.
            self.close(slot, wire::CLOSE_RESTART, "restart");
            return Ok(());
        }
        let (to, window) = (self.flushed, self.window());
        let behind =
            |channel: &&mut Channel| !matches!(channel.at, At::Log(version) if version >= to);
        let Feed { live, pages, channels } = &mut feed;
        while let Some(channel) = channels.iter_mut().find(behind) {
            if self.slots.get(slot).is_none_or(|entry| entry.unread >= window) {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.feed = Some(feed);
                }
                return Ok(());
            }
            let page = match self.page(sql, channel, to) {
                Err(error) if channel.view.seen.is_some() => return self.blind_one(slot, error),
                page => page?,
            };
            if let (At::Keys(_), At::Log(_)) = (&channel.at, &page.next) {
                let mutated = crate::__mutated("floor");
                channel.at = At::Log(if mutated { to } else { channel.floor });
            } else {
                channel.at = page.next.clone();
            }
            if page.count == 0 {
                continue;
            }
            if let Some(held) = channel.held.replace(page) {
                channel.sent += held.count;
                let text = frame(*live, *pages, channel, &held.rows, to, true);
                *pages += 1;
                self.send(slot, text);
            }
        }
        self.finish_feed(slot, feed, to);
        Ok(())
    }

    /// The connection lacks nothing more: the last pages say so, and it is live.
    fn finish_feed(&mut self, slot: Slot, feed: Feed, to: u64) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if let Some(from) = feed.live {
            let acks = entry.take_acks();
            self.acked.remove(&slot);
            let (mut changes, mut size, mut page) = (Changes::default(), 0, feed.pages);
            for channel in &feed.channels {
                let Some(held) = &channel.held else { continue };
                if size > 0 && size + held.rows.len() > 2 * self.limits.page_bytes {
                    let changes = std::mem::take(&mut changes);
                    let frame =
                        PatchPage { from, to, changes: &changes, acks: &[], page, more: true };
                    let text = frame.to_text();
                    page += 1;
                    self.send(slot, text);
                    size = 0;
                }
                size += held.rows.len();
                changes.add(channel.view.name, &held.rows);
            }
            let text =
                PatchPage { from, to, changes: &changes, acks: &acks, page, more: false }.to_text();
            self.send(slot, text);
            return;
        }
        for mut channel in feed.channels {
            let empty = Rows::default();
            let held = channel.held.take();
            let (rows, count) = held.as_ref().map_or((&empty, 0), |held| (&held.rows, held.count));
            channel.sent += count;
            channel.total = channel.sent;
            let text = frame(None, 0, &channel, rows, to, false);
            self.send(slot, text);
        }
        // Answers that came meanwhile go with the next patch, which is from here.
        if self.slots.get(slot).is_some_and(|entry| !entry.acks.is_empty()) {
            self.acked.insert(slot);
        }
    }

    /// The channel's next page. Those of all rows are shared; of views there are many.
    fn page(&mut self, sql: &dyn Sql, channel: &Channel, to: u64) -> Result<Rc<FeedPage>> {
        let ChannelView { channel: place, columns, seen, .. } = &channel.view;
        let key = (*place, columns.clone(), channel.at.clone());
        if seen.is_none()
            && let Some(page) = self.cache.pages.get(&key)
            && (page.version >= channel.floor || matches!(channel.at, At::Log(_)))
        {
            return Ok(page.clone());
        }
        let id = self.plans.get(*place).map(|plan| plan.id);
        let last = id.map_or(Ok(0), |id| self.last_of(sql, id))?;
        let Some(plan) = self.plans.get(*place) else {
            let (rows, next) = (Rows::default(), At::Log(to));
            return Ok(Rc::new(FeedPage { rows, count: 0, next, version: to }));
        };
        let (plan, given) = sight::plan(seen, plan);
        let page_bytes = self.limits.page_bytes;
        let entries = u32::try_from(page_bytes / ENTRY_BYTES).unwrap_or(u32::MAX).max(1);
        let page = match &channel.at {
            At::Keys(after) => {
                let page = plan.page(sql, given, after.as_ref())?;
                let rows = match columns {
                    Some(columns) => project::rows(&page.rows, columns)?,
                    None => page.rows,
                };
                let next = match page.next {
                    Some(next) => At::Keys(Some(next)),
                    None => At::Log(to),
                };
                let rows = Rows { rows, gone: String::new() };
                FeedPage { rows, count: page.count, next, version: to }
            }
            At::Log(from) if last <= *from => {
                let rows = Rows::default();
                FeedPage { rows, count: 0, next: At::Log(to), version: to }
            }
            At::Log(from) => {
                let next = store::next_versions(sql, plan.id, *from, entries)?;
                let last = next.unwrap_or(to);
                let (mut end, mut rows, mut count, mut failed) = (last, Rows::default(), 0, None);
                let since = if crate::__mutated("visible_since") { *from } else { channel.floor };
                plan.changes(sql, given, (since, *from, last), &mut |change| {
                    if let Err(error) = view::add(&mut rows, &change, !change.gone, columns) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                    count += 1;
                    if rows.len() > page_bytes {
                        end = change.version;
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
                if let Some(error) = failed {
                    return Err(error);
                }
                let next = At::Log(if next.is_none() { to } else { end });
                FeedPage { rows, count, next, version: to }
            }
        };
        let page = Rc::new(page);
        if seen.is_none() {
            self.cache.keep(key, &page);
        }
        Ok(page)
    }
}

fn frame(
    live: Option<u64>,
    page: u64,
    channel: &Channel,
    rows: &Rows,
    to: u64,
    more: bool,
) -> String {
    let name = channel.view.name;
    match live {
        Some(from) => {
            let mut changes = Changes::default();
            changes.add(name, rows);
            PatchPage { from, to, changes: &changes, acks: &[], page, more }.to_text()
        }
        None => {
            let Channel { from, sent, total, .. } = *channel;
            let view = sight::token(&channel.view.seen).filter(|_| from.is_none());
            CatchUpPage { channel: name, from, view, to, rows, sent, total, more }.to_text()
        }
    }
}
