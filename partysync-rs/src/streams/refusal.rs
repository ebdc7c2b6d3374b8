//! What a request is answered that cannot be done: [`Refusal`], its status and its headers.

use super::{Offset, header};
use http::{HeaderName, HeaderValue, StatusCode};
use std::fmt;

/// Why a request was not done. The answer's body is the message, as plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 400: the request itself is wrong.
    BadRequest(String),
    /// 404: there is no such stream.
    NotFound,
    /// 410: the stream was deleted; its data is kept for its forks.
    Gone,
    /// 409: the request does not fit the stream.
    Conflict(String),
    /// 409: the stream is closed, and ends here.
    Closed(Offset),
    /// 403: a newer session of this producer has taken over.
    Fenced {
        /// The newer session's epoch.
        epoch: u64,
    },
    /// 409: appends of this producer are missing.
    Gap {
        /// The number that would be next.
        expected: u64,
        /// The number that came.
        received: u64,
    },
    /// 405: a stream has no such method.
    MethodNotAllowed,
    /// 413: the body has more than so many bytes.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A request about subscriptions cannot be done; the answer's body is JSON.
    Subscription {
        /// The answer's status.
        status: StatusCode,
        /// The kind of error, as the protocol names it: `FENCED`, say.
        code: &'static str,
        /// What is wrong.
        message: String,
    },
    /// 503: the store does not answer now; the same request may succeed later.
    Unavailable(String),
    /// 500: a fault of the server.
    Internal(String),
}

impl Refusal {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict(message.into())
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::Conflict(_) | Self::Closed(_) | Self::Gap { .. } => StatusCode::CONFLICT,
            Self::Fenced { .. } => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Subscription { status, .. } => *status,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The headers that say more.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Closed(end) => vec![
                (header::STREAM_CLOSED, HeaderValue::from_static("true")),
                (header::STREAM_NEXT_OFFSET, header::value(end)),
            ],
            Self::Fenced { epoch } => vec![(header::PRODUCER_EPOCH, HeaderValue::from(*epoch))],
            Self::Gap { expected, received } => vec![
                (header::PRODUCER_EXPECTED_SEQ, HeaderValue::from(*expected)),
                (header::PRODUCER_RECEIVED_SEQ, HeaderValue::from(*received)),
            ],
            Self::MethodNotAllowed => {
                vec![(http::header::ALLOW, HeaderValue::from_static(super::METHODS))]
            }
            Self::Unavailable(_) => vec![(http::header::RETRY_AFTER, HeaderValue::from(1))],
            _ => Vec::new(),
        }
    }
}

impl Refusal {
    /// The answer's body and its content type.
    pub(super) fn body(&self) -> (Vec<u8>, &'static str) {
        match self {
            Self::Subscription { code, message, .. } => {
                let error = serde_json::json!({ "error": { "code": code, "message": message } });
                (error.to_string().into_bytes(), "application/json")
            }
            other => (other.to_string().into_bytes(), "text/plain; charset=utf-8"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) | Self::Conflict(why) => f.write_str(why),
            Self::Subscription { message, .. } => f.write_str(message),
            Self::NotFound => f.write_str("there is no such stream"),
            Self::Gone => f.write_str("the stream was deleted"),
            Self::Closed(_) => f.write_str("the stream is closed"),
            Self::Fenced { epoch } => {
                write!(f, "a newer session of this producer has taken over, with epoch {epoch}")
            }
            Self::Gap { expected, received } => {
                write!(f, "append {expected} of this producer comes next, and {received} came")
            }
            Self::MethodNotAllowed => write!(f, "a stream knows {}", super::METHODS),
            Self::TooLarge { limit } => write!(f, "the body has more than {limit} bytes"),
            Self::Unavailable(why) => write!(f, "the store does not answer: {why}"),
            Self::Internal(why) => write!(f, "the server failed: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for crate::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(crate::Code::Internal, refusal.to_string())
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
