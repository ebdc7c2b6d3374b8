//! As it is now.

use partysync::{Action, Column, Record};
use serde::{Deserialize, Serialize};

/// Its title is a name.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "books")]
pub struct Book {
    /// The key.
    #[record(key)]
    pub id: String,
    /// The name.
    #[record(renamed_from = "title")]
    pub name: String,
}

/// What may be done to books.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Book)]
pub enum BookAction {
    /// A new book, or another name.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// Its name.
        name: String,
    },
}

/// It has another variant.
#[derive(Column, Clone, Copy, PartialEq, Debug)]
pub enum Level {
    /// It can wait.
    Low,
    /// It cannot.
    High,
    /// It should have been done already.
    Urgent,
}

/// As it was, but for its level.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "tickets")]
pub struct Ticket {
    /// The key.
    #[record(key)]
    pub id: String,
    /// How much it matters.
    pub level: Level,
}

/// What may be done to tickets.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Ticket)]
pub enum TicketAction {
    /// A new ticket, or another level.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// How much it matters.
        level: Level,
    },
}

/// A name with a color. Actions of older pages have the name alone.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(from = "AnyLabel")]
pub struct Label {
    /// The name.
    pub name: String,
    /// The color.
    pub color: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyLabel {
    Name(String),
    Label { name: String, color: String },
}

impl From<AnyLabel> for Label {
    fn from(label: AnyLabel) -> Self {
        match label {
            AnyLabel::Name(name) => Self { name, color: "grey".to_owned() },
            AnyLabel::Label { name, color } => Self { name, color },
        }
    }
}

/// Its labels have colors: an older page could not show them.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "cards", version = 2)]
pub struct Card {
    /// The key.
    #[record(key)]
    pub id: String,
    /// Names and colors.
    #[record(json)]
    pub labels: Vec<Label>,
}

/// What may be done to cards.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Card)]
pub enum CardAction {
    /// A new card, or other labels.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// Its labels.
        #[action(json)]
        labels: Vec<Label>,
    },
}

/// It has no size any more.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things", dropped = "size")]
pub struct Thing {
    /// The key.
    #[record(key)]
    pub id: String,
    /// What it is called.
    pub name: String,
}

/// What may be done to things.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Thing)]
pub enum ThingAction {
    /// A new thing, or another name.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// Its name.
        name: String,
    },
}

/// All of them.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
pub enum BoardAction {
    /// Books.
    Books(BookAction),
    /// Tickets.
    Tickets(TicketAction),
    /// Cards.
    Cards(CardAction),
    /// Things.
    Things(ThingAction),
}
