//! What a server's frames do to a peer.

use super::{MAYBE, State};
use crate::gathered::gathered;
use crate::peer::{Now, Output, Peer};
use partysync::wire::v2::{ClientFrame, ServerFrame};
use partysync::wire::{PONG, READ_BYTES};
use partysync::{Action, Code, Error, Result};
use std::collections::BTreeSet;

impl<A: Action> Peer<A> {
    /// A frame came.
    pub(in crate::peer) fn received(&mut self, text: &str, now: Now) {
        if !matches!(self.connection.state, State::Greeting { .. } | State::Live) {
            // Of a socket that was given up.
            return;
        }
        self.connection.heard_at = now.monotonic;
        (self.connection.pong_by, self.connection.slept) = (None, false);
        if text == PONG {
            self.connection.pongs += 1;
            return;
        }
        self.connection.read += text.len() as u64;
        let result = ServerFrame::parse(text).and_then(|frame| match frame {
            Some(frame) => self.frame(frame, now),
            None => Ok(()),
        });
        if let Err(error) = result {
            // Start over from what is known to be right.
            self.report(error.clone());
            self.lost(&error, MAYBE, now);
        }
        let connected = matches!(self.connection.state, State::Greeting { .. } | State::Live);
        if connected && self.connection.read >= self.connection.read_bytes {
            self.tell_read(now);
        }
    }

    /// Tells the room what was read.
    pub(super) fn tell_read(&mut self, now: Now) {
        self.connection.told_at = now.monotonic;
        let read = ClientFrame::Read(std::mem::take(&mut self.connection.read));
        self.send(read.to_text());
    }

    fn frame(&mut self, frame: ServerFrame, now: Now) -> Result<()> {
        let greeting = matches!(self.connection.state, State::Greeting { .. });
        match frame {
            ServerFrame::Welcome(welcome) => {
                self.replica.set_epoch(&welcome.epoch);
                let changes = self.replica.set_identity(welcome.identity);
                self.change(changes);
                self.connection.read_bytes = welcome.read.unwrap_or(READ_BYTES).max(1);
                self.connection.unauthorized = false;
                self.connection.room_time = (welcome.now, now.monotonic);
                self.connection.told_at = now.monotonic;
                if let State::Greeting { welcomed, missing, .. } = &mut self.connection.state {
                    *welcomed = true;
                    let done = missing.is_empty();
                    self.expect(now);
                    if done {
                        self.live(now);
                    }
                }
            }
            // Those of a connection that is live have come before.
            ServerFrame::Reset(_) if !greeting => {}
            ServerFrame::Reset(_) => self.replica.reset(),
            ServerFrame::CatchUp(_)
                if matches!(self.connection.state, State::Greeting { welcomed: false, .. }) =>
            {
                return Err(Error::new(Code::InvalidFrame, "rows came before `welcome`"));
            }
            ServerFrame::CatchUp(page) if !self.connection.misses(&page.channel) => {
                self.replica.follows(&page.channel)?;
            }
            ServerFrame::CatchUp(page) => {
                let channel = page.channel.clone();
                let (sent, all) = (page.sent, page.total);
                let (complete, changes) = self.replica.catch_up(page)?;
                self.change(changes);
                if let State::Greeting { missing, before, received, total, .. } =
                    &mut self.connection.state
                {
                    *received = before.saturating_add(sent);
                    *total = before.saturating_add(all.max(sent));
                    if complete {
                        *before = *received;
                    }
                    if complete {
                        missing.remove(&channel);
                    }
                    let done = missing.is_empty();
                    self.expect(now);
                    if done {
                        self.live(now);
                    }
                }
            }
            ServerFrame::Patch(patch) => {
                let (to, answered) = (patch.to, !patch.acks.is_empty());
                let applied = self.replica.patch(patch)?;
                self.change(applied.changes);
                if answered {
                    let clients: BTreeSet<_> =
                        gathered(applied.answers.iter().map(|answer| answer.client.clone()));
                    self.tell_answered(&applied.answers, to);
                    for answer in applied.answers {
                        self.answer(answer);
                    }
                    self.tell_settled(self.replica.settled(|client| clients.contains(client)));
                    let waits = self.replica.waits();
                    self.connection.attempt = 0;
                    if !waits {
                        self.connection.answered(&self.timing, now);
                    }
                    let patience = self.connection.patient(self.timing.answer_ms);
                    self.connection.answer_by =
                        waits.then_some(now.monotonic.saturating_add(patience));
                    self.push(now);
                }
            }
            ServerFrame::Presence(present) => self.hears_present(present),
            ServerFrame::Message(message) => self.outputs.push_back(Output::Message(message)),
            // It is why the connection ends, and comes again with each attempt.
            ServerFrame::Error(error)
                if matches!(self.connection.state, State::Greeting { welcomed: false, .. }) =>
            {
                let error = Error::new(Code::from_name(&error.code), error.message);
                self.connection.told = Some(error);
            }
            ServerFrame::Error(error) => {
                self.report(Error::new(Code::from_name(&error.code), error.message));
            }
        }
        Ok(())
    }

    /// Nothing is missing any more.
    fn live(&mut self, now: Now) {
        self.connection.state = State::Live;
        self.connection.live_since = Some(now.monotonic);
        self.connection.answer_by = None;
        self.push(now);
    }
}
