//! Idempotent producers: what an append's `(id, epoch, seq)` means for a stream (section 5.2.1).

use serde::{Deserialize, Serialize};

/// What an append says of itself: the headers `Producer-Id`, `Producer-Epoch`, `Producer-Seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which producer.
    pub id: String,
    /// Its session; a producer that starts anew counts it up and so fences off its old self.
    pub epoch: u64,
    /// The append's number in the session, from 0 on.
    pub seq: u64,
}

/// What a stream remembers of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Its latest session.
    pub epoch: u64,
    /// The last append of the session that was taken.
    pub seq: u64,
}

/// What is to be done with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: append it, and remember this.
    Accept(Producer),
    /// It was appended before; the last one that was is this.
    Duplicate(Producer),
    /// A newer session has taken over.
    Fenced {
        /// The newer session's epoch.
        epoch: u64,
    },
    /// Appends before it are missing.
    Gap {
        /// The number that would be next.
        expected: u64,
    },
    /// A new session has to begin with 0.
    NewEpochNotAtZero,
}

impl Claim {
    /// Judges the append by what the stream remembers of its producer.
    ///
    /// ```
    /// use partysync::streams::{Claim, Producer, Verdict};
    ///
    /// let claim = |epoch, seq| Claim { id: "orders".into(), epoch, seq };
    /// let first = Producer { epoch: 0, seq: 0 };
    /// assert_eq!(claim(0, 0).judge(None), Verdict::Accept(first));
    /// assert_eq!(claim(0, 0).judge(Some(first)), Verdict::Duplicate(first));
    /// assert_eq!(claim(0, 2).judge(Some(first)), Verdict::Gap { expected: 1 });
    /// let newer = Producer { epoch: 1, seq: 0 };
    /// assert_eq!(claim(1, 0).judge(Some(first)), Verdict::Accept(newer));
    /// assert_eq!(claim(0, 1).judge(Some(newer)), Verdict::Fenced { epoch: 1 });
    /// ```
    #[must_use]
    pub fn judge(&self, known: Option<Producer>) -> Verdict {
        let accept = Verdict::Accept(Producer { epoch: self.epoch, seq: self.seq });
        match known {
            None if self.seq == 0 => accept,
            None => Verdict::Gap { expected: 0 },
            Some(known) if self.epoch < known.epoch => Verdict::Fenced { epoch: known.epoch },
            Some(known) if self.epoch > known.epoch && self.seq == 0 => accept,
            Some(known) if self.epoch > known.epoch => Verdict::NewEpochNotAtZero,
            Some(known) if self.seq <= known.seq => Verdict::Duplicate(known),
            Some(known) if self.seq == known.seq + 1 => accept,
            Some(known) => Verdict::Gap { expected: known.seq + 1 },
        }
    }
}
