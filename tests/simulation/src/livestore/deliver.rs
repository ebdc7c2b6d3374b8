//! What is under way in the world of a store: effects of its turns, frames, calls, time.

use super::client::{Client, Read, STORE};
use super::world::{World, Wrong};
use partysync::livestore::{Caller, Effect, EventInput, Input, Transport};
use partysync::room::{Incoming, Slot};
use partysync::{Code, Error};
use serde_json::Value as Json;

fn caller(transport: Transport) -> Caller {
    Caller { store_id: STORE.to_owned(), payload: None, headers: Vec::new(), transport }
}

impl World {
    fn client_at(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.slot.is_some_and(|(own, _)| own == slot))
    }

    /// Does what a turn has led to.
    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Accept(slot, serial) => {
                self.sockets.insert(slot, String::new());
                if let Some(index) = self.arriving.take() {
                    self.clients[index].slot = Some((slot, serial));
                }
            }
            Effect::Send(slot, frame) => {
                if let Some(client) = self.client_at(slot) {
                    client.down.push_back(frame);
                }
            }
            Effect::Finish(slot) => {
                self.sockets.remove(&slot);
                if let Some(client) = self.client_at(slot) {
                    client.slot = None;
                }
            }
            Effect::Close(slot, ..) => {
                if let Some(client) = self.client_at(slot) {
                    client.gone();
                }
                self.ghosts.insert(slot);
            }
            Effect::StoreAttachment(slot, text) => drop(self.sockets.insert(slot, text)),
            Effect::SetAlarm(at) => self.alarm = at,
            Effect::Call(number, whom, frame) => self.calls.push_back((number, whom, frame)),
            Effect::Log(_, text) => self.note(|| format!("    log: {text}")),
            Effect::Refuse(_, why) => self.note(|| format!("    refused: {why}")),
            effect => {
                let (life, head) = (self.life, self.context().map_or(0, |context| context.head));
                if let Some(remote) = &mut self.remote {
                    remote.ask(life, head, effect);
                }
            }
        }
    }

    /// A client does what it does next.
    pub(crate) fn go(&mut self, index: usize) {
        if self.clients[index].room.is_some() {
            return self.room_goes(index);
        }
        let client = &mut self.clients[index];
        if client.object {
            if client.slot.is_some() || !client.down.is_empty() {
                return;
            }
            let text = match client.pull {
                None => Some(client.pulls()),
                Some(_) if client.takes_calls => client.pushes(),
                Some(_) => None,
            };
            let Some(text) = text else { return };
            self.arrives(index, Input::Call(caller(Transport::Rpc), &text));
            let client = &mut self.clients[index];
            if client.slot.is_none() && client.down.is_empty() {
                client.call_failed();
            }
            return;
        }
        if client.slot.is_none() {
            return self.arrives(index, Input::Connect(caller(Transport::WebSocket)));
        }
        if client.pull.is_none() {
            let text = client.pulls();
            client.up.push_back(text);
        }
        if let Some(text) = client.pushes() {
            client.up.push_back(text);
        }
    }

    /// A room makes the call that it has to make.
    fn room_goes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(room) = client.room.as_mut().filter(|room| room.calling.is_none()) else {
            return;
        };
        let Some((number, text)) = room.calls.pop_front() else { return };
        room.calling = Some(number);
        self.note(|| format!("    {index} > {text}"));
        self.arrives(index, Input::Call(caller(Transport::Rpc), &text));
        let client = &mut self.clients[index];
        if client.slot.is_none() && client.down.is_empty() {
            client.call_failed();
        }
    }

    /// A room reads a part of an answer.
    fn room_reads(&mut self, index: usize, text: String) -> Result<(), Wrong> {
        let client = &mut self.clients[index];
        let Some(room) = &mut client.room else { return Ok(()) };
        if let Some(number) = room.calling {
            room.input(EventInput::Message(number, text))?;
        }
        match client.slot {
            Some((slot, serial)) => self.turn(Some(Input::Taken(slot, serial))),
            None if client.down.is_empty() => room.ended(Ok(()))?,
            None => {}
        }
        // It may be the last that it was waiting for.
        let client = &mut self.clients[index];
        if let (None, true, Some(room)) =
            (client.slot, client.down.is_empty(), client.room.as_mut())
        {
            room.ended(Ok(()))?;
        }
        Ok(())
    }

    fn arrives(&mut self, index: usize, input: Input<'_>) {
        self.arriving = Some(index);
        self.turn(Some(input));
        self.arriving = None;
    }

    pub(crate) fn up(&mut self, index: usize) {
        self.wake();
        let client = &mut self.clients[index];
        if let Some((slot, _)) = client.slot
            && let Some(text) = client.up.pop_front()
        {
            self.note(|| format!("    {index} > {text}"));
            self.turn(Some(Input::Frame(slot, Incoming::Text(&text))));
        }
    }

    pub(crate) fn down(&mut self, index: usize) -> Result<(), Wrong> {
        self.wake();
        let Some(text) = self.clients[index].down.pop_front() else { return Ok(()) };
        self.note(|| format!("    {index} < {text}"));
        if self.clients[index].room.is_some() {
            return self.room_reads(index, text);
        }
        let Read { answers, acknowledged, started_over } = self.clients[index].read(&text)?;
        self.acknowledged.extend(acknowledged);
        let client = &mut self.clients[index];
        if started_over {
            return Ok(());
        }
        if !client.object {
            client.up.extend(answers);
        } else if let Some((slot, serial)) = client.slot {
            self.turn(Some(Input::Taken(slot, serial)));
        }
        Ok(())
    }

    /// A client's connection breaks, which the server notices later; an object is rebuilt.
    pub(crate) fn cut(&mut self, index: usize) {
        self.wake();
        let client = &mut self.clients[index];
        let slot = client.slot;
        client.gone();
        match slot {
            Some((slot, serial)) if client.object => {
                self.sockets.remove(&slot);
                self.turn(Some(Input::Gone(slot, serial)));
            }
            Some((slot, _)) => drop(self.ghosts.insert(slot)),
            None => {}
        }
    }

    pub(crate) fn notice(&mut self) {
        self.wake();
        while let Some(slot) = self.ghosts.pop_first() {
            self.sockets.remove(&slot);
            self.turn(Some(Input::Closed(slot)));
        }
    }

    /// A call reaches its object, which takes it when it has handled the end of its pull.
    pub(crate) fn called(&mut self, well: bool) -> Result<(), Wrong> {
        let Some((number, whom, frame)) = self.calls.pop_front() else { return Ok(()) };
        let result = match well {
            true => Ok(()),
            false => Err(Error::new(Code::Unavailable, "the object fails")),
        };
        self.note(|| format!("    call of {}: {well} {frame}", whom.object));
        let object = self.clients.iter_mut().find(|client| client.name == whom.object);
        if let Some(room) = object.filter(|_| well).and_then(|object| object.room.as_mut()) {
            room.input(EventInput::Update(frame))?;
        } else if let Some(object) =
            self.clients.iter_mut().find(|client| client.name == whom.object).filter(|_| well)
        {
            let frame: Json = serde_json::from_str(&frame).map_err(|e| e.to_string())?;
            if object.takes_calls && object.pull.as_deref() == frame["requestId"].as_str() {
                object.chunk(&frame["values"][0])?;
            }
        }
        let crashes = self.crashes;
        self.turn(Some(Input::Called(number, result)));
        let object = self.clients.iter_mut().find(|client| client.name == whom.object);
        if let Some(object) = object.filter(|_| self.crashes > crashes) {
            object.may_repeat = true;
        }
        Ok(())
    }

    /// Time passes; what was answered to objects is handled before.
    pub(crate) fn wait(&mut self, millis: i64) -> Result<(), Wrong> {
        for index in 0..self.clients.len() {
            while self.clients[index].object && !self.clients[index].down.is_empty() {
                self.down(index)?;
            }
        }
        let end = self.now.plus_millis(millis);
        while let Some(at) = self.alarm.filter(|at| *at <= end) {
            self.alarm = None;
            self.now = self.now.max(at);
            self.turn(Some(Input::Alarm));
        }
        self.now = end;
        let mut rooms = self.clients.iter_mut().filter_map(|client| client.room.as_mut());
        rooms.try_for_each(|room| room.wait(millis))
    }
}
