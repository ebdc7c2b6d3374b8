//! The client of `partysync-rs`: a copy of a room's rows that shows your own actions at once and
//! puts them right when the server has answered.
//!
//! - [`SyncClient`]: connect, read rows, send actions (features `web`, `native`).
//! - [`Peer`]: the machine behind it, without IO: rows, pending actions, connection, store.
//! - `testing`: a room and its clients in one process, for tests (feature `testing`).
//! - `devtools`: what a client is doing, and a panel in the page that shows it (feature `devtools`).
//! - `leptos`: reactive rows for Leptos (feature `leptos`).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod client;
#[cfg(feature = "devtools")]
pub mod devtools;
#[cfg(not(feature = "devtools"))]
#[path = "devtools/none.rs"]
mod devtools;
mod driver;
mod endpoint;
mod gathered;
#[cfg(feature = "leptos")]
pub mod leptos;
mod peer;
mod place;
mod presence;
pub mod query;
mod replica;
pub mod store;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
pub mod transport;
mod updates;

pub use answer::Answer;
pub use client::{Options, SyncClient, Update};
pub use endpoint::{Address, Endpoint};
pub use peer::{Cause, Input, Known, Note, Now, Output, Peer, Phase, Status, Timing};
pub use place::{Place, User};
pub use presence::Other;
pub use replica::{Changed, Changes, Replica};
pub use updates::Updates;
