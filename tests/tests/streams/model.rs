//! Any interleaving of creations, appends, forks, closings, deletions, expiry, sealing and crashes
//! leaves every stream as a simple model has it, on every store.

use super::support::follow;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::executor::block_on;
use futures::stream::{StreamExt, TryStreamExt};
use partysync::sql::{Sql, Sqlite};
use partysync::streams::{
    Append, Archive, Body, Create, Fork, Kind, Lifetime, MemoryStore, Offset, Options, Part,
    Refusal, Sealed, SqlStore, Store, Streams, full,
};
use partysync::{Code, Error, Result};
use partysync_tests::bench::Bench;
use partysync_tests::watched::Watched;
use proptest::prelude::*;
use serde_json::value::RawValue;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What is left of the writes until the power goes.
#[derive(Clone)]
struct Power(Rc<Cell<u32>>);

impl Power {
    /// One write: done, or cut off before or after it happened.
    fn write<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        if left == 0 {
            return Err(Error::new(Code::Closed, "the power is gone"));
        }
        body()
    }

    fn is_gone(&self) -> bool {
        self.0.get() == 0
    }
}

/// A database that outlives the server, and fails when the power goes.
fn disk(sqlite: &Rc<Sqlite>, power: Power) -> Watched {
    Watched::new(sqlite, move |sql, _| match sql.starts_with("SELECT") {
        true => Ok(()),
        false => power.write(|| Ok(())),
    })
}

/// Each chunk by its key, and whether it was looked for.
type Chunks = Rc<RefCell<BTreeMap<String, (Vec<u8>, bool)>>>;

/// Chunks that outlive the server; some are to be seen only at a second look.
#[derive(Clone)]
struct Shelf {
    chunks: Chunks,
    power: Power,
    late: bool,
}

impl Archive for Shelf {
    fn chunk_bytes(&self) -> usize {
        24
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let put = || {
            let mut chunks = self.chunks.borrow_mut();
            let (kept, _) = chunks.entry(key.to_owned()).or_insert((bytes.to_vec(), false));
            // A key has one content, for ever.
            assert!(kept == bytes, "{key} was changed");
            Ok(())
        };
        self.power.write(put)?;
        // It is there, and nobody hears of it.
        self.power.write(|| Ok(()))
    }

    async fn get(&self, key: &str, from: u64, to: u64) -> Result<Option<Part>> {
        let mut chunks = self.chunks.borrow_mut();
        let Some((bytes, seen)) = chunks.get_mut(key) else { return Ok(None) };
        if self.late && !std::mem::replace(seen, true) {
            return Ok(None);
        }
        let slice = bytes[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].to_vec();
        Ok(Some(if from.is_multiple_of(2) {
            Part::Whole(bytes.clone())
        } else {
            Part::Slice(slice)
        }))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let delete = || {
            self.chunks.borrow_mut().remove(key);
            Ok(())
        };
        self.power.write(delete)?;
        self.power.write(|| Ok(()))
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create { at: usize, kind: Kind, ttl: Option<u64>, body: u8 },
    Append { at: usize, size: u8, producer: bool, repeat: bool },
    Close { at: usize },
    Fork { from: usize, to: usize, part: u8, sub: u8 },
    Delete { at: usize },
    Wait { seconds: u8 },
    Alarm,
    Tasks,
    Crash,
}

const PATHS: [&str; 5] = ["a", "b/c", "b/d", "e", "f"];

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..PATHS.len();
    prop_oneof![
        3 => (at(), kind(), prop::option::of(1u64..6), any::<u8>())
            .prop_map(|(at, kind, ttl, body)| Op::Create { at, kind, ttl, body }),
        8 => (at(), any::<u8>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(at, size, producer, repeat)| Op::Append { at, size, producer, repeat }),
        1 => at().prop_map(|at| Op::Close { at }),
        4 => (at(), at(), any::<u8>(), 0u8..3)
            .prop_map(|(from, to, part, sub)| Op::Fork { from, to, part, sub }),
        2 => at().prop_map(|at| Op::Delete { at }),
        2 => (1u8..4).prop_map(|seconds| Op::Wait { seconds }),
        1 => Just(Op::Alarm),
        4 => Just(Op::Tasks),
        1 => Just(Op::Crash),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![2 => Just(Kind::Json), 1 => Just(Kind::Text), 1 => Just(Kind::Binary)]
}

const fn content_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Json => "application/json",
        Kind::Text => "text/plain",
        Kind::Binary => "application/octet-stream",
    }
}

/// A stream as the protocol's words describe it: its messages, or its bytes one by one.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    kind: Kind,
    /// Each with the offset behind it.
    parts: Vec<(Vec<u8>, u64)>,
    ttl: Option<u64>,
    expires: Option<i64>,
    closed: bool,
    gone: bool,
    source: Option<u64>,
    number: u64,
    producer: Option<u64>,
}

impl Model {
    fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.1)
    }

    fn push(&mut self, part: &[u8]) {
        if self.kind == Kind::Json {
            self.parts.push((part.to_vec(), self.end() + part.len() as u64 + 1));
        } else {
            for byte in part {
                self.parts.push((vec![*byte], self.end() + 1));
            }
        }
    }

    fn content(&self) -> Vec<u8> {
        let parts = || self.parts.iter().map(|part| part.0.as_slice());
        if self.kind == Kind::Json {
            let mut text = b"[".to_vec();
            text.extend(parts().collect::<Vec<_>>().join(&b','));
            text.push(b']');
            text
        } else {
            parts().collect::<Vec<_>>().concat()
        }
    }

    /// What live readers see: text as far as its last character is whole, and all of it when it
    /// is closed.
    fn live(&self) -> Vec<u8> {
        let content = self.content();
        if self.kind != Kind::Text {
            return content;
        }
        let (mut text, mut chunks) = (String::new(), content.utf8_chunks().peekable());
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let broken = std::str::from_utf8(chunk.invalid()).err();
            let unfinished = broken.is_some_and(|error| error.error_len().is_none());
            let waits = !self.closed && unfinished && chunks.peek().is_none();
            if broken.is_some() && !waits {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text.into_bytes()
    }

    fn touch(&mut self, now: i64) {
        if let Some(ttl) = self.ttl {
            self.expires = Some(now + i64::try_from(ttl).unwrap() * 1000);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    streams: BTreeMap<&'static str, Model>,
    numbers: u64,
    now: i64,
}

/// What a request is answered: as much of it as the model knows.
type Told = std::result::Result<u64, u16>;

impl World {
    /// Ends a stream that was deleted or whose time is over, and what only it needed.
    fn end(&mut self, path: &'static str) {
        let Some(model) = self.streams.get_mut(path) else { return };
        let number = model.number;
        model.gone = true;
        model.expires = None;
        self.collect(number);
    }

    fn collect(&mut self, number: u64) {
        if self.streams.values().any(|other| other.source == Some(number)) {
            return;
        }
        let found = self.streams.iter().find(|(_, m)| m.number == number && m.gone);
        let Some((path, source)) = found.map(|(path, model)| (*path, model.source)) else { return };
        self.streams.remove(path);
        if let Some(source) = source {
            self.collect(source);
        }
    }

    fn find(&mut self, path: &'static str) -> std::result::Result<&mut Model, u16> {
        let now = self.now;
        if self.streams.get(path).is_some_and(|m| m.expires.is_some_and(|at| at <= now)) {
            self.end(path);
        }
        match self.streams.get_mut(path) {
            None => Err(404),
            Some(model) if model.gone => Err(410),
            Some(model) => Ok(model),
        }
    }

    fn expire(&mut self) {
        for path in PATHS {
            let _ = self.find(path);
        }
    }

    fn create(&mut self, path: &'static str, kind: Kind, ttl: Option<u64>, body: &[u8]) -> Told {
        match self.find(path) {
            Ok(there) => {
                let same = there.kind == kind && there.ttl == ttl && !there.closed;
                return if same { Ok(there.end()) } else { Err(409) };
            }
            Err(410) => return Err(409),
            Err(_) => {}
        }
        self.numbers += 1;
        let mut model = Model {
            kind,
            ttl,
            parts: Vec::new(),
            expires: None,
            closed: false,
            gone: false,
            source: None,
            number: self.numbers,
            producer: None,
        };
        model.touch(self.now);
        if !body.is_empty() {
            model.push(body);
        }
        let end = model.end();
        self.streams.insert(path, model);
        Ok(end)
    }

    fn append(&mut self, path: &'static str, body: &[u8], claim: Option<u64>) -> Told {
        let now = self.now;
        let model = self.find(path)?;
        if model.closed {
            return Err(409);
        }
        if let Some(seq) = claim {
            let next = model.producer.map_or(0, |last| last + 1);
            if seq < next {
                return Ok(model.end());
            }
            if seq > next {
                return Err(409);
            }
            model.producer = Some(seq);
        }
        model.push(body);
        model.touch(now);
        Ok(model.end())
    }

    fn close(&mut self, path: &'static str) -> Told {
        let now = self.now;
        let model = self.find(path)?;
        if !model.closed {
            model.touch(now);
        }
        model.closed = true;
        Ok(model.end())
    }

    fn fork(&mut self, from: &'static str, to: &'static str, anchor: usize, sub: usize) -> Told {
        match self.find(to) {
            // It is never the same fork again: each is asked for with other words.
            Ok(_) | Err(410) => return Err(409),
            Err(_) => {}
        }
        let source = match self.find(from) {
            Err(410) => return Err(409),
            other => other?.clone(),
        };
        let parts = source.parts.get(..anchor + sub).ok_or(400u16)?.to_vec();
        self.numbers += 1;
        let mut model = Model {
            parts,
            closed: false,
            gone: false,
            source: Some(source.number),
            number: self.numbers,
            producer: None,
            ..source
        };
        model.touch(self.now);
        let end = model.end();
        self.streams.insert(to, model);
        Ok(end)
    }

    fn delete(&mut self, path: &'static str) -> Told {
        self.find(path)?;
        self.end(path);
        Ok(0)
    }
}

fn told(refusal: &Refusal) -> Told {
    Err(refusal.status().as_u16())
}

struct Run<S: Store> {
    open: Box<dyn Fn(Power) -> Result<S>>,
    /// How many parts of bodies the disk holds.
    left: Box<dyn Fn() -> i64>,
    bench: Bench,
    power: Power,
    server: Option<Streams<S, Bench>>,
    world: World,
    words: u32,
    /// What comes next in streams of text.
    text: Vec<u8>,
}

/// What is found at a path: everything in it, what live readers are told, and whether it is
/// closed.
type Seen = std::result::Result<(Vec<u8>, Vec<u8>, bool), u16>;

impl<S: Store> Run<S> {
    fn new(open: Box<dyn Fn(Power) -> Result<S>>, left: Box<dyn Fn() -> i64>) -> Self {
        let power = Power(Rc::new(Cell::new(u32::MAX)));
        let bench = Bench::default();
        let (server, world) = (None, World::default());
        let mut run = Self { open, left, bench, power, server, world, words: 0, text: Vec::new() };
        run.start();
        run
    }

    fn start(&mut self) {
        // What ran, and what was held in memory, is gone.
        self.bench.drop_tasks();
        self.server = None;
        let store = (self.open)(self.power.clone()).unwrap();
        // Pages are small, so that reads take several.
        let options = Options { page_bytes: 16, read_bytes: 40, ..Options::default() };
        self.server = Some(Streams::new(store, self.bench.clone(), options));
    }

    fn server(&self) -> &Streams<S, Bench> {
        self.server.as_ref().unwrap()
    }

    /// A body that no other append has.
    fn body(&mut self, kind: Kind, size: u8) -> Vec<u8> {
        self.words += 1;
        let size = usize::from(size % 40);
        if kind == Kind::Text {
            // Appends do not end where characters do.
            while self.text.len() <= size {
                self.text.extend(format!("{}é日😀", self.words).bytes());
                self.words += 1;
            }
            let rest = self.text.split_off(size + 1);
            return std::mem::replace(&mut self.text, rest);
        }
        let text = format!("{}{}", self.words, "x".repeat(size));
        if kind == Kind::Json {
            return format!("{{\"n\":\"{text}\"}}").into_bytes();
        }
        text.into_bytes()
    }

    /// Does an operation here and in the model; returns both answers.
    fn step(&mut self, op: &Op, world: &mut World) -> (Told, Told) {
        let empty = Create { content_type: None, lifetime: None, closed: false, fork: None };
        match *op {
            Op::Create { at, kind, ttl, body } => {
                let body = if body % 2 == 0 { Vec::new() } else { self.body(kind, body) };
                let lifetime = ttl.map(Lifetime::Ttl);
                let content_type = Some(content_type(kind).into());
                let create = Create { content_type, lifetime, ..empty };
                let done = block_on(self.server().create(PATHS[at], &create, body.clone()));
                let here = done.map(|c| c.stream.end).or_else(|e| told(&e));
                (here, world.create(PATHS[at], kind, ttl, &body))
            }
            Op::Append { at, size, producer, repeat } => {
                let model = world.streams.get(PATHS[at]);
                let kind = model.map_or(Kind::Binary, |m| m.kind);
                let next = model.and_then(|m| m.producer).map_or(0, |last| last + 1);
                let claim = producer.then(|| next.saturating_sub(u64::from(repeat)));
                let body = self.body(kind, size);
                let mut request = http::Request::post(format!("https://x/v1/stream/{}", PATHS[at]))
                    .header("content-type", content_type(kind));
                if let Some(seq) = claim {
                    request = request.header("producer-id", "p").header("producer-epoch", 0);
                    request = request.header("producer-seq", seq);
                }
                // It arrives in parts, and is put aside in others.
                let parts: Vec<_> = body.chunks(11).map(|part| Ok(part.to_vec())).collect();
                let request = request.body(futures::stream::iter(parts).boxed_local()).unwrap();
                let answer = block_on(self.server().handle(request));
                let here = match answer.status().as_u16() {
                    200 | 204 => {
                        let end = answer.headers()["stream-next-offset"].to_str().unwrap();
                        Ok(end.parse::<Offset>().unwrap().bytes())
                    }
                    other => Err(other),
                };
                (here, world.append(PATHS[at], &body, claim))
            }
            Op::Close { at } => {
                let request = Append { content_type: None, seq: None, close: true, producer: None };
                let done = self.server().append(PATHS[at], &request, Vec::new());
                (done.map(|a| a.tail.bytes()).or_else(|e| told(&e)), world.close(PATHS[at]))
            }
            Op::Fork { from, to, part, sub } => {
                let parts = world.streams.get(PATHS[from]).map_or(&[][..], |m| &m.parts);
                let anchor = usize::from(part) % (parts.len() + 1);
                let offset = anchor.checked_sub(1).map_or(0, |last| parts[last].1);
                let fork = Fork {
                    from: format!("/v1/stream/{}", PATHS[from]),
                    offset: Some(Offset::new(offset)),
                    sub_offset: u64::from(sub),
                };
                // Whatever there is has another lifetime, or another source.
                let create = Create { fork: Some(fork), ..empty };
                let done = block_on(self.server().create(PATHS[to], &create, Vec::new()));
                let same = done.as_ref().is_ok_and(|created| !created.new);
                let here =
                    if same { Err(409) } else { done.map(|c| c.stream.end).or_else(|e| told(&e)) };
                (here, world.fork(PATHS[from], PATHS[to], anchor, usize::from(sub)))
            }
            Op::Delete { at } => {
                let done = self.server().delete(PATHS[at]);
                (done.map(|()| 0).or_else(|e| told(&e)), world.delete(PATHS[at]))
            }
            Op::Wait { seconds } => {
                world.now += i64::from(seconds) * 1000 + 100;
                self.bench.set_millis(world.now);
                (Ok(0), Ok(0))
            }
            Op::Alarm => {
                // It may fail, and rings again.
                let _ = block_on(self.server().wake());
                world.expire();
                (Ok(0), Ok(0))
            }
            Op::Tasks => {
                self.bench.run_tasks();
                (Ok(0), Ok(0))
            }
            Op::Crash => {
                self.start();
                (Ok(0), Ok(0))
            }
        }
    }

    /// Reads every stream to its end, page by page, as a client would, and follows it live.
    fn seen(&self) -> BTreeMap<&'static str, Seen> {
        // What has expired may be what another one is kept for.
        for path in PATHS {
            let _ = self.server().find(path);
        }
        let both = |path: &&'static str| {
            let (content, closed) = self.read(path)?;
            Ok((content, self.follow(path), closed))
        };
        PATHS.iter().map(|path| (*path, both(path))).collect()
    }

    /// What server-sent events say of a stream that is there. A connection that breaks off is
    /// taken up where it was.
    fn follow(&self, path: &str) -> Vec<u8> {
        let (mut offset, mut data) = ("-1".to_owned(), Vec::new());
        loop {
            let heard = match follow(self.server(), path, &offset) {
                Ok(heard) => heard,
                // A chunk that is not to be seen yet: the client asks again.
                Err(status) => {
                    assert_eq!(status, 503, "{path} at {offset}");
                    continue;
                }
            };
            data.extend(heard.data);
            offset = heard.next.unwrap_or(offset);
            if heard.up_to_date {
                break;
            }
        }
        match Kind::of(&self.server().find(path).unwrap().content_type) {
            Kind::Text => data.concat().into_bytes(),
            Kind::Binary => data.iter().flat_map(|data| STANDARD.decode(data).unwrap()).collect(),
            Kind::Json => {
                let messages = |data| serde_json::from_str::<Vec<&RawValue>>(data).unwrap();
                let messages: Vec<_> = data.iter().flat_map(|data| messages(data)).collect();
                let messages: Vec<_> = messages.iter().map(|message| message.get()).collect();
                format!("[{}]", messages.join(",")).into_bytes()
            }
        }
    }

    fn read(&self, path: &str) -> std::result::Result<(Vec<u8>, bool), u16> {
        let (mut bytes, mut offset) = (Vec::new(), "-1".to_owned());
        loop {
            let read = http::Request::get(format!("https://x/v1/stream/{path}?offset={offset}"));
            let (head, body) =
                block_on(self.server().handle(read.body(full(Vec::new())).unwrap())).into_parts();
            let part = match body {
                Body::Full(part) => Ok(part),
                Body::Live(parts) => block_on(parts.try_concat()),
            };
            let part = match part {
                Ok(part) if head.status != 503 => part,
                // A chunk that is not to be seen yet: the client asks again.
                _ => continue,
            };
            if head.status != 200 {
                return Err(head.status.as_u16());
            }
            let said = |name| head.headers.get(name).map(|text| text.to_str().unwrap());
            let json = said("content-type") == Some("application/json");
            if json {
                let list: Vec<&RawValue> = serde_json::from_slice(&part).unwrap();
                bytes.extend(list.into_iter().map(|message| message.get().as_bytes().to_vec()));
            } else {
                bytes.push(part);
            }
            let next = said("stream-next-offset").unwrap();
            let done = said("stream-up-to-date").is_some();
            assert!(done || next > offset.as_str(), "{path} does not go on at {next}");
            next.clone_into(&mut offset);
            if done {
                let joined = bytes.join(&b',');
                let content =
                    if json { [b"[", &joined[..], b"]"].concat() } else { bytes.concat() };
                return Ok((content, said("stream-closed").is_some()));
            }
        }
    }

    fn wanted(world: &mut World) -> BTreeMap<&'static str, Seen> {
        let now = world.now;
        world.expire();
        let read = |path: &&'static str| {
            let found = world.find(path).map(|model| {
                model.touch(now);
                (model.content(), model.live(), model.closed)
            });
            (*path, found)
        };
        PATHS.iter().map(read).collect()
    }

    /// Does all operations with the power on.
    fn compare(&mut self, ops: &[Op]) {
        for op in ops {
            let mut world = std::mem::take(&mut self.world);
            let (here, model) = self.step(op, &mut world);
            assert_eq!(here, model, "{op:?}");
            assert_eq!(self.seen(), Self::wanted(&mut world), "after {op:?}");
            assert_eq!((self.left)(), 0, "after {op:?}");
            self.world = world;
        }
    }

    /// Does the operations until the power goes, then starts anew: what was answered is there,
    /// and what was cut off is there whole or not at all.
    fn cut(&mut self, ops: &[Op], writes: u32) {
        self.power.0.set(writes);
        for op in ops {
            let before = self.world.clone();
            let mut world = before.clone();
            // To be opened takes writes as well.
            let crash = matches!(op, Op::Crash);
            let (here, model) = if crash { (Ok(0), Ok(0)) } else { self.step(op, &mut world) };
            if !self.power.is_gone() {
                assert_eq!(here, model, "{op:?}");
                self.world = world;
                continue;
            }
            self.power.0.set(u32::MAX);
            self.start();
            let seen = self.seen();
            let (not_done, done) = (Self::wanted(&mut before.clone()), Self::wanted(&mut world));
            assert!(
                seen == not_done || seen == done,
                "{op:?} was done in part: {seen:?}, before {not_done:?}, after {done:?}"
            );
            self.world = if seen == done { world } else { before };
            Self::wanted(&mut self.world);
        }
        self.power.0.set(u32::MAX);
        // Whatever was left undone is done now, and changes nothing that can be seen.
        self.start();
        for _ in 0..200 {
            let _ = block_on(self.server().wake());
        }
        assert_eq!(self.seen(), Self::wanted(&mut self.world));
        assert!(!self.server().store().unsettled().unwrap(), "work is left over");
        assert_eq!((self.left)(), 0, "parts of bodies are left over");
    }
}

fn memory() -> Run<MemoryStore> {
    Run::new(Box::new(|_| Ok(MemoryStore::new())), Box::new(|| 0))
}

fn sql() -> Run<SqlStore<Watched>> {
    let sqlite = Rc::new(Sqlite::in_memory().unwrap());
    let left = left(&sqlite);
    Run::new(Box::new(move |power| SqlStore::new(disk(&sqlite, power))), left)
}

fn left(sqlite: &Rc<Sqlite>) -> Box<dyn Fn() -> i64> {
    let sqlite = Rc::clone(sqlite);
    Box::new(move || {
        let sql: &dyn Sql = &*sqlite;
        sql.query_one("SELECT count(*) FROM _ds_staged", [], |row| row.get(0)).unwrap()
    })
}

fn sealed(late: bool) -> (Run<Sealed<Watched, Shelf>>, Chunks) {
    let sqlite = Rc::new(Sqlite::in_memory().unwrap());
    let chunks = Chunks::default();
    let kept = Rc::clone(&chunks);
    let left = left(&sqlite);
    let open = move |power: Power| {
        let shelf = Shelf { chunks: Rc::clone(&kept), power: power.clone(), late };
        Sealed::new(disk(&sqlite, power), shelf, "object")
    };
    (Run::new(Box::new(open), left), chunks)
}

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..most)
}

#[test]
fn a_page_in_a_stream_cannot_act_as_the_application() {
    let run = memory();
    let ask = |request: http::request::Builder, body: &str| {
        let request = request.uri("https://x/v1/stream/page").header("content-type", "text/html");
        block_on(run.server().handle(request.body(full(body.into())).unwrap()))
    };
    for (method, status) in
        [("PUT", 201), ("GET", 200), ("POST", 400), ("DELETE", 204), ("GET", 404)]
    {
        let answer = ask(http::Request::builder().method(method), "");
        assert_eq!(answer.status(), status);
        let said = |name| answer.headers().get(name).and_then(|text| text.to_str().ok());
        assert_eq!(said("content-security-policy"), Some("default-src 'none'; sandbox"));
        assert_eq!(said("x-content-type-options"), Some("nosniff"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn streams_in_memory_are_as_the_model(mut ops in ops(60)) {
        ops.retain(|op| !matches!(op, Op::Crash));
        memory().compare(&ops);
    }

    #[test]
    fn streams_in_sqlite_are_as_the_model(ops in ops(60)) {
        sql().compare(&ops);
    }

    #[test]
    fn streams_in_chunks_are_as_the_model(ops in ops(60), late: bool) {
        sealed(late).0.compare(&ops);
    }

    #[test]
    fn a_crash_leaves_sqlite_whole(ops in ops(40), writes in 1u32..200) {
        sql().cut(&ops, writes);
    }

    #[test]
    fn a_crash_leaves_chunks_whole(ops in ops(60), writes in 1u32..400, late: bool) {
        let (mut run, chunks) = sealed(late);
        run.cut(&ops, writes);
        // What no stream needs any more is deleted.
        for path in PATHS {
            while run.server().find(path).is_ok() {
                run.server().delete(path).unwrap();
            }
        }
        for _ in 0..400 {
            let _ = block_on(run.server().wake());
        }
        prop_assert!(chunks.borrow().is_empty(), "{} chunks are left", chunks.borrow().len());
    }
}
