//! The hooks that do not wait: each is one transaction, and what it does to connections, the
//! alarm and the wire happens only if it returns `Ok`.

use super::answer::Answering;
use super::event::close_reason;
use super::life::{Asked, Reply};
use super::{Begun, Connection, Effect, Machine, Overlay, Protocol, Slot, refusal};
use crate::job::FURTHEST;
use crate::sql::Sql;
use crate::wire::v2::ServerFrame;
use crate::{Code, Error, Identity, Result, Room, SyncServer, Timestamp, store};
use serde_json::Value as Json;
use std::rc::Rc;

/// What a Durable Object keeps sockets for at most: accepting one more would be a trap.
const SOCKETS: usize = 32_768;

/// Who is behind a hook.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller<'a> {
    /// Nobody: the room itself.
    Room,
    /// A connection.
    Connection(Slot),
    /// A request.
    Request(Option<&'a Identity>),
}

/// Something that a hook sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A frame for these connections.
    Message { slots: Vec<Slot>, frame: Rc<str> },
    /// v1 clients drop all rows of a channel.
    DeleteAll { channel: String },
    /// A connection is closed.
    Close { slot: Slot, code: u16, reason: String },
}

/// What a hook wants done when it has returned `Ok`.
#[derive(Debug, Default)]
pub(crate) struct HookOutput {
    pub(crate) overlay: Overlay,
    pub(crate) out: Vec<Outgoing>,
    /// The alarm, if it was set.
    pub(crate) alarm: Option<Option<Timestamp>>,
    pub(crate) new_epoch: bool,
    /// Whether jobs were scheduled or cancelled.
    pub(crate) jobs: bool,
    /// What is begun.
    pub(crate) begun: Begun,
    /// Whether connections may see something else now.
    pub(crate) review: bool,
    /// What the action is answered with, where the hook does one.
    pub(crate) answering: Option<Answering>,
}

impl HookOutput {
    /// Adds what a later hook wants done, which has seen this one's connections.
    fn append(&mut self, later: Self) {
        let Self { overlay, out, alarm, new_epoch, jobs, begun, review, answering: _ } = later;
        self.overlay = overlay;
        self.out.extend(out);
        self.alarm = alarm.or(self.alarm);
        self.new_epoch |= new_epoch;
        self.jobs |= jobs;
        self.begun.0.extend(begun.0);
        self.review |= review;
    }
}

impl<S: SyncServer> Machine<S> {
    /// Runs a hook in a transaction.
    ///
    /// # Errors
    /// Of the storage. What the hook returns is inside.
    pub(super) fn hook<T>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        caller: Caller<'_>,
        hook: impl FnOnce(&mut Room<'_, S>) -> Result<T>,
    ) -> Result<Result<T>> {
        self.hook_with(server, sql, caller, HookOutput::default(), hook)
    }

    /// As [`hook`](Self::hook), with what the hook has to begin with.
    pub(super) fn hook_with<T>(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        caller: Caller<'_>,
        mut output: HookOutput,
        hook: impl FnOnce(&mut Room<'_, S>) -> Result<T>,
    ) -> Result<Result<T>> {
        let (mut hook, mut value) = (Some(hook), None);
        let stamped = self.stamped(sql);
        let result = stamped.transaction(&mut || {
            let mut room = self.room(server, &stamped, caller, &mut output);
            if let Some(hook) = hook.take() {
                value = Some(hook(&mut room)?);
            }
            Ok(())
        });
        if let Some(error) = self.written.failure() {
            return Err(error);
        }
        match (result, value) {
            (Ok(()), Some(value)) => {
                self.carry_out(sql, output)?;
                Ok(Ok(value))
            }
            (Err(error), _) => {
                if crate::__mutated("begun") {
                    self.begun.0.append(&mut output.begun.0);
                }
                Ok(Err(error.with_keys(Self::SCHEMAS)))
            }
            (Ok(()), None) => Ok(Err(Error::new(Code::Internal, "the hook did not run"))),
        }
    }

    /// Does actions, each whole or not at all; what came of each, with its result, until one is not to
    /// be had now.
    /// They share a transaction. One that fails when it has written is taken back with the others,
    /// and then each has its own.
    pub(super) fn do_all(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        actions: &[Result<S::Action>],
    ) -> Result<Vec<Result<Option<Json>>>> {
        if let [_, _, ..] = actions
            && let Some(outcomes) = self.do_together(server, sql, slot, actions)?
        {
            return Ok(outcomes);
        }
        let mut outcomes = Vec::with_capacity(actions.len());
        for action in actions {
            let outcome = match action.clone() {
                Ok(action) => self.do_one(server, sql, slot, action)?,
                Err(error) => Err(error),
            };
            let wait = outcome.as_ref().is_err_and(|e| e.code() == Code::Unavailable);
            outcomes.push(outcome);
            if wait {
                break;
            }
        }
        Ok(outcomes)
    }

    /// Does actions in one transaction; `None` when nothing was done, because one of them failed
    /// that had written.
    fn do_together(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        actions: &[Result<S::Action>],
    ) -> Result<Option<Vec<Result<Option<Json>>>>> {
        let mut output = HookOutput::default();
        let mut outcomes = Vec::with_capacity(actions.len());
        let stamped = self.stamped(sql);
        let result = stamped.transaction(&mut || {
            for action in actions {
                let (overlay, jobs) = (output.overlay.clone(), output.jobs);
                let answering = Some(self.answering());
                let mut own = HookOutput { overlay, jobs, answering, ..Default::default() };
                let written = self.written.statements.get();
                let outcome = match action.clone() {
                    Ok(action) => {
                        let mut room =
                            self.room(server, &stamped, Caller::Connection(slot), &mut own);
                        let outcome = server.on_action(&mut room, action);
                        if outcome.is_err()
                            && self.written.statements.get() > written
                            && !crate::__mutated("group")
                        {
                            return outcome;
                        }
                        let result = own.answering.take().and_then(Answering::result);
                        outcome.map(|()| result).map_err(|error| error.with_keys(Self::SCHEMAS))
                    }
                    Err(error) => Err(error),
                };
                if outcome.is_ok() {
                    output.append(own);
                }
                let wait = outcome.as_ref().is_err_and(|e| e.code() == Code::Unavailable);
                outcomes.push(outcome);
                if wait {
                    break;
                }
            }
            Ok(())
        });
        if let Some(error) = self.written.failure() {
            return Err(error);
        }
        if result.is_err() {
            return Ok(None);
        }
        self.carry_out(sql, output)?;
        Ok(Some(outcomes))
    }

    /// The room as a hook sees it.
    pub(super) fn room<'a>(
        &'a self,
        server: &'a S,
        sql: &'a dyn Sql,
        caller: Caller<'a>,
        output: &'a mut HookOutput,
    ) -> Room<'a, S> {
        Room {
            sql,
            name: self.meta.name.as_deref().unwrap_or_default(),
            now: self.meta.now,
            version: self.meta.version,
            epoch: &self.meta.epoch,
            plans: &self.plans,
            has_jobs: self.meta.has_jobs,
            caller,
            slots: &self.slots,
            handles: &self.life,
            output,
            server,
        }
    }

    fn carry_out(&mut self, sql: &dyn Sql, output: HookOutput) -> Result<()> {
        let HookOutput { overlay, out, alarm, new_epoch, jobs, begun, review, answering: _ } =
            output;
        self.begun.0.extend(begun.0);
        self.review_due |= review;
        self.jobs_changed |= jobs;
        // The hook may have taken back what it has scheduled first.
        if jobs && !self.meta.has_jobs {
            self.meta.has_jobs = store::has_jobs(sql)?;
        }
        for (slot, connection) in overlay.changed {
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.connection = connection;
                self.dirty.insert(slot);
            }
        }
        if let Some(alarm) = alarm {
            (self.meta.alarm_at, self.meta.alarm_failures) = (alarm, 0);
        }
        self.send_out(out);
        if new_epoch { self.renew_epoch(sql) } else { Ok(()) }
    }

    pub(super) fn connect(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        (wanted, fresh_id): (Option<String>, String),
        protocol: Protocol,
        request: &http::Request<()>,
    ) -> Result<()> {
        let free = |id: &String| !id.is_empty() && id.len() <= 64 && self.slots.find(id).is_none();
        let id = wanted.filter(free).unwrap_or(fresh_id);
        let mut connection = Connection::new(id.clone(), protocol);
        connection.identity = Identity::of(request).cloned();
        let limit = self.limits.connections.min(SOCKETS);
        let admitted = if self.slots.len() >= limit {
            let message = format!("the room has {limit} connections already");
            Err(Error::new(Code::TooManyConnections, message))
        } else {
            // What cannot be kept was not connected: its hook leaves nothing behind.
            self.hook(server, sql, Caller::Request(Identity::of(request)), |room| {
                server.on_connect(room, &mut connection, request)?;
                connection.attachment()
            })?
        };
        match admitted {
            Ok(attachment) => {
                let slot = self.slots.insert(connection);
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.attachment = Some(attachment.clone());
                }
                self.effect(Effect::Accept { slot, id });
                self.effect(Effect::StoreAttachment { slot, attachment });
                self.present.count_anew();
                if protocol == Protocol::V1 {
                    self.follow_all(server, sql, slot)?;
                }
            }
            Err(error) => {
                let error = self.public(error, "on_connect");
                self.refuse(protocol, error);
            }
        }
        Ok(())
    }

    /// Does not let in whoever connects.
    pub(super) fn refuse(&mut self, protocol: Protocol, error: Error) {
        let (code, reason) = refusal(&error);
        let v2 = protocol == Protocol::V2;
        let frame = v2.then(|| ServerFrame::error(&error).to_text());
        self.effect(Effect::Refuse { error, code, reason, frame });
    }

    pub(super) fn closed(&mut self, server: &S, sql: &dyn Sql, slot: Slot) -> Result<()> {
        let Some(entry) = self.slots.remove(slot) else { return Ok(()) };
        self.hungry.remove(&slot);
        self.forget_backlogs(slot);
        self.acked.remove(&slot);
        self.dirty.remove(&slot);
        if self.unknown.remove(&slot) {
            return Ok(());
        }
        let connection = entry.connection;
        self.left(slot, connection.own.as_deref(), connection.client.as_deref());
        self.present.count_anew();
        let client = connection.client.as_deref().and_then(|id| self.clients.get_mut(id));
        if let Some(client) = client {
            client.connections = client.connections.saturating_sub(1);
            if client.connections == 0
                && !client.unsaved
                && let Some(id) = connection.client.as_deref()
            {
                self.clients.remove(id);
            }
        }
        if self.slots.len() == 0 {
            self.views.clear();
            self.cache.clear();
        }
        // One that was never heard of is nobody's business any more.
        let result =
            self.hook(server, sql, Caller::Request(connection.identity.as_ref()), |room| {
                server.on_close(room, &connection)
            })?;
        if let Err(error) = result {
            self.fault("on_close", error);
        }
        Ok(())
    }

    /// Does what handles have asked for, each in a transaction of its own.
    pub(super) fn run_asked(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        for Asked { work, identity, what, reply } in self.life.take() {
            // Whoever wanted it does not wait any more.
            if reply.is_canceled() {
                continue;
            }
            let caller = Caller::Request(identity.as_ref());
            let done = self.hook(server, sql, caller, |room| work(server, room))?;
            let done = done.map_err(|error| match what {
                Some(what) => self.public(error, what),
                None => error,
            });
            let reply = Reply::new(reply, done);
            if crate::__mutated("kept") {
                reply.send();
            } else {
                self.replies.push(reply);
            }
        }
        Ok(())
    }
}

impl<'a, S> Room<'a, S> {
    fn message<T: serde::Serialize>(message: &T) -> Result<Rc<str>> {
        let json = serde_json::to_value(message)
            .map_err(|e| Error::new(Code::InvalidValue, format!("message: {e}")))?;
        Ok(ServerFrame::Message(json).to_text().into())
    }

    fn slot(&self) -> Option<Slot> {
        match self.caller {
            Caller::Connection(slot) => Some(slot),
            Caller::Room | Caller::Request(_) => None,
        }
    }

    /// Who is behind the action, the message, the connection or the request that this hook is for,
    /// as [`Router::identify`](crate::worker::Router::identify) has said: `None` where nobody was
    /// asked, and where the room acts by itself, as for an alarm.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    ///
    /// ```
    /// # use partysync::{Action, Error, Record, Result, Room, SyncServer};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # #[derive(Default)] struct Notes;
    /// #[derive(Serialize, Deserialize)]
    /// struct User { name: String, may_write: bool }
    ///
    /// # impl SyncServer for Notes {
    /// #     type Action = NoteAction;
    /// fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///     match room.identity::<User>()? {
    ///         Some(user) if user.may_write => action.apply(room.sql()),
    ///         _ => Err(Error::reject("you may only read")),
    ///     }
    /// }
    /// # }
    /// # use partysync::testing::TestRoom;
    /// # let mut room = TestRoom::new(Notes)?;
    /// # room.login("ada", &User { name: "ada".into(), may_write: true })?;
    /// # room.login("bob", &User { name: "bob".into(), may_write: false })?;
    /// # room.act_as("ada", NoteAction::Create { id: "a".into() })?;
    /// # assert!(room.act_as("bob", NoteAction::Create { id: "b".into() }).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn identity<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        self.who().map(Identity::read).transpose()
    }

    /// Who is behind this hook.
    pub(super) fn who(&self) -> Option<&Identity> {
        match self.caller {
            Caller::Room => None,
            Caller::Connection(_) => self.sender().and_then(|sender| sender.identity.as_ref()),
            Caller::Request(identity) => identity,
        }
    }

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        open.filter_map(|(slot, _)| self.output.overlay.get(self.slots, slot))
    }

    /// The connections that were given this tag.
    pub fn connections_with_tag<'b>(
        &'b self,
        tag: &'b str,
    ) -> impl Iterator<Item = &'b Connection> {
        self.connections().filter(move |c| c.tags().iter().any(|t| t == tag))
    }

    /// Whose action or message this is; `None` where no client is behind the hook.
    #[must_use]
    pub fn sender(&self) -> Option<&Connection> {
        self.output.overlay.get(self.slots, self.slot()?)
    }

    /// Whose action or message this is, to change its state or tags. Kept if the hook returns
    /// `Ok`; the next action of the same push sees it.
    pub fn sender_mut(&mut self) -> Option<&mut Connection> {
        self.output.overlay.get_mut(self.slots, self.slot()?)
    }

    /// A connection, to change its state or tags. Kept if the hook returns `Ok`.
    pub fn connection_mut(&mut self, id: &str) -> Option<&mut Connection> {
        self.output.overlay.get_mut(self.slots, self.slots.find(id)?)
    }

    /// Sends a message of the application's own to every v2 connection that has said `hello`.
    /// It goes out only if the hook returns `Ok`.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn broadcast<T: serde::Serialize>(&mut self, message: &T) -> Result<()> {
        let frame = Self::message(message)?;
        let ready = self.slots.open(Protocol::V2).filter(|(_, e)| e.connection.client.is_some());
        let slots = ready.map(|(slot, _)| slot).collect();
        self.output.out.push(Outgoing::Message { slots, frame });
        Ok(())
    }

    /// Sends a message of the application's own to one v2 connection; nothing happens if it is
    /// gone. It goes out only if the hook returns `Ok`.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn send<T: serde::Serialize>(&mut self, connection: &str, message: &T) -> Result<()> {
        let frame = Self::message(message)?;
        let slot = self.slots.find(connection);
        let v2 = |slot: &Slot| {
            self.slots.get(*slot).is_some_and(|e| e.connection.protocol() == Protocol::V2)
        };
        if let Some(slot) = slot.filter(v2) {
            self.output.out.push(Outgoing::Message { slots: vec![slot], frame });
        }
        Ok(())
    }

    /// Tells every v1 client to drop all rows of a channel, as TypeScript's `delete-all` does.
    pub fn broadcast_delete_all(&mut self, channel: &str) {
        self.output.out.push(Outgoing::DeleteAll { channel: channel.to_owned() });
    }

    /// Closes a connection when the hook has returned `Ok`; nothing happens if it is gone. Later
    /// actions of the same push may still find it among the connections. A client of ours stops at
    /// 4403, and at 4401 when other credentials do not help, and comes again after other codes.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for a code that an application may not use: it is 1000, or 3000 to
    /// 4999.
    pub fn close(&mut self, connection: &str, code: u16, reason: &str) -> Result<()> {
        if code != 1000 && !(3000..5000).contains(&code) {
            let message = format!("close code {code}: use 1000, or one from 3000 to 4999");
            return Err(Error::new(Code::InvalidValue, message));
        }
        if let Some(slot) = self.slots.find(connection) {
            let reason = close_reason(reason);
            self.output.out.push(Outgoing::Close { slot, code, reason });
        }
        Ok(())
    }

    /// Asks for [`SyncServer::on_alarm`] at this time, once, instead of any time asked for
    /// before; `None` takes that back. A time after the year 2200 is the end of it.
    pub fn set_alarm(&mut self, at: impl Into<Option<Timestamp>>) {
        // What no runtime has a date for.
        let at = at.into().map(|at| at.clamp(Timestamp::from_millis(0), FURTHEST));
        self.output.alarm = Some(at);
    }

    /// Gives the room's storage another epoch: every client starts over with a whole snapshot.
    /// To be called after the database was set back (point-in-time recovery), when versions that
    /// clients have may name other rows.
    pub fn renew_epoch(&mut self) {
        self.output.new_epoch = true;
    }
}
