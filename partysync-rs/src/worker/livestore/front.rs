//! The worker in front of LiveStore's backends: which requests are sync requests, who may come in,
//! and to which object they lead.

use super::admin::Task;
use crate::livestore::Transport;
use crate::worker::http::{Url, url};
use crate::worker::router::{stub, with_cors};
use crate::{Error, Result};
use serde_json::Value as Json;
use std::future::Future;
use std::pin::Pin;
use worker::{Env, Method, Request, Response, Stub, console_error, console_warn};

/// A request of a LiveStore client, on whatever path.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncRequest {
    /// The store's id.
    pub store_id: String,
    /// What the client says of itself, such as a token.
    pub payload: Option<Json>,
    /// What it comes by.
    pub transport: Transport,
}

/// What a client says of itself may be encoded so often: its client does, and the query does.
const ENCODED: usize = 3;

/// The sync request of an address; `None` if it is none.
pub(super) fn of_url(url: &Url) -> Option<SyncRequest> {
    let query = url.query();
    let store_id = query.get("storeId").filter(|id| !id.is_empty())?;
    let transport = match &*query.get("transport")? {
        "ws" => Transport::WebSocket,
        "http" => Transport::Http,
        _ => return None,
    };
    let payload = match query.get("payload") {
        Some(text) => Some(decode(text)?),
        None => None,
    };
    Some(SyncRequest { store_id, payload, transport })
}

fn decode(mut text: String) -> Option<Json> {
    for _ in 0..ENCODED {
        if let Ok(json) = serde_json::from_str(&text) {
            return Some(json);
        }
        text = js_sys::decode_uri_component(&text).ok()?.into();
    }
    None
}

type Validate = Box<dyn for<'a> Fn(&'a SyncRequest, &'a Request, &'a Env) -> Validating<'a>>;
type Validating<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Leads LiveStore's clients to their stores' objects: one object for each store id.
///
/// ```no_run
/// use partysync::worker::LiveStore;
/// use partysync::{Code, Error};
/// use worker::{Env, Request, Response};
///
/// async fn fetch(request: Request, env: Env) -> worker::Result<Response> {
///     let backend = LiveStore::new("SYNC_BACKEND").validate_payload(|sync, _request, _env| {
///         Box::pin(async move {
///             match &sync.payload {
///                 Some(payload) if payload["authToken"] == "open sesame" => Ok(()),
///                 _ => Err(Error::new(Code::Unauthorized, "the token is not valid")),
///             }
///         })
///     });
///     backend.route(request, &env).await
/// }
/// ```
pub struct LiveStore {
    binding: String,
    origin: Option<String>,
    location_hint: Option<String>,
    validate: Option<Validate>,
    secret: Option<String>,
}

impl std::fmt::Debug for LiveStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStore").field("binding", &self.binding).finish_non_exhaustive()
    }
}

impl LiveStore {
    /// To the objects of the class that is bound as `binding`.
    #[must_use]
    pub fn new(binding: impl Into<String>) -> Self {
        let (origin, location_hint, validate, secret) = (None, None, None, None);
        Self { binding: binding.into(), origin, location_hint, validate, secret }
    }

    /// Asked before every sync request; the store's object is not woken by one that is refused. A
    /// WebSocket is refused with 403: LiveStore's clients try again for ever, with a delay that
    /// grows to half a minute, and no close code would stop them. An app sees that it is not
    /// connected.
    #[must_use]
    pub fn validate_payload(
        mut self,
        validate: impl for<'a> Fn(&'a SyncRequest, &'a Request, &'a Env) -> Validating<'a> + 'static,
    ) -> Self {
        self.validate = Some(Box::new(validate));
        self
    }

    /// Adds routes for whoever knows the secret, which is sent as `Authorization: Bearer …`:
    /// `GET …/admin/info?storeId=S` tells what a store knows of itself, `POST
    /// …/admin/reset?storeId=S` removes its events, and clients start over. There are none with an
    /// empty secret.
    ///
    /// ```no_run
    /// # fn f(env: &worker::Env) -> partysync::worker::LiveStore {
    /// let secret = env.secret("ADMIN_SECRET").map(|secret| secret.to_string());
    /// partysync::worker::LiveStore::new("SYNC_BACKEND").admin(secret.unwrap_or_default())
    /// # }
    /// ```
    #[must_use]
    pub fn admin(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(secret.into()).filter(|secret| !secret.is_empty());
        self
    }

    /// Lets pages of another origin sync over HTTP: `*`, or one origin.
    #[must_use]
    pub fn cors(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Where new stores are made, such as `weur`; Cloudflare's location hints.
    #[must_use]
    pub fn location_hint(mut self, hint: impl Into<String>) -> Self {
        self.location_hint = Some(hint.into());
        self
    }

    /// Whether this is a sync request.
    ///
    /// # Errors
    /// What the runtime says of its address.
    pub fn matches(request: &Request) -> worker::Result<Option<SyncRequest>> {
        Ok(of_url(&url(request)?))
    }

    /// Answers a request, with 400 where it is no sync request.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn route(&self, request: Request, env: &Env) -> worker::Result<Response> {
        match self.try_route(request, env).await? {
            Some(response) => Ok(response),
            None => Response::error("this is no sync request: it lacks a storeId", 400),
        }
    }

    /// Answers a sync request; `None` for any other, which the worker may answer.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn try_route(&self, request: Request, env: &Env) -> worker::Result<Option<Response>> {
        let address = url(&request)?;
        if let Some(secret) = &self.secret
            && let Some((task, store)) = Task::of_url(&address)
        {
            let Some(store) = store else {
                return Response::error("the task wants a storeId", 400).map(Some);
            };
            let stub = self.stub(env, &store)?;
            return task.answer(&request, secret, &store, stub).await.map(Some);
        }
        let Some(sync) = of_url(&address) else { return Ok(None) };
        let asked = request.headers().get("access-control-request-headers")?;
        if request.method() == Method::Options {
            return self.with_cors(Response::empty()?.with_status(204), asked).map(Some);
        }
        if let Some(validate) = &self.validate
            && let Err(error) = validate(&sync, &request, env).await
        {
            console_warn!("livestore `{}`: a payload was refused: {error}", sync.store_id);
            return self.with_cors(refuse(&error)?, asked).map(Some);
        }
        let response = self.stub(env, &sync.store_id)?.fetch_with_request(request).await?;
        if sync.transport == Transport::WebSocket {
            return Ok(Some(response));
        }
        self.with_cors(response, asked).map(Some)
    }

    fn stub(&self, env: &Env, store: &str) -> worker::Result<Stub> {
        let binding = &self.binding;
        let namespace = env.durable_object(binding).inspect_err(|error| {
            console_error!(
                "livestore: wrangler.toml binds no Durable Object as `{binding}`: {error}"
            );
        })?;
        stub(&namespace, store, self.location_hint.as_deref())
    }

    fn with_cors(&self, response: Response, asked: Option<String>) -> worker::Result<Response> {
        with_cors(self.origin.as_deref(), response, asked.as_deref())
    }
}

fn refuse(error: &Error) -> worker::Result<Response> {
    Response::error(error.message().to_owned(), 403)
}
