//! [`Fault`]: something that failed in a room, for whoever runs it.

use crate::{Code, Error, store};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

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

/// The faults of one life of a room.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) room: Rc<str>,
    /// What their ids begin with.
    life: u32,
    /// How many of them users were told of.
    told: Cell<u64>,
}

impl Faults {
    pub(super) fn new(room: &str, fresh_epoch: &str) -> Self {
        Self { room: room.into(), life: store::hash(fresh_epoch), told: Cell::new(0) }
    }

    /// Something failed that users are told of.
    pub(super) fn fault(&self, what: impl Into<String>, error: Error) -> Fault {
        self.told.set(self.told.get() + 1);
        // Each life of the room counts for itself.
        let id = format!("{:08x}-{:x}", self.life, self.told.get());
        Fault::new(&self.room, what, Some(id), error)
    }

    /// What users are told of an error: their own faults and the application's words as they are,
    /// the inside of the server as an id that the log has, too; and what is logged.
    pub(super) fn public(&self, error: Error, what: &str) -> (Error, Option<Fault>) {
        use Code::{Internal, InvalidValue, Migration, Sql, Storage, UnhandledAction};
        let error = error.clipped();
        match error.code() {
            Internal | Sql | Storage | Migration | UnhandledAction => {
                let fault = self.fault(what, error);
                (fault.told(), Some(fault))
            }
            // It may be the client's value, or one that the server cannot read.
            InvalidValue => {
                let fault = Fault::new(&self.room, what, None, error.clone());
                (error, Some(fault))
            }
            _ => (error, None),
        }
    }
}
