//! [`Machine`]: the state of a room, and the turn.

use super::feed::Cache;
use super::life::Reply;
use super::push::Pending;
use super::sight::Filtered;
use super::stamped::{Stamped, Written};
use super::v1::Backlog;
use super::view::Views;
use super::whereabouts::Whereabouts;
use super::{
    Asked, Begun, Caller, Connection, Effect, Event, Fault, Handle, Hook, Life, Limits, Opening,
    Protocol, Slot, Slots,
};
use crate::record::Schema;
use crate::sql::Sql;
use crate::store::{self, Meta, Plan};
use crate::wire;
use crate::{Action, Error, Identity, Result, SyncServer, Timestamp};
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
    pub(super) present: Whereabouts,
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
    /// Rows on their way to v1 connections.
    pub(super) backlogs: VecDeque<Backlog>,
    /// Connections whose attachment may be out of date.
    pub(super) dirty: BTreeSet<Slot>,
    /// Slots of sockets that nothing is known of, until they are gone.
    pub(super) unknown: BTreeSet<Slot>,
    /// `after_commit`s of this turn.
    pub(super) committed: Vec<Hook<S::Action>>,
    pub(super) cache: Cache,
    /// The last version of channels that it is known of.
    pub(super) lasts: HashMap<i64, u64>,
    /// Plans of what some may see.
    pub(super) filtered: Filtered,
    /// The channels whose rows `visible` has read.
    pub(super) rights: BTreeSet<usize>,
    /// Whether connections may see something else than before.
    pub(super) review_due: bool,
    pub(super) written: Written,
    /// Whether jobs were scheduled, cancelled or done in this turn.
    pub(super) jobs_changed: bool,
    /// Whether a job may have ended an earlier life of the room: one is done in a turn, so that those
    /// before it are kept.
    pub(super) careful: bool,
    /// The alarm as the runtime has it.
    pub(super) alarm_set: Option<Timestamp>,
    /// The version that the history ends with.
    #[cfg(feature = "streams")]
    pub(super) published: Option<u64>,
    /// How far deletions were forgotten when the history's followers were last told to start over.
    #[cfg(feature = "streams")]
    pub(super) reset_for: u64,
    /// What it shares with handles, which find it gone with the machine.
    pub(super) life: Rc<Life<S>>,
    /// What hooks of this turn have begun.
    pub(super) begun: Begun,
    /// Answers to handles, for when the turn is kept.
    pub(super) replies: Vec<Reply>,
    pub(super) fresh_epoch: String,
    /// Whether there are rows of an older version of the application.
    pub(super) migrating: bool,
    broken: bool,
    effects: VecDeque<Effect<S::Action>>,
}

/// What of a room's meta row was written last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) alarm_at: Option<Timestamp>,
    pub(super) alarm_failures: u32,
    pub(super) trim_at: Option<Timestamp>,
    pub(super) compact_at: Option<Timestamp>,
}

impl Stored {
    pub(super) fn of(meta: &Meta) -> Self {
        let Meta { alarm_at, alarm_failures, trim_at, compact_at, .. } = *meta;
        Self { alarm_at, alarm_failures, trim_at, compact_at }
    }
}

/// A client that is connected, or whose actions were done in this turn.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) seq: Seq,
    pub(super) connections: u32,
    /// Whether its seq is to be written at the end of the turn.
    pub(super) unsaved: bool,
    /// The last seq whose result is kept, 0 for none; `None` when it was not looked up in this life
    /// of the room.
    pub(super) results: Option<u64>,
}

/// The last action of a client that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Seq {
    /// It was not looked up in this life of the room.
    #[default]
    Unknown,
    /// The room does not know the client.
    Nowhere,
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

    /// Opens the room on its database and calls `on_start`. It is the first thing of a turn. Where
    /// rows are of an older version of the application, some are migrated first; if not all are then,
    /// the room [`is_migrating`](Self::is_migrating).
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
            present: Whereabouts::default(),
            views: Views::default(),
            clients: HashMap::new(),
            pending: BTreeMap::new(),
            // A ticket of another life of the room is none of this one's.
            tickets: u64::from(store::hash(&opening.fresh_epoch)) << 32,
            unsaved: BTreeSet::new(),
            acked: BTreeSet::new(),
            hungry: BTreeSet::new(),
            backlogs: VecDeque::new(),
            dirty: BTreeSet::new(),
            unknown: BTreeSet::new(),
            committed: Vec::new(),
            cache: Cache::default(),
            lasts: HashMap::new(),
            filtered: Filtered::new(),
            rights: BTreeSet::new(),
            review_due: false,
            written: Written::default(),
            jobs_changed: false,
            careful: false,
            alarm_set: meta.next_alarm().filter(|at| *at > meta.now),
            #[cfg(feature = "streams")]
            published: opening.published,
            #[cfg(feature = "streams")]
            reset_for: 0,
            life: Life::new(meta.name.as_deref().unwrap_or_default(), &opening.fresh_epoch),
            begun: Begun::default(),
            replies: Vec::new(),
            fresh_epoch: opening.fresh_epoch,
            migrating: meta.migrates,
            broken: false,
            effects: VecDeque::new(),
            meta,
        };
        for note in std::mem::take(&mut machine.meta.notes) {
            machine.warn(&note);
        }
        let migrates = machine.migrating;
        if migrates {
            machine.migrating = !machine.migrate(server, sql)?;
            // It may have been set to lead through the migration.
            machine.alarm_set = None;
        }
        machine.wake(opening.sockets);
        machine.wake_present();
        if migrates {
            machine.send_away();
        }
        if !machine.migrating {
            machine.hook(server, sql, Caller::Room, |room| server.on_start(room))??;
            machine.see_again(server, sql)?;
        }
        Ok(machine)
    }

    /// Takes the sockets that an earlier life of the room left open.
    fn wake(&mut self, sockets: Vec<Option<String>>) {
        for attachment in sockets {
            let slot = self.slots.reserve();
            let connection = attachment.as_deref().and_then(Connection::from_attachment);
            // One that cannot be read is nobody; it has its slot until its socket is gone.
            let known = connection.is_some();
            let connection =
                connection.unwrap_or_else(|| Connection::new(String::new(), Protocol::V1));
            // One that was sent a part of what it lacks has to say what it has.
            if connection.behind || !known {
                self.slots.put(slot, connection);
                if !known {
                    self.unknown.insert(slot);
                }
                self.close(slot, wire::CLOSE_RESTART, "restart");
                continue;
            }
            if let Some(client) = connection.client.as_deref() {
                self.clients.entry(client.into()).or_default().connections += 1;
            }
            self.slots.put(slot, connection);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.attachment = attachment;
            }
        }
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

    /// When the alarm rings, as the runtime was told in this life of the room or an earlier one.
    #[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
    pub(crate) fn alarm_set(&self) -> Option<Timestamp> {
        self.alarm_set
    }

    /// Whether a job was ever scheduled.
    #[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
    pub(crate) fn has_jobs(&self) -> bool {
        self.meta.has_jobs
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
        if self.migrating {
            return self.put_off(event);
        }
        let result = match event {
            Event::Connect { wanted, fresh_id, protocol, request } => {
                self.connect(server, sql, (wanted, fresh_id), protocol, request)
            }
            Event::Frame(slot, frame) => self.frame(server, sql, slot, frame),
            Event::HookDone(done) => self.hook_done(server, sql, done),
            Event::Closed(slot) => self.closed(server, sql, slot),
            Event::Alarm => self.alarm(server, sql),
            Event::AlarmAgain => self.put_off_lost(sql).and_then(|()| self.alarm(server, sql)),
            Event::Heard(heard) => {
                self.heard_last(&heard);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.abort(error);
        }
    }

    /// A turn begins: does what [handles](Handle) have asked for since the last one. Time is the host's.
    pub fn handle_asked(&mut self, server: &S, sql: &dyn Sql, now: Timestamp) {
        self.meta.now = self.meta.now.max(now);
        if self.broken || self.migrating || !self.life.is_asked() {
            return;
        }
        if let Err(error) = self.run_asked(server, sql) {
            self.abort(error);
        }
    }

    /// Has this done first in the turn that is about to begin.
    pub(crate) fn put_first(&mut self, asked: Asked<S>) {
        self.life.put_first(asked);
    }

    /// Whether handles have asked for something: it is done in the next turn.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.life.is_asked()
    }

    /// Has this called whenever a handle asks for something, in the middle of a turn or outside of
    /// one: the driver is to make another turn.
    pub fn on_asked(&self, wake: impl Fn() + 'static) {
        self.life.on_asked(wake);
    }

    /// The room for what awaits, with whoever is behind it.
    #[must_use]
    pub fn room_handle(&self, identity: Option<Identity>) -> Handle<S> {
        Handle::new(&self.life, identity)
    }

    /// The turn is over: what it has changed is sent, and what the room has to remember written.
    pub fn end_turn(&mut self, server: &S, sql: &dyn Sql) {
        if self.broken {
            return;
        }
        if let Err(error) = self.finish(server, sql) {
            self.abort(error);
        }
    }

    fn finish(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        if self.migrating {
            return self.set_alarms(sql);
        }
        self.flush(server, sql, None)?;
        self.save_clients(sql)?;
        for slot in std::mem::take(&mut self.hungry) {
            self.feed(sql, slot)?;
        }
        // Answers that a feed has held back.
        if !self.acked.is_empty() {
            self.flush(server, sql, None)?;
        }
        self.feed_v1(sql)?;
        self.tell_present();
        #[cfg(feature = "streams")]
        self.publish(sql)?;
        self.set_alarms(sql)?;
        self.store_attachments();
        // One whose attachment is too large was closed.
        self.tell_present();
        for hook in std::mem::take(&mut self.committed) {
            self.effects.push_back(Effect::RunHook(hook));
        }
        self.written = Written::default();
        Ok(())
    }

    /// The storage failed: nothing of this turn happens.
    fn abort(&mut self, error: Error) {
        self.broken = true;
        self.effects.retain(Effect::is_told);
        self.fault_told("the storage", error.clone());
        self.effects.push_back(Effect::Abort(error));
    }

    /// The last version of a channel. It is looked up once: later ones are known from flushes.
    pub(super) fn last_of(&mut self, sql: &dyn Sql, channel: i64) -> Result<u64> {
        if let Some(last) = self.lasts.get(&channel) {
            return Ok(*last);
        }
        let last = store::last_of(sql, channel)?;
        self.lasts.insert(channel, last);
        Ok(last)
    }

    pub(super) fn effect(&mut self, effect: Effect<S::Action>) {
        self.effects.push_back(effect);
    }

    /// Something failed that no client waits for.
    pub(super) fn fault(&mut self, what: impl Into<String>, error: Error) {
        let room = self.meta.name.as_deref().unwrap_or_default();
        self.effects.push_back(Effect::Fault(Fault::new(room, what, None, error)));
    }

    /// Something failed; what a client is told that waits for it.
    pub(super) fn fault_told(&mut self, what: impl Into<String>, error: Error) -> Error {
        let fault = self.life.faults.fault(what, error);
        let told = fault.told();
        self.effects.push_back(Effect::Fault(fault));
        told
    }

    pub(super) fn warn(&mut self, message: &str) {
        let room = self.meta.name.as_deref().unwrap_or_default();
        let message = format!("partysync room `{room}`: {message}");
        self.effects.push_back(Effect::Warn(message));
    }

    pub(super) fn stamped<'s>(&'s self, sql: &'s dyn Sql) -> Stamped<'s> {
        Stamped { sql, now: self.meta.now, written: &self.written }
    }

    /// Gives the storage another epoch.
    pub(super) fn renew_epoch(&mut self, sql: &dyn Sql) -> Result<()> {
        let epoch = format!("{}-{}", self.fresh_epoch, self.meta.now.as_millis());
        store::set_epoch(sql, &epoch)?;
        self.meta.epoch = epoch;
        let open: Vec<_> = self.slots.open(Protocol::V2).map(|(slot, _)| slot).collect();
        for slot in open {
            self.close(slot, wire::CLOSE_RESTART, "restart");
        }
        Ok(())
    }
}
