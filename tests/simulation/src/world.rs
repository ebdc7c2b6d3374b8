//! The world: clients, links and the server, and what happens to them.

use crate::Stats;
use crate::app::{Account, AppAction, Cell, Config, Thing};
use crate::server::{Output, Server};
use crate::step::{Schedule, Step};
use crate::tab::{End, Link, Tab};
use futures::FutureExt;
use partysync::{Code, Record, Result, Timestamp, params};
use partysync_client::store::MemoryStore;
use partysync_client::{Effect, Phase, Replica, Session, Timing};
use std::collections::BTreeMap;

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
    /// Its client died before it was stored.
    Lost,
    /// The server has forgotten the client, which was told so: done or not.
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
    pub(crate) tabs: Vec<Tab>,
    /// What each browser keeps for its tabs.
    browsers: Vec<MemoryStore>,
    /// The actions of each client id that may still get an answer, by seq.
    pub(crate) made: BTreeMap<String, BTreeMap<u64, AppAction>>,
    /// Which ids are one client's: a client that was forgotten goes on under another.
    lineage: BTreeMap<String, usize>,
    now: Timestamp,
    skew: i64,
    links: u32,
    clients: u32,
    /// What became of each action, and of which client it was.
    pub(crate) known: BTreeMap<i64, (usize, Known)>,
    /// The version that each action was done in, of the present epoch.
    committed: BTreeMap<i64, u64>,
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
        let Schedule { clients, tabs, slow_hooks, small_pages, .. } = *schedule;
        let config = Config { slow: slow_hooks, small: small_pages };
        let tab = |index| Tab { browser: index / tabs, ..Tab::default() };
        let mut world = Self {
            server: Server::new(config).expect("SQLite in memory"),
            tabs: (0..clients).map(tab).collect(),
            browsers: (0..clients.div_ceil(tabs)).map(|_| MemoryStore::new()).collect(),
            made: BTreeMap::new(),
            lineage: BTreeMap::new(),
            now: Timestamp::from_millis(1_000_000),
            skew: 0,
            links: 0,
            clients: 0,
            known: BTreeMap::new(),
            committed: BTreeMap::new(),
            past: BTreeMap::new(),
            epoch: String::new(),
            wiped: false,
            history: Vec::new(),
            stats: Stats::default(),
        };
        (0..clients).for_each(|tab| world.open_tab(tab).expect("an empty store"));
        world
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) -> Violation {
        Violation { what: what.into(), history: std::mem::take(&mut self.history) }
    }

    fn note(&mut self, line: String) {
        self.history.push(format!("{:>9} {line}", self.now.as_millis()));
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
            Step::Act(tab, action) => self.act(*tab, action, true)?,
            Step::ActAndDie(tab, action) => self.act(*tab, action, false)?,
            Step::Open(tab) => self.each_end(*tab, Self::open)?,
            Step::Up(tab) => self.each_end(*tab, |world, at| world.up(at, 1))?,
            Step::UpTwice(tab) => self.each_end(*tab, |world, at| world.up(at, 2))?,
            Step::Down(tab) => self.each_end(*tab, |world, at| world.down(at, 1))?,
            Step::DownTwice(tab) => self.each_end(*tab, |world, at| world.down(at, 2))?,
            Step::DownSwap(tab) => self.each_end(*tab, |world, at| {
                if let Some(link) = world.link(at)
                    && link.down.len() > 1
                {
                    link.down.swap(0, 1);
                }
                world.down(at, 1)
            })?,
            Step::DownDrop(tab) => self.each_end(*tab, |world, at| {
                if let Some(link) = world.link(at) {
                    link.down.pop_front();
                }
                Ok(())
            })?,
            Step::Settle => self.settle()?,
            Step::Cut(tab) => self.each_end(*tab, Self::cut)?,
            Step::Notice(tab) => self.each_end(*tab, Self::notice)?,
            Step::ClientCrash(tab) => {
                self.close_tab(*tab)?;
                self.open_tab(*tab)?;
            }
            Step::CloseTab(tab) => self.close_tab(*tab)?,
            Step::OpenTab(tab) => self.open_tab(*tab)?,
            Step::Adopt(tab) => drop(self.adopt(*tab)?),
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
                    self.remember()?;
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
                self.route(out)?;
            }
            Step::Wait(millis) => {
                self.now = self.now.plus_millis(*millis);
                for tab in 0..self.tabs.len() {
                    self.each_end(tab, |world, (tab, end)| {
                        world.tabs[tab].ends[end].session.tick(world.now);
                        world.effects((tab, end));
                        Ok(())
                    })?;
                }
            }
            Step::Skew(millis) => self.skew = *millis,
        }
        Ok(())
    }

    /// Does something to the session of a tab and to each of its couriers, which may be done
    /// with by then.
    fn each_end(
        &mut self,
        tab: usize,
        mut each: impl FnMut(&mut Self, At) -> Result<()>,
    ) -> Result<()> {
        for end in (0..self.tabs[tab].ends.len()).rev() {
            each(self, (tab, end))?;
        }
        self.dismiss(tab)
    }

    fn link(&mut self, (tab, end): At) -> Option<&mut Link> {
        self.tabs[tab].ends[end].link.as_mut()
    }

    fn open_tab(&mut self, tab: usize) -> Result<()> {
        if !self.tabs[tab].ends.is_empty() {
            return Ok(());
        }
        let store = self.browsers[self.tabs[tab].browser].clone();
        self.clients += 1;
        let fresh = format!("client-{}", self.clients);
        let (replica, errors) = Replica::load(&store.load_now()?, fresh);
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        let client = replica.client().to_owned();
        let lineages = self.lineage.len();
        self.lineage.entry(client.clone()).or_insert(lineages);
        let session = Session::new(replica, Timing::default(), u64::from(self.clients), self.now);
        let store = Box::new(store);
        self.tabs[tab].ends.push(End { client, session, store, link: None, adopted: None });
        self.effects((tab, 0));
        Ok(())
    }

    fn close_tab(&mut self, tab: usize) -> Result<()> {
        if self.tabs[tab].ends.is_empty() {
            return Ok(());
        }
        self.stats.client_crashes += 1;
        for end in 0..self.tabs[tab].ends.len() {
            self.cut((tab, end))?;
        }
        self.tabs[tab].ends.clear();
        self.tabs[tab].done.clear();
        Ok(())
    }

    /// Takes over one outbox; `false` when there is none.
    fn adopt(&mut self, tab: usize) -> Result<bool> {
        if self.tabs[tab].ends.is_empty() {
            return Ok(false);
        }
        let Some(orphan) = self.browsers[self.tabs[tab].browser].orphan_now()? else {
            return Ok(false);
        };
        self.stats.adopted += 1;
        self.clients += 1;
        let number = self.tabs[tab].adopted;
        let seed = u64::from(self.clients);
        self.tabs[tab].adopted += 1;
        self.tabs[tab].ends[0].session.adopt(number, &orphan.outbox);
        let session = Session::courier(&orphan.outbox, Timing::default(), seed, self.now);
        let (client, store) = (orphan.outbox.client, orphan.store);
        let end = End { client, session, store, link: None, adopted: Some(number) };
        self.tabs[tab].ends.push(end);
        let end = self.tabs[tab].ends.len() - 1;
        self.effects((tab, 0));
        self.effects((tab, end));
        Ok(true)
    }

    /// Lets couriers go that have nothing left to do.
    fn dismiss(&mut self, tab: usize) -> Result<()> {
        for end in (1..self.tabs[tab].ends.len()).rev() {
            if self.tabs[tab].ends[end].session.replica().pending() == 0 {
                let removed = self.tabs[tab].ends[end].store.remove();
                removed.now_or_never().expect("memory is at hand")?;
                self.cut((tab, end))?;
                self.tabs[tab].ends.remove(end);
            }
        }
        Ok(())
    }

    fn act(&mut self, tab: usize, action: &AppAction, survives: bool) -> Result<()> {
        let Some(end) = self.tabs[tab].ends.first_mut() else { return Ok(()) };
        self.stats.actions += 1;
        let (token, client) = (action.token(), self.lineage[&end.client]);
        let seq = end.session.act(action.clone(), self.now);
        if survives {
            self.known.insert(token, (client, Known::Waiting));
            self.made.entry(end.client.clone()).or_default().insert(seq, action.clone());
            self.effects((tab, 0));
            return Ok(());
        }
        self.known.insert(token, (client, Known::Lost));
        self.close_tab(tab)?;
        self.open_tab(tab)
    }

    /// First stored, then sent: as the driver does.
    fn effects(&mut self, (tab, index): At) {
        let end = &mut self.tabs[tab].ends[index];
        let writes = end.session.take_writes();
        let id = end.session.replica().client().to_owned();
        if !writes.is_empty() {
            let written = end.store.write(&id, writes).now_or_never();
            written.expect("memory is at hand").expect("memory takes everything");
        }
        let now = self.now;
        let adopted = end.adopted;
        let ends = &mut self.tabs[tab].ends;
        let answers = match (adopted, ends.split_first_mut()) {
            (Some(adopted), Some((main, couriers))) => {
                main.session.hear(adopted, &mut couriers[index - 1].session, now)
            }
            _ => ends[index].session.take_answers(),
        };
        let end = &mut self.tabs[tab].ends[index];
        let mut done = Vec::new();
        let lineage = self.lineage[&end.client];
        let made = self.made.entry(end.client.clone()).or_default();
        for (seq, outcome) in &answers {
            // An answer that came twice was heard the first time.
            if let Some(action) = made.remove(seq) {
                let known = match outcome {
                    Ok(()) => Known::Committed,
                    Err(error) if error.code() == Code::ClientForgotten => Known::Unknown,
                    Err(_) => Known::Rejected,
                };
                self.stats.forgotten += u64::from(known == Known::Unknown);
                self.stats.rejected += u64::from(outcome.is_err());
                self.known.insert(action.token(), (lineage, known));
                // One that was done and is told as unknown may leave the view until it is in the rows.
                let heard = known == Known::Committed && adopted.is_some();
                let committed = self.committed.get(&action.token());
                if let Some(version) = committed.filter(|_| heard) {
                    done.push((self.epoch.clone(), *version, action));
                }
            }
        }
        if id != end.client {
            // Forgotten: it goes on under another id with what it had not pushed.
            let rest = std::mem::take(made);
            self.made.insert(id.clone(), rest);
            self.lineage.insert(id.clone(), lineage);
            end.client = id;
        }
        end.session.take_changes();
        for effect in end.session.take_effects() {
            match effect {
                Effect::Connect => {
                    self.links += 1;
                    end.link = Some(Link::new(format!("link-{}", self.links)));
                }
                Effect::Send(text) => {
                    if let Some(link) = &mut end.link {
                        link.up.push_back(text);
                    }
                }
                // The server notices later, if at all: a half-open socket.
                Effect::Disconnect => end.link = None,
            }
        }
        if adopted.is_some() {
            self.tabs[tab].done.extend(done);
            self.effects((tab, 0));
        }
    }

    fn open(&mut self, at: At) -> Result<()> {
        let Some(link) = self.link(at) else { return Ok(()) };
        if link.open || link.broken {
            return Ok(());
        }
        link.open = true;
        let id = link.id.clone();
        self.stats.connections += 1;
        let now = self.server_now();
        let out = self.server.connect(&id, now)?;
        self.route(out)?;
        if self.link(at).is_some_and(|link| link.id == id && !link.broken) {
            let now = self.now;
            self.session(at).opened(now);
            self.effects(at);
        }
        Ok(())
    }

    fn session(&mut self, (tab, end): At) -> &mut Session<AppAction> {
        &mut self.tabs[tab].ends[end].session
    }

    fn up(&mut self, at: At, times: usize) -> Result<()> {
        let Some(link) = self.link(at) else { return Ok(()) };
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
            self.route(out)?;
        }
        Ok(())
    }

    /// A frame of each connection, in one turn.
    fn up_all(&mut self) -> Result<()> {
        let mut frames = Vec::new();
        for link in self.tabs.iter_mut().flat_map(|t| &mut t.ends).filter_map(|e| e.link.as_mut()) {
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
        self.route(out)
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
        self.route(out)?;
        let frames = frames.into_iter().map(|frame| (id.clone(), frame)).collect();
        let out = self.server.receive(frames, now)?;
        self.route(out)?;
        let out = self.server.close(&id, now)?;
        self.route(out)
    }

    fn down(&mut self, at: At, times: usize) -> Result<()> {
        let now = self.now;
        let Some(link) = self.link(at) else { return Ok(()) };
        let Some(text) = link.down.pop_front() else {
            if let Some((code, reason)) = link.close.take() {
                let id = link.id.clone();
                self.tabs[at.0].ends[at.1].link = None;
                self.session(at).closed(code, &reason, now);
                self.effects(at);
                // The client answers the close.
                let now = self.server_now();
                let out = self.server.close(&id, now)?;
                self.route(out)?;
            }
            return Ok(());
        };
        let id = link.id.clone();
        self.note(format!("    {id} < {text}"));
        self.stats.resets += u64::from(text.contains(r#""type":"reset""#));
        for _ in 0..times {
            // The first time may have ended the connection.
            if self.link(at).is_some_and(|link| link.id == id) {
                self.stats.frames += 1;
                self.session(at).received(&text, now);
                self.effects(at);
            }
        }
        Ok(())
    }

    fn resume(&mut self, which: usize) -> Result<()> {
        let now = self.server_now();
        let out = self.server.resume(which, now)?;
        self.route(out)
    }

    fn settle(&mut self) -> Result<()> {
        loop {
            let mut moved = self.server.is_slow();
            if moved {
                self.resume(0)?;
            }
            for tab in 0..self.tabs.len() {
                self.each_end(tab, |world, at| {
                    let Some(link) = world.link(at) else { return Ok(()) };
                    let idle = link.down.is_empty() && link.close.is_none();
                    if !link.open && !link.broken {
                        world.open(at)?;
                    } else if link.open && !link.broken && !link.up.is_empty() {
                        world.up(at, 1)?;
                    } else if !idle {
                        world.down(at, 1)?;
                    } else {
                        return Ok(());
                    }
                    moved = true;
                    Ok(())
                })?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn cut(&mut self, at: At) -> Result<()> {
        let Some(link) = self.link(at) else { return Ok(()) };
        link.broken = true;
        link.up.clear();
        let (id, open) = (link.id.clone(), link.open);
        if open {
            let now = self.server_now();
            let out = self.server.close(&id, now)?;
            self.route(out)?;
        }
        Ok(())
    }

    fn notice(&mut self, at: At) -> Result<()> {
        if self.link(at).is_some_and(|link| link.broken) {
            self.tabs[at.0].ends[at.1].link = None;
            let now = self.now;
            self.session(at).closed(1006, "", now);
            self.effects(at);
        }
        Ok(())
    }

    fn server_died(&mut self) {
        self.stats.server_crashes += 1;
        for link in self.tabs.iter_mut().flat_map(|t| &mut t.ends).filter_map(|e| e.link.as_mut()) {
            link.broken |= link.open;
            link.up.clear();
        }
    }

    /// Puts what the server sent on its way; `None` is that it died.
    fn route(&mut self, out: Option<Vec<Output>>) -> Result<()> {
        let Some(out) = out else {
            self.server_died();
            return self.remember();
        };
        for output in out {
            let (Output::Send { to, .. } | Output::Close { to, .. }) = &output;
            let ends = self.tabs.iter_mut().flat_map(|tab| &mut tab.ends);
            let mut links = ends.filter_map(|end| end.link.as_mut());
            let Some(link) = links.find(|link| link.id == *to && !link.broken) else { continue };
            match output {
                Output::Send { text, .. } => link.down.push_back(text),
                Output::Close { code, reason, .. } => link.close = Some((code, reason)),
            }
        }
        self.remember()
    }

    /// Keeps the server's rows at its version.
    fn remember(&mut self) -> Result<()> {
        let meta = "SELECT epoch, coalesce((SELECT max(version) FROM _partysync_change), 0) \
                    FROM _partysync_meta";
        let read = |row: &partysync::sql::Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?));
        // A process that died while it made its tables has none.
        let Ok(Some((epoch, version))) = self.server.sql().query_opt(meta, [], read) else {
            return Ok(());
        };
        if epoch != self.epoch {
            self.past.clear();
            self.committed.clear();
            self.epoch = epoch;
        }
        let done = "SELECT token FROM done ORDER BY n LIMIT -1 OFFSET ?";
        let known = i64::try_from(self.committed.len()).unwrap_or(i64::MAX);
        let token = |row: &partysync::sql::Row<'_>| row.get::<i64>(0);
        let tokens = self.server.sql().query_map(done, params![known], token).unwrap_or_default();
        self.committed.extend(tokens.into_iter().map(|token| (token, version.unsigned_abs())));
        // A version's rows never change: what is wrong with that shows when they are compared.
        if !self.past.contains_key(&version.unsigned_abs())
            && let Ok(rows) = self.server_rows()
        {
            self.past.insert(version.unsigned_abs(), rows);
        }
        Ok(())
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
            let ends = self.tabs.iter().flat_map(|tab| &tab.ends);
            let status: Vec<_> = ends.map(|end| end.session.status()).collect();
            return Err(self.violation(format!("it does not heal: {status:?}")));
        }
        self.check_healed()
    }

    fn try_heal(&mut self) -> Result<bool> {
        for tab in 0..self.tabs.len() {
            self.open_tab(tab)?;
            // A frame that was lost on a connection that lives on is not noticed before the next.
            self.each_end(tab, |world, at| world.cut(at).and_then(|()| world.notice(at)))?;
            while self.adopt(tab)? {}
        }
        for _ in 0..50 {
            self.perform(&Step::Wait(20_000))?;
            for tab in 0..self.tabs.len() {
                self.each_end(tab, Self::notice)?;
            }
            self.settle()?;
            let calm = |tab: &Tab| {
                tab.ends.len() == 1
                    && tab.ends.iter().all(|end| {
                        let status = end.session.status();
                        // A process that was doomed may have died just now.
                        let broken = end.link.as_ref().is_some_and(|link| link.broken);
                        status.phase == Phase::Live && status.pending == 0 && !broken
                    })
            };
            if self.tabs.iter().all(calm) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A tab, and which of its ends.
type At = (usize, usize);
