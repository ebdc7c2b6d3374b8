//! The sync engine: connections, change log, actions, patches, limits. No IO: frames, time and a
//! database come in as arguments, frames to send go out as [`Output`].

mod catch_up;
mod connection;
mod engine;
mod flush;
#[cfg(feature = "streams")]
mod history;
mod limits;
mod log;

pub use connection::{Connection, Protocol};
mod project;

pub use engine::{Engine, Incoming, Item, Outcome, Work};
pub use limits::Limits;

use std::rc::Rc;

/// What a host has to do after it has asked the engine something; in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this text.
    Send {
        /// The connection's id.
        to: String,
        /// The frame.
        text: Rc<str>,
    },
    /// Close the connection.
    Close {
        /// The connection's id.
        to: String,
        /// The WebSocket close code.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: String,
    },
}

impl Output {
    /// A frame for one connection.
    pub(crate) fn send(to: &str, text: impl Into<Rc<str>>) -> Self {
        Self::Send { to: to.to_owned(), text: text.into() }
    }
}

/// The application's alarm, in the room's transaction.
pub(crate) fn set_alarm(
    sql: &dyn crate::sql::Sql,
    at: Option<crate::Timestamp>,
) -> crate::Result<()> {
    log::set_alarm(sql, at)
}
