//! [`SyncServer`]: the trait that a user implements, and the [`Room`] that its hooks get.

use crate::room::{Connection, Limits, Output};
use crate::sql::Sql;
use crate::wire::{v1, v2::ServerFrame};
use crate::{Action, Code, Error, Protocol, Result, Timestamp};
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::marker::PhantomData;

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
    /// # Errors
    /// [`Error::reject`] to refuse the action; any other error refuses it as well.
    fn on_action(&self, room: &mut Room<'_, Self>, action: Self::Action) -> Result<()>;

    /// Whether the room keeps its history: every change that is committed, as a message of the
    /// State Protocol in a durable stream. It is read at the room's URL with `/history` behind it,
    /// by any client of Durable Streams, and grows for as long as the room lives.
    #[cfg(feature = "streams")]
    fn keeps_history(&self) -> bool {
        false
    }

    /// What the room takes from clients, and how long it remembers.
    fn limits(&self) -> Limits {
        Limits::default()
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
    /// service. Actions of one connection wait for each other. A resent action that has its
    /// answer already does not come here again.
    ///
    /// # Errors
    /// Any error refuses the action.
    fn before_action(
        &self,
        connection: &Connection,
        action: &Self::Action,
    ) -> impl Future<Output = Result<()>> {
        let _ = (connection, action);
        ready(Ok(()))
    }

    /// After an action was committed and its rows were sent: the place for webhooks and the like.
    fn after_commit(
        &self,
        connection: &Connection,
        action: Self::Action,
    ) -> impl Future<Output = ()> {
        let _ = (connection, action);
        ready(())
    }

    /// A client connects. Set the connection's state and tags here.
    ///
    /// # Errors
    /// The connection is closed with code 4403 and the error's message as the reason.
    fn on_connect(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        let _ = (room, connection, request);
        Ok(())
    }

    /// A client's socket has closed.
    ///
    /// # Errors
    /// Nothing is written.
    fn on_close(&self, room: &mut Room<'_, Self>, connection: &Connection) -> Result<()> {
        let _ = (room, connection);
        Ok(())
    }

    /// A client sent a message of the application's own (v2).
    ///
    /// # Errors
    /// Nothing is written, and the client is told.
    fn on_message(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        message: Json,
    ) -> Result<()> {
        let _ = (room, connection, message);
        Err(Error::new(Code::InvalidFrame, "this room takes no messages"))
    }

    /// The time that [`Room::set_alarm`] asked for has come.
    ///
    /// # Errors
    /// Nothing is written; the host tries again later.
    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let _ = room;
        Ok(())
    }

    /// An HTTP request to the room's URL that is no WebSocket.
    ///
    /// # Errors
    /// Nothing is written, and the answer is 500 with the error's message.
    fn on_request(
        &self,
        room: &mut Room<'_, Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        let _ = (room, request);
        let mut response = http::Response::new(b"not found".to_vec());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        Ok(response)
    }
}

/// A room, while one of its hooks runs: its database, its connections, its time.
pub struct Room<'a, S> {
    pub(crate) sql: &'a dyn Sql,
    pub(crate) name: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) version: u64,
    pub(crate) sender: Option<&'a Connection>,
    pub(crate) connections: &'a mut BTreeMap<String, Connection>,
    pub(crate) out: &'a mut Vec<Output>,
    pub(crate) server: PhantomData<S>,
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

    /// The version before this hook: the number of commits so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whose action this is; `None` where no client is behind the hook.
    #[must_use]
    pub fn sender(&self) -> Option<&Connection> {
        self.sender
    }

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    /// The connections that were given this tag.
    pub fn connections_with_tag<'b>(
        &'b self,
        tag: &'b str,
    ) -> impl Iterator<Item = &'b Connection> {
        self.connections().filter(move |c| c.tags().iter().any(|t| t == tag))
    }

    /// A connection, to change its state.
    pub fn connection_mut(&mut self, id: &str) -> Option<&mut Connection> {
        self.connections.get_mut(id)
    }

    /// Sends a message of the application's own to every v2 connection that has said `hello`.
    /// It goes out only if the hook returns `Ok`.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn broadcast<T: Serialize>(&mut self, message: &T) -> Result<()> {
        let text: std::rc::Rc<str> = message_frame(message)?.into();
        let ready = self.connections.values().filter(|c| c.client().is_some());
        self.out.extend(ready.map(|c| Output::send(c.id(), text.clone())));
        Ok(())
    }

    /// Sends a message of the application's own to one v2 connection; nothing happens if it is
    /// gone. It goes out only if the hook returns `Ok`.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn send<T: Serialize>(&mut self, connection: &str, message: &T) -> Result<()> {
        let text = message_frame(message)?;
        if self.connections.get(connection).is_some_and(|c| c.protocol() == Protocol::V2) {
            self.out.push(Output::send(connection, text));
        }
        Ok(())
    }

    /// Tells every v1 client to drop all rows of a channel, as TypeScript's `delete-all` does.
    pub fn broadcast_delete_all(&mut self, channel: &str) {
        let v1 = self.connections.values().filter(|c| c.protocol() == Protocol::V1);
        self.out.extend(v1.map(|c| Output::send(c.id(), v1::delete_all(channel))));
    }

    /// Asks for [`SyncServer::on_alarm`] at this time, once, instead of any time asked for before.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_alarm(&mut self, at: impl Into<Option<Timestamp>>) -> Result<()> {
        crate::room::set_alarm(self.sql, at.into())
    }
}

fn message_frame<T: Serialize>(message: &T) -> Result<String> {
    let json = serde_json::to_value(message)
        .map_err(|e| Error::new(Code::InvalidValue, format!("message: {e}")))?;
    Ok(ServerFrame::Message(json).to_text())
}
