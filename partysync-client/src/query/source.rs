//! Where views read: a replica's rows, and indexes of them that queries have asked for.

use super::sort::{SortKey, push, sort_key};
use crate::replica::Row;
use partysync::Key;
use partysync::sql::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The rows of a replica, as they are shown.
pub(crate) trait Rows {
    /// The row with this key.
    fn row(&self, table: &str, key: &Key) -> Option<&Row>;

    /// All rows of a table.
    fn each(&self, table: &str, f: &mut dyn FnMut(&Row));
}

/// An index: the columns that it is ordered by, and whether from the largest on. Those of the key are
/// the last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spec {
    pub(super) table: &'static str,
    pub(super) columns: Vec<(usize, bool)>,
}

/// All indexes.
#[derive(Debug, Default)]
pub(crate) struct Indexes(BTreeMap<Spec, Index>);

#[derive(Debug)]
struct Index {
    rows: BTreeMap<SortKey, Row>,
    /// How many changes it has taken in since nobody wants it.
    idle: Option<usize>,
}

/// A row that is another one now.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) old: Option<Row>,
    pub(crate) new: Option<Row>,
}

impl Indexes {
    /// Nobody wants others than these. They are kept for who asks again, as a page that is opened
    /// once more does, until keeping them has cost as much as making them anew would.
    pub(super) fn keep(&mut self, specs: &BTreeSet<Spec>) {
        for (spec, index) in &mut self.0 {
            index.idle = (!specs.contains(spec)).then(|| index.idle.unwrap_or(0));
        }
    }

    /// Sees to it that these are there.
    pub(super) fn want(&mut self, specs: &BTreeSet<Spec>, rows: &dyn Rows) {
        for spec in specs {
            self.0.entry(spec.clone()).or_insert_with(|| Index::new(spec, rows));
        }
        self.keep(specs);
    }

    /// Makes those of a table anew.
    pub(super) fn rebuild(&mut self, table: &str, rows: &dyn Rows) {
        self.0.retain(|spec, index| spec.table != table || index.idle.is_none());
        for (spec, index) in self.0.iter_mut().filter(|(spec, _)| spec.table == table) {
            *index = Index::new(spec, rows);
        }
    }

    pub(super) fn change(&mut self, table: &str, changes: &[Change]) {
        self.0.retain(|spec, index| {
            let mine = index.idle.as_mut().filter(|_| spec.table == table);
            mine.is_none_or(|idle| {
                *idle += changes.len();
                *idle <= index.rows.len()
            })
        });
        for (spec, index) in self.0.iter_mut().filter(|(spec, _)| spec.table == table) {
            let index = &mut index.rows;
            for Change { old, new } in changes {
                let (old, new) = (
                    old.as_ref(),
                    new.as_ref().map(|row| (sort_key(row, spec.columns.iter().copied()), row)),
                );
                if let Some(old) = old.map(|row| sort_key(row, spec.columns.iter().copied()))
                    && new.as_ref().is_none_or(|(key, _)| *key != old)
                    && !partysync::__mutated("query_index")
                {
                    index.remove(&old);
                }
                if let Some((key, row)) = new {
                    index.insert(key, row.clone());
                }
            }
        }
    }
}

impl Index {
    fn new(spec: &Spec, rows: &dyn Rows) -> Self {
        let mut all = Vec::new();
        rows.each(spec.table, &mut |row| {
            all.push((sort_key(row, spec.columns.iter().copied()), row.clone()))
        });
        // It is sorted once, and put together from what is sorted.
        Self { rows: all.into_iter().collect(), idle: None }
    }
}

/// What views read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) indexes: &'a Indexes,
}

impl Source<'_> {
    /// Rows of a table that have this value in the column of an index, until `more` is false; without
    /// an index, the row whose key it is. NULL is related to nothing.
    pub(super) fn related(
        &self,
        table: &str,
        index: Option<&Spec>,
        value: &Value,
        more: &mut dyn FnMut(&Row) -> bool,
    ) {
        if *value == Value::Null {
            return;
        }
        match index {
            Some(index) => {
                let mut prefix = Vec::with_capacity(32);
                push(&mut prefix, value, false);
                self.scan(index, &prefix, None, more);
            }
            None => {
                let key = Key::try_from(value.clone()).ok();
                if let Some(row) = key.and_then(|key| self.rows.row(table, &key)) {
                    more(row);
                }
            }
        }
    }

    /// Rows whose place in an index begins so, behind a place among them, in order, until `more` is
    /// false.
    pub(super) fn scan(
        &self,
        index: &Spec,
        prefix: &[u8],
        after: Option<&[u8]>,
        more: &mut dyn FnMut(&Row) -> bool,
    ) {
        let Some(index) = self.indexes.0.get(index) else { return };
        let from = [prefix, after.unwrap_or_default()].concat();
        let from: Bound<&[u8]> = match after {
            Some(_) => Bound::Excluded(&from),
            None => Bound::Included(&from),
        };
        for (key, row) in index.rows.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !more(row) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Three;

    impl Rows for Three {
        fn row(&self, _: &str, _: &Key) -> Option<&Row> {
            None
        }

        fn each(&self, _: &str, f: &mut dyn FnMut(&Row)) {
            (0..3).for_each(|n| f(&row(n)));
        }
    }

    fn row(n: i64) -> Row {
        vec![Value::Integer(n)].into()
    }

    #[test]
    fn an_index_that_nobody_wants_is_kept_while_that_is_cheap() {
        let spec = Spec { table: "a", columns: vec![(0, false)] };
        let (wanted, none) = (BTreeSet::from([spec]), BTreeSet::new());
        let mut indexes = Indexes::default();
        let change = |n| [Change { old: Some(row(n)), new: Some(row(n)) }];
        indexes.want(&wanted, &Three);
        for _ in 0..2 {
            (0..9).for_each(|_| indexes.change("a", &change(1)));
            indexes.keep(&none);
            (0..3).for_each(|_| indexes.change("a", &change(2)));
            indexes.want(&none, &Three);
            indexes.change("b", &change(2));
            assert_eq!(indexes.0.len(), 1);
            // What is wanted again begins anew.
            indexes.want(&wanted, &Three);
        }
        indexes.keep(&none);
        (0..3).for_each(|_| indexes.change("a", &change(2)));
        assert_eq!(indexes.0.len(), 1);
        indexes.change("a", &change(2));
        assert_eq!(indexes.0.len(), 0);
        indexes.want(&wanted, &Three);
        indexes.keep(&none);
        indexes.rebuild("b", &Three);
        assert_eq!(indexes.0.len(), 1);
        indexes.rebuild("a", &Three);
        assert_eq!(indexes.0.len(), 0);
    }
}
