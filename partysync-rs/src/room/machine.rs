//! [`Machine`]: the state of a room, and the turn.

use super::event::Call;
use super::feed::Cache;
use super::flush::V1Call;
use super::push::Pending;
use super::stamped::{Stamped, Written};
use super::view::Views;
use super::{
    Connection, Effect, Event, Hook, Incoming, Level, Limits, Opening, Outgoing, Protocol, Slot,
    Slots,
};
use crate::record::Schema;
use crate::sql::Sql;
use crate::store::{self, Meta, Plan};
use crate::wire::v2::ServerFrame;
use crate::wire::{self, v1};
use crate::{Action, Error, Result, SyncServer, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// A room. See the [module](super) for what a driver does with it.
pub struct Machine<S: SyncServer> {
    pub(super) limits: Limits,
    pub(super) plans: Vec<Plan>,
    pub(super) meta: Meta,
    /// What of `meta` is in the database.
    pub(super) stored: Stored,
    /// The version that connections have been sent.
    pub(super) flushed: u64,
    pub(super) slots: Slots,
    pub(super) views: Views,
    pub(super) clients: HashMap<Rc<str>, Client>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) tickets: u64,
    /// Clients whose seq is to be written at the end of the turn.
    pub(super) unsaved: BTreeSet<Rc<str>>,
    /// Connections with answers that were not sent yet.
    pub(super) acked: BTreeSet<Slot>,
    /// Connections that may be sent more of what they lack.
    pub(super) hungry: BTreeSet<Slot>,
    /// Connections whose attachment may be out of date.
    pub(super) dirty: BTreeSet<Slot>,
    /// `after_commit`s of this turn.
    pub(super) committed: Vec<Hook<S::Action>>,
    pub(super) cache: Cache,
    pub(super) written: Written,
    /// The alarm as the runtime has it.
    pub(super) alarm_set: Option<Timestamp>,
    /// The version that the history ends with.
    #[cfg(feature = "streams")]
    pub(super) published: Option<u64>,
    fresh_epoch: String,
    faults: u64,
    broken: bool,
    effects: VecDeque<Effect<S::Action>>,
}

/// Which storage an epoch is of: one that was set back has another epoch, and is the same.
pub(super) fn storage_of(epoch: &str) -> &str {
    epoch.split_once('.').map_or(epoch, |(storage, _)| storage)
}

/// What of a room's meta row was written last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) alarm_at: Option<Timestamp>,
    pub(super) alarm_failures: u32,
    pub(super) trim_at: Option<Timestamp>,
}

impl Stored {
    pub(super) fn of(meta: &Meta) -> Self {
        let Meta { alarm_at, alarm_failures, trim_at, .. } = *meta;
        Self { alarm_at, alarm_failures, trim_at }
    }
}

/// A client that is connected.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) seq: Seq,
    pub(super) connections: u32,
    /// Whether its seq is to be written at the end of the turn.
    pub(super) unsaved: bool,
}

/// The last action of a client that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Seq {
    /// It was not looked up in this life of the room.
    #[default]
    Unknown,
    /// The room has forgotten the client.
    Forgotten,
    /// This one.
    At(u64),
}

impl<S: SyncServer> std::fmt::Debug for Machine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.meta.name)
            .field("version", &self.meta.version)
            .field("connections", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<S: SyncServer> Machine<S> {
    /// The record types.
    pub(super) const SCHEMAS: &'static [&'static Schema] = S::Action::CHANNELS;

    /// Opens the room on its database and calls `on_start`. It is the first thing of a turn.
    ///
    /// # Errors
    /// [`Code::Migration`](crate::Code::Migration), or what `on_start` returned: the room refuses
    /// connections with it. With [`Code::Storage`](crate::Code::Storage) the turn is aborted.
    pub fn open(server: &S, sql: &dyn Sql, now: Timestamp, opening: Opening) -> Result<Self> {
        // Without it, a row that INSERT OR REPLACE removes fires no delete trigger.
        sql.exec("PRAGMA recursive_triggers = ON", &[])?;
        let mut meta = None;
        sql.transaction(&mut || {
            let mut opened = store::open(sql, Self::SCHEMAS, now, &opening.fresh_epoch)?;
            if let Some(name) = opening.name.as_ref().filter(|_| opened.name.is_none()) {
                store::set_name(sql, name)?;
                opened.name = Some(name.clone());
            }
            meta = Some(opened);
            Ok(())
        })?;
        let meta = meta.ok_or_else(|| Error::retry("the room did not open"))?;
        let limits = server.limits();
        let mut machine = Self {
            limits,
            plans: Self::SCHEMAS
                .iter()
                .map(|schema| Plan::new(schema, limits.page_bytes))
                .collect::<Result<_>>()?,
            stored: Stored::of(&meta),
            flushed: meta.version,
            slots: Slots::default(),
            views: Views::default(),
            clients: HashMap::new(),
            pending: BTreeMap::new(),
            tickets: 0,
            unsaved: BTreeSet::new(),
            acked: BTreeSet::new(),
            hungry: BTreeSet::new(),
            dirty: BTreeSet::new(),
            committed: Vec::new(),
            cache: Cache::default(),
            written: Written::default(),
            alarm_set: Stored::of(&meta).next().filter(|at| *at > meta.now),
            #[cfg(feature = "streams")]
            published: opening.published,
            fresh_epoch: opening.fresh_epoch,
            faults: 0,
            broken: false,
            effects: VecDeque::new(),
            meta,
        };
        machine.wake(opening.sockets);
        machine.hook(sql, None, |room| server.on_start(room))??;
        Ok(machine)
    }

    /// Takes the sockets that an earlier life of the room left open.
    fn wake(&mut self, sockets: Vec<Option<String>>) {
        let mut unusable = Vec::new();
        for attachment in sockets {
            let slot = self.slots.reserve();
            let connection = attachment.as_deref().and_then(Connection::from_attachment);
            // One that was sent a part of what it lacks has to say what it has.
            let usable = connection.filter(|connection| !connection.behind);
            let Some(connection) = usable else {
                self.effects.push_back(Effect::Close {
                    slot,
                    code: wire::CLOSE_RESTART,
                    reason: "restart".to_owned(),
                });
                unusable.push(slot);
                continue;
            };
            let view = connection
                .client
                .is_some()
                .then(|| self.views.intern(Self::SCHEMAS, &connection.channels));
            if let Some(client) = connection.client.as_deref() {
                self.clients.entry(client.into()).or_default().connections += 1;
            }
            self.slots.put(slot, connection);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.view = view;
                entry.attachment = attachment;
            }
        }
        unusable.into_iter().for_each(|slot| self.slots.release(slot));
    }

    /// What the room takes from clients.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The room's version: how many changes of rows were committed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.meta.version
    }

    /// The epoch of the room's storage.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.meta.epoch
    }

    /// A connection as it is now.
    #[must_use]
    pub fn connection(&self, slot: Slot) -> Option<&Connection> {
        self.slots.get(slot).map(|entry| &entry.connection)
    }

    /// How many pushes wait for a hook.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.pending.len()
    }

    /// What the driver has to do next.
    pub fn poll_effect(&mut self) -> Option<Effect<S::Action>> {
        self.effects.pop_front()
    }

    /// Something happens. Time is the host's; the room's never goes back.
    pub fn handle(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        now: Timestamp,
        event: Event<'_, S::Action>,
    ) {
        if self.broken {
            return;
        }
        self.meta.now = self.meta.now.max(now);
        let result = match event {
            Event::Connect { wanted, fresh_id, protocol, request } => {
                self.connect(server, sql, (wanted, fresh_id), protocol, request)
            }
            Event::Frame(slot, frame) => self.frame(server, sql, slot, frame),
            Event::HookDone(done) => self.hook_done(server, sql, done),
            Event::Closed(slot) => self.closed(server, sql, slot),
            Event::Alarm => self.alarm(server, sql),
            Event::Request(request) => self.request(server, sql, request),
        };
        if let Err(error) = result {
            self.abort(error);
        }
    }

    /// The turn is over: what it has changed is sent, and what the room has to remember written.
    pub fn end_turn(&mut self, sql: &dyn Sql) {
        if self.broken {
            return;
        }
        if let Err(error) = self.finish(sql) {
            self.abort(error);
        }
    }

    fn finish(&mut self, sql: &dyn Sql) -> Result<()> {
        self.flush(sql, None)?;
        self.save_clients(sql)?;
        for slot in std::mem::take(&mut self.hungry) {
            self.feed(sql, slot)?;
        }
        #[cfg(feature = "streams")]
        self.publish(sql)?;
        self.set_alarms(sql)?;
        self.store_attachments();
        for hook in std::mem::take(&mut self.committed) {
            self.effects.push_back(Effect::RunHook(hook));
        }
        self.written = Written::default();
        Ok(())
    }

    /// The storage failed: nothing of this turn happens.
    fn abort(&mut self, error: Error) {
        self.broken = true;
        self.effects.retain(|effect| matches!(effect, Effect::Log { .. }));
        self.log(Level::Error, format!("the storage failed, and the room starts anew: {error}"));
        self.effects.push_back(Effect::Abort(error));
    }

    pub(super) fn effect(&mut self, effect: Effect<S::Action>) {
        self.effects.push_back(effect);
    }

    pub(super) fn log(&mut self, level: Level, message: String) {
        let room = self.meta.name.as_deref().unwrap_or_default();
        let message = format!("partysync room `{room}`: {message}");
        self.effects.push_back(Effect::Log { level, message });
    }

    pub(super) fn stamped<'s>(&'s self, sql: &'s dyn Sql) -> Stamped<'s> {
        Stamped { sql, now: self.meta.now, written: &self.written }
    }

    /// Gives the storage another epoch.
    pub(super) fn renew_epoch(&mut self, sql: &dyn Sql) -> Result<()> {
        // It says that the storage is the same: what was done in it may still be there.
        let (storage, fresh) = (storage_of(&self.meta.epoch), &self.fresh_epoch);
        let epoch = format!("{storage}.{fresh}-{}", self.meta.now.as_millis());
        store::set_epoch(sql, &epoch)?;
        self.meta.epoch = epoch;
        let open: Vec<_> = self.slots.open(Protocol::V2).map(|(slot, _)| slot).collect();
        for slot in open {
            self.close(slot, wire::CLOSE_RESTART, "restart");
        }
        Ok(())
    }

    /// What a client is told of an error: its own faults and the application's words as they
    /// are, the inside of the server as a number that the log has, too.
    pub(super) fn public(&mut self, error: Error, what: &str) -> Error {
        use crate::Code::{Internal, InvalidValue, Migration, Sql, Storage, UnhandledAction};
        let error = error.clipped();
        match error.code() {
            code @ (Internal | Sql | Storage | Migration | UnhandledAction) => {
                self.faults += 1;
                let id = format!("{:x}-{}", self.meta.now.as_millis(), self.faults);
                self.log(Level::Error, format!("{what} failed (error {id}): {code}: {error}"));
                if code == UnhandledAction {
                    return error;
                }
                Error::new(code, format!("the server failed (error {id})"))
            }
            InvalidValue => error,
            _ => error,
        }
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
        let frame = frame.into();
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else { return };
        if entry.connection.protocol() == Protocol::V2 {
            entry.unread += frame.len() as u64;
        }
        self.effects.push_back(Effect::Send { slots: vec![slot], frame });
    }

    /// Sends one frame to many connections, which are open.
    pub(super) fn send_all(&mut self, slots: Vec<Slot>, frame: impl Into<Rc<str>>) {
        if slots.is_empty() {
            return;
        }
        let frame = frame.into();
        for slot in &slots {
            if let Some(entry) = self.slots.get_mut(*slot) {
                entry.unread += frame.len() as u64;
            }
        }
        self.effects.push_back(Effect::Send { slots, frame });
    }

    /// Closes a connection: it is neither heard nor sent anything from here on.
    pub(super) fn close(&mut self, slot: Slot, code: u16, reason: &str) {
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else { return };
        entry.closing = true;
        entry.waiting.clear();
        entry.waiting_bytes = 0;
        self.effects.push_back(Effect::Close { slot, code, reason: reason.to_owned() });
    }

    /// Sends what a hook has asked for.
    pub(super) fn send_out(&mut self, out: Vec<Outgoing>) {
        for outgoing in out {
            match outgoing {
                Outgoing::Message { slots, frame } => {
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
        4 * self.limits.page_bytes as u64
    }

    fn frame(&mut self, server: &S, sql: &dyn Sql, slot: Slot, frame: Incoming<'_>) -> Result<()> {
        let limits = self.limits;
        let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else {
            return Ok(());
        };
        let text = match frame {
            Incoming::Text(text) if text.len() <= limits.frame_bytes => text,
            Incoming::Text(text) => {
                let (found, limit) = (text.len(), limits.frame_bytes);
                let message = format!("a frame of {found} bytes; the limit is {limit}");
                let error = Error::new(crate::Code::TooLarge, message);
                self.tell_and_close(slot, wire::CLOSE_TOO_BIG, &error);
                return Ok(());
            }
            Incoming::Binary(_) => {
                let message = "a binary frame: the protocol is JSON text";
                let error = Error::new(crate::Code::InvalidFrame, message);
                self.tell(slot, &error);
                return Ok(());
            }
        };
        if !entry.awaits {
            return self.read(server, sql, slot, text);
        }
        // What waits behind a hook has a bound, too.
        entry.waiting_bytes += text.len();
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
            entry.waiting_bytes = entry.waiting_bytes.saturating_sub(frame.len());
            self.read(server, sql, slot, &frame)?;
        }
    }

    /// Whether a connection may send this now. One that may not is closed.
    pub(super) fn takes(&mut self, slot: Slot, actions: usize, bytes: usize) -> bool {
        let (limits, now) = (self.limits, self.meta.now);
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        let fits = entry.rate.takes(&limits, now, actions, bytes);
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
            Protocol::V1 => self.read_v1(sql, slot, text),
            Protocol::V2 => self.read_v2(server, sql, slot, text),
        }
    }

    fn read_v1(&mut self, sql: &dyn Sql, slot: Slot, text: &str) -> Result<()> {
        if !self.takes(slot, 1, text.len()) {
            return Ok(());
        }
        match v1::Request::parse(text) {
            Err(error) => self.tell(slot, &error.clipped()),
            Ok(v1::Request::Sync { channel, from }) => match Self::place(&channel) {
                Err(error) => self.tell(slot, &error),
                Ok(place) => {
                    self.flush(sql, None)?;
                    self.sync_v1(sql, slot, place, from)?;
                }
            },
            Ok(v1::Request::Rpc { channel, id, action }) => {
                let action = Self::parse_action(&channel, &action);
                self.call(slot, V1Call { channel, id }, action);
            }
        }
        Ok(())
    }

    fn read_v2(&mut self, server: &S, sql: &dyn Sql, slot: Slot, text: &str) -> Result<()> {
        use wire::v2::ClientFrame;
        let frame = ClientFrame::parse(text);
        let actions = match &frame {
            Ok(ClientFrame::Push(actions)) => actions.len(),
            _ => 0,
        };
        if !self.takes(slot, actions, text.len()) {
            return Ok(());
        }
        match frame {
            Err(error) => self.tell(slot, &error.clipped()),
            Ok(ClientFrame::Hello(hello)) => {
                self.flush(sql, None)?;
                self.hello(sql, slot, hello)?;
            }
            Ok(ClientFrame::Push(actions)) => self.push(sql, slot, actions)?,
            Ok(ClientFrame::Read(bytes)) => {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.unread = entry.unread.saturating_sub(bytes);
                    if entry.feed.is_some() {
                        self.hungry.insert(slot);
                    }
                }
            }
            Ok(ClientFrame::Message(message)) => {
                let result = self.hook(sql, Some(slot), |room| server.on_message(room, message))?;
                if let Err(error) = result {
                    let error = self.public(error, "on_message");
                    self.tell(slot, &error);
                }
            }
        }
        Ok(())
    }

    /// Asks the server's `before_action` about these actions.
    pub(super) fn ask(&mut self, slot: Slot, pending: Pending, actions: Vec<Result<S::Action>>) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.awaits = true;
        self.tickets += 1;
        let (ticket, connection) = (self.tickets, entry.connection.clone());
        self.pending.insert(ticket, pending);
        let call = Call::Before { ticket, connection, actions };
        self.effects.push_back(Effect::RunHook(Hook { call }));
    }

    fn store_attachments(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.closing) else {
                continue;
            };
            entry.connection.behind = entry.feed.is_some();
            match entry.connection.attachment() {
                Ok(attachment) if entry.attachment.as_deref() != Some(attachment.as_str()) => {
                    entry.attachment = Some(attachment.clone());
                    self.effects.push_back(Effect::StoreAttachment { slot, attachment });
                }
                Ok(_) => {}
                Err(error) => self.tell_and_close(slot, wire::CLOSE_TOO_BIG, &error),
            }
        }
    }
}
