//! What happens to an object between two rounds of the event loop is one turn, and so one commit.

use super::js::{self, guarded};
use super::sql::js_error;
use crate::room::Incoming;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use js_sys::Uint8Array;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::closure::{Closure, ScopedClosure};
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::spawn_local;
use worker::{State, console_error};

/// What the runtime calls when the event loop has come round.
type Round = Closure<dyn FnMut(JsValue)>;

/// Something that happened to the socket of a connection, which its id names.
pub(super) enum Queued {
    Text(String, String),
    Long(String, usize),
    Binary(String, usize),
    Closed(String),
}

impl Queued {
    /// The connection's id, and the frame that came; `None` when its socket has closed.
    pub(super) fn incoming(&self) -> (&str, Option<Incoming<'_>>) {
        match self {
            Self::Text(id, text) => (id, Some(Incoming::Text(text))),
            Self::Long(id, length) => (id, Some(Incoming::Long(*length))),
            Self::Binary(id, length) => (id, Some(Incoming::Binary(*length))),
            Self::Closed(id) => (id, None),
        }
    }
}

/// What has happened since the last turn.
pub(super) struct Gathered {
    queue: RefCell<Vec<Queued>>,
    /// Whether what happens is gathered until the event loop comes round.
    waits: Cell<bool>,
    /// Whether there is more to do, whatever happens.
    again: Cell<bool>,
    /// Whether little happened when it last did.
    calm: Cell<bool>,
    round: RefCell<Option<Round>>,
}

impl Default for Gathered {
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

impl Gathered {
    /// What has happened, for the turn that begins.
    pub(super) fn take(&self) -> Vec<Queued> {
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
    fn gathered(&self) -> &Gathered;

    fn state(&self) -> &State;

    /// The longest frame that is read.
    fn frame_bytes(&self) -> usize;

    /// Whether something is waited for that will go through a turn with all that was gathered.
    fn is_opening(&self) -> bool {
        false
    }

    /// Goes through a turn with all that was gathered.
    fn go(self: &Rc<Self>) -> crate::Result<()>;

    /// Something happened. It is a turn of its own while little happens. When more happens before
    /// the event loop comes round, all of that is one turn.
    fn queue(self: &Rc<Self>, queued: Queued) -> crate::Result<()> {
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
        if self.is_opening() {
            return;
        }
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

    fn js(&self) -> &js::State {
        self.state().as_raw().unchecked_ref()
    }

    /// A frame came from a socket.
    fn message(self: &Rc<Self>, socket: &JsValue, message: &JsValue) -> crate::Result<()> {
        let Some(id) = self.js().connection_id(socket) else { return Ok(()) };
        // What is too long is not copied first.
        let long = js::text_length(message).filter(|length| *length > self.frame_bytes());
        if let Some(length) = long {
            return self.queue(Queued::Long(id, length));
        }
        self.queue(match js::text(message) {
            Some(text) => Queued::Text(id, text),
            None => Queued::Binary(id, Uint8Array::new(message).length() as usize),
        })
    }

    /// A socket has closed, cleanly or not.
    fn closed(self: &Rc<Self>, socket: JsValue, code: u16) -> crate::Result<()> {
        let Some(id) = self.js().connection_id(&socket) else { return Ok(()) };
        // The client's close frame wants one in answer; without it the client waits for long.
        let echo = if (3000..5000).contains(&code) { code } else { 1000 };
        let _ = socket.unchecked_into::<js::Socket>().close(echo, "");
        self.queue(Queued::Closed(id))
    }

    /// Does this as a turn, given what was gathered: if it panics, what it has written is taken
    /// back.
    fn as_turn<T: Default>(
        &self,
        body: impl FnOnce(&[Queued]) -> crate::Result<T>,
    ) -> crate::Result<T> {
        let queue = self.gathered().take();
        let (mut body, mut result) = (Some(body), Ok(T::default()));
        let called = {
            let mut once = || {
                if let Some(body) = body.take() {
                    result = body(&queue);
                }
            };
            let callback = ScopedClosure::<'_, dyn FnMut() + '_>::borrow_mut_aborting(&mut once);
            guarded(self.js(), callback.as_js_value().unchecked_ref())
        };
        called.map_err(|error| js_error(&error))?;
        result
    }

    /// Begins what nobody waits for.
    fn run_after<T: 'static>(self: &Rc<Self>, after: Vec<LocalBoxFuture<'static, T>>) {
        if after.is_empty() {
            return;
        }
        let object = self.clone();
        spawn_local(async move {
            let mut after = join_all(after).boxed_local();
            // Most have nothing to wait for: the runtime need not keep the object for them.
            if (&mut after).now_or_never().is_none() {
                object.state().wait_until(after.map(drop));
            }
        });
    }
}
