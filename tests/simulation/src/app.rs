//! The application that is simulated: rows with soft and hard deletes and of every column type;
//! derived and custom actions, some of which must not be done twice, some that touch two rows,
//! some refused halfway, and some that are random programs of their own.

use partysync::sql::Sql;
use partysync::{
    Action, Draft, Error, Limits, Record, Reduce, Result, Room, SyncServer, Timestamp, params,
};
use serde::{Deserialize, Serialize};

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

impl Reduce for ThingAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Thing>) -> Result<()> {
        match self {
            Self::Remove { id, .. } => draft.delete(id),
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
                        Op::Remove(id) | Op::Destroy(id) => draft.delete(id),
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
                draft.delete(*number);
            }
        }
        Ok(())
    }
}

/// The server. It notes the token of every action in a table of its own, in the action's
/// transaction: what was done, how often and in which order.
#[derive(Debug, Default)]
pub struct App;

const DONE: &str =
    "CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY, token INTEGER NOT NULL)";

/// How long deletions are remembered in the simulation, ms.
pub const RETENTION: i64 = 60_000;

impl SyncServer for App {
    type Action = AppAction;

    fn limits(&self) -> Limits {
        Limits { retention_ms: RETENTION, client_retention_ms: 3 * RETENTION, ..Limits::default() }
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        room.sql().run(DONE, &[], &mut |_| Ok(()))
    }

    fn on_alarm(&self, _: &mut Room<'_, Self>) -> Result<()> {
        Ok(())
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: AppAction) -> Result<()> {
        perform(room.sql(), room.now(), &action)
    }
}

fn perform(sql: &dyn Sql, now: Timestamp, action: &AppAction) -> Result<()> {
    let run = |statement: &str, params: &[partysync::sql::Value]| {
        sql.run(statement, params, &mut |_| Ok(()))
    };
    run("INSERT INTO done (token) VALUES (?)", &params![action.token()])?;
    match action {
        AppAction::Things(ThingAction::Remove { id, .. }) => remove(sql, now, id),
        AppAction::Things(ThingAction::Bump { id, token }) => run(
            "UPDATE things SET bumps = bumps + 1, token = ? WHERE id = ? AND deleted_at IS NULL",
            &params![*token, id.clone()],
        ),
        AppAction::Things(ThingAction::FailHalfway { id, token }) => {
            run(
                "INSERT OR REPLACE INTO things (id, token) VALUES (?, ?)",
                &params![id.clone(), *token],
            )?;
            Err(Error::reject("failed halfway"))
        }
        AppAction::Things(ThingAction::Script { ops, token }) => {
            ops.iter().try_for_each(|op| step(sql, now, op, *token))
        }
        AppAction::Things(_) | AppAction::Cells(_) => action.apply(sql),
        AppAction::Accounts(AccountAction::Transfer { from, to, amount, .. }) => {
            transfer(sql, *from, *to, *amount)
        }
        AppAction::Accounts(AccountAction::Close { number, .. }) => {
            let full = sql.query_opt(
                "SELECT 1 FROM accounts WHERE number = ? AND balance <> 0",
                params![*number],
                |row| row.get::<i64>(0),
            )?;
            if full.is_some() {
                return Err(Error::reject("not empty"));
            }
            run("DELETE FROM accounts WHERE number = ?", &params![*number])
        }
    }
}

fn remove(sql: &dyn Sql, now: Timestamp, id: &str) -> Result<()> {
    let statement = "UPDATE things SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL";
    sql.run(statement, &params![now, id], &mut |_| Ok(()))
}

fn transfer(sql: &dyn Sql, from: i64, to: i64, amount: i64) -> Result<()> {
    let statement = "INSERT INTO accounts (number, balance) VALUES (?, ?)
        ON CONFLICT (number) DO UPDATE SET balance = balance + excluded.balance";
    sql.run(statement, &params![from, -amount], &mut |_| Ok(()))?;
    sql.run(statement, &params![to, amount], &mut |_| Ok(()))
}

fn step(sql: &dyn Sql, now: Timestamp, op: &Op, token: i64) -> Result<()> {
    let run = |statement: &str, params: &[partysync::sql::Value]| {
        sql.run(statement, params, &mut |_| Ok(()))
    };
    let cell = |verb: &str, key: &str, n: i64, tail: &str| {
        let Cell { key, big, ratio, bytes, tags, name, .. } = Cell::of(key, n);
        let tags = serde_json::to_string(&tags).unwrap_or_default();
        run(
            &format!(
                "{verb} INTO cells (key, big, ratio, bytes, tags, name) VALUES (?, ?, ?, ?, ?, ?) {tail}"
            ),
            &params![key, big, ratio, bytes, tags, name],
        )
    };
    match op {
        Op::Put(id) => run(
            "INSERT INTO things (id, token) VALUES (?, ?)
             ON CONFLICT (id) DO UPDATE SET token = excluded.token, deleted_at = NULL",
            &params![id.as_str(), token],
        ),
        Op::Remove(id) => remove(sql, now, id),
        Op::Destroy(id) => run("DELETE FROM things WHERE id = ?", &params![id.as_str()]),
        Op::Pay(from, to, amount) => transfer(sql, *from, *to, *amount),
        Op::Cell(key, n) => cell(
            "INSERT",
            key,
            *n,
            "ON CONFLICT (key) DO UPDATE SET big = excluded.big, ratio = excluded.ratio,
             bytes = excluded.bytes, tags = excluded.tags, name = excluded.name",
        ),
        Op::Replace(key, n) => cell("INSERT OR REPLACE", key, *n, ""),
        Op::DropCell(key) => run("DELETE FROM cells WHERE key = ?", &params![key.as_str()]),
        Op::Rekey(from, to) => run(
            "UPDATE OR IGNORE cells SET key = ? WHERE key = ?",
            &params![to.as_str(), from.as_str()],
        ),
        Op::Clear => run("DELETE FROM cells", &[]),
        Op::Fail => Err(Error::reject("the program says so")),
    }
}

/// The thing of the application's next version: two columns more, in the middle.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things")]
pub struct NextThing {
    /// One of a few.
    #[record(key)]
    pub id: String,
    /// New.
    #[record(default = "white")]
    pub color: String,
    /// The token of the action that wrote it last.
    pub token: i64,
    /// How often it was bumped.
    #[record(default = 0)]
    pub bumps: i64,
    /// Set by the framework.
    #[record(created_at)]
    pub created_at: Timestamp,
    /// New.
    pub weight: Option<f64>,
    /// Set by the framework.
    #[record(updated_at)]
    pub updated_at: Timestamp,
    /// Soft deletes.
    #[record(deleted_at)]
    pub deleted_at: Option<Timestamp>,
}

/// The actions of the next version: the same, over its records.
#[derive(Clone, PartialEq, Debug)]
pub struct NextAction(AppAction);

impl Action for NextAction {
    const CHANNELS: &'static [&'static partysync::Schema] =
        &[NextThing::SCHEMA, Account::SCHEMA, Cell::SCHEMA];

    fn channel(&self) -> &'static str {
        self.0.channel()
    }

    fn to_json(&self) -> Result<serde_json::Value> {
        self.0.to_json()
    }

    fn from_json(channel: &str, json: &serde_json::Value) -> Result<Self> {
        AppAction::from_json(channel, json).map(Self)
    }

    fn reduce(&self, tables: &mut dyn partysync::Tables) -> Result<()> {
        self.0.reduce(tables)
    }

    fn apply(&self, sql: &dyn Sql) -> Result<()> {
        self.0.apply(sql)
    }
}

/// The application's next version: what its actions write has values in the new columns.
#[derive(Debug, Default)]
pub struct NextApp;

impl SyncServer for NextApp {
    type Action = NextAction;

    fn limits(&self) -> Limits {
        App.limits()
    }

    fn on_alarm(&self, _: &mut Room<'_, Self>) -> Result<()> {
        Ok(())
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        room.sql().run(DONE, &[], &mut |_| Ok(()))
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NextAction) -> Result<()> {
        perform(room.sql(), room.now(), &action.0)?;
        let paint = "UPDATE things SET color = 'red', weight = 1.5 WHERE token = ?";
        room.sql().run(paint, &params![action.0.token()], &mut |_| Ok(()))
    }
}
