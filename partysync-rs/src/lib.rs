//! Keep the state of a Cloudflare Durable Object in sync with every client connected to it.
//!
//! You write a [`Record`] (a row), an [`Action`] (an intent) and [`SyncServer::on_action`] (the
//! SQL that turns the one into the other). Tables and migrations, the socket, who needs which
//! rows, optimistic updates and reconnects come with the framework. The client is the crate
//! `partysync-client`.
//!
//! # Features
//!
//! Without features the crate has records, actions, the wire and the engine, and builds anywhere.
//!
//! - `worker`: host rooms in Cloudflare Durable Objects (the `worker` module).
//! - `sqlite`: [`sql::Sqlite`](crate::sql), SQLite through rusqlite.
//! - `streams`: Durable Streams, append-only streams over HTTP (the `streams` module).
//! - `livestore`: a sync backend for LiveStore's clients (the `livestore` module).
//! - `uuid`, `chrono`, `time`, `decimal`: `uuid::Uuid`, `chrono::DateTime<Utc>`,
//!   `time::OffsetDateTime`, `rust_decimal::Decimal` as a [`Column`].
//! - `cron`: a [`Repeat`] by a pattern of cron.
//! - `testing`: `TestRoom`, a user's `on_action` under plain `cargo test`.

#![cfg_attr(docsrs, feature(doc_cfg))]

// Derived code says `::partysync`, in this crate's own tests as well.
extern crate self as partysync;

mod action;
mod column;
mod constraint;
mod draft;
mod error;
mod identity;
mod job;
#[cfg(feature = "livestore")]
pub mod livestore;
mod migration;
mod position;
mod presence;
pub mod query;
mod record;
mod referring;
pub mod room;
mod server;
pub mod sql;
mod store;
#[cfg(feature = "streams")]
pub mod streams;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
mod visible;
pub mod wire;
#[cfg(feature = "worker")]
pub mod worker;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

/// Whether a protection is taken out, to see that the simulation notices: in builds with
/// `--cfg partysync_mutations` the one that `PARTYSYNC_MUTATION` names, in all others none.
#[doc(hidden)]
#[must_use]
pub fn __mutated(protection: &str) -> bool {
    static MISSING: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("PARTYSYNC_MUTATION").ok());
    cfg!(partysync_mutations) && MISSING.as_deref() == Some(protection)
}

pub use action::{Action, RecordAction, Reduce, Tables};
pub use column::{Column, Timestamp};
pub use constraint::{IndexDef, OnDelete, Reference};
pub use draft::Draft;
pub use error::{Code, Error, Result};
pub use identity::Identity;
pub use job::{Job, Repeat};
#[cfg(feature = "livestore")]
pub use livestore::event_room::Event;
pub use migration::{Migrated, Migration};
#[cfg(feature = "livestore")]
pub use partysync_macros::Event;
pub use partysync_macros::{Action, Column, Record};
pub use position::Position;
pub use presence::Presence;
pub use record::{ColumnDef, Key, Literal, Record, Role, Schema};
pub use room::{Connection, Fault, Handle, Limits, Protocol};
pub use server::{Room, SyncServer};
pub use visible::Visible;
