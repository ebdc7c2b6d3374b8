//! [`TotalsView`]: how many rows there are and what they sum up to, kept up to date.

use super::compile::{Schemas, Test, column, schema, test};
use super::sort::{SortKey, bytes, cell, key};
use super::source::{Change, Source, Spec};
use super::turn::{Batch, Turn};
use crate::replica::Row;
use partysync::Result;
use partysync::query::plan::Totals;
use partysync::sql::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one value, or all: how many there are, and their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total<G> {
    /// The value that they have in common.
    pub group: G,
    /// How many there are.
    pub count: u64,
    /// What the column of the sum amounts to; 0 if none was asked for.
    pub sum: i128,
}

#[derive(Debug)]
pub(crate) struct TotalsView {
    table: &'static str,
    test: Test,
    group: Option<usize>,
    sum: Option<usize>,
    groups: BTreeMap<SortKey, Total<Value>>,
    /// How many columns the key has.
    keys: usize,
    /// The rows that are counted, where their own cells do not say whether they are.
    counted: Option<BTreeMap<SortKey, Row>>,
    pub(super) tables: BTreeSet<&'static str>,
}

impl TotalsView {
    pub(super) fn new(plan: &Totals, schemas: &Schemas) -> Result<Self> {
        let schema = schema(schemas, &plan.table)?;
        let column =
            |name: &Option<String>| name.as_deref().map(|name| column(schema, name)).transpose();
        let test = test(&plan.filter, schema, schemas)?;
        let mut tables = BTreeSet::from([schema.table]);
        test.add_tables(&mut tables);
        Ok(Self {
            table: schema.table,
            group: column(&plan.group)?,
            sum: column(&plan.sum)?,
            groups: BTreeMap::new(),
            keys: schema.key().len(),
            counted: (!test.is_plain()).then(BTreeMap::new),
            test,
            tables,
        })
    }

    pub(super) fn add_specs(&self, specs: &mut BTreeSet<Spec>) {
        self.test.add_specs(specs);
    }

    /// Looks everything up anew.
    pub(super) fn reset(&mut self, source: Source<'_>) {
        self.groups.clear();
        if let Some(counted) = &mut self.counted {
            counted.clear();
        }
        let mut rows = Vec::new();
        source.rows.each(self.table, &mut |row| {
            if self.test.meets(row, source) {
                rows.push(row.clone());
            }
        });
        rows.iter().for_each(|row| self.count(row, true));
    }

    /// The totals, by group. Without groups there is one, also of no rows.
    pub(super) fn totals(&self) -> Vec<Total<Value>> {
        if self.group.is_none() && self.groups.is_empty() {
            return vec![Total { group: Value::Null, count: 0, sum: 0 }];
        }
        self.groups.values().cloned().collect()
    }

    /// Takes in what has changed; whether that changes a total.
    pub(super) fn update(&mut self, all: &Batch, source: Source<'_>, batch: u64) -> bool {
        let work = Turn::new(all, source, batch).work((self.table, self.keys), &self.test);
        let mut changed = false;
        for Change { old, new } in work {
            let old = match &self.counted {
                Some(counted) => old.and_then(|row| counted.get(&key(&row, self.keys)).cloned()),
                None => old.filter(|row| self.test.meets(row, source)),
            };
            let new = new.filter(|row| self.test.meets(row, source));
            if old == new {
                continue;
            }
            let counts = |row: &Row| {
                let value = |column: Option<usize>| column.map(|column| cell(row, column).clone());
                (value(self.group), value(self.sum))
            };
            changed |= old.as_ref().map(counts) != new.as_ref().map(counts);
            if !partysync::__mutated("query_totals") {
                old.iter().for_each(|row| self.count(row, false));
            }
            new.iter().for_each(|row| self.count(row, true));
        }
        changed
    }

    fn count(&mut self, row: &Row, comes: bool) {
        if let Some(counted) = &mut self.counted {
            let key = key(row, self.keys);
            if comes {
                counted.insert(key, row.clone());
            } else {
                counted.remove(&key);
            }
        }
        let group = self.group.map_or(Value::Null, |column| cell(row, column).clone());
        let amount = match self.sum.map(|column| cell(row, column)) {
            Some(Value::Integer(n)) => i128::from(*n),
            _ => 0,
        };
        let key = bytes(&group);
        let total = self.groups.entry(key.clone()).or_insert(Total { group, count: 0, sum: 0 });
        if comes {
            (total.count, total.sum) = (total.count + 1, total.sum + amount);
        } else {
            (total.count, total.sum) = (total.count.saturating_sub(1), total.sum - amount);
        }
        if total.count == 0 {
            self.groups.remove(&key);
        }
    }
}
