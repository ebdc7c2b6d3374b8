//! [`Live`] and [`LiveTotals`]: results that users hold, and the streams of what happens to them.

use super::difference::Difference;
use super::readable::Readable;
use super::source::Source;
use super::totals::{Total, TotalsView};
use super::turn::Batch;
use super::view::View;
use super::wakers::Wakers;
use futures::Stream;
use partysync::query::{Found, Group, Node, Tuple};
use partysync::sql::Value;
use partysync::{Record, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// As many changes wait one by one to be read as there are rows, and these at least and at most;
/// whoever is further behind is given all anew, which is less then.
const WAITING: (usize, usize) = (64, 1_000);

/// A result, for all who hold it.
#[derive(Debug)]
pub(crate) struct Shared(Mutex<State>);

#[derive(Debug)]
pub(crate) struct State {
    pub(super) result: Kept,
    listeners: BTreeMap<u64, Listener>,
    serials: u64,
    ended: bool,
}

#[derive(Debug)]
pub(super) enum Kept {
    Rows(View),
    Totals(TotalsView),
}

impl Kept {
    /// How many rows there are.
    fn len(&self) -> usize {
        match self {
            Self::Rows(view) => view.len(),
            Self::Totals(_) => 0,
        }
    }
}

/// One who listens, and what it has not heard.
#[derive(Debug)]
struct Listener {
    waiting: Vec<Difference<Node>>,
    /// It has to be told everything.
    behind: bool,
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn new(result: Kept) -> Self {
        let (listeners, serials, ended) = (BTreeMap::new(), 0, false);
        Self(Mutex::new(State { result, listeners, serials, ended }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One listener's place, for as long as it listens.
struct Listening {
    shared: Arc<Shared>,
    serial: u64,
}

impl Listening {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut state = shared.state();
        state.serials += 1;
        let serial = state.serials;
        let listener = Listener { waiting: Vec::new(), behind: true, waker: None };
        state.listeners.insert(serial, listener);
        Self { shared: shared.clone(), serial }
    }
}

impl Listening {
    /// What it has not heard, taken under the lock. Wakers are made and dropped without it: they are
    /// the user's, as the types are that rows are read as.
    fn next<T>(
        &self,
        context: &Context<'_>,
        take: impl FnOnce(&State, Option<Vec<Difference<Node>>>) -> T,
    ) -> Poll<Option<T>> {
        let mut waker = Some(context.waker().clone());
        let mut state = self.shared.state();
        let next = state.next(self.serial, &mut waker, take);
        drop(state);
        next
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // What it holds is dropped when the lock is free.
        let listener = self.shared.state().listeners.remove(&self.serial);
        drop(listener);
    }
}

impl State {
    /// Whoever waits for it is to be woken when no lock is held.
    fn tell(&mut self, differences: Option<&[Difference<Node>]>, wakers: &mut Wakers) {
        let most = self.result.len().clamp(WAITING.0, WAITING.1);
        for listener in self.listeners.values_mut() {
            match differences {
                Some(more) if !listener.behind && listener.waiting.len() + more.len() <= most => {
                    listener.waiting.extend_from_slice(more);
                }
                _ => {
                    listener.waiting.clear();
                    listener.behind = true;
                }
            }
            wakers.add(listener.waker.take());
        }
    }

    pub(super) fn update(
        &mut self,
        changes: &Batch,
        source: Source<'_>,
        batch: u64,
        wakers: &mut Wakers,
    ) {
        let concerns = |tables: &BTreeSet<&str>| changes.keys().any(|table| tables.contains(table));
        // Whoever is behind is given all anew.
        let wanted = self.listeners.values().any(|listener| !listener.behind);
        let told = match &mut self.result {
            Kept::Rows(view) if concerns(&view.node.tables) => {
                let told = view.update(changes, source, batch, wanted);
                Some(told).filter(|told| !told.is_empty())
            }
            // Whoever listens is told all of them, as there are few.
            Kept::Totals(totals) if concerns(&totals.tables) => {
                totals.update(changes, source, batch).then(Vec::new)
            }
            _ => None,
        };
        if let Some(differences) = told {
            self.tell(Some(&*differences).filter(|differences| !differences.is_empty()), wakers);
        }
    }

    pub(super) fn reset(
        &mut self,
        changed: &BTreeSet<&'static str>,
        source: Source<'_>,
        batch: u64,
        wakers: &mut Wakers,
    ) {
        match &mut self.result {
            Kept::Rows(view) if !view.node.tables.is_disjoint(changed) => {
                view.reset(source, batch);
            }
            Kept::Totals(totals) if !totals.tables.is_disjoint(changed) => totals.reset(source),
            _ => return,
        }
        self.tell(None, wakers);
    }

    /// Nothing changes any more.
    pub(super) fn end(&mut self, wakers: &mut Wakers) {
        self.ended = true;
        self.listeners.values_mut().for_each(|listener| wakers.add(listener.waker.take()));
    }

    #[cfg(feature = "devtools")]
    pub(super) fn inspect(&self, asked: &super::Asked) -> crate::devtools::Query {
        let (tables, rows) = (self.tables(), self.result.len());
        match asked {
            super::Asked::Rows(plan) => {
                let (table, limit) = (plan.table.clone(), plan.limit);
                crate::devtools::Query { table, tables, rows, limit, totals: false }
            }
            super::Asked::Totals(plan) => {
                let (table, rows) = (plan.table.clone(), self.totals().len());
                crate::devtools::Query { table, tables, rows, limit: None, totals: true }
            }
        }
    }

    fn tables(&self) -> Vec<&'static str> {
        let tables = match &self.result {
            Kept::Rows(view) => &view.node.tables,
            Kept::Totals(totals) => &totals.tables,
        };
        tables.iter().copied().collect()
    }

    fn rows(&self) -> Vec<Node> {
        match &self.result {
            Kept::Rows(view) => view.rows(),
            Kept::Totals(_) => Vec::new(),
        }
    }

    fn totals(&self) -> Vec<Total<Value>> {
        match &self.result {
            Kept::Totals(totals) => totals.totals(),
            Kept::Rows(_) => Vec::new(),
        }
    }

    /// What a listener has not heard; `None` when the result has ended. If there is nothing yet, it
    /// is woken by this, and gets what was to wake it before.
    fn next<T>(
        &mut self,
        serial: u64,
        waker: &mut Option<Waker>,
        take: impl FnOnce(&Self, Option<Vec<Difference<Node>>>) -> T,
    ) -> Poll<Option<T>> {
        let ended = self.ended;
        let Some(listener) = self.listeners.get_mut(&serial) else { return Poll::Ready(None) };
        let waiting = std::mem::take(&mut listener.waiting);
        let behind = std::mem::take(&mut listener.behind);
        if behind || !waiting.is_empty() {
            return Poll::Ready(Some(take(self, (!behind).then_some(waiting))));
        }
        if ended {
            return Poll::Ready(None);
        }
        std::mem::swap(&mut listener.waker, waker);
        Poll::Pending
    }
}

fn read_totals<G: Group>(totals: Vec<Total<Value>>) -> Result<Vec<Total<G>>> {
    let read = |Total { group, count, sum }| Ok(Total { group: G::read(group)?, count, sum });
    totals.into_iter().map(read).collect()
}

/// The rows that a query finds, kept up to date for as long as anybody holds this.
pub struct Live<R, W = ()> {
    shared: Arc<Shared>,
    of: PhantomData<fn() -> (R, W)>,
}

impl<R, W> Clone for Live<R, W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), of: PhantomData }
    }
}

impl<R, W> std::fmt::Debug for Live<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl<R: Record, W: Tuple> Live<R, W> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, of: PhantomData }
    }

    /// The rows, in the query's order. One that does not fit its type, as of a newer version of the
    /// application, is left out: [`Status::unreadable`](crate::Status::unreadable) counts it, and an
    /// error tells of it.
    #[must_use]
    pub fn rows(&self) -> Vec<Found<R, W>> {
        let rows = self.shared.state().rows();
        rows.iter().filter_map(|row| Found::read(row).ok()).collect()
    }

    /// The same, untyped.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.shared.state().rows()
    }

    /// How many rows there are, whether or not they fit their type.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state().result.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tables that it depends on.
    #[must_use]
    pub fn tables(&self) -> Vec<&'static str> {
        self.shared.state().tables()
    }

    /// As [`changes`](Self::changes), untyped.
    #[must_use]
    pub fn node_changes(&self) -> NodeChanges {
        NodeChanges { listening: Listening::new(&self.shared) }
    }

    /// What happens to the result: first all of it, then what changes. It ends with the client. What
    /// [`rows`](Self::rows) leaves out is not told of, and not counted in places.
    #[must_use]
    pub fn changes(&self) -> LiveChanges<R, W> {
        let readable = Readable::default();
        LiveChanges { nodes: self.node_changes(), readable, of: PhantomData }
    }
}

/// What happens to a result, untyped: [`Live::node_changes`].
pub struct NodeChanges {
    listening: Listening,
}

impl std::fmt::Debug for NodeChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeChanges").finish_non_exhaustive()
    }
}

impl Stream for NodeChanges {
    type Item = Vec<Difference<Node>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listening.next(context, |state, differences| {
            differences.unwrap_or_else(|| vec![Difference::Reset(state.rows())])
        })
    }
}

/// What happens to a result: [`Live::changes`]. Each item is what has changed at once. Whoever
/// reads slowly is given a [`Difference::Reset`].
pub struct LiveChanges<R, W = ()> {
    nodes: NodeChanges,
    readable: Readable,
    of: PhantomData<fn() -> (R, W)>,
}

impl<R, W> std::fmt::Debug for LiveChanges<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveChanges").finish_non_exhaustive()
    }
}

impl<R: Record, W: Tuple> Stream for LiveChanges<R, W> {
    type Item = Vec<Difference<Found<R, W>>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { nodes, readable, .. } = &mut *self;
        loop {
            let Poll::Ready(next) = Pin::new(&mut *nodes).poll_next(context) else {
                return Poll::Pending;
            };
            let Some(changes) = next else { return Poll::Ready(None) };
            let read = |change| readable.take(change, |node| Found::read(node).ok());
            let told: Vec<_> = changes.iter().filter_map(read).collect();
            if !told.is_empty() {
                return Poll::Ready(Some(told));
            }
        }
    }
}

/// Counts and sums, kept up to date for as long as anybody holds this.
pub struct LiveTotals<R, G = ()> {
    shared: Arc<Shared>,
    of: PhantomData<fn() -> (R, G)>,
}

impl<R, G> Clone for LiveTotals<R, G> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), of: PhantomData }
    }
}

impl<R, G> std::fmt::Debug for LiveTotals<R, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveTotals").finish_non_exhaustive()
    }
}

impl<R: Record, G: Group> LiveTotals<R, G> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, of: PhantomData }
    }

    /// The totals, in the order of the groups; of a query without groups one.
    ///
    /// # Errors
    /// [`Code::InvalidValue`](partysync::Code::InvalidValue) when a value does not fit its type.
    pub fn totals(&self) -> Result<Vec<Total<G>>> {
        read_totals(self.untyped())
    }

    /// The same, untyped.
    #[must_use]
    pub fn untyped(&self) -> Vec<Total<Value>> {
        self.shared.state().totals()
    }

    /// The tables that they depend on.
    #[must_use]
    pub fn tables(&self) -> Vec<&'static str> {
        self.shared.state().tables()
    }

    /// The totals, and what they become. It ends with the client.
    #[must_use]
    pub fn changes(&self) -> TotalsChanges<R, G> {
        TotalsChanges { listening: Listening::new(&self.shared), of: PhantomData }
    }
}

impl<R: Record> LiveTotals<R> {
    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.totals().ok().and_then(|totals| totals.first().map(|total| total.count)).unwrap_or(0)
    }
}

/// What totals become: [`LiveTotals::changes`]. What is not read in time is passed over.
pub struct TotalsChanges<R, G = ()> {
    listening: Listening,
    of: PhantomData<fn() -> (R, G)>,
}

impl<R, G> std::fmt::Debug for TotalsChanges<R, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TotalsChanges").finish_non_exhaustive()
    }
}

impl<R: Record, G: Group> Stream for TotalsChanges<R, G> {
    type Item = Result<Vec<Total<G>>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listening.next(context, |state, _| state.totals()).map(|next| next.map(read_totals))
    }
}
