//! What a store keeps of its subscribers, in a table of its own beside LiveStore's.

use super::envelope::Id;
use super::io::Reached;
use super::subscriber::Subscriber;
use crate::sql::{Sql, Value};
use crate::{Result, Timestamp, params};

/// The subscribers' table.
#[derive(Debug)]
pub(super) struct Kept {
    /// Whether the table is there: most stores need none.
    made: bool,
}

impl Kept {
    /// Reads what an earlier life has kept.
    pub(super) fn open(sql: &dyn Sql) -> Result<(Self, Vec<(Subscriber, Reached)>)> {
        let table = "SELECT count(*) FROM sqlite_master WHERE name = '_partysync_subscriber'";
        let made = sql.query_one(table, [], |row| row.get::<i64>(0))? > 0;
        let mut known = Vec::new();
        if made {
            let all = "SELECT binding, object, request, at, failing_since, subscribed_at \
                       FROM _partysync_subscriber ORDER BY rowid";
            sql.query_map(all, [], |row| {
                let reached = Reached {
                    at: row.get::<i64>(3)?.unsigned_abs(),
                    failing_since: row.get::<Option<i64>>(4)?.map(Timestamp::from_millis),
                    subscribed_at: Timestamp::from_millis(row.get(5)?),
                };
                if let Some(request) = Id::from_json(&row.get::<String>(2)?) {
                    let (binding, object) = (row.get(0)?, row.get(1)?);
                    known.push((Subscriber { binding, object, request }, reached));
                }
                Ok(())
            })?;
        }
        Ok((Self { made }, known))
    }

    /// Keeps how far a subscriber is, or forgets it.
    pub(super) fn keep(
        &mut self,
        sql: &dyn Sql,
        whom: &Subscriber,
        reached: Option<Reached>,
    ) -> Result<()> {
        if !self.made {
            let table = "CREATE TABLE IF NOT EXISTS _partysync_subscriber (binding TEXT NOT NULL, \
                         object TEXT NOT NULL, request TEXT NOT NULL, at INTEGER NOT NULL, \
                         failing_since INTEGER, subscribed_at INTEGER NOT NULL, UNIQUE (binding, object, request)) STRICT";
            sql.exec(table, &[])?;
            self.made = true;
        }
        let Subscriber { binding, object, request } = whom;
        let request = request.to_json();
        let Some(Reached { at, failing_since, subscribed_at }) = reached else {
            let forget = "DELETE FROM _partysync_subscriber \
                          WHERE binding = ? AND object = ? AND request = ?";
            return sql.exec(forget, &params![binding.as_str(), object.as_str(), request]);
        };
        let set = "INSERT INTO _partysync_subscriber \
                   (binding, object, request, at, failing_since, subscribed_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE \
                   SET at = excluded.at, failing_since = excluded.failing_since";
        let at = Value::Integer(i64::try_from(at).unwrap_or(i64::MAX));
        let since = failing_since.map(Timestamp::as_millis);
        let (binding, object) = (binding.as_str(), object.as_str());
        sql.exec(set, &params![binding, object, request, at, since, subscribed_at.as_millis()])
    }
}
