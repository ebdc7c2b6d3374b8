//! [`Object`]: the driver of a room in a Durable Object. It holds no rule: it takes the room through
//! turns, aborts one that fails, and waits for hooks. What is open meanwhile is in `open.rs`.

use super::gather::{Gather, Gathered, Queued};
use super::js;
use super::now;
use super::open::{Answer, Open, short_id};
use crate::room::turn::Turn;
use crate::room::{Asked, Effect, Event};
use crate::wire::v2::ServerFrame;
use crate::{Code, Error, Fault, SyncServer, Timestamp, wire};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::wasm_bindgen_futures::{JsFuture, future_to_promise, spawn_local};
use worker::{Request, State, WebSocket, console_error, web_sys};

/// When the alarm rang for a room that cannot be opened, it rings again after this, ms.
const ALARM_AGAIN: i64 = 60_000;
/// A room that could not be opened is not tried again for so long, ms: clients come again and again,
/// and a migration that fails costs what it has done until then.
const OPEN_AGAIN: i64 = 5_000;

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
    pub(super) gathered: Gathered,
    /// Whether a turn is on its way for what handles have asked for.
    asked: Cell<bool>,
    /// The socket of the connection that the turn decides about.
    pub(super) arriving: RefCell<Option<WebSocket>>,
    /// What failed when it was last tried to open the room, and until when it is not tried again.
    unopened: RefCell<Option<(Fault, Timestamp)>>,
}

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
                gathered: Gathered::default(),
                asked: Cell::new(false),
                arriving: RefCell::default(),
                unopened: RefCell::default(),
            }),
        }
    }

    #[cfg(feature = "livestore")]
    pub(super) fn inner(&self) -> &Rc<Inner<S>> {
        &self.inner
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
        self.inner.message(&socket, &message).map_err(thrown)
    }

    /// A socket has closed, cleanly or not.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn closed(&self, socket: JsValue, code: u16) -> Result<(), JsValue> {
        self.inner.closed(socket, code).map_err(thrown)
    }

    /// The object's alarm rang; `info` is what the runtime says of it.
    ///
    /// # Errors
    /// What the runtime says, or why the storage fails: the runtime rings again. A room that cannot be
    /// opened for another reason is tried again in a minute.
    pub fn alarm(&self, info: &JsValue) -> Result<(), JsValue> {
        self.rang(info).map(drop)
    }

    /// The object's alarm rang; whether the room is open.
    pub(super) fn rang(&self, info: &JsValue) -> Result<bool, JsValue> {
        let event = if js::is_retry(info) { Event::AlarmAgain } else { Event::Alarm };
        match self.inner.turn(Some(event)) {
            Ok(_) => Ok(true),
            // The runtime would ring six times more, and then never again: also not when code is
            // deployed that opens the room.
            Err(error) if error.code() != Code::Storage => {
                let again = now().plus_millis(ALARM_AGAIN);
                super::open::set_alarm(&self.inner.js().storage(), Some(again)).map_err(thrown)?;
                Ok(false)
            }
            Err(error) => Err(thrown(error)),
        }
    }
}

impl<S: SyncServer> Gather for Inner<S> {
    fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    fn go(self: &Rc<Self>) -> crate::Result<()> {
        self.turn(None).map(drop)
    }
}

impl<S: SyncServer> Inner<S> {
    /// Takes the room through a turn with all that has happened, and an event of its own.
    pub(super) fn turn(
        self: &Rc<Self>,
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<Answer>> {
        self.turn_with(None, event)
    }

    /// Takes the room through a turn in which this is done with it; what came of it. Its failure is
    /// logged as `what`.
    #[cfg(feature = "livestore")]
    pub(super) fn run<T: 'static>(
        self: &Rc<Self>,
        what: &'static str,
        work: impl FnOnce(&S, &mut crate::Room<'_, S>) -> crate::Result<T> + 'static,
    ) -> crate::Result<T> {
        let (asked, outcome) = Asked::new(None, work);
        self.turn_with(Some(asked.logged_as(Some(what))), None)?;
        outcome.take()
    }

    /// A handle asks for something, in the middle of a turn or outside of one: that is a turn of its
    /// own, as soon as nothing else runs.
    pub(super) fn ask(self: &Rc<Self>) {
        if self.asked.replace(true) {
            return;
        }
        let inner = self.clone();
        spawn_local(async move {
            inner.asked.set(false);
            // Another turn may have done it already.
            let asked = inner.room.borrow().as_ref().is_some_and(Open::is_asked);
            if asked && let Err(error) = inner.turn(None) {
                console_error!("partysync: a turn failed: {error}");
            }
        });
    }

    /// Has another turn come after so many milliseconds, if the room is there then.
    pub(super) fn go_later(self: &Rc<Self>, millis: u32) {
        let inner = Rc::downgrade(self);
        let waits = JsFuture::from(js::SCHEDULER.with(|scheduler| scheduler.wait(millis)));
        spawn_local(async move {
            // The runtime lets go of it when the object ends.
            let Ok(_) = waits.await else { return };
            let Some(inner) = inner.upgrade().filter(|inner| inner.room.borrow().is_some()) else {
                return;
            };
            if let Err(error) = inner.turn(None) {
                console_error!("partysync: a turn failed: {error}");
            }
        });
    }

    fn turn_with(
        self: &Rc<Self>,
        first: Option<Asked<S>>,
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<Answer>> {
        let turned = self.as_turn(|queue| self.go_through(queue, first, event))?;
        let Some((answer, turn)) = turned else { return Ok(None) };
        if self.gathered.again() {
            self.wait();
        }
        self.attend(turn);
        let heard = self.room.borrow_mut().as_mut().and_then(|open| open.heard(self.js()));
        if heard.is_some() {
            self.turn(heard)?;
        }
        Ok(answer)
    }

    fn go_through(
        self: &Rc<Self>,
        queue: &[Queued],
        first: Option<Asked<S>>,
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<(Option<Answer>, Turn<S>)>> {
        let mut room = self.room.borrow_mut();
        if room.is_none() {
            let refused = self.unopened.borrow().as_ref().and_then(|(fault, until)| {
                (now() < *until).then(|| (fault.error().clone(), fault.told()))
            });
            if let Some((error, told)) = refused {
                self.send_away(&error, &told);
                return Err(told);
            }
            match Open::new(self, now()) {
                Ok(open) => {
                    *room = Some(open);
                    self.unopened.borrow_mut().take();
                }
                Err(error) if error.code() == Code::Storage => {
                    return Err(self.abort(&error, None));
                }
                Err(error) => return Err(self.close_all(&error)),
            }
        }
        let Some(open) = room.as_mut() else { return Ok(None) };
        let mut turn = open.turn(&self.server, queue, first, event);
        let effects = std::mem::take(&mut turn.effects);
        // The room tells why it gives up as the last thing that it does.
        let told = turn.aborted.as_ref().and_then(|_| effects.iter().rev().find_map(Effect::told));
        let carried_out = match turn.aborted.clone() {
            None => open.carry_out(self, effects),
            Some(error) => open.carry_out(self, effects).and(Err(error)),
        };
        match carried_out {
            Ok(answer) => {
                turn.kept();
                if turn.reopens {
                    *room = None;
                }
                Ok(Some((answer, turn)))
            }
            Err(error) => {
                *room = None;
                Err(self.abort(&error, told))
            }
        }
    }

    /// Tells whoever runs the room.
    pub(super) fn tell(&self, fault: &Fault) {
        console_error!("{fault}");
        self.server.on_error(fault);
    }

    /// What this turn has written is taken back, and all sockets break. Returns what clients are told:
    /// the room may have said so already.
    fn abort(&self, error: &Error, told: Option<Error>) -> Error {
        let told = told.unwrap_or_else(|| self.fault("the object's turn", error).told());
        js::abort(self.js(), error.message());
        told
    }

    /// Something failed that the room itself knows nothing of.
    fn fault(&self, what: &str, error: &Error) -> Fault {
        let name = self.state.id().name().unwrap_or_default();
        let fault = Fault::new(&name, what, Some(short_id()), error.clone());
        self.tell(&fault);
        fault
    }

    /// Closes every socket of a room that cannot be opened. Returns what clients are told.
    fn close_all(&self, error: &Error) -> Error {
        // Each client tries again and again: that is said once.
        let known = self.unopened.borrow_mut().take().map(|(fault, _)| fault);
        let known = known.filter(|fault| fault.error() == error);
        let fault = known.unwrap_or_else(|| self.fault("opening the room", error));
        let told = fault.told();
        *self.unopened.borrow_mut() = Some((fault, now().plus_millis(OPEN_AGAIN)));
        self.send_away(error, &told);
        told
    }

    /// Closes every socket, and tells why.
    fn send_away(&self, error: &Error, told: &Error) {
        for socket in self.state.get_websockets() {
            let _ = socket.send_with_str(ServerFrame::error(told).to_text());
            let _ = socket.close(Some(wire::CLOSE_BROKEN), Some(error.code().as_str()));
        }
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
        self.run_after(turn.after);
    }
}
