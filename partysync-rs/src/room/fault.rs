//! [`Fault`]: something that failed in a room, for whoever runs it.

use crate::Error;
use std::fmt;

/// Something that failed in a room and is not a client's fault. It is logged once, as
/// [`Display`](fmt::Display) writes it, and told to [`SyncServer::on_error`](crate::SyncServer::on_error).
/// Users are told no more than its [`id`](Self::id).
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    room: String,
    what: String,
    id: Option<String>,
    error: Error,
}

impl Fault {
    pub(crate) fn new(
        room: &str,
        what: impl Into<String>,
        id: Option<String>,
        error: Error,
    ) -> Self {
        Self { room: room.to_owned(), what: what.into(), id, error }
    }

    /// The room's name.
    #[must_use]
    pub fn room(&self) -> &str {
        &self.room
    }

    /// What failed: a hook by its name, an action as `action create of todos`, or what the room was
    /// doing.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What users are told in place of the error ([`told`](Self::told)), where one was waiting for an
    /// answer.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Why.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What users are told: that something went wrong, and the [`id`](Self::id) under which the log
    /// says what.
    #[must_use]
    pub fn told(&self) -> Error {
        let id = self.id.as_deref().map(|id| format!(" (error {id})")).unwrap_or_default();
        Error::new(self.error.code(), format!("Something went wrong at the server{id}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { room, what, id, error } = self;
        // A name comes from an address: it makes no lines of its own.
        write!(f, "partysync room `{}`: {what} failed", room.escape_debug())?;
        if let Some(id) = id {
            write!(f, " (error {id})")?;
        }
        write!(f, ": {}: {error}", error.code())
    }
}
