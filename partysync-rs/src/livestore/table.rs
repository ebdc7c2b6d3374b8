//! The table of a log, wherever it is: its name, its shape, its statements; and events as they are
//! written there and sent. All of it as LiveStore's own backend has it: format version 7.

use super::event::Event;
use crate::Error;
use crate::sql::quote;
use crate::wire::write::{Object, separate, string};

/// The version of the format, which is part of the tables' names.
pub(super) const FORMAT: u32 = 7;
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

/// The statements of a log's table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Makes it, if it is not there.
    pub create: String,
    /// The last event's number as `head`, or 0.
    pub head: String,
    /// Inserts events: `?1` are some of [`batches`], `?2` is the time.
    pub insert: String,
    /// The same if the log ends with the event `?3`; it fails otherwise. For where others may have
    /// changed the log.
    pub insert_behind: String,
    /// A page: its `events` as one text, their `count`, the number of the `last` one. `?1` is what it
    /// begins behind, `?2` and `?3` are its limits, `?4` is the last event that may be in it.
    pub page: String,
    /// Removes all events, if the log ends with the event `?1`.
    pub empty: String,
}

impl Table {
    /// The statements of the table of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let table = quote(name);
        let head = format!("SELECT coalesce(max(seqNum), 0) AS head FROM {table}");
        let insert = |parent: &str| {
            format!(
                "INSERT INTO {table} (seqNum, parentSeqNum, name, args, createdAt, clientId, \
                 sessionId) SELECT value ->> 0, {parent}, value ->> 2, value ->> 3, ?2, \
                 value ->> 4, value ->> 5 FROM json_each(?1)"
            )
        };
        Self {
            insert: insert("value ->> 1"),
            // No event is without a parent: the statement fails.
            insert_behind: insert(&format!("iif(({head}) = ?3, value ->> 1, NULL)")),
            create: format!(
                "CREATE TABLE IF NOT EXISTS {table} (\"seqNum\" integer primary key   , \
                 \"parentSeqNum\" integer   not null , \"name\" text   not null , \
                 \"args\" text    , \"createdAt\" text   not null , \
                 \"clientId\" text   not null , \"sessionId\" text   not null ) strict"
            ),
            empty: format!("DELETE FROM {table} WHERE ({head}) = ?1"),
            head,
            page: page_sql(&table),
        }
    }
}

/// A store's id as its table is named: what is no letter and no digit is a `_` for each UTF-16
/// unit. So two stores may have one name, which LiveStore's own backend does not see in D1.
#[must_use]
pub fn table_name(store: &str) -> String {
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

/// Events for [`Table::insert`], as many as one statement takes in each, with the number of the
/// event that they are behind.
#[must_use]
pub fn batches(events: &[Event]) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let mut rows = String::from("[");
    let mut behind = events.first().map_or(0, |first| first.parent_seq_num);
    for event in events {
        let more = row(event);
        if rows.len() > 1 && rows.len() + more.len() > STATEMENT_BYTES {
            rows.push(']');
            all.push((behind, std::mem::replace(&mut rows, String::from("["))));
            behind = event.parent_seq_num;
        }
        if rows.len() > 1 {
            rows.push(',');
        }
        rows.push_str(&more);
    }
    rows.push(']');
    all.push((behind, rows));
    all
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
         FROM (SELECT seqNum, {size} AS bytes FROM {table} WHERE seqNum > ?1 AND seqNum <= ?4 \
         ORDER BY seqNum LIMIT ?2)) \
         WHERE size <= ?3 OR n = 1"
    );
    let event = "'{\"eventEncoded\":{\"name\":' || json_quote(name) || ',\"args\":' || \
         coalesce(args, 'null') || ',\"seqNum\":' || seqNum || ',\"parentSeqNum\":' || \
         parentSeqNum || ',\"clientId\":' || json_quote(clientId) || ',\"sessionId\":' || \
         json_quote(sessionId) || '},\"metadata\":{\"_tag\":\"Some\",\"value\":{\"_tag\":\
         \"SyncMessage.SyncMetadata\",\"createdAt\":' || json_quote(createdAt) || '}}}'";
    format!(
        "SELECT group_concat({event}, ',' ORDER BY seqNum) AS events, count(*) AS count, \
         max(seqNum) AS last FROM {table} \
         WHERE seqNum > ?1 AND seqNum <= ({end})"
    )
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
