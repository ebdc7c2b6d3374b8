//! The driver of a client in the simulation: a tab with its machine, its socket, and a handle to
//! its browser's store, which may be slow or fail.

use crate::app::AppAction;
use futures::{FutureExt, StreamExt};
use partysync::Result;
use partysync::wire::v2::ClientFrame;
use partysync_client::store::{Events, MemoryStore, Saved, Store, Write};
use partysync_client::{Input, Now, Peer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Whether it speaks version 1.
    pub(crate) v1: bool,
}

impl Link {
    pub(crate) fn new(id: String) -> Self {
        let (up, down) = (VecDeque::new(), VecDeque::new());
        Self { id, open: false, broken: false, close: None, up, down, v1: false }
    }
}

/// What a store is asked for.
pub(crate) enum Ask {
    Open(String),
    Write(Vec<Write>),
}

/// What it answers.
pub(crate) enum Told {
    Opened(Result<Saved>),
    Stored(Result<()>),
}

/// How a store is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    /// It answers when it is told to.
    pub(crate) slow: bool,
    /// So many of its next answers are failures.
    pub(crate) fails: u32,
    /// What it says has failed was done nonetheless.
    pub(crate) lies: bool,
}

/// A tab that is open.
pub(crate) struct Tab {
    pub(crate) browser: usize,
    pub(crate) client: String,
    pub(crate) peer: Peer<AppAction>,
    pub(crate) store: MemoryStore,
    pub(crate) events: Events,
    pub(crate) health: Health,
    pub(crate) asked: Option<Ask>,
    pub(crate) link: Option<Link>,
    /// What the others are to know of it, if it is here.
    pub(crate) here: Option<i64>,
    /// The page does nothing.
    pub(crate) frozen: bool,
    /// The tokens of the actions that it has made, by seq.
    pub(crate) tokens: BTreeMap<u64, i64>,
    /// Clients whose outboxes it took over.
    pub(crate) adopted: BTreeSet<String>,
}

fn broken() -> partysync::Error {
    partysync::Error::new(partysync::Code::Store, "the disk is gone")
}

impl Tab {
    /// The store answers; `None` when it was not asked, or is slow and not forced.
    pub(crate) fn answer(&mut self, forced: bool) -> Option<Told> {
        if self.health.slow && !forced {
            return None;
        }
        let ask = self.asked.take()?;
        let fails = self.health.fails > 0;
        self.health.fails = self.health.fails.saturating_sub(1);
        Some(match ask {
            // A disk that is full can be read.
            Ask::Open(_) if fails && !self.health.lies => Told::Opened(Err(broken())),
            Ask::Open(client) => Told::Opened(self.store.open_now(&client)),
            Ask::Write(writes) => {
                let done = !fails || self.health.lies;
                let written = if done { self.store.write_now(writes) } else { Ok(()) };
                Told::Stored(if fails { Err(broken()) } else { written })
            }
        })
    }

    /// Whether the actions of this frame are stored as pushed, unless the client has said that its
    /// store does not work.
    pub(crate) fn has_stored(&self, frame: &str) -> bool {
        let Ok(ClientFrame::Push(push)) = ClientFrame::parse(frame) else { return true };
        if self.peer.status().warning.is_some() {
            return true;
        }
        let client = push.client.unwrap_or_else(|| self.client.clone());
        let Ok(kept) = self.store.kept() else { return false };
        let Some(outbox) = kept.outboxes.get(&client) else { return false };
        let is_stored = |seq| outbox.pushed >= seq && outbox.pending.contains_key(&seq);
        push.actions.iter().all(|action| is_stored(action.seq))
    }

    /// What the store tells next.
    pub(crate) fn event(&mut self) -> Option<partysync_client::store::StoreEvent> {
        self.events.next().now_or_never().flatten()
    }

    /// Another tab may have its outboxes, though it lives.
    pub(crate) fn lose_lock(&mut self, browser: &MemoryStore) {
        self.store = browser.clone();
        self.events = self.store.events();
    }

    /// Its timers ring, if it is time.
    pub(crate) fn time(&mut self, now: Now) -> bool {
        let due = self.peer.timeout().is_some_and(|at| at <= now.monotonic);
        if due && !self.frozen {
            self.peer.handle(Input::Time, now);
        }
        due && !self.frozen
    }
}
