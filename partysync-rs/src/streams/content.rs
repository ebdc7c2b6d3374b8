//! What is in a stream: content types, and how JSON messages lie among the bytes (section 9).
//!
//! A JSON stream holds its messages as they were sent, each followed by the byte 0x1E (the
//! record separator of RFC 7464). JSON text cannot contain that byte, so that messages are
//! found, counted and joined without being parsed again.

use super::Refusal;
use serde_json::value::RawValue;

/// The byte behind each message of a JSON stream.
pub const SEPARATOR: u8 = 0x1e;

/// How a stream's bytes are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`: a list of messages.
    Json,
    /// `text/*`: bytes that live reads send as text.
    Text,
    /// Anything else: bytes that live reads send as base64.
    Binary,
}

/// The part of a content type that counts: without parameters, in small letters.
///
/// ```
/// use partysync::streams::essence;
/// assert_eq!(essence("Application/JSON; charset=utf-8"), "application/json");
/// ```
#[must_use]
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Kind {
    /// The kind of a stream with this content type.
    #[must_use]
    pub fn of(content_type: &str) -> Self {
        let essence = essence(content_type);
        match essence.as_str() {
            "application/json" => Self::Json,
            text if text.starts_with("text/") => Self::Text,
            _ => Self::Binary,
        }
    }

    /// The bytes to be stored for a body.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for a body that is not JSON in a JSON stream.
    pub fn encode(self, body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        if self != Self::Json || body.is_empty() {
            return Ok(body);
        }
        let invalid = |e: serde_json::Error| {
            Refusal::bad_request(format!("the body is not JSON, which this stream holds: {e}"))
        };
        let whole: &RawValue = serde_json::from_slice(&body).map_err(invalid)?;
        // One level of an array is a batch.
        let messages: Vec<&RawValue> = if whole.get().starts_with('[') {
            serde_json::from_str(whole.get()).map_err(invalid)?
        } else {
            vec![whole]
        };
        let size = messages.iter().map(|m| m.get().len() + 1).sum();
        let mut stored = Vec::with_capacity(size);
        for message in messages {
            stored.extend_from_slice(message.get().as_bytes());
            stored.push(SEPARATOR);
        }
        Ok(stored)
    }

    /// The body of a read that gives these stored bytes.
    #[must_use]
    pub fn decode(self, stored: Vec<u8>) -> Vec<u8> {
        self.decode_part(stored, true, true)
    }

    /// A part of a body, which may be its first, its last, or both.
    pub(super) fn decode_part(self, mut stored: Vec<u8>, first: bool, last: bool) -> Vec<u8> {
        if self != Self::Json {
            return stored;
        }
        if last {
            stored.pop();
        }
        for byte in &mut stored {
            if *byte == SEPARATOR {
                *byte = b',';
            }
        }
        if first {
            stored.insert(0, b'[');
        }
        if last {
            stored.push(b']');
        }
        stored
    }

    /// How many of these stored bytes can be handed out: up to the last message that is whole.
    #[must_use]
    pub fn whole(self, stored: &[u8]) -> usize {
        match self {
            Self::Json => stored.iter().rposition(|b| *b == SEPARATOR).map_or(0, |at| at + 1),
            Self::Text | Self::Binary => stored.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC*|[\\x00-\\x20,\\[\\]\"]*".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn messages_come_back_as_one_array(batches in prop::collection::vec(prop::collection::vec(json(), 1..4), 0..4)) {
            let mut stored = Vec::new();
            for batch in &batches {
                stored.extend(Kind::Json.encode(serde_json::to_vec(batch).unwrap()).unwrap());
            }
            prop_assert_eq!(Kind::Json.whole(&stored), stored.len());
            let read: Vec<serde_json::Value> = serde_json::from_slice(&Kind::Json.decode(stored)).unwrap();
            prop_assert_eq!(read, batches.concat());
        }

        #[test]
        fn a_single_value_is_a_message(value in json()) {
            let body = serde_json::to_vec_pretty(&value).unwrap();
            let stored = Kind::Json.encode(body).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&Kind::Json.decode(stored)).unwrap();
            let wanted = if value.is_array() { value } else { vec![value].into() };
            prop_assert_eq!(read, wanted);
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for body in ["{", "[1,", "1 2", "\u{1e}", "[1\u{1e}2]", "nul"] {
            assert!(Kind::Json.encode(body.into()).is_err(), "{body:?}");
        }
        assert_eq!(Kind::Json.encode("[]".into()).unwrap(), b"");
        assert_eq!(Kind::Json.decode(Vec::new()), b"[]");
    }
}
