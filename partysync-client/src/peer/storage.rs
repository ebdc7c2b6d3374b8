//! What a peer knows of its store: what is on its way there, what waits for it, and when it is
//! opened again after a failure.

use super::{Note, Now, Output, Peer};
use crate::replica::{Changes, Loading, merge};
use crate::store::{Outbox, Saved, StoreEvent, Write};
use partysync::{Action, Code, Error, Result};
use std::collections::VecDeque;

/// The first wait before a store that failed is opened again, ms; doubles up to the longest.
const REOPEN_MS: u64 = 250;
const REOPEN_MAX_MS: u64 = 30_000;
/// For each entry of a batch a store is given so much longer, ms: slow ones take a fifth of it.
const ENTRY_MS: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// It is being opened, since this moment.
    Opening { since: u64 },
    /// It works.
    Idle,
    /// A batch is on its way, since this moment; a large one is given so much longer, ms.
    Writing { since: u64, longer: u64 },
    /// It failed, and is opened again at this moment.
    Failed { retry_at: u64 },
}

/// Whether what others leave behind is this client's to send.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inherits {
    Yes,
    /// It will not connect: others get what it has, when the store knows what became of it.
    Leaves,
    No,
}

#[derive(Debug)]
pub(super) struct Storage {
    state: State,
    inherits: Inherits,
    /// What goes into the next batch.
    next: Vec<Write>,
    /// How many batches were made, with the next one.
    batch: u64,
    /// How many of them are stored.
    stored: u64,
    attempt: u32,
    /// Whether no other client uses it.
    alone: bool,
    /// Whether it was opened once, or could not be.
    started: bool,
    /// Whether it lost what it was given, and has to be given all.
    lost: bool,
    /// Whether it is being given all.
    rewriting: bool,
    /// It broke when it was writing: it is opened again after that.
    broke: Option<Error>,
    /// What the others are told when this many batches are stored.
    notes: VecDeque<(u64, Note)>,
    /// What it held, on the way into the replica.
    reading: Option<(Saved, Loading)>,
    /// What was told as long as the store was read: it may have read what was there before.
    early: Vec<StoreEvent>,
    warning: Option<Error>,
}

impl Storage {
    pub(super) fn new(now: Now) -> Self {
        Self {
            state: State::Opening { since: now.monotonic },
            inherits: Inherits::Yes,
            next: Vec::new(),
            batch: 1,
            stored: 0,
            attempt: 0,
            alone: false,
            started: false,
            lost: false,
            rewriting: false,
            broke: None,
            notes: VecDeque::new(),
            reading: None,
            early: Vec::new(),
            warning: None,
        }
    }

    pub(super) fn warning(&self) -> Option<&Error> {
        self.warning.as_ref()
    }

    /// The batch that what is written now goes into.
    pub(super) fn mark(&self) -> u64 {
        if self.next.is_empty() { self.batch - 1 } else { self.batch }
    }

    /// Whether there is nothing to wait for: it is stored up to this mark, or cannot be.
    pub(super) fn has(&self, mark: u64) -> bool {
        let works = !self.lost && self.warning.is_none();
        !works || mark <= self.stored
    }

    pub(super) fn timeout(&self, store_ms: u64) -> Option<u64> {
        match self.state {
            // At once: there is more to read.
            _ if self.reading.is_some() => Some(0),
            State::Failed { retry_at } => Some(retry_at),
            State::Opening { since } if !self.started => Some(since.saturating_add(store_ms)),
            State::Writing { since, longer } if self.warning.is_none() => {
                Some(since.saturating_add(store_ms).saturating_add(longer))
            }
            _ => None,
        }
    }

    /// When the client has ended: how long what is on its way is still waited for.
    pub(super) fn last_timeout(&self, store_ms: u64) -> Option<u64> {
        match self.state {
            _ if self.reading.is_some() => Some(0),
            State::Opening { since } => Some(since.saturating_add(store_ms)),
            State::Writing { since, longer } => {
                Some(since.saturating_add(store_ms).saturating_add(longer))
            }
            State::Idle | State::Failed { .. } => None,
        }
    }

    /// Whether nothing is on its way to the store, or can be.
    pub(super) fn is_done(&self) -> bool {
        match self.state {
            State::Writing { .. } => false,
            State::Failed { .. } => true,
            State::Idle | State::Opening { .. } => self.next.is_empty(),
        }
    }

    /// Whether it is open, and what it held is being read.
    pub(super) fn is_read(&self) -> bool {
        self.reading.is_some()
    }

    /// It was opened when the client had ended.
    pub(super) fn opened_late(&mut self, works: bool) {
        // What it lost before is not known any more.
        let works = works && !self.lost && !self.rewriting;
        self.state = if works { State::Idle } else { State::Failed { retry_at: 0 } };
    }

    /// The client has ended: what was kept is not read any more, and what takes so long is not
    /// waited for.
    pub(super) fn time_closed(&mut self, now: Now, store_ms: u64) {
        if self.reading.take().is_some() {
            self.opened_late(true);
        } else if self.last_timeout(store_ms).is_some_and(|due| now.monotonic >= due) {
            self.state = State::Failed { retry_at: 0 };
        }
    }

    /// What is kept was deleted: nothing is to be kept any more.
    fn delete(&mut self) {
        self.next.clear();
        self.notes.clear();
        self.state = State::Failed { retry_at: 0 };
    }

    fn warn(&mut self, error: &Error) {
        let message = format!("what is not saved is lost when this ends: {}", error.message());
        self.warning = Some(Error::new(Code::Store, message));
    }
}

impl<A: Action> Peer<A> {
    /// The store was opened and read, or it was not.
    pub(super) fn store_opened(&mut self, opened: Result<Saved>, now: Now) {
        match opened {
            Ok(mut saved) => {
                let loading = Loading::new(std::mem::take(&mut saved.channels));
                self.storage.reading = Some((saved, loading));
                self.read_on(now);
            }
            Err(error) => {
                self.storage.early.clear();
                self.store_failed(&error, now);
                self.first_opened(now);
            }
        }
    }

    fn first_opened(&mut self, now: Now) {
        if !std::mem::replace(&mut self.storage.started, true) {
            self.start(now);
        }
    }

    /// Reads some more of what the store held, until it is all there.
    pub(super) fn read_on(&mut self, now: Now) {
        let Some((saved, mut loading)) = self.storage.reading.take() else { return };
        // Rows that came in the meantime are newer than those that were stored.
        let first = !self.storage.started;
        let wanted =
            self.replica.epoch().is_none() || (first && self.replica.has_begun_with_rows());
        if wanted && !self.replica.read(&mut loading, self.timing.read_rows.max(1)) {
            self.storage.reading = Some((saved, loading));
            return;
        }
        let Saved { mut outboxes, others, abandoned, alone, identity, .. } = saved;
        self.storage.alone = alone;
        let early = std::mem::take(&mut self.storage.early);
        self.storage.state = State::Idle;
        if !self.storage.lost {
            self.storage.warning = None;
        }
        outboxes.sort_unstable_by_key(|outbox| outbox.began());
        for (id, abandoned) in abandoned {
            if !self.discarded.contains(&id) {
                self.abandoned.entry(id).or_insert(abandoned);
            }
        }
        let mut changes = Changes::new();
        if wanted {
            changes = self.replica.load_identity(identity);
            let (loaded, errors) = self.replica.load(loading);
            errors.into_iter().for_each(|error| self.report(error));
            merge(&mut changes, loaded);
        }
        for outbox in &others {
            merge(&mut changes, self.replica.show_other(outbox));
        }
        self.change(changes);
        for outbox in &outboxes {
            self.adopt(outbox);
        }
        for event in early {
            match event {
                StoreEvent::Note(note) => self.hear(note),
                StoreEvent::Orphan(outbox) => self.adopt(&outbox),
                StoreEvent::Broke(_) | StoreEvent::Deleted => {}
            }
        }
        self.write_all_if_lost();
        if !outboxes.is_empty() {
            self.push(now);
        }
        if let Some(error) = self.storage.broke.take() {
            self.store_failed(&error, now);
        }
        self.first_opened(now);
    }

    /// A batch was stored, or was not.
    pub(super) fn stored(&mut self, result: Result<()>, now: Now) {
        if !matches!(self.storage.state, State::Writing { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                self.storage.state = State::Idle;
                self.storage.stored = self.storage.batch - 1;
                self.storage.rewriting = false;
                self.storage.attempt = 0;
                if self.storage.warning.take().is_some() {
                    // What they were told meanwhile was not in the store, and who opened it since
                    // has read what was there before.
                    self.tell_settled(self.replica.settled(|_| true));
                }
                match self.storage.broke.take() {
                    Some(error) => self.store_failed(&error, now),
                    None => self.write_all_if_lost(),
                }
            }
            Err(error) => self.store_failed(&error, now),
        }
    }

    /// It holds less than it was given: it is given all.
    fn write_all_if_lost(&mut self) {
        if !std::mem::take(&mut self.storage.lost) || partysync::__mutated("reopen") {
            return;
        }
        self.storage.rewriting = true;
        self.replica.write_all();
        let abandoned = self.abandoned.iter();
        let abandoned =
            abandoned.map(|(id, a)| Write::Abandon { id: id.clone(), abandoned: a.clone() });
        let discarded = self.discarded.iter().cloned().map(Write::Discard);
        let identity = Write::Identity(self.replica.identity().cloned());
        self.storage.next = abandoned.chain(discarded).chain([identity]).collect();
        self.tell_settled(self.replica.settled(|_| true));
    }

    /// It does not work: what is pending ends with the page or program until it is opened again.
    /// What it was taken for stays taken.
    fn store_failed(&mut self, error: &Error, now: Now) {
        self.storage.warn(error);
        (self.storage.lost, self.storage.rewriting) = (true, false);
        self.storage.broke = None;
        self.storage.next.clear();
        let wait = (REOPEN_MS << self.storage.attempt.min(16)).min(REOPEN_MAX_MS);
        let wait = if self.storage.attempt == 0 { 0 } else { wait };
        self.storage.attempt += 1;
        self.storage.state = State::Failed { retry_at: now.monotonic + wait };
    }

    /// The store tells.
    pub(super) fn store_event(&mut self, event: StoreEvent, now: Now) {
        // What is being read may be older than this.
        if matches!(self.storage.state, State::Opening { .. }) {
            self.storage.early.push(event.clone());
            let told = matches!(event, StoreEvent::Note(_) | StoreEvent::Orphan(_));
            if told && !self.storage.started {
                // It goes over what is read.
                return;
            }
        }
        match event {
            StoreEvent::Orphan(outbox) => {
                self.adopt(&outbox);
                self.push(now);
            }
            StoreEvent::Note(note) => self.hear(note),
            StoreEvent::Broke(error) => match self.storage.state {
                State::Idle => self.store_failed(&error, now),
                State::Writing { .. } => self.storage.broke = Some(error),
                State::Opening { .. } if self.storage.is_read() => {
                    self.storage.broke = Some(error);
                }
                State::Opening { .. } | State::Failed { .. } => {}
            },
            StoreEvent::Deleted => {
                self.close();
                self.replica.take_writes();
                self.storage.delete();
                self.clear();
            }
        }
    }

    /// Takes over what a client that is gone left behind.
    fn adopt(&mut self, outbox: &Outbox) {
        let (changes, errors) = self.replica.adopt(outbox);
        if self.storage.inherits == Inherits::No {
            // It came when it was not wanted any more: another one may have it by now.
            self.change(changes);
            return self.let_go();
        }
        errors.into_iter().for_each(|error| self.report(error));
        self.change(changes);
        for (client, before, last) in self.replica.settled(|client| **client == *outbox.client) {
            self.outputs.push_back(Output::Tell(Note::Settled { client, before, last }));
        }
    }

    /// Another client of the same place tells.
    fn hear(&mut self, note: Note) {
        match note {
            Note::Acted { client, seq, action } => {
                let changes = self.replica.other_acted(&client, seq, &action);
                self.change(changes);
            }
            Note::Answered { client, seqs, held_by } => {
                let changes = self.replica.other_answered(&client, &seqs, held_by.as_ref());
                self.change(changes);
            }
            Note::Settled { .. } if partysync::__mutated("settled") => {}
            Note::Settled { client, before, last } => {
                let changes = self.replica.other_settled(&client, before, last);
                self.change(changes);
            }
            Note::Abandoned { added, removed } => {
                self.abandoned.extend(added);
                removed.iter().for_each(|id| drop(self.abandoned.remove(id)));
            }
        }
    }

    /// Tells the others, when it is stored, before which seq clients' actions have their answers.
    pub(super) fn tell_settled(&mut self, settled: Vec<(String, u64, Option<u64>)>) {
        for (client, before, last) in settled {
            self.tell_others(Note::Settled { client, before, last });
        }
    }

    /// Tells the others when all that was written so far is stored.
    pub(super) fn tell_others(&mut self, note: Note) {
        self.take_writes();
        self.storage.notes.push_back((self.storage.mark(), note));
    }

    /// It will not connect: others are to send what was left behind.
    pub(super) fn stand_back(&mut self) {
        if !self.storage.alone {
            self.storage.inherits = Inherits::Leaves;
        }
    }

    /// What was taken over is for others to send.
    fn let_go(&mut self) {
        let changes = self.replica.hand_back();
        self.change(changes);
        self.outputs.push_back(Output::TakeOver(false));
    }

    /// It will connect again.
    pub(super) fn step_forward(&mut self) {
        if std::mem::replace(&mut self.storage.inherits, Inherits::Yes) == Inherits::No {
            self.outputs.push_back(Output::TakeOver(true));
        }
    }

    /// Time has passed.
    pub(super) fn storage_time(&mut self, now: Now) {
        if self.storage.is_read() {
            return self.read_on(now);
        }
        let due = self.storage.timeout(self.timing.store_ms);
        if due.is_none_or(|due| now.monotonic < due) {
            return;
        }
        match self.storage.state {
            State::Failed { .. } => {
                self.storage.state = State::Opening { since: now.monotonic };
                let client = self.replica.client().to_owned();
                self.outputs.push_back(Output::OpenStore(client));
            }
            State::Opening { .. } => {
                // It goes on without; what it holds is shown when it is open.
                self.storage.warn(&Error::new(Code::Store, "the store takes long to open"));
                (self.storage.started, self.storage.lost) = (true, true);
                self.storage.next.clear();
                self.start(now);
            }
            State::Writing { .. } => {
                self.storage.warn(&Error::new(Code::Store, "the store takes long"));
            }
            State::Idle => {}
        }
    }

    pub(super) fn take_writes(&mut self) {
        let writes = self.replica.take_writes();
        self.write(writes);
    }

    pub(super) fn write(&mut self, writes: impl IntoIterator<Item = Write>) {
        let hangs =
            matches!(self.storage.state, State::Writing { .. }) && self.storage.warning.is_some();
        if hangs {
            // It is given all when it works again.
            if writes.into_iter().next().is_some() {
                self.storage.lost = true;
                self.storage.next.clear();
            }
        } else if !matches!(self.storage.state, State::Failed { .. }) && !self.storage_reopens() {
            self.storage.next.extend(writes);
        }
    }

    /// Whether it is being opened anew: what it is to hold is taken when it is open.
    fn storage_reopens(&self) -> bool {
        self.storage.started && matches!(self.storage.state, State::Opening { .. })
    }

    /// Sends the next batch on its way, and what waited for the last one.
    pub(super) fn storage_goes_on(&mut self, now: Now) {
        let done = self.replica.take_found_done();
        if !done.is_empty() {
            self.tell_settled(self.replica.settled(|client| done.contains(client)));
        }
        self.take_writes();
        if self.storage.state == State::Idle && !self.storage.next.is_empty() {
            let batch = std::mem::take(&mut self.storage.next);
            self.storage.batch += 1;
            let longer = batch.iter().map(Write::entries).sum::<u64>() * ENTRY_MS;
            self.storage.state = State::Writing { since: now.monotonic, longer };
            self.outputs.push_back(Output::Store(batch));
        }
        while let Some((mark, _)) = self.storage.notes.front() {
            if !self.storage.has(*mark) {
                break;
            }
            if let Some((_, note)) = self.storage.notes.pop_front() {
                self.outputs.push_back(Output::Tell(note));
            }
        }
        let knows =
            self.storage.state == State::Idle && self.storage.next.is_empty() && !self.storage.lost;
        if knows && self.storage.inherits == Inherits::Leaves {
            self.storage.inherits = Inherits::No;
            self.let_go();
        }
    }
}
