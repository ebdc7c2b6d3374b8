//! The world: clients, links and the server, and what happens to them.

use crate::Stats;
use crate::app::{Account, AppAction, Cell, Config, Thing};
use crate::server::{FromServer, Server};
use crate::step::{Schedule, Step};
use crate::tab::{Ask, Health, Link, Tab, Told};
use partysync::{Code, Record, Result, Timestamp};
use partysync_client::store::{Kept, MemoryStore, Store, StoreEvent};
use partysync_client::{Cause, Input, Note, Now, Output, Peer, Phase, Timing};
use std::collections::{BTreeMap, BTreeSet};

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Violation {
    /// Which, and how.
    pub what: String,
    /// What happened before, in order.
    pub history: Vec<String>,
}

/// What became of an action, as its client heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Known {
    Waiting,
    Committed,
    Rejected,
    /// Done or not: the server has forgotten the client, which was told so; or its store did not
    /// keep it, which was told, too.
    Unknown,
}

/// What the server holds at a version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) things: Vec<Thing>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) cells: Vec<Cell>,
}

/// All there is.
pub struct World {
    pub(crate) server: Server,
    pub(crate) tabs: Vec<Option<Tab>>,
    timing: Timing,
    /// How many tabs share a browser.
    shared_by: usize,
    /// What each browser keeps for its tabs, and what it kept once.
    browsers: Vec<(MemoryStore, Option<Kept>)>,
    /// The actions of each client id that may still get an answer, by seq.
    pub(crate) made: BTreeMap<String, BTreeMap<u64, AppAction>>,
    now: Timestamp,
    skew: i64,
    /// How much the clients' time of day is off.
    wall_skew: i64,
    links: u32,
    clients: u32,
    /// Whether the clients' stores have faults.
    pub(crate) store_faults: bool,
    /// Something that was seen to be wrong in the middle of a step.
    pub(crate) wrong: Option<String>,
    /// Whether a tab's outbox was taken from it as long as it lived.
    locks_lost: bool,
    /// What became of each action, and of which client it was.
    pub(crate) known: BTreeMap<i64, (String, Known)>,
    /// The server's rows at each version, of the present epoch.
    pub(crate) past: BTreeMap<u64, Rows>,
    pub(crate) epoch: String,
    pub(crate) wiped: bool,
    history: Vec<String>,
    /// What happened, in numbers.
    pub stats: Stats,
}

impl World {
    /// A room with empty storage and the clients of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let Schedule { clients, tabs, slow_hooks, small_pages, store_faults, .. } = *schedule;
        let config = Config { slow: slow_hooks, small: small_pages, forgets: !store_faults };
        let mut world = Self {
            server: Server::new(config).expect("SQLite in memory"),
            tabs: (0..clients).map(|_| None).collect(),
            // A store that is only slow is waited for.
            timing: Timing {
                store_ms: if store_faults { Timing::default().store_ms } else { u64::MAX / 2 },
                ..Timing::default()
            },
            shared_by: tabs,
            browsers: (0..clients.div_ceil(tabs)).map(|_| Default::default()).collect(),
            made: BTreeMap::new(),
            now: Timestamp::from_millis(1_000_000),
            skew: 0,
            wall_skew: 0,
            links: 0,
            clients: 0,
            store_faults,
            wrong: None,
            locks_lost: false,
            known: BTreeMap::new(),
            past: BTreeMap::new(),
            epoch: String::new(),
            wiped: false,
            history: Vec::new(),
            stats: Stats::default(),
        };
        (0..clients).for_each(|tab| world.open_tab(tab));
        world
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) -> Violation {
        Violation { what: what.into(), history: std::mem::take(&mut self.history) }
    }

    fn note(&mut self, line: String) {
        self.history.push(format!("{:>9} {line}", self.now.as_millis()));
    }

    /// The clients' clocks.
    fn client_now(&self) -> Now {
        let monotonic = self.now.as_millis().unsigned_abs();
        Now { monotonic, wall: self.now.plus_millis(self.wall_skew) }
    }

    fn server_now(&self) -> Timestamp {
        self.now.plus_millis(self.skew)
    }

    /// Does one step and checks what has to hold after each.
    ///
    /// # Errors
    /// The violation.
    pub fn step(&mut self, step: &Step) -> std::result::Result<(), Violation> {
        self.note(format!("{step:?}"));
        self.perform(step)
            .map_err(|error| self.violation(format!("an error came out: {error}")))?;
        self.check()
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Act(tab, action) => self.act(*tab, action),
            Step::ActAndDie(tab, action) => {
                // It dies before the store has heard of it.
                self.health(*tab, |health| health.slow = true);
                self.act(*tab, action);
                self.close_tab(*tab)?;
                self.open_tab(*tab);
            }
            Step::Open(tab) => self.open(*tab)?,
            Step::Up(tab) => self.up(*tab, 1)?,
            Step::UpTwice(tab) => self.up(*tab, 2)?,
            Step::Down(tab) => self.down(*tab, 1)?,
            Step::DownTwice(tab) => self.down(*tab, 2)?,
            Step::DownSwap(tab) => {
                if let Some(link) = self.link(*tab)
                    && link.down.len() > 1
                {
                    link.down.swap(0, 1);
                }
                self.down(*tab, 1)?;
            }
            Step::DownDrop(tab) => {
                if let Some(link) = self.link(*tab) {
                    link.down.pop_front();
                }
            }
            Step::Settle => self.settle()?,
            Step::Cut(tab) => self.cut(*tab)?,
            Step::Notice(tab) => self.notice(*tab),
            Step::Refuse(tab, kind) => self.refuse(*tab, *kind)?,
            Step::ClientCrash(tab) => {
                self.close_tab(*tab)?;
                self.open_tab(*tab);
            }
            Step::CloseTab(tab) => self.close_tab(*tab)?,
            Step::OpenTab(tab) => self.open_tab(*tab),
            Step::Hear(tab) => self.hear(*tab),
            Step::StoreFails(tab, times, lies) => {
                self.health(*tab, |health| (health.fails, health.lies) = (*times, *lies));
            }
            Step::StoreSlow(tab) => self.health(*tab, |health| health.slow = true),
            Step::StoreAnswers(tab) => self.store_answers(*tab, true),
            Step::StoreBreaks(tab) => {
                let broke = partysync::Error::new(Code::Store, "the connection is gone");
                self.handle(*tab, Input::Store(StoreEvent::Broke(broke)));
            }
            Step::StoreBackUp(tab) => {
                let (store, kept) = &mut self.browsers[*tab / self.shared_by];
                *kept = Some(store.kept()?);
            }
            Step::StoreSetBack(tab) => self.set_back(*tab / self.shared_by)?,
            Step::LoseLock(tab) => self.lose_lock(*tab),
            Step::Freeze(tab) => {
                if let Some(tab) = &mut self.tabs[*tab] {
                    tab.frozen = true;
                }
            }
            Step::Thaw(tab) => self.thaw(*tab),
            Step::WallSkew(millis) => self.wall_skew = *millis,
            Step::ServerCrash => {
                self.server.kill();
                self.server_died();
            }
            Step::ServerDoom(statements) => self.server.doom(*statements),
            Step::DiskFails(statements, times) => self.server.fail(*statements, *times),
            Step::BackUp => self.server.back_up()?,
            Step::Restore => {
                let now = self.server_now();
                if self.server.restore(now)? {
                    self.server_died();
                    self.wiped = true;
                    self.remember();
                }
            }
            Step::UpAll => self.up_all()?,
            Step::Evil(kind) => self.evil(*kind)?,
            Step::Hibernate => self.server.hibernate(),
            Step::Upgrade => {
                self.server.upgrade();
                self.server_died();
            }
            Step::Resume(which) => self.resume(*which)?,
            Step::Wipe => {
                self.server.wipe()?;
                self.server_died();
                self.past.clear();
                self.wiped = true;
            }
            Step::Alarm => {
                let now = self.server_now();
                let out = self.server.alarm(now)?;
                self.route(out);
            }
            Step::Wait(millis) => self.wait(*millis),
            Step::Skew(millis) => self.skew = *millis,
        }
        Ok(())
    }

    fn link(&mut self, tab: usize) -> Option<&mut Link> {
        self.tabs[tab].as_mut()?.link.as_mut()
    }

    fn health(&mut self, tab: usize, change: impl FnOnce(&mut Health)) {
        if let Some(tab) = &mut self.tabs[tab] {
            change(&mut tab.health);
        }
    }

    fn open_tab(&mut self, tab: usize) {
        if self.tabs[tab].is_some() {
            return;
        }
        let browser = tab / self.shared_by;
        let store = self.browsers[browser].0.clone();
        self.clients += 1;
        let random = [u64::from(self.clients), 0x5eed];
        let peer = Peer::new(random, self.timing, self.client_now());
        self.tabs[tab] = Some(Tab {
            browser,
            client: peer.replica().client().to_owned(),
            peer,
            events: store.events(),
            store,
            health: Health::default(),
            asked: None,
            link: None,
            frozen: false,
            adopted: BTreeSet::new(),
        });
        self.outputs(tab);
    }

    fn close_tab(&mut self, tab: usize) -> Result<()> {
        if self.tabs[tab].is_none() {
            return Ok(());
        }
        self.stats.client_crashes += 1;
        self.cut(tab)?;
        if let Some(gone) = self.tabs[tab].take() {
            self.forget_unstored(&gone.client, &gone.store.kept()?);
        }
        Ok(())
    }

    /// What a client has made and its store does not hold ends with it.
    fn forget_unstored(&mut self, client: &str, kept: &Kept) {
        let stored = kept.outboxes.get(client);
        let Some(made) = self.made.get_mut(client) else { return };
        made.retain(|seq, action| {
            let is_stored = stored.is_some_and(|outbox| outbox.pending.contains_key(seq));
            if !is_stored && let Some((_, known)) = self.known.get_mut(&action.token()) {
                *known = Known::Unknown;
            }
            is_stored
        });
    }

    /// The power is gone, and the browser's disk holds what it held once.
    fn set_back(&mut self, browser: usize) -> Result<()> {
        let Some(kept) = self.browsers[browser].1.clone() else { return Ok(()) };
        for tab in 0..self.tabs.len() {
            if tab / self.shared_by == browser {
                self.close_tab(tab)?;
            }
        }
        let (store, _) = &self.browsers[browser];
        let clients: BTreeSet<_> = store.kept()?.outboxes.into_keys().collect();
        store.set_kept(kept.clone())?;
        clients.iter().for_each(|client| self.forget_unstored(client, &kept));
        Ok(())
    }

    /// Another tab of the browser gets what this one has, which lives on.
    fn lose_lock(&mut self, tab: usize) {
        let Some(tab) = &mut self.tabs[tab] else { return };
        tab.lose_lock(&self.browsers[tab.browser].0);
        self.locks_lost = true;
    }

    fn thaw(&mut self, tab: usize) {
        let now = self.client_now();
        if let Some(tab) = &mut self.tabs[tab] {
            tab.frozen = false;
            tab.time(now);
        }
        self.outputs(tab);
    }

    /// Time passes, and timers ring when they are due; a timer that would ring for ever is late.
    fn wait(&mut self, millis: i64) {
        let end = self.now.plus_millis(millis);
        for _ in 0..12 {
            let awake = self.tabs.iter().flatten().filter(|tab| !tab.frozen);
            let next = awake.filter_map(|tab| tab.peer.timeout()).min();
            let next = next.and_then(|at| i64::try_from(at).ok()).map(Timestamp::from_millis);
            let Some(at) = next.filter(|at| *at < end) else { break };
            self.now = self.now.max(at);
            self.ring();
        }
        self.now = end;
        self.ring();
    }

    fn ring(&mut self) {
        let now = self.client_now();
        for tab in 0..self.tabs.len() {
            if self.tabs[tab].as_mut().is_some_and(|tab| tab.time(now)) {
                self.outputs(tab);
            }
        }
    }

    fn act(&mut self, index: usize, action: &AppAction) {
        let now = self.client_now();
        let Some(tab) = &mut self.tabs[index] else { return };
        self.stats.actions += 1;
        let client = tab.client.clone();
        let seq = tab.peer.act(action.clone(), now).expect("an action that fits");
        self.known.insert(action.token(), (client.clone(), Known::Waiting));
        self.made.entry(client).or_default().insert(seq, action.clone());
        self.outputs(index);
    }

    fn handle(&mut self, index: usize, input: Input<'_>) {
        let now = self.client_now();
        if let Some(tab) = &mut self.tabs[index]
            && !tab.frozen
        {
            tab.peer.handle(input, now);
            self.outputs(index);
        }
    }

    /// What its store tells a tab, of others too.
    fn hear(&mut self, index: usize) {
        while let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen)
            && let Some(event) = tab.event()
        {
            if let StoreEvent::Orphan(outbox) = &event
                && !outbox.pending.is_empty()
                && outbox.client != tab.client
            {
                self.stats.adopted += 1;
                tab.adopted.insert(outbox.client.clone());
            }
            self.handle(index, Input::Store(event));
        }
    }

    fn store_answers(&mut self, index: usize, forced: bool) {
        let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen) else { return };
        match tab.answer(forced) {
            None => {}
            Some(Told::Stored(stored)) => self.handle(index, Input::Stored(stored)),
            Some(Told::Opened(opened)) => {
                for outbox in opened.iter().flat_map(|saved| &saved.outboxes) {
                    self.stats.adopted += 1;
                    tab.adopted.insert(outbox.client.clone());
                }
                self.handle(index, Input::Opened(opened));
            }
        }
    }

    /// Carries out what a tab's machine wants done.
    fn outputs(&mut self, index: usize) {
        while let Some(tab) = &mut self.tabs[index]
            && let Some(output) = tab.peer.poll_output()
        {
            match output {
                Output::OpenStore(client) => tab.asked = Some(Ask::Open(client)),
                Output::Store(writes) => tab.asked = Some(Ask::Write(writes)),
                Output::Tell(note) => {
                    tab.store.tell(&note);
                    if let Note::Answered { client, seq, held_by } = note {
                        self.answered(&client, seq, held_by.is_some());
                    }
                }
                Output::Connect => {
                    self.links += 1;
                    tab.link = Some(Link::new(format!("link-{}", self.links)));
                }
                Output::Send(text) => {
                    if !self.locks_lost && !tab.has_stored(&text) {
                        self.wrong = Some(format!("it sends what is not stored: {text}"));
                    }
                    if let Some(link) = &mut tab.link {
                        link.up.push_back(text);
                    }
                }
                // The server notices later, if at all: a half-open socket.
                Output::Disconnect => tab.link = None,
                Output::Error(error) if error.code() == Code::ClientForgotten => {
                    self.stats.forgotten += 1;
                }
                Output::Changed(_) | Output::Answer(..) | Output::Message(_) | Output::Error(_) => {
                }
            }
        }
        self.store_answers(index, false);
    }

    /// A client's action has its answer. One that came twice was heard the first time.
    fn answered(&mut self, client: &str, seq: u64, done: bool) {
        let action = self.made.get_mut(client).and_then(|made| made.remove(&seq));
        let Some(action) = action else { return };
        let abandoned = format!("{client}-{seq}");
        let mut tabs = self.tabs.iter().flatten();
        let unknown = tabs.find_map(|tab| tab.peer.abandoned().get(&abandoned));
        let known = match unknown {
            _ if done => Known::Committed,
            Some(abandoned) if abandoned.error().code() == Code::ClientForgotten => Known::Unknown,
            _ => Known::Rejected,
        };
        self.stats.rejected += u64::from(known == Known::Rejected);
        self.known.insert(action.token(), (client.to_owned(), known));
    }

    fn open(&mut self, tab: usize) -> Result<()> {
        let Some(link) = self.link(tab) else { return Ok(()) };
        if link.open || link.broken {
            return Ok(());
        }
        link.open = true;
        let id = link.id.clone();
        self.stats.connections += 1;
        let now = self.server_now();
        let out = self.server.connect(&id, now)?;
        self.route(out);
        if self.link(tab).is_some_and(|link| link.id == id && !link.broken) {
            self.handle(tab, Input::Connected);
        }
        Ok(())
    }

    fn up(&mut self, tab: usize, times: usize) -> Result<()> {
        let Some(link) = self.link(tab) else { return Ok(()) };
        if !link.open || link.broken {
            return Ok(());
        }
        let Some(text) = link.up.pop_front() else { return Ok(()) };
        let id = link.id.clone();
        self.note(format!("    {id} > {text}"));
        for _ in 0..times {
            self.stats.frames += 1;
            let now = self.server_now();
            let out = self.server.receive(vec![(id.clone(), text.clone())], now)?;
            self.route(out);
        }
        Ok(())
    }

    /// A frame of each connection, in one turn.
    fn up_all(&mut self) -> Result<()> {
        let mut frames = Vec::new();
        for link in self.tabs.iter_mut().flatten().filter_map(|tab| tab.link.as_mut()) {
            if link.open
                && !link.broken
                && let Some(text) = link.up.pop_front()
            {
                frames.push((link.id.clone(), text));
            }
        }
        self.stats.frames += frames.len() as u64;
        let now = self.server_now();
        let out = self.server.receive(frames, now)?;
        self.route(out);
        Ok(())
    }

    /// A connection of nobody's does what no client does, and leaves.
    fn evil(&mut self, kind: u8) -> Result<()> {
        self.links += 1;
        let id = format!("evil-{}", self.links);
        let hello = |channels: &str, rest: &str| {
            format!(
                r#"{{"type":"hello","client":"{id}","epoch":null,"channels":[{channels}]{rest}}}"#
            )
        };
        let cells = Cell::SCHEMA.hash();
        let cells = format!(r#"{{"channel":"cells","since":null,"schema":"{cells}"}}"#);
        let push = |seq: &str, action: &str| {
            format!(
                r#"{{"type":"push","actions":[{{"seq":{seq},"channel":"cells","action":{action}}}]}}"#
            )
        };
        let frames = match kind % 10 {
            0 => vec![hello(&[cells.as_str(); 50].join(","), "")],
            1 => vec![hello(&cells, ""), push("9223372036854775808", r#"{"type":"nothing"}"#)],
            2 => vec![hello(&cells, r#","seq":9223372036854775807"#), push("1", "null")],
            3 => vec![hello(&cells, ""), hello(&cells, "")],
            4 => vec![push("1", "null"), hello("", ""), push("7", "null")],
            5 => vec!["{".repeat(500), "\u{0}".into(), "[]".into(), "null".into()],
            6 => vec![hello(&cells, ""), r#"{"type":"read","bytes":18446744073709551615}"#.into()],
            7 => vec![hello(&cells, ""), r#"{"type":"message","data":{"x":1}}"#.into()],
            8 => vec![
                hello(&cells, ""),
                push("1", &format!(r#"{{"type":"{}"}}"#, "x".repeat(9_000))),
            ],
            _ => vec![hello(&cells, ""), push("1", r#"{"type":"put","payload":{"key":7}}"#)],
        };
        let now = self.server_now();
        let out = self.server.connect(&id, now)?;
        self.route(out);
        let frames = frames.into_iter().map(|frame| (id.clone(), frame)).collect();
        let out = self.server.receive(frames, now)?;
        self.route(out);
        let out = self.server.close(&id, now)?;
        self.route(out);
        Ok(())
    }

    fn down(&mut self, tab: usize, times: usize) -> Result<()> {
        if self.tabs[tab].as_ref().is_some_and(|tab| tab.frozen) {
            return Ok(());
        }
        let Some(link) = self.link(tab) else { return Ok(()) };
        let Some(text) = link.down.pop_front() else {
            if let Some((code, reason)) = link.close.take() {
                self.closed(tab, Cause::Code { code, reason })?;
            }
            return Ok(());
        };
        let id = link.id.clone();
        self.note(format!("    {id} < {text}"));
        self.stats.resets += u64::from(text.contains(r#""type":"reset""#));
        for _ in 0..times {
            // The first time may have ended the connection.
            if self.link(tab).is_some_and(|link| link.id == id) {
                self.stats.frames += 1;
                self.handle(tab, Input::Frame(&text));
            }
        }
        Ok(())
    }

    /// The client's socket is gone, and it hears why; the server hears of it, too.
    fn closed(&mut self, tab: usize, cause: Cause) -> Result<()> {
        let link = self.tabs[tab].as_mut().and_then(|tab| tab.link.take());
        let Some(link) = link else { return Ok(()) };
        self.handle(tab, Input::Disconnected(cause));
        if link.open {
            let now = self.server_now();
            let out = self.server.close(&link.id, now)?;
            self.route(out);
        }
        Ok(())
    }

    /// Something on the way refuses the connection.
    fn refuse(&mut self, tab: usize, kind: u8) -> Result<()> {
        if self.tabs[tab].as_ref().is_none_or(|tab| tab.frozen) {
            return Ok(());
        }
        let code = |code| Cause::Code { code, reason: "no".to_owned() };
        let cause = match kind % 7 {
            0 => code(4401),
            1 => code(4403),
            2 => code(1011),
            3 => Cause::Status(401),
            4 => Cause::Status(404),
            5 => Cause::Unreachable("no route".to_owned()),
            _ => Cause::Address(partysync::Error::retry("no token now")),
        };
        self.closed(tab, cause)
    }

    fn resume(&mut self, which: usize) -> Result<()> {
        let now = self.server_now();
        let out = self.server.resume(which, now)?;
        self.route(out);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        loop {
            let mut moved = self.server.is_slow();
            if moved {
                self.resume(0)?;
            }
            for index in 0..self.tabs.len() {
                self.hear(index);
                let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen) else {
                    continue;
                };
                if tab.asked.is_some() {
                    self.store_answers(index, true);
                    moved = true;
                    continue;
                }
                let Some(link) = &tab.link else { continue };
                let idle = link.down.is_empty() && link.close.is_none();
                if !link.open && !link.broken {
                    self.open(index)?;
                } else if link.open && !link.broken && !link.up.is_empty() {
                    self.up(index, 1)?;
                } else if !idle {
                    self.down(index, 1)?;
                } else {
                    continue;
                }
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn cut(&mut self, tab: usize) -> Result<()> {
        let Some(link) = self.link(tab) else { return Ok(()) };
        link.broken = true;
        link.up.clear();
        let (id, open) = (link.id.clone(), link.open);
        if open {
            let now = self.server_now();
            let out = self.server.close(&id, now)?;
            self.route(out);
        }
        Ok(())
    }

    fn notice(&mut self, tab: usize) {
        let frozen = self.tabs[tab].as_ref().is_none_or(|tab| tab.frozen);
        if !frozen && self.link(tab).is_some_and(|link| link.broken) {
            if let Some(tab) = &mut self.tabs[tab] {
                tab.link = None;
            }
            self.handle(tab, Input::Disconnected(Cause::gone()));
        }
    }

    fn server_died(&mut self) {
        self.stats.server_crashes += 1;
        for link in self.tabs.iter_mut().flatten().filter_map(|tab| tab.link.as_mut()) {
            link.broken |= link.open;
            link.up.clear();
        }
    }

    /// Puts what the server sent on its way; `None` is that it died.
    fn route(&mut self, out: Option<Vec<FromServer>>) {
        let Some(out) = out else {
            self.server_died();
            return self.remember();
        };
        for output in out {
            let (FromServer::Send { to, .. } | FromServer::Close { to, .. }) = &output;
            let mut links = self.tabs.iter_mut().flatten().filter_map(|tab| tab.link.as_mut());
            let Some(link) = links.find(|link| link.id == *to && !link.broken) else { continue };
            match output {
                FromServer::Send { text, .. } => link.down.push_back(text),
                FromServer::Close { code, reason, .. } => link.close = Some((code, reason)),
            }
        }
        self.remember();
    }

    /// Keeps the server's rows at its version.
    fn remember(&mut self) {
        let meta = "SELECT epoch, coalesce((SELECT max(version) FROM _partysync_change), 0) \
                    FROM _partysync_meta";
        let read = |row: &partysync::sql::Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?));
        // A process that died while it made its tables has none.
        let Ok(Some((epoch, version))) = self.server.sql().query_opt(meta, [], read) else {
            return;
        };
        if epoch != self.epoch {
            self.past.clear();
            self.epoch = epoch;
        }
        // A version's rows never change: what is wrong with that shows when they are compared.
        if !self.past.contains_key(&version.unsigned_abs())
            && let Ok(rows) = self.server_rows()
        {
            self.past.insert(version.unsigned_abs(), rows);
        }
    }

    pub(crate) fn server_rows(&self) -> Result<Rows> {
        let sql = self.server.sql();
        Ok(Rows {
            things: sql.records("WHERE deleted_at IS NULL ORDER BY id", [])?,
            accounts: sql.records("ORDER BY number", [])?,
            cells: sql.records("ORDER BY key", [])?,
        })
    }

    /// The faults stop: everything has to come right.
    ///
    /// # Errors
    /// The violation.
    pub fn heal(&mut self) -> std::result::Result<(), Violation> {
        self.note("the faults stop".to_owned());
        self.skew = self.skew.max(0);
        let healed =
            self.try_heal().map_err(|e| self.violation(format!("an error came out: {e}")))?;
        if !healed {
            let tabs = self.tabs.iter().flatten();
            let status: Vec<_> = tabs.map(|tab| tab.peer.status()).collect();
            return Err(self.violation(format!("it does not heal: {status:?}")));
        }
        self.check_healed()
    }

    fn try_heal(&mut self) -> Result<bool> {
        for tab in 0..self.tabs.len() {
            // Two tabs that share an outbox, as lost locks have it, show it when they start anew.
            if self.locks_lost {
                self.close_tab(tab)?;
            }
            self.open_tab(tab);
            self.health(tab, |health| *health = Health::default());
            self.thaw(tab);
            // A frame that was lost on a connection that lives on is not noticed before the next.
            self.cut(tab)?;
            self.notice(tab);
        }
        for _ in 0..50 {
            self.settle()?;
            self.wait(20_000);
            for index in 0..self.tabs.len() {
                self.notice(index);
                let now = self.client_now();
                if let Some(tab) = &mut self.tabs[index]
                    && matches!(tab.peer.status().phase, Phase::Refused(_))
                {
                    tab.peer.reconnect(now);
                    self.outputs(index);
                }
            }
            self.settle()?;
            let calm = |tab: &Tab| {
                let status = tab.peer.status();
                // A process that was doomed may have died just now.
                let broken = tab.link.as_ref().is_some_and(|link| link.broken);
                status.phase == Phase::Live
                    && status.pending == 0
                    && tab.peer.replica().pending_elsewhere() == 0
                    && status.warning.is_none()
                    && !broken
            };
            if self.tabs.iter().flatten().all(calm) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
