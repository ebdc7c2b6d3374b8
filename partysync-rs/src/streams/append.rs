//! Appending to a stream and closing it (sections 5.2 and 5.3).

use super::body::Arrived;
use super::{
    Append, Change, ClosedBy, Kind, Offset, Platform, Producer, Refusal, Store, Stream, Streams,
    Verdict, essence,
};

/// What an append has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stream's end now.
    pub tail: Offset,
    /// Whether the stream is closed.
    pub closed: bool,
    /// The producer's last append, if a producer appended.
    pub producer: Option<Producer>,
    /// Whether bytes were appended: not by a repeat, and not by closing alone.
    pub appended: bool,
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// Appends a body, closes the stream, or both. All of it is one transaction.
    ///
    /// # Errors
    /// The [`Refusal`] that says why nothing was appended.
    pub fn append(&self, path: &str, request: &Append, body: Vec<u8>) -> Result<Appended, Refusal> {
        self.append_arrived(path, request, Arrived::whole(self, body))
    }

    pub(super) fn append_arrived(
        &self,
        path: &str,
        request: &Append,
        body: Arrived<S, P>,
    ) -> Result<Appended, Refusal> {
        let stream = self.find(path)?;
        if body.is_empty() && !request.close {
            return Err(Refusal::bad_request("an append needs a body"));
        }
        let repeated = |producer, closed| {
            Ok(Appended { tail: stream.tail(), closed, producer, appended: false })
        };
        let known = match &request.producer {
            Some(claim) => self.store().producer(stream.id, &claim.id)?,
            None => None,
        };
        let verdict = request.producer.as_ref().map(|claim| (claim, claim.judge(known)));
        if let Some((_, Verdict::Fenced { epoch })) = verdict {
            return Err(Refusal::Fenced { epoch });
        }
        if let Some(by) = &stream.closed {
            let same = match &request.producer {
                None => body.is_empty(),
                claim => *claim == by.producer,
            };
            // Only what closed it may be repeated.
            return if same && request.close {
                repeated(known, true)
            } else {
                Err(Refusal::Closed(stream.tail()))
            };
        }
        let mut body = Self::checked(&stream, request, body)?;
        let accepted = match verdict {
            None => None,
            Some((claim, Verdict::Accept(state))) => Some((claim, state)),
            Some((_, Verdict::Duplicate(last))) => {
                return repeated(Some(last), false);
            }
            Some((claim, Verdict::Gap { expected })) => {
                return Err(Refusal::Gap { expected, received: claim.seq });
            }
            Some((_, Verdict::Fenced { epoch })) => return Err(Refusal::Fenced { epoch }),
            Some((_, Verdict::NewEpochNotAtZero)) => {
                return Err(Refusal::bad_request("a producer's new epoch begins with seq 0"));
            }
        };
        if let (Some(last), Some(seq)) = (&stream.seq, &request.seq)
            && seq.as_bytes() <= last.as_bytes()
        {
            return Err(Refusal::conflict(format!("Stream-Seq has to be greater than {last}")));
        }
        let tail = Offset::new(stream.end + body.len());
        let appended = !body.is_empty();
        let mut changes = body.changes(stream.id, stream.end);
        if let Some((claim, state)) = &accepted {
            changes.push(Change::Producer { id: stream.id, name: claim.id.clone(), state: *state });
        }
        changes.extend(self.touched(&stream));
        if request.close || request.seq.is_some() {
            let producer = request.producer.clone();
            changes.insert(
                0,
                Change::Update(Stream {
                    closed: request.close.then_some(ClosedBy { producer }),
                    seq: request.seq.clone().or_else(|| stream.seq.clone()),
                    ..stream
                }),
            );
        }
        self.commit(changes)?;
        body.appended();
        let producer = accepted.map(|(_, state)| state);
        Ok(Appended { tail, closed: request.close, producer, appended })
    }

    /// The body as it is stored, if it may come into this stream.
    fn checked(
        stream: &Stream,
        request: &Append,
        body: Arrived<S, P>,
    ) -> Result<Arrived<S, P>, Refusal> {
        if body.is_empty() {
            return Ok(body);
        }
        match &request.content_type {
            None => return Err(Refusal::bad_request("an append needs its Content-Type")),
            Some(given) if essence(given) != essence(&stream.content_type) => {
                let message = format!("the stream holds {}, not {given}", stream.content_type);
                return Err(Refusal::Conflict(message));
            }
            Some(_) => {}
        }
        let body = body.encoded(|bytes| Kind::of(&stream.content_type).encode(bytes))?;
        if body.is_empty() {
            return Err(Refusal::bad_request("an empty array appends nothing"));
        }
        Ok(body)
    }
}
