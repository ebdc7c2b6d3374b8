//! The room's process in the simulation: it can die at any statement, and be built anew from its
//! database; sleep with its sockets open; lose its storage.

use crate::app::{App, NextApp};
use partysync::room::{Incoming, Item, Outcome, Output};
use partysync::sql::{Row, Sql, Sqlite, Value};
use partysync::{Batch, Code, Connection, Error, Host, Protocol, Result, SyncServer, Timestamp};
use std::cell::Cell;
use std::collections::VecDeque;

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

/// A push whose hooks are awaited, with what its connection sent meanwhile.
struct Slow<A> {
    batch: Batch<A>,
    items: VecDeque<Item<A>>,
    frames: VecDeque<String>,
}

/// A room in memory, of either version of the application.
struct Process<S: SyncServer> {
    server: S,
    host: Host<S>,
    slow: Vec<Slow<S::Action>>,
}

impl<S: SyncServer> Process<S> {
    fn receive(&mut self, sql: &Mortal, id: &str, text: &str) -> Result<()> {
        if let Some(slow) = self.slow.iter_mut().find(|slow| slow.batch.connection.id() == id) {
            slow.frames.push_back(text.to_owned());
            return Ok(());
        }
        if let Some(mut batch) = self.host.receive(&self.server, sql, id, &Incoming::Text(text))? {
            let items = std::mem::take(&mut batch.items).into();
            self.slow.push(Slow { batch, items, frames: VecDeque::new() });
        }
        Ok(())
    }

    /// One hook returns: its action is committed, or the push is done.
    fn resume(&mut self, sql: &Mortal, which: usize) -> Result<()> {
        if self.slow.is_empty() {
            return Ok(());
        }
        let which = which % self.slow.len();
        let slow = &mut self.slow[which];
        if let Some(item) = slow.items.pop_front() {
            let outcome = self.host.commit(&self.server, sql, &slow.batch.connection, item)?;
            if outcome == Outcome::Gap {
                slow.items.clear();
            }
            return Ok(());
        }
        let Slow { batch, mut frames, .. } = self.slow.remove(which);
        self.host.flush(sql)?;
        while let Some(frame) = frames.pop_front() {
            self.receive(sql, batch.connection.id(), &frame)?;
        }
        Ok(())
    }
}

enum AnyProcess {
    Now(Process<App>),
    Next(Process<NextApp>),
}

macro_rules! with {
    ($any:expr, $process:ident => $body:expr) => {
        match $any {
            AnyProcess::Now($process) => $body,
            AnyProcess::Next($process) => $body,
        }
    };
}

/// The room's process.
pub struct Server {
    sql: Mortal,
    process: Option<AnyProcess>,
    epochs: u32,
    /// Which version of the application is deployed.
    next: bool,
    /// Whether hooks take time, in which other things happen.
    slow_hooks: bool,
    /// Connections with their stored state, as the runtime keeps them through hibernation.
    asleep: Vec<Connection>,
}

impl Server {
    /// A room with empty storage.
    pub fn new(slow_hooks: bool) -> Result<Self> {
        let sql = Mortal { inner: Sqlite::in_memory()?, left: Cell::new(None) };
        Ok(Self { sql, process: None, epochs: 0, next: false, slow_hooks, asleep: Vec::new() })
    }

    /// The database, read from outside.
    pub fn sql(&self) -> &dyn Sql {
        &self.sql.inner
    }

    fn start(&mut self, now: Timestamp) -> Result<AnyProcess> {
        self.epochs += 1;
        let (epoch, awake) = (format!("epoch-{}", self.epochs), self.asleep.clone());
        Ok(if self.next {
            let host = Host::open(&NextApp, &self.sql, "room", now, &epoch, awake)?;
            AnyProcess::Next(Process { server: NextApp, host, slow: Vec::new() })
        } else {
            let host = Host::open(&App, &self.sql, "room", now, &epoch, awake)?;
            AnyProcess::Now(Process { server: App, host, slow: Vec::new() })
        })
    }

    /// Runs an event. `None` when the process died of it: its sockets are gone.
    fn event(
        &mut self,
        now: Timestamp,
        event: impl FnOnce(&Mortal, &mut AnyProcess) -> Result<()>,
    ) -> Result<Option<Vec<Output>>> {
        let result = (|| {
            let mut process = match self.process.take() {
                Some(process) => process,
                None => self.start(now)?,
            };
            with!(&mut process, process => process.host.tick(&self.sql, now))?;
            event(&self.sql, &mut process)?;
            let out = with!(&mut process, process => process.host.take_output());
            self.process = Some(process);
            Ok(out)
        })();
        if !self.sql.lives() {
            self.kill();
            return Ok(None);
        }
        result.map(Some)
    }

    /// The process is killed between two events.
    pub fn kill(&mut self) {
        self.sql.left.set(None);
        self.process = None;
        self.asleep.clear();
    }

    /// The application's next version is deployed.
    pub fn upgrade(&mut self) {
        self.kill();
        self.next = true;
    }

    /// The process will die after this many more statements.
    pub fn doom(&mut self, statements: u32) {
        self.sql.left.set(Some(statements));
    }

    /// The object goes to sleep; its sockets stay open. One that awaits a hook does not.
    pub fn hibernate(&mut self, connections: &[String]) {
        let Some(process) = &self.process else { return };
        if with!(process, process => process.slow.is_empty()) {
            let stored = connections
                .iter()
                .filter_map(|id| with!(process, process => process.host.connection(id)));
            self.asleep = stored.cloned().collect();
            self.process = None;
        }
    }

    /// The process is killed and its storage is empty when it is back.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill();
        self.sql.inner = Sqlite::in_memory()?;
        Ok(())
    }

    /// A client connects.
    pub fn connect(&mut self, id: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let connection = Connection::new(id, Protocol::V2);
        self.event(now, |sql, process| {
            let request = http::Request::new(());
            with!(process, process => {
                process.host.connect(&process.server, sql, connection, &request).map(drop)
            })
        })
    }

    /// A client's socket is gone.
    pub fn close(&mut self, id: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        self.event(
            now,
            |sql, process| with!(process, process => process.host.close(&process.server, sql, id)),
        )
    }

    /// The alarm rings, if it is time.
    pub fn alarm(&mut self, now: Timestamp) -> Result<Option<Vec<Output>>> {
        self.event(
            now,
            |sql, process| with!(process, process => process.host.alarm(&process.server, sql)),
        )
    }

    /// A frame comes.
    pub fn receive(&mut self, id: &str, text: &str, now: Timestamp) -> Result<Option<Vec<Output>>> {
        let slow_hooks = self.slow_hooks;
        self.event(now, |sql, process| {
            with!(process, process => {
                process.receive(sql, id, text)?;
                while !slow_hooks && !process.slow.is_empty() {
                    process.resume(sql, 0)?;
                }
                Ok(())
            })
        })
    }

    /// Whether a hook is awaited.
    pub fn is_slow(&self) -> bool {
        self.process.as_ref().is_some_and(|p| with!(p, process => !process.slow.is_empty()))
    }

    /// One of the hooks that are awaited returns.
    pub fn resume(&mut self, which: usize, now: Timestamp) -> Result<Option<Vec<Output>>> {
        self.event(now, |sql, process| with!(process, process => process.resume(sql, which)))
    }
}
