//! What is large for v1 clients: it comes over several turns, in its order and once, and nothing
//! overtakes it.

use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, Incoming, Opening, Slot};
use partysync::sql::{Sql, Sqlite};
use partysync::{Action, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp, params};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: i64,
    text: String,
    #[record(updated_at)]
    updated_at: Timestamp,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: i64, text: String },
    #[action(delete)]
    Drop { id: i64 },
}

struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        Limits { page_bytes: 64, actions_burst: 1_000_000, ..Limits::default() }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }
}

/// A room whose turns are taken one at a time, with v1 connections.
struct Bench {
    db: Sqlite,
    room: Local<Notes>,
    now: Timestamp,
    /// Whether the room wants another turn.
    again: bool,
    /// What each connection was sent.
    sent: BTreeMap<Slot, Vec<Json>>,
}

impl Bench {
    fn new(connections: u32) -> Self {
        let (db, room) = (Sqlite::in_memory().unwrap(), Local::new(Notes));
        let now = Timestamp::from_millis(1_000);
        let mut bench = Self { db, room, now, again: false, sent: BTreeMap::new() };
        (0..connections).for_each(|id| bench.connect(id));
        bench
    }

    fn connect(&mut self, id: u32) {
        let (wanted, request) = (Some(id.to_string()), http::Request::new(()));
        let (fresh_id, protocol) = (format!("fresh-{id}"), Protocol::V1);
        self.turn([Event::Connect { wanted, fresh_id, protocol, request: &request }]);
    }

    fn turn<'e>(&mut self, events: impl IntoIterator<Item = Event<'e, NoteAction>>) {
        let opening = Self::opening;
        let turn = self.room.turn(&self.db, self.now, opening, events).unwrap();
        self.carry_out(turn);
    }

    fn carry_out(&mut self, turn: Turn<Notes>) {
        self.again = false;
        for effect in turn.effects {
            match effect {
                Effect::Send { slots, frame } => {
                    for slot in slots {
                        let frame = serde_json::from_str(&frame).unwrap();
                        self.sent.entry(slot).or_default().push(frame);
                    }
                }
                Effect::Again => self.again = true,
                _ => {}
            }
        }
        self.now = self.now.plus_millis(1);
    }

    fn opening() -> Opening {
        Opening { fresh_epoch: "epoch".into(), ..Opening::default() }
    }

    fn frame(&mut self, slot: u32, frame: &str) {
        self.turn([Event::Frame(Slot(slot), Incoming::Text(frame))]);
    }

    fn sync(&mut self, slot: u32, from: &str) {
        self.frame(slot, &sync(from));
    }

    fn put(&mut self, slot: u32, id: i64) {
        let action = format!(r#"{{"type":"put","payload":{{"id":{id},"text":"new"}}}}"#);
        let call = format!(r#"{{"id":"{id}","channel":"notes","rpc":true,"action":{action}}}"#);
        self.frame(slot, &call);
    }

    fn run(&mut self, sql: &str) {
        let sql = sql.to_owned();
        let execute =
            move |_: &Notes, room: &mut Room<'_, Notes>| room.sql().execute(&sql, params![]);
        let done = self.room.run(&self.db, self.now, Self::opening, None, execute);
        let (turn, executed) = done.unwrap();
        executed.unwrap();
        self.carry_out(turn);
    }

    /// Rows with these numbers.
    fn fill(&mut self, from: i64, to: i64) {
        self.run(&format!(
            "INSERT INTO notes (id, text) WITH RECURSIVE n(i) AS \
             (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) SELECT i, 'old' FROM n"
        ));
    }

    /// Takes turns until the room has sent everything; how many there were.
    fn finish(&mut self) -> usize {
        let mut turns = 0;
        while self.again {
            self.turn([]);
            turns += 1;
            assert!(turns < 100_000, "it does not end");
        }
        turns
    }

    /// The rows that a connection was sent since, with their times, in order.
    fn rows(&mut self, slot: u32) -> Vec<(i64, i64)> {
        let frames = self.sent.remove(&Slot(slot)).unwrap_or_default();
        let rows = |frame: &Json| frame.get("payload").or(frame.get("result")).cloned();
        let rows = frames.iter().filter_map(rows).flat_map(|rows| match rows {
            Json::Array(rows) => rows,
            _ => Vec::new(),
        });
        let number = |row: &Json, place: usize| row.get(place).and_then(Json::as_i64);
        rows.map(|row| (number(&row, 0).unwrap(), number(&row, 2).unwrap_or(-1))).collect()
    }

    fn forget(&mut self) {
        self.sent.clear();
    }
}

fn sync(from: &str) -> String {
    format!(r#"{{"channel":"notes","sync":true,"from":{from}}}"#)
}

fn is_sorted_by_time(rows: &[(i64, i64)]) -> bool {
    rows.windows(2).all(|pair| matches!(pair, [a, b] if a.1 <= b.1))
}

#[test]
fn what_changes_meanwhile_does_not_overtake_what_was_missed() {
    let mut bench = Bench::new(2);
    for step in 0..20 {
        bench.fill(step * 100, step * 100 + 99);
    }
    bench.finish();
    bench.forget();
    bench.sync(0, "1");
    assert!(bench.again, "it does not come in one turn");
    let early = bench.rows(0);
    assert!(!early.is_empty() && early.len() < 2_000, "{}", early.len());
    bench.put(1, 5_000);
    bench.put(1, 3);
    bench.finish();
    let rows = [early, bench.rows(0)].concat();
    // A client that is cut off anywhere asks from the time of the last row that it has.
    assert!(is_sorted_by_time(&rows), "{rows:?}");
    assert!(rows.iter().any(|(id, _)| *id == 5_000) && rows.len() <= 2_000 + 2, "{}", rows.len());
    // And then it hears of changes as they happen.
    bench.put(1, 5_001);
    assert_eq!(bench.rows(0).len(), 1);
    assert!(!bench.again);
}

#[test]
fn a_change_that_is_larger_than_a_turn_comes_once_at_most() {
    let mut bench = Bench::new(2);
    bench.fill(0, 999);
    bench.finish();
    bench.forget();
    for _ in 0..10 {
        bench.run("UPDATE notes SET text = text || '.'");
    }
    bench.put(1, 7);
    bench.finish();
    let rows = bench.rows(0);
    let ids: BTreeSet<i64> = rows.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 1_000);
    assert!(rows.len() <= 10_001, "{}", rows.len());
}

#[test]
fn who_asks_a_thousand_times_is_answered_once() {
    let mut bench = Bench::new(1);
    bench.fill(0, 999);
    bench.finish();
    bench.forget();
    let frame = sync("null");
    bench.turn((0..1_000).map(|_| Event::Frame(Slot(0), Incoming::Text(&frame))));
    bench.sync(0, "1");
    bench.finish();
    let answers = bench.sent[&Slot(0)].iter().filter(|frame| frame.get("sync").is_some()).count();
    assert_eq!(answers, 2, "one that was begun is begun anew");
    assert!(bench.rows(0).len() < 2_500);
}

#[test]
fn a_table_that_changes_while_it_is_sent_arrives_as_it_is() {
    let mut bench = Bench::new(2);
    bench.fill(0, 999);
    bench.finish();
    bench.forget();
    bench.sync(0, "null");
    // In front of what was sent, in the middle, and gone.
    bench.put(1, -5);
    bench.put(1, 0);
    bench.put(1, 999);
    bench.run("DELETE FROM notes WHERE id IN (1, 998)");
    bench.finish();
    let held: BTreeMap<i64, i64> = bench.rows(0).into_iter().collect();
    let held: Vec<(i64, i64)> = held.into_iter().filter(|(_, at)| *at >= 0).collect();
    let sql: &dyn Sql = &bench.db;
    let query = "SELECT id, updated_at FROM notes ORDER BY id";
    let stored: Vec<(i64, i64)> =
        sql.query_map(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(held, stored);
}

#[test]
fn whoever_has_the_slot_next_is_sent_nothing_of_it() {
    let mut bench = Bench::new(2);
    bench.fill(0, 999);
    bench.finish();
    bench.sync(0, "null");
    assert!(bench.again);
    bench.forget();
    let (wanted, request) = (Some("7".to_owned()), http::Request::new(()));
    let (fresh_id, protocol) = ("fresh".to_owned(), Protocol::V1);
    let connect = Event::Connect { wanted, fresh_id, protocol, request: &request };
    bench.turn([Event::Closed(Slot(0)), connect]);
    assert!(!bench.again);
    assert_eq!(bench.rows(0), []);
}

#[test]
fn an_action_that_changes_nothing_is_no_broadcast() {
    let mut bench = Bench::new(2);
    let action = r#"{"type":"drop","payload":{"id":1}}"#;
    bench.frame(1, &format!(r#"{{"id":"1","channel":"notes","rpc":true,"action":{action}}}"#));
    assert!(!bench.sent.contains_key(&Slot(0)), "{:?}", bench.sent);
    assert!(bench.sent.contains_key(&Slot(1)));
}

#[test]
fn deletions_that_are_on_their_way_come_although_all_rows_are_asked_for_meanwhile() {
    let mut bench = Bench::new(1);
    bench.fill(0, 999);
    bench.finish();
    for from in ["null", "1"] {
        bench.forget();
        // A table is on its way, and then rows of it are deleted.
        bench.sync(0, "null");
        bench.run("DELETE FROM notes WHERE id % 2");
        assert!(bench.again);
        bench.sync(0, from);
        bench.sync(0, from);
        bench.finish();
        let gone: BTreeSet<i64> =
            bench.rows(0).iter().filter(|(_, at)| *at < 0).map(|(id, _)| *id).collect();
        assert_eq!(gone.len(), 500, "from {from}");
        bench.fill(1_000, 1_000);
        bench.run("DELETE FROM notes");
        bench.fill(0, 999);
        bench.finish();
    }
}
