//! Durable Streams: what a server of streams promises, on every store.

mod faults;
mod lifetimes;
mod model;
mod notes;
mod reads;
mod support;
