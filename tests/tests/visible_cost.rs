//! What it costs that each of many sees other rows: statements do not grow with them.

use partysync::room::turn::Local;
use partysync::room::{Effect, Event, Incoming, Opening, Slot};
use partysync::sql::Sqlite;
use partysync::{
    Action, Identity, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp, Visible,
    params,
};
use partysync_tests::watched::Watched;
use std::cell::Cell;
use std::rc::Rc;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope)]
    owner: String,
    #[record(scope)]
    board: i64,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, owner: String, board: i64 },
}

struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        Limits { actions_burst: 1_000_000, ..Limits::default() }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    fn visible(&self, room: &Room<'_, Self>, _: &str) -> Result<Visible> {
        let who = room.identity::<String>()?;
        let seen = "owner = ? OR board IN (SELECT value FROM json_each(?))";
        Ok(Visible::rows(seen, params![who, "[1,2,3]"]))
    }
}

struct Bench {
    db: Watched,
    statements: Rc<Cell<usize>>,
    room: Local<Notes>,
    seq: usize,
}

impl Bench {
    fn new(connections: u32) -> Self {
        let (statements, sqlite) = (Rc::<Cell<usize>>::default(), Sqlite::in_memory().unwrap());
        let counted = statements.clone();
        let db = Watched::new(&Rc::new(sqlite), move |_, _| {
            counted.set(counted.get() + 1);
            Ok(())
        });
        let mut bench = Self { db, statements, room: Local::new(Notes), seq: 0 };
        for slot in 0..connections {
            let mut request = http::Request::new(());
            Identity::new(&format!("user {slot}")).unwrap().put(&mut request);
            bench.event(Event::Connect {
                wanted: Some(slot.to_string()),
                fresh_id: slot.to_string(),
                protocol: Protocol::V2,
                request: &request,
            });
            let schema = Note::SCHEMA.hash();
            let hello = format!(
                r#"{{"type":"hello","client":"{slot}","epoch":null,"channels":[{{"channel":"notes","since":null,"schema":"{schema}"}}]}}"#
            );
            bench.event(Event::Frame(Slot(slot), Incoming::Text(&hello)));
        }
        bench
    }

    fn event(&mut self, event: Event<'_, NoteAction>) -> Vec<Effect<NoteAction>> {
        self.statements.set(0);
        let opening = || Opening { fresh_epoch: "epoch".into(), ..Opening::default() };
        let now = Timestamp::from_millis(1_000);
        let turn = self.room.turn(&self.db, now, opening, [event]).unwrap();
        assert_eq!(turn.aborted, None);
        turn.effects
    }

    /// Puts a note; how many statements that took, and who was sent it.
    fn put(&mut self, owner: &str, board: i64) -> (usize, usize) {
        self.seq += 1;
        let action = format!(
            r#"{{"type":"put","payload":{{"id":"{}","owner":"{owner}","board":{board}}}}}"#,
            self.seq
        );
        let push = format!(
            r#"{{"type":"push","actions":[{{"seq":{},"channel":"notes","action":{action}}}]}}"#,
            self.seq
        );
        let effects = self.event(Event::Frame(Slot(0), Incoming::Text(&push)));
        let row = format!(r#"["{}","#, self.seq);
        let sent = effects.iter().map(|effect| match effect {
            Effect::Send { slots, frame } if frame.contains(&row) => slots.len(),
            _ => 0,
        });
        (self.statements.get(), sent.sum())
    }
}

#[test]
fn a_patch_for_a_thousand_views_takes_as_many_statements_as_for_one() {
    let (mut one, mut many) = (Bench::new(1), Bench::new(1_000));
    let first = (one.put("user 0", 9), many.put("user 7", 9));
    assert_eq!((first.0.1, first.1.1), (1, 1));
    let (alone, (statements, sent)) = (one.put("user 0", 9), many.put("user 7", 9));
    assert_eq!((alone.0, sent), (statements, 1));
    // One that all see is sent to all.
    assert_eq!(many.put("nobody", 2).1, 1_000);
}
