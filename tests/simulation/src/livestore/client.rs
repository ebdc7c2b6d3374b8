//! A client, as LiveStore's behave: what it has, what it has committed, what it has asked for.

use super::room::Node;
use super::world::Wrong;
use partysync::Error;
use partysync::room::Slot;
use serde_json::{Value as Json, json};
use std::collections::{BTreeSet, VecDeque};

pub(crate) const STORE: &str = "store-1";

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// Whether it is an object, which calls and is called.
    pub(crate) object: bool,
    /// The room that it is, which does the rest of this by itself.
    pub(crate) room: Option<Node>,
    /// What it has of the log, by the events' own ids.
    pub(crate) has: Vec<u64>,
    /// What it has committed, and has not come back to it.
    pub(crate) pending: VecDeque<u64>,
    /// So many of them were acknowledged.
    pub(crate) acknowledged: usize,
    pub(crate) backend: Option<String>,
    /// Its connection, or the call that waits for its answer.
    pub(crate) slot: Option<(Slot, u64)>,
    pub(crate) up: VecDeque<String>,
    pub(crate) down: VecDeque<String>,
    /// Its live pull.
    pub(crate) pull: Option<String>,
    /// Of an object: the pull whose end it has handled, so that it takes calls.
    pub(crate) takes_calls: bool,
    pub(crate) push: Option<(String, Vec<u64>)>,
    /// Pushes whose events have come without an answer: they are in the log of an earlier push.
    early: BTreeSet<String>,
    /// Of an object: nobody knows that its last call has arrived, so that it may come again.
    pub(crate) may_repeat: bool,
    /// It waits for events before it pushes again.
    pub(crate) behind: bool,
    requests: u64,
}

/// What a frame has led to.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) answers: Vec<String>,
    pub(crate) acknowledged: Vec<u64>,
    /// The backend is another one: the client has started over.
    pub(crate) started_over: bool,
}

impl Client {
    pub(crate) fn new(name: String, object: bool) -> Self {
        Self { name, object, ..Self::default() }
    }

    fn request(&mut self, tag: &str, mut payload: Json) -> (String, String) {
        self.requests += 1;
        let id = self.requests.to_string();
        payload["storeId"] = json!(STORE);
        let text = json!({"_tag": "Request", "id": id, "tag": format!("SyncWsRpc.{tag}"),
            "payload": payload, "headers": []});
        (id, text.to_string())
    }

    /// A live pull from where it is.
    pub(crate) fn pulls(&mut self) -> String {
        let cursor = match &self.backend {
            Some(backend) => json!({"_tag": "Some",
                "value": {"backendId": backend, "eventSequenceNumber": self.has.len()}}),
            None => json!({"_tag": "None"}),
        };
        let mut payload = json!({"live": true, "cursor": cursor});
        if self.object {
            payload["rpcContext"] = json!({"callerContext":
                {"bindingName": "OBJECT", "durableObjectId": self.name}});
        }
        let (id, text) = self.request("Pull", payload);
        self.pull = Some(id);
        text
    }

    /// A push of some of what was not acknowledged, if there is any.
    pub(crate) fn pushes(&mut self) -> Option<String> {
        if self.push.is_some() || self.behind {
            return None;
        }
        let ids: Vec<_> = self.pending.iter().skip(self.acknowledged).take(5).copied().collect();
        if ids.is_empty() {
            return None;
        }
        let from = self.has.len() + self.acknowledged;
        let batch = ids.iter().enumerate().map(|(n, id)| {
            json!({"name": "made", "args": {"id": id}, "seqNum": from + n + 1, "parentSeqNum": from + n,
                "clientId": self.name, "sessionId": "s"})
        });
        let batch: Vec<_> = batch.collect();
        let backend = match &self.backend {
            Some(backend) => json!({"_tag": "Some", "value": backend}),
            None => json!({"_tag": "None"}),
        };
        let (id, text) = self.request("Push", json!({"batch": batch, "backendId": backend}));
        self.push = Some((id, ids));
        Some(text)
    }

    /// The call has failed, as its other side is gone.
    pub(crate) fn call_failed(&mut self) {
        if let Some(room) = &mut self.room {
            (self.slot, _) = (None, self.down.clear());
            let _ = room.ended(Err(Error::retry("the other side is gone")));
            return;
        }
        (self.slot, self.push) = (None, None);
        if !self.takes_calls {
            self.pull = None;
        }
        self.down.clear();
    }

    /// Whether it has nothing left to do.
    pub(crate) fn is_content(&self) -> bool {
        if let Some(room) = &self.room {
            let idle = room.calls.is_empty() && room.calling.is_none();
            return idle && room.has().is_ok_and(|(_, own)| own == 0);
        }
        self.pending.is_empty() && self.up.is_empty() && self.down.is_empty()
    }

    pub(crate) fn state(&self) -> String {
        let Self { name, has, pending, acknowledged, slot, pull, push, behind, .. } = self;
        if let Some(room) = &self.room {
            let Node { calls, calling, logs, .. } = room;
            return format!(
                "{name} has {:?}, calls {calls:?}, {calling:?}, {logs:?}",
                room.has().ok()
            );
        }
        let has = has.len();
        format!(
            "{name} has {has}, {pending:?} pending, {acknowledged} acknowledged, at {slot:?}, pull {pull:?}, push {push:?}, behind: {behind}"
        )
    }

    /// Its connection is gone, or it was rebuilt.
    pub(crate) fn gone(&mut self) {
        if let Some(room) = &mut self.room {
            room.restart();
        }
        (self.slot, self.pull, self.push) = (None, None, None);
        self.up.clear();
        self.down.clear();
        (self.behind, self.takes_calls, self.may_repeat) = (false, false, false);
    }

    fn start_over(&mut self) {
        self.gone();
        self.has.clear();
        self.pending.clear();
        self.acknowledged = 0;
        self.backend = None;
    }

    /// Reads a frame.
    pub(crate) fn read(&mut self, text: &str) -> Result<Read, Wrong> {
        let frame: Json = serde_json::from_str(text).map_err(|e| format!("{e}: {text}"))?;
        let id = frame["requestId"].as_str().unwrap_or_default();
        let mut read = Read::default();
        let pull = self.pull.as_deref() == Some(id);
        let push = self.push.as_ref().is_some_and(|(push, _)| push == id);
        let exit = &frame["exit"];
        match (frame["_tag"].as_str(), exit["_tag"].as_str()) {
            (Some("Chunk"), _) if pull => {
                read.answers.extend(self.chunk(&frame["values"][0])?);
                read.answers.push(json!({"_tag": "Ack", "requestId": id}).to_string());
            }
            // Of a pull that it has given up.
            (Some("Chunk"), _) => {}
            (Some("Exit"), Some("Success")) if push => {
                let (_, ids) = self.push.take().unwrap_or_default();
                self.acknowledged += ids.len();
                read.acknowledged = ids;
            }
            (Some("Exit"), Some("Success")) if pull && self.object => self.takes_calls = true,
            (Some("Exit"), Some("Failure")) if push || pull => {
                let error = &exit["cause"]["error"];
                match error["_tag"].as_str() {
                    Some("BackendIdMismatchError") => {
                        self.start_over();
                        read.started_over = true;
                    }
                    Some("ServerAheadError") if push => {
                        (self.push, self.behind) = (None, true);
                        let least = error["minimumExpectedNum"].as_u64().unwrap_or_default();
                        if least < self.has.len() as u64 {
                            return Err(format!("{} has more than the head {least}", self.name));
                        }
                    }
                    Some("UnknownError") if push => self.push = None,
                    // It pulls no more until it is rebuilt: a call has no socket that could be
                    // closed instead.
                    Some("UnknownError") if self.object => self.gone(),
                    _ => return Err(format!("{}: a request has ended: {text}", self.name)),
                }
            }
            (Some("Exit"), _) if pull => {
                return Err(format!("{}: its live pull has ended: {text}", self.name));
            }
            (Some("Exit"), Some("Success")) if self.early.contains(id) => {
                return Err(format!(
                    "{}: its own events came before their push's answer",
                    self.name
                ));
            }
            // Its session ends, and it is rebuilt: a call has no socket that could be closed.
            (Some("Defect"), _) if self.object => self.gone(),
            // Of a push that it has given up.
            (Some("Exit"), _) => {}
            _ => return Err(format!("{}: an unknown frame: {text}", self.name)),
        }
        Ok(read)
    }

    /// Takes the events of a chunk: each behind the one before.
    pub(crate) fn chunk(&mut self, value: &Json) -> Result<Option<String>, Wrong> {
        let backend = value["backendId"].as_str().unwrap_or_default();
        let known = self.backend.get_or_insert_with(|| backend.to_owned());
        if known != backend && value["batch"].as_array().is_some_and(Vec::is_empty) && self.object {
            // The last call of a log that is over, of which LiveStore's client makes nothing.
            return Ok(None);
        }
        if known != backend {
            return Err(format!("{}: events of another backend", self.name));
        }
        let mut given_up = None;
        let mut own = BTreeSet::new();
        for item in value["batch"].as_array().into_iter().flatten() {
            let event = &item["eventEncoded"];
            let seq = event["seqNum"].as_u64().unwrap_or_default();
            if seq <= self.has.len() as u64 && self.may_repeat {
                // LiveStore's client pulls no more then, until it is rebuilt.
                self.gone();
                return Ok(None);
            }
            if seq != self.has.len() as u64 + 1 {
                let has = self.has.len();
                return Err(format!("{}: event {seq} came behind {has}", self.name));
            }
            let id = event["args"]["id"].as_u64().unwrap_or_default();
            self.has.push(id);
            self.behind = false;
            if self.pending.front() == Some(&id) {
                self.pending.pop_front();
                self.acknowledged = self.acknowledged.saturating_sub(1);
                own.insert(id);
                continue;
            }
            if self.pending.contains(&id) || self.acknowledged > 0 {
                return Err(format!("{}: its own events are not where they were", self.name));
            }
            // Another one was faster: what it pushes is to go behind that.
            given_up = given_up.or(self.push.take().map(|(id, _)| id));
        }
        // They were pushed before, on another connection: the server is to say that it is ahead.
        if let Some((id, ids)) = &self.push
            && ids.iter().any(|id| own.contains(id))
        {
            // A call and an answer to an object have no order.
            if !self.object {
                self.early.insert(id.clone());
            }
            given_up = Some(id.clone());
            self.push = None;
        }
        let interrupt = |id| json!({"_tag": "Interrupt", "requestId": id}).to_string();
        Ok(given_up.filter(|_| !self.object).map(interrupt))
    }
}
