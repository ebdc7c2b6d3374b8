//! What happens to a peer, and what it wants done.

use crate::query::Wakers;
use crate::replica::Changes;
use crate::store::{Saved, SavedAction, StoreEvent, Write};
use partysync::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A moment, on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward; since when does not matter.
    pub monotonic: u64,
    /// The time of day: when actions are made, and nothing else.
    pub wall: Timestamp,
}

/// Something that happens to a peer.
#[derive(Debug)]
pub enum Input<'a> {
    /// The store was opened and read, or it was not: the answer to [`Output::OpenStore`].
    Opened(Result<Saved>),
    /// The answer to [`Output::Store`].
    Stored(Result<()>),
    /// The store tells.
    Store(StoreEvent),
    /// The socket is open.
    Connected,
    /// A frame came.
    Frame(&'a str),
    /// The socket has closed, or did not open.
    Disconnected(Cause),
    /// The network is back, or the page is seen again: what is waited for is tried at once.
    Nudge,
    /// It is the time that [`Peer::timeout`](super::Peer::timeout) has told.
    Time,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The socket was closed with this code; 1006 where there was none.
    Code {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The server refused the upgrade with this HTTP status.
    Status(u16),
    /// The server was not reached.
    Unreachable(String),
    /// The address makes no sense.
    Address(Error),
    /// The function that gives the address has failed; it is asked again later.
    Provider(Error),
}

impl Cause {
    /// The connection ended without a word.
    #[must_use]
    pub fn gone() -> Self {
        Self::Code { code: 1006, reason: String::new() }
    }
}

/// What a driver has to do next.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Open the store for the client with this id, or open it anew.
    OpenStore(String),
    /// Store this; one batch at a time is on its way.
    Store(Vec<Write>),
    /// Tell the other clients of the same place.
    Tell(Note),
    /// Have the store take over what other clients leave behind, or let go of what it took and
    /// take nothing: [`Store::take_over`](crate::store::Store::take_over).
    TakeOver(bool),
    /// Open a socket; one that is there is of no use any more.
    Connect,
    /// Send a frame on the open socket.
    Send(String),
    /// Close the socket.
    Disconnect,
    /// Rows are shown otherwise.
    Changed(Changes),
    /// Wake whoever waits for the result of a query, when no lock is held: it may ask at once.
    Wake(Wakers),
    /// An action of this client's has its answer, with its result if it was done and gave any. That
    /// of another client's, whose action this one has pushed, is told to nobody.
    Answer(u64, Result<Option<Json>>),
    /// Others have come, changed or gone.
    Presence,
    /// A message of the application's own.
    Message(Json),
    /// Something that the server could not use, or this client of the server's; or a rejection
    /// whose caller is gone.
    Error(Error),
}

/// What clients of the same place, such as the tabs of an app, tell each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// A client has made an action, which is stored.
    Acted {
        /// The client's id.
        client: String,
        /// The action's seq.
        seq: u64,
        /// The action.
        action: SavedAction,
    },
    /// Actions were answered, all in one frame.
    Answered {
        /// The client's id.
        client: String,
        /// Their seqs.
        seqs: Vec<u64>,
        /// The epoch and the version of the rows that hold what they did; `None` when they were
        /// not done.
        held_by: Option<(String, u64)>,
    },
    /// All actions of a client before this one have their answer, and the store says so.
    Settled {
        /// The client's id.
        client: String,
        /// The first seq that may have none.
        before: u64,
        /// The last seq that there is, of a client that is gone: what it has made beyond that
        /// was not stored, and went with it.
        last: Option<u64>,
    },
    /// Actions were given up, or are not wanted any more: the list is to be read again.
    Abandoned {
        /// Those that were given up.
        added: std::collections::BTreeMap<String, crate::store::Abandoned>,
        /// Those that are not wanted any more.
        removed: Vec<String>,
    },
}
