//! The protocol over HTTP: requests in, answers out (section 5).

use super::body::{Arrived, collect, too_large};
use super::header::{
    PRODUCER_EPOCH, PRODUCER_SEQ, STREAM_CLOSED, STREAM_CURSOR, STREAM_EXPIRES_AT,
    STREAM_NEXT_OFFSET, STREAM_SSE_DATA_ENCODING, STREAM_TTL, STREAM_UP_TO_DATE, rfc3339, value,
};
use super::{
    Append, Body, Cache, Create, Incoming, Kind, Lifetime, Live, Offset, Page, Platform, Position,
    Read, Refusal, Store, Stream, Streams,
};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;

/// Paths are kept in the index, and are no place for data.
const PATH_BYTES: usize = 1024;

/// How much of a body is held until it is put aside.
const PIECE_BYTES: usize = 256 * 1024;

/// The first segment of what is no stream.
const RESERVED: &str = "__ds";

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What a page of another origin may send.
const ALLOWED: &str = "authorization, content-type, if-none-match, last-event-id, producer-epoch, \
     producer-id, producer-seq, stream-closed, stream-expires-at, stream-fork-offset, \
     stream-fork-sub-offset, stream-forked-from, stream-seq, stream-ttl";

/// What a page of another origin may read.
const EXPOSED: &str = "etag, location, producer-epoch, producer-expected-seq, \
     producer-received-seq, producer-seq, retry-after, stream-closed, stream-cursor, \
     stream-expires-at, stream-next-offset, stream-sse-data-encoding, stream-ttl, \
     stream-up-to-date";

type Answer = Result<Response<Body>, Refusal>;

impl<S: Store, P: Platform> Streams<S, P> {
    /// Answers a request whose URI is absolute.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(refusal) => refused(&refusal),
        };
        for (name, text) in [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            // A stream may hold a page that somebody wrote: opened in a tab, it must not act as
            // the application whose origin it comes from.
            (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
            (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
            (HeaderName::from_static("x-content-type-options"), "nosniff"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(text));
        }
        if head {
            *response.body_mut() = Body::Full(Vec::new());
        }
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        if request.method() == Method::OPTIONS {
            return Ok(preflight());
        }
        let (parts, body) = request.into_parts();
        if let Some(control) = self.control_path(parts.uri.path()) {
            let control = control.to_owned();
            return self.control(&control, parts, body).await;
        }
        let path = self.path_of(parts.uri.path()).ok_or(Refusal::NotFound)?;
        match parts.method {
            Method::PUT => {
                let create = Create::parse(&parts.headers)?;
                // A fork's type is its source's: it may turn out to be JSON.
                let unknown = create.content_type.is_none() && create.fork.is_some();
                let kind = create.content_type.as_deref().map_or(Kind::Binary, Kind::of);
                let json = unknown || kind == Kind::Json;
                let body = self.arrived(&parts.headers, body, json).await?;
                self.put(&path, &create, body, &parts.uri).await
            }
            Method::POST => {
                let append = Append::parse(&parts.headers)?;
                // Without a content type the body is refused, or has to be empty.
                let kind = append.content_type.as_deref().map_or(Kind::Json, Kind::of);
                let body = self.arrived(&parts.headers, body, kind == Kind::Json).await?;
                self.post(&path, &append, body)
            }
            Method::GET => {
                let read = Read::parse(&parts.headers, parts.uri.query().unwrap_or_default())?;
                self.get(&path, &read).await
            }
            Method::HEAD => self.head(&path),
            Method::DELETE => {
                self.delete(&path)?;
                Ok(answer(StatusCode::NO_CONTENT))
            }
            _ => Err(Refusal::MethodNotAllowed),
        }
    }

    /// The stream's path in this URL path: below the root, decoded; `None` for one that can be
    /// no stream's.
    pub(super) fn path_of(&self, url: &str) -> Option<String> {
        let path = percent_decode_str(self.below_root(url)?).decode_utf8().ok()?;
        sound_path(&path).then(|| path.into_owned())
    }

    fn control_path<'u>(&self, url: &'u str) -> Option<&'u str> {
        self.below_root(url)?.strip_prefix(RESERVED)?.strip_prefix('/')
    }

    fn below_root<'u>(&self, url: &'u str) -> Option<&'u str> {
        url.strip_prefix(self.options().root.trim_end_matches('/'))?.strip_prefix('/')
    }

    async fn arrived(
        &self,
        headers: &HeaderMap,
        body: Incoming,
        json: bool,
    ) -> Result<Arrived<S, P>, Refusal> {
        let options = self.options();
        let limit = if json { options.json_bytes } else { options.append_bytes };
        let said = headers.get(CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok());
        if said.is_some_and(|said: usize| said > limit) {
            return Err(too_large(body, limit).await);
        }
        if json {
            return Ok(Arrived::whole(self, collect(body, limit).await?));
        }
        let size = options.page_bytes.clamp(1, PIECE_BYTES);
        Arrived::in_pieces(self, body, size, limit).await
    }

    async fn put(
        &self,
        path: &str,
        create: &Create,
        body: Arrived<S, P>,
        uri: &http::Uri,
    ) -> Answer {
        let created = self.create_arrived(path, create, body).await?;
        let status = if created.new { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = answer(status);
        let headers = response.headers_mut();
        if created.new {
            headers.insert(LOCATION, value(uri));
        }
        state(headers, &created.stream);
        Ok(response)
    }

    fn post(&self, path: &str, append: &Append, body: Arrived<S, P>) -> Answer {
        let done = self.append_arrived(path, append, body)?;
        // New data of a producer is told from a repeat by its status (section 5.2.1).
        let new = done.producer.is_some() && done.appended;
        let mut response = answer(if new { StatusCode::OK } else { StatusCode::NO_CONTENT });
        let headers = response.headers_mut();
        headers.insert(STREAM_NEXT_OFFSET, value(done.tail));
        if done.closed {
            headers.insert(STREAM_CLOSED, TRUE);
        }
        if let Some(producer) = done.producer {
            headers.insert(PRODUCER_EPOCH, HeaderValue::from(producer.epoch));
            headers.insert(PRODUCER_SEQ, HeaderValue::from(producer.seq));
        }
        Ok(response)
    }

    fn head(&self, path: &str) -> Answer {
        let stream = self.find(path)?;
        let mut response = answer(StatusCode::OK);
        let headers = response.headers_mut();
        state(headers, &stream);
        match stream.lifetime {
            Some(Lifetime::Ttl(seconds)) => headers.insert(STREAM_TTL, HeaderValue::from(seconds)),
            Some(Lifetime::Until(at)) => headers.insert(STREAM_EXPIRES_AT, value(rfc3339(at))),
            None => None,
        };
        Ok(response)
    }

    async fn get(&self, path: &str, read: &Read) -> Answer {
        match read.live {
            None => {
                let (stream, from) = self.located(path, read.position)?;
                if let Some(response) = self.not_modified(&stream, read) {
                    return Ok(response);
                }
                if stream.end - from <= self.options().page_bytes as u64 {
                    let (bytes, next) = self.page(&stream, from).await?;
                    let (from, next) = (Offset::new(from), Offset::new(next));
                    return Ok(self.page_answer(Page { stream, bytes, from, next }, read, None));
                }
                self.check_boundary(&stream, from).await?;
                let to = self.read_to(&stream, from).await?;
                Ok(self.pages_answer(stream, from, to, read))
            }
            Some(Live::LongPoll) => {
                let page = self.long_poll(path, read.position).await?;
                let cursor = self.cursor(read.cursor);
                Ok(self.page_answer(page, read, Some(cursor)))
            }
            Some(Live::Sse) => {
                let (stream, from) = self.located(path, read.position)?;
                self.check_boundary(&stream, from).await?;
                Ok(self.sse_answer(stream, from, read))
            }
        }
    }

    /// The answer to a reader that has all of what it asks for: the stream is not read for it.
    fn not_modified(&self, stream: &Stream, read: &Read) -> Option<Response<Body>> {
        let (Some(known), Position::At(from)) = (&read.if_none_match, read.position) else {
            return None;
        };
        if stream.end - from.bytes() > self.options().read_bytes as u64 {
            return None;
        }
        let page = Page { next: stream.tail(), stream: stream.clone(), bytes: Vec::new(), from };
        let tag = etag(&page);
        let mut tags = known.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        if !tags.any(|known| known == tag || known == "*") {
            return None;
        }
        let mut response = answer(StatusCode::NOT_MODIFIED);
        let headers = response.headers_mut();
        self.page_headers(headers, &page);
        headers.insert(ETAG, value(tag));
        Some(response)
    }

    fn page_headers(&self, headers: &mut HeaderMap, page: &Page) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.options().cache.header()));
        headers.insert(STREAM_NEXT_OFFSET, value(page.next));
        if page.up_to_date() {
            headers.insert(STREAM_UP_TO_DATE, TRUE);
        }
        if page.is_end() {
            headers.insert(STREAM_CLOSED, TRUE);
        }
    }

    /// What the answer says of the content that it has.
    fn content_headers(headers: &mut HeaderMap, page: &Page, read: &Read) {
        if read.position != Position::Now {
            headers.insert(ETAG, value(etag(page)));
        }
        headers.insert(CONTENT_TYPE, value(&page.stream.content_type));
    }

    /// The answer to a read of several pages.
    fn pages_answer(&self, stream: Stream, from: u64, to: u64, read: &Read) -> Response<Body> {
        let (first, next) = (Offset::new(from), Offset::new(to));
        let page = Page { stream, bytes: Vec::new(), from: first, next };
        let mut response = answer(StatusCode::OK);
        self.page_headers(response.headers_mut(), &page);
        Self::content_headers(response.headers_mut(), &page, read);
        *response.body_mut() = self.pages(page.stream, from, to);
        response
    }

    fn page_answer(&self, page: Page, read: &Read, cursor: Option<u64>) -> Response<Body> {
        // A long-poll that found nothing has no content; a plain read has an empty one.
        let none = cursor.is_some() && page.bytes.is_empty();
        let mut response = answer(if none { StatusCode::NO_CONTENT } else { StatusCode::OK });
        let headers = response.headers_mut();
        self.page_headers(headers, &page);
        if let Some(cursor) = cursor.filter(|_| !page.is_end()) {
            headers.insert(STREAM_CURSOR, HeaderValue::from(cursor));
        }
        if page.bytes.is_empty() {
            // Where the end is may change at any time.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(Cache::NoStore.header()));
        }
        if none {
            return response;
        }
        Self::content_headers(headers, &page, read);
        let kind = Kind::of(&page.stream.content_type);
        *response.body_mut() = Body::Full(kind.decode(page.bytes));
        response
    }

    fn sse_answer(&self, stream: Stream, from: u64, read: &Read) -> Response<Body> {
        let mut response = answer(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if Kind::of(&stream.content_type) == Kind::Binary {
            headers.insert(STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
        }
        *response.body_mut() = self.events(stream, from, read);
        response
    }
}

/// Whether a stream may have this path.
pub(super) fn sound_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.len() <= PATH_BYTES
        && !path.contains(char::is_control)
        && path.split('/').next() != Some(RESERVED)
}

/// The entity tag of a page: it names the stream, the page, and whether the stream ends there.
fn etag(page: &Page) -> String {
    let end = if page.is_end() { ":c" } else { "" };
    let short = |offset: Offset| offset.bytes();
    format!("\"{}:{}:{}{end}\"", page.stream.id.0, short(page.from), short(page.next))
}

/// What every answer about a stream's present state says.
fn state(headers: &mut HeaderMap, stream: &Stream) {
    headers.insert(CONTENT_TYPE, value(&stream.content_type));
    headers.insert(STREAM_NEXT_OFFSET, value(stream.tail()));
    if stream.closed.is_some() {
        headers.insert(STREAM_CLOSED, TRUE);
    }
}

/// An answer without a body, which nobody may keep.
pub(super) fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Full(Vec::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = answer(refusal.status());
    let headers = response.headers_mut();
    headers.extend(refusal.headers());
    let (body, content_type) = refusal.body();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = Body::Full(body);
    response
}

fn preflight() -> Response<Body> {
    let mut response = answer(StatusCode::NO_CONTENT);
    for (name, text) in [
        (ACCESS_CONTROL_ALLOW_METHODS, super::METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(text));
    }
    response
}
