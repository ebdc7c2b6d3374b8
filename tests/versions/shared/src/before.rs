//! As it was.

use partysync::{Action, Column, Record};

/// Its column gets another name.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "books")]
pub struct Book {
    /// The key.
    #[record(key)]
    pub id: String,
    /// The title.
    pub title: String,
}

/// What may be done to books.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Book)]
pub enum BookAction {
    /// A new book, or another title.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// Its title.
        title: String,
    },
}

/// It gets another variant.
#[derive(Column, Clone, Copy, PartialEq, Debug)]
pub enum Level {
    /// It can wait.
    Low,
    /// It cannot.
    High,
}

/// Its enum gets another variant.
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

/// Its labels get a color.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "cards")]
pub struct Card {
    /// The key.
    #[record(key)]
    pub id: String,
    /// Names.
    #[record(json)]
    pub labels: Vec<String>,
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
        labels: Vec<String>,
    },
}

/// It loses a column.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things")]
pub struct Thing {
    /// The key.
    #[record(key)]
    pub id: String,
    /// What it is called.
    pub name: String,
    /// How large it is.
    #[record(default = 0)]
    pub size: i64,
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
    /// Another size.
    #[action(update)]
    Resize {
        /// Which.
        id: String,
        /// Its size.
        size: i64,
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
