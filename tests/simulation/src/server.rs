//! The driver of the room in the simulation: a process that can die at any statement and is built
//! anew from its database; that sleeps with its sockets open; whose storage fails, is set back or
//! lost.

use crate::app::{App, AppAction, Config, NextAction, Outside};
use crate::disk::Disk;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, HookDone, Incoming, Opening, Slot};
use partysync::sql::{Sql, Sqlite};
use partysync::wire;
use partysync::{Identity, Protocol, Result, Room, SyncServer, Timestamp, params};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What the server sends.
#[derive(Debug)]
pub enum FromServer {
    /// A frame for a connection.
    Send {
        /// The connection's id.
        to: String,
        /// The frame.
        text: String,
    },
    /// A connection is closed.
    Close {
        /// The connection's id.
        to: String,
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
}

/// A room in memory, of either version of the application.
struct Process<S: SyncServer> {
    room: Local<S>,
    hooks: Vec<LocalBoxFuture<'static, HookDone<S::Action>>>,
    /// What hooks have begun, and nobody waits for.
    after: Vec<LocalBoxFuture<'static, ()>>,
}

impl<S: SyncServer> Process<S> {
    fn new(server: S) -> Self {
        Self { room: Local::new(server), hooks: Vec::new(), after: Vec::new() }
    }

    fn is_slow(&self) -> bool {
        !self.hooks.is_empty() || !self.after.is_empty() || self.room.is_asked()
    }

    /// One of those that wait goes on; a hook that returns is an event.
    fn resume(&mut self, which: usize) -> Option<HookDone<S::Action>> {
        let which = which % (self.hooks.len() + self.after.len()).max(1);
        match which.checked_sub(self.hooks.len()) {
            None => {
                let done = self.hooks.get_mut(which)?.now_or_never()?;
                drop(self.hooks.remove(which));
                Some(done)
            }
            Some(which) => {
                self.after.get_mut(which)?.now_or_never()?;
                drop(self.after.remove(which));
                None
            }
        }
    }
}

enum AnyProcess {
    Now(Process<App<AppAction>>),
    Next(Process<App<NextAction>>),
}

macro_rules! with {
    ($any:expr, $process:ident => $body:expr) => {
        match $any {
            AnyProcess::Now($process) => $body,
            AnyProcess::Next($process) => $body,
        }
    };
}

/// The sockets as the runtime keeps them, through hibernation too: by id, as the driver of a
/// Durable Object has them, and by slot.
#[derive(Default)]
struct Sockets {
    slots: BTreeMap<String, Slot>,
    ids: BTreeMap<Slot, String>,
    attachments: BTreeMap<String, String>,
    /// When the runtime last answered a ping of each.
    pinged: BTreeMap<String, Timestamp>,
}

impl Sockets {
    fn slot(&self, id: &str) -> Option<Slot> {
        self.slots.get(id).copied()
    }

    /// A socket is gone.
    fn remove(&mut self, id: &str) {
        self.attachments.remove(id);
        self.pinged.remove(id);
        if let Some(slot) = self.slots.remove(id) {
            self.ids.remove(&slot);
        }
    }

    /// The process is built anew: those that slept have their slots in the order in which they
    /// are handed in.
    fn wake(&mut self) -> Vec<Option<String>> {
        let sockets: Vec<_> = self.slots.keys().cloned().zip((0..).map(Slot)).collect();
        self.slots = sockets.iter().cloned().collect();
        self.ids = sockets.iter().map(|(id, slot)| (*slot, id.clone())).collect();
        sockets.iter().map(|(id, _)| self.attachments.get(id).cloned()).collect()
    }
}

/// The room's process.
pub struct Server {
    disk: Disk,
    process: Option<AnyProcess>,
    sockets: Sockets,
    epochs: u32,
    /// Which version of the application is deployed.
    next: bool,
    config: Config,
    outside: Rc<Outside>,
    /// The database as it was once.
    backup: Option<Sqlite>,
    /// The alarm as the runtime has it.
    alarm: Option<Timestamp>,
    /// Whether the turn in which it rang last was lost.
    rings_again: bool,
    /// Whether the room has more to send.
    again: bool,
    /// When it goes on with what it has put off for a moment.
    later: Option<Timestamp>,
    /// Whether it wants to know when sockets were heard last.
    asks_heard: bool,
    /// What the last connection is told that was not let in.
    refused: Option<(u16, String, Option<String>)>,
}

impl Server {
    /// A room with empty storage.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self {
            disk: Disk::new()?,
            process: None,
            sockets: Sockets::default(),
            epochs: 0,
            next: false,
            config,
            outside: Rc::default(),
            backup: None,
            alarm: None,
            rings_again: false,
            again: false,
            later: None,
            asks_heard: false,
            refused: None,
        })
    }

    /// The database, read from outside.
    pub fn sql(&self) -> &dyn Sql {
        &self.disk.inner
    }

    /// Takes the room through a turn, and through what it leads to at once. `None` when its sockets are
    /// gone after it.
    fn turn(&mut self, now: Timestamp, events: Vec<Happens>) -> Result<Option<Vec<FromServer>>> {
        let mut out = self.one_turn(now, events)?;
        while let Some(sent) = out.as_mut().filter(|_| std::mem::take(&mut self.asks_heard)) {
            match self.one_turn(now, vec![Happens::Heard])? {
                Some(more) => sent.extend(more),
                None => out = None,
            }
        }
        Ok(out)
    }

    fn one_turn(
        &mut self,
        now: Timestamp,
        events: Vec<Happens>,
    ) -> Result<Option<Vec<FromServer>>> {
        let config = self.config;
        let mut process = self.process.take().unwrap_or_else(|| match self.next {
            true => AnyProcess::Next(Process::new(App::new(config, &self.outside))),
            false => AnyProcess::Now(Process::new(App::new(config, &self.outside))),
        });
        let out = with!(&mut process, process => self.take(process, now, events))?;
        if !self.disk.lives() {
            self.kill();
            return Ok(None);
        }
        self.process = Some(process);
        Ok(out)
    }

    fn take<S: SyncServer>(
        &mut self,
        process: &mut Process<S>,
        now: Timestamp,
        events: Vec<Happens>,
    ) -> Result<Option<Vec<FromServer>>> {
        let requests: Vec<_> = events.iter().map(Happens::request).collect::<Result<_>>()?;
        let disk = &self.disk;
        let attachments = match process.room.machine() {
            None => self.sockets.wake(),
            Some(_) => Vec::new(),
        };
        self.epochs += 1;
        self.again = false;
        let opening = Opening {
            name: Some("room".into()),
            fresh_epoch: format!("epoch-{}", self.epochs),
            sockets: attachments,
            published: None,
        };
        let sockets = &self.sockets;
        let events = events.iter().zip(&requests).filter_map(|(event, request)| match event {
            Happens::Connect(id, protocol, _) => Some(Event::Connect {
                wanted: Some(id.clone()),
                fresh_id: format!("{id}'"),
                protocol: *protocol,
                request,
            }),
            Happens::Frame(id, text) => Some(Event::Frame(sockets.slot(id)?, Incoming::Text(text))),
            Happens::Closed(id) => Some(Event::Closed(sockets.slot(id)?)),
            Happens::Alarm(again) => Some(if *again { Event::AlarmAgain } else { Event::Alarm }),
            Happens::Heard => {
                let heard = |(id, at): (&String, &Timestamp)| Some((sockets.slot(id)?, *at));
                Some(Event::Heard(sockets.pinged.iter().filter_map(heard).collect()))
            }
            Happens::Hook(which) => process.resume(*which).map(Event::HookDone),
        });
        let events: Vec<_> = events.collect();
        let turn = process.room.turn(disk, now, || opening, events);
        Ok(self.carry_out(process, now, turn?))
    }

    /// The storage was set back: it gets another epoch.
    fn renew_epoch(&mut self, now: Timestamp) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        with!(&mut process, process => {
            let renew = |_: &_, room: &mut Room<'_, _>| {
                room.renew_epoch();
                Ok(())
            };
            let (turn, renewed) =
                process.room.run(&self.disk, now, Opening::default, None, renew)?;
            renewed?;
            self.carry_out(process, now, turn);
        });
        self.process = Some(process);
        Ok(())
    }

    fn carry_out<S: SyncServer>(
        &mut self,
        process: &mut Process<S>,
        now: Timestamp,
        turn: Turn<S>,
    ) -> Option<Vec<FromServer>> {
        if turn.aborted.is_some() {
            self.later = None;
            self.sockets = Sockets::default();
            process.hooks.clear();
            // What nobody waits for goes on, and hears that the room is gone.
            return None;
        }
        let mut out = Vec::new();
        let Sockets { slots: known, ids, attachments, .. } = &mut self.sockets;
        for effect in turn.effects {
            match effect {
                Effect::Accept { slot, id } => {
                    known.insert(id.clone(), slot);
                    ids.insert(slot, id);
                }
                Effect::Refuse { code, reason, frame, .. } => {
                    self.refused = Some((code, reason, frame));
                }
                Effect::SetAlarm(at) => self.alarm = at,
                Effect::Again => self.again = true,
                Effect::AskHeard(_) => self.asks_heard = true,
                Effect::AgainAfter(millis) => {
                    self.later = Some(now.plus_millis(i64::from(millis)));
                }
                Effect::Send { slots, frame } => {
                    for to in slots.iter().filter_map(|slot| ids.get(slot)) {
                        out.push(FromServer::Send { to: to.clone(), text: frame.to_string() });
                    }
                }
                Effect::Close { slot, code, reason } => {
                    let to = ids.get(&slot).cloned().unwrap_or_default();
                    out.push(FromServer::Close { to, code, reason });
                }
                Effect::StoreAttachment { slot, attachment } => {
                    assert!(attachment.len() <= 16_384, "the runtime does not keep it");
                    if let Some(id) = ids.get(&slot) {
                        attachments.insert(id.clone(), attachment);
                    }
                }
                _ => {}
            }
        }
        process.hooks.extend(turn.hooks);
        process.after.extend(turn.after);
        process.after.retain_mut(|after| after.now_or_never().is_none());
        Some(out)
    }

    /// The process is killed between two events.
    pub fn kill(&mut self) {
        self.disk.restart();
        (self.again, self.asks_heard, self.later) = (false, false, None);
        self.process = None;
        self.sockets = Sockets::default();
    }

    /// The application's next version is deployed, or the first one again: a rollback, unless its
    /// migration is under way.
    pub fn upgrade(&mut self) {
        self.kill();
        self.next = !self.next || self.is_migrating();
    }

    /// Whether rows are on their way to the next version.
    fn is_migrating(&self) -> bool {
        let begun = "SELECT 1 FROM _partysync_schema WHERE columns LIKE '%\"cursor\":%'";
        self.sql().query_opt(begun, [], |_| Ok(())).is_ok_and(|found| found.is_some())
    }

    /// The process will die after this many more statements.
    pub fn doom(&mut self, statements: u32) {
        self.disk.doom(statements);
    }

    /// After this many more statements, so many fail; the process lives on.
    pub fn fail(&mut self, statements: u32, times: u32) {
        self.disk.fail(statements, times);
    }

    /// The object goes to sleep; its sockets stay open. One that awaits a hook, or has more to
    /// send, does not.
    pub fn hibernate(&mut self) {
        if !self.again
            && self.later.is_none()
            && self.process.as_ref().is_some_and(|p| with!(p, process => !process.is_slow()))
        {
            self.process = None;
        }
    }

    /// The process is killed and its storage is empty when it is back.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill();
        self.disk.inner = Sqlite::in_memory()?;
        self.outside.told.borrow_mut().clear();
        Ok(())
    }

    /// The database is kept as it is now.
    pub fn back_up(&mut self) -> Result<()> {
        self.backup = Some(self.disk.inner.copy()?);
        Ok(())
    }

    /// The process is killed and the database set back; the application gives it another epoch.
    /// `false` when there is no backup.
    pub fn restore(&mut self, now: Timestamp) -> Result<bool> {
        let Some(backup) = &self.backup else { return Ok(false) };
        let backup = backup.copy()?;
        self.kill();
        self.disk.inner = backup;
        // It may have to be migrated once more, by the version that knows how.
        self.next |= self.is_migrating();
        while self
            .process
            .as_ref()
            .is_none_or(|p| with!(p, process => process.room.machine().is_none()))
        {
            self.turn(now, vec![Happens::Alarm(false)])?;
        }
        self.renew_epoch(now)?;
        self.outside.told.borrow_mut().clear();
        Ok(true)
    }

    /// A client connects.
    pub fn connect(
        &mut self,
        id: &str,
        protocol: Protocol,
        who: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Vec<FromServer>>> {
        self.refused = None;
        let who = who.map(str::to_owned);
        let mut out = self.turn(now, vec![Happens::Connect(id.to_owned(), protocol, who)])?;
        if let (Some(out), Some((code, reason, frame))) = (&mut out, self.refused.take()) {
            out.extend(frame.map(|text| FromServer::Send { to: id.to_owned(), text }));
            out.push(FromServer::Close { to: id.to_owned(), code, reason });
        }
        Ok(out)
    }

    /// Whether the room has more to send.
    pub fn has_more(&self) -> bool {
        self.again
    }

    /// When the room goes on with what it has put off for a moment.
    pub fn later(&self) -> Option<Timestamp> {
        self.later
    }

    /// That moment has come.
    pub fn go_on_later(&mut self, now: Timestamp) -> Result<Option<Vec<FromServer>>> {
        match self.later.take_if(|at| *at <= now) {
            Some(_) => self.turn(now, Vec::new()),
            None => Ok(Some(Vec::new())),
        }
    }

    /// The room sends more of what it has, if there is any.
    pub fn go_on(&mut self, now: Timestamp) -> Result<Option<Vec<FromServer>>> {
        if self.again { self.turn(now, Vec::new()) } else { Ok(Some(Vec::new())) }
    }

    /// A client's socket is gone.
    pub fn close(&mut self, id: &str, now: Timestamp) -> Result<Option<Vec<FromServer>>> {
        let out = self.turn(now, vec![Happens::Closed(id.to_owned())]);
        self.sockets.remove(id);
        out
    }

    /// The alarm rings, if it is time.
    pub fn alarm(&mut self, now: Timestamp) -> Result<Option<Vec<FromServer>>> {
        let Some(at) = self.alarm.take_if(|at| *at <= now) else { return Ok(Some(Vec::new())) };
        let out = self.turn(now, vec![Happens::Alarm(self.rings_again)])?;
        self.rings_again = out.is_none();
        if out.is_none() {
            // The runtime rings again.
            self.alarm = Some(at);
        }
        Ok(out)
    }

    /// Frames come, in one turn.
    pub fn receive(
        &mut self,
        frames: Vec<(String, String)>,
        now: Timestamp,
    ) -> Result<Option<Vec<FromServer>>> {
        let frames = frames.into_iter().map(|(id, text)| Happens::Frame(id, text));
        self.turn(now, frames.collect())
    }

    /// A ping comes, which the runtime answers: a room that sleeps does not wake for it.
    pub fn ping(&mut self, id: &str, now: Timestamp) -> Vec<FromServer> {
        if self.sockets.slot(id).is_none() {
            return Vec::new();
        }
        self.sockets.pinged.insert(id.to_owned(), now);
        vec![FromServer::Send { to: id.to_owned(), text: wire::PONG.to_owned() }]
    }

    /// Whether a hook is awaited.
    pub fn is_slow(&self) -> bool {
        self.process.as_ref().is_some_and(|p| with!(p, process => process.is_slow()))
    }

    /// What is wrong with what handles have said, and what hooks have begun, since the last call.
    pub fn wrong(&self) -> Result<Option<String>> {
        if *self.outside.spoilt.borrow() {
            return Ok(Some("something has begun whose hook failed".to_owned()));
        }
        for token in self.outside.told.take() {
            let told = "SELECT EXISTS (SELECT 1 FROM told WHERE token = ?)";
            if !self.sql().query_one(told, params![token], |row| row.get::<bool>(0))? {
                return Ok(Some(format!("{token} was said to be written, and is not there")));
            }
        }
        Ok(None)
    }

    /// One of the hooks that are awaited goes on.
    pub fn resume(&mut self, which: usize, now: Timestamp) -> Result<Option<Vec<FromServer>>> {
        self.turn(now, vec![Happens::Hook(which)])
    }
}

/// Something that happens to the server.
enum Happens {
    Connect(String, Protocol, Option<String>),
    Frame(String, String),
    Closed(String),
    /// With `true` again, as the turn was lost.
    Alarm(bool),
    /// What it has asked for: when sockets were heard last.
    Heard,
    Hook(usize),
}

impl Happens {
    /// The request that it is, with who makes it.
    fn request(&self) -> Result<http::Request<()>> {
        let mut request = http::Request::new(());
        if let Self::Connect(_, _, Some(who)) = self {
            Identity::new(who)?.put(&mut request);
        }
        Ok(request)
    }
}
