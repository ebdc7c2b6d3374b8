//! Where streams are kept: the [`Store`] trait and what goes in and out of it.
//!
//! A store is told *what* changed, as a list of [`Change`]s that are kept all or not at all; what
//! a request means is decided before, in one place, for every store. Reads of the index are
//! plain calls, since the object that serves a stream has it at hand; only a stream's bytes may
//! lie elsewhere, and are awaited.

#[cfg(feature = "worker")]
mod d1;
#[cfg(feature = "worker")]
mod kv;
mod memory;
#[cfg(feature = "worker")]
mod r2;
mod sealed;
mod sql;

#[cfg(feature = "worker")]
pub use {d1::D1Archive, kv::KvArchive, r2::R2Archive};

pub use memory::MemoryStore;
pub use sealed::{Archive, Part, Sealed};
pub use sql::SqlStore;

use super::{Claim, Offset, Piece, Producer};
use crate::{Result, Timestamp};
use serde::{Deserialize, Serialize};

/// A stream's number in its store. Never given out twice, so that a stream that is created anew
/// under an old path shares nothing with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

/// How long a stream lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// So many seconds after it was last read or written.
    Ttl(u64),
    /// Until this moment.
    Until(Timestamp),
}

/// What is known of a stream, beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// Where it is found: its path under the root, decoded.
    pub path: String,
    /// Its content type, as its creator wrote it.
    pub content_type: String,
    /// How long it lives; `None` is for ever.
    pub lifetime: Option<Lifetime>,
    /// When it ends, if nothing touches it before.
    pub expires_at: Option<Timestamp>,
    /// Whether it is closed, and by which append.
    pub closed: Option<ClosedBy>,
    /// Whether it was deleted and is kept for its forks only.
    pub deleted: bool,
    /// How many forks have it as their source.
    pub forks: u64,
    /// What it is a fork of.
    pub source: Option<Source>,
    /// The last `Stream-Seq`.
    pub seq: Option<String>,
    /// Where its own bytes end. A store works it out from the bytes; what is written here when a
    /// stream is created or changed does not count.
    #[serde(skip)]
    pub end: u64,
}

/// Which append closed a stream: its repeat is a success, any other append a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedBy {
    /// The producer's append, if it was one.
    pub producer: Option<Claim>,
}

/// What a fork inherits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The stream that it is a fork of.
    pub id: StreamId,
    /// That stream's path.
    pub path: String,
    /// The fork inherits what lies before this position.
    pub at: u64,
    /// The offset and the sub-offset that its creator asked for, to know the same request again.
    pub asked: (Option<u64>, u64),
}

impl Stream {
    /// Where its own bytes begin: 0, or where it left its source.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.source.as_ref().map_or(0, |source| source.at)
    }

    /// Its end as clients see it.
    #[must_use]
    pub fn tail(&self) -> Offset {
        Offset::new(self.end)
    }
}

/// One thing that changes. A list of them is one transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new stream, without bytes of its own.
    Create(Stream),
    /// What is known of a stream is now this.
    Update(Stream),
    /// A stream that something touches ends at this moment now, instead of earlier.
    Touch {
        /// Which stream.
        id: StreamId,
        /// Its new end, if nothing touches it before.
        expires_at: Timestamp,
    },
    /// These bytes come behind the stream's end.
    Append {
        /// Which stream.
        id: StreamId,
        /// Its end before.
        at: u64,
        /// At least one byte.
        bytes: Vec<u8>,
    },
    /// These pieces, which were put aside, come behind the stream's end, in this order.
    AppendStaged {
        /// Which stream.
        id: StreamId,
        /// Its end before.
        at: u64,
        /// At least one piece.
        pieces: Vec<Piece>,
    },
    /// What is remembered of a producer is now this.
    Producer {
        /// The stream that it appends to.
        id: StreamId,
        /// Its id.
        name: String,
        /// Its last append.
        state: Producer,
    },
    /// The stream is gone, with its bytes and its producers.
    Remove(StreamId),
    /// The text under this key is now this; `None` takes it away. For what belongs to the server
    /// rather than to a stream: subscriptions, signing keys.
    Note {
        /// The key.
        key: String,
        /// The text.
        text: Option<String>,
    },
}

/// Where streams are kept.
///
/// One value is served by one thread at a time: a Durable Object, or the thread of a native
/// server.
#[allow(async_fn_in_trait)] // Neither side asks for `Send`: see above.
pub trait Store: 'static {
    /// A number for the next stream.
    ///
    /// # Errors
    /// What the store says.
    fn next_id(&self) -> Result<StreamId>;

    /// The stream at this path.
    ///
    /// # Errors
    /// What the store says.
    fn at(&self, path: &str) -> Result<Option<Stream>>;

    /// The stream with this number.
    ///
    /// # Errors
    /// What the store says.
    fn stream(&self, id: StreamId) -> Result<Option<Stream>>;

    /// Up to `limit` streams in the order of their paths, from behind `after` on.
    ///
    /// # Errors
    /// What the store says.
    fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Stream>>;

    /// Up to `limit` streams that expire first, the first one first. Those that are deleted
    /// already are not among them, nor those whose record cannot be read.
    ///
    /// # Errors
    /// What the store says.
    fn expiring(&self, limit: usize) -> Result<Vec<Stream>>;

    /// What is remembered of a producer.
    ///
    /// # Errors
    /// What the store says.
    fn producer(&self, id: StreamId, name: &str) -> Result<Option<Producer>>;

    /// The text under this key.
    ///
    /// # Errors
    /// What the store says.
    fn note(&self, key: &str) -> Result<Option<String>>;

    /// The texts whose key begins with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// What the store says.
    fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>>;

    /// Puts bytes aside that have arrived of a body, and returns their number for
    /// [`Change::AppendStaged`]. They are gone when the store is opened again.
    ///
    /// # Errors
    /// What the store says.
    fn stage(&self, bytes: Vec<u8>) -> Result<u64>;

    /// Forgets what was put aside for a body that is not appended.
    ///
    /// # Errors
    /// What the store says.
    fn unstage(&self, pieces: &[Piece]) -> Result<()>;

    /// Does all of this or nothing.
    ///
    /// # Errors
    /// What the store says; then nothing was done.
    fn commit(&self, changes: Vec<Change>) -> Result<()>;

    /// The stream's own bytes from `from` to `to`, which lie between its start and its end.
    /// What it costs depends on how many these are, not on the stream.
    ///
    /// # Errors
    /// What the store says, or [`Code::NotFound`](crate::Code::NotFound) when the stream was
    /// removed meanwhile.
    async fn read(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<u8>>;

    /// Whether [`settle`](Self::settle) has something to do.
    ///
    /// # Errors
    /// What the store says.
    fn unsettled(&self) -> Result<bool> {
        Ok(false)
    }

    /// Does a piece of the work that may be done later, such as moving bytes from the object to
    /// where they stay. May be cut off at any moment.
    ///
    /// # Errors
    /// What the store says; the same piece is due again.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }
}
