//! [`Object`]: the driver of a room in a Durable Object. It holds no rule: it takes the room through
//! turns, aborts one that fails, and waits for hooks. What is open meanwhile is in `open.rs`.

use super::js::{self, guarded};
use super::now;
use super::open::{Answer, Open, Queued};
use super::sql::js_error;
use crate::room::Event;
use crate::room::turn::Turn;
use crate::wire::v2::ServerFrame;
use crate::{Code, Error, SyncServer, wire};
use futures::FutureExt;
use futures::future::join_all;
use js_sys::Uint8Array;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::closure::{Closure, ScopedClosure};
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{future_to_promise, spawn_local};
use worker::{Request, State, WebSocket, console_error, web_sys};

/// One room in one Durable Object; `durable_object!` makes the class around it.
pub struct Object<S: SyncServer> {
    inner: Rc<Inner<S>>,
}

pub(super) struct Inner<S: SyncServer> {
    pub(super) server: Rc<S>,
    pub(super) state: State,
    pub(super) room: RefCell<Option<Open<S>>>,
    /// The longest frame that the room reads.
    frame_bytes: usize,
    /// What happened since the last turn: all of it is the next one.
    queue: RefCell<Vec<Queued>>,
    /// Whether what happens is gathered until the event loop comes round.
    waits: Cell<bool>,
    /// Whether there is more to send.
    pub(super) again: Cell<bool>,
    /// Whether little happened when it last did.
    calm: Cell<bool>,
    round: RefCell<Option<Round>>,
    /// The socket of the connection that the turn decides about.
    pub(super) arriving: RefCell<Option<WebSocket>>,
}

/// What the runtime calls when the event loop has come round.
type Round = Closure<dyn FnMut(JsValue)>;

impl<S: SyncServer> std::fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").finish_non_exhaustive()
    }
}

fn thrown(error: Error) -> JsValue {
    worker::Error::from(error).into()
}

impl<S: SyncServer> Object<S> {
    /// The room of this object's state. Nothing is read before the first event.
    #[must_use]
    pub fn new(server: S, state: State) -> Self {
        if let Ok(pair) = worker::WebSocketRequestResponsePair::new(wire::PING, wire::PONG) {
            state.set_websocket_auto_response(&pair);
        }
        Self {
            inner: Rc::new(Inner {
                frame_bytes: server.limits().frame_bytes,
                server: Rc::new(server),
                state,
                room: RefCell::default(),
                queue: RefCell::default(),
                waits: Cell::new(false),
                again: Cell::new(false),
                calm: Cell::new(true),
                round: RefCell::default(),
                arriving: RefCell::default(),
            }),
        }
    }

    /// A request: a WebSocket to be accepted, or `on_request`. The answer, or a promise of it.
    ///
    /// # Errors
    /// What the runtime says; errors of hooks are answers.
    pub fn fetch(&self, request: web_sys::Request) -> Result<JsValue, JsValue> {
        let request = Request::from(request);
        let answer = |response| JsValue::from(web_sys::Response::from(response));
        let upgrade = request.headers().get("upgrade")?;
        if upgrade.is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
            return Ok(answer(self.inner.accept(&request)?));
        }
        let inner = self.inner.clone();
        Ok(future_to_promise(async move { Ok(answer(inner.request(request).await?)) }).into())
    }

    /// A frame from a socket.
    ///
    /// # Errors
    /// What the runtime says; what is wrong with a frame is told to its sender.
    pub fn message(&self, socket: JsValue, message: JsValue) -> Result<(), JsValue> {
        let Some(id) = self.inner.js().connection_id(&socket) else { return Ok(()) };
        // What is too long is not copied first.
        let long = js::text_length(&message).filter(|length| *length > self.inner.frame_bytes);
        if let Some(length) = long {
            return self.inner.queue(Queued::Long(id, length));
        }
        self.inner.queue(match js::text(&message) {
            Some(text) => Queued::Text(id, text),
            None => Queued::Binary(id, Uint8Array::new(&message).length() as usize),
        })
    }

    /// A socket has closed, cleanly or not.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn closed(&self, socket: JsValue, code: u16) -> Result<(), JsValue> {
        let Some(id) = self.inner.js().connection_id(&socket) else { return Ok(()) };
        // The client's close frame wants one in answer; without it the client waits for long.
        let echo = if (3000..5000).contains(&code) { code } else { 1000 };
        let _ = socket.unchecked_into::<js::Socket>().close(echo, "");
        self.inner.queue(Queued::Closed(id))
    }

    /// The object's alarm rang.
    ///
    /// # Errors
    /// What the runtime says, or why the room cannot be opened: the runtime rings again.
    pub fn alarm(&self) -> Result<(), JsValue> {
        self.inner.turn(Some(Event::Alarm)).map(drop).map_err(thrown)
    }
}

impl<S: SyncServer> Inner<S> {
    /// Something happened to a socket. It is a turn of its own while little happens. When more
    /// happens before the event loop comes round, all of that is one turn, and so one commit.
    fn queue(self: &Rc<Self>, queued: Queued) -> Result<(), JsValue> {
        self.queue.borrow_mut().push(queued);
        if self.waits.get() {
            return Ok(());
        }
        let result = if self.calm.get() { self.turn(None) } else { Ok(None) };
        self.wait();
        result.map(drop).map_err(thrown)
    }

    /// Has what happens until the event loop comes round gathered.
    fn wait(self: &Rc<Self>) {
        if self.waits.replace(true) {
            return;
        }
        let inner = Rc::downgrade(self);
        let mut round = self.round.borrow_mut();
        let round = round.get_or_insert_with(|| {
            Closure::new(move |_| {
                if let Some(inner) = inner.upgrade() {
                    inner.come_round();
                }
            })
        });
        let _ = js::SCHEDULER.with(|scheduler| scheduler.wait(0)).then(round);
    }

    /// The event loop has come round.
    fn come_round(self: &Rc<Self>) {
        self.waits.set(false);
        let gathered = self.queue.borrow().len();
        if gathered > 0 {
            self.calm.set(gathered == 1);
        }
        if gathered > 0 || self.again.get() {
            if let Err(error) = self.turn(None) {
                console_error!("partysync: a turn failed: {error}");
            }
            self.wait();
        }
    }

    /// Takes the room through a turn with all that has happened, and an event of its own.
    pub(super) fn turn(
        self: &Rc<Self>,
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<Answer>> {
        let queue = std::mem::take(&mut *self.queue.borrow_mut());
        self.again.set(false);
        let (mut event, mut result) = (Some(event), Ok(None));
        let called = {
            let mut body = || {
                if let Some(event) = event.take() {
                    result = self.run(&queue, event);
                }
            };
            let callback = ScopedClosure::<'_, dyn FnMut() + '_>::borrow_mut_aborting(&mut body);
            guarded(self.js(), callback.as_js_value().unchecked_ref())
        };
        called.map_err(|error| js_error(&error))?;
        let Some((answer, turn)) = result? else { return Ok(None) };
        if self.again.get() {
            self.wait();
        }
        self.attend(turn);
        Ok(answer)
    }

    fn run(
        self: &Rc<Self>,
        queue: &[Queued],
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<(Option<Answer>, Turn<S>)>> {
        let mut room = self.room.borrow_mut();
        if room.is_none() {
            match Open::new(self, now()) {
                Ok(open) => *room = Some(open),
                Err(error) if error.code() == Code::Storage => return Err(self.abort(&error)),
                Err(error) => return Err(self.close_all(&error)),
            }
        }
        let Some(open) = room.as_mut() else { return Ok(None) };
        let mut turn = open.turn(&self.server, queue, event);
        let effects = std::mem::take(&mut turn.effects);
        let carried_out = match turn.aborted.clone() {
            None => open.carry_out(self, effects),
            Some(error) => open.carry_out(self, effects).and(Err(error)),
        };
        match carried_out {
            Ok(answer) => Ok(Some((answer, turn))),
            Err(error) => {
                *room = None;
                Err(self.abort(&error))
            }
        }
    }

    pub(super) fn js(&self) -> &js::State {
        self.state.as_raw().unchecked_ref()
    }

    /// What this turn has written is taken back, and all sockets break. The error is for the log,
    /// and what is returned for clients.
    fn abort(&self, error: &Error) -> Error {
        console_error!("partysync: the object is aborted: {}: {error}", error.code());
        js::abort(self.js(), error.message());
        Error::new(error.code(), "the storage failed, and the room starts anew: its log says why")
    }

    /// Closes every socket of a room that cannot be opened. The error is for the log, and what
    /// is returned for clients.
    fn close_all(&self, error: &Error) -> Error {
        console_error!("partysync: the room cannot be opened: {}: {error}", error.code());
        let error = Error::new(error.code(), "the room cannot be opened: its log says why");
        for socket in self.state.get_websockets() {
            let _ = socket.send_with_str(ServerFrame::error(&error).to_text());
            let _ = socket.close(Some(wire::CLOSE_BROKEN), Some(error.code().as_str()));
        }
        error
    }

    /// Waits for hooks beside whatever else happens.
    fn attend(self: &Rc<Self>, turn: Turn<S>) {
        for hook in turn.hooks {
            let inner = self.clone();
            self.state.wait_until(async move {
                let done = hook.await;
                if let Err(error) = inner.turn(Some(Event::HookDone(done))) {
                    console_error!("partysync: a turn failed: {error}");
                }
            });
        }
        if turn.after.is_empty() {
            return;
        }
        let inner = self.clone();
        spawn_local(async move {
            let mut after = join_all(turn.after).boxed_local();
            // Most have nothing to wait for: the runtime need not keep the object for them.
            if (&mut after).now_or_never().is_none() {
                inner.state.wait_until(after.map(drop));
            }
        });
    }
}
