//! What is to blame when a connection ends.

use crate::peer::Cause;
use partysync::wire::{
    CLOSE_BUSY, CLOSE_NOT_FOUND, CLOSE_REFUSED, CLOSE_RESTART, CLOSE_SCHEMA, CLOSE_UNAUTHORIZED,
};
use partysync::{Code, Error};

/// What is held against the first action of a push that got no answer: the server was there, and
/// did not answer or failed.
pub(super) const SURE: u32 = 4;
/// The connection broke, as connections do; but a server that dies of an action looks the same.
pub(super) const MAYBE: u32 = 1;

/// What is wrong, what is held against a push that was under way, and whether trying again does
/// not help.
pub(super) fn judge(cause: Cause) -> (Error, u32, bool) {
    match cause {
        Cause::Code { code, reason } => {
            let say = |code, words: &str| {
                let reason = if reason.is_empty() { words } else { &reason };
                Error::new(code, reason)
            };
            match code {
                CLOSE_SCHEMA => {
                    let message = "the app is outdated: reload it";
                    (Error::new(Code::SchemaMismatch, message), 0, true)
                }
                CLOSE_REFUSED => (say(Code::Forbidden, "the server refused"), 0, true),
                CLOSE_NOT_FOUND => (say(Code::NotFound, "there is no such room"), 0, false),
                CLOSE_UNAUTHORIZED => (say(Code::Unauthorized, "who are you?"), 0, false),
                // The server was there and wants it later: no action is to blame.
                CLOSE_BUSY | CLOSE_RESTART => (say(Code::Unavailable, "come again"), 0, false),
                // An error came out of the server's handler.
                1011 => (say(Code::Unavailable, "the server failed"), SURE, false),
                1009 => (say(Code::TooLarge, "the server does not take so much"), SURE, false),
                _ => (say(Code::Unavailable, "the connection broke"), MAYBE, false),
            }
        }
        Cause::Status(401) => {
            (Error::new(Code::Unauthorized, "the server wants other credentials"), 0, false)
        }
        Cause::Status(403) => (Error::new(Code::Forbidden, "the server refused (403)"), 0, true),
        Cause::Status(status) => {
            (Error::new(Code::Unavailable, format!("the server answered {status}")), 0, false)
        }
        Cause::Unreachable(why) => (Error::new(Code::Unavailable, why), MAYBE, false),
        Cause::Address(error) => (error, 0, true),
        Cause::Provider(error) => (error, 0, false),
    }
}
