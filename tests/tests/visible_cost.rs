//! What it costs that each of many sees other rows: statements do not grow with them.

use partysync::sql::Sqlite;
use partysync::{Action, Limits, Record, Result, Room, SyncServer, Visible, params};
use partysync_tests::crowd::{Crowd, sent};
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

/// A room with so many, and how many statements it has done.
struct Counted {
    crowd: Crowd<Watched, Notes>,
    statements: Rc<Cell<usize>>,
    notes: usize,
}

impl Counted {
    fn new(connections: u32) -> Self {
        let (statements, sqlite) = (Rc::<Cell<usize>>::default(), Sqlite::in_memory().unwrap());
        let counted = statements.clone();
        let db = Watched::new(&Rc::new(sqlite), move |_, _| {
            counted.set(counted.get() + 1);
            Ok(())
        });
        Self { crowd: Crowd::new(db, Notes, connections), statements, notes: 0 }
    }

    /// Puts a note; how many statements that took, and who was sent it.
    fn put(&mut self, owner: &str, board: i64) -> (usize, usize) {
        self.notes += 1;
        let (id, owner) = (self.notes.to_string(), owner.to_owned());
        let row = format!(r#"["{id}","#);
        let push = self.crowd.next_push(&NoteAction::Put { id, owner, board });
        self.statements.set(0);
        let effects = self.crowd.frame(&push);
        (self.statements.get(), sent(&effects, &row))
    }
}

#[test]
fn a_patch_for_a_thousand_views_takes_as_many_statements_as_for_one() {
    let (mut one, mut many) = (Counted::new(1), Counted::new(1_000));
    let first = (one.put("user 0", 9), many.put("user 7", 9));
    assert_eq!((first.0.1, first.1.1), (1, 1));
    let (alone, (statements, sent)) = (one.put("user 0", 9), many.put("user 7", 9));
    assert_eq!((alone.0, sent), (statements, 1));
    // One that all see is sent to all.
    assert_eq!(many.put("nobody", 2).1, 1_000);
}
