//! What goes into a room's machine, and what comes out.

use super::{Connection, Fault, Handle, Protocol};
use crate::{Code, Error, Identity, SyncServer, Timestamp, wire};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A connection's number in its room: small, and given again when a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A frame as it came from the socket.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// Text.
    Text(&'a str),
    /// Text that is longer than the room reads, which the host need not take over whole, and its
    /// length in bytes, or in UTF-16 units where a host counts those.
    Long(usize),
    /// Binary, which neither protocol uses, and its length in bytes.
    Binary(usize),
}

/// What a room is opened with.
#[derive(Debug, Default)]
pub struct Opening {
    /// The room's name; `None` where the host does not know it (an alarm of an older runtime).
    pub name: Option<String>,
    /// A random text, the epoch of storage that is new.
    pub fresh_epoch: String,
    /// The attachment of each socket that an earlier life of the room left open; the first has
    /// slot 0, and so on. `None` for one that has none.
    pub sockets: Vec<Option<String>>,
    /// The version that the room's history ends with, where it keeps one.
    pub published: Option<u64>,
}

/// Something that happens to a room.
#[derive(Debug)]
pub enum Event<'a, A> {
    /// A client connects. Answered with [`Effect::Accept`] or [`Effect::Refuse`].
    Connect {
        /// The id that it wishes for; it gets it if it is free.
        wanted: Option<String>,
        /// A random id, for one whose wish is not granted.
        fresh_id: String,
        /// What it speaks.
        protocol: Protocol,
        /// The request that asked for the upgrade.
        request: &'a http::Request<()>,
    },
    /// A frame came.
    Frame(Slot, Incoming<'a>),
    /// A hook that [`Effect::RunHook`] asked for has returned.
    HookDone(HookDone<A>),
    /// A socket has closed.
    Closed(Slot),
    /// The alarm rang.
    Alarm,
    /// The alarm rings again, because the turn in which it did was lost: it failed, trapped, or took
    /// longer than the runtime allows.
    AlarmAgain,
    /// When connections were heard last by what answers their pings, which is not the room: the answer
    /// to [`Effect::AskHeard`]. One that never was is left out.
    Heard(BTreeMap<Slot, Timestamp>),
}

/// Something that a driver has to do.
#[derive(Debug)]
pub enum Effect<A> {
    /// Accept the socket of the [`Event::Connect`] that is being handled.
    Accept {
        /// Its slot from now on.
        slot: Slot,
        /// Its connection's id.
        id: String,
    },
    /// Accept that socket only to say this and close it.
    Refuse {
        /// Why.
        error: Error,
        /// The WebSocket close code.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: String,
        /// A frame that says why, where the protocol has one.
        frame: Option<String>,
    },
    /// Send one frame to these connections.
    Send {
        /// The connections.
        slots: Vec<Slot>,
        /// The frame.
        frame: Rc<str>,
    },
    /// Close a connection.
    Close {
        /// The connection.
        slot: Slot,
        /// The WebSocket close code.
        code: u16,
        /// The reason, at most 123 bytes.
        reason: String,
    },
    /// Keep this text with the socket, so that it is there when the room is opened again.
    StoreAttachment {
        /// The connection.
        slot: Slot,
        /// At most 16,384 bytes as the runtime keeps it.
        attachment: String,
    },
    /// Call with [`Event::Alarm`] at this time instead of any before; never, for `None`.
    SetAlarm(Option<Timestamp>),
    /// Say in another turn, with [`Event::Heard`], when these were heard last.
    AskHeard(Vec<Slot>),
    /// There is more to send: go on with another turn, when what happened meanwhile was heard.
    Again,
    /// There is more to send: go on with another turn after so many milliseconds.
    AgainAfter(u32),
    /// Run a hook that may wait, and hand in what it returns.
    RunHook(Hook<A>),
    /// Append these messages to the room's history, in the turn's transaction.
    Publish {
        /// The version that the history ends with then.
        to: u64,
        /// Messages of the State Protocol, each JSON.
        messages: Vec<String>,
    },
    /// Log this and tell [`SyncServer::on_error`](crate::SyncServer::on_error).
    Fault(Fault),
    /// Log this: it is worth knowing, and no [`Fault`].
    Warn(String),
    /// The storage failed: take back what this turn has written, drop the machine and all
    /// sockets. Clients come again, and so does what was not answered.
    Abort(Error),
}

impl<A> Effect<A> {
    /// Whether it is for whoever runs the room: that happens also where nothing else of a turn does.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self, Self::Fault(_) | Self::Warn(_))
    }

    /// What clients are told of it, if it is a fault.
    #[cfg(feature = "worker")]
    pub(crate) fn told(&self) -> Option<Error> {
        match self {
            Self::Fault(fault) => Some(fault.told()),
            _ => None,
        }
    }
}

/// How bad something is that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody should look.
    Error,
    /// Worth knowing.
    Warn,
}

/// A hook of the server that may wait.
#[derive(Debug)]
pub struct Hook<A> {
    pub(super) call: Call<A>,
}

#[derive(Debug)]
pub(super) enum Call<A> {
    /// `before_action` of each of these; where there is an error already, nothing is asked.
    Before { ticket: u64, connection: Connection, actions: Vec<crate::Result<A>> },
    /// `after_commit` of each of these.
    After { connection: Connection, actions: Vec<A> },
}

/// What a hook has returned.
#[derive(Debug)]
pub struct HookDone<A> {
    pub(super) ticket: Option<u64>,
    pub(super) actions: Vec<crate::Result<A>>,
}

impl<A> Hook<A> {
    /// Runs the hook of this server. One connection's actions are asked about in their order.
    /// `room` is for whoever is [behind it](Self::identity).
    pub async fn run<S: SyncServer<Action = A>>(self, server: &S, room: &Handle<S>) -> HookDone<A> {
        match self.call {
            Call::Before { ticket, connection, actions } => {
                let mut asked = Vec::with_capacity(actions.len());
                for action in actions {
                    asked.push(match action {
                        Ok(action) => {
                            server.before_action(room, &connection, &action).await.map(|()| action)
                        }
                        Err(error) => Err(error),
                    });
                }
                HookDone { ticket: Some(ticket), actions: asked }
            }
            Call::After { connection, actions } => {
                for action in actions {
                    server.after_commit(room, &connection, action).await;
                }
                HookDone { ticket: None, actions: Vec::new() }
            }
        }
    }

    /// Who is behind it.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        let (Call::Before { connection, .. } | Call::After { connection, .. }) = &self.call;
        connection.identity.as_ref()
    }

    /// Whether a client waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        matches!(self.call, Call::Before { .. })
    }
}

/// How a connection is closed that was refused with this error: its code and reason. Only a
/// decision of the application tells a client to stop; after anything else it comes again.
#[must_use]
pub fn refusal(error: &Error) -> (u16, String) {
    let code = match error.code() {
        Code::Rejected | Code::Forbidden => wire::CLOSE_REFUSED,
        Code::Unauthorized => wire::CLOSE_UNAUTHORIZED,
        Code::TooManyConnections | Code::RateLimited | Code::Unavailable => wire::CLOSE_BUSY,
        Code::TooLarge => wire::CLOSE_TOO_BIG,
        _ => return (wire::CLOSE_FAILED, error.code().as_str().to_owned()),
    };
    let reason = match code {
        wire::CLOSE_REFUSED | wire::CLOSE_UNAUTHORIZED => close_reason(error.message()),
        _ => error.code().as_str().to_owned(),
    };
    (code, reason)
}

/// As much of a text as a close reason holds: 123 bytes.
pub(crate) fn close_reason(text: &str) -> String {
    let mut reason = text.to_owned();
    while reason.len() > 123 {
        reason.pop();
    }
    reason
}
