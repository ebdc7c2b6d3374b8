//! Durable Streams in Durable Objects: [`stream_server!`](crate::stream_server) for the class,
//! [`Router::streams`](super::Router::streams) for the worker in front of it.

use super::now;
use crate::streams::{Body, Options, Platform, Post, Store, Streams};
use crate::{Code, Error, Result, Timestamp};
use futures::future::LocalBoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use js_sys::{Function, Reflect, Uint8Array};
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{JsFuture, spawn_local};
use worker::{
    Delay, Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Response,
    ResponseBody, ResponseBuilder, State,
};

/// The streams under one root in one Durable Object; `stream_server!` makes the class around it.
#[derive(Debug)]
pub struct StreamObject<S> {
    state: State,
    env: Env,
    streams: OnceCell<Streams<S, Workers>>,
    open: fn(&State, &Env) -> Result<S>,
    options: fn(&Env) -> Options,
}

impl<S: Store> StreamObject<S> {
    /// The streams of this object's state. Nothing is opened before the first event.
    #[must_use]
    pub fn new(
        state: State,
        env: Env,
        open: fn(&State, &Env) -> Result<S>,
        options: fn(&Env) -> Options,
    ) -> Self {
        Self { state, env, streams: OnceCell::new(), open, options }
    }

    fn streams(&self) -> Result<&Streams<S, Workers>> {
        if let Some(open) = self.streams.get() {
            return Ok(open);
        }
        let store = (self.open)(&self.state, &self.env)?;
        let streams = Streams::new(store, Workers::new(&self.state), (self.options)(&self.env));
        Ok(self.streams.get_or_init(|| streams))
    }

    /// A request of the protocol.
    ///
    /// # Errors
    /// What the runtime says, and what opening the store says.
    pub async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let streams = self.streams()?;
        let head = super::http::head(&request)?;
        let body = match (request.method(), request.inner().body()) {
            (Method::Get | Method::Head, _) | (_, None) => crate::streams::full(Vec::new()),
            _ => request.stream()?.map_err(Error::from).boxed_local(),
        };
        let request = head.body(body).map_err(super::http::bad_request)?;
        respond(streams.handle(request).await)
    }

    /// The object's alarm rang.
    ///
    /// # Errors
    /// What the store says: the runtime rings again.
    pub async fn alarm(&self) -> worker::Result<Response> {
        let streams = self.streams()?;
        streams.platform().rung();
        streams.wake().await?;
        Response::empty()
    }
}

/// An answer as the runtime sends it.
pub(super) fn respond(answer: http::Response<Body>) -> worker::Result<Response> {
    let (parts, body) = answer.into_parts();
    let headers = Headers::new();
    for (name, value) in &parts.headers {
        headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    let response = ResponseBuilder::new().with_status(parts.status.as_u16()).with_headers(headers);
    match body {
        Body::Full(bytes) if bytes.is_empty() => Ok(response.empty()),
        Body::Full(bytes) => Ok(response.fixed(bytes)),
        Body::Live(pieces) => response.from_stream(pieces.map_err(worker::Error::from)),
    }
}

/// The platform of a Durable Object, for a server of streams in a class of your own.
///
/// ```no_run
/// # fn open(state: &worker::State) -> partysync::Result<()> {
/// use partysync::streams::{Options, SqlStore, Streams};
/// use partysync::worker::{DurableSql, Workers};
///
/// let store = SqlStore::new(DurableSql::new(state)?)?;
/// let streams = Streams::new(store, Workers::new(state), Options::default());
/// streams.publish("log", 1, &[r#"{"said":"from Rust"}"#.to_owned()]).ok();
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Workers {
    /// `None` leaves the object's alarm to others.
    storage: Option<JsValue>,
    /// The alarm as it is set, once it is known.
    alarm: Rc<Cell<Option<Option<Timestamp>>>>,
}

impl Workers {
    /// The platform of this object. Its alarm is the streams' own: call
    /// [`Streams::wake`](crate::streams::Streams::wake) when it rings.
    #[must_use]
    pub fn new(state: &State) -> Self {
        Self { storage: Some(state.storage().as_raw().into()), alarm: Rc::default() }
    }

    /// For streams that never need waking, in an object whose alarm is another's.
    pub(super) fn without_alarm() -> Self {
        Self { storage: None, alarm: Rc::default() }
    }

    /// The alarm has rung, and is set no more.
    fn rung(&self) {
        self.alarm.set(Some(None));
    }

    /// The alarm could not be set: it is set with the next request.
    fn not_set(&self, at: Option<Timestamp>, error: &JsValue) {
        worker::console_error!("the alarm of the streams could not be set: {error:?}");
        if self.alarm.get() == Some(at) {
            self.alarm.set(None);
        }
    }
}

/// Calls a method of the object's storage that gives a promise.
fn call(
    storage: &JsValue,
    method: &str,
    arguments: &js_sys::Array,
) -> std::result::Result<js_sys::Promise, JsValue> {
    let function: Function = Reflect::get(storage, &method.into())?.dyn_into()?;
    function.apply(storage, arguments)?.dyn_into()
}

fn failed(error: &JsValue) -> Error {
    Error::new(Code::Internal, format!("{error:?}"))
}

impl Platform for Workers {
    fn now(&self) -> Timestamp {
        now()
    }

    fn random(&self) -> Result<[u8; 32]> {
        let get = |object: &JsValue, name: &str| {
            Reflect::get(object, &name.into()).map_err(|error| failed(&error))
        };
        let crypto = get(&js_sys::global(), "crypto")?;
        let function: Function = get(&crypto, "getRandomValues")?.unchecked_into();
        let array = Uint8Array::new_with_length(32);
        function.call1(&crypto, &array).map_err(|error| failed(&error))?;
        let mut bytes = [0; 32];
        array.copy_to(&mut bytes);
        Ok(bytes)
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(Delay::from(time))
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        spawn_local(task);
    }

    fn wake_at(&self, at: Option<Timestamp>) {
        let Some(storage) = &self.storage else { return };
        if self.alarm.replace(Some(at)) == Some(at) {
            return;
        }
        let set = match at {
            Some(at) => {
                let millis = JsValue::from_f64(at.as_millis() as f64);
                call(storage, "setAlarm", &js_sys::Array::of1(&millis))
            }
            None => call(storage, "deleteAlarm", &js_sys::Array::new()),
        };
        match set {
            // The runtime keeps the answer back until the alarm is stored.
            Ok(stored) => {
                let platform = self.clone();
                spawn_local(async move {
                    if let Err(error) = JsFuture::from(stored).await {
                        platform.not_set(at, &error);
                    }
                });
            }
            Err(error) => self.not_set(at, &error),
        }
    }

    fn posts_at_once(&self) -> usize {
        // An object has six connections, and its archive needs some of them.
        2
    }

    fn report(&self, what: &str, error: &Error) {
        worker::console_error!("streams: {what}: {error}");
    }

    fn post(&self, post: Post) -> LocalBoxFuture<'static, Result<(u16, Vec<u8>)>> {
        Box::pin(async move {
            let headers = Headers::new();
            headers.set("content-type", "application/json")?;
            for (name, text) in &post.headers {
                headers.set(name, text)?;
            }
            let mut init = RequestInit::new();
            init.with_method(Method::Post)
                .with_headers(headers)
                .with_redirect(RequestRedirect::Manual)
                .with_body(Some(Uint8Array::from(post.body.as_slice()).into()));
            let request = Request::new_with_init(&post.url, &init)?;
            let controller = worker::AbortController::default();
            let signal = controller.signal();
            let exchange = async {
                let mut response = Fetch::Request(request).send_with_signal(&signal).await?;
                let status = response.status_code();
                let mut body = Vec::new();
                // One without content, as of 204, has no stream.
                if let ResponseBody::Stream(_) = response.body() {
                    let mut pieces = response.stream()?;
                    while body.len() < Post::ANSWER_BYTES
                        && let Some(piece) = pieces.next().await
                    {
                        body.extend_from_slice(&piece?);
                    }
                }
                Ok::<_, worker::Error>((status, body))
            };
            let over = Delay::from(Post::TIMEOUT);
            futures::pin_mut!(exchange, over);
            let answer = match futures::future::select(exchange, over).await {
                futures::future::Either::Left((answer, _)) => Ok(answer?),
                futures::future::Either::Right(_) => {
                    Err(Error::new(Code::Closed, "the webhook did not answer in time"))
                }
            };
            // Connections are few: one that is slow, or has more to say, is hung up on.
            controller.abort();
            answer
        })
    }
}

/// Makes a Durable Object class that serves Durable Streams over a store.
///
/// ```no_run
/// # mod streams {
/// use partysync::streams::SqlStore;
/// use partysync::worker::DurableSql;
///
/// partysync::stream_server!(StreamServer: SqlStore<DurableSql> = |state, _env| {
///     SqlStore::new(DurableSql::new(state)?)
/// });
/// # }
/// # fn main() {}
/// ```
///
/// A second closure gives the [`Options`](crate::streams::Options), from the worker's `Env`. The
/// crate needs `worker` as a dependency of its own, and `wrangler.toml` names the class, as for
/// [`durable_object!`](crate::durable_object).
#[macro_export]
macro_rules! stream_server {
    ($class:ident: $store:ty = $open:expr) => {
        $crate::stream_server!($class: $store = $open, |_env| ::std::default::Default::default());
    };
    ($class:ident: $store:ty = $open:expr, $options:expr) => {
        const _: () = {
            // What the class's derive expands to names the crate without `::worker`.
            #[allow(unused_imports)]
            use ::worker::wasm_bindgen;

            #[allow(missing_docs, missing_debug_implementations, unreachable_pub)]
            #[::worker::durable_object]
            pub struct $class {
                object: $crate::worker::StreamObject<$store>,
            }

            impl ::worker::DurableObject for $class {
                fn new(state: ::worker::State, env: ::worker::Env) -> Self {
                    Self { object: $crate::worker::StreamObject::new(state, env, $open, $options) }
                }

                async fn fetch(
                    &self,
                    request: ::worker::Request,
                ) -> ::worker::Result<::worker::Response> {
                    self.object.fetch(request).await
                }

                async fn alarm(&self) -> ::worker::Result<::worker::Response> {
                    self.object.alarm().await
                }
            }
        };
    };
}
