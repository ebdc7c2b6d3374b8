//! Creating streams and forks (sections 4.2 and 5.1).

use super::body::Arrived;
use super::{
    Change, ClosedBy, Create, Fork, Kind, Platform, Refusal, SEPARATOR, Source, Store, Stream,
    Streams, essence,
};

const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// What a `PUT` found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The stream.
    pub stream: Stream,
    /// Whether it was not there before.
    pub new: bool,
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// Creates a stream, or finds it as it would have been created.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] when another stream is there; [`Refusal::BadRequest`] for a lifetime
    /// that is over, or ends in more than 100 years; for a fork [`Refusal::NotFound`] without its
    /// source, and what else the [`Refusal`] says.
    pub async fn create(
        &self,
        path: &str,
        request: &Create,
        body: Vec<u8>,
    ) -> Result<Created, Refusal> {
        self.create_arrived(path, request, Arrived::whole(self, body)).await
    }

    pub(super) async fn create_arrived(
        &self,
        path: &str,
        request: &Create,
        body: Arrived<S, P>,
    ) -> Result<Created, Refusal> {
        if let Some(there) = self.as_created(path, request)? {
            return Ok(there);
        }
        let Some(fork) = &request.fork else {
            return self.begin(path, request, body, None);
        };
        let from = self.path_of(&fork.from).ok_or_else(|| {
            Refusal::bad_request("Stream-Forked-From is the path of a stream of this server")
        })?;
        let source = self.source(&from)?;
        if let Some(given) = &request.content_type
            && essence(given) != essence(&source.content_type)
        {
            let message = format!("the source holds {}, not {given}", source.content_type);
            return Err(Refusal::Conflict(message));
        }
        let at = self.leaves_at(&source, fork).await?;
        // Others may have come first while the source was read.
        if let Some(there) = self.as_created(path, request)? {
            return Ok(there);
        }
        let current = self.source(&from)?;
        if current.id != source.id {
            return Err(Refusal::NotFound);
        }
        let asked = (fork.offset.map(|offset| offset.bytes()), fork.sub_offset);
        let inherits = Source { id: source.id, path: from, at, asked };
        self.begin(path, request, body, Some((current, inherits)))
    }

    fn source(&self, path: &str) -> Result<Stream, Refusal> {
        self.find(path).map_err(|refusal| match refusal {
            Refusal::Gone => Refusal::conflict("the source was deleted"),
            other => other,
        })
    }

    /// The stream that is there already: a success if it is what the request would have made.
    fn as_created(&self, path: &str, request: &Create) -> Result<Option<Created>, Refusal> {
        let stream = match self.find(path) {
            Ok(stream) => stream,
            Err(Refusal::NotFound) => return Ok(None),
            Err(Refusal::Gone) => {
                return Err(Refusal::conflict("the stream was deleted, and forks still need it"));
            }
            Err(other) => return Err(other),
        };
        let conflict =
            |what: &str| Err(Refusal::Conflict(format!("the stream is there, with {what}")));
        let inherits = request.fork.is_some();
        if request.content_type.is_some() || !inherits {
            let wanted = request.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE);
            if essence(wanted) != essence(&stream.content_type) {
                return conflict("another content type");
            }
        }
        // A fork may have its lifetime from its source.
        let same = request.lifetime == stream.lifetime || inherits && request.lifetime.is_none();
        if !same {
            return conflict("another lifetime");
        }
        if request.closed != stream.closed.is_some() {
            return conflict(if request.closed { "its end open" } else { "its end closed" });
        }
        if let Some(fork) = &request.fork {
            let from = self.path_of(&fork.from);
            let same = stream.source.as_ref().is_some_and(|source| {
                Some(&source.path) == from.as_ref()
                    && source.asked == (fork.offset.map(|offset| offset.bytes()), fork.sub_offset)
            });
            if !same {
                return conflict("another source");
            }
        }
        Ok(Some(Created { stream, new: false }))
    }

    /// Where a fork leaves its source.
    async fn leaves_at(&self, source: &Stream, fork: &Fork) -> Result<u64, Refusal> {
        let anchor = fork.offset.map_or(source.end, |offset| offset.bytes());
        let beyond = || Refusal::bad_request("the source is not that long");
        if anchor > source.end {
            return Err(beyond());
        }
        if Kind::of(&source.content_type) != Kind::Json {
            let at = anchor.saturating_add(fork.sub_offset);
            return if at <= source.end { Ok(at) } else { Err(beyond()) };
        }
        // Messages are counted by their separators, page by page.
        let (mut at, mut left) = (anchor, fork.sub_offset);
        if left == 0 {
            self.check_boundary(source, anchor).await?;
        }
        while left > 0 {
            let (page, next) = self.page(source, at).await?;
            if page.is_empty() {
                return Err(beyond());
            }
            let ends = page.iter().enumerate().filter(|(_, byte)| **byte == SEPARATOR);
            let wanted = usize::try_from(left - 1).unwrap_or(usize::MAX);
            let mut seen = 0;
            let found = ends.map(|(index, _)| index).inspect(|_| seen += 1).nth(wanted);
            match found {
                Some(index) => return Ok(at + index as u64 + 1),
                None => (at, left) = (next, left - seen),
            }
        }
        Ok(at)
    }

    fn begin(
        &self,
        path: &str,
        request: &Create,
        body: Arrived<S, P>,
        fork: Option<(Stream, Source)>,
    ) -> Result<Created, Refusal> {
        let (above, source) = fork.unzip();
        let inherited = above.as_ref().map(|above| above.content_type.clone());
        let content_type = request
            .content_type
            .clone()
            .or(inherited)
            .unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned());
        let mut body = body.encoded(|bytes| Kind::of(&content_type).encode(bytes))?;
        let lifetime = request.lifetime.or_else(|| above.as_ref().and_then(|above| above.lifetime));
        let expires_at = lifetime.map(|lifetime| lifetime.begin(self.now())).transpose()?;
        let start = source.as_ref().map_or(0, |source| source.at);
        let stream = Stream {
            id: self.store().next_id()?,
            path: path.to_owned(),
            content_type,
            lifetime,
            expires_at,
            closed: request.closed.then_some(ClosedBy { producer: None }),
            deleted: false,
            forks: 0,
            source,
            seq: None,
            end: start + body.len(),
        };
        let mut changes = vec![Change::Create(stream.clone())];
        if let Some(above) = above {
            changes.push(Change::Update(Stream { forks: above.forks + 1, ..above }));
        }
        changes.extend(body.changes(stream.id, start));
        self.commit(changes)?;
        body.appended();
        Ok(Created { stream, new: true })
    }
}
