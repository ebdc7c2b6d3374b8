//! [`Session`]: connect, say hello, catch up, push, resend, back off. A state machine without
//! IO: frames and time come in, frames and times to wake up go out.

mod status;

pub use status::{Effect, Phase, Status, Timing};

use crate::replica::{Changes, Replica};
use crate::store::Outbox;
use partysync::wire::v2::{ClientFrame, Hello, ServerFrame};
use partysync::wire::{
    CLOSE_BUSY, CLOSE_FORGOTTEN, CLOSE_REFUSED, CLOSE_RESTART, CLOSE_SCHEMA, PING, PONG, READ_BYTES,
};
use partysync::{Action, Code, Error, Result, Timestamp};
use serde_json::Value as Json;

/// Most actions of one push; a room refuses more than it allows.
const PUSH_ACTIONS: usize = 256;
/// About how large a push may get, in bytes.
const PUSH_BYTES: usize = 256 * 1024;

/// What is held against the first action of a push that got no answer: the server was there, and
/// did not answer or failed.
const SURE: u32 = 4;
/// The connection broke, as connections do; but a server that dies of an action looks the same.
const MAYBE: u32 = 1;

#[derive(Debug, PartialEq)]
enum State {
    /// The replica is not here yet.
    Loading,
    /// No socket; the next attempt at this time.
    Waiting(Timestamp),
    /// A socket was asked for.
    Opening,
    /// `hello` was said; catch-ups of this many channels are missing.
    Greeting {
        /// Without the room's epoch, rows are of no use.
        welcomed: bool,
        missing: usize,
        received: u64,
        total: u64,
    },
    Live,
    Refused(Error),
    Closed,
}

/// A replica's connection to its room.
#[derive(Debug)]
pub struct Session<A> {
    replica: Replica<A>,
    timing: Timing,
    state: State,
    /// When waiting for what `state` waits for ends.
    deadline: Timestamp,
    attempt: u32,
    random: u64,
    /// The last seq that was pushed on this connection.
    pushed: u64,
    /// When the answer to a push is overdue.
    answer_by: Option<Timestamp>,
    /// Whether the server has answered the ping behind that push: the push was there, too.
    reached: bool,
    /// Bytes read since the server was last told.
    read: u64,
    /// How many it wants to be told of at once.
    read_bytes: u64,
    /// When a frame last came.
    heard_at: Timestamp,
    pinged: bool,
    /// The version of the last frame with answers.
    answered_at: u64,
    warning: Option<Error>,
    effects: Vec<Effect>,
    changes: Changes,
    answers: Vec<(u64, Result<()>)>,
    messages: Vec<Json>,
    errors: Vec<Error>,
}

impl<A: Action> Session<A> {
    /// A session that connects at once. `seed` is random: it spreads the attempts of many
    /// clients.
    #[must_use]
    pub fn new(replica: Replica<A>, timing: Timing, seed: u64, now: Timestamp) -> Self {
        let mut session = Self::loading(timing, seed, now);
        session.loaded(replica, now);
        session
    }

    /// A session that waits for its replica. No action may be made before that is here.
    pub(crate) fn loading(timing: Timing, seed: u64, now: Timestamp) -> Self {
        Self {
            replica: Replica::new(String::new()),
            timing,
            state: State::Loading,
            deadline: now,
            attempt: 0,
            // xorshift stays at 0 for ever.
            random: if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed },
            pushed: 0,
            answer_by: None,
            reached: false,
            read: 0,
            read_bytes: READ_BYTES,
            heard_at: now,
            pinged: false,
            answered_at: 0,
            warning: None,
            effects: Vec::new(),
            changes: Changes::new(),
            answers: Vec::new(),
            messages: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// The replica is here: its rows are shown, and the session connects.
    pub(crate) fn loaded(&mut self, replica: Replica<A>, now: Timestamp) {
        self.replica = replica;
        for channel in A::CHANNELS.iter().map(|schema| schema.table) {
            let keys = self.replica.touched_keys(channel);
            self.note([(channel, keys)].into());
        }
        if self.state == State::Loading {
            self.connect(now);
        }
    }

    /// The store does not work: what is pending ends with the page or program.
    pub(crate) fn warn(&mut self, error: &Error) {
        let message = format!("what is not saved is lost when this ends: {}", error.message());
        self.warning = Some(Error::new(Code::Store, message));
    }

    /// A session that follows no rows: it pushes what a client that is gone left behind, under
    /// that client's id. What it hears goes to the session that has adopted the outbox.
    #[must_use]
    pub fn courier(outbox: &Outbox, timing: Timing, seed: u64, now: Timestamp) -> Self {
        Self::new(Replica::courier(outbox), timing, seed, now)
    }

    /// Shows what a client that is gone left behind, until a courier has brought it home. `id`
    /// is a number that tells it from others.
    pub fn adopt(&mut self, id: u64, outbox: &Outbox) {
        let (changes, errors) = self.replica.adopt(id, outbox);
        self.errors.extend(errors);
        self.note(changes);
    }

    /// Hears what a courier has heard, and returns its answers. What was done is shown until this
    /// session has the rows that hold it; what was rejected is an error here: its caller is gone.
    pub fn hear(&mut self, id: u64, courier: &mut Self, now: Timestamp) -> Vec<(u64, Result<()>)> {
        let answers = courier.take_answers();
        let epoch = courier.replica.epoch().unwrap_or_default();
        for (seq, answer) in &answers {
            let held_by = answer.is_ok().then(|| (epoch.to_owned(), courier.answered_at));
            let changes = self.replica.guest_answered(id, *seq, held_by);
            self.note(changes);
            self.errors.extend(answer.clone().err());
        }
        // One of the two speaks to storage that is gone: the next welcome says which.
        if self.state == State::Live && !answers.is_empty() && self.replica.epoch() != Some(epoch) {
            self.lost(now, 0);
        }
        self.errors.extend(courier.take_errors());
        answers
    }

    /// The rows.
    pub fn replica(&self) -> &Replica<A> {
        &self.replica
    }

    /// What is to be stored since the last call.
    pub fn take_writes(&mut self) -> Vec<crate::store::Write> {
        self.replica.take_writes()
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let phase = match &self.state {
            State::Loading => Phase::Loading,
            State::Waiting(retry_at) => Phase::Offline { retry_at: *retry_at },
            State::Opening => Phase::Connecting,
            State::Greeting { total: 0, .. } => Phase::Connecting,
            State::Greeting { received, total, .. } => {
                Phase::CatchingUp { received: *received, total: *total }
            }
            State::Live => Phase::Live,
            State::Refused(error) => Phase::Refused(error.clone()),
            State::Closed => Phase::Closed,
        };
        Status { phase, pending: self.replica.pending(), warning: self.warning.clone() }
    }

    /// What the driver has to do, in this order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The actions that were answered since the last call.
    pub fn take_answers(&mut self) -> Vec<(u64, Result<()>)> {
        std::mem::take(&mut self.answers)
    }

    /// The application's own messages since the last call.
    pub fn take_messages(&mut self) -> Vec<Json> {
        std::mem::take(&mut self.messages)
    }

    /// What the server could not use, or the session of the server's, since the last call.
    pub fn take_errors(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.errors)
    }

    /// Adds an error from outside to [`take_errors`](Self::take_errors).
    pub fn report(&mut self, error: Error) {
        self.errors.push(error);
    }

    /// When [`tick`](Self::tick) has to be called.
    pub fn wake_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(at) => Some(*at),
            State::Opening | State::Greeting { .. } => Some(self.deadline),
            State::Live => {
                let quiet =
                    if self.pinged { self.timing.ping_ms * 3 / 2 } else { self.timing.ping_ms };
                let ping = self.heard_at.plus_millis(quiet);
                Some(self.answer_by.map_or(ping, |at| at.min(ping)))
            }
            State::Loading | State::Refused(_) | State::Closed => None,
        }
    }

    /// Makes an action: shown at once, sent as soon as may be. Returns its seq.
    pub fn act(&mut self, action: A, now: Timestamp) -> u64 {
        match self.replica.act(action, now) {
            Ok((seq, changes)) => {
                self.note(changes);
                self.push(now);
                seq
            }
            // No action has the seq 0: the answer is for this caller alone.
            Err(error) => {
                self.answers.push((0, Err(error)));
                0
            }
        }
    }

    /// Sends a message of the application's own; `false` when there is no live connection.
    pub fn message(&mut self, message: Json) -> bool {
        let live = self.state == State::Live;
        if live {
            self.effects.push(Effect::Send(ClientFrame::Message(message).to_text()));
        }
        live
    }

    /// Ends the session. Pending actions stay with the replica.
    pub fn close(&mut self) {
        self.drop_socket(0);
        self.state = State::Closed;
    }

    /// Tries again at once: the network is back, or new credentials are there.
    pub fn reconnect(&mut self, now: Timestamp) {
        if self.state == State::Loading {
            return;
        }
        self.attempt = 0;
        self.drop_socket(0);
        self.connect(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        match self.state {
            State::Waiting(at) if now >= at => self.connect(now),
            State::Opening | State::Greeting { .. } if now >= self.deadline => {
                self.lost(now, MAYBE);
            }
            State::Live => {
                let quiet = now.as_millis() - self.heard_at.as_millis();
                if self.answer_by.is_some_and(|at| now >= at) {
                    self.lost(now, if self.reached { SURE } else { MAYBE });
                } else if quiet >= self.timing.ping_ms * 3 / 2 {
                    self.lost(now, MAYBE);
                } else if quiet >= self.timing.ping_ms && !self.pinged {
                    self.pinged = true;
                    self.effects.push(Effect::Send(PING.to_owned()));
                }
            }
            _ => {}
        }
    }

    /// The socket is open.
    pub fn opened(&mut self, now: Timestamp) {
        if self.state != State::Opening {
            return;
        }
        let channels = self.replica.subscriptions();
        let missing = channels.len();
        let hello = Hello {
            client: self.replica.client().to_owned(),
            epoch: self.replica.epoch().map(str::to_owned),
            seq: self.replica.answered(),
            pushed: self.replica.pushed(),
            channels,
        };
        self.effects.push(Effect::Send(ClientFrame::Hello(hello).to_text()));
        self.state = State::Greeting { welcomed: false, missing, received: 0, total: 0 };
        self.deadline = now.plus_millis(self.timing.connect_ms);
    }

    /// A frame came.
    pub fn received(&mut self, text: &str, now: Timestamp) {
        self.heard_at = now;
        self.pinged = false;
        if text == PONG {
            self.reached = true;
            return;
        }
        self.read += text.len() as u64;
        let result = ServerFrame::parse(text).and_then(|frame| match frame {
            Some(frame) => self.handle(frame, now),
            None => Ok(()),
        });
        if let Err(error) = result {
            // Start over from what is known to be right.
            self.errors.push(error);
            self.lost(now, MAYBE);
        }
        let connected = matches!(self.state, State::Greeting { .. } | State::Live);
        if connected && self.read >= self.read_bytes {
            let read = ClientFrame::Read(std::mem::take(&mut self.read));
            self.effects.push(Effect::Send(read.to_text()));
        }
    }

    fn handle(&mut self, frame: ServerFrame, now: Timestamp) -> Result<()> {
        match frame {
            ServerFrame::Welcome(welcome) => {
                self.replica.set_epoch(&welcome.epoch);
                self.read_bytes = welcome.read.unwrap_or(READ_BYTES).max(1);
                if let State::Greeting { welcomed, missing, .. } = &mut self.state {
                    *welcomed = true;
                    if *missing == 0 {
                        self.live(now);
                    }
                }
            }
            ServerFrame::Reset(_) => self.replica.reset(),
            ServerFrame::CatchUp(_)
                if matches!(self.state, State::Greeting { welcomed: false, .. }) =>
            {
                return Err(Error::new(Code::InvalidFrame, "rows came before `welcome`"));
            }
            ServerFrame::CatchUp(page) => {
                let (sent, all) = (page.sent, page.total);
                let (complete, changes) = self.replica.catch_up(page)?;
                self.note(changes);
                if let State::Greeting { missing, received, total, .. } = &mut self.state {
                    (*received, *total) = (sent, all);
                    *missing -= usize::from(complete && *missing > 0);
                    let done = *missing == 0;
                    self.deadline = now.plus_millis(self.timing.connect_ms);
                    if done {
                        self.live(now);
                    }
                }
            }
            ServerFrame::Patch(patch) => {
                if !patch.acks.is_empty() {
                    self.attempt = 0;
                    self.answered_at = patch.to;
                }
                let applied = self.replica.patch(patch)?;
                self.note(applied.changes);
                if !applied.answers.is_empty() {
                    self.answers.extend(applied.answers);
                    let waiting = self.replica.answered() < self.pushed;
                    self.answer_by = waiting.then(|| now.plus_millis(self.timing.answer_ms));
                    self.push(now);
                }
            }
            ServerFrame::Message(message) => self.messages.push(message),
            ServerFrame::Error(error) => {
                self.errors.push(Error::new(Code::from_name(&error.code), error.message));
            }
        }
        Ok(())
    }

    /// Nothing is missing any more.
    fn live(&mut self, now: Timestamp) {
        self.state = State::Live;
        // With something to push, it is only the answer that shows that the server is well.
        if self.replica.pending() == 0 {
            self.attempt = 0;
        }
        self.pushed = self.replica.answered();
        self.answer_by = None;
        self.push(now);
    }

    /// The socket has closed, or did not open.
    pub fn closed(&mut self, code: u16, reason: &str, now: Timestamp) {
        if code == CLOSE_FORGOTTEN && !matches!(self.state, State::Closed) {
            self.start_anew(now);
            return;
        }
        let refused = match code {
            CLOSE_SCHEMA => {
                Some(Error::new(Code::SchemaMismatch, "the app is outdated: reload it"))
            }
            CLOSE_REFUSED => Some(Error::new(Code::Forbidden, reason)),
            _ => None,
        };
        match (&self.state, refused) {
            (State::Loading | State::Closed | State::Refused(_) | State::Waiting(_), _) => {}
            (_, Some(error)) => {
                self.replica.interrupt();
                self.effects.push(Effect::Disconnect);
                self.state = State::Refused(error);
            }
            // An error came out of the server's handler.
            (_, None) if code == 1011 => self.lost(now, SURE),
            // The server was there and wants it later: no action is to blame.
            (_, None) if matches!(code, CLOSE_BUSY | CLOSE_RESTART) => self.lost(now, 0),
            (_, None) => self.lost(now, MAYBE),
        }
    }

    /// The room has forgotten this client: go on under another id.
    fn start_anew(&mut self, now: Timestamp) {
        let client = format!("{:016x}{:016x}", self.next_random(), self.next_random());
        let (lost, changes) = self.replica.forgotten(client);
        self.note(changes);
        let message = "the room has forgotten this client: whether the action was done is unknown";
        let error = Error::new(Code::ClientForgotten, message);
        self.answers.extend(lost.into_iter().map(|seq| (seq, Err(error.clone()))));
        self.drop_socket(0);
        self.connect(now);
    }

    fn note(&mut self, changes: Changes) {
        for (channel, keys) in changes {
            self.changes.entry(channel).or_default().extend(keys);
        }
    }

    /// Pushes what is pending, unless a push is under way: what comes meanwhile goes in one
    /// frame when that one is answered.
    fn push(&mut self, now: Timestamp) {
        if self.state != State::Live || self.answer_by.is_some() {
            return;
        }
        match self.replica.to_push(self.pushed, PUSH_ACTIONS, PUSH_BYTES) {
            Ok(actions) => {
                if let Some(last) = actions.last() {
                    self.pushed = last.seq;
                    self.answer_by = Some(now.plus_millis(self.timing.answer_ms));
                    self.reached = false;
                    self.effects.push(Effect::Send(ClientFrame::Push(actions).to_text()));
                    self.effects.push(Effect::Send(PING.to_owned()));
                }
            }
            Err(error) => self.errors.push(error),
        }
    }

    fn connect(&mut self, now: Timestamp) {
        self.replica.interrupt();
        self.state = State::Opening;
        self.deadline = now.plus_millis(self.timing.connect_ms);
        self.heard_at = now;
        self.pinged = false;
        self.read = 0;
        self.effects.push(Effect::Connect);
    }

    fn drop_socket(&mut self, blame: u32) {
        let socket = matches!(self.state, State::Opening | State::Greeting { .. } | State::Live);
        if socket {
            self.effects.push(Effect::Disconnect);
        }
        self.replica.interrupt();
        if self.answer_by.take().is_some() {
            self.replica.unanswered(self.pushed, blame);
        }
    }

    fn lost(&mut self, now: Timestamp, blame: u32) {
        self.drop_socket(blame);
        let longest = (self.timing.retry_ms << self.attempt.min(16)).min(self.timing.retry_max_ms);
        self.attempt += 1;
        // Between half of it and all of it, so that clients of one server do not come at once.
        let wait =
            longest / 2 + i64::try_from(self.next_random() % 1024).unwrap_or(0) * longest / 2048;
        self.state = State::Waiting(now.plus_millis(wait));
    }

    /// xorshift64: good enough to spread clients.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
