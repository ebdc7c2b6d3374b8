//! [`Replica`]: confirmed rows, the pending actions over them, and the view that is both. No IO.
//!
//! The view is the confirmed rows with an overlay: the rows that pending actions touch. A patch
//! changes confirmed rows and drops the answered actions in one step: an optimistic row goes in
//! the same step in which its confirmed row comes. A pending action is done again only if what it
//! has looked at is another now; the cost is that of the rows touched.

mod changes;
mod frames;
mod index;
mod layers;
mod loading;
mod outboxes;
mod overlay;
mod pending;
#[cfg(test)]
mod reference_tests;
mod scratch;
#[cfg(test)]
mod tests;

pub(crate) use changes::merge;
pub use changes::{Changed, Changes};
pub(crate) use frames::Answered;
pub(crate) use loading::Loading;
pub(crate) use pending::{Patience, PushLimits};

use crate::gathered::gathered;
use crate::query::{Asked, Rows, Shared, Views, Wakers, Watching};
use crate::store::{RowsWrite, Write};
use index::Index;
use layers::{Layers, Order};
use partysync::sql::Value;
use partysync::wire::v2::{Change, Subscription};
use partysync::{Action, Code, Error, Identity, Key, Record, Result, Schema};
use pending::{Pending, Queue, Whose};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A row's cells; shared by all who show it.
pub(crate) type Row = Arc<[Value]>;

/// A client's copy of a room, to be read. `A` is the server's action type.
#[derive(Debug)]
pub struct Replica<A> {
    epoch: Option<String>,
    /// Who the client is to the room.
    identity: Option<Identity>,
    /// Whether the rows are those that it was given to begin with: a store may have newer ones.
    given: bool,
    /// Whether they are not stored, as the store has those of another epoch.
    held: bool,
    tables: BTreeMap<&'static str, Table>,
    /// Pending actions in the order in which they are shown; this client's own are the last.
    queues: Vec<Queue<A>>,
    /// What pending actions have looked at.
    index: Index,
    /// Clients whose outboxes were adopted and are empty now, with their last seq.
    emptied: Vec<(Arc<str>, u64)>,
    /// Clients of whose adopted actions some were done before: others may not know that.
    found_done: BTreeSet<Arc<str>>,
    next_seq: u64,
    /// Rows of a patch that goes on in the next frame.
    partial: Vec<Change>,
    /// Frames of the patch that has begun.
    pages: u64,
    writes: Vec<Write>,
    /// Results of queries, once there is one.
    views: Option<Box<dyn Watching>>,
}

#[derive(Debug)]
struct Table {
    schema: &'static Schema,
    /// The version that the confirmed rows are of.
    version: Option<u64>,
    /// What the client saw of the channel at that version, if not all rows.
    view: Option<String>,
    /// Whether all rows of some version have been here.
    complete: bool,
    confirmed: BTreeMap<Key, Row>,
    /// Confirmed rows that do not fit the record, and why.
    unreadable: BTreeMap<Key, Error>,
    /// Whether that there are some was told.
    told: bool,
    /// Rows that pending actions wrote.
    overlay: BTreeMap<Key, Layers>,
    /// What came of a catch-up that is not complete.
    staged: Staged,
}

/// The pages of a catch-up, read as they come: the last one has little left to do.
#[derive(Debug, Default)]
struct Staged {
    /// Rows and keys that came.
    sent: u64,
    rows: BTreeMap<Key, Row>,
    gone: BTreeSet<Key>,
    /// What has to be stored of it.
    stored: Vec<(String, Option<Json>)>,
}

impl<A: Action> Replica<A> {
    /// An empty replica. `client` is the id of its client: random, at most 64 characters, and
    /// never used before.
    pub(crate) fn new(client: Arc<str>) -> Self {
        let table = |schema: &&'static Schema| {
            let table = Table {
                schema,
                version: None,
                view: None,
                complete: false,
                confirmed: BTreeMap::new(),
                unreadable: BTreeMap::new(),
                told: false,
                overlay: BTreeMap::new(),
                staged: Staged::default(),
            };
            (schema.table, table)
        };
        Self {
            epoch: None,
            identity: None,
            given: false,
            held: false,
            tables: gathered(A::CHANNELS.iter().map(table)),
            queues: vec![Queue::new(client, Whose::Own)],
            index: Index::default(),
            emptied: Vec::new(),
            found_done: BTreeSet::new(),
            next_seq: 1,
            partial: Vec::new(),
            pages: 0,
            writes: Vec::new(),
            views: None,
        }
    }

    /// The epoch of the confirmed rows.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// The version that a channel's confirmed rows are of.
    #[must_use]
    pub fn version(&self, channel: &str) -> Option<u64> {
        self.tables.get(channel).and_then(|table| table.version)
    }

    /// How many rows of a channel the room has confirmed.
    #[cfg(feature = "devtools")]
    pub(crate) fn confirmed(&self, channel: &str) -> usize {
        self.tables.get(channel).map_or(0, |table| table.confirmed.len())
    }

    /// The queries that are kept up to date.
    #[cfg(feature = "devtools")]
    pub(crate) fn inspect_queries(&self) -> Vec<crate::devtools::Query> {
        self.views.as_ref().map(|views| views.inspect()).unwrap_or_default()
    }

    /// Whether the rows of a channel are here: as they are, or were at an earlier time. Until then
    /// nobody knows that there is none.
    #[must_use]
    pub fn is_complete(&self, channel: &str) -> bool {
        self.tables.get(channel).is_some_and(|table| table.complete)
    }

    /// Whether the row's shown state is not the server's word yet.
    #[must_use]
    pub fn is_pending(&self, channel: &str, key: &Key) -> bool {
        self.tables.get(channel).is_some_and(|table| table.overlay.contains_key(key))
    }

    /// A row as it is shown.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the row does not fit the type.
    pub fn get<R: Record>(&self, key: &Key) -> Result<Option<R>> {
        self.row(R::SCHEMA.table, key).map(|row| R::from_row(row.to_vec())).transpose()
    }

    /// All rows as they are shown, by key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a row does not fit the type.
    pub fn rows<R: Record>(&self) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        self.tables.each(R::SCHEMA.table, &mut |row| rows.push(R::from_row(row.to_vec())));
        rows.into_iter().collect()
    }

    /// The rows as they are shown that fit the type, by key.
    pub(crate) fn readable<R: Record>(&self) -> Vec<R> {
        let mut rows = Vec::new();
        self.tables.each(R::SCHEMA.table, &mut |row| rows.extend(R::from_row(row.to_vec())));
        rows
    }

    /// The rows of a channel that the client has and cannot read, as they are of another version of
    /// the application, and why.
    pub fn unreadable(&self, channel: &str) -> impl Iterator<Item = (&Key, &Error)> {
        self.tables.get(channel).into_iter().flat_map(|table| &table.unreadable)
    }

    /// How many rows there are that cannot be read.
    pub(crate) fn count_unreadable(&self) -> usize {
        self.tables.values().map(|table| table.unreadable.len()).sum()
    }

    /// What is to be told of rows that cannot be read: once for a table, as long as it has some.
    pub(crate) fn tell_unreadable(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        for (channel, table) in &mut self.tables {
            let told = std::mem::replace(&mut table.told, !table.unreadable.is_empty());
            if let Some((key, error)) = table.unreadable.iter().next().filter(|_| !told) {
                let message = format!(
                    "rows of `{channel}` are of another version of the application, and not shown: \
                     reload it (`{key}`: {error})"
                );
                errors.push(Error::new(Code::Outdated, message));
            }
        }
        errors
    }

    /// The keys of all rows as they are shown, in order.
    #[must_use]
    pub fn keys(&self, channel: &str) -> Vec<Key> {
        let Some(table) = self.tables.get(channel) else { return Vec::new() };
        let mut keys = Vec::with_capacity(table.confirmed.len());
        table.each_with(table.written(), &mut |key, _| keys.push(key.clone()));
        keys
    }

    /// The result of a query, kept up to date for as long as anybody holds it.
    ///
    /// # Errors
    /// The query names what this client does not follow.
    pub(crate) fn ask(&mut self, asked: Asked) -> Result<Arc<Shared>> {
        let schemas = || A::CHANNELS.iter().map(|schema| (schema.table, *schema));
        let views = self.views.get_or_insert_with(|| Box::new(Views::new(gathered(schemas()))));
        views.ask(asked, &self.tables)
    }

    /// Nothing changes any more: whoever listens to a result hears so.
    pub(crate) fn end(&mut self) {
        if let Some(views) = &mut self.views {
            views.end();
        }
    }

    /// Who waits for results that have changed since the last call.
    pub(crate) fn take_wakers(&mut self) -> Wakers {
        self.views.as_mut().map(|views| views.take_wakers()).unwrap_or_default()
    }

    fn row(&self, channel: &str, key: &Key) -> Option<&Row> {
        self.tables.get(channel)?.row(key)
    }

    /// The channels to follow, for `hello`.
    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        let subscription = |table: &Table| Subscription {
            channel: table.schema.table.to_owned(),
            since: table.version,
            view: table.view.clone().filter(|_| table.version.is_some()),
            schema: table.schema.hash(),
            record: table.schema.version,
            columns: table.schema.signature(),
        };
        self.tables.values().map(subscription).collect()
    }

    /// The room's epoch, from `welcome`. Rows of another one are of no use any more, whether or
    /// not the `reset` that follows arrives.
    pub(crate) fn set_epoch(&mut self, epoch: &str) {
        self.given = false;
        if std::mem::take(&mut self.held) && self.epoch.as_deref() == Some(epoch) {
            self.writes.extend(self.tables.values().filter_map(|table| table.whole(Some(epoch))));
        }
        if self.epoch.as_deref() != Some(epoch) {
            if self.epoch.is_some() {
                self.reset();
            }
            self.epoch = Some(epoch.to_owned());
        }
        self.forget_other_epochs(epoch);
    }

    /// Who the client is to the room.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Who the client was when it was connected last, from the store.
    pub(crate) fn load_identity(&mut self, identity: Option<Identity>) -> Changes {
        if self.identity == identity {
            return Changes::new();
        }
        self.identity = identity;
        self.replay()
    }

    /// Somebody else is behind the client than was thought: what is pending may look different.
    pub(crate) fn set_identity(&mut self, identity: Option<Identity>) -> Changes {
        if self.identity != identity {
            self.writes.push(Write::Identity(identity.clone()));
        }
        self.load_identity(identity)
    }

    /// Confirmed rows are of no use any more: they stay in view until the snapshot is complete.
    pub(crate) fn reset(&mut self) {
        for table in self.tables.values_mut() {
            table.version = None;
            self.writes.push(Write::Stale(table.schema.table));
        }
        self.interrupt();
    }

    /// Forgets all rows and all actions.
    pub(crate) fn clear(&mut self) -> Changes {
        let mut changes = Changes::new();
        for (channel, table) in &mut self.tables {
            if !table.confirmed.is_empty() || !table.overlay.is_empty() {
                changes.insert(*channel, Changed::All);
            }
            table.put_all(BTreeMap::new());
            table.overlay.clear();
            (table.version, table.view, table.complete) = (None, None, false);
        }
        self.interrupt();
        self.identity = None;
        self.index = Index::default();
        self.queues.retain_mut(|queue| {
            queue.pending.clear();
            queue.whose == Whose::Own
        });
        self.writes.clear();
        self.reset_views(&changes);
        changes
    }

    /// The connection was lost: what is not complete begins anew.
    pub(crate) fn interrupt(&mut self) {
        self.partial.clear();
        self.pages = 0;
        for table in self.tables.values_mut() {
            table.staged = Staged::default();
        }
    }

    /// What has to be stored since the last call.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// All that a store has to hold: for one that has lost count.
    pub(crate) fn write_all(&mut self) {
        self.writes.clear();
        for table in self.tables.values() {
            self.writes.extend(table.whole(self.epoch.as_deref()));
        }
        // What was adopted is in the store, with what was answered meanwhile, and nothing else
        // that this client knows better.
        let adopted = self.queues.iter().filter(|queue| queue.whose == Whose::Adopted);
        let adopted = adopted.map(|queue| (&queue.client, queue.answered));
        let emptied = self.emptied.iter().map(|(client, answered)| (client, *answered));
        for (client, to) in adopted.chain(emptied) {
            self.writes.push(Write::Answered { client: client.clone(), from: 0, to });
        }
        for queue in self.queues.iter().filter(|queue| queue.whose != Whose::Other) {
            if queue.whose == Whose::Own {
                self.writes.push(Write::Outbox(queue.saved()));
                continue;
            }
            // A store that was emptied has not even these.
            let client = || queue.client.clone();
            let acts = queue.pending.iter().map(|pending| (pending.seq, pending.saved()));
            self.writes.extend(acts.map(|(seq, action)| Write::Act {
                client: client(),
                seq,
                action,
            }));
            let (seq, at) = queue.pushed();
            if seq > 0 {
                self.writes.push(Write::Pushed { client: client(), seq, at });
            }
        }
    }
}

impl Rows for BTreeMap<&'static str, Table> {
    fn row(&self, table: &str, key: &Key) -> Option<&Row> {
        self.get(table)?.row(key)
    }

    fn each(&self, table: &str, f: &mut dyn FnMut(&Row)) {
        let Some(table) = self.get(table) else { return };
        table.each_with(table.written(), &mut |_, row| f(row));
    }
}

impl Table {
    /// All confirmed rows, to be stored.
    fn whole(&self, epoch: Option<&str>) -> Option<Write> {
        let (schema, to, epoch) = (self.schema, self.version?, epoch?.to_owned());
        let row = |(key, row): (&Key, &Row)| RowsWrite::row(schema, key, Some(row));
        let rows = self.confirmed.iter().map(row).collect();
        let (channel, schema, view) = (schema.table, schema.hash(), self.view.clone());
        Some(Write::Rows(RowsWrite { channel, schema, epoch, view, from: None, to, rows }))
    }

    /// Looks whether a confirmed row can be read.
    fn judge(&mut self, key: &Key, row: Option<&Row>) {
        match row.and_then(|row| self.schema.check_row(row).err()) {
            Some(error) => drop(self.unreadable.insert(key.clone(), error)),
            None if self.unreadable.is_empty() => {}
            None => drop(self.unreadable.remove(key)),
        }
    }

    /// Puts these rows in place of all that are confirmed.
    fn put_all(&mut self, rows: BTreeMap<Key, Row>) {
        let schema = self.schema;
        let judged = rows
            .iter()
            .filter_map(|(key, row)| schema.check_row(row).err().map(|error| (key.clone(), error)));
        self.unreadable = gathered(judged);
        self.confirmed = rows;
    }

    /// A row as it is shown.
    fn row(&self, key: &Key) -> Option<&Row> {
        let written = self.overlay.get(key).and_then(Layers::top);
        written.unwrap_or_else(|| self.confirmed.get(key))
    }

    /// A row as the actions before this one have left it.
    fn row_below(&self, key: &Key, order: Order) -> Option<&Row> {
        let written = self.overlay.get(key).and_then(|layers| layers.below(order));
        written.unwrap_or_else(|| self.confirmed.get(key))
    }

    /// What pending actions have written.
    fn written(&self) -> BTreeMap<&Key, Option<&Row>> {
        gathered(self.overlay.iter().filter_map(|(key, layers)| Some((key, layers.top()?))))
    }

    /// What the actions before this one have written.
    fn written_below(&self, order: Order) -> BTreeMap<&Key, Option<&Row>> {
        let overlay = self.overlay.iter();
        gathered(overlay.filter_map(|(key, layers)| Some((key, layers.below(order)?))))
    }

    /// All rows by key, with these in place of those that are confirmed.
    fn each_with<'a>(
        &'a self,
        over: BTreeMap<&'a Key, Option<&'a Row>>,
        f: &mut dyn FnMut(&'a Key, &'a Row),
    ) {
        let mut over = over.into_iter().peekable();
        for (key, row) in &self.confirmed {
            while let Some((key, row)) = over.next_if(|(over, _)| *over < key) {
                row.into_iter().for_each(|row| f(key, row));
            }
            match over.next_if(|(over, _)| *over == key) {
                Some((_, row)) => row.into_iter().for_each(|row| f(key, row)),
                None => f(key, row),
            }
        }
        for (key, row) in over {
            row.into_iter().for_each(|row| f(key, row));
        }
    }
}
