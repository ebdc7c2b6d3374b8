//! Counts what streams cost: statements, rows and chunks for an append and for a read.

use futures::executor::block_on;
use partysync::sql::{Row, Sql, Sqlite, Value};
use partysync::streams::{
    Append, Archive, Create, Offset, Options, Part, Position, Sealed, SqlStore, Store, Streams,
};
use partysync::{Error, Result};
use partysync_tests::bench::Bench;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::rc::Rc;

#[derive(Default)]
struct Counts {
    reads: Cell<u64>,
    rows_read: Cell<u64>,
    writes: Cell<u64>,
    rows_written: Cell<u64>,
    puts: Cell<u64>,
    gets: Cell<u64>,
    bytes: Cell<u64>,
}

fn more(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get() + by);
}

impl Counts {
    fn take(&self) -> String {
        let of = |cell: &Cell<u64>| cell.replace(0);
        let (reads, rows, writes, written) =
            (of(&self.reads), of(&self.rows_read), of(&self.writes), of(&self.rows_written));
        let (puts, gets, bytes) = (of(&self.puts), of(&self.gets), of(&self.bytes));
        format!(
            "{reads} queries ({rows} rows), {writes} statements ({written} rows written), \
             {puts} chunks put, {gets} got ({bytes} bytes)"
        )
    }
}

struct Counted(Sqlite, Rc<Counts>);

impl Sql for Counted {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let read = sql.starts_with("SELECT");
        more(if read { &self.1.reads } else { &self.1.writes }, 1);
        let total = || {
            let mut total = 0;
            self.0.run("SELECT total_changes()", &[], &mut |row| {
                total = row.get::<i64>(0)?;
                Ok(())
            })?;
            Ok::<_, Error>(total)
        };
        let before = total()?;
        self.0.scan(sql, params, &mut |row| {
            more(&self.1.rows_read, u64::from(read));
            each(row)
        })?;
        more(&self.1.rows_written, (total()? - before).unsigned_abs());
        Ok(())
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.0.transaction(body)
    }
}

/// An archive with the chunks of one of the real ones.
struct Shelf {
    chunk_bytes: usize,
    ranges: bool,
    chunks: RefCell<BTreeMap<String, Vec<u8>>>,
    counts: Rc<Counts>,
}

impl Archive for Shelf {
    fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        more(&self.counts.puts, 1);
        self.chunks.borrow_mut().insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, key: &str, from: u64, to: u64) -> Result<Option<Part>> {
        more(&self.counts.gets, 1);
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        let chunks = self.chunks.borrow();
        let Some(chunk) = chunks.get(key) else { return Ok(None) };
        let part = if self.ranges {
            Part::Slice(chunk[range].to_vec())
        } else {
            Part::Whole(chunk.clone())
        };
        let (Part::Whole(bytes) | Part::Slice(bytes)) = &part;
        more(&self.counts.bytes, bytes.len() as u64);
        Ok(Some(part))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.chunks.borrow_mut().remove(key);
        Ok(())
    }
}

fn count<S: Store>(
    name: &str,
    counts: &Counts,
    store: S,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let bench = Bench::default();
    let streams = Streams::new(store, bench.clone(), Options::default());
    let kind = || Some("application/octet-stream".to_owned());
    let create = Create { content_type: kind(), lifetime: None, closed: false, fork: None };
    block_on(streams.create("a", &create, Vec::new()))?;
    let append = |size: usize| {
        let request = Append { content_type: kind(), seq: None, close: false, producer: None };
        streams.append("a", &request, vec![7; size])
    };
    counts.take();
    let say = |what: fmt::Arguments<'_>| println!("{name} | {what} | {}", counts.take());
    append(100)?;
    say(format_args!("append 100 bytes"));
    block_on(streams.read("a", Position::At(Offset::START)))?;
    say(format_args!("read 100 bytes"));
    for _ in 0..160 {
        append(64 * 1024)?;
        bench.run_tasks();
    }
    say(format_args!("160 appends of 64 KiB, with what is put off"));
    append(100)?;
    bench.run_tasks();
    say(format_args!("append 100 bytes behind 10 MiB"));
    let middle = Offset::new(5 * 1024 * 1024);
    block_on(streams.read("a", Position::At(middle)))?;
    say(format_args!("read 1 MiB in the middle of 10 MiB"));
    let end = streams.find("a")?.end;
    block_on(streams.read("a", Position::At(Offset::new(end - 100))))?;
    say(format_args!("read the last 100 bytes"));
    let fork = partysync::streams::Fork {
        from: "/v1/stream/a".into(),
        offset: Some(middle),
        sub_offset: 0,
    };
    block_on(streams.create("b", &Create { fork: Some(fork), ..create.clone() }, Vec::new()))?;
    say(format_args!("fork in the middle of 10 MiB"));
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    println!("store | what | storage operations");
    let counts = Rc::new(Counts::default());
    let disk = || Ok::<_, Error>(Counted(Sqlite::in_memory()?, Rc::clone(&counts)));
    count("sqlite", &counts, SqlStore::new(disk()?)?)?;
    for (name, chunk_bytes, ranges) in
        [("d1", 256 << 10, false), ("kv", 1 << 20, false), ("r2", 4 << 20, true)]
    {
        let shelf =
            Shelf { chunk_bytes, ranges, chunks: RefCell::default(), counts: Rc::clone(&counts) };
        count(name, &counts, Sealed::new(disk()?, shelf, "object")?)?;
    }
    Ok(())
}
