//! Pulls: each gets every event once and in order, as fast as it takes them.

use super::envelope::{self, CallerContext, Cursor, Failure, Id, PullRequest};
use super::io::{Asked, Effect, Hook, Reader, Reading, Who};
use super::machine::Machine;
use super::server::{Caller, Pull, Sent, Transport};
use super::table::{self, Page};
use crate::room::Level;
use crate::{Code, Error, Result, Timestamp, wire};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::rc::Rc;

/// So many chunks of a catch-up are under way at a time.
const WINDOW: usize = 4;
/// A turn sends about so many bytes: they are all in memory until it ends.
pub(super) const TURN_BYTES: usize = 8 * 1024 * 1024;
/// So many are not acknowledged before a live pull is sent no more until it has caught up.
const BEHIND: usize = 16;
/// About so many bytes that were not acknowledged a connection has at most: the runtime holds them.
const CONNECTION_UNREAD: usize = 4 * 1024 * 1024;
/// With so many in all, a connection is sent more only when it has acknowledged everything.
const UNREAD: usize = 32 * 1024 * 1024;

/// A pull that goes on.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) id: Id,
    /// It was sent all events up to here.
    at: u64,
    /// Where it ends; `None` for a live one.
    end: Option<u64>,
    /// The bytes of chunks without an acknowledgement; none are known of those of an earlier life.
    unread: VecDeque<usize>,
    stage: Stage,
    /// When its hook was asked.
    asked_at: Timestamp,
    /// Who is called with later events, when this has come to its end.
    then: Option<CallerContext>,
}

#[derive(Debug, PartialEq)]
enum Stage {
    /// A hook was asked about it, with this ticket.
    Asked(u64),
    /// It was sent nothing yet.
    New,
    /// A page is being read for it.
    Reading,
    /// It was sent something.
    Sent,
}

/// What is kept of a pull with its socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    id: Id,
    /// Where it is, with chunks that were not acknowledged; `None` if it has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<(u64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    /// Whether it was sent nothing yet.
    #[serde(default, skip_serializing_if = "is_false")]
    new: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Kept {
    /// Whether it says itself where it is.
    pub(super) fn is_behind(&self) -> bool {
        self.at.is_some()
    }
}

impl Following {
    /// A pull of an earlier life, for which the log ended at `head`.
    pub(super) fn woken(Kept { id, at, end, new }: Kept, head: u64) -> Self {
        let (at, unread) = at.unwrap_or((head, 0));
        let unread = std::iter::repeat_n(0, (unread as usize).min(BEHIND)).collect();
        let stage = if new { Stage::New } else { Stage::Sent };
        Self { id, at, end, unread, stage, asked_at: Timestamp::default(), then: None }
    }

    /// What outlives the machine.
    pub(super) fn kept(&self, head: u64) -> Kept {
        let new = matches!(self.stage, Stage::New | Stage::Asked(_));
        let behind = self.at != head && !crate::__mutated("livestore_behind");
        let unread = u32::try_from(self.unread.len()).unwrap_or(u32::MAX);
        let at = (new || behind).then_some((self.at, unread));
        Kept { id: self.id.clone(), at, end: self.end, new }
    }

    /// The bytes that it was sent and has not acknowledged.
    pub(super) fn unread(&self) -> usize {
        self.unread.iter().sum()
    }
}

/// Whether a connection with so many unread bytes, of so many in all, may be sent more.
fn room(unread: usize, all: usize) -> bool {
    unread == 0 || (unread < CONNECTION_UNREAD && all < UNREAD)
}

impl Machine {
    pub(super) fn pull(
        &mut self,
        who: Who,
        id: Id,
        request: PullRequest<'_>,
    ) -> std::result::Result<(), Failure> {
        self.check_store(&request.store_id)?;
        if self.unsure {
            self.load();
        }
        let (most, head) = (self.limits.pulls, self.context.head);
        let Some(connection) = self.who_mut(who) else { return Ok(()) };
        if connection.following.iter().any(|other| other.id == id) {
            self.close(who.slot, 1008, "an id was used twice");
            return Ok(());
        }
        if connection.following.len() >= most {
            self.close(who.slot, 1008, "too many pulls");
            return Ok(());
        }
        let (caller, call) = (connection.caller.clone(), connection.call);
        let rpc = request.rpc_context.filter(|_| caller.transport == Transport::Rpc);
        let then = rpc.map(|rpc| rpc.caller_context);
        let at = match &request.cursor {
            None => 0,
            Some(cursor) => {
                self.check_backend(&cursor.backend_id)?;
                // This log has lost events that the client has: it cannot go on from here, and
                // starts over when it hears of another backend.
                if cursor.event_sequence_number > head {
                    return Err(Failure::BackendIdMismatch {
                        expected: self.context.backend_id.clone(),
                        received: cursor.backend_id.clone(),
                    });
                }
                cursor.event_sequence_number
            }
        };
        let live = request.live && !call;
        self.tickets += 1;
        let (ticket, end) = (self.tickets, (!live).then_some(head));
        let live = live || then.is_some();
        let (stage, asked_at) = (Stage::Asked(ticket), self.now);
        let unread = VecDeque::new();
        let following = Following { id, at, end, unread, stage, asked_at, then };
        if let Some(connection) = self.who_mut(who) {
            connection.following.push(following);
        }
        self.dirty.insert(who.slot);
        let pull = Pull { cursor: request.cursor, live };
        self.effects.push_back(Effect::RunHook(Hook(Asked::Pull(who, ticket, pull, caller))));
        Ok(())
    }

    /// The hook has decided about a pull.
    pub(super) fn pull_allowed(&mut self, who: Who, ticket: u64, result: Result<()>) {
        let asked = |pull: &Following| pull.stage == Stage::Asked(ticket);
        let Some(pull) = self.following(who, asked) else { return };
        pull.stage = Stage::New;
        let id = pull.id.clone();
        match result {
            Ok(()) => self.go_on(who, &id),
            // Its client would pull no more: it comes again.
            Err(error) if error.code() == Code::Unavailable => {
                self.close(who.slot, wire::CLOSE_FAILED, "try again");
            }
            Err(error) => self.end_pull(who, &id, Some(&table::failed(&error))),
        }
    }

    fn following(&mut self, who: Who, is: impl Fn(&Following) -> bool) -> Option<&mut Following> {
        self.who_mut(who)?.following.iter_mut().find(|pull| is(pull))
    }

    /// Ends a pull: with a failure, or because it has all that it asked for.
    fn end_pull(&mut self, who: Who, id: &Id, failure: Option<&Failure>) {
        let Some(connection) = self.who_mut(who) else { return };
        let place = connection.following.iter().position(|pull| pull.id == *id);
        let Some(place) = place else { return };
        let ended = connection.following.remove(place);
        self.unread = self.unread.saturating_sub(ended.unread());
        self.dirty.insert(who.slot);
        match failure {
            Some(failure) => self.fail(who, id, failure),
            None => {
                self.succeed(who, id, None);
                if let Some(context) = ended.then {
                    self.subscribe(context, ended.id, ended.at);
                }
            }
        }
    }

    /// Sends a pull what it lacks, if it takes more.
    fn go_on(&mut self, who: Who, id: &Id) {
        let (head, room) = (self.context.head, self.has_room(who));
        let Some(pull) = self.following(who, |pull| pull.id == *id) else { return };
        let takes = matches!(pull.stage, Stage::New | Stage::Sent) && pull.unread.len() < WINDOW;
        if !takes {
            return;
        }
        let (after, all) = (pull.at, pull.at >= pull.end.unwrap_or(head));
        if !all && !room {
            return;
        }
        if all && pull.stage == Stage::New {
            pull.stage = Stage::Sent;
            return self.send_page(who, id, Page { last: after, ..Page::default() });
        }
        if all {
            if pull.end.is_some() {
                self.end_pull(who, id, None);
            }
            return;
        }
        let id = id.clone();
        if self.sent > TURN_BYTES {
            // The rest is for the next turn.
            return self.hungry.push_back(Reader::Pull(who, id));
        }
        if let Some(page) = self.at_hand(after, head) {
            return self.send_page(who, &id, page);
        }
        let Some(pull) = self.following(who, |pull| pull.id == id) else { return };
        pull.stage = Stage::Reading;
        let upto = if crate::__mutated("livestore_upto") { u64::MAX } else { head };
        // As much as it may be, until it is known.
        self.sent += self.limits.page_bytes;
        self.effects.push_back(Effect::Read(Reading {
            reader: Reader::Pull(who, id),
            after,
            upto,
        }));
    }

    /// Whether a connection may be sent more before it acknowledges something.
    fn has_room(&mut self, who: Who) -> bool {
        let all = self.unread;
        let Some(connection) = self.who_mut(who) else { return false };
        room(connection.following.iter().map(Following::unread).sum(), all)
    }

    /// The last push, if that is what comes behind `after`.
    fn at_hand(&self, after: u64, head: u64) -> Option<Page> {
        let (before, page) = self.latest.as_ref()?;
        (*before == after && page.last == head).then(|| page.clone())
    }

    /// A page was read.
    pub(super) fn read(&mut self, who: Who, id: &Id, after: u64, page: Result<Page>) {
        let wanted =
            |pull: &Following| pull.id == *id && pull.stage == Stage::Reading && pull.at == after;
        let Some(pull) = self.following(who, wanted) else { return };
        pull.stage = Stage::Sent;
        self.sent = self.sent.saturating_sub(self.limits.page_bytes);
        match page {
            Ok(page) if page.last > after => self.send_page(who, id, page),
            Ok(_) => {
                self.unread(who, &Error::retry("it lacks events that it should have"));
                self.load();
            }
            Err(error) => self.unread(who, &error),
        }
    }

    /// A client's page cannot be read: it comes again.
    fn unread(&mut self, who: Who, error: &Error) {
        self.log(Level::Error, format!("a page cannot be read: {error}"));
        self.close(who.slot, wire::CLOSE_FAILED, "internal");
    }

    /// Pulls that a hook was asked about in an earlier life: it is asked again.
    pub(super) fn ask_again(&mut self) {
        let backend_id = self.context.backend_id.clone();
        for (slot, serial) in self.open() {
            let who = Who { slot, serial };
            let (mut tickets, now) = (self.tickets, self.now);
            let Some(connection) = self.who_mut(who) else { continue };
            let mut asked = Vec::new();
            for pull in connection.following.iter_mut().filter(|pull| pull.stage == Stage::New) {
                tickets += 1;
                (pull.stage, pull.asked_at) = (Stage::Asked(tickets), now);
                let (backend_id, event_sequence_number) = (backend_id.clone(), pull.at);
                let cursor = Cursor { backend_id, event_sequence_number };
                let cursor = Some(cursor).filter(|_| pull.at > 0);
                let pull = Pull { cursor, live: pull.end.is_none() };
                asked.push(Hook(Asked::Pull(who, tickets, pull, connection.caller.clone())));
            }
            self.tickets = tickets;
            self.effects.extend(asked.into_iter().map(Effect::RunHook));
        }
    }

    /// When the first hook that is asked about a pull has to have answered.
    pub(super) fn pulls_asked_until(&self) -> Option<Timestamp> {
        let all = self.slots.iter().flatten().flat_map(|connection| &connection.following);
        let asked = all.filter(|pull| matches!(pull.stage, Stage::Asked(_)));
        let first = asked.map(|pull| pull.asked_at).min();
        first.map(|at| at.plus_millis(i64::from(self.limits.hook_ms)))
    }

    /// A hook that does not come back has its client come again.
    pub(super) fn end_slow_pulls(&mut self) {
        let late = self.now.plus_millis(-i64::from(self.limits.hook_ms));
        for (slot, _) in self.open() {
            let slow =
                |pull: &Following| matches!(pull.stage, Stage::Asked(_)) && pull.asked_at <= late;
            if self.get_mut(slot).is_some_and(|connection| connection.following.iter().any(slow)) {
                self.log(Level::Error, "on_pull has not come back in time".to_owned());
                self.close(slot, wire::CLOSE_FAILED, "try again");
            }
        }
    }

    /// What the last turn had no room for.
    pub(super) fn go_on_hungry(&mut self) {
        for reader in std::mem::take(&mut self.hungry) {
            match reader {
                Reader::Pull(who, id) => self.go_on(who, &id),
                Reader::Subscriber(number) => self.call(number),
            }
        }
    }

    fn send_page(&mut self, who: Who, id: &Id, page: Page) {
        let (head, backend_id) = (self.context.head, self.context.backend_id.clone());
        let Some(connection) = self.who_mut(who) else { return };
        let caller = connection.caller.clone();
        let Some(pull) = self.following(who, |pull| pull.id == *id) else { return };
        pull.at = page.last;
        let remaining = pull.end.unwrap_or(head).saturating_sub(pull.at);
        let call = Some(id).filter(|_| caller.transport == Transport::Rpc);
        let value = envelope::page(&page.events, remaining, &backend_id, call);
        let chunk = envelope::chunk(id, &value);
        pull.unread.push_back(chunk.len());
        self.unread += chunk.len();
        self.dirty.insert(who.slot);
        self.send(who, chunk);
        self.end_span(who, id, None);
        self.told(page.events, remaining, Some(caller));
        self.go_on(who, id);
    }

    /// Tells the server what was sent.
    fn told(&mut self, events: String, remaining: u64, caller: Option<Rc<Caller>>) {
        let sent = Sent { events: events.into(), remaining };
        self.effects.push_back(Effect::RunHook(Hook(Asked::Sent(sent, caller))));
    }

    /// A client has read a chunk.
    pub(super) fn acknowledged(&mut self, who: Who, id: &Id) {
        let (head, had_room) = (self.context.head, self.has_room(who));
        let Some(connection) = self.who_mut(who) else { return };
        let Some(pull) = connection.following.iter_mut().find(|pull| pull.id == *id) else {
            return;
        };
        let read = pull.unread.pop_front();
        if read.is_some() {
            let behind = pull.at != head;
            // It answers what was sent, and costs its client nothing.
            connection.rate.give_back();
            if behind {
                // That it was read counts also when the object has slept.
                self.dirty.insert(who.slot);
            }
        }
        self.unread = self.unread.saturating_sub(read.unwrap_or_default());
        if had_room {
            return self.go_on(who, id);
        }
        // The connection's other pulls may have waited for this.
        self.go_on_connection(who);
    }

    fn go_on_connection(&mut self, who: Who) {
        let Some(connection) = self.who_mut(who) else { return };
        let ids: Vec<_> = connection.following.iter().map(|pull| pull.id.clone()).collect();
        ids.iter().for_each(|id| self.go_on(who, id));
    }

    /// A part of a call's answer has been passed on.
    pub(super) fn taken(&mut self, who: Who) {
        let Some(connection) = self.who_mut(who) else { return };
        if let Some(id) = connection.following.first().map(|pull| pull.id.clone()) {
            self.acknowledged(who, &id);
        }
    }

    /// A client has given a request up. A push is done all the same, and answered.
    pub(super) fn interrupted(&mut self, who: Who, id: &Id) {
        self.end_pull(who, id, Some(&Failure::Interrupted));
    }

    /// The log has grown from `before`: live pulls that had all of it are sent what is new.
    pub(super) fn publish(&mut self, before: u64, batch: String) {
        let (head, backend_id) = (self.context.head, self.context.backend_id.clone());
        let value = envelope::page(&batch, 0, &backend_id, None);
        let small = batch.len() <= self.limits.page_bytes;
        let mut told = self.publish_by_calls(before, Some(&*value).filter(|_| small));
        let (mut sent, mut all_unread) = (self.sent, self.unread);
        for (slot, serial) in self.open() {
            let who = Who { slot, serial };
            let Some(connection) = self.who_mut(who) else { continue };
            let mut frames = Vec::new();
            let mut unread = connection.following.iter().map(Following::unread).sum();
            for pull in &mut connection.following {
                let all = pull.at == before || crate::__mutated("livestore_once");
                let takes = pull.end.is_none() && pull.stage == Stage::Sent && all;
                let reads = pull.unread.len() < BEHIND && room(unread, all_unread);
                if takes && small && reads && sent <= TURN_BYTES {
                    let chunk = envelope::chunk(&pull.id, &value);
                    pull.at = head;
                    pull.unread.push_back(chunk.len());
                    sent += chunk.len();
                    unread += chunk.len();
                    all_unread += chunk.len();
                    frames.push(Ok(chunk));
                } else if takes {
                    frames.push(Err(pull.id.clone()));
                }
            }
            for frame in frames {
                match frame {
                    Ok(frame) => {
                        told = true;
                        self.unread += frame.len();
                        self.send(who, frame);
                    }
                    Err(id) => {
                        // It is behind, which is to outlive the machine.
                        self.dirty.insert(slot);
                        self.go_on(who, &id);
                    }
                }
            }
        }
        if small && !self.hungry.is_empty() {
            let page = Page { events: batch.clone(), count: head - before, last: head };
            self.latest = Some((before, page));
        }
        if told {
            self.told(batch, 0, None);
        }
    }

    /// The log may hold more than was known.
    pub(super) fn go_on_all(&mut self) {
        for (slot, serial) in self.open() {
            self.go_on_connection(Who { slot, serial });
        }
        self.call_all();
    }
}
