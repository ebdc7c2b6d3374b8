//! An event-sourced room as a client of the store: the one that ships, on a database of its own.

use super::made::{Made, MadeAction, Makes};
use partysync::Result;
use partysync::livestore::{EventInput, EventOutput, EventRoom, Identity};
use partysync::testing::TestRoom;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A room, and what its driver has to do.
pub(crate) struct Node {
    room: TestRoom<EventRoom<Makes>>,
    asks: Rc<Cell<bool>>,
    /// Calls that are to be made.
    pub(crate) calls: VecDeque<(u64, String)>,
    /// The call that is under way.
    pub(crate) calling: Option<u64>,
    /// What it has logged since somebody looked.
    pub(crate) logs: Vec<String>,
}

impl Node {
    /// The room of this object.
    ///
    /// # Panics
    /// When SQLite cannot be opened.
    pub(crate) fn new(name: &str) -> Self {
        let (binding, object, client) = ("OBJECT".to_owned(), name.to_owned(), name.to_owned());
        let server = EventRoom::new(Makes, Identity { binding, object, client });
        let asks = Rc::new(Cell::new(false));
        let asked = asks.clone();
        server.on_commit(move || asked.set(true));
        let room = TestRoom::new(server).expect("SQLite in memory");
        let (calls, logs) = (VecDeque::new(), Vec::new());
        let mut node = Self { room, asks, calls, calling: None, logs };
        node.go();
        node
    }

    /// Hands in something, and what there is to do because of it.
    pub(crate) fn input(&mut self, input: EventInput) -> Result<(), String> {
        let outputs = self.room.input(input);
        let outputs = outputs
            .map_err(|error| format!("the room fails: {error}, {:?}", self.room.take_logged()))?;
        for output in outputs {
            match output {
                EventOutput::Call(number, message) => self.calls.push_back((number, message)),
                EventOutput::Again => self.asks.set(true),
                EventOutput::Log(_, message) => self.logs.push(message),
            }
        }
        self.go();
        Ok(())
    }

    fn go(&mut self) {
        if self.asks.take() {
            let _ = self.input(EventInput::Go);
        }
    }

    /// Commits an event.
    pub(crate) fn commit(&mut self, id: u64) -> Result<(), String> {
        let id = id.cast_signed();
        self.room.act(MadeAction::Make { id }).map_err(|error| error.to_string())?;
        self.go();
        Ok(())
    }

    /// The call that is under way has ended.
    pub(crate) fn ended(&mut self, result: Result<()>) -> Result<(), String> {
        match self.calling.take() {
            Some(number) => self.input(EventInput::Ended(number, result)),
            None => Ok(()),
        }
    }

    /// The process ends, and the room comes again.
    ///
    /// # Panics
    /// When the room cannot be opened.
    pub(crate) fn restart(&mut self) {
        self.calls.clear();
        self.calling = None;
        self.room.hibernate().expect("a room that opens");
        self.go();
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, millis: i64) -> Result<(), String> {
        self.room.advance_millis(millis);
        if self.room.next_alarm().is_some_and(|at| at <= self.room.now()) {
            self.room.alarm().map_err(|error| error.to_string())?;
            self.input(EventInput::Go)?;
        }
        Ok(())
    }

    /// What its rows say of the log, and how many events it has not pushed.
    pub(crate) fn has(&self) -> Result<(Vec<u64>, u64)> {
        let rows = self.room.rows::<Made>()?;
        let own = "SELECT count(*) FROM _partysync_event \
                   WHERE seq > (SELECT head FROM _partysync_events)";
        let own = self.room.sql().query_one(own, [], |row| row.get::<i64>(0))?;
        Ok((rows.into_iter().map(|made| made.id.unsigned_abs()).collect(), own.unsigned_abs()))
    }
}
