//! The requests under `__ds/` (section 6).

use super::deliver::acked;
use super::{Config, Delivery, Known, Link, Subscription, known, note, read_note, webhook};
use crate::streams::body::collect;
use crate::streams::header::rfc3339;
use crate::streams::http::sound_path;
use crate::streams::{Body, Change, Incoming, Platform, Refusal, Store, Streams};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Requests about subscriptions are small.
const BODY_BYTES: usize = 256 * 1024;
const LEASE_MILLIS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
const DEFAULT_LEASE_MILLIS: u64 = 30_000;
/// How many streams are looked at together when a pattern is applied to those that are there.
const PAGE: usize = 256;

type Answer = Result<Response<Body>, Refusal>;

#[derive(Deserialize)]
struct Asked {
    r#type: String,
    pattern: Option<String>,
    #[serde(default)]
    streams: Vec<String>,
    webhook: Option<AskedWebhook>,
    wake_stream: Option<String>,
    lease_ttl_ms: Option<u64>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct AskedWebhook {
    url: String,
}

#[derive(Deserialize)]
struct Streamed {
    streams: Vec<String>,
}

#[derive(Deserialize)]
struct Claimed {
    worker: String,
}

#[derive(Deserialize)]
struct Acked {
    wake_id: String,
    generation: u64,
    #[serde(default)]
    acks: Vec<Ack>,
    #[serde(default)]
    done: bool,
}

#[derive(Deserialize)]
struct Ack {
    stream: String,
    offset: String,
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = crate::streams::http::answer(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::Full(body.to_string().into_bytes());
    response
}

fn error(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::Subscription { status, code, message: message.into() }
}

fn invalid(message: impl Into<String>) -> Refusal {
    error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
}

fn fenced() -> Refusal {
    error(StatusCode::CONFLICT, "FENCED", "another wake has taken the place of this one")
}

fn empty() -> Response<Body> {
    crate::streams::http::answer(StatusCode::NO_CONTENT)
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// Answers a request under `__ds/`; `path` is what follows, as it is in the URL.
    pub(in crate::streams) async fn control(
        &self,
        path: &str,
        parts: Parts,
        body: Incoming,
    ) -> Answer {
        let (method, mut steps) = (parts.method.clone(), path.splitn(4, '/'));
        let (area, id, what) = (steps.next(), steps.next(), steps.next());
        let rest = steps.next();
        if area == Some("jwks.json") && id.is_none() {
            return self.jwks(&method);
        }
        let id = id.and_then(|id| percent_decode_str(id).decode_utf8().ok());
        let (Some("subscriptions"), Some(id)) = (area, id) else { return Err(Refusal::NotFound) };
        if id.is_empty() || id.len() > 256 || id.contains(|c: char| c == '/' || c.is_control()) {
            return Err(invalid("a subscription's id is a segment of a path"));
        }
        let body = collect(body, BODY_BYTES).await?;
        if method == Method::PUT && what.is_none() {
            return self.subscribe(&id, &parts, &body);
        }
        let Some(subscription) = self.subscription(&id)? else {
            return Err(error(
                StatusCode::NOT_FOUND,
                "SUBSCRIPTION_NOT_FOUND",
                "there is no such subscription",
            ));
        };
        match (method, what, rest) {
            (Method::GET, None, _) => {
                Ok(json_answer(StatusCode::OK, &self.described(&subscription)?))
            }
            (Method::DELETE, None, _) => self.unsubscribe(&subscription),
            (Method::POST, Some("streams"), None) => self.add_streams(&subscription, &body),
            (Method::DELETE, Some("streams"), Some(path)) => {
                self.remove_stream(&subscription, path)
            }
            (Method::POST, Some("callback"), None) => match subscription.config.delivery {
                Delivery::Webhook { .. } => self.ack(subscription, &parts, &body),
                Delivery::PullWake { .. } => Err(invalid("workers of this subscription ack")),
            },
            (Method::POST, Some("ack"), None) => match subscription.config.delivery {
                Delivery::PullWake { .. } => self.ack(subscription, &parts, &body),
                Delivery::Webhook { .. } => Err(invalid("workers of this subscription call back")),
            },
            (Method::POST, Some("claim"), None) => self.claim(subscription, &body),
            (Method::POST, Some("release"), None) => self.release(subscription, &parts, &body),
            (_, None | Some("streams" | "callback" | "ack" | "claim" | "release"), _) => {
                Err(Refusal::MethodNotAllowed)
            }
            _ => Err(Refusal::NotFound),
        }
    }

    fn jwks(&self, method: &Method) -> Answer {
        if *method != Method::GET {
            return Err(Refusal::MethodNotAllowed);
        }
        let mut response = json_answer(StatusCode::OK, &self.key_set()?);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        Ok(response)
    }

    /// What is asked for, if it makes a subscription.
    fn config(&self, body: &[u8]) -> Result<Config, Refusal> {
        let asked: Asked = parsed(body)?;
        let streams = asked.streams.iter().map(|path| own_path(path)).collect::<Option<_>>();
        let streams =
            streams.ok_or_else(|| invalid("`streams` are paths below the streams' root"))?;
        if asked.pattern.is_none() && asked.streams.is_empty() {
            return Err(invalid("a subscription needs `pattern` or `streams`"));
        }
        if asked.pattern.as_ref().is_some_and(|pattern| pattern.is_empty() || pattern.len() > 1024)
        {
            return Err(invalid("`pattern` has 1 to 1024 bytes"));
        }
        let delivery = match (asked.r#type.as_str(), asked.webhook, asked.wake_stream) {
            ("webhook", Some(AskedWebhook { url }), None) => {
                webhook::check(&url, self.options().local_webhooks)
                    .map_err(|why| error(StatusCode::BAD_REQUEST, "WEBHOOK_URL_REJECTED", why))?;
                Delivery::Webhook { url }
            }
            ("pull-wake", None, Some(path)) => {
                let wake_stream = own_path(&path);
                let wake_stream =
                    wake_stream.ok_or_else(|| invalid("`wake_stream` is no stream's path"))?;
                Delivery::PullWake { wake_stream }
            }
            ("webhook", ..) => {
                return Err(invalid("a webhook subscription needs `webhook.url` alone"));
            }
            ("pull-wake", ..) => {
                return Err(invalid("a pull-wake subscription needs `wake_stream` alone"));
            }
            _ => return Err(invalid("`type` is `webhook` or `pull-wake`")),
        };
        let lease_ttl_ms = asked.lease_ttl_ms.unwrap_or(DEFAULT_LEASE_MILLIS);
        if !LEASE_MILLIS.contains(&lease_ttl_ms) {
            return Err(invalid("`lease_ttl_ms` is from 1000 to 600000"));
        }
        let config = Config {
            pattern: asked.pattern,
            streams,
            delivery,
            lease_ttl_ms,
            description: asked.description,
        };
        if config.streams.iter().any(|path| config.wakes_on(path)) {
            return Err(invalid("a subscription does not follow its own wakes"));
        }
        Ok(config)
    }

    fn subscribe(&self, id: &str, parts: &Parts, body: &[u8]) -> Answer {
        let config = self.config(body)?;
        if let Some(there) = self.subscription(id)? {
            if there.config == config {
                return Ok(json_answer(StatusCode::OK, &self.described(&there)?));
            }
            let message = "it is there, with another configuration";
            return Err(error(StatusCode::CONFLICT, "SUBSCRIPTION_ALREADY_EXISTS", message));
        }
        let uri = &parts.uri;
        let origin = uri
            .scheme_str()
            .zip(uri.authority())
            .map(|(scheme, host)| format!("{scheme}://{host}"));
        let base =
            format!("{}{}", origin.unwrap_or_default(), self.options().root.trim_end_matches('/'));
        let subscription = Subscription {
            id: id.to_owned(),
            config,
            created_at: self.now(),
            base,
            generation: 0,
            wake: None,
            failed: false,
        };
        let mut links = BTreeMap::new();
        // What is there already is followed from its end on.
        let mut after: Option<String> = None;
        while subscription.config.pattern.is_some() {
            let page = self.store().list(after.as_deref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.path.clone());
            for stream in page.iter().filter(|s| !s.deleted && subscription.covers(&s.path)) {
                links.insert(stream.path.clone(), self.linked_at_end(&stream.path, false)?);
            }
        }
        for path in &subscription.config.streams {
            let link = self.linked_at_end(path, true)?;
            let glob = links.contains_key(path);
            links.insert(path.clone(), Link { glob, ..link });
        }
        let mut changes = vec![note(Subscription::key(id), &subscription)?];
        for (path, link) in &links {
            changes.push(note(Subscription::link_key(id, path), link)?);
        }
        self.commit(changes)?;
        Ok(json_answer(StatusCode::CREATED, &self.described(&subscription)?))
    }

    fn unsubscribe(&self, subscription: &Subscription) -> Answer {
        let id = &subscription.id;
        let mut changes = vec![Change::Note { key: Subscription::key(id), text: None }];
        for prefix in [Subscription::link_key(id, ""), Subscription::todo_key(id, "")] {
            let notes = self.store().notes(&prefix)?;
            changes.extend(notes.into_iter().map(|(key, _)| Change::Note { key, text: None }));
        }
        self.commit(changes)?;
        Ok(empty())
    }

    fn described(&self, subscription: &Subscription) -> Result<Value, Refusal> {
        let prefix = Subscription::link_key(&subscription.id, "");
        let link = |Known { key, value }: Known<Link>| {
            let path = key.strip_prefix(&prefix).unwrap_or_default();
            json!({ "path": path, "link_type": value.kind(), "acked_offset": value.offset() })
        };
        let streams: Vec<_> = known(self.store(), &prefix)?.into_iter().map(link).collect();
        let Config { pattern, delivery, lease_ttl_ms, description, .. } = &subscription.config;
        let (kind, webhook, wake_stream) = match delivery {
            Delivery::Webhook { url } => {
                let signing = json!({
                    "alg": "ed25519", "kid": self.key_id()?,
                    "jwks_url": format!("{}/__ds/jwks.json", subscription.base),
                });
                ("webhook", Some(json!({ "url": url, "signing": signing })), None)
            }
            Delivery::PullWake { wake_stream } => ("pull-wake", None, Some(wake_stream)),
        };
        Ok(json!({
            "id": subscription.id, "subscription_id": subscription.id, "type": kind,
            "pattern": pattern, "streams": streams, "webhook": webhook, "wake_stream": wake_stream,
            "lease_ttl_ms": lease_ttl_ms, "description": description,
            "created_at": rfc3339(subscription.created_at),
            "status": if subscription.failed { "failed" } else { "active" },
        }))
    }

    fn add_streams(&self, subscription: &Subscription, body: &[u8]) -> Answer {
        let added: Streamed = parsed(body)?;
        let mut changes = Vec::new();
        for path in &added.streams {
            if subscription.config.wakes_on(path) || !sound_path(path) {
                return Err(invalid(
                    "`streams` are paths below the streams' root, and not the own wakes",
                ));
            }
            let key = Subscription::link_key(&subscription.id, path);
            let link = match read_note::<Link>(self.store(), &key)? {
                Some(link) => Link { explicit: true, ..link },
                None => self.linked_at_end(path, true)?,
            };
            changes.push(note(key, &link)?);
        }
        self.commit(changes)?;
        Ok(empty())
    }

    fn remove_stream(&self, subscription: &Subscription, path: &str) -> Answer {
        let Ok(path) = percent_decode_str(path).decode_utf8() else {
            return Err(invalid("the path is not UTF-8"));
        };
        let key = Subscription::link_key(&subscription.id, &path);
        match read_note::<Link>(self.store(), &key)? {
            Some(link) if link.glob => {
                self.commit(vec![note(key, &Link { explicit: false, ..link })?])?
            }
            Some(_) => {
                let todo = Subscription::todo_key(&subscription.id, &path);
                self.commit(vec![
                    Change::Note { key, text: None },
                    Change::Note { key: todo, text: None },
                ])?;
            }
            None => {}
        }
        Ok(empty())
    }

    fn claim(&self, mut subscription: Subscription, body: &[u8]) -> Answer {
        let Claimed { worker } = parsed(body)?;
        if matches!(subscription.config.delivery, Delivery::Webhook { .. }) {
            return Err(invalid("a webhook subscription is not claimed"));
        }
        let mut changes = Vec::new();
        let pending = self.pending(&subscription.id, &mut changes)?;
        self.commit(changes)?;
        let (generation, ttl) = (subscription.generation, subscription.config.lease_ttl_ms);
        let until = self.lease_end(ttl);
        let now = self.now();
        let wake = subscription.wake.as_mut();
        if let Some(wake) = &wake
            && let Some(holder) = &wake.holder
            && wake.lease_until.is_some_and(|until| until > now)
        {
            let claimed = json!({ "error": {
                "code": "ALREADY_CLAIMED", "message": "another worker has it",
                "current_holder": holder, "generation": generation,
            }});
            return Ok(json_answer(StatusCode::CONFLICT, &claimed));
        }
        let (Some(wake), false) = (wake, pending.is_empty()) else {
            return Err(error(StatusCode::CONFLICT, "NO_PENDING_WORK", "there is nothing to do"));
        };
        if wake.holder.is_some() {
            // The lease is over, and its alarm has not rung yet.
            let id = subscription.id.clone();
            self.end_wake(subscription, Vec::new())?;
            return match self.subscription(&id)? {
                Some(subscription) => self.claim(subscription, body),
                None => Err(Refusal::NotFound),
            };
        }
        wake.holder = Some(worker);
        wake.lease_until = Some(until);
        wake.snapshot = pending.iter().map(|p| (p.path.clone(), p.stream.end)).collect();
        let streams: Vec<_> = pending.iter().map(super::wake::Pending::to_json).collect();
        let answer = json!({
            "wake_id": wake.id, "generation": generation, "token": wake.token,
            "streams": streams, "lease_ttl_ms": ttl,
        });
        self.keep(&subscription)?;
        Ok(json_answer(StatusCode::OK, &answer))
    }

    /// When a lease ends that begins now.
    pub(super) fn lease_end(&self, ttl: u64) -> crate::Timestamp {
        self.now().plus_millis(i64::try_from(ttl).unwrap_or(i64::MAX))
    }

    /// The request of a worker that holds the present wake, or what it is told instead.
    fn held(
        &self,
        subscription: &Subscription,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Acked, Refusal> {
        let token = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|text| text.to_str().ok()?.strip_prefix("Bearer "));
        let Some(token) = token else {
            return Err(error(
                StatusCode::UNAUTHORIZED,
                "TOKEN_INVALID",
                "the wake's token is missing",
            ));
        };
        let acked: Acked = parsed(body)?;
        let now = self.now();
        let current = subscription.wake.as_ref().is_some_and(|wake| {
            same(&wake.token, token)
                && acked.wake_id == wake.id
                && acked.generation == subscription.generation
                && wake.lease_until.is_none_or(|until| until > now)
        });
        if current { Ok(acked) } else { Err(fenced()) }
    }

    fn ack(&self, mut subscription: Subscription, parts: &Parts, body: &[u8]) -> Answer {
        let request = self.held(&subscription, parts, body)?;
        let mut acks = BTreeMap::new();
        for Ack { stream, offset } in request.acks {
            let Some(offset) = acked(&offset) else {
                return Err(invalid("an acknowledged offset is one that a stream gave out"));
            };
            acks.insert(stream, offset);
        }
        let changes = self.acknowledge(&subscription.id, &acks)?;
        let next_wake = if request.done {
            self.end_wake(subscription, changes)?
        } else {
            self.commit(changes)?;
            let until = self.lease_end(subscription.config.lease_ttl_ms);
            if let Some(wake) = &mut subscription.wake {
                (wake.lease_until, wake.next_attempt) = (Some(until), None);
            }
            self.keep(&subscription)?;
            false
        };
        Ok(json_answer(StatusCode::OK, &json!({ "ok": true, "next_wake": next_wake })))
    }

    fn release(&self, subscription: Subscription, parts: &Parts, body: &[u8]) -> Answer {
        self.held(&subscription, parts, body)?;
        self.end_wake(subscription, Vec::new())?;
        Ok(empty())
    }
}

/// A stream's path as requests about subscriptions write it: below the root, not encoded.
fn own_path(path: &str) -> Option<String> {
    sound_path(path).then(|| path.to_owned())
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|e| invalid(format!("the body is not what is asked for: {e}")))
}

/// Compares secrets in the same time wherever they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
