//! Event-sourced rooms: stores of LiveStore's that live in a Durable Object, follow a sync backend
//! over Durable Object RPC, and make rows of its events.
//!
//! - [`EventServer`], [`Event`]: what an application says
//! - [`EventRoom`]: the room's server around it, for drivers and tests
//! - `log.rs`, `undo.rs`: what is kept
//! - `commit.rs`: what becomes of events
//! - `link.rs`: what is said to the backend, and heard

mod commit;
mod event;
mod link;
mod log;
mod server;
mod undo;

pub use event::Event;
pub use link::{EventInput, EventOutput};
pub use server::EventServer;

use crate::room::alarm::retry_after;
use crate::room::{Ask, Asked, Connection, Handles, Level, Limits, Work};
use crate::sql::Sql;
use crate::{
    Code, Error, Handle, Job, Migrated, Migration, Presence, Result, Room, SyncServer, Visible,
};
use link::Link;
use serde_json::Value as Json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What an input is called in the log that fails.
#[cfg(any(feature = "worker", feature = "testing"))]
pub(crate) const INPUT: &str = "an input of the store";

/// Who a room is to its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The binding under which the backend's worker finds the room's class.
    pub binding: String,
    /// The room's object, as hex.
    pub object: String,
    /// What the client's id in the room's own events begins with: another one in every room, and in
    /// every life of it.
    pub client: String,
}

/// The server of an event-sourced room: hooks of an [`EventServer`], and what goes on between its
/// log and the backend.
///
/// A driver hands in [`EventInput`]s by [`EventRoom::input`], each in a turn of its own, and does what
/// that returns. With [`on_commit`](Self::on_commit) it hears when there is something to do.
///
/// ```
/// # use partysync::livestore::EventServer;
/// # use partysync::{Action, Event, Record, Result, Room, SyncServer, params, sql::Sql};
/// # #[derive(Record, Clone)] #[record(table = "todos")]
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
/// # fn main() -> Result<()> {
/// # #[cfg(all(feature = "testing", not(target_arch = "wasm32")))] {
/// use partysync::livestore::{EventRoom, EventInput, EventOutput};
/// use partysync::testing::TestRoom;
///
/// let mut room = TestRoom::new(EventRoom::of_test(Todos))?;
/// room.act(TodoAction::Create { id: "a".into() })?;
/// assert_eq!(room.rows::<Todo>()?.len(), 1);
/// // It asks the backend for what it does not have yet, and pushes then.
/// let outputs = room.input(EventInput::Go)?;
/// let [EventOutput::Call(_, request)] = outputs.as_slice() else { panic!("{outputs:?}") };
/// assert!(request.contains("SyncDoRpc.Pull"));
/// # } Ok(()) }
/// ```
pub struct EventRoom<S> {
    server: S,
    link: RefCell<Link>,
    on_commit: RefCell<Option<Box<dyn Fn()>>>,
    /// How often the application's `on_alarm` has failed in a row.
    failures: Cell<u32>,
    /// What is to be logged with the next outputs.
    logs: RefCell<Vec<String>>,
}

impl<S> std::fmt::Debug for EventRoom<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRoom").field("link", &self.link).finish_non_exhaustive()
    }
}

impl<S: EventServer> EventRoom<S> {
    /// The server of a room.
    #[must_use]
    pub fn new(server: S, identity: Identity) -> Self {
        Self {
            server,
            link: RefCell::new(Link::new(identity)),
            on_commit: RefCell::default(),
            failures: Cell::default(),
            logs: RefCell::default(),
        }
    }

    /// The server of a test's room: another object each time.
    #[must_use]
    pub fn of_test(server: S) -> Self {
        static OBJECTS: AtomicU32 = AtomicU32::new(0);
        let object = OBJECTS.fetch_add(1, Ordering::Relaxed);
        let (binding, client) = ("TEST".to_owned(), format!("test-{object}"));
        Self::new(server, Identity { binding, object: object.to_string(), client })
    }

    /// The room's object, as its backend knows it.
    #[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
    pub(super) fn object(&self) -> String {
        self.link.borrow().identity().object.clone()
    }

    /// The last event that the backend has, and how many it does not have.
    #[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
    pub(super) fn state(&self, sql: &dyn crate::sql::Sql) -> Result<(u64, u64)> {
        let head = log::state(sql)?.head;
        Ok((head, log::last(sql, head)? - head))
    }

    /// Whether it may lack something, or waits for an answer.
    #[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
    pub(super) fn is_behind(&self) -> bool {
        self.link.borrow().is_busy(false)
    }

    /// Sets what is called in hooks that leave something to be pushed: it has [`EventInput::Go`] handed
    /// in when the hook's turn is over.
    pub fn on_commit(&self, call: impl Fn() + 'static) {
        *self.on_commit.borrow_mut() = Some(Box::new(call));
    }

    /// Runs a hook of the application's, and sees to what it has committed.
    fn hook<T>(
        &self,
        room: &mut Room<'_, Self>,
        hook: impl FnOnce(&mut Room<'_, S>) -> Result<T>,
    ) -> Result<T> {
        let handles = Inner(room.handles);
        let value = hook(&mut inner(room, &handles))?;
        let open = self.settle(room)?;
        if self.link.borrow().wants(open, room.now)
            && let Some(call) = &*self.on_commit.borrow()
        {
            call();
        }
        Ok(value)
    }

    /// How often the room asks by itself, while anybody is connected.
    fn polls(&self, room: &Room<'_, Self>) -> Option<u32> {
        self.server.poll_ms().filter(|_| room.slots.len() > 0)
    }

    /// Keeps when the room has to do something by itself, and has the alarm ring then or when the
    /// application wants it. Whether it has events to push, or rows to make.
    fn settle(&self, room: &mut Room<'_, Self>) -> Result<bool> {
        let (sql, now) = (room.sql, room.now);
        let before = log::state(sql)?;
        let mut state = before.clone();
        if let Some(alarm) = room.output.alarm.take() {
            state.alarm = alarm;
        }
        let open = state.rebuilt_to.is_some() || log::last(sql, state.head)? > state.head;
        let polls = self.polls(room);
        let link = self.link.borrow();
        let busy = link.is_busy(open);
        match (state.due, link.due(open, polls, now)) {
            // While there is something to do, an alarm that rings early costs less than one that is
            // set again.
            (Some(due), Some(wanted)) if busy && now < due && due <= wanted => {}
            (_, wanted) => state.due = wanted,
        }
        let next = state.alarm.into_iter().chain(state.due).min();
        if next != state.ring {
            room.output.alarm = Some(next);
            state.ring = next;
        }
        if state != before {
            log::keep(sql, &state)?;
        }
        Ok(open)
    }

    /// Hands in something; what is to be done then, in this order. Drivers do it by
    /// [`Local::run`](crate::room::turn::Local::run) or the like.
    ///
    /// # Errors
    /// What SQLite says, or an event that cannot be made rows of: nothing is written.
    pub fn input(&self, room: &mut Room<'_, Self>, input: &EventInput) -> Result<Vec<EventOutput>> {
        let (sql, name, now) = (room.sql, room.name, room.now);
        let polls = self.polls(room);
        let mut link = self.link.borrow_mut();
        let outputs =
            link.handle(&self.server, sql, name, polls, now, input).inspect_err(|_| link.forget());
        drop(link);
        let mut outputs = outputs?;
        self.settle(room).inspect_err(|_| self.link.borrow_mut().forget())?;
        let logs = self.logs.take().into_iter();
        outputs.extend(logs.map(|what| EventOutput::Log(Level::Error, what)));
        Ok(outputs)
    }
}

/// Where the application's handles come from: what they ask for is done as its hooks are.
struct Inner<H>(H);

impl<S: EventServer> Handles<S> for Inner<&dyn Handles<EventRoom<S>>> {
    fn handle(&self, identity: Option<crate::Identity>) -> Handle<S> {
        inner_handle(&self.0.handle(identity))
    }
}

impl<S: EventServer> Ask<S> for Inner<Handle<EventRoom<S>>> {
    fn ask(&self, asked: Asked<S>) {
        self.0.ask(asked.map(|work: Work<S>| -> Work<EventRoom<S>> {
            Box::new(move |server, room| server.hook(room, |room| work(&server.server, room)))
        }));
    }
}

fn inner_handle<S: EventServer>(handle: &Handle<EventRoom<S>>) -> Handle<S> {
    handle.map(Rc::new(Inner(handle.clone())))
}

/// Looks that no rows are being made anew: what is there of them meanwhile is nobody's business.
fn are_whole(sql: &dyn Sql) -> Result<()> {
    match log::state(sql)?.rebuilt_to {
        None => Ok(()),
        Some(_) => Err(Error::retry("the rows are being made anew")),
    }
}

/// The room as the application's hooks see it.
fn inner<'r, S>(room: &'r mut Room<'_, EventRoom<S>>, handles: &'r dyn Handles<S>) -> Room<'r, S> {
    Room {
        sql: room.sql,
        name: room.name,
        now: room.now,
        version: room.version,
        epoch: room.epoch,
        plans: room.plans,
        has_jobs: room.has_jobs,
        caller: room.caller,
        slots: room.slots,
        output: &mut *room.output,
        handles,
        server: &room.server.server,
    }
}

impl<S: EventServer> SyncServer for EventRoom<S> {
    type Action = S::Action;

    fn on_action(&self, room: &mut Room<'_, Self>, action: S::Action) -> Result<()> {
        are_whole(room.sql)?;
        self.hook(room, |room| self.server.on_action(room, action))
    }

    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        let visible = room.show(room.sql, &Inner(room.handles), &self.server, |room| {
            self.server.visible(room, channel)
        })?;
        // Rows, and rights among them, are what they were once: nobody is let in by those.
        if !visible.is_all() {
            are_whole(room.sql)?;
        }
        Ok(visible)
    }

    #[cfg(feature = "streams")]
    fn keeps_history(&self) -> bool {
        self.server.keeps_history()
    }

    #[cfg(feature = "streams")]
    fn may_read_history(&self, request: &http::Request<()>) -> Result<()> {
        self.server.may_read_history(request)
    }

    fn limits(&self) -> Limits {
        self.server.limits()
    }

    /// Rows are made anew from the log when it is opened, by code of the version that runs.
    fn migrate(&self, _: &mut Room<'_, Self>, _: &Migration) -> Result<Migrated> {
        Ok(Migrated::Done)
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        self.link.borrow_mut().restart();
        let client = self.link.borrow().identity().client.clone();
        commit::open(&self.server, room.sql, &client)?;
        self.hook(room, |room| self.server.on_start(room))
    }

    async fn before_action(
        &self,
        room: &Handle<Self>,
        connection: &Connection,
        action: &S::Action,
    ) -> Result<()> {
        self.server.before_action(&inner_handle(room), connection, action).await
    }

    async fn after_commit(&self, room: &Handle<Self>, connection: &Connection, action: S::Action) {
        self.server.after_commit(&inner_handle(room), connection, action).await;
    }

    fn on_connect(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        self.hook(room, |room| self.server.on_connect(room, connection, request))
    }

    fn on_hello(&self, room: &mut Room<'_, Self>) -> Result<()> {
        are_whole(room.sql)?;
        self.hook(room, |room| self.server.on_hello(room))
    }

    fn presence(&self, room: &mut Room<'_, Self>, topic: &str) -> Result<Presence> {
        // Who is here may depend on rows, which are what they were once.
        are_whole(room.sql)?;
        self.hook(room, |room| self.server.presence(room, topic))
    }

    fn on_close(&self, room: &mut Room<'_, Self>, connection: &Connection) -> Result<()> {
        self.hook(room, |room| self.server.on_close(room, connection))
    }

    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        self.hook(room, |room| self.server.on_message(room, message))
    }

    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let mut state = log::state(room.sql)?;
        let asked = state.alarm.take_if(|at| *at <= room.now).is_some();
        state.due.take_if(|at| *at <= room.now);
        state.ring = None;
        log::keep(room.sql, &state)?;
        if !asked {
            return self.settle(room).map(drop);
        }
        // One that fails keeps its own time: the room's is not to wait for it.
        let (sql, mut done) = (room.sql, Ok(()));
        let kept = sql.transaction(&mut || {
            done = self.hook(room, |room| self.server.on_alarm(room));
            done.clone()
        });
        let Err(error) = kept else {
            self.failures.set(0);
            return Ok(());
        };
        if error.code() == Code::Storage {
            return Err(error);
        }
        let wait = retry_after(self.failures.get());
        self.failures.set(self.failures.get().saturating_add(1));
        let what = format!("on_alarm failed, and is called again in {wait} ms: {error}");
        self.logs.borrow_mut().push(what);
        room.output.alarm = Some(Some(room.now.plus_millis(wait)));
        self.settle(room).map(drop)
    }

    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        self.hook(room, |room| self.server.on_job(room, job))
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        self.server.on_request(&inner_handle(room), request).await
    }
}
