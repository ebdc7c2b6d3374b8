//! The overlay: what pending actions make of the confirmed rows, kept up to date at a cost that
//! grows with what changes.

use super::pending::{Footprint, Pending, Queue};
use super::scratch::{Scratch, Written};
use super::{Changed, Changes, Replica, Row, Table};
use crate::gathered::gathered;
use crate::query::{Batch, Change};
use partysync::{Action, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A row: its channel and its key.
pub(super) type At = (&'static str, Key);

/// How many pending actions have touched each row, and asked for all keys of each table.
#[derive(Debug, Default)]
pub(super) struct Index {
    touched: BTreeMap<At, u32>,
    scanned: BTreeMap<&'static str, u32>,
}

fn count<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K) {
    *counts.entry(key.clone()).or_default() += 1;
}

fn uncount<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(key);
        }
    }
}

impl Index {
    fn add(&mut self, footprint: &Footprint) {
        footprint.touched.iter().for_each(|at| count(&mut self.touched, at));
        footprint.scanned.iter().for_each(|channel| count(&mut self.scanned, channel));
    }

    fn remove(&mut self, footprint: &Footprint) {
        footprint.touched.iter().for_each(|at| uncount(&mut self.touched, at));
        footprint.scanned.iter().for_each(|channel| uncount(&mut self.scanned, channel));
    }

    /// Whether no pending action has looked at anything.
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.scanned.is_empty()
    }

    /// Whether a pending action has looked at this row.
    fn depends_on(&self, at: &At) -> bool {
        self.touched.contains_key(at) || self.scanned.contains_key(at.0)
    }
}

/// How a row was shown, and whether that was pending.
type Shown = BTreeMap<At, (Option<Row>, bool)>;

/// A row as a frame leaves it; `None` for one that is gone.
pub(super) type NewRows = BTreeMap<&'static str, BTreeMap<Key, Option<Row>>>;

/// Runs an action on the view, without effect on it; one that fails writes nothing: the server
/// decides.
fn run<A: Action>(
    tables: &BTreeMap<&'static str, Table>,
    pending: &Pending<A>,
    succeeds: impl FnOnce(&A, &mut Scratch<'_>) -> bool,
) -> (Written, Footprint) {
    let Some(action) = &pending.action else { return Default::default() };
    let mut scratch = Scratch::new(tables, pending.made_at);
    let succeeded = succeeds(action, &mut scratch);
    scratch.end(succeeded)
}

/// As it is made: a panic is its caller's.
fn once<A: Action>(action: &A, scratch: &mut Scratch<'_>) -> bool {
    action.reduce(scratch).is_ok()
}

/// As it was made before, over rows that whoever made it may not have had. A panic is a failure
/// like any other here: nobody called this reducer who could catch it, and what it wrote until
/// then is in the scratch alone.
fn again<A: Action>(action: &A, scratch: &mut Scratch<'_>) -> bool {
    matches!(catch_unwind(AssertUnwindSafe(|| action.reduce(scratch))), Ok(Ok(())))
}

fn put(tables: &mut BTreeMap<&'static str, Table>, written: Written) {
    for ((channel, key), row) in written {
        if let Some(table) = tables.get_mut(channel) {
            table.overlay.insert(key, row);
        }
    }
}

impl<A: Action> Replica<A> {
    /// Shows an action over all others. A reducer that panics leaves everything as it was.
    pub(super) fn show(&mut self, pending: Pending<A>) -> (Pending<A>, Changes) {
        let outcome = run(&self.tables, &pending, once);
        self.show_outcome(pending, outcome)
    }

    fn show_outcome(
        &mut self,
        mut pending: Pending<A>,
        (written, footprint): (Written, Footprint),
    ) -> (Pending<A>, Changes) {
        let before = self.shown(footprint.written.iter());
        put(&mut self.tables, written);
        self.index.add(&footprint);
        pending.footprint = footprint;
        (pending, self.changed(before))
    }

    /// Shows another client's action, if it is the last one, or if nothing that is shown depends on
    /// what it does, nor it on that; else all have to be done again.
    pub(super) fn show_below(
        &mut self,
        pending: Pending<A>,
        last: bool,
    ) -> (Pending<A>, Option<Changes>) {
        let outcome = run(&self.tables, &pending, again);
        let footprint = &outcome.1;
        let alone = footprint.scanned.is_empty()
            && !footprint.touched.iter().any(|at| self.index.depends_on(at));
        if !last && !alone {
            return (pending, None);
        }
        let (pending, changes) = self.show_outcome(pending, outcome);
        (pending, Some(changes))
    }

    /// Shows a queue's actions at this place among the others.
    pub(super) fn show_queue(&mut self, place: usize, queue: Queue<A>) -> Changes {
        self.queues.insert(place, queue);
        self.replay()
    }

    /// Puts confirmed rows in and drops actions that have their answer, in one step; what may
    /// look different now is looked at anew.
    pub(super) fn confirm(&mut self, rows: NewRows, gone: Vec<Pending<A>>) -> Changes {
        for pending in &gone {
            self.index.remove(&pending.footprint);
        }
        let theirs = || gone.iter().flat_map(|pending| &pending.footprint.written);
        let depends = theirs().any(|at| self.index.depends_on(at))
            || rows.iter().any(|(channel, rows)| {
                rows.keys().any(|key| self.index.depends_on(&(*channel, key.clone())))
            });
        let mut touched: BTreeSet<At> = gathered(theirs().cloned());
        for (channel, rows) in &rows {
            touched.extend(rows.keys().map(|key| (*channel, key.clone())));
        }
        let before = self.shown(touched.iter());
        if depends && !partysync::__mutated("footprint") {
            return self.replay_over(rows, before);
        }
        self.put_confirmed(rows);
        for (channel, key) in theirs() {
            if let Some(table) = self.tables.get_mut(channel) {
                table.overlay.remove(key);
            }
        }
        self.changed(before)
    }

    /// Does all pending actions again.
    pub(super) fn replay(&mut self) -> Changes {
        self.replay_over(NewRows::new(), Shown::new())
    }

    fn replay_over(&mut self, rows: NewRows, mut before: Shown) -> Changes {
        for at in self.overlaid() {
            before.entry(at).or_insert_with_key(|at| self.shown_at(at));
        }
        self.put_confirmed(rows);
        self.index = Index::default();
        let Self { tables, queues, index, .. } = self;
        for table in tables.values_mut() {
            table.overlay.clear();
        }
        for pending in queues.iter_mut().flat_map(|queue| &mut queue.pending) {
            let (written, footprint) = run(tables, pending, again);
            put(tables, written);
            index.add(&footprint);
            pending.footprint = footprint;
        }
        // A row that was in no overlay, and that no frame touched, was shown as it is confirmed.
        for at in self.overlaid() {
            before.entry(at).or_insert_with_key(|(channel, key)| {
                let table = self.tables.get(channel);
                (table.and_then(|table| table.confirmed.get(key)).cloned(), false)
            });
        }
        self.changed(before)
    }

    /// Puts the first rows of a table in, when nothing is pending: they are shown as they are.
    pub(super) fn put_first(&mut self, channel: &'static str, rows: BTreeMap<Key, Row>) -> Changes {
        let Some(table) = self.tables.get_mut(channel).filter(|_| !rows.is_empty()) else {
            return Changes::new();
        };
        table.confirmed = rows;
        let changes = gathered([(channel, Changed::All)]);
        self.reset_views(&changes);
        changes
    }

    /// Any row of some tables may be another: results of queries are looked up anew.
    pub(super) fn reset_views(&mut self, changes: &Changes) {
        let all = changes.iter().filter(|(_, changed)| **changed == Changed::All);
        let all: BTreeSet<_> = gathered(all.map(|(channel, _)| *channel));
        if let Some(views) = self.views.as_mut().filter(|_| !partysync::__mutated("query_reset"))
            && !all.is_empty()
        {
            views.reset(&all, &self.tables);
        }
    }

    fn put_confirmed(&mut self, rows: NewRows) {
        for (channel, rows) in rows {
            let Some(table) = self.tables.get_mut(channel) else { continue };
            for (key, row) in rows {
                match row {
                    Some(row) => table.confirmed.insert(key, row),
                    None => table.confirmed.remove(&key),
                };
            }
        }
    }

    fn overlaid(&self) -> Vec<At> {
        let keys = |(channel, table): (&&'static str, &Table)| {
            table.overlay.keys().map(|key| (*channel, key.clone())).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(keys).collect()
    }

    fn shown_at(&self, (channel, key): &At) -> (Option<Row>, bool) {
        (self.row(channel, key).cloned(), self.is_pending(channel, key))
    }

    fn shown<'a>(&self, at: impl Iterator<Item = &'a At>) -> Shown {
        gathered(at.map(|at| (at.clone(), self.shown_at(at))))
    }

    /// The rows that are shown otherwise than before.
    fn changed(&mut self, before: Shown) -> Changes {
        let (mut changes, mut batch) = (Changes::new(), Batch::new());
        for ((channel, key), (old, pending)) in before {
            let new = self.row(channel, &key);
            let same = new == old.as_ref();
            if same && self.is_pending(channel, &key) == pending {
                continue;
            }
            if !same && self.views.is_some() {
                batch.entry(channel).or_default().push(Change { old, new: new.cloned() });
            }
            changes.entry(channel).or_default().insert(key);
        }
        if let Some(views) = self.views.as_mut().filter(|_| !batch.is_empty()) {
            views.update(&batch, &self.tables);
        }
        changes
    }
}
