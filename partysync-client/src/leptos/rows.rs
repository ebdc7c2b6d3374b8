//! [`Rows`]: what a query finds, with a signal for each row that is mounted.

use super::Loaded;
use super::reading::{Heard, Reading, set};
use super::synced::Synced;
use crate::query::Difference;
use crate::{Changed, Update};
use ::leptos::prelude::{Update as _, *};
use partysync::query::{Found, Node, Query, Tuple};
use partysync::{Action, Error, Key, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What there is to show of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Listing {
    /// The rows are on their way: nobody knows whether there is one.
    Loading,
    /// There is none.
    Empty,
    /// There are some.
    Rows,
    /// They cannot be had, and why: the query names what is not there, or the server refuses.
    Failed(Error),
}

/// The rows that a query finds: which there are, and in which order, is one signal; what is in each
/// another. Cheap to copy, gone with the component that asked.
pub struct Rows<R: Send + Sync + 'static, W: Send + Sync + 'static = ()> {
    listing: Memo<Listing>,
    reading: Reading,
    taken: Taken<R, W>,
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Clone for Rows<R, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Copy for Rows<R, W> {}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> std::fmt::Debug for Rows<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

/// A row as it is shown, as signals; cheap to copy, gone with the component that mounts it.
#[derive(Debug)]
pub struct Row<R: Send + Sync + 'static, W: Send + Sync + 'static = ()> {
    value: ReadSignal<Arc<Found<R, W>>>,
    pending: ReadSignal<bool>,
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Clone for Row<R, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Copy for Row<R, W> {}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Row<R, W> {
    /// The row, with what comes with it. It stays what it was when it is gone.
    #[must_use]
    pub fn get(&self) -> Arc<Found<R, W>> {
        self.value.get()
    }

    /// The same, for what does not run again when it changes.
    #[must_use]
    pub fn get_untracked(&self) -> Arc<Found<R, W>> {
        self.value.get_untracked()
    }

    /// Whether that is not the server's word yet.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.pending.get()
    }
}

/// What was found, and told of it.
struct Taken<R: Send + Sync + 'static, W: Send + Sync + 'static> {
    keys: RwSignal<Vec<Key>>,
    unreadable: RwSignal<Option<Error>>,
    /// The rows that do not fit their type, of those that were looked at.
    broken: RwSignal<BTreeSet<Key>>,
    /// Any row is another now.
    changed: Trigger,
    shown: StoredValue<Shown<R, W>>,
    pending: StoredValue<Pending>,
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Clone for Taken<R, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Copy for Taken<R, W> {}

/// Whether a row is pending.
type Pending = Box<dyn Fn(&Key) -> bool + Send + Sync>;

struct Shown<R: Send + Sync + 'static, W: Send + Sync + 'static> {
    nodes: BTreeMap<Key, Node>,
    mounted: BTreeMap<Key, Mounted<R, W>>,
}

/// A row that is mounted, and how many times.
struct Mounted<R: Send + Sync + 'static, W: Send + Sync + 'static> {
    value: ArcRwSignal<Arc<Found<R, W>>>,
    pending: ArcRwSignal<bool>,
    times: usize,
}

impl<R: Record + Send + Sync, W: Tuple + Send + Sync + 'static> Rows<R, W> {
    pub(super) fn new<A: Action + Send>(
        sync: Synced<A>,
        query: impl Fn() -> Query<R, W> + Send + Sync + 'static,
    ) -> Self {
        let client = sync.client();
        let asked = client.clone();
        let taken = Taken {
            keys: RwSignal::new(Vec::new()),
            unreadable: RwSignal::new(None),
            broken: RwSignal::new(BTreeSet::new()),
            changed: Trigger::new(),
            shown: StoredValue::new(Shown { nodes: BTreeMap::new(), mounted: BTreeMap::new() }),
            pending: StoredValue::new(Box::new(move |key| asked.is_pending::<R>(key.clone()))),
        };
        let reading = Reading::new(
            client,
            Memo::new(move |_| query().plan()),
            move |client, plan| {
                let query = plan.and_then(Query::<R, W>::from_plan);
                let live = query.and_then(|query| client.query(&query)).inspect_err(|_| {
                    // What was asked before is not followed any more.
                    taken.take(vec![Difference::Reset(Vec::new())]);
                })?;
                let changes = live.node_changes();
                taken.take(vec![Difference::Reset(live.nodes())]);
                Ok((live.tables(), changes))
            },
            move |heard| match heard {
                Heard::Changes(changes) => taken.take(changes),
                Heard::Update(update) => taken.look(&update),
            },
        );
        let listing = Memo::new(move |_| match reading.get() {
            _ if taken.keys.try_read().is_some_and(|keys| !keys.is_empty()) => Listing::Rows,
            Loaded::Loading => Listing::Loading,
            Loaded::Ready(()) => Listing::Empty,
            Loaded::Failed(error) => Listing::Failed(error),
        });
        Self { listing, reading, taken }
    }

    /// What there is to show. What reads it runs again when that is something else, and not when a
    /// row comes or goes beside others.
    #[must_use]
    pub fn listing(&self) -> Listing {
        self.listing.get()
    }

    /// Whether all rows are here that the query may find, or why they cannot be had: also while
    /// [`listing`](Self::listing) says [`Rows`](Listing::Rows), as when one was made here before the
    /// others have come.
    #[must_use]
    pub fn loaded(&self) -> Loaded<()> {
        self.reading.get()
    }

    /// The keys of the rows, in the query's order, without those of which [`get`](Self::get) has
    /// seen that they do not fit their type. What reads it runs again when a row comes, goes or moves.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = self.taken.keys.get();
        let broken = self.taken.broken.read();
        if !broken.is_empty() {
            keys.retain(|key| !broken.contains(key));
        }
        keys
    }

    /// How many rows there are, whether or not they fit their type. What reads it runs as for [`keys`](Self::keys).
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.keys.read().len()
    }

    /// Whether there is none that is known of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row that is there, for the component that mounts it: until that is gone, its signals follow
    /// the row. `None` also for one that does not fit its type ([`unreadable`](Self::unreadable)).
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Row<R, W>> {
        let Mounted { value, pending, .. } = self.taken.mount(key)?;
        Some(Row { value: value.read_only().into(), pending: pending.read_only().into() })
    }

    /// All rows, for few of them: what reads it runs again when any of them changes. Those that do
    /// not fit their type are left out.
    #[must_use]
    pub fn all(&self) -> Vec<Found<R, W>> {
        self.taken.changed.track();
        let keys = self.taken.keys.get();
        self.taken.shown.with_value(|shown| {
            let nodes = keys.iter().filter_map(|key| shown.nodes.get(key));
            nodes.filter_map(|node| Found::read(node).ok()).collect()
        })
    }

    /// The last row that did not fit its type, as one of a newer version of the application.
    #[must_use]
    pub fn unreadable(&self) -> Signal<Option<Error>> {
        self.taken.unreadable.into()
    }

    /// The first row.
    pub(super) fn first(&self) -> Loaded<Option<Arc<Found<R, W>>>> {
        let first = self.taken.keys.try_read().and_then(|keys| keys.first().cloned());
        // One that fits its type again is read again.
        self.taken.broken.track();
        match (first, self.reading.get()) {
            (Some(key), _) => match self.get(&key) {
                Some(row) => Loaded::Ready(Some(row.get())),
                None => self.taken.unreadable.get().map_or(Loaded::Loading, Loaded::Failed),
            },
            (None, reading) => reading.map(|()| None),
        }
    }
}

impl<R: Record + Send + Sync, W: Tuple + Send + Sync + 'static> Taken<R, W> {
    fn mount(self, key: &Key) -> Option<Mounted<R, W>> {
        let node = self.shown.with_value(|shown| shown.nodes.get(key).cloned())?;
        let row = self.read(key, &node)?;
        let pending = self.pending.with_value(|pending| pending(key));
        let mounted = self.shown.try_update_value(|shown| {
            let new = || Mounted {
                value: ArcRwSignal::new(Arc::new(row)),
                pending: ArcRwSignal::new(pending),
                times: 0,
            };
            let mounted = shown.mounted.entry(key.clone()).or_insert_with(new);
            mounted.times += 1;
            mounted.clone()
        });
        let key = key.clone();
        on_cleanup(move || {
            // All may be gone already.
            self.shown.try_update_value(|shown| {
                if let Some(mounted) = shown.mounted.get_mut(&key) {
                    mounted.times -= 1;
                    if mounted.times == 0 {
                        shown.mounted.remove(&key);
                    }
                }
            });
        });
        mounted
    }

    /// A row that does not fit its type is told.
    fn read(self, key: &Key, node: &Node) -> Option<Found<R, W>> {
        match Found::read(node) {
            Ok(row) => Some(row),
            Err(error) => {
                let error = error.context(format_args!("a row of `{}`", R::SCHEMA.table));
                ::leptos::logging::error!("{error}");
                set(self.unreadable, Some(error));
                self.set_broken(key, true);
                None
            }
        }
    }

    fn set_broken(self, key: &Key, broken: bool) {
        let put = |all: &mut BTreeSet<Key>| {
            let another = if broken { all.insert(key.clone()) } else { all.remove(key) };
            (another, all.is_empty())
        };
        if self.broken.try_maybe_update(put) == Some(true) {
            set(self.unreadable, None);
        }
    }

    /// Takes in what has changed, and tells it in the end.
    fn take(self, changes: Vec<Difference<Node>>) {
        let mut nodes = BTreeMap::new();
        let taken = self.keys.try_maybe_update(|keys| {
            let moved = self.shown.try_update_value(|shown| {
                let mut moved = false;
                for change in changes {
                    moved |= shown.take(keys, change, &mut nodes);
                }
                moved
            });
            (moved == Some(true), ())
        });
        if taken.is_none() || nodes.is_empty() {
            return;
        }
        for (key, node) in nodes {
            // Whether it fits its type now is seen when it is mounted.
            self.set_broken(&key, false);
            let signal = |shown: &Shown<R, W>| shown.mounted.get(&key).map(|m| m.value.clone());
            if let Some(signal) = self.shown.try_with_value(signal).flatten()
                && let Some(row) = self.read(&key, &node)
            {
                signal.set(Arc::new(row));
            }
        }
        self.changed.notify();
    }

    /// Rows may have become pending, or ceased to be.
    fn look(self, update: &Update) {
        let Some(changed) = update.changes.get(R::SCHEMA.table) else { return };
        let mounted = self.shown.try_with_value(|shown| {
            let some = |(key, mounted): (&Key, &Mounted<R, W>)| {
                changed.contains(key).then(|| (key.clone(), mounted.pending.clone()))
            };
            match changed {
                Changed::Keys(keys) if keys.len() < shown.mounted.len() => {
                    let mounted = keys.iter().filter_map(|key| shown.mounted.get_key_value(key));
                    mounted.filter_map(some).collect::<Vec<_>>()
                }
                _ => shown.mounted.iter().filter_map(some).collect(),
            }
        });
        for (key, signal) in mounted.into_iter().flatten() {
            let pending = self.pending.try_with_value(|pending| pending(&key));
            if let Some(pending) = pending.filter(|pending| *signal.read_untracked() != *pending) {
                signal.set(pending);
            }
        }
    }
}

impl<R: Send + Sync + 'static, W: Send + Sync + 'static> Clone for Mounted<R, W> {
    fn clone(&self) -> Self {
        let Self { value, pending, times } = self;
        Self { value: value.clone(), pending: pending.clone(), times: *times }
    }
}

impl<R: Record + Send + Sync, W: Send + Sync + 'static> Shown<R, W> {
    /// Takes in a change; `true` when other keys are there than before, or in another order. Adds
    /// the rows that are others now.
    fn take(
        &mut self,
        keys: &mut Vec<Key>,
        change: Difference<Node>,
        others: &mut BTreeMap<Key, Node>,
    ) -> bool {
        let key = |node: &Node| {
            // It can be a key: the schema has seen to it.
            R::SCHEMA.key_of(&node.row).unwrap_or_else(|_| Key::from(0))
        };
        let mut put = |nodes: &mut BTreeMap<Key, Node>, key: &Key, node: Node| {
            if nodes.get(key) != Some(&node) {
                others.insert(key.clone(), node.clone());
                nodes.insert(key.clone(), node);
            }
        };
        match change {
            Difference::Reset(nodes) => {
                let now: Vec<Key> = nodes.iter().map(key).collect();
                let mut before = std::mem::take(&mut self.nodes);
                for (key, node) in now.iter().zip(nodes) {
                    self.nodes.extend(before.remove_entry(key));
                    put(&mut self.nodes, key, node);
                }
                let moved = *keys != now;
                *keys = now;
                moved
            }
            Difference::Inserted(at, node) => {
                let key = key(&node);
                put(&mut self.nodes, &key, node);
                keys.insert(at.min(keys.len()), key);
                true
            }
            Difference::Updated(_, node) => {
                put(&mut self.nodes, &key(&node), node);
                false
            }
            Difference::Moved(from, to, node) => {
                if from < keys.len() {
                    keys.remove(from);
                }
                let key = key(&node);
                put(&mut self.nodes, &key, node);
                keys.insert(to.min(keys.len()), key);
                true
            }
            Difference::Removed(at) => {
                if at < keys.len() {
                    self.nodes.remove(&keys.remove(at));
                }
                true
            }
        }
    }
}
