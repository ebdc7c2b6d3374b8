//! What the benchmarks have in common: a client that is connected, and a view as a page keeps it.

use futures::Stream;
use partysync::query::{Found, Tuple};
use partysync::{Action, Key, Record};
use partysync_client::query::{Live, LiveChanges};
use partysync_client::store::Saved;
use partysync_client::{Input, Now, Output, Peer, Timing};
use serde_json::{Value as Json, json};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub(crate) fn now() -> Now {
    Now::default()
}

/// A client without rows whose room has welcomed it.
pub(crate) fn open<A: Action>() -> Peer<A> {
    let mut peer = Peer::new([1, 2], Timing::default(), now());
    let welcome = r#"{"type":"welcome","epoch":"e","version":1,"connection":"c","now":0}"#;
    for input in [Input::Opened(Ok(Saved::default())), Input::Connected, Input::Frame(welcome)] {
        peer.handle(input, now());
        take_outputs(&mut peer);
    }
    peer
}

/// Does what a client asks for: what it writes is stored at once.
pub(crate) fn take_outputs<A: Action>(peer: &mut Peer<A>) {
    while let Some(output) = peer.poll_output() {
        if matches!(output, Output::Store(_)) {
            peer.handle(Input::Stored(Ok(())), now());
        }
    }
}

/// What a view shows, as a page keeps it.
pub(crate) trait Shown {
    fn hear(&mut self);
    fn result(&self) -> Json;
}

pub(crate) struct View<R, W> {
    _live: Live<R, W>,
    changes: LiveChanges<R, W>,
    rows: Vec<Found<R, W>>,
}

impl<R: Record, W: Tuple + Compared> View<R, W> {
    /// Reads a result.
    pub(crate) fn new(live: Live<R, W>) -> Self {
        let mut view = Self { changes: live.changes(), _live: live, rows: Vec::new() };
        view.hear();
        view
    }
}

/// What is compared of what comes with a row.
pub(crate) trait Compared {
    fn compared(&self) -> Json;
}

impl Compared for () {
    fn compared(&self) -> Json {
        Json::Null
    }
}

impl<R: Record, W: Tuple + Compared> Shown for View<R, W> {
    fn hear(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(told)) = Pin::new(&mut self.changes).poll_next(&mut context) {
            for difference in told {
                difference.apply(&mut self.rows);
            }
        }
    }

    fn result(&self) -> Json {
        let row = |found: &Found<R, W>| {
            let key = match found.key() {
                Key::Integer(n) => json!(n),
                key => json!(key.to_string()),
            };
            json!([key, found.related.compared()])
        };
        Json::Array(self.rows.iter().map(row).collect())
    }
}
