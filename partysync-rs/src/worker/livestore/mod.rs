//! LiveStore's sync backend in Durable Objects: the worker in front, the object's class, where its
//! log is, who is called.

mod admin;
mod d1;
mod event_object;
mod front;
mod object;
mod open;
mod rpc;

pub use event_object::EventObject;
pub use front::{LiveStore, SyncRequest};
pub use object::LiveStoreObject;
