//! [`Answer`]: what becomes of an action.

use futures::channel::oneshot;
use futures::future::FutureExt;
use futures::task::AtomicWaker;
use partysync::{Code, Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

pub(crate) fn closed() -> Error {
    Error::new(Code::Closed, "the client is closed")
}

/// What becomes of an action. One that is stored is not lost with its answer: it is sent by the
/// next client of the same place, though nobody hears of it here.
///
/// When it is dropped, a rejection that was not read is told to all
/// ([`Update::errors`](crate::Update::errors)).
#[derive(Debug)]
pub struct Answer {
    receiver: oneshot::Receiver<Result<()>>,
    unread: Option<Arc<Unread>>,
}

/// Rejections whose answers were dropped before they were read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    errors: Mutex<Vec<Error>>,
    /// Wakes the driver.
    pub(crate) waker: AtomicWaker,
}

impl Unread {
    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Error> {
        std::mem::take(&mut self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Answer {
    pub(crate) fn new(receiver: oneshot::Receiver<Result<()>>, unread: Arc<Unread>) -> Self {
        Self { receiver, unread: Some(unread) }
    }

    /// That of a client that is gone.
    #[cfg(feature = "leptos")]
    pub(crate) fn closed() -> Self {
        Self { receiver: oneshot::channel().1, unread: None }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // One that was read is empty.
        if let Ok(Some(Err(error))) = self.receiver.try_recv()
            && let Some(unread) = &self.unread
        {
            unread.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            unread.waker.wake();
        }
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
