//! [`Position`]: where a row stands among others, so that another can be put between any two.

use crate::sql::{SqlType, Value};
use crate::{Code, Column, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The digits, in the order in which texts sort.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: usize = DIGITS.len();

/// Where a row stands among others that a user puts in order: a text that sorts as the rows do, and
/// between any two of which there is another. To move a row, only that row is written.
///
/// It is made where the row is moved, and carried by the action. Two users may give two rows the
/// same position at the same time: queries then order them by their keys.
///
/// At either end a position takes one character more for 62, 3,844, .. rows; between the same two
/// rows, one for each five or six that are put there.
///
/// ```
/// use partysync::Position;
///
/// let first = Position::first();
/// let last = first.after();
/// let moved = Position::between(Some(&first), Some(&last));
/// assert!(first < moved && moved < last);
/// // In front of all.
/// assert!(Position::between(None, Some(&first)) < first);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position(Box<str>);

// A whole number and a fraction, in base 62. The first letter says how many digits the number has,
// so that numbers sort as texts: `a` to `z` for one to 26 digits, and `Z` to `A` below zero.

impl Position {
    /// The position of a row that is alone.
    #[must_use]
    pub fn first() -> Self {
        Self("a0".into())
    }

    /// One behind this, when there is none there yet.
    #[must_use]
    pub fn after(&self) -> Self {
        Self::between(Some(self), None)
    }

    /// One in front of this, when there is none there yet.
    #[must_use]
    pub fn before(&self) -> Self {
        Self::between(None, Some(self))
    }

    /// One between two; `None` is an end of the list. Where the second is not behind the first, it
    /// is one behind the first.
    #[must_use]
    pub fn between(low: Option<&Self>, high: Option<&Self>) -> Self {
        let made = match (low, high) {
            (None, None) => return Self::first(),
            (Some(low), None) => low.next(),
            (None, Some(high)) => high.previous(),
            (Some(low), Some(high)) if low < high => low.until(high),
            (Some(low), Some(_)) => low.next(),
        };
        Self(made.into())
    }

    /// The position as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole number with its letter, and the fraction.
    fn parts(&self) -> (&str, &str) {
        let whole = self.0.bytes().next().map_or(0, length);
        self.0.split_at_checked(whole).unwrap_or((&self.0, ""))
    }

    fn next(&self) -> String {
        let (whole, fraction) = self.parts();
        step(whole, true).unwrap_or_else(|| format!("{whole}{}", middle(fraction, None)))
    }

    fn previous(&self) -> String {
        let (whole, fraction) = self.parts();
        if !fraction.is_empty() {
            return whole.to_owned();
        }
        // Nothing is in front of the least number but fractions of the one before, which is none.
        step(whole, false).unwrap_or_else(|| whole.to_owned())
    }

    /// One between this and a greater one.
    fn until(&self, high: &Self) -> String {
        let ((whole, fraction), (high_whole, high_fraction)) = (self.parts(), high.parts());
        if whole == high_whole {
            return format!("{whole}{}", middle(fraction, Some(high_fraction)));
        }
        match step(whole, true) {
            Some(next) if *next < *high.0 => next,
            _ => format!("{whole}{}", middle(fraction, None)),
        }
    }
}

/// How long a whole number is, with its letter.
fn length(letter: u8) -> usize {
    match letter {
        b'a'..=b'z' => usize::from(letter - b'a') + 2,
        _ => usize::from(b'Z' - letter) + 2,
    }
}

fn digit(letter: u8) -> usize {
    DIGITS.binary_search(&letter).unwrap_or(0)
}

fn letter(digit: usize) -> u8 {
    DIGITS.get(digit).copied().unwrap_or(b'0')
}

/// The next whole number, or the one before; `None` beyond the last.
fn step(whole: &str, up: bool) -> Option<String> {
    let (first, digits) = whole.as_bytes().split_first()?;
    let (full, empty) = if up { (b'z', b'0') } else { (b'0', b'z') };
    let mut digits = digits.to_vec();
    for place in digits.iter_mut().rev() {
        if *place != full {
            let now = digit(*place);
            *place = letter(if up { now + 1 } else { now - 1 });
            return String::from_utf8([&[*first], &digits[..]].concat()).ok();
        }
        *place = empty;
    }
    let first = match (*first, up) {
        (b'z', true) | (b'A', false) => return None,
        (b'Z', true) => b'a',
        (b'a', false) => b'Z',
        (first, true) => first + 1,
        (first, false) => first - 1,
    };
    let mut bytes = vec![empty; length(first)];
    bytes.splice(..1, [first]);
    String::from_utf8(bytes).ok()
}

/// A fraction between two, of which the second is greater; `None` is one.
fn middle(low: &str, mut high: Option<&str>) -> String {
    let mut made = String::new();
    for place in 0.. {
        let at = |text: &str| text.as_bytes().get(place).map_or(0, |letter| digit(*letter));
        let (from, to) = (at(low), high.map_or(BASE, at));
        let between = usize::midpoint(from, to);
        made.push(char::from(letter(between)));
        if between > from {
            break;
        }
        if to > from {
            // Whatever follows is below `high` now.
            high = None;
        }
    }
    made
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.0.into()
    }
}

/// A client may say anything: what is no position is refused.
impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let bytes = text.as_bytes();
        let letter = bytes.first().filter(|letter| letter.is_ascii_alphabetic());
        let digits = bytes.iter().all(u8::is_ascii_alphanumeric);
        let whole = letter.map_or(usize::MAX, |letter| length(*letter));
        // A fraction that ends with 0 has a shorter name.
        let fits = digits && bytes.len() >= whole && !(bytes.len() > whole && text.ends_with('0'));
        match fits {
            true => Ok(Self(text.into())),
            false => Err(Error::new(Code::InvalidValue, format!("`{text}` is no position"))),
        }
    }
}

impl Column for Position {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::from(&*self.0)
    }

    fn from_value(value: Value) -> Result<Self> {
        String::from_value(value)?.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(text: &str) -> Position {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn the_ends_grow_by_a_character_for_62_times_as_many() {
        let longest = |step: fn(&Position) -> Position| {
            let mut at = Position::first();
            let mut lengths = Vec::new();
            for _ in 0..4_000 {
                let next = step(&at);
                lengths.push(next.as_str().len());
                at = next;
            }
            (lengths[60], lengths[3_904], *lengths.last().unwrap())
        };
        assert_eq!(longest(Position::after), (2, 3, 4));
        assert_eq!(longest(|at| at.before()), (2, 3, 4));
    }

    #[test]
    fn the_last_number_goes_on_with_fractions() {
        let last = position(&"z".repeat(27));
        assert!(last.after() > last);
        let after = last.after().after();
        assert!(after > last.after());
        assert_eq!(position(after.as_str()), after);
    }

    #[test]
    fn a_second_that_is_not_behind_the_first_is_passed_over() {
        let first = Position::first();
        assert!(Position::between(Some(&first), Some(&first)) > first);
        assert!(Position::between(Some(&first.after()), Some(&first)) > first.after());
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "0", "a", "b0", "a0-", "a00", "äx", "1a", "Zé"] {
            let error = Position::from_value(Value::from(text)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidValue, "{text}");
        }
        assert!(Position::from_value(Value::Integer(1)).is_err());
        assert!(serde_json::from_str::<Position>("\"a00\"").is_err());
        assert_eq!(serde_json::from_str::<Position>("\"a0V\"").unwrap(), position("a0V"));
    }

    proptest! {
        /// Rows that are put anywhere in a list are where they were put, as SQL sorts them.
        #[test]
        fn whatever_is_put_anywhere_stands_there(places in prop::collection::vec(0_usize..1_000, 1..300)) {
            let mut list: Vec<Position> = Vec::new();
            for place in places {
                let at = place % (list.len() + 1);
                let low = at.checked_sub(1).map(|at| &list[at]);
                let made = Position::between(low, list.get(at));
                prop_assert_eq!(&position(made.as_str()), &made);
                list.insert(at, made);
            }
            for pair in list.windows(2) {
                prop_assert!(pair[0].as_str().as_bytes() < pair[1].as_str().as_bytes());
            }
        }
    }
}
