//! A tab: its session with store and socket, and the couriers for outboxes that it took over.

use crate::app::AppAction;
use partysync_client::Session;
use partysync_client::store::Store;
use std::collections::VecDeque;

/// A socket as the network sees it.
pub(crate) struct Link {
    pub(crate) id: String,
    /// Whether the server knows of it.
    pub(crate) open: bool,
    /// Whether it is broken; the client has yet to notice.
    pub(crate) broken: bool,
    /// The server's close frame, behind all other frames.
    pub(crate) close: Option<(u16, String)>,
    pub(crate) up: VecDeque<String>,
    pub(crate) down: VecDeque<String>,
}

impl Link {
    pub(crate) fn new(id: String) -> Self {
        let (up, down) = (VecDeque::new(), VecDeque::new());
        Self { id, open: false, broken: false, close: None, up, down }
    }
}

/// A session with its store and its socket.
pub(crate) struct End {
    /// The client id under which its actions are noted.
    pub(crate) client: String,
    pub(crate) session: Session<AppAction>,
    pub(crate) store: Box<dyn Store>,
    pub(crate) link: Option<Link>,
    /// For a courier: the number of the outbox that its tab adopted.
    pub(crate) adopted: Option<u64>,
}

/// A tab of a browser, open or not: the first end is its own, the others are couriers.
#[derive(Default)]
pub(crate) struct Tab {
    pub(crate) browser: usize,
    pub(crate) ends: Vec<End>,
    /// How many outboxes it took over.
    pub(crate) adopted: u64,
    /// Actions of these that were done, and whose rows its own session lacks: epoch, version.
    pub(crate) done: Vec<(String, u64, AppAction)>,
}

impl Tab {
    pub(crate) fn main(&self) -> Option<&End> {
        self.ends.first()
    }
}
