//! What an operator may set: [`Options`] and [`Cache`].

use std::time::Duration;

/// How streams are served.
///
/// ```
/// use partysync::streams::Options;
/// let options = Options { root: "/logs".into(), ..Options::default() };
/// assert_eq!(options.json_bytes, 16 * 1024 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The URL path under which the streams are. `/v1/stream`.
    pub root: String,
    /// The largest body of a `PUT` or a `POST`, in bytes; more is answered with 413. It is put
    /// aside piece by piece as it arrives. 100 MiB.
    pub append_bytes: usize,
    /// The largest body of JSON, which has to be read at once. 16 MiB.
    pub json_bytes: usize,
    /// About how many bytes are read at once, and sent as one event; a single JSON message may be
    /// longer. 1 MiB.
    pub page_bytes: usize,
    /// About how many bytes a catch-up read gives, in as many pages. Clients are told to read on
    /// where it ends, but not all of them do. 64 MiB.
    pub read_bytes: usize,
    /// How long a long-poll waits. 20 seconds.
    pub long_poll: Duration,
    /// How long a connection for server-sent events lasts. 60 seconds.
    pub sse: Duration,
    /// Who may keep answers. The reader's own cache only.
    pub cache: Cache,
    /// Whether webhooks may go to the own network, and without TLS: for development. No.
    pub local_webhooks: bool,
    /// How long a key signs webhooks before a new one takes its place. 30 days.
    pub key_lifetime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "/v1/stream".into(),
            append_bytes: 100 * 1024 * 1024,
            json_bytes: 16 * 1024 * 1024,
            page_bytes: 1024 * 1024,
            read_bytes: 64 * 1024 * 1024,
            long_poll: Duration::from_secs(20),
            sse: Duration::from_secs(60),
            cache: Cache::Private,
            local_webhooks: false,
            key_lifetime: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Who may keep the answer to a catch-up read (section 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Anyone, for a minute: for streams that all may read.
    Public,
    /// The reader, for a minute.
    Private,
    /// Nobody.
    NoStore,
}

impl Cache {
    pub(crate) const fn header(self) -> &'static str {
        match self {
            Self::Public => "public, max-age=60, stale-while-revalidate=300",
            Self::Private => "private, max-age=60, stale-while-revalidate=300",
            Self::NoStore => "no-store",
        }
    }
}
