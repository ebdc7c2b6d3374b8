//! [`Replica`]: confirmed rows, the pending actions over them, and the view that is both. No IO.
//!
//! The view is the confirmed rows with an overlay: the rows that pending actions touch. A patch
//! changes confirmed rows, drops the answered actions and replays the rest into a new overlay,
//! in one step: an optimistic row goes in the same step in which its confirmed row comes. The
//! cost is that of the rows touched, not of the table.

mod frames;
mod guests;
mod scratch;

use crate::store::{Outbox, Saved, SavedAction, Write};
use partysync::sql::Value;
use partysync::wire::v2::{CatchUp, Change, Push, Subscription};
use partysync::{Action, Code, Error, Key, Record, Result, Schema, Timestamp};
use scratch::Scratch;
use serde_json::Value as Json;
use serde_json::value::to_raw_value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

type Row = Vec<Value>;

/// The keys whose row, or whose being pending, changed; by channel.
pub type Changes = BTreeMap<&'static str, BTreeSet<Key>>;

/// A client's copy of a room. `A` is the server's action type.
///
/// ```
/// # use partysync::{Action, Record, Timestamp};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String, text: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
/// use partysync_client::Replica;
///
/// let mut replica = Replica::<NoteAction>::new("client-1");
/// let action = NoteAction::Create { id: "a".into(), text: "hi".into() };
/// let (seq, changes) = replica.act(action, Timestamp::from_millis(0))?;
/// assert_eq!(seq, 1);
/// assert!(changes["notes"].contains(&"a".into()));
/// assert!(replica.is_pending("notes", &"a".into()));
/// assert_eq!(replica.rows::<Note>()?[0].text, "hi");
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Debug)]
pub struct Replica<A> {
    client: String,
    epoch: Option<String>,
    tables: BTreeMap<&'static str, Table>,
    pending: VecDeque<Pending<A>>,
    /// What clients that are gone left behind, until another connection has brought it home.
    guests: Vec<guests::Guest<A>>,
    next_seq: u64,
    /// The highest seq that was ever pushed under this id.
    pushed: u64,
    /// Rows of a patch that goes on in the next frame.
    partial: Vec<Change>,
    /// Frames of the patch that has begun.
    pages: u64,
    writes: Vec<Write>,
}

#[derive(Debug)]
struct Table {
    schema: &'static Schema,
    /// The version that the confirmed rows are of.
    version: Option<u64>,
    confirmed: BTreeMap<Key, Row>,
    /// Rows that pending actions touched; `None` for one that they deleted.
    overlay: BTreeMap<Key, Option<Row>>,
    /// Pages of a catch-up that is not complete.
    staged: Vec<CatchUp>,
}

#[derive(Debug)]
struct Pending<A> {
    seq: u64,
    channel: String,
    /// As it was made, and as it is pushed.
    json: Json,
    /// `None` when this version of the application cannot read it; the server may.
    action: Option<A>,
    made_at: Timestamp,
    /// What is held against it for pushes without an answer.
    blame: u32,
}

/// How much is held against an action before it is given up: three attempts that reached the
/// server and got no answer, or twelve connections that broke while it was on its way.
const GIVE_UP: u32 = 12;

impl<A: Action> Pending<A> {
    /// A pending action that was stored, with what is wrong with it.
    fn load(seq: u64, saved: &SavedAction) -> (Self, Option<Error>) {
        let (action, error) = match A::from_json(&saved.channel, &saved.action.to_string()) {
            Ok(action) => (Some(action), None),
            Err(error) => (None, Some(error.context(format_args!("pending action {seq}")))),
        };
        let (channel, json) = (saved.channel.clone(), saved.action.clone());
        let (made_at, blame) = (saved.made_at, saved.blame);
        (Self { seq, channel, json, action, made_at, blame }, error)
    }
}

impl<A: Action> Replica<A> {
    /// An empty replica. `client` is its id: one for each store, random, at most 64 characters.
    pub fn new(client: impl Into<String>) -> Self {
        let table = |schema: &&'static Schema| {
            let table = Table {
                schema,
                version: None,
                confirmed: BTreeMap::new(),
                overlay: BTreeMap::new(),
                staged: Vec::new(),
            };
            (schema.table, table)
        };
        Self {
            client: client.into(),
            epoch: None,
            tables: A::CHANNELS.iter().map(table).collect(),
            pending: VecDeque::new(),
            guests: Vec::new(),
            next_seq: 1,
            pushed: 0,
            partial: Vec::new(),
            pages: 0,
            writes: Vec::new(),
        }
    }

    /// The replica that was stored; `client` is its id if no outbox was. What cannot be used is
    /// given back as errors: rows that cannot be read are fetched anew, pending actions that
    /// cannot be read are still pushed, and for the server to judge.
    #[must_use]
    pub fn load(saved: &Saved, client: impl Into<String>) -> (Self, Vec<Error>) {
        let mut replica = Self::new(client);
        let mut errors = Vec::new();
        if let Some(outbox) = &saved.outbox {
            replica.take_outbox(outbox, &mut errors);
        }
        for table in replica.tables.values_mut() {
            let Some(stored) = saved.channels.get(table.schema.table) else { continue };
            if stored.schema != table.schema.hash() {
                continue;
            }
            match table.read(stored.rows.values()) {
                Ok(rows) => table.confirmed = rows,
                Err(error) => {
                    errors.push(error.context(format_args!("stored `{}`", table.schema.table)));
                    continue;
                }
            }
            // Rows of another epoch are shown until those of the room's are here.
            let epoch = replica.epoch.get_or_insert_with(|| stored.epoch.clone());
            table.version = stored.version.filter(|_| *epoch == stored.epoch);
        }
        replica.replay();
        (replica, errors)
    }

    /// A replica without rows, that is there to push what another client left behind.
    pub(crate) fn courier(outbox: &Outbox) -> Self {
        let mut replica = Self::new(String::new());
        replica.tables.clear();
        // Whoever adopts its actions reports what is wrong with them.
        replica.take_outbox(outbox, &mut Vec::new());
        replica
    }

    fn take_outbox(&mut self, outbox: &Outbox, errors: &mut Vec<Error>) {
        self.client.clone_from(&outbox.client);
        self.epoch.clone_from(&outbox.epoch);
        self.pushed = outbox.pushed;
        for (seq, saved) in &outbox.pending {
            let (pending, error) = Pending::load(*seq, saved);
            self.pending.push_back(pending);
            errors.extend(error);
        }
        let last = self.pending.back().map_or(0, |last| last.seq);
        self.next_seq = outbox.next_seq.max(last.saturating_add(1));
    }

    /// The replica's id.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
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

    /// How many actions have no answer yet; with those that other clients left behind.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len() + self.guests.iter().map(|guest| guest.pending.len()).sum::<usize>()
    }

    /// The highest seq below which every action has its answer.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.pending.front().map_or(self.next_seq, |pending| pending.seq).saturating_sub(1)
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
        self.row(R::SCHEMA.table, key).cloned().map(R::from_row).transpose()
    }

    /// All rows as they are shown, by key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a row does not fit the type.
    pub fn rows<R: Record>(&self) -> Result<Vec<R>> {
        let channel = R::SCHEMA.table;
        let keys = self.keys(channel);
        keys.iter().filter_map(|key| self.row(channel, key)).cloned().map(R::from_row).collect()
    }

    /// The keys of all rows as they are shown, in order.
    #[must_use]
    pub fn keys(&self, channel: &str) -> Vec<Key> {
        let Some(table) = self.tables.get(channel) else { return Vec::new() };
        table.keys(std::iter::empty())
    }

    /// The keys of all rows that there are or that are deleted optimistically.
    pub(crate) fn touched_keys(&self, channel: &str) -> BTreeSet<Key> {
        let tables = self.tables.get(channel).into_iter();
        tables.flat_map(|t| t.confirmed.keys().chain(t.overlay.keys())).cloned().collect()
    }

    fn row(&self, channel: &str, key: &Key) -> Option<&Row> {
        self.tables.get(channel)?.row(key)
    }

    /// Makes an action: shown at once, to be pushed. Returns its seq.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the action has no JSON form: nothing happens.
    pub fn act(&mut self, action: A, now: Timestamp) -> Result<(u64, Changes)> {
        let (seq, channel, json) = (self.next_seq, action.channel().to_owned(), action.to_json()?);
        self.next_seq += 1;
        if !partysync::__mutated("outbox") {
            let (channel, action) = (channel.clone(), json.clone());
            self.writes.push(Write::Act { seq, channel, action, made_at: now });
        }
        let action = Some(action);
        let pending = Pending { seq, channel, json, action, made_at: now, blame: 0 };
        let before = self.snapshot_of(&BTreeSet::new());
        self.show(&pending);
        self.pending.push_back(pending);
        Ok((seq, self.changes_since(before)))
    }

    /// Runs a pending action on the view. One that fails has no effect: the server decides.
    fn show(&mut self, pending: &Pending<A>) {
        let Some(action) = &pending.action else { return };
        let mut scratch = Scratch::new(&self.tables, pending.made_at);
        if action.reduce(&mut scratch).is_ok() {
            for ((channel, key), row) in scratch.into_rows() {
                if let Some(table) = self.tables.get_mut(channel) {
                    table.overlay.insert(key, row);
                }
            }
        }
    }

    fn replay(&mut self) {
        for table in self.tables.values_mut() {
            table.overlay.clear();
        }
        // What others left behind is older than what is made here.
        let guests = std::mem::take(&mut self.guests);
        guests.iter().flat_map(|guest| &guest.pending).for_each(|action| self.show(action));
        self.guests = guests;
        let pending = std::mem::take(&mut self.pending);
        pending.iter().for_each(|action| self.show(action));
        self.pending = pending;
    }

    /// The channels to follow, for `hello`.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let subscription = |table: &Table| Subscription {
            channel: table.schema.table.to_owned(),
            since: table.version,
            schema: table.schema.hash(),
            columns: table.schema.signature(),
        };
        self.tables.values().map(subscription).collect()
    }

    /// The highest seq that was ever pushed under this id.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The pending actions after `seq`, to be pushed: at most `count`, and about `bytes` at most.
    ///
    /// One that had no answer before goes alone, so that it takes no other with it; after the
    /// third attempt it goes as `null`, which gives it up unless it was done after all.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when an action has no JSON form.
    pub fn to_push(&mut self, seq: u64, count: usize, bytes: usize) -> Result<Vec<Push>> {
        let mut size = 0;
        let mut actions: Vec<Push> = Vec::new();
        for pending in self.pending.iter().filter(|p| p.seq > seq).take(count) {
            let json = if pending.blame < GIVE_UP { &pending.json } else { &Json::Null };
            let action =
                to_raw_value(json).map_err(|e| Error::new(Code::InvalidValue, e.to_string()))?;
            size += action.get().len();
            if !actions.is_empty() && (size > bytes || pending.blame > 0) {
                break;
            }
            actions.push(Push { seq: pending.seq, channel: pending.channel.clone(), action });
            if pending.blame > 0 {
                break;
            }
        }
        if let Some(last) = actions.last()
            && last.seq > self.pushed
        {
            self.pushed = last.seq;
            self.writes.push(Write::Pushed(last.seq));
        }
        Ok(actions)
    }

    /// The connection was lost with actions up to `pushed` on their way: the first of them may be
    /// what the server cannot bear.
    pub(crate) fn unanswered(&mut self, pushed: u64, blame: u32) {
        if let Some(first) = self.pending.front_mut().filter(|first| first.seq <= pushed)
            && blame > 0
        {
            first.blame = first.blame.saturating_add(blame);
            self.writes.push(Write::Blame(first.seq, first.blame));
        }
    }

    /// The server has forgotten this replica. It goes on under another id; actions that were
    /// pushed may have been done or not, and are given up: their seqs come back.
    pub(crate) fn forgotten(&mut self, client: String) -> (Vec<u64>, Changes) {
        let before = self.snapshot_of(&BTreeSet::new());
        let pushed = self.pushed;
        let lost: Vec<_> =
            self.pending.iter().map(|p| p.seq).filter(|seq| *seq <= pushed).collect();
        self.pending.retain(|pending| pending.seq > pushed);
        self.pushed = 0;
        self.writes.extend(lost.iter().map(|seq| Write::Answered(*seq)));
        self.writes.push(Write::Client(client.clone()));
        self.client = client;
        self.replay();
        (lost, self.changes_since(before))
    }

    /// The room's epoch, from `welcome`. Rows of another one are of no use any more, whether or
    /// not the `reset` that follows arrives.
    pub(crate) fn set_epoch(&mut self, epoch: &str) {
        if self.epoch.as_deref() != Some(epoch) {
            if self.epoch.is_some() {
                self.reset();
            }
            self.epoch = Some(epoch.to_owned());
            self.writes.push(Write::Epoch(epoch.to_owned()));
        }
        self.guests.iter_mut().for_each(|guest| guest.forget_other_epochs(epoch));
    }

    /// Confirmed rows are of no use any more: they stay in view until the snapshot is complete.
    pub(crate) fn reset(&mut self) {
        for table in self.tables.values_mut() {
            table.version = None;
            self.writes.push(Write::Stale(table.schema.table));
        }
        self.interrupt();
    }

    /// The connection was lost: what is not complete begins anew.
    pub(crate) fn interrupt(&mut self) {
        self.partial.clear();
        self.pages = 0;
        for table in self.tables.values_mut() {
            table.staged.clear();
        }
    }

    /// How these keys, and all in the overlay, are shown now.
    fn snapshot_of(&self, touched: &BTreeSet<(&'static str, Key)>) -> Shown {
        let overlay = self.overlay_keys();
        let keys = touched.iter().cloned().chain(overlay);
        keys.map(|(channel, key)| {
            let shown = (self.row(channel, &key).cloned(), self.is_pending(channel, &key));
            ((channel, key), shown)
        })
        .collect()
    }

    fn overlay_keys(&self) -> impl Iterator<Item = (&'static str, Key)> + '_ {
        self.tables.iter().flat_map(|(channel, table)| {
            table.overlay.keys().map(move |key| (*channel, key.clone()))
        })
    }

    fn changes_since(&self, mut before: Shown) -> Changes {
        // A key that was in no overlay and that no frame touched was shown as it is confirmed.
        for (channel, key) in self.overlay_keys() {
            before.entry((channel, key.clone())).or_insert_with(|| {
                let confirmed = self.tables.get(channel).and_then(|t| t.confirmed.get(&key));
                (confirmed.cloned(), false)
            });
        }
        let mut changes = Changes::new();
        for ((channel, key), (row, pending)) in before {
            let same = self.row(channel, &key) == row.as_ref()
                && self.is_pending(channel, &key) == pending;
            if !same {
                changes.entry(channel).or_default().insert(key);
            }
        }
        changes
    }

    /// What has to be stored since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }
}

type Shown = BTreeMap<(&'static str, Key), (Option<Row>, bool)>;

impl Table {
    /// Rows as they were stored.
    fn read<'a>(&self, rows: impl Iterator<Item = &'a Json>) -> Result<BTreeMap<Key, Row>> {
        rows.map(|row| {
            let row = self.schema.row_from_json(row)?;
            Ok((self.schema.key_of(&row)?, row))
        })
        .collect()
    }

    /// A row as it is shown.
    fn row(&self, key: &Key) -> Option<&Row> {
        match self.overlay.get(key) {
            Some(row) => row.as_ref(),
            None => self.confirmed.get(key),
        }
    }

    /// The keys of the rows as they are shown, with these changes over them; in order.
    fn keys<'a>(&'a self, over: impl Iterator<Item = (&'a Key, &'a Option<Row>)>) -> Vec<Key> {
        let mut over = self.overlay.iter().chain(over).peekable();
        if over.peek().is_none() {
            return self.confirmed.keys().cloned().collect();
        }
        let mut keys: BTreeSet<&Key> = self.confirmed.keys().collect();
        for (key, row) in over {
            if row.is_some() {
                keys.insert(key)
            } else {
                keys.remove(key)
            };
        }
        keys.into_iter().cloned().collect()
    }
}
