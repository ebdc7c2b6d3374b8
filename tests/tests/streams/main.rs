//! Durable Streams: what a server of streams promises, on every store.

mod faults;
mod lifetimes;
mod model;
mod reads;
mod support;
