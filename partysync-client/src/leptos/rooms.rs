//! Which client is shared by whom: one for each place in a page.

use crate::{Place, Status, SyncClient, Update};
use ::leptos::prelude::*;
use ::leptos::task::{spawn_local, tick};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{StreamExt, select_biased};
use partysync::Action;
use serde_json::Value as Json;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The rooms that a page follows: it is in the context of the page's root, so that a server which
/// renders for several users keeps them apart.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<BTreeMap<Name, Weak<dyn Any + Send + Sync>>>>);

/// An action's type, and whose copy of which room.
type Name = (TypeId, Place);

/// A room that components follow: it closes when the last lets go of it.
#[derive(Debug)]
pub(super) struct Room<A: Action + Send> {
    pub(super) client: SyncClient<A>,
    pub(super) status: ArcRwSignal<Status>,
    /// What components say of this page to others.
    presence: Mutex<Said>,
    /// Takes what a component lets go of.
    leaving: UnboundedSender<Left<A>>,
}

/// A room that a component lets go of, and the number by which it has said something of the page.
type Left<A> = (Arc<Room<A>>, Option<u64>);

/// What components say of a page, by a number for each: the last counts.
#[derive(Debug, Default)]
struct Said {
    holders: u64,
    states: BTreeMap<u64, (String, Json)>,
}

impl<A: Action + Send> Drop for Room<A> {
    fn drop(&mut self) {
        self.client.close();
    }
}

impl<A: Action + Send> Room<A> {
    /// A room whose client this drives.
    pub(super) fn start(
        name: impl FnOnce() -> String,
        client: SyncClient<A>,
        driver: impl Future<Output = ()> + 'static,
        root: &Owner,
    ) -> Arc<Self> {
        let watching = crate::devtools::watching(name, &client);
        let status = ArcRwSignal::new(client.status());
        let (leaving, left) = unbounded();
        let updates = client.updates();
        let follow = follow(updates, left, status.clone());
        let room = Arc::new(Self { client, status, presence: Mutex::default(), leaving });
        // The first component may be gone before the others are.
        root.with(|| {
            let mut work = Some((driver, follow, watching));
            Effect::new(move |_| {
                if let Some((driver, follow, watching)) = work.take() {
                    watching();
                    spawn_local(driver);
                    spawn_local(follow);
                }
            });
        });
        room
    }

    /// A number for a component that says something of this page.
    pub(super) fn hold_presence(&self) -> u64 {
        let mut said = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        said.holders += 1;
        said.holders
    }

    /// What a component says of this page; `None` when it says nothing any more.
    pub(super) fn say_presence(&self, holder: u64, state: Option<(String, Json)>) {
        let mut said = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Some(state) => drop(said.states.insert(holder, state)),
            None => drop(said.states.remove(&holder)),
        }
        let state = said.states.values().next_back().cloned();
        drop(said);
        self.client.with_peer(|inner, now| inner.peer.set_presence(state, now));
    }

    /// A component is gone.
    pub(super) fn leave(self: Arc<Self>) {
        // It is dropped here where nobody takes it: nothing was started.
        let _ = self.leaving.clone().unbounded_send((self, None));
    }

    /// A component is gone that has said something of this page.
    pub(super) fn stop_saying(self: Arc<Self>, holder: u64) {
        let _ = self.leaving.clone().unbounded_send((self, Some(holder)));
    }
}

/// Keeps a room's status. What components let go of, and say, is kept for a moment: another one may
/// follow the same room, as when a route takes the place of another.
async fn follow<A: Action + Send>(
    updates: crate::Updates,
    mut left: UnboundedReceiver<Left<A>>,
    status: ArcRwSignal<Status>,
) {
    let mut updates = updates.fuse();
    loop {
        select_biased! {
            update = updates.next() => match update {
                Some(Update { status: now, .. }) => {
                    if *status.read_untracked() != now {
                        status.set(now);
                    }
                }
                None => return,
            },
            (room, holder) = left.select_next_some() => {
                tick().await;
                holder.into_iter().for_each(|holder| room.say_presence(holder, None));
                drop(room);
            }
        }
    }
}

/// The root of the page that is rendered.
pub(super) fn root() -> Owner {
    let mut root = Owner::current().unwrap_or_default();
    while let Some(parent) = root.parent() {
        root = parent;
    }
    root
}

/// The room of a place, if somebody follows it; or a new one.
pub(super) fn find<A: Action + Send, D: Future<Output = ()> + 'static>(
    place: &Place,
    make: impl FnOnce() -> (SyncClient<A>, D),
) -> Arc<Room<A>> {
    let root = root();
    let rooms = use_context::<Rooms>().unwrap_or_else(|| {
        let rooms = Rooms::default();
        root.with(|| provide_context(rooms.clone()));
        rooms
    });
    let mut rooms = rooms.0.lock().unwrap_or_else(PoisonError::into_inner);
    let name = (TypeId::of::<A>(), place.clone());
    let known = rooms.get(&name).and_then(Weak::upgrade);
    let known = known.and_then(|room| room.downcast::<Room<A>>().ok());
    // One that has ended, as when what was kept was deleted, is of no use.
    if let Some(room) = known.filter(|room| room.client.status().phase != crate::Phase::Closed) {
        return room;
    }
    let (client, driver) = make();
    let shown = || format!("{}/{}", place.party(), place.room());
    let room = Room::start(shown, client, driver, &root);
    rooms.retain(|_, room| room.strong_count() > 0);
    let weak: Weak<Room<A>> = Arc::downgrade(&room);
    rooms.insert(name, weak);
    room
}
