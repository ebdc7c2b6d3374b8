//! What crosses the socket: [`v2`], the protocol of this project (`docs/protocol.md`), and
//! [`v1`], that of TypeScript `partysync`.

pub(crate) mod pages;
pub mod snapshot;
pub mod v1;
pub mod v2;
pub(crate) mod write;

use serde_json::Value as Json;

/// The WebSocket subprotocol that chooses [`v2`]; a socket without it speaks [`v1`].
pub const SUBPROTOCOL: &str = "partysync.v2";

/// The keep-alive text; the runtime answers [`PONG`] without waking the object.
pub const PING: &str = "ping";
/// The answer to [`PING`].
pub const PONG: &str = "pong";

/// A v2 client says how much it has read (`read`) when it is this many bytes, or before, unless
/// the room asks for it more often in `welcome`.
pub const READ_BYTES: u64 = 256 * 1024;

/// Close code: the connection broke a rule of the protocol; the reason is the error's code.
pub const CLOSE_PROTOCOL: u16 = 4400;
/// Close code: refused by `on_connect`; trying again with the same credentials does not help.
pub const CLOSE_REFUSED: u16 = 4403;
/// Close code: no credentials, or credentials that are not good any more.
pub const CLOSE_UNAUTHORIZED: u16 = 4401;
/// Close code: there is no such room.
pub const CLOSE_NOT_FOUND: u16 = 4404;
/// Close code: the client was built for other columns; reload it.
pub const CLOSE_SCHEMA: u16 = 4409;
/// Close code: over a limit that time cures; the reason is the error's code.
pub const CLOSE_BUSY: u16 = 4429;
/// Close code: the room cannot start; the reason is the error's code.
pub const CLOSE_BROKEN: u16 = 4500;
/// Close code of RFC 6455 for a frame over the limit.
pub const CLOSE_TOO_BIG: u16 = 1009;
/// Close code of RFC 6455 for a server that could not do it; the client comes again.
pub const CLOSE_FAILED: u16 = 1011;
/// Close code for a socket that the room cannot go on with; the client comes again.
pub const CLOSE_RESTART: u16 = 1012;

/// How deep lists and objects lie in each other: readers of JSON have limits.
pub(crate) fn depth(json: &Json) -> usize {
    let within = match json {
        Json::Array(list) => list.iter().map(depth).max(),
        Json::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + within.unwrap_or(0)
}

/// At most 64 characters of something that came from outside, for a message.
pub(crate) fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(64).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}
