//! The overlay: what pending actions make of the confirmed rows, kept up to date at a cost that
//! grows with what changes. A row that changes under an action has that action done again, alone,
//! and what that changes has those behind it done again that have seen it.

use super::index::{Again, At, Footprint, Index, Referred};
use super::layers::{Layers, Order};
use super::pending::{Pending, Queue};
use super::scratch::{Scratch, Written};
use super::{Changed, Changes, Replica, Row, Table};
use crate::gathered::gathered;
use crate::query::{Batch, Change};
use partysync::{Action, Identity, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many changes are taken into results one by one, whatever there is beside them.
const MUCH: usize = 256;

/// A row as a frame leaves it; `None` for one that is gone.
pub(super) type NewRows = BTreeMap<&'static str, BTreeMap<Key, Option<Row>>>;

/// What is done at once to confirmed rows and to what pending actions make of them.
struct Step<'a> {
    tables: &'a mut BTreeMap<&'static str, Table>,
    index: &'a mut Index,
    identity: Option<&'a Identity>,
    /// How the rows that it has come to were shown before, and whether that was pending.
    before: Before,
    /// The actions that have seen something else than there is now.
    again: BTreeMap<Order, Again>,
}

type Before = BTreeMap<At, (Option<Row>, bool)>;

impl<'a> Step<'a> {
    fn new(
        tables: &'a mut BTreeMap<&'static str, Table>,
        index: &'a mut Index,
        identity: Option<&'a Identity>,
    ) -> Self {
        Self { tables, index, identity, before: Before::new(), again: BTreeMap::new() }
    }

    fn note(&mut self, at: &At) {
        let Some(table) = self.tables.get(at.0) else { return };
        let shown = || (table.row(&at.1).cloned(), table.overlay.contains_key(&at.1));
        self.before.entry(at.clone()).or_insert_with(shown);
    }

    /// A row that was this is that for the actions behind one, up to another.
    fn stale(
        &mut self,
        at: &At,
        (was, is): (Option<&Row>, Option<&Row>),
        (behind, to): (Option<Order>, Option<Order>),
    ) {
        let referred = self.referred(at.0, was, is);
        self.index.readers(at, &referred, behind, to, &mut |order, all| {
            let again = self.again.entry(order).or_insert_with(|| Again::Rows(BTreeSet::new()));
            match again {
                Again::Rows(rows) if !all => drop(rows.insert(at.clone())),
                _ => *again = Again::All,
            }
        });
    }

    /// What a row refers to that is another now, before and after.
    fn referred(
        &self,
        channel: &'static str,
        was: Option<&Row>,
        is: Option<&Row>,
    ) -> Vec<Referred> {
        let mut referred = Vec::new();
        let columns = self.tables.get(channel).map(|table| table.schema.columns);
        for (index, column) in columns.into_iter().flatten().enumerate() {
            let [was, is] = [was, is].map(|row| row.and_then(|row| row.get(index)));
            if column.references.is_some() && was != is {
                let keys = [was, is].into_iter().flatten().cloned().map(Key::try_from);
                referred.extend(keys.flatten().map(|key| (channel, index, key)));
            }
        }
        referred
    }

    fn put_confirmed(&mut self, at: &At, row: Option<Row>) {
        self.note(at);
        let Some(table) = self.tables.get_mut(at.0) else { return };
        let key = &at.1;
        let same = table.confirmed.get(key) == row.as_ref();
        if !same {
            table.judge(key, row.as_ref());
        }
        let is = row.clone();
        let was = match row {
            Some(row) => table.confirmed.insert(key.clone(), row),
            None => table.confirmed.remove(key),
        };
        if !same {
            let first = table.overlay.get(key).and_then(Layers::first);
            self.stale(at, (was.as_ref(), is.as_ref()), (None, first));
        }
    }

    /// What an action leaves of a row; with `None` it does not write it.
    fn put_layer(&mut self, at: &At, order: Order, row: Option<Option<Row>>) {
        let key = &at.1;
        let Some(table) = self.tables.get(at.0) else { return };
        if table.overlay.get(key).and_then(|layers| layers.get(order)) == row.as_ref() {
            return;
        }
        self.note(at);
        let Some(table) = self.tables.get_mut(at.0) else { return };
        let layers = table.overlay.entry(key.clone()).or_default();
        let below = || layers.below(order).unwrap_or_else(|| table.confirmed.get(key));
        let was = layers.get(order).map_or_else(below, Option::as_ref);
        let is = row.as_ref().map_or_else(below, Option::as_ref);
        let (was, is) = (was.cloned(), is.cloned());
        layers.put(order, row);
        let next = layers.after(order);
        if layers.is_empty() {
            table.overlay.remove(key);
        }
        if was != is {
            self.stale(at, (was.as_ref(), is.as_ref()), (Some(order), next));
        }
    }

    /// Takes in what an action does now, in place of what it did.
    fn put_outcome(&mut self, order: Order, before: &mut Footprint, outcome: Outcome) {
        let Outcome { written, footprint, .. } = outcome;
        self.index.remove(order, before);
        self.index.add(order, &footprint);
        let before = std::mem::replace(before, footprint);
        for at in before.written.iter().filter(|at| !written.contains_key(at)) {
            self.put_layer(at, order, None);
        }
        for (at, row) in written {
            self.put_layer(&at, order, Some(row));
        }
    }

    /// Takes in what an action makes of these rows now; the others are as it has left them.
    fn put_rows(
        &mut self,
        order: Order,
        footprint: &mut Footprint,
        rows: &BTreeSet<At>,
        written: Written,
    ) {
        for at in rows.iter().filter(|at| !written.contains_key(at)) {
            footprint.written.remove(at);
            self.put_layer(at, order, None);
        }
        for (at, row) in written {
            self.put_layer(&at, order, Some(row));
            footprint.written.insert(at);
        }
    }

    /// Does actions again that have seen something else, in their order: each is done once, as it
    /// changes nothing for those before it. Returns how rows were shown before.
    fn finish<A: Action>(mut self, queues: &mut [Queue<A>]) -> Before {
        while let Some((order, what)) = self.again.pop_first() {
            if partysync::__mutated("footprint") {
                continue;
            }
            let queue = queues.iter_mut().find(|queue| queue.rank == order.0);
            let Some(pending) = queue.and_then(|queue| queue.get_mut(order.1)) else { continue };
            if let Again::Rows(rows) = &what {
                let outcome = run((self.tables, self.identity), pending, Some(rows), again);
                // What else it has read is what it was, and so is what it does.
                let (now, before) = (&outcome.footprint, &pending.footprint);
                let same = now.read == before.read && now.referring == before.referring;
                if outcome.succeeded && same {
                    self.put_rows(order, &mut pending.footprint, rows, outcome.written);
                    continue;
                }
            }
            let outcome = run((self.tables, self.identity), pending, None, again);
            self.put_outcome(order, &mut pending.footprint, outcome);
        }
        self.before
    }
}

/// What came of a reducer.
struct Outcome {
    written: Written,
    footprint: Footprint,
    succeeded: bool,
}

/// Runs an action on the rows below it, without effect on them; one that fails writes nothing: the
/// server decides.
fn run<A: Action>(
    (tables, identity): (&BTreeMap<&'static str, Table>, Option<&Identity>),
    pending: &Pending<A>,
    only: Option<&BTreeSet<At>>,
    succeeds: impl FnOnce(&A, &mut Scratch<'_>) -> bool,
) -> Outcome {
    let tables = (tables, A::CHANNELS);
    let mut scratch = Scratch::new(tables, pending.order, only, (pending.made_at, identity));
    let succeeded = pending.action.as_ref().is_some_and(|action| succeeds(action, &mut scratch));
    let (written, footprint) = scratch.end(succeeded);
    Outcome { written, footprint, succeeded }
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

impl<A: Action> Replica<A> {
    /// Shows an action over all others. A reducer that panics leaves everything as it was.
    pub(super) fn show(&mut self, pending: Pending<A>) -> (Pending<A>, Changes) {
        let rank = self.queues.last().map_or(0, |own| own.rank);
        self.show_as(pending, rank, once)
    }

    /// Shows an action of another client, as the last one of its queue.
    pub(super) fn show_in(&mut self, pending: Pending<A>, rank: u64) -> (Pending<A>, Changes) {
        self.show_as(pending, rank, again)
    }

    fn show_as(
        &mut self,
        mut pending: Pending<A>,
        rank: u64,
        succeeds: impl FnOnce(&A, &mut Scratch<'_>) -> bool,
    ) -> (Pending<A>, Changes) {
        pending.order = (rank, pending.seq);
        let outcome = run((&self.tables, self.identity.as_ref()), &pending, None, succeeds);
        let mut step = Step::new(&mut self.tables, &mut self.index, self.identity.as_ref());
        step.put_outcome(pending.order, &mut pending.footprint, outcome);
        let before = step.finish(&mut self.queues);
        (pending, self.changed(before))
    }

    /// Shows a queue's actions at this place among the others.
    pub(super) fn show_queue(&mut self, place: usize, queue: Queue<A>) -> Changes {
        self.queues.insert(place, queue);
        self.replay()
    }

    /// Puts confirmed rows in and drops actions that have their answer, in one step; what may
    /// look different now is looked at anew.
    pub(super) fn confirm(&mut self, rows: NewRows, gone: Vec<Pending<A>>) -> Changes {
        let mut step = Step::new(&mut self.tables, &mut self.index, self.identity.as_ref());
        for pending in &gone {
            step.index.remove(pending.order, &pending.footprint);
        }
        for (channel, rows) in rows {
            for (key, row) in rows {
                step.put_confirmed(&(channel, key), row);
            }
        }
        // In this order a row that is confirmed as it was shown is the same for those behind it.
        for pending in &gone {
            for at in &pending.footprint.written {
                step.put_layer(at, pending.order, None);
            }
        }
        let before = step.finish(&mut self.queues);
        self.changed(before)
    }

    /// Does all pending actions again, in the order in which their queues are now.
    pub(super) fn replay(&mut self) -> Changes {
        self.index = Index::default();
        let mut step = Step::new(&mut self.tables, &mut self.index, self.identity.as_ref());
        let overlaid = |(channel, table): (&&'static str, &Table)| {
            table.overlay.keys().map(|key| (*channel, key.clone())).collect::<Vec<_>>()
        };
        let overlaid: Vec<_> = step.tables.iter().flat_map(overlaid).collect();
        overlaid.iter().for_each(|at| step.note(at));
        step.tables.values_mut().for_each(|table| table.overlay.clear());
        for (queue, rank) in self.queues.iter_mut().zip(0..) {
            queue.rank = rank;
            for pending in &mut queue.pending {
                pending.order = (rank, pending.seq);
                pending.footprint = Footprint::default();
                let outcome = run((step.tables, step.identity), pending, None, again);
                step.put_outcome(pending.order, &mut pending.footprint, outcome);
            }
        }
        let before = step.finish(&mut self.queues);
        self.changed(before)
    }

    /// Puts the first rows of a table in, when nothing is pending: they are shown as they are.
    pub(super) fn put_first(&mut self, channel: &'static str, rows: BTreeMap<Key, Row>) -> Changes {
        let Some(table) = self.tables.get_mut(channel).filter(|_| !rows.is_empty()) else {
            return Changes::new();
        };
        table.put_all(rows);
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

    /// The rows that are shown otherwise than before.
    fn changed(&mut self, before: Before) -> Changes {
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
        let much = is_much(&batch, &self.tables);
        match self.views.as_mut().filter(|_| !batch.is_empty()) {
            Some(views) if much => views.reset(&gathered(batch.into_keys()), &self.tables),
            Some(views) => views.update(&batch, &self.tables),
            None => {}
        }
        changes
    }
}

/// Whether so much has changed, as when the first rows come while an action waits, that results are
/// looked up anew at less cost: a row that is put in costs some four that are looked up in order.
fn is_much(batch: &Batch, tables: &BTreeMap<&'static str, Table>) -> bool {
    let changed: usize = batch.values().map(Vec::len).sum();
    let rows: usize = tables.values().map(|table| table.confirmed.len()).sum();
    changed > MUCH && changed > rows / 4
}
