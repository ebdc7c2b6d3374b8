//! What these tests share: requests, the events of a live reader, and an archive that counts.

use futures::executor::block_on;
use futures::future::FutureExt;
use futures::stream::{StreamExt, TryStreamExt};
use http::{HeaderMap, Request, StatusCode};
use partysync::Result;
use partysync::streams::{Archive, Body, Part, Platform, Store, Streams, full};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// An answer with all of its body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|text| text.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request for the stream at this path, which may have a query.
pub fn ask<S: Store, P: Platform>(
    streams: &Streams<S, P>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (parts, body) = send(streams, method, path, headers, body).into_parts();
    let body = match body {
        Body::Full(bytes) => bytes,
        Body::Live(pieces) => block_on(pieces.try_concat()).unwrap(),
    };
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Sends it, and leaves the answer's body unread.
pub fn send<S: Store, P: Platform>(
    streams: &Streams<S, P>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> http::Response<Body> {
    let mut request =
        Request::builder().method(method).uri(format!("https://streams.example/v1/stream/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    block_on(streams.handle(request.body(full(body.into())).unwrap()))
}

/// What one connection for server-sent events has given until it waits or ends.
#[derive(Debug, Default)]
pub struct Heard {
    /// The data of each event.
    pub data: Vec<String>,
    /// Where to read on.
    pub next: Option<String>,
    pub up_to_date: bool,
    pub closed: bool,
}

/// Follows a stream from an offset on for as long as there is something to be told at once.
pub fn follow<S: Store, P: Platform>(
    streams: &Streams<S, P>,
    path: &str,
    offset: &str,
) -> std::result::Result<Heard, StatusCode> {
    let path = format!("{path}?offset={offset}&live=sse");
    let (parts, body) = send(streams, "GET", &path, &[], "").into_parts();
    let Body::Live(mut events) = body else { return Err(parts.status) };
    let mut heard = Heard::default();
    while let Some(Some(sent)) = events.next().now_or_never() {
        let sent = String::from_utf8(sent.unwrap()).unwrap();
        for event in sent.split_terminator("\n\n") {
            let (kind, data) = event.strip_prefix("event: ").unwrap().split_once('\n').unwrap();
            let lines = data.split('\n').map(|line| line.strip_prefix("data:").unwrap());
            let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
            let data = lines.collect::<Vec<_>>().join("\n");
            if kind == "data" {
                heard.data.push(data);
                continue;
            }
            let control: serde_json::Value = serde_json::from_str(&data).unwrap();
            heard.next = control["streamNextOffset"].as_str().map(str::to_owned);
            heard.up_to_date = control["upToDate"] == true;
            heard.closed = control["streamClosed"] == true;
        }
    }
    Ok(heard)
}

/// Chunks in memory. Clones are the same archive.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    kept: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    /// How often a chunk was asked for.
    pub gets: Rc<Cell<u32>>,
}

impl Archive for Chunks {
    fn chunk_bytes(&self) -> usize {
        64
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.kept.borrow_mut().insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, key: &str, _: u64, _: u64) -> Result<Option<Part>> {
        self.gets.set(self.gets.get() + 1);
        Ok(self.kept.borrow().get(key).cloned().map(Part::Whole))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.kept.borrow_mut().remove(key);
        Ok(())
    }
}
