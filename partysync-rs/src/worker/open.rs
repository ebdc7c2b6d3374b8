//! [`Open`]: what an object has open. Events of sockets go into the room's machine by their slots,
//! and effects are carried out.

use super::gather::{Gather, Queued};
use super::js;
use super::object::Inner;
use super::sql::js_error;
use super::{DurableSql, now};
use crate::room::turn::{Turn, turn};
use crate::room::{Asked, Effect, Event, Machine, Opening, Slot};
use crate::{SyncServer, Timestamp, wire};
use js_sys::JsString;
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::{JsFuture, spawn_local};
use worker::{WebSocket, console_error, console_warn, web_sys};

/// A room that is open: its machine, its database, its sockets.
pub(super) struct Open<S: SyncServer> {
    sql: DurableSql,
    machine: Machine<S>,
    sockets: Vec<Option<js::Socket>>,
    slots: HashMap<String, Slot>,
    /// Those that the room wants to know of when they were heard last.
    asked: Vec<Slot>,
    #[cfg(feature = "streams")]
    pub(super) history: Option<super::history::History>,
}

/// What an event of its own is answered with.
pub(super) enum Answer {
    Accept,
    Refuse(u16, String, Option<String>),
}

/// 128 random bits as hexadecimal digits.
pub(super) fn random_id() -> String {
    (0..4).map(|_| format!("{:08x}", (js_sys::Math::random() * 4_294_967_296.0) as u32)).collect()
}

/// 32 of them: the id of a fault.
pub(super) fn short_id() -> String {
    random_id().chars().take(8).collect()
}

impl<S: SyncServer> Open<S> {
    /// Opens a room for the object, with the sockets that an earlier life has left.
    pub(super) fn new(object: &Rc<Inner<S>>, now: Timestamp) -> crate::Result<Self> {
        let (mut sockets, mut slots, mut attachments) = (Vec::new(), HashMap::new(), Vec::new());
        for (slot, socket) in (0..).map(Slot).zip(object.state.get_websockets()) {
            // What cannot be read is none: the machine has the socket closed.
            attachments.push(socket.deserialize_attachment::<String>().ok().flatten());
            if let Some(id) = object.state.get_tags(&socket).into_iter().next() {
                slots.insert(id, slot);
            }
            sockets.push(Some(raw(&socket)));
        }
        let sql = DurableSql::new(&object.state)?;
        #[cfg(feature = "streams")]
        let history = match object.server.keeps_history() {
            true => Some(super::history::History::open(&object.state)?),
            false => None,
        };
        #[cfg(feature = "streams")]
        let published = history.as_ref().map(|history| history.published()).transpose()?;
        #[cfg(not(feature = "streams"))]
        let published = None;
        let (name, fresh_epoch) = (object.state.id().name(), random_id());
        let opening = Opening { name, fresh_epoch, sockets: attachments, published };
        let machine = Machine::open(&*object.server, &sql, now, opening)?;
        let weak = Rc::downgrade(object);
        machine.on_asked(move || {
            if let Some(object) = weak.upgrade() {
                object.ask();
            }
        });
        Ok(Self {
            sql,
            machine,
            sockets,
            slots,
            asked: Vec::new(),
            #[cfg(feature = "streams")]
            history,
        })
    }

    /// Takes the room through a turn with all that has happened to sockets, and another event.
    pub(super) fn turn(
        &mut self,
        server: &Rc<S>,
        queue: &[Queued],
        first: Option<Asked<S>>,
        event: Option<Event<'_, S::Action>>,
    ) -> Turn<S> {
        let Self { sql, machine, slots, .. } = self;
        first.into_iter().for_each(|asked| machine.put_first(asked));
        let queued = queue.iter().filter_map(|queued| {
            let (id, frame) = queued.incoming();
            let slot = *slots.get(id)?;
            Some(frame.map_or(Event::Closed(slot), |frame| Event::Frame(slot, frame)))
        });
        let turn = turn(machine, server, sql, now(), queued.chain(event));
        // Before effects: a connection that comes in this turn may have the slot of one that left.
        for queued in queue {
            if let Queued::Closed(id) = queued
                && let Some(slot) = self.slots.remove(id)
                && let Some(socket) = self.sockets.get_mut(slot.0 as usize)
            {
                *socket = None;
            }
        }
        turn
    }

    pub(super) fn machine(&self) -> &Machine<S> {
        &self.machine
    }

    /// When the runtime last answered pings of those that the room wants to know of.
    pub(super) fn heard(&mut self, state: &js::State) -> Option<Event<'static, S::Action>> {
        let asked = std::mem::take(&mut self.asked);
        let heard = |slot: &Slot| Some((*slot, state.pinged_at(self.socket(*slot)?)?));
        (!asked.is_empty()).then(|| Event::Heard(asked.iter().filter_map(heard).collect()))
    }

    /// Whether handles have asked for something.
    pub(super) fn is_asked(&self) -> bool {
        self.machine.is_asked()
    }

    /// Whether whoever makes this request sees all rows, as the history holds them.
    #[cfg(feature = "streams")]
    pub(super) fn sees_all(
        &mut self,
        server: &S,
        request: &http::Request<()>,
    ) -> crate::Result<()> {
        self.machine.sees_all(server, &self.sql, request)
    }

    fn admit(&mut self, slot: Slot, id: String, socket: js::Socket) {
        let place = slot.0 as usize;
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
        }
        if let Some(free) = self.sockets.get_mut(place) {
            *free = Some(socket);
        }
        self.slots.insert(id, slot);
    }

    fn socket(&self, slot: Slot) -> Option<&js::Socket> {
        self.sockets.get(slot.0 as usize)?.as_ref()
    }

    /// Does what a turn has led to.
    ///
    /// # Errors
    /// Of the storage, where it takes part in an effect: the turn is to be taken back.
    pub(super) fn carry_out(
        &mut self,
        inner: &Rc<Inner<S>>,
        effects: Vec<Effect<S::Action>>,
    ) -> crate::Result<Option<Answer>> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Accept { slot, id } => {
                    if let Some(socket) = inner.arriving.borrow_mut().take() {
                        inner.state.accept_websocket_with_tags(&socket, &[&id]);
                        self.admit(slot, id, raw(&socket));
                    }
                    answer = Some(Answer::Accept);
                }
                Effect::Refuse { code, reason, frame, .. } => {
                    answer = Some(Answer::Refuse(code, reason, frame));
                }
                Effect::Send { slots, frame } => {
                    // Into JavaScript once for all.
                    let frame = JsString::from(&*frame);
                    for socket in slots.iter().filter_map(|slot| self.socket(*slot)) {
                        // A socket that is closing takes nothing more: its close event follows.
                        let _ = socket.send(&frame);
                    }
                }
                Effect::Close { slot, code, reason } => {
                    if let Some(socket) = self.socket(slot) {
                        let _ = socket.close(code, &reason);
                    }
                }
                Effect::StoreAttachment { slot, attachment } => {
                    if let Some(socket) = self.socket(slot) {
                        // The machine knows the limit: this is a runtime with another.
                        if let Err(error) = socket.serialize_attachment(&attachment) {
                            console_error!("partysync: an attachment: {}", js_error(&error));
                            let _ = socket.close(wire::CLOSE_TOO_BIG, "too_large");
                        }
                    }
                }
                Effect::AskHeard(slots) => self.asked = slots,
                Effect::Again => inner.gathered.set_again(),
                Effect::AgainAfter(millis) => inner.go_later(millis),
                Effect::SetAlarm(at) => set_alarm(&inner.js().storage(), at)?,
                #[cfg(feature = "streams")]
                Effect::Publish { to, messages } => {
                    if let Some(history) = &self.history {
                        history.publish(to, &messages)?;
                    }
                }
                Effect::Fault(fault) => inner.tell(&fault),
                Effect::Warn(message) => console_warn!("{message}"),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Sets the object's alarm: part of the turn, like what it writes.
pub(super) fn set_alarm(storage: &js::Storage, at: Option<Timestamp>) -> crate::Result<()> {
    let set = match at {
        // The runtime refuses times that are none.
        Some(at) => storage.set_alarm(at.as_millis().max(1) as f64),
        None => storage.delete_alarm(),
    };
    let set = JsFuture::from(set.map_err(|e| js_error(&e))?);
    spawn_local(async move {
        if let Err(error) = set.await {
            console_error!("partysync: the alarm was not set: {}", js_error(&error));
        }
    });
    Ok(())
}

pub(super) fn raw(socket: &WebSocket) -> js::Socket {
    let socket: &web_sys::WebSocket = socket.as_ref();
    JsValue::from(socket.clone()).unchecked_into()
}
