//! What has to hold of the world: after each step, and when it has healed.

use crate::app::{AppAction, Op, ThingAction};
use crate::tab::Tab;
use crate::world::{Known, Rows, Violation, World};
use partysync::{Error, Result, params};
use std::collections::BTreeMap;

type Checked = std::result::Result<(), Violation>;

impl World {
    /// What has to hold after each step.
    pub(crate) fn check(&mut self) -> Checked {
        for index in 0..self.tabs.len() {
            if let Some(what) = self.wrong_with(&self.tabs[index]) {
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

    fn shown(tab: &Tab) -> Result<Option<Rows>> {
        let Some(main) = tab.main() else { return Ok(None) };
        let replica = main.session.replica();
        let (things, accounts, cells) = (replica.rows()?, replica.rows()?, replica.rows()?);
        Ok(Some(Rows { things, accounts, cells }))
    }

    fn wrong_with(&self, tab: &Tab) -> Option<String> {
        let replica = tab.main()?.session.replica();
        let shown = match Self::shown(tab) {
            Ok(shown) => shown?,
            Err(error) => return Some(format!("its rows cannot be read: {error}")),
        };
        let none = BTreeMap::new();
        let made = |end: &crate::tab::End| self.made.get(&end.client).unwrap_or(&none);
        // Nothing unacknowledged is forgotten.
        let waiting = tab.ends.iter().map(|end| made(end).len()).sum();
        if replica.pending() < waiting {
            return Some(format!("{} pending of {waiting}", replica.pending()));
        }
        // With nothing pending it shows the server's rows of its version, at any time.
        let version = replica.version("things");
        if replica.pending() == 0
            && replica.epoch() == Some(self.epoch.as_str())
            && ["accounts", "cells"].iter().all(|other| version == replica.version(other))
            && let Some(past) = version.and_then(|version| self.past.get(&version))
        {
            if shown != *past {
                return Some(format!("at {version:?} it shows {shown:?}, the server had {past:?}"));
            }
            return None;
        }
        // No flicker: what a pending action wrote is shown until its answer comes. Outboxes that
        // were taken over are shown below the tab's own.
        let couriers = tab.ends.get(1..).unwrap_or_default();
        let one = couriers.first().filter(|_| couriers.len() == 1);
        let open = one.into_iter().chain(tab.main()).flat_map(|end| made(end).values());
        if tab.adopted > 1 {
            return flickers(open, &shown);
        }
        // What a courier heard of is shown on, until the tab's own session has it.
        let lacks = |(epoch, done, _): &&(String, u64, AppAction)| {
            replica.epoch() == Some(epoch) && version.is_none_or(|version| version < *done)
        };
        let done = tab.done.iter().filter(lacks).map(|(_, _, action)| action);
        flickers(done.chain(open), &shown)
    }

    /// What has to hold when the faults are over.
    pub(crate) fn check_healed(&mut self) -> Checked {
        self.check()?;
        let rows = self.server_rows().map_err(|e| self.violation(e.to_string()))?;
        for index in 0..self.tabs.len() {
            let shown = Self::shown(&self.tabs[index]);
            if shown.as_ref().ok().and_then(Option::as_ref) != Some(&rows) {
                return Err(
                    self.violation(format!("tab {index} shows {shown:?}, the server has {rows:?}"))
                );
            }
        }
        self.check_done()
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
        let mut orders: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for token in done {
            if let Some((client, _)) = self.known.get(&token) {
                orders.entry(*client).or_default().push(token);
            }
        }
        // Tokens rise in the order in which actions are made.
        match orders.into_iter().find(|(_, order)| !order.is_sorted()) {
            Some((client, order)) => {
                let what = format!("client {client}'s actions were done in the order {order:?}");
                Err(self.violation(what))
            }
            None => Ok(()),
        }
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
