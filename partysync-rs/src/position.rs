//! [`Position`]: where a row stands among others, so that another can be put between any two.

use crate::sql::{SqlType, Value};
use crate::{Code, Column, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The digits, in the order in which texts sort.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: usize = DIGITS.len();
/// How many characters one has at most that a client sends, and how many of them are its whole
/// number: more than anybody's rows need.
const LONGEST: usize = 1_024;
const LONGEST_WHOLE: usize = 13;

/// Where a row stands among others that a user puts in order: a text that sorts as the rows do, and
/// between any two of which there is another. To move a row, only that row is written.
///
/// It is made where the row is moved, and carried by the action. It has something of the row's key in
/// it: two rows that two users put in the same place at the same time stand beside each other, and
/// another fits between them.
///
/// At either end a position has about five characters, and one more for 62, 3,844, .. rows; between
/// the same two rows, one more for each five or six that are put there. A client's that has
/// more than 1,024 characters is refused.
///
/// ```
/// use partysync::Position;
///
/// let first = Position::between(None, None, "a");
/// let last = Position::between(Some(&first), None, "b");
/// let moved = Position::between(Some(&first), Some(&last), "c");
/// assert!(first < moved && moved < last);
/// // In front of all.
/// assert!(Position::between(None, Some(&first), "d") < first);
/// // Somebody else has put another row there meanwhile.
/// assert_ne!(Position::between(Some(&first), Some(&last), "e"), moved);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position(Box<str>);

// A whole number and a fraction, in base 62. The first letter says how many digits the number has,
// so that numbers sort as texts: `a` to `z` for one to 26 digits, and `Z` to `A` below zero.

impl Position {
    /// One between two, for the row with the key `of`; `None` is an end of the list. Where the second
    /// is not behind the first, it is one behind the first.
    #[must_use]
    pub fn between(low: Option<&Self>, high: Option<&Self>, of: &str) -> Self {
        let high = high.filter(|high| low.is_none_or(|low| low < *high));
        let mut made = Self::middle(low, high);
        let tail = tail(of);
        // The tail may lead beyond a `high` that begins with what was made: then it is one between
        // these two, and in the end one that `high` does not begin with.
        for _ in 0..8 {
            let whole = Self(format!("{}{tail}", made.0).into());
            match high {
                // In front of the very first there is nothing.
                Some(high) if whole >= *high && made < *high => {
                    made = Self::middle(Some(&made), Some(high));
                }
                _ => return whole,
            }
        }
        made
    }

    fn middle(low: Option<&Self>, high: Option<&Self>) -> Self {
        let made = match (low, high) {
            (None, None) => "a0".to_owned(),
            (Some(low), None) => low.next(),
            (None, Some(high)) => high.previous(),
            (Some(low), Some(high)) => low.until(high),
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
        let (whole, _) = self.parts();
        // In front of the least number is nothing.
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

/// Something of a row's key, as the end of a fraction: the last of its digits is not 0.
fn tail(of: &str) -> String {
    let mut hash = crate::store::hash(of) as usize;
    let mut digits = [b'1'; 3];
    for digit in &mut digits {
        *digit = letter(hash % BASE);
        hash /= BASE;
    }
    if let [.., last @ b'0'] = &mut digits {
        *last = b'1';
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
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

/// What a client sends: it leaves room for what others put beside it.
impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let position = Self::read(text)?;
        let (whole, _) = position.parts();
        if position.0.len() > LONGEST || whole.len() > LONGEST_WHOLE {
            return Err(refused(&position.0));
        }
        Ok(position)
    }
}

fn refused(text: &str) -> Error {
    Error::new(Code::InvalidValue, format!("`{}` is no position", crate::wire::clip(text)))
}

impl Position {
    /// One of any length, as [`between`](Self::between) may have made it.
    fn read(text: String) -> Result<Self> {
        let bytes = text.as_bytes();
        let letter = bytes.first().filter(|letter| letter.is_ascii_alphabetic());
        let digits = bytes.iter().all(u8::is_ascii_alphanumeric);
        let whole = letter.map_or(usize::MAX, |letter| length(*letter));
        // A fraction that ends with 0 has a shorter name.
        let fits = bytes.len() >= whole && (bytes.len() == whole || !text.ends_with('0'));
        if digits && fits { Ok(Self(text.into())) } else { Err(refused(&text)) }
    }
}

impl Column for Position {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::from(&*self.0)
    }

    fn from_value(value: Value) -> Result<Self> {
        Self::read(String::from_value(value)?)
    }

    fn from_json(json: &serde_json::Value) -> Result<Self> {
        String::from_json(json)?.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(text: &str) -> Position {
        Position::from_value(Value::from(text)).unwrap()
    }

    fn between(low: Option<&Position>, high: Option<&Position>) -> Position {
        Position::between(low, high, "key")
    }

    #[test]
    fn the_ends_grow_by_a_character_for_62_times_as_many() {
        let longest = |step: fn(&Position) -> Position| {
            let mut at = between(None, None);
            let mut lengths = Vec::new();
            for _ in 0..4_000 {
                let next = step(&at);
                lengths.push(next.as_str().len());
                at = next;
            }
            (lengths[59], lengths[3_903], *lengths.last().unwrap())
        };
        assert_eq!(longest(|at| between(Some(at), None)), (5, 6, 7));
        assert_eq!(longest(|at| between(None, Some(at))), (5, 6, 7));
    }

    #[test]
    fn the_last_number_goes_on_with_fractions_and_so_does_the_first() {
        let mut last = position(&"z".repeat(27));
        let mut first = position(&format!("A{}", "0".repeat(26)));
        for _ in 0..10 {
            let (after, before) = (between(Some(&last), None), between(None, Some(&first)));
            assert!(after > last);
            assert_eq!(position(after.as_str()), after);
            // Nothing is in front of the very first: it stands beside it.
            assert!(before <= between(None, Some(&last)));
            (last, first) = (after, before);
        }
    }

    #[test]
    fn a_second_that_is_not_behind_the_first_is_passed_over() {
        let first = between(None, None);
        let second = between(Some(&first), None);
        assert!(between(Some(&first), Some(&first)) > first);
        assert!(between(Some(&second), Some(&first)) > second);
    }

    #[test]
    fn rows_that_are_put_in_one_place_at_a_time_stand_apart() {
        let (low, high) = (position("a0"), position("a1"));
        let ends =
            [(None, None), (Some(&low), None), (None, Some(&low)), (Some(&low), Some(&high))];
        for (low, high) in ends {
            let made: std::collections::BTreeSet<_> =
                (0..100).map(|n| Position::between(low, high, &n.to_string())).collect();
            assert_eq!(made.len(), 100, "{low:?} {high:?}");
        }
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

    #[test]
    fn whatever_a_client_may_send_another_can_be_made_beside_it_and_read() {
        let accepts = |text: &str| Position::from_json(&text.into()).ok();
        let long = format!("a0{}", "z".repeat(1_022));
        let longer = format!("{long}1");
        let ends =
            [long, "z".repeat(1_024), format!("A{}", "0".repeat(26)), "lzzzzzzzzzzzz".into()];
        for end in ends.iter().filter_map(|end| accepts(end)) {
            let (mut after, mut before) = (end.clone(), end.clone());
            for _ in 0..100 {
                after = between(Some(&after), None);
                before = between(None, Some(&before));
                for made in [&after, &before] {
                    assert_eq!(Position::from_value(made.to_value()).unwrap(), *made);
                    assert!(made.as_str().len() < 1_100, "{made}");
                }
            }
        }
        assert!(accepts(&longer).is_none() && accepts(&"z".repeat(27)).is_none());
        assert!(serde_json::from_value::<Position>(longer.into()).is_err());
    }

    proptest! {
        /// Rows that are put anywhere in a list are where they were put, as SQL sorts them.
        #[test]
        fn whatever_is_put_anywhere_stands_there(places in prop::collection::vec(0_usize..1_000, 1..300)) {
            let mut list: Vec<Position> = Vec::new();
            for place in places {
                let at = place % (list.len() + 1);
                let low = at.checked_sub(1).map(|at| &list[at]);
                let made = Position::between(low, list.get(at), &place.to_string());
                prop_assert_eq!(&position(made.as_str()), &made);
                list.insert(at, made);
            }
            for pair in list.windows(2) {
                prop_assert!(pair[0].as_str().as_bytes() < pair[1].as_str().as_bytes());
            }
        }
    }
}
