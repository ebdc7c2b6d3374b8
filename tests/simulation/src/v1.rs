//! Clients of version 1: TypeScript `partysync`, which has no versions, no count of its actions and
//! no pages. It holds the rows that it was sent and, when it was cut off, asks for what changed
//! since the latest time that it has seen.

use crate::app::{Account, AppAction, Cell, Grant, NextThing, Note, Thing};
use crate::step::V1Step;
use crate::tab::Link;
use crate::world::{Known, Rows, World};
use partysync::{Action, Code, Error, Protocol, Record, Result, Schema};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const CHANNELS: [&str; 5] = ["things", "accounts", "cells", "notes", "grants"];

/// What it holds of a channel.
#[derive(Default)]
struct Table {
    /// By the key's JSON.
    rows: BTreeMap<String, Json>,
    /// The latest time of a row, or of a deletion.
    latest: Option<i64>,
    /// Whether it was answered on this connection. Broadcasts come before that, too, and their
    /// time says nothing of what is missing.
    synced: bool,
}

impl Table {
    fn take(&mut self, rows: &Json) {
        for row in rows.as_array().into_iter().flatten() {
            let Some([key, .., updated, deleted]) = row.as_array().map(Vec::as_slice) else {
                continue;
            };
            if self.synced {
                self.latest = self.latest.max(deleted.as_i64()).max(updated.as_i64());
            }
            match deleted {
                Json::Null => drop(self.rows.insert(key.to_string(), row.clone())),
                _ => drop(self.rows.remove(&key.to_string())),
            }
        }
    }
}

/// A client of version 1.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) link: Option<Link>,
    tables: BTreeMap<&'static str, Table>,
    /// Calls without an answer: the tokens of their actions.
    calls: BTreeMap<String, i64>,
    /// What it holds is of another storage, or of other columns: the page is loaded anew.
    stale: bool,
}

impl Watcher {
    fn ask(&mut self, channel: &'static str, from: Option<i64>) {
        if let Some(link) = &mut self.link {
            link.up.push_back(json!({"channel": channel, "sync": true, "from": from}).to_string());
        }
    }

    fn shown(&self) -> Result<Rows> {
        let rows = |channel| self.tables.get(channel).into_iter().flat_map(|t| t.rows.values());
        let mut shown = Rows {
            things: rows("things").map(thing).collect::<Result<_>>()?,
            accounts: rows("accounts").map(without_null::<Account>).collect::<Result<_>>()?,
            cells: rows("cells").map(without_null::<Cell>).collect::<Result<_>>()?,
            notes: rows("notes")
                .map(|row| read::<Note>(Note::SCHEMA, row))
                .collect::<Result<_>>()?,
            grants: rows("grants").map(without_null::<Grant>).collect::<Result<_>>()?,
        };
        shown.things.sort_by(|a, b| a.id.cmp(&b.id));
        shown.accounts.sort_by_key(|account| account.number);
        shown.cells.sort_by(|a, b| a.key.cmp(&b.key));
        shown.notes.sort_by(|a, b| a.id.cmp(&b.id));
        shown.grants.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shown)
    }
}

fn read<R: Record>(schema: &Schema, row: &Json) -> Result<R> {
    schema.row_from_json(row).and_then(R::from_row)
}

/// A thing of either version of the application.
fn thing(row: &Json) -> Result<Thing> {
    if row.as_array().map(Vec::len) == Some(Thing::SCHEMA.columns.len()) {
        return read(Thing::SCHEMA, row);
    }
    let NextThing { id, token, bumps, created_at, updated_at, deleted_at, .. } =
        read(NextThing::SCHEMA, row)?;
    Ok(Thing { id, token, bumps, created_at, updated_at, deleted_at })
}

/// A record without `deleted_at` has a null in its place.
fn without_null<R: Record>(row: &Json) -> Result<R> {
    let mut row = row.clone();
    let last = row.as_array_mut().and_then(Vec::pop);
    match last {
        Some(Json::Null) => read(R::SCHEMA, &row),
        _ => Err(Error::new(Code::InvalidValue, format!("no null at the end: {row}"))),
    }
}

impl World {
    pub(crate) fn v1(&mut self, which: usize, step: &V1Step) -> Result<()> {
        match step {
            V1Step::Open => self.v1_open(which),
            V1Step::Up => self.v1_up(which),
            V1Step::Down => self.v1_down(which),
            V1Step::Call(action) => {
                self.v1_call(which, action);
                Ok(())
            }
            V1Step::Sync(place, all) => {
                let watcher = &mut self.watchers[which];
                let channel = CHANNELS[place % CHANNELS.len()];
                let table = watcher.tables.get(channel).filter(|table| table.synced && !all);
                let from = table.and_then(|table| table.latest);
                watcher.ask(channel, from);
                Ok(())
            }
            V1Step::Cut => self.v1_cut(which),
            V1Step::GoOn => self.server_goes_on(),
        }
    }

    /// The room has more to send.
    pub(crate) fn server_goes_on(&mut self) -> Result<()> {
        let now = self.server_now();
        let out = self.server.go_on(now)?;
        self.route(out);
        Ok(())
    }

    fn v1_open(&mut self, which: usize) -> Result<()> {
        if self.watchers[which].link.as_ref().is_some_and(|link| !link.broken) {
            return Ok(());
        }
        self.v1_gone(which);
        self.links += 1;
        let id = format!("v1-{}", self.links);
        let watcher = &mut self.watchers[which];
        if std::mem::take(&mut watcher.stale) {
            watcher.tables.clear();
        }
        watcher.link = Some(Link { open: true, v1: true, ..Link::new(id.clone()) });
        for channel in CHANNELS {
            let table = watcher.tables.entry(channel).or_default();
            // Where pages are tiny it may have been cut off between two of them, and its latest
            // time says nothing of what it lacks.
            let from = table.latest.filter(|_| !self.small_pages);
            table.synced = false;
            if from.is_none() {
                *table = Table::default();
            }
            watcher.ask(channel, from);
        }
        self.stats.connections += 1;
        let now = self.server_now();
        let who = Self::v1_who(which);
        let out = self.server.connect(&id, Protocol::V1, Some(&who), now)?;
        self.route(out);
        Ok(())
    }

    fn v1_call(&mut self, which: usize, action: &AppAction) {
        let watcher = &mut self.watchers[which];
        let Some(link) = watcher.link.as_mut().filter(|link| !link.broken) else { return };
        let Ok(json) = action.to_json() else { return };
        let (token, id) = (action.token(), action.token().to_string());
        let channel = action.channel();
        let frame = json!({"channel": channel, "rpc": true, "id": id, "action": json});
        link.up.push_back(frame.to_string());
        watcher.calls.insert(id, token);
        self.stats.actions += 1;
        self.known.insert(token, (link.id.clone(), Known::Waiting));
    }

    pub(crate) fn v1_up(&mut self, which: usize) -> Result<()> {
        let Some(link) = &mut self.watchers[which].link else { return Ok(()) };
        let Some(text) = link.up.pop_front().filter(|_| !link.broken) else { return Ok(()) };
        let id = link.id.clone();
        self.note(format!("    {id} > {text}"));
        self.stats.frames += 1;
        let now = self.server_now();
        let out = self.server.receive(vec![(id, text)], now)?;
        self.route(out);
        Ok(())
    }

    pub(crate) fn v1_down(&mut self, which: usize) -> Result<()> {
        let Some(link) = &mut self.watchers[which].link else { return Ok(()) };
        let Some(text) = link.down.pop_front() else {
            return if link.close.is_some() { self.v1_cut(which) } else { Ok(()) };
        };
        let id = link.id.clone();
        text.lines().try_for_each(|text| self.v1_frame(which, &id, text))
    }

    fn v1_frame(&mut self, which: usize, id: &str, text: &str) -> Result<()> {
        self.note(format!("    {id} < {text}"));
        self.stats.frames += 1;
        let frame: Json = serde_json::from_str(text)
            .map_err(|e| Error::new(Code::InvalidFrame, format!("{e}: {text}")))?;
        let watcher = &mut self.watchers[which];
        let channel = CHANNELS.into_iter().find(|channel| frame["channel"] == *channel);
        let Some(table) = channel.and_then(|channel| watcher.tables.get_mut(channel)) else {
            return Err(Error::new(Code::InvalidFrame, text));
        };
        match frame["type"].as_str() {
            None => {
                table.synced = true;
                table.take(&frame["payload"]);
            }
            Some("update") => table.take(&frame["payload"]),
            Some("delete-all") => table.rows.clear(),
            Some(answer) => {
                table.take(&frame["result"]);
                let token = frame["id"].as_str().and_then(|id| watcher.calls.remove(id));
                let known = token.and_then(|token| self.known.get_mut(&token));
                let Some((_, known)) = known else {
                    return Err(Error::new(Code::InvalidFrame, format!("nobody called: {text}")));
                };
                let done = answer == "success";
                *known = if done { Known::Committed } else { Known::Rejected };
                self.stats.rejected += u64::from(!done);
            }
        }
        Ok(())
    }

    fn v1_cut(&mut self, which: usize) -> Result<()> {
        let link = self.watchers[which].link.as_ref();
        if let Some(id) = link.filter(|link| !link.broken).map(|link| link.id.clone()) {
            let now = self.server_now();
            let out = self.server.close(&id, now)?;
            self.route(out);
        }
        self.v1_gone(which);
        Ok(())
    }

    /// Its socket is gone: what became of its calls is not known any more.
    fn v1_gone(&mut self, which: usize) {
        let watcher = &mut self.watchers[which];
        watcher.link = None;
        for token in std::mem::take(&mut watcher.calls).into_values() {
            if let Some((_, known)) = self.known.get_mut(&token) {
                *known = Known::Unknown;
            }
        }
    }

    /// The storage, or the application, is another one.
    pub(crate) fn v1_stale(&mut self) {
        self.watchers.iter_mut().for_each(|watcher| watcher.stale = true);
    }

    /// Does what there is to do for one of them; whether there was anything.
    pub(crate) fn v1_settle(&mut self, which: usize) -> Result<bool> {
        let Some(link) = &self.watchers[which].link else { return Ok(false) };
        if !link.broken && !link.up.is_empty() {
            self.v1_up(which)?;
        } else if !link.down.is_empty() || link.close.is_some() {
            self.v1_down(which)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Connects those that are not connected.
    pub(crate) fn v1_heal(&mut self) -> Result<()> {
        (0..self.watchers.len()).try_for_each(|which| self.v1_open(which))
    }

    /// What is wrong when all has healed.
    pub(crate) fn v1_wrong(&self, rows: &Rows) -> Option<String> {
        self.watchers.iter().enumerate().find_map(|(which, watcher)| {
            let (shown, rows) = (watcher.shown(), rows.seen_by(&Self::v1_who(which)));
            (shown.as_ref().ok() != Some(&rows))
                .then(|| format!("the v1 client {which} shows {shown:?}, the server has {rows:?}"))
        })
    }
}
