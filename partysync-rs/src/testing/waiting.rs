//! What a [`TestRoom`](super::TestRoom) waits for: hooks, and what they have begun.

use crate::room::{Answered, HookDone};
use futures::future::LocalBoxFuture;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A hook that nothing wakes for so long waits for ever, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hooks that wait.
pub(super) struct Waiting<A> {
    hooks: Vec<LocalBoxFuture<'static, HookDone<A>>>,
    /// What nobody waits for, but a test.
    after: Vec<LocalBoxFuture<'static, ()>>,
    done: VecDeque<HookDone<A>>,
    bell: Arc<Bell>,
    pub(super) patience: Duration,
}

impl<A> Default for Waiting<A> {
    fn default() -> Self {
        let bell = Bell { thread: std::thread::current(), rung: AtomicBool::new(false) };
        let (hooks, after, done) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { hooks, after, done, bell: Arc::new(bell), patience: PATIENCE }
    }
}

impl<A> fmt::Debug for Waiting<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hooks, after, .. } = self;
        f.debug_struct("Waiting").field("hooks", &hooks.len()).field("after", &after.len()).finish()
    }
}

impl<A> Waiting<A> {
    pub(super) fn add(
        &mut self,
        hooks: Vec<LocalBoxFuture<'static, HookDone<A>>>,
        after: Vec<LocalBoxFuture<'static, ()>>,
    ) {
        self.hooks.extend(hooks);
        self.after.extend(after);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.after.is_empty() && self.done.is_empty()
    }

    /// The first hook that has returned.
    pub(super) fn done(&mut self) -> Option<HookDone<A>> {
        self.done.pop_front()
    }

    /// Lets all go on, and a request; whether any of them has come to its end, or was woken meanwhile.
    pub(super) fn poll(
        &mut self,
        request: &mut Option<LocalBoxFuture<'static, Answered>>,
        answered: &mut Option<Answered>,
    ) -> bool {
        let waker = Waker::from(self.bell.clone());
        let mut context = Context::from_waker(&waker);
        let (hooks, after) = (self.hooks.len(), self.after.len());
        let done = &mut self.done;
        self.hooks.retain_mut(|hook| match hook.as_mut().poll(&mut context) {
            Poll::Ready(returned) => {
                done.push_back(returned);
                false
            }
            Poll::Pending => true,
        });
        self.after.retain_mut(|after| after.as_mut().poll(&mut context).is_pending());
        let mut ended = hooks > self.hooks.len() || after > self.after.len();
        if let Some(future) = request
            && let Poll::Ready(found) = future.as_mut().poll(&mut context)
        {
            (*answered, *request, ended) = (Some(found), None, true);
        }
        ended
    }

    /// Waits until something is woken, by another thread say; `false` if nothing is, and then all
    /// that waits is let go.
    pub(super) fn park(&mut self) -> bool {
        let begun = Instant::now();
        while !self.bell.rung.swap(false, Ordering::AcqRel) {
            let left = self.patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                self.hooks.clear();
                self.after.clear();
                return false;
            }
            std::thread::park_timeout(left);
        }
        true
    }
}

/// What is woken.
struct Bell {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
