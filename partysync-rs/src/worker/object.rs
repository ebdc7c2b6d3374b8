//! [`Object`]: the driver of a room in a Durable Object. It holds no rule: events go into the
//! room's machine, turn by turn, and effects are carried out.

use super::js::{self, guarded};
use super::sql::js_error;
use super::{DurableSql, now};
use crate::room::turn::{Turn, turn};
use crate::room::{Effect, Event, Incoming, Level, Machine, Opening, Slot};
use crate::wire::v2::ServerFrame;
use crate::{Code, Error, SyncServer, Timestamp, wire};
use futures::FutureExt;
use js_sys::{JsString, Uint8Array};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::closure::{Closure, ScopedClosure};
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{JsFuture, future_to_promise, spawn_local};
use worker::{Request, State, WebSocket, console_error, console_warn, web_sys};

/// One room in one Durable Object; `durable_object!` makes the class around it.
pub struct Object<S: SyncServer> {
    inner: Rc<Inner<S>>,
}

pub(super) struct Inner<S: SyncServer> {
    pub(super) server: Rc<S>,
    pub(super) state: State,
    pub(super) room: RefCell<Option<Open<S>>>,
    /// What happened since the last turn: all of it is the next one.
    queue: RefCell<Vec<Queued>>,
    /// Whether what happens is gathered until the event loop comes round.
    waits: Cell<bool>,
    /// Whether there is more to send.
    again: Cell<bool>,
    /// Whether little happened when it last did.
    calm: Cell<bool>,
    round: RefCell<Option<Round>>,
    /// The socket of the connection that the turn decides about.
    pub(super) arriving: RefCell<Option<WebSocket>>,
}

/// What the runtime calls when the event loop has come round.
type Round = Closure<dyn FnMut(JsValue)>;

pub(super) struct Open<S: SyncServer> {
    sql: DurableSql,
    machine: Machine<S>,
    sockets: Vec<Option<js::Socket>>,
    slots: HashMap<String, Slot>,
    #[cfg(feature = "streams")]
    pub(super) history: Option<super::history::History>,
}

/// Something that happened to the socket of a connection.
enum Queued {
    Text(String, String),
    Binary(String, usize),
    Closed(String),
}

/// What an event of its own is answered with.
pub(super) enum Answer {
    Accept,
    Refuse(u16, String, Option<String>),
    Respond(http::Response<Vec<u8>>),
}

impl<S: SyncServer> std::fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").finish_non_exhaustive()
    }
}

fn thrown(error: Error) -> JsValue {
    worker::Error::from(error).into()
}

/// 128 random bits as hexadecimal digits.
pub(super) fn random_id() -> String {
    (0..4).map(|_| format!("{:08x}", (js_sys::Math::random() * 4_294_967_296.0) as u32)).collect()
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
        self.attend(turn);
        if self.again.get() {
            self.wait();
        }
        Ok(answer)
    }

    fn run(
        self: &Rc<Self>,
        queue: &[Queued],
        event: Option<Event<'_, S::Action>>,
    ) -> crate::Result<Option<(Option<Answer>, Turn<S>)>> {
        let mut room = self.room.borrow_mut();
        if room.is_none() {
            match self.open(now()) {
                Ok(open) => *room = Some(open),
                Err(error) if error.code() == Code::Storage => {
                    return Err(self.abort(error));
                }
                Err(error) => {
                    self.close_all(&error);
                    return Err(error);
                }
            }
        }
        let Some(open) = room.as_mut() else { return Ok(None) };
        let Open { sql, machine, slots, .. } = open;
        let queued = queue.iter().filter_map(|queued| {
            Some(match queued {
                Queued::Text(id, text) => Event::Frame(*slots.get(id)?, Incoming::Text(text)),
                Queued::Binary(id, n) => Event::Frame(*slots.get(id)?, Incoming::Binary(*n)),
                Queued::Closed(id) => Event::Closed(*slots.get(id)?),
            })
        });
        let mut turn = turn(machine, &self.server, sql, now(), queued.chain(event));
        // Before effects: a connection that comes in this turn may have the slot of one that left.
        for queued in queue {
            if let Queued::Closed(id) = queued
                && let Some(slot) = open.slots.remove(id)
                && let Some(socket) = open.sockets.get_mut(slot.0 as usize)
            {
                *socket = None;
            }
        }
        let effects = std::mem::take(&mut turn.effects);
        let carried_out = match turn.aborted.clone() {
            None => open.carry_out(self, effects),
            Some(error) => open.carry_out(self, effects).and(Err(error)),
        };
        match carried_out {
            Ok(answer) => Ok(Some((answer, turn))),
            Err(error) => {
                *room = None;
                Err(self.abort(error))
            }
        }
    }

    fn js(&self) -> &js::State {
        self.state.as_raw().unchecked_ref()
    }

    /// What this turn has written is taken back, and all sockets break.
    fn abort(&self, error: Error) -> Error {
        js::abort(self.js(), error.message());
        error
    }

    /// Closes every socket of a room that cannot be opened.
    fn close_all(&self, error: &Error) {
        console_error!("partysync: the room cannot be opened: {}: {error}", error.code());
        for socket in self.state.get_websockets() {
            let _ = socket.send_with_str(ServerFrame::error(error).to_text());
            let _ = socket.close(Some(wire::CLOSE_BROKEN), Some(error.code().as_str()));
        }
    }

    fn open(&self, now: Timestamp) -> crate::Result<Open<S>> {
        let (mut sockets, mut slots, mut attachments) = (Vec::new(), HashMap::new(), Vec::new());
        for (slot, socket) in (0..).map(Slot).zip(self.state.get_websockets()) {
            // What cannot be read is none: the machine has the socket closed.
            attachments.push(socket.deserialize_attachment::<String>().ok().flatten());
            if let Some(id) = self.state.get_tags(&socket).into_iter().next() {
                slots.insert(id, slot);
            }
            sockets.push(Some(raw(&socket)));
        }
        let sql = DurableSql::new(&self.state)?;
        #[cfg(feature = "streams")]
        let history = match self.server.keeps_history() {
            true => Some(super::history::History::open(&self.state)?),
            false => None,
        };
        #[cfg(feature = "streams")]
        let published = history.as_ref().map(|history| history.published()).transpose()?;
        #[cfg(not(feature = "streams"))]
        let published = None;
        let (name, fresh_epoch) = (self.state.id().name(), random_id());
        let opening = Opening { name, fresh_epoch, sockets: attachments, published };
        let machine = Machine::open(&*self.server, &sql, now, opening)?;
        Ok(Open {
            sql,
            machine,
            sockets,
            slots,
            #[cfg(feature = "streams")]
            history,
        })
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
        for mut after in turn.after {
            // Most have nothing to wait for.
            if (&mut after).now_or_never().is_none() {
                self.state.wait_until(after);
            }
        }
    }
}

impl<S: SyncServer> Open<S> {
    fn admit(&mut self, slot: Slot, id: String, socket: js::Socket) {
        let place = slot.0 as usize;
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
        }
        if let Some(free) = self.sockets.get_mut(place) {
            *free = Some(socket);
        }
        self.slots.insert(id, slot);
    }

    fn socket(&self, slot: Slot) -> Option<&js::Socket> {
        self.sockets.get(slot.0 as usize)?.as_ref()
    }

    /// Does what a turn has led to.
    ///
    /// # Errors
    /// Of the storage, where it takes part in an effect: the turn is to be taken back.
    fn carry_out(
        &mut self,
        inner: &Rc<Inner<S>>,
        effects: Vec<Effect<S::Action>>,
    ) -> crate::Result<Option<Answer>> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Accept { slot, id } => {
                    if let Some(socket) = inner.arriving.borrow_mut().take() {
                        inner.state.accept_websocket_with_tags(&socket, &[&id]);
                        self.admit(slot, id, raw(&socket));
                    }
                    answer = Some(Answer::Accept);
                }
                Effect::Refuse { code, reason, frame, .. } => {
                    answer = Some(Answer::Refuse(code, reason, frame));
                }
                Effect::Respond(response) => answer = Some(Answer::Respond(response)),
                Effect::Send { slots, frame } => {
                    // Into JavaScript once for all.
                    let frame = JsString::from(&*frame);
                    for socket in slots.iter().filter_map(|slot| self.socket(*slot)) {
                        // A socket that is closing takes nothing more: its close event follows.
                        let _ = socket.send(&frame);
                    }
                }
                Effect::Close { slot, code, reason } => {
                    if let Some(socket) = self.socket(slot) {
                        let _ = socket.close(code, &reason);
                    }
                }
                Effect::StoreAttachment { slot, attachment } => {
                    if let Some(socket) = self.socket(slot) {
                        // The machine knows the limit: this is a runtime with another.
                        if let Err(error) = socket.serialize_attachment(&attachment) {
                            console_error!("partysync: an attachment: {}", js_error(&error));
                            let _ = socket.close(wire::CLOSE_TOO_BIG, "too_large");
                        }
                    }
                }
                Effect::Again => inner.again.set(true),
                Effect::SetAlarm(at) => set_alarm(&inner.js().storage(), at)?,
                #[cfg(feature = "streams")]
                Effect::Publish { to, messages } => {
                    if let Some(history) = &self.history {
                        history.publish(to, &messages)?;
                    }
                }
                Effect::Log { level: Level::Error, message } => console_error!("{message}"),
                Effect::Log { level: Level::Warn, message } => console_warn!("{message}"),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Sets the object's alarm: part of the turn, like what it writes.
fn set_alarm(storage: &js::Storage, at: Option<Timestamp>) -> crate::Result<()> {
    let set = match at {
        // The runtime refuses times that are none.
        Some(at) => storage.set_alarm(at.as_millis().max(1) as f64),
        None => storage.delete_alarm(),
    };
    let set = JsFuture::from(set.map_err(|e| js_error(&e))?);
    spawn_local(async move {
        if let Err(error) = set.await {
            console_error!("partysync: the alarm was not set: {}", js_error(&error));
        }
    });
    Ok(())
}

fn raw(socket: &WebSocket) -> js::Socket {
    let socket: &web_sys::WebSocket = socket.as_ref();
    JsValue::from(socket.clone()).unchecked_into()
}
