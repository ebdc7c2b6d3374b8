//! [`TestRoom`]: a server's hooks under plain `cargo test`, on real SQLite.

use crate::room::{Connection, Incoming, Outcome, Output};
use crate::sql::{Sql, Sqlite};
use crate::wire::v2::{Ack, ClientFrame, Hello, Push, ServerFrame, Subscription};
use crate::{Action, Code, Error, Host, Protocol, Record, Result, SyncServer, Timestamp};
use futures::executor::block_on;

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
    server: S,
    db: Sqlite,
    host: Host<S>,
    now: Timestamp,
    seq: u64,
}

impl<S: SyncServer> TestRoom<S> {
    /// A room on an empty database; its time begins at 1 s.
    ///
    /// # Errors
    /// What `on_start` returns.
    pub fn new(server: S) -> Result<Self> {
        Self::with(server, Sqlite::in_memory()?)
    }

    /// A room on this database.
    ///
    /// # Errors
    /// [`Code::Migration`], or what `on_start` returns.
    pub fn with(server: S, db: Sqlite) -> Result<Self> {
        let now = Timestamp::from_millis(1_000);
        let host = Host::open(&server, &db, "test", now, "epoch", Vec::new())?;
        let mut room = Self { server, db, host, now, seq: 0 };
        room.connect("self", Protocol::V2)?;
        let channels = S::Action::CHANNELS.iter().map(|schema| Subscription {
            channel: schema.table.to_owned(),
            since: None,
            schema: schema.hash(),
            columns: Vec::new(),
        });
        let hello = Hello {
            client: "self".into(),
            epoch: None,
            seq: 0,
            pushed: 0,
            channels: channels.collect(),
        };
        room.frame("self", &ClientFrame::Hello(hello).to_text())?;
        Ok(room)
    }

    /// The database.
    pub fn sql(&self) -> &dyn Sql {
        &self.db
    }

    /// The room's version.
    pub fn version(&self) -> u64 {
        self.host.engine().version()
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
        let key = crate::sql::quote(R::SCHEMA.key()?.name);
        self.sql().records(&format!("ORDER BY {key}"), [])
    }

    /// Sends an action as the room's own client and waits for its answer.
    ///
    /// # Errors
    /// Why it was rejected.
    pub fn act(&mut self, action: S::Action) -> Result<()> {
        self.seq += 1;
        let json = serde_json::value::to_raw_value(&action.to_json()?)
            .map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        let push = Push { seq: self.seq, channel: action.channel().to_owned(), action: json };
        for (to, text) in self.frame("self", &ClientFrame::Push(vec![push]).to_text())? {
            if to == "self"
                && let Some(ServerFrame::Patch(patch)) = ServerFrame::parse(&text)?
                && let Some(ack) = patch.acks.iter().find(|ack: &&Ack| ack.seq == self.seq)
            {
                return ack.outcome();
            }
        }
        Err(Error::new(Code::Internal, "the action got no answer"))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What `on_connect` returns.
    pub fn connect(&mut self, id: &str, protocol: Protocol) -> Result<()> {
        self.host.tick(&self.db, self.now)?;
        let request = http::Request::new(());
        self.host.connect(&self.server, &self.db, Connection::new(id, protocol), &request)?;
        Ok(())
    }

    /// Closes a connection.
    ///
    /// # Errors
    /// What `on_close` returns.
    pub fn disconnect(&mut self, id: &str) -> Result<()> {
        self.host.tick(&self.db, self.now)?;
        self.host.close(&self.server, &self.db, id)
    }

    /// Hands the room a text frame and returns what it sent, as connection and text; a close is
    /// `close CODE REASON`.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn frame(&mut self, id: &str, text: &str) -> Result<Vec<(String, String)>> {
        self.incoming(id, &Incoming::Text(text))
    }

    /// As [`frame`](Self::frame), for any frame.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn incoming(&mut self, id: &str, frame: &Incoming<'_>) -> Result<Vec<(String, String)>> {
        self.host.tick(&self.db, self.now)?;
        if let Some(batch) = self.host.receive(&self.server, &self.db, id, frame)? {
            for mut item in batch.items {
                if let Ok(action) = &item.action
                    && !self.host.is_duplicate(&self.db, &item)?
                    && let Err(error) =
                        block_on(self.server.before_action(&batch.connection, action))
                {
                    item.action = Err(error);
                }
                let outcome = self.host.commit(&self.server, &self.db, &batch.connection, item)?;
                if outcome == Outcome::Gap {
                    break;
                }
            }
            self.host.flush(&self.db)?;
        }
        Ok(self.sent())
    }

    /// Rings the alarm and returns what the room sent.
    ///
    /// # Errors
    /// What `on_alarm` returns.
    pub fn alarm(&mut self) -> Result<Vec<(String, String)>> {
        self.host.tick(&self.db, self.now)?;
        self.host.alarm(&self.server, &self.db)?;
        Ok(self.sent())
    }

    fn sent(&mut self) -> Vec<(String, String)> {
        let sent = self.host.take_output().into_iter().map(|output| match output {
            Output::Send { to, text } => (to, text.to_string()),
            Output::Close { to, code, reason } => (to, format!("close {code} {reason}")),
        });
        sent.collect()
    }
}
