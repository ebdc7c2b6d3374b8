//! Pending actions: this client's own, those that clients that are gone left behind, and those of
//! other living clients of the same place, which are shown and nothing else.

use super::index::Footprint;
use super::layers::Order;
use crate::gathered::gathered;
use crate::store::{Outbox, SavedAction, Suspicion};
use partysync::wire::v2::{Push, PushAction};
use partysync::{Action, Code, Error, Result, Timestamp};
use serde_json::Value as Json;
use serde_json::value::to_raw_value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Pending<A> {
    pub(super) seq: u64,
    channel: String,
    /// As it was made, and as it is pushed.
    json: Json,
    /// `None` when this version of the application cannot read it; the server may.
    pub(super) action: Option<A>,
    pub(super) made_at: Timestamp,
    suspicion: Suspicion,
    /// When a push that began with it was without an answer last, on the monotonic clock.
    tried_at: Option<u64>,
    /// Where it was among all when it was done last.
    pub(super) order: Order,
    pub(super) footprint: Footprint,
}

impl<A: Action> Pending<A> {
    pub(super) fn new(seq: u64, action: A, json: Json, made_at: Timestamp) -> Self {
        let (channel, suspicion) = (action.channel().to_owned(), Suspicion::default());
        let action = Some(action);
        let (order, footprint) = Default::default();
        Self { seq, channel, json, action, made_at, suspicion, tried_at: None, order, footprint }
    }

    /// A pending action that was stored, with what is wrong with it.
    pub(super) fn load(seq: u64, saved: &SavedAction) -> (Self, Option<Error>) {
        let (action, error) = match A::from_json(&saved.channel, &saved.action.to_string()) {
            Ok(action) => (Some(action), None),
            Err(error) => (None, Some(error.context(format_args!("pending action {seq}")))),
        };
        let SavedAction { channel, action: json, made_at, suspicion } = saved.clone();
        let (tried_at, order, footprint) = Default::default();
        (Self { seq, channel, json, action, made_at, suspicion, tried_at, order, footprint }, error)
    }

    pub(super) fn saved(&self) -> SavedAction {
        SavedAction {
            channel: self.channel.clone(),
            action: self.json.clone(),
            made_at: self.made_at,
            suspicion: self.suspicion,
        }
    }

    #[cfg(feature = "devtools")]
    pub(super) fn inspect(&self, elsewhere: bool) -> crate::devtools::Pending {
        let action = self.json.get("type").and_then(Json::as_str).unwrap_or("?").to_owned();
        let (channel, made_at) = (self.channel.clone(), self.made_at);
        crate::devtools::Pending { channel, action, made_at, elsewhere }
    }

    fn to_push(&self, give_up: bool) -> Result<PushAction> {
        let json = if give_up { &Json::Null } else { &self.json };
        let action =
            to_raw_value(json).map_err(|e| Error::new(Code::InvalidValue, e.to_string()))?;
        Ok(PushAction { seq: self.seq, channel: self.channel.clone(), action })
    }
}

/// Whose actions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This client's.
    Own,
    /// Those of a client that is gone: this one pushes them, and adds none.
    Adopted,
    /// Those of another living client, which pushes them itself.
    Other,
}

/// The pending actions of one client.
#[derive(Debug)]
pub(super) struct Queue<A> {
    pub(super) client: Arc<str>,
    pub(super) whose: Whose,
    /// Its place among the queues: those before it have a lower one.
    pub(super) rank: u64,
    /// Every action up to this seq has its answer.
    pub(super) answered: u64,
    /// The highest seq that was ever pushed.
    pushed: u64,
    /// When, by the room's clock, the first of the actions that were pushed and have no answer was
    /// pushed first.
    pushed_at: Option<Timestamp>,
    /// The highest seq that was pushed on this connection.
    sent: u64,
    pub(super) pending: VecDeque<Pending<A>>,
    /// Of another living client: those that were committed, with the epoch and the version that
    /// hold their outcome.
    pub(super) committed: BTreeMap<u64, (String, u64)>,
}

/// Between two attempts no more than this counts as time in which an action was tried, ms.
const LONGEST_TRY: u64 = 5 * 60 * 1000;
/// A queue whose first action has so much held against it waits behind others.
const SUSPECT: u32 = 8;

/// How large a push may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PushLimits {
    pub(crate) actions: usize,
    pub(crate) bytes: usize,
}

/// When an action is given up that the server seems not to bear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// With so much held against it.
    pub(crate) points: u32,
    /// For so long, ms.
    pub(crate) millis: u64,
}

impl<A: Action> Queue<A> {
    pub(super) fn new(client: Arc<str>, whose: Whose) -> Self {
        Self {
            client,
            whose,
            rank: 0,
            answered: 0,
            pushed: 0,
            pushed_at: None,
            sent: 0,
            pending: VecDeque::new(),
            committed: BTreeMap::new(),
        }
    }

    /// An outbox that was stored, with what is wrong with its actions.
    pub(super) fn load(outbox: &Outbox, whose: Whose) -> (Self, Vec<Error>) {
        let mut errors = Vec::new();
        let mut queue = Self::new(outbox.client.as_str().into(), whose);
        for (seq, saved) in &outbox.pending {
            let (pending, error) = Pending::load(*seq, saved);
            queue.pending.push_back(pending);
            errors.extend(error);
        }
        let first = queue.pending.front().map_or(1, |first| first.seq);
        queue.answered = first.saturating_sub(1);
        (queue.pushed, queue.pushed_at) = (outbox.pushed, outbox.pushed_at);
        (queue, errors)
    }

    pub(super) fn saved(&self) -> Outbox {
        Outbox {
            client: self.client.to_string(),
            pushed: self.pushed,
            pushed_at: self.pushed_at,
            pending: gathered(self.pending.iter().map(|p| (p.seq, p.saved()))),
        }
    }

    /// The next push; `None` when there is nothing that was not pushed on this connection. With
    /// `true`, the store has to be told first that this was pushed, which this has noted. `now` is
    /// the room's time: it is the room that forgets.
    ///
    /// One that had no answer before goes alone, so that it takes no other with it; one that is
    /// given up goes as `null`, which ends it unless it was done after all. What was pushed before
    /// and what was not go in different pushes.
    pub(super) fn next_push(
        &mut self,
        limits: PushLimits,
        patience: Patience,
        now: Timestamp,
    ) -> Result<Option<(Push, bool)>> {
        let (sent, pushed) = (self.sent.max(self.answered), self.pushed);
        let mut size = 0;
        let mut actions: Vec<PushAction> = Vec::new();
        let mut again = false;
        for pending in self.pending.iter().filter(|p| p.seq > sent).take(limits.actions.max(1)) {
            let Suspicion { points, millis } = pending.suspicion;
            let given_up = points >= patience.points && millis >= patience.millis;
            let action = pending.to_push(given_up)?;
            size += action.action.get().len();
            let first = actions.is_empty();
            if first {
                again = pending.seq <= pushed;
            } else if size > limits.bytes || points > 0 || again != (pending.seq <= pushed) {
                break;
            }
            actions.push(action);
            if points > 0 {
                break;
            }
        }
        let Some(last) = actions.last() else { return Ok(None) };
        self.sent = last.seq;
        let pushed_at = self.pushed_at.filter(|_| again && !partysync::__mutated("pushed_at"));
        let noted = last.seq > self.pushed;
        if noted {
            if self.pushed <= self.answered || self.pushed_at.is_none() {
                self.pushed_at = Some(now);
            }
            self.pushed = last.seq;
        }
        let client = (self.whose != Whose::Own).then(|| self.client.to_string());
        Ok(Some((Push { client, answered: self.answered, pushed_at, actions }, noted)))
    }

    /// Whether much is held against its first action.
    pub(super) fn is_suspect(&self) -> bool {
        self.pending.front().is_some_and(|first| first.suspicion.points >= SUSPECT)
    }

    /// When the first of what was pushed and has no answer was pushed.
    pub(super) fn pushed(&self) -> (u64, Timestamp) {
        (self.pushed, self.pushed_at.unwrap_or_default())
    }

    /// Whether something was pushed on this connection and has no answer.
    pub(super) fn waits(&self) -> bool {
        self.pending.front().is_some_and(|first| first.seq <= self.sent)
    }

    /// The connection is gone, with what was pushed on it: so much is held against the first of
    /// the actions without an answer. Returns its seq and what is held against it, if it changed.
    pub(super) fn interrupt(&mut self, points: u32, now: u64) -> Option<(u64, Suspicion)> {
        let sent = std::mem::take(&mut self.sent);
        let first = self.pending.front_mut().filter(|first| first.seq <= sent && points > 0)?;
        let passed = first.tried_at.replace(now).map_or(0, |last| now.saturating_sub(last));
        let millis = first.suspicion.millis.saturating_add(passed.min(LONGEST_TRY));
        first.suspicion.millis = millis;
        first.suspicion.points = first.suspicion.points.saturating_add(points);
        Some((first.seq, first.suspicion))
    }

    /// One more that is pending, in its place.
    pub(super) fn put(&mut self, pending: Pending<A>) {
        let place = self.pending.partition_point(|there| there.seq < pending.seq);
        self.pending.insert(place, pending);
    }

    /// The action of this seq.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Pending<A>> {
        let place = self.pending.binary_search_by_key(&seq, |pending| pending.seq).ok()?;
        self.pending.get_mut(place)
    }

    /// An action has its answer, and is not pending any more.
    pub(super) fn take(&mut self, seq: u64) -> Option<Pending<A>> {
        let place = self.pending.binary_search_by_key(&seq, |pending| pending.seq).ok()?;
        let pending = self.pending.remove(place);
        let first = self.pending.front().map(|first| first.seq.saturating_sub(1));
        self.answered = first.unwrap_or_else(|| self.answered.max(seq)).max(self.answered);
        pending
    }
}
