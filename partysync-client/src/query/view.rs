//! [`View`]: a query's result, and how it is looked up.

use super::compile::{Compiled, Related};
use super::sort::{SortKey, cell};
use super::source::Source;
use super::turn::{Batch, Differences, Turn};
use super::window::{Entry, Part, Window};
use crate::replica::Row;
use partysync::query::plan::Shape;
use partysync::query::{Branch, Node};
use partysync::sql::Value;

/// So many rows behind the last one that is shown are known, for one that goes: half as many as are
/// shown, and no more than these.
const SPARE: usize = 32;

/// A query's result.
#[derive(Debug)]
pub(crate) struct View {
    pub(super) node: Compiled,
    window: Window,
}

impl View {
    pub(super) fn new(node: Compiled, source: Source<'_>, batch: u64) -> Self {
        let window = node.hydrate(None, source, batch);
        Self { node, window }
    }

    /// Looks everything up anew.
    pub(super) fn reset(&mut self, source: Source<'_>, batch: u64) {
        self.window = self.node.hydrate(None, source, batch);
    }

    pub(super) fn rows(&self) -> Vec<Node> {
        self.node.shown(&self.window)
    }

    pub(super) fn len(&self) -> usize {
        self.window.len().min(self.node.limit)
    }

    /// Takes in what has changed; what that is, if anybody wants to know.
    pub(super) fn update(
        &mut self,
        all: &Batch,
        source: Source<'_>,
        batch: u64,
        wanted: bool,
    ) -> Differences {
        let turn = Turn::new(all, source, batch);
        let mut differences = Vec::new();
        let work = turn.work((self.node.table, self.node.keys), &self.node.test);
        let told = wanted.then_some(&mut differences);
        turn.update(&self.node, &mut self.window, None, &work, told);
        differences
    }
}

impl Compiled {
    /// The rows that are shown, with what comes with them.
    fn shown(&self, window: &Window) -> Vec<Node> {
        window.iter().take(self.limit).map(|entry| self.node(entry)).collect()
    }

    pub(super) fn node(&self, entry: &Entry) -> Node {
        let part = |(part, related): (&Part, &Related)| match part {
            Part::Rows(window) => Branch::Rows(related.node.shown(window)),
            Part::Count(count) => Branch::Count(*count),
        };
        Node {
            row: entry.row.clone(),
            related: entry.related.iter().zip(&self.related).map(part).collect(),
        }
    }

    /// Looks up what there is, of rows that are related to this value.
    fn hydrate(&self, value: Option<&Value>, source: Source<'_>, batch: u64) -> Window {
        let mut window = match (&self.index, value, &self.key) {
            (Some(_), _, _) => {
                let mut window = Window::default();
                self.fill(&mut window, value, None, source, batch);
                return window;
            }
            (None, Some(value), _) => {
                let mut entries = Vec::new();
                source.related(self.table, None, value, &mut |row| {
                    entries.extend(self.place(row, source).map(|sort| self.entry(row, sort)));
                    false
                });
                Window::new(entries)
            }
            (None, None, Some(key)) => {
                let row = source.rows.row(self.table, key);
                let place = |row: &Row| Some(self.entry(row, self.place(row, source)?));
                Window::new(row.and_then(place).into_iter().collect())
            }
            (None, None, None) => {
                let mut entries = Vec::new();
                source.rows.each(self.table, &mut |row| {
                    entries.extend(self.place(row, source).map(|sort| self.entry(row, sort)));
                });
                entries.sort_unstable_by(|one, two| one.sort.cmp(&two.sort));
                Window::new(entries)
            }
        };
        if !self.related.is_empty() {
            window.iter_mut().take(self.limit).for_each(|entry| self.relate(entry, source, batch));
        }
        window
    }

    pub(super) fn entry(&self, row: &Row, sort: SortKey) -> Entry {
        Entry { sort, row: row.clone(), related: Vec::new(), batch: 0 }
    }

    pub(super) fn spare(&self) -> usize {
        (self.limit / 2).clamp(1, SPARE)
    }

    /// Where a row is in the order, if it is one of those.
    pub(super) fn place(&self, row: &Row, source: Source<'_>) -> Option<SortKey> {
        let sort = self.test.meets(row, source).then(|| self.sort_key(row))?;
        let after = self.after.as_ref().filter(|_| !partysync::__mutated("query_after"));
        after.is_none_or(|after| sort > *after).then_some(sort)
    }

    /// Whether other rows come with a row than came with what it was.
    pub(super) fn relates_otherwise(&self, was: &Row, row: &Row) -> bool {
        self.related.iter().any(|part| cell(was, part.here) != cell(row, part.here))
    }

    /// Adds what comes behind a place in the order, until there is enough.
    pub(super) fn fill(
        &self,
        window: &mut Window,
        value: Option<&Value>,
        behind: Option<&[u8]>,
        source: Source<'_>,
        batch: u64,
    ) {
        let Some(index) = &self.index else { return };
        let after = behind.or(self.after.as_deref());
        let enough = self.limit.saturating_add(self.spare());
        let mut full = enough == 0;
        source.scan(index, &self.prefix(value), after, &mut |row| {
            if !self.test.meets(row, source) {
                return true;
            }
            if window.len() >= enough {
                full = true;
                return false;
            }
            let mut entry = self.entry(row, self.sort_key(row));
            if window.len() < self.limit {
                self.relate(&mut entry, source, batch);
            }
            window.push(entry);
            true
        });
        window.bound = window.last().filter(|_| full).map(|last| last.sort.clone());
    }

    /// Looks up what comes with a row.
    pub(super) fn relate(&self, entry: &mut Entry, source: Source<'_>, batch: u64) {
        entry.batch = batch;
        let part = |related: &Related| {
            let value = cell(&entry.row, related.here);
            match related.shape {
                Shape::Count => Part::Count(related.count(value, source)),
                _ if *value == Value::Null => Part::Rows(Window::default()),
                _ => Part::Rows(related.node.hydrate(Some(value), source, batch)),
            }
        };
        entry.related = self.related.iter().map(part).collect();
    }
}

impl Related {
    pub(super) fn count(&self, value: &Value, source: Source<'_>) -> u64 {
        let mut count = 0;
        let index = self.node.index.as_ref();
        source.related(self.node.table, index, value, &mut |row| {
            count += u64::from(self.node.test.meets(row, source));
            true
        });
        count
    }
}
