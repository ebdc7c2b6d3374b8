//! [`Peer`]: the client's machine. It owns the replica, the connection, the outboxes and what is
//! known of the store; it has no IO, clock or random source of its own.
//!
//! A driver hands in what happens ([`Input`]) with the time, and carries out what comes of it
//! ([`Output`]), in that order, until there is nothing more:
//!
//! ```
//! # use partysync::{Action, Record};
//! # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
//! # struct Note { #[record(key)] id: String, text: String }
//! # #[derive(Action, Clone, Debug)] #[action(record = Note)]
//! # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
//! use partysync_client::store::Saved;
//! use partysync_client::{Input, Now, Output, Peer, Timing};
//!
//! let now = Now::default();
//! let mut peer = Peer::<NoteAction>::new([1, 2], Timing::default(), now);
//! assert!(matches!(peer.poll_output(), Some(Output::OpenStore(_))));
//! peer.handle(Input::Opened(Ok(Saved::default())), now);
//! assert_eq!(peer.poll_output(), Some(Output::Connect));
//!
//! let seq = peer.act(NoteAction::Create { id: "a".into(), text: "hi".into() }, now)?;
//! assert_eq!(peer.replica().rows::<Note>()?[0].text, "hi");
//! assert!(matches!(peer.poll_output(), Some(Output::Changed(_))));
//! assert!(matches!(peer.poll_output(), Some(Output::Store(_))));
//! # assert_eq!(seq, 1); Ok::<(), partysync::Error>(())
//! ```

mod connection;
mod event;
mod presence;
mod status;
mod storage;

pub use event::{Cause, Input, Note, Now, Output};
pub use presence::Known;
pub use status::{Phase, Status, Timing};

use crate::gathered::gathered;
use crate::query::{Asked, Live, LiveTotals};
use crate::replica::{Answered, Changes, Patience, PushLimits, Replica, merge};
use crate::store::{Abandoned, Write};
use connection::Connection;
use partysync::query::{Group, Query, Totals, Tuple};
use partysync::wire::snapshot::Snapshot;
use partysync::wire::v2::ClientFrame;
use partysync::{Action, Code, Error, Record, Result};
use presence::Presence;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use storage::Storage;

/// The largest action, in bytes of its JSON: a room reads frames of 1 MiB.
const ACTION_BYTES: usize = 1024 * 1024 - 1024;
/// About how large a push may get.
const PUSH: PushLimits = PushLimits { actions: 256, bytes: 256 * 1024 };
/// So much has to be held against an action before it is given up.
const POINTS: u32 = 12;

/// A client of a room: what it shows, and what it does about it.
#[derive(Debug)]
pub struct Peer<A> {
    replica: Replica<A>,
    connection: Connection,
    storage: Storage,
    presence: Presence,
    timing: Timing,
    abandoned: BTreeMap<String, Abandoned>,
    /// Those that are not wanted any more.
    discarded: BTreeSet<String>,
    /// A push that waits for the store.
    held: Option<Held>,
    outputs: VecDeque<Output>,
}

/// A push that is sent when the store has what was written up to a mark.
#[derive(Debug)]
struct Held {
    mark: u64,
    text: String,
    /// Whether it is as large as the line is given.
    full: bool,
}

impl<A: Action> Peer<A> {
    /// A client that begins by opening its store. `random` is random: the client's id is made of
    /// it, and nobody has had it before.
    #[must_use]
    pub fn new(random: [u64; 2], timing: Timing, now: Now) -> Self {
        let client = format!("{:016x}{:016x}", random[0], random[1]);
        Self {
            replica: Replica::new(client.as_str().into()),
            connection: Connection::new(random[0] ^ random[1].rotate_left(17)),
            storage: Storage::new(now),
            presence: Presence::default(),
            timing,
            abandoned: BTreeMap::new(),
            discarded: BTreeSet::new(),
            held: None,
            outputs: [Output::OpenStore(client)].into(),
        }
    }

    /// Shows these rows until newer ones are here, if nothing has been done yet. What does not fit
    /// this client's records is passed over: it is fetched.
    pub fn begin_with(&mut self, snapshot: Snapshot) {
        let changes = self.replica.begin_with(snapshot);
        self.change(changes);
    }

    /// The rows that a query finds, kept up to date for as long as anybody holds them.
    ///
    /// # Errors
    /// As [`SyncClient::query`](crate::SyncClient::query).
    pub fn query<R: Record, W: Tuple>(&mut self, query: &Query<R, W>) -> Result<Live<R, W>> {
        Ok(Live::new(self.replica.ask(Asked::Rows(query.plan()?))?))
    }

    /// How many rows a query finds and what they sum up to, kept up to date.
    ///
    /// # Errors
    /// As [`SyncClient::query`](crate::SyncClient::query).
    pub fn totals<R: Record, G: Group>(
        &mut self,
        totals: &Totals<R, G>,
    ) -> Result<LiveTotals<R, G>> {
        Ok(LiveTotals::new(self.replica.ask(Asked::Totals(totals.plan()?))?))
    }

    /// The rows.
    pub fn replica(&self) -> &Replica<A> {
        &self.replica
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        Status {
            phase: self.connection.phase(),
            pending: self.replica.pending(),
            abandoned: self.abandoned.len(),
            unreadable: self.replica.count_unreadable(),
            warning: self.storage.warning().cloned(),
        }
    }

    /// What the driver has to do next; to be asked until there is nothing more, after everything
    /// that was done to the peer.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            let wakers = self.replica.take_wakers();
            (!wakers.is_empty()).then_some(Output::Wake(wakers))
        })
    }

    /// The number of the socket that [`Output::Connect`] has asked for last. What an older one
    /// still tells is not to be handed in.
    pub fn socket(&self) -> u64 {
        self.connection.sockets()
    }

    /// When [`Input::Time`] is due: on the monotonic clock, ms; 0 when there is more to do at once.
    pub fn timeout(&self) -> Option<u64> {
        if self.is_done() {
            return None;
        }
        if self.connection.is_closed() {
            return self.storage.last_timeout(self.timing.store_ms);
        }
        let timing = &self.timing;
        let connection = self.connection.timeout(timing, self.presence.is_told());
        let presence = self.presence.timeout(timing, &self.connection);
        let storage = self.storage.timeout(timing.store_ms);
        [connection, presence, storage].into_iter().flatten().min()
    }

    /// Something happens.
    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        if self.connection.is_closed() {
            return self.handle_closed(input, now);
        }
        match input {
            Input::Opened(opened) => self.store_opened(opened, now),
            Input::Stored(result) => self.stored(result, now),
            Input::Store(event) => self.store_event(event, now),
            Input::Connected => self.connected(now),
            Input::Frame(text) => self.received(text, now),
            Input::Disconnected(cause) => self.disconnected(cause, now),
            Input::Nudge => self.nudge(now),
            Input::Time => {
                self.storage_time(now);
                self.time(now);
            }
        }
        self.go_on(now);
    }

    /// Makes an action: shown at once, sent as soon as may be. Returns its seq, by which its
    /// [`Output::Answer`] is known.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form, [`Code::TooLarge`] when no room would read
    /// it, [`Code::Closed`] when the client is closed: nothing has happened.
    pub fn act(&mut self, action: A, now: Now) -> Result<u64> {
        let seq = self.make(action, now)?;
        self.go_on(now);
        Ok(seq)
    }

    fn make(&mut self, action: A, now: Now) -> Result<u64> {
        if self.connection.is_closed() {
            return Err(Error::new(Code::Closed, "the client is closed"));
        }
        let json = action.to_json()?;
        let size = json.to_string().len();
        if size > ACTION_BYTES {
            let message = format!("an action of {size} bytes; the limit is {ACTION_BYTES}");
            return Err(Error::new(Code::TooLarge, message));
        }
        // Where the room's clock is ahead, what is made now would look old among its rows.
        let made_at = now.wall.max(self.connection.latest_room_time(now));
        let made = self.replica.act(action, json, made_at);
        self.change(made.changes);
        let client = self.replica.client().to_owned();
        self.tell_others(Note::Acted { client, seq: made.seq, action: made.saved });
        self.push(now);
        Ok(made.seq)
    }

    /// Sends a message of the application's own; `false` when there is no live connection.
    pub fn message(&mut self, message: Json) -> bool {
        let live = self.connection.is_live();
        if live {
            self.send(ClientFrame::Message(message).to_text());
        }
        live
    }

    /// Ends the client. Pending actions stay in the store: the driver goes on until it
    /// [is done](Self::is_done).
    pub fn close(&mut self) {
        self.disconnect();
        self.connection.close();
        self.presence_ends();
        self.held = None;
    }

    /// Nothing happens any more.
    pub(crate) fn end(&mut self) {
        self.replica.end();
    }

    /// Shows nothing any more: what it showed was deleted.
    pub(crate) fn clear(&mut self) {
        let changes = self.replica.clear();
        self.change(changes);
        self.abandoned.clear();
    }

    /// Whether it is closed, and all that it has written is stored, or cannot be.
    pub fn is_done(&self) -> bool {
        self.connection.is_closed() && self.storage.is_done()
    }

    /// What is on its way to the store when the client ends still gets there, unless it takes long.
    fn handle_closed(&mut self, input: Input<'_>, now: Now) {
        match input {
            Input::Opened(opened) => self.storage.opened_late(opened.is_ok()),
            Input::Stored(result) => self.stored(result, now),
            Input::Time => self.storage.time_closed(now, self.timing.store_ms),
            _ => {}
        }
        self.storage_goes_on(now);
    }

    /// Actions that were given up, by an id; nobody knows whether the room has done them.
    pub fn abandoned(&self) -> &BTreeMap<String, Abandoned> {
        &self.abandoned
    }

    /// Does an action that was given up as a new one.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none with this id, and what is wrong with it when this
    /// version of the application cannot read it.
    pub fn retry(&mut self, id: &str, now: Now) -> Result<u64> {
        let abandoned = self.abandoned.get(id).ok_or_else(|| not_abandoned(id))?;
        let action = A::from_json(&abandoned.channel, &abandoned.action.to_string())?;
        // Both are stored, or none.
        let seq = self.make(action, now)?;
        self.discard(id, now)?;
        Ok(seq)
    }

    /// Lets go of an action that was given up.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none with this id.
    pub fn discard(&mut self, id: &str, now: Now) -> Result<Abandoned> {
        let abandoned = self.abandoned.remove(id).ok_or_else(|| not_abandoned(id))?;
        self.discarded.insert(id.to_owned());
        self.take_writes();
        self.write([Write::Discard(id.to_owned())]);
        self.tell_others(Note::Abandoned { added: BTreeMap::new(), removed: vec![id.to_owned()] });
        self.go_on(now);
        Ok(abandoned)
    }

    /// What was done so far is stored when [`is_stored`](Self::is_stored) says so of this.
    pub fn mark(&mut self) -> u64 {
        self.take_writes();
        self.storage.mark()
    }

    /// Whether what was done before a [`mark`](Self::mark) is stored, or cannot be: the status
    /// has a warning then.
    pub fn is_stored(&self, mark: u64) -> bool {
        self.storage.has(mark)
    }

    fn change(&mut self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        if let Some(Output::Changed(last)) = self.outputs.back_mut() {
            merge(last, changes);
        } else {
            self.outputs.push_back(Output::Changed(changes));
        }
    }

    fn report(&mut self, error: Error) {
        self.outputs.push_back(Output::Error(error));
    }

    fn send(&mut self, text: String) {
        self.outputs.push_back(Output::Send(text));
    }

    /// What comes after everything: what was written is stored, what waited for that is sent.
    fn go_on(&mut self, now: Now) {
        for error in self.replica.tell_unreadable() {
            self.report(error);
        }
        self.storage_goes_on(now);
        self.presence_goes_on(now);
        let held =
            self.held.take_if(|held| self.storage.has(held.mark) || partysync::__mutated("stored"));
        if let Some(Held { text, full, .. }) = held {
            self.send(text);
            self.send(partysync::wire::PING.to_owned());
            self.connection.pushed(full, &self.timing, now);
        }
    }

    /// Prepares the next push, unless one is under way: what comes meanwhile goes in one frame
    /// when that one is answered. It is sent when the store has what it holds.
    fn push(&mut self, now: Now) {
        if !self.connection.is_live() || self.held.is_some() || self.connection.waits() {
            return;
        }
        let patience = Patience { points: POINTS, millis: self.timing.give_up_ms };
        let (limits, time) = (self.connection.smaller(PUSH), self.connection.room_time(now));
        match self.replica.next_push(limits, patience, time) {
            Ok(Some(push)) => {
                let full = push.actions.len() >= limits.actions;
                let text = ClientFrame::Push(push).to_text();
                let full = full || text.len().saturating_mul(2) >= limits.bytes;
                let mark = self.mark();
                self.held = Some(Held { mark, text, full });
            }
            Ok(None) => self.connection.rests(),
            Err(error) => self.report(error),
        }
    }

    /// Tells the others which actions have their answers: they show them from then on as they are
    /// in the rows.
    fn tell_answered(&mut self, answers: &[Answered], to: u64) {
        let epoch = self.replica.epoch().unwrap_or_default();
        let mut seqs = BTreeMap::<(&str, bool), Vec<u64>>::new();
        for Answered { client, seq, outcome, .. } in answers {
            seqs.entry((client, outcome.is_ok())).or_default().push(*seq);
        }
        for ((client, done), seqs) in seqs {
            let (client, held_by) = (client.to_owned(), done.then(|| (epoch.to_owned(), to)));
            self.outputs.push_back(Output::Tell(Note::Answered { client, seqs, held_by }));
        }
    }

    /// An action has its answer.
    fn answer(&mut self, answered: Answered) {
        let Answered { client, seq, own, outcome, action } = answered;
        let given_up = |error: &Error| {
            matches!(error.code(), Code::Abandoned | Code::ClientForgotten) || is_unknown(error)
        };
        if let Some(error) = outcome.as_ref().err().filter(|error| given_up(error)) {
            let abandoned = Abandoned {
                channel: action.channel,
                action: action.action,
                made_at: action.made_at,
                code: error.code().as_str().to_owned(),
                message: error.message().to_owned(),
            };
            let id = format!("{client}-{seq}");
            self.abandoned.insert(id.clone(), abandoned.clone());
            self.take_writes();
            self.write([Write::Abandon { id: id.clone(), abandoned: abandoned.clone() }]);
            let added = gathered([(id, abandoned)]);
            self.tell_others(Note::Abandoned { added, removed: Vec::new() });
        }
        let outcome = outcome.map_err(|error| match is_unknown(&error) {
            true => Error::new(
                Code::Outdated,
                "this page and its server are of different versions: reload it; what you did is kept",
            ),
            false => error,
        });
        if own {
            self.outputs.push_back(Output::Answer(seq, outcome));
        } else if let Err(error) = outcome {
            // Whoever made it is gone.
            self.report(error);
        }
    }
}

/// Whether the room does not understand the action, which this client has made by the application's
/// own types: those of the room are of another version.
fn is_unknown(error: &Error) -> bool {
    matches!(error.code(), Code::ActionMismatch | Code::UnknownAction | Code::UnknownChannel)
}

fn not_abandoned(id: &str) -> Error {
    Error::new(Code::NotFound, format!("no action `{id}` was given up"))
}
