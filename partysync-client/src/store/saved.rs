//! What is kept of a replica, and the changes to it.

use partysync::sql::Value;
use partysync::{Code, Error, Identity, Key, Schema, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A replica as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Whether nobody else uses the place at the same time: what was taken over is not let go.
    pub alone: bool,
    /// Confirmed rows by channel.
    #[serde(default)]
    pub channels: BTreeMap<String, SavedChannel>,
    /// What clients that are gone left behind: the store has them for whoever opened it.
    #[serde(default)]
    pub outboxes: Vec<Outbox>,
    /// The outboxes of other clients that are alive.
    #[serde(default)]
    pub others: Vec<Outbox>,
    /// Actions that were given up, by their id.
    #[serde(default)]
    pub abandoned: BTreeMap<String, Abandoned>,
    /// Who the client was to the room when it was connected last.
    #[serde(default)]
    pub identity: Option<Identity>,
}

/// What one client made. A client's id is used by one process in one life only, and whoever finds
/// its outbox adds nothing to it: an id and a seq name one action for ever, whatever a store loses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// The client's id.
    pub client: String,
    /// The highest seq that was ever pushed.
    #[serde(default)]
    pub pushed: u64,
    /// When, by the room's clock, the first of the actions that were pushed and have no answer was
    /// pushed first.
    #[serde(default)]
    pub pushed_at: Option<Timestamp>,
    /// Actions without an answer by seq.
    pub pending: BTreeMap<u64, SavedAction>,
}

/// A pending action as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedAction {
    /// The record's table.
    pub channel: String,
    /// `{"type", "payload"}`.
    pub action: Json,
    /// When it was made.
    pub made_at: Timestamp,
    /// What is held against it.
    #[serde(default)]
    pub suspicion: Suspicion,
}

/// How often a push that began with this action got no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// How much: more for a server that was there and failed than for a connection that broke.
    pub points: u32,
    /// For how long it was tried, ms; not counting the time when nothing was.
    pub millis: u64,
}

/// An action that was given up, and is kept: nobody knows whether the room has done it, or the room
/// does not know the action, and has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The record's table.
    pub channel: String,
    /// `{"type", "payload"}`.
    pub action: Json,
    /// When it was made.
    pub made_at: Timestamp,
    /// [`Code::as_str`] of why it was given up.
    pub code: String,
    /// Why, for people.
    pub message: String,
}

impl Abandoned {
    /// Why it was given up: [`Code::Abandoned`] or [`Code::ClientForgotten`]; what the room does not
    /// understand in it, as the room says so, if it is of another version of the application.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::new(Code::from_name(&self.code), self.message.clone())
    }
}

/// One channel as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedChannel {
    /// The epoch of the rows.
    pub epoch: String,
    /// The version of the rows; `None` when they may be shown, but not built on.
    pub version: Option<u64>,
    /// [`Schema::hash`] of the record that the rows are of.
    pub schema: String,
    /// What the client sees of the channel, if not all rows: see
    /// [`CatchUp::view`](partysync::wire::v2::CatchUp::view).
    #[serde(default)]
    pub view: Option<String>,
    /// The rows, each an array of its columns, by its key as text.
    pub rows: BTreeMap<String, Json>,
}

/// One change to what is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Confirmed rows of a channel.
    Rows(RowsWrite),
    /// A channel's rows are no longer to be built on.
    Stale(&'static str),
    /// A client's outbox as a whole, in place of what is kept of it.
    Outbox(Outbox),
    /// A new pending action.
    Act {
        /// Whose it is.
        client: Arc<str>,
        /// Its seq.
        seq: u64,
        /// The action.
        action: SavedAction,
    },
    /// A client's actions from one seq to another have their answers. An outbox in which none is
    /// left need not be kept.
    Answered {
        /// Whose they are.
        client: Arc<str>,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A client's actions up to this seq were pushed.
    Pushed {
        /// Whose they are.
        client: Arc<str>,
        /// The last of them.
        seq: u64,
        /// [`Outbox::pushed_at`].
        at: Timestamp,
    },
    /// What is held against a pending action.
    Suspect {
        /// Whose it is.
        client: Arc<str>,
        /// Its seq.
        seq: u64,
        /// How much.
        suspicion: Suspicion,
    },
    /// An action was given up; it is [`Answered`](Self::Answered), too.
    Abandon {
        /// The id that it has among these.
        id: String,
        /// The action.
        abandoned: Abandoned,
    },
    /// An action that was given up is not wanted any more.
    Discard(String),
    /// Who the client is to the room.
    Identity(Option<Identity>),
}

impl Write {
    /// How many entries it changes, about: rows that take the place of all are kept together.
    pub(crate) fn entries(&self) -> u64 {
        match self {
            Self::Rows(RowsWrite { from: None, rows, .. }) => rows.len() as u64 / 16,
            Self::Rows(write) => write.rows.len() as u64,
            Self::Outbox(outbox) => outbox.pending.len() as u64,
            _ => 1,
        }
    }
}

/// What changed in a channel between two versions.
///
/// Several clients keep the same rows, each as it hears of them: a store leaves out what another
/// has already written, see [`fits`](Self::fits).
#[derive(Clone, Debug, PartialEq)]
pub struct RowsWrite {
    /// The channel.
    pub channel: &'static str,
    /// [`Schema::hash`] of the record.
    pub schema: String,
    /// The epoch of the rows.
    pub epoch: String,
    /// What the client sees of the channel, if not all rows.
    pub view: Option<String>,
    /// The version that they go on from; `None` when they are all there are.
    pub from: Option<u64>,
    /// The version that they lead to.
    pub to: u64,
    /// The rows that changed by their key as text; `None` for one that is gone.
    pub rows: Vec<(String, Option<Json>)>,
}

/// What a [`RowsWrite`] does to the rows that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is older than they are, or does not go on from them.
    Not,
    /// It goes over them.
    Over,
    /// It takes their place.
    Instead,
}

impl RowsWrite {
    /// What it does to a channel kept with this epoch, schema, view and version.
    #[must_use]
    pub fn fits(&self, epoch: &str, schema: &str, view: Option<&str>, version: Option<u64>) -> Fit {
        let same = self.epoch == epoch && self.schema == schema && self.view.as_deref() == view;
        let version = version.filter(|_| same);
        match (self.from, version) {
            (None, Some(version)) if version >= self.to => Fit::Not,
            (None, _) => Fit::Instead,
            (Some(from), Some(version)) if from <= version && version < self.to => Fit::Over,
            (Some(_), _) => Fit::Not,
        }
    }

    fn apply(self, channels: &mut BTreeMap<String, SavedChannel>) {
        let kept = channels.get(self.channel);
        let version = kept.and_then(|kept| kept.version);
        let (epoch, schema) = kept.map_or(("", ""), |kept| (&kept.epoch, &kept.schema));
        let view = kept.and_then(|kept| kept.view.as_deref());
        let fit = self.fits(epoch, schema, view, version);
        if fit == Fit::Not {
            return;
        }
        let channel = channels.entry(self.channel.to_owned()).or_default();
        if fit == Fit::Instead {
            channel.rows.clear();
        }
        channel.epoch = self.epoch;
        channel.schema = self.schema;
        channel.view = self.view;
        channel.version = Some(self.to);
        for (key, row) in self.rows {
            match row {
                Some(row) => channel.rows.insert(key, row),
                None => channel.rows.remove(&key),
            };
        }
    }

    pub(crate) fn row(schema: &Schema, key: &Key, row: Option<&[Value]>) -> (String, Option<Json>) {
        let row = row.map(|row| schema.row_to_json(row).unwrap_or_default());
        (key.to_string(), row)
    }
}

impl Outbox {
    /// One in which nothing is.
    #[must_use]
    pub fn new(client: impl Into<String>) -> Self {
        Self { client: client.into(), ..Self::default() }
    }

    /// When the first of its actions was made: what was made earlier is done earlier.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        self.pending.values().next().map(|action| action.made_at)
    }
}

/// What is kept, for stores that keep all of it in one piece.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Confirmed rows by channel.
    pub channels: BTreeMap<String, SavedChannel>,
    /// The outboxes by client id.
    pub outboxes: BTreeMap<String, Outbox>,
    /// Actions that were given up, by their id.
    pub abandoned: BTreeMap<String, Abandoned>,
    /// Who the client was to the room when it was connected last.
    pub identity: Option<Identity>,
}

impl Kept {
    fn outbox(&mut self, client: &str) -> &mut Outbox {
        let fresh = || Outbox::new(client);
        self.outboxes.entry(client.to_owned()).or_insert_with(fresh)
    }

    /// Does a write to what is kept.
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Rows(rows) => rows.apply(&mut self.channels),
            Write::Stale(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.version = None;
                }
            }
            Write::Outbox(outbox) => {
                if outbox.pending.is_empty() {
                    self.outboxes.remove(&outbox.client);
                } else {
                    self.outboxes.insert(outbox.client.clone(), outbox);
                }
            }
            Write::Act { client, seq, action } => {
                self.outbox(&client).pending.insert(seq, action);
            }
            Write::Answered { client, from, to } => {
                if let Some(outbox) = self.outboxes.get_mut(&*client) {
                    outbox.pending.retain(|seq, _| !(from..=to).contains(seq));
                    if outbox.pending.is_empty() {
                        self.outboxes.remove(&*client);
                    }
                }
            }
            Write::Pushed { client, seq, at } => {
                if let Some(outbox) = self.outboxes.get_mut(&*client) {
                    (outbox.pushed, outbox.pushed_at) = (seq, Some(at));
                }
            }
            Write::Suspect { client, seq, suspicion } => {
                let outbox = self.outboxes.get_mut(&*client);
                if let Some(action) = outbox.and_then(|outbox| outbox.pending.get_mut(&seq)) {
                    action.suspicion = suspicion;
                }
            }
            Write::Abandon { id, abandoned } => {
                self.abandoned.insert(id, abandoned);
            }
            Write::Discard(id) => {
                self.abandoned.remove(&id);
            }
            Write::Identity(identity) => self.identity = identity,
        }
    }
}
