//! [`Presence`]: what others are told of who is here.

use crate::{Code, Error, Result};
use serde::Serialize;
use serde_json::Value as Json;

/// What others are told of somebody who is here: what
/// [`SyncServer::presence`](crate::SyncServer::presence) returns.
///
/// ```
/// use partysync::Presence;
///
/// #[derive(serde::Serialize)]
/// struct Who { name: String }
///
/// let ada = Presence::shown_as(&Who { name: "Ada".into() })?;
/// assert_ne!(ada, Presence::hidden());
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// What they are told; `None` where they are told nothing.
    pub(crate) who: Option<Json>,
}

impl Presence {
    /// Others are told that somebody is here, with the state that its client gives, and no more.
    ///
    /// ```
    /// # use partysync::Presence;
    /// assert_eq!(Presence::shown(), Presence::shown_as(&()).unwrap());
    /// ```
    #[must_use]
    pub fn shown() -> Self {
        Self { who: Some(Json::Null) }
    }

    /// As [`shown`](Self::shown), and who it is, in the server's words: a name, a picture. Its client
    /// cannot say otherwise, and everybody who is here is told it.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    ///
    /// ```
    /// # use partysync::Presence;
    /// assert_ne!(Presence::shown_as("Ada")?, Presence::shown());
    /// # Ok::<(), partysync::Error>(())
    /// ```
    pub fn shown_as<T: Serialize + ?Sized>(who: &T) -> Result<Self> {
        let who = serde_json::to_value(who)
            .map_err(|e| Error::new(Code::InvalidValue, format!("who is here: {e}")))?;
        Ok(Self { who: Some(who) })
    }

    /// Others are told nothing, and it is told nothing of them, but how many connections there are.
    ///
    /// ```
    /// # use partysync::Presence;
    /// assert_ne!(Presence::hidden(), Presence::shown());
    /// ```
    #[must_use]
    pub fn hidden() -> Self {
        Self { who: None }
    }
}
