//! [`Answer`]: what becomes of an action.

use futures::channel::oneshot;
use futures::future::FutureExt;
use partysync::{Code, Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) fn closed() -> Error {
    Error::new(Code::Closed, "the client is closed")
}

/// What becomes of an action. One that is stored is not lost with its answer: it is sent by the
/// next client of the same place, though nobody hears of it here.
#[derive(Debug)]
pub struct Answer {
    pub(crate) receiver: oneshot::Receiver<Result<()>>,
}

impl Answer {
    /// That of a client that is gone.
    #[cfg(feature = "leptos")]
    pub(crate) fn closed() -> Self {
        Self { receiver: oneshot::channel().1 }
    }
}

impl Future for Answer {
    /// `Ok` when the server has committed it, `Err` with why it rejected it, or
    /// [`Code::Closed`] when the client was closed before.
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receiver.poll_unpin(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
    }
}
