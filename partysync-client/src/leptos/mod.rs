//! Rows for Leptos: [`use_sync`] follows a room, [`Synced::query`] and [`Synced::row`] read it,
//! [`use_presence`] tells who else is there.
//!
//! ```no_run
//! # use partysync::{Action, Record};
//! # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "todos")]
//! # struct Todo { #[record(key)] id: String, text: String, done: bool }
//! # #[derive(Action, Clone, Debug)] #[action(record = Todo)]
//! # enum TodoAction { #[action(update)] Update { id: String, done: Option<bool> } }
//! use leptos::prelude::*;
//! use partysync_client::leptos::{Listing, use_sync};
//! use partysync_client::{Place, User};
//!
//! # fn component() {
//! let sync = use_sync::<TodoAction>(&Place::new("todos", "default", User::new("ada")));
//! let all = RwSignal::new(false);
//! // Asked anew when a signal that it reads changes.
//! let todos = sync.query(move || match all.get() {
//!     true => Todo::query(),
//!     false => Todo::query().filter(Todo::done.eq(false)).limit(100),
//! });
//! view! {
//!     {move || match todos.listing() {
//!         Listing::Loading => view! { <p>"Loading"</p> }.into_any(),
//!         Listing::Empty => view! { <p>"Nothing to do"</p> }.into_any(),
//!         Listing::Failed(error) => view! { <p>{error.to_string()}</p> }.into_any(),
//!         Listing::Rows => view! {
//!             <For each=move || todos.keys() key=Clone::clone let:key>
//!                 {todos.get(&key).map(|todo| view! {
//!                     <li class:pending=move || todo.pending()>{move || todo.get().text.clone()}</li>
//!                 })}
//!             </For>
//!         }.into_any(),
//!     }}
//! };
//! # }
//! ```
//!
//! - Components that follow the same room share one client. It ends when the last of them is gone:
//!   call [`use_sync`] in one that stays, if a room is to outlive a route.
//! - A row is a signal from when it is mounted until it is not. What shows it runs again when it
//!   changes, and for no other row.
//! - With the feature `web` it is in a page. Without it, as where a server renders, nothing connects
//!   and no store is opened: what is shown is [`Listing::Loading`], in the page's first moment too.
//!
//! - `rooms.rs`: which client is shared by whom
//! - `synced.rs`: a room in a component
//! - `reading.rs`, `rows.rs`, `loaded.rs`: what is read of it
//! - `presence.rs`: who else is there

mod loaded;
mod presence;
mod reading;
mod rooms;
mod rows;
mod synced;

pub use loaded::Loaded;
pub use presence::{Presence, use_presence, use_presence_at};
pub use rows::{Listing, Row, Rows};
pub use synced::Synced;

use crate::transport::{Transport, WebTransport, page_endpoint};
use crate::{Endpoint, Options, Place, SyncClient};
use ::leptos::prelude::*;
use ::leptos::task::spawn_local;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use partysync::Action;
use partysync::wire::snapshot::Snapshot;
use rooms::Room;

/// Follows a room of the server that the page came from for as long as the component lives, with a
/// replica in the browser's storage: rows are shown before there is a connection, and what was not
/// sent yet outlives the page. Whoever else follows it, with actions of the same type, has the same
/// client. To be called in a component: outside there is nothing that it could end with.
#[must_use]
pub fn use_sync<A: Action + Send>(place: &Place) -> Synced<A> {
    use_sync_from(place, None)
}

/// As [`use_sync`], with rows to begin with, which a server has put into the page that it renders:
/// both show them, and the page is hydrated as it is. Where the store has newer ones, those are
/// shown a moment later; where somebody follows the room already, what is shown there.
///
/// The server asks the room ([`Room::snapshot`](partysync::Room::snapshot)) and renders with what it
/// gets; how that reaches the page is the application's, as by a
/// [script](partysync::wire::snapshot::Snapshot::to_script) or a `Resource`. `tests/rendered` in the
/// repository is a Worker that does so.
#[must_use]
pub fn use_sync_from<A: Action + Send>(
    place: &Place,
    rows: impl Into<Option<Snapshot>>,
) -> Synced<A> {
    let room = rooms::find(place, || {
        #[cfg(all(feature = "web", target_arch = "wasm32"))]
        let options = Options::new(crate::store::IndexedDbStore::new(place));
        #[cfg(not(all(feature = "web", target_arch = "wasm32")))]
        let options = Options::default();
        // Those of another room are not this one's.
        let rows = rows.into().filter(|rows| rows.room == place.room());
        SyncClient::make(page_endpoint(place), options.initial(rows), WebTransport)
    });
    Synced::new(room)
}

/// As [`use_sync`], with another server, credentials ([`Endpoint`]) or options: another store, or
/// none that outlives the page ([`Options::default`]). A client of this component's own: pass what
/// it gives on, or put it into a context.
#[must_use]
pub fn use_sync_with<A: Action + Send>(
    endpoint: impl Into<Endpoint>,
    options: Options,
) -> Synced<A> {
    use_sync_over(endpoint, options, WebTransport)
}

/// As [`use_sync_with`], over another transport.
#[must_use]
pub fn use_sync_over<A: Action + Send, T: Transport + Clone + Send>(
    endpoint: impl Into<Endpoint>,
    options: Options,
    transport: T,
) -> Synced<A> {
    let (client, driver) = SyncClient::make(endpoint.into(), options, transport);
    let tables = || A::CHANNELS.iter().map(|schema| schema.table).collect::<Vec<_>>().join(", ");
    Synced::new(Room::start(tables, client, driver, &rooms::root()))
}

/// Runs this when the page is there, until the component is gone. Effects do not run where a server
/// renders it.
fn in_a_page(work: impl Future<Output = ()> + 'static) {
    let mut work = Some(work);
    Effect::new(move |_| work.take().into_iter().for_each(spawn_here));
}

/// Runs this until the owner that it is called in is cleaned up.
fn spawn_here(work: impl Future<Output = ()> + 'static) {
    let (abort, registration) = AbortHandle::new_pair();
    on_cleanup(move || abort.abort());
    spawn_local(async {
        // It was aborted, or has come to its end.
        let _ = Abortable::new(work, registration).await;
    });
}

/// Does this for each, in order, until the component is gone.
fn for_each<T: 'static>(
    items: impl futures::Stream<Item = T> + 'static,
    mut f: impl FnMut(T) + 'static,
) {
    in_a_page(items.for_each(move |item| {
        f(item);
        std::future::ready(())
    }));
}
