//! Who sees what: rows and keys that a client may see, and no others, whatever happens to them and to
//! its rights.

use partysync::room::{Event, Machine, Opening};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::wire::v2::{ClientFrame, Hello, ServerFrame, Subscription};
use partysync::{
    Action, Code, Draft, Error, Identity, Limits, Protocol, Record, Reduce, Result, Room,
    SyncServer, Timestamp, Visible, params,
};
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope)]
    owner: String,
    #[record(scope)]
    board: Option<i64>,
    text: String,
    #[record(updated_at)]
    updated_at: Timestamp,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

/// Deleted for good, and seen by its key.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "users")]
struct User {
    #[record(key, scope)]
    name: String,
    #[record(default = 0)]
    visits: i64,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "grants")]
struct Grant {
    #[record(key)]
    id: i64,
    who: String,
    board: i64,
}

macro_rules! by_sql {
    ($name:ident, $record:ty) => {
        #[derive(Action, Clone, PartialEq, Debug)]
        #[action(record = $record)]
        enum $name {
            #[action(custom)]
            Run {
                #[action(json)]
                sql: Vec<String>,
            },
        }

        impl Reduce for $name {
            fn reduce_custom(&self, _: &mut Draft<'_, $record>) -> Result<()> {
                Ok(())
            }
        }
    };
}

by_sql!(NoteAction, Note);
by_sql!(UserAction, User);
by_sql!(GrantAction, Grant);

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum Any {
    Note(NoteAction),
    User(UserAction),
    Grant(GrantAction),
}

type See = dyn Fn(&Room<'_, Server>, &str) -> Result<Visible>;

struct Server {
    visible: Rc<RefCell<Box<See>>>,
    page_bytes: usize,
}

impl SyncServer for Server {
    type Action = Any;

    fn limits(&self) -> Limits {
        let pending_bytes = self.page_bytes as u64;
        Limits {
            page_bytes: self.page_bytes,
            pending_bytes,
            retention_ms: 1_000,
            log_entries: 100,
            ..Limits::default()
        }
    }

    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        (self.visible.borrow())(room, channel)
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: Any) -> Result<()> {
        let (Any::Note(NoteAction::Run { sql })
        | Any::User(UserAction::Run { sql })
        | Any::Grant(GrantAction::Run { sql })) = action;
        for sql in sql {
            match sql.as_str() {
                "review" => room.review(),
                sql => room.sql().exec(sql, &[])?,
            }
        }
        Ok(())
    }

    fn on_request(
        &self,
        room: &mut Room<'_, Self>,
        _: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        let snapshot = room.snapshot(&["notes", "users"])?;
        Ok(http::Response::new(serde_json::to_vec(&snapshot).unwrap()))
    }
}

/// Everybody sees own notes, those of boards that were granted, and the own user.
fn own(room: &Room<'_, Server>, channel: &str) -> Result<Visible> {
    let Some(who) = room.identity::<String>()? else { return Ok(Visible::nothing()) };
    if who == "root" {
        return Ok(Visible::all());
    }
    match channel {
        "notes" => {
            let boards = "SELECT board FROM grants WHERE who = ? ORDER BY board";
            let boards = room.sql().query_map(boards, params![&who], |row| row.get::<i64>(0))?;
            let boards = json!(boards).to_string();
            let condition = "owner = ? OR board IN (SELECT value FROM json_each(?))";
            Ok(Visible::rows(condition, params![who, boards]))
        }
        "users" => Ok(Visible::rows("name = ?", params![who])),
        _ => Ok(Visible::nothing()),
    }
}

fn server(visible: impl Fn(&Room<'_, Server>, &str) -> Result<Visible> + 'static) -> Server {
    Server { visible: Rc::new(RefCell::new(Box::new(visible))), page_bytes: 128 * 1024 }
}

struct World {
    room: TestRoom<Server>,
    visible: Rc<RefCell<Box<See>>>,
    /// What each connection was told, by channel.
    shown: BTreeMap<(String, String), BTreeMap<String, Json>>,
    /// All keys that a connection was ever told.
    told: BTreeMap<String, BTreeSet<String>>,
    /// The version and the views of each, by channel.
    views: BTreeMap<(String, String), Option<String>>,
    versions: BTreeMap<String, u64>,
    closed: BTreeMap<String, String>,
    frames: Vec<(String, Json)>,
}

impl World {
    fn new(server: Server) -> Self {
        let visible = server.visible.clone();
        let room = TestRoom::new(server).unwrap();
        let mut world = Self {
            room,
            visible,
            shown: BTreeMap::new(),
            told: BTreeMap::new(),
            views: BTreeMap::new(),
            versions: BTreeMap::new(),
            closed: BTreeMap::new(),
            frames: Vec::new(),
        };
        // What it does is not what is looked at.
        world.room.disconnect("self").unwrap();
        let mut root = http::Request::new(());
        Identity::new("root").unwrap().put(&mut root);
        world.room.connect_own(&root).unwrap();
        world.room.take_sent();
        world
    }

    fn connect(&mut self, who: &str) {
        self.connect_as(who, Protocol::V2).unwrap();
        let schemas = Any::CHANNELS.iter();
        let known = self.versions.get(who).copied();
        let channels = schemas.map(|schema| Subscription {
            channel: schema.table.to_owned(),
            since: known,
            view: self.views.get(&(who.to_owned(), schema.table.to_owned())).cloned().flatten(),
            schema: schema.hash(),
            record: 1,
            columns: Vec::new(),
        });
        let epoch = known.map(|_| "epoch".to_owned());
        let hello = Hello { client: who.to_owned(), epoch, channels: channels.collect() };
        let sent = self.room.frame(who, &ClientFrame::Hello(hello).to_text()).unwrap();
        self.take(sent);
    }

    fn connect_as(&mut self, who: &str, protocol: Protocol) -> Result<()> {
        self.closed.remove(who);
        let mut request = http::Request::new(());
        Identity::new(who)?.put(&mut request);
        self.room.connect_with(who, protocol, &request)?;
        let sent = self.room.take_sent();
        self.take(sent);
        Ok(())
    }

    fn leave(&mut self, who: &str) {
        self.room.disconnect(who).unwrap();
    }

    /// Runs SQL in one action, by one who sees all.
    fn run(&mut self, sql: &[&str]) {
        let sql = sql.iter().map(|sql| (*sql).to_owned()).collect();
        self.room.act(NoteAction::Run { sql }.into()).unwrap();
        let sent = self.room.take_sent();
        self.take(sent);
    }

    /// What was sent arrives, in its order; each reads it, and so is sent more.
    fn take(&mut self, mut sent: Vec<(String, String)>) {
        while !sent.is_empty() {
            let mut read: BTreeMap<String, u64> = BTreeMap::new();
            for (who, text) in std::mem::take(&mut sent) {
                if who == "self" {
                    continue;
                }
                if text.starts_with("close ") {
                    self.closed.insert(who.clone(), text);
                    self.room.disconnect(&who).unwrap();
                    sent.append(&mut self.room.take_sent());
                    continue;
                }
                *read.entry(who.clone()).or_default() += text.len() as u64;
                self.hear(&who, &text);
            }
            for (who, bytes) in read {
                let read = ClientFrame::Read(bytes).to_text();
                sent.append(&mut self.room.frame(&who, &read).unwrap());
            }
        }
    }

    fn hear(&mut self, who: &str, text: &str) {
        self.frames.push((who.to_owned(), serde_json::from_str(text).unwrap()));
        match ServerFrame::parse(text) {
            Ok(Some(ServerFrame::CatchUp(page))) => {
                let channel = (who.to_owned(), page.channel.clone());
                if page.from.is_none() {
                    // The first page of a snapshot counts what it has.
                    if page.sent == (page.rows.len() + page.gone.len()) as u64 {
                        self.shown.remove(&channel);
                    }
                    self.views.insert(channel, page.view.clone());
                }
                self.put(who, &page.channel, &page.rows, &page.gone);
                self.versions.insert(who.to_owned(), page.to);
            }
            Ok(Some(ServerFrame::Patch(patch))) => {
                for change in &patch.changes {
                    self.put(who, &change.channel, &change.rows, &change.gone);
                }
                self.versions.insert(who.to_owned(), patch.to);
            }
            _ => {}
        }
    }

    fn put(&mut self, who: &str, channel: &str, rows: &[Json], gone: &[Json]) {
        let shown = self.shown.entry((who.to_owned(), channel.to_owned())).or_default();
        let told = self.told.entry(who.to_owned()).or_default();
        for row in rows {
            told.insert(row[0].as_str().unwrap_or_default().to_owned());
            shown.insert(row[0].as_str().unwrap_or_default().to_owned(), row.clone());
        }
        for key in gone {
            told.insert(key.as_str().unwrap_or_default().to_owned());
            shown.remove(key.as_str().unwrap_or_default());
        }
    }

    /// The keys of the notes that a connection shows.
    fn notes(&self, who: &str) -> Vec<String> {
        let notes = self.shown.get(&(who.to_owned(), "notes".to_owned()));
        notes.into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    fn told(&self, who: &str) -> Vec<String> {
        self.told.get(who).into_iter().flatten().cloned().collect()
    }

    /// Lets the room forget what is older than its retention.
    fn forget(&mut self) {
        for _ in 0..4 {
            self.room.advance_millis(100_000);
            let sent = self.room.alarm().unwrap();
            self.take(sent);
        }
    }
}

fn put(id: &str, owner: &str) -> String {
    format!("INSERT INTO notes (id, owner, text) VALUES ('{id}', '{owner}', 'hi')")
}

#[test]
fn nobody_is_told_of_what_they_do_not_see() {
    let mut world = World::new(server(own));
    world.run(&[
        &put("a", "ada"),
        &put("b", "bob"),
        "INSERT INTO users (name) VALUES ('ada'), ('bob')",
    ]);
    for who in ["ada", "bob", "eve"] {
        world.connect(who);
    }
    world.run(&[&put("a2", "ada"), "UPDATE notes SET text = 'ho' WHERE id = 'b'"]);
    world.run(&["UPDATE notes SET deleted_at = 1 WHERE id = 'b'"]);
    world.run(&["DELETE FROM notes WHERE id = 'a'", "UPDATE users SET visits = 1"]);
    world.run(&[
        "UPDATE notes SET id = 'a3' WHERE id = 'a2'",
        "DELETE FROM users WHERE name = 'bob'",
    ]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["a3".to_owned()], vec![]));
    assert_eq!(world.told("ada"), ["a", "a2", "a3", "ada"]);
    assert_eq!(world.told("bob"), ["b", "bob"]);
    assert_eq!(world.told("eve"), [] as [&str; 0]);
    assert_eq!(world.closed, BTreeMap::new());
}

#[test]
fn a_row_that_leaves_a_view_is_gone_and_one_that_enters_it_comes() {
    let mut world = World::new(server(own));
    world.connect("ada");
    world.connect("bob");
    world.run(&[&put("x", "ada")]);
    world.run(&["UPDATE notes SET owner = 'bob'"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
    // Written and moved in one statement each, of one action; and there and back.
    world.run(&["UPDATE notes SET owner = 'eve'", "UPDATE notes SET owner = 'ada'"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["x".to_owned()], vec![]));
    world.run(&["UPDATE notes SET owner = 'eve'", "UPDATE notes SET owner = 'ada', text = 'ho'"]);
    assert_eq!(world.notes("ada"), ["x"]);
    // In one that gives it its time itself, and one that does not.
    world.run(&["UPDATE notes SET owner = 'bob', updated_at = 7"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
    world.run(&["INSERT OR REPLACE INTO notes (id, owner, text) VALUES ('x', 'ada', 'new')"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["x".to_owned()], vec![]));
    // What moves when it is softly deleted was nobody's to see, and comes back to another.
    world.run(&["UPDATE notes SET deleted_at = 1"]);
    world.run(&["UPDATE notes SET owner = 'bob'"]);
    assert_eq!(world.notes("bob"), [] as [&str; 0]);
    world.run(&["UPDATE notes SET deleted_at = NULL"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
}

#[test]
fn who_was_away_hears_what_has_left_the_view_also_after_a_compaction() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[&put("x", "ada"), &put("y", "ada"), &put("z", "bob")]);
    world.leave("ada");
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id = 'x'"]);
    world.run(&[
        "UPDATE notes SET owner = 'eve' WHERE id = 'z'",
        "DELETE FROM notes WHERE id = 'z'",
    ]);
    // So much more happens that the log is compacted.
    for n in 0..300 {
        world.run(&[&format!("UPDATE notes SET text = '{n}' WHERE id = 'x'")]);
    }
    let entries = "SELECT count(*) FROM _partysync_change";
    let count =
        |world: &World| world.room.sql().query_one(entries, [], |row| row.get::<i64>(0)).unwrap();
    assert!(count(&world) > 300);
    world.room.advance_millis(100);
    let sent = world.room.run_for(61_000).unwrap();
    world.take(sent);
    assert!(count(&world) < 20, "{}", count(&world));
    world.connect("ada");
    assert_eq!(world.notes("ada"), ["y"]);
    assert_eq!(world.told("ada"), ["x", "y"]);
}

#[test]
fn a_large_delta_says_what_is_gone_once_it_comes_to_it() {
    let (mut small, count) = (server(own), 40);
    small.page_bytes = 64;
    let mut world = World::new(small);
    let many = |sql: &str| -> Vec<String> {
        (0..count).map(|n| sql.replace('#', &format!("{n:02}"))).collect()
    };
    let run = |world: &mut World, sql: Vec<String>| {
        let sql: Vec<_> = sql.iter().map(String::as_str).collect();
        world.run(&sql);
    };
    world.connect("ada");
    run(&mut world, many("INSERT INTO notes (id, owner, text) VALUES ('x#', 'ada', 'hi')"));
    assert_eq!(world.notes("ada").len(), count);
    // Patches larger than a page, for one who is connected; and what is later is said of each key
    // behind what was before.
    run(&mut world, many("UPDATE notes SET owner = 'bob' WHERE id = 'x#' AND id > 'x19'"));
    assert_eq!(world.notes("ada").len(), 20);
    world.leave("ada");
    run(&mut world, many("UPDATE notes SET owner = 'bob' WHERE id = 'x#' AND id < 'x10'"));
    run(&mut world, many("UPDATE notes SET text = 'ho' WHERE id = 'x#'"));
    world.connect("ada");
    assert_eq!(world.notes("ada").len(), 10);
    // Nobody else's were named.
    run(&mut world, many("INSERT INTO notes (id, owner, text) VALUES ('y#', 'bob', 'hi')"));
    run(&mut world, many("UPDATE notes SET deleted_at = 1 WHERE id = 'y#'"));
    assert!(world.told("ada").iter().all(|key| key.starts_with('x')));
    let total = world.frames.iter().filter(|(_, frame)| frame["type"] == "catch_up");
    assert!(
        total.filter_map(|(_, frame)| frame["total"].as_u64()).all(|total| total <= count as u64)
    );
}

#[test]
fn rows_that_move_while_a_snapshot_is_read_are_where_they_belong_in_the_end() {
    let mut small = server(own);
    small.page_bytes = 64;
    let mut world = World::new(small);
    let rows: Vec<_> = (0..30).map(|n| put(&format!("x{n:02}"), "ada")).collect();
    world.run(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    // It is sent a window, and reads no more until rows have moved.
    world.connect_as("ada", Protocol::V2).unwrap();
    let channel = |schema: &&partysync::Schema| json!({"channel": schema.table, "since": null, "schema": schema.hash()});
    let channels: Vec<_> = Any::CHANNELS.iter().map(channel).collect();
    let hello = json!({"type": "hello", "client": "ada", "epoch": null, "channels": channels});
    let first = world.room.frame("ada", &hello.to_string()).unwrap();
    assert!(!first.iter().any(|(_, text)| text.contains("x29")));
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id IN ('x00', 'x29')", &put("x99", "ada")]);
    world.take(first);
    let notes = world.notes("ada");
    assert_eq!(notes.len(), 29, "{notes:?}");
    assert!(notes.contains(&"x99".to_owned()) && !notes.contains(&"x00".to_owned()));
}

#[test]
fn what_was_forgotten_has_a_client_start_over() {
    let mut world = World::new(server(own));
    world.connect("ada");
    world.run(&[&put("x", "ada"), &put("y", "ada")]);
    world.leave("ada");
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id = 'x'"]);
    world.forget();
    world.run(&[&put("z", "bob")]);
    let left = "SELECT count(old) FROM _partysync_change";
    let left = world.room.sql().query_one(left, [], |row| row.get::<i64>(0)).unwrap();
    assert_eq!(left, 0);
    world.connect("ada");
    let resets = world.frames.iter().filter(|(_, frame)| frame["type"] == "reset").count();
    assert_eq!((resets, world.notes("ada")), (1, vec!["y".to_owned()]));
}

#[test]
fn a_grant_begins_the_channel_anew_for_whom_it_is_alone() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[
        &put("a", "ada"),
        "INSERT INTO notes (id, owner, board, text) VALUES ('t', 'eve', 1, '')",
    ]);
    world.frames.clear();
    world.run(&["INSERT INTO grants VALUES (1, 'bob', 1)", "UPDATE notes SET text = 'new'"]);
    assert_eq!(world.closed.get("bob").map(String::as_str), Some("close 1012 restart"));
    assert_eq!(world.closed.get("ada"), None);
    // It was sent nothing more: not by a view that is not its own any more.
    assert!(world.frames.iter().all(|(who, _)| who != "bob"));
    world.connect("bob");
    assert_eq!(world.notes("bob"), ["t"]);
    let caught_up: Vec<_> =
        world.frames.iter().filter(|(who, f)| who == "bob" && f["type"] == "catch_up").collect();
    let begun: Vec<_> = caught_up.iter().filter(|(_, f)| f["from"].is_null()).collect();
    assert_eq!((caught_up.len(), begun.len()), (3, 1));
    assert_eq!(begun[0].1["channel"], "notes");
    // Taken back while it is away: it says by which view it has its rows.
    world.leave("bob");
    world.run(&["DELETE FROM grants"]);
    world.connect("bob");
    assert_eq!(world.notes("bob"), [] as [&str; 0]);
}

#[test]
fn rights_that_changed_while_a_room_slept_are_noticed() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[
        &put("a", "ada"),
        "INSERT INTO notes (id, owner, board, text) VALUES ('t', 'eve', 1, '')",
    ]);
    world.room.hibernate().unwrap();
    let sent = world.room.take_sent();
    world.take(sent);
    assert_eq!(world.closed, BTreeMap::new());
    // They are what they were: patches go on, by view.
    world.run(&["UPDATE notes SET text = 'new'"]);
    assert_eq!((world.notes("ada"), world.told("bob")), (vec!["a".to_owned()], vec![]));
    *world.visible.borrow_mut() =
        Box::new(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("bob") => Ok(Visible::nothing()),
            _ => own(room, channel),
        });
    world.room.hibernate().unwrap();
    world.run(&["UPDATE notes SET text = 'newer'"]);
    assert_eq!(world.closed.keys().collect::<Vec<_>>(), ["bob"]);
}

#[test]
fn a_review_asks_again_what_is_in_no_record() {
    let secret: Rc<RefCell<bool>> = Rc::default();
    let open = secret.clone();
    let mut world =
        World::new(server(
            move |room, channel| {
                if *open.borrow() { Ok(Visible::all()) } else { own(room, channel) }
            },
        ));
    world.connect("ada");
    *secret.borrow_mut() = true;
    world.run(&[&put("b", "bob")]);
    assert_eq!((world.notes("ada"), world.closed.len()), (vec![], 0));
    world.run(&["review"]);
    assert_eq!(world.closed.get("ada").map(String::as_str), Some("close 1012 restart"));
    world.connect("ada");
    assert_eq!(world.notes("ada"), ["b"]);
}

#[test]
fn a_snapshot_is_what_its_caller_sees() {
    let mut world = World::new(server(own));
    world.run(&[
        &put("a", "ada"),
        &put("b", "bob"),
        "INSERT INTO users (name) VALUES ('ada'), ('bob')",
    ]);
    let mut ask = |who: Option<&str>| {
        let mut request = http::Request::new(Vec::new());
        if let Some(who) = who {
            Identity::new(who).unwrap().put(&mut request);
        }
        let answer = world.room.request(request).unwrap();
        serde_json::from_slice::<Json>(answer.body()).unwrap()
    };
    let keys = |answer: &Json, channel: &str| -> Vec<String> {
        let rows = answer["channels"][channel]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    };
    let ada = ask(Some("ada"));
    assert_eq!(
        (keys(&ada, "notes"), keys(&ada, "users")),
        (vec!["a".to_owned()], vec!["ada".to_owned()])
    );
    assert!(ada["channels"]["notes"]["view"].is_string());
    let nobody = ask(None);
    assert_eq!((keys(&nobody, "notes"), keys(&nobody, "users")), (vec![], vec![]));
    let root = ask(Some("root"));
    assert_eq!(keys(&root, "notes"), ["a", "b"]);
    assert!(root["channels"]["notes"]["view"].is_null());
}

#[test]
fn a_v1_client_is_sent_what_it_sees_and_starts_over_with_what_it_has() {
    let mut world = World::new(server(own));
    world.run(&[&put("a", "ada"), &put("b", "bob")]);
    world.connect_as("ada", Protocol::V1).unwrap();
    let frame = |world: &mut World, frame: Json| {
        let sent = world.room.frame("ada", &frame.to_string()).unwrap();
        let own = sent.into_iter().filter(|(to, _)| to == "ada");
        own.map(|(_, text)| serde_json::from_str::<Json>(&text).unwrap()).collect::<Vec<_>>()
    };
    let answer = frame(&mut world, json!({"channel": "notes", "sync": true, "from": null}));
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(answer[0]["payload"].as_array().unwrap().len(), 1);
    assert_eq!(answer[0]["payload"][0][0], "a");
    // A row that leaves is deleted for good; of others nothing is said. A call's own rows, too.
    let call = |sql: &str| {
        let action = json!({"type": "run", "payload": {"sql": [sql]}});
        json!({"channel": "notes", "rpc": true, "id": "1", "action": action})
    };
    let answer = frame(&mut world, call("UPDATE notes SET owner = 'bob' WHERE id = 'a'"));
    assert_eq!(answer[0]["type"], "success");
    assert_eq!(answer[0]["result"], json!([["a", null, null, null, null, 1000]]));
    let answer = frame(&mut world, call("UPDATE notes SET text = 'secret'"));
    assert_eq!((answer.len(), &answer[0]["result"]), (1, &json!([])));
    let answer = frame(&mut world, call("UPDATE notes SET owner = 'ada' WHERE id = 'b'"));
    assert_eq!(answer[0]["result"][0][0], "b");
    // What it has may be of another view: nobody can tell.
    let answer = frame(&mut world, json!({"channel": "notes", "sync": true, "from": 1000}));
    assert_eq!((&answer[0]["type"], answer.len()), (&json!("delete-all"), 2));
    assert_eq!(answer[1]["payload"].as_array().unwrap().len(), 1);
    // So it is where it sees all now, and is closed when its rights change; also after a sleep.
    let sent =
        world.room.frame("ada", &call("INSERT INTO grants VALUES (1, 'ada', 5)").to_string());
    assert!(sent.unwrap().contains(&("ada".into(), "close 1012 restart".into())));
}

#[test]
fn a_v1_client_keeps_its_view_when_a_room_sleeps() {
    let mut world = World::new(server(own));
    world.run(&[&put("a", "ada"), &put("b", "bob")]);
    world.connect_as("ada", Protocol::V1).unwrap();
    world.room.hibernate().unwrap();
    let act = |world: &mut World, sql: &str| {
        world.room.act(NoteAction::Run { sql: vec![sql.to_owned()] }.into()).unwrap();
        world.room.take_sent().into_iter().filter(|(to, _)| to == "ada").collect::<Vec<_>>()
    };
    assert_eq!(act(&mut world, "UPDATE notes SET text = 'x' WHERE id = 'b'"), []);
    assert_eq!(act(&mut world, "UPDATE notes SET text = 'x' WHERE id = 'a'").len(), 1);
    *world.visible.borrow_mut() = Box::new(|_, _| Ok(Visible::all()));
    world.room.hibernate().unwrap();
    let sent = act(&mut world, "UPDATE notes SET text = 'y'");
    assert_eq!(sent, [("ada".to_owned(), "close 1012 restart".to_owned())]);
}

#[test]
fn a_condition_that_is_none_lets_nobody_in_and_the_log_says_why() {
    for (visible, why) in [
        (
            Visible::rows("text = 'hi'", []),
            "may name are the key, and those that are marked `#[record(scope)]`: no such column: text",
        ),
        (Visible::rows("\"text\" = 'hi'", []), "there is no column `text` that it may name"),
        (Visible::rows("owner = ?", []), "has 1 parameters, and 0 are given"),
        (Visible::rows("owner = ?", params![vec![1_u8]]), "bytes as a parameter"),
        (Visible::rows("1) OR (1", []), "a `)` without its `(`"),
        (Visible::rows("owner IN (SELECT who FROM grants)", []), "it reads `grants`"),
        (Visible::rows("owner = ?1", params!["a"]), "a parameter with a number"),
        (Visible::rows("owner = ", []), "syntax error"),
    ] {
        let mut world = World::new(server(own));
        let says = visible.clone();
        *world.visible.borrow_mut() = Box::new(move |_, channel| match channel {
            "notes" => Ok(says.clone()),
            _ => Ok(Visible::all()),
        });
        world.room.take_logged();
        world.connect("ada");
        let logged = world.room.take_logged().join("\n");
        assert!(
            logged.contains(why) && logged.contains("`visible` of `notes`"),
            "{visible:?}: {logged}"
        );
        let (_, told) = world.frames.last().unwrap();
        assert_eq!(told["type"], "error");
        assert!(told["message"].as_str().unwrap().starts_with("Something went wrong"), "{told}");
        assert_eq!(world.closed.get("ada").map(String::as_str), Some("close 1011 sql"));
        assert_eq!(world.connect_as("ada", Protocol::V1).map(|()| world.closed.len()).unwrap(), 1);
    }
}

#[test]
fn a_record_without_scope_is_seen_whole_or_not_at_all() {
    let mut world = World::new(server(own));
    *world.visible.borrow_mut() = Box::new(|_, channel| match channel {
        "grants" => Ok(Visible::rows("id = 1", [])),
        _ => Ok(Visible::all()),
    });
    world.room.take_logged();
    world.connect("ada");
    let logged = world.room.take_logged().join("\n");
    assert!(logged.contains("#[record(scope)]"), "{logged}");
    *world.visible.borrow_mut() = Box::new(|room, channel| match channel {
        "grants" if room.identity::<String>()?.as_deref() != Some("root") => Ok(Visible::nothing()),
        _ => Ok(Visible::all()),
    });
    world.connect("ada");
    world.run(&["INSERT INTO grants VALUES (1, 'ada', 1)"]);
    world.run(&["DELETE FROM grants"]);
    assert!(world.frames.iter().any(|(_, frame)| frame["type"] == "patch"));
    let grants = world.frames.iter().flat_map(|(_, frame)| frame["changes"].as_array().cloned());
    assert!(!grants.flatten().any(|change| change["channel"] == "grants"));
    assert_eq!(world.closed.len(), 0);
}

#[test]
fn who_may_not_be_asked_is_refused_as_by_on_connect() {
    let mut world = World::new(server(own));
    *world.visible.borrow_mut() =
        Box::new(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("eve") => Err(Error::new(Code::Forbidden, "go away")),
            _ => own(room, channel),
        });
    world.connect("eve");
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 4403 go away"));
    assert!(world.frames.iter().all(|(_, frame)| frame["type"] != "welcome"));
}

#[test]
fn visible_only_reads() {
    let mut world = World::new(server(own));
    for sql in ["DELETE FROM notes", "WITH a AS (SELECT 1) INSERT INTO grants VALUES (1, '', 1)"] {
        *world.visible.borrow_mut() = Box::new(move |room, _| {
            room.sql().exec(sql, &[])?;
            Ok(Visible::all())
        });
        world.room.take_logged();
        world.connect("ada");
        let logged = world.room.take_logged().join("\n");
        assert!(logged.contains("`visible` only reads"), "{logged}");
    }
    *world.visible.borrow_mut() = Box::new(move |room, _| {
        let with = "WITH RECURSIVE a(n) AS (SELECT 1 UNION SELECT n + 1 FROM a WHERE n < 3) SELECT max(n) FROM a";
        let most: i64 = room.sql().query_one(with, [], |row| row.get(0))?;
        Ok(if most == 3 { Visible::all() } else { Visible::nothing() })
    });
    world.connect("ada");
    assert_eq!(world.closed.len(), 0);
}

#[test]
fn a_condition_that_fails_for_a_row_closes_those_who_see_by_it_alone() {
    let mut world =
        World::new(server(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("eve") if channel == "notes" => Ok(Visible::rows("abs(board) = 1", [])),
            _ => own(room, channel),
        }));
    for who in ["ada", "eve"] {
        world.connect(who);
    }
    world.run(&[
        "INSERT INTO notes (id, owner, board, text) VALUES ('x', 'ada', -9223372036854775808, '')",
    ]);
    assert_eq!(world.notes("ada"), ["x"]);
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 1011 sql"));
    // Nor is it let in as long as the row is there.
    world.connect("eve");
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 1011 sql"));
}

#[test]
fn the_history_is_for_those_who_see_everything() {
    let (server, db) = (server(own), Sqlite::in_memory().unwrap());
    let opening = Opening { fresh_epoch: "e".into(), ..Opening::default() };
    let now = Timestamp::from_millis(1);
    let mut machine = Machine::open(&server, &db, now, opening).unwrap();
    machine.handle(&server, &db, now, Event::Alarm);
    let mut sees = |who: Option<&str>| {
        let mut request = http::Request::new(());
        if let Some(who) = who {
            Identity::new(who).unwrap().put(&mut request);
        }
        machine.sees_all(&server, &db, &request).map_err(|error| error.code())
    };
    assert_eq!(sees(Some("root")), Ok(()));
    assert_eq!(sees(Some("ada")), Err(Code::Forbidden));
    assert_eq!(sees(None), Err(Code::Forbidden));
}

#[test]
fn a_column_that_becomes_scope_has_all_start_over() {
    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct Before {
        #[record(key)]
        id: String,
        owner: String,
    }
    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct After {
        #[record(key)]
        id: String,
        #[record(scope)]
        owner: String,
    }
    by_sql!(BeforeAction, Before);
    by_sql!(AfterAction, After);
    struct Plain;
    impl SyncServer for Plain {
        type Action = BeforeAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: BeforeAction) -> Result<()> {
            let BeforeAction::Run { sql } = action;
            sql.iter().try_for_each(|sql| room.sql().exec(sql, &[]))
        }
    }
    struct Scoped;
    impl SyncServer for Scoped {
        type Action = AfterAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: AfterAction) -> Result<()> {
            let AfterAction::Run { sql } = action;
            sql.iter().try_for_each(|sql| room.sql().exec(sql, &[]))
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let old = |sql: &dyn Sql| {
        let columns =
            "SELECT count(*) FROM pragma_table_info('_partysync_change') WHERE name = 'old'";
        let trimmed = "SELECT trimmed_to FROM _partysync_meta";
        let one = |query: &str| sql.query_one(query, [], |row| row.get::<i64>(0)).unwrap();
        (one(columns), one(trimmed))
    };
    let insert = vec!["INSERT INTO notes (id, owner) VALUES ('a', 'ada')".to_owned()];
    {
        let mut room = TestRoom::with(Plain, Sqlite::open(file.path()).unwrap()).unwrap();
        room.act(BeforeAction::Run { sql: insert }).unwrap();
        // Who has no such columns pays nothing.
        assert_eq!(old(room.sql()), (0, 0));
    }
    for _ in 0..2 {
        let mut room = TestRoom::with(Scoped, Sqlite::open(file.path()).unwrap()).unwrap();
        let (column, trimmed) = old(room.sql());
        assert_eq!((column, trimmed), (1, 2));
        room.act(AfterAction::Run { sql: vec!["UPDATE notes SET owner = 'bob'".into()] }).unwrap();
    }
}
