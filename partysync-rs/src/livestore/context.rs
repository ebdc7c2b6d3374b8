//! What a store knows of itself, in the object's SQLite wherever its log is: LiveStore's table
//! `context_7`.

use super::table::{Context, FORMAT};
use crate::sql::{Sql, Value, quote};
use crate::{Code, Error, Result, params};

fn table() -> String {
    quote(&format!("context_{FORMAT}"))
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The store that the object holds. There may be no table yet, which is an error.
pub(super) fn any(sql: &dyn Sql) -> Result<Option<String>> {
    sql.query_opt(&format!("SELECT storeId FROM {} LIMIT 1", table()), [], |row| row.get(0))
}

/// What is known of a store.
pub(super) fn known(sql: &dyn Sql, store: &str) -> Result<Option<Context>> {
    let context = table();
    sql.exec(
        &format!(
            "CREATE TABLE IF NOT EXISTS {context} (\"storeId\" text primary key   , \
             \"currentHead\" integer   not null , \"backendId\" text   not null ) strict"
        ),
        &[],
    )?;
    let known = format!("SELECT backendId, currentHead FROM {context} WHERE storeId = ?");
    let known = sql.query_opt(&known, params![store], |row| {
        Ok(Context { backend_id: row.get(0)?, head: row.get::<i64>(1)?.unsigned_abs() })
    })?;
    let other = format!("SELECT storeId FROM {context} WHERE storeId <> ?");
    let other = sql.query_opt(&other, params![store], |row| row.get::<String>(0))?;
    if let (None, Some(other)) = (&known, other) {
        let message = format!("this object holds the store `{other}`, not `{store}`");
        return Err(Error::new(Code::Forbidden, message));
    }
    Ok(known)
}

/// What is known of a store whose log ends here: a log is believed over its context. One that has
/// lost events is another log, with another id: clients that have more of it start over.
/// Also gives where the context has said that the log ends.
pub(super) fn open(
    sql: &dyn Sql,
    store: &str,
    fresh: &str,
    head: u64,
) -> Result<(Context, Option<u64>)> {
    let known = known(sql, store)?;
    let said = known.as_ref().map(|known| known.head);
    if let Some(known) = &known
        && known.head == head
    {
        return Ok((known.clone(), said));
    }
    let goes_on = known.filter(|known| known.head <= head || crate::__mutated("livestore_lost"));
    let backend_id = goes_on.map_or_else(|| fresh.to_owned(), |known| known.backend_id);
    let context = Context { backend_id, head };
    set(sql, store, &context)?;
    Ok((context, said))
}

pub(super) fn set(sql: &dyn Sql, store: &str, context: &Context) -> Result<()> {
    let set = format!(
        "INSERT INTO {} (storeId, currentHead, backendId) VALUES (?, ?, ?) ON CONFLICT (storeId) \
         DO UPDATE SET currentHead = excluded.currentHead, backendId = excluded.backendId",
        table()
    );
    sql.exec(&set, &params![store, integer(context.head), context.backend_id.as_str()])
}

pub(super) fn set_head(sql: &dyn Sql, store: &str, head: u64) -> Result<()> {
    let set = format!("UPDATE {} SET currentHead = ? WHERE storeId = ?", table());
    sql.exec(&set, &params![integer(head), store])
}
