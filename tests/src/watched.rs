//! A database of which a test hears each statement, and decides whether it may run.

use partysync::Result;
use partysync::sql::{Row, Sql, Sqlite, Turns, Value};
use std::fmt;
use std::ops::ControlFlow;
use std::rc::Rc;

type Before = dyn Fn(&str, &[Value]) -> Result<()>;

/// SQLite, and what is called before each statement: one that it refuses does not run.
#[derive(Clone)]
pub struct Watched {
    /// The database, unwatched.
    pub db: Rc<Sqlite>,
    before: Rc<Before>,
}

impl Watched {
    /// This database, whose statements `before` hears of.
    pub fn new(db: &Rc<Sqlite>, before: impl Fn(&str, &[Value]) -> Result<()> + 'static) -> Self {
        Self { db: db.clone(), before: Rc::new(before) }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Sql for Watched {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        (self.before)(sql, params)?;
        self.db.scan(sql, params, each)
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.db.transaction(body)
    }
}

impl Turns for Watched {
    fn begin(&self) -> Result<()> {
        self.db.begin()
    }

    fn commit(&self) -> Result<()> {
        self.db.commit()
    }

    fn roll_back(&self) -> Result<()> {
        self.db.roll_back()
    }
}
