//! Where a replica is kept: a [`Store`] takes what changed and gives all of it back.

#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod indexed_db;
mod memory;
mod saved;
#[cfg(all(feature = "sqlite", not(target_arch = "wasm32")))]
mod sqlite;

#[cfg(all(feature = "web", target_arch = "wasm32"))]
pub use indexed_db::IndexedDbStore;
pub use memory::MemoryStore;
pub use saved::{
    Abandoned, Fit, Kept, Outbox, RowsWrite, Saved, SavedAction, SavedChannel, Suspicion, Write,
};
#[cfg(all(feature = "sqlite", not(target_arch = "wasm32")))]
pub use sqlite::SqliteStore;

use crate::peer::Note;
use futures::Stream;
use partysync::{Error, Result};
use std::future::Future;
use std::pin::Pin;

/// What a store will have done.
#[cfg(not(target_arch = "wasm32"))]
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;
/// What a store will have done.
#[cfg(target_arch = "wasm32")]
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// What a store tells.
#[cfg(not(target_arch = "wasm32"))]
pub type Events = Pin<Box<dyn Stream<Item = StoreEvent> + Send>>;
/// What a store tells.
#[cfg(target_arch = "wasm32")]
pub type Events = Pin<Box<dyn Stream<Item = StoreEvent>>>;

/// What native programs need of a store: its client is driven on any thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shareable: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync> Shareable for T {}
/// What native programs need of a store; a page has one thread.
#[cfg(target_arch = "wasm32")]
pub trait Shareable {}
#[cfg(target_arch = "wasm32")]
impl<T> Shareable for T {}

/// Something that happens to what is kept, from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEvent {
    /// The outbox of a client that is gone; the store has it now, and nobody else gets it before
    /// the store is dropped or told to let go of it. It may be empty.
    Orphan(Outbox),
    /// A living client of the same replica tells the others.
    Note(Note),
    /// The store broke, and has to be opened again.
    Broke(Error),
    /// Somebody has deleted what is kept, as when a user logs out.
    Deleted,
}

/// A place to keep a replica: the confirmed rows of a room, and the outboxes of its clients.
///
/// Several clients at a time may share a place, as the tabs of an app do. They share its rows;
/// each has an outbox of its own, which is handed on when its client is gone.
pub trait Store: Shareable {
    /// Opens the place for the client with this id, and reads it. Outboxes that nobody uses are
    /// taken: nobody else gets them before this store is dropped, or told to let go of them
    /// ([`take_over`](Self::take_over)). Called again after a failure;
    /// what was taken before stays taken, and is not read again.
    ///
    /// # Errors
    /// When it cannot be read: the client goes on without, and asks again later.
    fn open<'a>(&'a self, client: &'a str) -> Stored<'a, Saved>;

    /// Keeps these writes: all of them, or none.
    ///
    /// # Errors
    /// When they cannot be kept: the client goes on without, and opens it again later.
    fn write(&self, writes: Vec<Write>) -> Stored<'_, ()>;

    /// What happens to it from outside, from now on. Called once, before it is opened.
    fn events(&self) -> Events {
        Box::pin(futures::stream::pending())
    }

    /// Tells the other clients of the same place.
    fn tell(&self, _note: &Note) {}

    /// Whether it takes over the outboxes that other clients leave behind, as it does until it is
    /// told otherwise. With `false` it lets go of those that it took, for other clients of the
    /// place to send; with `true` it takes those that nobody has, each as a
    /// [`StoreEvent::Orphan`]. Nothing to do for a store that one client uses at a time.
    fn take_over(&self, _others: bool) {}

    /// Deletes all that is kept in this place; clients that use it end.
    ///
    /// # Errors
    /// When it cannot be done.
    fn delete(&self) -> Stored<'_, ()>;
}
