//! [`Identity`]: who is behind a request, as the worker has found out.

use crate::{Code, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Who is behind a request: what [`Router::identify`](crate::worker::Router::identify) has returned,
/// of any serde type of the application's own. The router hands it to the room with the request, in
/// what the runtime calls `cf`: nothing that a client sends gets there.
///
/// A connection keeps it for as long as it lives, through hibernation; a client that connects again
/// is asked anew. It counts to the 16 KiB that are kept of a connection. The client is told it, for
/// its reducers ([`Draft::identity`](crate::Draft::identity)): put no secrets into it.
///
/// ```
/// use partysync::Identity;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct User { name: String, admin: bool }
///
/// let ada = User { name: "ada".into(), admin: true };
/// let mut request = http::Request::new(());
/// Identity::new(&ada)?.put(&mut request);
/// assert_eq!(Identity::of(&request).map(Identity::read).transpose()?, Some(ada));
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(Json);

impl Identity {
    /// The identity of such a user; `None` is nobody's.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn new<T: Serialize + ?Sized>(who: &T) -> Result<Self> {
        serde_json::to_value(who)
            .map(Self)
            .map_err(|e| Error::new(Code::InvalidValue, format!("an identity: {e}")))
    }

    /// The user.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type, as one of a connection that was there
    /// before the type was changed.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        // What serde says quotes it, and users may be told.
        T::deserialize(&self.0).map_err(|_| {
            Error::new(Code::InvalidValue, "an identity is not of the type that is asked for")
        })
    }

    /// Who is behind this request, if the worker has said so.
    pub fn of<B>(request: &http::Request<B>) -> Option<&Self> {
        request.extensions().get().filter(|identity: &&Self| !identity.0.is_null())
    }

    /// Says who is behind this request: for tests, and for hosts of one's own.
    pub fn put<B>(self, request: &mut http::Request<B>) {
        request.extensions_mut().insert(self);
    }
}
