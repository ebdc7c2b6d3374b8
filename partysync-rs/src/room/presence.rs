//! Who is here: what connections say of themselves, and what each is told of the others.
//!
//! It is part of the connection, and kept with its socket: it goes with that, whether the socket closes
//! or the process ends, and it is there after hibernation. Nothing is written to the database.
//!
//! A socket may be open with nobody behind it, as when a computer sleeps. Pings are answered without
//! the room, which asks when each was heard last: whenever it wakes with two or more who are shown to
//! each other, and then when the first of them may have been silent for too long.

use super::{Caller, Connection, Effect, Machine, Protocol, Slot};
use crate::sql::Sql;
use crate::wire::v2::{Here, Present};
use crate::{Code, Error, Result, SyncServer, Timestamp, wire};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// A number of connections is told anew when it differs by this part of what was told.
const ROUGHLY: usize = 64;

/// What a connection has said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    /// Who it is to the others; `None` where they are not told of it, nor it of them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    who: Option<Json>,
    /// Its state.
    pub(crate) state: Json,
    /// When it said so last.
    at: Timestamp,
}

/// `null` is a value, too.
fn some<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<Option<Json>, D::Error> {
    Json::deserialize(value).map(Some)
}

/// Who is here, and what of that the others were not told yet.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Those who have said that they are here.
    here: BTreeSet<Slot>,
    /// Those of them who have come, or have another state.
    changed: BTreeSet<Slot>,
    /// The names of those who have gone.
    gone: BTreeSet<String>,
    /// Those who are to be told all.
    come: BTreeSet<Slot>,
    /// How many connections those who are here were told of.
    told: usize,
    /// Whether there may be more or fewer.
    counts: bool,
    /// When somebody may have been silent for too long.
    silent_at: Option<Timestamp>,
    /// Whether the driver was asked when those who are here were heard last.
    asked: bool,
}

impl Whereabouts {
    /// When the room has to look who is silent.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.silent_at
    }

    /// There may be more or fewer connections.
    pub(super) fn count_anew(&mut self) {
        self.counts = true;
    }
}

/// Whether it is one of those that are counted.
fn is_counted(connection: &Connection) -> bool {
    connection.protocol() == Protocol::V1 || connection.client.is_some()
}

impl<S: SyncServer> Machine<S> {
    /// The room wakes with these connections.
    pub(super) fn wake_present(&mut self) {
        let counted = self.slots.iter().filter(|(_, entry)| is_counted(&entry.connection)).count();
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        let here = open.filter(|(_, entry)| entry.connection.own.is_some());
        self.present.here =
            here.map(|(slot, _)| slot).filter(|_| !crate::__mutated("presence_wake")).collect();
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
        state: Option<Json>,
    ) -> Result<()> {
        let (now, limit) = (self.meta.now, self.limits.presence_bytes);
        let Some(entry) = self.slots.get_mut(slot) else { return Ok(()) };
        if entry.connection.client.is_none() {
            let message = "`presence` before `hello`: say who you are first";
            self.tell(slot, &Error::new(Code::HelloFirst, message));
            return Ok(());
        }
        let Some(state) = state else {
            self.leave(slot);
            self.dirty.insert(slot);
            return Ok(());
        };
        let size = state.to_string().len();
        if size > limit {
            let message = format!("a presence of {size} bytes; the limit is {limit}");
            self.tell(slot, &Error::new(Code::TooLarge, message));
            return Ok(());
        }
        let before = entry.connection.own.clone();
        let who = match &before {
            Some(Own { who: Some(who), .. }) => Some(who.clone()),
            // Whoever is hidden may be shown by now.
            _ => {
                let asked =
                    self.hook(server, sql, Caller::Connection(slot), |room| server.presence(room))?;
                match asked {
                    Ok(presence) => presence.who.filter(|_| self.shown() < self.limits.present),
                    Err(error) => {
                        let error = self.public(error, "presence");
                        self.tell(slot, &error);
                        return Ok(());
                    }
                }
            }
        };
        let Some(entry) = self.slots.get_mut(slot) else { return Ok(()) };
        entry.connection.own = Some(Own { who, state, at: now });
        if let Err(error) = entry.connection.attachment() {
            entry.connection.own = before;
            self.tell(slot, &error);
            return Ok(());
        }
        self.dirty.insert(slot);
        let (own, client) = (&entry.connection.own, entry.connection.client.clone());
        let told = |own: &Option<Own>| {
            let own = own.as_ref()?;
            Some((own.who.clone()?, own.state.clone()))
        };
        let (told_before, told_now) = (told(&before), told(own));
        if told_now.is_some() && told_now != told_before {
            self.present.changed.insert(slot);
        }
        if told_now.is_none() || told_before.is_none() {
            self.present.come.insert(slot);
            self.present.here.insert(slot);
            self.present.counts = true;
            self.replace(slot, client.as_deref(), told_now.is_some());
            if self.present.silent_at.is_none() {
                self.look_who_is_silent();
            }
        }
        Ok(())
    }

    /// A client is here by another connection than before, whose end was not heard of yet. The others
    /// know it by the same name.
    fn replace(&mut self, by: Slot, client: Option<&str>, shown: bool) {
        for slot in self.present.here.clone() {
            let Some(entry) = self.slots.get_mut(slot).filter(|_| slot != by) else { continue };
            if entry.connection.client.as_deref() != client || crate::__mutated("presence_replace")
            {
                continue;
            }
            let own = entry.connection.own.take().filter(|_| !shown);
            let name = entry.connection.client();
            self.left(slot, own, name);
            self.dirty.insert(slot);
        }
    }

    /// How many are shown to each other.
    fn shown(&self) -> usize {
        self.present.here.iter().filter(|slot| self.is_shown(**slot)).count()
    }

    fn is_shown(&self, slot: Slot) -> bool {
        let own = self.slots.get(slot).and_then(|entry| entry.connection.own.as_ref());
        own.is_some_and(|own| own.who.is_some())
    }

    /// A connection is here no more, if it was.
    pub(super) fn leave(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let own = entry.connection.own.take();
        let name = entry.connection.client();
        self.left(slot, own, name);
    }

    /// A connection that said this of itself is here no more.
    pub(super) fn left(&mut self, slot: Slot, own: Option<Own>, name: Option<String>) {
        self.present.here.remove(&slot);
        self.present.changed.remove(&slot);
        self.present.come.remove(&slot);
        if own.is_some_and(|own| own.who.is_some()) && !crate::__mutated("presence_gone") {
            self.present.gone.extend(name);
        }
    }

    /// Has the driver say when those who are here were heard last.
    pub(super) fn look_who_is_silent(&mut self) {
        self.present.silent_at = None;
        if self.shown() >= 2 && !self.present.asked {
            self.present.asked = true;
            let shown = self.present.here.iter().filter(|slot| self.is_shown(**slot));
            let shown = shown.copied().collect();
            self.effect(Effect::AskHeard(shown));
        }
    }

    /// When connections were heard last, by what answers their pings.
    pub(super) fn heard_last(&mut self, heard: &BTreeMap<Slot, Timestamp>) {
        self.present.asked = false;
        let (now, patience) = (self.meta.now, self.limits.silent_ms);
        let mut first: Option<Timestamp> = None;
        for slot in self.present.here.clone() {
            let Some(entry) = self.slots.get(slot) else { continue };
            let shown = entry.connection.own.as_ref().filter(|own| own.who.is_some());
            let Some(own) = shown else { continue };
            let pinged = heard.get(&slot).copied().unwrap_or_default();
            let last = own.at.max(entry.heard).max(pinged);
            let until = last.plus_millis(patience);
            if until > now || crate::__mutated("presence_silent") {
                first = Some(first.map_or(until, |first| first.min(until)));
            } else {
                // It comes again if anybody is there.
                self.close(slot, wire::CLOSE_RESTART, "silent");
            }
        }
        self.present.silent_at = first.filter(|_| self.shown() >= 2);
    }

    /// Tells those who are here what they were not told yet.
    pub(super) fn tell_present(&mut self) {
        let Whereabouts { changed, gone, come, counts, .. } = &mut self.present;
        let (changed, gone) = (std::mem::take(changed), std::mem::take(gone));
        let (come, counts) = (std::mem::take(come), std::mem::take(counts));
        if self.present.here.is_empty() {
            self.present.silent_at = None;
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
        let frame = |here, gone| Present {
            all: false,
            own: None,
            here,
            gone,
            connections: connections as u64,
        };
        let gone: Vec<_> = gone.into_iter().filter(|name| !self.is_here(name)).collect();
        // Nobody wants to hear of itself.
        let alone = changed.first().copied();
        let alone = alone.filter(|_| changed.len() == 1 && gone.is_empty() && !counted);
        let shown: Vec<_> =
            self.present.here.iter().filter(|s| self.is_shown(**s)).copied().collect();
        if !changed.is_empty() || !gone.is_empty() || counted {
            let told = |slot: &Slot| !come.contains(slot) && Some(*slot) != alone;
            let told = shown.iter().copied().filter(told).collect();
            let here = changed.iter().filter_map(|slot| self.here(*slot)).collect();
            self.send_to(told, frame(here, gone).to_text());
        }
        if shown.len() < 2 {
            self.present.silent_at = None;
        }
        if come.is_empty() {
            return;
        }
        let list: Vec<_> = shown.iter().filter_map(|slot| self.here(*slot)).collect();
        let mut all = Present { all: true, ..frame(list, Vec::new()) };
        let none = Present { all: true, ..frame(Vec::new(), Vec::new()) }.to_text();
        for slot in come {
            all.own = self.here(slot).map(|here| here.id);
            let text = if all.own.is_some() { all.to_text() } else { none.clone() };
            self.send_to(vec![slot], text);
        }
    }

    /// How many connections there are that have said who they are.
    fn count(&self) -> usize {
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        open.filter(|(_, entry)| is_counted(&entry.connection)).count()
    }

    /// What others are told of a connection.
    fn here(&self, slot: Slot) -> Option<Here> {
        let connection = &self.slots.get(slot)?.connection;
        let own = connection.own.as_ref()?;
        let who = own.who.clone()?;
        Some(Here { id: connection.client()?, who, state: own.state.clone() })
    }

    /// Whether somebody is here by this name.
    fn is_here(&self, name: &str) -> bool {
        self.present.here.iter().any(|slot| self.here(*slot).is_some_and(|here| here.id == name))
    }
}
