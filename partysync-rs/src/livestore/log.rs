//! A store's event log in SQLite, in tables named and shaped as LiveStore's own: format version 7.

use super::event::Event;
use crate::sql::{Sql, Value, quote};
use crate::wire::write::{Object, separate, string};
use crate::{Code, Error, Result, params};

/// The version of the format, which is part of the tables' names.
const FORMAT: u32 = 7;
/// About the most bytes of events that one statement inserts.
const STATEMENT_BYTES: usize = 1_000_000;
/// The bytes of an event's envelope in a page, without its texts.
const ENVELOPE_BYTES: usize = 256;

/// What a store knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The log's id: another one means another log, and clients start over.
    pub backend_id: String,
    /// The last event's number; 0 of an empty log.
    pub head: u64,
}

/// Events as they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Each as JSON, with commas between them.
    pub events: String,
    /// How many there are.
    pub count: u64,
    /// The number of the last one, or where the page began.
    pub last: u64,
}

/// The most that a page holds.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Events.
    pub events: u32,
    /// Bytes; a larger event comes alone.
    pub bytes: usize,
}

/// A store's log.
#[derive(Clone, Debug)]
pub struct Log {
    store: String,
    insert: String,
    page: String,
}

/// A store's id as its table is named: what is no letter and no digit is a `_` for each UTF-16
/// unit.
fn table_name(store: &str) -> String {
    let mut name = format!("eventlog_{FORMAT}_");
    for letter in store.chars() {
        if letter.is_ascii_alphanumeric() {
            name.push(letter);
        } else {
            name.extend(std::iter::repeat_n('_', letter.len_utf16()));
        }
    }
    name
}

impl Log {
    /// Opens a store's log, made if it is not there. What the context says of the head is put
    /// right by the log.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn open(sql: &dyn Sql, store: &str, fresh_backend_id: &str) -> Result<(Self, Context)> {
        let (table, context) = (quote(&table_name(store)), quote(&format!("context_{FORMAT}")));
        sql.exec(
            &format!(
                "CREATE TABLE IF NOT EXISTS {table} (\"seqNum\" integer primary key   , \
                 \"parentSeqNum\" integer   not null , \"name\" text   not null , \
                 \"args\" text    , \"createdAt\" text   not null , \
                 \"clientId\" text   not null , \"sessionId\" text   not null ) strict"
            ),
            &[],
        )?;
        sql.exec(
            &format!(
                "CREATE TABLE IF NOT EXISTS {context} (\"storeId\" text primary key   , \
                 \"currentHead\" integer   not null , \"backendId\" text   not null ) strict"
            ),
            &[],
        )?;
        let head = format!("SELECT coalesce(max(seqNum), 0) FROM {table}");
        let head = sql.query_one(&head, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs()))?;
        let known = format!("SELECT backendId, currentHead FROM {context} WHERE storeId = ?");
        let known = sql.query_opt(&known, params![store], |row| {
            Ok((row.get::<String>(0)?, row.get::<i64>(1)?.unsigned_abs()))
        })?;
        let other = format!("SELECT storeId FROM {context} WHERE storeId <> ?");
        let other = sql.query_opt(&other, params![store], |row| row.get::<String>(0))?;
        if let (None, Some(other)) = (&known, other) {
            let message = format!("this object holds the store `{other}`, not `{store}`");
            return Err(Error::new(Code::Forbidden, message));
        }
        let log = Self {
            store: store.to_owned(),
            insert: format!(
                "INSERT INTO {table} (seqNum, parentSeqNum, name, args, createdAt, clientId, \
                 sessionId) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?2, \
                 value ->> 4, value ->> 5 FROM json_each(?1)"
            ),
            page: page_sql(&table),
        };
        let backend_id = match known {
            Some((backend_id, known)) if known == head => {
                return Ok((log, Context { backend_id, head }));
            }
            Some((backend_id, _)) => backend_id,
            None => fresh_backend_id.to_owned(),
        };
        let set = format!(
            "INSERT INTO {context} (storeId, currentHead, backendId) VALUES (?, ?, ?) \
             ON CONFLICT (storeId) DO UPDATE SET currentHead = excluded.currentHead"
        );
        sql.exec(&set, &params![store, integer(head), backend_id.as_str()])?;
        Ok((log, Context { backend_id, head }))
    }

    /// Appends a batch that goes on from the head: all of it, or nothing.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn append(&self, sql: &dyn Sql, events: &[Event], created_at: &str) -> Result<()> {
        let Some(last) = events.last() else { return Ok(()) };
        let head = integer(last.seq_num);
        sql.transaction(&mut || {
            let mut rows = String::from("[");
            for event in events {
                let more = row(event);
                if rows.len() > 1 && rows.len() + more.len() > STATEMENT_BYTES {
                    self.insert(sql, &mut rows, created_at)?;
                }
                if rows.len() > 1 {
                    rows.push(',');
                }
                rows.push_str(&more);
            }
            self.insert(sql, &mut rows, created_at)?;
            let set = format!(
                "UPDATE {} SET currentHead = ? WHERE storeId = ?",
                quote(&format!("context_{FORMAT}"))
            );
            sql.exec(&set, &params![head.clone(), self.store.as_str()])
        })
    }

    /// Removes all events, and gives the log another id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn empty(&self, sql: &dyn Sql, fresh_backend_id: &str) -> Result<Context> {
        let table = quote(&table_name(&self.store));
        sql.transaction(&mut || {
            sql.exec(&format!("DELETE FROM {table}"), &[])?;
            let context = quote(&format!("context_{FORMAT}"));
            let set =
                format!("UPDATE {context} SET currentHead = 0, backendId = ? WHERE storeId = ?");
            sql.exec(&set, &params![fresh_backend_id, self.store.as_str()])
        })?;
        Ok(Context { backend_id: fresh_backend_id.to_owned(), head: 0 })
    }

    fn insert(&self, sql: &dyn Sql, rows: &mut String, created_at: &str) -> Result<()> {
        rows.push(']');
        let rows = std::mem::replace(rows, String::from("["));
        sql.exec(&self.insert, &params![rows.as_str(), created_at])
    }

    /// The events behind a number, as many as a page holds.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn page(&self, sql: &dyn Sql, after: u64, limits: PageLimits) -> Result<Page> {
        let params = params![
            integer(after),
            limits.events.max(1),
            i64::try_from(limits.bytes).unwrap_or(i64::MAX)
        ];
        sql.query_one(&self.page, params, |row| {
            Ok(Page {
                events: row.get::<Option<String>>(0)?.unwrap_or_default(),
                count: row.get::<i64>(1)?.unsigned_abs(),
                last: row.get::<Option<i64>>(2)?.map_or(after, i64::unsigned_abs),
            })
        })
    }
}

/// A page is made by SQLite, and crosses as one text: events are JSON that nobody parses again.
fn page_sql(table: &str) -> String {
    // A quoted letter may be six times as long. Sizes are read without the texts.
    let size = format!(
        "coalesce(octet_length(args), 4) + {ENVELOPE_BYTES} + octet_length(createdAt) + \
         2 * (octet_length(name) + octet_length(clientId) + octet_length(sessionId))"
    );
    let end = format!(
        "SELECT max(seqNum) FROM (SELECT seqNum, \
         sum(bytes) OVER (ORDER BY seqNum) AS size, row_number() OVER (ORDER BY seqNum) AS n \
         FROM (SELECT seqNum, {size} AS bytes FROM {table} WHERE seqNum > ?1 \
         ORDER BY seqNum LIMIT ?2)) \
         WHERE size <= ?3 OR n = 1"
    );
    let event = "'{\"eventEncoded\":{\"name\":' || json_quote(name) || ',\"args\":' || \
         coalesce(args, 'null') || ',\"seqNum\":' || seqNum || ',\"parentSeqNum\":' || \
         parentSeqNum || ',\"clientId\":' || json_quote(clientId) || ',\"sessionId\":' || \
         json_quote(sessionId) || '},\"metadata\":{\"_tag\":\"Some\",\"value\":{\"_tag\":\
         \"SyncMessage.SyncMetadata\",\"createdAt\":' || json_quote(createdAt) || '}}}'";
    format!(
        "SELECT group_concat({event}, ',' ORDER BY seqNum), count(*), max(seqNum) FROM {table} \
         WHERE seqNum > ?1 AND seqNum <= ({end})"
    )
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A row for the statement that inserts: its arguments as the text that they are.
fn row(event: &Event) -> String {
    let Event { name, args, seq_num, parent_seq_num, client_id, session_id } = event;
    let mut rows = format!("[{seq_num},{parent_seq_num},");
    string(&mut rows, name);
    rows.push(',');
    match args {
        Some(args) => string(&mut rows, args.get()),
        None => rows.push_str("null"),
    }
    for text in [client_id, session_id] {
        rows.push(',');
        string(&mut rows, text);
    }
    rows.push(']');
    rows
}

/// Events of a push as they are sent to those who follow.
pub(super) fn render(events: &[Event], created_at: &str) -> String {
    let mut value = Object::new();
    value.text("_tag", "SyncMessage.SyncMetadata").text("createdAt", created_at);
    let mut metadata = Object::new();
    metadata.text("_tag", "Some").json("value", &value.end());
    let metadata = metadata.end();
    let mut out = String::new();
    for event in events {
        separate(&mut out);
        let Event { name, args, seq_num, parent_seq_num, client_id, session_id } = event;
        let mut encoded = Object::new();
        encoded.text("name", name).json("args", args.as_ref().map_or("null", |args| args.get()));
        encoded.number("seqNum", *seq_num).number("parentSeqNum", *parent_seq_num);
        encoded.text("clientId", client_id).text("sessionId", session_id);
        let mut item = Object::new();
        item.json("eventEncoded", &encoded.end()).json("metadata", &metadata);
        out.push_str(&item.end());
    }
    out
}

/// Why storage has failed, for a client.
pub(super) fn failed(error: &Error) -> super::envelope::Failure {
    super::envelope::Failure::unknown(error.code().as_str(), error.message())
}
