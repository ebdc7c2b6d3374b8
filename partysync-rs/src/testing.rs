//! [`TestRoom`]: a server's hooks under plain `cargo test`, on real SQLite. With the feature
//! `livestore`, `TestBackend` is what an event-sourced room follows.

use crate::room::turn::Local;
use crate::room::{Answered, Connection, Event, Incoming, Machine, Slot};
use crate::sql::{Sql, Sqlite};
use crate::wire;
use crate::wire::v2::{
    ClientFrame, Hello, Push, PushAction, ServerFrame, Subscription, read_result,
};
use crate::{Action, Code, Error, Identity, Protocol, Record, Result, Room, SyncServer, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;
use turns::opening;
use waiting::Waiting;

mod turns;
mod waiting;

#[cfg(feature = "livestore")]
pub use crate::livestore::testing::TestBackend;

/// The connection and the client that [`TestRoom::act`] is.
const OWN: &str = "self";

/// What a connection is told that is to come again.
const RESTART: &str = "close 1012 restart";

/// A room in memory, with one client whose actions it takes.
///
/// ```
/// # use partysync::{Action, Record, Result, Room, SyncServer};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String, text: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
/// # #[derive(Default)] struct Notes;
/// # impl SyncServer for Notes {
/// #     type Action = NoteAction;
/// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
/// #         action.apply(room.sql())
/// #     }
/// # }
/// use partysync::testing::TestRoom;
///
/// # fn main() -> Result<()> {
/// let mut room = TestRoom::new(Notes)?;
/// room.act(NoteAction::Create { id: "a".into(), text: "hi".into() })?;
/// let notes: Vec<Note> = room.rows()?;
/// assert_eq!(notes[0].text, "hi");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TestRoom<S: SyncServer> {
    db: Sqlite,
    room: Local<S>,
    /// The ids of the connections that are open.
    ids: BTreeMap<Slot, String>,
    now: Timestamp,
    /// The clients whose actions it takes, with how many each has made.
    users: BTreeMap<String, u64>,
    sent: Vec<(String, String)>,
    /// What was sent by calls that do not return it.
    unheard: Vec<(String, String)>,
    alarm: Option<Timestamp>,
    logged: Vec<String>,
    /// Hooks that wait, and what they have begun.
    waiting: Waiting<S::Action>,
    /// Whether the room has more to send.
    again: bool,
    /// Connections that the room has closed, and how.
    closed: BTreeMap<String, String>,
    /// When the room goes on with what it has put off for a moment.
    later: Option<Timestamp>,
    /// What is kept with the sockets.
    attachments: BTreeMap<Slot, String>,
    /// When pings of connections were last answered, and those that the room wants to know of.
    pinged: BTreeMap<String, Timestamp>,
    asked: Vec<Slot>,
    /// Why clients were not let in.
    refused: BTreeMap<String, Error>,
    /// What each of them has connected with.
    requests: BTreeMap<String, http::Request<()>>,
}

impl<S: SyncServer> TestRoom<S> {
    /// A room on an empty database; its time begins at 1 s.
    ///
    /// # Errors
    /// What `on_start` returns.
    pub fn new(server: S) -> Result<Self> {
        Self::with(server, Sqlite::in_memory()?)
    }

    /// A room on this database. Rows of an older version are migrated, in as many turns as a room
    /// takes for them.
    ///
    /// # Errors
    /// [`Code::Migration`], or what `on_start` returns.
    pub fn with(server: S, db: Sqlite) -> Result<Self> {
        let now = Timestamp::from_millis(1_000);
        let (ids, sent, alarm) = (BTreeMap::new(), Vec::new(), None);
        let (room, logged) = (Local::new(server), Vec::new());
        let (unheard, refused, users) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (waiting, again, requests) = (Waiting::default(), false, BTreeMap::new());
        let mut room = Self {
            db,
            room,
            ids,
            now,
            users,
            sent,
            unheard,
            alarm,
            logged,
            waiting,
            again,
            closed: BTreeMap::new(),
            later: None,
            attachments: BTreeMap::new(),
            pinged: BTreeMap::new(),
            asked: Vec::new(),
            refused,
            requests,
        };
        room.turn([])?;
        // Rows of an older version are migrated, some in each turn.
        while room.room.machine().is_none() {
            room.alarm()?;
        }
        // As the runtime does, which keeps it beside the database.
        room.alarm = room.alarm.or(room.room.machine().and_then(Machine::alarm_set));
        // Whether it is let in is told to whoever acts.
        let _ = room.connect_own(&http::Request::new(()));
        room.unheard.clear();
        Ok(room)
    }

    /// Connects the room's own client, whose actions [`act`](Self::act) does, by this request
    /// instead of an empty one: where `on_connect` wants to know who comes.
    ///
    /// ```
    /// # use partysync::{Action, Code, Connection, Error, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, text: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
    /// # use partysync::testing::TestRoom;
    /// #[derive(Default)]
    /// struct Notes;
    ///
    /// impl SyncServer for Notes {
    ///     type Action = NoteAction;
    ///
    ///     fn on_connect(
    ///         &self,
    ///         _: &mut Room<'_, Self>,
    ///         connection: &mut Connection,
    ///         request: &http::Request<()>,
    ///     ) -> Result<()> {
    ///         let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
    ///         let user = user.ok_or_else(|| Error::new(Code::Unauthorized, "who are you?"))?;
    ///         connection.set_state(&user.to_owned())
    ///     }
    ///
    ///     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///         let user = room.sender().map(|sender| sender.state::<String>()).transpose()?.flatten();
    ///         if user.as_deref() == Some("guest") {
    ///             return Err(Error::reject("guests only look"));
    ///         }
    ///         action.apply(room.sql())
    ///     }
    /// }
    ///
    /// let mut room = TestRoom::new(Notes)?;
    /// let create = |id: &str| NoteAction::Create { id: id.into(), text: "hi".into() };
    /// assert_eq!(room.act(create("a")).unwrap_err().code(), Code::Unauthorized);
    /// room.connect_own(&http::Request::builder().header("x-user", "guest").body(()).unwrap())?;
    /// assert_eq!(room.act(create("a")).unwrap_err().code(), Code::Rejected);
    /// room.connect_own(&http::Request::builder().header("x-user", "ada").body(()).unwrap())?;
    /// room.act(create("a"))?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// What `on_connect` returns.
    pub fn connect_own(&mut self, request: &http::Request<()>) -> Result<()> {
        self.connect_user(OWN, request)
    }

    /// Connects a client for this user, whose actions [`act_as`](Self::act_as) does: the user as the
    /// worker's router would find out who it is
    /// ([`Router::identify`](crate::worker::Router::identify)). Another login of the same name is
    /// another connection in place of this one.
    ///
    /// ```
    /// # use partysync::{Action, Error, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, author: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String, author: String } }
    /// # use partysync::testing::TestRoom;
    /// struct Notes;
    ///
    /// impl SyncServer for Notes {
    ///     type Action = NoteAction;
    ///
    ///     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///         let NoteAction::Create { author, .. } = &action;
    ///         if room.identity::<String>()?.as_ref() != Some(author) {
    ///             return Err(Error::reject("write in your own name"));
    ///         }
    ///         action.apply(room.sql())
    ///     }
    /// }
    ///
    /// let mut room = TestRoom::new(Notes)?;
    /// room.login("ada", "ada")?;
    /// room.login("bob", "bob")?;
    /// let note = NoteAction::Create { id: "a".into(), author: "ada".into() };
    /// assert!(room.act_as("bob", note.clone()).is_err());
    /// room.act_as("ada", note)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// What `on_connect` returns; [`Code::InvalidValue`] when the user has no JSON form.
    pub fn login<T: serde::Serialize + ?Sized>(&mut self, name: &str, user: &T) -> Result<()> {
        let mut request = http::Request::new(());
        Identity::new(user)?.put(&mut request);
        self.connect_user(name, &request)
    }

    fn connect_user(&mut self, name: &str, request: &http::Request<()>) -> Result<()> {
        self.disconnect(name)?;
        // A database may have had a test's room before.
        let seq = crate::store::client_seq(self.sql(), name)?.unwrap_or_default();
        self.users.entry(name.to_owned()).or_insert(seq);
        self.requests.insert(name.to_owned(), request.clone());
        let joined = self.join(name, request);
        match &joined {
            Ok(()) => self.refused.remove(name),
            Err(error) => self.refused.insert(name.to_owned(), error.clone()),
        };
        joined
    }

    /// Connects a client that follows all channels.
    fn join(&mut self, name: &str, request: &http::Request<()>) -> Result<()> {
        self.connect_with(name, Protocol::V2, request)?;
        let channels = S::Action::CHANNELS.iter().map(|schema| Subscription {
            channel: schema.table.to_owned(),
            since: None,
            view: None,
            schema: schema.hash(),
            record: schema.version,
            columns: Vec::new(),
        });
        let hello = Hello { client: name.into(), epoch: None, channels: channels.collect() };
        let sent = self.frame(name, &ClientFrame::Hello(hello).to_text())?;
        self.unheard.extend(sent);
        match self.closed.get(name).filter(|how| *how != RESTART) {
            Some(how) => {
                let message = format!("`{name}` was let in and then sent away: {how}; see the log");
                Err(Error::new(Code::Closed, message))
            }
            None => Ok(()),
        }
    }

    /// The database.
    pub fn sql(&self) -> &dyn Sql {
        &self.db
    }

    /// The server.
    pub fn server(&self) -> &S {
        self.room.server()
    }

    /// The room's version.
    pub fn version(&self) -> u64 {
        self.room.machine().map_or(0, Machine::version)
    }

    /// A connection as it is now.
    pub fn connection(&self, id: &str) -> Option<&Connection> {
        self.room.machine()?.connection(self.slot(id)?)
    }

    /// When the alarm rings next, as the runtime was told: the application's time, or the
    /// framework's own.
    pub fn next_alarm(&self) -> Option<Timestamp> {
        self.alarm
    }

    /// What the room has logged since the last call.
    pub fn take_logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logged)
    }

    /// What was sent since the last call by those that do not return it: by [`act`](Self::act) and
    /// [`act_as`](Self::act_as) to other connections, and by what connects, disconnects or makes a
    /// request. Id and frame, or `close` with its code and reason.
    pub fn take_sent(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.unheard)
    }

    /// How long a hook may wait for something outside of the room, as for another thread: 10 s unless
    /// it is set. A call that comes upon one that waits longer fails, and lets it go.
    pub fn set_patience(&mut self, patience: Duration) {
        self.waiting.patience = patience;
    }

    /// The room's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets time pass.
    pub fn advance_millis(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
    }

    /// All rows of a record, softly deleted ones too, by key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a row does not fit the type.
    pub fn rows<R: Record>(&self) -> Result<Vec<R>> {
        let key = crate::store::Keys::of(R::SCHEMA).columns("");
        self.sql().records(&format!("ORDER BY {key}"), [])
    }

    /// Sends an action as the room's own client and waits for its answer.
    ///
    /// # Errors
    /// Why it was rejected, or why `on_connect` did not let that client in: see
    /// [`connect_own`](Self::connect_own).
    pub fn act(&mut self, action: S::Action) -> Result<()> {
        self.act_as(OWN, action)
    }

    /// As [`act`](Self::act), for an action that is answered with something
    /// ([`Room::answer`]). One that gives no result is `None` of an `Option`.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # struct Notes;
    /// # impl SyncServer for Notes {
    /// #     type Action = NoteAction;
    /// fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///     action.apply(room.sql())?;
    ///     let count = "SELECT count(*) FROM notes";
    ///     let count: i64 = room.sql().query_one(count, [], |row| row.get(0))?;
    ///     room.answer(&count)
    /// }
    /// # }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// assert_eq!(room.act_for::<i64>(NoteAction::Create { id: "a".into() })?, 1);
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`act`](Self::act); [`Code::ResultMismatch`] when the result is not of this type.
    pub fn act_for<T: DeserializeOwned>(&mut self, action: S::Action) -> Result<T> {
        self.act_as_for(OWN, action)
    }

    /// Sends an action as the client of a [`login`](Self::login) and waits for its answer.
    ///
    /// # Errors
    /// Why it was rejected, or why that client was not let in; [`Code::NotFound`] when there was no
    /// login of this name.
    pub fn act_as(&mut self, name: &str, action: S::Action) -> Result<()> {
        self.answered(name, action).map(drop)
    }

    /// As [`act_as`](Self::act_as), for an action that is answered with something: see
    /// [`act_for`](Self::act_for).
    ///
    /// # Errors
    /// As [`act_as`](Self::act_as); [`Code::ResultMismatch`] when the result is not of this type.
    pub fn act_as_for<T: DeserializeOwned>(&mut self, name: &str, action: S::Action) -> Result<T> {
        read_result(self.answered(name, action)?)
    }

    /// What an action of a client is answered.
    fn answered(&mut self, name: &str, action: S::Action) -> Result<Option<Json>> {
        if let Some(error) = self.refused.get(name) {
            return Err(error.clone());
        }
        if self.slot(name).is_none() {
            let message = format!("`{name}` is not connected: `login` connects it");
            return Err(Error::new(Code::NotFound, message));
        }
        match self.closed.get(name).cloned() {
            // Its rights have changed, say: it comes again, as a client does.
            Some(how) if how == RESTART => {
                self.disconnect(name)?;
                self.join(name, &self.requests.get(name).cloned().unwrap_or_default())?;
            }
            Some(how) => {
                let message = format!("`{name}` was sent away: {how}; `login` lets it in again");
                return Err(Error::new(Code::Closed, message));
            }
            None => {}
        }
        let seq = self.users.get(name).map_or(1, |seq| seq + 1);
        self.users.insert(name.to_owned(), seq);
        let json = serde_json::value::to_raw_value(&action.to_json()?)
            .map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        let channel = action.channel().to_owned();
        let push = Push {
            client: None,
            answered: seq - 1,
            pushed_at: None,
            actions: vec![PushAction { seq, channel, action: json }],
        };
        let mut frame = ClientFrame::Push(push.clone());
        let (mut outcome, mut restarts) = (None, true);
        // A large patch comes as it is read, and the answer with its end.
        loop {
            let mut read = 0;
            let mut restarted = false;
            for (to, text) in self.frame(name, &frame.to_text())? {
                restarted |= to == name && text == RESTART;
                if to != name || text.starts_with("close ") {
                    self.unheard.push((to, text));
                    continue;
                }
                read += text.len() as u64;
                match ServerFrame::parse(&text)? {
                    Some(ServerFrame::Patch(patch)) => {
                        let own = patch.acks.into_iter().find(|ack| ack.seq == seq);
                        outcome = own.map(|ack| ack.outcome().map(|()| ack.result)).or(outcome);
                    }
                    Some(ServerFrame::Error(error)) => {
                        let code = Code::from_name(&error.code);
                        outcome = Some(Err(Error::new(code, error.message)));
                    }
                    _ => {}
                }
            }
            if restarted && std::mem::take(&mut restarts) {
                // Its rights have changed with the action, say: it comes again for its answer.
                self.disconnect(name)?;
                self.join(name, &self.requests.get(name).cloned().unwrap_or_default())?;
                frame = ClientFrame::Push(push.clone());
                continue;
            }
            if read == 0 {
                let unanswered = || Err(Error::new(Code::Internal, "the action got no answer"));
                return outcome.unwrap_or_else(unanswered);
            }
            frame = ClientFrame::Read(read);
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What `on_connect` returns.
    pub fn connect(&mut self, id: &str, protocol: Protocol) -> Result<()> {
        self.connect_with(id, protocol, &http::Request::new(()))
    }

    /// Opens a connection with this request.
    ///
    /// # Errors
    /// What `on_connect` returns.
    pub fn connect_with(
        &mut self,
        id: &str,
        protocol: Protocol,
        request: &http::Request<()>,
    ) -> Result<()> {
        let (wanted, fresh_id) = (Some(id.to_owned()), format!("{id}'"));
        self.turn_aside(Event::Connect { wanted, fresh_id, protocol, request })
    }

    /// Closes a connection.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disconnect(&mut self, id: &str) -> Result<()> {
        let Some(slot) = self.slot(id) else { return Ok(()) };
        self.ids.remove(&slot);
        self.turn_aside(Event::Closed(slot))
    }

    /// Hands the room a text frame and returns what it sent, as connection and text; a close is
    /// `close CODE REASON`.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn frame(&mut self, id: &str, text: &str) -> Result<Vec<(String, String)>> {
        self.incoming(id, Incoming::Text(text))
    }

    /// As [`frame`](Self::frame), for any frame.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn incoming(&mut self, id: &str, frame: Incoming<'_>) -> Result<Vec<(String, String)>> {
        self.frames(&[(id, frame)])
    }

    /// As [`frame`](Self::frame), for frames of several connections that come in one turn.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn frames(&mut self, frames: &[(&str, Incoming<'_>)]) -> Result<Vec<(String, String)>> {
        let event = |(id, frame): &(&str, _)| Some(Event::Frame(self.slot(id)?, *frame));
        let events: Vec<_> = frames.iter().filter_map(event).collect();
        let pings = frames.iter().filter(|(_, f)| matches!(f, Incoming::Text(wire::PING)));
        self.pinged.extend(pings.map(|(id, _)| ((*id).to_owned(), self.now)));
        self.turn(events)?;
        Ok(std::mem::take(&mut self.sent))
    }

    /// Lets time pass, and the alarm ring whenever it is due: jobs are done at their times. Returns
    /// what the room sent.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn run_for(&mut self, millis: i64) -> Result<Vec<(String, String)>> {
        let (end, mut sent) = (self.now.plus_millis(millis), Vec::new());
        loop {
            let rings = self.alarm.filter(|at| self.later.is_none_or(|later| *at <= later));
            if let Some(at) = rings.filter(|at| *at <= end) {
                self.now = self.now.max(at);
                sent.append(&mut self.alarm()?);
            } else if self.later.is_some_and(|at| at <= end) {
                sent.append(&mut self.catch_up()?);
            } else {
                self.now = end;
                return Ok(sent);
            }
        }
    }

    /// Has the room do what it has put off for a moment, if its time has come, and returns what it sent:
    /// the states of those who are [here](SyncServer::presence) are told 50 ms apart.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn go_on(&mut self) -> Result<Vec<(String, String)>> {
        if self.later.take_if(|at| *at <= self.now).is_some() {
            self.turn([])?;
        }
        Ok(std::mem::take(&mut self.sent))
    }

    /// Lets the moment pass for which the room has put something off, and has it do that: see
    /// [`go_on`](Self::go_on). Returns what it sent; nothing where nothing was put off.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn catch_up(&mut self) -> Result<Vec<(String, String)>> {
        let Some(at) = self.later else { return Ok(Vec::new()) };
        self.now = self.now.max(at);
        self.go_on()
    }

    /// The jobs that are to be done, by their time.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn jobs(&self) -> Result<Vec<crate::Job>> {
        let known = self.room.machine().is_some_and(Machine::has_jobs);
        if known { crate::store::all_jobs(self.sql()) } else { Ok(Vec::new()) }
    }

    /// Rings the alarm and returns what the room sent. `on_alarm` that fails is called again
    /// later.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn alarm(&mut self) -> Result<Vec<(String, String)>> {
        // It has rung, and is set no more.
        self.alarm = None;
        self.turn([Event::Alarm])?;
        Ok(std::mem::take(&mut self.sent))
    }

    /// Makes an HTTP request.
    ///
    /// # Errors
    /// What SQLite says. What `on_request` returns is a response of 500.
    pub fn request(&mut self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>> {
        if self.room.machine().is_none() {
            self.turn([])?;
        }
        let answered = self.settle(Some(self.room.answer(request)));
        self.unheard.append(&mut self.sent);
        match answered? {
            Some(Answered { response, fault }) => {
                if let Some(fault) = fault {
                    self.tell(&fault);
                }
                Ok(response)
            }
            None => Err(Error::new(Code::Internal, "the request got no answer")),
        }
    }

    /// Does this with the room, as a [`Handle`](crate::Handle) does: what it changes is sent.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer, params};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # struct Notes;
    /// # impl SyncServer for Notes {
    /// #     type Action = NoteAction;
    /// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #         action.apply(room.sql())
    /// #     }
    /// # }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// room.act(NoteAction::Create { id: "a".into() })?;
    /// room.run(|room| room.sql().execute("DELETE FROM notes", params![]))?;
    /// assert_eq!(room.rows::<Note>()?, []);
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the closure returns: nothing was written.
    pub fn run<T: 'static>(
        &mut self,
        work: impl FnOnce(&mut Room<'_, S>) -> Result<T> + 'static,
    ) -> Result<T> {
        self.run_with(None, |_, room| work(room))
    }

    pub(crate) fn run_with<T: 'static>(
        &mut self,
        what: Option<&'static str>,
        work: impl FnOnce(&S, &mut Room<'_, S>) -> Result<T> + 'static,
    ) -> Result<T> {
        let opening = || opening(Vec::new());
        let (turn, outcome) = self.room.run(&self.db, self.now, opening, what, work)?;
        let settled = self.carry_out(turn).and_then(|_| self.settle(None).map(drop));
        self.unheard.append(&mut self.sent);
        settled.and(outcome)
    }

    /// Puts the room to sleep: what it has in memory is gone, its connections are not.
    ///
    /// # Errors
    /// What SQLite says, or `on_start` returns.
    pub fn hibernate(&mut self) -> Result<()> {
        if self.room.machine().is_none() {
            return Ok(());
        }
        // A room that has something to do soon does not sleep.
        let sent = self.catch_up()?;
        self.unheard.extend(sent);
        self.room.close();
        let ids = std::mem::take(&mut self.ids);
        let sockets: Vec<_> = ids.keys().map(|slot| self.attachments.get(slot).cloned()).collect();
        let slots = (0..).map(Slot);
        self.attachments = slots.zip(&sockets).filter_map(|(s, a)| Some((s, a.clone()?))).collect();
        self.ids = (0..).map(Slot).zip(ids.into_values()).collect();
        self.take(sockets, [])
    }

    fn slot(&self, id: &str) -> Option<Slot> {
        self.ids.iter().find(|(_, known)| *known == id).map(|(slot, _)| *slot)
    }
}
