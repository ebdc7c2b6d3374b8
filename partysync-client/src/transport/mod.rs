//! What carries frames, tells the time and waits: one for browsers, one for native programs.

#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
mod native;
#[cfg(any(
    all(feature = "web", not(target_arch = "wasm32")),
    all(feature = "leptos", not(feature = "web"))
))]
mod nowhere;
#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod web;

#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
pub use native::NativeTransport;
#[cfg(any(
    all(feature = "web", not(target_arch = "wasm32")),
    all(feature = "leptos", not(feature = "web"))
))]
pub use nowhere::{WebTransport, room_url};
#[cfg(all(feature = "web", target_arch = "wasm32"))]
pub use web::{WebTransport, room_url};

use crate::endpoint::Address;
use crate::peer::{Cause, Now};
use futures::Stream;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Where a place's room is: on the server that the page came from.
#[cfg(any(feature = "leptos", all(feature = "web", target_arch = "wasm32")))]
pub(crate) fn page_endpoint(place: &crate::place::Place) -> crate::endpoint::Endpoint {
    let (party, room) = (place.party().to_owned(), place.room().to_owned());
    crate::endpoint::Endpoint::new(move || {
        std::future::ready(room_url(&party, &room).map(Address::new))
    })
}

/// What a socket tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is open.
    Opened,
    /// A text frame.
    Text(String),
    /// It has closed, or could not be opened; nothing follows.
    Closed(Cause),
}

/// A socket, open or about to be. It closes when it is dropped.
#[derive(Debug)]
pub struct Link {
    /// Frames to send. Dropping it closes the socket.
    pub outgoing: UnboundedSender<String>,
    /// What the socket tells.
    pub incoming: UnboundedReceiver<Event>,
}

/// A wait.
#[cfg(not(target_arch = "wasm32"))]
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A wait.
#[cfg(target_arch = "wasm32")]
pub type Sleep = Pin<Box<dyn Future<Output = ()>>>;

/// Tells when the network is back, or the page is seen again.
#[cfg(not(target_arch = "wasm32"))]
pub type Nudges = Pin<Box<dyn Stream<Item = ()> + Send>>;
/// Tells when the network is back, or the page is seen again.
#[cfg(target_arch = "wasm32")]
pub type Nudges = Pin<Box<dyn Stream<Item = ()>>>;

/// What a client stands on.
pub trait Transport: 'static {
    /// Opens a socket with the subprotocol of the wire.
    fn open(&self, address: &Address) -> Link;
    /// Waits.
    fn sleep(&self, time: Duration) -> Sleep;
    /// Lets what an action changes be shown before it is stored and sent: in a page, a turn of its
    /// event loop, so that a frame does not wait for the work on storage and socket. `None` where
    /// nobody looks, and then it is stored at once.
    fn shown(&self) -> Option<Sleep> {
        None
    }
    /// The moment.
    fn now(&self) -> Now;
    /// When it is worth trying again at once.
    fn nudges(&self) -> Nudges {
        Box::pin(futures::stream::pending())
    }
    /// Something random.
    fn random(&self) -> u64;
}
