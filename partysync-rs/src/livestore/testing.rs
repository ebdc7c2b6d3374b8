//! [`TestBackend`]: a sync backend in memory, for tests of event-sourced rooms.

use super::event_room::{Event, EventInput, EventOutput, EventRoom, EventServer, INPUT};
use super::io::{Effect, Input};
use super::server::{Caller, LiveStoreServer, Transport};
use super::subscriber::Subscriber;
use super::table::table_name;
use super::turn::Open;
use crate::room::Slot;
use crate::sql::{Sql, Sqlite, Turns, quote};
use crate::testing::TestRoom;
use crate::{Code, Error, Result, Timestamp};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::rc::Rc;

/// A sync backend in memory: the one that is deployed, for a room of a test.
///
/// Nothing moves by itself: what a room has to say is said in [`sync`](Self::sync).
///
/// ```
/// # use partysync::livestore::EventServer;
/// # use partysync::{Action, Event, Record, Result, Room, SyncServer, params, sql::Sql};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "todos")]
/// # struct Todo { #[record(key)] id: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Todo)]
/// # enum TodoAction { #[action(insert)] Create { id: String } }
/// # #[derive(Event, Clone)] enum TodoEvent { Created { id: String } }
/// # #[derive(Default)] struct Todos;
/// # impl SyncServer for Todos {
/// #     type Action = TodoAction;
/// #     fn on_action(&self, room: &mut Room<'_, Self>, action: TodoAction) -> Result<()> {
/// #         let TodoAction::Create { id } = action;
/// #         self.commit(room, TodoEvent::Created { id })
/// #     }
/// # }
/// # impl EventServer for Todos {
/// #     type Event = TodoEvent;
/// #     fn materialize(&self, sql: &dyn Sql, event: &TodoEvent) -> Result<()> {
/// #         let TodoEvent::Created { id } = event;
/// #         sql.exec("INSERT OR REPLACE INTO todos (id) VALUES (?)", &params![id])
/// #     }
/// # }
/// use partysync::livestore::EventRoom;
/// use partysync::testing::{TestBackend, TestRoom};
///
/// let mut backend = TestBackend::new()?;
/// let mut room = TestRoom::new(EventRoom::of_test(Todos))?;
/// backend.sync(&mut room)?;
/// // Both commit something, and do not know of each other.
/// backend.others([TodoEvent::Created { id: "theirs".into() }])?;
/// room.act(TodoAction::Create { id: "ours".into() })?;
/// backend.sync(&mut room)?;
/// assert_eq!(room.rows::<Todo>()?.len(), 2);
/// let log = backend.log()?;
/// assert_eq!((log[0].1["id"].as_str(), log[1].1["id"].as_str()), (Some("theirs"), Some("ours")));
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Debug)]
pub struct TestBackend {
    store: String,
    db: Sqlite,
    open: Open,
    now: Timestamp,
    down: bool,
    alarm: Option<Timestamp>,
    wiped: u32,
    /// Calls that its subscribers have not heard.
    calls: VecDeque<(u64, Rc<Subscriber>, String)>,
    logs: Vec<String>,
}

struct Plain;

impl LiveStoreServer for Plain {}

impl TestBackend {
    /// A backend with an empty log, of the store that has the name of a [`TestRoom`].
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new() -> Result<Self> {
        Self::of("test")
    }

    /// A backend with an empty log, of this store: what the room's [`EventServer::store_id`] says.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn of(store: &str) -> Result<Self> {
        let (db, now) = (Sqlite::in_memory()?, Timestamp::default());
        let open = Open::new(&Plain, &db, store, "backend-0", now, Vec::new())?;
        let (store, calls, logs) = (store.to_owned(), VecDeque::new(), Vec::new());
        Ok(Self { store, db, open, now, down: false, alarm: None, wiped: 0, calls, logs })
    }

    /// Whether it cannot be reached from here on.
    pub fn set_down(&mut self, down: bool) {
        self.down = down;
    }

    /// Removes all events, as its admin route does: it is another backend then.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn wipe(&mut self) -> Result<()> {
        self.wiped += 1;
        let fresh = format!("backend-{}", self.wiped);
        self.turn(Input::Empty(fresh)).map(drop)
    }

    /// Another client commits events, behind all that are there.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] where the backend refuses them; what SQLite says.
    pub fn others<E: Event>(&mut self, events: impl IntoIterator<Item = E>) -> Result<()> {
        let head = self.open.machine().context().head;
        let mut batch = Vec::new();
        for (event, seq) in events.into_iter().zip(head + 1..) {
            batch.push(json!({"name": event.name(), "args": event.args()?, "seqNum": seq,
                "parentSeqNum": seq - 1, "clientId": "others", "sessionId": "others"}));
        }
        let payload = json!({"storeId": self.store, "batch": batch, "backendId": {"_tag": "None"}});
        let request = json!({"_tag": "Request", "id": "0", "tag": "SyncDoRpc.Push",
            "payload": payload, "headers": []});
        let answer = self.call(&request.to_string())?;
        let pushed = answer.iter().any(|message| message.contains(r#""_tag":"Success""#));
        let refused = || Error::new(Code::InvalidValue, answer.join(", "));
        if pushed { Ok(()) } else { Err(refused()) }
    }

    /// All events: their names and arguments.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn log(&self) -> Result<Vec<(String, Json)>> {
        let all =
            format!("SELECT name, args FROM {} ORDER BY seqNum", quote(&table_name(&self.store)));
        let sql: &dyn Sql = &self.db;
        sql.query_map(&all, [], |row| {
            let args = row.get::<Option<String>>(1)?;
            let args = args.and_then(|args| serde_json::from_str(&args).ok());
            Ok((row.get(0)?, args.unwrap_or_default()))
        })
    }

    /// What rooms have logged since the last call.
    pub fn take_logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logs)
    }

    /// Has a room and the backend talk, with time going on, until the room has all events and the
    /// backend the room's. If the backend is down, the room tries once.
    ///
    /// # Errors
    /// What SQLite says; [`Code::Internal`] when it does not come to an end.
    pub fn sync<S: EventServer>(&mut self, room: &mut TestRoom<EventRoom<S>>) -> Result<()> {
        self.input(room, EventInput::Go)?;
        for _ in 0..10_000 {
            let object = room.server().object();
            let place = self.calls.iter().position(|(_, whom, _)| whom.object == object);
            if let Some((number, _, frame)) = place.and_then(|place| self.calls.remove(place)) {
                self.input(room, EventInput::Update(frame))?;
                self.turn(Input::Called(number, Ok(())))?;
                continue;
            }
            let (head, pending) = room.server().state(room.sql())?;
            let all = pending == 0 && head == self.open.machine().context().head;
            if self.down || (all && !room.server().is_behind()) {
                return Ok(());
            }
            room.advance_millis(1_000);
            self.now = self.now.max(room.now());
            if self.alarm.take_if(|at| *at <= self.now).is_some() {
                self.turn(Input::Alarm)?;
            }
            if room.next_alarm().is_some_and(|at| at <= room.now()) {
                room.alarm()?;
            }
            self.input(room, EventInput::Go)?;
        }
        Err(Error::new(Code::Internal, "the room and the backend come to no end"))
    }

    fn input<S: EventServer>(
        &mut self,
        room: &mut TestRoom<EventRoom<S>>,
        input: EventInput,
    ) -> Result<()> {
        self.now = self.now.max(room.now());
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let outputs = match room.input(input) {
                // The room has logged it.
                Err(error) if error.code() != Code::Storage => Vec::new(),
                outputs => outputs?,
            };
            for output in outputs {
                match output {
                    EventOutput::Call(number, _) if self.down => {
                        let error = Error::retry("the backend is down");
                        inputs.push_back(EventInput::Ended(number, Err(error)));
                    }
                    EventOutput::Call(number, message) => {
                        let answer = self.call(&message)?.into_iter();
                        inputs.extend(answer.map(|part| EventInput::Message(number, part)));
                        inputs.push_back(EventInput::Ended(number, Ok(())));
                    }
                    EventOutput::Again => inputs.push_back(EventInput::Go),
                    EventOutput::Log(_, what) => self.logs.push(what),
                }
            }
        }
        Ok(())
    }

    /// A call to its end: what it is answered.
    fn call(&mut self, message: &str) -> Result<Vec<String>> {
        let store_id = self.store.clone();
        let (payload, headers, transport) = (None, Vec::new(), Transport::Rpc);
        let caller = Caller { store_id, payload, headers, transport };
        let mut turned = self.turn(Input::Call(caller, message))?;
        let mut answer = Vec::new();
        loop {
            answer.append(&mut turned.sent);
            match turned.accepted.take().filter(|_| !turned.finished) {
                Some((slot, serial)) => {
                    turned = self.turn(Input::Taken(slot, serial))?;
                    turned.accepted = Some((slot, serial));
                }
                None => return Ok(answer),
            }
        }
    }

    /// Goes through turns with an input, until there is nothing more to do.
    fn turn(&mut self, input: Input<'_>) -> Result<Turned> {
        let mut turned = Turned::default();
        let (mut input, plain) = (Some(input), Rc::new(Plain));
        loop {
            self.db.begin()?;
            let turn = self.open.turn(&plain, &self.db, self.now, input.take());
            if let Some(error) = turn.aborted {
                return Err(error);
            }
            self.db.commit()?;
            let mut again = false;
            for effect in turn.effects {
                match effect {
                    Effect::Accept(slot, serial) => turned.accepted = Some((slot, serial)),
                    Effect::Send(_, frame) => turned.sent.push(frame),
                    Effect::Finish(_) => turned.finished = true,
                    Effect::Call(number, whom, frame) => {
                        self.calls.push_back((number, whom, frame));
                    }
                    Effect::SetAlarm(at) => self.alarm = at,
                    Effect::Again => again = true,
                    Effect::Log(_, what) => self.logs.push(what),
                    _ => {}
                }
            }
            if !again {
                return Ok(turned);
            }
        }
    }
}

/// What came of turns.
#[derive(Default)]
struct Turned {
    accepted: Option<(Slot, u64)>,
    sent: Vec<String>,
    finished: bool,
}

impl<S: EventServer> TestRoom<EventRoom<S>> {
    /// Hands in something, as a driver does: what is to be done then, in this order.
    ///
    /// # Errors
    /// As [`EventRoom::input`]; it is in the log.
    pub fn input(&mut self, input: EventInput) -> Result<Vec<EventOutput>> {
        self.run_with(Some(INPUT), move |server, room| server.input(room, &input))
    }
}
