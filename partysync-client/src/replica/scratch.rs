//! What one action's reducer works on: the view, with its own writes apart until it succeeds.

use super::{Row, Table};
use partysync::{Key, Tables, Timestamp};
use std::collections::BTreeMap;

pub(super) struct Scratch<'a> {
    tables: &'a BTreeMap<&'static str, Table>,
    rows: BTreeMap<(&'static str, Key), Option<Row>>,
    now: Timestamp,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(tables: &'a BTreeMap<&'static str, Table>, now: Timestamp) -> Self {
        Self { tables, rows: BTreeMap::new(), now }
    }

    /// What the reducer wrote.
    pub(super) fn into_rows(self) -> BTreeMap<(&'static str, Key), Option<Row>> {
        self.rows
    }

    fn channel(&self, channel: &str) -> Option<(&'static str, &Table)> {
        self.tables.get_key_value(channel).map(|(channel, table)| (*channel, table))
    }
}

impl Tables for Scratch<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn get(&self, channel: &str, key: &Key) -> Option<Row> {
        let (channel, table) = self.channel(channel)?;
        if let Some(row) = self.rows.get(&(channel, key.clone())) {
            return row.clone();
        }
        table.row(key).cloned()
    }

    fn set(&mut self, channel: &str, key: Key, row: Option<Row>) {
        if let Some((channel, _)) = self.channel(channel) {
            // Deleting what is not there leaves no mark.
            if row.is_some() || self.get(channel, &key).is_some() {
                self.rows.insert((channel, key), row);
            }
        }
    }

    fn keys(&self, channel: &str) -> Vec<Key> {
        let Some((channel, table)) = self.channel(channel) else { return Vec::new() };
        let own = self.rows.iter().filter(|((c, _), _)| *c == channel).map(|((_, k), r)| (k, r));
        table.keys(own)
    }
}
