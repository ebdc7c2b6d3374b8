//! [`Life`]: one life of a room, from its opening until it is dropped. Its machine has it, and
//! [`Handle`](super::Handle)s ask it for turns while it is there.

use super::fault::Faults;
use crate::{Error, Identity, Result, Room};
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// What is done with a room in a turn.
pub(crate) type Work<S> = Box<dyn FnOnce(&S, &mut Room<'_, S>) -> Result<()>>;

/// Something that is to be done with a room, as a transaction of its own.
pub(crate) struct Asked<S> {
    pub(super) work: Work<S>,
    /// Who is behind it.
    pub(super) identity: Option<Identity>,
    /// What its failure is called in the log, where that is not up to whoever asks.
    pub(super) what: Option<&'static str>,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// What comes of something that was asked for.
pub(crate) struct Outcome<T> {
    value: Rc<Cell<Option<T>>>,
    done: oneshot::Receiver<Result<()>>,
}

/// An answer that waits until what its turn has written is kept. One that is dropped says that
/// nothing was.
pub(crate) struct Reply {
    to: oneshot::Sender<Result<()>>,
    done: Result<()>,
}

impl<S> Asked<S> {
    pub(crate) fn new<T: 'static>(
        identity: Option<Identity>,
        work: impl FnOnce(&S, &mut Room<'_, S>) -> Result<T> + 'static,
    ) -> (Self, Outcome<T>) {
        let value = Rc::new(Cell::new(None));
        let (reply, done) = oneshot::channel();
        let found = value.clone();
        let work = Box::new(move |server: &S, room: &mut Room<'_, S>| {
            found.set(Some(work(server, room)?));
            Ok(())
        });
        (Self { work, identity, what: None, reply }, Outcome { value, done })
    }

    /// Has its failure logged, and told as clients are told of it.
    pub(crate) fn logged_as(self, what: Option<&'static str>) -> Self {
        Self { what, ..self }
    }

    /// The same, asked of another server, which does it in this way.
    #[cfg(feature = "livestore")]
    pub(crate) fn map<R>(self, way: impl FnOnce(Work<S>) -> Work<R>) -> Asked<R> {
        let Self { work, identity, what, reply } = self;
        Asked { work: way(work), identity, what, reply }
    }
}

impl<T> Outcome<T> {
    /// Waits for it.
    pub(crate) async fn wait(self) -> Result<T> {
        match self.done.await {
            Ok(done) => done.and_then(|()| self.value.take().ok_or_else(gone)),
            Err(oneshot::Canceled) => Err(gone()),
        }
    }

    /// What came of it in the turn that is over.
    pub(crate) fn take(mut self) -> Result<T> {
        match self.done.try_recv() {
            Ok(Some(done)) => done.and_then(|()| self.value.take().ok_or_else(gone)),
            Ok(None) | Err(oneshot::Canceled) => Err(gone()),
        }
    }
}

impl Reply {
    pub(super) fn new(to: oneshot::Sender<Result<()>>, done: Result<()>) -> Self {
        Self { to, done }
    }

    /// What the turn has written is kept.
    pub(super) fn send(self) {
        // Who asked may be gone.
        let _ = self.to.send(self.done);
    }
}

fn gone() -> Error {
    Error::retry("the room was closed or opened anew, and nothing of this was written")
}

/// Where handles ask for something to be done.
pub(crate) trait Ask<S> {
    /// Has it done in the next turn. If the room is gone, it is dropped.
    fn ask(&self, asked: Asked<S>);
}

/// One life of a room.
pub(crate) struct Life<S> {
    pub(super) faults: Rc<Faults>,
    asked: RefCell<VecDeque<Asked<S>>>,
    /// Called when something is asked for.
    wake: RefCell<Option<Rc<dyn Fn()>>>,
}

impl<S> Life<S> {
    pub(super) fn new(name: &str, fresh_epoch: &str) -> Rc<Self> {
        let faults = Rc::new(Faults::new(name, fresh_epoch));
        Rc::new(Self { faults, asked: RefCell::default(), wake: RefCell::default() })
    }

    /// What is to be done in this turn: what is asked for meanwhile is done in the next.
    pub(super) fn take(&self) -> VecDeque<Asked<S>> {
        self.asked.take()
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.asked.borrow().is_empty()
    }

    /// Has this done first in the next turn, which is about to begin.
    pub(super) fn put_first(&self, asked: Asked<S>) {
        self.asked.borrow_mut().push_front(asked);
    }

    pub(super) fn on_asked(&self, wake: impl Fn() + 'static) {
        *self.wake.borrow_mut() = Some(Rc::new(wake));
    }
}

impl<S> Ask<S> for Weak<Life<S>> {
    fn ask(&self, asked: Asked<S>) {
        let Some(life) = self.upgrade() else { return };
        life.asked.borrow_mut().push_back(asked);
        let wake = life.wake.borrow().clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}
