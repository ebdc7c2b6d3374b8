//! What one action's reducer works on: the view, with its own writes apart until it succeeds, and
//! a note of what it has read.

use super::pending::Footprint;
use super::{Row, Table};
use crate::gathered::gathered;
use partysync::sql::Value;
use partysync::{Key, Tables, Timestamp};
use std::cell::RefCell;
use std::collections::BTreeMap;

pub(super) type Written = BTreeMap<(&'static str, Key), Option<Row>>;

pub(super) struct Scratch<'a> {
    tables: &'a BTreeMap<&'static str, Table>,
    rows: Written,
    read: RefCell<Footprint>,
    now: Timestamp,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(tables: &'a BTreeMap<&'static str, Table>, now: Timestamp) -> Self {
        Self { tables, rows: BTreeMap::new(), read: RefCell::default(), now }
    }

    /// What the reducer wrote, if it succeeded, and what it has looked at.
    pub(super) fn end(self, succeeded: bool) -> (Written, Footprint) {
        let mut footprint = self.read.into_inner();
        footprint.touched.extend(self.rows.keys().cloned());
        if !succeeded {
            return (Written::new(), footprint);
        }
        footprint.written = gathered(self.rows.keys().cloned());
        (self.rows, footprint)
    }

    fn channel(&self, channel: &str) -> Option<(&'static str, &Table)> {
        self.tables.get_key_value(channel).map(|(channel, table)| (*channel, table))
    }
}

impl Tables for Scratch<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn get(&self, channel: &str, key: &Key) -> Option<Vec<Value>> {
        let (channel, table) = self.channel(channel)?;
        let at = (channel, key.clone());
        if let Some(row) = self.rows.get(&at) {
            return row.as_ref().map(|row| row.to_vec());
        }
        self.read.borrow_mut().touched.insert(at);
        table.row(key).map(|row| row.to_vec())
    }

    fn set(&mut self, channel: &str, key: Key, row: Option<Vec<Value>>) {
        if let Some((channel, _)) = self.channel(channel) {
            // Deleting what is not there leaves no mark.
            if row.is_some() || self.get(channel, &key).is_some() {
                self.rows.insert((channel, key), row.map(Into::into));
            }
        }
    }

    fn keys(&self, channel: &str) -> Vec<Key> {
        let Some((channel, table)) = self.channel(channel) else { return Vec::new() };
        self.read.borrow_mut().scanned.insert(channel);
        let own = self.rows.iter().filter(|((c, _), _)| *c == channel).map(|((_, k), r)| (k, r));
        table.keys(own)
    }
}
