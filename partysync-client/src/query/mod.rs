//! Live queries: results that are kept up to date as rows change, at a cost that grows with what
//! has changed.
//!
//! [`SyncClient::query`](crate::SyncClient::query) gives a [`Live`] result: its rows, and how it
//! changes. Equal queries share one.
//!
//! - `compile.rs`: a query made ready, and what its conditions say of a row
//! - `sort.rs`, `source.rs`: sort keys, indexes
//! - `window.rs`, `view.rs`: a result, and how it is looked up
//! - `turn.rs`: what changes do to a result
//! - `difference.rs`: what is told of that
//! - `totals.rs`: counts and sums
//! - `live.rs`: what users hold
//! - `readable.rs`: what is told of rows that do not fit their type
//! - `wakers.rs`: who is to be woken

mod compile;
mod difference;
mod live;
mod readable;
mod sort;
mod source;
mod totals;
mod turn;
mod view;
mod wakers;
mod window;

pub use difference::Difference;
pub(crate) use live::Shared;
pub use live::{Live, LiveChanges, LiveTotals, NodeChanges, TotalsChanges};
pub(crate) use source::{Change, Rows};
pub use totals::Total;
pub(crate) use turn::Batch;
pub use wakers::Wakers;

use compile::{Compiled, Schemas};
use live::{Kept, State};
use partysync::Result;
use partysync::query::plan;
use source::{Indexes, Source, Spec};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use totals::TotalsView;
use view::View;

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Rows(plan::Plan),
    Totals(plan::Totals),
}

/// What a replica tells of its rows. Behind a trait, so that a program without queries has nothing of
/// them: only what makes [`Views`] leads to the rest.
pub(crate) trait Watching: std::fmt::Debug + Send + Sync {
    /// The result of a query: the one that is there for an equal one, or a new one.
    ///
    /// # Errors
    /// The query names what is not there.
    fn ask(&mut self, asked: Asked, rows: &dyn Rows) -> Result<Arc<Shared>>;

    /// Rows have changed; `rows` are those after it.
    fn update(&mut self, changes: &Batch, rows: &dyn Rows);

    /// Any row of these tables may have changed.
    fn reset(&mut self, tables: &BTreeSet<&'static str>, rows: &dyn Rows);

    /// What is kept up to date.
    #[cfg(feature = "devtools")]
    fn inspect(&self) -> Vec<crate::devtools::Query>;

    /// Nothing changes any more.
    fn end(&mut self);

    /// Who is to be woken since the last call.
    fn take_wakers(&mut self) -> Wakers;
}

/// All results that are kept up to date.
#[derive(Debug)]
pub(crate) struct Views {
    indexes: Indexes,
    results: Vec<(Asked, Weak<Shared>)>,
    schemas: Schemas,
    batch: u64,
    wakers: Wakers,
}

impl Views {
    pub(crate) fn new(schemas: Schemas) -> Self {
        let (indexes, results) = (Indexes::default(), Vec::new());
        Self { indexes, results, schemas, batch: 0, wakers: Wakers::default() }
    }

    fn source<'a>(&'a self, rows: &'a dyn Rows) -> Source<'a> {
        Source { rows, indexes: &self.indexes }
    }

    /// Forgets results that nobody holds any more.
    fn tidy(&mut self) {
        if self.results.iter().any(|(_, shared)| shared.strong_count() == 0) {
            self.results.retain(|(_, shared)| shared.strong_count() > 0);
            let specs = self.specs();
            self.indexes.keep(&specs);
        }
    }

    /// The indexes that are wanted.
    fn specs(&self) -> BTreeSet<Spec> {
        let mut specs = BTreeSet::new();
        self.each(|state| match &state.result {
            Kept::Rows(view) => view.node.add_specs(&mut specs),
            Kept::Totals(totals) => totals.add_specs(&mut specs),
        });
        specs
    }

    fn each(&self, mut f: impl FnMut(&mut State)) {
        self.results
            .iter()
            .filter_map(|(_, shared)| shared.upgrade())
            .for_each(|s| f(&mut s.state()));
    }
}

impl Watching for Views {
    fn ask(&mut self, asked: Asked, rows: &dyn Rows) -> Result<Arc<Shared>> {
        let known = self.results.iter().find(|(other, _)| *other == asked);
        if let Some(shared) = known.and_then(|(_, shared)| shared.upgrade()) {
            return Ok(shared);
        }
        // Their indexes may be what this one wants.
        self.results.retain(|(_, shared)| shared.strong_count() > 0);
        let mut specs = self.specs();
        let kept = match &asked {
            Asked::Rows(plan) => {
                let node = Compiled::new(plan, &self.schemas)?;
                node.add_specs(&mut specs);
                self.indexes.want(&specs, rows);
                Kept::Rows(View::new(node, self.source(rows), self.batch))
            }
            Asked::Totals(plan) => {
                let mut totals = TotalsView::new(plan, &self.schemas)?;
                totals.add_specs(&mut specs);
                self.indexes.want(&specs, rows);
                totals.reset(self.source(rows));
                Kept::Totals(totals)
            }
        };
        let shared = Arc::new(Shared::new(kept));
        self.results.push((asked, Arc::downgrade(&shared)));
        Ok(shared)
    }

    fn update(&mut self, changes: &Batch, rows: &dyn Rows) {
        self.tidy();
        self.batch += 1;
        for (table, changes) in changes {
            self.indexes.change(table, changes);
        }
        let (source, mut wakers) = (self.source(rows), Wakers::default());
        self.each(|state| state.update(changes, source, self.batch, &mut wakers));
        self.wakers.append(wakers);
    }

    fn reset(&mut self, tables: &BTreeSet<&'static str>, rows: &dyn Rows) {
        self.tidy();
        self.batch += 1;
        tables.iter().for_each(|table| self.indexes.rebuild(table, rows));
        let (source, mut wakers) = (self.source(rows), Wakers::default());
        self.each(|state| state.reset(tables, source, self.batch, &mut wakers));
        self.wakers.append(wakers);
    }

    #[cfg(feature = "devtools")]
    fn inspect(&self) -> Vec<crate::devtools::Query> {
        let held = |(asked, shared): &(Asked, Weak<Shared>)| {
            Some(shared.upgrade()?.state().inspect(asked))
        };
        self.results.iter().filter_map(held).collect()
    }

    fn end(&mut self) {
        let mut wakers = Wakers::default();
        self.each(|state| state.end(&mut wakers));
        self.wakers.append(wakers);
    }

    fn take_wakers(&mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        self.end();
        self.take_wakers().wake();
    }
}
