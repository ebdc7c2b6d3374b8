//! How the room talks to its backend: one call at a time, and what is told in between. It does no
//! IO: what happens is handed in, and what is to be done comes out.

use super::commit::{self, Logs, Received};
use super::log::{self, Logged};
use super::{EventServer, Identity};
use crate::livestore::json::whole;
use crate::room::Level;
use crate::sql::Sql;
use crate::wire::write::{Object, string};
use crate::{Result, Timestamp};
use serde::Deserialize;
use serde_json::Value as Json;
use std::ops::ControlFlow;

/// After a call that failed the next one comes so much later, ms, and twice as late each time.
const RETRY: i64 = 1_000;
const RETRY_MOST: i64 = 60_000;
/// A call of which nothing was heard for so long has ended with the process that made it, ms.
const UNDER_WAY: i64 = 30_000;
/// A push has so many events, and about so many bytes, at most: LiveStore's clients do the same.
const PUSH_EVENTS: usize = 100;
const PUSH_BYTES: usize = 900_000;

/// Something that happens between the room and its backend.
#[derive(Clone, Debug)]
pub enum EventInput {
    /// The room may have something to do.
    Go,
    /// A message of the answer to this call, as JSON.
    Message(u64, String),
    /// The answer to this call has ended, or the call has failed.
    Ended(u64, Result<()>),
    /// The backend has called `syncUpdateRpc`: its argument, as JSON.
    Update(String),
}

/// Something that the room's driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum EventOutput {
    /// Make a call of this number: hand this message to the backend's `rpc`, hand in what it
    /// answers, and its end.
    Call(u64, String),
    /// There is more to do: go on with [`EventInput::Go`] in another turn.
    Again,
    /// Something that whoever runs the room should know.
    Log(Level, String),
}

/// What the room knows of its backend in this life.
#[derive(Debug)]
pub(super) struct Link {
    identity: Identity,
    calling: Option<Calling>,
    calls: u64,
    /// Whether the backend may have events that are not here.
    behind: bool,
    pulls: Failures,
    pushes: Failures,
    /// How often the backend was another one, without a pull that went well in between.
    others: u32,
    not_before: Timestamp,
    pulled_at: Timestamp,
}

/// How often something has failed in a row, while the log had this head.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    head: u64,
}

#[derive(Debug)]
struct Calling {
    number: u64,
    /// The head when it was made, and whether events were missing behind what it has brought.
    head: u64,
    gap: bool,
    /// What is pushed; `None` for a pull.
    pushed: Option<Pushed>,
    /// What the answer said at its end.
    end: Option<Result<(), Refused>>,
}

#[derive(Debug)]
struct Pushed {
    last: u64,
    /// Whose log it goes on.
    backend_id: Option<String>,
}

#[derive(Debug)]
enum Refused {
    /// The backend has events that come before the pushed ones.
    Ahead,
    /// The backend has begun another log.
    Another,
    Other(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(rename = "_tag")]
    kind: String,
    #[serde(default)]
    values: Vec<Page>,
    #[serde(default)]
    exit: Json,
    #[serde(default)]
    defect: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    batch: Vec<Item>,
    backend_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    event_encoded: Logged,
}

impl Message {
    /// How a call has ended.
    fn end(&self) -> Result<(), Refused> {
        if self.kind != "Exit" {
            return Err(Refused::Other(format!("a defect: {}", self.defect)));
        }
        let text =
            |at: &Json, path: &str| at.pointer(path).and_then(Json::as_str).map(str::to_owned);
        if text(&self.exit, "/_tag").as_deref() == Some("Success") {
            return Ok(());
        }
        let cause = self.exit.get("cause").unwrap_or(&Json::Null);
        // A list of them in versions that are to come.
        let cause = cause.as_array().and_then(|causes| causes.first()).unwrap_or(cause);
        Err(match text(cause, "/error/_tag").as_deref() {
            Some("ServerAheadError") => Refused::Ahead,
            Some("BackendIdMismatchError") => Refused::Another,
            _ => Refused::Other(cause.to_string()),
        })
    }
}

impl Link {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            calling: None,
            calls: 0,
            behind: true,
            pulls: Failures::default(),
            pushes: Failures::default(),
            others: 0,
            not_before: Timestamp::default(),
            pulled_at: Timestamp::default(),
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Another life begins: nothing of the last one is known, and its calls are not heard.
    pub(super) fn restart(&mut self) {
        let (identity, calls) = (self.identity.clone(), self.calls);
        *self = Self { calls, ..Self::new(identity) };
    }

    /// Something went wrong in the midst of an input: the backend is asked for everything again.
    pub(super) fn forget(&mut self) {
        (self.calling, self.behind) = (None, true);
    }

    /// Whether there is something to be said to the backend now; `open` says that there are events
    /// to push, or rows to make.
    pub(super) fn wants(&self, open: bool, now: Timestamp) -> bool {
        (open || self.behind) && self.calling.is_none() && self.not_before <= now
    }

    /// Whether there is something under way, or to be done.
    pub(super) fn is_busy(&self, open: bool) -> bool {
        open || self.behind || self.calling.is_some()
    }

    /// When the room has to do something by itself at the latest; `open` says that it has events
    /// to push, or rows to make.
    pub(super) fn due(
        &self,
        open: bool,
        poll_ms: Option<u32>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if self.calling.is_some() {
            return Some(now.plus_millis(UNDER_WAY));
        }
        if open || self.behind {
            // What may be done now is asked for at once, and by the alarm if the process ends before.
            let waits = self.not_before > now;
            return Some(if waits { self.not_before } else { now.plus_millis(UNDER_WAY) });
        }
        poll_ms.map(|ms| self.pulled_at.plus_millis(ms.into()).max(now))
    }

    /// Handles what has happened; what is to be done then.
    pub(super) fn handle<S: EventServer>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        store: &str,
        polls: Option<u32>,
        now: Timestamp,
        input: &EventInput,
    ) -> Result<Vec<EventOutput>> {
        let mut logs = Vec::new();
        match input {
            EventInput::Go => {
                let due = polls.is_some_and(|ms| self.pulled_at.plus_millis(ms.into()) <= now);
                self.behind |= due;
            }
            EventInput::Message(call, text) => self.message(server, sql, *call, text, &mut logs)?,
            EventInput::Update(text) => self.update(server, sql, text, &mut logs)?,
            EventInput::Ended(call, result) => {
                self.ended::<S>(sql, now, *call, result.clone(), &mut logs)?;
            }
        }
        let again = commit::rebuild(server, sql, &mut logs)?;
        let mut outputs: Vec<_> =
            logs.into_iter().map(|(level, what)| EventOutput::Log(level, what)).collect();
        if again {
            outputs.push(EventOutput::Again);
        }
        // Also while rows are being made anew: what waits to be pushed is in the log.
        if let Some((number, call)) = self.next_call(server, sql, store, now)? {
            outputs.push(EventOutput::Call(number, call));
        }
        Ok(outputs)
    }

    fn pages<S: EventServer>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        pages: Vec<Page>,
        logs: &mut Logs,
    ) -> Result<()> {
        for Page { batch, backend_id } in pages {
            let events: Vec<_> = batch.into_iter().map(|item| item.event_encoded).collect();
            let (page, client) = ((&*backend_id, &*events), &*self.identity.client);
            if commit::receive(server, sql, page, client, logs)? == Received::Gap {
                match self.calling.as_mut().filter(|calling| calling.pushed.is_none()) {
                    Some(pull) => pull.gap = true,
                    None => self.behind = true,
                }
            }
        }
        Ok(())
    }

    fn update<S: EventServer>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        text: &str,
        logs: &mut Logs,
    ) -> Result<()> {
        let state = log::state(sql)?;
        // Of a log that is over, or that this room has not seen yet: a pull says which.
        let known = |page: &Page| state.backend_id.as_deref() == Some(page.backend_id.as_str());
        // As it would come with a pull.
        match serde_json::from_str::<Message>(&whole(text)) {
            Ok(message) if message.kind == "Chunk" && message.values.iter().all(known) => {
                let behind = std::mem::take(&mut self.behind);
                self.pages(server, sql, message.values, logs)?;
                // Whoever is told of the next event lacks none.
                let next = log::state(sql)?.head > state.head && self.calling.is_none();
                self.behind |= behind && !next;
                Ok(())
            }
            _ => {
                self.behind = true;
                Ok(())
            }
        }
    }

    fn message<S: EventServer>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        call: u64,
        text: &str,
        logs: &mut Logs,
    ) -> Result<()> {
        let Some(calling) = self.calling.as_mut().filter(|calling| calling.number == call) else {
            return Ok(());
        };
        match serde_json::from_str::<Message>(text) {
            Ok(message) if message.kind == "Chunk" => {
                if calling.pushed.is_none() {
                    self.pages(server, sql, message.values, logs)?;
                }
            }
            // What could not be read is not made good by the end.
            Ok(message) => drop(calling.end.get_or_insert(message.end())),
            Err(error) => {
                let what = format!("the backend says what cannot be read: {error}");
                calling.end = Some(Err(Refused::Other(what)));
            }
        }
        Ok(())
    }

    fn ended<S: EventServer>(
        &mut self,
        sql: &dyn Sql,
        now: Timestamp,
        call: u64,
        result: Result<()>,
        logs: &mut Logs,
    ) -> Result<()> {
        let Some(Calling { pushed, end, head: began, gap, .. }) =
            self.calling.take_if(|calling| calling.number == call)
        else {
            return Ok(());
        };
        let end = match (result, end) {
            (Err(error), _) => Err(Refused::Other(error.to_string())),
            (Ok(()), None) => Err(Refused::Other("the answer has no end".to_owned())),
            (Ok(()), Some(end)) => end,
        };
        let mut state = log::state(sql)?;
        match (end, pushed) {
            (Ok(()), None) if gap && state.head == began => {
                self.failed_pull(now, state.head, "the backend's log lacks events", logs);
            }
            (Ok(()), None) => {
                self.pulls = Failures::default();
                self.others = 0;
                self.behind |= gap;
                self.pulled_at = now;
            }
            (Ok(()), Some(Pushed { last, backend_id })) => {
                self.pushes = Failures::default();
                // Otherwise a pull says where they are.
                if state.head == began && state.backend_id == backend_id {
                    commit::confirm::<S>(sql, &mut state, last)?;
                } else {
                    self.behind |= state.head < last;
                }
            }
            (Err(Refused::Another), _) => {
                let what = "the backend has begun another log: rows are made anew out of it, and \
                            what was not pushed comes behind it";
                logs.push((Level::Warn, what.to_owned()));
                commit::start_over::<S>(sql, &mut state, &self.identity.client)?;
                self.behind = true;
                if self.others > 0 {
                    self.wait(now, self.others, "the backend is another one each time", logs);
                }
                self.others = self.others.saturating_add(1);
            }
            (Err(Refused::Ahead), Some(_)) => {
                // What it has may have been told of meanwhile.
                self.behind |= state.head == began;
                // The first time a pull is all that is needed.
                let before = self.pushes.count_at(began) - 1;
                if before > 0 {
                    self.wait(now, before, "a push is behind, and a pull brings nothing", logs);
                }
            }
            (Err(Refused::Ahead), None) => {
                self.failed_pull(now, state.head, "it is answered as a push", logs);
            }
            (Err(Refused::Other(why)), None) => self.failed_pull(now, state.head, &why, logs),
            (Err(Refused::Other(why)), Some(_)) => {
                // What it says may be that others came before, in words that are not known here.
                self.behind = true;
                let count = self.pushes.count_at(state.head) + self.pulls.count;
                self.wait(now, count, &format!("a push failed: {why}"), logs);
            }
        }
        Ok(())
    }

    fn failed_pull(&mut self, now: Timestamp, head: u64, why: &str, logs: &mut Logs) {
        self.behind = true;
        let count = self.pulls.count_at(head) + self.pushes.count;
        self.wait(now, count, &format!("a pull failed: {why}"), logs);
    }

    /// The next call comes later: after this many failures in a row.
    fn wait(&mut self, now: Timestamp, count: u32, why: &str, logs: &mut Logs) {
        let delay = (RETRY << count.saturating_sub(1).min(16)).min(RETRY_MOST);
        self.not_before = now.plus_millis(delay);
        if count.is_power_of_two() {
            logs.push((Level::Warn, format!("{why}; the next call comes in {delay} ms")));
        }
    }

    /// The call that is due, if one is.
    fn next_call<S: EventServer>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        store: &str,
        now: Timestamp,
    ) -> Result<Option<(u64, String)>> {
        if self.calling.is_some() || now < self.not_before {
            return Ok(None);
        }
        let state = log::state(sql)?;
        let head = state.head;
        let store = server.store_id(store);
        let mut payload = Object::new();
        let (tag, pushed) = if self.behind {
            // What is told from here on counts again.
            self.behind = false;
            let cursor = maybe(state.backend_id.as_deref().map(|backend_id| {
                let mut value = Object::new();
                value.text("backendId", backend_id);
                value.number("eventSequenceNumber", state.head);
                value.end()
            }));
            let Identity { binding, object, .. } = &self.identity;
            let (mut caller, mut context) = (Object::new(), Object::new());
            caller.text("bindingName", binding).text("durableObjectId", object);
            context.json("callerContext", &caller.end());
            payload.json("cursor", &cursor).json("rpcContext", &context.end());
            ("Pull", None)
        } else {
            let (mut batch, mut last) = (String::new(), state.head);
            let (mut count, mut was) = (0, false);
            log::each_after(sql, state.head, &mut |event| {
                let json = encoded(&event, last);
                let full = batch.len() + json.len() > PUSH_BYTES || count == PUSH_EVENTS;
                if !batch.is_empty() && full {
                    return Ok(ControlFlow::Break(()));
                }
                if !batch.is_empty() {
                    batch.push(',');
                }
                batch.push_str(&json);
                (last, count, was) = (event.seq_num, count + 1, was || event.was.is_some());
                Ok(ControlFlow::Continue(()))
            })?;
            if batch.is_empty() {
                return Ok(None);
            }
            if was {
                log::set_pushed(sql, last)?;
            }
            let backend_id = maybe(state.backend_id.as_deref().map(json_text));
            payload.list("batch", &batch).json("backendId", &backend_id);
            ("Push", Some(Pushed { last, backend_id: state.backend_id }))
        };
        payload.text("storeId", &store);
        self.calls += 1;
        // Pulls have one id: a backend calls an object once for each that it knows.
        let id = if pushed.is_some() { self.calls } else { 0 };
        let mut request = Object::new();
        request.text("_tag", "Request").text("id", &id.to_string());
        request.text("tag", &format!("SyncDoRpc.{tag}")).json("payload", &payload.end());
        request.list("headers", "");
        let number = self.calls;
        self.calling = Some(Calling { number, head, gap: false, pushed, end: None });
        Ok(Some((number, request.end())))
    }
}

impl Failures {
    /// Counts a failure at this head; how many there were in a row with it.
    fn count_at(&mut self, head: u64) -> u32 {
        if self.head != head {
            *self = Self { count: 0, head };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

/// Effect's `Option`, of a value that is JSON.
fn maybe(value: Option<String>) -> String {
    let mut option = Object::new();
    match value {
        None => drop(option.text("_tag", "None")),
        Some(value) => drop(option.text("_tag", "Some").json("value", &value)),
    }
    option.end()
}

fn json_text(text: &str) -> String {
    let mut out = String::new();
    string(&mut out, text);
    out
}

/// An event as it is pushed.
fn encoded(event: &Logged, parent: u64) -> String {
    let Logged { seq_num, name, client_id, session_id, .. } = event;
    let mut object = Object::new();
    object.text("name", name);
    if let Some(args) = event.args() {
        object.json("args", args);
    }
    object.number("seqNum", *seq_num).number("parentSeqNum", parent);
    object.text("clientId", client_id).text("sessionId", session_id);
    object.end()
}
