//! A store's log in D1: LiveStore's own table there, and one of ours that says which store has
//! which.

use super::object::Inner;
use super::open::backend_id;
use crate::livestore::{
    self, Context, Effect, Event, Input, LiveStoreServer, Page, PageLimits, Table, batches,
    table_name,
};
use crate::record::{FNV, fnv1a};
use crate::worker::gather::Gather;
use crate::worker::open::set_alarm;
use crate::worker::{DurableSql, now};
use crate::{Code, Error, Result};
use serde::Deserialize;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, console_error, console_warn};

/// The most bytes of a page: D1's answers are JSON, in which events are quoted and become longer.
const PAGE_BYTES: usize = 400_000;

/// When D1 cannot be opened because the alarm rang, it rings again after this, ms.
const AGAIN: i64 = 30_000;

/// A log that is open.
#[derive(Debug)]
pub(super) struct D1Log {
    database: D1Database,
    table: Table,
}

#[allow(clippy::needless_pass_by_value)]
fn unavailable(error: worker::Error) -> Error {
    Error::new(Code::Unavailable, format!("D1: {error}"))
}

/// Numbers are floating-point ones in JavaScript.
#[allow(clippy::cast_precision_loss)]
fn number(number: u64) -> JsValue {
    JsValue::from_f64(number as f64)
}

#[derive(Deserialize)]
struct Head {
    head: u64,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "store_id")]
    store: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Which store has which table. Two stores never share one, though LiveStore's names would let
/// them; SQLite takes names for the same that differ in case only.
const OWNERS: &str = "CREATE TABLE IF NOT EXISTS _partysync_eventlog \
                      (name TEXT PRIMARY KEY COLLATE NOCASE, store_id TEXT NOT NULL UNIQUE) STRICT";

impl D1Log {
    fn statement(
        database: &D1Database,
        sql: &str,
        values: &[JsValue],
    ) -> Result<D1PreparedStatement> {
        let statement = database.prepare(sql);
        if values.is_empty() {
            return Ok(statement);
        }
        statement.bind(values).map_err(unavailable)
    }

    async fn first<T: for<'a> Deserialize<'a>>(
        database: &D1Database,
        sql: &str,
        values: &[JsValue],
    ) -> Result<Option<T>> {
        let statement = Self::statement(database, sql, values)?;
        statement.first(None).await.map_err(unavailable)
    }

    /// Opens a store's log, and says where it ends. `known` is what the object knows of the store.
    async fn open(
        database: D1Database,
        store: &str,
        known: Option<&Context>,
    ) -> Result<(Self, u64)> {
        let text = JsValue::from_str;
        Self::statement(&database, OWNERS, &[])?.run().await.map_err(unavailable)?;
        let mine = "SELECT name FROM _partysync_eventlog WHERE store_id = ?";
        let mut name = Self::first::<Named>(&database, mine, &[text(store)]).await?;
        if name.is_none() {
            let wanted = Self::choose(&database, store, known).await?;
            let claim = "INSERT OR IGNORE INTO _partysync_eventlog (name, store_id) VALUES (?, ?)";
            let values = [text(&wanted), text(store)];
            Self::statement(&database, claim, &values)?.run().await.map_err(unavailable)?;
            name = Self::first(&database, mine, &[text(store)]).await?;
        }
        // Somebody else was faster: the next attempt sees it.
        let name = name.ok_or_else(|| Error::retry("another store has taken the table's name"))?;
        let table = Table::new(&name.name);
        Self::statement(&database, &table.create, &[])?.run().await.map_err(unavailable)?;
        let log = Self { database, table };
        let head = log.head().await?;
        Ok((log, head))
    }

    /// The table of a store that has none in this database yet: LiveStore's, unless it belongs to
    /// another store, or may.
    async fn choose(database: &D1Database, store: &str, known: Option<&Context>) -> Result<String> {
        let wanted = table_name(store);
        for attempt in 0.. {
            let name = match attempt {
                0 => wanted.clone(),
                1 => format!("{wanted}__{:016x}", hash(store)),
                more => format!("{wanted}__{:016x}_{more}", hash(store)),
            };
            let values = [JsValue::from_str(&name)];
            let owner = "SELECT store_id FROM _partysync_eventlog WHERE name = ?";
            if let Some(Owner { store: other }) = Self::first(database, owner, &values).await? {
                console_warn!("livestore `{store}`: the table {name} in D1 belongs to `{other}`");
                continue;
            }
            let there = "SELECT name FROM sqlite_master WHERE type = 'table' \
                         AND name = ? COLLATE NOCASE";
            let Some(there) = Self::first::<Named>(database, there, &values).await? else {
                return Ok(name);
            };
            // LiveStore's own backend has written it, for this store or for one whose name is
            // written in the same way. Only the one that has pushed knows of a head.
            let has_pushed = known.is_some_and(|known| known.head > 0) && there.name == wanted;
            let head = &Table::new(&name).head;
            let events = Self::first::<Head>(database, head, &[]).await?;
            if has_pushed || events.is_none_or(|events| events.head == 0) {
                return Ok(name);
            }
            console_error!(
                "livestore `{store}`: the table {name} in D1 has events, and this store's object \
                 knows of none. They may be another store's, so that another table is used. If \
                 they are this store's, set the name in its row of _partysync_eventlog"
            );
        }
        Err(Error::retry("there is no name left"))
    }

    async fn head(&self) -> Result<u64> {
        let head = Self::first::<Head>(&self.database, &self.table.head, &[]).await?;
        Ok(head.map_or(0, |head| head.head))
    }

    /// Appends events: all of them, or none. What an earlier life of the object has asked for may
    /// be done meanwhile, so that D1 looks itself whether the log ends where it should.
    async fn append(&self, events: &[Event], created_at: &str) -> Result<()> {
        let mut statements = Vec::new();
        for (behind, rows) in batches(events) {
            let values = [JsValue::from_str(&rows), JsValue::from_str(created_at), number(behind)];
            statements.push(Self::statement(&self.database, &self.table.insert_behind, &values)?);
        }
        let results = self.database.batch(statements).await.map_err(unavailable)?;
        match results.iter().find_map(worker::D1Result::error) {
            Some(error) => Err(Error::new(Code::Unavailable, format!("D1: {error}"))),
            None => Ok(()),
        }
    }

    async fn page(&self, (after, upto): (u64, u64), limits: PageLimits) -> Result<Page> {
        #[derive(Deserialize)]
        struct Row {
            events: Option<String>,
            count: u64,
            last: Option<u64>,
        }
        let bytes = u64::try_from(limits.bytes.min(PAGE_BYTES)).unwrap_or(u64::MAX);
        let events = limits.events.max(1).into();
        let values = [number(after), number(events), number(bytes), number(upto)];
        let row = Self::first::<Row>(&self.database, &self.table.page, &values).await?;
        Ok(row.map_or_else(Page::default, |Row { events, count, last }| Page {
            events: events.unwrap_or_default(),
            count,
            last: last.unwrap_or(after),
        }))
    }

    /// Removes all events, if the log still ends with this one.
    async fn empty(&self, last: u64) -> Result<()> {
        let statement = Self::statement(&self.database, &self.table.empty, &[number(last)])?;
        statement.run().await.map_err(unavailable)?;
        match self.head().await? {
            0 => Ok(()),
            _ => Err(Error::new(Code::Unavailable, "D1: the log does not end where it did")),
        }
    }
}

/// A number that is the store's own, and the same each time.
fn hash(store: &str) -> u64 {
    fnv1a(FNV, store.bytes())
}

impl<S: LiveStoreServer> Inner<S> {
    /// Whether the log has been opened, or is in the object.
    pub(super) fn is_ready(&self) -> bool {
        self.d1.as_ref().is_none_or(|(_, log)| log.borrow().is_some())
    }

    /// Opens the log, if it is in D1 and was not opened: where it ends.
    pub(super) async fn ready(self: &Rc<Self>, store: &str) -> Result<()> {
        let Some((binding, place)) = self.d1.as_ref().filter(|_| !self.is_ready()) else {
            return Ok(());
        };
        let known = livestore::Open::known(&DurableSql::new(&self.state)?, store)?;
        let database = self.env.d1(binding).map_err(unavailable)?;
        let (log, head) = D1Log::open(database, store, known.as_ref()).await?;
        // Another request may have done the same meanwhile.
        if place.borrow().is_none() {
            self.open_store(store, Some(head))?;
            *place.borrow_mut() = Some(Rc::new(log));
        }
        Ok(())
    }

    /// Opens the log for what has happened to sockets.
    pub(super) fn open_for_sockets(self: &Rc<Self>, store: String) {
        if self.opening.replace(true) {
            return;
        }
        let inner = self.clone();
        self.state.wait_until(async move {
            let opened = inner.ready(&store).await;
            inner.opening.set(false);
            match opened {
                Ok(()) => inner.later(None),
                Err(error) => {
                    drop(inner.gathered.take());
                    drop(inner.close_all(error));
                }
            }
        });
    }

    /// Opens the log because the alarm rang, which rings again if that fails.
    pub(super) fn open_for_alarm(self: &Rc<Self>, store: String) {
        let inner = self.clone();
        self.state.wait_until(async move {
            match inner.ready(&store).await {
                Ok(()) => inner.later(Some(Input::Alarm)),
                Err(error) => {
                    console_error!("livestore: the store cannot be opened: {error}");
                    let again = now().plus_millis(AGAIN);
                    if let Err(error) = set_alarm(&inner.js().storage(), Some(again)) {
                        console_error!("livestore: the alarm was not set: {error}");
                    }
                }
            }
        });
    }

    /// Reads or appends for the store; what comes of it is an input.
    pub(super) fn ask_d1(self: &Rc<Self>, effect: Effect, context: Context) {
        let Some(log) = self.d1.as_ref().and_then(|(_, log)| log.borrow().clone()) else { return };
        let inner = self.clone();
        let limits = self.server.limits().page();
        self.state.wait_until(async move {
            let input = match effect {
                Effect::Append(push, created_at) => {
                    Input::Appended(log.append(&push.events, &created_at).await)
                }
                Effect::Empty(backend_id) => {
                    let emptied = log.empty(context.head).await;
                    Input::Emptied(emptied.map(|()| Context { backend_id, head: 0 }))
                }
                Effect::Read(reading) => {
                    let page = log.page((reading.after(), reading.upto()), limits).await;
                    Input::Read(reading, page)
                }
                _ => {
                    let head = log.head().await;
                    Input::Loaded(head.map(|head| match head < context.head {
                        true => Context { backend_id: backend_id(), head },
                        false => Context { head, ..context },
                    }))
                }
            };
            inner.later(Some(input));
        });
    }
}
