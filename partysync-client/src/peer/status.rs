//! What a peer tells its user.

use partysync::{Error, Timestamp};

/// Where a client stands.
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
        /// Why there is none.
        error: Error,
    },
    /// Trying again does not help: connect to another address
    /// ([`Code::InvalidValue`](partysync::Code::InvalidValue)), reload the app
    /// ([`Code::SchemaMismatch`](partysync::Code::SchemaMismatch)), or get other credentials and
    /// call [`reconnect`](crate::SyncClient::reconnect)
    /// ([`Code::Unauthorized`](partysync::Code::Unauthorized),
    /// [`Code::Forbidden`](partysync::Code::Forbidden)).
    Refused(Error),
    /// Closed by [`close`](crate::SyncClient::close), or because what was kept was deleted.
    Closed,
}

/// What a user should know: is what I see current, and is what I did safe?
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where the client stands.
    pub phase: Phase,
    /// Actions without an answer.
    pub pending: usize,
    /// Actions that were given up; see [`abandoned`](crate::SyncClient::abandoned).
    pub abandoned: usize,
    /// Rows that are not shown, as this version of the application cannot read them; see
    /// [`unreadable`](crate::SyncClient::unreadable). A reload brings one that can.
    pub unreadable: usize,
    /// Why what is pending would not outlive the page or program
    /// ([`Code::Store`](partysync::Code::Store)); `None` as long as the store works.
    pub warning: Option<Error>,
}

/// How long a client waits for what, in milliseconds; and how much it does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the address and the socket, the welcome and each page of the catch-up. Doubled after each
    /// attempt that took longer.
    /// Unless you say otherwise: 10,000.
    pub connect_ms: u64,
    /// For the answer to a push. Doubled after each that took longer, up to 16 times as long, while
    /// pushes are halved; until a push that is as large as they are is quick, or nothing is left to
    /// be pushed.
    /// Unless you say otherwise: 10,000.
    pub answer_ms: u64,
    /// Between two pings of a quiet connection; of one that says that it is here, between any two. A room
    /// closes one of those that it has not heard of for 75 s.
    /// Unless you say otherwise: 20,000.
    pub ping_ms: u64,
    /// For the answer to a ping.
    /// Unless you say otherwise: 10,000.
    pub pong_ms: u64,
    /// Between two states of this client that others are told, while there are others.
    /// Unless you say otherwise: 60.
    pub presence_ms: u64,
    /// Before the first new attempt; doubles with each.
    /// Unless you say otherwise: 250.
    pub retry_ms: u64,
    /// Between attempts at most.
    /// Unless you say otherwise: 15,000.
    pub retry_max_ms: u64,
    /// For the store: what takes longer is told, and sent without.
    /// Unless you say otherwise: 10,000.
    pub store_ms: u64,
    /// For how long at least an action has to go without an answer, while the room is there,
    /// before it is given up.
    /// Unless you say otherwise: an hour.
    pub give_up_ms: u64,
    /// So many stored rows are read at a time: a page goes on in between.
    /// Unless you say otherwise: 500.
    pub read_rows: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            answer_ms: 10_000,
            ping_ms: 20_000,
            pong_ms: 10_000,
            presence_ms: 60,
            retry_ms: 250,
            retry_max_ms: 15_000,
            store_ms: 10_000,
            give_up_ms: 60 * 60 * 1000,
            read_rows: 500,
        }
    }
}
