//! Writing: JSON to MessagePack.

use super::{FIRST, LAST, RECORD};
use crate::livestore::json::{bounded, whole};
use crate::{Code, Error, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Messages that are JSON, as one buffer: an array of them.
///
/// # Errors
/// [`Code::InvalidFrame`] for what is not JSON.
///
/// ```
/// let bytes = partysync::livestore::msgpack::encode([r#"{"_tag":"Eof"}"#])?;
/// assert_eq!(bytes, b"\x91\xd4\x72\x40\x91\xa4_tag\xa3Eof");
/// # Ok::<_, partysync::Error>(())
/// ```
pub fn encode<'m>(messages: impl IntoIterator<Item = &'m str>) -> Result<Vec<u8>> {
    let messages: Vec<_> = messages.into_iter().map(whole).collect();
    // Few have numbers that cannot be read: they are looked for when there is one.
    encode_read(&messages).or_else(|error| {
        let bounded: Vec<_> = messages.iter().map(|message| bounded(message)).collect();
        if bounded.iter().all(Option::is_none) {
            return Err(error);
        }
        let either = bounded.into_iter().zip(messages);
        let either = either.map(|(bounded, message)| bounded.map_or(message, Cow::Owned));
        encode_read(&either.collect::<Vec<_>>())
    })
}

fn encode_read(messages: &[Cow<'_, str>]) -> Result<Vec<u8>> {
    let nodes = messages.iter().map(|message| serde_json::from_str(message));
    let nodes = nodes.collect::<serde_json::Result<Vec<Node<'_>>>>();
    let nodes = nodes.map_err(|error| Error::new(Code::InvalidFrame, error.to_string()))?;
    let mut writer = Writer::default();
    writer.list(&nodes);
    Ok(writer.out)
}

/// A value; objects with their keys in order.
enum Node<'j> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'j, str>),
    List(Vec<Node<'j>>),
    Record(Vec<Cow<'j, str>>, Vec<Node<'j>>),
}

/// A key, borrowed where it has no escapes.
struct Key<'j>(Cow<'j, str>);

impl<'j> Deserialize<'j> for Key<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a key is no text")),
        }
    }
}

impl<'j> Deserialize<'j> for Node<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'j> Visitor<'j> for Values {
            type Value = Node<'j>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Node::Integer(value))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Node::Float(value))
            }

            fn visit_borrowed_str<E>(self, text: &'j str) -> Result<Self::Value, E> {
                Ok(Node::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Node::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                while let Some((Key(key), value)) = map.next_entry()? {
                    keys.push(key);
                    values.push(value);
                }
                Ok(Node::Record(keys, values))
            }
        }

        deserializer.deserialize_any(Values)
    }
}

#[derive(Default)]
struct Writer<'n> {
    out: Vec<u8>,
    shapes: HashMap<&'n [Cow<'n, str>], u8>,
    /// The shape of each id that was given out.
    given: Vec<&'n [Cow<'n, str>]>,
    /// The next id to give out; ids come round.
    next: usize,
}

impl<'n> Writer<'n> {
    /// A length, in the shortest of its forms: as part of a byte, in 1 byte where there is such a
    /// form, in 2, in 4.
    fn length(&mut self, length: usize, small: (u8, usize), forms: (Option<u8>, u8, u8)) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length), _) if usize::from(length) < small.1 => self.out.push(small.0 | length),
            (Ok(length), _) if let Some(form) = forms.0 => self.out.extend([form, length]),
            (_, Ok(length)) => self.tagged(forms.1, length.to_be_bytes()),
            _ => self.tagged(forms.2, length.to_be_bytes()),
        }
    }

    fn tagged<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.out.push(tag);
        self.out.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.length(text.len(), (0xa0, 32), (Some(0xd9), 0xda, 0xdb));
        self.out.extend_from_slice(text.as_bytes());
    }

    fn list(&mut self, values: &'n [Node<'n>]) {
        self.length(values.len(), (0x90, 16), (None, 0xdc, 0xdd));
        values.iter().for_each(|value| self.value(value));
    }

    #[allow(clippy::cast_precision_loss)]
    fn value(&mut self, value: &'n Node<'n>) {
        match value {
            Node::Null => self.out.push(0xc0),
            Node::Bool(false) => self.out.push(0xc2),
            Node::Bool(true) => self.out.push(0xc3),
            Node::Integer(value) => self.integer(*value),
            Node::Float(value) => self.tagged(0xcb, value.to_be_bytes()),
            Node::Text(text) => self.text(text),
            Node::List(values) => self.list(values),
            Node::Record(keys, values) => {
                self.shape(keys);
                values.iter().for_each(|value| self.value(value));
            }
        }
    }

    /// As msgpackr: what has more than 32 bits is a floating-point number.
    #[allow(clippy::cast_precision_loss)]
    fn integer(&mut self, value: i64) {
        if let Ok(small) = i8::try_from(value) {
            match small {
                -32..=0x3f => self.out.push(small.cast_unsigned()),
                0x40.. => self.tagged(0xcc, small.to_be_bytes()),
                _ => self.tagged(0xd0, small.to_be_bytes()),
            }
        } else if let Ok(value) = u8::try_from(value) {
            self.tagged(0xcc, [value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.tagged(0xcd, value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.tagged(0xce, value.to_be_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.tagged(0xd1, value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.tagged(0xd2, value.to_be_bytes());
        } else {
            self.tagged(0xcb, (value as f64).to_be_bytes());
        }
    }

    /// Names a shape, and defines it where it is new.
    fn shape(&mut self, keys: &'n [Cow<'n, str>]) {
        if let Some(id) = self.shapes.get(keys) {
            return self.out.push(*id);
        }
        let id = FIRST + u8::try_from(self.next).unwrap_or_default();
        match self.given.get_mut(self.next) {
            Some(before) => {
                self.shapes.remove(std::mem::replace(before, keys));
            }
            None => self.given.push(keys),
        }
        self.next = (self.next + 1) % (usize::from(LAST - FIRST) + 1);
        self.shapes.insert(keys, id);
        self.out.extend([0xd4, RECORD, id]);
        self.length(keys.len(), (0x90, 16), (None, 0xdc, 0xdd));
        keys.iter().for_each(|key| self.text(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_too_large_is_the_largest_and_what_is_no_json_is_refused() {
        let mut expected = b"\x92\xc0\x91\xcb".to_vec();
        expected.extend(f64::MAX.to_be_bytes());
        let digits = format!("[1{}]", "0".repeat(400));
        assert_eq!(encode(["null", &digits]).unwrap(), expected);
        assert_eq!(encode(["null", "[1e999]"]).unwrap(), expected);
        assert_eq!(encode(["{", "[1e999]"]).unwrap_err().code(), Code::InvalidFrame);
    }
}
