//! Where a replica is kept: a [`Store`] takes what changed and gives all of it back.

#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod indexed_db;
mod memory;
mod saved;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(all(feature = "web", target_arch = "wasm32"))]
pub use indexed_db::IndexedDbStore;
pub use memory::MemoryStore;
pub use saved::{Fit, Outbox, RowsWrite, Saved, SavedAction, SavedChannel, Write};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use futures::Stream;
use partysync::Result;
use std::future::Future;
use std::pin::Pin;

/// What a store will have done.
#[cfg(not(target_arch = "wasm32"))]
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;
/// What a store will have done.
#[cfg(target_arch = "wasm32")]
pub type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// Outboxes that others left behind, as they are found.
#[cfg(not(target_arch = "wasm32"))]
pub type Orphans = Pin<Box<dyn Stream<Item = Orphan> + Send>>;
/// Outboxes that others left behind, as they are found.
#[cfg(target_arch = "wasm32")]
pub type Orphans = Pin<Box<dyn Stream<Item = Orphan>>>;

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

/// A place to keep a replica: the confirmed rows of a room, and the outbox of one client.
///
/// Several clients at a time may share a place, as the tabs of an app do. They share its rows;
/// each has an outbox of its own, which is handed on when its client is gone.
pub trait Store: Shareable {
    /// Takes an outbox that nobody uses, if there is one, and reads it with the rows. Nobody else
    /// gets it before this store is dropped. Called once.
    ///
    /// # Errors
    /// When it cannot be read: the client goes on without.
    fn load(&self) -> Stored<'_, Saved>;

    /// Keeps these writes: all of them, or none. `client` is the replica's id.
    ///
    /// # Errors
    /// When they cannot be kept: the client goes on without.
    fn write<'a>(&'a self, client: &'a str, writes: Vec<Write>) -> Stored<'a, ()>;

    /// Outboxes with pending actions whose clients are gone, now and later. Whoever takes one
    /// pushes them.
    fn orphans(&self) -> Orphans {
        Box::pin(futures::stream::pending())
    }

    /// Forgets the outbox: all in it was answered, and no client goes on with it.
    ///
    /// # Errors
    /// When it cannot be done; then the outbox is found again, empty.
    fn remove(&self) -> Stored<'_, ()> {
        Box::pin(futures::future::ready(Ok(())))
    }
}

/// An outbox whose client is gone.
pub struct Orphan {
    /// What is in it.
    pub outbox: Outbox,
    /// Where it is kept; nobody else gets it before this is dropped.
    pub store: Box<dyn Store>,
}

impl std::fmt::Debug for Orphan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orphan").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}
