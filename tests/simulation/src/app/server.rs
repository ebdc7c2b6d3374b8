//! What the application's server does, in both of its versions.

use super::{
    Account, AccountAction, AppAction, Cell, Grant, Note, Op, ThingAction, notes, result_of,
};
use partysync::sql::Sql;
use partysync::{
    Action, Connection, Error, Handle, Job, Limits, Migrated, Migration, Presence, Record, Result,
    Room, SyncServer, Timestamp, Visible, params,
};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

/// The server, in the version whose actions these are. It notes the token of every action in a
/// table of its own, in the action's transaction: what was done, how often and in which order.
#[derive(Debug)]
pub struct App<A> {
    config: Config,
    outside: Rc<Outside>,
    actions: PhantomData<A>,
}

/// What of a server is known outside of its process.
#[derive(Debug, Default)]
pub struct Outside {
    /// The tokens that handles have said were written.
    pub told: RefCell<Vec<i64>>,
    /// Whether something has begun whose hook failed.
    pub spoilt: RefCell<bool>,
}

impl<A> App<A> {
    /// A server that is made so.
    #[must_use]
    pub fn new(config: Config, outside: &Rc<Outside>) -> Self {
        Self { config, outside: outside.clone(), actions: PhantomData }
    }
}

/// The actions of a version.
pub trait Version: Action {
    /// Does one.
    ///
    /// # Errors
    /// Why it is refused.
    fn perform(&self, sql: &dyn Sql, now: Timestamp) -> Result<()>;

    /// What tells it from others.
    fn its_token(&self) -> i64;
}

impl Version for AppAction {
    fn its_token(&self) -> i64 {
        self.token()
    }

    fn perform(&self, sql: &dyn Sql, now: Timestamp) -> Result<()> {
        perform(sql, now, self)
    }
}

/// A hook that waits for something, once.
async fn wait(slow: bool) {
    let mut waited = !slow;
    std::future::poll_fn(move |_| match std::mem::replace(&mut waited, true) {
        true => std::task::Poll::Ready(()),
        false => std::task::Poll::Pending,
    })
    .await;
}

/// What hooks of a server do that fail: nothing of it may be seen.
fn spoil<S>(room: &mut Room<'_, S>, outside: &Rc<Outside>) -> Result<()> {
    let outside = outside.clone();
    room.spawn(async move { *outside.spoilt.borrow_mut() = true });
    let sql = "INSERT INTO things (id, token) VALUES ('spoilt', -1)";
    room.sql().run(sql, &[], &mut |_| Ok(()))?;
    Err(Error::reject("this hook fails"))
}

/// How a server is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether its hooks take time.
    pub slow: bool,
    /// Whether its pages are so small that nearly everything takes several.
    pub small: bool,
    /// Whether clients that were not seen for a while are forgotten.
    pub forgets: bool,
}

impl Config {
    /// Whether hooks use handles for the action of this token.
    fn asks(self, token: i64) -> bool {
        self.slow && token % 3 == 0
    }
}

/// What is to be done later.
const PLANNED: &str = "CREATE TABLE IF NOT EXISTS planned (name TEXT PRIMARY KEY, token INTEGER)";

/// What was asked about, and what was told afterwards, by handles.
const ASKED: &str = "CREATE TABLE IF NOT EXISTS asked (token INTEGER PRIMARY KEY)";
const TOLD: &str = "CREATE TABLE IF NOT EXISTS told (token INTEGER PRIMARY KEY)";

const DONE: &str =
    "CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY, token INTEGER NOT NULL)";

/// How long deletions are remembered in the simulation, ms.
pub const RETENTION: i64 = 60_000;

impl<A: Version> SyncServer for App<A> {
    type Action = A;

    fn limits(&self) -> Limits {
        let page_bytes = if self.config.small { 64 } else { Limits::default().page_bytes };
        // A page of each channel, as they are sent when all is there.
        let pending_bytes = page_bytes as u64 * 16;
        let log_entries = if self.config.small { 4 } else { 30 };
        let migration_rows = if self.config.small { 1 } else { 1_000 };
        let clients = if self.config.forgets { 3 } else { 1_000_000 };
        let (retention_ms, client_retention_ms) = (RETENTION, clients * RETENTION);
        Limits {
            retention_ms,
            client_retention_ms,
            page_bytes,
            pending_bytes,
            log_entries,
            migration_rows,
            ..Limits::default()
        }
    }

    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let sql = room.sql();
        let once = "CREATE TABLE IF NOT EXISTS migrated (id TEXT PRIMARY KEY)";
        sql.run(once, &[], &mut |_| Ok(()))?;
        step.each(sql, 1, |id| {
            sql.exec("INSERT INTO migrated (id) VALUES (?)", &params![id])?;
            sql.exec("UPDATE things SET bumps = bumps + 100 WHERE id = ?", &params![id])
        })
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        room.set_alarm(room.now());
        room.sql().run(PLANNED, &[], &mut |_| Ok(()))?;
        room.sql().run(ASKED, &[], &mut |_| Ok(()))?;
        room.sql().run(TOLD, &[], &mut |_| Ok(()))?;
        room.sql().run(DONE, &[], &mut |_| Ok(()))?;
        notes::start(room.sql())
    }

    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        notes::visible(room, channel)
    }

    async fn before_action(&self, room: &Handle<Self>, _: &Connection, action: &A) -> Result<()> {
        wait(self.config.slow).await;
        let token = action.its_token();
        if !self.config.asks(token) {
            return Ok(());
        }
        let asked = "INSERT OR REPLACE INTO asked (token) VALUES (?)";
        room.run(move |room| room.sql().exec(asked, &params![token])).await
    }

    async fn after_commit(&self, room: &Handle<Self>, _: &Connection, action: A) {
        let token = action.its_token();
        if self.config.asks(token) && token % 2 == 0 {
            tell(room.clone(), self.outside.clone(), token).await;
        }
    }

    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        spoil(room, &self.outside)
    }

    fn on_close(&self, room: &mut Room<'_, Self>, _: &Connection) -> Result<()> {
        spoil(room, &self.outside)
    }

    fn on_hello(&self, room: &mut Room<'_, Self>) -> Result<()> {
        if room.now().as_millis() % 3 == 0 { spoil(room, &self.outside) } else { Ok(()) }
    }

    fn presence(&self, room: &mut Room<'_, Self>, _topic: &str) -> Result<Presence> {
        match room.identity::<String>()? {
            Some(who) if who != crate::presence::HIDDEN => Presence::shown_as(&who),
            _ => Ok(Presence::hidden()),
        }
    }

    fn on_message(&self, room: &mut Room<'_, Self>, _: Json) -> Result<()> {
        spoil(room, &self.outside)
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: A) -> Result<()> {
        let token = action.its_token();
        plan(room, token)?;
        if self.config.asks(token) {
            let asked = "SELECT EXISTS (SELECT 1 FROM asked WHERE token = ?)";
            if !room.sql().query_one(asked, params![token], |row| row.get::<bool>(0))? {
                room.sql().exec("INSERT INTO planned VALUES ('not asked', ?)", &params![token])?;
            }
            if token % 2 == 1 {
                room.spawn(tell(room.handle(), self.outside.clone(), token));
            }
        }
        // Also one that is refused then.
        if let Some(result) = result_of(token) {
            room.answer(&result)?;
        }
        action.perform(room.sql(), room.now())
    }

    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        let token: i64 = job.payload()?;
        if token % 2 == 0 && job.attempts() == 0 {
            return spoil(room, &self.outside);
        }
        let planned = "DELETE FROM planned WHERE name = ? AND token = ?";
        if room.sql().execute(planned, params![job.name(), token])? != 1 {
            room.sql().exec("INSERT INTO planned VALUES ('astray', ?)", &params![token])?;
        }
        // Clients see it.
        let seen = "INSERT INTO things (id, token) VALUES ('job', ?) \
                    ON CONFLICT (id) DO UPDATE SET bumps = bumps + 1";
        room.sql().exec(seen, &params![token])
    }
}

/// Writes by a handle, and says outside that it is written. Clients see it.
async fn tell<S: 'static>(room: Handle<S>, outside: Rc<Outside>, token: i64) {
    let told = room.run(move |room| {
        let seen = "INSERT INTO things (id, token) VALUES ('told', ?) \
                    ON CONFLICT (id) DO UPDATE SET bumps = bumps + 1";
        room.sql().exec(seen, &params![token])?;
        room.sql().exec("INSERT OR REPLACE INTO told (token) VALUES (?)", &params![token])
    });
    if told.await.is_ok() {
        outside.told.borrow_mut().push(token);
    }
}

/// Some actions have something done later, in place of what others wanted or took back. It is noted
/// beside the framework's own tables, in the action's transaction.
fn plan<S>(room: &mut Room<'_, S>, token: i64) -> Result<()> {
    let name = format!("job {}", token % 3);
    match token % 4 {
        0 | 1 => {
            let at = room.now().plus_millis(token % 5 * 500);
            room.schedule(at, &name, &token)?;
            let sql = "INSERT OR REPLACE INTO planned VALUES (?, ?)";
            room.sql().exec(sql, &params![name, token])
        }
        2 => {
            let taken_back = room.cancel(&name)?;
            let planned = "DELETE FROM planned WHERE name = ?";
            let noted = room.sql().execute(planned, params![&*name])? == 1;
            if taken_back == noted {
                return Ok(());
            }
            room.sql().exec("INSERT INTO planned VALUES ('astray', ?)", &params![token])
        }
        _ => Ok(()),
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
        AppAction::Notes(action) => notes::perform(sql, now, action),
        AppAction::Grants(action) => notes::banish(sql, action),
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

/// The thing of the application's next version: two columns more, in the middle; and each thing that
/// was there is bumped, once.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things", version = 2, compatible = 1)]
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
        &[NextThing::SCHEMA, Account::SCHEMA, Cell::SCHEMA, Note::SCHEMA, Grant::SCHEMA];

    fn channel(&self) -> &'static str {
        self.0.channel()
    }

    fn to_json(&self) -> Result<serde_json::Value> {
        self.0.to_json()
    }

    fn from_json(channel: &str, json: &str) -> Result<Self> {
        AppAction::from_json(channel, json).map(Self)
    }

    fn reduce(&self, tables: &mut dyn partysync::Tables) -> Result<()> {
        self.0.reduce(tables)
    }

    fn apply(&self, sql: &dyn Sql) -> Result<()> {
        self.0.apply(sql)
    }
}

/// What they write has values in the new columns.
impl Version for NextAction {
    fn its_token(&self) -> i64 {
        self.0.token()
    }

    fn perform(&self, sql: &dyn Sql, now: Timestamp) -> Result<()> {
        perform(sql, now, &self.0)?;
        let paint = "UPDATE things SET color = 'red', weight = 1.5 WHERE token = ?";
        sql.run(paint, &params![self.0.token()], &mut |_| Ok(()))
    }
}
