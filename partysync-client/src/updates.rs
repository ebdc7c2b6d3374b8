//! [`Updates`]: what happens to a client, for one who listens to it.

use crate::client::Update;
use crate::replica::merge;
use futures::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// So many updates wait one by one to be read.
const WAITING: usize = 64;

/// All that happens to a client, as a stream that ends with it.
///
/// What is not read waits. When much does, later updates are put together: their rows are told
/// once, their messages and errors all.
#[derive(Debug)]
pub struct Updates {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    updates: VecDeque<Update>,
    waker: Option<Waker>,
    ended: bool,
}

/// Where a client tells [`Updates`].
#[derive(Debug)]
pub(crate) struct Listener {
    waiting: Weak<Mutex<Waiting>>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Updates {
    pub(crate) fn new() -> (Listener, Self) {
        let waiting = Arc::<Mutex<Waiting>>::default();
        (Listener { waiting: Arc::downgrade(&waiting) }, Self { waiting })
    }

    /// The next update, if there is one already.
    pub fn try_recv(&mut self) -> Option<Update> {
        lock(&self.waiting).updates.pop_front()
    }
}

impl Listener {
    pub(crate) fn is_heard(&self) -> bool {
        self.waiting.strong_count() > 0
    }

    /// Whether anybody listens still.
    pub(crate) fn tell(&self, update: &Update) -> bool {
        let Some(waiting) = self.waiting.upgrade() else { return false };
        let mut waiting = lock(&waiting);
        if waiting.updates.len() >= WAITING
            && let Some(last) = waiting.updates.back_mut()
        {
            merge(Arc::make_mut(&mut last.changes), (*update.changes).clone());
            last.status = update.status.clone();
            last.presence |= update.presence;
            last.messages.extend_from_slice(&update.messages);
            last.errors.extend_from_slice(&update.errors);
        } else {
            waiting.updates.push_back(update.clone());
        }
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
        true
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.upgrade() {
            let mut waiting = lock(&waiting);
            waiting.ended = true;
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Stream for Updates {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        let mut waiting = lock(&self.waiting);
        match waiting.updates.pop_front() {
            Some(update) => Poll::Ready(Some(update)),
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
