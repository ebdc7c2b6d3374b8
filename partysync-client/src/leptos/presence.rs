//! [`Presence`]: who else is here, in a component.

use super::rooms::Room;
use super::{Synced, for_each};
use crate::{Known, Other, presence};
use ::leptos::prelude::*;
use partysync::Action;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Says that this page is here for as long as the component lives, and tells who else is: `W` is who
/// somebody is, as the server says ([`SyncServer::presence`](partysync::SyncServer::presence)), `P` the
/// state that each page gives of itself. That is told anew when a signal that it reads changes.
///
/// ```no_run
/// # use partysync::{Action, Record};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(insert)] Create { id: String } }
/// use leptos::prelude::*;
/// use partysync_client::leptos::{Presence, use_presence, use_sync};
/// use partysync_client::{Place, User};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq)]
/// struct Pointer { x: i32, y: i32 }
///
/// # fn component() -> impl IntoView {
/// let sync = use_sync::<NoteAction>(&Place::new("notes", "default", User::new("ada")));
/// let (pointer, set_pointer) = signal((0, 0));
/// let presence: Presence<String, Pointer> = use_presence(sync, move || {
///     let (x, y) = pointer.get();
///     Pointer { x, y }
/// });
/// view! {
///     <main on:pointermove=move |event| set_pointer.set((event.client_x(), event.client_y()))>
///         <For each=move || presence.keys() key=Clone::clone let:id>
///             {presence.get(&id).map(|other| view! {
///                 <span
///                     style:left=move || format!("{}px", other.get().state.x)
///                     style:top=move || format!("{}px", other.get().state.y)
///                 >
///                     {move || other.get().who.clone()}
///                 </span>
///             })}
///         </For>
///     </main>
/// }
/// # }
/// ```
///
/// A page is one to the others, whatever its components say: what the one that was mounted last says
/// counts, and when that is gone, what the one before says.
#[must_use]
pub fn use_presence<A, W, P>(
    sync: Synced<A>,
    state: impl Fn() -> P + Send + Sync + 'static,
) -> Presence<W, P>
where
    A: Action + Send,
    W: DeserializeOwned + PartialEq + Send + Sync + 'static,
    P: Serialize + DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    use_presence_at(sync, String::new, state)
}

/// As [`use_presence`], at a topic: a part of the room, as a board or a document, which may be another when
/// a signal changes. Those who are at the same one are told of each other. The server says who may be
/// there.
#[must_use]
pub fn use_presence_at<A, W, P>(
    sync: Synced<A>,
    topic: impl Fn() -> String + Send + Sync + 'static,
    state: impl Fn() -> P + Send + Sync + 'static,
) -> Presence<W, P>
where
    A: Action + Send,
    W: DeserializeOwned + PartialEq + Send + Sync + 'static,
    P: Serialize + DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    let others = RwSignal::new(Others::new());
    let connections = RwSignal::new(0);
    let room = sync.room();
    let holder = room.hold_presence();
    let leaving = room.clone();
    on_cleanup(move || leaving.stop_saying(holder));
    let says = room.clone();
    Effect::new(move |_| match presence::state(&state()) {
        Ok(state) => says.say_presence(holder, Some((topic(), state))),
        Err(error) => ::leptos::logging::error!("partysync: {error}"),
    });
    let read = move |room: &Room<A>| {
        let known = room.client.inner().peer.others().clone();
        super::reading::set(connections, room.client.connections());
        // The component may be gone.
        let _ = others.try_maybe_update(|others| (change(others, &known), ()));
    };
    read(&room);
    for_each(room.client.updates(), move |update| {
        if update.presence {
            read(&room);
        }
    });
    Presence { others, connections }
}

/// The others, each with what is known of it as it was read last.
type Others<W, P> = BTreeMap<String, (Arc<Known>, ArcRwSignal<Arc<Other<W, P>>>)>;

/// Takes in who is here now; whether somebody has come or gone. Only what has changed is read.
fn change<W, P>(others: &mut Others<W, P>, known: &BTreeMap<String, Arc<Known>>) -> bool
where
    W: DeserializeOwned + PartialEq + Send + Sync + 'static,
    P: DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    let count = others.len();
    others.retain(|id, _| known.contains_key(id));
    let mut changed = others.len() != count;
    for (id, known) in known {
        let before = others.get_mut(id);
        if before.as_ref().is_some_and(|(before, _)| Arc::ptr_eq(before, known)) {
            continue;
        }
        match (before, Other::read(id, known)) {
            (Some((before, signal)), Some(now)) => {
                before.clone_from(known);
                if **signal.read_untracked() != now {
                    signal.set(Arc::new(now));
                }
            }
            (None, Some(now)) => {
                let signal = ArcRwSignal::new(Arc::new(now));
                others.insert(id.clone(), (known.clone(), signal));
                changed = true;
            }
            // Of another version of the application.
            (before, None) => {
                changed |= before.is_some();
                others.remove(id);
            }
        }
    }
    changed
}

/// Who else is here: see [`use_presence`].
#[derive(Debug)]
pub struct Presence<W: 'static, P: 'static> {
    others: RwSignal<Others<W, P>>,
    connections: RwSignal<u64>,
}

impl<W, P> Clone for Presence<W, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W, P> Copy for Presence<W, P> {}

impl<W: Send + Sync + 'static, P: Send + Sync + 'static> Presence<W, P> {
    /// The names of the others who are here, in an order that does not change. It is another when
    /// somebody comes or goes, and not when a state changes.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.others.try_with(|others| others.keys().cloned().collect()).unwrap_or_default()
    }

    /// One of them, as it changes; `None` when it is gone.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Signal<Arc<Other<W, P>>>> {
        let other = self.others.try_with_untracked(|others| others.get(id).cloned()).flatten();
        other.map(|(_, signal)| signal.into())
    }

    /// All of them, as they are now. It is another whenever one has another state: what shows a list
    /// of them has less to do with [`keys`](Self::keys) and [`get`](Self::get).
    #[must_use]
    pub fn others(&self) -> Vec<Arc<Other<W, P>>> {
        let signals: Vec<_> =
            self.others.try_with(|others| others.values().cloned().collect()).unwrap_or_default();
        signals.iter().map(|(_, signal)| signal.get()).collect()
    }

    /// How many connections the room has, with this one and those of who does not say that it is here:
    /// see [`SyncClient::connections`](crate::SyncClient::connections).
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.try_get().unwrap_or_default()
    }
}
