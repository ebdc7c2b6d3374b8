//! Errors: one type, with a [`Code`] to match on and a message that says what to do.
//!
//! A code has a name that crosses the wire (see `docs/protocol.md`), so that a client can
//! match on the very value that the server chose.

use std::fmt;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What kind of error it is. [`Code::as_str`] is the name used on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// The code's name on the wire.
            ///
            /// ```
            /// assert_eq!(partysync::Code::KeyExists.as_str(), "key_exists");
            /// ```
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code with this name; a name that this version does not know is
            /// [`Code::Internal`].
            ///
            /// ```
            /// use partysync::Code;
            /// assert_eq!(Code::from_name("rejected"), Code::Rejected);
            /// assert_eq!(Code::from_name("of another age"), Code::Internal);
            /// ```
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// The application refused the action ([`Error::reject`]).
    Rejected = "rejected",
    /// A frame is not JSON, not text, or not a frame of the protocol.
    InvalidFrame = "invalid_frame",
    /// No record type is served under that channel name.
    UnknownChannel = "unknown_channel",
    /// The record type has no action of that name.
    UnknownAction = "unknown_action",
    /// The action's payload lacks a field or has one of the wrong type.
    InvalidAction = "invalid_action",
    /// A custom action reached `apply`: only `on_action` can say what it does.
    UnhandledAction = "unhandled_action",
    /// A row with that key is there already.
    KeyExists = "key_exists",
    /// The row to change is not there (any more).
    NotFound = "not_found",
    /// A row violates a constraint of its table.
    Constraint = "constraint",
    /// A value cannot be what its column holds.
    InvalidValue = "invalid_value",
    /// A frame, a row, a result or a name is over its limit.
    TooLarge = "too_large",
    /// A push holds more actions than the room takes at once.
    TooManyActions = "too_many_actions",
    /// The room has as many connections as it takes.
    TooManyConnections = "too_many_connections",
    /// The connection sends more actions than the room takes in that time.
    RateLimited = "rate_limited",
    /// The connection reads more slowly than the room sends.
    SlowReader = "slow_reader",
    /// An action's sequence number leaves out one that was never seen.
    SequenceGap = "sequence_gap",
    /// The first frame of a v2 connection has to be `hello`.
    HelloFirst = "hello_first",
    /// The room has forgotten this client, which was away for too long: what became of the
    /// actions that it had sent cannot be known.
    ClientForgotten = "client_forgotten",
    /// The action was given up by its client: for an hour and many attempts it had no answer.
    Abandoned = "abandoned",
    /// The action has other fields than the server knows, or lacks some, or a value that the field's
    /// type does not know: it is of another version of the application.
    ActionMismatch = "action_mismatch",
    /// The action was done, but its result is not of the type that is asked for
    /// ([`wire::v2::read_result`](crate::wire::v2::read_result)).
    ResultMismatch = "result_mismatch",
    /// The server has another version of the application: it does not know the action, and nothing was
    /// done (the client keeps it, and it may be done after a reload); or it has rows that this
    /// client cannot read.
    Outdated = "outdated",
    /// The client's store cannot be read or written: what it holds ends with the process.
    Store = "store",
    /// `hello` was said already on this connection.
    HelloTwice = "hello_twice",
    /// The client was built for other columns than the server: reload it.
    SchemaMismatch = "schema_mismatch",
    /// The stored schema cannot be changed to the type's safely.
    Migration = "migration",
    /// No valid credentials were given.
    Unauthorized = "unauthorized",
    /// The credentials do not allow it.
    Forbidden = "forbidden",
    /// SQLite refused a statement.
    Sql = "sql",
    /// The database cannot be read or written: it is full, broken or gone. What was asked is not
    /// done, and may be asked again.
    Storage = "storage",
    /// It cannot be done now; the client tries again later ([`Error::retry`]).
    Unavailable = "unavailable",
    /// The connection or the client is closed.
    Closed = "closed",
    /// Anything else; the message says what.
    Internal = "internal",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong: a [`Code`] to match on and a message for people.
///
/// ```
/// use partysync::{Code, Error};
///
/// let error = Error::reject("the text must not be empty");
/// assert_eq!(error.code(), Code::Rejected);
/// assert_eq!(error.to_string(), "the text must not be empty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The application's own refusal: the client that sent the action is told `message`.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::new(Code::Rejected, message)
    }

    /// The application cannot decide now, because a service that it asks does not answer, say:
    /// nothing is written, and its connection is closed with 4429 and this message in an `error`
    /// before that. The client keeps the action, and tries again later; what it made afterwards
    /// waits behind it.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Which kind of error it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, as [`Display`](fmt::Display) writes it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with `context: ` before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// An error of SQLite, read off its message: violated constraints are [`Code::Constraint`],
    /// what is larger than a value may be [`Code::TooLarge`], a database that is full or broken
    /// [`Code::Storage`], anything else [`Code::Sql`].
    #[must_use]
    pub fn from_sqlite(message: &str) -> Self {
        const STORAGE: [&str; 7] = [
            "disk is full",
            "disk I/O error",
            "disk image is malformed",
            "out of memory",
            "SQLITE_FULL",
            "SQLITE_IOERR",
            "SQLITE_CORRUPT",
        ];
        let message = message.trim_start_matches("Error: ");
        let has = |part: &&str| message.contains(*part);
        let code = if ["constraint failed", "cannot store"].iter().any(has) {
            Code::Constraint
        } else if ["string or blob too big", crate::store::ROW_TOO_LARGE].iter().any(has) {
            Code::TooLarge
        } else if STORAGE.iter().any(has) {
            Code::Storage
        } else {
            Code::Sql
        };
        Self::new(code, message)
    }

    /// The same error with at most 1 KiB of message: what is kept or sent has a bound.
    #[must_use]
    pub(crate) fn clipped(mut self) -> Self {
        const MOST: usize = 1024;
        if self.message.len() > MOST {
            let end = (0..=MOST).rev().find(|at| self.message.is_char_boundary(*at)).unwrap_or(0);
            self.message.truncate(end);
            self.message.push('…');
        }
        self
    }

    /// The same error, as [`Code::KeyExists`] if it is about the key of one of these tables.
    pub(crate) fn with_keys(mut self, schemas: &[&crate::Schema]) -> Self {
        let clash = self.message.split_once("UNIQUE constraint failed: ").map(|(_, rest)| rest);
        // SQLite says `table.column, table.column`, and more after it, as Durable Objects do.
        let is_key = |schema: &&crate::Schema| {
            let names =
                schema.key().iter().map(|column| format!("{}.{}", schema.table, column.name));
            let names = names.collect::<Vec<_>>().join(", ");
            let rest = clash.and_then(|clash| clash.strip_prefix(&names));
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            rest.is_some_and(|rest| ends(rest) && !rest.starts_with([',', '$']))
        };
        if self.code == Code::Constraint && schemas.iter().any(is_key) {
            self.code = Code::KeyExists;
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(feature = "worker")]
impl From<worker::Error> for Error {
    fn from(error: worker::Error) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

#[cfg(feature = "worker")]
impl From<Error> for worker::Error {
    fn from(error: Error) -> Self {
        worker::Error::RustError(format!("{}: {}", error.code, error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_messages_get_the_code_of_what_happened() {
        let code = |message| Error::from_sqlite(message).code();
        assert_eq!(code("UNIQUE constraint failed: todos.id: SQLITE_CONSTRAINT"), Code::Constraint);
        assert_eq!(code("CHECK constraint failed: todos"), Code::Constraint);
        assert_eq!(code("cannot store TEXT value in INTEGER column todos.n"), Code::Constraint);
        assert_eq!(code("no such table: nope"), Code::Sql);
    }
}
