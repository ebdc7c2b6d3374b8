//! The room's database in the simulation: the process can die at any statement, and a statement
//! can fail because the disk is full or broken.

use partysync::sql::{Row, Sql, Sqlite, Turns, Value};
use partysync::{Code, Error, Result};
use std::cell::Cell;
use std::ops::ControlFlow;

/// SQLite in a process that dies, or on a disk that fails, at a statement of the world's choice.
/// What was not committed is rolled back, as SQLite does when it is opened again.
pub struct Disk {
    pub(crate) inner: Sqlite,
    /// Statements until the process dies; `None` lives on.
    dies: Cell<Option<u32>>,
    /// Statements until one fails, and how many fail then.
    fails: Cell<Option<(u32, u32)>>,
}

fn dead() -> Error {
    Error::new(Code::Storage, "the process died")
}

impl Disk {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { inner: Sqlite::in_memory()?, dies: Cell::new(None), fails: Cell::new(None) })
    }

    pub(crate) fn lives(&self) -> bool {
        self.dies.get() != Some(0)
    }

    /// The process will die after this many more statements.
    pub(crate) fn doom(&self, statements: u32) {
        self.dies.set(Some(statements));
    }

    /// After this many more statements, so many fail.
    pub(crate) fn fail(&self, statements: u32, times: u32) {
        self.fails.set(Some((statements, times)));
    }

    /// A new process, on a disk that works.
    pub(crate) fn restart(&self) {
        self.dies.set(None);
        self.fails.set(None);
    }

    /// One more statement.
    fn step(&self) -> Result<()> {
        if !self.lives() {
            return Err(dead());
        }
        self.dies.set(self.dies.get().map(|left| left - 1));
        match self.fails.get() {
            None => Ok(()),
            Some((0, 0)) => {
                self.fails.set(None);
                Ok(())
            }
            Some((0, times)) => {
                self.fails.set(Some((0, times - 1)));
                Err(Error::from_sqlite("database or disk is full: SQLITE_FULL"))
            }
            Some((left, times)) => {
                self.fails.set(Some((left - 1, times)));
                Ok(())
            }
        }
    }
}

impl Sql for Disk {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.step()?;
        self.inner.scan(sql, params, each)
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.inner.transaction(&mut || {
            body()?;
            // Dead before the release: nothing of it is kept.
            if self.lives() { Ok(()) } else { Err(dead()) }
        })
    }
}

impl Turns for Disk {
    fn begin(&self) -> Result<()> {
        self.inner.begin()
    }

    fn commit(&self) -> Result<()> {
        // The commit is where a full disk is noticed, if it was not before.
        self.step()?;
        self.inner.commit()
    }

    fn roll_back(&self) -> Result<()> {
        self.inner.roll_back()
    }
}
