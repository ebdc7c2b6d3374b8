//! What carries frames, tells the time and waits: one for browsers, one for native programs.

#[cfg(feature = "native")]
mod native;
#[cfg(all(feature = "web", not(target_arch = "wasm32")))]
mod no_page;
#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod web;

#[cfg(feature = "native")]
pub use native::NativeTransport;
#[cfg(all(feature = "web", not(target_arch = "wasm32")))]
pub use no_page::{WebTransport, room_url};
#[cfg(all(feature = "web", target_arch = "wasm32"))]
pub use web::{WebTransport, room_url};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use partysync::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// What a socket tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is open.
    Opened,
    /// A text frame.
    Text(String),
    /// It has closed, or could not be opened; nothing follows.
    Closed {
        /// The close code; 1006 where there is none.
        code: u16,
        /// The reason.
        reason: String,
    },
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

/// What a client stands on.
pub trait Transport: 'static {
    /// Opens a socket to this URL with the subprotocol of the wire.
    fn open(&self, url: &str) -> Link;
    /// Waits.
    fn sleep(&self, time: Duration) -> Sleep;
    /// The time.
    fn now(&self) -> Timestamp;
    /// Something random.
    fn random(&self) -> u64;
}
