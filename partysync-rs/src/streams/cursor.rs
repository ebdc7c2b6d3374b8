//! Cursors of live reads: they let caches answer many waiting readers with one answer, and
//! never the same answer for ever (protocol section 10.1).

use crate::Timestamp;

/// 2024-10-09T00:00:00Z, from which the protocol counts.
const EPOCH_MILLIS: i64 = 1_728_432_000_000;
const INTERVAL_SECONDS: u64 = 20;
const MAX_JITTER_SECONDS: u64 = 3_600;

/// The cursor of an answer that is given now to a reader that came with the cursor `given`.
/// It is the number of the present interval of 20 seconds, or, if the reader has that already,
/// one that is higher by up to an hour; `random` decides how much.
///
/// ```
/// use partysync::{Timestamp, streams::cursor};
///
/// let now = Timestamp::from_millis(1_728_432_000_000 + 60_000);
/// assert_eq!(cursor(now, None, 7), 3);
/// assert_eq!(cursor(now, Some(2), 7), 3);
/// assert!(cursor(now, Some(3), 7) > 3);
/// ```
#[must_use]
pub fn cursor(now: Timestamp, given: Option<u64>, random: u64) -> u64 {
    let since = now.as_millis().saturating_sub(EPOCH_MILLIS).max(0).unsigned_abs();
    let current = since / 1000 / INTERVAL_SECONDS;
    match given {
        Some(given) if given >= current => {
            let seconds = 1 + random % MAX_JITTER_SECONDS;
            given.saturating_add((seconds / INTERVAL_SECONDS).max(1))
        }
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_never_goes_back(now in 0i64..1 << 45, given in 0u64..1 << 40, random: u64) {
            let next = cursor(Timestamp::from_millis(now), Some(given), random);
            prop_assert!(next > given);
            prop_assert!(next - given <= 180 || next == cursor(Timestamp::from_millis(now), None, 0));
        }
    }
}
