//! Bodies: what comes in is read up to a limit, what goes out is whole or goes on.

use super::Refusal;
use futures::stream::{LocalBoxStream, StreamExt};
use std::fmt;

/// A request's body, as it arrives.
pub type Incoming = LocalBoxStream<'static, crate::Result<Vec<u8>>>;

/// An answer's body.
pub enum Body {
    /// All of it.
    Full(Vec<u8>),
    /// It comes piece by piece; dropping it ends the connection's part in the stream.
    Live(LocalBoxStream<'static, Vec<u8>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Self::Live(_) => f.write_str("Body::Live"),
        }
    }
}

/// A body that is there already.
#[must_use]
pub fn full(bytes: Vec<u8>) -> Incoming {
    futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed_local()
}

/// All of a body, unless it is larger than `limit` bytes: then no more than that is held.
pub(crate) async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|e| Refusal::bad_request(format!("the body broke off: {e}")))?;
        if bytes.len() + part.len() > limit {
            return Err(Refusal::TooLarge { limit });
        }
        if bytes.is_empty() {
            bytes = part;
        } else {
            bytes.extend_from_slice(&part);
        }
    }
    Ok(bytes)
}
