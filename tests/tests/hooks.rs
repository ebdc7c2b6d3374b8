//! What hooks may do, what is left when they fail, and what a room keeps through sleep.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::executor::LocalPool;
use futures::future::LocalBoxFuture;
use futures::task::LocalSpawnExt;
use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, HookDone, Incoming, Opening, Slot};
use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Connection, Error, Handle, Protocol, Record, Result, Room, SyncServer, Timestamp,
    params,
};
use serde_json::{Value as Json, json};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(insert)]
    Create { id: String, text: String },
    #[action(delete)]
    Delete { id: String },
}

/// Waits for a gate, and wakes only the waker that it got first, as some futures of runtimes do.
struct Stubborn(oneshot::Receiver<()>, Option<Waker>);

impl Future for Stubborn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let first = self.1.get_or_insert_with(|| context.waker().clone()).clone();
        let gate = Pin::new(&mut self.0);
        gate.poll(&mut Context::from_waker(&first)).map(drop)
    }
}

/// A server whose hooks do what a test asks of them.
#[derive(Default)]
struct Notes {
    /// What is awaited by `before_action`.
    gate: RefCell<Option<oneshot::Receiver<()>>>,
    /// How often hooks are to fail.
    failures: Cell<u32>,
    alarms: Cell<u32>,
    committed: RefCell<Vec<String>>,
    names: RefCell<Vec<String>>,
    faults: RefCell<Vec<partysync::Fault>>,
}

impl Notes {
    fn fails(&self) -> bool {
        let left = self.failures.get();
        self.failures.set(left.saturating_sub(1));
        left > 0
    }
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> partysync::Limits {
        partysync::Limits { retention_ms: 10_000, ..Default::default() }
    }

    async fn before_action(
        &self,
        _: &Handle<Self>,
        _: &Connection,
        action: &NoteAction,
    ) -> Result<()> {
        let gate = self.gate.borrow_mut().take();
        if let Some(gate) = gate {
            Stubborn(gate, None).await;
        }
        match action {
            NoteAction::Create { text, .. } if text == "later" => Err(Error::retry("come again")),
            _ => Ok(()),
        }
    }

    async fn after_commit(&self, _: &Handle<Self>, connection: &Connection, action: NoteAction) {
        self.committed.borrow_mut().push(format!("{} {action:?}", connection.id()));
    }

    fn on_connect(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        self.names.borrow_mut().push(room.name().to_owned());
        if self.fails() {
            // A statement that fails is no decision about the client.
            room.sql().execute("INSERT INTO no_such_table VALUES (1)", params![])?;
        }
        match request.uri().path().trim_start_matches('/').parse::<usize>() {
            Ok(size) => connection.set_state(&"é".repeat(size)),
            Err(_) => Ok(()),
        }
    }

    fn on_error(&self, fault: &partysync::Fault) {
        self.faults.borrow_mut().push(fault.clone());
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        // Each connection may do one action.
        let may = room.sender().map(Connection::state::<bool>);
        if matches!(may, Some(Ok(Some(false)))) {
            return Err(Error::new(Code::Forbidden, "one is enough"));
        }
        if let NoteAction::Create { text, .. } = &action {
            if text == "once" {
                room.sender_mut().map_or(Ok(()), |sender| sender.set_state(&false))?;
            }
            if text == "inside" {
                return Err(Error::new(Code::Sql, "no such column: secret"));
            }
        }
        action.apply(room.sql())
    }

    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        if let Some(other) = message.get("kick").and_then(Json::as_str) {
            return room.close(other, 4403, "you were too loud");
        }
        if message == json!("wake me") {
            room.set_alarm(room.now().plus_millis(500));
            return Ok(());
        }
        let Some(sender) = room.sender_mut() else { return Ok(()) };
        sender.add_tag("admin");
        sender.set_state(&"admin")?;
        room.broadcast(&"there is a new admin")?;
        room.sql().execute("INSERT INTO notes (id, text) VALUES ('x', 'y')", params![])?;
        Err(Error::reject("or not"))
    }

    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        self.alarms.set(self.alarms.get() + 1);
        let sql = "INSERT INTO notes (id, text) VALUES (hex(randomblob(8)), 'alarm')";
        room.sql().execute(sql, params![])?;
        if self.fails() { Err(Error::reject("not yet")) } else { Ok(()) }
    }
}

fn create(id: &str, text: &str) -> NoteAction {
    NoteAction::Create { id: id.into(), text: text.into() }
}

fn texts(sent: Vec<(String, String)>) -> Vec<String> {
    sent.into_iter().map(|(to, text)| format!("{to}: {text}")).collect()
}

#[test]
fn an_alarm_that_fails_rings_again_and_what_it_wrote_is_gone() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.frame("self", r#"{"type":"message","data":"wake me"}"#).unwrap();
    assert_eq!(room.next_alarm(), Some(room.now().plus_millis(500)));
    // A time that is set is kept, and known to a room that was asleep.
    room.hibernate().unwrap();
    room.advance_millis(500);
    room.server().failures.set(2);
    for wait in [2_000, 4_000] {
        room.alarm().unwrap();
        assert_eq!(room.next_alarm(), Some(room.now().plus_millis(wait)));
        assert!(room.take_logged().iter().any(|line| line.contains("on_alarm failed")));
        // Not before its time.
        room.alarm().unwrap();
        room.advance_millis(wait);
    }
    assert_eq!(room.rows::<Note>().unwrap(), []);
    room.alarm().unwrap();
    assert_eq!((room.server().alarms.get(), room.rows::<Note>().unwrap().len()), (3, 1));
    room.alarm().unwrap();
    assert_eq!(room.server().alarms.get(), 3);
}

#[test]
fn a_connection_is_refused_for_good_only_by_a_decision() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.server().failures.set(1);
    let error = room.connect("a", Protocol::V2).unwrap_err();
    assert_eq!(partysync::room::refusal(&error), (1011, "sql".to_owned()));
    // What SQLite said is in the log, and nowhere else.
    assert!(!error.message().contains("no_such_table"), "{error}");
    assert!(room.take_logged()[0].contains("no_such_table"));
    // It left nothing behind: its id is free.
    room.connect("a", Protocol::V2).unwrap();
    assert_eq!(room.connection("a").map(Connection::id), Some("a"));
    let decision = Error::new(Code::Unauthorized, "log in first");
    assert_eq!(partysync::room::refusal(&decision), (4401, "log in first".to_owned()));
    let decision = Error::new(Code::Forbidden, "not you");
    assert_eq!(partysync::room::refusal(&decision), (4403, "not you".to_owned()));
}

#[test]
fn a_connection_that_could_not_be_kept_through_sleep_is_refused() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let request = |size: usize| http::Request::get(format!("/{size}")).body(()).unwrap();
    // One byte a character, where all are below U+0100.
    room.connect_with("fits", Protocol::V2, &request(16_000)).unwrap();
    let error = room.connect_with("large", Protocol::V2, &request(16_400)).unwrap_err();
    assert_eq!(partysync::room::refusal(&error), (1009, "too_large".to_owned()));
    room.hibernate().unwrap();
    let state: Option<String> = room.connection("fits").unwrap().state().unwrap();
    assert_eq!(state.map(|state| state.chars().count()), Some(16_000));
}

#[test]
fn what_a_hook_that_failed_did_to_connections_is_gone() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let sent = texts(room.frame("self", r#"{"type":"message","data":"promote me"}"#).unwrap());
    assert_eq!(sent, [r#"self: {"type":"error","code":"rejected","message":"or not"}"#]);
    let own = room.connection("self").unwrap();
    assert_eq!((own.tags().len(), own.state::<String>().unwrap()), (0, None));
    assert_eq!(room.rows::<Note>().unwrap(), []);
}

#[test]
fn rights_that_are_taken_away_in_a_push_are_gone_for_the_rest_of_it() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let action = |seq: u32, text: &str| {
        format!(
            r#"{{"seq":{seq},"channel":"notes","action":{{"type":"create","payload":{{"id":"{seq}","text":"{text}"}}}}}}"#
        )
    };
    let actions = [action(1, "once"), action(2, "again"), action(3, "again")].join(",");
    let sent =
        texts(room.frame("self", &format!(r#"{{"type":"push","actions":[{actions}]}}"#)).unwrap());
    let acks =
        r#""acks":[{"seq":1},{"seq":2,"code":"forbidden","message":"one is enough"},{"seq":3,"#;
    assert!(sent[0].contains(acks), "{sent:?}");
    assert_eq!(room.rows::<Note>().unwrap().len(), 1);
    let committed = room.server().committed.borrow().clone();
    assert_eq!(committed, [r#"self Create { id: "1", text: "once" }"#]);
}

#[test]
fn a_connection_that_is_closed_by_a_hook_is_heard_no_more() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.connect("loud", Protocol::V1).unwrap();
    let sent = texts(room.frame("self", r#"{"type":"message","data":{"kick":"loud"}}"#).unwrap());
    assert_eq!(sent, ["loud: close 4403 you were too loud"]);
    let call = r#"{"id":"1","channel":"notes","rpc":true,"action":{"type":"delete","payload":{"id":"a"}}}"#;
    assert_eq!(room.frame("loud", call).unwrap(), []);
}

#[test]
fn an_action_that_cannot_be_decided_now_is_neither_done_nor_refused() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let error = room.act(create("a", "later")).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "come again"));
    let seen = "SELECT count(*) FROM _partysync_client";
    let seq: i64 = room.sql().query_one(seen, [], |row| row.get(0)).unwrap();
    let kept = "SELECT count(*) FROM _partysync_reject";
    let kept: i64 = room.sql().query_one(kept, [], |row| row.get(0)).unwrap();
    assert_eq!((seq, kept), (0, 0));
}

#[test]
fn a_client_hears_no_more_of_the_inside_than_an_id_that_is_in_the_log() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let error = room.act(create("a", "inside")).unwrap_err();
    assert_eq!(error.code(), Code::Sql);
    assert!(!error.message().contains("secret"), "{error}");
    let (words, id) = error.message().split_once(" (error ").unwrap();
    let id = id.trim_end_matches(')').to_owned();
    assert_eq!(words, "Something went wrong at the server");
    let logged = room.take_logged();
    assert!(logged[0].contains("secret") && logged[0].contains(&id), "{logged:?}");
    // Whoever runs the room is told once, with all that is known.
    let faults = room.server().faults.take();
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(
        (fault.room(), fault.what(), fault.id()),
        ("test", "action create of notes", Some(&*id))
    );
    assert_eq!(fault.error().code(), Code::Sql);
    assert_eq!([fault.to_string()], logged[..]);
    assert_eq!(fault.told(), error);
    // A client of v1 hears as much, under an id of its own.
    room.connect("v1", Protocol::V1).unwrap();
    let call = r#"{"id":"1","channel":"notes","rpc":true,"action":{"type":"create","payload":{"id":"b","text":"inside"}}}"#;
    let sent = texts(room.frame("v1", call).unwrap());
    let faults = room.server().faults.take();
    let [other] = &faults[..] else { panic!("{faults:?}") };
    assert!(other.id().is_some() && other.id() != fault.id());
    assert!(sent[0].contains(&format!(r#""error":["{}"]"#, other.told())), "{sent:?}");
    // What a client has done wrong is nobody else's business.
    room.act(create("a", "later")).unwrap_err();
    assert!(room.server().faults.take().is_empty());
}

#[test]
fn rows_deleted_long_ago_are_removed_for_good() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    for id in ["a", "b"] {
        room.act(create(id, "text")).unwrap();
    }
    room.act(NoteAction::Delete { id: "a".into() }).unwrap();
    room.advance_millis(9_000);
    room.act(NoteAction::Delete { id: "b".into() }).unwrap();
    let ids = |room: &TestRoom<Notes>| -> Vec<String> {
        room.rows::<Note>().unwrap().into_iter().map(|note| note.id).collect()
    };
    room.advance_millis(1_001);
    room.alarm().unwrap();
    assert_eq!(ids(&room), ["b"]);
    // Not at once: an alarm that rings all the time is paid for.
    room.advance_millis(61_000);
    room.alarm().unwrap();
    assert_eq!(ids(&room), [""; 0]);
    // One that was purged does not stand in the way of a new one, and neither does a deleted one.
    room.act(create("a", "new")).unwrap();
    room.act(NoteAction::Delete { id: "a".into() }).unwrap();
    room.act(create("a", "newer")).unwrap();
    assert_eq!(room.rows::<Note>().unwrap()[0].text, "newer");
}

#[test]
fn a_row_that_cannot_be_purged_stops_nothing() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let parts = "CREATE TABLE parts (note TEXT REFERENCES notes(id))";
    room.sql().execute(parts, params![]).unwrap();
    room.act(create("a", "text")).unwrap();
    room.sql().execute("INSERT INTO parts VALUES ('a')", params![]).unwrap();
    room.act(NoteAction::Delete { id: "a".into() }).unwrap();
    room.advance_millis(20_000);
    room.alarm().unwrap();
    assert!(room.take_logged()[0].contains("FOREIGN KEY"));
    assert!(room.next_alarm() > Some(room.now()));
    room.act(create("b", "text")).unwrap();
    // It is purged when nothing refers to it any more.
    room.sql().execute("DELETE FROM parts", params![]).unwrap();
    room.advance_millis(60 * 60 * 1000);
    room.alarm().unwrap();
    assert_eq!(room.rows::<Note>().unwrap().len(), 1);
}

/// A push of one action.
fn push(seq: u32) -> String {
    format!(
        r#"{{"type":"push","answered":{},"actions":[{{"seq":{seq},"channel":"notes","action":{{"type":"create","payload":{{"id":"{seq}","text":"t"}}}}}}]}}"#,
        seq - 1
    )
}

/// A driver that lets a test decide when hooks return.
struct Driver {
    room: Local<Notes>,
    db: Sqlite,
    now: Timestamp,
    hooks: Vec<LocalBoxFuture<'static, HookDone<NoteAction>>>,
    sent: Vec<String>,
    attachments: Vec<Option<String>>,
    name: Option<String>,
}

impl Driver {
    fn new() -> Self {
        Self {
            room: Local::new(Notes::default()),
            db: Sqlite::in_memory().unwrap(),
            now: Timestamp::from_millis(1_000),
            hooks: Vec::new(),
            sent: Vec::new(),
            attachments: Vec::new(),
            name: Some("room".into()),
        }
    }

    fn turn(&mut self, event: Event<'_, NoteAction>) {
        self.turn_of(vec![event]);
    }

    /// Several events in one turn.
    fn turn_of(&mut self, events: Vec<Event<'_, NoteAction>>) {
        let opening = self.opening();
        let turn = self.room.turn(&self.db, self.now, || opening, events).unwrap();
        self.carry_out(turn);
    }

    fn renew_epoch(&mut self) {
        let (opening, renew) = (self.opening(), |_: &_, room: &mut Room<'_, _>| {
            room.renew_epoch();
            Ok(())
        });
        let (turn, renewed) = self.room.run(&self.db, self.now, || opening, None, renew).unwrap();
        renewed.unwrap();
        self.carry_out(turn);
    }

    fn opening(&self) -> Opening {
        Opening {
            name: self.name.clone(),
            fresh_epoch: "fresh".into(),
            sockets: self.attachments.clone(),
            published: None,
        }
    }

    fn carry_out(&mut self, turn: Turn<Notes>) {
        for effect in turn.effects {
            match effect {
                Effect::Accept { slot, id } => self.sent.push(format!("{slot:?} is {id}")),
                Effect::Send { slots, frame } => self.sent.push(format!("{slots:?} {frame}")),
                Effect::Close { slot, code, reason } => {
                    self.sent.push(format!("{slot:?} close {code} {reason}"));
                }
                Effect::StoreAttachment { slot, attachment } => {
                    let place = slot.0 as usize;
                    self.attachments.resize(self.attachments.len().max(place + 1), None);
                    self.attachments[place] = Some(attachment);
                }
                _ => {}
            }
        }
        self.hooks.extend(turn.hooks);
    }

    fn connect(&mut self, id: &str) {
        let request = http::Request::new(());
        let (wanted, fresh_id) = (Some(id.to_owned()), "other".to_owned());
        self.turn(Event::Connect { wanted, fresh_id, protocol: Protocol::V2, request: &request });
    }

    fn hello(&mut self, slot: u32, client: &str, rest: &str) {
        let (schema, wanted) = (Note::SCHEMA.hash(), r#""channel":"notes","since":null"#);
        let hello = format!(
            r#"{{"type":"hello","client":"{client}",{rest},"channels":[{{{wanted},"schema":"{schema}"}}]}}"#
        );
        self.turn(Event::Frame(Slot(slot), Incoming::Text(&hello)));
    }

    fn push(&mut self, slot: u32, seq: u32) {
        self.turn(Event::Frame(Slot(slot), Incoming::Text(&push(seq))));
    }

    fn rows(&self) -> usize {
        let sql: &dyn partysync::sql::Sql = &self.db;
        sql.records::<Note>("", []).unwrap().len()
    }
}

#[test]
fn what_was_pushed_before_its_connection_was_closed_is_not_done_after_it() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.hello(0, "c", r#""epoch":null"#);
    let (open, gate) = oneshot::channel();
    *driver.room.server().gate.borrow_mut() = Some(gate);
    driver.push(0, 1);
    // Frames behind it wait, and their bytes are counted.
    driver.push(0, 2);
    driver.turn(Event::Closed(Slot(0)));
    // The hook goes on in a task that it has not seen before.
    let mut tasks = LocalPool::new();
    let hook = tasks.spawner().spawn_local_with_handle(driver.hooks.remove(0)).unwrap();
    tasks.run_until_stalled();
    open.send(()).unwrap();
    tasks.run_until_stalled();
    let done = hook.now_or_never().expect("the hook was woken");
    // Another has its slot by now.
    driver.connect("b");
    driver.hello(0, "d", r#""epoch":null"#);
    driver.turn(Event::HookDone(done));
    assert_eq!(driver.rows(), 0);
    // It comes again, and is done once.
    driver.connect("a");
    driver.hello(1, "c", r#""epoch":"fresh""#);
    driver.push(1, 1);
    driver.push(1, 2);
    driver.push(1, 1);
    assert_eq!(driver.rows(), 2);
}

#[test]
fn a_connection_that_gets_the_slot_of_one_that_left_in_its_turn_gets_nothing_else_of_it() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.hello(0, "c", r#""epoch":null"#);
    driver.connect("live");
    driver.hello(1, "d", r#""epoch":null"#);
    driver.sent.clear();
    let (slot, push, request) = (Slot(0), push(1), http::Request::new(()));
    // An error, an answer, a patch and an attachment are due to the one that leaves.
    driver.turn_of(vec![
        Event::Frame(slot, Incoming::Text("{")),
        Event::Frame(slot, Incoming::Text(&push)),
        Event::Closed(slot),
        Event::Connect {
            wanted: Some("b".into()),
            fresh_id: "other".into(),
            protocol: Protocol::V2,
            request: &request,
        },
    ]);
    let [error, accepted, patch] = &driver.sent[..] else { panic!("{:?}", driver.sent) };
    // What comes before it is accepted is for a socket that is gone.
    assert!(error.starts_with(r#"[Slot(0)] {"type":"error""#), "{error}");
    assert_eq!(accepted, "Slot(0) is b");
    assert!(patch.starts_with(r#"[Slot(1)] {"type":"patch""#), "{patch}");
    assert!(!driver.attachments[0].clone().unwrap().contains(r#""client":"c""#));
    // Nor is it taken for the other's client, which comes again and is answered.
    driver.sent.clear();
    driver.push(0, 2);
    assert!(driver.sent[0].contains("hello_first"), "{:?}", driver.sent);
    driver.sent.clear();
    driver.connect("a");
    driver.hello(2, "c", r#""epoch":"fresh""#);
    driver.push(2, 1);
    assert!(driver.sent.iter().all(|sent| !sent.contains("[Slot(0)]")), "{:?}", driver.sent);
    assert!(driver.sent.last().unwrap().contains(r#""acks":[{"seq":1}]"#), "{:?}", driver.sent);
    assert_eq!(driver.rows(), 1);
}

#[test]
fn a_socket_that_was_sent_a_part_of_what_it_lacks_does_not_sleep_on() {
    let mut driver = Driver::new();
    driver.connect("writer");
    driver.hello(0, "w", r#""epoch":null"#);
    for seq in 1..=20 {
        let text = "x".repeat(100_000);
        let push = format!(
            r#"{{"type":"push","actions":[{{"seq":{seq},"channel":"notes","action":{{"type":"create","payload":{{"id":"{seq}","text":"{text}"}}}}}}]}}"#
        );
        driver.turn(Event::Frame(Slot(0), Incoming::Text(&push)));
    }
    // Of two megabytes it is sent one before it says that it has read it.
    driver.connect("reader");
    driver.hello(1, "r", r#""epoch":null"#);
    driver.room.close();
    driver.sent.clear();
    driver.connect("another");
    assert_eq!(driver.sent, ["Slot(1) close 1012 restart", "Slot(2) is another"]);
}

#[test]
fn what_waits_behind_a_hook_has_a_bound() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.hello(0, "c", r#""epoch":null"#);
    let (_open, gate) = oneshot::channel();
    *driver.room.server().gate.borrow_mut() = Some(gate);
    driver.push(0, 1);
    driver.sent.clear();
    let large = format!(r#"{{"type":"message","data":"{}"}}"#, "x".repeat(1024 * 1024 - 100));
    for _ in 0..4 {
        driver.turn(Event::Frame(Slot(0), Incoming::Text(&large)));
    }
    assert_eq!(driver.sent, [""; 0]);
    driver.turn(Event::Frame(Slot(0), Incoming::Text(&large)));
    assert_eq!(driver.sent.last().map(String::as_str), Some("Slot(0) close 4429 rate_limited"));
}

#[test]
fn a_room_knows_its_name_when_the_runtime_does_not() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.room.close();
    (driver.name, driver.attachments) = (None, Vec::new());
    driver.connect("b");
    assert_eq!(*driver.room.server().names.borrow(), ["room", "room"]);
}

#[test]
fn a_socket_whose_state_cannot_be_read_is_closed_and_comes_again() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.hello(0, "c", r#""epoch":null"#);
    driver.room.close();
    let good = driver.attachments[0].clone();
    driver.attachments = vec![None, Some("of another age".into()), good];
    driver.sent.clear();
    driver.connect("b");
    assert_eq!(driver.sent[..2], ["Slot(0) close 1012 restart", "Slot(1) close 1012 restart"]);
    // Their slots are theirs until they are gone: what comes from them is nobody else's.
    assert_eq!(driver.sent[2..], ["Slot(3) is b"]);
    driver.push(0, 1);
    driver.turn(Event::Closed(Slot(0)));
    driver.connect("c");
    assert_eq!(driver.sent[3..], ["Slot(0) is c"]);
    driver.push(2, 1);
    assert!(driver.sent[4].starts_with(r#"[Slot(2)] {"type":"patch""#), "{:?}", driver.sent);
}

#[test]
fn a_client_goes_on_in_a_database_that_was_set_back_and_a_new_epoch_has_it_start_over() {
    let mut driver = Driver::new();
    driver.connect("a");
    driver.hello(0, "c", r#""epoch":null"#);
    driver.push(0, 1);
    let backup = driver.db.copy().unwrap();
    driver.push(0, 2);
    driver.push(0, 3);
    driver.room.close();
    (driver.db, driver.attachments) = (backup, Vec::new());
    driver.connect("c");
    driver.hello(0, "d", r#""epoch":"fresh""#);
    driver.sent.clear();
    driver.renew_epoch();
    assert_eq!(driver.sent, ["Slot(0) close 1012 restart"]);
    driver.turn(Event::Closed(Slot(0)));
    driver.connect("e");
    driver.sent.clear();
    driver.hello(0, "c", r#""epoch":"fresh""#);
    assert!(driver.sent[1].contains(r#"{"type":"reset","reason":"epoch"}"#), "{:?}", driver.sent);
    // It goes on counting from where it is.
    driver.push(0, 4);
    assert_eq!(driver.rows(), 2);
}
