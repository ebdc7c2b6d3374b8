//! What it costs that each connection of a room sees other rows: the time of an action that changes a
//! row, whoever is sent it, with all who see the same and with a view for each. Prints a table;
//! `cargo xtask bench visible` runs it.

#![allow(clippy::unwrap_used, clippy::panic)]

use partysync::room::{Event, Incoming, Slot};
use partysync::sql::Sqlite;
use partysync::{Action, Limits, Record, Result, Room, SyncServer, Visible, params};
use partysync_tests::crowd::{Crowd, sent};
use std::time::{Duration, Instant};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope, index)]
    owner: String,
    text: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, owner: String, text: String },
}

/// A room in which each sees their own notes, and those of nobody; or all see all.
struct Notes {
    views: bool,
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        Limits { actions_burst: u32::MAX, ..Limits::default() }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    fn visible(&self, room: &Room<'_, Self>, _: &str) -> Result<Visible> {
        match self.views {
            true => Ok(Visible::rows("owner IN (?, 'all')", params![room.identity::<String>()?])),
            false => Ok(Visible::all()),
        }
    }
}

struct Bench {
    crowd: Crowd<Sqlite, Notes>,
    notes: usize,
}

impl Bench {
    fn new(views: bool, connections: u32) -> Self {
        let db = Sqlite::in_memory().unwrap();
        Self { crowd: Crowd::new(db, Notes { views }, connections), notes: 0 }
    }

    /// Puts a note; how long that took, and how many were sent it.
    fn put(&mut self, owner: &str) -> (Duration, usize) {
        self.notes += 1;
        let (id, text) = ((self.notes % 100).to_string(), "Two litres of oat milk".to_owned());
        let push = self.crowd.next_push(&NoteAction::Put { id, owner: owner.to_owned(), text });
        let begun = Instant::now();
        let effects = self.crowd.frame(&push);
        let took = begun.elapsed();
        let sent = sent(&effects, "oat milk");
        // All have read it.
        let read = r#"{"type":"read","bytes":100000}"#;
        for slot in 0..u32::try_from(sent).unwrap_or(0) {
            self.crowd.event(Event::Frame(Slot(slot), Incoming::Text(read)));
        }
        (took, sent)
    }

    fn median(&mut self, owner: &str) -> (Duration, usize) {
        let mut times: Vec<_> = (0..31).map(|_| self.put(owner)).collect();
        times.sort();
        times[times.len() / 2]
    }
}

fn main() {
    println!(
        "| connections | one view for all | a view for each, one is sent it | a view for each, all are |"
    );
    println!("|---:|---:|---:|---:|");
    for connections in [1, 100, 1_000] {
        let mut shared = Bench::new(false, connections);
        let mut each = Bench::new(true, connections);
        let (all, own, everybody) =
            (shared.median("user 0"), each.median("user 0"), each.median("all"));
        assert_eq!((own.1, everybody.1), (1, connections as usize));
        let micros = |(took, _): (Duration, usize)| format!("{:.0} µs", took.as_secs_f64() * 1e6);
        println!("| {connections} | {} | {} | {} |", micros(all), micros(own), micros(everybody));
    }
}
