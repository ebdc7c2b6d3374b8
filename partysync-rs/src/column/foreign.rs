//! [`Column`] for types of other crates: moments of `chrono` and `time`, and decimals.

use super::Column;
use crate::sql::{SqlType, Value};
use crate::{Code, Error, Result};

/// A moment in UTC as it is written: `2026-01-31T09:30:00.000000000Z`. All are of the same length, so
/// that their texts are in the order of time.
#[cfg(any(feature = "chrono", feature = "time"))]
struct Written {
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanosecond: u32,
}

#[cfg(any(feature = "chrono", feature = "time"))]
impl Written {
    /// The text; a year without four digits has one that is out of order.
    fn text(&self) -> Value {
        let Self { year, month, day, hour, minute, second, nanosecond } = self;
        Value::Text(format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z"
        ))
    }

    fn try_text(&self) -> Result<Value> {
        if (0..=9999).contains(&self.year) {
            return Ok(self.text());
        }
        let message =
            format!("the year {} is none of 0 to 9999: its text is not in order", self.year);
        Err(Error::new(Code::InvalidValue, message))
    }

    fn read(value: Value) -> Result<Self> {
        const SHAPE: &[u8] = b"0000-00-00T00:00:00.000000000Z";
        let text = String::from_value(value)?;
        let fits =
            |(c, shape): (u8, &u8)| if *shape == b'0' { c.is_ascii_digit() } else { c == *shape };
        if text.len() != SHAPE.len() || !text.bytes().zip(SHAPE).all(fits) {
            return Err(not_a_moment());
        }
        let part = |from: usize, to: usize| {
            text.get(from..to).and_then(|part| part.parse::<u32>().ok()).ok_or_else(not_a_moment)
        };
        let small = |from| part(from, from + 2)?.try_into().map_err(|_| not_a_moment());
        Ok(Self {
            year: part(0, 4)?.try_into().map_err(|_| not_a_moment())?,
            month: small(5)?,
            day: small(8)?,
            hour: small(11)?,
            minute: small(14)?,
            second: small(17)?,
            nanosecond: part(20, 29)?,
        })
    }
}

#[cfg(any(feature = "chrono", feature = "time"))]
fn not_a_moment() -> Error {
    let message = "expected a moment, as `2026-01-31T09:30:00.000000000Z`";
    Error::new(Code::InvalidValue, message)
}

/// To the nanosecond, as text. A leap second is the end of the second before it.
#[cfg(feature = "chrono")]
impl Column for chrono::DateTime<chrono::Utc> {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        written_chrono(*self).text()
    }

    fn try_to_value(&self) -> Result<Value> {
        written_chrono(*self).try_text()
    }

    fn from_value(value: Value) -> Result<Self> {
        let Written { year, month, day, hour, minute, second, nanosecond } = Written::read(value)?;
        chrono::NaiveDate::from_ymd_opt(year, month.into(), day.into())
            .and_then(|date| {
                date.and_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond)
            })
            .map(|moment| moment.and_utc())
            .ok_or_else(not_a_moment)
    }
}

#[cfg(feature = "chrono")]
fn written_chrono(moment: chrono::DateTime<chrono::Utc>) -> Written {
    use chrono::{Datelike, Timelike};
    // None of them is larger than two digits.
    let small = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
    Written {
        year: moment.year(),
        month: small(moment.month()),
        day: small(moment.day()),
        hour: small(moment.hour()),
        minute: small(moment.minute()),
        second: small(moment.second()),
        nanosecond: moment.nanosecond().min(999_999_999),
    }
}

/// To the nanosecond, as text in UTC: the offset is not kept.
#[cfg(feature = "time")]
impl Column for time::OffsetDateTime {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        written_time(*self).text()
    }

    fn try_to_value(&self) -> Result<Value> {
        written_time(*self).try_text()
    }

    fn from_value(value: Value) -> Result<Self> {
        let Written { year, month, day, hour, minute, second, nanosecond } = Written::read(value)?;
        let month = time::Month::try_from(month).map_err(|_| not_a_moment())?;
        let date = time::Date::from_calendar_date(year, month, day).map_err(|_| not_a_moment())?;
        let time = time::Time::from_hms_nano(hour, minute, second, nanosecond)
            .map_err(|_| not_a_moment())?;
        Ok(time::PrimitiveDateTime::new(date, time).assume_utc())
    }
}

#[cfg(feature = "time")]
fn written_time(moment: time::OffsetDateTime) -> Written {
    // One at the end of all years has no date in UTC: it stays as it is, and its year is refused.
    let moment = moment.checked_to_offset(time::UtcOffset::UTC).unwrap_or(moment);
    Written {
        year: moment.year(),
        month: moment.month().into(),
        day: moment.day(),
        hour: moment.hour(),
        minute: moment.minute(),
        second: moment.second(),
        nanosecond: moment.nanosecond(),
    }
}

/// All its digits, as text, which is in no order: `9` comes after `10`.
#[cfg(feature = "decimal")]
impl Column for rust_decimal::Decimal {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }

    fn from_value(value: Value) -> Result<Self> {
        let text = String::from_value(value)?;
        Self::from_str_exact(&text)
            .map_err(|_| Error::new(Code::InvalidValue, "expected a decimal"))
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use super::*;
    use crate::params;
    use crate::sql::{Sql, Sqlite};
    use proptest::prelude::*;
    use serde_json::Value as Json;

    /// What is written is what is read: as a value, in JSON, and out of SQLite.
    fn survives<T: Column + PartialEq + std::fmt::Debug>(column: &T, db: &Sqlite) {
        let value = column.try_to_value().unwrap();
        assert_eq!(T::from_value(value.clone()).unwrap(), *column);
        let json = column.to_json().unwrap().to_string();
        let json: Json = serde_json::from_str(&json).unwrap();
        assert_eq!(T::from_json(&json).unwrap(), *column);
        let sql: &dyn Sql = db;
        let back = sql.query_one("SELECT ?", [value], |row| row.get::<T>(0));
        assert_eq!(back.unwrap(), *column);
    }

    /// SQLite puts two of them in the order in which they are.
    #[cfg(any(feature = "chrono", feature = "time"))]
    fn in_order<T: Column + PartialOrd>(a: &T, b: &T, db: &Sqlite) {
        let sql: &dyn Sql = db;
        let both = params![a.try_to_value().unwrap(), b.try_to_value().unwrap()];
        let less = sql.query_one("SELECT ? < ?", both, |row| row.get::<bool>(0));
        assert_eq!(less.unwrap(), a < b);
    }

    /// From the year 0 to the end of 9999, in seconds.
    #[cfg(any(feature = "chrono", feature = "time"))]
    const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

    proptest! {
        #[cfg(feature = "chrono")]
        #[test]
        fn a_moment_of_chrono_survives_and_is_in_order(
            a in (YEARS, 0..1_000_000_000_u32), b in (YEARS, 0..1_000_000_000_u32), near in any::<bool>(),
        ) {
            let db = Sqlite::in_memory().unwrap();
            let b = if near { (a.0, b.1) } else { b };
            let [a, b] = [a, b].map(|(s, n)| chrono::DateTime::from_timestamp(s, n).unwrap());
            survives(&a, &db);
            survives(&Some(b), &db);
            in_order(&a, &b, &db);
        }

        #[cfg(feature = "time")]
        #[test]
        fn a_moment_of_time_survives_and_is_in_order(
            a in (YEARS, 0..1_000_000_000_i64), b in (YEARS, 0..1_000_000_000_i64), near in any::<bool>(),
            hours in -12..12_i8,
        ) {
            let db = Sqlite::in_memory().unwrap();
            let b = if near { (a.0, b.1) } else { b };
            let [a, b] = [a, b].map(|(s, n)| {
                time::OffsetDateTime::from_unix_timestamp(s).unwrap() + time::Duration::nanoseconds(n)
            });
            survives(&a, &db);
            in_order(&a, &b, &db);
            let offset = time::UtcOffset::from_hms(hours, 0, 0).unwrap();
            if let Some(there) = a.checked_to_offset(offset) {
                survives(&there, &db);
                assert_eq!(there.try_to_value().unwrap(), a.try_to_value().unwrap());
            }
        }

        #[cfg(feature = "decimal")]
        #[test]
        fn a_decimal_survives_with_all_its_digits(
            digits in -79_228_162_514_264_337_593_543_950_335_i128..=79_228_162_514_264_337_593_543_950_335,
            scale in 0..=28_u32,
        ) {
            let db = Sqlite::in_memory().unwrap();
            let decimal = rust_decimal::Decimal::from_i128_with_scale(digits, scale);
            survives(&decimal, &db);
            let text = decimal.try_to_value().unwrap();
            assert_eq!(rust_decimal::Decimal::from_value(text).unwrap().scale(), scale);
        }
    }

    #[cfg(feature = "chrono")]
    #[test]
    fn what_is_no_moment_is_an_error_and_never_another_one() {
        use chrono::{DateTime, Utc};
        for text in [
            "2026-02-29T00:00:00.000000000Z",
            "2026-01-31T09:30:00Z",
            "2026-01-31T09:30:00.000000000+",
            "2026-01-31 09:30:00.000000000Z",
            "2026-01-31T24:00:00.000000000Z",
            "é026-01-31T09:30:00.00000000Z",
        ] {
            let error = DateTime::<Utc>::from_value(Value::from(text)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidValue, "{text}");
        }
        for moment in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
            assert_eq!(moment.try_to_value().unwrap_err().code(), Code::InvalidValue);
        }
    }

    #[cfg(feature = "time")]
    #[test]
    fn a_moment_before_the_year_0_is_an_error() {
        let moment = time::OffsetDateTime::from_unix_timestamp(YEARS.start - 1).unwrap();
        assert_eq!(moment.try_to_value().unwrap_err().code(), Code::InvalidValue);
        let text = Value::from("2026-02-29T00:00:00.000000000Z");
        assert_eq!(time::OffsetDateTime::from_value(text).unwrap_err().code(), Code::InvalidValue);
    }
}
