//! The world: clients, links and the server, and what has to hold of them.

use crate::Stats;
use crate::app::{Account, AppAction, Thing, ThingAction};
use crate::server::Server;
use crate::step::Step;
use partysync::room::Output;
use partysync::{Code, Error, Result, Timestamp, params};
use partysync_client::store::{MemoryStore, Store};
use partysync_client::{Effect, Phase, Replica, Session, Timing};
use std::collections::{BTreeMap, VecDeque};

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Violation {
    /// Which, and how.
    pub what: String,
    /// What happened before, in order.
    pub history: Vec<String>,
}

/// A socket as the network sees it.
struct Link {
    id: String,
    /// Whether the server knows of it.
    open: bool,
    /// Whether it is broken; the client has yet to notice.
    broken: bool,
    /// The server's close frame, behind all other frames.
    close: Option<(u16, String)>,
    up: VecDeque<String>,
    down: VecDeque<String>,
}

struct Client {
    store: MemoryStore,
    session: Session<AppAction>,
    link: Option<Link>,
    /// The action of each seq that may still get an answer.
    made: BTreeMap<u64, AppAction>,
}

/// What became of an action, as its client heard.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
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
struct Rows {
    things: Vec<Thing>,
    accounts: Vec<Account>,
}

/// All there is.
pub struct World {
    server: Server,
    clients: Vec<Client>,
    now: Timestamp,
    skew: i64,
    links: u32,
    known: BTreeMap<i64, (usize, Known)>,
    /// The server's rows at each version, of the present epoch.
    past: BTreeMap<u64, Rows>,
    epoch: String,
    wiped: bool,
    history: Vec<String>,
    /// What happened, in numbers.
    pub stats: Stats,
}

fn session(store: &MemoryStore, client: usize, now: Timestamp) -> Result<Session<AppAction>> {
    let replica = match store.load()? {
        Some(saved) => {
            let (replica, lost) = Replica::load(&saved)?;
            match lost.into_iter().next() {
                Some(error) => return Err(error),
                None => replica,
            }
        }
        None => Replica::new(format!("client-{client}")),
    };
    Ok(Session::new(replica, Timing::default(), client as u64 + 1, now))
}

impl World {
    /// A room with empty storage and this many clients.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let client = |index| {
            let store = MemoryStore::new();
            let session = session(&store, index, now).expect("an empty store");
            Client { store, session, link: None, made: BTreeMap::new() }
        };
        let mut world = Self {
            server: Server::new().expect("SQLite in memory"),
            clients: (0..clients).map(client).collect(),
            now,
            skew: 0,
            links: 0,
            known: BTreeMap::new(),
            past: BTreeMap::new(),
            epoch: String::new(),
            wiped: false,
            history: Vec::new(),
            stats: Stats::default(),
        };
        for index in 0..clients {
            world.effects(index);
        }
        world
    }

    fn violation(&mut self, what: impl Into<String>) -> Violation {
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
            Step::Act(client, action) => self.act(*client, action, true)?,
            Step::ActAndDie(client, action) => self.act(*client, action, false)?,
            Step::Open(client) => self.open(*client)?,
            Step::Up(client) => self.up(*client, 1)?,
            Step::UpTwice(client) => self.up(*client, 2)?,
            Step::Down(client) => self.down(*client, 1)?,
            Step::DownTwice(client) => self.down(*client, 2)?,
            Step::DownSwap(client) => {
                if let Some(link) = &mut self.clients[*client].link
                    && link.down.len() > 1
                {
                    link.down.swap(0, 1);
                }
                self.down(*client, 1)?;
            }
            Step::DownDrop(client) => {
                if let Some(link) = &mut self.clients[*client].link {
                    link.down.pop_front();
                }
            }
            Step::Settle => self.settle()?,
            Step::Cut(client) => self.cut(*client)?,
            Step::Notice(client) => self.notice(*client),
            Step::ClientCrash(client) => self.client_crash(*client)?,
            Step::ServerCrash => {
                self.server.kill();
                self.server_died();
            }
            Step::ServerDoom(statements) => self.server.doom(*statements),
            Step::Hibernate => {
                let open = self.clients.iter().filter_map(|client| client.link.as_ref());
                let open: Vec<_> = open.filter(|l| l.open).map(|link| link.id.clone()).collect();
                self.server.hibernate(&open);
            }
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
                for client in 0..self.clients.len() {
                    self.clients[client].session.tick(self.now);
                    self.effects(client);
                }
            }
            Step::Skew(millis) => self.skew = *millis,
        }
        Ok(())
    }

    fn act(&mut self, client: usize, action: &AppAction, survives: bool) -> Result<()> {
        self.stats.actions += 1;
        let token = action.token();
        let seq = self.clients[client].session.act(action.clone(), self.now);
        if survives {
            self.known.insert(token, (client, Known::Waiting));
            self.clients[client].made.insert(seq, action.clone());
            self.effects(client);
            return Ok(());
        }
        self.known.insert(token, (client, Known::Lost));
        self.client_crash(client)
    }

    /// First stored, then sent: as the driver does.
    fn effects(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let writes = client.session.take_writes();
        if !writes.is_empty() {
            let id = client.session.replica().client().to_owned();
            client.store.write(&id, writes).expect("memory takes everything");
        }
        for (seq, outcome) in client.session.take_answers() {
            // An answer that came twice was heard the first time.
            if let Some(action) = client.made.remove(&seq) {
                let known = match &outcome {
                    Ok(()) => Known::Committed,
                    Err(error) if error.code() == Code::ClientForgotten => Known::Unknown,
                    Err(_) => Known::Rejected,
                };
                self.stats.forgotten += u64::from(known == Known::Unknown);
                self.stats.rejected += u64::from(outcome.is_err());
                self.known.insert(action.token(), (index, known));
            }
        }
        client.session.take_changes();
        for effect in client.session.take_effects() {
            match effect {
                Effect::Connect => {
                    self.links += 1;
                    let (id, links) = (format!("link-{}", self.links), VecDeque::new);
                    client.link = Some(Link {
                        id,
                        open: false,
                        broken: false,
                        close: None,
                        up: links(),
                        down: links(),
                    });
                }
                Effect::Send(text) => {
                    if let Some(link) = &mut client.link {
                        link.up.push_back(text);
                    }
                }
                // The server notices later, if at all: a half-open socket.
                Effect::Disconnect => client.link = None,
            }
        }
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let Some(link) = &mut self.clients[index].link else { return Ok(()) };
        if link.open || link.broken {
            return Ok(());
        }
        link.open = true;
        let id = link.id.clone();
        self.stats.connections += 1;
        let now = self.server_now();
        let out = self.server.connect(&id, now)?;
        self.route(out)?;
        if self.clients[index].link.as_ref().is_some_and(|link| link.id == id && !link.broken) {
            self.clients[index].session.opened(self.now);
            self.effects(index);
        }
        Ok(())
    }

    fn up(&mut self, index: usize, times: usize) -> Result<()> {
        let Some(link) = &mut self.clients[index].link else { return Ok(()) };
        if !link.open || link.broken {
            return Ok(());
        }
        let Some(text) = link.up.pop_front() else { return Ok(()) };
        let id = link.id.clone();
        self.note(format!("    {id} > {text}"));
        for _ in 0..times {
            self.stats.frames += 1;
            let now = self.server_now();
            let out = self.server.receive(&id, &text, now)?;
            self.route(out)?;
        }
        Ok(())
    }

    fn down(&mut self, index: usize, times: usize) -> Result<()> {
        let Some(link) = &mut self.clients[index].link else { return Ok(()) };
        let Some(text) = link.down.pop_front() else {
            if let Some((code, reason)) = link.close.take() {
                self.clients[index].link = None;
                self.clients[index].session.closed(code, &reason, self.now);
                self.effects(index);
            }
            return Ok(());
        };
        let id = link.id.clone();
        self.note(format!("    {id} < {text}"));
        self.stats.resets += u64::from(text.contains(r#""type":"reset""#));
        for _ in 0..times {
            // The first time may have ended the connection.
            if self.clients[index].link.as_ref().is_some_and(|link| link.id == id) {
                self.stats.frames += 1;
                self.clients[index].session.received(&text, self.now);
                self.effects(index);
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        loop {
            let mut moved = false;
            for index in 0..self.clients.len() {
                let Some(link) = &self.clients[index].link else { continue };
                if !link.open && !link.broken {
                    self.open(index)?;
                    moved = true;
                    continue;
                }
                if link.open && !link.broken && !link.up.is_empty() {
                    self.up(index, 1)?;
                    moved = true;
                    continue;
                }
                if !link.down.is_empty() || link.close.is_some() {
                    self.down(index, 1)?;
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn cut(&mut self, index: usize) -> Result<()> {
        let Some(link) = &mut self.clients[index].link else { return Ok(()) };
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

    fn notice(&mut self, index: usize) {
        if self.clients[index].link.as_ref().is_some_and(|link| link.broken) {
            self.clients[index].link = None;
            self.clients[index].session.closed(1006, "", self.now);
            self.effects(index);
        }
    }

    fn client_crash(&mut self, index: usize) -> Result<()> {
        self.stats.client_crashes += 1;
        self.cut(index)?;
        let client = &mut self.clients[index];
        client.link = None;
        client.session = session(&client.store, index, self.now)?;
        self.effects(index);
        Ok(())
    }

    fn server_died(&mut self) {
        self.stats.server_crashes += 1;
        for client in &mut self.clients {
            if let Some(link) = &mut client.link {
                link.broken |= link.open;
                link.up.clear();
            }
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
            let links = self.clients.iter_mut().filter_map(|client| client.link.as_mut());
            let Some(link) = links.into_iter().find(|link| link.id == *to && !link.broken) else {
                continue;
            };
            match output {
                Output::Send { text, .. } => link.down.push_back(text.to_string()),
                Output::Close { code, reason, .. } => link.close = Some((code, reason)),
            }
        }
        self.remember()
    }

    /// Keeps the server's rows at its version.
    fn remember(&mut self) -> Result<()> {
        let meta = "SELECT epoch, version FROM _partysync_meta";
        let read = |row: &partysync::sql::Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?));
        // A process that died while it made its tables has none.
        let Ok(Some((epoch, version))) = self.server.sql().query_opt(meta, [], read) else {
            return Ok(());
        };
        let Ok(rows) = self.server_rows() else { return Ok(()) };
        if epoch != self.epoch {
            self.past.clear();
            self.epoch = epoch;
        }
        self.past.insert(version.unsigned_abs(), rows);
        Ok(())
    }

    fn server_rows(&self) -> Result<Rows> {
        let sql = self.server.sql();
        Ok(Rows {
            things: sql.records("WHERE deleted_at IS NULL ORDER BY id", [])?,
            accounts: sql.records("ORDER BY number", [])?,
        })
    }

    /// What has to hold after each step.
    fn check(&mut self) -> std::result::Result<(), Violation> {
        for index in 0..self.clients.len() {
            if let Some(what) = self.wrong_with(index) {
                return Err(self.violation(format!("client {index}: {what}")));
            }
        }
        if let Some(rows) = self.past.values().next_back()
            && rows.accounts.iter().map(|account| account.balance).sum::<i64>() != 0
        {
            return Err(self.violation("half a transfer was committed"));
        }
        Ok(())
    }

    fn wrong_with(&self, index: usize) -> Option<String> {
        let client = &self.clients[index];
        let replica = client.session.replica();
        let (Ok(things), Ok(accounts)) = (replica.rows::<Thing>(), replica.rows::<Account>())
        else {
            return Some("its rows cannot be read".to_owned());
        };
        // Nothing unacknowledged is forgotten.
        if replica.pending() < client.made.len() {
            return Some(format!("{} pending of {}", replica.pending(), client.made.len()));
        }
        // With nothing pending it shows the server's rows of its version, at any time.
        let version = replica.version("things");
        if replica.pending() == 0
            && replica.epoch() == Some(self.epoch.as_str())
            && version == replica.version("accounts")
            && let Some(past) = version.and_then(|version| self.past.get(&version))
        {
            let shown = Rows { things, accounts };
            if shown != *past {
                return Some(format!("at {version:?} it shows {shown:?}, the server had {past:?}"));
            }
            return None;
        }
        // No flicker: what a pending action wrote is shown until its answer comes.
        let mut last: BTreeMap<&String, &ThingAction> = BTreeMap::new();
        for action in client.made.values() {
            if let AppAction::Things(action) = action
                && let ThingAction::Create { id, .. }
                | ThingAction::Put { id, .. }
                | ThingAction::Touch { id, .. }
                | ThingAction::Remove { id, .. }
                | ThingAction::Bump { id, .. } = action
            {
                last.insert(id, action);
            }
        }
        for (id, action) in last {
            let row = things.iter().find(|thing| thing.id == *id);
            let flickers = match action {
                ThingAction::Put { token, .. } => row.map(|row| row.token) != Some(*token),
                ThingAction::Remove { .. } => row.is_some(),
                _ => false,
            };
            if flickers {
                return Some(format!("{action:?} is pending and {row:?} is shown"));
            }
        }
        None
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
            let status: Vec<_> = self.clients.iter().map(|c| c.session.status()).collect();
            return Err(self.violation(format!("it does not heal: {status:?}")));
        }
        self.check()?;
        let rows = self.server_rows().map_err(|e| self.violation(e.to_string()))?;
        for index in 0..self.clients.len() {
            let replica = self.clients[index].session.replica();
            let shown =
                replica.rows().and_then(|things| Ok(Rows { things, accounts: replica.rows()? }));
            if shown.as_ref() != Ok(&rows) {
                return Err(self.violation(format!(
                    "client {index} shows {shown:?}, the server has {rows:?}"
                )));
            }
        }
        self.check_done()
    }

    fn try_heal(&mut self) -> Result<bool> {
        // A frame that was lost on a connection that lives on is not noticed before the next one.
        for index in 0..self.clients.len() {
            self.cut(index)?;
            self.notice(index);
        }
        for _ in 0..50 {
            self.perform(&Step::Wait(20_000))?;
            for index in 0..self.clients.len() {
                self.notice(index);
            }
            self.settle()?;
            let calm = |client: &Client| {
                let status = client.session.status();
                status.phase == Phase::Live && status.pending == 0
            };
            if self.clients.iter().all(calm) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Exactly once, and in order.
    fn check_done(&mut self) -> std::result::Result<(), Violation> {
        let read = |row: &partysync::sql::Row<'_>| row.get::<i64>(0);
        let done =
            self.server.sql().query_map("SELECT token FROM done ORDER BY n", params![], read);
        let done: Vec<i64> = done.map_err(|error: Error| self.violation(error.to_string()))?;
        let known = self.known.clone();
        for (token, (client, outcome)) in known {
            let times = done.iter().filter(|other| **other == token).count();
            let wrong = match outcome {
                Known::Waiting => Some("has no answer"),
                // What was done before the storage was wiped is gone with it.
                Known::Committed if times == 0 && !self.wiped => {
                    Some("was acknowledged and is not there")
                }
                Known::Rejected | Known::Lost if times > 0 => {
                    Some("was rejected or never made, and done")
                }
                _ if times > 1 => Some("was done more than once"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(self.violation(format!("action {token} of client {client} {wrong}")));
            }
        }
        for client in 0..self.clients.len() {
            let own =
                |token: &&i64| self.known.get(token).is_some_and(|(other, _)| *other == client);
            let order: Vec<_> = done.iter().filter(own).collect();
            // Tokens rise in the order in which actions are made.
            if !order.is_sorted() {
                let what = format!("client {client}'s actions were done in the order {order:?}");
                return Err(self.violation(what));
            }
        }
        Ok(())
    }
}
