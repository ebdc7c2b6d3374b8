//! Pending actions that clients that are gone left behind. Their own connection pushes them (a
//! client's seqs are its own); here they are shown until their outcome is in the rows.

use super::{Pending, Replica};
use crate::replica::Changes;
use crate::store::Outbox;
use partysync::{Action, Error};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Guest<A> {
    /// The store's name for the outbox that they are in; ids of clients may change.
    id: u64,
    pub(super) pending: VecDeque<Pending<A>>,
    /// Those that were committed, with the epoch and the version that hold their outcome.
    committed: BTreeMap<u64, (String, u64)>,
}

impl<A> Guest<A> {
    /// This is the room's epoch now: what was done in another is gone.
    pub(super) fn forget_other_epochs(&mut self, epoch: &str) {
        for held_by in self.committed.values_mut().filter(|held_by| held_by.0 != epoch) {
            *held_by = (epoch.to_owned(), 0);
        }
    }
}

impl<A: Action> Replica<A> {
    /// Shows what is in an outbox whose client is gone; `id` is any number that no other has.
    pub(crate) fn adopt(&mut self, id: u64, outbox: &Outbox) -> (Changes, Vec<Error>) {
        let before = self.snapshot_of(&BTreeSet::new());
        let mut errors = Vec::new();
        let load = |(seq, saved): (&u64, _)| {
            let (pending, error) = Pending::load(*seq, saved);
            errors.extend(error);
            pending
        };
        let pending = outbox.pending.iter().map(load).collect();
        self.guests.push(Guest { id, pending, committed: BTreeMap::new() });
        self.replay();
        (self.changes_since(before), errors)
    }

    /// An adopted action was answered: with the epoch and the version that hold its outcome, or
    /// with `None` when it was not done.
    pub(crate) fn guest_answered(
        &mut self,
        id: u64,
        seq: u64,
        held_by: Option<(String, u64)>,
    ) -> Changes {
        let before = self.snapshot_of(&BTreeSet::new());
        if let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) {
            match held_by {
                Some(held_by) if guest.pending.iter().any(|p| p.seq == seq) => {
                    guest.committed.insert(seq, held_by);
                }
                _ => guest.pending.retain(|pending| pending.seq != seq),
            }
        }
        self.drop_guests();
        self.replay();
        self.changes_since(before)
    }

    /// Lets go of adopted actions whose outcome is in the rows.
    pub(super) fn drop_guests(&mut self) {
        let here = self.tables.values().map(|table| table.version).min().flatten();
        let epoch = self.epoch.as_ref();
        for guest in &mut self.guests {
            let Guest { pending, committed, .. } = guest;
            let done = |held_by: &(String, u64)| {
                epoch == Some(&held_by.0) && here.is_some_and(|here| held_by.1 <= here)
            };
            pending.retain(|pending| !committed.get(&pending.seq).is_some_and(done));
            committed.retain(|_, held_by| !done(held_by));
        }
        self.guests.retain(|guest| !guest.pending.is_empty());
    }
}
