//! [`Platform`]: what a server takes from where it runs.

use crate::{Error, Result, Timestamp};
use futures::future::LocalBoxFuture;
use std::time::Duration;

/// The clock, chance, timers and the network of the place where streams are served.
pub trait Platform: 'static {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Bytes that nobody can guess.
    ///
    /// # Errors
    /// What the system says.
    fn random(&self) -> Result<[u8; 32]>;

    /// Waits.
    fn sleep(&self, time: Duration) -> LocalBoxFuture<'static, ()>;

    /// Runs a task beside the request that began it, on the same thread.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);

    /// Calls [`Streams::wake`](super::Streams::wake) at this moment, also if nothing else
    /// happens until then; replaces what was asked before.
    fn wake_at(&self, at: Option<Timestamp>);

    /// Tells the operator what went wrong beside the requests: their answers do not say it.
    fn report(&self, what: &str, error: &Error);

    /// Posts a body and returns the status and the body of the answer, of which no more than
    /// [`Post::ANSWER_BYTES`] need be read, within [`Post::TIMEOUT`]. Follows no redirect: an answer that is one is the answer.
    fn post(&self, post: Post) -> LocalBoxFuture<'static, Result<(u16, Vec<u8>)>>;

    /// How many posts may be under way at once; the others wait. No limit.
    fn posts_at_once(&self) -> usize {
        usize::MAX
    }
}

impl Post {
    /// How long a webhook may take to answer.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// How much of its answer is read.
    pub const ANSWER_BYTES: usize = 64 * 1024;
}

/// A webhook's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// The headers beside `Content-Type: application/json`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it may go to an address of the own network.
    pub local: bool,
}
