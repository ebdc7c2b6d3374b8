//! HTTP at a room's object: sockets to be accepted, requests for `on_request`, the history.

use super::object::Inner;
use super::open::{Answer, Open, random_id};
use crate::room::{Answered, Event, answer};
use crate::wire::v2::ServerFrame;
use crate::{Code, Error, Protocol, SyncServer, wire};
use futures::StreamExt;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use worker::{Method, Request, Response, ResponseBuilder, WebSocketPair};

#[wasm_bindgen]
extern "C" {
    /// The runtime's own parser of addresses. The crate `url`, which `Request::url` is made of,
    /// brings Unicode's tables for names of hosts: a quarter of a small worker.
    #[wasm_bindgen(js_name = URL)]
    pub(super) type Url;
    #[wasm_bindgen(constructor, catch, js_class = "URL")]
    fn new(text: &str) -> Result<Url, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn href(this: &Url) -> String;
    /// `https://example.com:8443`.
    #[wasm_bindgen(method, getter)]
    pub(super) fn origin(this: &Url) -> String;
    /// The path, as it stands in the address.
    #[wasm_bindgen(method, getter)]
    pub(super) fn pathname(this: &Url) -> String;
    #[wasm_bindgen(method, getter, js_name = searchParams)]
    pub(super) fn query(this: &Url) -> Query;

    pub(super) type Query;
    /// The first value of this name, decoded.
    #[wasm_bindgen(method)]
    pub(super) fn get(this: &Query, name: &str) -> Option<String>;
}

/// A request's address.
pub(super) fn url(request: &Request) -> worker::Result<Url> {
    Ok(Url::new(&request.inner().url())?)
}

impl<S: SyncServer> Inner<S> {
    pub(super) fn accept(self: &Rc<Self>, request: &Request) -> worker::Result<Response> {
        let offered = request.headers().get("sec-websocket-protocol")?.unwrap_or_default();
        let v2 = offered.split(',').any(|p| p.trim() == wire::SUBPROTOCOL);
        let protocol = if v2 { Protocol::V2 } else { Protocol::V1 };
        let wanted = url(request)?.query().get("_pk");
        let head = head(request)?.body(()).map_err(bad_request)?;
        let pair = WebSocketPair::new()?;
        let (fresh_id, request) = (random_id(), &head);
        *self.arriving.borrow_mut() = Some(pair.server.clone());
        let answer = self.turn(Some(Event::Connect { wanted, fresh_id, protocol, request }));
        self.arriving.borrow_mut().take();
        let refused = match answer {
            Ok(Some(Answer::Accept)) => None,
            Ok(Some(Answer::Refuse(code, reason, frame))) => Some((code, reason, frame)),
            Ok(None) => Some((wire::CLOSE_FAILED, String::new(), None)),
            Err(error) => {
                let frame = v2.then(|| ServerFrame::error(&error).to_text());
                Some((wire::CLOSE_BROKEN, error.code().as_str().to_owned(), frame))
            }
        };
        if let Some((code, reason, frame)) = refused {
            pair.server.accept()?;
            if let Some(frame) = frame {
                pair.server.send_with_str(frame)?;
            }
            pair.server.close(Some(code), Some(reason))?;
        }
        let mut response = ResponseBuilder::new();
        if v2 {
            // A browser drops a socket whose subprotocol is not echoed.
            response = response.with_header("sec-websocket-protocol", wire::SUBPROTOCOL)?;
        }
        Ok(response.with_status(101).with_websocket(pair.client).empty())
    }

    pub(super) async fn request(self: &Rc<Self>, mut request: Request) -> worker::Result<Response> {
        #[cfg(feature = "streams")]
        if let Some(answer) = self.history(&request).await? {
            return Ok(answer);
        }
        let limit = self.server.limits().body_bytes;
        let Some(body) = body(&mut request, limit).await? else {
            return Response::error(format!("too_large: the limit is {limit} bytes"), 413);
        };
        let head = head(&request)?;
        let request = head.body(body).map_err(bad_request)?;
        let is_closed = self.room.borrow().is_none();
        if is_closed && let Err(error) = self.turn(None) {
            return Response::error(format!("{}: {error}", error.code()), 500);
        }
        let answering =
            answer(self.room.borrow().as_ref().map(Open::machine), &self.server, request);
        let Answered { response, fault } = answering.await;
        if let Some(fault) = fault {
            self.tell(&fault);
        }
        respond(response)
    }

    /// The answer to a reader of the room's history; `None` for any other request.
    #[cfg(feature = "streams")]
    async fn history(self: &Rc<Self>, request: &Request) -> worker::Result<Option<Response>> {
        use crate::streams::{Refusal, full};
        if !self.server.keeps_history() {
            return Ok(None);
        }
        let head = head(request)?.body(()).map_err(bad_request)?;
        let room = self.state.id().name().unwrap_or_default();
        let Some(own) = super::history::History::own(head.uri(), &room) else { return Ok(None) };
        if !matches!(request.method(), Method::Get | Method::Head | Method::Options) {
            let refusal = Refusal::MethodNotAllowed;
            return Response::error(refusal.to_string(), refusal.status().as_u16()).map(Some);
        }
        let refuse = |error: Error| {
            let status = if error.code() == Code::Unauthorized { 401 } else { 403 };
            Response::error(format!("{}: {error}", error.code()), status).map(Some)
        };
        if let Err(error) = self.server.may_read_history(&head) {
            return refuse(error);
        }
        self.turn(None)?;
        let streams = match self.room.borrow_mut().as_mut() {
            Some(open) => {
                if let Err(error) = open.sees_all(&self.server, &head) {
                    return refuse(error);
                }
                let Some(history) = &open.history else { return Ok(None) };
                history.streams.clone()
            }
            // Its rows are on their way to another version.
            None => return Response::error("unavailable: try again in a moment", 503).map(Some),
        };
        let (mut parts, ()) = head.into_parts();
        parts.uri = own;
        let answer = streams.handle(http::Request::from_parts(parts, full(Vec::new()))).await;
        super::streams::respond(answer).map(Some)
    }
}

fn respond(answer: http::Response<Vec<u8>>) -> worker::Result<Response> {
    let (parts, body) = answer.into_parts();
    let status = parts.status.as_u16();
    // JavaScript has no other answers, and none of these with a body.
    let response = match status {
        204 | 205 | 304 => Response::empty()?,
        200..600 => Response::from_bytes(body)?,
        _ => return Response::error(format!("internal: status {status}"), 500),
    };
    let mut response = response.with_status(status);
    response.headers_mut().delete("content-type")?;
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        response.headers_mut().append(name.as_str(), &value)?;
    }
    Ok(response)
}

/// A request's body; `None` if it is larger than the limit, and then it is not read further.
pub(super) async fn body(request: &mut Request, limit: usize) -> worker::Result<Option<Vec<u8>>> {
    if matches!(request.method(), Method::Get | Method::Head) {
        return Ok(Some(Vec::new()));
    }
    let promised = request.headers().get("content-length")?.and_then(|n| n.parse().ok());
    if promised.is_some_and(|n: usize| n > limit) {
        return Ok(None);
    }
    let Ok(mut stream) = request.stream() else { return Ok(Some(Vec::new())) };
    let mut body = Vec::new();
    while let Some(part) = stream.next().await {
        body.extend_from_slice(&part?);
        if body.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

pub(super) fn bad_request(error: http::Error) -> Error {
    Error::new(Code::InvalidFrame, error.to_string())
}

/// The request's method, address and headers, and who the router says is behind it.
pub(super) fn head(request: &Request) -> crate::Result<http::request::Builder> {
    let mut head =
        http::Request::builder().method(request.method().as_ref()).uri(url(request)?.href());
    for (name, value) in request.headers().entries() {
        head = head.header(name, value);
    }
    if let Some(identity) = super::identity::of(request)? {
        head = head.extension(identity);
    }
    Ok(head)
}
