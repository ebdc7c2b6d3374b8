//! Subscribers: objects that follow the log over Durable Object RPC. Each is called with what is new
//! behind what it has, one call at a time, also after the store's object was rebuilt.

use super::envelope::{self, CallerContext, Id};
use super::io::{Effect, Reached, Reader, Reading};
use super::machine::Machine;
use super::pull::TURN_BYTES;
use super::table::Page;
use crate::room::Level;
use crate::{Code, Error, Result, Timestamp};
use std::rc::Rc;

/// A client is ready to be called only when it has handled the end of its pull, and does not say
/// when that is: its first call comes so much later, ms.
const GRACE: i64 = 1_000;
/// After a call that failed the next one comes so much later, ms, and twice as late each time.
const RETRY: i64 = 1_000;
const RETRY_MOST: i64 = 300_000;
/// A subscriber is forgotten when its calls have failed for so long, ms.
const LOST: i64 = 24 * 60 * 60 * 1_000;
/// A call that was under way when the object was rebuilt is made again after this, ms.
const UNDER_WAY: i64 = 30_000;
/// The place of a subscriber whose log is over: it is called once more, so that it pulls and hears
/// of another one.
const OVER: u64 = i64::MAX.unsigned_abs();
/// So many subscriptions of one object are kept: one that was rebuilt subscribes anew, and leaves
/// those of its earlier lives behind.
const OF_ONE: usize = 4;

/// Who is called: a pull of an object, as a binding of the backend's worker leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The binding of the object's class.
    pub binding: String,
    /// The object's id, as hex.
    pub object: String,
    /// The pull that it has made.
    pub request: Id,
}

#[derive(Debug)]
pub(super) struct Subscription {
    whom: Rc<Subscriber>,
    at: u64,
    stage: Stage,
    /// It is not called before.
    not_before: Timestamp,
    failures: u32,
    failing_since: Option<Timestamp>,
    subscribed_at: Timestamp,
    /// What is kept of it.
    kept: Option<Reached>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Idle,
    /// A page is being read for it.
    Reading,
    /// It is being called with events up to this one.
    Calling(u64),
}

impl Subscription {
    fn reached(&self) -> Reached {
        let Self { at, failing_since, subscribed_at, .. } = *self;
        Reached { at, failing_since, subscribed_at }
    }

    /// Whether there is something to call it with.
    fn lacks(&self, head: u64) -> bool {
        self.at < head || self.at == OVER
    }

    /// When something is to be done for it, if nothing happens before.
    fn due(&self, head: u64, now: Timestamp) -> Option<Timestamp> {
        match self.stage {
            Stage::Idle => self.lacks(head).then_some(self.not_before.max(now)),
            Stage::Reading | Stage::Calling(_) => Some(now.plus_millis(UNDER_WAY)),
        }
    }
}

impl Machine {
    /// A pull of an object has come to its end: later events are told by calls.
    pub(super) fn subscribe(&mut self, context: CallerContext, request: Id, at: u64) {
        let all = self.subscriptions.iter();
        let of_one = all.filter(|(_, other)| of(&other.whom, &context));
        let same = of_one.clone().find(|(_, other)| other.whom.request == request);
        let oldest = || of_one.clone().nth_back(OF_ONE - 1);
        if let Some(number) = same.or_else(oldest).map(|(number, _)| *number) {
            self.unsubscribe(number);
        }
        // Whether an object is still there it does not say: those that came first may be gone.
        while self.subscriptions.len() >= self.limits.subscribers.max(1)
            && let Some((number, _)) = self.subscriptions.first_key_value()
        {
            let number = *number;
            self.log(Level::Warn, "there are too many subscribers: the first is forgotten".into());
            self.unsubscribe(number);
        }
        let whom = Subscriber {
            binding: context.binding_name,
            object: context.durable_object_id,
            request,
        };
        self.add(whom, Reached { at, failing_since: None, subscribed_at: self.now }, None);
    }

    /// Subscribers that an earlier life has left.
    pub(super) fn resubscribe(&mut self, known: Vec<(Subscriber, Reached)>) {
        for (whom, reached) in known {
            self.add(whom, reached, Some(reached));
        }
        self.call_all();
    }

    fn add(&mut self, whom: Subscriber, reached: Reached, kept: Option<Reached>) {
        self.tickets += 1;
        let grace = if crate::__mutated("livestore_grace") { 0 } else { GRACE };
        let subscription = Subscription {
            whom: Rc::new(whom),
            at: reached.at,
            stage: Stage::Idle,
            not_before: reached.subscribed_at.plus_millis(grace),
            failures: 0,
            failing_since: reached.failing_since,
            subscribed_at: reached.subscribed_at,
            kept,
        };
        self.subscriptions.insert(self.tickets, subscription);
    }

    fn unsubscribe(&mut self, number: u64) {
        let Some(gone) = self.subscriptions.remove(&number) else { return };
        if gone.kept.is_some() {
            self.effects.push_back(Effect::Keep(gone.whom, None));
        }
    }

    /// The log is over: everybody is called once more, and follows it no longer.
    pub(super) fn part_with_all(&mut self) {
        let now = self.now;
        for subscription in self.subscriptions.values_mut() {
            (subscription.at, subscription.not_before) = (OVER, now);
            (subscription.failures, subscription.failing_since) = (0, None);
            if subscription.stage == Stage::Reading {
                subscription.stage = Stage::Idle;
            }
        }
        self.call_all();
    }

    /// How many follow the log.
    pub(super) fn subscribed(&self) -> usize {
        self.subscriptions.values().filter(|subscription| subscription.at != OVER).count()
    }

    fn subscribers(&self) -> Vec<u64> {
        self.subscriptions.keys().copied().collect()
    }

    fn subscription(&mut self, number: u64) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(&number)
    }

    /// Calls a subscriber with what it lacks.
    pub(super) fn call(&mut self, number: u64) {
        let (head, now) = (self.context.head, self.now);
        let full = self.sent > TURN_BYTES;
        let Some(subscription) = self.subscription(number) else { return };
        let ready = subscription.stage == Stage::Idle && subscription.not_before <= now;
        if !ready || !subscription.lacks(head) {
            return;
        }
        let reader = Reader::Subscriber(number);
        if full {
            return self.hungry.push_back(reader);
        }
        if subscription.at == OVER {
            let nothing = envelope::page("", 0, &self.context.backend_id, None);
            return self.deliver(number, OVER, &nothing);
        }
        subscription.stage = Stage::Reading;
        let after = subscription.at;
        self.sent += self.limits.page_bytes;
        self.effects.push_back(Effect::Read(Reading { reader, after, upto: head }));
    }

    pub(super) fn call_all(&mut self) {
        self.subscribers().into_iter().for_each(|number| self.call(number));
    }

    /// A page was read for a subscriber.
    pub(super) fn read_for_call(&mut self, number: u64, after: u64, page: Result<Page>) {
        let (head, now) = (self.context.head, self.now);
        let Some(subscription) = self.subscription(number) else { return };
        if subscription.stage != Stage::Reading || subscription.at != after {
            return;
        }
        subscription.stage = Stage::Idle;
        self.sent = self.sent.saturating_sub(self.limits.page_bytes);
        match page {
            Ok(page) if page.last > after => {
                let remaining = head.saturating_sub(page.last);
                let value = envelope::page(&page.events, remaining, &self.context.backend_id, None);
                self.deliver(number, page.last, &value);
            }
            Ok(_) => {
                let error = Error::retry("it lacks events that it should have");
                self.log(Level::Error, format!("a page cannot be read: {error}"));
                self.failed(number, now);
                self.load();
            }
            Err(error) => {
                self.log(Level::Error, format!("a page cannot be read: {error}"));
                self.failed(number, now);
            }
        }
    }

    fn deliver(&mut self, number: u64, to: u64, value: &str) {
        let Some(subscription) = self.subscription(number) else { return };
        subscription.stage = Stage::Calling(to);
        let whom = subscription.whom.clone();
        let frame = envelope::chunk(&whom.request, value);
        self.sent += frame.len();
        self.effects.push_back(Effect::Call(number, whom, frame));
    }

    /// The log has grown from `before`, by what this value of a chunk says; `None` if that is more
    /// than a page. Whether anybody is called with it.
    pub(super) fn publish_by_calls(&mut self, before: u64, value: Option<&str>) -> bool {
        let (head, now, mut told) = (self.context.head, self.now, false);
        for number in self.subscribers() {
            let full = self.sent > TURN_BYTES;
            let Some(subscription) = self.subscription(number) else { continue };
            let takes = subscription.stage == Stage::Idle
                && subscription.at == before
                && subscription.not_before <= now;
            match value {
                Some(value) if takes && !full => {
                    self.deliver(number, head, value);
                    told = true;
                }
                _ => self.call(number),
            }
        }
        told
    }

    /// A subscriber was called, or could not be.
    pub(super) fn called(&mut self, number: u64, result: Result<()>) {
        let now = self.now;
        let Some(subscription) = self.subscription(number) else { return };
        let Stage::Calling(to) = subscription.stage else { return };
        subscription.stage = Stage::Idle;
        match result {
            Ok(()) if subscription.at == OVER => {
                // One that was under way when the log ended has told of that log.
                if to == OVER { self.unsubscribe(number) } else { self.call(number) }
            }
            Ok(()) => {
                subscription.at = to;
                (subscription.failures, subscription.failing_since) = (0, None);
                self.call(number);
            }
            Err(error) => {
                let whom = subscription.whom.clone();
                let since = *subscription.failing_since.get_or_insert(now);
                let lost = error.code() == Code::NotFound || since.plus_millis(LOST) <= now;
                let Subscriber { binding, object, .. } = &*whom;
                let what = if lost { "is forgotten" } else { "could not be called" };
                self.log(Level::Warn, format!("the object {object} of {binding} {what}: {error}"));
                if lost { self.unsubscribe(number) } else { self.failed(number, now) }
            }
        }
    }

    fn failed(&mut self, number: u64, now: Timestamp) {
        let Some(subscription) = self.subscription(number) else { return };
        let delay = RETRY << subscription.failures.min(16);
        subscription.failures += 1;
        subscription.not_before = now.plus_millis(delay.min(RETRY_MOST));
    }

    /// An object's push came from behind the head: those that wait after a failure are called now.
    pub(super) fn call_those_behind(&mut self) {
        let (head, now) = (self.context.head, self.now);
        for subscription in self.subscriptions.values_mut() {
            if subscription.failures > 0 && subscription.at < head {
                subscription.not_before = now;
            }
        }
        self.call_all();
    }

    /// What has to outlive the turn.
    pub(super) fn keep_subscribers(&mut self) {
        for subscription in self.subscriptions.values_mut() {
            let reached = subscription.reached();
            let keeps = subscription.kept.is_none() || !crate::__mutated("livestore_subscriber");
            if subscription.kept != Some(reached) && keeps {
                subscription.kept = Some(reached);
                self.effects.push_back(Effect::Keep(subscription.whom.clone(), Some(reached)));
            }
        }
    }

    /// When a subscriber is to be called at the latest.
    pub(super) fn next_call(&self) -> Option<Timestamp> {
        let (head, now) = (self.context.head, self.now);
        self.subscriptions.values().filter_map(|other| other.due(head, now)).min()
    }
}

fn of(whom: &Subscriber, context: &CallerContext) -> bool {
    whom.binding == context.binding_name && whom.object == context.durable_object_id
}
