//! A live result, and what somebody has put together who hears of its changes.

use super::app::Tracker;
use super::oracle::Oracle;
use futures::Stream;
use partysync::query::Query;
use partysync::query::plan::Plan;
use partysync::{Code, Error, Record, Result};
use partysync_client::query::{Difference, Live, LiveChanges};
use partysync_client::testing::{ClientId, World};
use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A live result, and what somebody has put together who hears of its changes.
pub(super) struct Watched<R> {
    plan: Plan,
    live: Live<R>,
    changes: LiveChanges<R>,
    told: Vec<R>,
    heard: Vec<String>,
}

/// One of any record.
pub(super) trait Watch {
    fn check(&mut self, oracle: &Oracle) -> Result<(), String>;
}

impl<R: Record + PartialEq + Debug> Watched<R> {
    pub(super) fn watch(
        world: &mut World<Tracker>,
        client: ClientId,
        plan: Plan,
    ) -> Result<Box<dyn Watch>> {
        // It is plain data.
        let json = |e: serde_json::Error| Error::new(Code::Internal, e.to_string());
        let text = serde_json::to_string(&plan).map_err(json)?;
        if serde_json::from_str::<Plan>(&text).map_err(json)? != plan {
            return Err(Error::new(Code::Internal, format!("{text} is another query")));
        }
        let live = world.query(client, &Query::<R>::from_plan(plan.clone())?)?;
        let (changes, told, heard) = (live.changes(), Vec::new(), Vec::new());
        Ok(Box::new(Self { plan, live, changes, told, heard }))
    }

    /// A place beyond the end is passed over by whoever makes the change: it is not to be told.
    fn fits(&self, difference: &Difference<R>) -> bool {
        let len = self.told.len();
        match difference {
            Difference::Inserted(at, _) => *at <= len,
            Difference::Moved(from, to, _) => *from < len && *to < len,
            Difference::Updated(at, _) | Difference::Removed(at) => *at < len,
            Difference::Reset(_) => true,
        }
    }
}

fn now<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    match Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

impl<R: Record + PartialEq + Debug> Watch for Watched<R> {
    fn check(&mut self, oracle: &Oracle) -> Result<(), String> {
        let error = |error: Error| error.to_string();
        let expected = oracle.nodes(&self.plan).map_err(error)?;
        let nodes = self.live.nodes();
        if nodes != expected || self.live.len() != expected.len() {
            return Err(format!("{:#?}\nis    {nodes:?}\nisn't {expected:?}", self.plan));
        }
        while let Some(differences) = now(&mut self.changes) {
            for difference in differences {
                self.heard.push(format!("{difference:?}"));
                let difference = difference.try_map(|found| Ok::<_, String>(found.row.clone()))?;
                if !self.fits(&difference) {
                    return Err(format!("{difference:?} is told where it does not fit"));
                }
                difference.apply(&mut self.told);
            }
        }
        let rows = self.live.rows();
        if !self.told.iter().eq(rows.iter().map(|found| &found.row)) {
            let Self { plan, told, heard, .. } = self;
            return Err(format!("{plan:#?}\nis    {rows:?}\nwas told as {told:?} by {heard:#?}"));
        }
        Ok(())
    }
}
