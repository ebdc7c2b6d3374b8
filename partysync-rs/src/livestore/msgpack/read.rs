//! Reading: MessagePack to JSON.

use super::{DEPTH, FIRST, LAST, RECORD};
use crate::wire::write::string;
use crate::{Code, Error, Result};
use std::fmt::Write as _;
use std::rc::Rc;

/// The messages of a buffer, each as JSON: of arrays their elements, as a message travels in an
/// array of its own. A field that is `undefined` is left out.
///
/// `limit` is the most bytes of keys: those of a shape are written for every record that has it.
///
/// # Errors
/// [`Code::InvalidFrame`] for bytes that are not of the dialect or end too early,
/// [`Code::TooLarge`] above the limit, or for more than 10,000 messages.
///
/// ```
/// // [{"_tag": "Eof"}]
/// let bytes = b"\x91\xd4\x72\x40\x91\xa4_tag\xa3Eof";
/// let messages = partysync::livestore::msgpack::decode(bytes, 1_000)?;
/// assert_eq!(messages, [r#"{"_tag":"Eof"}"#]);
/// # Ok::<_, partysync::Error>(())
/// ```
pub fn decode(bytes: &[u8], limit: usize) -> Result<Vec<String>> {
    let shapes = vec![None; usize::from(LAST - FIRST) + 1];
    let mut reader = Reader { bytes, shapes, left: limit, ended: false };
    let mut messages = Vec::new();
    while !reader.bytes.is_empty() {
        messages.extend(reader.buffer()?);
        if messages.len() as u64 > MESSAGES {
            return Err(too_many());
        }
    }
    Ok(messages)
}

/// The messages of what has come of a stream of buffers so far, and how many bytes they took: what
/// is behind them is the beginning of another buffer.
///
/// # Errors
/// As [`decode`], but for bytes that end too early.
///
/// ```
/// use partysync::livestore::msgpack::decode_begun;
///
/// let bytes = b"\x91\xd4\x72\x40\x91\xa4_tag\xa3Eof\x91\xd4\x72";
/// assert_eq!(decode_begun(bytes, 1_000)?, (vec![r#"{"_tag":"Eof"}"#.to_owned()], 14));
/// # Ok::<_, partysync::Error>(())
/// ```
pub fn decode_begun(bytes: &[u8], limit: usize) -> Result<(Vec<String>, usize)> {
    let (mut messages, mut read) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(read..).filter(|rest| !rest.is_empty()) {
        // Each buffer defines its own shapes.
        let shapes = vec![None; usize::from(LAST - FIRST) + 1];
        let mut reader = Reader { bytes: rest, shapes, left: limit, ended: false };
        match reader.buffer() {
            Ok(more) => messages.extend(more),
            Err(_) if reader.ended => break,
            Err(error) => return Err(error),
        }
        read = bytes.len() - reader.bytes.len();
    }
    Ok((messages, read))
}

/// The most messages of a buffer: LiveStore's clients send one.
const MESSAGES: u64 = 10_000;

fn too_many() -> Error {
    Error::new(Code::TooLarge, format!("{MESSAGES} messages are the limit"))
}

struct Reader<'b> {
    bytes: &'b [u8],
    /// Whether bytes were asked for that are not there.
    ended: bool,
    /// The keys of each shape, as JSON with a colon.
    shapes: Vec<Option<Rc<[String]>>>,
    /// How many bytes of keys may still be written.
    left: usize,
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidFrame, format!("not MessagePack of LiveStore's: {what}"))
}

impl<'b> Reader<'b> {
    /// The messages of an array, or the one message that is in none.
    fn buffer(&mut self) -> Result<Vec<String>> {
        let byte = self.byte()?;
        match self.array(byte)? {
            Some(count) if count > MESSAGES => Err(too_many()),
            Some(count) => (0..count).map(|_| self.message(None)).collect(),
            None => Ok(vec![self.message(Some(byte))?]),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            self.ended = true;
            return Err(invalid("it ends too early"));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes.iter().copied().next().unwrap_or_default())
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| invalid("it ends too early"))
    }

    fn u8(&mut self) -> Result<u64> {
        self.byte().map(u64::from)
    }

    fn u16(&mut self) -> Result<u64> {
        self.array_of().map(u16::from_be_bytes).map(u64::from)
    }

    fn u32(&mut self) -> Result<u64> {
        self.array_of().map(u32::from_be_bytes).map(u64::from)
    }

    /// The length of the array that this byte begins, if it does.
    fn array(&mut self, byte: u8) -> Result<Option<u64>> {
        Ok(match byte {
            0x90..=0x9f => Some(u64::from(byte & 0x0f)),
            0xdc => Some(self.u16()?),
            0xdd => Some(self.u32()?),
            _ => None,
        })
    }

    fn text_of(&mut self, bytes: u64) -> Result<&'b str> {
        let bytes = self.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map_err(invalid)
    }

    /// The text that this byte begins, if it does.
    fn text(&mut self, byte: u8) -> Result<Option<&'b str>> {
        let length = match byte {
            0xa0..=0xbf => u64::from(byte & 0x1f),
            0xd9 => self.u8()?,
            0xda => self.u16()?,
            0xdb => self.u32()?,
            _ => return Ok(None),
        };
        self.text_of(length).map(Some)
    }

    fn key(&mut self) -> Result<String> {
        let byte = self.byte()?;
        let text = self.text(byte)?.ok_or_else(|| invalid("a key is no text"))?;
        let mut key = String::with_capacity(text.len() + 3);
        string(&mut key, text);
        key.push(':');
        Ok(key)
    }

    fn message(&mut self, first: Option<u8>) -> Result<String> {
        let mut out = String::new();
        let byte = first.map_or_else(|| self.byte(), Ok)?;
        self.value(byte, &mut out, DEPTH)?;
        Ok(out)
    }

    /// The length of the map that this byte begins, if it does.
    fn map(&mut self, byte: u8) -> Result<Option<u64>> {
        Ok(match byte {
            0x80..=0x8f => Some(u64::from(byte & 0x0f)),
            0xde => Some(self.u16()?),
            0xdf => Some(self.u32()?),
            _ => None,
        })
    }

    /// The integer that this byte begins, if it does.
    fn integer(&mut self, byte: u8) -> Result<Option<i128>> {
        Ok(Some(match byte {
            0x00..FIRST => i128::from(byte),
            0xe0..=0xff => i128::from(byte.cast_signed()),
            0xcc => i128::from(self.u8()?),
            0xcd => i128::from(self.u16()?),
            0xce => i128::from(self.u32()?),
            0xcf => i128::from(u64::from_be_bytes(self.array_of()?)),
            0xd0 => i128::from(i8::from_be_bytes(self.array_of()?)),
            0xd1 => i128::from(i16::from_be_bytes(self.array_of()?)),
            0xd2 => i128::from(i32::from_be_bytes(self.array_of()?)),
            0xd3 => i128::from(i64::from_be_bytes(self.array_of()?)),
            _ => return Ok(None),
        }))
    }

    /// The number with a fraction that this byte begins, if it does.
    fn float(&mut self, byte: u8) -> Result<Option<f64>> {
        Ok(match byte {
            0xca => Some(f64::from(f32::from_be_bytes(self.array_of()?))),
            0xcb => Some(f64::from_be_bytes(self.array_of()?)),
            _ => None,
        })
    }

    fn value(&mut self, byte: u8, out: &mut String, depth: usize) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| invalid("values lie too deep"))?;
        if let Some(text) = self.text(byte)? {
            string(out, text);
        } else if let Some(integer) = self.integer(byte)? {
            let _ = write!(out, "{integer}");
        } else if let Some(float) = self.float(byte)? {
            number(float, out);
        } else if let Some(count) = self.array(byte)? {
            self.list(count, out, depth)?;
        } else if let Some(count) = self.map(byte)? {
            self.fields(count, out, depth)?;
        } else {
            match byte {
                FIRST..=LAST => return self.record(byte, out, depth),
                0xd4 => return self.extension(out, depth),
                0xc0 => out.push_str("null"),
                0xc2 => out.push_str("false"),
                0xc3 => out.push_str("true"),
                other => return Err(invalid(format_args!("a value begins with {other:#04x}"))),
            }
        }
        Ok(())
    }

    fn list(&mut self, count: u64, out: &mut String, depth: usize) -> Result<()> {
        out.push('[');
        for n in 0..count {
            if n > 0 {
                out.push(',');
            }
            let byte = self.byte()?;
            self.value(byte, out, depth)?;
        }
        out.push(']');
        Ok(())
    }

    /// A shape's definition and its first record, or `undefined`.
    fn extension(&mut self, out: &mut String, depth: usize) -> Result<()> {
        let (kind, id) = (self.byte()?, self.byte()?);
        if (kind, id) == (0, 0) {
            // In an array.
            out.push_str("null");
            return Ok(());
        }
        if kind != RECORD {
            return Err(invalid(format_args!("an extension of the type {kind:#04x}")));
        }
        let byte = self.byte()?;
        let count = self.array(byte)?.ok_or_else(|| invalid("a shape is no list of keys"))?;
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(self.key()?);
        }
        let place = self.shape(id).ok_or_else(|| invalid(format_args!("a shape {id:#04x}")))?;
        *place = Some(keys.into());
        self.record(id, out, depth)
    }

    fn shape(&mut self, id: u8) -> Option<&mut Option<Rc<[String]>>> {
        self.shapes.get_mut(usize::from(id.checked_sub(FIRST)?))
    }

    fn record(&mut self, id: u8, out: &mut String, depth: usize) -> Result<()> {
        let keys = self.shape(id).and_then(|keys| keys.clone());
        let keys = keys.ok_or_else(|| invalid(format_args!("the shape {id:#04x} is not known")))?;
        out.push('{');
        let start = out.len();
        for key in &*keys {
            self.field(key, start, out, depth)?;
        }
        out.push('}');
        Ok(())
    }

    fn fields(&mut self, count: u64, out: &mut String, depth: usize) -> Result<()> {
        out.push('{');
        let start = out.len();
        for _ in 0..count {
            let key = self.key()?;
            self.field(&key, start, out, depth)?;
        }
        out.push('}');
        Ok(())
    }

    fn field(&mut self, key: &str, start: usize, out: &mut String, depth: usize) -> Result<()> {
        if let Some(rest) = self.bytes.strip_prefix(b"\xd4\0\0") {
            self.bytes = rest;
            return Ok(());
        }
        if out.len() > start {
            out.push(',');
        }
        self.left = self
            .left
            .checked_sub(key.len())
            .ok_or_else(|| Error::new(Code::TooLarge, "the message is too large"))?;
        out.push_str(key);
        let byte = self.byte()?;
        self.value(byte, out, depth)
    }
}

/// A number as `JSON.stringify` writes it, as far as its value goes.
fn number(float: f64, out: &mut String) {
    const SAFE: f64 = 9_007_199_254_740_991.0;
    #[allow(clippy::cast_possible_truncation)]
    let _ = if !float.is_finite() {
        out.write_str("null")
    } else if float.fract() == 0.0 && float.abs() <= SAFE {
        write!(out, "{}", float as i64)
    } else {
        write!(out, "{float:e}")
    };
}
