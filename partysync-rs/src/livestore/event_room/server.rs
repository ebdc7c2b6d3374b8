//! [`EventServer`]: what an application says of its events.

use super::{Event, commit};
use crate::sql::Sql;
use crate::{Result, Room, SyncServer};

/// A room whose rows are made of events: a store of LiveStore's that lives in a Durable Object.
///
/// It follows a sync backend as JavaScript clients of LiveStore do, commits events of its own, and
/// its records can be followed by partysync's clients as those of any room: a client's action
/// becomes an event, an event becomes rows, and rows are sent to whoever follows them.
///
/// Rows are at any time what [`materialize`](Self::materialize) makes of the log, event by event.
/// Events of this room that the backend has not taken yet come last. When the backend has others
/// that come before them, their changes are taken back and made anew behind those.
///
/// ```
/// use partysync::livestore::EventServer;
/// use partysync::sql::Sql;
/// use partysync::{Action, Event, Record, Result, Room, SyncServer, params};
///
/// #[derive(Record, Clone)]
/// #[record(table = "todos")]
/// struct Todo {
///     #[record(key)]
///     id: String,
///     text: String,
/// }
///
/// #[derive(Action, Clone, Debug)]
/// #[action(record = Todo)]
/// enum TodoAction {
///     #[action(insert)]
///     Create { id: String, text: String },
/// }
///
/// #[derive(Event, Clone, Debug)]
/// enum TodoEvent {
///     #[event(name = "v1.TodoCreated")]
///     Created { id: String, text: String },
/// }
///
/// #[derive(Default)]
/// struct Todos;
///
/// impl SyncServer for Todos {
///     type Action = TodoAction;
///
///     fn on_action(&self, room: &mut Room<'_, Self>, action: TodoAction) -> Result<()> {
///         let TodoAction::Create { id, text } = action;
///         self.commit(room, TodoEvent::Created { id, text })
///     }
/// }
///
/// impl EventServer for Todos {
///     type Event = TodoEvent;
///
///     fn materialize(&self, sql: &dyn Sql, event: &TodoEvent) -> Result<()> {
///         let TodoEvent::Created { id, text } = event;
///         sql.exec("INSERT OR REPLACE INTO todos (id, text) VALUES (?, ?)", &params![id, text])
///     }
/// }
/// ```
///
/// In a Durable Object it is served by [`event_object!`](crate::event_object).
pub trait EventServer: SyncServer {
    /// The application's events.
    type Event: Event;

    /// Makes rows of an event: the only place that writes the records' tables. What it does
    /// depends on nothing but the event and those tables; times and ids are in the event.
    ///
    /// Write it so that it takes any event in any state, as materializers of LiveStore do: an
    /// event is not refused by its effect, and events of others may come before it.
    ///
    /// # Errors
    /// Of an event of the log, what it has written is taken back, the error is logged, and the
    /// event stays in the log without effect. [`commit`](Self::commit) returns it, and the event
    /// is not committed.
    fn materialize(&self, sql: &dyn Sql, event: &Self::Event) -> Result<()>;

    /// A number that rises when [`materialize`](Self::materialize) makes other rows of the same
    /// events: all rows are then made anew out of the log. A change of the records does that by
    /// itself.
    fn version(&self) -> u32 {
        0
    }

    /// The store's id at the backend; the room's name, unless you say otherwise.
    fn store_id(&self, room: &str) -> String {
        room.to_owned()
    }

    /// For development: when this text changes, the room forgets its log, its rows and its events
    /// that are not pushed yet, and starts over with what the backend has.
    fn reset_persistence(&self) -> &str {
        ""
    }

    /// How often the room pulls without having been told of anything, ms, while somebody is
    /// connected; ten minutes, unless you say otherwise. This crate's backend tells, unless its
    /// storage was lost. LiveStore's own forgets its subscribers when its object is rebuilt: 60,000
    /// is a good number there.
    fn poll_ms(&self) -> Option<u32> {
        Some(600_000)
    }

    /// Commits an event: rows change now, and the backend is told when the hook's transaction is
    /// kept. Called in hooks, in as many events as you like.
    ///
    /// # Errors
    /// What [`materialize`](Self::materialize) returns: nothing is written then.
    /// [`Code::TooLarge`](crate::Code::TooLarge) for an event of more than 900,000 bytes, which
    /// no client could pull; [`Code::InvalidValue`](crate::Code::InvalidValue) for an integer
    /// beyond 2^53, which JavaScript would read as another.
    fn commit(&self, room: &mut Room<'_, Self>, event: Self::Event) -> Result<()> {
        commit::commit(self, room.sql(), &event)
    }
}
