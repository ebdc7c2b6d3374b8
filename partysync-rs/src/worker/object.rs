//! [`Object`]: one room in one Durable Object.

use super::{DurableSql, now};
use crate::room::{Connection, Incoming, Outcome, Output};
use crate::wire::v2::ServerFrame;
use crate::{Batch, Code, Error, Host, Protocol, SyncServer, Timestamp, refusal, wire};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use worker::{
    Method, Request, Response, ResponseBuilder, State, WebSocket, WebSocketIncomingMessage,
    WebSocketPair,
};

/// One room in one Durable Object; `durable_object!` makes the class around it.
pub struct Object<S: SyncServer> {
    server: S,
    state: State,
    room: RefCell<Option<Open<S>>>,
    sockets: RefCell<BTreeMap<String, WebSocket>>,
    /// Frames of connections whose earlier frame still awaits its hooks, so that one
    /// connection's actions stay in order.
    waiting: RefCell<BTreeMap<String, VecDeque<WebSocketIncomingMessage>>>,
    /// The alarm as it is set, so that it is not set again.
    alarm: Cell<Option<Option<Timestamp>>>,
}

struct Open<S: SyncServer> {
    sql: DurableSql,
    host: Host<S>,
    #[cfg(feature = "streams")]
    history: Option<super::history::History>,
}

impl<S: SyncServer> std::fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").finish_non_exhaustive()
    }
}

/// 128 random bits as hexadecimal digits.
fn random_id() -> String {
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
            server,
            state,
            room: RefCell::default(),
            sockets: RefCell::default(),
            waiting: RefCell::default(),
            alarm: Cell::new(None),
        }
    }

    /// Runs something on the open room at the present time, opening it first if need be, and
    /// delivers what comes out. Never awaits.
    fn with<T>(
        &self,
        event: impl FnOnce(&S, &DurableSql, &mut Host<S>) -> crate::Result<T>,
    ) -> crate::Result<T> {
        let mut room = self.room.borrow_mut();
        if room.is_none() {
            *room = Some(self.open()?);
        }
        let Some(open) = room.as_mut() else {
            return Err(Error::new(Code::Internal, "the room is not open"));
        };
        let Open { sql, host, .. } = open;
        let result = host.tick(sql, now()).and_then(|()| event(&self.server, sql, host));
        #[cfg(feature = "streams")]
        let result = match &open.history {
            Some(history) => {
                result.and_then(|value| history.publish(sql, host.engine()).map(|()| value))
            }
            None => result,
        };
        self.deliver(host);
        result
    }

    fn open(&self) -> crate::Result<Open<S>> {
        let mut connections = Vec::new();
        for socket in self.state.get_websockets() {
            let stored: Option<String> = socket.deserialize_attachment()?;
            let Some(json) = stored else { continue };
            if let Ok(connection) = serde_json::from_str::<Connection>(&json) {
                self.sockets.borrow_mut().insert(connection.id().to_owned(), socket);
                connections.push(connection);
            }
        }
        let sql = DurableSql::new(&self.state)?;
        let name = self.state.id().name().unwrap_or_default();
        let host = Host::open(&self.server, &sql, &name, now(), &random_id(), connections)?;
        Ok(Open {
            #[cfg(feature = "streams")]
            history: match self.server.keeps_history() {
                true => Some(super::history::History::open(&self.state)?),
                false => None,
            },
            sql,
            host,
        })
    }

    fn deliver(&self, host: &mut Host<S>) {
        for connection in host.take_changed() {
            if let Some(socket) = self.sockets.borrow().get(connection.id()) {
                self.store(socket, &connection);
            }
        }
        for output in host.take_output() {
            match output {
                // A socket that is closing takes nothing more: its close event follows.
                Output::Send { to, text } => {
                    if let Some(socket) = self.sockets.borrow().get(&to) {
                        let _ = socket.send_with_str(&*text);
                    }
                }
                Output::Close { to, code, reason } => {
                    if let Some(socket) = self.sockets.borrow().get(&to) {
                        let _ = socket.close(Some(code), Some(reason));
                    }
                }
            }
        }
    }

    fn store(&self, socket: &WebSocket, connection: &Connection) {
        let stored = serde_json::to_string(connection)
            .map_err(|e| Error::new(Code::Internal, e.to_string()))
            .and_then(|json| Ok(socket.serialize_attachment(json)?));
        if let Err(error) = stored {
            let error = Error::new(
                Code::TooLarge,
                format!("the connection's state is too large to survive hibernation: {error}"),
            );
            let _ = socket.send_with_str(ServerFrame::error(&error).to_text());
        }
    }

    /// Sets the object's alarm to what the room wants next.
    async fn set_alarm(&self) {
        let next = match self.room.borrow().as_ref() {
            Some(Open { sql, host, .. }) => host.next_alarm(sql).unwrap_or_default(),
            None => return,
        };
        if self.alarm.get() == Some(next) {
            return;
        }
        let storage = self.state.storage();
        let done = match next {
            Some(at) => {
                let at = js_sys::Date::new(&js_sys::Number::from(at.as_millis() as f64).into());
                storage.set_alarm(worker::ScheduledTime::new(at)).await
            }
            None => storage.delete_alarm().await,
        };
        if done.is_ok() {
            self.alarm.set(Some(next));
        }
    }

    /// A request: a WebSocket to be accepted, or `on_request`.
    ///
    /// # Errors
    /// What the runtime says; errors of hooks are answers.
    pub async fn fetch(&self, request: Request) -> worker::Result<Response> {
        let upgrade = request.headers().get("upgrade")?;
        let response = if upgrade.is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
            self.accept(&request)?
        } else {
            self.request(request).await?
        };
        self.set_alarm().await;
        Ok(response)
    }

    fn accept(&self, request: &Request) -> worker::Result<Response> {
        let offered = request.headers().get("sec-websocket-protocol")?.unwrap_or_default();
        let v2 = offered.split(',').any(|p| p.trim() == wire::SUBPROTOCOL);
        let protocol = if v2 { Protocol::V2 } else { Protocol::V1 };
        let url = request.url()?;
        let wanted =
            url.query_pairs().find(|(name, _)| name == "_pk").map(|(_, id)| id.into_owned());
        let pair = WebSocketPair::new()?;
        let opened = self.with(|server, sql, host| {
            let free =
                |id: &String| !id.is_empty() && id.len() <= 64 && host.connection(id).is_none();
            let id = wanted.filter(free).unwrap_or_else(random_id);
            let head = head(request)?.body(()).map_err(bad_request)?;
            host.connect(server, sql, Connection::new(id, protocol), &head).map(Ok).or_else(
                // A refusal is an answer; a room that cannot open is an error.
                |error| Ok(Err(error)),
            )
        });
        let refused = match opened {
            Ok(Ok(connection)) => {
                self.state.accept_websocket_with_tags(&pair.server, &[connection.id()]);
                self.store(&pair.server, &connection);
                self.sockets.borrow_mut().insert(connection.id().to_owned(), pair.server);
                None
            }
            Ok(Err(error)) => Some((refusal(&error), error, pair.server)),
            Err(error) => {
                let reason = error.code().as_str().to_owned();
                Some(((wire::CLOSE_BROKEN, reason), error, pair.server))
            }
        };
        if let Some(((code, reason), error, socket)) = refused {
            socket.accept()?;
            if v2 {
                socket.send_with_str(ServerFrame::error(&error).to_text())?;
            }
            socket.close(Some(code), Some(reason))?;
        }
        let mut response = ResponseBuilder::new();
        if v2 {
            // A browser drops a socket whose subprotocol is not echoed.
            response = response.with_header("sec-websocket-protocol", wire::SUBPROTOCOL)?;
        }
        Ok(response.with_status(101).with_websocket(pair.client).empty())
    }

    async fn request(&self, mut request: Request) -> worker::Result<Response> {
        #[cfg(feature = "streams")]
        if let Some(answer) = self.history(&request).await? {
            return Ok(answer);
        }
        let body = match request.method() {
            Method::Get | Method::Head => Vec::new(),
            _ => request.bytes().await?,
        };
        let answer = head(&request)
            .and_then(|head| head.body(body).map_err(bad_request))
            .and_then(|request| self.with(|server, sql, host| host.request(server, sql, request)));
        match answer {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let mut response = Response::from_bytes(body)?.with_status(parts.status.as_u16());
                response.headers_mut().delete("content-type")?;
                for (name, value) in &parts.headers {
                    response
                        .headers_mut()
                        .append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
                }
                Ok(response)
            }
            Err(error) => Response::error(format!("{}: {error}", error.code()), 500),
        }
    }

    /// The answer to a reader of the room's history; `None` for any other request.
    #[cfg(feature = "streams")]
    async fn history(&self, request: &Request) -> worker::Result<Option<Response>> {
        use crate::streams::{Refusal, full};
        if !self.server.keeps_history() {
            return Ok(None);
        }
        let head = head(request)?.body(full(Vec::new())).map_err(bad_request)?;
        let room = self.state.id().name().unwrap_or_default();
        let Some(own) = super::history::History::own(head.uri(), &room) else { return Ok(None) };
        if !matches!(request.method(), Method::Get | Method::Head | Method::Options) {
            let refusal = Refusal::MethodNotAllowed;
            return Response::error(refusal.to_string(), refusal.status().as_u16()).map(Some);
        }
        self.with(|_, _, _| Ok(()))?;
        let streams = match self.room.borrow().as_ref() {
            Some(Open { history: Some(history), .. }) => history.streams.clone(),
            _ => return Ok(None),
        };
        let (mut parts, body) = head.into_parts();
        parts.uri = own;
        let answer = streams.handle(http::Request::from_parts(parts, body)).await;
        super::streams::respond(answer).map(Some)
    }

    /// A frame from a socket.
    ///
    /// # Errors
    /// What the runtime says; what is wrong with a frame is told to its sender.
    pub async fn message(
        &self,
        socket: WebSocket,
        message: WebSocketIncomingMessage,
    ) -> worker::Result<()> {
        // The tag is the id that the socket was accepted with.
        let Some(id) = self.state.get_tags(&socket).into_iter().next() else { return Ok(()) };
        if let Some(queue) = self.waiting.borrow_mut().get_mut(&id) {
            queue.push_back(message);
            return Ok(());
        }
        self.waiting.borrow_mut().insert(id.clone(), VecDeque::new());
        let mut next = Some(message);
        while let Some(message) = next {
            if let Err(error) = self.handle(&id, &message).await {
                // Nothing of it is kept in memory: the next event reads the room afresh.
                self.room.borrow_mut().take();
                let _ = socket.send_with_str(ServerFrame::error(&error).to_text());
                let _ = socket.close(Some(1011), Some(error.code().as_str()));
            }
            next = self.waiting.borrow_mut().get_mut(&id).and_then(VecDeque::pop_front);
        }
        self.waiting.borrow_mut().remove(&id);
        self.set_alarm().await;
        Ok(())
    }

    async fn handle(&self, id: &str, message: &WebSocketIncomingMessage) -> crate::Result<()> {
        let frame = match message {
            WebSocketIncomingMessage::String(text) => Incoming::Text(text),
            WebSocketIncomingMessage::Binary(bytes) => Incoming::Binary(bytes.len()),
        };
        let batch = self.with(|server, sql, host| host.receive(server, sql, id, &frame))?;
        let Some(Batch { connection, items }) = batch else { return Ok(()) };
        let mut committed = Vec::new();
        for mut item in items {
            let duplicate = self.with(|_, sql, host| host.is_duplicate(sql, &item))?;
            let action = item.action.as_ref().ok().filter(|_| !duplicate).cloned();
            if let Some(action) = &action
                && let Err(error) = self.server.before_action(&connection, action).await
            {
                item.action = Err(error);
            }
            let outcome =
                self.with(|server, sql, host| host.commit(server, sql, &connection, item))?;
            match outcome {
                Outcome::Committed => committed.extend(action),
                Outcome::Gap => break,
                Outcome::Rejected(_) | Outcome::Duplicate => {}
            }
        }
        self.with(|_, sql, host| host.flush(sql))?;
        for action in committed {
            self.server.after_commit(&connection, action).await;
        }
        Ok(())
    }

    /// A socket has closed, cleanly or not.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn closed(&self, socket: WebSocket, code: usize) -> worker::Result<()> {
        // The client's close frame wants one in answer; without it the client waits for long.
        let echo = u16::try_from(code).ok().filter(|code| (3000..5000).contains(code));
        let _ = socket.close(Some(echo.unwrap_or(1000)), Some(""));
        let Some(id) = self.state.get_tags(&socket).into_iter().next() else { return Ok(()) };
        self.with(|server, sql, host| host.close(server, sql, &id))?;
        self.sockets.borrow_mut().remove(&id);
        self.set_alarm().await;
        Ok(())
    }

    /// The object's alarm rang.
    ///
    /// # Errors
    /// What `on_alarm` returned: the runtime rings again.
    pub async fn alarm(&self) -> worker::Result<Response> {
        self.alarm.set(None);
        self.with(|server, sql, host| host.alarm(server, sql))?;
        self.set_alarm().await;
        Response::empty()
    }
}

pub(super) fn bad_request(error: http::Error) -> Error {
    Error::new(Code::InvalidFrame, error.to_string())
}

/// The request's method, address and headers.
pub(super) fn head(request: &Request) -> crate::Result<http::request::Builder> {
    let mut head =
        http::Request::builder().method(request.method().as_ref()).uri(request.url()?.as_str());
    for (name, value) in request.headers().entries() {
        head = head.header(name, value);
    }
    Ok(head)
}
