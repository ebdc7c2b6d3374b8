//! What hooks do to the room while they await, and what they begin.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use partysync::room::turn::{Local, Turn};
use partysync::room::{Answered, Effect, Event, HookDone, Incoming, Opening, Slot};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Connection, Error, Handle, Identity, Job, Protocol, Record, Result, Room,
    SyncServer, Timestamp, params,
};
use partysync_tests::watched::Watched;
use serde_json::{Value as Json, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(insert)]
    Create { id: String, text: String },
    #[action(update)]
    Edit { id: String, text: Option<String> },
}

/// A server that hooks of a test look at from outside.
#[derive(Clone, Default)]
struct Notes(Rc<Shared>);

#[derive(Default)]
struct Shared {
    /// What is awaited next.
    gate: RefCell<Option<oneshot::Receiver<()>>>,
    /// Is told when that is awaited.
    waits: RefCell<Option<mpsc::Sender<()>>>,
    /// Handles that hooks had.
    handles: RefCell<Vec<Handle<Notes>>>,
    begun: Cell<u32>,
    down: Cell<bool>,
    told: RefCell<Vec<String>>,
    faults: RefCell<Vec<String>>,
}

impl Notes {
    /// Has what waits next wait until this is sent.
    fn hold(&self) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        *self.0.gate.borrow_mut() = Some(gate);
        open
    }

    async fn wait(&self) {
        let gate = self.0.gate.borrow_mut().take();
        let waits = self.0.waits.borrow_mut().take();
        if let Some(gate) = gate {
            let tell = async { waits.map(|waits| waits.send(())) };
            let _ = futures::join!(gate, tell);
        }
    }

    /// Another service, which is down at times.
    async fn deliver(&self, what: &str) -> Result<()> {
        if self.0.down.get() {
            return Err(Error::retry("it is down"));
        }
        self.0.told.borrow_mut().push(what.to_owned());
        Ok(())
    }
}

fn text(room: &Room<'_, Notes>, id: &str) -> Result<Option<String>> {
    let sql = "SELECT text FROM notes WHERE id = ?";
    room.sql().query_opt(sql, params![id], |row| row.get(0))
}

fn put(room: &Room<'_, Notes>, id: &str, text: &str) -> Result<()> {
    let sql = "INSERT INTO notes (id, text) VALUES (?, ?) \
               ON CONFLICT (id) DO UPDATE SET text = excluded.text";
    room.sql().execute(sql, params![id, text]).map(drop)
}

/// Reads a note, waits, and writes it with this behind it.
async fn append(notes: Notes, room: Handle<Notes>, id: &'static str, more: &'static str) {
    let read = room.run(move |room| text(room, id)).await.unwrap().unwrap_or_default();
    notes.wait().await;
    room.run(move |room| put(room, id, &format!("{read}{more}"))).await.unwrap();
}

impl SyncServer for Notes {
    type Action = NoteAction;

    /// A note that is locked is edited by nobody.
    async fn before_action(
        &self,
        room: &Handle<Self>,
        _: &Connection,
        action: &NoteAction,
    ) -> Result<()> {
        match action {
            NoteAction::Edit { id, .. } => {
                let id = id.clone();
                match room.run(move |room| text(room, &id)).await?.as_deref() {
                    Some("locked") => Err(Error::reject("it is locked")),
                    _ => Ok(()),
                }
            }
            NoteAction::Create { text, .. } if text == "waits for ever" => {
                std::future::pending().await
            }
            NoteAction::Create { .. } => Ok(()),
        }
    }

    async fn after_commit(&self, room: &Handle<Self>, _: &Connection, action: NoteAction) {
        self.0.handles.borrow_mut().push(room.clone());
        let NoteAction::Create { id, text } = action else { return };
        if text == "count me" {
            let counted = room.run(move |room| {
                let count = "SELECT count(*) FROM notes";
                let count: i64 = room.sql().query_one(count, [], |row| row.get(0))?;
                put(room, &id, &format!("{count} of {}", room.name()))
            });
            counted.await.unwrap();
        }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        if let NoteAction::Create { text, .. } = &action {
            let (begun, fails) = (self.0.clone(), text == "begin and fail");
            if fails || text == "begin" {
                room.spawn(async move { begun.begun.set(begun.begun.get() + 1) });
            }
            if fails {
                return Err(Error::reject("it fails"));
            }
        }
        action.apply(room.sql())
    }

    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        match message.as_str() {
            Some("deliver") => room.schedule(room.now(), "deliver", "a parcel"),
            Some("twice") => {
                for more in ["a", "b"] {
                    room.spawn(append(self.clone(), room.handle(), "x", more));
                }
                Ok(())
            }
            _ => {
                let handle = room.handle();
                room.spawn(async move {
                    let who = handle.run(|room| {
                        let who = room.identity::<String>()?.unwrap_or_default();
                        assert!(room.sender().is_none());
                        put(room, "who", &who)
                    });
                    who.await.unwrap();
                });
                Ok(())
            }
        }
    }

    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        let (what, name) = (job.payload::<String>()?, job.name().to_owned());
        room.schedule(room.now().plus_millis(60_000), &name, &what)?;
        let (notes, handle) = (self.clone(), room.handle());
        room.spawn(async move {
            if notes.deliver(&what).await.is_ok() {
                let _ = handle.run(move |room| room.cancel(&name)).await;
            }
        });
        Ok(())
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        self.wait().await;
        let path = request.uri().path().to_owned();
        let answer = room.run(move |room| match &*path {
            "/fails" => {
                put(room, "half", "written")?;
                Err(Error::reject("half of it"))
            }
            "/breaks" => room.sql().execute("no SQL", params![]).map(|_| String::new()),
            "/who" => Ok(room.identity::<String>()?.unwrap_or_else(|| "nobody".into())),
            _ => {
                put(room, "posted", "by a request")?;
                room.set_alarm(room.now().plus_millis(500));
                Ok(String::new())
            }
        });
        Ok(http::Response::new(answer.await?.into_bytes()))
    }

    fn on_error(&self, fault: &partysync::Fault) {
        self.0.faults.borrow_mut().push(fault.what().to_owned());
    }
}

fn create(id: &str, text: &str) -> NoteAction {
    NoteAction::Create { id: id.into(), text: text.into() }
}

fn get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).unwrap()
}

fn texts(room: &TestRoom<Notes>) -> Vec<(String, String)> {
    room.rows::<Note>().unwrap().into_iter().map(|note| (note.id, note.text)).collect()
}

fn pair(id: &str, text: &str) -> (String, String) {
    (id.into(), text.into())
}

#[test]
fn what_a_request_writes_is_one_transaction_and_is_sent() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    assert_eq!(room.request(get("/"))?.status(), 200);
    assert_eq!(texts(&room), [pair("posted", "by a request")]);
    assert_eq!(room.next_alarm(), Some(room.now().plus_millis(500)));
    let sent = room.take_sent();
    assert!(
        sent.iter().any(|(to, text)| to == "self" && text.contains("by a request")),
        "{sent:?}"
    );
    Ok(())
}

#[test]
fn a_closure_that_fails_writes_nothing() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let response = room.request(get("/fails"))?;
    assert_eq!(
        (response.status().as_u16(), &**response.body()),
        (403, &b"rejected: half of it"[..])
    );
    assert_eq!(texts(&room), []);
    assert!(room.server().0.faults.borrow().is_empty());
    // What is no word of the application's is in the log, and nowhere else.
    let response = room.request(get("/breaks"))?;
    let body = String::from_utf8_lossy(response.body());
    assert!(body.starts_with("sql: Something went wrong at the server (error "), "{body}");
    assert_eq!(*room.server().0.faults.borrow(), ["on_request"]);
    assert!(room.take_logged()[0].contains("syntax error"));
    Ok(())
}

#[test]
fn a_hook_reads_a_row_and_decides_by_it() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.act(create("a", "open"))?;
    let edit = |text: &str| NoteAction::Edit { id: "a".into(), text: Some(text.into()) };
    room.act(edit("locked"))?;
    assert_eq!(room.act(edit("mine")).unwrap_err().message(), "it is locked");
    assert_eq!(texts(&room), [pair("a", "locked")]);
    Ok(())
}

#[test]
fn what_is_written_after_a_commit_sees_what_was_committed() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.act(create("a", "first"))?;
    room.act(create("b", "count me"))?;
    assert_eq!(texts(&room), [pair("a", "first"), pair("b", "2 of test")]);
    Ok(())
}

#[test]
fn what_a_hook_begins_does_not_begin_if_it_fails() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    assert_eq!(room.act(create("a", "begin and fail")).unwrap_err().code(), Code::Rejected);
    assert_eq!(room.server().0.begun.get(), 0);
    room.act(create("a", "begin"))?;
    assert_eq!(room.server().0.begun.get(), 1);
    Ok(())
}

#[test]
fn of_actions_that_share_a_transaction_only_those_that_are_done_begin_something() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let action = |seq: u32, text: &str| {
        format!(
            r#"{{"seq":{seq},"channel":"notes","action":{{"type":"create","payload":{{"id":"{seq}","text":"{text}"}}}}}}"#
        )
    };
    let actions = [action(1, "begin"), action(2, "begin and fail"), action(3, "begin")].join(",");
    room.frame("self", &format!(r#"{{"type":"push","actions":[{actions}]}}"#))?;
    assert_eq!(room.server().0.begun.get(), 2);
    Ok(())
}

#[test]
fn a_job_that_is_taken_back_on_success_is_tried_until_then() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.server().0.down.set(true);
    room.frame("self", r#"{"type":"message","data":"deliver"}"#)?;
    room.run_for(150_000)?;
    assert_eq!((room.server().0.told.borrow().len(), room.jobs()?.len()), (0, 1));
    room.server().0.down.set(false);
    room.run_for(600_000)?;
    assert_eq!(*room.server().0.told.borrow(), ["a parcel"]);
    assert_eq!(room.jobs()?, []);
    Ok(())
}

#[test]
fn what_is_done_by_a_handle_is_done_for_whoever_was_behind_its_hook() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let mut request = get("/who");
    assert_eq!(room.request(request.clone())?.body(), b"nobody");
    Identity::new("ada")?.put(&mut request);
    assert_eq!(room.request(request)?.body(), b"ada");
    room.login("bob", "bob")?;
    room.frame("bob", r#"{"type":"message","data":"who am I?"}"#)?;
    assert_eq!(texts(&room), [pair("who", "bob")]);
    room.run(|room| room.identity::<String>().map(|who| assert_eq!(who, None)))?;
    room.act_as("bob", create("a", "text"))?;
    let handle = room.server().0.handles.borrow_mut().pop().unwrap();
    assert_eq!(handle.name(), "test");
    Ok(())
}

#[test]
fn a_hook_that_waits_for_ever_fails_a_test_and_does_not_hang_it() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.set_patience(Duration::ZERO);
    let error = room.act(create("a", "waits for ever")).unwrap_err();
    assert_eq!(error.message(), "a hook waits for something that does not come");
    Ok(())
}

#[test]
fn a_hook_may_wait_for_another_thread() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let open = room.server().hold();
    let (waits, waiting) = mpsc::channel();
    *room.server().0.waits.borrow_mut() = Some(waits);
    let other = std::thread::spawn(move || {
        waiting.recv().unwrap();
        open.send(()).unwrap();
    });
    assert_eq!(room.request(get("/"))?.status(), 200);
    other.join().unwrap();
    Ok(())
}

/// A driver that lets a test decide what goes on when, on a disk that fails if it is told to.
struct Driver {
    room: Local<Notes>,
    db: Watched,
    /// What is in a statement that fails.
    fails: Rc<Cell<Option<&'static str>>>,
    hooks: Vec<LocalBoxFuture<'static, HookDone<NoteAction>>>,
    after: Vec<LocalBoxFuture<'static, ()>>,
    sent: Vec<String>,
}

impl Driver {
    fn new() -> Self {
        let fails = Rc::<Cell<Option<&str>>>::default();
        let failing = fails.clone();
        let db = Watched::new(&Rc::new(Sqlite::in_memory().unwrap()), move |sql, _| match failing
            .get()
        {
            Some(part) if sql.contains(part) => Err(Error::new(Code::Storage, "the disk is full")),
            _ => Ok(()),
        });
        let room = Local::new(Notes::default());
        let mut driver =
            Self { room, db, fails, hooks: Vec::new(), after: Vec::new(), sent: Vec::new() };
        let request = http::Request::new(());
        let (wanted, fresh_id) = (Some("a".to_owned()), "other".to_owned());
        let protocol = Protocol::V2;
        driver.turn([Event::Connect { wanted, fresh_id, protocol, request: &request }]).unwrap();
        let (schema, wanted) = (Note::SCHEMA.hash(), r#""channel":"notes","since":null"#);
        driver.frame(&format!(
            r#"{{"type":"hello","client":"c","epoch":null,"channels":[{{{wanted},"schema":"{schema}"}}]}}"#
        ));
        driver
    }

    /// The server, as it is seen from outside.
    fn notes(&self) -> Notes {
        (**self.room.server()).clone()
    }

    fn turn<'e>(&mut self, events: impl IntoIterator<Item = Event<'e, NoteAction>>) -> Result<()> {
        let opening = || Opening { fresh_epoch: "fresh".into(), ..Opening::default() };
        let now = Timestamp::from_millis(1_000);
        let Turn { effects, hooks, after, aborted, .. } =
            self.room.turn(&self.db, now, opening, events)?;
        for effect in effects {
            if let Effect::Send { frame, .. } = effect {
                self.sent.push(frame.to_string());
            }
        }
        self.hooks.extend(hooks);
        self.after.extend(after);
        aborted.map_or(Ok(()), Err)
    }

    fn frame(&mut self, text: &str) {
        self.turn([Event::Frame(Slot(0), Incoming::Text(text))]).unwrap();
    }

    fn message(&mut self, text: &str) {
        self.frame(&json!({ "type": "message", "data": text }).to_string());
    }

    /// Lets go on what nobody waits for, and then has a turn.
    fn go_on(&mut self) -> Result<()> {
        self.after.retain_mut(|after| after.now_or_never().is_none());
        self.turn([])
    }

    fn text(&self, id: &str) -> Option<String> {
        let sql: &dyn Sql = &*self.db.db;
        let text = "SELECT text FROM notes WHERE id = ?";
        sql.query_opt(text, params![id], |row| row.get(0)).unwrap()
    }
}

/// Polls a request; its answer.
fn poll(request: &mut LocalBoxFuture<'static, Answered>) -> Option<u16> {
    request.now_or_never().map(|answered| answered.response.status().as_u16())
}

#[test]
fn a_request_that_waits_does_not_hold_up_actions() {
    let mut driver = Driver::new();
    let open = driver.notes().hold();
    let mut request = driver.room.answer(get("/"));
    assert_eq!(poll(&mut request), None);
    let push = |seq: u32| {
        format!(
            r#"{{"type":"push","answered":{},"actions":[{{"seq":{seq},"channel":"notes","action":{{"type":"create","payload":{{"id":"{seq}","text":"t"}}}}}}]}}"#,
            seq - 1
        )
    };
    driver.frame(&push(1));
    assert_eq!(driver.text("1").as_deref(), Some("t"));
    assert!(driver.sent.last().unwrap().contains(r#""acks":[{"seq":1}]"#), "{:?}", driver.sent);
    open.send(()).unwrap();
    // It is polled between two turns, and what it asks for is done in the next.
    assert_eq!(poll(&mut request), None);
    assert!(driver.room.is_asked());
    assert_eq!(driver.text("posted"), None);
    driver.frame(&push(2));
    assert!(!driver.room.is_asked());
    assert_eq!(driver.text("posted").as_deref(), Some("by a request"));
    assert_eq!(poll(&mut request), Some(200));
}

#[test]
fn two_handles_interleave_between_what_each_awaits() {
    let mut driver = Driver::new();
    // One of them waits between reading and writing.
    let open = driver.notes().hold();
    driver.message("twice");
    assert_eq!(driver.after.len(), 2);
    while driver.after.len() > 1 {
        driver.go_on().unwrap();
    }
    assert_eq!(driver.text("x").as_deref(), Some("b"));
    open.send(()).unwrap();
    while !driver.after.is_empty() {
        driver.go_on().unwrap();
    }
    // It has read before the other wrote.
    assert_eq!(driver.text("x").as_deref(), Some("a"));
}

#[test]
fn what_is_asked_for_in_a_turn_that_fails_was_not_done() {
    let mut driver = Driver::new();
    let mut request = driver.room.answer(get("/"));
    assert_eq!(poll(&mut request), None);
    // After the closure has returned.
    driver.fails.set(Some("alarm_at"));
    assert_eq!(driver.turn([]).unwrap_err().code(), Code::Storage);
    let answered = request.now_or_never().unwrap();
    let body = String::from_utf8(answered.response.into_body()).unwrap();
    assert!(body.starts_with("unavailable: "), "{body}");
    driver.fails.set(None);
    // Nor is it done later.
    driver.turn([]).unwrap();
    assert_eq!(driver.text("posted"), None);
}

#[test]
fn a_handle_of_a_room_that_was_opened_anew_says_so() {
    let mut driver = Driver::new();
    let (before, mut during) = (driver.room.answer(get("/")), driver.room.answer(get("/")));
    assert_eq!(poll(&mut during), None);
    driver.room.close();
    driver.turn([]).unwrap();
    // One that had asked already, and one that asks now.
    for request in [during, before] {
        let answered = request.now_or_never().unwrap();
        let body = String::from_utf8(answered.response.into_body()).unwrap();
        assert!(body.starts_with("unavailable: "), "{body}");
        // Nobody has to be called for that.
        assert_eq!(answered.fault, None);
    }
    assert_eq!(driver.text("posted"), None);
    let mut after = driver.room.answer(get("/"));
    assert_eq!(poll(&mut after), None);
    driver.turn([]).unwrap();
    assert_eq!(poll(&mut after), Some(200));
}

#[test]
fn what_is_dropped_before_its_turn_is_not_done() {
    let mut driver = Driver::new();
    let mut request = driver.room.answer(get("/"));
    assert_eq!(poll(&mut request), None);
    drop(request);
    driver.turn([]).unwrap();
    assert_eq!(driver.text("posted"), None);
}

#[test]
fn what_a_hook_begins_waits_for_its_commit() {
    let mut driver = Driver::new();
    // After the action was done.
    driver.fails.set(Some("INSERT INTO _partysync_client"));
    let push = r#"{"type":"push","actions":[{"seq":1,"channel":"notes","action":{"type":"create","payload":{"id":"1","text":"begin"}}}]}"#;
    let failed = driver.turn([Event::Frame(Slot(0), Incoming::Text(push))]);
    assert_eq!(failed.unwrap_err().code(), Code::Storage);
    assert!(driver.after.is_empty() && driver.hooks.is_empty());
    assert_eq!(driver.notes().0.begun.get(), 0);
}
