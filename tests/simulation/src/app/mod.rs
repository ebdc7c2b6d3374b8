//! The application that is simulated: rows with soft and hard deletes and of every column type;
//! derived and custom actions, some of which must not be done twice, some that touch two rows,
//! some refused halfway, and some that are random programs of their own.

use partysync::{Action, Draft, Error, Record, Reduce, Result, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) mod notes;
mod server;

pub use notes::{Grant, GrantAction, Note, NoteAction, NoteOp};
pub use server::{App, Config, NextAction, NextThing, Outside, RETENTION};

/// A row with every role, deleted softly.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things")]
pub struct Thing {
    /// One of a few.
    #[record(key)]
    pub id: String,
    /// The token of the action that wrote it last.
    pub token: i64,
    /// How often it was bumped: doing one twice shows.
    #[record(default = 0)]
    pub bumps: i64,
    /// Set by the framework.
    #[record(created_at)]
    pub created_at: Timestamp,
    /// Set by the framework.
    #[record(updated_at)]
    pub updated_at: Timestamp,
    /// Soft deletes.
    #[record(deleted_at)]
    pub deleted_at: Option<Timestamp>,
}

/// A row that is deleted for good. All balances add up to nothing at any time.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "accounts")]
pub struct Account {
    /// One of a few.
    #[record(key)]
    pub number: i64,
    /// What it holds.
    #[record(default = 0)]
    pub balance: i64,
}

/// A row with every column type.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "cells")]
pub struct Cell {
    /// Any text.
    #[record(key)]
    pub key: String,
    /// All 64 bits.
    #[record(default = 0)]
    pub big: i64,
    /// Any float.
    #[record(default = 0.5)]
    pub ratio: f64,
    /// Bytes.
    pub bytes: Option<Vec<u8>>,
    /// JSON.
    #[record(json, default = "[]")]
    pub tags: Vec<String>,
    /// Each value once: writing one row may push out another.
    #[record(unique)]
    pub name: Option<String>,
    /// Set by the framework.
    #[record(updated_at)]
    pub updated_at: Timestamp,
}

/// One step of a random program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Writes a thing.
    Put(String),
    /// Deletes a thing softly.
    Remove(String),
    /// Deletes a thing for good.
    Destroy(String),
    /// Moves an amount between two accounts.
    Pay(i64, i64, i64),
    /// Writes a cell with values made from a number.
    Cell(String, i64),
    /// As `Cell`, and pushes out whoever has the same name.
    Replace(String, i64),
    /// Deletes a cell.
    DropCell(String),
    /// Gives a cell another key.
    Rekey(String, String),
    /// Deletes all cells.
    Clear,
    /// Refuses all of it.
    Fail,
}

impl Op {
    fn random(random: &mut fastrand::Rng) -> Self {
        let id = |random: &mut fastrand::Rng| ["a", "b", "c", "d"][random.usize(..4)].to_owned();
        let key = |random: &mut fastrand::Rng| {
            ["", "'\"\\", "ü\u{1F980}\n"][random.usize(..3)].to_owned()
        };
        match random.u8(..16) {
            0 | 1 => Self::Put(id(random)),
            2 => Self::Remove(id(random)),
            3 => Self::Destroy(id(random)),
            4 | 5 => Self::Pay(random.i64(0..3), random.i64(0..3), random.i64(0..3)),
            6..=8 => Self::Cell(key(random), random.i64(0..64)),
            9 | 10 => Self::Replace(key(random), random.i64(0..64)),
            11 => Self::DropCell(key(random)),
            12 => Self::Rekey(key(random), key(random)),
            13 => Self::Clear,
            14 => Self::Fail,
            _ => Self::Put(id(random)),
        }
    }
}

impl Cell {
    /// A cell made from a number.
    fn of(key: &str, n: i64) -> Self {
        let from = n.unsigned_abs() as usize;
        Self {
            key: key.to_owned(),
            big: [i64::MIN, -1, 1 << 53, i64::MAX][from % 4],
            ratio: [0.1, -0.0, f64::MAX, f64::INFINITY][(from / 4) % 4],
            bytes: [None, Some(vec![]), Some(vec![0, 255])][from % 3].clone(),
            tags: vec!["\u{0}'".to_owned(); from % 3],
            name: [None, Some("x"), Some("y")][(from / 2) % 3].map(str::to_owned),
            updated_at: Timestamp::from_millis(0),
        }
    }
}

/// What may be done to things.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Thing)]
pub enum ThingAction {
    /// A new one; refused if it is there.
    #[action(insert)]
    Create {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
    /// Writes it, new or not.
    #[action(upsert)]
    Put {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
    /// Changes one that is there.
    #[action(update)]
    Touch {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
    /// Away with it.
    #[action(custom)]
    Remove {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
    /// One more.
    #[action(custom)]
    Bump {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
    /// A random program over all tables.
    #[action(custom)]
    Script {
        /// Its steps.
        #[action(json)]
        ops: Vec<Op>,
        /// The action's token.
        token: i64,
    },
    /// Writes a row, and is then refused.
    #[action(custom)]
    FailHalfway {
        /// Which.
        id: String,
        /// The action's token.
        token: i64,
    },
}

/// What may be done to accounts.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Account)]
pub enum AccountAction {
    /// From one to another, both made if need be.
    #[action(custom)]
    Transfer {
        /// From.
        from: i64,
        /// To.
        to: i64,
        /// How much.
        amount: i64,
        /// The action's token.
        token: i64,
    },
    /// Closes an account that is empty; refused for others.
    #[action(custom)]
    Close {
        /// Which.
        number: i64,
        /// The action's token.
        token: i64,
    },
}

/// What may be done to cells; the rest is done by scripts.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Cell)]
pub enum CellAction {
    /// Some values of a cell, new or not.
    #[action(upsert)]
    Set {
        /// Which.
        key: String,
        /// The number.
        big: i64,
        /// The name.
        name: Option<String>,
    },
}

/// All of them.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
pub enum AppAction {
    /// Things.
    Things(ThingAction),
    /// Accounts.
    Accounts(AccountAction),
    /// Cells: `big` is the token.
    Cells(CellAction),
    /// Notes.
    Notes(NoteAction),
    /// Grants.
    Grants(GrantAction),
}

impl AppAction {
    /// The token that tells this action from all others.
    #[must_use]
    pub fn token(&self) -> i64 {
        match self {
            Self::Things(
                ThingAction::Create { token, .. }
                | ThingAction::Put { token, .. }
                | ThingAction::Touch { token, .. }
                | ThingAction::Remove { token, .. }
                | ThingAction::Bump { token, .. }
                | ThingAction::Script { token, .. }
                | ThingAction::FailHalfway { token, .. },
            )
            | Self::Cells(CellAction::Set { big: token, .. })
            | Self::Notes(NoteAction::Program { token, .. })
            | Self::Grants(GrantAction::Banish { token, .. })
            | Self::Accounts(
                AccountAction::Transfer { token, .. } | AccountAction::Close { token, .. },
            ) => *token,
        }
    }

    /// A random action with this token.
    pub fn random(random: &mut fastrand::Rng, token: i64) -> Self {
        let id = ["a", "b", "c", "d"][random.usize(..4)].to_owned();
        let number = random.i64(0..3);
        match random.u8(..15) {
            11..=13 => {
                let ops = (0..random.usize(1..6)).map(|_| Op::random(random)).collect();
                ThingAction::Script { ops, token }.into()
            }
            14 => {
                let (key, name) =
                    (["", "ü\u{1F980}\n"][random.usize(..2)], ["x", "y"][random.usize(..2)]);
                let name = random.bool().then(|| name.to_owned());
                CellAction::Set { key: key.to_owned(), big: token, name }.into()
            }
            0 | 1 => ThingAction::Create { id, token }.into(),
            2 => ThingAction::Put { id, token }.into(),
            3 => ThingAction::Touch { id, token }.into(),
            4 => ThingAction::Remove { id, token }.into(),
            5 | 6 => ThingAction::Bump { id, token }.into(),
            7 => ThingAction::FailHalfway { id, token }.into(),
            8 | 9 => {
                let (to, amount) = (random.i64(0..3), random.i64(0..3));
                AccountAction::Transfer { from: number, to, amount, token }.into()
            }
            _ => AccountAction::Close { number, token }.into(),
        }
    }
}

/// What the server answers the action of this token with: now and then with nothing, or with more than
/// a small page holds.
#[must_use]
pub fn result_of(token: i64) -> Option<String> {
    let long = if token % 5 == 0 { "x".repeat(100) } else { String::new() };
    (token % 3 != 0).then(|| format!("of {token}{long}"))
}

impl Reduce for ThingAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Thing>) -> Result<()> {
        match self {
            Self::Remove { id, .. } => draft.delete(id)?,
            Self::Bump { id, token } => {
                draft.update(id, |thing| {
                    thing.bumps += 1;
                    thing.token = *token;
                })?;
            }
            // A guess at what the server will do.
            Self::Script { ops, token } => {
                for op in ops {
                    match op {
                        Op::Put(id) => {
                            draft.update(id, |thing| thing.token = *token)?;
                        }
                        Op::Remove(id) | Op::Destroy(id) => draft.delete(id)?,
                        Op::Fail => return Err(Error::reject("the program says so")),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reduce for AccountAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Account>) -> Result<()> {
        match self {
            Self::Transfer { from, to, amount, .. } => {
                for (number, change) in [(*from, -amount), (*to, *amount)] {
                    let balance = draft.get(number)?.map_or(0, |account| account.balance);
                    draft.put(&Account { number, balance: balance + change })?;
                }
            }
            Self::Close { number, .. } => {
                if draft.get(*number)?.is_some_and(|account| account.balance != 0) {
                    return Err(Error::reject("not empty"));
                }
                draft.delete(*number)?;
            }
        }
        Ok(())
    }
}
