//! Frames of TypeScript `partysync` 2.x and `partyfn`, as observed on the wire.
//!
//! There is no handshake: a client asks for rows with [`Request::Sync`] whenever it likes and
//! calls actions with [`Request::Rpc`]. A row is an array in column order whose last value is
//! `deleted_at`: not null means deleted.

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

/// The answer to a sync.
#[must_use]
pub fn sync(channel: &str, rows: &str) -> String {
    format!(r#"{{"sync":true,"channel":{},"payload":{rows}}}"#, Json::from(channel))
}

/// The answer to a call that succeeded.
#[must_use]
pub fn success(channel: &str, id: &str, rows: &str) -> String {
    let (channel, id) = (Json::from(channel), Json::from(id));
    format!(r#"{{"type":"success","rpc":true,"channel":{channel},"id":{id},"result":{rows}}}"#)
}

/// The answer to a call that failed.
#[must_use]
pub fn error(channel: &str, id: &str, error: &Error) -> String {
    let (channel, id, message) = (Json::from(channel), Json::from(id), Json::from(error.message()));
    format!(r#"{{"type":"error","rpc":true,"channel":{channel},"id":{id},"error":[{message}]}}"#)
}

/// What the other clients get.
#[must_use]
pub fn update(channel: &str, rows: &str) -> String {
    let channel = Json::from(channel);
    format!(r#"{{"broadcast":true,"type":"update","channel":{channel},"payload":{rows}}}"#)
}

/// Tells a client to drop all rows of a channel.
#[must_use]
pub fn delete_all(channel: &str) -> String {
    format!(r#"{{"broadcast":true,"type":"delete-all","channel":{}}}"#, Json::from(channel))
}

/// The answer to a frame that could not be read.
#[must_use]
pub fn exception(error: &Error) -> String {
    let message = Json::from(error.message());
    format!(r#"{{"type":"exception","rpc":true,"exception":[{message}]}}"#)
}
