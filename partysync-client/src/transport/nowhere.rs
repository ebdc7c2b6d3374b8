//! The transport where there is no page, as when a server renders one: nothing connects.

use super::{Link, Sleep, Transport};
use crate::endpoint::Address;
use crate::peer::Now;
use futures::channel::mpsc::unbounded;
use partysync::{Code, Error, Result};
use std::time::Duration;

/// The WebSocket, clock and timers of a page, where there is none: it never connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebTransport;

/// The URL of a room on the server that the page came from.
///
/// # Errors
/// [`Code::Internal`]: there is no page.
pub fn room_url(_party: &str, _room: &str) -> Result<String> {
    Err(Error::new(Code::Internal, "there is no window here"))
}

impl Transport for WebTransport {
    fn open(&self, _address: &Address) -> Link {
        Link { outgoing: unbounded().0, incoming: unbounded().1 }
    }

    fn sleep(&self, _time: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Now {
        Now::default()
    }

    fn random(&self) -> u64 {
        0
    }
}
