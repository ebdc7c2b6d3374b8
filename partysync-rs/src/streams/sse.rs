//! Server-sent events: how a stream's bytes and its state are written (section 5.8).

use super::{Kind, Offset};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A `data` event with these stored bytes.
///
/// ```
/// use partysync::streams::{Kind, data_event};
/// assert_eq!(data_event(Kind::Text, b"a\r\nb".to_vec()), b"event: data\ndata:a\ndata:b\n\n");
/// assert_eq!(data_event(Kind::Binary, vec![1, 2]), b"event: data\ndata:AQI=\n\n");
/// ```
#[must_use]
pub fn data_event(kind: Kind, stored: Vec<u8>) -> Vec<u8> {
    let mut event = b"event: data\n".to_vec();
    if kind == Kind::Binary {
        event.extend_from_slice(b"data:");
        event.extend_from_slice(STANDARD.encode(stored).as_bytes());
        event.push(b'\n');
    } else {
        let body = kind.decode(stored);
        // Events are UTF-8; a stream of text that is not cannot be shown as it is.
        let text = String::from_utf8_lossy(&body);
        // Each kind of line end would end the field, and two of them the event.
        let text = text.replace("\r\n", "\n");
        for line in text.split(['\n', '\r']) {
            // A reader takes one space away behind the colon.
            event.extend_from_slice(if line.starts_with(' ') { b"data: " } else { b"data:" });
            event.extend_from_slice(line.as_bytes());
            event.push(b'\n');
        }
    }
    event.push(b'\n');
    event
}

/// A `control` event: where to read on, and whether there is more.
///
/// ```
/// use partysync::streams::{Offset, control_event};
/// let closed = control_event(Offset::START, None, true, true);
/// assert!(String::from_utf8_lossy(&closed).contains("\"streamClosed\":true"));
/// ```
#[must_use]
pub fn control_event(next: Offset, cursor: Option<u64>, up_to_date: bool, closed: bool) -> Vec<u8> {
    let mut control = serde_json::Map::new();
    control.insert("streamNextOffset".into(), next.to_string().into());
    if let Some(cursor) = cursor.filter(|_| !closed) {
        control.insert("streamCursor".into(), cursor.to_string().into());
    }
    for (name, set) in [("upToDate", up_to_date), ("streamClosed", closed)] {
        if set {
            control.insert(name.into(), true.into());
        }
    }
    format!("event: control\ndata:{}\n\n", serde_json::Value::Object(control)).into_bytes()
}

/// How many bytes at the end of a text are the beginning of a character that is not whole yet.
pub(crate) fn unfinished(text: &[u8]) -> usize {
    let begins = |back: &usize| {
        let last = text.len().checked_sub(*back).and_then(|at| text.get(at..)).unwrap_or_default();
        let broken = std::str::from_utf8(last).err();
        broken.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(event: &[u8]) -> Vec<(String, String)> {
        // As the SSE standard reads it.
        let text = std::str::from_utf8(event).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        let block = |block: &str| {
            let (mut kind, mut data) = (String::new(), Vec::new());
            for line in block.lines() {
                match line.split_once(':') {
                    Some(("event", name)) => kind = name.trim_start().to_owned(),
                    Some(("data", text)) => {
                        data.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
                    }
                    _ => panic!("a line of another kind: {line:?}"),
                }
            }
            (kind, data.join("\n"))
        };
        text.split("\n\n").filter(|b| !b.is_empty()).map(block).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_sent_stays_one_event(text in "([\\r\\n ]|event: control|data: |\\PC)*") {
            let events = read(&data_event(Kind::Text, text.clone().into_bytes()));
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&events[0].0, "data");
            let lines = text.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(&events[0].1, &lines);
        }

        #[test]
        fn a_character_is_never_cut(text in "\\PC*", cut in 0usize..64) {
            let bytes = text.as_bytes();
            let part = &bytes[..cut.min(bytes.len())];
            let whole = part.len() - unfinished(part);
            prop_assert!(std::str::from_utf8(&part[..whole]).is_ok());
            prop_assert!(part.len() - whole < 4);
        }
    }
}
