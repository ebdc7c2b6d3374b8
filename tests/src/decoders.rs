//! Everything that reads bytes from outside, each as a function that any bytes may be given to:
//! what `fuzz/` runs on random input, and `tests/corpus.rs` on the inputs that are kept.
//!
//! A decoder may refuse; what it takes must survive a round trip. Each function panics otherwise.

use crate::bench::Bench;
pub use crate::livestore_decoders::{events, livestore, msgpack};
use futures::FutureExt;
use futures::stream::StreamExt;
use lab_shared::{Item, LabAction, Note};
use partysync::streams::{Body, MemoryStore, Options, Streams, full};
use partysync::testing::TestRoom;
use partysync::wire::{v1, v2};
use partysync::{Action, Protocol, Record, Result, Room, SyncServer};
use partysync_client::store::Saved;
use partysync_client::{Cause, Input, Now, Output, Peer, Timing};
use serde_json::Value as Json;

/// A decoder, by the name of its fuzz target and of its folder of inputs.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const DECODERS: [Decoder; 12] = [
    ("v1_frame", v1_frame),
    ("client_frame", client_frame),
    ("server_frame", server_frame),
    ("row", row),
    ("action", action),
    ("saved", saved),
    ("room", room),
    ("session", session),
    ("streams", streams),
    ("msgpack", msgpack),
    ("livestore", livestore),
    ("events", events),
];

/// A frame of TypeScript `partysync`.
pub fn v1_frame(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = v1::Request::parse(text);
    }
}

/// A v2 frame from a client.
pub fn client_frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = v2::ClientFrame::parse(text) {
        let written = frame.to_text();
        let again = v2::ClientFrame::parse(&written).expect("what was written can be read");
        assert_eq!(again.to_text(), written);
    }
}

/// A v2 frame from a server.
pub fn server_frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(Some(frame)) = v2::ServerFrame::parse(text) {
        let again = v2::ServerFrame::parse(&frame.to_text());
        assert_eq!(again.expect("what was written can be read"), Some(frame));
    }
}

/// A row of the record with every column type, and of the one with an integer key.
pub fn row(data: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Json>(data) else { return };
    for schema in [Item::SCHEMA, Note::SCHEMA] {
        let Ok(row) = schema.row_from_json(&json) else { continue };
        let written = schema.row_to_json(&row).expect("a row has a JSON form");
        assert_eq!(schema.row_from_json(&written).expect("what was written can be read"), row);
        let _ = schema.key_of(&row);
    }
    let typed = Item::SCHEMA.row_from_json(&json).and_then(Item::from_row);
    if let Ok(item) = typed {
        let again = Item::from_row(item.to_row().expect("an item is a row"));
        assert_eq!(again.expect("its own row"), item);
    }
}

/// An action of each channel.
pub fn action(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    for channel in ["items", "notes"] {
        let Ok(action) = LabAction::from_json(channel, json) else { continue };
        let written = action.to_json().expect("an action has a JSON form");
        let again = LabAction::from_json(channel, &written.to_string());
        assert_eq!(again.expect("what was written can be read"), action);
    }
}

/// A client's stored state.
pub fn saved(data: &[u8]) {
    let Ok(saved) = serde_json::from_slice::<Saved>(data) else { return };
    let outboxes = saved.outboxes.iter().map(|outbox| (&outbox.client, outbox.pending.len()));
    // A store gives none twice.
    let outboxes: std::collections::BTreeMap<_, _> = outboxes.collect();
    let (distinct, pending) = (outboxes.len(), outboxes.into_values().sum::<usize>());
    let all = distinct == saved.outboxes.len() && saved.others.is_empty();
    let now = Now::default();
    let mut peer = Peer::<LabAction>::new([1, 2], Timing::default(), now);
    peer.handle(Input::Opened(Ok(saved)), now);
    let replica = peer.replica();
    let _ = (replica.rows::<Item>(), replica.rows::<Note>());
    assert!(!all || replica.pending() == pending, "a pending action is gone");
}

/// A server that does what its actions say.
#[derive(Debug, Default)]
pub struct Lab;

impl SyncServer for Lab {
    type Action = LabAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: LabAction) -> Result<()> {
        match action {
            // Thousands of rows are no decoder's business.
            LabAction::Items(lab_shared::ItemAction::Fill { .. }) => Ok(()),
            action => action.apply(room.sql()),
        }
    }
}

/// A conversation, one event a line: `1...`, `2...` and `3...` are frames on a v1 connection and two
/// v2 ones, `-2` cuts a connection and `+2` makes it anew, `h` puts the room to sleep, `a` lets two
/// days pass and rings its alarm. Whatever happens, the room goes on, and an honest client beside
/// them has what the room has.
pub fn room(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut room = TestRoom::new(Lab).expect("a new room opens");
    let protocol = |id| if id == "1" { Protocol::V1 } else { Protocol::V2 };
    for id in ["1", "2", "3"] {
        room.connect(id, protocol(id)).expect("it connects");
    }
    let mut honest = Honest::new();
    honest.connect(&mut room);
    for line in text.lines().take(64) {
        let Some((what, rest)) = line.split_at_checked(1) else { continue };
        let sent = match (what, rest) {
            ("1" | "2" | "3", frame) => room.frame(what, frame).expect("no reason to stop"),
            ("-", id @ ("1" | "2" | "3")) => {
                room.disconnect(id).expect("it is gone");
                Vec::new()
            }
            ("+", id @ ("1" | "2" | "3")) => {
                room.disconnect(id).expect("it is gone");
                room.connect(id, protocol(id)).expect("it connects");
                Vec::new()
            }
            ("h", _) => {
                room.hibernate().expect("it wakes");
                Vec::new()
            }
            ("a", _) => {
                room.advance_millis(2 * 24 * 60 * 60 * 1000);
                room.alarm().expect("an alarm is no reason to stop")
            }
            _ => continue,
        };
        honest.hears(&mut room, sent);
    }
    let wanted = Note { number: -7, text: "the last one".into() };
    for action in [
        lab_shared::NoteAction::Erase { number: wanted.number },
        lab_shared::NoteAction::Write { number: wanted.number, text: wanted.text.clone() },
    ] {
        honest.peer.act(LabAction::Notes(action), honest.now).expect("it is small");
        honest.hears(&mut room, Vec::new());
    }
    if !honest.connected {
        honest.connect(&mut room);
    }
    assert!(honest.answers.iter().all(Result::is_ok));
    let notes = room.rows::<Note>().expect("notes fit their type");
    assert!(notes.contains(&wanted));
    let replica = honest.peer.replica();
    assert_eq!(replica.pending(), 0, "the room has answered");
    assert_eq!(replica.rows::<Note>().expect("notes fit their type"), notes);
    let mut items = room.rows::<Item>().expect("items fit their type");
    items.retain(|item| item.deleted_at.is_none());
    assert_eq!(replica.rows::<Item>().expect("items fit their type"), items);
}

/// A client that does as the protocol says.
struct Honest {
    peer: Peer<LabAction>,
    now: Now,
    connected: bool,
    answers: Vec<Result<()>>,
}

impl Honest {
    const ID: &str = "honest";

    fn new() -> Self {
        let now = Now::default();
        let mut peer = Peer::new([1, 2], Timing::default(), now);
        peer.handle(Input::Opened(Ok(Saved::default())), now);
        Self { peer, now, connected: false, answers: Vec::new() }
    }

    fn connect(&mut self, room: &mut TestRoom<Lab>) {
        room.disconnect(Self::ID).expect("it is gone");
        room.connect(Self::ID, Protocol::V2).expect("it connects");
        self.peer.reconnect(self.now);
        // It has asked for this socket, and has let go of another.
        while self.peer.poll_output().is_some() {}
        self.connected = true;
        self.peer.handle(Input::Connected, self.now);
        self.hears(room, Vec::new());
    }

    /// Gives it what it was sent, and the room what it says, until neither says more.
    fn hears(&mut self, room: &mut TestRoom<Lab>, sent: Vec<(String, String)>) {
        let mut frames = std::collections::VecDeque::from(sent);
        loop {
            while let Some((to, text)) = frames.pop_front() {
                if to != Self::ID || !self.connected {
                    continue;
                }
                match text.strip_prefix("close ").and_then(|close| close.split_once(' ')) {
                    Some((code, reason)) => {
                        self.connected = false;
                        let (code, reason) = (code.parse().expect("a code"), reason.to_owned());
                        let cause = Cause::Code { code, reason };
                        self.peer.handle(Input::Disconnected(cause), self.now);
                    }
                    None => self.peer.handle(Input::Frame(&text), self.now),
                }
            }
            while let Some(output) = self.peer.poll_output() {
                match output {
                    Output::Send(text) if self.connected => {
                        frames.extend(room.frame(Self::ID, &text).expect("no reason to stop"));
                    }
                    Output::Disconnect => self.connected = false,
                    Output::Answer(_, answer) => self.answers.push(answer.map(drop)),
                    Output::Store(_) => self.peer.handle(Input::Stored(Ok(())), self.now),
                    _ => {}
                }
            }
            if frames.is_empty() {
                return;
            }
        }
    }
}

/// Frames, one a line, that a client is sent. Whatever they are, its pending action stays until
/// it is answered, and the client knows when it wants to be woken.
pub fn session(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut now = Now::default();
    let mut peer = Peer::<LabAction>::new([1, 2], Timing::default(), now);
    peer.handle(Input::Opened(Ok(Saved::default())), now);
    let note = lab_shared::NoteAction::Write { number: 1, text: "mine".into() };
    let seq = peer.act(LabAction::Notes(note), now).expect("it is small");
    let mut answered = false;
    for line in text.lines().take(64) {
        peer.handle(Input::Connected, now);
        peer.handle(Input::Frame(line), now);
        now.monotonic = peer.timeout().map_or(now.monotonic, |at| at.max(now.monotonic));
        peer.handle(Input::Time, now);
        while let Some(output) = peer.poll_output() {
            match output {
                Output::Store(_) => peer.handle(Input::Stored(Ok(())), now),
                Output::Answer(which, _) => answered |= which == seq,
                _ => {}
            }
        }
    }
    assert!(answered || peer.replica().pending() == 1, "the pending action is gone");
    let _ = (peer.replica().rows::<Item>(), peer.replica().rows::<Note>());
}

/// Requests to a server of streams, as HTTP writes them, with `---` on a line between two. Whatever
/// they are, the server never fails, and what it holds can be read.
pub fn streams(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let bench = Bench::default();
    let options = Options { page_bytes: 8, local_webhooks: true, ..Options::default() };
    let server = Streams::new(MemoryStore::new(), bench.clone(), options);
    let ask = |text: &str| {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let (method, path) = lines.next()?.split_once(' ')?;
        let uri = format!("https://streams.example/v1/stream/{path}");
        let mut request = http::Request::builder().method(method).uri(uri);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            request = request.header(name, value);
        }
        let request = request.body(full(body.as_bytes().to_vec())).ok()?;
        // A live read may wait for ever: it is hung up on.
        let response = server.handle(request).now_or_never()?;
        assert!(!response.status().is_server_error(), "{text}");
        if let Body::Live(mut events) = response.into_body() {
            let _ = events.next().now_or_never();
        }
        Some(())
    };
    for request in text.split("\n---\n").take(32) {
        if let Some(seconds) = request.strip_prefix("WAIT ") {
            bench.wait(seconds.parse().unwrap_or(0u16).into());
        }
        let _ = ask(request);
        bench.run_tasks();
        let _ = server.wake().now_or_never();
    }
    for path in ["a", "b", "c/d"] {
        let mut offset = "-1".to_owned();
        for _ in 0..10_000 {
            let read = http::Request::get(format!(
                "https://streams.example/v1/stream/{path}?offset={offset}"
            ));
            let read = server.handle(read.body(full(Vec::new())).expect("a request"));
            let page = read.now_or_never().expect("memory is at hand");
            assert!(matches!(page.status().as_u16(), 200 | 404 | 410), "{path}: {}", page.status());
            if page.status() != 200 || page.headers().contains_key("stream-up-to-date") {
                break;
            }
            offset = page.headers()["stream-next-offset"].to_str().expect("an offset").to_owned();
        }
    }
}
