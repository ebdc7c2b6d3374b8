//! The world of a store: its object's turns, what they lead to, and the end of a run.

use super::client::{Client, STORE};
use super::remote::Remote;
use super::room::Node;
use super::step::{RemoteFault, Schedule, Step};
use crate::Violation;
use crate::disk::Disk;
use futures::FutureExt;
use futures::channel::oneshot::{Sender, channel};
use futures::future::LocalBoxFuture;
use partysync::livestore::{
    Caller, Context, Effect, HookDone, Input, Limits, LiveStoreServer, Open, Push, Subscriber,
};
use partysync::room::Slot;
use partysync::sql::{Sql, Turns};
use partysync::{Error, Result, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// What is wrong.
pub(crate) type Wrong = String;

/// Hooks wait where they are told to.
#[derive(Default)]
pub(crate) struct Server {
    slow: Cell<bool>,
    pub(crate) waiting: RefCell<VecDeque<Sender<bool>>>,
}

impl LiveStoreServer for Server {
    fn limits(&self) -> Limits {
        Limits { page_events: 2, page_bytes: 2_000, ..Limits::default() }
    }

    async fn on_push(&self, _: &Push, _: &Caller) -> Result<()> {
        if !self.slow.get() {
            return Ok(());
        }
        let (told, waits) = channel();
        self.waiting.borrow_mut().push_back(told);
        match waits.await {
            Ok(false) => Err(Error::reject("it is refused")),
            _ => Ok(()),
        }
    }
}

/// A store and its clients.
pub struct World {
    pub(crate) disk: Disk,
    pub(crate) remote: Option<Remote>,
    pub(crate) server: Rc<Server>,
    open: Option<Open>,
    pub(crate) life: u32,
    pub(crate) crashes: u32,
    pub(crate) now: Timestamp,
    pub(crate) alarm: Option<Timestamp>,
    /// What the sockets keep, by slots; an empty text where nothing is kept.
    pub(crate) sockets: BTreeMap<Slot, String>,
    /// Sockets whose clients have gone, which the server does not know yet.
    pub(crate) ghosts: BTreeSet<Slot>,
    pub(crate) hooks: Vec<LocalBoxFuture<'static, HookDone>>,
    pub(crate) calls: VecDeque<(u64, Rc<Subscriber>, String)>,
    pub(crate) clients: Vec<Client>,
    /// Whose connection or call the turn decides about.
    pub(crate) arriving: Option<usize>,
    made: u64,
    /// Ids of emptied logs.
    ids: u64,
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Objects may lack what they are not told of any more.
    forgot_objects: bool,
    /// What was acknowledged may be gone.
    emptied: bool,
    pub(crate) history: Vec<String>,
}

impl World {
    /// The world of a schedule, before its steps.
    ///
    /// # Panics
    /// When SQLite cannot be opened.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let server = Server::default();
        server.slow.set(schedule.slow_hooks);
        let all = 0..schedule.sockets + schedule.objects;
        let clients = all.map(|index| {
            let (name, object) = (format!("client-{index}"), index >= schedule.sockets);
            let mut client = Client::new(name, object);
            client.room = (object && schedule.rooms).then(|| Node::new(&client.name));
            client
        });
        Self {
            disk: Disk::new().expect("SQLite in memory"),
            remote: schedule.elsewhere.then(|| Remote::new(STORE).expect("SQLite in memory")),
            server: Rc::new(server),
            open: None,
            life: 0,
            crashes: 0,
            now: Timestamp::from_millis(1_764_000_000_000),
            alarm: None,
            sockets: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            hooks: Vec::new(),
            calls: VecDeque::new(),
            clients: clients.collect(),
            arriving: None,
            made: 0,
            ids: 0,
            acknowledged: BTreeSet::new(),
            forgot_objects: false,
            emptied: false,
            history: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        self.history.push(format!("{:>6} {line}", self.now.as_millis() - 1_764_000_000_000));
    }

    pub(crate) fn context(&self) -> Option<Context> {
        self.open.as_ref().map(|open| open.machine().context().clone())
    }

    /// Takes the store through a turn, and those that it asks for.
    pub(crate) fn turn(&mut self, input: Option<Input<'_>>) {
        let mut inputs = Vec::from_iter(input);
        while self.one_turn(std::mem::take(&mut inputs)) {}
    }

    /// Opens the store, which gives sockets other slots.
    pub(crate) fn wake(&mut self) {
        if self.open.is_none() {
            self.turn(None);
        }
    }

    fn one_turn(&mut self, inputs: Vec<Input<'_>>) -> bool {
        let begun = self.disk.begin();
        let opened = begun.and_then(|()| match self.open.take() {
            Some(open) => Ok(open),
            None => self.open_store(),
        });
        let Ok(mut open) = opened else {
            self.crash();
            return false;
        };
        let turn = open.turn(&self.server, &self.disk, self.now, inputs);
        if turn.aborted.is_some() || self.disk.commit().is_err() {
            self.crash();
            return false;
        }
        self.open = Some(open);
        self.hooks.extend(turn.hooks);
        turn.after.into_iter().for_each(|hook| drop(hook.now_or_never()));
        let mut again = false;
        for effect in turn.effects {
            match effect {
                Effect::Again => again = true,
                effect => self.carry_out(effect),
            }
        }
        again
    }

    fn open_store(&mut self) -> Result<Open> {
        self.life += 1;
        // The runtime gives sockets in an order of its own: slots are given out anew.
        let kept: Vec<_> = std::mem::take(&mut self.sockets).into_iter().collect();
        let mut moved = BTreeMap::new();
        let mut attachments = Vec::new();
        for ((old, attachment), new) in kept.into_iter().zip((0..).map(Slot)) {
            moved.insert(old, new);
            attachments.push(Some(attachment.clone()).filter(|text| !text.is_empty()));
            self.sockets.insert(new, attachment);
        }
        self.ghosts = self.ghosts.iter().filter_map(|old| moved.get(old).copied()).collect();
        for client in &mut self.clients {
            client.slot = client.slot.and_then(|(old, n)| Some((moved.get(&old).copied()?, n)));
        }
        let fresh = format!("backend-{}", self.life);
        let (server, sql): (&Server, &dyn Sql) = (&self.server, &self.disk);
        match &self.remote {
            None => Open::new(server, sql, STORE, &fresh, self.now, attachments),
            Some(remote) => {
                let head = remote.head()?;
                Open::elsewhere(server, sql, STORE, &fresh, head, self.now, attachments)
            }
        }
    }

    /// The process ends: what was not committed is gone, and all connections.
    pub(crate) fn crash(&mut self) {
        let _ = self.disk.roll_back();
        self.disk.restart();
        self.crashes += 1;
        self.open = None;
        self.hooks.clear();
        self.server.waiting.borrow_mut().clear();
        self.calls.clear();
        self.sockets.clear();
        self.ghosts.clear();
        for client in &mut self.clients {
            if client.object { client.call_failed() } else { client.gone() }
        }
        self.note(|| "the process ends".to_owned());
    }

    fn step_all(&mut self, step: &Step) -> std::result::Result<(), Wrong> {
        match *step {
            Step::Commit(index, count) => {
                for _ in 0..count {
                    self.made += 1;
                    match &mut self.clients[index].room {
                        None => self.clients[index].pending.push_back(self.made),
                        Some(room) => {
                            room.commit(self.made)?;
                            self.acknowledged.insert(self.made);
                        }
                    }
                }
            }
            Step::Go(index) => self.go(index),
            Step::Up(index) => self.up(index),
            Step::Down(index) => self.down(index)?,
            Step::Cut(index) => self.cut(index),
            Step::Notice => self.notice(),
            Step::Hook(allowed) => self.hook(allowed),
            Step::Remote(which, fault) => self.remote(which, fault),
            Step::Called(well) => self.called(well)?,
            Step::Sleep => self.sleep(),
            Step::Kill => self.crash(),
            Step::DiskFails(after, times) => self.disk.fail(after, times),
            Step::Wait(millis) => self.wait(millis)?,
            Step::Empty => {
                self.ids += 1;
                let fresh = format!("emptied-{}", self.ids);
                self.turn(Some(Input::Empty(fresh)));
                (self.forgot_objects, self.emptied) = (true, true);
            }
            Step::Lose(count) => {
                if let Some(remote) = &self.remote {
                    remote.lose(count).map_err(|e| e.to_string())?;
                    // What sleeps finds it when it wakes.
                    if self.open.is_some() {
                        self.crash();
                    }
                    (self.forgot_objects, self.emptied) = (true, true);
                }
            }
            Step::Wipe => {
                if self.remote.is_some() {
                    self.crash();
                    self.disk = Disk::new().map_err(|e| e.to_string())?;
                    self.alarm = None;
                    self.forgot_objects = true;
                }
            }
        }
        Ok(())
    }

    /// Something happens.
    ///
    /// # Errors
    /// The violation.
    pub fn step(&mut self, step: &Step) -> std::result::Result<(), Violation> {
        self.note(|| format!("{step:?}"));
        self.step_all(step).map_err(|what| self.violation(what))
    }

    fn violation(&mut self, what: Wrong) -> Violation {
        Violation { what, history: std::mem::take(&mut self.history) }
    }

    pub(crate) fn remote(&mut self, which: usize, fault: RemoteFault) {
        let (life, context) = (self.life, self.context());
        let Some(remote) = &mut self.remote else { return };
        if let Some(input) = remote.go(which, fault, life, context)
            && self.open.is_some()
        {
            self.turn(Some(input));
        }
    }

    pub(crate) fn hook(&mut self, allowed: bool) {
        let told = self.server.waiting.borrow_mut().pop_front();
        if let Some(told) = told {
            let _ = told.send(allowed);
        }
        let mut done = Vec::new();
        self.hooks.retain_mut(|hook| match hook.now_or_never() {
            Some(result) => {
                done.push(result);
                false
            }
            None => true,
        });
        for result in done {
            self.turn(Some(Input::HookDone(result)));
        }
    }

    fn sleep(&mut self) {
        let calls = self.clients.iter().any(|client| client.object && client.slot.is_some());
        let busy = calls || !self.calls.is_empty();
        if !busy && self.remote.as_ref().is_none_or(Remote::is_idle) {
            self.open = None;
            // The runtime does not wait for ever for hooks that do.
            self.hooks.clear();
            self.server.waiting.borrow_mut().clear();
        }
    }

    /// The faults stop: everything has to come right. Gives how many events are stored.
    ///
    /// # Errors
    /// The violation.
    pub fn heal(&mut self) -> std::result::Result<u64, Violation> {
        self.note(|| "the faults stop".to_owned());
        self.disk.restart();
        let healed = self.try_heal().and_then(|()| self.check());
        healed.map_err(|what| self.violation(what))
    }

    fn try_heal(&mut self) -> std::result::Result<(), Wrong> {
        let mut late = self.remote.is_some();
        for round in 0..600 {
            if self.forgot_objects && round % 100 == 0 {
                let objects: Vec<_> = (0..self.clients.len()).collect();
                let objects = objects.into_iter().filter(|index| self.clients[*index].object);
                objects.collect::<Vec<_>>().into_iter().for_each(|index| self.cut(index));
            }
            self.server.slow.set(false);
            self.notice();
            self.hook(true);
            while self.remote.as_ref().is_some_and(|remote| !remote.is_idle()) {
                self.remote(0, RemoteFault::None);
            }
            for index in 0..self.clients.len() {
                self.go(index);
                while !self.clients[index].up.is_empty() {
                    self.up(index);
                }
                while !self.clients[index].down.is_empty() {
                    self.down(index)?;
                }
            }
            while !self.calls.is_empty() {
                self.called(true)?;
            }
            self.wait(1_000)?;
            if !self.clients.iter().all(Client::is_content) {
                continue;
            }
            if self.is_equal()? {
                return Ok(());
            }
            // What an earlier life has appended late is found by the next push.
            if std::mem::take(&mut late) {
                self.step_all(&Step::Commit(0, 1))?;
            }
        }
        let states: Vec<_> = self.clients.iter().map(|client| client.state()).collect();
        Err(format!("it does not heal: the log has {}, {states:?}", self.log()?.len()))
    }

    fn is_equal(&self) -> std::result::Result<bool, Wrong> {
        let log = self.log()?;
        Ok(self.clients.iter().all(|client| match &client.room {
            None => client.has == log,
            Some(room) => room.has().is_ok_and(|(has, _)| has == log),
        }))
    }

    /// The events' own ids in the log, in order.
    fn log(&self) -> std::result::Result<Vec<u64>, Wrong> {
        let sql = self.remote.as_ref().map_or(&self.disk as &dyn Sql, Remote::sql);
        let all =
            "SELECT seqNum, parentSeqNum, args ->> 'id' FROM eventlog_7_store_1 ORDER BY seqNum";
        let mut log = Vec::new();
        let mut wrong = None;
        sql.query_map(all, [], |row| {
            let (seq, parent) = (row.get::<i64>(0)?.unsigned_abs(), row.get::<i64>(1)?);
            if seq != log.len() as u64 + 1 || parent.unsigned_abs() + 1 != seq {
                wrong.get_or_insert(format!("the log has {seq} behind {}", log.len()));
            }
            log.push(row.get::<i64>(2)?.unsigned_abs());
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        wrong.map_or(Ok(log), Err)
    }

    fn check(&self) -> std::result::Result<u64, Wrong> {
        let log = self.log()?;
        let once: BTreeSet<_> = log.iter().copied().collect();
        if once.len() != log.len() {
            return Err(format!("an event is in the log twice: {log:?}"));
        }
        if let Some(lost) = self.acknowledged.difference(&once).next().filter(|_| !self.emptied) {
            return Err(format!("event {lost} was acknowledged, and is not in the log: {log:?}"));
        }
        Ok(log.len() as u64)
    }
}
