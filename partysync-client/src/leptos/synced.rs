//! [`Synced`]: a room in a component.

use super::reading::{Heard, Reading, set};
use super::rooms::Room;
use super::rows::Rows;
use super::{Loaded, for_each};
use crate::query::{LiveTotals, Total};
use crate::{Answer, Status, SyncClient, Update};
use ::leptos::prelude::*;
use futures::{Stream, StreamExt, stream};
use partysync::query::{Found, Group, Query, Totals, Tuple};
use partysync::{Action, Error, Key, Record};
use serde_json::Value as Json;
use std::sync::Arc;

/// A room in a component: cheap to copy, gone with the component.
pub struct Synced<A: Action + Send> {
    room: StoredValue<Arc<Room<A>>>,
    status: Signal<Status>,
}

impl<A: Action + Send> Clone for Synced<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Action + Send> Copy for Synced<A> {}

impl<A: Action + Send> std::fmt::Debug for Synced<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synced").finish_non_exhaustive()
    }
}

impl<A: Action + Send> Synced<A> {
    pub(super) fn new(room: Arc<Room<A>>) -> Self {
        let leaving = room.clone();
        on_cleanup(move || leaving.leave());
        Self { status: room.status.clone().into(), room: StoredValue::new(room) }
    }

    /// The room that it follows.
    ///
    /// # Panics
    /// When the component is gone.
    pub(super) fn room(&self) -> Arc<Room<A>> {
        self.room.get_value()
    }

    /// Does an action; see [`SyncClient::send`]. When the component is gone, so is the client: the
    /// answer is [`Code::Closed`](partysync::Code::Closed).
    pub fn send(&self, action: A) -> Answer {
        self.room.try_with_value(|room| room.client.send(action)).unwrap_or_else(Answer::closed)
    }

    /// The client.
    ///
    /// # Panics
    /// When the component is gone.
    #[must_use]
    pub fn client(&self) -> SyncClient<A> {
        self.room.with_value(|room| room.client.clone())
    }

    /// Where the client stands.
    #[must_use]
    pub fn status(&self) -> Signal<Status> {
        self.status
    }

    /// The rows that a query finds. It is asked anew when a signal that it reads changes.
    #[must_use]
    pub fn query<R: Record + Send + Sync, W: Tuple + Send + Sync + 'static>(
        &self,
        query: impl Fn() -> Query<R, W> + Send + Sync + 'static,
    ) -> Rows<R, W> {
        Rows::new(*self, query)
    }

    /// The row with this key, or that there is none. It is asked for anew when a signal that gives
    /// the key changes.
    #[must_use]
    pub fn row<R: Record + Send + Sync>(
        &self,
        key: impl Fn() -> Key + Send + Sync + 'static,
    ) -> Signal<Loaded<Option<Arc<Found<R>>>>> {
        let rows = self.query(move || Query::<R>::by_key(key()));
        let row = Memo::new_with_compare(
            move |_| rows.first(),
            |before, now| match (before, now) {
                // What is read of a row is a new one each time that it changes.
                (Some(Loaded::Ready(Some(before))), Some(Loaded::Ready(Some(now)))) => {
                    !Arc::ptr_eq(before, now)
                }
                (Some(Loaded::Loading), Some(Loaded::Loading))
                | (Some(Loaded::Ready(None)), Some(Loaded::Ready(None))) => false,
                _ => true,
            },
        );
        row.into()
    }

    /// Counts and sums. They are asked for anew when a signal that they read changes.
    #[must_use]
    pub fn totals<R: Record, G: Group + Clone + PartialEq + Send + Sync + 'static>(
        &self,
        totals: impl Fn() -> Totals<R, G> + Send + Sync + 'static,
    ) -> Signal<Loaded<Vec<Total<G>>>> {
        let found = RwSignal::new(None);
        let read = move |live: &LiveTotals<R, G>| set(found, Some(live.totals()));
        let reading = Reading::new(
            self.client(),
            Memo::new(move |_| totals().plan()),
            move |client, plan| {
                let live = client.totals(&Totals::<R, G>::from_plan(plan?)?)?;
                read(&live);
                let (tables, changes) = (live.tables(), live.changes());
                Ok((tables, changes.map(move |_| live.clone())))
            },
            move |heard| {
                if let Heard::Changes(live) = heard {
                    read(&live);
                }
            },
        );
        let totals = Memo::new(move |_| match (reading.get(), found.get()) {
            (Loaded::Failed(error), _) | (_, Some(Err(error))) => Loaded::Failed(error),
            (Loaded::Ready(()), Some(Ok(totals))) => Loaded::Ready(totals),
            _ => Loaded::Loading,
        });
        totals.into()
    }

    /// How many rows a query finds.
    #[must_use]
    pub fn count<R: Record>(
        &self,
        query: impl Fn() -> Query<R> + Send + Sync + 'static,
    ) -> Signal<Loaded<u64>> {
        let totals = self.totals(move || query().count());
        let count = move |totals: Vec<Total<()>>| totals.first().map_or(0, |total| total.count);
        let count = Memo::new(move |_| totals.get().map(count));
        count.into()
    }

    /// What the server could not use, and rejections that nobody waits for, from now on: each one.
    pub fn errors(&self) -> impl Stream<Item = Error> + Send + use<A> {
        self.updates(|update| update.errors)
    }

    /// The server's messages of the application's own, from now on: each one.
    pub fn messages(&self) -> impl Stream<Item = Json> + Send + use<A> {
        self.updates(|update| update.messages)
    }

    fn updates<T>(&self, part: fn(Update) -> Vec<T>) -> impl Stream<Item = T> + use<A, T> {
        self.client().updates().flat_map(move |update| stream::iter(part(update)))
    }

    /// Calls this with each of the [`errors`](Self::errors), for as long as the component lives.
    pub fn on_error(&self, f: impl FnMut(Error) + 'static) {
        for_each(self.errors(), f);
    }

    /// Calls this with each of the [`messages`](Self::messages), for as long as the component lives.
    pub fn on_message(&self, f: impl FnMut(Json) + 'static) {
        for_each(self.messages(), f);
    }
}
