//! Who is here: what connections say of themselves, and what each is told of the others.
//!
//! It is part of the connection, and kept with its socket: it goes with that, whether the socket closes
//! or the process ends, and it is there after hibernation. Nothing is written to the database.
//!
//! A socket may be open with nobody behind it, as when a computer sleeps. Pings are answered without
//! the room, which asks when each was heard last: whenever it wakes with two or more who are shown to
//! each other, and then when the first of them may have been silent for too long.

use super::whereabouts::{Own, Whereabouts};
use super::{Caller, Effect, Machine, Slot};
use crate::sql::Sql;
use crate::wire::v2::{Here, Present};
use crate::{Code, Error, Presence, Result, SyncServer, Timestamp, wire};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// A number of connections is told anew when it differs by this part of what was told.
const ROUGHLY: usize = 64;
/// A state that is nested deeper is refused: readers of JSON have limits, and it is sent within others.
const DEEPEST: usize = 32;
/// The longest name of a topic, bytes.
const TOPIC: usize = 128;
/// States of those who are here are told after so long at the earliest, ms: those of many go in one
/// frame.
const PAUSE: i64 = 50;

impl<S: SyncServer> Machine<S> {
    /// The room wakes with these connections.
    pub(super) fn wake_present(&mut self) {
        let counted = self.slots.iter().filter(|(_, entry)| entry.connection.is_known()).count();
        for (slot, entry) in self.slots.iter() {
            let connection = &entry.connection;
            let Some(own) =
                connection.own.as_deref().filter(|_| !crate::__mutated("presence_wake"))
            else {
                continue;
            };
            let client = connection.client.clone().unwrap_or_default();
            self.present.names.insert(client.clone(), own.name.clone());
            if !entry.closing {
                self.present.put(slot, own);
                self.present.clients.insert(client, slot);
            } else if own.is_shown() {
                // It was closed before the room slept, or now.
                self.present.went(own);
            }
        }
        // A client may be here by another connection than the one that was closed.
        let shown = &self.present.shown;
        let names = shown.iter().filter_map(|slot| Some(self.here(*slot)?.id));
        let names: BTreeSet<_> = names.collect();
        self.present.gone.values_mut().for_each(|gone| gone.retain(|name| !names.contains(name)));
        self.present.gone.retain(|_, gone| !gone.is_empty());
        if !self.unknown.is_empty() {
            // Nobody knows which of those who were here they are.
            self.present.come = self.present.shown.clone();
        }
        // Nobody came or went while it slept; who is closed now is told of.
        (self.present.told, self.present.counts) = (counted, true);
        self.look_who_is_silent();
    }

    /// A connection says that it is here, and how; or that it is not any more.
    pub(super) fn say_present(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        (topic, state): (String, Option<Json>),
    ) -> Result<()> {
        let Some(entry) = self.slots.get(slot) else { return Ok(()) };
        if entry.connection.client.is_none() {
            let message = "`presence` before `hello`: say who you are first";
            self.tell(slot, &Error::new(Code::HelloFirst, message));
            return Ok(());
        }
        let Some(state) = state else {
            self.leave(slot);
            self.forget_said(slot);
            return Ok(());
        };
        if let Err(error) = self.check_presence("a state", &state) {
            self.tell(slot, &error);
            return Ok(());
        }
        if topic.len() > TOPIC {
            let message = format!("a topic of {} bytes; the limit is {TOPIC}", topic.len());
            self.tell(slot, &Error::new(Code::TooLarge, message));
            return Ok(());
        }
        let own = self.slots.get(slot).and_then(|entry| entry.connection.own.as_deref());
        let same = own.is_some_and(|own| own.topic == topic);
        if self.present.is_here(slot) {
            if same {
                self.say_anew(slot, state);
                return Ok(());
            }
            self.leave(slot);
        }
        let who = match self.ask_presence(server, sql, slot, &topic)? {
            Ok(presence) => presence.who,
            Err(error) => {
                self.forget_said(slot);
                self.tell(slot, &error);
                return Ok(());
            }
        };
        self.admit(slot, (topic, who), state);
        Ok(())
    }

    /// Whether something is small enough to be sent to all.
    fn check_presence(&self, what: &str, value: &Json) -> Result<()> {
        let (size, limit) = (value.to_string().len(), self.limits.presence_bytes);
        if size > limit {
            let message = format!("{what} of presence of {size} bytes; the limit is {limit}");
            return Err(Error::new(Code::TooLarge, message));
        }
        if wire::depth(value) > DEEPEST {
            let message = format!("{what} of presence is nested deeper than {DEEPEST} levels");
            return Err(Error::new(Code::InvalidFrame, message));
        }
        Ok(())
    }

    /// Asks the server what others are told of somebody.
    ///
    /// # Errors
    /// Of the storage. What its client is told is inside.
    fn ask_presence(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        topic: &str,
    ) -> Result<Result<Presence>> {
        let asked =
            self.hook(server, sql, Caller::Connection(slot), |room| server.presence(room, topic))?;
        let checked = asked.and_then(|presence| {
            let checked = presence.who.iter().try_for_each(|who| self.check_presence("who", who));
            let internal = |error: Error| Error::new(Code::Internal, error.message());
            checked.map_err(internal).map(|()| presence)
        });
        Ok(checked.map_err(|error| self.public(error, "presence")))
    }

    /// Somebody who is here has another state.
    fn say_anew(&mut self, slot: Slot, state: Json) {
        let now = self.meta.now;
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let before = entry.connection.own.clone();
        let Some(own) = &mut entry.connection.own else { return };
        let same = own.state == state;
        let is_shown = own.is_shown();
        (own.state, own.at) = (state, now);
        if let Err(error) = entry.connection.attachment() {
            entry.connection.own = before;
            self.tell(slot, &error);
            return;
        }
        self.dirty.insert(slot);
        if is_shown && !same {
            self.present.changed.insert(slot);
        }
    }

    /// Somebody comes.
    fn admit(&mut self, slot: Slot, (topic, who): (String, Option<Json>), state: Json) {
        let at = self.meta.now;
        // The hook may have closed it.
        let Some(entry) = self.slots.get(slot).filter(|entry| !entry.closing) else { return };
        let Some(client) = entry.connection.client.clone() else { return };
        let name = self.present.name(&client, &self.fresh_epoch);
        self.replace(slot, &client);
        let waits = who.is_some() && self.present.count_at(&topic) >= self.limits.present;
        let own = Own { name: name.clone(), topic, who, waits, state, at };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.connection.own = Some(Box::new(own.clone()));
        if let Err(error) = entry.connection.attachment() {
            entry.connection.own = None;
            self.tell(slot, &error);
            return;
        }
        self.dirty.insert(slot);
        if own.is_shown() {
            // The others know it by the same name.
            if let Some(gone) = self.present.gone.get_mut(&own.topic) {
                gone.remove(&name);
            }
            self.present.changed.insert(slot);
        }
        self.present.put(slot, &own);
        self.present.clients.insert(client, slot);
        self.present.come.insert(slot);
        self.present.counts = true;
        if self.present.silent_at.is_none() {
            self.look_who_is_silent();
        }
    }

    /// A client may be here by another connection, whose end was not heard of yet.
    fn replace(&mut self, by: Slot, client: &str) {
        let before = self.present.clients.get(client).copied().filter(|slot| *slot != by);
        let Some(slot) = before.filter(|_| !crate::__mutated("presence_replace")) else { return };
        self.leave(slot);
        self.forget_said(slot);
    }

    /// What a connection has said of itself holds no more.
    fn forget_said(&mut self, slot: Slot) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.connection.own = None;
            self.dirty.insert(slot);
        }
    }

    /// A connection is here no more, if it was. What it has said stays with it, for `on_close`.
    pub(super) fn leave(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (own, client) = (entry.connection.own.clone(), entry.connection.client.clone());
        self.left(slot, own.as_deref(), client.as_deref());
    }

    /// A connection that said this of itself is here no more.
    pub(super) fn left(&mut self, slot: Slot, own: Option<&Own>, client: Option<&str>) {
        let was_shown = self.present.shown.contains(&slot);
        self.present.remove(slot, own, client);
        if let Some(own) = own.filter(|_| was_shown && !crate::__mutated("presence_gone")) {
            self.present.went(own);
        }
    }

    /// Rights have changed: the server is asked again what others are told of those who are here.
    pub(super) fn review_present(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        for slot in self.present.all() {
            let own = self.slots.get(slot).and_then(|entry| entry.connection.own.as_deref());
            let Some(topic) = own.map(|own| own.topic.clone()) else { continue };
            let who = match self.ask_presence(server, sql, slot, &topic)? {
                Ok(presence) => presence.who,
                Err(error) => {
                    self.tell(slot, &error);
                    None
                }
            };
            let Some(entry) = self.slots.get(slot).filter(|entry| !entry.closing) else { continue };
            let Some(own) = entry.connection.own.clone().filter(|own| own.who != who) else {
                continue;
            };
            self.leave(slot);
            self.admit(slot, (topic, who), own.state);
        }
        Ok(())
    }

    /// Has the driver say when those who are shown were heard last.
    pub(super) fn look_who_is_silent(&mut self) {
        self.present.silent_at = None;
        if self.present.any_meet() && !self.present.asked {
            self.present.asked = true;
            self.effect(Effect::AskHeard(self.present.shown.iter().copied().collect()));
        }
    }

    /// When connections were heard last, by what answers their pings.
    pub(super) fn heard_last(&mut self, heard: &BTreeMap<Slot, Timestamp>) {
        self.present.asked = false;
        let (now, patience) = (self.meta.now, self.limits.silent_ms);
        let mut first: Option<Timestamp> = None;
        for slot in self.present.shown.clone() {
            let Some(entry) = self.slots.get(slot) else { continue };
            let Some(own) = &entry.connection.own else { continue };
            let pinged = heard.get(&slot).copied().unwrap_or_default();
            // Its frames wait, maybe one that says so.
            let waits = if entry.awaits { now } else { Timestamp::default() };
            let last = own.at.max(entry.heard).max(pinged).max(waits);
            let until = last.plus_millis(patience);
            if until > now || crate::__mutated("presence_silent") {
                first = Some(first.map_or(until, |first| first.min(until)));
            } else {
                // It comes again if anybody is there.
                self.close(slot, wire::CLOSE_RESTART, "silent");
            }
        }
        self.present.silent_at = first.filter(|_| self.present.any_meet());
    }

    /// Tells those who are here what they were not told yet. Whoever does not read is closed, and then
    /// that is told.
    pub(super) fn tell_present(&mut self) {
        self.tell_news();
        while self.present.has_news() {
            self.tell_news();
        }
        if !self.present.any_meet() {
            self.present.silent_at = None;
        }
    }

    /// There may be a place among those who are shown.
    fn take_in(&mut self) {
        for slot in self.present.waiting.clone() {
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            let Some(own) = &mut entry.connection.own else { continue };
            if self.present.count_at(&own.topic) < self.limits.present {
                own.waits = false;
                let own = own.clone();
                self.present.waiting.remove(&slot);
                self.present.put(slot, &own);
                self.present.changed.insert(slot);
                self.present.come.insert(slot);
                self.dirty.insert(slot);
            }
        }
    }

    /// Where states are all that is new, whether they wait for others. The driver comes again then.
    fn puts_off_states(&mut self) -> bool {
        let only_states = !self.present.has_news() && !self.present.counts;
        if !only_states || self.present.changed.is_empty() {
            return false;
        }
        let (now, at) = (self.meta.now, self.present.states_at.plus_millis(PAUSE));
        if now >= at {
            self.present.states_at = now;
            return false;
        }
        if !std::mem::replace(&mut self.present.later, true) {
            let wait = at.as_millis().saturating_sub(now.as_millis());
            self.effect(Effect::AgainAfter(u32::try_from(wait).unwrap_or(u32::MAX)));
        }
        true
    }

    fn tell_news(&mut self) {
        self.take_in();
        if self.puts_off_states() {
            return;
        }
        self.present.later = false;
        let Whereabouts { changed, gone, come, counts, .. } = &mut self.present;
        let (changed, gone) = (std::mem::take(changed), std::mem::take(gone));
        let (come, counts) = (std::mem::take(come), std::mem::take(counts));
        if self.present.is_empty() {
            return;
        }
        let connections = if counts { self.count() } else { self.present.told };
        let quiet = changed.is_empty() && gone.is_empty() && come.is_empty();
        // Many come and go in a large room: that is told when it makes a difference.
        if quiet && connections.abs_diff(self.present.told) * ROUGHLY < self.present.told.max(1) {
            return;
        }
        let counted = connections != self.present.told;
        self.present.told = connections;
        let connections = connections as u64;
        let mut news = BTreeMap::<String, (Vec<Slot>, BTreeSet<String>)>::new();
        for (topic, gone) in gone {
            news.entry(topic).or_default().1 = gone;
        }
        for slot in changed {
            if let Some(topic) = self.topic(slot) {
                news.entry(topic.to_owned()).or_default().0.push(slot);
            }
        }
        // What they have been told holds the count, too.
        let mut heard = come.clone();
        for (topic, (changed, gone)) in news {
            if changed.is_empty() && gone.is_empty() {
                continue;
            }
            // Nobody wants to hear of itself.
            let alone = changed.first().copied().filter(|_| changed.len() == 1 && gone.is_empty());
            let told = self.present.topics.get(&topic).into_iter().flatten().copied();
            let told: Vec<_> =
                told.filter(|slot| !come.contains(slot) && Some(*slot) != alone).collect();
            heard.extend(&told);
            let here = changed.iter().filter_map(|slot| self.here(*slot)).collect();
            let gone = gone.into_iter().collect();
            let frame = Present { all: false, own: None, here, gone, connections };
            self.send_to(told, frame.to_text());
        }
        if counted {
            let others = self.present.all().into_iter().filter(|slot| !heard.contains(slot));
            let (here, gone) = (Vec::new(), Vec::new());
            let frame = Present { all: false, own: None, here, gone, connections };
            self.send_to(others.collect(), frame.to_text());
        }
        self.tell_all(come, connections);
    }

    /// Tells those who have come of all who are at the same topic: one text for all of them.
    fn tell_all(&mut self, come: BTreeSet<Slot>, connections: u64) {
        let nobody = Present { all: true, own: None, here: vec![], gone: vec![], connections };
        let mut topics = BTreeMap::<String, Vec<Slot>>::new();
        let mut others = Vec::new();
        for slot in come {
            match self.topic(slot).filter(|_| self.present.shown.contains(&slot)) {
                Some(topic) => topics.entry(topic.to_owned()).or_default().push(slot),
                None => others.push(slot),
            }
        }
        for (topic, slots) in topics {
            let there = self.present.topics.get(&topic).into_iter().flatten();
            let list = there.filter_map(|slot| self.here(*slot)).collect();
            let all = Present { here: list, ..nobody.clone() }.to_text();
            for slot in &slots {
                let own = self.here(*slot).map(|here| here.id);
                self.send_to(vec![*slot], Present { all: false, own, ..nobody.clone() }.to_text());
                let now = self.meta.now;
                if let Some(entry) = self.slots.get_mut(*slot) {
                    entry.rate.charge(now, all.len());
                }
            }
            self.send_to(slots, all);
        }
        self.send_to(others, nobody.to_text());
    }

    /// What a state of a connection's costs, in actions, beside itself.
    pub(super) fn presence_costs(&self, slot: Slot) -> usize {
        self.topic(slot).map_or(0, |topic| self.present.costs(topic))
    }

    /// The topic that a connection is at.
    fn topic(&self, slot: Slot) -> Option<&str> {
        Some(&self.slots.get(slot)?.connection.own.as_deref()?.topic)
    }

    /// How many connections there are that have said who they are.
    fn count(&self) -> usize {
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        open.filter(|(_, entry)| entry.connection.is_known()).count()
    }

    /// What others are told of a connection that is shown.
    fn here(&self, slot: Slot) -> Option<Here> {
        let own = self.slots.get(slot)?.connection.own.as_deref()?;
        Some(Here { id: own.name.clone(), who: own.who.clone()?, state: own.state.clone() })
    }
}
