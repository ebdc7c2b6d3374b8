//! [`Job`]: something that a room does at a time. [`Repeat`]: and again.

use crate::{Code, Error, Result, Timestamp};
use std::fmt;
use std::time::Duration;

/// The end of the year 2200: runtimes have no dates long after it.
pub(crate) const FURTHEST: Timestamp = Timestamp::from_millis(7_289_654_400_000);

/// Something that a room does at a time: [`Room::schedule`](crate::Room::schedule) asks for it, and
/// [`SyncServer::on_job`](crate::SyncServer::on_job) does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub(crate) name: String,
    pub(crate) due: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) payload: String,
    pub(crate) repeat: Option<Repeat>,
}

impl Job {
    /// Its name: no other job of the room has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time that it was scheduled for. It may run later.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// When it runs: the time that it is due, or after a failure the next one.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How often it has failed since it was due.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How it is repeated.
    #[must_use]
    pub fn repeat(&self) -> Option<&Repeat> {
        self.repeat.as_ref()
    }

    /// What it was scheduled with.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type, as where an older version of the
    /// application has scheduled it.
    pub fn payload<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.payload).map_err(|error| {
            let message = format!("the payload of the job `{}`: {error}", self.name);
            Error::new(Code::InvalidValue, message)
        })
    }
}

/// When a [`Job`] is done again: after a while, or with the feature `cron` at times of the calendar.
///
/// ```
/// use partysync::Repeat;
/// use std::time::Duration;
///
/// let hourly = Repeat::every(Duration::from_secs(60 * 60))?;
/// assert_eq!(hourly.to_string(), "every 3600000");
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Milliseconds.
    Every(i64),
    /// A pattern.
    Cron(String),
}

impl Repeat {
    /// The shortest time between two, ms: each wakes the object, and is paid for.
    const LEAST: i64 = 1_000;

    /// Again and again, at times that are this far apart.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for less than a second.
    pub fn every(duration: Duration) -> Result<Self> {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        if millis < Self::LEAST {
            let message = format!("a job is repeated after a second or later, not {millis} ms");
            return Err(Error::new(Code::InvalidValue, message));
        }
        Ok(Self(Rule::Every(millis)))
    }

    /// At the times, in UTC, that a pattern of cron names: minute, hour, day of the month, month and
    /// day of the week.
    ///
    /// ```
    /// use partysync::Repeat;
    ///
    /// let weekdays_at_nine = Repeat::cron("0 9 * * MON-FRI")?;
    /// assert!(Repeat::cron("at nine").is_err());
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is no such pattern.
    #[cfg(feature = "cron")]
    pub fn cron(pattern: &str) -> Result<Self> {
        cron::parse(pattern)?;
        Ok(Self(Rule::Cron(pattern.to_owned())))
    }

    /// The first time after `now`. `last` is the one before.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when there is none.
    pub(crate) fn next(&self, last: Timestamp, now: Timestamp) -> Result<Timestamp> {
        let next = match &self.0 {
            Rule::Every(millis) => {
                // Those that were slept through are one.
                let past = now.as_millis().saturating_sub(last.as_millis()).max(0);
                let steps = (past / millis).saturating_add(1);
                last.plus_millis(steps.saturating_mul(*millis))
            }
            #[cfg(feature = "cron")]
            Rule::Cron(pattern) => cron::next(pattern, now)?,
            #[cfg(not(feature = "cron"))]
            Rule::Cron(pattern) => {
                let message = format!("`{pattern}`: this build lacks the feature `cron`");
                return Err(Error::new(Code::InvalidValue, message));
            }
        };
        if next > FURTHEST {
            let message = format!("`{self}` has no time before the end of the year 2200");
            return Err(Error::new(Code::InvalidValue, message));
        }
        Ok(next)
    }

    /// As it is stored.
    pub(crate) fn read(text: &str) -> Result<Self> {
        match text.split_once(' ') {
            Some(("every", millis)) => millis.parse().ok().map(Rule::Every),
            Some(("cron", pattern)) => Some(Rule::Cron(pattern.to_owned())),
            _ => None,
        }
        .map(Self)
        .ok_or_else(|| Error::new(Code::InvalidValue, format!("`{text}` is no repetition")))
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Every(millis) => write!(f, "every {millis}"),
            Rule::Cron(pattern) => write!(f, "cron {pattern}"),
        }
    }
}

#[cfg(feature = "cron")]
mod cron {
    use crate::{Code, Error, Result, Timestamp};
    use chrono::DateTime;

    fn invalid(pattern: &str, error: impl std::fmt::Display) -> Error {
        Error::new(Code::InvalidValue, format!("`{pattern}` names no times: {error}"))
    }

    pub(super) fn parse(pattern: &str) -> Result<croner::Cron> {
        pattern.parse().map_err(|error: croner::errors::CronError| invalid(pattern, error))
    }

    pub(super) fn next(pattern: &str, now: Timestamp) -> Result<Timestamp> {
        let from = DateTime::from_timestamp_millis(now.as_millis())
            .ok_or_else(|| invalid(pattern, "the room's time is no date"))?;
        let next = parse(pattern)?.find_next_occurrence(&from, false);
        let next = next.map_err(|error| invalid(pattern, error))?;
        Ok(Timestamp::from_millis(next.timestamp_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn what_was_slept_through_is_one_and_the_rhythm_stays() -> Result<()> {
        let repeat = Repeat::every(Duration::from_secs(10))?;
        assert_eq!(repeat.next(at(5_000), at(5_000))?, at(15_000));
        assert_eq!(repeat.next(at(5_000), at(14_999))?, at(15_000));
        assert_eq!(repeat.next(at(5_000), at(15_000))?, at(25_000));
        assert_eq!(repeat.next(at(5_000), at(1_000_000))?, at(1_005_000));
        // A clock that was set back.
        assert_eq!(repeat.next(at(5_000), at(0))?, at(15_000));
        let ever = Repeat::every(Duration::MAX)?;
        assert_eq!(ever.next(at(5), at(6)).unwrap_err().code(), Code::InvalidValue);
        assert!(Repeat::every(Duration::from_millis(999)).is_err());
        Ok(())
    }

    #[test]
    fn a_repetition_is_read_as_it_was_written() -> Result<()> {
        for text in ["every 60000", "cron 0 9 * * MON-FRI"] {
            assert_eq!(Repeat::read(text)?.to_string(), text);
        }
        for text in ["", "every", "every day", "never"] {
            assert_eq!(Repeat::read(text).unwrap_err().code(), Code::InvalidValue, "{text}");
        }
        Ok(())
    }

    #[cfg(feature = "cron")]
    #[test]
    fn a_pattern_of_cron_names_the_times_in_utc() -> Result<()> {
        // Saturday, 2026-02-28 23:59:30 UTC.
        let saturday = at(1_772_323_170_000);
        let minute = |pattern: &str| -> Result<i64> {
            let next = Repeat::cron(pattern)?.next(saturday, saturday)?;
            Ok((next.as_millis() - 1_772_323_200_000) / 60_000)
        };
        assert_eq!(minute("* * * * *")?, 0);
        assert_eq!(minute("30 9 * * *")?, 9 * 60 + 30);
        assert_eq!(minute("0 9 * * MON-FRI")?, (24 + 9) * 60);
        assert_eq!(minute("0 0 1 * *")?, 0);
        assert!(Repeat::cron("61 * * * *").is_err());
        assert!(Repeat::cron("").is_err());
        Ok(())
    }
}
