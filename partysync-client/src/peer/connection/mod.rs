//! The connection of a peer: connect, say hello, catch up, keep alive, back off.

mod blame;
mod frames;

use super::{Cause, Now, Output, Peer, Phase, Timing};
use crate::gathered::gathered;
use crate::replica::PushLimits;
use blame::{MAYBE, SURE, judge};
use partysync::wire::v2::{ClientFrame, Hello};
use partysync::wire::{PING, READ_BYTES};
use partysync::{Action, Code, Error, Timestamp};
use std::collections::BTreeSet;

/// A connection that was live for so long was a good one, ms.
const STEADY: u64 = 10_000;
/// While a client catches up it tells the room of itself after so long, ms: a room that hears of
/// nobody for ten seconds is put to sleep, and forgets what it has not sent yet.
const AWAKE: u64 = 5_000;
/// A timer that rings so much too late has slept with its page, ms.
const SLEPT: u64 = 2_000;

#[derive(Debug, PartialEq)]
enum State {
    /// The store is not open yet.
    Loading,
    /// No socket; the next attempt at this time.
    Waiting {
        at: u64,
        wall: Timestamp,
        error: Error,
    },
    /// A socket was asked for.
    Opening,
    /// `hello` was said; the catch-ups of some channels are missing.
    Greeting {
        /// Without the room's epoch, rows are of no use.
        welcomed: bool,
        missing: BTreeSet<String>,
        /// Rows of channels that are complete.
        before: u64,
        received: u64,
        total: u64,
    },
    Live,
    Refused(Error),
    Closed,
}

#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    /// How many sockets were asked for.
    sockets: u64,
    /// When waiting for what `state` waits for ends.
    deadline: u64,
    attempt: u32,
    /// How often something took too long, since a push as large as the line is given was quick, or
    /// nothing was left to be pushed.
    slow: u32,
    /// When the push under way was sent, and whether it is as large as the line is given.
    pushed: (u64, bool),
    /// Whether the server has refused the credentials once already.
    unauthorized: bool,
    /// What the server said before it closed a connection that it has not welcomed.
    told: Option<Error>,
    random: u64,
    /// When the answer to a push is overdue.
    answer_by: Option<u64>,
    /// Pings that were sent on this connection, and their answers.
    pings: u64,
    pongs: u64,
    /// Which of them was sent behind the push: when it is answered, the push was there, too.
    push_ping: u64,
    /// Bytes read since the server was last told.
    read: u64,
    /// How many it wants to be told of at once.
    read_bytes: u64,
    /// When it was last told of it, or welcomed this client.
    told_at: u64,
    /// When a frame last came.
    heard_at: u64,
    /// When the last ping was sent.
    pinged_at: u64,
    /// When the answer to a ping is overdue.
    pong_by: Option<u64>,
    /// Whether a timer rang late, and nothing was heard since.
    slept: bool,
    /// Since when it is live.
    live_since: Option<u64>,
    /// What the room's time was, and when on the monotonic clock.
    room_time: (Timestamp, u64),
}

impl Connection {
    pub(super) fn new(random: u64) -> Self {
        Self {
            state: State::Loading,
            sockets: 0,
            deadline: 0,
            attempt: 0,
            slow: 0,
            pushed: (0, false),
            unauthorized: false,
            told: None,
            // xorshift stays at 0 for ever.
            random: if random == 0 { 0x9e37_79b9_7f4a_7c15 } else { random },
            answer_by: None,
            pings: 0,
            pongs: 0,
            push_ping: 0,
            read: 0,
            read_bytes: READ_BYTES,
            told_at: 0,
            heard_at: 0,
            pinged_at: 0,
            pong_by: None,
            slept: false,
            live_since: None,
            room_time: Default::default(),
        }
    }

    /// The room's time, as `welcome` told it on this connection.
    pub(super) fn room_time(&self, now: Now) -> Timestamp {
        let (then, at) = self.room_time;
        let passed = now.monotonic.saturating_sub(at);
        then.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    /// The room's time, as it told on the last connection that there was; 0 before that.
    pub(super) fn latest_room_time(&self, now: Now) -> Timestamp {
        match self.room_time.0.as_millis() {
            0 => Timestamp::default(),
            _ => self.room_time(now),
        }
    }

    pub(super) fn sockets(&self) -> u64 {
        self.sockets
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Whether the catch-up of a channel has not come to its end yet.
    fn misses(&self, channel: &str) -> bool {
        matches!(&self.state, State::Greeting { missing, .. } if missing.contains(channel))
    }

    /// Whether a push has no answer yet.
    pub(super) fn waits(&self) -> bool {
        self.answer_by.is_some()
    }

    /// A push is sent; `full` says whether more was to be pushed than the line is given.
    pub(super) fn pushed(&mut self, full: bool, timing: &Timing, now: Now) {
        self.pushed = (now.monotonic, full);
        self.answer_by = Some(now.monotonic.saturating_add(self.patient(timing.answer_ms)));
        self.pings += 1;
        self.pinged_at = now.monotonic;
        self.push_ping = self.pings;
    }

    /// A slow line is given more time.
    fn patient(&self, millis: u64) -> u64 {
        millis.saturating_mul(1 << self.slow.min(4))
    }

    /// A push was answered. What a small one takes says nothing of a large one.
    fn answered(&mut self, timing: &Timing, now: Now) {
        let (at, full) = self.pushed;
        if full && now.monotonic.saturating_sub(at).saturating_mul(2) <= timing.answer_ms {
            self.slow = self.slow.saturating_sub(1);
        }
    }

    /// Nothing is left to be pushed: what was slow may be quick the next time.
    pub(super) fn rests(&mut self) {
        self.slow = 0;
    }

    /// A slow line is given smaller pushes.
    pub(super) fn smaller(&self, limits: PushLimits) -> PushLimits {
        let halves = self.slow.min(8);
        PushLimits { actions: (limits.actions >> halves).max(1), bytes: limits.bytes >> halves }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.state {
            State::Loading => Phase::Loading,
            State::Waiting { wall, error, .. } => {
                Phase::Offline { retry_at: *wall, error: error.clone() }
            }
            State::Opening => Phase::Connecting,
            State::Greeting { total: 0, .. } => Phase::Connecting,
            State::Greeting { received, total, .. } => {
                Phase::CatchingUp { received: *received, total: *total }
            }
            State::Live => Phase::Live,
            State::Refused(error) => Phase::Refused(error.clone()),
            State::Closed => Phase::Closed,
        }
    }

    /// When something is due; `present` says whether the room is told that this client is here, and
    /// wants to hear so of it.
    pub(super) fn timeout(&self, timing: &Timing, present: bool) -> Option<u64> {
        match &self.state {
            State::Waiting { at, .. } => Some(*at),
            State::Greeting { welcomed: true, .. } => {
                Some(self.deadline.min(self.told_at.saturating_add(AWAKE)))
            }
            State::Opening | State::Greeting { .. } => Some(self.deadline),
            State::Live => {
                let ping = self.heard_at.saturating_add(timing.ping_ms);
                // A ping waits behind the push that is on its way.
                let waits = self.answer_by.or(self.pong_by).unwrap_or(ping);
                // What it hears of others tells the room nothing of this client.
                Some(if present { waits.min(self.says_so_at(timing)) } else { waits })
            }
            State::Loading | State::Refused(_) | State::Closed => None,
        }
    }

    /// When a client that is here pings, whatever it waits for.
    fn says_so_at(&self, timing: &Timing) -> u64 {
        self.pinged_at.saturating_add(timing.ping_ms)
    }

    /// xorshift64: good enough to spread clients.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl<A: Action> Peer<A> {
    /// The store was read, or cannot be.
    pub(super) fn start(&mut self, now: Now) {
        if self.connection.state == State::Loading {
            self.connect(now);
        }
    }

    /// Tries again at once, with an address and credentials that are asked for anew.
    pub fn reconnect(&mut self, now: Now) {
        if matches!(self.connection.state, State::Loading | State::Closed) {
            return;
        }
        self.connection.attempt = 0;
        self.connection.unauthorized = false;
        self.step_forward();
        self.disconnect();
        self.lose(0, now);
        self.connect(now);
        self.go_on(now);
    }

    /// The network is back, or the page is seen again.
    pub(super) fn nudge(&mut self, now: Now) {
        match self.connection.state {
            State::Waiting { .. } => {
                self.connection.attempt = 0;
                self.connect(now);
            }
            State::Live => self.ping(now),
            _ => {}
        }
    }

    fn ping(&mut self, now: Now) {
        if self.connection.pong_by.is_none() {
            self.connection.pong_by = Some(now.monotonic.saturating_add(self.timing.pong_ms));
            self.say_so(now);
        }
    }

    /// Tells the room that somebody is there.
    fn say_so(&mut self, now: Now) {
        self.connection.pings += 1;
        self.connection.pinged_at = now.monotonic;
        self.send(PING.to_owned());
    }

    /// Time has passed.
    pub(super) fn time(&mut self, now: Now) {
        let present = self.presence.is_told();
        let Some(due) = self.connection.timeout(&self.timing, present) else { return };
        if now.monotonic < due {
            return;
        }
        // What came while the page slept is still to be read: a timer that rings late says nothing
        // about the server, unless nothing was heard since the last that did.
        if now.monotonic - due > SLEPT && !std::mem::replace(&mut self.connection.slept, true) {
            match self.connection.state {
                State::Opening | State::Greeting { .. } => {
                    self.connection.deadline = now.monotonic.saturating_add(self.timing.pong_ms);
                    return;
                }
                State::Live => {
                    let grace = now.monotonic.saturating_add(self.timing.pong_ms);
                    if self.connection.answer_by.is_some() {
                        self.connection.answer_by = Some(grace);
                    }
                    self.connection.pong_by = None;
                    self.ping(now);
                    return;
                }
                _ => {}
            }
        }
        match self.connection.state {
            State::Waiting { .. } => self.connect(now),
            State::Greeting { .. } if now.monotonic < self.connection.deadline => {
                self.tell_read(now);
            }
            State::Opening | State::Greeting { .. } => {
                self.connection.slow += 1;
                self.lost(&unanswered(), MAYBE, now);
            }
            State::Live => {
                let over = |at: Option<u64>| at.is_some_and(|at| now.monotonic >= at);
                if over(self.connection.answer_by) {
                    self.connection.slow += 1;
                    let reached = self.connection.pongs >= self.connection.push_ping;
                    let blame = if reached { SURE } else { MAYBE };
                    self.lost(&unanswered(), blame, now);
                } else if self.connection.answer_by.is_none() && over(self.connection.pong_by) {
                    self.lost(&unanswered(), MAYBE, now);
                } else if present && over(Some(self.connection.says_so_at(&self.timing))) {
                    self.say_so(now);
                } else {
                    self.ping(now);
                }
            }
            _ => {}
        }
    }

    /// The socket is open.
    pub(super) fn connected(&mut self, now: Now) {
        if self.connection.state != State::Opening {
            return;
        }
        let channels = self.replica.subscriptions();
        let missing = gathered(channels.iter().map(|subscription| subscription.channel.clone()));
        let hello = Hello {
            client: self.replica.client().to_owned(),
            epoch: self.replica.epoch().map(str::to_owned),
            channels,
        };
        self.send(ClientFrame::Hello(hello).to_text());
        self.connection.state =
            State::Greeting { welcomed: false, missing, before: 0, received: 0, total: 0 };
        self.expect(now);
    }

    /// Something has come: what is missing is given as much time again.
    fn expect(&mut self, now: Now) {
        let patience = self.connection.patient(self.timing.connect_ms);
        self.connection.deadline = now.monotonic.saturating_add(patience);
    }

    /// The socket has closed, or did not open.
    pub(super) fn disconnected(&mut self, cause: Cause, now: Now) {
        if !matches!(self.connection.state, State::Opening | State::Greeting { .. } | State::Live) {
            return;
        }
        let provider = matches!(cause, Cause::Provider(_));
        let (error, blame, refused) = judge(cause);
        let told = self.connection.told.take();
        match error.code() {
            // Whoever gives the address may know better later.
            _ if provider => self.lost(&error, 0, now),
            // The credentials may have been renewed meanwhile; they are asked for at each attempt.
            Code::Unauthorized if !self.connection.unauthorized => {
                self.connection.unauthorized = true;
                self.lost(&error, 0, now);
            }
            Code::Unauthorized => self.refuse(error, now),
            _ if refused => self.refuse(error, now),
            _ => self.lost(told.as_ref().unwrap_or(&error), blame, now),
        }
    }

    fn refuse(&mut self, error: Error, now: Now) {
        self.lose(0, now);
        self.presence_ends();
        self.outputs.push_back(Output::Disconnect);
        self.connection.state = State::Refused(error);
        self.stand_back();
    }

    fn connect(&mut self, now: Now) {
        self.connection.told = None;
        self.connection.state = State::Opening;
        self.connection.sockets += 1;
        (self.connection.heard_at, self.connection.pinged_at) = (now.monotonic, now.monotonic);
        (self.connection.pong_by, self.connection.slept) = (None, false);
        self.connection.read = 0;
        (self.connection.pings, self.connection.pongs) = (0, 0);
        self.expect(now);
        self.outputs.push_back(Output::Connect);
    }

    /// Closes the socket, if there is one.
    pub(super) fn disconnect(&mut self) {
        let socket =
            matches!(self.connection.state, State::Opening | State::Greeting { .. } | State::Live);
        if socket {
            self.outputs.push_back(Output::Disconnect);
        }
    }

    /// What was under way on the connection is not any more.
    fn lose(&mut self, blame: u32, now: Now) {
        self.presence_lost(now);
        self.replica.interrupt();
        // A push that waited for the store was not sent: nothing is to blame.
        let sent = self.held.take().is_none() && self.connection.answer_by.is_some();
        self.connection.answer_by = None;
        self.replica.unanswered(if sent { blame } else { 0 }, now.monotonic);
    }

    fn lost(&mut self, error: &Error, blame: u32, now: Now) {
        self.disconnect();
        self.lose(blame, now);
        // A server that is there for a moment is not well yet.
        let since = self.connection.live_since.take();
        if since.is_some_and(|since| now.monotonic.saturating_sub(since) >= STEADY) {
            self.connection.attempt = 0;
        }
        let attempt = self.connection.attempt;
        let longest = (self.timing.retry_ms.saturating_mul(1 << attempt.min(16)))
            .min(self.timing.retry_max_ms);
        self.connection.attempt += 1;
        // Between half of it and all of it, so that clients of one server do not come at once.
        let wait = longest / 2 + (self.connection.next_random() % 1024) * longest / 2048;
        let wall = now.wall.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX));
        let error = error.clone();
        self.connection.state = State::Waiting { at: now.monotonic + wait, wall, error };
    }
}

fn unanswered() -> Error {
    Error::new(Code::Unavailable, "the server does not answer")
}
