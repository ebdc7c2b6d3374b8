//! The database beside the object: D1's part is played by another SQLite, with the same statements.
//! An operation is done when the world says so; one that was asked for in an earlier life may be
//! done in a later one.

use super::step::RemoteFault;
use partysync::livestore::{Context, Effect, Input, Page, Table, batches, table_name};
use partysync::sql::{Sql, Sqlite};
use partysync::{Code, Error, Result, params};
use std::collections::VecDeque;

pub(crate) struct Remote {
    sql: Sqlite,
    table: Table,
    /// What was asked for: in which life, and where the log ended then.
    under_way: VecDeque<(u32, u64, Effect)>,
}

impl Remote {
    pub(crate) fn new(store: &str) -> Result<Self> {
        let (sql, table) = (Sqlite::in_memory()?, Table::new(&table_name(store)));
        (&sql as &dyn Sql).exec(&table.create, &[])?;
        Ok(Self { sql, table, under_way: VecDeque::new() })
    }

    pub(crate) fn sql(&self) -> &dyn Sql {
        &self.sql
    }

    pub(crate) fn head(&self) -> Result<u64> {
        self.sql().query_one(&self.table.head, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))
    }

    /// It is set back to what it was so many events ago.
    pub(crate) fn lose(&self, count: u64) -> Result<()> {
        let last = i64::try_from(self.head()?.saturating_sub(count)).unwrap_or(i64::MAX);
        let lose = "DELETE FROM eventlog_7_store_1 WHERE seqNum > ?";
        self.sql().exec(lose, &params![last])
    }

    pub(crate) fn ask(&mut self, life: u32, head: u64, effect: Effect) {
        self.under_way.push_back((life, head, effect));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Does an operation: what comes of it, if it was asked for in this life.
    pub(crate) fn go(
        &mut self,
        which: usize,
        fault: RemoteFault,
        life: u32,
        context: Option<Context>,
    ) -> Option<Input<'static>> {
        if self.under_way.is_empty() {
            return None;
        }
        let (asked_in, asked_at, effect) = self.under_way.remove(which % self.under_way.len())?;
        let input = match effect {
            Effect::Append(push, created_at) => Input::Appended(self.done(fault, || {
                self.sql().transaction(&mut || {
                    batches(&push.events).iter().try_for_each(|(behind, rows)| {
                        let behind = i64::try_from(*behind).unwrap_or(i64::MAX);
                        let params = params![rows.as_str(), created_at.as_str(), behind];
                        self.sql().exec(&self.table.insert_behind, &params)
                    })
                })
            })),
            Effect::Read(reading) => {
                let after = reading.after();
                let page = self.done(fault, || {
                    let integer = |number| i64::try_from(number).unwrap_or(i64::MAX);
                    let params = params![integer(after), 2, 2_000, integer(reading.upto())];
                    self.sql().query_one(&self.table.page, params, |row| {
                        Ok(Page {
                            events: row.get::<Option<String>>(0)?.unwrap_or_default(),
                            count: row.get::<i64>(1)?.unsigned_abs(),
                            last: row.get::<Option<i64>>(2)?.map_or(after, i64::unsigned_abs),
                        })
                    })
                });
                Input::Read(reading, page)
            }
            Effect::Empty(backend_id) => Input::Emptied(self.done(fault, || {
                let last = i64::try_from(asked_at).unwrap_or(i64::MAX);
                self.sql().exec(&self.table.empty, &params![last])?;
                match self.head()? {
                    0 => Ok(Context { backend_id, head: 0 }),
                    _ => Err(Error::new(Code::Unavailable, "D1: the log ends elsewhere")),
                }
            })),
            _ => {
                let (head, context) = (self.done(fault, || self.head()), context?);
                let lost =
                    |head| Context { backend_id: format!("{}-lost", context.backend_id), head };
                Input::Loaded(head.map(|head| match head < context.head {
                    true => lost(head),
                    false => Context { head, ..context.clone() },
                }))
            }
        };
        (asked_in == life).then_some(input)
    }

    fn done<T>(&self, fault: RemoteFault, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let failure = || Error::new(Code::Unavailable, "D1: it fails");
        match fault {
            RemoteFault::None => body().map_err(|_| failure()),
            RemoteFault::Fails => Err(failure()),
            RemoteFault::Lies => body().and_then(|_| Err(failure())),
        }
    }
}
