//! Actions on their way: what came is parsed, asked about, committed once and in order, and its
//! answers wait for the patch that holds its rows.

use super::answer::Acks;
use super::event::{Call, Hook, HookDone};
use super::feed::Feed;
use super::machine::Seq;
use super::{Effect, Machine, Slot, v1};
use crate::sql::Sql;
use crate::wire::v2::{Push, PushAction};
use crate::{Action, Code, Error, Result, SyncServer, Timestamp, store, wire};
use serde_json::value::RawValue;
use std::rc::Rc;

/// Actions whose `before_action` is awaited.
#[derive(Debug)]
pub(super) struct Pending {
    slot: Slot,
    serial: u64,
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    /// A push: the client, up to which seq it has its answers, and the seq of each action.
    V2(Rc<str>, u64, Vec<u64>),
    V1(v1::Call),
}

/// What a push has led to so far.
struct Notes<A> {
    committed: Vec<A>,
    acks: Acks,
    /// Whether an action was refused.
    refused: bool,
    /// Whether an action has a result.
    gave: bool,
}

/// Actions that share a savepoint. SQLite keeps the pages that a savepoint touches in memory up to
/// 64 KiB, sixteen pages, and in a file beyond that.
const GROUP: usize = 8;

/// For so many clients that the room does not know a connection may push.
const STRANGERS: u32 = 256;

/// An action, for a log.
fn named<A: Action>(action: Option<&A>) -> String {
    let name = |action: &A| {
        let json = action.to_json().ok()?;
        Some(format!("action {} of {}", json.get("type")?.as_str()?, action.channel()))
    };
    action.and_then(name).unwrap_or_else(|| "an action".to_owned())
}

impl<S: SyncServer> Machine<S> {
    /// The place of a channel among the room's.
    pub(super) fn place(channel: &str) -> Result<usize> {
        Self::SCHEMAS.iter().position(|schema| schema.table == channel).ok_or_else(|| {
            let found = wire::clip(channel);
            let known: Vec<_> = Self::SCHEMAS.iter().map(|schema| schema.table).collect();
            let known = known.join("`, `");
            let message = format!("there is no channel `{found}` here: it is one of `{known}`");
            Error::new(Code::UnknownChannel, message)
        })
    }

    pub(super) fn parse_action(channel: &str, action: &RawValue) -> Result<S::Action> {
        if action.get() == "null" {
            return Err(Error::new(
                Code::Abandoned,
                "given up: attempts for an hour had no answer",
            ));
        }
        Self::place(channel)?;
        S::Action::from_json(channel, action.get())
    }

    /// The last seq of a client that was answered; at least `answered`, up to which it says that it
    /// has all answers: in another storage, or an older state of this one, it goes on from there.
    fn seq(&mut self, sql: &dyn Sql, client: &Rc<str>, answered: u64) -> Result<Seq> {
        let known = self.clients.entry(client.clone()).or_default();
        if known.seq == Seq::Unknown {
            known.seq = store::client_seq(sql, client)?.map_or(Seq::Nowhere, Seq::At);
        }
        Ok(match known.seq {
            Seq::At(seq) => Seq::At(seq.max(answered)),
            Seq::Unknown | Seq::Nowhere => Seq::Nowhere,
        })
    }

    /// Lets go of what is known of clients that are not connected; it may be asked for again.
    fn forget_client(&mut self, client: &str) {
        if self.clients.get(client).is_some_and(|c| c.connections == 0 && !c.unsaved) {
            self.clients.remove(client);
        }
    }

    /// A v2 client pushes actions.
    pub(super) fn push(&mut self, sql: &dyn Sql, slot: Slot, push: Push) -> Result<()> {
        let Some(entry) = self.slots.get(slot) else { return Ok(()) };
        let (serial, own) = (entry.serial, entry.connection.client.as_deref());
        let Some(own) = own else {
            let error = Error::new(Code::HelloFirst, "say `hello` before `push`");
            self.tell(slot, &error);
            return Ok(());
        };
        let client = Rc::<str>::from(push.client.as_deref().unwrap_or(own));
        if entry.feed.as_ref().is_some_and(Feed::is_greeting) {
            let error = Error::new(Code::HelloFirst, "push when the catch-up is complete");
            self.tell_and_close(slot, wire::CLOSE_PROTOCOL, &error);
            return Ok(());
        }
        if self.is_overdue(slot) {
            return Ok(());
        }
        let (found, limit) = (push.actions.len(), self.limits.push_actions);
        if found > limit {
            let message = format!("a push of {found} actions; the limit is {limit}");
            let error = Error::new(Code::TooManyActions, message);
            self.tell_and_close(slot, wire::CLOSE_PROTOCOL, &error);
            return Ok(());
        }
        let last = self.seq(sql, &client, push.answered)?;
        self.forget_client(&client);
        // A client that is not known was never here, or so long ago that it was forgotten.
        let waited = push.pushed_at.is_some_and(|at| self.is_long_ago(at));
        let unknown = last == Seq::Nowhere && waited;
        if last == Seq::Nowhere && push.client.is_some() && !self.admits_stranger(slot) {
            return Ok(());
        }
        if unknown && !crate::__mutated("forgotten") {
            self.answer_unknown(slot, &client, &push.actions);
            return Ok(());
        }
        let last = if let Seq::At(last) = last { last } else { push.answered };
        let parse = |push: &PushAction| {
            // What has its answer is not asked about again.
            if push.seq <= last && !crate::__mutated("dedupe") {
                return Err(Error::new(Code::Internal, "answered before"));
            }
            Self::parse_action(&push.channel, &push.action)
        };
        let actions = push.actions.iter().map(parse).collect();
        let seqs = push.actions.iter().map(|push| push.seq).collect();
        let from = Origin::V2(client, push.answered, seqs);
        self.ask(slot, Pending { slot, serial, from }, actions);
        Ok(())
    }

    /// Whether what was pushed then may have been done and forgotten.
    fn is_long_ago(&self, at: Timestamp) -> bool {
        let passed = self.meta.now.as_millis().saturating_sub(at.as_millis());
        u64::try_from(passed).unwrap_or(0).max(1) >= self.limits.surely_known_ms()
    }

    /// Whether a connection may push for one client more that the room does not know: each is
    /// remembered for a long time.
    fn admits_stranger(&mut self, slot: Slot) -> bool {
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        entry.strangers += 1;
        if entry.strangers <= STRANGERS {
            return true;
        }
        let message = "actions of too many clients on one connection: come again";
        self.tell_and_close(slot, wire::CLOSE_BUSY, &Error::new(Code::RateLimited, message));
        false
    }

    /// Actions that were pushed so long ago that the room may have done and forgotten them: they
    /// are not done again, and whoever made them hears that their end is unknown.
    fn answer_unknown(&mut self, slot: Slot, client: &Rc<str>, actions: &[PushAction]) {
        let message = "sent so long ago that the room has forgotten whether it was done";
        let outcome = Err(Error::new(Code::ClientForgotten, message));
        let mut acks = Acks::default();
        actions.iter().for_each(|action| acks.add(action.seq, &outcome, None));
        self.answer(slot, client, &mut acks);
    }

    /// A v1 client calls an action.
    pub(super) fn call(&mut self, slot: Slot, call: v1::Call, action: Result<S::Action>) {
        let Some(entry) = self.slots.get(slot) else { return };
        let pending = Pending { slot, serial: entry.serial, from: Origin::V1(call) };
        self.ask(slot, pending, vec![action]);
    }

    /// Asks the server's `before_action` about these actions.
    fn ask(&mut self, slot: Slot, pending: Pending, actions: Vec<Result<S::Action>>) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.awaits = true;
        self.tickets += 1;
        let (ticket, connection) = (self.tickets, entry.connection.clone());
        self.pending.insert(ticket, pending);
        let call = Call::Before { ticket, connection, actions };
        self.effect(Effect::RunHook(Hook { call }));
    }

    /// `before_action` has returned for all actions of a frame.
    pub(super) fn hook_done(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        done: HookDone<S::Action>,
    ) -> Result<()> {
        let Some(pending) = done.ticket.and_then(|ticket| self.pending.remove(&ticket)) else {
            return Ok(());
        };
        let Pending { slot, serial, from } = pending;
        // Who is gone, or may go on no longer, has nothing done: its client sends it again.
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| entry.serial == serial) else {
            return Ok(());
        };
        entry.awaits = false;
        if entry.closing {
            return Ok(());
        }
        match from {
            Origin::V2(client, answered, seqs) => {
                let actions = seqs.into_iter().zip(done.actions);
                self.commit_push(server, sql, slot, (&client, answered), actions)?;
            }
            Origin::V1(call) => {
                if let Some(action) = done.actions.into_iter().next() {
                    self.commit_call(server, sql, slot, call, action)?;
                }
            }
        }
        self.read_waiting(server, sql, slot)
    }

    /// Commits the actions of a push: each is whole or not there, and one that is refused takes
    /// nothing of the others with it. Their answers wait for the end of the turn.
    fn commit_push(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        (client, answered): (&Rc<str>, u64),
        actions: impl Iterator<Item = (u64, Result<S::Action>)>,
    ) -> Result<()> {
        let mut actions = actions.peekable();
        let (committed, acks) = (Vec::new(), Acks::default());
        let mut notes = Notes { committed, acks, refused: false, gave: false };
        self.forget_results(sql, client, answered)?;
        while actions.peek().is_some() {
            let last = match self.seq(sql, client, answered)? {
                Seq::At(last) => last,
                Seq::Unknown | Seq::Nowhere => answered,
            };
            let mut next = last + 1;
            let group = std::iter::from_fn(|| {
                let fresh = |(seq, _): &_| *seq == next || crate::__mutated("dedupe");
                let (seq, action) = actions.next_if(fresh)?;
                next = seq + 1;
                Some((seq, action))
            });
            let group: Vec<_> = group.take(GROUP).collect();
            if !group.is_empty() {
                let whose = (client, answered);
                if !self.commit_group(server, sql, slot, whose, group, &mut notes)?
                    || !self.answer_early(server, sql, slot, client, &mut notes.acks)?
                {
                    break;
                }
            } else if let Some((seq, _)) = actions.next() {
                if seq <= last {
                    self.answer_again(sql, client, seq, &mut notes.acks)?;
                    if !self.answer_early(server, sql, slot, client, &mut notes.acks)? {
                        break;
                    }
                    continue;
                }
                let message = format!("action {seq} came after {last}: one is missing");
                let error = Error::new(Code::SequenceGap, message);
                self.tell_and_close(slot, wire::CLOSE_PROTOCOL, &error);
                break;
            }
        }
        self.unsaved.insert(client.clone());
        self.forget_client(client);
        self.after(slot, notes.committed);
        self.answer(slot, client, &mut notes.acks);
        Ok(())
    }

    /// Does some actions, which were not done before, and notes what came of each; `false` when
    /// those behind them have to wait.
    fn commit_group(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        (client, answered): (&Rc<str>, u64),
        group: Vec<(u64, Result<S::Action>)>,
        notes: &mut Notes<S::Action>,
    ) -> Result<bool> {
        let (seqs, actions): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcomes = self.do_all(server, sql, slot, &actions)?;
        // A client pushes on when it has its answers: what is older it has.
        let most = self.limits.push_actions as u64;
        let older = |seq: u64| seq.saturating_sub(most.max(1)).max(answered);
        for ((seq, action), outcome) in seqs.into_iter().zip(actions).zip(outcomes) {
            let outcome = match outcome {
                Err(error) if error.code() == Code::Unavailable => {
                    // Not now: nothing is noted, so that the client sends it again.
                    self.tell_and_close(slot, wire::CLOSE_BUSY, &error.clipped());
                    return Ok(false);
                }
                Err(error) => Err(self.public(error, &named(action.as_ref().ok()))),
                Ok(result) => Ok(result),
            };
            let (outcome, result) = match outcome {
                Ok(result) => {
                    notes.committed.extend(action);
                    (Ok(()), result)
                }
                Err(error) => {
                    if !notes.refused {
                        store::forget_rejects(sql, client, older(seq))?;
                        notes.refused = true;
                    }
                    store::add_reject(sql, client, seq, &error)?;
                    (Err(error), None)
                }
            };
            let result = match result {
                Some(result) => {
                    if !notes.gave {
                        self.forget_results(sql, client, older(seq))?;
                        notes.gave = true;
                    }
                    let bytes = self.keep_result(sql, client, seq, &result)?;
                    Some((result, bytes))
                }
                None => None,
            };
            notes.acks.add(seq, &outcome, result);
            if let Some(client) = self.clients.get_mut(client) {
                (client.seq, client.unsaved) = (Seq::At(seq), true);
            }
        }
        Ok(true)
    }

    fn commit_call(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        call: v1::Call,
        action: Result<S::Action>,
    ) -> Result<()> {
        // What others did in this turn is not this call's result.
        self.flush(server, sql, None)?;
        let done = action.as_ref().ok().cloned();
        let outcome = match action {
            // The result of a call is its rows.
            Ok(action) => self.do_one(server, sql, slot, action)?.map(drop),
            Err(error) => Err(error),
        };
        let outcome = outcome.map_err(|error| self.public(error, &named(done.as_ref())));
        if outcome.is_ok() {
            self.after(slot, done.into_iter().collect());
        }
        self.flush(server, sql, Some((slot, call, outcome)))
    }

    /// Has `after_commit` called when the turn is over.
    fn after(&mut self, slot: Slot, actions: Vec<S::Action>) {
        if let Some(entry) = self.slots.get(slot)
            && !actions.is_empty()
        {
            let connection = entry.connection.clone();
            self.committed.push(Hook { call: Call::After { connection, actions } });
        }
    }

    /// Writes down which action of each client was answered last.
    pub(super) fn save_clients(&mut self, sql: &dyn Sql) -> Result<()> {
        for id in std::mem::take(&mut self.unsaved) {
            let Some(client) = self.clients.get_mut(&id).filter(|client| client.unsaved) else {
                continue;
            };
            client.unsaved = false;
            let connected = client.connections > 0;
            if let Seq::At(seq) = client.seq
                && !crate::__mutated("seq")
            {
                store::set_client_seq(sql, &id, seq, self.meta.now)?;
                // It is forgotten some day.
                self.plan_trim();
            }
            if !connected {
                self.clients.remove(&id);
            }
        }
        Ok(())
    }
}
