//! `hello`: who a client is, what it follows, and what it lacks of that.

use super::feed::Feed;
use super::project::Followed;
use super::{Caller, Machine, Slot, sight};
use crate::sql::Sql;
use crate::wire::v2::{Hello, Reset, ServerFrame, Welcome};
use crate::{Code, Error, Result, SyncServer, wire};

impl<S: SyncServer> Machine<S> {
    pub(super) fn hello(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        hello: Hello,
    ) -> Result<()> {
        let Some(entry) = self.slots.get(slot) else { return Ok(()) };
        if entry.connection.client.is_some() {
            let message = "`hello` was said already: reconnect to say it anew";
            self.tell(slot, &Error::new(Code::HelloTwice, message));
            return Ok(());
        }
        let id = entry.connection.id().to_owned();
        let identity = entry.connection.identity.clone();
        let mut followed = Vec::new();
        for subscription in &hello.channels {
            let place = match Self::place(&subscription.channel) {
                Ok(place) => place,
                Err(error) => {
                    // A table that is in no type any more: the client is of another version.
                    let error =
                        Error::new(Code::SchemaMismatch, format!("{error}: reload the app"));
                    self.tell_and_close(slot, wire::CLOSE_SCHEMA, &error);
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
        let places = followed.iter().filter_map(|followed| Self::place(&followed.channel).ok());
        let Some(seen) = self.see_all(server, sql, slot, places)? else { return Ok(()) };
        for (followed, seen) in followed.iter_mut().zip(&seen) {
            followed.view = sight::token(seen).map(str::to_owned);
        }
        let reset = self.reset_reason(&hello);
        let view_id = self.intern(&followed, &seen);
        let view = self.views.get(view_id);
        let mut feed = Feed::greeting();
        for (subscription, channel) in hello.channels.iter().zip(view.iter()) {
            let since = subscription.since.filter(|_| reset.is_none() && hello.epoch.is_some());
            // Rows that were seen by another view are of no use.
            let same = subscription.view.as_deref() == sight::token(&channel.seen);
            let since = since.filter(|_| same || crate::__mutated("visible_token"));
            let Some(id) = self.plans.get(channel.channel).map(|plan| plan.id) else { continue };
            let last = self.last_of(sql, id)?;
            let Some(plan) = self.plans.get(channel.channel) else { continue };
            let cache = &mut self.cache;
            match feed.follow(sql, (plan, cache), channel, (since, last), self.flushed) {
                Err(error) if channel.seen.is_some() => return self.blind_one(slot, error),
                followed => followed?,
            }
        }
        self.clients.entry(hello.client.as_str().into()).or_default().connections += 1;
        let welcome = ServerFrame::Welcome(Welcome {
            epoch: self.meta.epoch.clone(),
            version: self.flushed,
            connection: id,
            now: self.meta.now,
            read: Some(self.limits.read_bytes()),
            identity,
        });
        self.send(slot, welcome.to_text());
        if let Some(reason) = reset {
            self.send(slot, ServerFrame::Reset(Reset { reason: reason.to_owned() }).to_text());
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
        self.present.count_anew();
        let greeted =
            self.hook(server, sql, Caller::Connection(slot), |room| server.on_hello(room))?;
        if let Err(error) = greeted {
            let error = self.public(error, "on_hello");
            self.tell(slot, &error);
        }
        Ok(())
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
