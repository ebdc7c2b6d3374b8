//! The room's copy of the log, and what it knows of its backend: the tables `_partysync_event` and
//! `_partysync_events`.

use crate::sql::{Sql, Value};
use crate::store::integer;
use crate::{Error, Result, Timestamp, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value as Json};
use std::ops::ControlFlow;

/// An event of the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Logged {
    pub(super) seq_num: u64,
    /// The event before it, where the backend says so.
    #[serde(default)]
    pub(super) parent_seq_num: Option<u64>,
    pub(super) name: String,
    #[serde(default)]
    pub(super) args: Option<Box<RawValue>>,
    pub(super) client_id: String,
    pub(super) session_id: String,
    /// Its place in a log that the backend has begun anew since: it may have been pushed there.
    #[serde(skip)]
    pub(super) was: Option<u64>,
}

impl Logged {
    /// The arguments as they are kept: none where they are null.
    pub(super) fn args(&self) -> Option<&str> {
        self.args.as_ref().map(|args| args.get()).filter(|args| *args != "null")
    }

    /// Whether this is the event that was committed here.
    pub(super) fn is(&self, own: &Self) -> bool {
        let Self { seq_num, name, client_id, session_id, .. } = self;
        *seq_num == own.was.unwrap_or(own.seq_num)
            && *name == own.name
            && *client_id == own.client_id
            && *session_id == own.session_id
            && same(&value(self.args()), &value(own.args()))
    }
}

fn value(json: Option<&str>) -> Json {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or(Json::Null)
}

/// Whether two values are the same to JavaScript, through which the one has gone.
fn same(one: &Json, two: &Json) -> bool {
    match (one, two) {
        (Json::Number(one), Json::Number(two)) => one == two || one.as_f64() == two.as_f64(),
        (Json::Array(one), Json::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Json::Object(one), Json::Object(two)) => {
            one.len() == two.len()
                && one.iter().all(|(key, one)| two.get(key).is_some_and(|two| same(one, two)))
        }
        _ => one == two,
    }
}

/// The largest integer that JavaScript holds exactly.
pub(super) const SAFE: u64 = (1 << 53) - 1;

/// An integer in this that JavaScript does not hold as it is.
pub(super) fn inexact(json: &Json) -> Option<&Number> {
    match json {
        Json::Number(number) => {
            let size = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            size.is_some_and(|size| size > SAFE).then_some(number)
        }
        Json::Array(items) => items.iter().find_map(inexact),
        Json::Object(fields) => fields.values().find_map(inexact),
        _ => None,
    }
}

/// What is known beside the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    /// The backend that the log is of.
    pub(super) backend_id: Option<String>,
    /// The last event that the backend has; those behind it are this room's own, not pushed yet.
    pub(super) head: u64,
    /// Up to where rows were made, while they are made anew.
    pub(super) rebuilt_to: Option<u64>,
    /// What rows were made by.
    pub(super) made_by: String,
    /// The application's alarm.
    pub(super) alarm: Option<Timestamp>,
    /// When the room has to do something by itself.
    pub(super) due: Option<Timestamp>,
    /// What the object's alarm is set to.
    pub(super) ring: Option<Timestamp>,
}

const TABLES: [&str; 3] = [
    "CREATE TABLE _partysync_event (
        seq INTEGER PRIMARY KEY, name TEXT NOT NULL, args TEXT, client TEXT NOT NULL,
        session TEXT NOT NULL, was INTEGER, failed TEXT) STRICT",
    "CREATE INDEX _partysync_event_was ON _partysync_event (was) WHERE was IS NOT NULL",
    "CREATE TABLE _partysync_events (
        id INTEGER PRIMARY KEY CHECK (id = 1), backend_id TEXT, head INTEGER NOT NULL DEFAULT 0,
        rebuilt_to INTEGER, made_by TEXT NOT NULL, applying INTEGER, alarm INTEGER, due INTEGER,
        ring INTEGER, logs INTEGER NOT NULL DEFAULT 0, client TEXT NOT NULL,
        session TEXT NOT NULL) STRICT",
];

/// Makes the tables where there are none; whether there were none.
pub(super) fn open(sql: &dyn Sql, made_by: &str, (client, session): (&str, &str)) -> Result<bool> {
    let known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_partysync_events'";
    if sql.query_opt(known, [], |_| Ok(()))?.is_some() {
        return Ok(false);
    }
    TABLES.iter().try_for_each(|table| sql.exec(table, &[]))?;
    let first = "INSERT INTO _partysync_events (id, made_by, client, session) \
                 VALUES (1, ?, ? || '-0', ?)";
    sql.exec(first, &params![made_by, client, session])?;
    Ok(true)
}

pub(super) fn state(sql: &dyn Sql) -> Result<State> {
    let all = "SELECT backend_id, head, rebuilt_to, made_by, alarm, due, ring \
               FROM _partysync_events";
    sql.query_one(all, [], |row| {
        Ok(State {
            backend_id: row.get(0)?,
            head: row.get::<i64>(1)?.unsigned_abs(),
            rebuilt_to: row.get::<Option<i64>>(2)?.map(i64::unsigned_abs),
            made_by: row.get(3)?,
            alarm: row.get(4)?,
            due: row.get(5)?,
            ring: row.get(6)?,
        })
    })
}

pub(super) fn keep(sql: &dyn Sql, state: &State) -> Result<()> {
    let State { backend_id, head, rebuilt_to, made_by, alarm, due, ring } = state.clone();
    let all = "UPDATE _partysync_events SET backend_id = ?, head = ?, rebuilt_to = ?, \
               made_by = ?, alarm = ?, due = ?, ring = ?";
    let (head, rebuilt_to) = (integer(head), rebuilt_to.map_or(Value::Null, integer));
    sql.exec(all, &params![backend_id, head, rebuilt_to, made_by, alarm, due, ring])
}

/// Notes what is changed from here on as changes of this event; of none, as they are final.
pub(super) fn set_applying(sql: &dyn Sql, event: Option<u64>) -> Result<()> {
    let event = event.map_or(Value::Null, integer);
    sql.exec("UPDATE _partysync_events SET applying = ?", &[event])
}

/// The number of the last event, pushed or not, whose head this is.
pub(super) fn last(sql: &dyn Sql, head: u64) -> Result<u64> {
    let last = sql
        .query_one("SELECT max(seq) FROM _partysync_event", [], |row| row.get::<Option<i64>>(0))?;
    Ok(last.map_or(head, |last| last.unsigned_abs().max(head)))
}

/// Adds an event of this room's own.
pub(super) fn add_own(sql: &dyn Sql, seq: u64, name: &str, args: Option<&str>) -> Result<()> {
    let add = "INSERT INTO _partysync_event (seq, name, args, client, session) \
               SELECT ?, ?, ?, client, session FROM _partysync_events";
    let args = args.map_or(Value::Null, Value::from);
    sql.exec(add, &[integer(seq), name.into(), args])
}

/// Adds an event of the backend's.
pub(super) fn add(sql: &dyn Sql, event: &Logged) -> Result<()> {
    let add = "INSERT INTO _partysync_event (seq, name, args, client, session) \
               VALUES (?, ?, ?, ?, ?)";
    let Logged { seq_num, name, client_id, session_id, .. } = event;
    let args = event.args().map_or(Value::Null, Value::from);
    let (name, client, session) = (name.as_str(), client_id.as_str(), session_id.as_str());
    sql.exec(add, &[integer(*seq_num), name.into(), args, client.into(), session.into()])
}

/// Events of which this holds, in their order.
fn select(sql: &dyn Sql, condition: &str, params: &[Value]) -> Result<Vec<Logged>> {
    let events = format!(
        "SELECT seq, name, args, client, session, was FROM _partysync_event WHERE {condition}"
    );
    sql.query_map(&events, params, |row| {
        let args = row.get::<Option<String>>(2)?.map(RawValue::from_string).transpose();
        Ok(Logged {
            seq_num: row.get::<i64>(0)?.unsigned_abs(),
            parent_seq_num: None,
            name: row.get(1)?,
            args: args.map_err(|e| Error::new(crate::Code::InvalidValue, e.to_string()))?,
            client_id: row.get(3)?,
            session_id: row.get(4)?,
            was: row.get::<Option<i64>>(5)?.map(i64::unsigned_abs),
        })
    })
}

/// Hands each event behind this one to `each`, a few at a time, until that breaks: they may be large.
pub(super) fn each_after(
    sql: &dyn Sql,
    mut seq: u64,
    each: &mut dyn FnMut(Logged) -> Result<ControlFlow<()>>,
) -> Result<()> {
    const AT_ONCE: u32 = 16;
    loop {
        let few = &[integer(seq), Value::from(i64::from(AT_ONCE))];
        let events = select(sql, "seq > ? ORDER BY seq LIMIT ?", few)?;
        let more = events.len() == AT_ONCE as usize;
        for event in events {
            seq = event.seq_num;
            if each(event)?.is_break() {
                return Ok(());
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// Moves the events that are not pushed yet behind this one.
pub(super) fn move_own(sql: &dyn Sql, head: u64, behind: u64) -> Result<()> {
    // By way of numbers that no event has: some of the new ones are taken.
    let away = "UPDATE _partysync_event SET seq = -seq, failed = NULL WHERE seq > ?";
    sql.exec(away, &[integer(head)])?;
    let back = "UPDATE _partysync_event SET seq = ? + own.place FROM \
                (SELECT seq, row_number() OVER (ORDER BY seq DESC) AS place \
                 FROM _partysync_event WHERE seq < 0) AS own \
                WHERE _partysync_event.seq = own.seq";
    sql.exec(back, &[integer(behind)])
}

/// Begins another log: the events that the backend had are forgotten, the others are numbered from
/// 1 on. Where the log has gone on under another id they may be in it, at the places that they had.
pub(super) fn begin(sql: &dyn Sql, head: u64, client: &str) -> Result<()> {
    sql.exec("DELETE FROM _partysync_event WHERE seq <= ?", &[integer(head)])?;
    let own = "UPDATE _partysync_event SET seq = -(seq - ?), was = coalesce(was, seq), \
               failed = NULL";
    sql.exec(own, &[integer(head)])?;
    sql.exec("UPDATE _partysync_event SET seq = -seq", &[])?;
    // No event of the log is by this client: none is taken for one that is committed from here on.
    let client_of = "UPDATE _partysync_events SET logs = logs + 1, client = ? || '-' || (logs + 1)";
    sql.exec(client_of, &params![client])
}

/// Forgets events of this room's own that are among these of the log.
pub(super) fn forget_known(sql: &dyn Sql, head: u64, events: &[&Logged]) -> Result<()> {
    for event in events {
        // Few are of a log that is over, and they are gone when they were pushed again.
        let maybe = &[integer(head), integer(event.seq_num)];
        for own in select(sql, "seq > ? AND was = ?", maybe)? {
            if event.is(&own) {
                let forget = "DELETE FROM _partysync_event WHERE seq = ?";
                sql.exec(forget, &[integer(own.seq_num)])?;
            }
        }
    }
    Ok(())
}

/// Events up to this one are pushed: where they were before says nothing any more.
pub(super) fn set_pushed(sql: &dyn Sql, upto: u64) -> Result<()> {
    let pushed = "UPDATE _partysync_event SET was = NULL WHERE was IS NOT NULL AND seq <= ?";
    sql.exec(pushed, &[integer(upto)])
}

/// Keeps why an event has no effect.
pub(super) fn set_failed(sql: &dyn Sql, seq: u64, why: &str) -> Result<()> {
    sql.exec("UPDATE _partysync_event SET failed = ? WHERE seq = ?", &[why.into(), integer(seq)])
}
