//! The engine: reads frames, commits actions once and in order, keeps version and epoch.

use super::log::{self, Meta};
use super::project::Followed;
use super::{Connection, Limits, Output, Protocol};
use crate::record::Schema;
use crate::sql::Sql;
use crate::wire::v2::{Ack, ClientFrame, Hello, Push, ServerFrame, clip};
use crate::wire::{self, v1};
use crate::{Action, Code, Error, Result, Timestamp};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// The state of one room beside what is in its database: version, epoch, and answers that wait
/// for the next patch. Rebuilt from the database at any time.
#[derive(Debug)]
pub struct Engine<A> {
    pub(super) meta: Meta,
    pub(super) limits: Limits,
    /// The version that connections have been sent.
    pub(super) flushed: u64,
    /// Answers that go out with the next patch, by connection.
    pub(super) acks: BTreeMap<String, Vec<Ack>>,
    /// A v1 call that the next flush answers.
    pub(super) call: Option<Call>,
    action: PhantomData<A>,
}

/// A v1 call with its outcome.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) connection: String,
    pub(super) channel: String,
    pub(super) id: String,
    pub(super) outcome: Result<()>,
}

/// A frame as it came from the socket.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Text.
    Text(&'a str),
    /// Binary, which neither protocol uses.
    Binary(usize),
}

/// What a frame leaves to be done by the host, which calls the server's hooks.
#[derive(Debug)]
pub enum Work<A> {
    /// Nothing.
    None,
    /// Actions to commit, in this order.
    Actions(Vec<Item<A>>),
    /// A message for `on_message`.
    Message(Json),
}

/// An action on its way to be committed.
#[derive(Debug)]
pub struct Item<A> {
    origin: Origin,
    /// The action, or why it could not be read.
    pub action: Result<A>,
}

#[derive(Debug)]
enum Origin {
    V2 { client: String, seq: u64 },
    V1 { channel: String, id: String },
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was committed now.
    Committed,
    /// It was refused; nothing was written.
    Rejected(Error),
    /// It had its answer before, which is given again.
    Duplicate,
    /// It comes too early: the connection is closed and the rest of the push dropped.
    Gap,
}

impl<A: Action> Engine<A> {
    /// Opens a room on its database: makes the framework's tables and migrates the records'.
    /// `fresh_epoch` is the epoch of a database that is new. Changes that an earlier life left
    /// without a version get one with the first [`transact`](Self::transact).
    ///
    /// # Errors
    /// [`Code::Migration`] when a stored schema cannot be changed safely; nothing was altered.
    pub fn open(sql: &dyn Sql, now: Timestamp, fresh_epoch: &str, limits: Limits) -> Result<Self> {
        // Without it, a row that INSERT OR REPLACE removes fires no delete trigger.
        sql.run("PRAGMA recursive_triggers = ON", &[], &mut |_| Ok(()))?;
        let mut meta = None;
        sql.transaction(&mut || {
            let opened = log::open(sql, now, fresh_epoch)?;
            // To come: clients of these tables start over.
            let _ = crate::store::migrate(A::CHANNELS, sql)?.rewritten;
            meta = Some(opened);
            Ok(())
        })?;
        let meta = meta.ok_or_else(|| Error::new(Code::Internal, "the room did not open"))?;
        Ok(Self {
            flushed: meta.version,
            meta,
            limits,
            acks: BTreeMap::new(),
            call: None,
            action: PhantomData,
        })
    }

    /// What the room takes.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The room's version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.meta.version
    }

    /// The epoch of the room's storage.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.meta.epoch
    }

    /// The room's time: the host's, but it never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.meta.now
    }

    /// Moves the room's time on. A host calls it first for each event.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn tick(&mut self, sql: &dyn Sql, now: Timestamp) -> Result<()> {
        if now > self.meta.now {
            log::set_now(sql, now)?;
            self.meta.now = now;
        }
        Ok(())
    }

    pub(super) fn schema(channel: &str) -> Result<&'static Schema> {
        A::CHANNELS.iter().find(|schema| schema.table == channel).copied().ok_or_else(|| {
            let (found, known) = (clip(channel), A::CHANNELS.iter().map(|s| s.table));
            let known = known.collect::<Vec<_>>().join("`, `");
            Error::new(
                Code::UnknownChannel,
                format!("there is no channel `{found}` here: it is one of `{known}`"),
            )
        })
    }

    /// Reads a frame and answers what needs no action.
    ///
    /// # Errors
    /// What SQLite says. What is wrong with the frame is told to the connection instead.
    pub fn receive(
        &mut self,
        sql: &dyn Sql,
        connection: &mut Connection,
        frame: &Incoming<'_>,
        out: &mut Vec<Output>,
    ) -> Result<Work<A>> {
        let text = match *frame {
            Incoming::Text(text) if text.len() <= self.limits.frame_bytes => text,
            Incoming::Text(_) | Incoming::Binary(_) => {
                self.refuse_frame(connection, frame, out);
                return Ok(Work::None);
            }
        };
        // The runtime answers this one; a host without such a thing gets the answer from here.
        if text == wire::PING {
            out.push(Output::send(connection.id(), wire::PONG));
            return Ok(Work::None);
        }
        match connection.protocol() {
            Protocol::V1 => self.receive_v1(sql, connection, text, out),
            Protocol::V2 => self.receive_v2(sql, connection, text, out),
        }
    }

    fn refuse_frame(&self, connection: &Connection, frame: &Incoming<'_>, out: &mut Vec<Output>) {
        let limit = self.limits.frame_bytes;
        match frame {
            Incoming::Text(text) => {
                let message = format!("a frame of {} bytes; the limit is {limit}", text.len());
                let error = Error::new(Code::TooLarge, message);
                tell(connection, &error, out);
                close(connection, wire::CLOSE_TOO_BIG, &error, out);
            }
            Incoming::Binary(_) => {
                let message = "a binary frame: the protocol is JSON text";
                tell(connection, &Error::new(Code::InvalidFrame, message), out);
            }
        }
    }

    fn receive_v1(
        &mut self,
        sql: &dyn Sql,
        connection: &mut Connection,
        text: &str,
        out: &mut Vec<Output>,
    ) -> Result<Work<A>> {
        match v1::Request::parse(text) {
            Err(error) => tell(connection, &error, out),
            Ok(v1::Request::Sync { channel, from }) => match Self::schema(&channel) {
                Err(error) => tell(connection, &error, out),
                Ok(schema) => self.sync_v1(sql, connection, schema, from, out)?,
            },
            Ok(v1::Request::Rpc { channel, id, action }) => {
                if !self.takes(connection, 1, out) {
                    return Ok(Work::None);
                }
                let action = parse_action(&channel, &action);
                return Ok(Work::Actions(vec![Item {
                    origin: Origin::V1 { channel, id },
                    action,
                }]));
            }
        }
        Ok(Work::None)
    }

    fn receive_v2(
        &mut self,
        sql: &dyn Sql,
        connection: &mut Connection,
        text: &str,
        out: &mut Vec<Output>,
    ) -> Result<Work<A>> {
        match ClientFrame::parse(text) {
            Err(error) => tell(connection, &error, out),
            Ok(ClientFrame::Hello(hello)) => self.hello(sql, connection, hello, out)?,
            Ok(ClientFrame::Push(actions)) => return Ok(self.push(connection, actions, out)),
            Ok(ClientFrame::Read(bytes)) => {
                connection.unread = connection.unread.saturating_sub(bytes);
            }
            Ok(ClientFrame::Message(data)) => return Ok(Work::Message(data)),
        }
        Ok(Work::None)
    }

    fn hello(
        &mut self,
        sql: &dyn Sql,
        connection: &mut Connection,
        hello: Hello,
        out: &mut Vec<Output>,
    ) -> Result<()> {
        if connection.client.is_some() {
            let error =
                Error::new(Code::HelloTwice, "`hello` was said already: reconnect to say it anew");
            tell(connection, &error, out);
            return Ok(());
        }
        let (mut schemas, mut followed) = (Vec::new(), Vec::new());
        for subscription in &hello.channels {
            let schema = match Self::schema(&subscription.channel) {
                Ok(schema) => schema,
                Err(error) => {
                    tell(connection, &error, out);
                    close(connection, wire::CLOSE_PROTOCOL, &error, out);
                    return Ok(());
                }
            };
            match Followed::new(schema, subscription) {
                Ok(channel) => followed.push(channel),
                Err(error) => {
                    tell(connection, &error, out);
                    close(connection, wire::CLOSE_SCHEMA, &error, out);
                    return Ok(());
                }
            }
            schemas.push((schema, subscription.since));
        }
        log::to_sql(hello.seq)?;
        let known = log::client_seq(sql, &hello.client)?;
        // Without its seq a resent action could be done twice. In another epoch none was done.
        let elsewhere = hello.epoch.as_ref().is_some_and(|epoch| *epoch != self.meta.epoch);
        if known.is_none() && hello.pushed > 0 && !elsewhere {
            let message = "this client was away for so long that the room has forgotten it";
            let error = Error::new(Code::ClientForgotten, message);
            tell(connection, &error, out);
            close(connection, wire::CLOSE_FORGOTTEN, &error, out);
            return Ok(());
        }
        // Its store has lost what came last: what it makes now would count as what it made then.
        if known.is_some_and(|known| known > hello.pushed.max(hello.seq)) {
            let message = "this client's store is older than what it has sent";
            let error = Error::new(Code::ClientForgotten, message);
            tell(connection, &error, out);
            close(connection, wire::CLOSE_FORGOTTEN, &error, out);
            return Ok(());
        }
        // A new client, or one of another epoch, goes on counting from where it is.
        let answered = known.unwrap_or(hello.seq);
        sql.transaction(&mut || {
            log::set_client_seq(sql, &hello.client, answered, self.meta.now)?;
            log::forget_rejects(sql, &hello.client, hello.seq)?;
            log::plan_trim(sql, self.meta.now.plus_millis(self.limits.retention_ms))
        })?;
        let welcome = ServerFrame::Welcome(wire::v2::Welcome {
            epoch: self.meta.epoch.clone(),
            version: self.meta.version,
            seq: answered,
            connection: connection.id().to_owned(),
        });
        out.push(Output::send(connection.id(), welcome.to_text()));
        connection.channels = followed;
        self.catch_up(sql, connection, &hello, &schemas, out)?;
        connection.client = Some(hello.client);
        connection.changed = true;
        Ok(())
    }

    /// Whether a connection may do this many actions more. One that may not is closed.
    fn takes(&self, connection: &mut Connection, actions: usize, out: &mut Vec<Output>) -> bool {
        let Limits { actions_per_second, actions_burst, .. } = self.limits;
        let now = self.meta.now;
        let (used, at) = connection.used.unwrap_or((0.0, now));
        let passed = (now.as_millis() - at.as_millis()) as f64 / 1000.0;
        let used = (used - passed * f64::from(actions_per_second)).max(0.0) + actions as f64;
        let fits = used <= f64::from(actions_burst);
        if fits {
            connection.used = Some((used, now));
        } else {
            let message =
                format!("more than {actions_per_second} actions a second: come again later");
            let error = Error::new(Code::RateLimited, message);
            tell(connection, &error, out);
            close(connection, wire::CLOSE_BUSY, &error, out);
        }
        fits
    }

    fn push(
        &self,
        connection: &mut Connection,
        actions: Vec<Push>,
        out: &mut Vec<Output>,
    ) -> Work<A> {
        let Some(client) = &connection.client else {
            let error = Error::new(Code::HelloFirst, "say `hello` before `push`");
            tell(connection, &error, out);
            return Work::None;
        };
        if actions.len() > self.limits.push_actions {
            let (found, limit) = (actions.len(), self.limits.push_actions);
            let error = Error::new(
                Code::TooManyActions,
                format!("a push of {found} actions; the limit is {limit}"),
            );
            tell(connection, &error, out);
            close(connection, wire::CLOSE_PROTOCOL, &error, out);
            return Work::None;
        }
        let client = client.clone();
        if !self.takes(connection, actions.len(), out) {
            return Work::None;
        }
        let item = |push: Push| Item {
            action: parse_action(&push.channel, &push.action),
            origin: Origin::V2 { client: client.clone(), seq: push.seq },
        };
        Work::Actions(actions.into_iter().map(item).collect())
    }

    /// Whether the item was answered before, so that its hooks need not run again.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn is_duplicate(&self, sql: &dyn Sql, item: &Item<A>) -> Result<bool> {
        match &item.origin {
            Origin::V2 { client, seq } => {
                Ok(log::client_seq(sql, client)?.is_some_and(|last| *seq <= last))
            }
            Origin::V1 { .. } => Ok(false),
        }
    }

    /// Commits one action: `body` runs the server's `on_action` in a transaction with the change
    /// log, the version and the client's seq. Its answer waits for [`flush`](Self::flush).
    ///
    /// # Errors
    /// What SQLite says of the framework's own statements; the action may be sent again.
    pub fn commit(
        &mut self,
        sql: &dyn Sql,
        connection: &Connection,
        item: Item<A>,
        out: &mut Vec<Output>,
        body: &mut dyn FnMut(A) -> Result<()>,
    ) -> Result<Outcome> {
        if let Origin::V2 { client, seq } = &item.origin
            && !crate::__mutated("dedupe")
        {
            log::to_sql(*seq)?;
            // It is known since its `hello`, unless a hook took longer than rooms remember.
            let known = log::client_seq(sql, client)?;
            let last = known.unwrap_or(0);
            if *seq <= last {
                let outcome = log::outcome(sql, client, *seq)?;
                self.acks
                    .entry(connection.id().to_owned())
                    .or_default()
                    .push(Ack::new(*seq, &outcome));
                return Ok(Outcome::Duplicate);
            }
            if known.is_none() || *seq != last + 1 {
                let message = format!("action {seq} came after {last}: one is missing");
                let error = Error::new(Code::SequenceGap, message);
                tell(connection, &error, out);
                close(connection, wire::CLOSE_PROTOCOL, &error, out);
                return Ok(Outcome::Gap);
            }
        }
        let (now, version) = (self.meta.now, self.meta.version + 1);
        let mut action = Some(item.action);
        let outcome = sql.transaction(&mut || {
            let action = action.take().ok_or_else(|| Error::new(Code::Internal, "ran twice"))??;
            body(action).map_err(|error| error.with_keys(A::CHANNELS))?;
            log::set_version(sql, version)?;
            match &item.origin {
                Origin::V2 { client, seq } => log::set_client_seq(sql, client, *seq, now),
                Origin::V1 { .. } => Ok(()),
            }
        });
        if outcome.is_ok() {
            self.meta.version = version;
        }
        match item.origin {
            Origin::V2 { client, seq } => {
                if let Err(error) = &outcome {
                    sql.transaction(&mut || {
                        log::add_reject(sql, &client, seq, error)?;
                        log::set_client_seq(sql, &client, seq, now)
                    })?;
                }
                self.acks
                    .entry(connection.id().to_owned())
                    .or_default()
                    .push(Ack::new(seq, &outcome));
            }
            Origin::V1 { channel, id } => {
                let connection = connection.id().to_owned();
                self.call = Some(Call { connection, channel, id, outcome: outcome.clone() });
            }
        }
        Ok(match outcome {
            Ok(()) => Outcome::Committed,
            Err(error) => Outcome::Rejected(error),
        })
    }

    /// Runs SQL that is no client's action in one transaction; if it changed rows, the room's
    /// version rises.
    ///
    /// # Errors
    /// What `body` returns; nothing was written.
    pub fn transact(&mut self, sql: &dyn Sql, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        sql.transaction(body)?;
        self.adopt(sql)
    }

    /// Gives changes that belong to no version yet the next one.
    fn adopt(&mut self, sql: &dyn Sql) -> Result<()> {
        if log::has_unversioned(sql, A::CHANNELS, self.meta.version)? {
            let version = self.meta.version + 1;
            log::set_version(sql, version)?;
            self.meta.version = version;
        }
        Ok(())
    }

    /// Forgets old deletions and clients long unseen, if it is time; `true` if the application's
    /// own alarm is due (and takes it back).
    ///
    /// # Errors
    /// What SQLite says.
    pub fn alarm(&mut self, sql: &dyn Sql) -> Result<bool> {
        let (app, trim) = log::alarms(sql)?;
        if trim.is_some_and(|at| at <= self.meta.now) {
            let mut meta = self.meta.clone();
            sql.transaction(&mut || log::trim(sql, A::CHANNELS, &self.limits, &mut meta))?;
            self.meta = meta;
        }
        let due = app.is_some_and(|at| at <= self.meta.now);
        if due {
            log::set_alarm(sql, None)?;
        }
        Ok(due)
    }

    /// When the host has to call [`alarm`](Self::alarm) next.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn next_alarm(&self, sql: &dyn Sql) -> Result<Option<Timestamp>> {
        let (app, trim) = log::alarms(sql)?;
        Ok([app, trim].into_iter().flatten().min())
    }
}

fn parse_action<A: Action>(channel: &str, action: &RawValue) -> Result<A> {
    let json: Json = serde_json::from_str(action.get())
        .map_err(|e| Error::new(Code::InvalidAction, format!("the action cannot be read: {e}")))?;
    if json.is_null() {
        return Err(Error::new(Code::Abandoned, "given up: three attempts had no answer"));
    }
    Engine::<A>::schema(channel)?;
    A::from_json(channel, &json)
}

/// Tells a connection what was wrong.
pub(super) fn tell(connection: &Connection, error: &Error, out: &mut Vec<Output>) {
    let text = match connection.protocol() {
        Protocol::V1 => v1::exception(error),
        Protocol::V2 => ServerFrame::error(error).to_text(),
    };
    out.push(Output::send(connection.id(), text));
}

fn close(connection: &Connection, code: u16, error: &Error, out: &mut Vec<Output>) {
    let (to, reason) = (connection.id().to_owned(), error.code().as_str().to_owned());
    out.push(Output::Close { to, code, reason });
}
