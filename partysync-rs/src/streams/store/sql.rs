//! [`SqlStore`]: streams in a SQLite database, which in a Durable Object is its own.
//!
//! An append is a row, keyed by the stream and where the row ends: the stream's end is its last
//! key, so that an append writes one row and nothing else.

use super::{Change, Piece, Producer, Store, Stream, StreamId};
use crate::sql::{Row, Sql, Value};
use crate::{Code, Error, Result, params};

/// Rows hold no more than this, far below what SQLite takes in a Durable Object (2 MB).
pub(super) const ROW_BYTES: usize = 256 * 1024;

const TABLES: [&str; 9] = [
    "CREATE TABLE IF NOT EXISTS _ds_streams (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, \
     expires_at INTEGER, known TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS _ds_expiring ON _ds_streams (expires_at) \
     WHERE expires_at IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS _ds_rows (stream INTEGER NOT NULL, \"end\" INTEGER NOT NULL, \
     bytes BLOB NOT NULL, PRIMARY KEY (stream, \"end\")) WITHOUT ROWID",
    // Where bytes lie that are no longer in `_ds_rows`, see `sealed.rs`.
    "CREATE TABLE IF NOT EXISTS _ds_chunks (stream INTEGER NOT NULL, \"end\" INTEGER NOT NULL, \
     start INTEGER NOT NULL, PRIMARY KEY (stream, \"end\")) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _ds_producers (stream INTEGER NOT NULL, name TEXT NOT NULL, \
     epoch INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (stream, name)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _ds_notes (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    // Bodies that are still arriving: none is when the store is opened.
    "CREATE TABLE IF NOT EXISTS _ds_staged (piece INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
    "DELETE FROM _ds_staged",
    "CREATE TABLE IF NOT EXISTS _ds_ids (one INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
];

/// Streams in a SQLite database. Its tables begin with `_ds_`, and others may live beside them.
///
/// ```
/// # fn main() -> partysync::Result<()> {
/// # #[cfg(feature = "sqlite")] {
/// use partysync::{sql::Sqlite, streams::{SqlStore, Store}};
///
/// let store = SqlStore::new(Sqlite::in_memory()?)?;
/// assert!(store.at("a")?.is_none());
/// # } Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqlStore<D> {
    database: D,
}

/// Puts onto `bytes` what of a row that ends at `end` lies between `from` and `to`; `false` when
/// nothing of the rows behind it does.
pub(super) fn slice(bytes: &mut Vec<u8>, row: &[u8], end: u64, from: u64, to: u64) -> bool {
    let start = end - row.len() as u64;
    let cut = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or(usize::MAX);
    bytes.extend_from_slice(row.get(cut(from)..cut(to)).unwrap_or_default());
    end < to
}

pub(super) fn integer(n: u64) -> Value {
    // Positions and numbers are far below: offsets have 16 digits.
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

pub(super) fn unsigned(row: &Row<'_>, index: usize) -> Result<u64> {
    Ok(row.get::<i64>(index)?.unsigned_abs())
}

// An end is brought within what JavaScript holds exactly: an object reads numbers through it.
const STREAM: &str = "SELECT s.known, \
     max(min(s.expires_at, 9007199254740991), -9007199254740991), s.id, coalesce(\
     (SELECT max(\"end\") FROM _ds_rows WHERE stream = s.id), \
     (SELECT max(\"end\") FROM _ds_chunks WHERE stream = s.id), -1) FROM _ds_streams s";

fn stream(row: &Row<'_>) -> Result<Stream> {
    let known: String = row.get(0)?;
    let unreadable = |e: serde_json::Error| Error::new(Code::Internal, e.to_string());
    let mut stream: Stream = serde_json::from_str(&known).map_err(unreadable)?;
    stream.expires_at = row.get(1)?;
    stream.id = StreamId(unsigned(row, 2)?);
    let end: i64 = row.get(3)?;
    stream.end = u64::try_from(end).unwrap_or_else(|_| stream.start());
    Ok(stream)
}

impl<D: Sql + 'static> SqlStore<D> {
    /// The streams of this database, whose tables are made if they are not there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new(database: D) -> Result<Self> {
        let store = Self { database };
        store.sql().transaction(&mut || {
            TABLES.iter().try_for_each(|table| store.sql().run(table, &[], &mut |_| Ok(())))
        })?;
        Ok(store)
    }

    /// The database.
    pub fn sql(&self) -> &dyn Sql {
        &self.database
    }

    fn write(&self, sql: &str, params: impl AsRef<[Value]>) -> Result<()> {
        self.sql().run(sql, params.as_ref(), &mut |_| Ok(()))
    }

    pub(super) fn apply(&self, change: &Change) -> Result<()> {
        match change {
            Change::Create(stream) => self.write(
                "INSERT INTO _ds_streams (known, expires_at, id, path) VALUES (?, ?, ?, ?)",
                params![
                    known(stream)?,
                    stream.expires_at,
                    integer(stream.id.0),
                    stream.path.clone()
                ],
            ),
            Change::Update(stream) => self.write(
                "UPDATE _ds_streams SET known = ?, expires_at = ? WHERE id = ?",
                params![known(stream)?, stream.expires_at, integer(stream.id.0)],
            ),
            Change::Touch { id, expires_at } => self.write(
                "UPDATE _ds_streams SET expires_at = ? WHERE id = ?",
                params![*expires_at, integer(id.0)],
            ),
            Change::Append { id, at, bytes } => {
                let mut end = *at;
                for part in bytes.chunks(ROW_BYTES) {
                    end += part.len() as u64;
                    self.write(
                        "INSERT INTO _ds_rows (stream, \"end\", bytes) VALUES (?, ?, ?)",
                        params![integer(id.0), integer(end), part.to_vec()],
                    )?;
                }
                Ok(())
            }
            Change::AppendStaged { id, at, pieces } => {
                let mut end = *at;
                for piece in pieces {
                    end += piece.bytes;
                    let number = integer(piece.number);
                    let sql = "INSERT INTO _ds_rows (stream, \"end\", bytes) \
                               SELECT ?, ?, bytes FROM _ds_staged WHERE piece = ? RETURNING 1";
                    let moved = params![integer(id.0), integer(end), number.clone()];
                    self.sql().query_one(sql, moved, |_| Ok(()))?;
                    self.write("DELETE FROM _ds_staged WHERE piece = ?", [number])?;
                }
                Ok(())
            }
            Change::Producer { id, name, state } => self.write(
                "INSERT OR REPLACE INTO _ds_producers VALUES (?, ?, ?, ?)",
                params![integer(id.0), name.clone(), integer(state.epoch), integer(state.seq)],
            ),
            Change::Remove(id) => {
                for table in ["_ds_rows", "_ds_chunks", "_ds_producers"] {
                    self.write(&format!("DELETE FROM {table} WHERE stream = ?"), [integer(id.0)])?;
                }
                self.write("DELETE FROM _ds_streams WHERE id = ?", [integer(id.0)])
            }
            Change::Note { key, text: Some(text) } => self.write(
                "INSERT OR REPLACE INTO _ds_notes VALUES (?, ?)",
                params![key.clone(), text.clone()],
            ),
            Change::Note { key, text: None } => {
                self.write("DELETE FROM _ds_notes WHERE key = ?", params![key.clone()])
            }
        }
    }

    /// The bytes between `from` and `to` that are in rows.
    pub(super) fn rows(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // The last row is the first that ends at `to` or behind: no more than the slice is read.
        let sql = "SELECT \"end\", bytes FROM _ds_rows WHERE stream = ?1 AND \"end\" > ?2 AND \"end\" <= \
                   coalesce((SELECT min(\"end\") FROM _ds_rows WHERE stream = ?1 AND \"end\" >= ?3), ?3) \
                   ORDER BY \"end\"";
        self.sql().run(sql, &params![integer(id.0), integer(from), integer(to)], &mut |row| {
            let (end, part) = (unsigned(row, 0)?, row.get::<Vec<u8>>(1)?);
            slice(&mut bytes, &part, end, from, to);
            Ok(())
        })?;
        Ok(bytes)
    }
}

/// The first text behind all that begin with `prefix`, if there is one.
fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

fn known(stream: &Stream) -> Result<String> {
    serde_json::to_string(stream).map_err(|e| Error::new(Code::Internal, e.to_string()))
}

impl<D: Sql + 'static> Store for SqlStore<D> {
    fn next_id(&self) -> Result<StreamId> {
        // Kept apart from the streams: the number of one that was removed must not come again.
        let sql = "INSERT INTO _ds_ids VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET last = last + 1 \
                   RETURNING last";
        self.sql().query_one(sql, [], |row| unsigned(row, 0)).map(StreamId)
    }

    fn at(&self, path: &str) -> Result<Option<Stream>> {
        self.sql().query_opt(
            &format!("{STREAM} WHERE s.path = ?"),
            params![path.to_owned()],
            stream,
        )
    }

    fn stream(&self, id: StreamId) -> Result<Option<Stream>> {
        self.sql().query_opt(&format!("{STREAM} WHERE s.id = ?"), [integer(id.0)], stream)
    }

    fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Stream>> {
        let sql = format!("{STREAM} WHERE s.path > ? ORDER BY s.path LIMIT ?");
        let params = params![after.unwrap_or_default().to_owned(), integer(limit as u64)];
        self.sql().query_map(&sql, params, stream)
    }

    fn expiring(&self, limit: usize) -> Result<Vec<Stream>> {
        let sql = format!(
            "{STREAM} WHERE s.expires_at IS NOT NULL ORDER BY s.expires_at LIMIT ? OFFSET ?"
        );
        let (mut found, mut passed) = (Vec::new(), 0);
        // One that cannot be read is passed over: it must not keep the others from ending.
        while found.len() < limit {
            let wanted = limit - found.len();
            let page = params![integer(wanted as u64), integer(passed)];
            let rows = self.sql().query_map(&sql, page, |row| Ok(stream(row).ok()))?;
            passed += rows.len() as u64;
            let last = rows.len() < wanted;
            found.extend(rows.into_iter().flatten());
            if last {
                break;
            }
        }
        Ok(found)
    }

    fn producer(&self, id: StreamId, name: &str) -> Result<Option<Producer>> {
        let sql = "SELECT epoch, seq FROM _ds_producers WHERE stream = ? AND name = ?";
        self.sql().query_opt(sql, params![integer(id.0), name.to_owned()], |row| {
            Ok(Producer { epoch: unsigned(row, 0)?, seq: unsigned(row, 1)? })
        })
    }

    fn note(&self, key: &str) -> Result<Option<String>> {
        let sql = "SELECT text FROM _ds_notes WHERE key = ?";
        self.sql().query_opt(sql, params![key.to_owned()], |row| row.get(0))
    }

    fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT key, text FROM _ds_notes WHERE key >= ? AND key < ? ORDER BY key";
        // Every text comes before every blob.
        let behind = behind(prefix).map_or(Value::Blob(Vec::new()), Value::Text);
        let range = [Value::Text(prefix.to_owned()), behind];
        self.sql().query_map(sql, range, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn stage(&self, bytes: Vec<u8>) -> Result<u64> {
        let sql = "INSERT INTO _ds_staged (bytes) VALUES (?) RETURNING piece";
        self.sql().query_one(sql, params![bytes], |row| unsigned(row, 0))
    }

    fn unstage(&self, pieces: &[Piece]) -> Result<()> {
        pieces.iter().try_for_each(|piece| {
            self.write("DELETE FROM _ds_staged WHERE piece = ?", [integer(piece.number)])
        })
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.sql().transaction(&mut || changes.iter().try_for_each(|change| self.apply(change)))
    }

    async fn read(&self, id: StreamId, from: u64, to: u64) -> Result<Vec<u8>> {
        self.rows(id, from, to)
    }
}
