//! [`Whereabouts`]: who is here, and what of that the others were not told yet.

use super::Slot;
use crate::{Timestamp, store};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A state is sent to all: for so many of them it counts as one action more.
const HEARD_BY: usize = 8;
/// So many names of clients are remembered.
const NAMES: usize = 1_024;

/// What a connection has said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    /// What it is called.
    pub(super) name: String,
    /// The part of the room that it is at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) topic: String,
    /// Who it is to the others; `None` where they are not told of it, nor it of them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    pub(super) who: Option<Json>,
    /// Whether it waits for a place among those who are shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) waits: bool,
    /// Its state.
    pub(crate) state: Json,
    /// When it said so last.
    pub(super) at: Timestamp,
}

impl Own {
    pub(super) fn is_shown(&self) -> bool {
        self.who.is_some() && !self.waits
    }
}

/// `null` is a value, too.
fn some<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<Option<Json>, D::Error> {
    Json::deserialize(value).map(Some)
}

/// Who is here, and what of that the others were not told yet.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Those who are shown.
    pub(super) shown: BTreeSet<Slot>,
    /// The same by topic: those of one are shown to each other.
    pub(super) topics: BTreeMap<String, BTreeSet<Slot>>,
    /// Those for whom there is no place among them.
    pub(super) waiting: BTreeSet<Slot>,
    /// Those whom the server does not show.
    pub(super) hidden: BTreeSet<Slot>,
    /// Which connection a client is here by.
    pub(super) clients: HashMap<String, Slot>,
    /// What clients are called, so that one that comes back is called as before; by their ids, which
    /// nobody else knows.
    pub(super) names: HashMap<String, String>,
    named: u64,
    /// Those who are shown and have come, or have another state.
    pub(super) changed: BTreeSet<Slot>,
    /// The names of those who have gone, by topic.
    pub(super) gone: BTreeMap<String, BTreeSet<String>>,
    /// Those who are to be told all.
    pub(super) come: BTreeSet<Slot>,
    /// How many connections those who are here were told of.
    pub(super) told: usize,
    /// Whether there may be more or fewer.
    pub(super) counts: bool,
    /// When somebody may have been silent for too long.
    pub(super) silent_at: Option<Timestamp>,
    /// Whether the driver was asked when those who are shown were heard last.
    pub(super) asked: bool,
    /// When states were told last.
    pub(super) states_at: Timestamp,
    /// Whether the driver was asked for a turn in which others are told.
    pub(super) later: bool,
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

    /// What a state costs that is told at a topic, in actions, beside itself.
    pub(super) fn costs(&self, topic: &str) -> usize {
        self.count_at(topic) / HEARD_BY
    }

    /// How many are shown at a topic.
    pub(super) fn count_at(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, BTreeSet::len)
    }

    /// Whether anybody is shown to anybody.
    pub(super) fn any_meet(&self) -> bool {
        self.topics.values().any(|topic| topic.len() >= 2)
    }

    /// Somebody who was at a topic has gone.
    pub(super) fn went(&mut self, own: &Own) {
        self.gone.entry(own.topic.clone()).or_default().insert(own.name.clone());
    }

    pub(super) fn is_here(&self, slot: Slot) -> bool {
        self.shown.contains(&slot) || self.waiting.contains(&slot) || self.hidden.contains(&slot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.waiting.is_empty() && self.hidden.is_empty()
    }

    /// All who have said that they are here.
    pub(super) fn all(&self) -> Vec<Slot> {
        self.shown.iter().chain(&self.waiting).chain(&self.hidden).copied().collect()
    }

    pub(super) fn put(&mut self, slot: Slot, own: &Own) {
        let set = match own {
            Own { who: None, .. } => &mut self.hidden,
            Own { waits: true, .. } => &mut self.waiting,
            _ => {
                self.topics.entry(own.topic.clone()).or_default().insert(slot);
                &mut self.shown
            }
        };
        set.insert(slot);
    }

    /// A connection is here no more.
    pub(super) fn remove(&mut self, slot: Slot, own: Option<&Own>, client: Option<&str>) {
        if let Some(own) = own
            && let Some(topic) = self.topics.get_mut(&own.topic)
        {
            topic.remove(&slot);
            if topic.is_empty() {
                self.topics.remove(&own.topic);
            }
        }
        for set in [&mut self.shown, &mut self.waiting, &mut self.hidden] {
            set.remove(&slot);
        }
        for set in [&mut self.changed, &mut self.come] {
            set.remove(&slot);
        }
        if let Some(client) = client
            && self.clients.get(client) == Some(&slot)
        {
            self.clients.remove(client);
        }
    }

    /// What a client is called: nothing of its id is in that, which is a secret.
    pub(super) fn name(&mut self, client: &str, life: &str) -> String {
        if let Some(name) = self.names.get(client) {
            return name.clone();
        }
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        self.named += 1;
        let name = format!("{:08x}{:08x}", store::hash(life), self.named);
        self.names.insert(client.to_owned(), name.clone());
        name
    }

    /// Whether there is something to be told at once of who is here.
    pub(super) fn has_news(&self) -> bool {
        !(self.gone.is_empty() && self.come.is_empty())
    }
}
