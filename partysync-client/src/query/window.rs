//! [`Window`]: the rows of a result in their order, in chunks: a row is found, put in and taken out
//! at a cost that hardly grows with their number, and so is its place among them.

use super::sort::SortKey;
use crate::replica::Row;
use std::mem::size_of;

/// About 8 KiB are moved at most when a row is put in.
const CHUNK: usize = 8 * 1024 / size_of::<Entry>();

/// A row of a result.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sort: SortKey,
    pub(super) row: Row,
    /// What comes with it, while it is shown.
    pub(super) related: Vec<Part>,
    /// The batch of changes in which that was looked up.
    pub(super) batch: u64,
}

/// What comes with a row.
#[derive(Debug)]
pub(super) enum Part {
    Rows(Window),
    Count(u64),
}

/// Rows in order. All that a query finds up to `bound` are here, and none behind it.
#[derive(Debug, Default)]
pub(super) struct Window {
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// `None`: all that there are.
    pub(super) bound: Option<SortKey>,
}

/// Where an entry is: its chunk, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize, usize);

impl Window {
    /// Of rows in order.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let len = entries.len();
        let mut entries = entries.into_iter().peekable();
        let mut chunks = Vec::new();
        while entries.peek().is_some() {
            chunks.push(entries.by_ref().take(CHUNK * 3 / 4).collect());
        }
        Self { chunks, len, bound: None }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.chunks.iter_mut().flatten()
    }

    /// All entries, with their places.
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, &Entry)> {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(chunk, entries)| {
            entries.iter().enumerate().map(move |(at, entry)| (Place(chunk, at), entry))
        })
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        self.chunks.last()?.last()
    }

    /// Where the entry of this place in the order is, or would be.
    pub(super) fn find(&self, sort: &[u8]) -> Result<Place, Place> {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|first| *first.sort <= *sort));
        let place = after.saturating_sub(1);
        let Some(chunk) = self.chunks.get(place) else { return Err(Place(0, 0)) };
        match chunk.binary_search_by(|entry| (*entry.sort).cmp(sort)) {
            Ok(at) => Ok(Place(place, at)),
            Err(at) => Err(Place(place, at)),
        }
    }

    /// How many entries are before a place.
    pub(super) fn index(&self, Place(chunk, at): Place) -> usize {
        self.chunks.iter().take(chunk).map(Vec::len).sum::<usize>() + at
    }

    /// The place of the entry with so many before it.
    pub(super) fn place(&self, mut index: usize) -> Option<Place> {
        for (n, chunk) in self.chunks.iter().enumerate() {
            if index < chunk.len() {
                return Some(Place(n, index));
            }
            index -= chunk.len();
        }
        None
    }

    pub(super) fn get(&self, Place(chunk, at): Place) -> Option<&Entry> {
        self.chunks.get(chunk)?.get(at)
    }

    pub(super) fn get_mut(&mut self, Place(chunk, at): Place) -> Option<&mut Entry> {
        self.chunks.get_mut(chunk)?.get_mut(at)
    }

    /// Puts an entry in where [`find`](Self::find) says that it would be.
    pub(super) fn insert(&mut self, Place(chunk, at): Place, entry: Entry) {
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let Some(there) = self.chunks.get_mut(chunk) else { return };
        there.insert(at.min(there.len()), entry);
        self.len += 1;
        if there.len() > CHUNK {
            let rest = there.split_off(CHUNK / 2);
            self.chunks.insert(chunk + 1, rest);
        }
    }

    pub(super) fn remove(&mut self, Place(chunk, at): Place) -> Option<Entry> {
        let there = self.chunks.get_mut(chunk).filter(|there| at < there.len())?;
        let entry = there.remove(at);
        self.len -= 1;
        if there.is_empty() {
            self.chunks.remove(chunk);
        }
        Some(entry)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let chunk = self.chunks.len().checked_sub(1)?;
        let at = self.chunks.last()?.len().checked_sub(1)?;
        self.remove(Place(chunk, at))
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let chunk = self.chunks.len().saturating_sub(1);
        let at = self.chunks.last().map_or(0, Vec::len);
        self.insert(Place(chunk, at), entry);
    }
}
