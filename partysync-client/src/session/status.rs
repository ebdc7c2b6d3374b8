//! What a session tells its driver and its user.

use partysync::{Error, Timestamp};

/// Where a session stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Reading what the store holds.
    Loading,
    /// Waiting for the socket or for the server's welcome.
    Connecting,
    /// Receiving what changed in the meantime.
    CatchingUp {
        /// Rows received.
        received: u64,
        /// Rows there are to receive.
        total: u64,
    },
    /// All that the server has is here, and what happens arrives at once.
    Live,
    /// No connection; another attempt at this time.
    Offline {
        /// When the next attempt is made.
        retry_at: Timestamp,
    },
    /// The server refused, and trying again does not help: reload the app
    /// ([`Code::SchemaMismatch`](partysync::Code::SchemaMismatch)) or get other credentials.
    Refused(Error),
    /// Closed by [`Session::close`](crate::Session::close).
    Closed,
}

/// What a user should know: is what I see current, and is what I did safe?
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where the session stands.
    pub phase: Phase,
    /// Actions without an answer.
    pub pending: usize,
    /// Why what is pending would not outlive the page or program ([`Code::Store`](partysync::Code::Store)); `None` as
    /// long as the store works.
    pub warning: Option<Error>,
}

/// How long a session waits for what; in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// For the socket, the welcome and each page of the catch-up.
    pub connect_ms: i64,
    /// For the answer to a push.
    pub answer_ms: i64,
    /// Between two pings of a quiet connection; half of it is what a pong may take.
    pub ping_ms: i64,
    /// Before the first new attempt; doubles with each.
    pub retry_ms: i64,
    /// Between attempts at most.
    pub retry_max_ms: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            answer_ms: 10_000,
            ping_ms: 20_000,
            retry_ms: 250,
            retry_max_ms: 15_000,
        }
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a socket; one that is open is of no use any more.
    Connect,
    /// Send a frame on the open socket.
    Send(String),
    /// Close the socket.
    Disconnect,
}
