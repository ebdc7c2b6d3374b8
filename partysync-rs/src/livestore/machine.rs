//! [`Machine`]: the state of a store: its connections, their pulls, the pushes that wait.

use super::envelope::{self, Failure, Id, Message, PONG, Tag};
use super::io::{Answered, Effect, HookDone, Input, Reached, Reader, Who};
use super::pull::{Following, Kept};
use super::push::{Stage, Waiting};
use super::server::{Caller, Limits, Transport};
use super::span;
use super::subscriber::{Subscriber, Subscription};
use super::table::{Context, Page};
use crate::room::rate::Rate;
use crate::room::{Incoming, Level, Slot};
use crate::{Error, Timestamp, wire};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// A socket on which nothing was pulled for so long is closed, ms: a client whose pings were not
/// answered in time opens another one, on which it pulls no more until that is closed.
const QUIET: i64 = 30_000;

/// A store. See the [module](super) for what a driver does with it.
#[derive(Debug)]
pub struct Machine {
    pub(super) store: String,
    pub(super) context: Context,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) slots: Vec<Option<Connection>>,
    serials: u64,
    pub(super) tickets: u64,
    pub(super) pushes: VecDeque<Waiting>,
    pub(super) stage: Stage,
    /// The backend id that the log gets when it is emptied, which is to be next.
    pub(super) emptying: Option<String>,
    /// The log may end elsewhere than the context says: it is looked at before anything is done.
    pub(super) unsure: bool,
    /// Bytes of the pushes that wait.
    pub(super) waiting: usize,
    /// Objects that are called with what is new, by the numbers of their subscriptions.
    pub(super) subscriptions: BTreeMap<u64, Subscription>,
    /// Connections whose attachment may be out of date.
    pub(super) dirty: BTreeSet<Slot>,
    alarm: Option<Timestamp>,
    pub(super) effects: VecDeque<Effect>,
    /// Bytes that connections were sent and have not acknowledged.
    pub(super) unread: usize,
    /// Bytes that this turn has sent.
    pub(super) sent: usize,
    /// What goes on in the next turn.
    pub(super) hungry: VecDeque<Reader>,
    /// The last push, with the number that it came behind, while some of `hungry` wait for it: the
    /// log may be far away.
    pub(super) latest: Option<(u64, Page)>,
    /// Whether requests that their clients trace are told of, and those that are under way.
    pub(super) traces: bool,
    pub(super) spans: Vec<span::Open>,
}

/// A socket, or a call that waits for its answer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) serial: u64,
    pub(super) caller: Rc<Caller>,
    pub(super) following: Vec<Following>,
    /// Whether it is a call.
    pub(super) call: bool,
    /// It is being closed, and has its slot until it is gone.
    closing: bool,
    /// Since when it has not pulled; `None` if it has.
    quiet_since: Option<Timestamp>,
    pub(super) rate: Rate,
    attachment: String,
}

/// What is kept with a socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    store_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pulls: Vec<Kept>,
    /// Whether a push waits for its answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pushing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quiet_since: Option<i64>,
}

/// The store that a socket's attachment is of.
#[must_use]
pub fn store_of(attachment: &str) -> Option<String> {
    serde_json::from_str(attachment).ok().map(|Attachment { store_id, .. }| store_id)
}

impl Machine {
    /// A store that was opened, with what an earlier life has left: the attachments of the sockets
    /// that are open, of which the first has slot 0, and so on, and where the log has ended for
    /// them, if that is known; and those who subscribe.
    #[must_use]
    pub fn new(
        store: String,
        context: Context,
        limits: Limits,
        now: Timestamp,
        (sockets, slept_at): (Vec<Option<String>>, Option<u64>),
        subscribers: Vec<(Subscriber, Reached)>,
    ) -> Self {
        let mut machine = Self {
            store,
            context,
            limits,
            now,
            slots: Vec::new(),
            serials: 0,
            tickets: 0,
            pushes: VecDeque::new(),
            stage: Stage::Idle,
            emptying: None,
            unsure: false,
            waiting: 0,
            subscriptions: BTreeMap::new(),
            dirty: BTreeSet::new(),
            alarm: None,
            effects: VecDeque::new(),
            unread: 0,
            sent: 0,
            hungry: VecDeque::new(),
            latest: None,
            traces: false,
            spans: Vec::new(),
        };
        // A log that has lost events is another one: nobody goes on from where they were.
        let lost = slept_at.is_some_and(|slept_at| slept_at > machine.context.head)
            && !crate::__mutated("livestore_lost");
        for attachment in sockets {
            machine.wake(attachment.filter(|_| !lost), slept_at);
        }
        machine.ask_again();
        machine.go_on_all();
        machine.resubscribe(subscribers);
        if lost {
            machine.part_with_all();
        }
        machine.plan_alarm();
        machine
    }

    fn wake(&mut self, attachment: Option<String>, slept_at: Option<u64>) {
        let kept = attachment.as_deref().and_then(|text| serde_json::from_str(text).ok());
        // A push that waited is gone: its client sends it again when it comes again.
        let goes_on = |kept: &Attachment| {
            let known = slept_at.is_some() || kept.pulls.iter().all(Kept::is_behind);
            let pushing = kept.pushing && !crate::__mutated("livestore_pushing");
            kept.store_id == self.store && !pushing && known
        };
        let known = kept.filter(goes_on);
        let slot = Slot(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.serials += 1;
        let Some(kept) = known else {
            self.slots.push(Some(self.nobody()));
            self.effects.push_back(Effect::Close(slot, wire::CLOSE_RESTART, "restart"));
            return;
        };
        let Attachment { store_id, payload, headers, pulls, quiet_since, .. } = kept;
        let caller = Caller { store_id, payload, headers, transport: Transport::WebSocket };
        let head = match slept_at {
            Some(slept_at) if !crate::__mutated("livestore_slept") => slept_at,
            _ => self.context.head,
        };
        let following = pulls.into_iter().map(|kept| Following::woken(kept, head));
        self.slots.push(Some(Connection {
            serial: self.serials,
            caller: Rc::new(caller),
            following: following.collect(),
            call: false,
            closing: false,
            quiet_since: quiet_since.map(Timestamp::from_millis),
            rate: Rate::default(),
            attachment: attachment.unwrap_or_default(),
        }));
    }

    /// A socket that does not go on, until it is gone.
    fn nobody(&self) -> Connection {
        let store_id = self.store.clone();
        let (payload, headers) = (None, Vec::new());
        Connection {
            serial: self.serials,
            caller: Rc::new(Caller { store_id, payload, headers, transport: Transport::WebSocket }),
            following: Vec::new(),
            call: false,
            closing: true,
            quiet_since: None,
            rate: Rate::default(),
            attachment: String::new(),
        }
    }

    /// Has spans told of requests that are traced.
    pub(super) fn trace(&mut self, traces: bool) {
        self.traces = traces;
    }

    /// What is taken from clients.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// What the store knows of its log.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What the driver has to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Something happens.
    pub fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        self.now = self.now.max(now);
        match input {
            Input::Connect(caller) => drop(self.connect(caller, false)),
            Input::Call(caller, body) => {
                if let Some(slot) = self.connect(caller, true) {
                    self.message(slot, body);
                    self.finish_idle(slot);
                }
            }
            Input::Frame(slot, Incoming::Text(text)) => self.message(slot, text),
            Input::Frame(slot, Incoming::Long(_)) => {
                self.close(slot, wire::CLOSE_TOO_BIG, "the message is too large");
            }
            Input::Frame(slot, Incoming::Binary(_)) => {
                self.close(slot, 1003, "messages are text");
            }
            Input::Closed(slot) => self.free(slot),
            Input::Gone(slot, serial) => {
                if self.who_mut(Who { slot, serial }).is_some() {
                    self.free(slot);
                }
            }
            Input::Taken(slot, serial) => self.taken(Who { slot, serial }),
            Input::HookDone(done) => self.hook_done(done),
            Input::Appended(result) => self.appended(result),
            Input::Read(reading, page) => match reading.reader {
                Reader::Pull(who, id) => self.read(who, &id, reading.after, page),
                Reader::Subscriber(number) => self.read_for_call(number, reading.after, page),
            },
            Input::Loaded(context) => self.loaded(context),
            Input::Called(number, result) => self.called(number, result),
            Input::Alarm => self.ring(),
            Input::Empty(fresh) => {
                self.emptying = Some(fresh);
                self.serve();
            }
            Input::Emptied(context) => self.emptied(context),
        }
    }

    /// The turn is over: what has to outlive it is kept.
    pub fn end_turn(&mut self) {
        self.sent = 0;
        if self.hungry.is_empty() {
            self.latest = None;
        } else {
            self.effects.push_back(Effect::Again);
        }
        self.keep_subscribers();
        for push in self.pushes.iter_mut().filter(|push| !push.kept) {
            push.kept = true;
            self.dirty.insert(push.who.slot);
        }
        for slot in std::mem::take(&mut self.dirty) {
            let (store_id, head) = (self.store.clone(), self.context.head);
            let waiting: Vec<_> = self.pushes.iter().map(|push| push.who).collect();
            let Some(connection) = self.get_mut(slot).filter(|connection| !connection.call) else {
                continue;
            };
            let pushing = waiting.contains(&Who { slot, serial: connection.serial });
            let kept = Attachment {
                store_id,
                payload: connection.caller.payload.clone(),
                headers: connection.caller.headers.clone(),
                pulls: connection.following.iter().map(|pull| pull.kept(head)).collect(),
                pushing,
                quiet_since: connection.quiet_since.map(Timestamp::as_millis),
            };
            let text = serde_json::to_string(&kept).unwrap_or_default();
            if text != connection.attachment {
                connection.attachment.clone_from(&text);
                self.effects.push_back(Effect::StoreAttachment(slot, text));
            }
        }
        self.plan_alarm();
    }

    fn connect(&mut self, caller: Caller, call: bool) -> Option<Slot> {
        if caller.store_id != self.store {
            let what = format!("this object holds the store `{}`", self.store);
            self.effects.push_back(Effect::Refuse(400, what));
            return None;
        }
        if self.slots.iter().flatten().count() >= self.limits.connections {
            self.effects.push_back(Effect::Refuse(503, "too many connections".to_owned()));
            return None;
        }
        let headers = caller.headers.iter().map(|(name, text)| kept(name) + kept(text) + 8);
        let payload = caller.payload.as_ref().map_or(0, |payload| kept(&payload.to_string()));
        if headers.sum::<usize>() + payload > self.limits.caller_bytes {
            self.effects.push_back(Effect::Refuse(431, "the payload is too large".to_owned()));
            return None;
        }
        let free = self.slots.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let slot = Slot(u32::try_from(place).unwrap_or(u32::MAX));
        self.serials += 1;
        let connection = Connection {
            serial: self.serials,
            caller: Rc::new(caller),
            following: Vec::new(),
            call,
            closing: false,
            quiet_since: (!call).then_some(self.now),
            rate: Rate::default(),
            attachment: String::new(),
        };
        if let Some(place) = self.slots.get_mut(place) {
            *place = Some(connection);
        }
        self.dirty.insert(slot);
        self.effects.push_back(Effect::Accept(slot, self.serials));
        Some(slot)
    }

    fn message(&mut self, slot: Slot, text: &str) {
        let (limits, now) = (self.limits, self.now);
        let Some(connection) = self.get_mut(slot) else { return };
        if text.len() > limits.frame_bytes {
            return self.close(slot, wire::CLOSE_TOO_BIG, "the message is too large");
        }
        if !connection.rate.takes(limits.rate(), now, 1, text.len()) {
            return self.close(slot, 1008, "too many messages");
        }
        let who = Who { slot, serial: connection.serial };
        match Message::parse(text) {
            Ok(Message::Ping) => self.send(who, PONG.to_owned()),
            Ok(Message::Nothing) => {}
            Ok(Message::Ack(id)) => self.acknowledged(who, &id),
            Ok(Message::Interrupt(id)) => self.interrupted(who, &id),
            Ok(Message::Request { id, tag, payload }) => {
                // A client that has lost its pull may still push.
                if tag == Tag::Pull && connection.quiet_since.take().is_some() {
                    self.dirty.insert(slot);
                }
                self.begin_span(who, &id, tag, text);
                let asked = match tag {
                    Tag::Ping => {
                        let pong = r#"{"_tag":"SyncMessage.Pong"}"#;
                        return self.succeed(who, &id, Some(pong));
                    }
                    Tag::Pull => {
                        envelope::payload(payload).and_then(|pull| self.pull(who, id.clone(), pull))
                    }
                    Tag::Push => envelope::payload(payload)
                        .and_then(|push| self.push(who, id.clone(), push, text.len())),
                };
                if let Err(failure) = asked {
                    self.fail(who, &id, &failure);
                }
            }
            Err(failure) => {
                self.send(who, envelope::defect(&failure));
                self.finish(who);
            }
        }
    }

    /// A request names a store: it has to be this one.
    pub(super) fn check_store(&self, store: &str) -> Result<(), Failure> {
        if store == self.store {
            return Ok(());
        }
        let what = format!("this connection is to the store `{}`, not `{store}`", self.store);
        Err(Failure::unknown("WrongStore", what))
    }

    /// A client knows a backend: it has to be this one.
    pub(super) fn check_backend(&self, received: &str) -> Result<(), Failure> {
        let expected = &self.context.backend_id;
        if received == expected {
            return Ok(());
        }
        let (expected, received) = (expected.clone(), received.to_owned());
        Err(Failure::BackendIdMismatch { expected, received })
    }

    fn hook_done(&mut self, HookDone(answered): HookDone) {
        match answered {
            Answered::Push(ticket, result) if matches!(self.stage, Stage::Asked(asked, _) if asked == ticket) =>
            {
                self.push_allowed(result);
            }
            Answered::Pull(who, ticket, result) => self.pull_allowed(who, ticket, result),
            Answered::Push(..) | Answered::Nothing => {}
        }
    }

    /// What the runtime has kept of a log that could not be appended to.
    fn loaded(&mut self, context: crate::Result<Context>) {
        match context {
            Ok(context) if context.backend_id != self.context.backend_id => {
                self.log(Level::Error, "the log has lost events: clients start over".to_owned());
                self.emptied(Ok(context));
            }
            Ok(context) => {
                self.context = context;
                self.stage = Stage::Idle;
                // Who had all may lack something now, which is to outlive the machine.
                self.dirty.extend(self.open().into_iter().map(|(slot, _)| slot));
                self.go_on_all();
                self.serve();
            }
            Err(error) => self.stuck(&error),
        }
    }

    /// The log cannot be read: every client comes again later.
    pub(super) fn stuck(&mut self, error: &Error) {
        self.log(Level::Error, format!("the log cannot be read: {error}"));
        self.close_all("internal");
        self.unsure = true;
    }

    /// The log was emptied: clients hear of another backend when they come again, and start over.
    fn emptied(&mut self, context: crate::Result<Context>) {
        match context {
            Ok(context) => {
                self.context = context;
                self.part_with_all();
                self.close_all("the log was emptied");
            }
            Err(error) => {
                // It may be empty all the same.
                self.log(Level::Error, format!("the log was not emptied: {error}"));
                self.effects.push_back(Effect::Load);
            }
        }
    }

    /// How many sockets and calls are open, and how many objects follow by calls.
    #[must_use]
    pub fn followers(&self) -> (usize, usize) {
        (self.open().len(), self.subscribed())
    }

    fn close_all(&mut self, reason: &'static str) {
        for (slot, _) in self.open() {
            self.close(slot, wire::CLOSE_FAILED, reason);
        }
        self.stage = Stage::Idle;
        self.pushes.clear();
        self.waiting = 0;
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots.get_mut(slot.0 as usize)?.as_mut().filter(|connection| !connection.closing)
    }

    /// A connection, if it is still the same.
    pub(super) fn who_mut(&mut self, who: Who) -> Option<&mut Connection> {
        self.get_mut(who.slot).filter(|connection| connection.serial == who.serial)
    }

    /// All connections and calls.
    pub(super) fn open(&self) -> Vec<(Slot, u64)> {
        let open = (0..).map(Slot).zip(&self.slots);
        let open = open.filter_map(|(slot, c)| c.as_ref().map(|c| (slot, c)));
        open.filter(|(_, c)| !c.closing).map(|(slot, c)| (slot, c.serial)).collect()
    }

    pub(super) fn send(&mut self, who: Who, frame: String) {
        let now = self.now;
        if let Some(connection) = self.who_mut(who) {
            connection.rate.charge_sent(now, frame.len());
            self.sent += frame.len();
            self.effects.push_back(Effect::Send(who.slot, frame));
        }
    }

    pub(super) fn succeed(&mut self, who: Who, id: &Id, value: Option<&str>) {
        self.end_span(who, id, None);
        self.send(who, envelope::success(id, value));
        self.finish(who);
    }

    pub(super) fn fail(&mut self, who: Who, id: &Id, failure: &Failure) {
        self.end_span(who, id, Some(failure));
        self.send(who, envelope::failed(id, failure));
        self.finish(who);
    }

    /// A connection pulls nothing any more.
    fn end_following(&mut self, slot: Slot) {
        let connection = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let following = connection.map(|connection| std::mem::take(&mut connection.following));
        let unread: usize = following.iter().flatten().map(Following::unread).sum();
        self.unread = self.unread.saturating_sub(unread);
    }

    /// Whatever had this slot is gone.
    fn free(&mut self, slot: Slot) {
        self.end_spans_of(slot);
        self.end_following(slot);
        if let Some(place) = self.slots.get_mut(slot.0 as usize) {
            *place = None;
            self.dirty.remove(&slot);
        }
    }

    /// A call has its answer.
    pub(super) fn finish(&mut self, who: Who) {
        if self.who_mut(who).is_some_and(|connection| connection.call) {
            self.effects.push_back(Effect::Finish(who.slot));
            self.free(who.slot);
        }
    }

    /// A call that asks for nothing has its answer.
    fn finish_idle(&mut self, slot: Slot) {
        let Some(connection) = self.get_mut(slot) else { return };
        let (who, pulls) =
            (Who { slot, serial: connection.serial }, !connection.following.is_empty());
        if !pulls && !self.pushes.iter().any(|push| push.who == who) {
            self.finish(who);
        }
    }

    /// Closes a connection; nothing more is heard of it but that it has closed.
    pub(super) fn close(&mut self, slot: Slot, code: u16, reason: &'static str) {
        let Some(connection) = self.get_mut(slot) else { return };
        let (call, who) = (connection.call, Who { slot, serial: connection.serial });
        if call {
            // A client gives up for good what ends with a defect.
            let failure = Failure::unknown("Closed", reason);
            let pulls = connection.following.iter().map(|pull| pull.id.clone());
            let mut ids: Vec<_> = pulls.collect();
            ids.extend(self.waiting_ids(who));
            for id in &ids {
                self.send(who, envelope::failed(id, &failure));
            }
            if ids.is_empty() {
                self.send(who, envelope::defect(&failure));
            }
            return self.finish(who);
        }
        self.end_following(slot);
        self.end_spans_of(slot);
        let Some(connection) = self.get_mut(slot) else { return };
        (connection.closing, connection.quiet_since) = (true, None);
        self.dirty.remove(&slot);
        self.effects.push_back(Effect::Close(slot, code, reason));
    }

    /// Closes sockets that have asked for nothing for long, and goes on with what waits.
    fn ring(&mut self) {
        self.alarm = None;
        self.end_slow_hook();
        self.end_slow_pulls();
        self.call_all();
        let late = self.now.plus_millis(-QUIET);
        for (slot, _) in self.open() {
            let quiet = self
                .get_mut(slot)
                .and_then(|connection| connection.quiet_since.take_if(|since| *since <= late));
            if quiet.is_some() {
                self.close(slot, 1000, "nothing was asked");
            }
        }
    }

    fn plan_alarm(&mut self) {
        let quiet = self.slots.iter().flatten().filter_map(|connection| connection.quiet_since);
        let quiet = quiet.min().map(|since| since.plus_millis(QUIET));
        let hooks = self.hook_ends().into_iter().chain(self.pulls_asked_until());
        let first = quiet.into_iter().chain(self.next_call()).chain(hooks).min();
        let Some(at) = first else { return };
        // One that rings for nothing costs less than one that is set anew each time.
        if self.alarm.is_none_or(|alarm| alarm > at) {
            self.alarm = Some(at);
            self.effects.push_back(Effect::SetAlarm(Some(at)));
        }
    }

    pub(super) fn log(&mut self, level: Level, message: String) {
        self.effects
            .push_back(Effect::Log(level, format!("livestore `{}`: {message}", self.store)));
    }
}

/// The bytes that the runtime keeps a text in: one a letter, or two if any is not of Latin-1.
fn kept(text: &str) -> usize {
    let narrow = text.chars().all(|letter| u32::from(letter) < 256);
    text.encode_utf16().count() * if narrow { 1 } else { 2 }
}
