//! Bodies. What goes out is whole or goes on. What comes in is read up to a limit; of a large one
//! no more is held than a piece, the rest is put aside in the store until it has all arrived.

use super::{Change, Platform, Refusal, Store, StreamId, Streams};
use futures::stream::{LocalBoxStream, StreamExt};
use std::fmt;

/// A request's body, as it arrives.
pub type Incoming = LocalBoxStream<'static, crate::Result<Vec<u8>>>;

/// An answer's body.
pub enum Body {
    /// All of it.
    Full(Vec<u8>),
    /// It comes piece by piece; dropping it ends the reader's part in the stream. An error has to
    /// break the connection: what was sent is not all.
    Live(LocalBoxStream<'static, crate::Result<Vec<u8>>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Self::Live(_) => f.write_str("Body::Live"),
        }
    }
}

/// A body that is there already.
#[must_use]
pub fn full(bytes: Vec<u8>) -> Incoming {
    futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed_local()
}

/// How much of a body that is too large is read and dropped: a sender that is cut off in the
/// middle often does not see the answer.
const DRAINED_BYTES: usize = 256 * 1024 * 1024;

/// Refuses a body, after it was sent.
pub(super) async fn too_large(mut body: Incoming, limit: usize) -> Refusal {
    let mut dropped = 0;
    while dropped < DRAINED_BYTES
        && let Some(Ok(part)) = body.next().await
    {
        dropped += part.len();
    }
    Refusal::TooLarge { limit }
}

/// All of a body, unless it is larger than `limit` bytes: then no more than that is held.
pub(crate) async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(part) = next(&mut body).await? {
        if bytes.len().saturating_add(part.len()) > limit {
            return Err(too_large(body, limit).await);
        }
        if bytes.is_empty() {
            bytes = part;
        } else {
            bytes.extend_from_slice(&part);
        }
    }
    Ok(bytes)
}

async fn next(body: &mut Incoming) -> Result<Option<Vec<u8>>, Refusal> {
    let broken = |e| Refusal::bad_request(format!("the body broke off: {e}"));
    body.next().await.transpose().map_err(broken)
}

/// Bytes that were put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The store's number for them.
    pub number: u64,
    /// How many they are.
    pub bytes: u64,
}

/// A body that has arrived. What it has put aside goes with it, unless it was appended.
pub(super) struct Arrived<S: Store, P: Platform> {
    server: Streams<S, P>,
    pieces: Vec<Piece>,
    rest: Vec<u8>,
}

impl<S: Store, P: Platform> Arrived<S, P> {
    /// One that is there already.
    pub(super) fn whole(server: &Streams<S, P>, bytes: Vec<u8>) -> Self {
        Self { server: server.clone(), pieces: Vec::new(), rest: bytes }
    }

    /// Reads a body of bytes, and puts it aside in pieces of this size.
    pub(super) async fn in_pieces(
        server: &Streams<S, P>,
        mut body: Incoming,
        size: usize,
        limit: usize,
    ) -> Result<Self, Refusal> {
        let mut arrived = Self::whole(server, Vec::new());
        let mut come = 0_usize;
        while let Some(part) = next(&mut body).await? {
            come = come.saturating_add(part.len());
            if come > limit {
                return Err(too_large(body, limit).await);
            }
            arrived.rest.extend_from_slice(&part);
            while arrived.rest.len() > size {
                let behind = arrived.rest.split_off(size);
                let piece = std::mem::replace(&mut arrived.rest, behind);
                let bytes = piece.len() as u64;
                let number = server.store().stage(piece)?;
                arrived.pieces.push(Piece { number, bytes });
            }
        }
        Ok(arrived)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.rest.is_empty()
    }

    /// Replaces what is held by what `encode` makes of it; pieces are bytes, and stay.
    pub(super) fn encoded(
        mut self,
        encode: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, Refusal>,
    ) -> Result<Self, Refusal> {
        self.rest = encode(std::mem::take(&mut self.rest))?;
        Ok(self)
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum::<u64>() + self.rest.len() as u64
    }

    /// The changes that append it to a stream with this end.
    pub(super) fn changes(&mut self, id: StreamId, at: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let behind = at + self.len() - self.rest.len() as u64;
        if !self.pieces.is_empty() {
            changes.push(Change::AppendStaged { id, at, pieces: self.pieces.clone() });
        }
        if !self.rest.is_empty() {
            let bytes = std::mem::take(&mut self.rest);
            changes.push(Change::Append { id, at: behind, bytes });
        }
        changes
    }

    /// It was appended: nothing is left of it here.
    pub(super) fn appended(mut self) {
        self.pieces.clear();
    }
}

impl<S: Store, P: Platform> Drop for Arrived<S, P> {
    fn drop(&mut self) {
        if !self.pieces.is_empty() {
            // What cannot be taken away now goes when the store is opened again.
            let _ = self.server.store().unstage(&self.pieces);
        }
    }
}
