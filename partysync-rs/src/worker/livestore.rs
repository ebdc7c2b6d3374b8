//! LiveStore's sync backend in Durable Objects: [`LiveStoreObject`], the driver of a store, and
//! [`livestore_object!`](crate::livestore_object) for the class. It holds no rule.

use super::gather::{Gather, Gathered};
use super::http::url;
use super::js::{self, guarded};
use super::livestore_front::{SyncRequest, of_url};
use super::open::{random_id, raw, set_alarm};
use super::sql::js_error;
use super::{DurableSql, now};
use crate::livestore::{self, Caller, Effect, Input, LiveStoreServer, Transport, Turn};
use crate::room::{Incoming, Level, Slot};
use crate::{Code, Error};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use js_sys::{JsString, Uint8Array};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use wasm_bindgen::closure::ScopedClosure;
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{future_to_promise, spawn_local};
use worker::{
    Request, Response, ResponseBuilder, State, WebSocket, WebSocketPair, console_error,
    console_warn, web_sys,
};

/// One store in one Durable Object; `livestore_object!` makes the class around it.
pub struct LiveStoreObject<S> {
    inner: Rc<Inner<S>>,
}

struct Inner<S> {
    server: Rc<S>,
    state: State,
    open: RefCell<Option<Open>>,
    /// What happened to sockets since the last turn: all of it is the next one.
    gathered: Gathered<Queued>,
}

/// Something that happened to the socket of a connection.
enum Queued {
    Text(String, String),
    Long(String, usize),
    Binary(String, usize),
    Closed(String),
}

/// A store that is open, with its sockets and calls.
struct Open {
    sql: DurableSql,
    store: livestore::Open,
    sockets: Vec<Option<Place>>,
    slots: HashMap<String, Slot>,
}

/// What has a slot.
enum Place {
    Socket(js::Socket),
    /// Where a call's answer goes, until it is complete.
    Call(UnboundedSender<String>, u64),
}

/// What is accepted in a turn.
enum Arriving {
    Socket(WebSocket),
    Call(UnboundedSender<String>),
}

/// What an arrival is answered with.
enum Answer {
    Accepted(Slot, u64),
    Refused(u16, String),
}

impl<S> std::fmt::Debug for LiveStoreObject<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStoreObject").finish_non_exhaustive()
    }
}

impl<S: LiveStoreServer> LiveStoreObject<S> {
    /// The store of this object's state. Nothing is read before the first request.
    #[must_use]
    pub fn new(server: S, state: State) -> Self {
        let (ping, pong) = (livestore::PING, livestore::PONG);
        if let Ok(pair) = worker::WebSocketRequestResponsePair::new(ping, pong) {
            state.set_websocket_auto_response(&pair);
        }
        let (server, open, gathered) = (Rc::new(server), RefCell::default(), Gathered::default());
        Self { inner: Rc::new(Inner { server, state, open, gathered }) }
    }

    /// A sync request: a WebSocket to be accepted, or one call.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn fetch(&self, request: web_sys::Request) -> Result<JsValue, JsValue> {
        let inner = self.inner.clone();
        Ok(future_to_promise(async move {
            let response = inner.request(Request::from(request)).await?;
            Ok(web_sys::Response::from(response).into())
        })
        .into())
    }

    /// A frame from a socket.
    ///
    /// # Errors
    /// What the runtime says; what is wrong with a frame is told to its sender.
    pub fn message(&self, socket: JsValue, message: JsValue) -> Result<(), JsValue> {
        let Some(id) = self.inner.js().connection_id(&socket) else { return Ok(()) };
        let limit = self.inner.server.limits().frame_bytes;
        // What is too long is not copied first.
        let long = js::text_length(&message).filter(|length| *length > limit);
        let queued = match (long, js::text(&message).filter(|_| long.is_none())) {
            (Some(length), _) => Queued::Long(id, length),
            (None, Some(text)) => Queued::Text(id, text),
            (None, None) => Queued::Binary(id, Uint8Array::new(&message).length() as usize),
        };
        self.inner.queue(queued).map_err(thrown)
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
        self.inner.queue(Queued::Closed(id)).map_err(thrown)
    }

    /// The object's alarm rang.
    ///
    /// # Errors
    /// What the runtime says, or why the store cannot be opened: the runtime rings again.
    pub fn alarm(&self) -> Result<(), JsValue> {
        let Some(store) = self.inner.known_store() else { return Ok(()) };
        self.inner.turn(&store, Some(Input::Alarm), None).map(drop).map_err(thrown)
    }
}

fn thrown(error: Error) -> JsValue {
    worker::Error::from(error).into()
}

impl<S: LiveStoreServer> Gather for Inner<S> {
    type Queued = Queued;

    fn gathered(&self) -> &Gathered<Queued> {
        &self.gathered
    }

    fn go(self: &Rc<Self>) -> crate::Result<()> {
        let Some(store) = self.known_store() else {
            // Of sockets that nothing is known of.
            drop(self.gathered.take());
            let error = Error::retry("what is known of the sockets is lost");
            return Err(self.close_all(error));
        };
        self.turn(&store, None, None).map(drop)
    }
}

impl<S: LiveStoreServer> Inner<S> {
    fn js(&self) -> &js::State {
        self.state.as_raw().unchecked_ref()
    }

    /// The store that this object holds, if anything says so.
    fn known_store(&self) -> Option<String> {
        if let Some(open) = self.open.borrow().as_ref() {
            return Some(open.store.machine().store().to_owned());
        }
        let sockets = self.state.get_websockets();
        let mut kept = sockets.iter().filter_map(|socket| socket.deserialize_attachment().ok()?);
        kept.find_map(|text: String| livestore::store_of(&text))
    }

    /// Closes every socket of a store that cannot be opened: clients come again later.
    fn close_all(&self, error: Error) -> Error {
        console_error!("livestore: the store cannot be opened: {}: {error}", error.code());
        for socket in self.state.get_websockets() {
            let _ = socket.close(Some(crate::wire::CLOSE_FAILED), Some("internal"));
        }
        error
    }

    async fn request(self: &Rc<Self>, mut request: Request) -> worker::Result<Response> {
        let Some(SyncRequest { store_id, payload, transport }) = of_url(&url(&request)?) else {
            return Response::error("this is no sync request", 400);
        };
        if !self.server.enabled_transports().contains(&transport) {
            return Response::error("this transport is not enabled", 403);
        }
        let mut headers = Vec::new();
        for name in self.server.forward_headers() {
            if let Some(text) = request.headers().get(name)? {
                headers.push(((*name).to_owned(), text));
            }
        }
        let caller = Caller { store_id: store_id.clone(), payload, headers, transport };
        match transport {
            Transport::WebSocket => {
                let upgrade = request.headers().get("upgrade")?;
                if !upgrade.is_some_and(|text| text.eq_ignore_ascii_case("websocket")) {
                    return Response::error("a WebSocket is expected", 426);
                }
                let pair = WebSocketPair::new()?;
                let arriving = Arriving::Socket(pair.server);
                match self.turn(&store_id, Some(Input::Connect(caller)), Some(arriving))? {
                    Some(Answer::Refused(status, why)) => Response::error(why, status),
                    _ => Ok(ResponseBuilder::new()
                        .with_status(101)
                        .with_websocket(pair.client)
                        .empty()),
                }
            }
            Transport::Http => {
                let limit = self.server.limits().frame_bytes;
                let Some(body) = super::http::body(&mut request, limit).await? else {
                    return Response::error(format!("the limit is {limit} bytes"), 413);
                };
                let body = String::from_utf8_lossy(&body);
                let (told, parts) = unbounded();
                let input = Input::Call(caller, &body);
                match self.turn(&store_id, Some(input), Some(Arriving::Call(told)))? {
                    Some(Answer::Accepted(slot, serial)) => self.respond(slot, serial, parts).await,
                    Some(Answer::Refused(status, why)) => Response::error(why, status),
                    None => Response::error("internal", 500),
                }
            }
        }
    }

    /// A call's answer: an array of messages. Those of a pull are made as they are read; anything
    /// else is answered when it is done, as a whole, which the runtime holds back until what was
    /// written is kept.
    async fn respond(
        self: &Rc<Self>,
        slot: Slot,
        serial: u64,
        mut parts: UnboundedReceiver<String>,
    ) -> worker::Result<Response> {
        let mut reader = Reader { inner: Rc::downgrade(self), slot, serial, complete: false };
        let mut early: Vec<String> = parts.next().await.into_iter().collect();
        let mut complete = false;
        while !complete {
            match parts.try_recv() {
                Ok(part) => early.push(part),
                Err(error) if error.is_closed() => complete = true,
                Err(_) => break,
            }
        }
        reader.complete = complete;
        let builder = ResponseBuilder::new().with_header("content-type", "application/json")?;
        if complete {
            return Ok(builder.fixed(format!("[{}]", early.join(",")).into_bytes()));
        }
        let parts = futures::stream::iter(early).chain(parts);
        let stream = futures::stream::unfold(Some((reader, parts, '[')), |state| async move {
            let (mut reader, mut parts, before) = state?;
            match parts.next().await {
                Some(part) => {
                    reader.taken();
                    Some((Ok(format!("{before}{part}").into_bytes()), Some((reader, parts, ','))))
                }
                None => {
                    reader.complete = true;
                    Some((Ok::<_, worker::Error>(b"]".to_vec()), None))
                }
            }
        });
        builder.from_stream(stream)
    }

    /// Takes the store through a turn with all that has happened, and an input of its own.
    fn turn(
        self: &Rc<Self>,
        store: &str,
        input: Option<Input<'_>>,
        arriving: Option<Arriving>,
    ) -> crate::Result<Option<Answer>> {
        let queue = self.gathered.take();
        let (mut given, mut result) = (Some((input, arriving)), Ok(None));
        let called = {
            let mut body = || {
                if let Some((input, arriving)) = given.take() {
                    result = self.run(store, &queue, input, arriving);
                }
            };
            let callback = ScopedClosure::<'_, dyn FnMut() + '_>::borrow_mut_aborting(&mut body);
            guarded(self.js(), callback.as_js_value().unchecked_ref())
        };
        called.map_err(|error| js_error(&error))?;
        result
    }

    fn run(
        self: &Rc<Self>,
        store: &str,
        queue: &[Queued],
        input: Option<Input<'_>>,
        arriving: Option<Arriving>,
    ) -> crate::Result<Option<Answer>> {
        let mut open = self.open.borrow_mut();
        if open.is_none() {
            match Open::new(self, store) {
                Ok(opened) => *open = Some(opened),
                Err(error) => return Err(self.close_all(error)),
            }
        }
        let Some(opened) = open.as_mut() else { return Ok(None) };
        let gone = match &input {
            Some(Input::Gone(slot, serial)) => Some((*slot, *serial)),
            _ => None,
        };
        let Turn { effects, hooks, after, aborted } = opened.turn(&self.server, queue, input);
        if let Some((slot, serial)) = gone {
            opened.forget_call(slot, serial);
        }
        if let Some(error) = aborted {
            opened.tell(&effects);
            *open = None;
            console_error!("livestore: the object is aborted: {}: {error}", error.code());
            js::abort(self.js(), error.message());
            return Err(Error::new(error.code(), "the storage failed, and the store starts anew"));
        }
        for hook in hooks {
            let (inner, store) = (self.clone(), store.to_owned());
            self.state.wait_until(async move {
                let done = hook.await;
                if let Err(error) = inner.turn(&store, Some(Input::HookDone(done)), None) {
                    console_error!("livestore: a turn failed: {error}");
                }
            });
        }
        let carried_out = opened.carry_out(self, effects, arriving);
        if let Err(error) = &carried_out {
            *open = None;
            console_error!("livestore: the object is aborted: {}: {error}", error.code());
            js::abort(self.js(), error.message());
        }
        drop(open);
        if self.gathered.again() {
            self.wait();
        }
        if !after.is_empty() {
            let inner = self.clone();
            spawn_local(async move {
                let mut after = join_all(after).boxed_local();
                // Most have nothing to wait for: the runtime need not keep the object for them.
                if (&mut after).now_or_never().is_none() {
                    inner.state.wait_until(after.map(drop));
                }
            });
        }
        carried_out
    }
}

/// Who reads a call's answer.
struct Reader<S: LiveStoreServer> {
    inner: Weak<Inner<S>>,
    slot: Slot,
    serial: u64,
    complete: bool,
}

impl<S: LiveStoreServer> Reader<S> {
    fn tell(&self, input: fn(Slot, u64) -> Input<'static>) {
        let Some(inner) = self.inner.upgrade() else { return };
        let (slot, serial) = (self.slot, self.serial);
        // Not within the turn that has made what is read.
        spawn_local(async move {
            let Some(store) = inner.known_store() else { return };
            if let Err(error) = inner.turn(&store, Some(input(slot, serial)), None) {
                console_error!("livestore: a turn failed: {error}");
            }
        });
    }

    fn taken(&self) {
        self.tell(Input::Taken);
    }
}

impl<S: LiveStoreServer> Drop for Reader<S> {
    fn drop(&mut self) {
        // Whoever waited for the answer has gone.
        if !self.complete {
            self.tell(Input::Gone);
        }
    }
}

impl Open {
    fn new<S: LiveStoreServer>(object: &Inner<S>, store: &str) -> crate::Result<Self> {
        let (mut sockets, mut slots, mut attachments) = (Vec::new(), HashMap::new(), Vec::new());
        for (slot, socket) in (0..).map(Slot).zip(object.state.get_websockets()) {
            // What cannot be read is none: the machine has the socket closed.
            attachments.push(socket.deserialize_attachment::<String>().ok().flatten());
            if let Some(id) = object.state.get_tags(&socket).into_iter().next() {
                slots.insert(id, slot);
            }
            sockets.push(Some(Place::Socket(raw(&socket))));
        }
        let sql = DurableSql::new(&object.state)?;
        // As long as LiveStore's own ids.
        let fresh: String = random_id().chars().take(21).collect();
        let server = &*object.server;
        let store = livestore::Open::new(server, &sql, store, &fresh, now(), attachments)?;
        Ok(Self { sql, store, sockets, slots })
    }

    /// Takes the store through a turn with all that has happened to sockets, and another input.
    fn turn<S: LiveStoreServer>(
        &mut self,
        server: &Rc<S>,
        queue: &[Queued],
        input: Option<Input<'_>>,
    ) -> Turn {
        let Self { sql, store, slots, .. } = self;
        let queued = queue.iter().filter_map(|queued| {
            Some(match queued {
                Queued::Text(id, text) => Input::Frame(*slots.get(id)?, Incoming::Text(text)),
                Queued::Long(id, n) => Input::Frame(*slots.get(id)?, Incoming::Long(*n)),
                Queued::Binary(id, n) => Input::Frame(*slots.get(id)?, Incoming::Binary(*n)),
                Queued::Closed(id) => Input::Closed(*slots.get(id)?),
            })
        });
        let turn = store.turn(server, sql, now(), queued.chain(input));
        // Before effects: one that comes in this turn may have the slot of one that left.
        for queued in queue {
            if let Queued::Closed(id) = queued
                && let Some(slot) = self.slots.get(id).copied()
            {
                self.forget(slot);
            }
        }
        turn
    }

    fn place(&mut self, slot: Slot) -> Option<&mut Option<Place>> {
        let place = slot.0 as usize;
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
        }
        self.sockets.get_mut(place)
    }

    /// Whoever waited for a call's answer has gone.
    fn forget_call(&mut self, slot: Slot, number: u64) {
        if let Some(place) = self.place(slot)
            && matches!(place, Some(Place::Call(_, own)) if *own == number)
        {
            *place = None;
        }
    }

    /// Says what of a turn that was aborted whoever runs the store should know.
    fn tell(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Log(_, message) = effect {
                console_error!("{message}");
            }
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(place) = self.place(slot) {
            *place = None;
        }
        self.slots.retain(|_, other| *other != slot);
    }

    fn socket(&self, slot: Slot) -> Option<&js::Socket> {
        match self.sockets.get(slot.0 as usize)?.as_ref()? {
            Place::Socket(socket) => Some(socket),
            Place::Call(..) => None,
        }
    }

    /// Does what a turn has led to.
    fn carry_out<S: LiveStoreServer>(
        &mut self,
        inner: &Inner<S>,
        effects: Vec<Effect>,
        mut arriving: Option<Arriving>,
    ) -> crate::Result<Option<Answer>> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Accept(slot, serial) => {
                    let arrived = match arriving.take() {
                        Some(Arriving::Socket(socket)) => {
                            let id = random_id();
                            inner.state.accept_websocket_with_tags(&socket, &[&id]);
                            self.slots.insert(id, slot);
                            Some(Place::Socket(raw(&socket)))
                        }
                        Some(Arriving::Call(told)) => Some(Place::Call(told, serial)),
                        None => None,
                    };
                    if let Some(place) = self.place(slot) {
                        *place = arrived;
                    }
                    answer = Some(Answer::Accepted(slot, serial));
                }
                Effect::Refuse(status, why) => answer = Some(Answer::Refused(status, why)),
                Effect::Send(slot, frame) => {
                    match self.sockets.get(slot.0 as usize).and_then(Option::as_ref) {
                        // A socket that is closing takes nothing more: its close event follows.
                        Some(Place::Socket(socket)) => {
                            let _ = socket.send(&JsString::from(frame.as_str()));
                        }
                        // Whoever does not read any more is told of by its reader.
                        Some(Place::Call(told, _)) => drop(told.unbounded_send(frame)),
                        None => {}
                    }
                }
                Effect::Finish(slot) => self.forget(slot),
                Effect::Close(slot, code, reason) => {
                    if let Some(socket) = self.socket(slot) {
                        let _ = socket.close(code, reason);
                    }
                }
                Effect::StoreAttachment(slot, text) => {
                    if let Some(socket) = self.socket(slot)
                        && let Err(error) = socket.serialize_attachment(&text)
                    {
                        console_error!("livestore: an attachment: {}", js_error(&error));
                        let _ = socket.close(crate::wire::CLOSE_TOO_BIG, "too_large");
                    }
                }
                Effect::Again => inner.gathered.set_again(),
                Effect::SetAlarm(at) => set_alarm(&inner.js().storage(), at)?,
                Effect::Log(Level::Error, message) => console_error!("{message}"),
                Effect::Log(Level::Warn, message) => console_warn!("{message}"),
                // Of the turn itself.
                Effect::Append(..) | Effect::Read(_) | Effect::Load | Effect::RunHook(_) => {
                    return Err(Error::new(Code::Internal, "an effect was not carried out"));
                }
            }
        }
        Ok(answer)
    }
}

/// Makes a [`LiveStoreServer`](crate::livestore::LiveStoreServer) a Durable Object class of the
/// same name.
///
/// ```no_run
/// use partysync::livestore::LiveStoreServer;
///
/// #[derive(Default)]
/// struct SyncBackend;
///
/// impl LiveStoreServer for SyncBackend {}
///
/// partysync::livestore_object!(SyncBackend);
/// # fn main() {}
/// ```
///
/// The server is made as for [`durable_object!`](crate::durable_object), and `wrangler.toml` names
/// the class in the same way.
#[macro_export]
macro_rules! livestore_object {
    ($server:ident) => {
        $crate::livestore_object!($server = |_env| ::std::default::Default::default());
    };
    ($server:ident = $make:expr) => {
        $crate::__object_class!($server, LiveStoreObject, $make);
    };
}
