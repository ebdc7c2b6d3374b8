//! Event-sourced rooms that follow a store: commits, rebases, calls that fail, lives that end.

use crate::harness::{Plain, STORE, Store, event, pull, request};
use partysync::livestore::{EventInput, EventOutput, EventRoom, EventServer, Identity, Input};
use partysync::livestore::{Transport, msgpack};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{Action, Code, Error, Event, Record, Result, Room, SyncServer, params};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, VecDeque};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "items")]
pub struct Item {
    #[record(key)]
    id: String,
    text: String,
    /// Taken over by whoever asks for it last.
    #[record(unique)]
    place: Option<i64>,
}

#[derive(Action, Clone, Debug)]
#[action(record = Item)]
pub enum ItemAction {
    #[action(insert)]
    Create { id: String, text: String },
    #[action(custom)]
    Do { name: String, args: String },
}

impl partysync::Reduce for ItemAction {
    fn reduce_custom(&self, _: &mut partysync::Draft<'_, Item>) -> Result<()> {
        Ok(())
    }
}

#[derive(Event, Clone, Debug, PartialEq)]
#[event(rename_all = "camelCase")]
pub enum ItemEvent {
    #[event(name = "v1.Created")]
    Created { id: String, text: String },
    #[event(name = "v1.Placed")]
    Placed { id: String, place: i64 },
    #[event(name = "v1.Renamed")]
    Renamed { id: String, text: String },
    #[event(name = "v1.Moved")]
    Moved { id: String, to: String },
    #[event(name = "v1.Swapped")]
    Swapped { id: String, with: String },
    #[event(name = "v1.Deleted")]
    Deleted { id: String },
    #[event(name = "v1.Copied")]
    Copied {
        from: String,
        new_id: String,
        #[event(optional)]
        text: Option<String>,
    },
    #[event(name = "v1.Refused")]
    Refused { half: String },
    #[event(name = "v1.Anything")]
    Anything { any: Json },
    #[event(name = "v1.Cleared")]
    Cleared,
}

#[derive(Default, Clone)]
struct Items {
    version: u32,
    reset: &'static str,
}

impl SyncServer for Items {
    type Action = ItemAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: ItemAction) -> Result<()> {
        match action {
            ItemAction::Create { id, text } => self.commit(room, ItemEvent::Created { id, text }),
            ItemAction::Do { name, args } => {
                let event = ItemEvent::from_parts(&name, Some(&args))?;
                self.commit(room, event.ok_or_else(|| Error::reject("no such event"))?)
            }
        }
    }
}

impl EventServer for Items {
    type Event = ItemEvent;

    fn materialize(&self, sql: &dyn Sql, event: &ItemEvent) -> Result<()> {
        match event {
            ItemEvent::Created { id, text } => {
                let text = if self.version > 0 { &format!("{text}!") } else { text };
                let sql_text = "INSERT OR IGNORE INTO items (id, text) VALUES (?, ?)";
                sql.exec(sql_text, &params![id, text])
            }
            // Whoever has the place is removed.
            ItemEvent::Placed { id, place } => {
                sql.exec("UPDATE OR REPLACE items SET place = ? WHERE id = ?", &params![place, id])
            }
            ItemEvent::Renamed { id, text } => {
                sql.exec("UPDATE items SET text = ? WHERE id = ?", &params![text, id])
            }
            ItemEvent::Moved { id, to } => {
                sql.exec("UPDATE OR REPLACE items SET id = ? WHERE id = ?", &params![to, id])
            }
            // Two rows change something unique between them.
            ItemEvent::Swapped { id, with } => {
                let place = "SELECT place FROM items WHERE id = ?";
                let place = |of: &String| {
                    let place = sql.query_opt(place, params![of], |row| row.get::<Option<i64>>(0));
                    place.map(Option::flatten)
                };
                let (one, two) = (place(id)?, place(with)?);
                let set = "UPDATE items SET place = ? WHERE id = ?";
                sql.exec(set, &params![None::<i64>, id])?;
                sql.exec(set, &params![one, with])?;
                sql.exec(set, &params![two, id])
            }
            ItemEvent::Deleted { id } => sql.exec("DELETE FROM items WHERE id = ?", &params![id]),
            ItemEvent::Copied { from, new_id, text } => sql.exec(
                "INSERT OR REPLACE INTO items (id, text) \
                 SELECT ?, coalesce(?, text) FROM items WHERE id = ?",
                &params![new_id, text, from],
            ),
            ItemEvent::Refused { half } => {
                sql.exec("INSERT OR REPLACE INTO items (id, text) VALUES (?, '')", &params![half])?;
                Err(Error::reject("it is refused half way"))
            }
            ItemEvent::Anything { .. } => Ok(()),
            ItemEvent::Cleared => sql.exec("DELETE FROM items", &[]),
        }
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn reset_persistence(&self) -> &str {
        self.reset
    }

    fn store_id(&self, _: &str) -> String {
        STORE.to_owned()
    }
}

/// A room, and what is under way between it and the store.
struct Node {
    room: TestRoom<EventRoom<Items>>,
    name: String,
    calls: VecDeque<(u64, String)>,
    answers: VecDeque<EventInput>,
    logs: Vec<String>,
    again: bool,
}

impl Node {
    fn new(name: &str) -> Self {
        Self::with(name, Items::default(), Sqlite::in_memory().unwrap())
    }

    fn with(name: &str, server: Items, db: Sqlite) -> Self {
        let identity = Identity {
            binding: "ROOM".to_owned(),
            object: name.to_owned(),
            client: format!("client of {name}"),
        };
        let room = TestRoom::with(EventRoom::new(server, identity), db).unwrap();
        let mut node = Self {
            room,
            name: name.to_owned(),
            calls: VecDeque::new(),
            answers: VecDeque::new(),
            logs: Vec::new(),
            again: false,
        };
        node.input(EventInput::Go);
        node
    }

    fn input(&mut self, input: EventInput) {
        let mut response = self.room.request(EventRoom::<Items>::input(input)).unwrap();
        assert_eq!(response.status(), 200, "{:?}", self.room.take_logged());
        for output in EventRoom::<Items>::outputs(&mut response) {
            match output {
                EventOutput::Call(number, message) => self.calls.push_back((number, message)),
                EventOutput::Again => self.again = true,
                EventOutput::Log(_, message) => self.logs.push(message),
            }
        }
    }

    fn act(&mut self, event: &ItemEvent) -> Result<()> {
        let args = event.args()?.unwrap_or(json!({})).to_string();
        self.room.act(ItemAction::Do { name: event.name().to_owned(), args })?;
        self.input(EventInput::Go);
        Ok(())
    }

    fn create(&mut self, id: &str) {
        self.act(&ItemEvent::Created { id: id.into(), text: format!("of {}", self.name) }).unwrap();
    }

    fn rows(&self) -> Vec<Item> {
        self.room.rows().unwrap()
    }

    fn ids(&self) -> Vec<String> {
        self.rows().into_iter().map(|item| item.id).collect()
    }

    /// The process ends, and the room comes again.
    fn restart(&mut self) {
        self.calls.clear();
        self.answers.clear();
        self.room.hibernate().unwrap();
        self.input(EventInput::Go);
    }

    fn ring(&mut self) {
        self.room.alarm().unwrap();
        self.input(EventInput::Go);
    }

    /// The events that the backend does not have, and the last that it has.
    fn pending(&self) -> (i64, u64) {
        let sql = self.room.sql();
        let count = "SELECT count(*), (SELECT head FROM _partysync_events) FROM _partysync_event \
                     WHERE seq > (SELECT head FROM _partysync_events)";
        let read =
            |row: &partysync::sql::Row<'_>| Ok((row.get(0)?, row.get::<i64>(1)?.unsigned_abs()));
        sql.query_one(count, [], read).unwrap()
    }
}

struct World {
    store: Store<Plain>,
    nodes: Vec<Node>,
}

impl World {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|n| Node::new(&format!("n{n}"))).collect();
        Self { store: Store::new(Plain), nodes }
    }

    /// One room, whose database is this file.
    fn in_file() -> (Self, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let node = Node::with("n0", Items::default(), Sqlite::open(file.path()).unwrap());
        (Self { store: Store::new(Plain), nodes: vec![node] }, file)
    }

    /// The store handles a call of a room; `heard` of its answer's messages arrive.
    fn serve(&mut self, node: usize, heard: usize) {
        let Some((number, message)) = self.nodes[node].calls.pop_front() else { return };
        // As it travels.
        let bytes = msgpack::encode([message.as_str()]).unwrap();
        let [message]: [String; 1] = msgpack::decode(&bytes, 1 << 24).unwrap().try_into().unwrap();
        let answer = self.store.call_by(Transport::Rpc, &message);
        let answers = &mut self.nodes[node].answers;
        let all = answer.len();
        for message in answer.into_iter().take(heard) {
            answers.push_back(EventInput::Message(number, message.to_string()));
        }
        let end = if heard < all { Err(Error::retry("the connection broke")) } else { Ok(()) };
        answers.push_back(EventInput::Ended(number, end));
    }

    fn hear(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(answer) = node.answers.pop_front() {
            node.input(answer);
        }
        if std::mem::take(&mut node.again) {
            node.input(EventInput::Go);
        }
    }

    /// The store calls a room, which hears it or not; the store is told of that or not.
    fn update(&mut self, heard: bool, told: bool) {
        if self.store.calls.is_empty() {
            return;
        }
        let (number, whom, frame) = self.store.calls.remove(0);
        if heard {
            let node = self.nodes.iter_mut().find(|node| node.name == whom.object);
            node.expect("a room").input(EventInput::Update(frame.to_string()));
        }
        let result = if heard && told { Ok(()) } else { Err(Error::retry("it broke")) };
        self.store.turn(Input::Called(number, result));
    }

    fn advance(&mut self, millis: i64) {
        self.store.now = self.store.now.plus_millis(millis);
        self.nodes.iter_mut().for_each(|node| node.room.advance_millis(millis));
    }

    /// Alarms that are due.
    fn alarms(&mut self) {
        if self.store.alarm.is_some_and(|at| at <= self.store.now) {
            self.store.alarm = None;
            self.store.turn(Input::Alarm);
        }
        for node in &mut self.nodes {
            if node.room.next_alarm().is_some_and(|at| at <= node.room.now()) {
                node.ring();
            }
        }
    }

    /// All goes well from here on, until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let mut quiet = self.store.calls.is_empty();
            self.update(true, true);
            for node in 0..self.nodes.len() {
                let own = &self.nodes[node];
                quiet &= own.calls.is_empty() && own.answers.is_empty() && !own.again;
                self.serve(node, usize::MAX);
                self.hear(node);
            }
            if quiet {
                self.advance(5_000);
                self.alarms();
                let busy = |node: &Node| !node.calls.is_empty() || node.pending().0 > 0;
                if !self.nodes.iter().any(busy) && self.store.calls.is_empty() {
                    let head = self.store.log().len() as u64;
                    if self.nodes.iter().all(|node| node.pending().1 == head) {
                        return;
                    }
                }
            }
        }
        for node in &self.nodes {
            eprintln!(
                "calls {:?} answers {:?} again {} now {:?} alarm {:?} store {:?} {:?}",
                node.calls,
                node.answers,
                node.again,
                node.room.now(),
                node.room.next_alarm(),
                self.store.calls.len(),
                self.store.alarm
            );
            eprintln!(
                "{}: {:?} {:?} {:?}",
                node.name,
                node.pending(),
                node.room.server(),
                node.logs
            );
        }
        panic!("it never ends: the log has {} events", self.store.log().len());
    }

    /// The store's events: name, arguments, client.
    fn log(&self) -> Vec<(String, Json, String)> {
        let sql: &dyn Sql = &self.store.db;
        let all = "SELECT name, args, clientId FROM eventlog_7_store_1 ORDER BY seqNum";
        sql.query_map(all, [], |row| {
            let args: Option<String> = row.get(1)?;
            let args = args.map_or(Json::Null, |args| serde_json::from_str(&args).unwrap());
            Ok((row.get(0)?, args, row.get(2)?))
        })
        .unwrap()
    }

    /// What a room makes of the log that sees it as it is now.
    fn replayed(&mut self) -> Vec<Item> {
        let mut fresh = Node::new("fresh");
        while let Some((number, message)) = fresh.calls.pop_front() {
            for message in self.store.call_by(Transport::Rpc, &message) {
                fresh.input(EventInput::Message(number, message.to_string()));
            }
            fresh.input(EventInput::Ended(number, Ok(())));
        }
        fresh.rows()
    }

    /// Every room shows what the log says.
    fn check(&mut self) {
        let rows = self.replayed();
        for node in &self.nodes {
            assert_eq!(node.rows(), rows, "{}", node.name);
            let undo = "SELECT count(*) FROM _partysync_undo_items";
            let left: i64 = node.room.sql().query_one(undo, [], |row| row.get(0)).unwrap();
            assert_eq!(left, 0, "nothing is left to be undone");
        }
    }

    /// Another client's events, at the head.
    fn foreign(&mut self, events: &[ItemEvent]) {
        // It is opened by whoever comes first.
        self.store.call(&pull("", false, None));
        let head = self.store.log().len() as u64;
        let batch = events.iter().zip(head + 1..).map(|(event, seq)| {
            json!({"name": event.name(), "args": event.args().unwrap(), "seqNum": seq,
                "parentSeqNum": seq - 1, "clientId": "js", "sessionId": "s"})
        });
        let batch: Vec<_> = batch.collect();
        let payload = json!({"storeId": STORE, "batch": batch, "backendId": {"_tag": "None"}});
        let answer = self.store.call(&request("f", "Push", payload));
        assert_eq!(answer[0]["exit"]["_tag"], "Success", "{answer:?}");
    }
}

fn created(id: &str) -> ItemEvent {
    ItemEvent::Created { id: id.into(), text: "foreign".into() }
}

#[test]
fn an_action_becomes_an_event_rows_and_a_push_and_rows_of_others() {
    let mut world = World::new(2);
    world.settle();
    world.nodes[0].create("a");
    assert_eq!(world.nodes[0].ids(), ["a"]);
    assert_eq!(world.nodes[0].pending().0, 1);
    world.settle();
    assert_eq!(world.nodes[1].ids(), ["a"]);
    let log = world.log();
    let args = json!({"id": "a", "text": "of n0"});
    assert_eq!(log, [("v1.Created".to_owned(), args, "client of n0-0".to_owned())]);
    world.check();
}

#[test]
fn events_of_others_come_before_those_that_are_not_pushed_yet() {
    let mut world = World::new(1);
    world.settle();
    world.foreign(&[created("a"), created("b"), ItemEvent::Placed { id: "b".into(), place: 1 }]);
    world.settle();
    // Meanwhile, on both sides.
    let node = &mut world.nodes[0];
    node.act(&ItemEvent::Renamed { id: "a".into(), text: "own".into() }).unwrap();
    node.act(&ItemEvent::Placed { id: "a".into(), place: 1 }).unwrap();
    node.act(&ItemEvent::Moved { id: "a".into(), to: "c".into() }).unwrap();
    assert_eq!(node.ids(), ["c"]);
    world.foreign(&[
        ItemEvent::Renamed { id: "a".into(), text: "foreign".into() },
        ItemEvent::Renamed { id: "b".into(), text: "renamed".into() },
        ItemEvent::Placed { id: "b".into(), place: 2 },
    ]);
    world.settle();
    let item = |id: &str, text: &str, place| Item { id: id.into(), text: text.into(), place };
    assert_eq!(world.nodes[0].rows(), [item("b", "renamed", Some(2)), item("c", "own", Some(1))]);
    world.check();
    let names: Vec<_> = world.log().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names[6..], ["v1.Renamed", "v1.Placed", "v1.Moved"]);
}

#[test]
fn rows_that_have_changed_something_unique_between_them_are_made_anew() {
    let mut world = World::new(1);
    let placed = |id: &str, place| ItemEvent::Placed { id: id.into(), place };
    world.foreign(&[created("a"), created("b"), placed("a", 1), placed("b", 2)]);
    world.settle();
    let swapped = ItemEvent::Swapped { id: "a".into(), with: "b".into() };
    world.nodes[0].act(&swapped).unwrap();
    world.foreign(&[created("c")]);
    world.settle();
    assert_eq!(world.nodes[0].rows()[0].place, Some(2));
    world.check();
}

#[test]
fn what_a_materializer_refuses_is_not_committed_and_has_no_effect_where_others_have() {
    let mut world = World::new(1);
    world.settle();
    let refused = ItemEvent::Refused { half: "half".into() };
    let error = world.nodes[0].act(&refused).unwrap_err();
    assert_eq!(error.code(), Code::Rejected);
    assert_eq!((world.nodes[0].ids().len(), world.nodes[0].pending().0), (0, 0));
    world.foreign(&[refused, created("a")]);
    let payload = json!({"storeId": STORE, "batch": [event(3)], "backendId": {"_tag": "None"}});
    world.store.call(&request("p", "Push", payload));
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
    let logs = &world.nodes[0].logs;
    assert!(logs.iter().any(|l| l.contains("half way")), "{logs:?}");
    assert!(logs.iter().any(|l| l.contains("`v1.Added`") && l.contains("not know")), "{logs:?}");
}

#[test]
fn an_event_that_not_everybody_could_pull_as_it_is_is_not_committed() {
    let mut world = World::new(1);
    let text = "x".repeat(900_001);
    let error = world.nodes[0].act(&ItemEvent::Renamed { id: "a".into(), text }).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    // Nor one that JavaScript would read as another.
    let place = (1 << 53) + 1;
    let error = world.nodes[0].act(&ItemEvent::Placed { id: "a".into(), place }).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains("9007199254740993"), "{error}");
}

#[test]
fn another_version_makes_rows_anew_in_parts_and_goes_on_after_a_restart() {
    let (mut world, file) = World::in_file();
    world.settle();
    for n in 0..25 {
        let events: Vec<_> = (0..100).map(|m| created(&format!("{n:02}-{m:02}"))).collect();
        world.foreign(&events);
    }
    world.settle();
    world.nodes[0].create("own");
    world.nodes.clear();
    let newer = Items { version: 1, ..Items::default() };
    world.nodes.push(Node::with("n0", newer, Sqlite::open(file.path()).unwrap()));
    assert!(world.nodes[0].again);
    assert_eq!(world.nodes[0].ids().len(), 1_000, "the first part");
    let error = world.nodes[0].act(&created("too early")).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    world.nodes[0].restart();
    assert_eq!(world.nodes[0].ids().len(), 2_000, "the second part, and not the first again");
    world.settle();
    let rows = world.nodes[0].rows();
    assert_eq!(rows.len(), 2_501);
    assert!(rows.iter().all(|row| row.text.ends_with('!')));
    assert_eq!(world.log().len(), 2_501);
}

#[test]
fn what_is_reset_starts_over_with_what_the_backend_has() {
    let (mut world, file) = World::in_file();
    world.settle();
    world.nodes[0].create("a");
    world.settle();
    world.nodes[0].create("never pushed");
    world.nodes.clear();
    let reset = Items { reset: "again", ..Items::default() };
    world.nodes.push(Node::with("n0", reset, Sqlite::open(file.path()).unwrap()));
    assert_eq!(world.nodes[0].ids(), [""; 0]);
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_backend_that_was_wiped_is_followed_and_given_what_it_never_had() {
    let mut world = World::new(2);
    world.settle();
    world.nodes[0].create("old");
    world.settle();
    world.nodes[0].create("not pushed");
    let now = std::mem::replace(&mut world.store, Store::another(Plain)).now;
    world.store.now = now;
    world.foreign(&[created("new")]);
    // Who is not told of it asks when it has something to say.
    world.nodes[1].create("of the other");
    world.settle();
    for node in &world.nodes {
        assert_eq!(node.ids(), ["new", "not pushed", "of the other"], "{}", node.name);
    }
    world.check();
}

#[test]
fn a_push_that_is_refused_comes_again_later_each_time_and_by_the_alarm() {
    let mut world = World::new(1);
    world.settle();
    world.nodes[0].create("a");
    let mut waits = Vec::new();
    for _ in 0..9 {
        let (number, _) = world.nodes[0].calls.pop_front().expect("a call");
        let error = EventInput::Ended(number, Err(Error::retry("it cannot be reached")));
        world.nodes[0].input(error);
        let began = world.nodes[0].room.now();
        while world.nodes[0].calls.is_empty() {
            let at = world.nodes[0].room.next_alarm().expect("an alarm");
            let wait = at.as_millis() - world.nodes[0].room.now().as_millis();
            world.advance(wait.max(1));
            world.nodes[0].ring();
        }
        waits.push(world.nodes[0].room.now().as_millis() - began.as_millis());
    }
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits[8], 60_000);
    world.settle();
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_room_that_sleeps_with_events_to_push_is_woken_by_its_alarm() {
    let mut world = World::new(1);
    world.settle();
    let node = &mut world.nodes[0];
    // The process ends before anything is pushed.
    node.room.act(ItemAction::Create { id: "a".into(), text: String::new() }).unwrap();
    assert!(node.room.next_alarm().is_some());
    node.room.hibernate().unwrap();
    world.advance(60_000);
    world.alarms();
    world.settle();
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_room_that_has_nothing_to_do_does_not_ring() {
    let mut world = World::new(1);
    world.settle();
    world.nodes[0].create("a");
    world.settle();
    // What the framework forgets after days is its own business.
    let rings = |world: &World| {
        let (at, now) = (world.nodes[0].room.next_alarm(), world.nodes[0].room.now());
        at.is_some_and(|at| at.as_millis() - now.as_millis() < 24 * 60 * 60 * 1_000)
    };
    assert!(!rings(&world));
    // Also when it has slept, and asked whether it lacks anything.
    world.nodes[0].restart();
    world.settle();
    assert!(!rings(&world));
}

#[test]
fn a_log_that_lacks_events_is_not_asked_for_them_without_a_wait() {
    let mut world = World::new(1);
    world.settle();
    world.foreign(&[created("a"), created("b"), created("c")]);
    world.store.calls.clear();
    let lost = "DELETE FROM eventlog_7_store_1 WHERE seqNum = 2";
    let sql: &dyn Sql = &world.store.db;
    sql.exec(lost, &[]).unwrap();
    world.nodes[0].restart();
    let mut calls = 0;
    for _ in 0..100 {
        calls += usize::from(!world.nodes[0].calls.is_empty());
        world.serve(0, usize::MAX);
        world.hear(0);
    }
    // What is there before the gap is taken, and then it waits.
    assert!(calls <= 3, "{calls}");
    let logs = &world.nodes[0].logs;
    assert!(logs.iter().any(|log| log.contains("lacks events")), "{logs:?}");
}

#[test]
fn a_migration_that_takes_triggers_away_loses_no_undo() {
    let (mut world, file) = World::in_file();
    world.foreign(&[created("a")]);
    world.settle();
    world.nodes.clear();
    // As a migration of the record does.
    let db = Sqlite::open(file.path()).unwrap();
    let sql: &dyn Sql = &db;
    for event in ["insert", "update", "moved", "delete"] {
        sql.exec(&format!("DROP TRIGGER _partysync_undo_items_{event}"), &[]).unwrap();
    }
    drop(db);
    let db = Sqlite::open(file.path()).unwrap();
    world.nodes.push(Node::with("n0", Items::default(), db));
    world.nodes[0].act(&ItemEvent::Moved { id: "a".into(), to: "b".into() }).unwrap();
    world.foreign(&[ItemEvent::Renamed { id: "a".into(), text: "renamed before".into() }]);
    world.settle();
    assert_eq!(world.nodes[0].rows()[0].text, "renamed before");
    world.check();
}

#[test]
fn what_no_backend_takes_is_not_committed() {
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let mut room = TestRoom::new(EventRoom::of_test(Items::default())).unwrap();
    let args = format!(r#"{{"id":"a","text":{deep}}}"#);
    // The type of the argument refuses it already: one that takes anything is the backend's to refuse.
    let name = "v1.Created".to_owned();
    assert!(room.act(ItemAction::Do { name, args }).is_err());
    let any = serde_json::from_str::<Json>(&deep).unwrap();
    let args = json!({ "any": any }).to_string();
    let name = "v1.Anything".to_owned();
    let error = room.act(ItemAction::Do { name, args }).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains("too deep"), "{error}");
}

#[test]
fn an_alarm_of_the_applications_that_fails_keeps_no_push_waiting() {
    #[derive(Default)]
    struct Fails;
    impl SyncServer for Fails {
        type Action = ItemAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: ItemAction) -> Result<()> {
            let ItemAction::Create { id, text } = action else { return Ok(()) };
            room.set_alarm(room.now());
            self.commit(room, ItemEvent::Created { id, text })
        }
        fn on_alarm(&self, _: &mut Room<'_, Self>) -> Result<()> {
            Err(Error::reject("never"))
        }
    }
    impl EventServer for Fails {
        type Event = ItemEvent;
        fn materialize(&self, sql: &dyn Sql, event: &ItemEvent) -> Result<()> {
            Items::default().materialize(sql, event)
        }
    }
    let mut room = TestRoom::new(EventRoom::of_test(Fails)).unwrap();
    room.act(ItemAction::Create { id: "a".into(), text: String::new() }).unwrap();
    for _ in 0..12 {
        let at = room.next_alarm().expect("an alarm");
        assert!(at.as_millis() - room.now().as_millis() <= 30_000, "the push waits for the alarm");
        room.advance_millis((at.as_millis() - room.now().as_millis()).max(0));
        room.alarm().unwrap();
    }
    let mut answer = room.request(EventRoom::<Fails>::input(EventInput::Go)).unwrap();
    let outputs = EventRoom::<Fails>::outputs(&mut answer);
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, EventOutput::Log(_, log) if log.contains("never"))),
        "{outputs:?}"
    );
}

#[test]
fn a_request_from_outside_hands_nothing_in() {
    let mut world = World::new(1);
    let response = world.nodes[0].room.request(http::Request::new(b"Go".to_vec())).unwrap();
    assert_eq!(response.status(), 404);
}

/// What happens in one of many orders.
fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(3);
    let ids = ["a", "b", "c", "d"];
    let mut committed: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for step in 0..120 {
        let node = rng.usize(..3);
        let mut pick = || ids[rng.usize(..4)].to_owned();
        let (one, two) = (pick(), pick());
        let text = step.to_string();
        let event = match rng.usize(..9) {
            0..3 => ItemEvent::Created { id: one, text },
            3 => ItemEvent::Placed { id: one, place: rng.i64(1..3) },
            4 => ItemEvent::Renamed { id: one, text },
            5 => ItemEvent::Moved { id: one, to: two },
            6 => ItemEvent::Swapped { id: one, with: two },
            7 => ItemEvent::Deleted { id: one },
            _ => ItemEvent::Copied { from: one, new_id: two, text: rng.bool().then_some(text) },
        };
        match rng.usize(..20) {
            0..5 => {
                world.nodes[node].act(&event).unwrap();
                let own = committed.entry(format!("client of n{node}-0")).or_default();
                own.push(json!([event.name(), event.args().unwrap()]));
            }
            5 => world.foreign(&[event]),
            6..9 => world.serve(node, usize::MAX),
            9 => world.serve(node, rng.usize(..2)),
            10..14 => world.hear(node),
            14..16 => world.update(true, true),
            16 => world.update(rng.bool(), false),
            17 => world.nodes[node].restart(),
            18 => match rng.bool() {
                true => world.store.hibernate(),
                false => world.store.kill(),
            },
            _ => {
                world.advance(rng.i64(0..20_000));
                world.alarms();
            }
        }
    }
    world.settle();
    world.check();
    // Each event that was committed is there once, in the order of its room.
    for (client, own) in committed {
        let log = world.log();
        let there = log.iter().filter(|(.., of)| *of == client);
        let there: Vec<_> = there.map(|(name, args, _)| json!([name, args])).collect();
        assert_eq!(there, own, "{client}");
    }
}

#[test]
fn whatever_happens_each_event_is_there_once_and_every_room_shows_what_the_log_says() {
    for seed in 0..60 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_push_of_many_goes_in_parts() {
    let mut world = World::new(1);
    world.settle();
    for n in 0..250 {
        world.nodes[0].create(&format!("{n:03}"));
    }
    world.settle();
    assert_eq!(world.log().len(), 250);
    world.check();
}
