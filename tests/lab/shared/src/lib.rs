//! Records and actions of the tests' own worker: every column type, two channels, actions that
//! go wrong.

use partysync::{Action, Column, Draft, Record, Reduce, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// A column type of the user's own.
#[derive(Column, Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Level {
    /// Stored as `low`.
    Low,
    /// Stored as `very_high`.
    VeryHigh,
}

/// A key type of the user's own.
#[derive(Column, Clone, PartialEq, Debug)]
pub struct ItemId(pub String);

/// Every column type there is.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "items")]
pub struct Item {
    /// A newtype.
    #[record(key)]
    pub id: ItemId,
    /// All 64 bits.
    #[record(default = 0)]
    pub big: i64,
    /// All 53 bits, and infinity.
    #[record(default = 0.0)]
    pub ratio: f64,
    /// Bytes.
    pub bytes: Option<Vec<u8>>,
    /// A unit enum.
    #[record(default = "low")]
    pub level: Level,
    /// Any serde type.
    #[record(json, default = "[]")]
    pub tags: Vec<String>,
    /// Each value once.
    #[record(unique)]
    pub name: Option<String>,
    /// Set by the framework.
    #[record(created_at)]
    pub created_at: Timestamp,
    /// Set by the framework.
    #[record(updated_at, index)]
    pub updated_at: Timestamp,
    /// Deletes are soft.
    #[record(deleted_at)]
    pub deleted_at: Option<Timestamp>,
}

/// A record with an integer key, deleted for good.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
pub struct Note {
    /// The number.
    #[record(key)]
    pub number: i64,
    /// The text.
    #[record(default = "")]
    pub text: String,
}

/// What may be done to items.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Item)]
pub enum ItemAction {
    /// A new item with nothing but defaults.
    #[action(insert)]
    Create {
        /// The key.
        id: ItemId,
        /// The name.
        name: Option<String>,
    },
    /// All of an item.
    #[action(upsert)]
    Put {
        /// The key.
        id: ItemId,
        /// The integer.
        big: i64,
        /// The float.
        ratio: f64,
        /// The bytes.
        bytes: Option<Vec<u8>>,
        /// The enum.
        level: Level,
        /// The tags.
        #[action(json)]
        tags: Vec<String>,
    },
    /// Some of an item.
    #[action(update)]
    Change {
        /// The key.
        id: ItemId,
        /// `None` leaves it.
        big: Option<i64>,
        /// `None` leaves it, `Some(None)` clears it.
        name: Option<Option<String>>,
        /// `None` leaves it.
        #[action(json)]
        tags: Option<Vec<String>>,
    },
    /// Away with it.
    #[action(delete, rename = "remove")]
    Delete {
        /// The key.
        id: ItemId,
    },
    /// Writes a row and then fails.
    #[action(custom)]
    FailHalfway {
        /// The key of the row.
        id: String,
    },
    /// Writes a row, asks for the alarm, and then traps: what no server should, and some do. Not
    /// if the room's log says `no traps`.
    #[action(custom)]
    Trap {
        /// The key of the row.
        id: String,
    },
    /// Inserts many items.
    #[action(custom)]
    Fill {
        /// How many.
        count: u32,
        /// How long each one's name is.
        size: u32,
    },
    /// Updates many notes.
    #[action(custom)]
    TouchNotes {
        /// The last one's number.
        up_to: i64,
    },
}

impl Reduce for ItemAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Item>) -> Result<()> {
        Ok(())
    }
}

/// What may be done to notes.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
pub enum NoteAction {
    /// A new note.
    #[action(insert)]
    Write {
        /// The number.
        number: i64,
        /// The text.
        text: String,
    },
    /// Away with it.
    #[action(delete)]
    Erase {
        /// The number.
        number: i64,
    },
}

/// Both channels.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
pub enum LabAction {
    /// Items.
    Items(ItemAction),
    /// Notes.
    Notes(NoteAction),
}
