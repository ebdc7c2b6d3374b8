//! Positions in a stream: [`Offset`], and where a read is asked to begin.

use super::Refusal;
use std::fmt;
use std::str::FromStr;

/// A position in a stream: so many bytes after its beginning. A fork counts on from its source.
///
/// As text it is 33 characters, which sort as the positions do; clients have to treat it as
/// opaque.
///
/// ```
/// use partysync::streams::Offset;
///
/// let offset = Offset::new(42);
/// assert_eq!(offset.to_string(), "0000000000000000_0000000000000042");
/// assert_eq!("0000000000000000_0000000000000042".parse(), Ok(offset));
/// assert!("42".parse::<Offset>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The beginning of every stream.
    pub const START: Self = Self(0);

    /// The position after so many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes lie before it.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first half is there for a later generation of offsets, which has to sort behind.
        write!(f, "{:016}_{:016}", 0, self.0)
    }
}

impl FromStr for Offset {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let digits = |half: &str| {
            (half.len() == 16 && half.bytes().all(|b| b.is_ascii_digit()))
                .then(|| half.parse().ok())
                .flatten()
        };
        match text.split_once('_').map(|(high, low)| (digits(high), digits(low))) {
            // A higher generation was never given out: such an offset lies behind every end.
            Some((Some(high), Some(low))) => Ok(Self(if high == 0u64 { low } else { u64::MAX })),
            _ => Err(Refusal::bad_request("the offset is not one that this server gave out")),
        }
    }
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this offset; `-1` is the beginning.
    At(Offset),
    /// At what is the end when the request arrives (`now`).
    Now,
}

impl FromStr for Position {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "-1" => Ok(Self::At(Offset::START)),
            "now" => Ok(Self::Now),
            other => other.parse().map(Self::At),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn offsets_sort_as_their_texts(a in 0u64..10_000_000_000_000_000, b in 0u64..1000) {
            let (a, b) = (Offset::new(a), Offset::new(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn what_is_no_offset_is_refused(text in "[^_]*|[0-9_+ -]{30,34}|\\PC*") {
            if let Ok(offset) = text.parse::<Offset>() {
                prop_assert_eq!(text.len(), 33);
                prop_assert!(offset.to_string() == text || offset.bytes() == u64::MAX);
            }
        }
    }

    #[test]
    fn the_sentinels_are_positions_and_no_offsets() {
        assert_eq!("-1".parse(), Ok(Position::At(Offset::START)));
        assert_eq!("now".parse(), Ok(Position::Now));
        assert!("-1".parse::<Offset>().is_err());
        assert!("now".parse::<Offset>().is_err());
    }
}
