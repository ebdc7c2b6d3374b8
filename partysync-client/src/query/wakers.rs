//! [`Wakers`]: whoever waits for a result that has changed.

use std::task::Waker;

/// Those who wait for results that have changed: to be woken when no lock is held, as they may ask at
/// once.
#[derive(Clone, Debug, Default)]
pub struct Wakers(Vec<Waker>);

impl PartialEq for Wakers {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.will_wake(b))
    }
}

impl Wakers {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes them.
    pub fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}
