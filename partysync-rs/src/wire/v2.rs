//! Frames of `partysync.v2`: JSON text, one object a frame, told apart by `type`.
//!
//! `docs/protocol.md` says what each means and when it is sent.

use super::clip;
use crate::record::{first_version, is_first_version};
use crate::{Code, Error, Identity, Result, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Frames that a client sends.
#[derive(Debug)]
pub enum ClientFrame {
    /// Who the client is and what it holds.
    Hello(Hello),
    /// Actions, in the order in which they were made.
    Push(Push),
    /// This many bytes of frames were read since the last one of these.
    Read(u64),
    /// The client is here, or is here no more.
    Presence {
        /// The part of the room that it is at: those who are at the same one are told of each other.
        topic: String,
        /// What they are told of it; `None` when it is here no more.
        state: Option<Json>,
    },
    /// A message of the application's own.
    Message(Json),
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The client's id; a new one for each life of a replica.
    pub client: String,
    /// The epoch that the rows are of; `None` when the replica is empty.
    pub epoch: Option<String>,
    /// The channels to follow.
    pub channels: Vec<Subscription>,
}

/// One channel of a [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// The record's table.
    pub channel: String,
    /// The version that the rows are of; `None` when there are none.
    pub since: Option<u64>,
    /// [`CatchUp::view`] of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// [`Schema::hash`](crate::Schema::hash) of the client's record.
    pub schema: String,
    /// The version of the client's record, where it is not 1.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub record: u32,
    /// [`Schema::signature`](crate::Schema::signature) of the client's record: a room with more
    /// columns sends rows with these. Without them the room's have to be the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// Actions of one client: the one that said `hello`, or one that is gone and left them behind.
#[derive(Clone, Debug, Serialize)]
pub struct Push {
    /// Whose actions they are; `None` for the client of `hello`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Every action of that client up to this one has its answer.
    pub answered: u64,
    /// When, by the room's clock, the first of these actions was pushed for the first time; `None`
    /// for actions that never were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_at: Option<Timestamp>,
    /// The actions.
    pub actions: Vec<PushAction>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One action of a push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushAction {
    /// The client's count of its actions, from 1.
    pub seq: u64,
    /// The record's table.
    pub channel: String,
    /// `{"type", "payload"}`; `null` for one that its client gives up if it was not done yet.
    pub action: Box<RawValue>,
}

#[derive(Deserialize)]
struct ClientEnvelope<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    answered: u64,
    #[serde(default)]
    pushed_at: Option<Timestamp>,
    #[serde(default)]
    channels: Option<Vec<Subscription>>,
    #[serde(default)]
    actions: Option<Vec<PushAction>>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    here: Option<bool>,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    state: Json,
    #[serde(default)]
    data: Option<Json>,
}

/// SQLite has no larger integer.
const MOST: u64 = i64::MAX.unsigned_abs();

/// A number that a room, and a client's store, can keep.
fn number(name: &str, n: u64) -> Result<u64> {
    if n > MOST {
        return Err(invalid(format!("`{name}` is {n}, and the largest number is {MOST}")));
    }
    Ok(n)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidFrame, message)
}

/// A client's id.
fn client(frame: &str, id: String) -> Result<String> {
    if id.is_empty() || id.len() > 64 || !id.chars().all(|c| c.is_ascii_graphic()) {
        let message = format!("`client` of `{frame}` is not 1 to 64 printable ASCII characters");
        return Err(invalid(message));
    }
    Ok(id)
}

/// Channels and columns are named once each, versions are numbers that a room can have.
fn distinct(channels: Vec<Subscription>) -> Result<Vec<Subscription>> {
    let mut names = BTreeSet::new();
    for Subscription { channel, since, columns, .. } in &channels {
        if !names.insert(channel) {
            return Err(invalid(format!("`hello` names the channel `{}` twice", clip(channel))));
        }
        let mut known = BTreeSet::new();
        if let Some(column) = columns.iter().find(|column| !known.insert(*column)) {
            return Err(invalid(format!("`hello` names the column `{}` twice", clip(column))));
        }
        number("since", since.unwrap_or_default())?;
    }
    Ok(channels)
}

impl ClientFrame {
    /// Reads a client's frame.
    ///
    /// # Errors
    /// [`Code::InvalidFrame`], with where it went wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let envelope: ClientEnvelope<'_> =
            serde_json::from_str(text).map_err(|e| invalid(format!("not a frame: {e}")))?;
        let missing = |frame, field| invalid(format!("`{frame}` needs the field `{field}`"));
        Ok(match &*envelope.r#type {
            "hello" => Self::Hello(Hello {
                client: client(
                    "hello",
                    envelope.client.ok_or_else(|| missing("hello", "client"))?,
                )?,
                epoch: envelope.epoch,
                channels: distinct(envelope.channels.ok_or_else(|| missing("hello", "channels"))?)?,
            }),
            "push" => {
                let actions = envelope.actions.ok_or_else(|| missing("push", "actions"))?;
                for push in &actions {
                    number("seq", push.seq)?;
                    if push.seq == 0 {
                        return Err(invalid("`seq` counts from 1"));
                    }
                }
                Self::Push(Push {
                    client: envelope.client.map(|id| client("push", id)).transpose()?,
                    answered: number("answered", envelope.answered)?,
                    pushed_at: envelope.pushed_at,
                    actions,
                })
            }
            "read" => Self::Read(envelope.bytes.ok_or_else(|| missing("read", "bytes"))?),
            "presence" => {
                let here = envelope.here.ok_or_else(|| missing("presence", "here"))?;
                Self::Presence { topic: envelope.topic, state: here.then_some(envelope.state) }
            }
            "message" => Self::Message(envelope.data.ok_or_else(|| missing("message", "data"))?),
            other => return Err(invalid(format!("unknown frame `{}`", clip(other)))),
        })
    }

    /// The frame as text.
    ///
    /// ```
    /// use partysync::wire::v2::ClientFrame;
    /// let frame = ClientFrame::Message(serde_json::json!("hi"));
    /// assert_eq!(frame.to_text(), r#"{"type":"message","data":"hi"}"#);
    /// ```
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Hello(hello) => tagged("hello", hello),
            Self::Push(push) => tagged("push", push),
            Self::Read(bytes) => tagged("read", ReadBody { bytes: *bytes }),
            Self::Presence { topic, state } => {
                let here = state.is_some();
                tagged("presence", PresenceBody { here, topic, state: state.as_ref() })
            }
            Self::Message(data) => tagged("message", DataBody { data }),
        }
    }
}

#[derive(Serialize)]
struct PresenceBody<'a> {
    here: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a Json>,
}

#[derive(Serialize)]
struct ReadBody {
    bytes: u64,
}

#[derive(Serialize)]
struct DataBody<'a> {
    data: &'a Json,
}

/// A frame's text: the body's fields after `type`.
fn tagged(name: &str, body: impl Serialize) -> String {
    #[derive(Serialize)]
    struct Tagged<'a, T> {
        r#type: &'a str,
        #[serde(flatten)]
        body: T,
    }
    // Only maps with keys that are no strings fail, and frames have none.
    serde_json::to_string(&Tagged { r#type: name, body }).unwrap_or_default()
}

/// Frames that a server sends.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerFrame {
    /// The answer to `hello`.
    Welcome(Welcome),
    /// The rows are of no use: drop them, a whole snapshot follows.
    Reset(Reset),
    /// A page of what one channel's client lacks.
    CatchUp(CatchUp),
    /// What changed between two versions, with answers to the client's own actions.
    Patch(Patch),
    /// Who is here, or who of them has come, changed or gone.
    Presence(Present),
    /// A message of the application's own.
    Message(Json),
    /// Something that the client sent could not be used.
    Error(WireError),
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The epoch of the room's storage.
    pub epoch: String,
    /// The room's version.
    pub version: u64,
    /// The connection's id.
    pub connection: String,
    /// The room's time, by which a client notes when it pushed something ([`Push::pushed_at`]).
    pub now: Timestamp,
    /// After how many bytes the client has to say what it has read (`read`);
    /// [`READ_BYTES`](super::READ_BYTES) without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Who the client is, where the worker has found that out ([`Identity`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Why the rows are of no use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reset {
    /// `epoch`, `trimmed` or `future`.
    pub reason: String,
}

/// A page of catch-up for one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatchUp {
    /// The channel.
    pub channel: String,
    /// The version that it goes on from; `None` for a whole snapshot.
    pub from: Option<u64>,
    /// In a snapshot, what the client sees of the channel, if not all rows: another text when it may
    /// see something else. To be said in `hello` with the version of these rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The version that it leads to.
    pub to: u64,
    /// Rows to put in, each an array of its columns.
    pub rows: Vec<Json>,
    /// Keys to take out.
    pub gone: Vec<Json>,
    /// Rows and keys sent up to this page, of this channel.
    pub sent: u64,
    /// Rows and keys there are to send.
    pub total: u64,
    /// Whether another page follows.
    pub more: bool,
}

/// What changed between two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// The version that it goes on from.
    pub from: u64,
    /// The version that it leads to.
    pub to: u64,
    /// The channels that changed.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Answers to the client's actions.
    #[serde(default)]
    pub acks: Vec<Ack>,
    /// How many frames with the same versions came before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub page: u64,
    /// Whether the next frame goes on with the same versions.
    #[serde(default)]
    pub more: bool,
}

/// What changed in one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The channel.
    pub channel: String,
    /// Rows to put in.
    pub rows: Vec<Json>,
    /// Keys to take out.
    pub gone: Vec<Json>,
}

/// The answer to one action: without `code` it was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Whose action it is; `None` for the client of `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The action's seq.
    pub seq: u64,
    /// The error's code, when it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The error's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the action was answered with, if with anything ([`Room::answer`](crate::Room::answer)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
}

impl Ack {
    /// The answer that an action was committed or rejected, with no result.
    #[must_use]
    pub fn new(seq: u64, outcome: &Result<()>) -> Self {
        let error = outcome.as_ref().err();
        Self {
            client: None,
            seq,
            code: error.map(|e| e.code().as_str().to_owned()),
            message: error.map(|e| e.message().to_owned()),
            result: None,
        }
    }

    /// What became of the action.
    ///
    /// # Errors
    /// Why it was rejected.
    pub fn outcome(&self) -> Result<()> {
        match &self.code {
            None => Ok(()),
            Some(code) => {
                Err(Error::new(Code::from_name(code), self.message.clone().unwrap_or_default()))
            }
        }
    }
}

/// What an action was answered with, as the type that is asked for. No result is read as `null`: an
/// `Option` is `None` then.
///
/// ```
/// use partysync::{Code, wire::v2::read_result};
/// use serde_json::json;
///
/// assert_eq!(read_result::<i64>(Some(json!(7))), Ok(7));
/// assert_eq!(read_result::<Option<i64>>(None), Ok(None));
/// assert_eq!(read_result::<i64>(None).unwrap_err().code(), Code::ResultMismatch);
/// ```
///
/// # Errors
/// [`Code::ResultMismatch`] when it is not of this type: the action was done.
pub fn read_result<T: DeserializeOwned>(result: Option<Json>) -> Result<T> {
    let given = result.is_some();
    serde_json::from_value(result.unwrap_or_default()).map_err(|error| {
        let wanted = std::any::type_name::<T>();
        let message = match given {
            true => format!("the action was done, but its result is no `{wanted}`: {error}"),
            false => format!("the action was done, but it gave no result, and no `{wanted}`"),
        };
        Error::new(Code::ResultMismatch, message)
    })
}

/// Who is here, for one who has said that it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Whether these are all, instead of what has changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Which one the client itself is: in a frame of its own, before the one with all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
    /// Those who are here, or who have come or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub here: Vec<Here>,
    /// The names of those who have gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// How many connections the room has, whatever they say: of 64 and more it may be out by one in
    /// 64.
    pub connections: u64,
}

/// One who is here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Here {
    /// A name for the client, which stays the same on its next connection unless the room has ended or
    /// slept meanwhile.
    pub id: String,
    /// Who it is, in the server's words.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub who: Json,
    /// Its state, in its own.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub state: Json,
}

impl Present {
    /// The frame as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        tagged("presence", self)
    }
}

/// Something that the client sent could not be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireError {
    /// [`Code::as_str`].
    pub code: String,
    /// For people.
    pub message: String,
}

impl ServerFrame {
    /// Reads a server's frame; `None` for one of a type that this version does not know, which
    /// a client passes over.
    ///
    /// # Errors
    /// [`Code::InvalidFrame`], with where it went wrong.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Data {
            data: Json,
        }
        fn body<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
            serde_json::from_str(text).map_err(|e| invalid(format!("not a frame: {e}")))
        }
        let tag: Tag<'_> = body(text)?;
        Ok(Some(match &*tag.r#type {
            "welcome" => Self::Welcome(body(text)?),
            "reset" => Self::Reset(body(text)?),
            "catch_up" => {
                let page: CatchUp = body(text)?;
                number("to", page.to)?;
                Self::CatchUp(page)
            }
            "patch" => {
                let patch: Patch = body(text)?;
                number("to", patch.to)?;
                Self::Patch(patch)
            }
            "presence" => Self::Presence(body(text)?),
            "message" => Self::Message(body::<Data>(text)?.data),
            "error" => Self::Error(body(text)?),
            _ => return Ok(None),
        }))
    }

    /// The frame as text. Rooms build their patches straight from SQLite's JSON instead.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Welcome(body) => tagged("welcome", body),
            Self::Reset(body) => tagged("reset", body),
            Self::CatchUp(body) => tagged("catch_up", body),
            Self::Patch(body) => tagged("patch", body),
            Self::Presence(body) => body.to_text(),
            Self::Message(data) => tagged("message", DataBody { data }),
            Self::Error(body) => tagged("error", body),
        }
    }

    /// The frame that tells of an error.
    #[must_use]
    pub fn error(error: &Error) -> Self {
        Self::Error(WireError {
            code: error.code().as_str().to_owned(),
            message: error.message().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_as_they_were_written() {
        let frames = [
            ServerFrame::Welcome(Welcome {
                epoch: "e".into(),
                version: 3,
                connection: "c".into(),
                now: Timestamp::from_millis(5),
                read: Some(7),
                identity: None,
            }),
            ServerFrame::Reset(Reset { reason: "epoch".into() }),
            ServerFrame::Patch(Patch {
                from: 1,
                to: 2,
                changes: vec![Change {
                    channel: "todos".into(),
                    rows: vec![serde_json::json!(["a", 1])],
                    gone: vec!["b".into()],
                }],
                acks: vec![Ack::new(1, &Ok(())), Ack::new(2, &Err(Error::reject("no")))],
                page: 3,
                more: false,
            }),
            ServerFrame::Message(serde_json::json!({"x": 1})),
            ServerFrame::error(&Error::reject("no")),
        ];
        for frame in frames {
            assert_eq!(ServerFrame::parse(&frame.to_text()).unwrap(), Some(frame));
        }
    }

    #[test]
    fn a_frame_of_a_later_version_is_passed_over() {
        assert_eq!(ServerFrame::parse(r#"{"type":"telepathy"}"#).unwrap(), None);
    }

    #[test]
    fn frames_that_are_none_say_so() {
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "{",
            "[]",
            "1",
            r#"{"type":"nope"}"#,
            r#"{"type":"push"}"#,
            r#"{"type":"hello","client":"","channels":[]}"#,
            deep.as_str(),
            &format!(r#"{{"type":"message","data":{}{}}}"#, deep, "]".repeat(10_000)),
        ] {
            assert_eq!(ClientFrame::parse(text).unwrap_err().code(), Code::InvalidFrame);
        }
    }
}
