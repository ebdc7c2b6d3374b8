//! The room's process in the simulation: it can die at any statement, and be built anew from its
//! database; sleep with its sockets open; lose its storage.

use crate::app::App;
use partysync::room::{Incoming, Outcome, Output};
use partysync::sql::{Row, Sql, Sqlite, Value};
use partysync::{Code, Connection, Error, Host, Protocol, Result, Timestamp};
use std::cell::Cell;

/// SQLite in a process that dies at a statement of the world's choice. What was not committed
/// is rolled back, as SQLite does when it is opened again.
pub struct Mortal {
    inner: Sqlite,
    /// Statements left to live; `None` lives on.
    left: Cell<Option<u32>>,
}

fn dead() -> Error {
    Error::new(Code::Internal, "the process died")
}

impl Mortal {
    fn lives(&self) -> bool {
        self.left.get() != Some(0)
    }
}

impl Sql for Mortal {
    fn run(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        if !self.lives() {
            return Err(dead());
        }
        self.left.set(self.left.get().map(|left| left - 1));
        self.inner.run(sql, params, each)
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if !self.lives() {
            return Err(dead());
        }
        self.inner.transaction(&mut || {
            body()?;
            // Dead before the commit: nothing of it is kept.
            if self.lives() { Ok(()) } else { Err(dead()) }
        })
    }
}

/// The room's process.
pub struct Server {
    sql: Mortal,
    host: Option<Host<App>>,
    epochs: u32,
    /// Connections with their stored state, as the runtime keeps them through hibernation.
    asleep: Vec<Connection>,
}

impl Server {
    /// A room with empty storage.
    pub fn new() -> Result<Self> {
        let sql = Mortal { inner: Sqlite::in_memory()?, left: Cell::new(None) };
        Ok(Self { sql, host: None, epochs: 0, asleep: Vec::new() })
    }

    /// The database, read from outside.
    pub fn sql(&self) -> &dyn Sql {
        &self.sql.inner
    }

    /// Runs an event. `None` when the process died of it: its sockets are gone.
    fn event<T>(
        &mut self,
        now: Timestamp,
        event: impl FnOnce(&Mortal, &mut Host<App>) -> Result<T>,
    ) -> Result<Option<(T, Vec<Output>)>> {
        let result = (|| {
            if self.host.is_none() {
                self.epochs += 1;
                let (epoch, awake) = (format!("epoch-{}", self.epochs), self.asleep.clone());
                self.host = Some(Host::open(&App, &self.sql, "room", now, &epoch, awake)?);
            }
            let host = self.host.as_mut().ok_or_else(dead)?;
            host.tick(&self.sql, now)?;
            let value = event(&self.sql, host)?;
            Ok((value, host.take_output()))
        })();
        if !self.sql.lives() {
            self.die();
            return Ok(None);
        }
        result.map(Some)
    }

    fn die(&mut self) {
        self.sql.left.set(None);
        self.host = None;
        self.asleep.clear();
    }

    /// The process is killed between two events.
    pub fn kill(&mut self) {
        self.die();
    }

    /// The process will die after this many more statements.
    pub fn doom(&mut self, statements: u32) {
        self.sql.left.set(Some(statements));
    }

    /// The object goes to sleep; its sockets stay open.
    pub fn hibernate(&mut self, connections: &[String]) {
        if let Some(host) = self.host.take() {
            let stored = connections.iter().filter_map(|id| host.connection(id));
            self.asleep = stored.cloned().collect();
        }
    }

    /// The process is killed and its storage is empty when it is back.
    pub fn wipe(&mut self) -> Result<()> {
        self.die();
        self.sql.inner = Sqlite::in_memory()?;
        Ok(())
    }

    /// A client connects.
    pub fn connect(&mut self, id: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let connection = Connection::new(id, Protocol::V2);
        let event = self.event(now, |sql, host| {
            host.connect(&App, sql, connection, &http::Request::new(())).map(drop)
        })?;
        Ok(event.map(|((), out)| out))
    }

    /// A client's socket is gone.
    pub fn close(&mut self, id: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let event = self.event(now, |sql, host| host.close(&App, sql, id))?;
        Ok(event.map(|((), out)| out))
    }

    /// The alarm rings, if it is time.
    pub fn alarm(&mut self, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let event = self.event(now, |sql, host| host.alarm(&App, sql))?;
        Ok(event.map(|((), out)| out))
    }

    /// A frame comes.
    pub fn receive(&mut self, id: &str, text: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let event = self.event(now, |sql, host| {
            if let Some(batch) = host.receive(&App, sql, id, &Incoming::Text(text))? {
                for item in batch.items {
                    if host.commit(&App, sql, &batch.connection, item)? == Outcome::Gap {
                        break;
                    }
                }
                host.flush(sql)?;
            }
            Ok(())
        })?;
        Ok(event.map(|((), out)| out))
    }
}
