//! The room's one alarm: the application's time, its jobs, and the framework's for forgetting.

use super::machine::{Seq, Stored};
use super::{Caller, Effect, Machine};
use crate::sql::Sql;
use crate::{Result, SyncServer, Timestamp, store};

/// How long after `on_alarm` failed it is tried again, ms: doubled each time, up to the longest.
const RETRY: i64 = 2_000;
const RETRY_LONGEST: i64 = 60 * 60 * 1000;

/// How long after `on_alarm` failed it is called again, ms, where it has failed so often before.
pub(crate) fn retry_after(failures: u32) -> i64 {
    (RETRY << failures.min(12)).min(RETRY_LONGEST)
}

impl<S: SyncServer> Machine<S> {
    /// The alarm rang. One thing is done in a turn: what else is due comes with the next.
    pub(super) fn alarm(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        self.alarm_set = None;
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= self.meta.now);
        if due(self.meta.alarm_at) {
            return self.on_alarm(server, sql);
        }
        if due(self.meta.job_at) {
            return self.run_jobs(server, sql);
        }
        if due(self.meta.compact_at) {
            return self.compact(sql);
        }
        if due(self.meta.trim_at) {
            return self.trim(sql);
        }
        if due(self.present.next_look()) {
            self.look_who_is_silent();
        }
        Ok(())
    }

    fn on_alarm(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        // The hook may set another.
        let failures = self.meta.alarm_failures;
        self.meta.alarm_at = None;
        if let Err(error) = self.hook(server, sql, Caller::Room, |room| server.on_alarm(room))? {
            let wait = retry_after(failures);
            self.meta.alarm_at = Some(self.meta.now.plus_millis(wait));
            self.meta.alarm_failures = failures.saturating_add(1);
            let error = error.context(format_args!("it is called again in {wait} ms"));
            self.fault("on_alarm", error);
        } else {
            self.meta.alarm_failures = 0;
        }
        Ok(())
    }

    fn compact(&mut self, sql: &dyn Sql) -> Result<()> {
        let (mut meta, limits) = (self.meta.clone(), self.limits);
        sql.transaction(&mut || store::compact(sql, Self::SCHEMAS, &limits, &mut meta))?;
        meta.compact_at = (meta.compacting > 0).then_some(meta.now);
        self.meta = meta;
        self.cache.clear();
        Ok(())
    }

    fn trim(&mut self, sql: &dyn Sql) -> Result<()> {
        let (mut meta, limits) = (self.meta.clone(), self.limits);
        let (stamped, mut kept) = (self.stamped(sql), None);
        let done = stamped.transaction(&mut || {
            kept = store::trim(&stamped, Self::SCHEMAS, &limits, &mut meta)?;
            Ok(())
        });
        if let Some(error) = self.written.failure() {
            return Err(error);
        }
        if let Err(error) = done {
            self.meta.trim_at = Some(self.meta.now.plus_millis(RETRY_LONGEST));
            self.fault("forgetting old deletions", error);
            return Ok(());
        }
        self.meta = meta;
        self.stored.trim_at = self.meta.trim_at;
        if let Some(error) = kept {
            let message = format!(
                "rows that were softly deleted long ago are kept by the application's own \
                 constraints or triggers: {error}"
            );
            self.warn(&message);
        }
        // Some may be forgotten: who pushes next is looked up.
        for client in self.clients.values_mut().filter(|client| !client.unsaved) {
            client.seq = Seq::Unknown;
        }
        self.cache.clear();
        Ok(())
    }

    /// Whether the history lacks changes, as it does when it was switched on in a room with rows.
    fn has_to_publish(&self) -> bool {
        #[cfg(feature = "streams")]
        return self.published.is_some_and(|published| published < self.flushed);
        #[cfg(not(feature = "streams"))]
        false
    }

    /// Keeps the room's times, and has the alarm ring at the next.
    pub(super) fn set_alarms(&mut self, sql: &dyn Sql) -> Result<()> {
        let wanted = Stored::of(&self.meta);
        let Stored { alarm_at, alarm_failures, trim_at, compact_at } = self.stored;
        if (alarm_at, alarm_failures) != (wanted.alarm_at, wanted.alarm_failures) {
            store::set_alarm(sql, wanted.alarm_at, wanted.alarm_failures)?;
        }
        if (trim_at, compact_at) != (wanted.trim_at, wanted.compact_at) {
            store::set_forgetting(sql, wanted.trim_at, wanted.compact_at)?;
        }
        self.stored = wanted;
        if std::mem::take(&mut self.jobs_changed) && self.meta.has_jobs {
            self.meta.job_at = store::next_job(sql)?;
        }
        let at_once = self.migrating || self.has_to_publish();
        let next = || self.meta.next_alarm().into_iter().chain(self.present.next_look()).min();
        let next = if at_once { Some(self.meta.now) } else { next() };
        if next != self.alarm_set {
            self.alarm_set = next;
            self.effect(Effect::SetAlarm(next));
        }
        Ok(())
    }
}
