//! Who is here: what the room is told of this client, and what it tells of the others.

use super::{Connection, Now, Output, Peer, Timing};
use partysync::Action;
use partysync::wire::v2::{ClientFrame, Present};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Others are shown for so long while there is no connection, ms: most come back before.
const GRACE: u64 = 5_000;

/// What is known of one of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Who it is, as the server says.
    pub who: Json,
    /// Its state, as it says itself.
    pub state: Json,
}

/// The part of the room that this client is at, and its state.
type Own = (String, Json);

/// This client and the others, as far as they are here.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// What others are to be told; `None` when this client is not to be here.
    own: Option<Own>,
    /// What the room was told on this connection.
    told: Option<Own>,
    /// When it was, and how often without an answer.
    told_at: u64,
    tries: u32,
    /// Whether the room has answered on this connection.
    answered: bool,
    /// What the room calls this client.
    name: Option<String>,
    others: BTreeMap<String, Arc<Known>>,
    connections: u64,
    /// When others are shown no more, as there is no connection.
    until: Option<u64>,
}

impl Presence {
    /// Whether the room was told that this client is here.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// When the room is to be told.
    fn due(&self, timing: &Timing) -> Option<u64> {
        match (&self.own, &self.told) {
            // The room could not tell who this is.
            (Some(own), Some(told)) if own == told && !self.answered => {
                let wait = timing.ping_ms.saturating_mul(1 << self.tries.min(5));
                Some(self.told_at.saturating_add(wait))
            }
            (own, told) if own == told => None,
            // Coming and going is told at once.
            (None, _) | (_, None) => Some(0),
            (Some((topic, _)), Some((before, _))) if topic != before => Some(0),
            // Who is alone tells nobody; the server is to know nonetheless.
            _ if self.others.is_empty() => Some(self.told_at.saturating_add(timing.ping_ms)),
            _ => Some(self.told_at.saturating_add(timing.presence_ms)),
        }
    }

    /// When something is to be done.
    pub(super) fn timeout(&self, timing: &Timing, connection: &Connection) -> Option<u64> {
        let due = self.due(timing).filter(|_| connection.is_live());
        due.into_iter().chain(self.until).min()
    }

    /// Whether there is anything to be shown.
    fn shows(&self) -> bool {
        !self.others.is_empty() || self.connections > 0
    }

    /// Nobody is shown any more; whether anybody was.
    fn clear(&mut self) -> bool {
        let shown = self.shows();
        (self.others, self.connections, self.until) = (BTreeMap::new(), 0, None);
        shown
    }
}

impl<A: Action> Peer<A> {
    /// The part of the room that this client is at, and what others there are told of it; `None` when it
    /// is not here any more. It is told when there is a connection, and again on each new one.
    pub fn set_presence(&mut self, own: Option<(String, Json)>, now: Now) {
        if self.connection.is_closed() {
            return;
        }
        let topic = |own: &Option<Own>| own.as_ref().map(|(topic, _)| topic.clone());
        let elsewhere = topic(&own) != topic(&self.presence.own);
        self.presence.own = own;
        if elsewhere {
            self.presence.answered = false;
            if self.presence.clear() {
                self.outputs.push_back(Output::Presence);
            }
        }
        self.presence_goes_on(now);
    }

    /// The others who are here, by a name for each: what is known of one is another when it changes.
    pub fn others(&self) -> &BTreeMap<String, Arc<Known>> {
        &self.presence.others
    }

    /// How many connections the room has, this one among them, as it has told; 0 when it has not.
    pub fn connections(&self) -> u64 {
        self.presence.connections
    }

    /// Time has passed, or something has changed: tells the room what it is to know.
    pub(super) fn presence_goes_on(&mut self, now: Now) {
        if self.presence.until.is_some_and(|until| now.monotonic >= until) && self.presence.clear()
        {
            self.outputs.push_back(Output::Presence);
        }
        let due = self.presence.due(&self.timing);
        if !self.connection.is_live() || due.is_none_or(|due| now.monotonic < due) {
            return;
        }
        let own = self.presence.own.clone();
        let (topic, state) = match own.clone() {
            Some((topic, state)) => (topic, Some(state)),
            None => (String::new(), None),
        };
        self.send(ClientFrame::Presence { topic, state }.to_text());
        let again = own == self.presence.told;
        self.presence.tries = if again { self.presence.tries.saturating_add(1) } else { 0 };
        (self.presence.told, self.presence.told_at) = (own, now.monotonic);
    }

    /// The room tells who is here.
    pub(super) fn hears_present(&mut self, present: Present) {
        // What was on its way when this client left.
        if self.presence.own.is_none() {
            return;
        }
        let known = &mut self.presence;
        if let Some(name) = present.own {
            known.others.remove(&name);
            known.name = Some(name);
        }
        if present.all {
            (known.answered, known.until) = (true, None);
            known.others.clear();
        } else if !known.answered {
            // Of where it was before.
            return;
        }
        for name in present.gone {
            known.others.remove(&name);
        }
        for here in present.here {
            if known.name.as_ref() != Some(&here.id) {
                let other = Known { who: here.who, state: here.state };
                known.others.insert(here.id, Arc::new(other));
            }
        }
        known.connections = present.connections;
        self.outputs.push_back(Output::Presence);
    }

    /// The connection is lost.
    pub(super) fn presence_lost(&mut self, now: Now) {
        self.presence.name = None;
        if !partysync::__mutated("presence_again") {
            (self.presence.told, self.presence.answered) = (None, false);
        }
        if self.presence.shows() && self.presence.until.is_none() {
            self.presence.until = Some(now.monotonic.saturating_add(GRACE));
        }
    }

    /// There will be no connection: nobody is here.
    pub(super) fn presence_ends(&mut self) {
        (self.presence.told, self.presence.answered) = (None, false);
        if self.presence.clear() {
            self.outputs.push_back(Output::Presence);
        }
    }
}
