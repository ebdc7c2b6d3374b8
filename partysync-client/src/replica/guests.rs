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
    /// Those that were committed, with the version from which on their outcome is in the rows.
    committed: BTreeMap<u64, u64>,
}

impl<A> Guest<A> {
    /// The versions of committed actions were those of another epoch.
    pub(super) fn forget_versions(&mut self) {
        self.committed.values_mut().for_each(|version| *version = 0);
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

    /// An adopted action was answered: with the version that holds its outcome, or with `None`
    /// when it was not done.
    pub(crate) fn guest_answered(&mut self, id: u64, seq: u64, version: Option<u64>) -> Changes {
        let before = self.snapshot_of(&BTreeSet::new());
        if let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) {
            match version {
                Some(version) if guest.pending.iter().any(|p| p.seq == seq) => {
                    guest.committed.insert(seq, version);
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
        for guest in &mut self.guests {
            let Guest { pending, committed, .. } = guest;
            let done = |version: &u64| here.is_some_and(|here| *version <= here);
            pending.retain(|pending| !committed.get(&pending.seq).is_some_and(done));
            committed.retain(|_, version| !done(version));
        }
        self.guests.retain(|guest| !guest.pending.is_empty());
    }
}
