//! [`LiveStoreObject`], the driver of a store, and [`livestore_object!`](crate::livestore_object) for
//! the class. It holds no rule; what is open is in `open.rs`.

use super::d1::D1Log;
use super::front::{SyncRequest, of_url};
use super::open::{Answer, Arriving, Open};
use crate::Error;
use crate::livestore::{self, Caller, Context, Input, LiveStoreServer, Transport, Turn};
use crate::room::Slot;
use crate::worker::gather::{Gather, Gathered, Queued};
use crate::worker::http::url;
use crate::worker::{DurableSql, js};
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{Stream, StreamExt, stream};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{self, Poll, ready};
use wasm_bindgen::JsValue;
use worker::wasm_bindgen_futures::{future_to_promise, spawn_local};
use worker::{
    Env, Method, Request, Response, ResponseBuilder, State, WebSocketPair, console_error, web_sys,
};

/// One store in one Durable Object; `livestore_object!` makes the class around it.
pub struct LiveStoreObject<S> {
    inner: Rc<Inner<S>>,
}

pub(super) struct Inner<S> {
    pub(super) server: Rc<S>,
    pub(super) state: State,
    pub(super) env: Env,
    /// The binding of the D1 database that the log is in, and the log when it is open.
    pub(super) d1: Option<(String, RefCell<Option<Rc<D1Log>>>)>,
    /// Whether the log is being opened for what happened to sockets.
    pub(super) opening: Cell<bool>,
    open: RefCell<Option<Open>>,
    /// What happened to sockets since the last turn: all of it is the next one.
    pub(super) gathered: Gathered,
}

impl<S> std::fmt::Debug for LiveStoreObject<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStoreObject").finish_non_exhaustive()
    }
}

impl<S: LiveStoreServer> LiveStoreObject<S> {
    /// The store of this object's state. Nothing is read before the first request. Subscribers are
    /// called by the bindings of `env`.
    #[must_use]
    pub fn new(server: S, state: State, env: Env) -> Self {
        let (ping, pong) = (livestore::PING, livestore::PONG);
        if let Ok(pair) = worker::WebSocketRequestResponsePair::new(ping, pong) {
            state.set_websocket_auto_response(&pair);
        }
        let (server, open, gathered) = (Rc::new(server), RefCell::default(), Gathered::default());
        let (d1, opening) = (None, Cell::new(false));
        Self { inner: Rc::new(Inner { server, state, env, d1, opening, open, gathered }) }
    }

    /// The same with the log in a D1 database, which this binding of `env` leads to. The object's
    /// SQLite keeps what a store knows of itself.
    #[must_use]
    pub fn in_d1(server: S, state: State, env: Env, binding: &str) -> Self {
        let Self { inner } = Self::new(server, state, env);
        let inner = Rc::try_unwrap(inner)
            .map(|inner| Inner { d1: Some((binding.to_owned(), RefCell::default())), ..inner });
        match inner {
            Ok(inner) => Self { inner: Rc::new(inner) },
            Err(inner) => Self { inner },
        }
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

    /// A call of another object: messages of LiveStore's Durable Object RPC, answered with such, or
    /// with a stream of them.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn rpc(&self, messages: &JsValue) -> Result<JsValue, JsValue> {
        let (inner, bytes) = (self.inner.clone(), js_sys::Uint8Array::new(messages));
        // What is too long is not copied first.
        let long = bytes.length() as usize > self.inner.server.limits().frame_bytes;
        let bytes = if long { None } else { Some(bytes.to_vec()) };
        Ok(future_to_promise(async move { Ok(inner.rpc(bytes.as_deref()).await?) }).into())
    }

    /// A task of whoever runs the backend: `info` or `reset`. Its answer is JSON. No request leads
    /// here but through [`LiveStore::admin`](super::LiveStore::admin).
    ///
    /// # Errors
    /// What the runtime says.
    pub fn admin(&self, task: String, store: String) -> Result<JsValue, JsValue> {
        let inner = self.inner.clone();
        Ok(future_to_promise(async move { Ok(inner.admin(&task, &store).await?) }).into())
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

    /// The object's alarm rang.
    ///
    /// # Errors
    /// What the runtime says, or why the store cannot be opened: the runtime rings again. Where D1
    /// has to be opened first, the alarm is set anew if that fails.
    pub fn alarm(&self, _info: &JsValue) -> Result<(), JsValue> {
        let Some(store) = self.inner.known_store() else { return Ok(()) };
        if !self.inner.is_ready() {
            self.inner.open_for_alarm(store);
            return Ok(());
        }
        self.inner.turn(&store, Some(Input::Alarm), None).map(drop).map_err(thrown)
    }
}

fn thrown(error: Error) -> JsValue {
    worker::Error::from(error).into()
}

impl<S: LiveStoreServer> Gather for Inner<S> {
    fn is_opening(&self) -> bool {
        self.opening.get()
    }

    fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn frame_bytes(&self) -> usize {
        self.server.limits().frame_bytes
    }

    fn go(self: &Rc<Self>) -> crate::Result<()> {
        let Some(store) = self.known_store() else {
            // Of sockets that nothing is known of.
            drop(self.gathered.take());
            let error = Error::retry("what is known of the sockets is lost");
            return Err(self.close_all(error));
        };
        if !self.is_ready() {
            self.open_for_sockets(store);
            return Ok(());
        }
        self.turn(&store, None, None).map(drop)
    }
}

impl<S: LiveStoreServer> Inner<S> {
    /// The store that this object holds, if anything says so.
    pub(super) fn known_store(&self) -> Option<String> {
        if let Some(open) = self.open.borrow().as_ref() {
            return Some(open.store.machine().store().to_owned());
        }
        let sockets = self.state.get_websockets();
        let mut kept = sockets.iter().filter_map(|socket| socket.deserialize_attachment().ok()?);
        let of_sockets = kept.find_map(|text: String| livestore::store_of(&text));
        // An alarm rings also where there are none.
        of_sockets.or_else(|| livestore::Open::kept_store(&DurableSql::new(&self.state).ok()?))
    }

    /// Closes every socket of a store that cannot be opened: clients come again later.
    pub(super) fn close_all(&self, error: Error) -> Error {
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
                self.ready(&store_id).await?;
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
            Transport::Http if request.method() != Method::Post => {
                Response::error("a sync request over HTTP is a POST", 405)
            }
            Transport::Http => {
                let limit = self.server.limits().frame_bytes;
                let Some(body) = crate::worker::http::body(&mut request, limit).await? else {
                    return Response::error(format!("the limit is {limit} bytes"), 413);
                };
                let body = String::from_utf8_lossy(&body);
                match self.call(&store_id, caller, &body).await? {
                    Called::Refused(status, why) => Response::error(why, status),
                    Called::Whole(parts) => {
                        Ok(json()?.fixed(format!("[{}]", parts.join(",")).into_bytes()))
                    }
                    Called::Parts(parts) => {
                        let first = std::iter::once("[").chain(std::iter::repeat(","));
                        let parts = parts.zip(stream::iter(first));
                        let parts = parts.map(|(part, before)| format!("{before}{part}"));
                        let all = parts.chain(stream::once(async { "]".to_owned() }));
                        json()?
                            .from_stream(all.map(|part| Ok::<_, worker::Error>(part.into_bytes())))
                    }
                }
            }
            Transport::Rpc => Response::error("this is no call", 400),
        }
    }

    /// One call: its answer's messages. Those of a pull are made as they are read; anything else is
    /// answered when it is done, as a whole, which the runtime holds back until what was written is
    /// kept.
    pub(super) async fn call(
        self: &Rc<Self>,
        store: &str,
        caller: Caller,
        message: &str,
    ) -> worker::Result<Called<S>> {
        self.ready(store).await?;
        let (told, mut parts) = unbounded();
        let input = Input::Call(caller, message);
        let (slot, serial) = match self.turn(store, Some(input), Some(Arriving::Call(told)))? {
            Some(Answer::Accepted(slot, serial)) => (slot, serial),
            Some(Answer::Refused(status, why)) => return Ok(Called::Refused(status, why)),
            None => return Ok(Called::Refused(500, "internal".to_owned())),
        };
        let mut reader = Reader { inner: Rc::downgrade(self), slot, serial, complete: false };
        let mut early: VecDeque<String> = parts.next().await.into_iter().collect();
        loop {
            match parts.try_recv() {
                Ok(part) => early.push_back(part),
                Err(error) if error.is_closed() => {
                    reader.complete = true;
                    return Ok(Called::Whole(early.into()));
                }
                Err(_) => return Ok(Called::Parts(Parts { early, more: parts, reader })),
            }
        }
    }

    /// Takes the store through a turn with all that has happened, and an input of its own.
    pub(super) fn turn(
        self: &Rc<Self>,
        store: &str,
        input: Option<Input<'_>>,
        arriving: Option<Arriving>,
    ) -> crate::Result<Option<Answer>> {
        let turned = self.as_turn(|queue| self.run(store, queue, input, arriving))?;
        let Some((answer, turn)) = turned else { return Ok(None) };
        if self.gathered.again() {
            self.wait();
        }
        for hook in turn.hooks {
            let inner = self.clone();
            self.state.wait_until(async move {
                let done = hook.await;
                inner.later(Some(Input::HookDone(done)));
            });
        }
        self.run_after(turn.after);
        Ok(answer)
    }

    /// A turn that nobody waits for, with what has come of something.
    pub(super) fn later(self: &Rc<Self>, input: Option<Input<'_>>) {
        let Some(store) = self.known_store() else { return };
        if let Err(error) = self.turn(&store, input, None) {
            console_error!("livestore: a turn failed: {error}");
        }
    }

    /// What the store knows of itself, and who follows it.
    pub(super) fn summary(&self) -> Option<(Context, (usize, usize))> {
        let open = self.open.borrow();
        let machine = open.as_ref()?.store.machine();
        Some((machine.context().clone(), machine.followers()))
    }

    /// Opens the store; one whose log is elsewhere ends there with the event of this number.
    pub(super) fn open_store(&self, store: &str, elsewhere: Option<u64>) -> crate::Result<()> {
        let opened = Open::new(self, store, elsewhere).map_err(|error| self.close_all(error))?;
        *self.open.borrow_mut() = Some(opened);
        Ok(())
    }

    fn run(
        self: &Rc<Self>,
        store: &str,
        queue: &[Queued],
        input: Option<Input<'_>>,
        arriving: Option<Arriving>,
    ) -> crate::Result<Option<(Option<Answer>, Turn)>> {
        if self.open.borrow().is_none() {
            self.open_store(store, None)?;
        }
        let mut open = self.open.borrow_mut();
        let Some(opened) = open.as_mut() else { return Ok(None) };
        let gone = match &input {
            Some(Input::Gone(slot, serial)) => Some((*slot, *serial)),
            _ => None,
        };
        let mut turn = opened.turn(&self.server, queue, input);
        if let Some((slot, serial)) = gone {
            opened.forget_call(slot, serial);
        }
        let effects = std::mem::take(&mut turn.effects);
        let carried_out = match turn.aborted.clone() {
            None => opened.carry_out(self, effects, arriving),
            Some(error) => opened.carry_out(self, effects, None).and(Err(error)),
        };
        match carried_out {
            Ok(answer) => Ok(Some((answer, turn))),
            Err(error) => {
                *open = None;
                console_error!("livestore: the object is aborted: {}: {error}", error.code());
                js::abort(self.js(), error.message());
                let message = "the storage failed, and the store starts anew: its log says why";
                Err(Error::new(error.code(), message))
            }
        }
    }
}

/// The answer to a call.
pub(super) enum Called<S: LiveStoreServer> {
    Refused(u16, String),
    Whole(Vec<String>),
    Parts(Parts<S>),
}

/// The messages of an answer, which is made as they are read.
pub(super) struct Parts<S: LiveStoreServer> {
    early: VecDeque<String>,
    more: UnboundedReceiver<String>,
    reader: Reader<S>,
}

impl<S: LiveStoreServer> Stream for Parts<S> {
    type Item = String;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<String>> {
        let next = match self.early.pop_front() {
            Some(part) => Some(part),
            None => ready!(self.more.poll_next_unpin(context)),
        };
        match &next {
            Some(_) => self.reader.taken(),
            None => self.reader.complete = true,
        }
        Poll::Ready(next)
    }
}

fn json() -> worker::Result<ResponseBuilder> {
    ResponseBuilder::new().with_header("content-type", "application/json")
}

/// Who reads a call's answer.
pub(super) struct Reader<S: LiveStoreServer> {
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
            inner.later(Some(input(slot, serial)));
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
/// the class in the same way. The log is in the object's SQLite; with `d1 = "DB"` as the last
/// argument it is in the D1 database of the binding `DB`.
#[macro_export]
macro_rules! livestore_object {
    ($server:ident) => {
        $crate::livestore_object!($server = |_env| ::std::default::Default::default());
    };
    ($server:ident, d1 = $binding:literal) => {
        $crate::livestore_object!(
            $server = |_env| ::std::default::Default::default(),
            d1 = $binding
        );
    };
    ($server:ident = $make:expr) => {
        $crate::livestore_object!(@ $server, $make, |server, state, env| {
            $crate::worker::LiveStoreObject::new(server, state, env)
        });
    };
    ($server:ident = $make:expr, d1 = $binding:literal) => {
        $crate::livestore_object!(@ $server, $make, |server, state, env| {
            $crate::worker::LiveStoreObject::in_d1(server, state, env, $binding)
        });
    };
    (@ $server:ident, $make:expr, $new:expr) => {
        $crate::__object_class!(
            $server,
            LiveStoreObject,
            $make,
            $new,
            pub fn rpc(&self, messages: JsValue) -> ::std::result::Result<JsValue, JsValue> {
                self.object.rpc(&messages)
            }

            pub fn admin(
                &self,
                task: String,
                store: String,
            ) -> ::std::result::Result<JsValue, JsValue> {
                self.object.admin(task, store)
            }
        );
    };
}
