//! Reactive rows for Leptos: [`use_sync`].
//!
//! ```no_run
//! # use partysync::{Action, Record};
//! # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "todos")]
//! # struct Todo { #[record(key)] id: String, text: String }
//! # #[derive(Action, Clone, Debug)] #[action(record = Todo)]
//! # enum TodoAction { #[action(delete)] Delete { id: String } }
//! use leptos::prelude::*;
//! use partysync_client::leptos::use_sync;
//! use partysync_client::{Place, User};
//!
//! # fn component() {
//! let sync = use_sync::<TodoAction>(&Place::new("todos", "default", User::new("ada")));
//! let todos = sync.rows::<Todo>();
//! view! {
//!     <For each=move || todos.keys().get() key=Clone::clone let:key>
//!         {todos.get(&key).map(|todo| view! { <li>{move || todo.row.get().text}</li> })}
//!     </For>
//! };
//! # }
//! ```
//!
//! A row is a signal of its own: what shows it runs again when it changes, and for no other row.

use crate::{Answer, Changed, Endpoint, Options, Place, Status, SyncClient, Update};
use ::leptos::prelude::*;
use ::leptos::task::spawn_local;
use futures::StreamExt;
use partysync::{Action, Error, Key, Record};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// Follows a room of the server that the page came from for as long as the component lives, with a
/// replica in the browser's storage: rows are shown before there is a connection, and what was not
/// sent yet outlives the page.
#[must_use]
pub fn use_sync<A: Action + Send>(place: &Place) -> Synced<A> {
    #[cfg(target_arch = "wasm32")]
    let options = Options::new(crate::store::IndexedDbStore::new(place));
    #[cfg(not(target_arch = "wasm32"))]
    let options = Options::default();
    use_sync_with(crate::transport::page_endpoint(place), options)
}

/// As [`use_sync`], with another server, credentials ([`Endpoint`]) or options: another store, or
/// none that outlives the page ([`Options::default`]).
#[must_use]
pub fn use_sync_with<A: Action + Send>(
    endpoint: impl Into<Endpoint>,
    options: Options,
) -> Synced<A> {
    let transport = crate::transport::WebTransport;
    let (client, driver) = SyncClient::make(endpoint.into(), options, transport);
    in_a_page(driver);
    let status = RwSignal::new(client.status());
    let (errors, message) = (RwSignal::new(None), RwSignal::new(None));
    let mut updates = client.updates();
    in_a_page(async move {
        while let Some(update) = updates.next().await {
            let Update { status: now, errors: new, messages, .. } = update;
            match status.try_get_untracked() {
                Some(before) if before != now => status.set(now),
                Some(_) => {}
                None => return,
            }
            for error in new {
                one_by_one(errors, error).await;
            }
            for new in messages {
                one_by_one(message, new).await;
            }
        }
    });
    let closing = client.clone();
    on_cleanup(move || closing.close());
    Synced { client: StoredValue::new(client), status, errors, message }
}

/// Sets a signal, and lets the effects run that follow it: none misses what is set next.
async fn one_by_one<T: Send + Sync + 'static>(signal: RwSignal<Option<T>>, value: T) {
    // The component may be gone.
    if signal.try_set(Some(value)).is_none() {
        ::leptos::task::tick().await;
    }
}

/// Runs this when the page is there. Effects do not run where a server renders it: there nothing
/// connects, and no store is opened.
fn in_a_page(work: impl Future<Output = ()> + 'static) {
    let mut work = Some(work);
    Effect::new(move |_| {
        if let Some(work) = work.take() {
            spawn_local(work);
        }
    });
}

/// A room in a component: cheap to copy, gone with the component.
pub struct Synced<A: Action + Send> {
    client: StoredValue<SyncClient<A>>,
    status: RwSignal<Status>,
    errors: RwSignal<Option<Error>>,
    message: RwSignal<Option<serde_json::Value>>,
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
    /// Does an action; see [`SyncClient::send`]. When the component is gone, so is the client: the
    /// answer is [`Code::Closed`](partysync::Code::Closed).
    pub fn send(&self, action: A) -> Answer {
        self.client.try_with_value(|client| client.send(action)).unwrap_or_else(Answer::closed)
    }

    /// The client.
    ///
    /// # Panics
    /// When the component is gone.
    #[must_use]
    pub fn client(&self) -> SyncClient<A> {
        self.client.get_value()
    }

    /// Where the client stands.
    #[must_use]
    pub fn status(&self) -> Signal<Status> {
        self.status.into()
    }

    /// The last thing that the server could not use, or rejection that nobody waits for. An effect
    /// that reads it runs for each, in order.
    #[must_use]
    pub fn error(&self) -> Signal<Option<Error>> {
        self.errors.into()
    }

    /// The last message of the application's own. An effect that reads it runs for each, in order.
    #[must_use]
    pub fn message(&self) -> Signal<Option<serde_json::Value>> {
        self.message.into()
    }

    /// The rows of a record. Call it once in a component and pass the result on.
    #[must_use]
    pub fn rows<R: Record + Send + Sync + PartialEq>(&self) -> Rows<R> {
        let client = self.client();
        let rows = Rows {
            keys: RwSignal::new(Vec::new()),
            entries: StoredValue::new(BTreeMap::new()),
            record: PhantomData,
        };
        rows.update(&client, &Changed::All);
        let mut updates = client.updates();
        in_a_page(async move {
            while let Some(update) = updates.next().await {
                if rows.keys.try_get_untracked().is_none() {
                    return;
                }
                if let Some(changed) = update.changes.get(R::SCHEMA.table) {
                    rows.update(&client, changed);
                }
            }
        });
        rows
    }

    /// Whether the row's shown state is not the server's word yet. Not reactive; see [`Row`].
    #[must_use]
    pub fn is_pending<R: Record>(&self, key: impl Into<Key>) -> bool {
        self.client.try_with_value(|client| client.is_pending::<R>(key)).unwrap_or_default()
    }
}

/// One row, as signals.
#[derive(Debug)]
pub struct Row<R: Send + Sync + 'static> {
    /// The row as it is shown.
    pub row: ArcRwSignal<R>,
    /// Whether that is not the server's word yet.
    pub pending: ArcRwSignal<bool>,
}

impl<R: Send + Sync + 'static> Clone for Row<R> {
    fn clone(&self) -> Self {
        Self { row: self.row.clone(), pending: self.pending.clone() }
    }
}

/// The rows of a record: which there are is one signal, what is in each another.
#[derive(Debug)]
pub struct Rows<R: Send + Sync + 'static> {
    keys: RwSignal<Vec<Key>>,
    entries: StoredValue<BTreeMap<Key, Row<R>>>,
    record: PhantomData<R>,
}

impl<R: Send + Sync + 'static> Clone for Rows<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Send + Sync + 'static> Copy for Rows<R> {}

impl<R: Record + Send + Sync + PartialEq> Rows<R> {
    /// The keys of the rows there are, in order.
    #[must_use]
    pub fn keys(&self) -> Signal<Vec<Key>> {
        self.keys.into()
    }

    /// A row that is there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Row<R>> {
        self.entries.with_value(|entries| entries.get(key).cloned())
    }

    /// All rows, by key. What reads it runs again when any row changes.
    #[must_use]
    pub fn all(&self) -> Vec<R> {
        self.keys.get().iter().filter_map(|key| self.get(key)).map(|row| row.row.get()).collect()
    }

    fn update<A: Action + Send>(&self, client: &SyncClient<A>, changed: &Changed) {
        match changed {
            Changed::Keys(keys) => self.look_at(client, keys.iter()),
            Changed::All => {
                let mut keys = client.keys(R::SCHEMA.table);
                let gone = |key: &&Key| keys.binary_search(key).is_err();
                let gone: Vec<_> = self
                    .entries
                    .with_value(|entries| entries.keys().filter(gone).cloned().collect());
                keys.extend(gone);
                self.look_at(client, keys.iter());
            }
        }
    }

    fn look_at<'a, A: Action + Send>(
        &self,
        client: &SyncClient<A>,
        keys: impl Iterator<Item = &'a Key>,
    ) {
        let mut membership = false;
        for key in keys {
            let (row, pending) =
                (client.get::<R>(key.clone()), client.is_pending::<R>(key.clone()));
            let Ok(Some(row)) = row else {
                self.entries.update_value(|entries| membership |= entries.remove(key).is_some());
                continue;
            };
            match self.get(key) {
                Some(entry) => {
                    if entry.row.get_untracked() != row {
                        entry.row.set(row);
                    }
                    if entry.pending.get_untracked() != pending {
                        entry.pending.set(pending);
                    }
                }
                None => {
                    let entry =
                        Row { row: ArcRwSignal::new(row), pending: ArcRwSignal::new(pending) };
                    self.entries.update_value(|entries| drop(entries.insert(key.clone(), entry)));
                    membership = true;
                }
            }
        }
        if membership {
            self.keys.set(self.entries.with_value(|entries| entries.keys().cloned().collect()));
        }
    }
}
