//! The network of the world: frames on their way, connections that break, and clients of nobody's.

use crate::app::Cell;
use crate::server::FromServer;
use crate::tab::Link;
use crate::world::{Rows, World};
use partysync::{Protocol, Record, Result, wire};
use partysync_client::{Cause, Input};
use std::collections::BTreeSet;

impl World {
    pub(crate) fn open(&mut self, tab: usize) -> Result<()> {
        let Some(link) = self.link(tab) else { return Ok(()) };
        if link.open || link.broken {
            return Ok(());
        }
        link.open = true;
        let id = link.id.clone();
        self.stats.connections += 1;
        let (now, who) = (self.server_now(), self.who(tab));
        let out = self.server.connect(&id, Protocol::V2, Some(&who), now)?;
        self.route(out);
        if self.link(tab).is_some_and(|link| link.id == id && !link.broken) {
            self.handle(tab, Input::Connected);
        }
        Ok(())
    }

    pub(crate) fn up(&mut self, tab: usize, times: usize) -> Result<()> {
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
            let out = match text.as_str() {
                wire::PING => Some(self.server.ping(&id, now)),
                _ => self.server.receive(vec![(id.clone(), text.clone())], now)?,
            };
            self.route(out);
        }
        Ok(())
    }

    /// A frame of each connection, in one turn.
    pub(crate) fn up_all(&mut self) -> Result<()> {
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
        let (pings, frames): (Vec<_>, Vec<_>) =
            frames.into_iter().partition(|(_, text)| text == wire::PING);
        for (id, _) in pings {
            let out = self.server.ping(&id, now);
            self.route(Some(out));
        }
        let out = self.server.receive(frames, now)?;
        self.route(out);
        Ok(())
    }

    /// A connection of nobody's does what no client does, and leaves.
    pub(crate) fn evil(&mut self, kind: u8) -> Result<()> {
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
            7 => vec![
                r#"{"type":"presence","here":true,"state":1}"#.into(),
                hello(&cells, ""),
                r#"{"type":"message","data":{"x":1}}"#.into(),
                r#"{"type":"presence","here":false}"#.into(),
                format!(r#"{{"type":"presence","here":true,"state":"{}"}}"#, "x".repeat(5_000)),
            ],
            8 => vec![
                hello(&cells, ""),
                push("1", &format!(r#"{{"type":"{}"}}"#, "x".repeat(9_000))),
            ],
            _ => vec![hello(&cells, ""), push("1", r#"{"type":"put","payload":{"key":7}}"#)],
        };
        let now = self.server_now();
        let out = self.server.connect(&id, Protocol::V2, None, now)?;
        self.route(out);
        let frames = frames.into_iter().map(|frame| (id.clone(), frame)).collect();
        let out = self.server.receive(frames, now)?;
        self.route(out);
        let out = self.server.close(&id, now)?;
        self.route(out);
        Ok(())
    }

    pub(crate) fn down(&mut self, tab: usize, times: usize) -> Result<()> {
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
    pub(crate) fn closed(&mut self, tab: usize, cause: Cause) -> Result<()> {
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
    pub(crate) fn refuse(&mut self, tab: usize, kind: u8) -> Result<()> {
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

    pub(crate) fn resume(&mut self, which: usize) -> Result<()> {
        let now = self.server_now();
        let out = self.server.resume(which, now)?;
        self.route(out);
        Ok(())
    }

    pub(crate) fn settle(&mut self) -> Result<()> {
        loop {
            let mut moved = self.server.is_slow();
            if moved {
                self.resume(0)?;
            }
            if self.server.has_more() {
                self.server_goes_on()?;
                moved = true;
            }
            let now = self.server_now();
            if self.server.later().is_some_and(|at| at <= now) {
                let out = self.server.go_on_later(now)?;
                self.route(out);
                moved = true;
            }
            for which in 0..self.watchers.len() {
                moved |= self.v1_settle(which)?;
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

    pub(crate) fn cut(&mut self, tab: usize) -> Result<()> {
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

    pub(crate) fn notice(&mut self, tab: usize) {
        let frozen = self.tabs[tab].as_ref().is_none_or(|tab| tab.frozen);
        if !frozen && self.link(tab).is_some_and(|link| link.broken) {
            if let Some(tab) = &mut self.tabs[tab] {
                tab.link = None;
            }
            self.handle(tab, Input::Disconnected(Cause::gone()));
        }
    }

    pub(crate) fn server_died(&mut self) {
        self.stats.server_crashes += 1;
        for link in self.links() {
            link.broken |= link.open;
            link.up.clear();
        }
    }

    fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        let tabs = self.tabs.iter_mut().flatten().filter_map(|tab| tab.link.as_mut());
        tabs.chain(self.watchers.iter_mut().filter_map(|watcher| watcher.link.as_mut()))
    }

    /// Puts what the server sent on its way; `None` is that it died.
    pub(crate) fn route(&mut self, out: Option<Vec<FromServer>>) {
        let Some(out) = out else {
            self.server_died();
            return self.remember();
        };
        let mut begun = BTreeSet::new();
        self.look_who_might_see();
        for output in out {
            if let FromServer::Send { to, text } = &output {
                self.check_sight(to, text);
                self.check_present(to, text);
            }
            let (FromServer::Send { to, .. } | FromServer::Close { to, .. }) = &output;
            let Some(link) = self.links().find(|link| link.id == *to && !link.broken) else {
                continue;
            };
            match output {
                // Version 1 has no answer in several frames: those of a turn come together.
                FromServer::Send { text, .. } if link.v1 && !begun.insert(link.id.clone()) => {
                    if let Some(last) = link.down.back_mut() {
                        last.push('\n');
                        last.push_str(&text);
                    }
                }
                FromServer::Send { text, .. } => link.down.push_back(text),
                FromServer::Close { code, reason, .. } => link.close = Some((code, reason)),
            }
        }
        self.remember();
    }

    /// Keeps the server's rows at its version.
    pub(crate) fn remember(&mut self) {
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
            notes: sql.records("WHERE deleted_at IS NULL ORDER BY id", [])?,
            grants: sql.records("ORDER BY id", [])?,
        })
    }
}
