//! What one action's reducer works on: the rows as the actions before it have left them, with its
//! own writes apart until it succeeds, and a note of what it has looked at.

use super::index::{At, Footprint};
use super::layers::Order;
use super::{Row, Table};
use crate::gathered::gathered;
use partysync::sql::Value;
use partysync::{Identity, Key, Result, Schema, Tables, Timestamp};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Written = BTreeMap<At, Option<Row>>;

pub(super) struct Scratch<'a> {
    tables: &'a BTreeMap<&'static str, Table>,
    schemas: &'static [&'static Schema],
    order: Order,
    /// The rows to be judged where all are asked for; `None` for all.
    only: Option<&'a BTreeSet<At>>,
    rows: Written,
    noted: RefCell<Footprint>,
    now: Timestamp,
    identity: Option<&'a Identity>,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(
        (tables, schemas): (&'a BTreeMap<&'static str, Table>, &'static [&'static Schema]),
        order: Order,
        only: Option<&'a BTreeSet<At>>,
        (now, identity): (Timestamp, Option<&'a Identity>),
    ) -> Self {
        let (rows, noted) = (BTreeMap::new(), RefCell::default());
        Self { tables, schemas, order, only, rows, noted, now, identity }
    }

    /// What the reducer wrote, if it succeeded, and what it has looked at.
    pub(super) fn end(self, succeeded: bool) -> (Written, Footprint) {
        let mut footprint = self.noted.into_inner();
        if !succeeded {
            // Any row may be why.
            footprint.scanned.append(&mut footprint.swept);
            return (Written::new(), footprint);
        }
        footprint.written = gathered(self.rows.keys().cloned());
        (self.rows, footprint)
    }

    fn channel(&self, channel: &str) -> Option<(&'static str, &'a Table)> {
        self.tables.get_key_value(channel).map(|(channel, table)| (*channel, table))
    }

    /// The rows of a table that the reducer has written.
    fn own(&self, channel: &'static str) -> impl Iterator<Item = (&Key, Option<&Row>)> {
        let own = self.rows.iter().filter(move |((table, _), _)| *table == channel);
        own.map(|((_, key), row)| (key, row.as_ref()))
    }

    fn each_row(&self, channel: &'static str, table: &Table, f: &mut dyn FnMut(&Key, &Row)) {
        let mut over = table.written_below(self.order);
        over.extend(self.own(channel));
        table.each_with(over, f);
    }

    /// The rows of a table that have to be judged.
    fn each_judged(&self, channel: &'static str, table: &Table, f: &mut dyn FnMut(&Key, &Row)) {
        let Some(only) = self.only else { return self.each_row(channel, table, f) };
        let others = only.iter().filter(|at| at.0 == channel && !self.rows.contains_key(at));
        let others = others.map(|(_, key)| (key, table.row_below(key, self.order)));
        for (key, row) in others.chain(self.own(channel)) {
            row.into_iter().for_each(|row| f(key, row));
        }
    }
}

impl Tables for Scratch<'_> {
    fn schemas(&self) -> &'static [&'static Schema] {
        self.schemas
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn identity(&self) -> Option<&Identity> {
        self.identity
    }

    fn get(&self, channel: &str, key: &Key) -> Option<Vec<Value>> {
        let (channel, table) = self.channel(channel)?;
        let at = (channel, key.clone());
        let own = self.rows.get(&at);
        let mut noted = self.noted.borrow_mut();
        if noted.swept.contains(channel) {
            // Any row that was judged may be this one.
            noted.scanned.insert(channel);
        } else if own.is_none() && !noted.scanned.contains(channel) {
            noted.read.insert(at);
        }
        let row = own.map_or_else(|| table.row_below(key, self.order), Option::as_ref);
        row.map(|row| row.to_vec())
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
        self.noted.borrow_mut().scanned.insert(channel);
        let mut keys = Vec::new();
        self.each_row(channel, table, &mut |key, _| keys.push(key.clone()));
        keys
    }

    fn each(&self, channel: &str, f: &mut dyn FnMut(&[Value])) {
        let Some((channel, table)) = self.channel(channel) else { return };
        self.noted.borrow_mut().scanned.insert(channel);
        self.each_row(channel, table, &mut |_, row| f(row));
    }

    fn referring(&self, channel: &str, column: usize, to: &BTreeSet<Key>) -> Vec<(Key, Key)> {
        let Some((channel, table)) = self.channel(channel) else { return Vec::new() };
        let mut noted = self.noted.borrow_mut();
        if noted.swept.contains(channel) {
            // Any row that was judged may be one of them.
            noted.scanned.insert(channel);
        } else if !noted.scanned.contains(channel) {
            noted.referring.extend(to.iter().map(|key| (channel, column, key.clone())));
        }
        let mut found = Vec::new();
        self.each_row(channel, table, &mut |key, row| {
            let referred = row.get(column).and_then(|cell| Key::try_from(cell.clone()).ok());
            let referred = referred.filter(|referred| to.contains(referred));
            found.extend(referred.map(|referred| (key.clone(), referred)));
        });
        found
    }

    fn delete_where(
        &mut self,
        channel: &str,
        fits: &mut dyn FnMut(&[Value]) -> Result<bool>,
    ) -> Result<()> {
        let Some((channel, table)) = self.channel(channel) else { return Ok(()) };
        self.noted.borrow_mut().swept.insert(channel);
        let (mut gone, mut outcome) = (Vec::new(), Ok(()));
        self.each_judged(channel, table, &mut |key, row| match fits(row) {
            Ok(true) => gone.push(key.clone()),
            Ok(false) => {}
            Err(error) => outcome = Err(error),
        });
        if outcome.is_err() {
            // What it does hangs on every row then.
            self.noted.borrow_mut().scanned.insert(channel);
        }
        outcome?;
        self.rows.extend(gone.into_iter().map(|key| ((channel, key), None)));
        Ok(())
    }
}
