//! A sync backend for [LiveStore](https://livestore.dev)'s clients: `@livestore/sync-cf` 0.4,
//! unchanged.
//!
//! A store is a log of events under one id, and one [`Machine`]: it does no IO, a driver hands it
//! what happens ([`Input`]) and carries out what comes of it ([`Effect`]). In a Durable Object,
//! and in tests, that is [`Open`].
//!
//! Each live pull gets every event once and in order: what is pushed while it catches up comes
//! with the catch-up, which goes on as the client acknowledges what it has. A live pull is never
//! ended because something failed for a while, since clients of 0.4 pull no more then: their
//! socket is closed instead, and they come again.

mod context;
mod envelope;
mod event;
pub(crate) mod event_room;
mod io;
mod json;
mod kept;
mod log;
mod machine;
pub mod msgpack;
mod pull;
mod push;
mod server;
mod span;
mod subscriber;
mod table;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub(crate) mod testing;
mod turn;

pub use envelope::{Cursor, Id, PING, PONG, refusal};
pub use event::Event;
pub use event_room::{EventInput, EventOutput, EventRoom, EventServer, Identity};
pub use io::{Effect, Hook, HookDone, Input, Reached, Reading};
pub use log::Log;
pub use machine::{Machine, store_of};
pub use server::{Caller, Limits, LiveStoreServer, Pull, Push, Sent, Transport};
pub use span::Span;
pub use subscriber::Subscriber;
pub use table::{Context, Page, PageLimits, Table, batches, table_name};
pub use turn::{Open, Turn};
