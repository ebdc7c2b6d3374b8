//! Durable Streams: append-only streams over HTTP, after the open protocol of that name.
//!
//! A stream is a URL: `PUT` creates it, `POST` appends, `GET` reads from an offset on, once or
//! live. [`Streams`] answers the protocol's requests over a [`Store`] and a [`Platform`]; the
//! hosts around it need three lines: `StreamServer` in a Durable Object (feature `worker`), a
//! router for axum (feature `axum`). What a request means is decided in pure functions and types
//! that can be used by themselves.
//!
//! One value of [`Streams`] serves all streams under one root, one request's decision at a time,
//! on one thread. That is what gives each stream its order, lets a fork point into its source,
//! and makes an append, its producer's number and the wake-up that it causes one transaction.
//!
//! Section numbers in this module are those of the protocol's document.

mod append;
mod bell;
mod body;
mod content;
mod create;
mod cursor;
pub mod header;
mod http;
mod life;
#[cfg(feature = "axum")]
mod native;
mod offset;
mod options;
mod platform;
mod producer;
mod publish;
mod read;
mod refusal;
mod server;
mod sse;
mod store;
mod subscription;

pub use append::Appended;
pub use body::{Body, Incoming, Piece, full};
pub use content::{Kind, SEPARATOR, essence};
pub use create::Created;
pub use cursor::cursor;
pub(crate) use header::rfc3339;
pub use header::{Append, Create, Fork, Live, Read};
#[cfg(feature = "axum")]
pub use native::router;
pub use offset::{Offset, Position};
pub use options::{Cache, Options};
pub use platform::{Platform, Post};
pub use producer::{Claim, Producer, Verdict};
pub use read::Page;
pub use refusal::Refusal;
pub use server::Streams;
pub use sse::{control_event, data_event};
pub use store::{
    Archive, Change, ClosedBy, Lifetime, MemoryStore, Part, Sealed, Source, SqlStore, Store,
    Stream, StreamId,
};
#[cfg(feature = "worker")]
pub use store::{D1Archive, KvArchive, R2Archive};

/// What a stream's URL understands.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
