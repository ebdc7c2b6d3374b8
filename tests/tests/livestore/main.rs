//! LiveStore's sync protocol against a store's machine: what each request is answered with, and
//! what becomes of live pulls whatever happens meanwhile.

mod event_rooms;
mod harness;
mod hooks;
mod hostile;
mod interleaved;
mod protocol;
mod subscribers;
