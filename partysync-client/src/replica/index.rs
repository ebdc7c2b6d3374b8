//! [`Index`]: which pending actions have looked at what, so that a change finds those to which it
//! matters.

use super::layers::Order;
use partysync::Key;
use std::collections::BTreeSet;

/// A row: its channel and its key.
pub(super) type At = (&'static str, Key);

/// What rows of a channel refer to: the place of their column, and the key in it.
pub(super) type Referred = (&'static str, usize, Key);

/// What an action's reducer has looked at and written: another change to what it has looked at may
/// change what the action does.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    pub(super) written: BTreeSet<At>,
    /// The rows that it has read, those of scanned tables aside.
    pub(super) read: BTreeSet<At>,
    /// The rows that it has looked for by what they refer to.
    pub(super) referring: BTreeSet<Referred>,
    /// The tables of which it has read all rows.
    pub(super) scanned: BTreeSet<&'static str>,
    /// The tables of which it has judged all rows, each by itself.
    pub(super) swept: BTreeSet<&'static str>,
}

/// What pending actions have looked at.
#[derive(Debug, Default)]
pub(super) struct Index {
    read: BTreeSet<(At, Order)>,
    referring: BTreeSet<(Referred, Order)>,
    scanned: BTreeSet<(&'static str, Order)>,
    swept: BTreeSet<(&'static str, Order)>,
}

/// What has to be done again of an action.
#[derive(Debug)]
pub(super) enum Again {
    All,
    /// What it makes of these rows.
    Rows(BTreeSet<At>),
}

const LAST: Order = (u64::MAX, u64::MAX);

impl Index {
    pub(super) fn add(&mut self, order: Order, footprint: &Footprint) {
        self.read.extend(footprint.read.iter().map(|at| (at.clone(), order)));
        self.referring.extend(footprint.referring.iter().map(|to| (to.clone(), order)));
        self.scanned.extend(footprint.scanned.iter().map(|channel| (*channel, order)));
        self.swept.extend(footprint.swept.iter().map(|channel| (*channel, order)));
    }

    pub(super) fn remove(&mut self, order: Order, footprint: &Footprint) {
        for at in &footprint.read {
            self.read.remove(&(at.clone(), order));
        }
        for to in &footprint.referring {
            self.referring.remove(&(to.clone(), order));
        }
        for channel in &footprint.scanned {
            self.scanned.remove(&(*channel, order));
        }
        for channel in &footprint.swept {
            self.swept.remove(&(*channel, order));
        }
    }

    /// Whether no pending action has looked at anything.
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty()
            && self.referring.is_empty()
            && self.scanned.is_empty()
            && self.swept.is_empty()
    }

    /// The actions to which this row matters, which did refer to that or does now, behind one and up to another that is among them; all
    /// of them where there is none. And whether the row matters to all that they do.
    pub(super) fn readers(
        &self,
        at: &At,
        referred: &[Referred],
        behind: Option<Order>,
        to: Option<Order>,
        f: &mut dyn FnMut(Order, bool),
    ) {
        if self.is_empty() {
            return;
        }
        let (from, to) = (behind.unwrap_or_default(), to.unwrap_or(LAST));
        let among = |order: &Order| behind.is_none_or(|behind| *order > behind);
        let mut each = |order: Order, whole| {
            if among(&order) {
                f(order, whole);
            }
        };
        let channel = at.0;
        self.swept.range((channel, from)..=(channel, to)).for_each(|(_, o)| each(*o, false));
        self.scanned.range((channel, from)..=(channel, to)).for_each(|(_, o)| each(*o, true));
        if !self.read.is_empty() {
            let rows = (at.clone(), from)..=(at.clone(), to);
            self.read.range(rows).for_each(|(_, order)| each(*order, true));
        }
        for referred in referred.iter().filter(|_| !self.referring.is_empty()) {
            let rows = (referred.clone(), from)..=(referred.clone(), to);
            self.referring.range(rows).for_each(|(_, order)| each(*order, true));
        }
    }
}
