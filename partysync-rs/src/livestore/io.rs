//! What goes into a store's machine, and what comes out.

use super::envelope::Id;
use super::server::{Caller, LiveStoreServer, Pull, Push, Sent};
use super::span::Span;
use super::subscriber::Subscriber;
use super::table::{Context, Page};
use crate::room::{Incoming, Level, Slot};
use crate::{Result, Timestamp};
use std::rc::Rc;

/// Something that happens to a store.
#[derive(Debug)]
pub enum Input<'a> {
    /// A client opens a socket. Answered with [`Effect::Accept`] or [`Effect::Refuse`].
    Connect(Caller),
    /// A frame came.
    Frame(Slot, Incoming<'a>),
    /// A socket has closed.
    Closed(Slot),
    /// Who waits for a call's answer has gone: the call by its slot and number.
    Gone(Slot, u64),
    /// One request over HTTP, or from another object. Answered with [`Effect::Accept`], what is sent to its slot, and
    /// [`Effect::Finish`]; or with [`Effect::Refuse`].
    Call(Caller, &'a str),
    /// A part of a call's answer has been passed on: the call by its slot and number.
    Taken(Slot, u64),
    /// A hook has returned.
    HookDone(HookDone),
    /// The answer to [`Effect::Append`].
    Appended(Result<()>),
    /// The answer to [`Effect::Read`].
    Read(Reading, Result<Page>),
    /// The answer to [`Effect::Load`]: with another backend id where events were lost.
    Loaded(Result<Context>),
    /// The answer to [`Effect::Call`], by its number.
    Called(u64, Result<()>),
    /// The alarm rang.
    Alarm,
    /// Empty the log, for development; it is to have this backend id then.
    Empty(String),
    /// The answer to [`Effect::Empty`].
    Emptied(Result<Context>),
}

/// Something that a driver has to do.
#[derive(Debug)]
pub enum Effect {
    /// The socket or the call that is being handled has this slot, and a number that no other has.
    Accept(Slot, u64),
    /// Refuse it, with an HTTP status and a text.
    Refuse(u16, String),
    /// Send a frame.
    Send(Slot, String),
    /// The answer to a call is complete; its slot is free.
    Finish(Slot),
    /// Close a socket, with a code and a reason of at most 123 bytes.
    Close(Slot, u16, &'static str),
    /// Keep this text with the socket, for when the store is opened again.
    StoreAttachment(Slot, String),
    /// Hand in [`Input::Alarm`] at this time instead of any before; never, for `None`.
    SetAlarm(Option<Timestamp>),
    /// Append a push to the log, all or nothing: [`Input::Appended`]. One at a time.
    Append(Rc<Push>, String),
    /// Read a page: [`Input::Read`].
    Read(Reading),
    /// Read the log's context anew: [`Input::Loaded`].
    Load,
    /// Remove all events, and give the log this backend id: [`Input::Emptied`].
    Empty(String),
    /// Call a subscriber with this frame: [`Input::Called`] with the number. An error of the code
    /// [`Code::NotFound`](crate::Code::NotFound) says that there is no such object to call.
    Call(u64, Rc<Subscriber>, String),
    /// Keep how far a subscriber is, and since when it fails; `None` to forget it.
    Keep(Rc<Subscriber>, Option<Reached>),
    /// There is more to send: go on with another turn, when what happened meanwhile was heard.
    Again,
    /// Run a hook, and hand in what it returns.
    RunHook(Hook),
    /// Tell the server of what was done for a request that is traced.
    Span(Span),
    /// Something that whoever runs the store should know.
    Log(Level, String),
}

/// How far a subscriber is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The last event that it was called with.
    pub at: u64,
    /// Since when calls fail.
    pub failing_since: Option<Timestamp>,
    /// When it subscribed.
    pub subscribed_at: Timestamp,
}

/// A page that is to be read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub(super) reader: Reader,
    pub(super) after: u64,
    pub(super) upto: u64,
}

/// What a page is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reader {
    /// A pull.
    Pull(Who, Id),
    /// A subscriber, by its number.
    Subscriber(u64),
}

impl Reading {
    /// The number of the last event that may be in it: a log that is elsewhere may have events that
    /// the machine does not know of yet.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// The number of the event that it begins behind.
    #[must_use]
    pub fn after(&self) -> u64 {
        self.after
    }
}

/// A connection or call: its slot may be another's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) slot: Slot,
    pub(super) serial: u64,
}

/// A hook of the server that may wait.
#[derive(Debug)]
pub struct Hook(pub(super) Asked);

#[derive(Debug)]
pub(super) enum Asked {
    Push(u64, Rc<Push>, Rc<Caller>),
    Pushed(Rc<Push>, Rc<Caller>),
    Pull(Who, u64, Pull, Rc<Caller>),
    Sent(Sent, Option<Rc<Caller>>),
}

/// What a hook has returned.
#[derive(Debug)]
pub struct HookDone(pub(super) Answered);

#[derive(Debug)]
pub(super) enum Answered {
    Push(u64, Result<()>),
    Pull(Who, u64, Result<()>),
    Nothing,
}

impl Hook {
    /// Runs the hook of this server.
    pub async fn run<S: LiveStoreServer>(self, server: &S) -> HookDone {
        HookDone(match self.0 {
            Asked::Push(ticket, push, caller) => {
                Answered::Push(ticket, server.on_push(&push, &caller).await)
            }
            Asked::Pull(who, ticket, pull, caller) => {
                Answered::Pull(who, ticket, server.on_pull(&pull, &caller).await)
            }
            Asked::Pushed(push, caller) => {
                server.on_push_res(&push, &caller).await;
                Answered::Nothing
            }
            Asked::Sent(sent, caller) => {
                server.on_pull_res(&sent, caller.as_deref()).await;
                Answered::Nothing
            }
        })
    }

    /// Whether a client waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !matches!(self.0, Asked::Pushed(..) | Asked::Sent(..))
    }
}
