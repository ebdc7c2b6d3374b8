//! [`Router`]: from `/parties/{party}/{room}` to the room's object, and to that of streams.

use super::http::url;
use super::open::short_id;
use crate::room::close_reason;
use crate::{Code, Error, Fault, Identity, Result, wire};
use js_sys::{Function, Reflect};
use std::future::Future;
use std::pin::Pin;
use wasm_bindgen::{JsCast, JsValue};
use worker::{
    Env, Method, ObjectNamespace, Request, Response, ResponseBuilder, Stub, WebSocketPair,
};

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The party, as [`Router::party`] names it; of streams the path that they are under.
    pub party: String,
    /// The room: one object of it.
    pub room: String,
}

/// What is under a path of its own, and in one object.
struct Mount {
    path: String,
    binding: String,
    object: String,
}

/// Where a path leads.
struct Target<'r> {
    route: Route,
    binding: &'r str,
    /// Whether it is to streams.
    streams: bool,
}

type OnError = Box<dyn Fn(&Fault)>;
type Hook = Box<dyn for<'a> Fn(&'a Request, &'a Route, &'a Env) -> HookFuture<'a>>;
type HookFuture<'a, T = ()> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;
type Identify = Box<dyn for<'a> Fn(&'a Request, &'a Route, &'a Env) -> HookFuture<'a, Identity>>;

/// Routes `/parties/{party}/{room}` to rooms, as partykit does.
///
/// It leads to the parties that are named, and nowhere else: a worker may have other objects,
/// which trust whoever calls them. One line names a party: its name as it stands in the URL, its
/// binding as it stands in `wrangler.toml`. No rule turns one into the other, so that there is
/// none to be learnt, and no object is reached because of what it is called.
///
/// ```no_run
/// use partysync::worker::Router;
/// use worker::{Env, Request, Response};
///
/// async fn fetch(request: Request, env: Env) -> worker::Result<Response> {
///     Router::new().party("todos", "TODOS").route(request, &env).await
/// }
/// ```
///
/// # Who may come in
///
/// Everybody, until a hook says otherwise - except pages of other origins, which may open no
/// WebSocket: the browser would send the user's cookies with it. A page that is served from
/// elsewhere is named with [`allow_origins`](Self::allow_origins). A request that says no origin
/// is no page's, and passes.
///
/// ```no_run
/// use partysync::{Code, Error, worker::Router};
/// use worker::{Env, Request, Response};
///
/// async fn fetch(request: Request, env: Env) -> worker::Result<Response> {
///     Router::new()
///         .party("todos", "TODOS")
///         .cors("https://app.example")
///         .allow_origins(["https://app.example"])
///         .on_before_connect(|request, _route, _env| {
///             Box::pin(async move {
///                 let url = request.url()?;
///                 let token = url.query_pairs().find(|(name, _)| name == "token");
///                 match token {
///                     Some((_, token)) if token == "open sesame" => Ok(()),
///                     // `Forbidden` would have clients stop; these get another token.
///                     Some(_) => Err(Error::new(Code::Unauthorized, "the token is not valid")),
///                     None => Err(Error::new(Code::Unauthorized, "a token is needed")),
///                 }
///             })
///         })
///         .route(request, &env)
///         .await
/// }
/// ```
///
/// A browser gives a WebSocket no headers, so that its token is in the URL, and URLs land in
/// logs: give out tokens that end within minutes. The query's `_pk` is the connection id that the
/// client wants; any client may choose any, and it is nobody's identity.
#[derive(Default)]
pub struct Router {
    prefix: Option<String>,
    /// Each party with its binding.
    parties: Vec<(String, String)>,
    streams: Vec<Mount>,
    origin: Option<String>,
    allowed: Option<Vec<String>>,
    location_hint: Option<String>,
    jurisdiction: Option<String>,
    identify: Option<Identify>,
    before_connect: Option<Hook>,
    before_request: Option<Hook>,
    error: Option<OnError>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Router {
    /// A router for `/parties/{party}/{room}`, which knows no party yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leads `/parties/{party}` to the Durable Objects that are bound as `binding`.
    ///
    /// ```
    /// # use partysync::worker::Router;
    /// // wrangler.toml: [[durable_objects.bindings]] name = "TODO_LISTS"
    /// let router = Router::new().party("todo-lists", "TODO_LISTS");
    /// ```
    #[must_use]
    pub fn party(mut self, party: impl Into<String>, binding: impl Into<String>) -> Self {
        self.parties.push((party.into(), binding.into()));
        self
    }

    /// Leads what is under this path - the streams'
    /// [`root`](crate::streams::Options::root) - to one object of the class that is bound as
    /// `binding`, with the same hooks, origins and places as rooms. A worker that serves one set
    /// of streams to each user names the object after them.
    ///
    /// A request may name other streams than the one in its path: `Stream-Forked-From` does, and
    /// so do the bodies of subscriptions under `__ds`. A hook that lets users have some of an
    /// object's streams has to look at those, too.
    ///
    /// ```no_run
    /// # use worker::{Context, Env, Request, Response};
    /// # async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    /// use partysync::worker::Router;
    /// Router::new().streams("v1/stream", "STREAMS", "all").route(request, &env).await
    /// # }
    /// ```
    #[cfg(feature = "streams")]
    #[must_use]
    pub fn streams(
        mut self,
        path: impl Into<String>,
        binding: impl Into<String>,
        object: impl Into<String>,
    ) -> Self {
        let path = path.into().trim_matches('/').to_owned();
        self.streams.push(Mount { path, binding: binding.into(), object: object.into() });
        self
    }

    /// Another prefix than `parties`; may hold several parts, `api/rooms`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into().trim_matches('/').to_owned());
        self
    }

    /// Lets pages of another origin send requests: `*`, or one origin. Preflights are answered.
    #[must_use]
    pub fn cors(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Lets pages of these origins open WebSockets, as well as those of the room's own; `*` is any
    /// origin. Requests and WebSockets of all others are refused with 403. A browser always says
    /// where a page is from; requests that do not say are no page's and pass, as a token is what
    /// keeps those out.
    ///
    /// Without it, WebSockets are for pages of the room's own origin, and requests for whom
    /// [`cors`](Self::cors) lets read the answers.
    #[must_use]
    pub fn allow_origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Self {
        self.allowed = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Where new rooms are made, such as `weur`; Cloudflare's location hints.
    #[must_use]
    pub fn location_hint(mut self, hint: impl Into<String>) -> Self {
        self.location_hint = Some(hint.into());
        self
    }

    /// The jurisdiction that rooms are kept in, such as `eu`.
    #[must_use]
    pub fn jurisdiction(mut self, jurisdiction: impl Into<String>) -> Self {
        self.jurisdiction = Some(jurisdiction.into());
        self
    }

    /// Finds out who is behind a request, WebSocket or not, before anything else is asked: by a
    /// cookie, by a token. What it returns, of any serde type, is what
    /// [`Room::identity`](crate::Room::identity) and [`Connection::identity`](crate::Connection::identity)
    /// read, and the client's reducers. An error refuses the request, as one of
    /// [`on_before_connect`](Self::on_before_connect).
    ///
    /// A user who may not stay is sent away with [`Room::close`](crate::Room::close); when the client
    /// comes again, this is asked again.
    ///
    /// ```no_run
    /// use partysync::{Code, Error, worker::Router};
    /// use serde::{Deserialize, Serialize};
    /// use worker::{Env, Request, Response};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct User { name: String }
    ///
    /// async fn fetch(request: Request, env: Env) -> worker::Result<Response> {
    ///     Router::new()
    ///         .party("todos", "TODOS")
    ///         .identify(|request, route, env| Box::pin(async move {
    ///             let cookies = request.headers().get("cookie")?.unwrap_or_default();
    ///             let session = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("session="));
    ///             let session = session.ok_or_else(|| Error::new(Code::Unauthorized, "log in first"))?;
    ///             // One who has logged in was given a session, which is kept in a KV namespace.
    ///             let name = env.kv("SESSIONS").map_err(worker::Error::from)?.get(session).text().await;
    ///             let name = name.map_err(|e| Error::new(Code::Internal, e.to_string()))?;
    ///             let name = name.ok_or_else(|| Error::new(Code::Unauthorized, "log in again"))?;
    ///             if route.room != name {
    ///                 return Err(Error::new(Code::Forbidden, "this list is not yours"));
    ///             }
    ///             Ok(User { name })
    ///         }))
    ///         .route(request, &env)
    ///         .await
    /// }
    /// ```
    #[must_use]
    pub fn identify<T: serde::Serialize + 'static>(
        mut self,
        hook: impl for<'a> Fn(&'a Request, &'a Route, &'a Env) -> HookFuture<'a, T> + 'static,
    ) -> Self {
        self.identify = Some(Box::new(move |request, route, env| {
            let who = hook(request, route, env);
            Box::pin(async move { Identity::new(&who.await?) })
        }));
        self
    }

    /// Asked before a WebSocket: the place to check what is no question of who it is. An error refuses it, and the room's
    /// object is not woken: [`Code::Unauthorized`] is 401, [`Code::Forbidden`] (or
    /// [`Error::reject`]) 403, [`Code::NotFound`] 404, [`Error::retry`] 503. Any other is 500: what
    /// failed is in the log, and told to [`on_error`](Self::on_error).
    ///
    /// A browser does not tell its page of such a status: a v2 client is let in and told by a close
    /// code instead, 4401, 4403, 4404, 4429 or 1011, with the error's message.
    #[must_use]
    pub fn on_before_connect(
        mut self,
        hook: impl for<'a> Fn(&'a Request, &'a Route, &'a Env) -> HookFuture<'a> + 'static,
    ) -> Self {
        self.before_connect = Some(Box::new(hook));
        self
    }

    /// Asked before any other request, as [`on_before_connect`](Self::on_before_connect).
    #[must_use]
    pub fn on_before_request(
        mut self,
        hook: impl for<'a> Fn(&'a Request, &'a Route, &'a Env) -> HookFuture<'a> + 'static,
    ) -> Self {
        self.before_request = Some(Box::new(hook));
        self
    }

    /// Called with what fails in a hook of the router's and is no client's fault, once for each: a
    /// store of sessions that does not answer, say. It was logged already; the client is told no more
    /// than its id, with 500 or the close code 1011. As
    /// [`SyncServer::on_error`](crate::SyncServer::on_error), for what is in front of rooms.
    #[must_use]
    pub fn on_error(mut self, hook: impl Fn(&Fault) + 'static) -> Self {
        self.error = Some(Box::new(hook));
        self
    }

    /// Answers a request, with 404 where it leads nowhere.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn route(&self, request: Request, env: &Env) -> worker::Result<Response> {
        let asked = request.headers().get("access-control-request-headers")?;
        let upgrade = request.headers().get("upgrade")?;
        let connects = upgrade.is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
        let hears = connects && offers_v2(&request)?;
        match self.try_route(request, env).await? {
            Some(response) => Ok(response),
            None if hears => {
                refuse(&Error::new(Code::NotFound, "no party of this router is there"))
            }
            None => {
                let response = Response::error("not found: no party of this router is there", 404)?;
                self.with_cors(response, asked.as_deref())
            }
        }
    }

    /// Answers a request that leads to a room of one of its parties, or to its streams; `None` for
    /// any other, which the worker may answer, or another router.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn try_route(&self, request: Request, env: &Env) -> worker::Result<Option<Response>> {
        let Some(target) = self.find(&url(&request)?.pathname()) else { return Ok(None) };
        let Target { route, binding, streams } = target;
        let asked = request.headers().get("access-control-request-headers")?;
        let asked = asked.as_deref();
        let namespace = match env.durable_object(binding) {
            Ok(namespace) => self.within_jurisdiction(namespace)?,
            Err(error) => {
                let party = &route.party;
                worker::console_error!(
                    "the party `{party}`: wrangler.toml binds no Durable Object as `{binding}`: {error}"
                );
                let message = format!("the party `{party}` is not set up");
                return Ok(Some(self.with_cors(Response::error(message, 500)?, asked)?));
            }
        };
        if request.method() == Method::Options {
            // Streams have an answer of their own.
            if self.origin.is_none() && streams {
                return self.forward(&namespace, &route, request).await.map(Some);
            }
            return Ok(Some(self.with_cors(Response::empty()?.with_status(204), asked)?));
        }
        let upgrade = request.headers().get("upgrade")?;
        // Streams take no WebSockets: whatever such a request says, it is one that reads or writes.
        let connects = !streams && upgrade.is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
        if !self.allows(&request, connects)? {
            let response = Response::error("pages of this origin are not allowed", 403)?;
            return Ok(Some(self.with_cors(response, asked)?));
        }
        let request = match self.admit(&request, &route, env, connects).await {
            Ok(identity) => match identity {
                Some(identity) => super::identity::put(&request, &identity)?,
                None => request,
            },
            Err((hook, error)) => {
                let error = self.told(&route, hook, error);
                if connects && offers_v2(&request)? {
                    return refuse(&error).map(Some);
                }
                let response = Response::error(error.message().to_owned(), status(&error))?;
                return Ok(Some(self.with_cors(response, asked)?));
            }
        };
        let response = self.forward(&namespace, &route, request).await?;
        // A switch of protocols carries no CORS: browsers check a socket's origin elsewhere.
        if connects {
            return Ok(Some(response));
        }
        Ok(Some(self.with_cors(response, asked)?))
    }

    /// Who is behind a request, if it is let in.
    async fn admit(
        &self,
        request: &Request,
        route: &Route,
        env: &Env,
        connects: bool,
    ) -> Result<Option<Identity>, (&'static str, Error)> {
        let identity = match &self.identify {
            Some(identify) => {
                let who = identify(request, route, env).await;
                Some(who.map_err(|error| ("identify", error))?)
            }
            None => None,
        };
        let (name, hook) = match connects {
            true => ("on_before_connect", &self.before_connect),
            false => ("on_before_request", &self.before_request),
        };
        if let Some(hook) = hook {
            hook(request, route, env).await.map_err(|error| (name, error))?;
        }
        Ok(identity)
    }

    /// What a client is told of a hook's error: a decision as it is, of all else an id.
    fn told(&self, route: &Route, hook: &str, error: Error) -> Error {
        if status(&error) != 500 {
            return error;
        }
        let what = format!("`{hook}` of the router, for the party `{}`,", route.party);
        let fault = Fault::new(&route.room, what, Some(short_id()), error);
        worker::console_error!("{fault}");
        if let Some(hook) = &self.error {
            hook(&fault);
        }
        fault.told()
    }

    fn find(&self, path: &str) -> Option<Target<'_>> {
        let below = |own: &&Mount| under(path, &own.path).is_some();
        if let Some(Mount { path, binding, object }) = self.streams.iter().find(below) {
            let route = Route { party: path.clone(), room: object.clone() };
            return Some(Target { route, binding, streams: true });
        }
        let route = parse(path, self.prefix.as_deref().unwrap_or("parties"))?;
        let (_, binding) = self.parties.iter().find(|(party, _)| *party == route.party)?;
        Some(Target { route, binding, streams: false })
    }

    /// Whether a page of this origin may send this, if it is a page's.
    fn allows(&self, request: &Request, connects: bool) -> worker::Result<bool> {
        let Some(origin) = request.headers().get("origin")? else { return Ok(true) };
        let listed =
            |allowed: &Vec<String>| allowed.iter().any(|one| *one == "*" || *one == origin);
        // Who may read the answers to other requests is what CORS says.
        let allowed = self.allowed.as_ref().map_or(!connects, listed);
        Ok(allowed || origin == url(request)?.origin())
    }

    fn within_jurisdiction(&self, namespace: ObjectNamespace) -> worker::Result<ObjectNamespace> {
        let Some(jurisdiction) = &self.jurisdiction else { return Ok(namespace) };
        let object = JsValue::from(namespace);
        let method: Function = Reflect::get(&object, &"jurisdiction".into())?.unchecked_into();
        let within = method.call1(&object, &jurisdiction.as_str().into())?;
        Ok(ObjectNamespace::unchecked_from_js(within))
    }

    /// Sends the request on. A transient error of the object is tried again, unless the request
    /// may have had its effect.
    async fn forward(
        &self,
        namespace: &ObjectNamespace,
        route: &Route,
        request: Request,
    ) -> worker::Result<Response> {
        const ATTEMPTS: u64 = 3;
        let stub = || stub(namespace, &route.room, self.location_hint.as_deref());
        if matches!(request.method(), Method::Get | Method::Head) {
            for attempt in 1..ATTEMPTS {
                match stub()?.fetch_with_request(request.clone()?).await {
                    Err(error) if is_transient(&error) => {
                        worker::Delay::from(std::time::Duration::from_millis(50 << attempt)).await;
                    }
                    answer => return answer,
                }
            }
        }
        stub()?.fetch_with_request(request).await
    }

    fn with_cors(&self, response: Response, asked: Option<&str>) -> worker::Result<Response> {
        with_cors(self.origin.as_deref(), response, asked)
    }
}

/// The answer as pages of this origin may read it; `asked` is what a preflight asks to send.
pub(super) fn with_cors(
    origin: Option<&str>,
    response: Response,
    asked: Option<&str>,
) -> worker::Result<Response> {
    let Some(origin) = origin else { return Ok(response) };
    let headers = response.headers().clone();
    headers.set("access-control-allow-origin", origin)?;
    headers.set("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?;
    headers.set("access-control-allow-headers", asked.unwrap_or("*"))?;
    headers.set("access-control-max-age", "86400")?;
    if origin != "*" {
        headers.set("vary", "Origin")?;
        headers.set("access-control-allow-credentials", "true")?;
    }
    Ok(response.with_headers(headers))
}

/// The object of this name, made in a place if it is new.
pub(super) fn stub(
    namespace: &ObjectNamespace,
    name: &str,
    location_hint: Option<&str>,
) -> worker::Result<Stub> {
    match location_hint {
        Some(hint) => namespace.get_by_name_with_location_hint(name, hint),
        None => namespace.get_by_name(name),
    }
}

fn offers_v2(request: &Request) -> worker::Result<bool> {
    let offered = request.headers().get("sec-websocket-protocol")?.unwrap_or_default();
    Ok(offered.split(',').any(|protocol| protocol.trim() == wire::SUBPROTOCOL))
}

/// Closes a socket that is not let in, so that its client hears why.
fn refuse(error: &Error) -> worker::Result<Response> {
    let code = match status(error) {
        401 => wire::CLOSE_UNAUTHORIZED,
        403 => wire::CLOSE_REFUSED,
        404 => wire::CLOSE_NOT_FOUND,
        503 => wire::CLOSE_BUSY,
        _ => wire::CLOSE_FAILED,
    };
    let pair = WebSocketPair::new()?;
    pair.server.accept()?;
    pair.server.close(Some(code), Some(close_reason(error.message())))?;
    let response =
        ResponseBuilder::new().with_header("sec-websocket-protocol", wire::SUBPROTOCOL)?;
    Ok(response.with_status(101).with_websocket(pair.client).empty())
}

fn status(error: &Error) -> u16 {
    match error.code() {
        Code::Unauthorized => 401,
        Code::Forbidden | Code::Rejected => 403,
        Code::NotFound => 404,
        Code::Unavailable => 503,
        _ => 500,
    }
}

/// What the runtime says when an object was moved or restarted under the request.
fn is_transient(error: &worker::Error) -> bool {
    let message = error.to_string();
    [
        "Network connection lost",
        "Durable Object reset",
        "its code was updated",
        "moved to a different machine",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// What of a path is behind a prefix.
fn under<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.trim_start_matches('/').strip_prefix(prefix)?.strip_prefix('/')
}

/// The party and the room of a path under a prefix.
fn parse(path: &str, prefix: &str) -> Option<Route> {
    let mut parts = under(path, prefix)?.split('/');
    let (party, room) = (parts.next()?, parts.next()?);
    let room = js_sys::decode_uri_component(room).ok().map(String::from)?;
    (!party.is_empty() && !room.is_empty()).then(|| Route { party: party.to_owned(), room })
}
