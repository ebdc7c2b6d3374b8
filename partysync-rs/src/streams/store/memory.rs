//! [`MemoryStore`]: streams that end with the process, for tests and for what need not last.

use super::{Change, Piece, Producer, Store, Stream, StreamId};
use crate::{Code, Error, Result, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Streams in memory.
///
/// ```
/// use partysync::streams::{MemoryStore, Store};
/// assert!(MemoryStore::new().at("a")?.is_none());
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    ids: Cell<u64>,
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    paths: BTreeMap<String, StreamId>,
    streams: BTreeMap<StreamId, Held>,
    /// Those that expire, the first one first.
    expiring: BTreeSet<(Timestamp, StreamId)>,
    notes: BTreeMap<String, String>,
    staged: BTreeMap<u64, Vec<u8>>,
}

#[derive(Debug)]
struct Held {
    stream: Stream,
    /// Each append by its end.
    appends: BTreeMap<u64, Vec<u8>>,
    producers: BTreeMap<String, Producer>,
}

impl MemoryStore {
    /// A store without streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn gone(id: StreamId) -> Error {
    Error::new(Code::NotFound, format!("there is no stream {}", id.0))
}

fn unknown_piece() -> Error {
    Error::new(Code::NotFound, "a piece of the body was not put aside")
}

impl Kept {
    fn held(&mut self, id: StreamId) -> Result<&mut Held> {
        self.streams.get_mut(&id).ok_or_else(|| gone(id))
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Create(stream) => {
                self.paths.insert(stream.path.clone(), stream.id);
                let stream = Stream { end: stream.start(), ..stream };
                let held = Held { stream, appends: BTreeMap::new(), producers: BTreeMap::new() };
                let (id, expires_at) = (held.stream.id, held.stream.expires_at);
                self.streams.insert(id, held);
                self.expire_at(id, None, expires_at);
            }
            Change::Update(stream) => {
                let (id, expires_at) = (stream.id, stream.expires_at);
                let held = self.held(id)?;
                let before = held.stream.expires_at;
                held.stream = Stream { end: held.stream.end, ..stream };
                self.expire_at(id, before, expires_at);
            }
            Change::Touch { id, expires_at } => {
                let before = self.held(id)?.stream.expires_at.replace(expires_at);
                self.expire_at(id, before, Some(expires_at));
            }
            Change::Append { id, at, bytes } => {
                let held = self.held(id)?;
                held.stream.end = at + bytes.len() as u64;
                held.appends.insert(held.stream.end, bytes);
            }
            Change::AppendStaged { id, at, pieces } => {
                let mut end = at;
                for piece in pieces {
                    let bytes = self.staged.remove(&piece.number).ok_or_else(unknown_piece)?;
                    end += bytes.len() as u64;
                    self.held(id)?.appends.insert(end, bytes);
                }
                self.held(id)?.stream.end = end;
            }
            Change::Producer { id, name, state } => {
                self.held(id)?.producers.insert(name, state);
            }
            Change::Remove(id) => {
                if let Some(held) = self.streams.remove(&id) {
                    self.paths.remove(&held.stream.path);
                    self.expire_at(id, held.stream.expires_at, None);
                }
            }
            Change::Note { key, text: Some(text) } => {
                self.notes.insert(key, text);
            }
            Change::Note { key, text: None } => {
                self.notes.remove(&key);
            }
        }
        Ok(())
    }

    fn expire_at(&mut self, id: StreamId, before: Option<Timestamp>, now: Option<Timestamp>) {
        if let Some(before) = before {
            self.expiring.remove(&(before, id));
        }
        self.expiring.extend(now.map(|now| (now, id)));
    }

    /// Whether a list of changes can be applied whole.
    fn check(&self, changes: &[Change]) -> Result<()> {
        let created =
            |id: &StreamId| changes.iter().any(|c| matches!(c, Change::Create(s) if s.id == *id));
        for change in changes {
            match change {
                Change::Update(Stream { id, .. })
                | Change::Append { id, .. }
                | Change::AppendStaged { id, .. }
                | Change::Producer { id, .. }
                    if !self.streams.contains_key(id) && !created(id) =>
                {
                    return Err(gone(*id));
                }
                Change::AppendStaged { pieces, .. }
                    if pieces.iter().any(|piece| !self.staged.contains_key(&piece.number)) =>
                {
                    return Err(unknown_piece());
                }
                Change::Create(stream) if self.paths.contains_key(&stream.path) => {
                    let removed = |c: &Change| matches!(c, Change::Remove(id) if self.paths.get(&stream.path) == Some(id));
                    if !changes.iter().any(removed) {
                        return Err(Error::new(Code::KeyExists, "there is a stream at this path"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn next_id(&self) -> Result<StreamId> {
        self.ids.set(self.ids.get() + 1);
        Ok(StreamId(self.ids.get()))
    }

    fn at(&self, path: &str) -> Result<Option<Stream>> {
        let kept = self.kept.borrow();
        let held = kept.paths.get(path).and_then(|id| kept.streams.get(id));
        Ok(held.map(|held| held.stream.clone()))
    }

    fn stream(&self, id: StreamId) -> Result<Option<Stream>> {
        Ok(self.kept.borrow().streams.get(&id).map(|held| held.stream.clone()))
    }

    fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Stream>> {
        let kept = self.kept.borrow();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = kept.paths.range::<str, _>((from, Bound::Unbounded)).take(limit);
        Ok(ids.filter_map(|(_, id)| kept.streams.get(id)).map(|held| held.stream.clone()).collect())
    }

    fn expiring(&self, limit: usize) -> Result<Vec<Stream>> {
        let kept = self.kept.borrow();
        let first = kept.expiring.iter().filter_map(|(_, id)| kept.streams.get(id));
        Ok(first.take(limit).map(|held| held.stream.clone()).collect())
    }

    fn producer(&self, id: StreamId, name: &str) -> Result<Option<Producer>> {
        let kept = self.kept.borrow();
        Ok(kept.streams.get(&id).and_then(|held| held.producers.get(name)).copied())
    }

    fn note(&self, key: &str) -> Result<Option<String>> {
        Ok(self.kept.borrow().notes.get(key).cloned())
    }

    fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let kept = self.kept.borrow();
        let from = kept.notes.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let those = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(those.map(|(key, text)| (key.clone(), text.clone())).collect())
    }

    fn stage(&self, bytes: Vec<u8>) -> Result<u64> {
        let StreamId(number) = self.next_id()?;
        self.kept.borrow_mut().staged.insert(number, bytes);
        Ok(number)
    }

    fn unstage(&self, pieces: &[Piece]) -> Result<()> {
        let mut kept = self.kept.borrow_mut();
        pieces.iter().for_each(|piece| drop(kept.staged.remove(&piece.number)));
        Ok(())
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let mut kept = self.kept.borrow_mut();
        kept.check(&changes)?;
        changes.into_iter().try_for_each(|change| kept.apply(change))
    }

    async fn read(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<u8>> {
        let kept = self.kept.borrow();
        let held = kept.streams.get(&id).ok_or_else(|| gone(id))?;
        let mut bytes = Vec::new();
        for (end, append) in held.appends.range(from + 1..) {
            if !super::sql::slice(&mut bytes, append, *end, from, to) {
                break;
            }
        }
        Ok(bytes)
    }
}
