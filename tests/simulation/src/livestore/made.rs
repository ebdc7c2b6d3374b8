//! The server of an event-sourced room whose rows are its events, in the order of the log: one that
//! is lost, doubled or moved shows in them.

use super::client::STORE;
use partysync::livestore::EventServer;
use partysync::sql::Sql;
use partysync::{Action, Draft, Event, Record, Reduce, Result, Room, SyncServer, params};

/// What was committed, in the order of the log.
#[derive(Record, Clone, Debug)]
#[record(table = "made")]
pub struct Made {
    #[record(key)]
    place: i64,
    /// What the event says.
    pub id: i64,
}

/// What clients may do.
#[derive(Action, Clone, Debug)]
#[action(record = Made)]
pub enum MadeAction {
    /// Commits an event.
    #[action(custom)]
    Make {
        /// What it says.
        id: i64,
    },
}

impl Reduce for MadeAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Made>) -> Result<()> {
        Ok(())
    }
}

/// The events.
#[derive(Event, Clone, Debug)]
pub enum MadeEvent {
    /// Something was made.
    #[event(name = "made")]
    Made {
        /// What it is.
        id: i64,
    },
}

/// The server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Makes;

impl SyncServer for Makes {
    type Action = MadeAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: MadeAction) -> Result<()> {
        let MadeAction::Make { id } = action;
        self.commit(room, MadeEvent::Made { id })
    }
}

impl EventServer for Makes {
    type Event = MadeEvent;

    fn materialize(&self, sql: &dyn Sql, event: &MadeEvent) -> Result<()> {
        let MadeEvent::Made { id } = event;
        let add = "INSERT INTO made (place, id) SELECT coalesce(max(place), 0) + 1, ? FROM made";
        sql.exec(add, &params![id])
    }

    fn store_id(&self, _: &str) -> String {
        STORE.to_owned()
    }
}
