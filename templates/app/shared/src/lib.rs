//! The record and its actions: one definition for server, browser and database.

use partysync::{Action, Record, Timestamp};

/// How many characters a note may have.
pub const MAX_TEXT: usize = 1_000;

/// A note: a row of the room's database, and of each client's copy.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
pub struct Note {
    /// Made by the client, so that a note is shown before the server answers.
    #[record(key)]
    pub id: String,
    pub text: String,
    #[record(created_at)]
    pub created_at: Timestamp,
    #[record(updated_at)]
    pub updated_at: Timestamp,
}

/// What a client may ask for. The attributes say what it does to the rows: to those of the client
/// at once, and to those of the server when it agrees.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
pub enum NoteAction {
    #[action(insert)]
    Add { id: String, text: String },
    #[action(update)]
    Edit { id: String, text: Option<String> },
    #[action(delete)]
    Remove { id: String },
}
