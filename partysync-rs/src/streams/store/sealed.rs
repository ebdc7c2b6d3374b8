//! [`Sealed`]: a stream's latest bytes in the object's SQLite, the rest in immutable chunks
//! elsewhere (D1, KV, R2).
//!
//! Once the rows of a stream are more than a chunk, [`settle`](Store::settle) writes the oldest
//! of them as a chunk, and then, in one transaction, notes the chunk and deletes the rows. The
//! chunk's bounds are noted before it is written: after a crash at any point the same chunk is
//! written again. A chunk's key holds the bounds, so that a key never has two contents - which is
//! what makes a store such as KV, where an old value may be seen for a minute, usable at all.

use super::sql::{ROW_BYTES, integer, slice, unsigned};
use super::{Change, Piece, Producer, SqlStore, Store, Stream, StreamId};
use crate::sql::{Sql, Value};
use crate::{Code, Error, Result, params};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A place for chunks. What is put under a key is never changed.
#[allow(async_fn_in_trait)] // See `Store`.
pub trait Archive: 'static {
    /// Bytes are sealed when there are this many. A chunk may have 256 KiB more, or fewer when it
    /// is made of thousands of small appends.
    fn chunk_bytes(&self) -> usize;

    /// Keeps a chunk. The same chunk may be put again, after a crash.
    ///
    /// # Errors
    /// What the archive says.
    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// The bytes of a chunk from `from` to `to`, or the whole chunk where a part costs as much;
    /// `None` while the archive does not have it (yet).
    ///
    /// # Errors
    /// What the archive says.
    async fn get(&self, key: &str, from: u64, to: u64) -> Result<Option<Part>>;

    /// Deletes a chunk; one that is not there is no error.
    ///
    /// # Errors
    /// What the archive says.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// What [`Archive::get`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole chunk.
    Whole(Vec<u8>),
    /// What was asked for.
    Slice(Vec<u8>),
}

const TABLES: [&str; 3] = [
    // Streams with more rows than a chunk holds; `end` is where the chunk under way ends.
    "CREATE TABLE IF NOT EXISTS _ds_seals (stream INTEGER PRIMARY KEY, \"end\" INTEGER)",
    // Chunks that nobody needs any more.
    "CREATE TABLE IF NOT EXISTS _ds_garbage (key TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _ds_archive (one INTEGER PRIMARY KEY, prefix TEXT NOT NULL)",
];

/// A store whose older bytes lie in an [`Archive`].
#[derive(Debug)]
pub struct Sealed<D, A> {
    index: SqlStore<D>,
    archive: A,
    prefix: String,
    /// How many bytes each stream has in rows, as far as it was looked up.
    in_rows: RefCell<BTreeMap<StreamId, u64>>,
}

impl<D: Sql + 'static, A: Archive> Sealed<D, A> {
    /// Streams in this database and this archive. `unique` goes into the keys of a new database,
    /// so that many objects can share an archive: the object's id and something random.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new(database: D, archive: A, unique: &str) -> Result<Self> {
        let index = SqlStore::new(database)?;
        let sql = index.sql();
        sql.transaction(&mut || {
            TABLES.iter().try_for_each(|table| sql.run(table, &[], &mut |_| Ok(())))
        })?;
        let insert = "INSERT INTO _ds_archive VALUES (1, ?) ON CONFLICT (one) DO NOTHING";
        sql.run(insert, &params![unique.to_owned()], &mut |_| Ok(()))?;
        let prefix = sql.query_one("SELECT prefix FROM _ds_archive", [], |row| row.get(0))?;
        Ok(Self { index, archive, prefix, in_rows: RefCell::default() })
    }

    fn sql(&self) -> &dyn Sql {
        self.index.sql()
    }

    fn write(&self, sql: &str, params: impl AsRef<[Value]>) -> Result<()> {
        self.sql().run(sql, params.as_ref(), &mut |_| Ok(()))
    }

    fn key(&self, id: StreamId, start: u64, end: u64) -> String {
        format!("{}/{}/{start:016}-{end:016}", self.prefix, id.0)
    }

    fn in_rows(&self, id: StreamId) -> Result<u64> {
        if let Some(known) = self.in_rows.borrow().get(&id) {
            return Ok(*known);
        }
        let sql = "SELECT coalesce(sum(length(bytes)), 0) FROM _ds_rows WHERE stream = ?";
        self.sql().query_one(sql, [integer(id.0)], |row| unsigned(row, 0))
    }

    fn chunks(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        let sql = "SELECT start, \"end\" FROM _ds_chunks WHERE stream = ? AND \"end\" > ? \
                   AND \"end\" <= coalesce((SELECT min(\"end\") FROM _ds_chunks WHERE stream = ?1 \
                   AND \"end\" >= ?3), ?3) ORDER BY \"end\"";
        let params = params![integer(id.0), integer(from), integer(to)];
        self.sql().query_map(sql, params, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))
    }

    /// What is beside the index's own work in a change.
    fn apply(&self, change: &Change) -> Result<()> {
        match change {
            Change::Append { id, bytes, .. } => self.grow(*id, bytes.len() as u64)?,
            Change::AppendStaged { id, pieces, .. } => {
                self.grow(*id, pieces.iter().map(|piece| piece.bytes).sum())?;
            }
            Change::Remove(id) => {
                self.in_rows.borrow_mut().remove(id);
                for (start, end) in self.chunks(*id, 0, u64::MAX)? {
                    self.discard(&self.key(*id, start, end))?;
                }
                // One under way may have been put already.
                let noted =
                    "SELECT \"end\" FROM _ds_seals WHERE stream = ? AND \"end\" IS NOT NULL";
                let noted = self.sql().query_opt(noted, [integer(id.0)], |row| unsigned(row, 0))?;
                if let Some(end) = noted {
                    self.discard(&self.key(*id, self.rows_start(*id)?, end))?;
                }
                self.write("DELETE FROM _ds_seals WHERE stream = ?", [integer(id.0)])?;
            }
            _ => {}
        }
        self.index.apply(change)
    }

    /// A stream has more in rows: it may be enough for a chunk.
    fn grow(&self, id: StreamId, bytes: u64) -> Result<()> {
        let now = self.in_rows(id)? + bytes;
        self.in_rows.borrow_mut().insert(id, now);
        if now < self.archive.chunk_bytes() as u64 {
            return Ok(());
        }
        self.write("INSERT OR IGNORE INTO _ds_seals VALUES (?, NULL)", [integer(id.0)])
    }

    fn discard(&self, key: &str) -> Result<()> {
        self.write("INSERT OR IGNORE INTO _ds_garbage VALUES (?)", params![key.to_owned()])
    }

    /// Where the chunk under way ends: noted before it is written.
    fn chunk_end(&self, id: StreamId, noted: Option<u64>) -> Result<Option<u64>> {
        if noted.is_some() {
            return Ok(noted);
        }
        let rows =
            "SELECT \"end\", length(bytes) FROM _ds_rows WHERE stream = ? ORDER BY \"end\" LIMIT ?";
        let most = self.archive.chunk_bytes();
        let (mut size, mut end) = (0, None);
        // Rows may be small: no more than some thousands are looked at for one chunk.
        let page = most / ROW_BYTES + 4096;
        self.sql().run(rows, &params![integer(id.0), integer(page as u64)], &mut |row| {
            if size < most as u64 {
                size += unsigned(row, 1)?;
                end = Some(unsigned(row, 0)?);
            }
            Ok(())
        })?;
        if let Some(end) = end {
            let sql = "UPDATE _ds_seals SET \"end\" = ? WHERE stream = ?";
            self.write(sql, params![integer(end), integer(id.0)])?;
        }
        Ok(end)
    }

    /// Where the stream's rows begin.
    fn rows_start(&self, id: StreamId) -> Result<u64> {
        let first = "SELECT \"end\" - length(bytes) FROM _ds_rows WHERE stream = ? ORDER BY \"end\" LIMIT 1";
        self.sql().query_one(first, [integer(id.0)], |row| unsigned(row, 0))
    }

    async fn seal(&self, id: StreamId, noted: Option<u64>) -> Result<()> {
        let Some(end) = self.chunk_end(id, noted)? else {
            return self.write("DELETE FROM _ds_seals WHERE stream = ?", [integer(id.0)]);
        };
        let start = self.rows_start(id)?;
        let bytes = self.index.rows(id, start, end)?;
        let key = self.key(id, start, end);
        self.archive.put(&key, &bytes).await?;
        // Rows go only when the archive has shown that it gives the chunk back.
        let back = match self.archive.get(&key, 0, bytes.len() as u64).await? {
            Some(Part::Whole(back) | Part::Slice(back)) => back,
            None => return Err(Error::new(Code::Store, "the archive does not have the chunk yet")),
        };
        if back != bytes {
            return Err(Error::new(Code::Store, "the archive gives back another chunk"));
        }
        self.sql().transaction(&mut || {
            let noted = "SELECT \"end\" FROM _ds_seals WHERE stream = ? AND \"end\" = ?";
            let here = params![integer(id.0), integer(end)];
            if self.sql().query_opt(noted, &here, |row| unsigned(row, 0))?.is_none() {
                // The stream was removed meanwhile.
                return self.discard(&key);
            }
            let chunk = params![integer(id.0), integer(end), integer(start)];
            self.write("INSERT OR REPLACE INTO _ds_chunks VALUES (?, ?, ?)", chunk)?;
            self.write("DELETE FROM _ds_rows WHERE stream = ? AND \"end\" <= ?", &here)?;
            self.in_rows.borrow_mut().remove(&id);
            let left = self.in_rows(id)?;
            if left >= self.archive.chunk_bytes() as u64 {
                self.write("UPDATE _ds_seals SET \"end\" = NULL WHERE stream = ?", [integer(id.0)])
            } else {
                self.write("DELETE FROM _ds_seals WHERE stream = ?", [integer(id.0)])
            }
        })
    }
}

impl<D: Sql + 'static, A: Archive> Store for Sealed<D, A> {
    fn next_id(&self) -> Result<StreamId> {
        self.index.next_id()
    }

    fn at(&self, path: &str) -> Result<Option<Stream>> {
        self.index.at(path)
    }

    fn stream(&self, id: StreamId) -> Result<Option<Stream>> {
        self.index.stream(id)
    }

    fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Stream>> {
        self.index.list(after, limit)
    }

    fn expiring(&self, limit: usize) -> Result<Vec<Stream>> {
        self.index.expiring(limit)
    }

    fn producer(&self, id: StreamId, name: &str) -> Result<Option<Producer>> {
        self.index.producer(id, name)
    }

    fn note(&self, key: &str) -> Result<Option<String>> {
        self.index.note(key)
    }

    fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        self.index.notes(prefix)
    }

    fn stage(&self, bytes: Vec<u8>) -> Result<u64> {
        self.index.stage(bytes)
    }

    fn unstage(&self, pieces: &[Piece]) -> Result<()> {
        self.index.unstage(pieces)
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let committed = self
            .sql()
            .transaction(&mut || changes.iter().try_for_each(|change| self.apply(change)));
        if committed.is_err() {
            // Sizes were counted that are not there: they are looked up again.
            self.in_rows.borrow_mut().clear();
        }
        committed
    }

    async fn read(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<u8>> {
        // What is in rows is read now: a chunk may be made of it while others are awaited.
        let chunks = self.chunks(id, from, to)?;
        let rows = self.index.rows(id, from, to)?;
        let mut bytes = Vec::new();
        for (start, end) in chunks {
            let (first, last) = (from.max(start) - start, to.min(end) - start);
            match self.archive.get(&self.key(id, start, end), first, last).await? {
                Some(Part::Whole(chunk)) => {
                    slice(&mut bytes, &chunk, end, from, to);
                }
                Some(Part::Slice(part)) => bytes.extend(part),
                None => return Err(Error::new(Code::Store, "a chunk is not to be had now")),
            }
        }
        bytes.extend(rows);
        Ok(bytes)
    }

    fn unsettled(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM _ds_seals) OR EXISTS (SELECT 1 FROM _ds_garbage)";
        self.sql().query_one(sql, [], |row| row.get(0))
    }

    async fn settle(&self) -> Result<()> {
        let seal = "SELECT stream, coalesce(\"end\", 0) FROM _ds_seals LIMIT 1";
        let due = self.sql().query_opt(seal, [], |row| {
            Ok((StreamId(unsigned(row, 0)?), Some(unsigned(row, 1)?).filter(|end| *end > 0)))
        })?;
        if let Some((id, noted)) = due {
            return self.seal(id, noted).await;
        }
        let garbage = "SELECT key FROM _ds_garbage LIMIT 1";
        if let Some(key) = self.sql().query_opt(garbage, [], |row| row.get::<String>(0))? {
            self.archive.delete(&key).await?;
            self.write("DELETE FROM _ds_garbage WHERE key = ?", params![key])?;
        }
        Ok(())
    }
}
