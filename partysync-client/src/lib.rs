//! The client of `partysync-rs`: a copy of a room's rows that shows your own actions at once and
//! puts them right when the server has answered.
//!
//! - [`SyncClient`]: connect, read rows, send actions (features `web`, `native`).
//! - [`Replica`]: confirmed rows and pending actions. No IO.
//! - [`Session`]: connect, catch up, resume, back off, resend. No IO.
//! - `leptos`: reactive rows for Leptos (feature `leptos`).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod driver;
#[cfg(feature = "leptos")]
pub mod leptos;
mod replica;
mod session;
pub mod store;
pub mod transport;

pub use client::{Answer, Options, SyncClient, Update};
pub use replica::{Changes, Replica};
pub use session::{Effect, Phase, Session, Status, Timing};
