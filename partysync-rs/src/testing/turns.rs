//! The turns of a [`TestRoom`], and those that they lead to.

use super::TestRoom;
use crate::room::turn::Turn;
use crate::room::{Answered, Effect, Event, Opening};
use crate::{Code, Error, Result, SyncServer};
use futures::future::LocalBoxFuture;

impl<S: SyncServer> TestRoom<S> {
    /// A turn of a call that does not return what it sends.
    pub(super) fn turn_aside(&mut self, event: Event<'_, S::Action>) -> Result<()> {
        let done = self.turn([event]);
        self.unheard.append(&mut self.sent);
        done
    }

    pub(super) fn turn<'e>(
        &mut self,
        events: impl IntoIterator<Item = Event<'e, S::Action>>,
    ) -> Result<()> {
        self.take(Vec::new(), events)
    }

    /// Takes the room through a turn, and through those that it leads to.
    pub(super) fn take<'e>(
        &mut self,
        sockets: Vec<Option<String>>,
        events: impl IntoIterator<Item = Event<'e, S::Action>>,
    ) -> Result<()> {
        let turn = self.room.turn(&self.db, self.now, || opening(sockets), events)?;
        let refused = self.carry_out(turn)?;
        self.settle(None)?;
        refused.map_or(Ok(()), Err)
    }

    /// Goes through turns until no hook waits any more, nor a request for its answer.
    pub(super) fn settle(
        &mut self,
        mut request: Option<LocalBoxFuture<'static, Answered>>,
    ) -> Result<Option<Answered>> {
        let mut answered = None;
        loop {
            let woken = self.waiting.poll(&mut request, &mut answered);
            // What handles have asked for comes before what their hooks return.
            if self.room.is_asked() || std::mem::take(&mut self.again) {
                self.one_turn(None)?;
            } else if !self.asked.is_empty() {
                let heard = |slot| Some((slot, *self.pinged.get(self.ids.get(&slot)?)?));
                let heard = std::mem::take(&mut self.asked).into_iter().filter_map(heard);
                let heard = heard.collect();
                self.one_turn(Some(Event::Heard(heard)))?;
            } else if let Some(done) = self.waiting.done() {
                self.one_turn(Some(Event::HookDone(done)))?;
            } else if self.waiting.is_empty() && request.is_none() {
                return Ok(answered);
            } else if !woken && !self.waiting.park() {
                let message = "a hook waits for something that does not come";
                return Err(Error::new(Code::Internal, message));
            }
        }
    }

    fn one_turn(&mut self, event: Option<Event<'_, S::Action>>) -> Result<()> {
        let turn = self.room.turn(&self.db, self.now, || opening(Vec::new()), event)?;
        self.carry_out(turn).map(drop)
    }

    pub(super) fn tell(&mut self, fault: &crate::Fault) {
        // A test that fails shows it: who acts hears as little as users do.
        eprintln!("{fault}");
        self.logged.push(fault.to_string());
        self.room.server().on_error(fault);
    }

    /// Does what a turn has led to; why a connection was refused.
    pub(super) fn carry_out(&mut self, turn: Turn<S>) -> Result<Option<Error>> {
        let aborted = turn.aborted.inspect(|_| self.ids.clear());
        let mut refused = None;
        for effect in turn.effects {
            match effect {
                Effect::Accept { slot, id } => {
                    self.pinged.remove(&id);
                    self.closed.remove(&id);
                    self.ids.insert(slot, id);
                }
                Effect::Refuse { error, .. } => refused = Some(error),
                Effect::Send { slots, frame } => {
                    let to = slots.iter().filter_map(|slot| self.ids.get(slot));
                    self.sent.extend(to.map(|id| (id.clone(), frame.to_string())));
                }
                Effect::Close { slot, code, reason } => {
                    let id = self.ids.get(&slot).cloned().unwrap_or_default();
                    let how = format!("close {code} {reason}");
                    self.closed.insert(id.clone(), how.clone());
                    self.sent.push((id, how));
                }
                Effect::Again => self.again = true,
                Effect::AgainAfter(millis) => {
                    self.later = Some(self.now.plus_millis(i64::from(millis)));
                }
                Effect::AskHeard(slots) => self.asked = slots,
                Effect::SetAlarm(at) => self.alarm = at,
                Effect::Fault(fault) => self.tell(&fault),
                Effect::Warn(message) => self.logged.push(message),
                Effect::StoreAttachment { slot, attachment } => {
                    self.attachments.insert(slot, attachment);
                }
                Effect::Publish { .. } | Effect::RunHook(_) | Effect::Abort(_) => {}
            }
        }
        if let Some(error) = aborted {
            // What waits goes on, and hears that the room is gone.
            self.again = false;
            return Err(error);
        }
        self.waiting.add(turn.hooks, turn.after);
        Ok(refused)
    }
}

pub(super) fn opening(sockets: Vec<Option<String>>) -> Opening {
    Opening {
        name: Some("test".to_owned()),
        fresh_epoch: "epoch".to_owned(),
        sockets,
        published: None,
    }
}
