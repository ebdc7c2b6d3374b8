//! What is kept of a replica, and the changes to it.

use partysync::sql::Value;
use partysync::{Key, Schema, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A replica as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// What its client made and may go on with; `None` when there is none that is free.
    pub outbox: Option<Outbox>,
    /// Confirmed rows by channel.
    pub channels: BTreeMap<String, SavedChannel>,
}

/// What one client made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// The client's id.
    pub client: String,
    /// The epoch of the room that `pushed` is about.
    pub epoch: Option<String>,
    /// The seq of the next action.
    pub next_seq: u64,
    /// The highest seq that was ever pushed under this id.
    #[serde(default)]
    pub pushed: u64,
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
    /// What is held against it for pushes without an answer.
    #[serde(default)]
    pub blame: u32,
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
    /// The epoch of the room that the outbox is pushed to.
    Epoch(String),
    /// A new pending action.
    Act {
        /// Its seq.
        seq: u64,
        /// The record's table.
        channel: String,
        /// `{"type", "payload"}`.
        action: Json,
        /// When it was made.
        made_at: Timestamp,
    },
    /// An action was answered.
    Answered(u64),
    /// Actions up to this seq were pushed.
    Pushed(u64),
    /// So much is held against a pending action for pushes without an answer.
    Blame(u64, u32),
    /// The outbox goes on under this client id, under which nothing was pushed.
    Client(String),
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
    /// What it does to a channel kept with this epoch, schema and version.
    #[must_use]
    pub fn fits(&self, epoch: &str, schema: &str, version: Option<u64>) -> Fit {
        let version = version.filter(|_| self.epoch == epoch && self.schema == schema);
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
        let fit = self.fits(epoch, schema, version);
        if fit == Fit::Not {
            return;
        }
        let channel = channels.entry(self.channel.to_owned()).or_default();
        if fit == Fit::Instead {
            channel.rows.clear();
        }
        channel.epoch = self.epoch;
        channel.schema = self.schema;
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
        Self { client: client.into(), next_seq: 1, ..Self::default() }
    }
}

impl Saved {
    /// Does a write to what is kept, for stores that keep all of it in one piece; `client` is for
    /// the outbox when there is none yet.
    pub fn apply(&mut self, client: &str, write: Write) {
        let channels = &mut self.channels;
        match write {
            Write::Rows(rows) => return rows.apply(channels),
            Write::Stale(channel) => {
                if let Some(channel) = channels.get_mut(channel) {
                    channel.version = None;
                }
                return;
            }
            _ => {}
        }
        let outbox = self.outbox.get_or_insert_with(|| Outbox::new(client));
        match write {
            Write::Rows(_) | Write::Stale(_) => {}
            Write::Epoch(epoch) => outbox.epoch = Some(epoch),
            Write::Act { seq, channel, action, made_at } => {
                outbox.next_seq = outbox.next_seq.max(seq.saturating_add(1));
                let saved = SavedAction { channel, action, made_at, blame: 0 };
                outbox.pending.insert(seq, saved);
            }
            Write::Answered(seq) => {
                outbox.pending.remove(&seq);
            }
            Write::Pushed(seq) => outbox.pushed = seq,
            Write::Blame(seq, blame) => {
                if let Some(pending) = outbox.pending.get_mut(&seq) {
                    pending.blame = blame;
                }
            }
            Write::Client(client) => {
                outbox.client = client;
                outbox.pushed = 0;
            }
        }
    }
}
