//! What a room takes from a client, and how long it remembers.

use super::rate::Allowed;

/// Limits of a room; [`SyncServer::limits`](crate::SyncServer::limits) sets them.
///
/// ```
/// let limits = partysync::Limits { push_actions: 100, ..Default::default() };
/// assert_eq!(limits.frame_bytes, 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame that is read, in bytes. A larger one closes its connection with 1009.
    pub frame_bytes: usize,
    /// The most actions of one push; more close the connection. Clients send at most 256.
    pub push_actions: usize,
    /// The largest body of a request that `on_request` gets, in bytes; a larger one is answered
    /// with 413 and not read.
    pub body_bytes: usize,
    /// The most connections at a time; more are closed with 4429 and come again later. Never more
    /// than 32,768, which is what a Durable Object keeps.
    pub connections: usize,
    /// The actions of one connection in the long run, per second; a frame without actions counts
    /// as one, and so does each 16 KiB of a frame. One that sends more is closed with 4429; its
    /// client comes again later with what was not answered.
    pub actions_per_second: u32,
    /// The actions of one connection at once, above the rate: what a client that was offline may
    /// bring with it.
    pub actions_burst: u32,
    /// About how many bytes of rows go into one frame; a page can be read without being felt. A
    /// connection that is sent more than a patch holds has eight pages under way at most, and says
    /// what it has read after each two.
    pub page_bytes: usize,
    /// About so many entries of the change log are worked on in one turn when old deletions are
    /// forgotten, and when the log is compacted, which is when it has doubled: it is read as a
    /// whole as often as it has times this many entries, and the room waits for each time.
    pub log_entries: u32,
    /// When [`migrate`](crate::SyncServer::migrate) has changed so many rows in a turn, the room goes on
    /// in the next event: how long one event may take is limited, and the room waits for it.
    pub migration_rows: u32,
    /// The most bytes that one connection may leave unread; eight pages at least. One that reads too
    /// slowly is sent no more patches until it has read, and then what changed meanwhile; if even
    /// the application's own messages pile up, it is closed with 4429. A v1 connection cannot say
    /// what it has read, and is not limited.
    pub pending_bytes: u64,
    /// The largest result of an action ([`Room::answer`](crate::Room::answer)), in bytes of its JSON.
    /// It is kept until its client has heard it.
    pub result_bytes: usize,
    /// The most connections that are shown to each other at a topic
    /// ([`presence`](crate::SyncServer::presence)).
    /// Who comes when there are so many waits for a place, and is told how many connections there are.
    pub present: usize,
    /// The largest state that a connection may have among those, and what the server says of who it is,
    /// in bytes of its JSON: all of them are sent it. A state also counts as an action for each eight of
    /// them.
    pub presence_bytes: usize,
    /// A connection among those that has not been heard of for so long, in milliseconds, is closed:
    /// nobody is there. Clients tell of themselves every 20 s.
    pub silent_ms: i64,
    /// How long the deletion of a row is remembered, in milliseconds. A client that was away for
    /// longer gets a whole snapshot instead of a delta.
    pub retention_ms: i64,
    /// How long a client's last seq is remembered after it was last seen, in milliseconds.
    pub client_retention_ms: i64,
}

impl Limits {
    /// A client whose actions were done less long ago than this is known. Half of how long one is
    /// remembered: when it was, the client says.
    pub(crate) fn surely_known_ms(&self) -> u64 {
        u64::try_from(self.client_retention_ms / 2).unwrap_or(0).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        Self {
            frame_bytes: 1024 * 1024,
            push_actions: 1_000,
            body_bytes: 1024 * 1024,
            connections: 10_000,
            actions_per_second: 500,
            actions_burst: 10_000,
            page_bytes: 128 * 1024,
            log_entries: 500_000,
            migration_rows: 1_000,
            pending_bytes: 8 * 1024 * 1024,
            result_bytes: 64 * 1024,
            present: 100,
            presence_bytes: 1024,
            silent_ms: 75_000,
            retention_ms: 7 * DAY,
            client_retention_ms: 90 * DAY,
        }
    }
}

impl Limits {
    /// How much a connection may send.
    pub(super) fn allowed(&self) -> Allowed {
        Allowed { per_second: self.actions_per_second, burst: self.actions_burst }
    }

    /// A client says what it has read when it is so many bytes.
    pub(super) fn read_bytes(&self) -> u64 {
        2 * self.page_bytes as u64
    }
}
