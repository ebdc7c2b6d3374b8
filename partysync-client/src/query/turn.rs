//! What a batch of changes does to a result, at a cost that grows with what has changed.

use super::compile::{Compiled, Related, Test};
use super::difference::Difference;
use super::sort::{SortKey, bytes, cell, key};
use super::source::{Change, Source};
use super::window::{Entry, Part, Place, Window};
use crate::replica::Row;
use partysync::Key;
use partysync::query::Node;
use partysync::sql::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What has changed, by table: a row once.
pub(crate) type Batch = BTreeMap<&'static str, Vec<Change>>;

/// What changes are told to.
pub(super) type Differences = Vec<Difference<Node>>;

/// A batch of changes, on its way through a view.
pub(super) struct Turn<'a> {
    all: &'a Batch,
    source: Source<'a>,
    batch: u64,
    /// The changes to related rows, for each relation of the query.
    groups: RefCell<BTreeMap<usize, Rc<Groups>>>,
}

/// Changes to related rows, by the value that relates them.
type Groups = BTreeMap<SortKey, Group>;

/// Changes to rows that have the same value.
struct Group {
    value: Value,
    work: Vec<Change>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(all: &'a Batch, source: Source<'a>, batch: u64) -> Self {
        Self { all, source, batch, groups: RefCell::default() }
    }

    /// The changes to the rows of a relation: one that gives a row another value is one that goes,
    /// and one that comes.
    fn groups(&self, related: &Related) -> Rc<Groups> {
        let address = std::ptr::from_ref(related).addr();
        if let Some(groups) = self.groups.borrow().get(&address) {
            return groups.clone();
        }
        let mut groups = Groups::new();
        let mut add = |value: &Value, change: Change| {
            if *value != Value::Null {
                let new = || Group { value: value.clone(), work: Vec::new() };
                groups.entry(bytes(value)).or_insert_with(new).work.push(change);
            }
        };
        for Change { old, new } in
            self.work((related.node.table, related.node.keys), &related.node.test)
        {
            let value = |row: &Option<Row>| {
                row.as_ref().map_or(Value::Null, |row| cell(row, related.there).clone())
            };
            let (before, after) = (value(&old), value(&new));
            if before == after {
                add(&before, Change { old, new });
            } else {
                add(&before, Change { old, new: None });
                add(&after, Change { old: None, new });
            }
        }
        let groups = Rc::new(groups);
        self.groups.borrow_mut().insert(address, groups.clone());
        groups
    }

    /// The rows of a table, whose key has so many columns, that have changed, and those of which a condition may say otherwise than
    /// before since something that they are related to has changed.
    pub(super) fn work(&self, (table, keys): (&'static str, usize), test: &Test) -> Vec<Change> {
        let mut work = self.all.get(table).cloned().unwrap_or_default();
        let mut touched = BTreeMap::new();
        test.each_exists(&mut |exists| {
            let related = self.work((exists.table, exists.keys), &exists.test);
            for value in values(&related, exists.there) {
                let index = exists.here_index.as_ref();
                self.source.related(table, index, &value, &mut |row| {
                    touched.insert(key(row, keys), row.clone());
                    !partysync::__mutated("query_touched")
                });
            }
        });
        for Change { old, new } in &work {
            for row in old.iter().chain(new) {
                touched.remove(&key(row, keys));
            }
        }
        work.extend(
            touched.into_values().map(|row| Change { old: Some(row.clone()), new: Some(row) }),
        );
        work
    }

    fn has_changed(&self, node: &Compiled) -> bool {
        node.tables.iter().any(|table| self.all.contains_key(table))
    }

    /// Takes changes into a window, of rows that are related to this value. Whether anything that is
    /// shown is another now.
    pub(super) fn update(
        &self,
        node: &Compiled,
        window: &mut Window,
        value: Option<&Value>,
        work: &[Change],
        differences: Option<&mut Differences>,
    ) -> bool {
        let mut step =
            Step { turn: self, node, window, differences, changed: false, updated: Vec::new() };
        work.iter().for_each(|Change { old, new }| step.change(old.as_ref(), new.as_ref()));
        node.related.iter().enumerate().for_each(|(n, part)| step.part(n, part));
        step.refill(value);
        step.tell_updated();
        step.changed
    }
}

/// The values of a column in rows that have changed, before and after.
fn values(work: &[Change], column: usize) -> impl Iterator<Item = Value> {
    let rows = work.iter().flat_map(|change| change.old.iter().chain(&change.new));
    let values = rows.map(|row| cell(row, column)).filter(|value| **value != Value::Null);
    let mut all = BTreeMap::new();
    for value in values {
        all.entry(bytes(value)).or_insert_with(|| value.clone());
    }
    all.into_values()
}

/// One window's part of a turn.
struct Step<'s> {
    turn: &'s Turn<'s>,
    node: &'s Compiled,
    window: &'s mut Window,
    differences: Option<&'s mut Differences>,
    changed: bool,
    /// Entries that are another now in their place.
    updated: Vec<SortKey>,
}

impl Step<'_> {
    fn change(&mut self, old: Option<&Row>, new: Option<&Row>) {
        let (node, source) = (self.node, self.turn.source);
        let from = old.map(|row| node.sort_key(row)).and_then(|sort| self.window.find(&sort).ok());
        let sort = new.and_then(|row| Some((node.place(row, source)?, row)));
        let bound = self.window.bound.as_ref().filter(|_| !partysync::__mutated("query_bound"));
        let to = sort.filter(|(sort, _)| bound.is_none_or(|bound| sort <= bound));
        match (from, to) {
            (Some(from), Some((sort, row))) => {
                if self.window.get(from).is_some_and(|entry| entry.sort == sort) {
                    self.replace(from, row);
                } else {
                    self.shift(from, sort, row);
                }
            }
            (Some(from), None) => self.remove(from),
            (None, Some((sort, row))) => match self.window.find(&sort) {
                // It was looked up in this turn.
                Ok(there) => self.replace(there, row),
                Err(place) => {
                    let index = self.window.index(place);
                    self.insert(place, index, node.entry(row, sort));
                }
            },
            (None, None) => {}
        }
    }

    fn tell(&mut self, difference: impl FnOnce(&Compiled, &Window) -> Option<Difference<Node>>) {
        self.changed = true;
        if let Some(differences) = &mut self.differences {
            differences.extend(difference(self.node, self.window));
        }
    }

    /// The row at this place of what is shown is there now.
    fn tell_inserted(&mut self, index: usize) {
        self.tell(|node, window| {
            let entry = window.place(index).and_then(|place| window.get(place))?;
            Some(Difference::Inserted(index, node.node(entry)))
        });
    }

    fn replace(&mut self, place: Place, row: &Row) {
        let shown = self.window.index(place) < self.node.limit;
        let (node, turn) = (self.node, self.turn);
        let Some(entry) = self.window.get_mut(place) else { return };
        if entry.row == *row {
            return;
        }
        let was = std::mem::replace(&mut entry.row, row.clone());
        if !shown {
            return;
        }
        if node.relates_otherwise(&was, row) {
            node.relate(entry, turn.source, turn.batch);
        }
        self.updated.push(entry.sort.clone());
    }

    fn insert(&mut self, place: Place, index: usize, mut entry: Entry) {
        let limit = self.node.limit;
        if index < limit && entry.related.len() < self.node.related.len() {
            self.node.relate(&mut entry, self.turn.source, self.turn.batch);
        }
        self.window.insert(place, entry);
        if index < limit {
            self.tell_inserted(index);
            self.hide();
        }
        self.trim();
    }

    /// One row more is shown than may be.
    fn hide(&mut self) {
        let limit = self.node.limit;
        let Some(place) = self.window.place(limit).filter(|_| self.window.len() > limit) else {
            return;
        };
        if let Some(entry) = self.window.get_mut(place) {
            entry.related.clear();
        }
        self.tell(|_, _| Some(Difference::Removed(limit)));
    }

    /// One row less is shown than may be: the next one is, if it is here.
    fn show(&mut self) {
        let Some(last) = self.node.limit.checked_sub(1) else { return };
        let Some(place) = self.window.place(last) else { return };
        let (node, turn) = (self.node, self.turn);
        if let Some(entry) = self.window.get_mut(place) {
            node.relate(entry, turn.source, turn.batch);
        }
        self.tell_inserted(last);
    }

    fn remove(&mut self, place: Place) {
        let index = self.window.index(place);
        self.window.remove(place);
        if index < self.node.limit {
            self.tell(|_, _| Some(Difference::Removed(index)));
            if self.window.len() >= self.node.limit && !partysync::__mutated("query_show") {
                self.show();
            }
        }
    }

    /// A row goes to another place.
    fn shift(&mut self, from: Place, sort: SortKey, row: &Row) {
        let limit = self.node.limit;
        let before = self.window.index(from);
        let Some(mut entry) = self.window.remove(from) else { return };
        let place = match self.window.find(&sort) {
            Ok(place) | Err(place) => place,
        };
        let after = self.window.index(place);
        let moved = self.node.relates_otherwise(&entry.row, row);
        if moved && !partysync::__mutated("query_moved") {
            entry.related.clear();
        }
        (entry.sort, entry.row) = (sort, row.clone());
        if before < limit && after < limit {
            if entry.related.len() < self.node.related.len() {
                self.node.relate(&mut entry, self.turn.source, self.turn.batch);
            }
            self.window.insert(place, entry);
            self.tell(|node, window| {
                let entry = window.place(after).and_then(|place| window.get(place))?;
                Some(Difference::Moved(before, after, node.node(entry)))
            });
            return;
        }
        if before < limit {
            entry.related.clear();
            self.window.insert(place, entry);
            self.tell(|_, _| Some(Difference::Removed(before)));
            self.show();
        } else {
            self.insert(place, after, entry);
        }
    }

    /// What is known behind the last row that is shown has a bound.
    fn trim(&mut self) {
        let (limit, spare) = (self.node.limit, self.node.spare());
        if self.window.len() <= limit.saturating_add(2 * spare) {
            return;
        }
        while self.window.len() > limit.saturating_add(spare) {
            self.window.pop();
        }
        self.window.bound = self.window.last().map(|last| last.sort.clone());
    }

    /// Takes changes into what comes with the rows.
    fn part(&mut self, n: usize, related: &Related) {
        let turn = self.turn;
        if !turn.has_changed(&related.node) || partysync::__mutated("query_part") {
            return;
        }
        let groups = turn.groups(related);
        let deep = related.node.related.iter().any(|deeper| turn.has_changed(&deeper.node));
        let again = partysync::__mutated("query_fresh");
        for place in self.affected(related, deep, &groups) {
            let Some(entry) =
                self.window.get_mut(place).filter(|entry| entry.batch != turn.batch || again)
            else {
                continue;
            };
            let value = cell(&entry.row, related.here).clone();
            let work = groups.get(&bytes(&value)).map_or(&[][..], |group| &*group.work);
            let changed = match entry.related.get_mut(n) {
                Some(Part::Rows(window)) if value != Value::Null => {
                    turn.update(&related.node, window, Some(&value), work, None)
                }
                Some(Part::Count(count)) => {
                    let was = std::mem::replace(
                        count,
                        related.recount(*count, &value, work, turn.source),
                    );
                    *count != was
                }
                _ => false,
            };
            if changed {
                self.updated.push(entry.sort.clone());
            }
        }
    }

    /// The places of the rows that are shown with what has changed.
    fn affected(&self, related: &Related, deep: bool, groups: &Groups) -> Vec<Place> {
        let limit = self.node.limit;
        if related.here_is_key && !deep {
            let rows = self.turn.source.rows;
            let values = groups.values().map(|group| group.value.clone());
            let keys = values.filter_map(|value| Key::try_from(value).ok());
            let rows = keys.filter_map(|key| rows.row(self.node.table, &key));
            let places = rows.filter_map(|row| self.window.find(&self.node.sort_key(row)).ok());
            return places.filter(|place| self.window.index(*place) < limit).collect();
        }
        let concerns = |(_, entry): &(Place, &Entry)| {
            deep || groups.contains_key(&bytes(cell(&entry.row, related.here)))
        };
        self.window.places().take(limit).filter(concerns).map(|(place, _)| place).collect()
    }

    fn refill(&mut self, value: Option<&Value>) {
        let (limit, had) = (self.node.limit, self.window.len());
        if had >= limit || partysync::__mutated("query_refill") {
            return;
        }
        let Some(bound) = self.window.bound.take() else { return };
        let Turn { source, batch, .. } = *self.turn;
        self.node.fill(self.window, value, Some(&bound), source, batch);
        for index in had..self.window.len().min(limit) {
            self.tell_inserted(index);
        }
    }

    fn tell_updated(&mut self) {
        let mut updated = std::mem::take(&mut self.updated);
        updated.sort_unstable();
        updated.dedup();
        for sort in updated {
            let Ok(place) = self.window.find(&sort) else { continue };
            let index = self.window.index(place);
            if index < self.node.limit {
                self.tell(|node, window| {
                    Some(Difference::Updated(index, node.node(window.get(place)?)))
                });
            }
        }
    }
}

impl Related {
    /// How many there are after these changes.
    fn recount(&self, was: u64, value: &Value, work: &[Change], source: Source<'_>) -> u64 {
        if *value == Value::Null {
            return 0;
        }
        if !self.node.test.is_plain() {
            return self.count(value, source);
        }
        let counts =
            |row: &Option<Row>| row.as_ref().is_some_and(|row| self.node.test.meets(row, source));
        work.iter().fold(was, |count, change| {
            let gone = counts(&change.old) && !partysync::__mutated("query_count");
            (count + u64::from(counts(&change.new))).saturating_sub(gone.into())
        })
    }
}
