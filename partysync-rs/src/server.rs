//! [`SyncServer`]: the trait that a user implements, and the [`Room`] that its hooks get.

use crate::room::{Caller, Connection, Fault, Handle, Handles, HookOutput, Limits, Slots};
use crate::sql::Sql;
use crate::store::Plan;
use crate::{Action, Code, Error, Job, Migrated, Migration, Presence, Result, Timestamp, Visible};
use serde_json::Value as Json;
use std::future::{Future, ready};

/// A room's server: what its actions do, in SQL.
///
/// Only [`on_action`](Self::on_action) is asked for. Whatever SQL runs in any hook, triggers note
/// the rows that it changes and every client is sent them.
///
/// ```
/// use partysync::{Action, Error, Record, Result, Room, SyncServer};
///
/// #[derive(Record, Clone)]
/// #[record(table = "notes")]
/// struct Note {
///     #[record(key)]
///     id: String,
///     text: String,
/// }
///
/// #[derive(Action, Clone, Debug)]
/// #[action(record = Note)]
/// enum NoteAction {
///     #[action(insert)]
///     Create { id: String, text: String },
/// }
///
/// #[derive(Default)]
/// struct Notes;
///
/// impl SyncServer for Notes {
///     type Action = NoteAction;
///
///     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
///         let NoteAction::Create { text, .. } = &action;
///         if text.is_empty() {
///             return Err(Error::reject("write something first"));
///         }
///         action.apply(room.sql())
///     }
/// }
/// ```
pub trait SyncServer: Sized + 'static {
    /// What clients may ask: one record's actions, or an enum of several with
    /// `#[action(channels)]`.
    type Action: Action;

    /// Does one action, as one transaction: return `Err` and nothing was written, and the client
    /// is told.
    ///
    /// It may be called again for an action whose writes were taken back, as when a later action
    /// of the same push failed in the middle: change nothing but the room.
    ///
    /// What its client is to hear of it, beside the rows that it changes, it says by
    /// [`Room::answer`].
    ///
    /// **Do not panic.** A panic ends the object with all its connections, and what the turn has
    /// written is taken back; its client sends the action again, alone, until it gives it up after an
    /// hour.
    ///
    /// # Errors
    /// [`Error::reject`] to refuse the action; [`Error::retry`] to have its client send it again later;
    /// any other error refuses it as well.
    fn on_action(&self, room: &mut Room<'_, Self>, action: Self::Action) -> Result<()>;

    /// Which rows of a channel the caller of this room may see: whoever is behind the connection or
    /// the request ([`Room::identity`], [`Room::sender`]). A row that leaves somebody's view is sent as
    /// gone; of others a client is told nothing, not even a key. Who may write is another matter, for
    /// [`on_action`](Self::on_action).
    ///
    /// It is asked when a client connects, and again for all connections when rows have changed of a
    /// record whose table its SQL names; for rights that are elsewhere there is [`Room::review`]. A
    /// client that may see something else then connects again, and begins that channel anew. It only
    /// reads, and is to be quick: a room may have to ask it for each of ten thousand connections.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer};
    /// use partysync::{Visible, params};
    ///
    /// #[derive(Record, Clone, Debug, PartialEq)]
    /// #[record(table = "notes")]
    /// struct Note {
    ///     #[record(key)]
    ///     id: String,
    ///     #[record(scope, index)]
    ///     owner: String,
    ///     text: String,
    /// }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String, owner: String, text: String } }
    ///
    /// struct Notes;
    ///
    /// impl SyncServer for Notes {
    ///     // ...
    /// #   type Action = NoteAction;
    /// #   fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #       action.apply(room.sql())
    /// #   }
    ///     fn visible(&self, room: &Room<'_, Self>, _channel: &str) -> Result<Visible> {
    ///         Ok(match room.identity::<String>()? {
    ///             Some(name) => Visible::rows("owner = ?", params![name]),
    ///             None => Visible::nothing(),
    ///         })
    ///     }
    /// }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// # room.login("ada", "ada")?;
    /// # room.login("bob", "bob")?;
    /// # room.take_sent();
    /// # let note = |id: &str, owner: &str| NoteAction::Create { id: id.into(), owner: owner.into(), text: "hi".into() };
    /// # room.act(note("a", "ada"))?;
    /// # let sent = room.take_sent();
    /// # let heard = |name: &str| sent.iter().any(|(to, text)| to == name && text.contains("hi"));
    /// # assert!(heard("ada") && !heard("bob"), "{sent:?}");
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// Whoever connects is not let in, and who is connected is closed, as by an error of
    /// [`on_connect`](Self::on_connect).
    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        let _ = (room, channel);
        Ok(Visible::all())
    }

    /// Whether the room keeps its history: every change that is committed, as a message of the
    /// State Protocol in a durable stream. It is read at the room's URL with `/history` behind it,
    /// by any client of Durable Streams, and grows for as long as the room lives.
    #[cfg(feature = "streams")]
    fn keeps_history(&self) -> bool {
        false
    }

    /// Whether this request may read the room's history, which holds every row that ever was:
    /// check its credentials as in [`on_connect`](Self::on_connect). One that may not see all rows of
    /// all channels ([`visible`](Self::visible)) is refused whatever this says.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] is answered with 401, anything else with 403. Unless you say
    /// otherwise, nobody may.
    #[cfg(feature = "streams")]
    fn may_read_history(&self, request: &http::Request<()>) -> Result<()> {
        let _ = request;
        Err(Error::new(Code::Forbidden, "the server does not say who may read the history"))
    }

    /// What the room takes from clients, and how long it remembers.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// The rows of a record are of an older version than its `#[record(version = N)]`: one batch of
    /// them is to become those of the next one.
    ///
    /// It is called when a room opens, after its tables have their columns and before
    /// [`on_start`](Self::on_start): for one version of one table after the other, and for each
    /// again until it says [`Migrated::Done`]. Each call is a transaction, which keeps the
    /// [cursor](Migration::cursor) too: a room that is stopped between two goes on there. After
    /// [a thousand rows](Limits::migration_rows) a room ends its turn and goes on in the next event,
    /// by its alarm; a batch itself has to be done in much less than the 30 s of CPU that a Durable
    /// Object has for an event. It is no edit: `updated_at` stays as it is, unless the SQL sets it.
    /// Meanwhile clients are told to come again, and see so in their status.
    ///
    /// ```
    /// # use partysync::{Action, Migrated, Migration, Record, Result, Room, SyncServer, params};
    /// # #[derive(Action, Clone, Debug)] #[action(record = Price)]
    /// # enum PriceAction { #[action(insert)] Set { id: String, cents: i64 } }
    /// # struct Shop;
    /// #[derive(Record, Clone)]
    /// #[record(table = "prices", version = 2, dropped = "euros")] // it was in euros
    /// struct Price {
    ///     #[record(key)]
    ///     id: String,
    ///     #[record(default = 0)]
    ///     cents: i64,
    /// }
    ///
    /// impl SyncServer for Shop {
    ///     // ...
    /// #     type Action = PriceAction;
    /// #     fn on_action(&self, room: &mut Room<'_, Self>, action: PriceAction) -> Result<()> {
    /// #         action.apply(room.sql())
    /// #     }
    ///     fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
    ///         let sql = room.sql();
    ///         match (step.table(), step.to()) {
    ///             ("prices", 2) => step.each(sql, 500, |id| {
    ///                 let cents = "UPDATE prices SET cents = round(euros * 100) WHERE id = ?";
    ///                 sql.execute(cents, params![id]).map(drop)
    ///             }),
    ///             _ => Err(step.unknown()),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// Columns are those of the running code, whatever the step; those that are `dropped` are there
    /// until all rows of the room are migrated, and so are columns and tables that are in no type any
    /// more. What a batch changes is sent to clients as any change is.
    ///
    /// # Errors
    /// Nothing of the batch is written, and the room refuses connections until it succeeds: it begins
    /// with this batch each time that something happens to it.
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let _ = room;
        Err(step.unknown())
    }

    /// The room has started, for the first time or again. Tables are there.
    ///
    /// # Errors
    /// Nothing is written, and the room refuses connections with the error until it starts.
    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let _ = room;
        Ok(())
    }

    /// Before an action is committed: the place for what must await, such as asking another
    /// service. What it does to the room by the [`Handle`] is written whether the action is done or
    /// not, and others act before the action is: what must hold then is checked in
    /// [`on_action`](Self::on_action). All actions of a push are asked about, in their order, before the first of them is
    /// committed; frames of the same connection wait meanwhile. A resent action that has its
    /// answer already does not come here again, but one whose connection breaks while it is asked
    /// about does: what this changes elsewhere it has to change once only.
    ///
    /// # Errors
    /// Any error refuses the action for good; with [`Error::retry`] the client tries again later.
    fn before_action(
        &self,
        room: &Handle<Self>,
        connection: &Connection,
        action: &Self::Action,
    ) -> impl Future<Output = Result<()>> {
        let _ = (room, connection, action);
        ready(Ok(()))
    }

    /// After an action was committed and its rows were sent: the place for webhooks and the like.
    /// Nothing waits for it. It is called at most once: not at all if the process ends before.
    fn after_commit(
        &self,
        room: &Handle<Self>,
        connection: &Connection,
        action: Self::Action,
    ) -> impl Future<Output = ()> {
        let _ = (room, connection, action);
        ready(())
    }

    /// A client connects. Set the connection's state and tags here: an action finds them with
    /// [`Room::sender`]. `request` is the one that has come to the router, with its headers and its
    /// query; who is behind it, [`Connection::identity`] says.
    ///
    /// # Errors
    /// With [`Error::reject`] or [`Code::Forbidden`] the connection is closed with 4403 and the error's
    /// message as the reason, and its client stops; with [`Code::Unauthorized`] it is 4401, and the
    /// client comes again once with the credentials that it has then. After any other error it comes
    /// again later.
    fn on_connect(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        let _ = (room, connection, request);
        Ok(())
    }

    /// A client has said `hello` (v2): [`Room::sender`] is who, it is among
    /// [`Room::connections`], and what is sent to it comes before its rows. It is the place to greet
    /// somebody.
    ///
    /// # Errors
    /// Nothing is written or sent, and the client is told.
    fn on_hello(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let _ = room;
        Ok(())
    }

    /// A client says that it is here ([`Room::sender`]), with a state of its own: where its pointer
    /// is, say. What are others told of who it is? All who are shown at the same topic hear of each
    /// other, and of each new state; it ends with the connection.
    ///
    /// A topic is a part of the room, as the client says: a board, a document; nothing where the room has
    /// no parts. Look whether it may be there. Asked when a client comes, comes again or goes to another
    /// topic, and whenever rights are looked at again: see [`visible`](Self::visible) and
    /// [`Room::review`].
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # struct Notes;
    /// use partysync::Presence;
    ///
    /// impl SyncServer for Notes {
    ///     // ...
    /// #   type Action = NoteAction;
    /// #   fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #       action.apply(room.sql())
    /// #   }
    ///     fn presence(&self, room: &mut Room<'_, Self>, _topic: &str) -> Result<Presence> {
    ///         match room.identity::<String>()? {
    ///             Some(name) => Presence::shown_as(&name),
    ///             None => Ok(Presence::hidden()),
    ///         }
    ///     }
    /// }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// # for name in ["ada", "bob"] { room.login(name, name)?; }
    /// # room.frame("ada", r#"{"type":"presence","here":true,"state":{"x":1}}"#)?;
    /// # let sent = room.frame("bob", r#"{"type":"presence","here":true}"#)?;
    /// # assert!(sent.iter().any(|(to, text)| to == "ada" && text.contains(r#""who":"bob""#)), "{sent:?}");
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// The client is told, is not among those who are here, and asks again later. Unless you say
    /// otherwise, nobody is here.
    fn presence(&self, room: &mut Room<'_, Self>, topic: &str) -> Result<Presence> {
        let _ = (room, topic);
        let message = "this room does not tell who is here: its server has no `presence`";
        Err(Error::new(Code::InvalidFrame, message))
    }

    /// A client's socket has closed. It is not called for sockets that end with the process: when
    /// that is back, [`on_start`](Self::on_start) sees who is left.
    ///
    /// # Errors
    /// Nothing is written.
    fn on_close(&self, room: &mut Room<'_, Self>, connection: &Connection) -> Result<()> {
        let _ = (room, connection);
        Ok(())
    }

    /// A client sent a message of the application's own (v2); [`Room::sender`] is who.
    ///
    /// # Errors
    /// Nothing is written, and the client is told.
    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        let _ = (room, message);
        Err(Error::new(Code::InvalidFrame, "this room takes no messages"))
    }

    /// The time that [`Room::set_alarm`] asked for has come.
    ///
    /// # Errors
    /// Nothing is written, the error is logged, and the alarm rings again: after 2 s, then each
    /// time after twice as long, up to an hour.
    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let _ = room;
        Ok(())
    }

    /// A job is to be done that [`Room::schedule`] or [`Room::repeat`] asked for.
    ///
    /// # Errors
    /// Nothing is written, the error is logged, and the job is done again: after 2 s, then each time
    /// after twice as long, up to an hour. [`Job::attempts`] says how often it has failed: to give it
    /// up, return `Ok`.
    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        let _ = room;
        let message = format!("the server has no `on_job`, which is to do `{}`", job.name());
        Err(Error::new(Code::NotFound, message))
    }

    /// Something failed that is no client's fault: SQL, a hook, a migration, the storage. It was
    /// logged already: this is the place to have somebody called, or counted. It comes when the turn
    /// is over, and once for each.
    fn on_error(&self, fault: &Fault) {
        let _ = fault;
    }

    /// An HTTP request to the room's URL, or below it, that is no WebSocket. It may await; meanwhile the
    /// room goes on.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, text: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
    /// # struct Notes;
    /// use partysync::{Handle, params};
    ///
    /// impl SyncServer for Notes {
    ///     // ...
    /// #     type Action = NoteAction;
    /// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #         action.apply(room.sql())
    /// #     }
    ///     async fn on_request(
    ///         &self,
    ///         room: &Handle<Self>,
    ///         request: http::Request<Vec<u8>>,
    ///     ) -> Result<http::Response<Vec<u8>>> {
    ///         let text = String::from_utf8_lossy(request.body()).into_owned();
    ///         // Each `run` is one transaction, and is sent to everybody.
    ///         room.run(move |room| {
    ///             let sql = "INSERT INTO notes (id, text) VALUES ('posted', ?)";
    ///             room.sql().execute(sql, params![text]).map(drop)
    ///         })
    ///         .await?;
    ///         Ok(http::Response::new(Vec::new()))
    ///     }
    /// }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// # room.request(http::Request::new(b"hi".to_vec()))?;
    /// # assert_eq!(room.rows::<Note>()?[0].text, "hi");
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// The answer has the error's code and message, and a status: 401 for [`Code::Unauthorized`], 403 for
    /// [`Code::Forbidden`] and [`Error::reject`], 404 for [`Code::NotFound`], 409 for a key that exists and
    /// for a constraint, 413, 429, 400 for a value that makes no sense, 503 for [`Error::retry`]. Any other is
    /// 500, without what it says: that is logged.
    fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> impl Future<Output = Result<http::Response<Vec<u8>>>> {
        let _ = (room, request);
        let mut response = http::Response::new(b"not found".to_vec());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}

/// A room, while one of its hooks runs: its database, its connections, its time.
pub struct Room<'a, S> {
    pub(crate) sql: &'a dyn Sql,
    pub(crate) name: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) version: u64,
    pub(crate) epoch: &'a str,
    pub(crate) plans: &'a [Plan],
    /// Whether the table of jobs is there.
    pub(crate) has_jobs: bool,
    pub(crate) caller: Caller<'a>,
    pub(crate) slots: &'a Slots,
    pub(crate) handles: &'a dyn Handles<S>,
    pub(crate) output: &'a mut HookOutput,
    pub(crate) server: &'a S,
}

impl<S> std::fmt::Debug for Room<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl<'a, S> Room<'a, S> {
    /// The database. All that runs in one hook is one transaction.
    #[must_use]
    pub fn sql(&self) -> &'a dyn Sql {
        self.sql
    }

    /// The room's name, the last part of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// The time, as the host gave it for this event. It never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The version that clients have been sent: how many changes of rows there were before this
    /// event.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}
