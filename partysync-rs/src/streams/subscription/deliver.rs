//! Delivery: posting wakes to webhooks, trying again, and taking wakes away from workers that do
//! not come back (sections 7.1 and 7.3).

use super::{Delivery, Subscription, webhook};
use crate::Timestamp;
use crate::streams::life::AFTER_FAULT;
use crate::streams::{Offset, Platform, Post, Refusal, Store, Streams};
use serde::Deserialize;

const FIRST_RETRY_MILLIS: i64 = 1_000;
const LAST_RETRY_MILLIS: i64 = 60_000;

/// What a webhook may answer at once.
#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    done: bool,
}

/// How long to wait behind so many failures: twice as long each time, a fifth of it by chance.
fn backoff(attempts: u32, chance: u8) -> i64 {
    let whole = (FIRST_RETRY_MILLIS << attempts.saturating_sub(1).min(16)).min(LAST_RETRY_MILLIS);
    whole * 4 / 5 + whole * 2 / 5 * i64::from(chance) / 255
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// When a subscription wants something next.
    pub(in crate::streams) fn next_delivery(&self) -> crate::Result<Option<Timestamp>> {
        let all = self.subscriptions()?;
        let busy = self.posts_under_way(&all) >= self.inner.platform.posts_at_once();
        let delivering = self.inner.delivering.borrow();
        let soon = self.now().plus_millis(FIRST_RETRY_MILLIS);
        let due = |subscription: &Subscription| {
            // What is under way is looked after, and what waits for it, too; the alarm is there
            // in case that ends.
            let later = delivering.contains(&subscription.id) || busy && subscription.posts();
            subscription.due().map(|due| if later { due.max(soon) } else { due })
        };
        Ok(all.iter().filter_map(due).min())
    }

    fn posts_under_way(&self, all: &[Subscription]) -> usize {
        let delivering = self.inner.delivering.borrow();
        all.iter().filter(|known| known.posts() && delivering.contains(&known.id)).count()
    }

    /// Delivers what is due, beside the request that made it so.
    pub(in crate::streams) fn deliver_later(&self) -> crate::Result<()> {
        let now = self.now();
        if self.next_delivery()?.is_none_or(|at| at > now) {
            return Ok(());
        }
        let all = self.subscriptions()?;
        let mut free =
            self.inner.platform.posts_at_once().saturating_sub(self.posts_under_way(&all));
        let mut due: Vec<_> = all.iter().filter(|s| s.due().is_some_and(|at| at <= now)).collect();
        // Who has waited longest comes first.
        due.sort_by_key(|subscription| subscription.due());
        for subscription @ Subscription { id, .. } in due {
            if subscription.posts() && !self.inner.delivering.borrow().contains(id) {
                let Some(left) = free.checked_sub(1) else { continue };
                free = left;
            }
            // One at a time each; what is under way looks again when it is done.
            if self.inner.delivering.borrow_mut().insert(id.clone()) {
                let (server, id) = (self.clone(), id.clone());
                self.inner.platform.spawn(Box::pin(async move {
                    let delivered = server.deliver(&id).await;
                    let failed = delivered.is_err();
                    server.report("a wake could not be delivered", delivered);
                    if failed {
                        // It is still noted as due: not at once again.
                        server.inner.platform.sleep(AFTER_FAULT).await;
                    }
                    server.inner.delivering.borrow_mut().remove(&id);
                    server.attend();
                }));
            }
        }
        Ok(())
    }

    async fn deliver(&self, id: &str) -> Result<(), Refusal> {
        let Some(mut subscription) = self.subscription(id)? else { return Ok(()) };
        let Some(wake) = &mut subscription.wake else { return Ok(()) };
        if wake.lease_until.is_some_and(|until| until <= self.now()) {
            // The worker did not come back.
            self.end_wake(subscription, Vec::new())?;
            return Ok(());
        }
        if wake.next_attempt.is_none_or(|at| at > self.now()) {
            return Ok(());
        }
        let Delivery::Webhook { url } = subscription.config.delivery.clone() else { return Ok(()) };
        let mut changes = Vec::new();
        let pending = self.pending(id, &mut changes)?;
        self.commit(changes)?;
        if pending.is_empty() {
            self.end_wake(subscription, Vec::new())?;
            return Ok(());
        }
        // Noted before it is sent: if this ends here, it is tried again, but not at once.
        let [chance, ..] = self.inner.platform.random()?;
        wake.attempts += 1;
        let retry_at = self.now().plus_millis(backoff(wake.attempts, chance));
        let ttl = subscription.config.lease_ttl_ms;
        wake.next_attempt = Some(retry_at.max(self.lease_end(ttl)));
        wake.snapshot = pending.iter().map(|p| (p.path.clone(), p.stream.end)).collect();
        let sent = wake.clone();
        self.keep(&subscription)?;
        let streams: Vec<_> = pending.iter().map(super::wake::Pending::to_json).collect();
        let body = serde_json::json!({
            "subscription_id": id, "wake_id": sent.id, "generation": subscription.generation,
            "streams": streams, "callback_token": sent.token,
            "callback_url": format!("{}/__ds/subscriptions/{id}/callback", subscription.base),
        });
        let body = body.to_string().into_bytes();
        let allowed = webhook::check(&url, self.options().local_webhooks);
        let answer = match allowed {
            Ok(()) => {
                let headers = vec![("Webhook-Signature".to_owned(), self.signature(&body)?)];
                let local = webhook::is_local(&url);
                self.inner.platform.post(Post { url, headers, body, local }).await.ok()
            }
            // The operator has become stricter since.
            Err(_) => None,
        };
        // Its callback, or its deletion, may have come first.
        let Some(mut subscription) = self.subscription(id)? else { return Ok(()) };
        let Some(wake) = subscription.wake.as_mut().filter(|wake| wake.id == sent.id) else {
            return Ok(());
        };
        match answer {
            Some((200..=299, body)) => {
                subscription.failed = false;
                let done =
                    serde_json::from_slice::<Answered>(&body).is_ok_and(|answer| answer.done);
                if done {
                    let acks = self.acknowledge(id, &sent.snapshot)?;
                    self.end_wake(subscription, acks)?;
                } else {
                    wake.next_attempt = None;
                    wake.lease_until = Some(self.lease_end(ttl));
                    self.keep(&subscription)?;
                }
            }
            _ => {
                subscription.failed = true;
                let [chance, ..] = self.inner.platform.random()?;
                wake.next_attempt = Some(self.now().plus_millis(backoff(wake.attempts, chance)));
                self.keep(&subscription)?;
            }
        }
        Ok(())
    }
}

/// An offset in an acknowledgement.
pub(super) fn acked(text: &str) -> Option<u64> {
    text.parse::<Offset>().ok().map(Offset::bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_second_to_a_minute_and_vary_by_a_fifth() {
        assert_eq!((backoff(1, 0), backoff(1, 255)), (800, 1_200));
        assert_eq!((backoff(2, 0), backoff(3, 0)), (1_600, 3_200));
        assert_eq!((backoff(30, 0), backoff(u32::MAX, 255)), (48_000, 72_000));
    }
}
