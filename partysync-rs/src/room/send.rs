//! What goes to connections: frames, errors, closes, and what is kept with their sockets.

use super::{Effect, Machine, Outgoing, Protocol, Slot};
use crate::wire::v2::ServerFrame;
use crate::wire::{self, v1};
use crate::{Error, SyncServer};
use std::rc::Rc;

impl<S: SyncServer> Machine<S> {
    /// What a client is told of an error: its own faults and the application's words as they
    /// are, the inside of the server as an id that the log has, too.
    pub(super) fn public(&mut self, error: Error, what: &str) -> Error {
        let (told, fault) = self.life.faults.public(error, what);
        if let Some(fault) = fault {
            self.effect(Effect::Fault(fault));
        }
        told
    }

    /// Tells a connection what was wrong.
    pub(super) fn tell(&mut self, slot: Slot, error: &Error) {
        let Some(entry) = self.slots.get(slot) else { return };
        let text = match entry.connection.protocol() {
            Protocol::V1 => v1::Frame::Exception { message: error.message() }.to_text(),
            Protocol::V2 => ServerFrame::error(error).to_text(),
        };
        self.send(slot, text);
    }

    /// Tells a connection what was wrong, and closes it.
    pub(super) fn tell_and_close(&mut self, slot: Slot, code: u16, error: &Error) {
        self.tell(slot, error);
        self.close(slot, code, error.code().as_str());
    }

    /// Sends a frame, unless the connection is closing.
    pub(super) fn send(&mut self, slot: Slot, frame: impl Into<Rc<str>>) {
        let (frame, most) = (frame.into(), self.unread_limit() * 2);
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else { return };
        // Errors and answers pile up, too, if nobody reads them.
        if entry.unread > most {
            self.close(slot, wire::CLOSE_BUSY, crate::Code::SlowReader.as_str());
            return;
        }
        if entry.connection.protocol() == Protocol::V2 {
            entry.unread += frame.len() as u64;
        }
        self.effect(Effect::Send { slots: vec![slot], frame });
    }

    /// Sends one frame to many connections, which are open.
    pub(super) fn send_all(&mut self, slots: Vec<Slot>, frame: impl Into<Rc<str>>) {
        if slots.is_empty() {
            return;
        }
        let frame = frame.into();
        for slot in &slots {
            if let Some(entry) = self.slots.get_mut(*slot)
                && entry.connection.protocol() == Protocol::V2
            {
                entry.unread += frame.len() as u64;
            }
        }
        self.effect(Effect::Send { slots, frame });
    }

    /// Sends one frame to those of these that are open. Who does not read is closed.
    pub(super) fn send_to(&mut self, slots: Vec<Slot>, frame: impl Into<Rc<str>>) {
        let most = self.unread_limit() * 2;
        let (open, slow): (Vec<_>, Vec<_>) = slots
            .into_iter()
            .filter(|slot| self.slots.get(*slot).is_some_and(|e| !e.closing))
            .partition(|slot| self.slots.get(*slot).is_some_and(|e| e.unread <= most));
        self.send_all(open, frame);
        for slot in slow {
            self.close(slot, wire::CLOSE_BUSY, crate::Code::SlowReader.as_str());
        }
    }

    /// Closes a connection: it is neither heard nor sent anything from here on.
    pub(super) fn close(&mut self, slot: Slot, code: u16, reason: &str) {
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else { return };
        entry.closing = true;
        entry.waiting.clear();
        entry.waiting_bytes = 0;
        self.leave(slot);
        self.present.count_anew();
        let Some(entry) = self.slots.get_mut(slot) else { return };
        // It stays closed if the room sleeps before its socket is gone.
        entry.connection.behind = true;
        if let Ok(attachment) = entry.connection.attachment() {
            self.effect(Effect::StoreAttachment { slot, attachment });
        }
        self.effect(Effect::Close { slot, code, reason: reason.to_owned() });
    }

    /// Sends what a hook has asked for.
    pub(super) fn send_out(&mut self, out: Vec<Outgoing>) {
        for outgoing in out {
            match outgoing {
                Outgoing::Message { slots, frame } => self.send_to(slots, frame),
                Outgoing::DeleteAll { channel } => {
                    let slots = self.slots.open(Protocol::V1).map(|(slot, _)| slot).collect();
                    self.send_all(slots, v1::Frame::DeleteAll { channel: &channel }.to_text());
                }
                Outgoing::Close { slot, code, reason } => self.close(slot, code, &reason),
            }
        }
    }

    /// Bytes that a connection may leave unread before it is sent no more patches.
    pub(super) fn unread_limit(&self) -> u64 {
        self.limits.pending_bytes.max(self.window())
    }

    /// Bytes under way to a connection that is fed.
    pub(super) fn window(&self) -> u64 {
        4 * self.limits.read_bytes()
    }

    pub(super) fn store_attachments(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let fed = self.with_backlog();
        for slot in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else {
                continue;
            };
            entry.connection.behind = entry.feed.is_some() || fed.contains(&slot);
            match entry.connection.attachment() {
                Ok(attachment) if entry.attachment.as_deref() != Some(attachment.as_str()) => {
                    entry.attachment = Some(attachment.clone());
                    self.effect(Effect::StoreAttachment { slot, attachment });
                }
                Ok(_) => {}
                Err(error) => self.tell_and_close(slot, wire::CLOSE_TOO_BIG, &error),
            }
        }
    }
}
