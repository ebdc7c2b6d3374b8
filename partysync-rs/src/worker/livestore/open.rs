//! [`Open`]: what a store's object has open. Events of sockets and calls go into the store's machine
//! by their slots, and effects are carried out.

use super::object::Inner;
use crate::livestore::{self, Effect, Input, LiveStoreServer, Turn};
use crate::room::{Level, Slot};
use crate::worker::gather::{Gather, Queued};
use crate::worker::open::{random_id, raw, set_alarm};
use crate::worker::sql::js_error;
use crate::worker::{DurableSql, js, now};
use crate::{Code, Error};
use futures::channel::mpsc::UnboundedSender;
use js_sys::JsString;
use std::collections::HashMap;
use std::rc::Rc;
use worker::{WebSocket, console_error, console_warn};

/// A store that is open, with its sockets and calls.
pub(super) struct Open {
    sql: DurableSql,
    pub(super) store: livestore::Open,
    sockets: Vec<Option<Place>>,
    slots: HashMap<String, Slot>,
}

/// What has a slot.
enum Place {
    Socket(js::Socket),
    /// Where a call's answer goes, until it is complete.
    Call(UnboundedSender<String>, u64),
}

/// What is accepted in a turn.
pub(super) enum Arriving {
    Socket(WebSocket),
    Call(UnboundedSender<String>),
}

/// What an arrival is answered with.
pub(super) enum Answer {
    Accepted(Slot, u64),
    Refused(u16, String),
}

/// An id for a log, as long as LiveStore's own.
pub(super) fn backend_id() -> String {
    random_id().chars().take(21).collect()
}

impl Open {
    /// Opens a store; one whose log is elsewhere ends there with the event of this number.
    pub(super) fn new<S: LiveStoreServer>(
        object: &Inner<S>,
        store: &str,
        elsewhere: Option<u64>,
    ) -> crate::Result<Self> {
        let (mut sockets, mut slots, mut attachments) = (Vec::new(), HashMap::new(), Vec::new());
        for (slot, socket) in (0..).map(Slot).zip(object.state.get_websockets()) {
            // What cannot be read is none: the machine has the socket closed.
            attachments.push(socket.deserialize_attachment::<String>().ok().flatten());
            if let Some(id) = object.state.get_tags(&socket).into_iter().next() {
                slots.insert(id, slot);
            }
            sockets.push(Some(Place::Socket(raw(&socket))));
        }
        let sql = DurableSql::new(&object.state)?;
        let fresh = backend_id();
        let server = &*object.server;
        let store = match elsewhere {
            None => livestore::Open::new(server, &sql, store, &fresh, now(), attachments),
            Some(head) => {
                livestore::Open::elsewhere(server, &sql, store, &fresh, head, now(), attachments)
            }
        }?;
        Ok(Self { sql, store, sockets, slots })
    }

    /// Takes the store through a turn with all that has happened to sockets, and another input.
    pub(super) fn turn<S: LiveStoreServer>(
        &mut self,
        server: &Rc<S>,
        queue: &[Queued],
        input: Option<Input<'_>>,
    ) -> Turn {
        let Self { sql, store, slots, .. } = self;
        let queued = queue.iter().filter_map(|queued| {
            let (id, frame) = queued.incoming();
            let slot = *slots.get(id)?;
            Some(frame.map_or(Input::Closed(slot), |frame| Input::Frame(slot, frame)))
        });
        let turn = store.turn(server, sql, now(), queued.chain(input));
        // Before effects: one that comes in this turn may have the slot of one that left.
        for queued in queue {
            if let Queued::Closed(id) = queued
                && let Some(slot) = self.slots.get(id).copied()
            {
                self.forget(slot);
            }
        }
        turn
    }

    fn place(&mut self, slot: Slot) -> Option<&mut Option<Place>> {
        let place = slot.0 as usize;
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
        }
        self.sockets.get_mut(place)
    }

    /// Whoever waited for a call's answer has gone.
    pub(super) fn forget_call(&mut self, slot: Slot, number: u64) {
        if let Some(place) = self.place(slot)
            && matches!(place, Some(Place::Call(_, own)) if *own == number)
        {
            *place = None;
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(place) = self.place(slot) {
            *place = None;
        }
        self.slots.retain(|_, other| *other != slot);
    }

    fn socket(&self, slot: Slot) -> Option<&js::Socket> {
        match self.sockets.get(slot.0 as usize)?.as_ref()? {
            Place::Socket(socket) => Some(socket),
            Place::Call(..) => None,
        }
    }

    /// Does what a turn has led to.
    pub(super) fn carry_out<S: LiveStoreServer>(
        &mut self,
        inner: &Rc<Inner<S>>,
        effects: Vec<Effect>,
        mut arriving: Option<Arriving>,
    ) -> crate::Result<Option<Answer>> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Accept(slot, serial) => {
                    let arrived = match arriving.take() {
                        Some(Arriving::Socket(socket)) => {
                            let id = random_id();
                            inner.state.accept_websocket_with_tags(&socket, &[&id]);
                            self.slots.insert(id, slot);
                            Some(Place::Socket(raw(&socket)))
                        }
                        Some(Arriving::Call(told)) => Some(Place::Call(told, serial)),
                        None => None,
                    };
                    if let Some(place) = self.place(slot) {
                        *place = arrived;
                    }
                    answer = Some(Answer::Accepted(slot, serial));
                }
                Effect::Refuse(status, why) => answer = Some(Answer::Refused(status, why)),
                Effect::Send(slot, frame) => {
                    match self.sockets.get(slot.0 as usize).and_then(Option::as_ref) {
                        // A socket that is closing takes nothing more: its close event follows.
                        Some(Place::Socket(socket)) => {
                            let _ = socket.send(&JsString::from(frame.as_str()));
                        }
                        // Whoever does not read any more is told of by its reader.
                        Some(Place::Call(told, _)) => drop(told.unbounded_send(frame)),
                        None => {}
                    }
                }
                Effect::Finish(slot) => self.forget(slot),
                Effect::Close(slot, code, reason) => {
                    if let Some(socket) = self.socket(slot) {
                        let _ = socket.close(code, reason);
                    }
                }
                Effect::StoreAttachment(slot, text) => {
                    if let Some(socket) = self.socket(slot)
                        && let Err(error) = socket.serialize_attachment(&text)
                    {
                        console_error!("livestore: an attachment: {}", js_error(&error));
                        let _ = socket.close(crate::wire::CLOSE_TOO_BIG, "too_large");
                    }
                }
                Effect::Again => inner.gathered.set_again(),
                Effect::SetAlarm(at) => set_alarm(&inner.js().storage(), at)?,
                Effect::Log(Level::Error, message) => console_error!("{message}"),
                Effect::Log(Level::Warn, message) => console_warn!("{message}"),
                Effect::Call(number, whom, frame) => inner.call_subscriber(number, &whom, &frame),
                Effect::Append(..) | Effect::Read(_) | Effect::Load | Effect::Empty(_)
                    if inner.d1.is_some() =>
                {
                    inner.ask_d1(effect, self.store.machine().context().clone());
                }
                // Of the turn itself.
                Effect::Append(..)
                | Effect::Read(_)
                | Effect::Load
                | Effect::Empty(_)
                | Effect::Keep(..)
                | Effect::Span(_)
                | Effect::RunHook(_) => {
                    return Err(Error::new(Code::Internal, "an effect was not carried out"));
                }
            }
        }
        Ok(answer)
    }
}
