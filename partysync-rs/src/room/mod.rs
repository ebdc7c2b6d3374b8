//! One room as a state machine. It owns all that decides: connections, queues, pushes, hooks that
//! are awaited, alarms, limits, what was sent. It does no IO: a driver hands it [`Event`]s, the
//! time and a database, and carries out the [`Effect`]s that come back, in their order.
//!
//! A driver's part, for each turn (all that happens before it waits for anything):
//!
//! 1. [`Machine::handle`] with each event, then [`Machine::end_turn`];
//! 2. if [`Effect::Abort`] is among the effects, take back what the turn has written, drop the
//!    machine and all sockets, and do nothing else of that turn;
//! 3. else keep what was written, and then carry out the effects.
//!
//! [`Turn`](turn::Turn) does this for databases with transactions of their own. Durable Objects
//! commit what a turn has written by themselves, and take it back with `ctx.abort()`.

pub(crate) mod alarm;
mod answer;
mod connection;
mod event;
mod fault;
mod feed;
mod flush;
mod greet;
mod handle;
#[cfg(feature = "streams")]
mod history;
mod hooks;
mod jobs;
mod life;
mod limits;
mod machine;
mod migrate;
mod presence;
mod project;
mod push;
pub(crate) mod rate;
mod read;
mod request;
mod seeing;
mod send;
mod sight;
mod slots;
mod snapshot;
mod stamped;
pub mod turn;
mod v1;
mod view;
mod whereabouts;

pub use connection::{Connection, Protocol};
#[cfg(feature = "worker")]
pub(crate) use event::close_reason;
pub use event::{Effect, Event, Hook, HookDone, Incoming, Level, Opening, Slot, refusal};
pub use fault::Fault;
pub use handle::Handle;
pub use limits::Limits;
pub use machine::Machine;
pub use request::{Answered, answer};

pub(crate) use handle::{Begun, Handles};
pub(crate) use hooks::{Caller, HookOutput, Outgoing};
#[cfg(feature = "livestore")]
pub(crate) use life::{Ask, Work};
pub(crate) use life::{Asked, Life};
pub(crate) use slots::{Overlay, Slots};
