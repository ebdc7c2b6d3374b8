//! The envelope of Effect's RPC, as `@livestore/sync-cf` 0.4 speaks it: requests, what answers
//! them, acknowledgements, interrupts. Source: captures of the published packages; the version
//! that is to come (ids that are numbers, causes that are lists) is told by the type of the id.

use super::event::Event;
use crate::wire::write::{Object, string};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The client's keep-alive, which the runtime answers without waking the object.
pub const PING: &str = r#"{"_tag":"Ping"}"#;
/// Its answer.
pub const PONG: &str = r#"{"_tag":"Pong"}"#;

/// The longest id of a request that is taken.
const ID_BYTES: usize = 64;

/// The id of a request, in the type that it came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// Of clients of 0.4.
    Text(String),
    /// Of those that are to come.
    Number(u64),
}

impl Id {
    fn parse(json: &RawValue) -> Option<Self> {
        Self::from_json(json.get())
    }

    /// An id from its JSON.
    pub(super) fn from_json(json: &str) -> Option<Self> {
        match serde_json::from_str(json).ok()? {
            Json::String(text) if text.len() <= ID_BYTES => Some(Self::Text(text)),
            Json::Number(number) => number.as_u64().map(Self::Number),
            _ => None,
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> String {
        match self {
            Self::Text(text) => {
                let mut out = String::new();
                string(&mut out, text);
                out
            }
            Self::Number(number) => number.to_string(),
        }
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(&json).ok_or_else(|| serde::de::Error::custom("not an id"))
    }
}

/// What a client says.
#[derive(Debug)]
pub(super) enum Message<'a> {
    Ping,
    Request {
        id: Id,
        tag: Tag,
        payload: &'a RawValue,
    },
    Ack(Id),
    Interrupt(Id),
    /// Something that asks for nothing.
    Nothing,
}

/// What a request asks for, whatever it comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Pull,
    Push,
    Ping,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow, rename = "_tag")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tag: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads a message; what is wrong with it is told to the whole connection.
    pub(super) fn parse(text: &'a str) -> Result<Self, Failure> {
        let raw: Raw<'_> = match serde_json::from_str(text) {
            Ok(raw) => raw,
            Err(error) if error.is_data() => {
                return Err(Failure::Die(format!("not a message: {error}")));
            }
            Err(error) => return Err(Failure::unknown("SyntaxError", error.to_string())),
        };
        let id = |json: Option<&RawValue>| {
            json.and_then(Id::parse)
                .ok_or_else(|| Failure::Die("a message has no usable id".into()))
        };
        Ok(match &*raw.kind {
            "Ping" => Self::Ping,
            "Ack" => Self::Ack(id(raw.request_id)?),
            "Interrupt" => Self::Interrupt(id(raw.request_id)?),
            "Eof" => Self::Nothing,
            "Request" => {
                let name = raw.tag.unwrap_or_default();
                let unknown = || Failure::Die(format!("Unknown request tag: {name}"));
                // `SyncWsRpc.Pull`, `SyncHttpRpc.Pull`, `SyncDoRpc.Pull`.
                let (_, what) = name.split_once("Rpc.").ok_or_else(unknown)?;
                let tag = match what {
                    "Pull" => Tag::Pull,
                    "Push" => Tag::Push,
                    "Ping" => Tag::Ping,
                    _ => return Err(unknown()),
                };
                let payload =
                    raw.payload.ok_or_else(|| Failure::Die(format!("{name} has no payload")))?;
                Self::Request { id: id(raw.id)?, tag, payload }
            }
            other => return Err(Failure::Die(format!("Unknown request tag: {other}"))),
        })
    }
}

/// Effect's `Option`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "_tag", content = "value")]
enum Maybe<T> {
    None,
    Some(T),
}

impl<T> Maybe<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Some(value) => Some(value),
        }
    }
}

fn maybe<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    de: D,
) -> Result<Option<T>, D::Error> {
    Maybe::deserialize(de).map(Maybe::into_option)
}

/// What a pull asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PullRequest<'a> {
    #[serde(borrow)]
    pub(super) store_id: Cow<'a, str>,
    /// Later events are wanted as well.
    #[serde(default)]
    pub(super) live: bool,
    /// What the client has.
    #[serde(deserialize_with = "maybe")]
    pub(super) cursor: Option<Cursor>,
    /// Of an object that wants to be called with later events.
    #[serde(default)]
    pub(super) rpc_context: Option<RpcContext>,
}

/// Who is to be called.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcContext {
    pub(super) caller_context: CallerContext,
}

/// An object as a binding of the backend's worker leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallerContext {
    pub(super) binding_name: String,
    pub(super) durable_object_id: String,
}

/// Up to where a client has the log of which backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// The backend's id.
    pub backend_id: String,
    /// The last event.
    pub event_sequence_number: u64,
}

/// What a push brings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PushRequest<'a> {
    #[serde(borrow)]
    pub(super) store_id: Cow<'a, str>,
    pub(super) batch: Vec<Event>,
    #[serde(deserialize_with = "maybe")]
    pub(super) backend_id: Option<String>,
}

/// Reads a request's payload.
pub(super) fn payload<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, Failure> {
    serde_json::from_str(json.get()).map_err(|error| {
        Failure::Die(format!("the request's payload is not what it should be: {error}"))
    })
}

/// Why a request has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The push does not go on from the head of the log.
    ServerAhead { minimum: u64, provided: u64 },
    /// The client knows another backend than this one.
    BackendIdMismatch { expected: String, received: String },
    /// Anything else that the protocol has a name for: a push is tried again after it.
    Unknown { name: String, message: String },
    /// The client is broken: it does not try again.
    Die(String),
    /// The client has given the request up.
    Interrupted,
}

impl Failure {
    pub(super) fn unknown(name: &str, message: impl Into<String>) -> Self {
        Self::Unknown { name: name.to_owned(), message: message.into() }
    }

    fn error(&self) -> Option<String> {
        let mut error = Object::new();
        match self {
            Self::ServerAhead { minimum, provided } => {
                error.number("minimumExpectedNum", *minimum).number("providedNum", *provided);
                error.text("_tag", "ServerAheadError");
            }
            Self::BackendIdMismatch { expected, received } => {
                error.text("expected", expected).text("received", received);
                error.text("_tag", "BackendIdMismatchError");
            }
            Self::Unknown { name, message } => {
                let mut cause = Object::new();
                cause.text("name", name).text("message", message);
                error.json("cause", &cause.end()).text("_tag", "UnknownError");
            }
            Self::Die(_) | Self::Interrupted => return None,
        }
        Some(error.end())
    }

    /// The cause, as clients with this type of id read it.
    fn cause(&self, id: &Id) -> String {
        let mut cause = Object::new();
        match (self, self.error()) {
            (_, Some(error)) => cause.text("_tag", "Fail").json("error", &error),
            (Self::Die(why), None) => cause.text("_tag", "Die").text("defect", why),
            _ => {
                let fiber = match id {
                    Id::Text(_) => r#"{"_tag":"None"}"#,
                    Id::Number(_) => "0",
                };
                cause.text("_tag", "Interrupt").json("fiberId", fiber)
            }
        };
        match id {
            Id::Text(_) => cause.end(),
            Id::Number(_) => format!("[{}]", cause.end()),
        }
    }
}

fn message(kind: &str, id: &Id) -> Object {
    let mut message = Object::new();
    message.text("_tag", kind).json("requestId", &id.to_json());
    message
}

/// A part of a request's answer.
pub(super) fn chunk(id: &Id, value: &str) -> String {
    let mut chunk = message("Chunk", id);
    chunk.list("values", value);
    chunk.end()
}

/// The end of a request that went well. `None` is the value of a stream, which has none.
pub(super) fn success(id: &Id, value: Option<&str>) -> String {
    let mut exit = Object::new();
    exit.text("_tag", "Success");
    match (value, id) {
        (Some(value), _) => drop(exit.json("value", value)),
        (None, Id::Text(_)) => {}
        (None, Id::Number(_)) => drop(exit.json("value", "null")),
    }
    let mut message = message("Exit", id);
    message.json("exit", &exit.end());
    message.end()
}

/// The end of a request that failed.
pub(super) fn failed(id: &Id, failure: &Failure) -> String {
    let mut exit = Object::new();
    exit.text("_tag", "Failure").json("cause", &failure.cause(id));
    let mut message = message("Exit", id);
    message.json("exit", &exit.end());
    message.end()
}

/// The answer to a message that cannot be handled now.
pub fn refusal(text: &str, why: &str) -> String {
    let failure = Failure::unknown("Unavailable", why);
    match Message::parse(text) {
        Ok(Message::Request { id, .. }) => failed(&id, &failure),
        _ => defect(&failure),
    }
}

/// What is wrong with a message that names no request.
pub(super) fn defect(failure: &Failure) -> String {
    let mut defect = Object::new();
    defect.text("_tag", "Defect");
    match failure {
        Failure::Unknown { name, message } => {
            let mut error = Object::new();
            error.text("name", name).text("message", message);
            defect.json("defect", &error.end());
        }
        Failure::Die(why) => drop(defect.text("defect", why)),
        other => drop(defect.text("defect", &format!("{other:?}"))),
    }
    defect.end()
}

/// The value of a chunk of a pull: events that are JSON already, with commas between them. Over
/// Durable Object RPC it says which request it answers.
pub(super) fn page(batch: &str, remaining: u64, backend_id: &str, call: Option<&Id>) -> String {
    let mut info = Object::new();
    match remaining {
        0 => drop(info.text("_tag", "NoMore")),
        more => drop(info.text("_tag", "MoreKnown").number("remaining", more)),
    }
    let mut page = Object::with_capacity(batch.len());
    if let Some(id) = call {
        page.json("rpcRequestId", &id.to_json());
    }
    page.list("batch", batch).json("pageInfo", &info.end()).text("backendId", backend_id);
    page.end()
}
