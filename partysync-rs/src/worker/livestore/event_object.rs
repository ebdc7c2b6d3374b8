//! [`EventObject`], the driver of an event-sourced room, and [`event_object!`](crate::event_object)
//! for the class: a room's driver, and calls to the backend. It holds no rule.

use super::rpc::{call_backend, store_of};
use crate::livestore::event_room::INPUT;
use crate::livestore::{EventInput, EventOutput, EventRoom, EventServer, Identity, msgpack};
use crate::room::Level;
use crate::worker::object::Inner;
use crate::worker::open::random_id;
use crate::worker::sql::js_error;
use crate::worker::{Object, js};
use crate::{Code, Error};
use futures::future::{Either, select};
use js_sys::{JSON, JsString, Uint8Array};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{JsFuture, spawn_local};
use worker::{Delay, Env, State, console_error, console_warn, web_sys};

/// A backend that says nothing for so long is asked again later.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of a message's keys that are read.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// One event-sourced room in one Durable Object; `event_object!` makes the class around it.
pub struct EventObject<S: EventServer> {
    object: Object<EventRoom<S>>,
    driver: Rc<Driver<S>>,
}

struct Driver<S: EventServer> {
    room: Rc<Inner<EventRoom<S>>>,
    env: Env,
    /// The binding of the backend's class.
    backend: String,
    /// Whether the room is asked what there is to do when the turn is over.
    asks: Cell<bool>,
}

impl<S: EventServer> std::fmt::Debug for EventObject<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventObject").finish_non_exhaustive()
    }
}

fn thrown(error: Error) -> JsValue {
    worker::Error::from(error).into()
}

impl<S: EventServer> EventObject<S> {
    /// The room of this object's state. `backend` is the binding of the backend's class in `env`,
    /// and `binding` that of this class in the backend's.
    #[must_use]
    pub fn new(server: S, state: State, env: Env, backend: &str, binding: &str) -> Self {
        let object = state.id().to_string();
        let client = format!("object-{}", random_id());
        let identity = Identity { binding: binding.to_owned(), object, client };
        let object = Object::new(EventRoom::new(server, identity), state);
        let (room, asks) = (object.inner().clone(), Cell::new(false));
        let driver = Rc::new(Driver { room, env, backend: backend.to_owned(), asks });
        let weak = Rc::downgrade(&driver);
        driver.room.server.on_commit(move || {
            if let Some(driver) = weak.upgrade() {
                driver.ask();
            }
        });
        Self { object, driver }
    }

    /// A request: a WebSocket to be accepted, or `on_request`.
    ///
    /// # Errors
    /// What the runtime says; errors of hooks are answers.
    pub fn fetch(&self, request: web_sys::Request) -> Result<JsValue, JsValue> {
        self.object.fetch(request)
    }

    /// A frame from a socket.
    ///
    /// # Errors
    /// What the runtime says; what is wrong with a frame is told to its sender.
    pub fn message(&self, socket: JsValue, message: JsValue) -> Result<(), JsValue> {
        self.object.message(socket, message)
    }

    /// A socket has closed, cleanly or not.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn closed(&self, socket: JsValue, code: u16) -> Result<(), JsValue> {
        self.object.closed(socket, code)
    }

    /// The object's alarm rang; `info` is what the runtime says of it.
    ///
    /// # Errors
    /// What the runtime says, or why the storage fails: the runtime rings again.
    pub fn alarm(&self, info: &JsValue) -> Result<(), JsValue> {
        if self.object.rang(info)? {
            self.driver.ask();
        }
        Ok(())
    }

    /// The backend calls with new events: an object of LiveStore 0.4, or the bytes of later ones.
    ///
    /// # Errors
    /// Why they are not taken: the backend calls again.
    pub fn update(&self, payload: &JsValue) -> Result<(), JsValue> {
        let updates = match payload.dyn_ref::<Uint8Array>() {
            Some(bytes) => msgpack::decode(&bytes.to_vec(), MESSAGE_BYTES).map_err(thrown)?,
            None => vec![JSON::stringify(payload).map(String::from)?],
        };
        updates
            .into_iter()
            .try_for_each(|update| self.driver.input(EventInput::Update(update)))
            .map_err(thrown)
    }
}

impl<S: EventServer> Driver<S> {
    /// Asks the room what there is to do when the event loop has come round: what is left to do is
    /// a turn of its own, with a commit of its own.
    fn ask_later(self: &Rc<Self>) {
        if self.asks.replace(true) {
            return;
        }
        let (driver, round) = (self.clone(), js::SCHEDULER.with(|scheduler| scheduler.wait(0)));
        self.room.state.wait_until(async move {
            let _ = JsFuture::from(round).await;
            driver.asks.set(false);
            driver.later(EventInput::Go);
        });
    }

    /// Asks the room what there is to do when the turn is over.
    fn ask(self: &Rc<Self>) {
        if self.asks.replace(true) {
            return;
        }
        let driver = self.clone();
        spawn_local(async move {
            driver.asks.set(false);
            driver.later(EventInput::Go);
        });
    }

    /// Hands in what nobody waits for.
    fn later(self: &Rc<Self>, input: EventInput) {
        if let Err(error) = self.input(input) {
            console_error!("livestore: a turn failed: {}: {error}", error.code());
        }
    }

    fn input(self: &Rc<Self>, input: EventInput) -> crate::Result<()> {
        let outputs = self.room.run(INPUT, move |server, room| server.input(room, &input))?;
        for output in outputs {
            match output {
                EventOutput::Call(number, message) => self.call(number, message),
                EventOutput::Again => self.ask_later(),
                EventOutput::Log(Level::Error, what) => console_error!("livestore: {what}"),
                EventOutput::Log(Level::Warn, what) => console_warn!("livestore: {what}"),
            }
        }
        Ok(())
    }

    /// Makes a call; its answer is handed in as it comes.
    fn call(self: &Rc<Self>, number: u64, message: String) {
        let driver = self.clone();
        self.room.state.wait_until(async move {
            let ended = driver.called(number, &message).await;
            driver.later(EventInput::Ended(number, ended));
        });
    }

    fn told(self: &Rc<Self>, number: u64, messages: Vec<String>) {
        for message in messages {
            self.later(EventInput::Message(number, message));
        }
    }

    async fn called(self: &Rc<Self>, number: u64, message: &str) -> crate::Result<()> {
        let bytes = Uint8Array::from(msgpack::encode([message])?.as_slice());
        let store = store_of(message).unwrap_or_default();
        let (heard, reading) =
            (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Reading::default())));
        let (driver, hears, reads) = (self.clone(), heard.clone(), reading.clone());
        let part = Closure::<dyn FnMut(Uint8Array)>::new(move |part: Uint8Array| {
            hears.set(true);
            let messages = reads.borrow_mut().part(&part.to_vec());
            driver.told(number, messages);
        });
        let env: &JsValue = self.env.as_ref();
        let each = part.as_ref().unchecked_ref();
        let backend = JsString::from(self.backend.as_str());
        let answer = call_backend(env, &backend, &JsString::from(store), &bytes, each);
        let mut answer = JsFuture::from(answer.map_err(|error| js_error(&error))?);
        loop {
            match select(answer, Delay::from(PATIENCE)).await {
                Either::Left((Err(error), _)) => return Err(js_error(&error)),
                Either::Left((Ok(found), _)) if found.is_falsy() => {
                    let what = format!("the worker has no binding `{}`", self.backend);
                    return Err(Error::new(Code::NotFound, what));
                }
                Either::Left((Ok(_), _)) => {
                    let messages = reading.borrow_mut().rest();
                    self.told(number, messages);
                    return reading.borrow_mut().failed.take().map_or(Ok(()), Err);
                }
                Either::Right((_, waits)) if heard.replace(false) => answer = waits,
                Either::Right(_) => return Err(Error::retry("the backend does not answer")),
            }
        }
    }
}

/// An answer that comes in parts, cut anywhere.
#[derive(Default)]
struct Reading {
    buffer: Vec<u8>,
    /// How much there was when it was last looked at: a message that is not whole is read again
    /// from its beginning, and not with each part.
    looked_at: usize,
    failed: Option<Error>,
}

impl Reading {
    /// Messages that are whole with this part.
    fn part(&mut self, part: &[u8]) -> Vec<String> {
        if self.failed.is_some() {
            return Vec::new();
        }
        self.buffer.extend_from_slice(part);
        if self.buffer.len() < self.looked_at.saturating_mul(2) { Vec::new() } else { self.rest() }
    }

    /// Messages that are whole.
    fn rest(&mut self) -> Vec<String> {
        if self.failed.is_some() {
            return Vec::new();
        }
        match msgpack::decode_begun(&self.buffer, MESSAGE_BYTES) {
            Ok((messages, read)) => {
                self.buffer.drain(..read);
                self.looked_at = self.buffer.len();
                messages
            }
            Err(error) => {
                self.failed = Some(error);
                Vec::new()
            }
        }
    }
}

/// Makes an [`EventServer`](crate::livestore::EventServer) a Durable Object class of the same name.
///
/// `backend` is the binding of the sync backend's class: one of
/// [`livestore_object!`](crate::livestore_object) or LiveStore's own. `binding` is the name under
/// which the backend's worker finds this class, to call it with new events.
///
/// ```no_run
/// # use partysync::livestore::{EventServer, LiveStoreServer};
/// # use partysync::{Action, Event, Record, Result, Room, SyncServer, params, sql::Sql};
/// # #[derive(Record, Clone)] #[record(table = "todos")]
/// # struct Todo { #[record(key)] id: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Todo)]
/// # enum TodoAction { #[action(insert)] Create { id: String } }
/// # #[derive(Event, Clone)] enum TodoEvent { Created { id: String } }
/// #[derive(Default)]
/// struct Todos;
///
/// # impl SyncServer for Todos {
/// #     type Action = TodoAction;
/// #     fn on_action(&self, room: &mut Room<'_, Self>, action: TodoAction) -> Result<()> {
/// #         let TodoAction::Create { id } = action;
/// #         self.commit(room, TodoEvent::Created { id })
/// #     }
/// # }
/// impl EventServer for Todos {
///     // ...
/// #     type Event = TodoEvent;
/// #     fn materialize(&self, sql: &dyn Sql, event: &TodoEvent) -> Result<()> {
/// #         let TodoEvent::Created { id } = event;
/// #         sql.exec("INSERT OR REPLACE INTO todos (id) VALUES (?)", &params![id])
/// #     }
/// }
///
/// #[derive(Default)]
/// struct SyncBackend;
///
/// impl LiveStoreServer for SyncBackend {}
///
/// partysync::livestore_object!(SyncBackend);
/// partysync::event_object!(Todos, backend = "SYNC_BACKEND_DO", binding = "TODOS");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! event_object {
    ($server:ident, backend = $backend:literal, binding = $binding:literal) => {
        $crate::event_object!(
            $server = |_env| ::std::default::Default::default(),
            backend = $backend,
            binding = $binding
        );
    };
    ($server:ident = $make:expr, backend = $backend:literal, binding = $binding:literal) => {
        $crate::__object_class!(
            $server,
            EventObject,
            $make,
            |server, state, env| {
                $crate::worker::EventObject::new(server, state, env, $backend, $binding)
            },
            #[wasm_bindgen(js_name = syncUpdateRpc)]
            pub fn sync_update_rpc(&self, payload: JsValue) -> ::std::result::Result<(), JsValue> {
                self.object.update(&payload)
            }
        );
    };
}
