//! What a backend's author implements.

use super::envelope::Cursor;
use super::event::Event;
use super::span::Span;
use super::table::PageLimits;
use crate::Result;
use crate::room::rate::Allowed;
use serde_json::Value as Json;
use std::future::{Future, ready};
use std::rc::Rc;

/// What a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// A request over HTTP.
    Http,
    /// A call from another Durable Object.
    Rpc,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The store's id.
    pub store_id: String,
    /// The client's payload, such as its token: what `validate_payload` has let pass.
    pub payload: Option<Json>,
    /// Those of the request's headers that [`LiveStoreServer::forward_headers`] names, in lower case.
    pub headers: Vec<(String, String)>,
    /// What it came by.
    pub transport: Transport,
}

/// A push, before it is stored.
#[derive(Clone, Debug)]
pub struct Push {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// The backend that the client knows; `None` if it knows none yet.
    pub backend_id: Option<String>,
}

/// A pull, before it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// What the client has; `None` for nothing.
    pub cursor: Option<Cursor>,
    /// Whether later events are wanted, too.
    pub live: bool,
}

/// What was sent to pulls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The events as JSON, with commas between them.
    pub events: Rc<str>,
    /// How many are behind them.
    pub remaining: u64,
}

/// What a backend takes from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message that is read, in bytes. A larger one closes its connection with 1009.
    pub frame_bytes: usize,
    /// The most events of one push. LiveStore's clients send at most 100.
    pub push_events: usize,
    /// The most connections at a time; more are refused with 503.
    pub connections: usize,
    /// The most pulls of one connection at a time; more close it with 1008.
    pub pulls: usize,
    /// The messages of one connection in the long run, per second; each 16 KiB of them, and of what
    /// it is sent, count as one more.
    pub messages_per_second: u32,
    /// The messages of one connection at once, above the rate; more close it with 1008.
    pub messages_burst: u32,
    /// The most events of a page.
    pub page_events: u32,
    /// About the most bytes of a page.
    pub page_bytes: usize,
    /// The most bytes of a connection's payload and headers together, as they are kept with its
    /// socket; more are refused with 431.
    pub caller_bytes: usize,
    /// The most subscriptions of objects that follow the log by calls; with another one the first
    /// of them is forgotten.
    pub subscribers: usize,
    /// The most bytes of pushes that wait for their turn; the connection of another one is closed
    /// with 1013, and its client pushes again.
    pub waiting_bytes: usize,
    /// How long [`LiveStoreServer::on_push`] may take, ms, before its push fails and the next one
    /// has its turn; and [`LiveStoreServer::on_pull`], before its connection is closed and its
    /// client comes again.
    pub hook_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 2 * 1024 * 1024,
            push_events: 1_000,
            connections: 10_000,
            pulls: 16,
            messages_per_second: 1_000,
            messages_burst: 20_000,
            page_events: 100,
            page_bytes: 900_000,
            caller_bytes: 8 * 1024,
            subscribers: 1_000,
            waiting_bytes: 16 * 1024 * 1024,
            hook_ms: 30_000,
        }
    }
}

impl Limits {
    /// The most that a page holds.
    pub(crate) fn page(&self) -> PageLimits {
        PageLimits { events: self.page_events, bytes: self.page_bytes }
    }

    /// How much a connection may send.
    pub(super) fn rate(&self) -> Allowed {
        Allowed { per_second: self.messages_per_second, burst: self.messages_burst }
    }
}

/// A backend for LiveStore's clients. All of it has defaults: a backend that only stores and
/// forwards implements nothing.
///
/// ```
/// use partysync::livestore::{Caller, LiveStoreServer, Push};
/// use partysync::{Error, Result};
///
/// #[derive(Default)]
/// struct Backend;
///
/// impl LiveStoreServer for Backend {
///     async fn on_push(&self, push: &Push, caller: &Caller) -> Result<()> {
///         let reader = caller.payload.as_ref().is_some_and(|payload| payload["role"] == "reader");
///         if reader { Err(Error::reject("this token may only read")) } else { Ok(()) }
///     }
/// }
/// ```
pub trait LiveStoreServer: 'static {
    /// What is taken from clients.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// What clients may come by.
    fn enabled_transports(&self) -> &[Transport] {
        &[Transport::WebSocket, Transport::Http, Transport::Rpc]
    }

    /// The names of the request's headers that [`Caller::headers`] is to have, in lower case.
    fn forward_headers(&self) -> &[&str] {
        &[]
    }

    /// Whether [`on_span`](Self::on_span) is told of requests that their clients trace.
    fn traces(&self) -> bool {
        false
    }

    /// What was done for a request whose client traces it (`sampled` in its envelope), as a span of
    /// the client's trace: hand it to whatever collects yours. It is called in the midst of a turn:
    /// keep it short.
    fn on_span(&self, span: Span) {
        let _ = span;
    }

    /// Before a push is stored. Other pushes of the store wait for it, so that it sees a log
    /// that does not change meanwhile.
    ///
    /// # Errors
    /// The client is told the error's message as an `UnknownError`, and pushes again, with a delay
    /// that grows to half a minute, for ever: LiveStore's protocol has no final refusal.
    fn on_push(&self, push: &Push, caller: &Caller) -> impl Future<Output = Result<()>> {
        let _ = (push, caller);
        ready(Ok(()))
    }

    /// After a push was stored, and its client was told. Nothing waits for it, and it is called
    /// at most once: not at all if the process ends before.
    fn on_push_res(&self, push: &Push, caller: &Caller) -> impl Future<Output = ()> {
        let _ = (push, caller);
        ready(())
    }

    /// Before a pull is answered.
    ///
    /// # Errors
    /// The client is told the error's message as an `UnknownError`; LiveStore's clients pull no
    /// more until they connect again.
    fn on_pull(&self, pull: &Pull, caller: &Caller) -> impl Future<Output = Result<()>> {
        let _ = (pull, caller);
        ready(Ok(()))
    }

    /// After a pull was sent something; `None` for what was just pushed, which all who follow are
    /// sent. Nothing waits for it.
    fn on_pull_res(&self, sent: &Sent, caller: Option<&Caller>) -> impl Future<Output = ()> {
        let _ = (sent, caller);
        ready(())
    }
}
