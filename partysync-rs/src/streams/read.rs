//! Reading a stream: once, with a long-poll, or as server-sent events (sections 5.6 to 5.8).

use super::sse::unfinished;
use super::{
    Body, Kind, Live, Offset, Platform, Position, Read, Refusal, SEPARATOR, Store, Stream,
    StreamId, Streams, control_event, cursor, data_event,
};
use crate::Timestamp;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt};

/// What a read gives.
#[derive(Debug)]
pub struct Page {
    /// The stream as it was.
    pub stream: Stream,
    /// The bytes as they are stored; nothing if a live read found nothing in its time.
    pub bytes: Vec<u8>,
    /// Where they begin.
    pub from: Offset,
    /// Where to read on.
    pub next: Offset,
}

impl Page {
    /// Whether there is no more at present.
    #[must_use]
    pub fn up_to_date(&self) -> bool {
        self.next == self.stream.tail()
    }

    /// Whether there is no more for ever.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.up_to_date() && self.stream.closed.is_some()
    }
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// What is behind an offset, up to a page.
    ///
    /// # Errors
    /// The [`Refusal`] that says why nothing can be read.
    pub async fn read(&self, path: &str, position: Position) -> Result<Page, Refusal> {
        let (stream, from) = self.located(path, position)?;
        let (bytes, next) = self.page(&stream, from).await?;
        Ok(Page { stream, bytes, from: Offset::new(from), next: Offset::new(next) })
    }

    /// The same, but waits for data for as long as a long-poll lasts.
    ///
    /// # Errors
    /// As [`read`](Self::read); also when the stream is removed meanwhile.
    pub async fn long_poll(&self, path: &str, position: Position) -> Result<Page, Refusal> {
        let (mut stream, from) = self.located(path, position)?;
        let deadline = self.deadline(self.options().long_poll);
        // What is the end now is where the next message begins.
        let begins = begins_at(&stream, from);
        while stream.end == from
            && stream.closed.is_none()
            && self.wait(self.inner.bell.wait(stream.id), deadline).await
        {
            stream = self.alive(stream.id)?;
        }
        let (bytes, next) = self.page_from(&stream, from, begins).await?;
        Ok(Page { stream, bytes, from: Offset::new(from), next: Offset::new(next) })
    }

    /// The stream, and where in it to begin. Counts as a read.
    pub(super) fn located(&self, path: &str, position: Position) -> Result<(Stream, u64), Refusal> {
        let stream = self.find(path)?;
        let from = match position {
            Position::Now => stream.end,
            Position::At(offset) => offset.bytes(),
        };
        if from > stream.end {
            return Err(Refusal::bad_request("the offset is behind the stream's end"));
        }
        self.touch(&stream)?;
        Ok((stream, from))
    }

    /// Whole messages from `from` on, where one has to begin, and where they end.
    pub(super) async fn page(&self, stream: &Stream, from: u64) -> Result<(Vec<u8>, u64), Refusal> {
        self.page_from(stream, from, begins_at(stream, from)).await
    }

    /// The same, with or without a look at whether a message begins there.
    async fn page_from(
        &self,
        stream: &Stream,
        from: u64,
        begins: bool,
    ) -> Result<(Vec<u8>, u64), Refusal> {
        let kind = Kind::of(&stream.content_type);
        // The byte before shows it.
        let before = u64::from(kind == Kind::Json && !begins);
        // No character of a text is larger.
        let mut size = self.options().page_bytes.max(4) as u64;
        loop {
            let to = stream.end.min(from.saturating_add(size));
            let mut bytes = self.range(stream, from - before, to).await?;
            if before == 1 {
                if bytes.first() != Some(&SEPARATOR) {
                    return Err(no_boundary());
                }
                bytes.remove(0);
            }
            let whole = kind.whole(&bytes);
            if whole > 0 || to == stream.end {
                bytes.truncate(whole);
                return Ok((bytes, from + whole as u64));
            }
            size = size.saturating_mul(2);
        }
    }

    /// Where a catch-up read from `from` on ends: at the stream's end if it is not too far, at the
    /// end of a message otherwise.
    pub(super) async fn read_to(&self, stream: &Stream, from: u64) -> Result<u64, Refusal> {
        let far = from.saturating_add(self.options().read_bytes.max(1) as u64);
        if stream.end <= far || Kind::of(&stream.content_type) != Kind::Json {
            return Ok(stream.end.min(far));
        }
        let (mut to, size) = (far, self.options().page_bytes.max(1) as u64);
        while to > from {
            let piece = self.range(stream, from.max(to.saturating_sub(size)), to).await?;
            let whole = Kind::Json.whole(&piece);
            if whole > 0 {
                return Ok(to - (piece.len() - whole) as u64);
            }
            to -= piece.len() as u64;
        }
        // A single message is longer than that.
        self.page(stream, from).await.map(|(_, next)| next)
    }

    /// The body of a catch-up read, page by page as it is sent.
    pub(super) fn pages(&self, stream: Stream, from: u64, to: u64) -> Body {
        let kind = Kind::of(&stream.content_type);
        let server = self.clone();
        let pages = stream::try_unfold(from, move |at| {
            let (server, stream) = (server.clone(), stream.clone());
            async move {
                if at == to {
                    return Ok(None);
                }
                let next = to.min(at + server.options().page_bytes.max(1) as u64);
                let page = server.range(&stream, at, next).await;
                let page =
                    page.map_err(|e| crate::Error::new(crate::Code::Closed, e.to_string()))?;
                Ok(Some((kind.decode_part(page, at == from, next == to), next)))
            }
        });
        Body::Live(pages.boxed_local())
    }

    /// Refuses a position in the middle of a JSON message.
    pub(super) async fn check_boundary(&self, stream: &Stream, at: u64) -> Result<(), Refusal> {
        let json = Kind::of(&stream.content_type) == Kind::Json;
        if json && !begins_at(stream, at) && self.range(stream, at - 1, at).await? != [SEPARATOR] {
            return Err(no_boundary());
        }
        Ok(())
    }

    /// The bytes of a stream, from its sources where it is a fork.
    async fn range(&self, stream: &Stream, from: u64, to: u64) -> Result<Vec<u8>, Refusal> {
        let mut parts = Vec::new();
        let (mut owner, mut to) = (stream.clone(), to);
        while from < to {
            let start = owner.start();
            if to > start {
                parts.push((owner.id, from.max(start), to));
                to = start.max(from);
            }
            let Some(source) = owner.source.filter(|_| from < to) else { break };
            let above = self.store().stream(source.id)?;
            owner = above.ok_or_else(|| Refusal::Internal("a fork's source is missing".into()))?;
        }
        let mut bytes = Vec::new();
        for (id, from, to) in parts.into_iter().rev() {
            let part =
                self.store().read(id, from, to).await.map_err(|error| match error.code() {
                    crate::Code::Store => Refusal::Unavailable(error.to_string()),
                    _ => Refusal::from(error),
                })?;
            if part.len() as u64 != to - from {
                // Removed while it was read.
                return Err(Refusal::NotFound);
            }
            if bytes.is_empty() {
                bytes = part;
            } else {
                bytes.extend_from_slice(&part);
            }
        }
        Ok(bytes)
    }

    fn deadline(&self, time: std::time::Duration) -> Timestamp {
        self.now().plus_millis(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
    }

    fn alive(&self, id: StreamId) -> Result<Stream, Refusal> {
        match self.store().stream(id)? {
            Some(stream) if !stream.deleted => Ok(stream),
            Some(_) => Err(Refusal::Gone),
            None => Err(Refusal::NotFound),
        }
    }

    /// Waits until something happens to a stream; `false` when the time is over before.
    async fn wait(&self, rung: oneshot::Receiver<()>, deadline: Timestamp) -> bool {
        let time = self.until(deadline);
        if time.is_zero() {
            return false;
        }
        let over = self.inner.platform.sleep(time);
        !matches!(select(rung, over).await, Either::Right(_))
    }

    /// A cursor for an answer that is given now.
    pub(super) fn cursor(&self, given: Option<u64>) -> u64 {
        // A cursor is no secret: without randomness it goes on by one.
        let [a, b, c, d, ..] = self.inner.platform.random().unwrap_or_default();
        cursor(self.now(), given, u64::from(u32::from_le_bytes([a, b, c, d])))
    }

    /// The events of a live read, until the stream is closed, gone, or the time is over.
    pub(super) fn events(&self, stream: Stream, from: u64, request: &Read) -> Body {
        debug_assert_eq!(request.live, Some(Live::Sse));
        let reader = Reader {
            kind: Kind::of(&stream.content_type),
            deadline: self.deadline(self.options().sse),
            cursor: request.cursor,
            at: from,
            told: false,
            over: false,
            stream,
            server: self.clone(),
        };
        let events = stream::unfold(reader, |mut reader| async move {
            let events = reader.next().await?;
            Some((Ok(events), reader))
        });
        Body::Live(events.boxed_local())
    }
}

/// Whether a message is known to begin at this position, or will, without a look at the bytes:
/// appends are whole messages, and a fork leaves its source between two of them.
fn begins_at(stream: &Stream, at: u64) -> bool {
    at == 0 || at == stream.start() || at == stream.end
}

fn no_boundary() -> Refusal {
    Refusal::bad_request("no message begins at this offset")
}

/// A connection for server-sent events.
struct Reader<S, P> {
    server: Streams<S, P>,
    stream: Stream,
    kind: Kind,
    at: u64,
    cursor: Option<u64>,
    deadline: Timestamp,
    /// Whether the reader knows that it has everything.
    told: bool,
    over: bool,
}

impl<S: Store, P: Platform> Reader<S, P> {
    /// The next events, with a `control` at their end; `None` when the connection ends.
    async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.over {
            // Listens from before it looks: what comes in between is not missed.
            let rung = self.server.inner.bell.wait(self.stream.id);
            self.stream = self.server.alive(self.stream.id).ok()?;
            let closed = self.stream.closed.is_some();
            let mut bytes = Vec::new();
            if self.at < self.stream.end {
                // It began at a message, and goes on where the last one ended.
                (bytes, _) = self.server.page_from(&self.stream, self.at, true).await.ok()?;
            }
            let at_end = self.at + bytes.len() as u64 == self.stream.end;
            if self.kind == Kind::Text && !(closed && at_end) {
                // Half a character waits for its other half, on the next page or in an append.
                bytes.truncate(bytes.len() - unfinished(&bytes));
            }
            if !bytes.is_empty() || !self.told || closed {
                return Some(self.events(bytes));
            }
            if !self.server.wait(rung, self.deadline).await {
                return None;
            }
        }
        None
    }

    fn events(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.at += bytes.len() as u64;
        // What arrived while the page was read belongs to the next one.
        let up_to_date = self.at == self.stream.end || bytes.is_empty();
        self.over = up_to_date && self.stream.closed.is_some();
        self.told = up_to_date;
        let cursor = self.server.cursor(self.cursor);
        let mut events = Vec::new();
        if !bytes.is_empty() {
            events = data_event(self.kind, bytes);
        }
        let control = control_event(Offset::new(self.at), Some(cursor), up_to_date, self.over);
        events.extend(control);
        events
    }
}
