//! `hello`: who a client is, whether the room still knows it, and what it lacks.

use super::feed::Feed;
use super::machine::{Seq, storage_of};
use super::project::Followed;
use super::{Machine, Slot};
use crate::sql::Sql;
use crate::wire::v2::{Hello, Reset, ServerFrame, Welcome};
use crate::{Code, Error, Result, SyncServer, store, wire};
use std::collections::BTreeSet;

impl<S: SyncServer> Machine<S> {
    pub(super) fn hello(&mut self, sql: &dyn Sql, slot: Slot, hello: Hello) -> Result<()> {
        let Some(entry) = self.slots.get(slot) else { return Ok(()) };
        if entry.connection.client.is_some() {
            let message = "`hello` was said already: reconnect to say it anew";
            self.tell(slot, &Error::new(Code::HelloTwice, message));
            return Ok(());
        }
        let id = entry.connection.id().to_owned();
        let mut followed = Vec::new();
        for subscription in &hello.channels {
            let place = match Self::place(&subscription.channel) {
                Ok(place) => place,
                Err(error) => {
                    self.tell_and_close(slot, wire::CLOSE_PROTOCOL, &error);
                    return Ok(());
                }
            };
            let Some(schema) = Self::SCHEMAS.get(place) else { continue };
            match Followed::new(schema, subscription) {
                Ok(channel) => followed.push(channel),
                Err(error) => {
                    self.tell_and_close(slot, wire::CLOSE_SCHEMA, &error);
                    return Ok(());
                }
            }
        }
        let Some(seq) = self.recognize(sql, slot, &hello)? else { return Ok(()) };
        let client = self.clients.entry(hello.client.as_str().into()).or_default();
        client.seq = Seq::At(seq);
        client.connections += 1;
        let welcome = ServerFrame::Welcome(Welcome {
            epoch: self.meta.epoch.clone(),
            version: self.flushed,
            seq,
            connection: id,
            read: Some(self.limits.page_bytes as u64),
        });
        self.send(slot, welcome.to_text());
        let reset = self.reset_reason(&hello);
        if let Some(reason) = reset {
            self.send(slot, ServerFrame::Reset(Reset { reason: reason.to_owned() }).to_text());
        }
        if self.views.is_full() {
            let mut used = BTreeSet::new();
            used.extend(self.slots.iter().filter_map(|(_, entry)| entry.view));
            self.views.retain(&used);
        }
        let view_id = self.views.intern(Self::SCHEMAS, &followed);
        let view = self.views.get(view_id);
        let mut feed = Feed::greeting();
        for (subscription, channel) in hello.channels.iter().zip(view.iter()) {
            let since = subscription.since.filter(|_| reset.is_none() && hello.epoch.is_some());
            let Some(plan) = self.plans.get(channel.channel) else { continue };
            feed.follow(sql, (plan, &mut self.cache), channel, since, self.flushed)?;
        }
        let (live, followed_any) = (feed.is_empty(), !followed.is_empty());
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.connection.client = Some(hello.client);
            entry.connection.channels = followed;
            entry.view = Some(view_id);
            entry.feed = (!live && followed_any).then_some(feed);
        }
        self.dirty.insert(slot);
        self.hungry.insert(slot);
        Ok(())
    }

    /// The last action of this client that has its answer; `None` when the two do not agree on
    /// what was done, and the client was told to go on under another id.
    fn recognize(&mut self, sql: &dyn Sql, slot: Slot, hello: &Hello) -> Result<Option<u64>> {
        let stored = store::client_seq(sql, &hello.client)?;
        // What this turn has done is written at its end.
        let known = match (self.clients.get(hello.client.as_str()).map(|client| client.seq), stored)
        {
            (Some(Seq::At(seq)), Some((_, seen_at))) => Some((seq, seen_at)),
            (_, stored) => stored,
        };
        // Without its seq a resent action could be done twice. In other storage none was done.
        let epoch = hello.epoch.as_deref();
        let elsewhere = epoch.is_some_and(|e| storage_of(e) != storage_of(&self.meta.epoch));
        let set_back = epoch.is_some_and(|epoch| epoch != self.meta.epoch);
        let wrong = match known {
            None if hello.pushed > 0 && !elsewhere => {
                Some("this client was away for so long that the room has forgotten it")
            }
            // What it makes now would count as what it made then.
            Some((seq, _)) if seq > hello.pushed.max(hello.seq) => {
                Some("this client's store is older than what it has sent")
            }
            // What it does next would leave a gap.
            Some((seq, _)) if seq < hello.seq && !set_back => {
                Some("the room's storage is older than what this client was answered")
            }
            _ => None,
        };
        if let Some(message) = wrong {
            let error = Error::new(Code::ClientForgotten, message);
            self.tell_and_close(slot, wire::CLOSE_FORGOTTEN, &error);
            return Ok(None);
        }
        // A new client, or one of another epoch, goes on counting from where it is.
        let seq = known.map_or(hello.seq, |(seq, _)| seq.max(hello.seq));
        let stale = self.client_stale();
        if known.is_none_or(|(known, seen_at)| known < seq || seen_at < stale) {
            store::set_client_seq(sql, &hello.client, seq, self.meta.now)?;
        }
        // It has the answers up to its seq.
        let refused = self.clients.get(hello.client.as_str()).is_none_or(|c| c.connections == 0);
        if refused && known.is_some_and(|(seq, _)| seq > 0) {
            store::forget_rejects(sql, &hello.client, hello.seq)?;
        }
        self.plan_trim();
        Ok(Some(seq))
    }

    /// Why the client's rows are of no use, if they are not.
    fn reset_reason(&self, hello: &Hello) -> Option<&'static str> {
        let epoch = hello.epoch.as_ref()?;
        let any = |of: fn(u64, &Self) -> bool| {
            hello.channels.iter().any(|c| c.since.is_some_and(|since| of(since, self)))
        };
        if *epoch != self.meta.epoch {
            Some("epoch")
        } else if any(|since, room| since > room.flushed) {
            Some("future")
        } else if any(|since, room| since < room.meta.trimmed_to) {
            Some("trimmed")
        } else {
            None
        }
    }
}
