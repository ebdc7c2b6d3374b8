//! The database as hooks and actions see it: the room's time is written before the first
//! statement of a turn that may change something, for the triggers and for SQL that asks for it.
//! A turn that only reads writes nothing.

use crate::sql::{COUNT_BEFORE, Row, Sql, Value};
use crate::{Code, Error, Result, Timestamp, store};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

/// What a turn has written so far.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Whether the room's time is in the database.
    stamped: Cell<bool>,
    /// Whether a statement ran that may have changed rows.
    pub(crate) rows: Cell<bool>,
    /// How many such statements were begun, whatever came of them.
    pub(crate) statements: Cell<u64>,
    /// What the storage has said when it failed: a hook may have passed over it.
    failed: RefCell<Option<Error>>,
}

impl Written {
    /// What the storage has said when it failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed.borrow().clone()
    }

    fn note(&self, result: &Result<()>) {
        if let Err(error) = result
            && error.code() == Code::Storage
        {
            *self.failed.borrow_mut() = Some(error.clone());
        }
    }
}

/// A database that is stamped with the room's time.
pub(crate) struct Stamped<'a> {
    pub(crate) sql: &'a dyn Sql,
    pub(crate) now: Timestamp,
    pub(crate) written: &'a Written,
}

impl Stamped<'_> {
    fn before(&self, statement: &str) -> Result<()> {
        // The stamp is not to be among the changes that are counted.
        if reads(statement) && statement != COUNT_BEFORE {
            return Ok(());
        }
        if !self.written.stamped.get() {
            store::set_now(self.sql, self.now)?;
            self.written.stamped.set(true);
        }
        self.written.rows.set(true);
        self.written.statements.update(|n| n + 1);
        Ok(())
    }
}

/// Whether a statement changes nothing. `WITH` may lead to anything, and so may what follows a
/// semicolon.
fn reads(statement: &str) -> bool {
    let word = statement.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next();
    ["SELECT", "VALUES", "EXPLAIN"].iter().any(|r| word.is_some_and(|w| w.eq_ignore_ascii_case(r)))
        && !statement.trim_end().trim_end_matches(';').contains(';')
}

/// Whether a statement changes nothing, also one that begins with `WITH`: none of the words with which
/// others change something is in it.
pub(super) fn only_reads(statement: &str) -> bool {
    let mut words = statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty());
    let with = words.next().is_some_and(|word| word.eq_ignore_ascii_case("WITH"));
    let writes = ["INSERT", "UPDATE", "DELETE", "REPLACE"];
    reads(statement)
        || with
            && statement.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("WITH"))
            && !statement.trim_end().trim_end_matches(';').contains(';')
            && !words.any(|word| writes.iter().any(|w| word.eq_ignore_ascii_case(w)))
}

impl Sql for Stamped<'_> {
    fn exec(&self, sql: &str, params: &[Value]) -> Result<()> {
        let result = self.before(sql).and_then(|()| self.sql.exec(sql, params));
        self.written.note(&result);
        result
    }

    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let result = self.before(sql).and_then(|()| self.sql.scan(sql, params, each));
        self.written.note(&result);
        result
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let before = (self.written.stamped.get(), self.written.rows.get());
        let result = self.sql.transaction(body);
        self.written.note(&result);
        if result.is_err() {
            // The stamp is gone with the rest.
            self.written.stamped.set(before.0);
            self.written.rows.set(before.1);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::{only_reads, reads};

    #[test]
    fn only_what_cannot_write_is_taken_for_reading() {
        assert!(reads(" select 1") && reads("VALUES (1)") && reads("SELECT(1)"));
        assert!(!reads("WITH a AS (SELECT 1) DELETE FROM b") && !reads("-- \nSELECT 1"));
        assert!(!reads("INSERT INTO a VALUES (1)") && !reads("SELECTED"));
        assert!(reads("SELECT 1; ") && !reads("SELECT 1; DELETE FROM a"));
    }

    #[test]
    fn a_query_that_begins_with_with_may_only_read() {
        assert!(only_reads("SELECT 1") && only_reads(" WITH a AS (SELECT 1) SELECT * FROM a"));
        assert!(!only_reads("WITH a AS (SELECT 1) DELETE FROM b") && !only_reads("PRAGMA a = 1"));
        assert!(!only_reads("WITH a AS (SELECT 1) SELECT 1; DROP TABLE b"));
    }
}
