//! The world: clients, links and the server, and what happens to them.

use crate::Stats;
use crate::app::{Account, AppAction, Cell, Config, Grant, Note, Thing};
use crate::server::Server;
use crate::step::{Schedule, Step};
use crate::tab::{Health, Tab};
use crate::v1::Watcher;
use partysync::{Code, Result, Timestamp};
use partysync_client::store::{Kept, MemoryStore, StoreEvent};
use partysync_client::{Input, Now, Phase, Timing};
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
    pub(crate) notes: Vec<Note>,
    pub(crate) grants: Vec<Grant>,
}

/// All there is.
pub struct World {
    pub(crate) server: Server,
    pub(crate) tabs: Vec<Option<Tab>>,
    pub(crate) timing: Timing,
    /// Clients of version 1.
    pub(crate) watchers: Vec<Watcher>,
    /// Whether the server's pages hold a row or two.
    pub(crate) small_pages: bool,
    /// How many tabs share a browser.
    pub(crate) shared_by: usize,
    /// What each browser keeps for its tabs, and what it kept once.
    pub(crate) browsers: Vec<(MemoryStore, Option<Kept>)>,
    /// The actions of each client id that may still get an answer, by seq.
    pub(crate) made: BTreeMap<String, BTreeMap<u64, AppAction>>,
    pub(crate) now: Timestamp,
    pub(crate) skew: i64,
    /// How much the clients' time of day is off.
    pub(crate) wall_skew: i64,
    pub(crate) links: u32,
    pub(crate) clients: u32,
    /// Whether the clients' stores have faults.
    pub(crate) store_faults: bool,
    /// Something that was seen to be wrong in the middle of a step.
    pub(crate) wrong: Option<String>,
    /// Whether a tab's outbox was taken from it as long as it lived.
    pub(crate) locks_lost: bool,
    /// What became of each action, and of which client it was.
    pub(crate) known: BTreeMap<i64, (String, Known)>,
    /// The server's rows at each version, of the present epoch.
    pub(crate) past: BTreeMap<u64, Rows>,
    pub(crate) epoch: String,
    /// Who might have seen the note of which key.
    pub(crate) might: BTreeSet<(String, String)>,
    pub(crate) wiped: bool,
    /// Whether the storage was empty once.
    pub(crate) emptied: bool,
    /// Whether storage from before it was empty came back: with actions that were refused since.
    pub(crate) came_back: bool,
    /// A tab has ended with something on its way to its store.
    pub(crate) unstored: bool,
    pub(crate) history: Vec<String>,
    /// What happened, in numbers.
    pub stats: Stats,
}

impl World {
    /// A room with empty storage and the clients of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let Schedule { clients, tabs, watchers, slow_hooks, small_pages, store_faults, .. } =
            *schedule;
        let config = Config { slow: slow_hooks, small: small_pages, forgets: !store_faults };
        let mut world = Self {
            server: Server::new(config).expect("SQLite in memory"),
            tabs: (0..clients).map(|_| None).collect(),
            // A store that is only slow is waited for.
            timing: Timing {
                read_rows: if small_pages { 1 } else { Timing::default().read_rows },
                store_ms: if store_faults { Timing::default().store_ms } else { u64::MAX / 2 },
                ..Timing::default()
            },
            watchers: (0..watchers).map(|_| Watcher::default()).collect(),
            small_pages,
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
            might: BTreeSet::new(),
            wiped: false,
            emptied: false,
            came_back: false,
            unstored: false,
            history: Vec::new(),
            stats: Stats::default(),
        };
        (0..clients).for_each(|tab| world.open_tab(tab));
        world
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) -> Violation {
        Violation { what: what.into(), history: std::mem::take(&mut self.history) }
    }

    pub(crate) fn note(&mut self, line: String) {
        self.history.push(format!("{:>9} {line}", self.now.as_millis()));
    }

    /// The clients' clocks.
    pub(crate) fn client_now(&self) -> Now {
        let monotonic = self.now.as_millis().unsigned_abs();
        Now { monotonic, wall: self.now.plus_millis(self.wall_skew) }
    }

    pub(crate) fn server_now(&self) -> Timestamp {
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
            Step::Here(tab, state) => self.say_here(*tab, *state),
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
                    self.came_back |= self.emptied;
                    self.server_died();
                    self.wiped = true;
                    self.v1_stale();
                    self.remember();
                }
            }
            Step::UpAll => self.up_all()?,
            Step::Evil(kind) => self.evil(*kind)?,
            Step::Hibernate => self.server.hibernate(),
            Step::Upgrade => {
                self.server.upgrade();
                self.v1_stale();
                self.server_died();
            }
            Step::Resume(which) => self.resume(*which)?,
            Step::Wipe => {
                self.server.wipe()?;
                self.emptied = true;
                self.server_died();
                self.past.clear();
                self.wiped = true;
                self.v1_stale();
            }
            Step::Alarm => {
                let now = self.server_now();
                let out = self.server.alarm(now)?;
                self.route(out);
            }
            Step::V1(which, step) => self.v1(*which, step)?,
            Step::Wait(millis) => self.wait(*millis),
            Step::Skew(millis) => self.skew = *millis,
        }
        Ok(())
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
            let status: Vec<_> = tabs
                .map(|tab| (tab.peer.status(), tab.peer.replica().pending_elsewhere()))
                .collect();
            let planned = self.planned();
            let present = self.present_wrong();
            let message =
                format!("it does not heal: {status:?}, jobs: {planned:?}, present: {present:?}");
            return Err(self.violation(message));
        }
        self.check_healed()?;
        match self.present_after_sleep() {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(self.violation(wrong)),
            Err(error) => Err(self.violation(format!("an error came out: {error}"))),
        }
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
            self.v1_heal()?;
            self.settle()?;
            self.wait(20_000);
            // The application's alarm fails, and so does each second job: it takes a few.
            for _ in 0..3 {
                let now = self.server_now();
                let out = self.server.alarm(now)?;
                self.route(out);
            }
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
            let connected = |watcher: &Watcher| watcher.link.as_ref().is_some_and(|l| !l.broken);
            if self.tabs.iter().flatten().all(calm)
                && self.watchers.iter().all(connected)
                && self.planned()?.is_empty()
                && self.present_wrong().is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
