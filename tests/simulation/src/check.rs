//! What has to hold of the world: after each step, and when it has healed.

use crate::app::{AppAction, Op, ThingAction};
use crate::step::NOTE_TOKENS;
use crate::tab::Tab;
use crate::world::{Known, Rows, Violation, World};
use partysync::{Error, Result, params};
use std::collections::BTreeMap;

type Checked = std::result::Result<(), Violation>;

impl World {
    /// What has to hold after each step.
    pub(crate) fn check(&mut self) -> Checked {
        if let Some(wrong) = self.wrong.take() {
            return Err(self.violation(wrong));
        }
        if let Some(wrong) = self.server.wrong().map_err(|e| self.violation(e.to_string()))? {
            return Err(self.violation(wrong));
        }
        for index in 0..self.tabs.len() {
            if let Some(tab) = &self.tabs[index]
                && let Some(what) = self.wrong_with(tab)
            {
                return Err(self.violation(format!("tab {index}: {what}")));
            }
        }
        if let Some(rows) = self.past.values().next_back()
            && rows.accounts.iter().map(|account| account.balance).sum::<i64>() != 0
        {
            return Err(self.violation("half a transfer was committed"));
        }
        Ok(())
    }

    fn shown(tab: &Tab) -> Result<Rows> {
        let replica = tab.peer.replica();
        let (things, accounts, cells) = (replica.rows()?, replica.rows()?, replica.rows()?);
        Ok(Rows { things, accounts, cells, notes: replica.rows()?, grants: replica.rows()? })
    }

    fn wrong_with(&self, tab: &Tab) -> Option<String> {
        let replica = tab.peer.replica();
        let shown = match Self::shown(tab) {
            Ok(shown) => shown,
            Err(error) => return Some(format!("its rows cannot be read: {error}")),
        };
        // Nothing unacknowledged is forgotten.
        let none = BTreeMap::new();
        let made = self.made.get(&tab.client).unwrap_or(&none);
        if replica.pending() < made.len() {
            return Some(format!("{} pending of {}", replica.pending(), made.len()));
        }
        // With a store that works, and was not asked for anything, all of it is stored.
        if tab.asked.is_none()
            && replica.epoch().is_some()
            && tab.peer.status().warning.is_none()
            && let Ok(kept) = tab.store.kept()
        {
            let outbox = kept.outboxes.get(&tab.client);
            let is_stored = |seq: &u64| outbox.is_some_and(|o| o.pending.contains_key(seq));
            if let Some(seq) = made.keys().find(|seq| !is_stored(seq)) {
                return Some(format!("action {seq} is not stored"));
            }
        }
        // With nothing pending it shows the server's rows of its version, at any time.
        let version = replica.version("things");
        if replica.pending() + replica.pending_elsewhere() == 0
            && replica.epoch() == Some(self.epoch.as_str())
            && ["accounts", "cells", "notes", "grants"]
                .iter()
                .all(|other| version == replica.version(other))
            && let Some(past) = version.and_then(|version| self.past.get(&version))
        {
            let past = past.seen_by(&format!("u{}", tab.browser));
            if shown != past {
                return Some(format!("at {version:?} it shows {shown:?}, the server had {past:?}"));
            }
            return None;
        }
        // No flicker: what a tab's own pending action wrote is shown until its answer comes.
        flickers(made.values(), &shown)
    }

    /// What has to hold when the faults are over.
    pub(crate) fn check_healed(&mut self) -> Checked {
        self.check()?;
        let rows = self.server_rows().map_err(|e| self.violation(e.to_string()))?;
        for index in 0..self.tabs.len() {
            let Some(shown) = self.tabs[index].as_ref().map(Self::shown) else { continue };
            let rows = rows.seen_by(&self.who(index));
            if shown.as_ref().ok() != Some(&rows) {
                return Err(
                    self.violation(format!("tab {index} shows {shown:?}, the server has {rows:?}"))
                );
            }
        }
        if let Some(wrong) = self.v1_wrong(&rows) {
            return Err(self.violation(wrong));
        }
        self.check_done()
    }

    /// What is still to be done later, by name and token; and what went astray: a job that was done
    /// twice, or was taken back and done.
    pub(crate) fn planned(&self) -> Result<Vec<(String, i64)>> {
        let read = |row: &partysync::sql::Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?));
        self.server.sql().query_map("SELECT name, token FROM planned", params![], read)
    }

    /// Exactly once, and in order.
    fn check_done(&mut self) -> Checked {
        let read = |row: &partysync::sql::Row<'_>| row.get::<i64>(0);
        let done =
            self.server.sql().query_map("SELECT token FROM done ORDER BY n", params![], read);
        let done: Vec<i64> = done.map_err(|error: Error| self.violation(error.to_string()))?;
        for (token, (client, outcome)) in self.known.clone() {
            let times = done.iter().filter(|other| **other == token).count();
            let wrong = match outcome {
                Known::Waiting => Some("has no answer"),
                // What was done before the storage was wiped is gone with it.
                Known::Committed if times == 0 && !self.wiped => {
                    Some("was acknowledged and is not there")
                }
                // Storage that is set back has forgotten the rejection, and so may a store, or a tab
                // that ends before it is stored; and what was refused when the storage was empty may
                // have been done in what comes back.
                Known::Rejected
                    if times > 0
                        && !self.came_back
                        && !(self.wiped && (self.store_faults || self.unstored)) =>
                {
                    Some("was rejected, and done")
                }
                _ if times > 1 => Some("was done more than once"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(self.violation(format!("action {token} of client {client} {wrong}")));
            }
        }
        let mut orders: BTreeMap<(&str, bool), Vec<i64>> = BTreeMap::new();
        for token in done {
            if let Some((client, _)) = self.known.get(&token) {
                let order = orders.entry((client, token > NOTE_TOKENS)).or_default();
                order.push(token);
            }
        }
        // Tokens rise in the order in which actions are made, those of notes by themselves.
        let wrong = orders.into_iter().find(|(_, order)| !order.is_sorted());
        let what = wrong.map(|((client, _), order)| {
            format!("client {client}'s actions were done in the order {order:?}")
        });
        what.map_or(Ok(()), |what| Err(self.violation(what)))
    }
}

/// Whether a pending action's row is shown as the action left it; actions in the order in which
/// they are shown.
fn flickers<'a>(actions: impl Iterator<Item = &'a AppAction>, shown: &Rows) -> Option<String> {
    let mut last: BTreeMap<&String, &ThingAction> = BTreeMap::new();
    for action in actions {
        let AppAction::Things(action) = action else { continue };
        match action {
            ThingAction::Create { id, .. }
            | ThingAction::Put { id, .. }
            | ThingAction::Touch { id, .. }
            | ThingAction::Remove { id, .. }
            | ThingAction::Bump { id, .. } => {
                last.insert(id, action);
            }
            // What a program leaves is not known here.
            ThingAction::Script { ops, .. } => {
                for op in ops {
                    if let Op::Put(id) | Op::Remove(id) | Op::Destroy(id) = op {
                        last.remove(id);
                    }
                }
            }
            ThingAction::FailHalfway { .. } => {}
        }
    }
    last.into_iter().find_map(|(id, action)| {
        let row = shown.things.iter().find(|thing| thing.id == *id);
        let flickers = match action {
            ThingAction::Put { token, .. } => row.map(|row| row.token) != Some(*token),
            ThingAction::Remove { .. } => row.is_some(),
            _ => false,
        };
        flickers.then(|| format!("{action:?} is pending and {row:?} is shown"))
    })
}
