//! JSON that not every reader takes as it is: events go through parsers with limits of their own.

use std::borrow::Cow;
use std::ops::Range;

/// How deep arguments lie in each other at most.
const DEPTH: usize = 64;
/// A number of fewer letters without an exponent is one that JavaScript has.
const SAFE_DIGITS: usize = 300;

/// What matters in JSON outside of its texts.
enum Token {
    Open,
    Close,
    /// A number that JavaScript would read as infinite.
    TooLarge(Range<usize>),
}

/// Calls `f` with what matters, until it is false.
fn scan(json: &str, mut f: impl FnMut(Token) -> bool) {
    let all = json.as_bytes();
    let number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let mut at = 0;
    while let Some(byte) = all.get(at) {
        let start = at;
        at += 1;
        let token = match byte {
            b'"' => {
                while let Some(byte) = all.get(at) {
                    at += if *byte == b'\\' { 2 } else { 1 };
                    if *byte == b'"' {
                        break;
                    }
                }
                continue;
            }
            b'[' | b'{' => Token::Open,
            b']' | b'}' => Token::Close,
            b'-' | b'0'..=b'9' => {
                let rest = all.get(at..).unwrap_or_default();
                at += rest.iter().position(|byte| !number(byte)).unwrap_or(rest.len());
                let text = json.get(start..at).unwrap_or_default();
                let plain = text.len() < SAFE_DIGITS && !text.contains(['e', 'E']);
                if plain || !text.parse::<f64>().is_ok_and(f64::is_infinite) {
                    continue;
                }
                Token::TooLarge(start..at)
            }
            _ => continue,
        };
        if !f(token) {
            return;
        }
    }
}

/// Why not every client could read this JSON.
pub(super) fn unreadable(json: &str) -> Option<&'static str> {
    let (mut depth, mut why) = (0_usize, None);
    scan(json, |token| {
        match token {
            Token::Open => {
                depth += 1;
                if depth > DEPTH {
                    why = Some("lie too deep in each other");
                }
            }
            Token::Close => depth = depth.saturating_sub(1),
            Token::TooLarge(_) => why = Some("hold a number that is too large"),
        }
        why.is_none()
    });
    why
}

/// The same JSON with the largest number in place of those that are too large: a log that was
/// written by others may have them, and has to be read. `None` where there are none.
pub(super) fn bounded(json: &str) -> Option<String> {
    let (mut out, mut copied) = (String::new(), 0);
    scan(json, |token| {
        if let Token::TooLarge(place) = token {
            out.push_str(json.get(copied..place.start).unwrap_or_default());
            let negative = json.get(place.clone()).is_some_and(|text| text.starts_with('-'));
            out.push_str(if negative {
                "-1.7976931348623157e308"
            } else {
                "1.7976931348623157e308"
            });
            copied = place.end;
        }
        true
    });
    if copied == 0 {
        return None;
    }
    out.push_str(json.get(copied..).unwrap_or_default());
    Some(out)
}

/// JSON in which the halves of letters that JavaScript writes where a text was cut in the middle of
/// one, such as `\ud83d`, are U+FFFD: no UTF-8 has them.
pub(super) fn whole(json: &str) -> Cow<'_, str> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str(json.get(copied..at).unwrap_or_default());
                out.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            (Some(_), _) => at += 6,
            _ => at += 2,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(json.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_javascript_reads_as_infinite_are_found_with_an_exponent_and_without() {
        let digits = format!(r#"{{"a": -1{}, "b": "9e999"}}"#, "0".repeat(309));
        for json in [r#"{"a": [1e309]}"#, r#"{"a": 0.1E400}"#, &digits] {
            assert_eq!(unreadable(json), Some("hold a number that is too large"), "{json}");
            let bounded = bounded(json).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(json).is_err());
            assert!(serde_json::from_str::<serde_json::Value>(&bounded).is_ok(), "{bounded}");
            assert!(bounded.contains("1.7976931348623157e308"), "{bounded}");
        }
        let fine = format!(
            r#"{{"a": 1{}, "b": "\\\"1e999", "c": 0.{}1, "d": 1e-999}}"#,
            "0".repeat(308),
            "0".repeat(400)
        );
        assert_eq!((unreadable(&fine), bounded(&fine)), (None, None));
    }
}
