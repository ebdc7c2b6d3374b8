//! The queues of pending actions of a replica: its own, those that it has adopted and those of
//! other living clients.

use super::pending::{Patience, Pending, PushLimits, Queue, Whose};
use super::{Changes, Replica, merge};
use crate::store::{Outbox, SavedAction, Write};
use partysync::wire::v2::Push;
use partysync::{Action, Error, Result, Timestamp};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An action of this client as it was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) seq: u64,
    pub(crate) saved: SavedAction,
    pub(crate) changes: Changes,
}

impl<A: Action> Replica<A> {
    /// The client's id.
    #[must_use]
    pub fn client(&self) -> &str {
        self.own().map_or("", |own| &own.client)
    }

    /// How many actions have no answer yet; with those that other clients left behind.
    #[must_use]
    pub fn pending(&self) -> usize {
        let mine = self.queues.iter().filter(|queue| queue.whose != Whose::Other);
        mine.map(|queue| queue.pending.len()).sum()
    }

    /// How many actions of other living clients of the same place are shown.
    #[must_use]
    pub fn pending_elsewhere(&self) -> usize {
        let others = self.queues.iter().filter(|queue| queue.whose == Whose::Other);
        others.map(|queue| queue.pending.len()).sum()
    }

    /// The actions without an answer, whoever has made them.
    #[cfg(feature = "devtools")]
    pub(crate) fn inspect_pending(&self) -> Vec<crate::devtools::Pending> {
        let of = |queue: &Queue<A>| {
            let elsewhere = queue.whose == Whose::Other;
            queue.pending.iter().map(|pending| pending.inspect(elsewhere)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    fn own(&self) -> Option<&Queue<A>> {
        self.queues.last()
    }

    /// Makes an action: shown at once, to be pushed.
    pub(crate) fn act(&mut self, action: A, json: Json, now: Timestamp) -> Made {
        let seq = self.next_seq;
        let (pending, changes) = self.show(Pending::new(seq, action, json, now));
        let saved = pending.saved();
        self.next_seq += 1;
        if let Some(own) = self.queues.last_mut() {
            own.pending.push_back(pending);
            let (client, action) = (own.client.clone(), saved.clone());
            if !partysync::__mutated("outbox") {
                self.writes.push(Write::Act { client, seq, action });
            }
        }
        Made { seq, saved, changes }
    }

    fn place(&self, client: &str) -> Option<usize> {
        self.queues.iter().position(|queue| *queue.client == *client)
    }

    /// Takes over what a client that is gone left behind. What it was seen to have made as long
    /// as it lived is replaced by what it has stored.
    pub(crate) fn adopt(&mut self, outbox: &Outbox) -> (Changes, Vec<Error>) {
        let last = outbox.pending.last_key_value().map(|(seq, _)| *seq);
        let done = |(client, answered): &(Arc<str>, u64)| {
            **client == *outbox.client && last.is_some_and(|last| last <= *answered)
        };
        if self.has_taken(&outbox.client) || self.emptied.iter().any(done) {
            // It is there already, or was.
            return (Changes::new(), Vec::new());
        }
        let mut changes = Changes::new();
        let mut place = self.queues.len().saturating_sub(1);
        if let Some(shown) = self.place(&outbox.client)
            && let Some(queue) = self.queues.get_mut(shown)
        {
            // What was committed is shown until the rows hold it.
            let stays =
                |seq: &u64| queue.committed.contains_key(seq) && !outbox.pending.contains_key(seq);
            let seqs: Vec<_> = queue.pending.iter().map(|pending| pending.seq).collect();
            let seqs: Vec<_> = seqs.into_iter().filter(|seq| !stays(seq)).collect();
            queue.committed.retain(|seq, _| !seqs.contains(seq));
            let gone: Vec<_> = seqs.into_iter().filter_map(|seq| queue.take(seq)).collect();
            // What came later was committed all the same, as what a store that failed lacks.
            let later = |first: &Pending<A>| last.is_none_or(|last| first.seq < last);
            place = shown + usize::from(queue.pending.front().is_some_and(later));
            changes = self.let_go(gone);
        }
        if outbox.pending.is_empty() {
            return (changes, Vec::new());
        }
        let place = place.min(self.queues.len().saturating_sub(1));
        let (queue, errors) = Queue::load(outbox, Whose::Adopted);
        let mut all = changes;
        merge(&mut all, self.show_queue(place, queue));
        (all, errors)
    }

    /// What others left behind is not this client's to push any more: it is shown as theirs.
    pub(crate) fn hand_back(&mut self) -> Changes {
        while let Some(place) = self.queues.iter().position(|q| q.whose == Whose::Adopted) {
            let mut queue = self.queues.remove(place);
            queue.whose = Whose::Other;
            // What of it was committed before it was adopted is in a queue of its own. That may be
            // what came later: a store that failed has the first of it only.
            match self.other(&queue.client) {
                Some(committed) => {
                    queue.pending.into_iter().for_each(|pending| committed.put(pending));
                    committed.committed.append(&mut queue.committed);
                }
                None => self.queues.insert(place, queue),
            }
        }
        self.replay()
    }

    /// Shows what another living client has made; errors in it are that client's to tell.
    pub(crate) fn show_other(&mut self, outbox: &Outbox) -> Changes {
        if let Some(queue) = self.other(&outbox.client) {
            // What was told of it until now may not be where it began.
            let first = queue.pending.front().map_or(0, |first| first.seq);
            let mut missing = Outbox::new(outbox.client.as_str());
            missing.pending.extend(outbox.pending.range(..first).map(|(s, a)| (*s, a.clone())));
            if missing.pending.is_empty() {
                return Changes::new();
            }
            let mut all = Queue::load(&missing, Whose::Other).0.pending;
            all.append(&mut queue.pending);
            queue.pending = all;
            return self.replay();
        }
        if self.place(&outbox.client).is_some() || outbox.pending.is_empty() {
            return Changes::new();
        }
        let place = self.queues.len().saturating_sub(1);
        self.show_queue(place, Queue::load(outbox, Whose::Other).0)
    }

    /// Another living client has made an action.
    pub(crate) fn other_acted(&mut self, client: &str, seq: u64, action: &SavedAction) -> Changes {
        let emptied = self.emptied.iter().any(|(emptied, _)| **emptied == *client);
        if emptied || self.has_taken(client) {
            // It is gone: what it left behind is all that there is.
            return Changes::new();
        }
        let Some(place) = self.place(client) else {
            let mut outbox = Outbox::new(client);
            outbox.pending.insert(seq, action.clone());
            return self.show_other(&outbox);
        };
        let last = self.queues.get(place).and_then(|queue| queue.pending.back());
        if last.is_some_and(|last| last.seq >= seq) {
            return Changes::new();
        }
        let rank = self.queues.get(place).map_or(0, |queue| queue.rank);
        let (pending, changes) = self.show_in(Pending::load(seq, action).0, rank);
        if let Some(queue) = self.queues.get_mut(place) {
            queue.pending.push_back(pending);
        }
        changes
    }

    /// Actions that are not this client's were answered: with the epoch and the version that hold
    /// their outcome, or with `None` when they were not done. They may be among what this client
    /// has adopted: another one did so after it, when it was slow to hand them back.
    pub(crate) fn other_answered(
        &mut self,
        client: &str,
        seqs: &[u64],
        held_by: Option<&(String, u64)>,
    ) -> Changes {
        let mut gone = Vec::new();
        for queue in self.of_another(client) {
            for seq in seqs {
                match held_by {
                    Some(held_by) => drop(queue.committed.insert(*seq, held_by.clone())),
                    None => gone.extend(queue.take(*seq)),
                }
            }
        }
        self.let_go(gone)
    }

    /// Before which seq the actions of these clients, this one and those whose outboxes it has
    /// adopted, have their answers, and which is the last of the latter.
    pub(crate) fn settled(
        &self,
        wanted: impl Fn(&Arc<str>) -> bool,
    ) -> Vec<(String, u64, Option<u64>)> {
        let mine = |queue: &&Queue<A>| queue.whose != Whose::Other && wanted(&queue.client);
        let mine = self.queues.iter().filter(mine).map(|queue| {
            let last = queue.pending.back().map_or(queue.answered, |last| last.seq);
            let last = (queue.whose == Whose::Adopted).then_some(last);
            (queue.client.to_string(), queue.answered.saturating_add(1), last)
        });
        let emptied = self
            .emptied
            .iter()
            .filter(|(client, _)| wanted(client))
            .map(|(client, last)| (client.to_string(), last.saturating_add(1), Some(*last)));
        mine.chain(emptied).collect()
    }

    /// Another client's actions before this seq have their answers, and there are none beyond the
    /// last.
    pub(crate) fn other_settled(
        &mut self,
        client: &str,
        before: u64,
        last: Option<u64>,
    ) -> Changes {
        let mut gone = Vec::new();
        for queue in self.of_another(client) {
            // What was adopted was stored: whoever tells may not know of the last of it.
            let last = last.filter(|_| queue.whose == Whose::Other);
            let here = before..=last.unwrap_or(u64::MAX);
            // What was committed is shown until the rows hold it.
            let done = |seq: &u64| !here.contains(seq) && !queue.committed.contains_key(seq);
            let seqs: Vec<_> = queue.pending.iter().map(|p| p.seq).filter(done).collect();
            gone.extend(seqs.into_iter().filter_map(|seq| queue.take(seq)));
        }
        self.let_go(gone)
    }

    /// The queues of another client: what is shown of it, and what is adopted.
    fn of_another(&mut self, client: &str) -> impl Iterator<Item = &mut Queue<A>> {
        self.queues
            .iter_mut()
            .filter(move |queue| *queue.client == *client && queue.whose != Whose::Own)
    }

    /// The queue of another living client.
    fn other(&mut self, client: &str) -> Option<&mut Queue<A>> {
        let other = |queue: &&mut Queue<A>| *queue.client == *client && queue.whose == Whose::Other;
        self.queues.iter_mut().find(other)
    }

    /// Whether a client's actions are this one's to push.
    fn has_taken(&self, client: &str) -> bool {
        let taken = |queue: &Queue<A>| *queue.client == *client && queue.whose != Whose::Other;
        self.queues.iter().any(taken)
    }

    /// Shows these actions no more, nor those whose outcome is in the rows.
    fn let_go(&mut self, mut gone: Vec<Pending<A>>) -> Changes {
        gone.extend(self.held_by_rows());
        self.confirm(Default::default(), gone)
    }

    /// The clients of whose adopted actions some turned out to be done.
    pub(crate) fn take_found_done(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.found_done)
    }

    /// Takes out other clients' actions whose outcome is in the rows.
    pub(super) fn held_by_rows(&mut self) -> Vec<Pending<A>> {
        let here = self.tables.values().map(|table| table.version).min().flatten();
        let epoch = self.epoch.as_ref();
        let mut gone = Vec::new();
        for queue in &mut self.queues {
            let done = |held_by: &(String, u64)| {
                epoch == Some(&held_by.0) && here.is_some_and(|here| held_by.1 <= here)
            };
            let seqs: Vec<_> =
                queue.committed.iter().filter(|(_, by)| done(by)).map(|(seq, _)| *seq).collect();
            for seq in seqs {
                queue.committed.remove(&seq);
                let Some(pending) = queue.take(seq) else { continue };
                gone.push(pending);
                if queue.whose == Whose::Adopted {
                    let client = queue.client.clone();
                    self.found_done.insert(client.clone());
                    self.writes.push(Write::Answered { client, from: seq, to: seq });
                }
            }
        }
        let emptied = |queue: &&Queue<A>| queue.whose == Whose::Adopted && queue.pending.is_empty();
        let emptied = self.queues.iter().filter(emptied);
        self.emptied.extend(emptied.map(|queue| (queue.client.clone(), queue.answered)));
        self.queues.retain(|queue| queue.whose == Whose::Own || !queue.pending.is_empty());
        gone
    }

    /// This is the room's epoch now: what was done in another is gone.
    pub(super) fn forget_other_epochs(&mut self, epoch: &str) {
        for held_by in self.queues.iter_mut().flat_map(|queue| queue.committed.values_mut()) {
            if held_by.0 != epoch {
                *held_by = (epoch.to_owned(), 0);
            }
        }
    }

    /// The next push, unless one is under way. What was left behind is older than what is made
    /// here, and goes first.
    pub(crate) fn next_push(
        &mut self,
        limits: PushLimits,
        patience: Patience,
        now: Timestamp,
    ) -> Result<Option<Push>> {
        let places = || 0..self.queues.len();
        // One that begins with what the server may not bear keeps no other from being pushed.
        let suspect = |place: &usize| self.queues.get(*place).is_some_and(Queue::is_suspect);
        let (last, first): (Vec<_>, Vec<_>) = places().partition(suspect);
        for place in first.into_iter().chain(last) {
            let mine = |queue: &&mut Queue<A>| queue.whose != Whose::Other;
            let Some(queue) = self.queues.get_mut(place).filter(mine) else { continue };
            let Some((push, noted)) = queue.next_push(limits, patience, now)? else { continue };
            if noted {
                let (client, (seq, at)) = (queue.client.clone(), queue.pushed());
                self.writes.push(Write::Pushed { client, seq, at });
            }
            return Ok(Some(push));
        }
        Ok(None)
    }

    /// Whether a push of this connection has no answer.
    pub(crate) fn waits(&self) -> bool {
        self.queues.iter().any(Queue::waits)
    }

    /// The connection was lost with a push on its way: what it began with may be what the server
    /// cannot bear.
    pub(crate) fn unanswered(&mut self, points: u32, now: u64) {
        for queue in &mut self.queues {
            if let Some((seq, suspicion)) = queue.interrupt(points, now) {
                let client: Arc<str> = queue.client.clone();
                self.writes.push(Write::Suspect { client, seq, suspicion });
            }
        }
    }
}
