//! The protocol's headers, and reading them: [`Create`], [`Append`] and [`Read`] are what a
//! request asks for once its headers and its query have been found sound (section 5).

use super::{Claim, Lifetime, Offset, Position, Refusal};
use crate::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use time::format_description::well_known::Rfc3339;

macro_rules! headers {
    ($($name:ident = $text:literal,)*) => {
        $(
            #[doc = concat!("`", $text, "`, see the protocol's section 13.2.")]
            pub const $name: HeaderName = HeaderName::from_static($text);
        )*
    };
}

headers! {
    STREAM_TTL = "stream-ttl",
    STREAM_EXPIRES_AT = "stream-expires-at",
    STREAM_SEQ = "stream-seq",
    STREAM_CURSOR = "stream-cursor",
    STREAM_NEXT_OFFSET = "stream-next-offset",
    STREAM_UP_TO_DATE = "stream-up-to-date",
    STREAM_CLOSED = "stream-closed",
    STREAM_FORKED_FROM = "stream-forked-from",
    STREAM_FORK_OFFSET = "stream-fork-offset",
    STREAM_FORK_SUB_OFFSET = "stream-fork-sub-offset",
    STREAM_SSE_DATA_ENCODING = "stream-sse-data-encoding",
    PRODUCER_ID = "producer-id",
    PRODUCER_EPOCH = "producer-epoch",
    PRODUCER_SEQ = "producer-seq",
    PRODUCER_EXPECTED_SEQ = "producer-expected-seq",
    PRODUCER_RECEIVED_SEQ = "producer-received-seq",
    WEBHOOK_SIGNATURE = "webhook-signature",
}

/// The greatest integer that JavaScript holds exactly: the protocol's limit for epochs and seqs.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A header's value made of something printable.
pub(crate) fn value(text: impl ToString) -> HeaderValue {
    // What gets here was a header's value before, or is made of digits.
    HeaderValue::from_str(&text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A moment as RFC 3339 writes it, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_millis()) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// What a `PUT` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The content type, as it was written.
    pub content_type: Option<String>,
    /// How long the stream shall live, if the request says so.
    pub lifetime: Option<Lifetime>,
    /// Whether it shall be closed at once.
    pub closed: bool,
    /// What it shall be a fork of.
    pub fork: Option<Fork>,
}

/// What a fork is asked to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The URL path of its source.
    pub from: String,
    /// Where it leaves its source; the source's end if it is not given.
    pub offset: Option<Offset>,
    /// So many messages (JSON) or bytes (anything else) further on.
    pub sub_offset: u64,
}

/// What a `POST` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The content type of the body.
    pub content_type: Option<String>,
    /// The writer's own order: it has to grow, byte by byte compared.
    pub seq: Option<String>,
    /// Whether the stream shall be closed behind the body.
    pub close: bool,
    /// Who appends, if repeats have to be told from new appends.
    pub producer: Option<Claim>,
}

/// What a `GET` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where to begin.
    pub position: Position,
    /// Whether to wait for what is not there yet, and how.
    pub live: Option<Live>,
    /// The cursor of the answer before.
    pub cursor: Option<u64>,
    /// The entity tags that the reader has.
    pub if_none_match: Option<String>,
}

/// How a live read gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// One answer, as soon as there is data.
    LongPoll,
    /// Server-sent events.
    Sse,
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    if second.is_some() {
        return Err(Refusal::bad_request(format!("more than one {name}")));
    }
    first
        .map(|value| {
            value.to_str().map_err(|_| Refusal::bad_request(format!("{name} is not plain text")))
        })
        .transpose()
}

/// A number in decimal digits and nothing else: no sign, no leading zero, no point.
fn number(text: &str, limit: u64) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten().filter(|n| *n <= limit)
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    Ok(text(headers, &CONTENT_TYPE)?.filter(|t| !t.trim().is_empty()).map(str::to_owned))
}

fn closed(headers: &HeaderMap) -> bool {
    // Anything but `true` counts as not there (section 4.1).
    matches!(text(headers, &STREAM_CLOSED), Ok(Some(text)) if text.eq_ignore_ascii_case("true"))
}

fn lifetime(headers: &HeaderMap) -> Result<Option<Lifetime>, Refusal> {
    match (text(headers, &STREAM_TTL)?, text(headers, &STREAM_EXPIRES_AT)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Refusal::bad_request("Stream-TTL or Stream-Expires-At, not both"))
        }
        (Some(ttl), None) => {
            number(ttl, MAX_SAFE_INTEGER / 1000).map(|s| Some(Lifetime::Ttl(s))).ok_or_else(|| {
                Refusal::bad_request(
                    "Stream-TTL is a number of seconds, in digits and without leading zeros",
                )
            })
        }
        (None, Some(at)) => time::OffsetDateTime::parse(at, &Rfc3339)
            .ok()
            .and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok())
            .map(|millis| Some(Lifetime::Until(Timestamp::from_millis(millis))))
            .ok_or_else(|| {
                Refusal::bad_request("Stream-Expires-At is a time as RFC 3339 writes it")
            }),
    }
}

impl Create {
    /// Reads the headers of a `PUT`.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for a header that is not what the protocol says.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Refusal> {
        let from = text(headers, &STREAM_FORKED_FROM)?;
        let offset = text(headers, &STREAM_FORK_OFFSET)?;
        let sub = text(headers, &STREAM_FORK_SUB_OFFSET)?;
        let fork = match from {
            None if offset.is_some() || sub.is_some() => {
                return Err(Refusal::bad_request("a fork needs Stream-Forked-From"));
            }
            None => None,
            Some(from) => {
                let offset = match offset.map(str::parse::<Position>).transpose()? {
                    None => None,
                    Some(Position::At(offset)) => Some(offset),
                    Some(Position::Now) => {
                        return Err(Refusal::bad_request(
                            "leave Stream-Fork-Offset out to fork at the end",
                        ));
                    }
                };
                let sub_offset = match sub {
                    None => 0,
                    Some(sub) => number(sub, MAX_SAFE_INTEGER).ok_or_else(|| {
                        Refusal::bad_request("Stream-Fork-Sub-Offset is a number in digits")
                    })?,
                };
                if sub_offset > 0 && offset.is_none() {
                    return Err(Refusal::bad_request(
                        "Stream-Fork-Sub-Offset needs Stream-Fork-Offset",
                    ));
                }
                Some(Fork { from: from.to_owned(), offset, sub_offset })
            }
        };
        Ok(Self {
            content_type: content_type(headers)?,
            lifetime: lifetime(headers)?,
            closed: closed(headers),
            fork,
        })
    }
}

impl Append {
    /// Reads the headers of a `POST`.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for a header that is not what the protocol says.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Refusal> {
        let id = text(headers, &PRODUCER_ID)?;
        let integer = |name: &HeaderName| {
            let number = |text| {
                number(text, MAX_SAFE_INTEGER).ok_or_else(|| {
                    Refusal::bad_request(format!("{name} is an integer from 0 to 2^53-1"))
                })
            };
            text(headers, name)?.map(number).transpose()
        };
        let producer = match (id, integer(&PRODUCER_EPOCH)?, integer(&PRODUCER_SEQ)?) {
            (None, None, None) => None,
            (Some(""), _, _) => return Err(Refusal::bad_request("Producer-Id is empty")),
            (Some(id), Some(epoch), Some(seq)) => Some(Claim { id: id.to_owned(), epoch, seq }),
            _ => {
                return Err(Refusal::bad_request(
                    "Producer-Id, Producer-Epoch and Producer-Seq belong together",
                ));
            }
        };
        Ok(Self {
            content_type: content_type(headers)?,
            seq: text(headers, &STREAM_SEQ)?.map(str::to_owned),
            close: closed(headers),
            producer,
        })
    }
}

impl Read {
    /// Reads the headers and the query of a `GET`.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for an offset that is none, for two of them, and for a live read
    /// without one.
    pub fn parse(headers: &HeaderMap, query: &str) -> Result<Self, Refusal> {
        let (mut offset, mut live, mut cursor) = (None, None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "offset" if offset.is_some() => {
                    return Err(Refusal::bad_request("more than one offset"));
                }
                "offset" => offset = Some(value.parse::<Position>()?),
                "live" => {
                    live = Some(match value.as_ref() {
                        "long-poll" => Live::LongPoll,
                        "sse" => Live::Sse,
                        _ => return Err(Refusal::bad_request("live is `long-poll` or `sse`")),
                    });
                }
                // A cursor of another server is no reason to fail.
                "cursor" => cursor = value.parse().ok(),
                _ => {}
            }
        }
        if live.is_some() && offset.is_none() {
            return Err(Refusal::bad_request("a live read needs an offset"));
        }
        let if_none_match = text(headers, &http::header::IF_NONE_MATCH)?.map(str::to_owned);
        let position = offset.unwrap_or(Position::At(Offset::START));
        Ok(Self { position, live, cursor, if_none_match })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    #[test]
    fn a_ttl_is_plain_digits() {
        let ttl = |text| Create::parse(&headers(&[("stream-ttl", text)])).map(|c| c.lifetime);
        assert_eq!(ttl("0"), Ok(Some(Lifetime::Ttl(0))));
        assert_eq!(ttl("3600"), Ok(Some(Lifetime::Ttl(3600))));
        for bad in ["+1", "-1", "01", "1.0", "1e3", "", " ", "x", "99999999999999999999"] {
            assert!(ttl(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_expiry_is_a_time_in_any_zone() {
        let at = |text| Create::parse(&headers(&[("stream-expires-at", text)])).map(|c| c.lifetime);
        assert_eq!(
            at("1970-01-01T01:00:01+01:00"),
            Ok(Some(Lifetime::Until(Timestamp::from_millis(1000))))
        );
        assert!(at("tomorrow").is_err());
        assert_eq!(rfc3339(Timestamp::from_millis(1000)), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn a_producer_is_whole_or_not_there() {
        let all = [("producer-id", "a"), ("producer-epoch", "0"), ("producer-seq", "7")];
        let parsed = Append::parse(&headers(&all)).unwrap().producer.unwrap();
        assert_eq!(parsed, Claim { id: "a".into(), epoch: 0, seq: 7 });
        for left_out in 0..3 {
            let mut some = all.to_vec();
            some.remove(left_out);
            assert!(Append::parse(&headers(&some)).is_err());
        }
        for bad in ["-1", "1.5", "9007199254740992", "x"] {
            assert!(
                Append::parse(&headers(&[all[0], all[1], ("producer-seq", bad)])).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_live_read_says_where_it_begins() {
        let read = |query| Read::parse(&HeaderMap::new(), query);
        assert_eq!(read("").unwrap().position, Position::At(Offset::START));
        assert_eq!(read("offset=now&live=sse&cursor=12&x=y").unwrap().cursor, Some(12));
        for bad in
            ["live=sse", "offset=", "offset=-1&offset=-1", "offset=-1&live=yes", "offset=a,b"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
