//! Frames of TypeScript `partysync` 2.x and `partyfn`, as observed on the wire.
//!
//! There is no handshake: a client asks for rows with [`Request::Sync`] whenever it likes and
//! calls actions with [`Request::Rpc`]. A row is an array in column order whose last value is
//! `deleted_at`: not null means deleted.

use super::write::Object;
use crate::{Code, Error, Result};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// Frames that a client sends.
#[derive(Debug)]
pub enum Request {
    /// Send the rows changed at `from` or later; all of them without it.
    Sync {
        /// The record's table.
        channel: String,
        /// The largest `updated_at` or `deleted_at` that the client holds.
        from: Option<i64>,
    },
    /// Do an action and answer with the rows that it changed.
    Rpc {
        /// The record's table.
        channel: String,
        /// The client's id for the call.
        id: String,
        /// `{"type", "payload"}`.
        action: Box<RawValue>,
    },
}

impl Request {
    /// Reads a client's frame.
    ///
    /// # Errors
    /// [`Code::InvalidFrame`], with where it went wrong.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            channel: Option<String>,
            #[serde(default)]
            sync: bool,
            #[serde(default)]
            from: Json,
            id: Option<String>,
            action: Option<Box<RawValue>>,
        }
        let invalid = |message: String| Error::new(Code::InvalidFrame, message);
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|e| invalid(format!("Failed to parse message: {e}")))?;
        let channel = envelope
            .channel
            .ok_or_else(|| invalid("Failed to parse message: no `channel`".to_owned()))?;
        if envelope.sync {
            // JavaScript has only doubles: a time may be written as 1.7e12.
            let from = match &envelope.from {
                Json::Null => None,
                value => Some(
                    crate::Column::from_json(value)
                        .map_err(|e| invalid(format!("Failed to parse message: `from`: {e}")))?,
                ),
            };
            return Ok(Self::Sync { channel, from });
        }
        match (envelope.id, envelope.action) {
            (Some(id), Some(action)) => Ok(Self::Rpc { channel, id, action }),
            _ => Err(invalid("Failed to parse message: neither `sync` nor an `rpc`".to_owned())),
        }
    }
}

/// Frames that a server sends. `rows` is the text of JSON arrays, with commas between them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame<'a> {
    /// The answer to a sync.
    Sync { channel: &'a str, rows: &'a str },
    /// The answer to a call that succeeded.
    Success { channel: &'a str, id: &'a str, rows: &'a str },
    /// The answer to a call that failed.
    Failure { channel: &'a str, id: &'a str, message: &'a str },
    /// What the other clients get.
    Update { channel: &'a str, rows: &'a str },
    /// Tells a client to drop all rows of a channel.
    DeleteAll { channel: &'a str },
    /// The answer to a frame that could not be read.
    Exception { message: &'a str },
}

impl Frame<'_> {
    /// The frame as text.
    pub(crate) fn to_text(self) -> String {
        let mut out = Object::new();
        match self {
            Self::Sync { channel, rows } => {
                out.flag("sync").text("channel", channel).list("payload", rows)
            }
            Self::Success { channel, id, rows } => {
                out.text("type", "success").flag("rpc").text("channel", channel).text("id", id);
                out.list("result", rows)
            }
            Self::Failure { channel, id, message } => {
                out.text("type", "error").flag("rpc").text("channel", channel).text("id", id);
                out.texts("error", [message])
            }
            Self::Update { channel, rows } => {
                out.flag("broadcast").text("type", "update").text("channel", channel);
                out.list("payload", rows)
            }
            Self::DeleteAll { channel } => {
                out.flag("broadcast").text("type", "delete-all").text("channel", channel)
            }
            Self::Exception { message } => {
                out.text("type", "exception").flag("rpc").texts("exception", [message])
            }
        };
        out.end()
    }
}
