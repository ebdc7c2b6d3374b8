//! A platform for streams whose clock stands still until it is moved, and whose tasks run when a
//! test says so.

use futures::executor::block_on;
use futures::future::LocalBoxFuture;
use partysync::streams::{Platform, Post};
use partysync::{Code, Error, Result, Timestamp};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What a webhook answers: a status and a body, or nothing.
pub type Answer = Option<(u16, &'static str)>;

/// The platform. Clones are the same one.
#[derive(Clone, Default)]
pub struct Bench {
    now: Rc<Cell<i64>>,
    random: Rc<Cell<u64>>,
    tasks: Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>,
    alarm: Rc<Cell<Option<Timestamp>>>,
    posts: Rc<RefCell<Vec<Post>>>,
    reports: Rc<RefCell<Vec<String>>>,
    answer: Rc<Cell<Answer>>,
    posts_at_once: Rc<Cell<Option<usize>>>,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Bench {
    /// Moves the clock to so many milliseconds after it began.
    pub fn set_millis(&self, millis: i64) {
        self.now.set(millis);
    }

    /// Moves the clock on.
    pub fn wait(&self, millis: i64) {
        self.now.set(self.now.get() + millis);
    }

    /// When the server wants to be woken, in milliseconds from now.
    #[must_use]
    pub fn alarm_in(&self) -> Option<i64> {
        self.alarm.get().map(|at| at.as_millis() - self.now().as_millis())
    }

    /// What webhooks answer from now on; without an answer the connection breaks.
    pub fn set_answer(&self, answer: Answer) {
        self.answer.set(answer);
    }

    /// Allows no more posts than these at once.
    pub fn limit_posts(&self, limit: usize) {
        self.posts_at_once.set(Some(limit));
    }

    /// How many tasks wait to be run.
    #[must_use]
    pub fn waiting_tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// What was posted since the last call.
    #[must_use]
    pub fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut *self.posts.borrow_mut())
    }

    /// What was reported since the last call.
    #[must_use]
    pub fn take_reports(&self) -> Vec<String> {
        std::mem::take(&mut *self.reports.borrow_mut())
    }

    /// Runs the tasks that wait, and those that they leave behind.
    pub fn run_tasks(&self) {
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                return;
            }
            tasks.into_iter().for_each(block_on);
        }
    }

    /// Forgets the tasks that wait, as a process does that ends.
    pub fn drop_tasks(&self) {
        self.tasks.borrow_mut().clear();
    }
}

impl Platform for Bench {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + self.now.get())
    }

    fn random(&self) -> Result<[u8; 32]> {
        self.random.set(self.random.get() + 1);
        let mut bytes = [7; 32];
        for (byte, value) in bytes.iter_mut().zip(self.random.get().to_le_bytes()) {
            *byte = value;
        }
        Ok(bytes)
    }

    fn sleep(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(futures::future::pending())
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        self.tasks.borrow_mut().push(task);
    }

    fn wake_at(&self, at: Option<Timestamp>) {
        self.alarm.set(at);
    }

    fn posts_at_once(&self) -> usize {
        self.posts_at_once.get().unwrap_or(usize::MAX)
    }

    fn report(&self, what: &str, error: &Error) {
        self.reports.borrow_mut().push(format!("{what}: {error}"));
    }

    fn post(&self, post: Post) -> LocalBoxFuture<'static, Result<(u16, Vec<u8>)>> {
        self.posts.borrow_mut().push(post);
        let answer = self.answer.get().map(|(status, body)| (status, body.as_bytes().to_vec()));
        Box::pin(async { answer.ok_or_else(|| Error::new(Code::Closed, "no network")) })
    }
}
