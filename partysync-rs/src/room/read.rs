//! What comes from connections: each frame is read when nothing before it is awaited, within its
//! connection's limits.

use super::v1::Call;
use super::{Caller, Incoming, Machine, Protocol, Slot};
use crate::sql::Sql;
use crate::wire::{self, v1};
use crate::{Error, Result, SyncServer};

/// What a frame that waits takes beside its text.
const FRAME_BYTES: usize = 64;

impl<S: SyncServer> Machine<S> {
    pub(super) fn frame(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        frame: Incoming<'_>,
    ) -> Result<()> {
        let limits = self.limits;
        let now = self.meta.now;
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else {
            return Ok(());
        };
        entry.heard = now;
        let text = match frame {
            Incoming::Text(text) if text.len() <= limits.frame_bytes => text,
            Incoming::Text(_) | Incoming::Long(_) => {
                let found = match frame {
                    Incoming::Text(text) => text.len(),
                    Incoming::Long(length) | Incoming::Binary(length) => length,
                };
                let limit = limits.frame_bytes;
                let message = format!("a frame of {found} bytes; the limit is {limit}");
                let error = Error::new(crate::Code::TooLarge, message);
                self.tell_and_close(slot, wire::CLOSE_TOO_BIG, &error);
                return Ok(());
            }
            Incoming::Binary(bytes) => {
                if !self.takes(slot, 0, bytes) {
                    return Ok(());
                }
                let message = "a binary frame: the protocol is JSON text";
                let error = Error::new(crate::Code::InvalidFrame, message);
                self.tell(slot, &error);
                return Ok(());
            }
        };
        // Who is here has no order with what is done.
        if !entry.awaits || text.starts_with(r#"{"type":"presence""#) {
            return self.read(server, sql, slot, text);
        }
        // What waits behind a hook has a bound, too.
        entry.waiting_bytes += text.len() + FRAME_BYTES;
        if entry.waiting_bytes > limits.frame_bytes.saturating_mul(4) {
            let message = "too much was sent while an earlier frame is worked on";
            let error = Error::new(crate::Code::RateLimited, message);
            self.tell_and_close(slot, wire::CLOSE_BUSY, &error);
        } else {
            entry.waiting.push_back(text.to_owned());
        }
        Ok(())
    }

    /// Reads the frames that waited for a hook, until one waits for another.
    pub(super) fn read_waiting(&mut self, server: &S, sql: &dyn Sql, slot: Slot) -> Result<()> {
        loop {
            let Some(entry) = self.slots.get_mut(slot).filter(|e| !e.awaits && !e.closing) else {
                return Ok(());
            };
            let Some(frame) = entry.waiting.pop_front() else { return Ok(()) };
            entry.waiting_bytes = entry.waiting_bytes.saturating_sub(frame.len() + FRAME_BYTES);
            self.read(server, sql, slot, &frame)?;
        }
    }

    /// Whether a connection may send this now. One that may not is closed.
    pub(super) fn takes(&mut self, slot: Slot, actions: usize, bytes: usize) -> bool {
        let (limits, now) = (self.limits, self.meta.now);
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        let fits = entry.rate.takes(limits.allowed(), now, actions, bytes);
        if !fits {
            let rate = limits.actions_per_second;
            let message = format!("more than {rate} actions a second: come again later");
            let error = Error::new(crate::Code::RateLimited, message);
            self.tell_and_close(slot, wire::CLOSE_BUSY, &error);
        }
        fits
    }

    fn read(&mut self, server: &S, sql: &dyn Sql, slot: Slot, text: &str) -> Result<()> {
        // The runtime answers this one; a host without such a thing gets the answer from here.
        if text == wire::PING {
            self.send(slot, wire::PONG);
            return Ok(());
        }
        let Some(entry) = self.slots.get(slot) else { return Ok(()) };
        match entry.connection.protocol() {
            Protocol::V1 => self.read_v1(server, sql, slot, text),
            Protocol::V2 => self.read_v2(server, sql, slot, text),
        }
    }

    fn read_v1(&mut self, server: &S, sql: &dyn Sql, slot: Slot, text: &str) -> Result<()> {
        if !self.takes(slot, 1, text.len()) {
            return Ok(());
        }
        match v1::Request::parse(text) {
            Err(error) => self.tell(slot, &error.clipped()),
            Ok(v1::Request::Sync { channel, from }) => match Self::place(&channel) {
                Err(error) => self.tell(slot, &error),
                Ok(place) => {
                    self.flush(server, sql, None)?;
                    self.sync_v1(sql, slot, place, from)?;
                }
            },
            Ok(v1::Request::Rpc { channel, id, action }) => {
                let action = Self::parse_action(&channel, &action);
                self.call(slot, Call { channel, id }, action);
            }
        }
        Ok(())
    }

    fn read_v2(&mut self, server: &S, sql: &dyn Sql, slot: Slot, text: &str) -> Result<()> {
        use wire::v2::ClientFrame;
        let frame = ClientFrame::parse(text);
        let actions = match &frame {
            Ok(ClientFrame::Push(push)) => push.actions.len(),
            Ok(ClientFrame::Presence { .. }) => self.presence_costs(slot),
            _ => 0,
        };
        if !self.takes(slot, actions, text.len()) {
            return Ok(());
        }
        match frame {
            Err(error) => self.tell(slot, &error.clipped()),
            Ok(ClientFrame::Hello(hello)) => {
                self.flush(server, sql, None)?;
                self.hello(server, sql, slot, hello)?;
            }
            Ok(ClientFrame::Push(push)) => self.push(sql, slot, push)?,
            Ok(ClientFrame::Read(bytes)) => {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.unread = entry.unread.saturating_sub(bytes);
                    if entry.feed.is_some() {
                        self.hungry.insert(slot);
                    }
                }
            }
            Ok(ClientFrame::Presence { topic, state }) => {
                self.say_present(server, sql, slot, (topic, state))?;
            }
            Ok(ClientFrame::Message(message)) => {
                let result = self.hook(server, sql, Caller::Connection(slot), |room| {
                    server.on_message(room, message)
                })?;
                if let Err(error) = result {
                    let error = self.public(error, "on_message");
                    self.tell(slot, &error);
                }
            }
        }
        Ok(())
    }
}
