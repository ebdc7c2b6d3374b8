//! What a client is doing, for whoever develops the application: [`SyncClient::inspect`], and in a
//! page a panel that shows it. The feature is `devtools`; without it nothing of this is in a page.
//!
//! In a page with `leptos`, each room that a component follows is in the panel, which is shown when
//! the page's address says `?partysync`. In any other page:
//!
//! ```no_run
//! # use partysync::{Action, Record};
//! # #[derive(Record, Clone)] #[record(table = "notes")]
//! # struct Note { #[record(key)] id: String }
//! # #[derive(Action, Clone, Debug)] #[action(record = Note)]
//! # enum NoteAction { #[action(delete)] Delete { id: String } }
//! # fn example(client: &partysync_client::SyncClient<NoteAction>) {
//! partysync_client::devtools::watch("notes/mine", client);
//! # }
//! ```
//!
//! - `recorder.rs`: the last frames, and how long answers take
//! - `html.rs`: what the panel says, as HTML
//! - `panel.rs`: the panel in a page

mod html;
#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod panel;
#[cfg(not(all(feature = "web", target_arch = "wasm32")))]
#[path = "no_panel.rs"]
mod panel;
mod recorder;

pub use panel::{close, open};

pub(crate) use recorder::Recorder;

use crate::client::Shared;
use crate::replica::Replica;
use crate::{Status, SyncClient};
use partysync::{Action, Identity, Timestamp};
use std::sync::{Arc, Weak};

/// What a client is doing at a moment: [`SyncClient::inspect`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// Where it stands.
    pub status: Status,
    /// Who it is to the room.
    pub identity: Option<Identity>,
    /// The epoch of its rows.
    pub epoch: Option<String>,
    /// What it holds of each channel.
    pub channels: Vec<Channel>,
    /// Actions without an answer: its own, and those of other clients of the same place.
    pub pending: Vec<Pending>,
    /// The queries whose results are kept up to date.
    pub queries: Vec<Query>,
    /// The last frames, the newest last.
    pub frames: Vec<Frame>,
    /// How long the last ping took there and back, ms: the network, and nothing else.
    pub ping_ms: Option<u64>,
    /// How long the last push took until it was answered, ms.
    pub answer_ms: Option<u64>,
}

/// A channel that a client follows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Channel {
    /// Its name: the record's table.
    pub name: &'static str,
    /// The version of its rows.
    pub version: Option<u64>,
    /// How many of them the room has confirmed.
    pub rows: usize,
}

/// An action without an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pending {
    /// The channel.
    pub channel: String,
    /// The action's name, as it is sent.
    pub action: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether another living client has made it, and sends it.
    pub elsewhere: bool,
}

/// A query whose result is kept up to date.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Query {
    /// The table that it is about.
    pub table: String,
    /// All the tables that it depends on.
    pub tables: Vec<&'static str>,
    /// How many rows it finds; of counts and sums, how many groups.
    pub rows: usize,
    /// The most rows that it is to find.
    pub limit: Option<u32>,
    /// Whether it counts or sums up.
    pub totals: bool,
}

/// A frame, or what happened to the connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Frame {
    /// When.
    pub at: Timestamp,
    /// Which way.
    pub direction: Direction,
    /// The frame's type (`push`, `patch`); of the connection `connect`, `open` or `close 4401`.
    pub kind: String,
    /// How long its text is, in bytes of UTF-8.
    pub bytes: usize,
}

/// Which way a [`Frame`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the room.
    In,
    /// To the room.
    Out,
    /// It is no frame: the connection itself.
    Connection,
}

/// Something of a client that does not keep it from ending; `None` when it has ended.
type Look = Box<dyn Fn() -> Option<Inspection>>;

impl<A: Action> SyncClient<A> {
    /// What it is doing: feature `devtools`.
    ///
    /// ```
    /// # use partysync::{Action, Record};
    /// # #[derive(Record, Clone)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(delete)] Delete { id: String } }
    /// # fn example(client: &partysync_client::SyncClient<NoteAction>) {
    /// let now = client.inspect();
    /// for frame in &now.frames {
    ///     println!("{:?} {} {} B", frame.direction, frame.kind, frame.bytes);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.shared.inspect()
    }
}

impl<A: Action> Shared<A> {
    fn inspect(&self) -> Inspection {
        let inner = self.inner();
        let (replica, recorder) = (inner.peer.replica(), &inner.recorder);
        Inspection {
            status: inner.peer.status(),
            identity: replica.identity().cloned(),
            epoch: replica.epoch().map(str::to_owned),
            channels: channels(replica),
            pending: replica.inspect_pending(),
            queries: replica.inspect_queries(),
            frames: recorder.frames().collect(),
            ping_ms: recorder.ping_ms(),
            answer_ms: recorder.answer_ms(),
        }
    }
}

fn channels<A: Action>(replica: &Replica<A>) -> Vec<Channel> {
    let channel = |schema: &&'static partysync::Schema| Channel {
        name: schema.table,
        version: replica.version(schema.table),
        rows: replica.confirmed(schema.table),
    };
    A::CHANNELS.iter().map(channel).collect()
}

fn look<A: Action>(client: &SyncClient<A>) -> Look {
    let shared: Weak<Shared<A>> = Arc::downgrade(&client.shared);
    Box::new(move || {
        let shared = shared.upgrade()?;
        let ended = shared.inner().ended;
        (!ended).then(|| shared.inspect())
    })
}

/// Has the panel of the page show this client, under this name, until it has ended. The panel is
/// shown when the page's address says `?partysync`, or by [`open`]. Where there is no page, nothing
/// happens.
pub fn watch<A: Action>(name: impl Into<String>, client: &SyncClient<A>) {
    watching(|| name.into(), client)();
}

/// As [`watch`], to be done later; the client may end meanwhile.
pub(crate) fn watching<A: Action, N: FnOnce() -> String>(
    name: N,
    client: &SyncClient<A>,
) -> impl FnOnce() + 'static + use<A, N> {
    let (name, look) = (name(), look(client));
    move || panel::watch(name, look)
}
