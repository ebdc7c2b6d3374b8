//! Where a replica is kept: a [`Store`] takes what changed and gives all of it back.

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use partysync::sql::Value;
use partysync::{Key, Result, Schema, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A place to keep a replica.
pub trait Store {
    /// What is kept; `None` when there is nothing yet.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Option<Saved>>;

    /// Keeps these writes: all of them, or none. `client` is the replica's id.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn write(&self, client: &str, writes: Vec<Write>) -> Result<()>;
}

/// A replica as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The replica's id.
    pub client: String,
    /// The epoch of the rows.
    pub epoch: Option<String>,
    /// The seq of the next action.
    pub next_seq: u64,
    /// The highest seq that was ever pushed under this id.
    #[serde(default)]
    pub pushed: u64,
    /// Confirmed rows by channel.
    pub channels: BTreeMap<String, SavedChannel>,
    /// Actions without an answer by seq.
    pub pending: BTreeMap<u64, SavedAction>,
}

/// One channel as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedChannel {
    /// The version of the rows.
    pub version: Option<u64>,
    /// [`Schema::hash`] of the record that the rows are of.
    pub schema: String,
    /// The rows, each an array of its columns, by its key as text.
    pub rows: BTreeMap<String, Json>,
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
    /// How often it was pushed without an answer.
    #[serde(default)]
    pub attempts: u32,
}

/// One change to what is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The room's epoch.
    Epoch(String),
    /// A channel's version with the schema of its rows; `None` when they are of no use.
    Version(&'static str, Option<(u64, String)>),
    /// A confirmed row.
    Row {
        /// The channel.
        channel: &'static str,
        /// The key as text.
        key: String,
        /// The row; `None` when it is gone.
        row: Option<Json>,
    },
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
    /// A pending action was pushed this often without an answer.
    Attempts(u64, u32),
    /// The replica goes on under this id, under which nothing was pushed.
    Client(String),
}

impl Write {
    pub(crate) fn row(
        channel: &'static str,
        schema: &Schema,
        key: &Key,
        row: Option<&[Value]>,
    ) -> Self {
        let row = row.map(|row| schema.row_to_json(row).unwrap_or_default());
        Self::Row { channel, key: key.to_string(), row }
    }
}

impl Saved {
    /// Does a write to what is kept; for stores that keep all of it in one piece.
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Epoch(epoch) => self.epoch = Some(epoch),
            Write::Version(channel, version) => {
                let channel = self.channels.entry(channel.to_owned()).or_default();
                channel.version = version.as_ref().map(|(version, _)| *version);
                if let Some((_, schema)) = version {
                    channel.schema = schema;
                }
            }
            Write::Row { channel, key, row } => {
                let rows = &mut self.channels.entry(channel.to_owned()).or_default().rows;
                match row {
                    Some(row) => rows.insert(key, row),
                    None => rows.remove(&key),
                };
            }
            Write::Act { seq, channel, action, made_at } => {
                self.next_seq = self.next_seq.max(seq + 1);
                let saved = SavedAction { channel, action, made_at, attempts: 0 };
                self.pending.insert(seq, saved);
            }
            Write::Answered(seq) => {
                self.pending.remove(&seq);
            }
            Write::Pushed(seq) => self.pushed = seq,
            Write::Attempts(seq, attempts) => {
                if let Some(pending) = self.pending.get_mut(&seq) {
                    pending.attempts = attempts;
                }
            }
            Write::Client(client) => {
                self.client = client;
                self.pushed = 0;
            }
        }
    }
}
