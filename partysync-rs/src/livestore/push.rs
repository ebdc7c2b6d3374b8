//! Pushes: one after the other, in the order in which they came.

use super::envelope::{Failure, Id, PushRequest};
use super::event::check_order;
use super::io::{Asked, Effect, Hook, Who};
use super::machine::Machine;
use super::server::{Caller, Push, Transport};
use super::table;
use crate::room::Level;
use crate::{Code, Error, Result, Timestamp};
use std::rc::Rc;

/// How far the first of the pushes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was not looked at.
    Idle,
    /// A hook was asked about it: its ticket, and since when.
    Asked(u64, Timestamp),
    /// It is being appended.
    Appending,
    /// Appending has failed, and the log is read to see what is there; or the log is emptied.
    Loading,
}

/// A push that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) who: Who,
    id: Id,
    push: Rc<Push>,
    caller: Rc<Caller>,
    created_at: String,
    bytes: usize,
    /// Whether its socket's attachment says that it waits.
    pub(super) kept: bool,
}

/// A time as JavaScript's `toISOString` writes it.
pub(super) fn iso(at: Timestamp) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos);
    let text = time.ok().and_then(|time| time.format(format).ok());
    text.unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

impl Machine {
    pub(super) fn push(
        &mut self,
        who: Who,
        id: Id,
        request: PushRequest<'_>,
        bytes: usize,
    ) -> std::result::Result<(), Failure> {
        self.check_store(&request.store_id)?;
        let (events, most) = (request.batch.len(), self.limits.push_events);
        if events > most {
            let what = format!("the push has {events} events, and {most} is the limit");
            return Err(Failure::unknown("PushTooLarge", what));
        }
        if self.waiting + bytes > self.limits.waiting_bytes {
            if self.who_mut(who).is_some_and(|connection| connection.call) {
                return Err(Failure::unknown("TooManyPushes", "too many pushes wait"));
            }
            self.close(who.slot, 1013, "too many pushes wait");
            return Ok(());
        }
        let Some(connection) = self.who_mut(who) else { return Ok(()) };
        let caller = connection.caller.clone();
        self.waiting += bytes;
        let push = Push { events: request.batch, backend_id: request.backend_id };
        let (push, created_at) = (Rc::new(push), String::new());
        self.pushes.push_back(Waiting { who, id, push, caller, created_at, bytes, kept: false });
        self.serve();
        Ok(())
    }

    /// Goes on with the first push, if nothing is under way.
    pub(super) fn serve(&mut self) {
        if self.unsure {
            self.load();
        }
        if self.stage == Stage::Idle
            && let Some(fresh) = self.emptying.take()
        {
            self.stage = Stage::Loading;
            self.effects.push_back(Effect::Empty(fresh));
        }
        while self.stage == Stage::Idle
            && let Some(first) = self.pushes.front()
        {
            let push = first.push.clone();
            if let Err(failure) = self.check(&push) {
                self.answer(Err(failure));
                continue;
            }
            if push.events.is_empty() {
                self.answer(Ok(()));
                continue;
            }
            let caller = first.caller.clone();
            self.tickets += 1;
            self.stage = Stage::Asked(self.tickets, self.now);
            self.effects.push_back(Effect::RunHook(Hook(Asked::Push(self.tickets, push, caller))));
        }
    }

    fn check(&self, push: &Push) -> std::result::Result<(), Failure> {
        if let Some(backend_id) = &push.backend_id {
            self.check_backend(backend_id)?;
        }
        push.events.iter().try_for_each(super::event::Event::check)?;
        check_order(&push.events, self.context.head)
    }

    /// The hook has decided about the first push.
    pub(super) fn push_allowed(&mut self, result: Result<()>) {
        match result {
            Ok(()) => {
                let now = self.now;
                let Some(first) = self.pushes.front_mut() else {
                    self.stage = Stage::Idle;
                    return;
                };
                first.created_at = iso(now);
                let (push, created_at) = (first.push.clone(), first.created_at.clone());
                self.stage = Stage::Appending;
                self.effects.push_back(Effect::Append(push, created_at));
            }
            Err(error) => {
                self.stage = Stage::Idle;
                self.answer(Err(table::failed(&error)));
                self.serve();
            }
        }
    }

    /// When the hook that is asked about the first push has to have answered.
    pub(super) fn hook_ends(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Asked(_, since) => Some(since.plus_millis(i64::from(self.limits.hook_ms))),
            _ => None,
        }
    }

    /// A hook that does not come back fails its push, and the next one has its turn.
    pub(super) fn end_slow_hook(&mut self) {
        if self.hook_ends().is_some_and(|end| end <= self.now) {
            self.log(Level::Error, "on_push has not come back in time".to_owned());
            self.push_allowed(Err(Error::new(Code::Unavailable, "the server was too slow")));
        }
    }

    /// The first push is in the log, or is not.
    pub(super) fn appended(&mut self, result: Result<()>) {
        if self.stage != Stage::Appending {
            return;
        }
        match result {
            Ok(()) => {
                self.stage = Stage::Idle;
                let before = self.context.head;
                let Some(first) = self.take() else { return };
                let Waiting { who, id, push, caller, created_at, .. } = first;
                if let Some(last) = push.events.last() {
                    self.context.head = last.seq_num;
                }
                // The answer first: a client that sees its own events before gives its push up.
                self.succeed(who, &id, Some("{}"));
                let batch = table::render(&push.events, &created_at);
                self.publish(before, batch);
                self.effects.push_back(Effect::RunHook(Hook(Asked::Pushed(push, caller))));
                self.serve();
            }
            Err(error) => self.not_appended(&error),
        }
    }

    /// It may be in the log all the same: that is looked at before anything else.
    fn not_appended(&mut self, error: &Error) {
        self.log(Level::Error, format!("a push was not stored: {error}"));
        self.answer(Err(Failure::unknown(Code::Storage.as_str(), "the push could not be stored")));
        self.stage = Stage::Idle;
        if crate::__mutated("livestore_load") {
            return self.serve();
        }
        self.load();
    }

    /// The log is not what it was thought to be: it is looked at before the next push.
    pub(super) fn load(&mut self) {
        if self.stage == Stage::Idle {
            self.stage = Stage::Loading;
            self.unsure = false;
            self.effects.push_back(Effect::Load);
        }
    }

    /// The pushes of a connection that wait.
    pub(super) fn waiting_ids(&self, who: Who) -> Vec<Id> {
        let own = self.pushes.iter().filter(|push| push.who == who);
        own.map(|push| push.id.clone()).collect()
    }

    /// The first push, which waits no more.
    fn take(&mut self) -> Option<Waiting> {
        let first = self.pushes.pop_front()?;
        self.waiting = self.waiting.saturating_sub(first.bytes);
        if first.kept {
            self.dirty.insert(first.who.slot);
        }
        Some(first)
    }

    /// The first push has its answer.
    fn answer(&mut self, result: std::result::Result<(), Failure>) {
        let Some(Waiting { who, id, caller, .. }) = self.take() else { return };
        match result {
            Ok(()) => self.succeed(who, &id, Some("{}")),
            Err(failure) => {
                self.fail(who, &id, &failure);
                let ahead = matches!(failure, Failure::ServerAhead { .. });
                if ahead && caller.transport == Transport::Rpc {
                    self.call_those_behind();
                }
            }
        }
    }
}
