//! How streams end: by deletion or by time, and what becomes of forks and their sources
//! (sections 4.2, 5.4).

use super::{Change, Lifetime, Platform, Refusal, Store, Stream, Streams};
use crate::Timestamp;
use std::cell::Cell;
use std::time::Duration;

/// How long after a failure work that was put off is tried again.
const SETTLE_RETRY_MILLIS: i64 = 1_000;

/// How long to wait when the server itself failed.
pub(super) const AFTER_FAULT: Duration = Duration::from_secs(5);

/// The furthest end of a stream: a hundred years of 365.25 days. An object's alarm can be set for
/// moments up to the year 2189, and JavaScript holds integers up to 2^53.
const FURTHEST_MILLIS: i64 = 100 * 31_557_600 * 1000;

impl Lifetime {
    /// When a stream ends that is touched now; `None` if that is too far away. A little late
    /// rather than early: a sliding end is written down again only when it has moved by a
    /// hundredth of its length.
    fn end(self, now: Timestamp) -> Option<Timestamp> {
        let at = match self {
            Self::Until(at) => at,
            Self::Ttl(seconds) => {
                let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
                now.plus_millis(millis.checked_add(millis / 100)?)
            }
        };
        (at <= now.plus_millis(FURTHEST_MILLIS)).then_some(at)
    }

    /// When a stream ends that is created now.
    pub(super) fn begin(self, now: Timestamp) -> Result<Timestamp, Refusal> {
        match self {
            Self::Until(at) if at <= now => {
                Err(Refusal::bad_request("Stream-Expires-At is over already"))
            }
            _ => self.end(now).ok_or_else(|| {
                Refusal::bad_request(
                    "a stream ends within 100 years; one that has no lifetime does not end",
                )
            }),
        }
    }
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// The stream at this path, unless it has ended.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Gone`] for one that is kept for its forks only.
    pub fn find(&self, path: &str) -> Result<Stream, Refusal> {
        let stream = self.store().at(path)?.ok_or(Refusal::NotFound)?;
        if stream.deleted {
            return Err(Refusal::Gone);
        }
        if self.is_over(&stream)? {
            self.commit(self.removal(&stream)?)?;
            return Err(if stream.forks > 0 { Refusal::Gone } else { Refusal::NotFound });
        }
        Ok(stream)
    }

    /// Deletes a stream. One that has forks is kept for them, and no longer found.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn delete(&self, path: &str) -> Result<(), Refusal> {
        let stream = self.find(path)?;
        self.commit(self.removal(&stream)?)
    }

    /// Whether its time has come. A live reader keeps a stream with a sliding end.
    fn is_over(&self, stream: &Stream) -> Result<bool, Refusal> {
        let now = self.now();
        if stream.expires_at.is_none_or(|at| at > now) {
            return Ok(false);
        }
        let sliding = matches!(stream.lifetime, Some(Lifetime::Ttl(_)));
        if sliding && self.inner.bell.is_awaited(stream.id) {
            self.touch(stream)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// What has to change for a stream to end, up the chain of its sources.
    pub(super) fn removal(&self, stream: &Stream) -> Result<Vec<Change>, Refusal> {
        if stream.forks > 0 {
            let kept = Stream { deleted: true, expires_at: None, ..stream.clone() };
            return Ok(vec![Change::Update(kept)]);
        }
        let mut changes = vec![Change::Remove(stream.id)];
        let mut source = stream.source.clone();
        while let Some(id) = source.map(|source| source.id) {
            let Some(mut above) = self.store().stream(id)? else { break };
            above.forks = above.forks.saturating_sub(1);
            if above.forks > 0 || !above.deleted {
                changes.push(Change::Update(above));
                break;
            }
            changes.push(Change::Remove(id));
            source = above.source;
        }
        Ok(changes)
    }

    /// Moves a sliding end, now that the stream is read or written.
    pub(super) fn touch(&self, stream: &Stream) -> Result<(), Refusal> {
        match self.touched(stream) {
            Some(change) => self.commit(vec![change]),
            None => Ok(()),
        }
    }

    pub(super) fn touched(&self, stream: &Stream) -> Option<Change> {
        let Some(lifetime @ Lifetime::Ttl(seconds)) = stream.lifetime else { return None };
        let due = self.now().plus_millis(i64::try_from(seconds).ok()?.saturating_mul(1000));
        let expires_at = lifetime.end(self.now())?;
        let enough = stream.expires_at.is_some_and(|at| at >= due);
        (!enough).then_some(Change::Touch { id: stream.id, expires_at })
    }

    /// When [`wake`](Self::wake) has something to do next.
    ///
    /// # Errors
    /// What the store says.
    pub fn next_wake(&self) -> crate::Result<Option<Timestamp>> {
        let expiry = self.store().expiring(1)?.first().and_then(|stream| stream.expires_at);
        let settle = self.store().unsettled()?.then(|| self.now().plus_millis(SETTLE_RETRY_MILLIS));
        let delivery = self.next_delivery()?;
        let next = [expiry, settle, delivery].into_iter().flatten().min();
        // What is due already is due now: an alarm cannot be set for the past.
        Ok(next.map(|at| at.max(self.now())))
    }

    /// Does what is due: ends streams, and works off what the store has put off. The platform
    /// calls it when its alarm rings.
    ///
    /// # Errors
    /// What the store says, of the first thing that failed; the others are done. The platform
    /// should call it again then, a little later.
    pub async fn wake(&self) -> crate::Result<()> {
        let ended = self.end_what_is_over().map_err(crate::Error::from);
        let begun = self.deliver_later();
        let settled = self.settle().await;
        // What could not be done is due again.
        self.set_alarm();
        ended.and(begun).and(settled)
    }

    fn end_what_is_over(&self) -> Result<(), Refusal> {
        loop {
            let due = self.store().expiring(16)?;
            let mut ended = false;
            for Stream { id, .. } in due {
                // As it is now: one that ended before it may have been its fork.
                let Some(stream) = self.store().stream(id)? else { continue };
                let over = self.is_over(&stream)?;
                if over {
                    self.commit(self.removal(&stream)?)?;
                }
                ended |= over;
            }
            if !ended {
                return Ok(());
            }
        }
    }

    /// Begins what has become due, and sets the alarm for the rest. Fails nobody: what could not
    /// be begun is due again when the alarm rings.
    pub(super) fn attend(&self) {
        self.report("deliveries could not be begun", self.deliver_later());
        self.report("the store's work could not be begun", self.settle_later());
        self.set_alarm();
    }

    fn set_alarm(&self) {
        let next = self.next_wake().unwrap_or_else(|error| {
            self.inner.platform.report("what is due next could not be found", &error);
            let millis = i64::try_from(AFTER_FAULT.as_millis()).unwrap_or(i64::MAX);
            Some(self.now().plus_millis(millis))
        });
        self.inner.platform.wake_at(next);
    }

    /// Works off what the store has put off, beside the request that put it off.
    fn settle_later(&self) -> crate::Result<()> {
        if self.store().unsettled()? && !self.inner.settling.get() {
            let server = self.clone();
            self.inner.platform.spawn(Box::pin(async move {
                // The alarm is set: what fails now is tried again then.
                server.report("the store's work could not be done", server.settle().await);
            }));
        }
        Ok(())
    }

    async fn settle(&self) -> crate::Result<()> {
        if self.inner.settling.replace(true) {
            return Ok(());
        }
        let _settling = Settling(&self.inner.settling);
        while self.store().unsettled()? {
            self.store().settle().await?;
        }
        Ok(())
    }

    /// How long until this moment.
    pub(super) fn until(&self, at: Timestamp) -> Duration {
        let millis = at.as_millis().saturating_sub(self.now().as_millis()).max(0);
        Duration::from_millis(millis.unsigned_abs())
    }
}

/// A task puts work in order for as long as it holds this.
struct Settling<'a>(&'a Cell<bool>);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
