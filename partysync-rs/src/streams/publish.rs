//! Publishing into a stream from the same object: appends that are numbered, and done once.

use super::{Change, ClosedBy, Kind, Platform, Producer, Refusal, Store, Stream, Streams};

/// Who publishes: an id that no request can name, since headers hold no control characters.
const PUBLISHER: &str = "\0publisher";

impl<S: Store, P: Platform> Streams<S, P> {
    /// The number of what was published last into this stream; 0 for nothing.
    ///
    /// # Errors
    /// What the store says.
    pub fn published(&self, path: &str) -> Result<u64, Refusal> {
        let Some(stream) = self.store().at(path)? else { return Ok(0) };
        let known = self.store().producer(stream.id, PUBLISHER)?;
        Ok(known.map_or(0, |known| known.seq))
    }

    /// Appends JSON messages to a stream, which is made if it is not there, and notes `number` as
    /// the last that was published. Both are one transaction: after a crash,
    /// [`published`](Self::published) says where to go on.
    ///
    /// # Errors
    /// [`Refusal::Closed`], [`Refusal::Gone`], [`Refusal::Conflict`] for a stream of another
    /// content type, and what the store says.
    pub fn publish(&self, path: &str, number: u64, messages: &[String]) -> Result<(), Refusal> {
        let (stream, mut changes) = match self.find(path) {
            Ok(stream) => (stream, Vec::new()),
            Err(Refusal::NotFound) => {
                let stream = self.fresh(path)?;
                (stream.clone(), vec![Change::Create(stream)])
            }
            Err(other) => return Err(other),
        };
        if let Some(ClosedBy { .. }) = stream.closed {
            return Err(Refusal::Closed(stream.tail()));
        }
        if Kind::of(&stream.content_type) != Kind::Json {
            return Err(Refusal::conflict("what is published is JSON"));
        }
        let bytes = Kind::Json.encode(format!("[{}]", messages.join(",")).into_bytes())?;
        if !bytes.is_empty() {
            changes.push(Change::Append { id: stream.id, at: stream.end, bytes });
        }
        let state = Producer { epoch: 0, seq: number };
        changes.push(Change::Producer { id: stream.id, name: PUBLISHER.to_owned(), state });
        self.commit(changes)
    }

    fn fresh(&self, path: &str) -> Result<Stream, Refusal> {
        Ok(Stream {
            id: self.store().next_id()?,
            path: path.to_owned(),
            content_type: "application/json".to_owned(),
            lifetime: None,
            expires_at: None,
            closed: None,
            deleted: false,
            forks: 0,
            source: None,
            seq: None,
            end: 0,
        })
    }
}
