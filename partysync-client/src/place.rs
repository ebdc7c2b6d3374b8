//! [`Place`]: whose copy of which room it is, the name under which a store keeps a replica.

use std::fmt;

/// A user, as far as a store has to tell one from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(Option<String>);

impl User {
    /// The user with this id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(Some(id.into()))
    }

    /// Whoever uses this machine: for applications without a login.
    #[must_use]
    pub fn anyone() -> Self {
        Self(None)
    }
}

/// Whose copy of which room it is. What one user of a browser has seen and made is not shown to
/// the next, and not sent by the next one's clients: stores are told apart by this, and never by
/// a URL or a token, which change.
///
/// The server does not see it: who a connection is stands in its cookie or token. A client that
/// is open when another user logs in connects again with the new cookie; end it before
/// (`IndexedDbStore::delete_user` does, in all tabs).
///
/// ```
/// use partysync_client::{Place, User};
///
/// let place = Place::new("todos", "default", User::new("ada"));
/// assert_eq!(place.to_string(), "partysync/app/=ada/todos/default");
/// assert!(place.to_string().starts_with(&Place::prefix("app", &User::new("ada"))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    app: String,
    user: User,
    party: String,
    room: String,
}

impl Place {
    /// A user's copy of a room of this party (in kebab case, as in its URL).
    pub fn new(party: impl Into<String>, room: impl Into<String>, user: User) -> Self {
        Self { app: "app".to_owned(), user, party: party.into(), room: room.into() }
    }

    /// The name of the application, where several share an origin or a folder; `app` without it.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// The party.
    #[must_use]
    pub fn party(&self) -> &str {
        &self.party
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &str {
        &self.room
    }

    /// What the names of all places of a user begin with.
    #[must_use]
    pub fn prefix(app: &str, user: &User) -> String {
        let user = user.0.as_ref().map_or_else(String::new, |id| format!("={}", part(id)));
        format!("partysync/{}/{user}/", part(app))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Self::prefix(&self.app, &self.user);
        write!(f, "{prefix}{}/{}", part(&self.party), part(&self.room))
    }
}

/// A part of a name, in which there is no slash.
fn part(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}
