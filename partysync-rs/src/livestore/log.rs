//! A store's event log in the SQLite of its object.

use super::context;
use super::event::Event;
use super::table::{Context, Page, PageLimits, Table, batches, table_name};
use crate::sql::{Sql, Value};
use crate::{Result, params};

/// A store's log.
#[derive(Clone, Debug)]
pub struct Log {
    store: String,
    table: Table,
}

impl Log {
    /// Opens a store's log, made if it is not there. What the context says of the head is put
    /// right by the log; also gives what it has said.
    ///
    /// # Errors
    /// What SQLite says; [`Code::Forbidden`](crate::Code::Forbidden) where the object holds another
    /// store.
    pub fn open(
        sql: &dyn Sql,
        store: &str,
        fresh_backend_id: &str,
    ) -> Result<(Self, Context, Option<u64>)> {
        let table = Table::new(&table_name(store));
        sql.exec(&table.create, &[])?;
        let head = sql.query_one(&table.head, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))?;
        let (context, known) = context::open(sql, store, fresh_backend_id, head)?;
        Ok((Self { store: store.to_owned(), table }, context, known))
    }

    /// Appends a batch that goes on from the head: all of it, or nothing.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn append(&self, sql: &dyn Sql, events: &[Event], created_at: &str) -> Result<()> {
        let Some(last) = events.last() else { return Ok(()) };
        sql.transaction(&mut || {
            for (_, rows) in batches(events) {
                sql.exec(&self.table.insert, &params![rows.as_str(), created_at])?;
            }
            context::set_head(sql, &self.store, last.seq_num)
        })
    }

    /// Removes all events, and gives the log another id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn empty(&self, sql: &dyn Sql, fresh_backend_id: &str) -> Result<Context> {
        let context = Context { backend_id: fresh_backend_id.to_owned(), head: 0 };
        sql.transaction(&mut || {
            let head = sql.query_one(&self.table.head, [], |row| row.get::<i64>(0))?;
            sql.exec(&self.table.empty, &params![head])?;
            context::set(sql, &self.store, &context)
        })?;
        Ok(context)
    }

    /// The events behind a number up to another, as many as a page holds.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn page(
        &self,
        sql: &dyn Sql,
        (after, upto): (u64, u64),
        limits: PageLimits,
    ) -> Result<Page> {
        let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let bytes = i64::try_from(limits.bytes).unwrap_or(i64::MAX);
        let params = params![integer(after), limits.events.max(1), bytes, integer(upto)];
        sql.query_one(&self.table.page, params, |row| {
            Ok(Page {
                events: row.get::<Option<String>>(0)?.unwrap_or_default(),
                count: row.get::<i64>(1)?.unsigned_abs(),
                last: row.get::<Option<i64>>(2)?.map_or(after, i64::unsigned_abs),
            })
        })
    }
}
