//! [`Reading`]: what is asked of a client again when it changes, and whether its rows are here.

use super::{Loaded, spawn_here};
use crate::answer::closed;
use crate::{Phase, SyncClient, Update};
use ::leptos::prelude::{Update as _, *};
use futures::stream::{self, PollNext};
use futures::{Stream, StreamExt};
use partysync::{Action, Result};

/// Whether what is read is here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading(RwSignal<Loaded<()>>);

/// What was asked: the tables that it depends on, and what happens to it.
pub(super) type Asked<S> = (Vec<&'static str>, S);

/// What a reader hears.
pub(super) enum Heard<T> {
    Changes(T),
    Update(Update),
}

impl Reading {
    /// Asks now, and again when `plan` changes, and takes in what happens to what was asked last.
    ///
    /// Where a server renders, it asks once.
    pub(super) fn new<A, P, S>(
        client: SyncClient<A>,
        plan: Memo<P>,
        ask: impl Fn(&SyncClient<A>, P) -> Result<Asked<S>> + 'static,
        take: impl Fn(Heard<S::Item>) + Clone + 'static,
    ) -> Self
    where
        A: Action + Send,
        P: Clone + PartialEq + Send + Sync + 'static,
        S: Stream + 'static,
    {
        let reading = Self(RwSignal::new(Loaded::Loading));
        let asks = move |plan: P| {
            let updates = client.updates();
            match ask(&client, plan) {
                Ok((tables, changes)) => {
                    reading.look(&client, &tables);
                    Some((client.clone(), tables, changes, updates))
                }
                Err(error) => {
                    reading.set(Loaded::Failed(error));
                    None
                }
            }
        };
        let first = plan.get_untracked();
        let mut first = Some((first.clone(), asks(first)));
        Effect::new(move |_| {
            let now = plan.get();
            let asked = match first.take() {
                Some((plan, asked)) if plan == now => asked,
                _ => asks(now),
            };
            let Some((client, tables, changes, updates)) = asked else { return };
            let take = take.clone();
            // A change is told before the update that has brought it.
            let heard = stream::select_with_strategy(
                changes.map(Heard::Changes),
                updates.map(Heard::Update),
                |(): &mut ()| PollNext::Left,
            );
            let work = heard.for_each(move |heard| {
                let update = matches!(heard, Heard::Update(_));
                take(heard);
                if update {
                    reading.look(&client, &tables);
                }
                std::future::ready(())
            });
            // Until something else is asked, or the component is gone.
            spawn_here(work);
        });
        reading
    }

    /// Whether all is here, or why it cannot be.
    pub(super) fn get(self) -> Loaded<()> {
        // The component is gone.
        self.0.try_get().unwrap_or_else(|| Loaded::Failed(closed()))
    }

    fn look<A: Action>(self, client: &SyncClient<A>, tables: &[&'static str]) {
        self.set(if tables.iter().all(|table| client.is_complete(table)) {
            Loaded::Ready(())
        } else {
            match client.status().phase {
                Phase::Refused(error) => Loaded::Failed(error),
                Phase::Closed => Loaded::Failed(closed()),
                _ => Loaded::Loading,
            }
        });
    }

    fn set(self, now: Loaded<()>) {
        set(self.0, now);
    }
}

/// Sets a signal, if that is another value.
pub(super) fn set<T: PartialEq + Send + Sync + 'static>(signal: RwSignal<T>, value: T) {
    let maybe = |there: &mut T| {
        let another = *there != value;
        if another {
            *there = value;
        }
        (another, ())
    };
    // The component may be gone.
    let _ = signal.try_maybe_update(maybe);
}
