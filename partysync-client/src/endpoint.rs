//! Where a client connects to: [`Endpoint`], and the [`Address`] that it gives at each attempt.

use crate::store::{Shareable, Stored};
use futures::FutureExt;
use partysync::{Code, Error, Result};
use std::fmt::Write;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The URL of a room, with the credentials for one attempt to connect.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Address {
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Address {
    /// Without what may be a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Address").field("url", &url).finish_non_exhaustive()
    }
}

impl Address {
    /// A room's URL: `wss://example.com/parties/todos/mine`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), headers: Vec::new() }
    }

    /// Adds a parameter to the URL's query. URLs land in logs: a token that goes this way ought to
    /// be short-lived.
    ///
    /// ```
    /// use partysync_client::Address;
    /// let address = Address::new("wss://example.com/parties/todos/mine").query("token", "a b");
    /// assert_eq!(address.url(), "wss://example.com/parties/todos/mine?token=a%20b");
    /// ```
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.push(if self.url.contains('?') { '&' } else { '?' });
        encode(&mut self.url, name);
        self.url.push('=');
        encode(&mut self.url, value);
        self
    }

    /// Adds a header to the request. Browsers cannot send any: there it is left out, and a cookie
    /// or a parameter of the query takes its place.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Percent-encodes a part of a query.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A String takes everything.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
type Provider = Box<dyn Fn() -> Stored<'static, Address> + Send + Sync>;
#[cfg(target_arch = "wasm32")]
type Provider = Box<dyn Fn() -> Stored<'static, Address>>;

/// Where a room is: a URL, or a function that is asked at each attempt to connect. The time that
/// it takes is part of [`Timing::connect_ms`](crate::Timing::connect_ms): one that waits for a
/// user ought to fail meanwhile, and [`reconnect`](crate::SyncClient::reconnect) asks it anew.
///
/// ```
/// # async fn fresh_token() -> partysync::Result<String> { Ok("t".into()) }
/// use partysync_client::{Address, Endpoint};
///
/// let fixed = Endpoint::from("wss://example.com/parties/todos/mine");
/// let renewed = Endpoint::new(|| async {
///     let url = "wss://example.com/parties/todos/mine";
///     Ok(Address::new(url).query("token", &fresh_token().await?))
/// });
/// # let _ = (fixed, renewed);
/// ```
pub struct Endpoint(Provider);

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// What native programs need of a function's future.
#[cfg(not(target_arch = "wasm32"))]
pub trait Movable: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send> Movable for T {}
/// What native programs need of a function's future; a page has one thread.
#[cfg(target_arch = "wasm32")]
pub trait Movable {}
#[cfg(target_arch = "wasm32")]
impl<T> Movable for T {}

impl Endpoint {
    /// Asks this function at each attempt to connect. An error of it is shown as the reason why
    /// the client is offline, and it is asked again later.
    pub fn new<F, W>(provider: F) -> Self
    where
        F: Fn() -> W + Shareable + 'static,
        W: Future<Output = Result<Address>> + Movable + 'static,
    {
        Self(Box::new(move || Box::pin(provider())))
    }

    /// What the function gives; one that panics has failed.
    pub(crate) fn address(&self) -> Stored<'static, Address> {
        let panicked =
            |_| Error::new(Code::Internal, "the function that gives the address panicked");
        match catch_unwind(AssertUnwindSafe(|| (self.0)())) {
            Ok(address) => Box::pin(async move {
                AssertUnwindSafe(address).catch_unwind().await.map_err(panicked)?
            }),
            Err(panic) => Box::pin(std::future::ready(Err(panicked(panic)))),
        }
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::new(move || std::future::ready(Ok(address.clone())))
    }
}

impl From<&str> for Endpoint {
    fn from(url: &str) -> Self {
        Address::new(url).into()
    }
}

impl From<&String> for Endpoint {
    fn from(url: &String) -> Self {
        Address::new(url.as_str()).into()
    }
}

impl From<String> for Endpoint {
    fn from(url: String) -> Self {
        Address::new(url).into()
    }
}
