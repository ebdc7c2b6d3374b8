//! The application that is simulated: rows with soft and hard deletes, derived and custom
//! actions, some of which must not be done twice, some that touch two rows, some refused halfway.

use partysync::{
    Action, Draft, Error, Limits, Record, Reduce, Result, Room, SyncServer, Timestamp, params,
};

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

/// Both.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
pub enum AppAction {
    /// Things.
    Things(ThingAction),
    /// Accounts.
    Accounts(AccountAction),
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
                | ThingAction::FailHalfway { token, .. },
            )
            | Self::Accounts(
                AccountAction::Transfer { token, .. } | AccountAction::Close { token, .. },
            ) => *token,
        }
    }

    /// A random action with this token.
    pub fn random(random: &mut fastrand::Rng, token: i64) -> Self {
        let id = ["a", "b", "c", "d"][random.usize(..4)].to_owned();
        let number = random.i64(0..3);
        match random.u8(..11) {
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

/// How long deletions are remembered in the simulation, ms.
pub const RETENTION: i64 = 60_000;

impl SyncServer for App {
    type Action = AppAction;

    fn limits(&self) -> Limits {
        Limits { retention_ms: RETENTION, client_retention_ms: 3 * RETENTION, ..Limits::default() }
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let sql = "CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY, token INTEGER NOT NULL)";
        room.sql().run(sql, &[], &mut |_| Ok(()))
    }

    fn on_alarm(&self, _: &mut Room<'_, Self>) -> Result<()> {
        Ok(())
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: AppAction) -> Result<()> {
        let sql = room.sql();
        let run = |statement: &str, params: &[partysync::sql::Value]| {
            sql.run(statement, params, &mut |_| Ok(()))
        };
        run("INSERT INTO done (token) VALUES (?)", &params![action.token()])?;
        match &action {
            AppAction::Things(ThingAction::Remove { id, .. }) => run(
                "UPDATE things SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
                &params![room.now(), id.clone()],
            ),
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
            AppAction::Things(_) => action.apply(sql),
            AppAction::Accounts(AccountAction::Transfer { from, to, amount, .. }) => {
                let statement = "INSERT INTO accounts (number, balance) VALUES (?, ?)
                    ON CONFLICT (number) DO UPDATE SET balance = balance + excluded.balance";
                run(statement, &params![*from, -amount])?;
                run(statement, &params![*to, *amount])
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
}
