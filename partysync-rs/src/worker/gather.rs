//! What happens to an object between two rounds of the event loop is one turn, and so one commit.

use super::js;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use worker::console_error;

/// What the runtime calls when the event loop has come round.
type Round = Closure<dyn FnMut(JsValue)>;

/// What has happened since the last turn.
pub(super) struct Gathered<Q> {
    queue: RefCell<Vec<Q>>,
    /// Whether what happens is gathered until the event loop comes round.
    waits: Cell<bool>,
    /// Whether there is more to do, whatever happens.
    again: Cell<bool>,
    /// Whether little happened when it last did.
    calm: Cell<bool>,
    round: RefCell<Option<Round>>,
}

impl<Q> Default for Gathered<Q> {
    fn default() -> Self {
        Self {
            queue: RefCell::default(),
            waits: Cell::new(false),
            again: Cell::new(false),
            calm: Cell::new(true),
            round: RefCell::default(),
        }
    }
}

impl<Q> Gathered<Q> {
    /// What has happened, for the turn that begins.
    pub(super) fn take(&self) -> Vec<Q> {
        self.again.set(false);
        std::mem::take(&mut *self.queue.borrow_mut())
    }

    /// There is more to do.
    pub(super) fn set_again(&self) {
        self.again.set(true);
    }

    /// Whether there is more to do.
    pub(super) fn again(&self) -> bool {
        self.again.get()
    }
}

/// An object whose events are gathered.
pub(super) trait Gather: Sized + 'static {
    /// Something that happens to it.
    type Queued;

    fn gathered(&self) -> &Gathered<Self::Queued>;

    /// Goes through a turn with all that was gathered.
    fn go(self: &Rc<Self>) -> crate::Result<()>;

    /// Something happened. It is a turn of its own while little happens. When more happens before
    /// the event loop comes round, all of that is one turn.
    fn queue(self: &Rc<Self>, queued: Self::Queued) -> crate::Result<()> {
        let gathered = self.gathered();
        gathered.queue.borrow_mut().push(queued);
        if gathered.waits.get() {
            return Ok(());
        }
        let result = if gathered.calm.get() { self.go() } else { Ok(()) };
        self.wait();
        result
    }

    /// Has what happens until the event loop comes round gathered.
    fn wait(self: &Rc<Self>) {
        let gathered = self.gathered();
        if gathered.waits.replace(true) {
            return;
        }
        let object = Rc::downgrade(self);
        let mut round = gathered.round.borrow_mut();
        let round = round.get_or_insert_with(|| {
            Closure::new(move |_| {
                if let Some(object) = object.upgrade() {
                    object.come_round();
                }
            })
        });
        let _ = js::SCHEDULER.with(|scheduler| scheduler.wait(0)).then(round);
    }

    /// The event loop has come round.
    fn come_round(self: &Rc<Self>) {
        let gathered = self.gathered();
        gathered.waits.set(false);
        let count = gathered.queue.borrow().len();
        if count > 0 {
            gathered.calm.set(count == 1);
        }
        if count > 0 || gathered.again.get() {
            if let Err(error) = self.go() {
                console_error!("partysync: a turn failed: {error}");
            }
            self.wait();
        }
    }
}
