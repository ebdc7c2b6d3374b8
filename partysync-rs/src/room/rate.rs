//! How much a connection may send in a time: a bucket that fills at a rate.

use crate::Timestamp;

/// Bytes of a frame that count as much as an action.
const BYTES: usize = 16 * 1024;

/// How much a connection may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Actions, or messages, in the long run.
    pub(crate) per_second: u32,
    /// At once, above that.
    pub(crate) burst: u32,
}

/// What a connection has used of its rate, and when that was worked out. Forgotten in
/// hibernation, which takes longer than any rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    used: f64,
    at: Option<Timestamp>,
}

impl Rate {
    /// Whether a frame of so many bytes with so many actions may be read now. A frame without
    /// actions counts as one.
    pub(crate) fn takes(
        &mut self,
        allowed: Allowed,
        now: Timestamp,
        actions: usize,
        bytes: usize,
    ) -> bool {
        let passed = now.as_millis() - self.at.unwrap_or(now).as_millis();
        let refilled = passed as f64 / 1000.0 * f64::from(allowed.per_second);
        let cost = actions.max(1) as f64 + (bytes / BYTES) as f64;
        let used = (self.used - refilled).max(0.0) + cost;
        let fits = used <= f64::from(allowed.burst);
        if fits {
            *self = Self { used, at: Some(now) };
        }
        fits
    }
}

impl Rate {
    /// A frame that was counted is not to count.
    #[cfg(feature = "livestore")]
    pub(crate) fn give_back(&mut self) {
        self.used = (self.used - 1.0).max(0.0);
    }

    /// Adds what was sent.
    #[cfg(feature = "livestore")]
    pub(crate) fn charge_sent(&mut self, now: Timestamp, bytes: usize) {
        self.used += (bytes / BYTES) as f64;
        self.at.get_or_insert(now);
    }

    /// Adds what an answer of so many bytes has cost.
    pub(crate) fn charge(&mut self, now: Timestamp, bytes: usize) {
        const ANSWER_BYTES: usize = 4 * 1024;
        self.used += (bytes / ANSWER_BYTES) as f64;
        self.at.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_bytes_count_like_actions_and_time_makes_room_for_more() {
        let allowed = Allowed { per_second: 10, burst: 20 };
        let at = Timestamp::from_millis;
        let mut rate = Rate::default();
        assert!((0..20).all(|_| rate.takes(allowed, at(1_000), 0, 10)));
        assert!(!rate.takes(allowed, at(1_000), 0, 10));
        assert!(rate.takes(allowed, at(2_000), 9, BYTES));
        assert!(!rate.takes(allowed, at(2_000), 1, 0));
    }
}
