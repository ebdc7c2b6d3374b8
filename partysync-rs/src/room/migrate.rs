//! What a room does before it opens: its rows become those of the running code's version, some in
//! each turn. Until then nobody is let in, and the alarm leads from turn to turn.

use super::{Caller, Event, Machine, Slot};
use crate::migration::{Migrated, Migration};
use crate::sql::Sql;
use crate::{Code, Error, Result, SyncServer, store, wire};

/// A turn has so many batches at most: some change nothing.
const BATCHES: u32 = 16;

impl<S: SyncServer> Machine<S> {
    /// Migrates rows, as many as a turn may. Whether all are.
    ///
    /// # Errors
    /// Why the first batch of the turn failed: what was done before is kept, and the next turn begins
    /// with that batch.
    pub(super) fn migrate(&mut self, server: &S, sql: &dyn Sql) -> Result<bool> {
        store::hold_times(sql, Self::SCHEMAS, true)?;
        let migrated = self.migrate_batches(server, sql);
        store::hold_times(sql, Self::SCHEMAS, false)?;
        if migrated? {
            sql.transaction(&mut || store::finish(sql, Self::SCHEMAS))?;
            return Ok(true);
        }
        Ok(false)
    }

    fn migrate_batches(&mut self, server: &S, sql: &dyn Sql) -> Result<bool> {
        let (begun, most) = (self.meta.version, u64::from(self.limits.migration_rows));
        let mut batches = 0;
        while let Some(step) = store::next_step(sql, Self::SCHEMAS)? {
            let changed = self.meta.version.saturating_sub(begun);
            if batches > 0 && (changed >= most || batches >= BATCHES) {
                return Ok(false);
            }
            let migration = Migration::new(&step);
            // The cursor is kept in the batch's own transaction.
            let done = self.hook(server, sql, Caller::Room, |room| {
                let migrated = server.migrate(room, &migration)?;
                let cursor = match &migrated {
                    Migrated::Done => None,
                    Migrated::More(cursor) => Some(cursor),
                };
                step.keep(room.sql, cursor)
            })?;
            match done {
                Ok(()) => batches += 1,
                Err(_) if batches > 0 => return Ok(false),
                Err(error) => {
                    let (table, from, to) = (migration.table(), migration.from(), migration.to());
                    let message = format!(
                        "table `{table}`: its rows could not be migrated from version {from} to \
                         {to}: {error}"
                    );
                    return Err(Error::new(Code::Migration, message));
                }
            }
            self.flush(server, sql, None)?;
        }
        Ok(true)
    }

    /// Whether rows are still to be migrated: the room does nothing else, and is to be opened anew
    /// after the turn.
    #[must_use]
    pub fn is_migrating(&self) -> bool {
        self.migrating
    }

    /// Sockets that an earlier life of the room left open come again.
    pub(super) fn send_away(&mut self) {
        let slots: Vec<Slot> = self.slots.iter().map(|(slot, _)| slot).collect();
        let (code, reason) = match self.migrating {
            true => (wire::CLOSE_BUSY, MIGRATING),
            // What they have was not sent what the migration has changed.
            false => (wire::CLOSE_RESTART, "restart"),
        };
        for slot in slots {
            self.close(slot, code, reason);
        }
    }

    /// Something happens while rows are migrated: it is to come again.
    pub(super) fn put_off(&mut self, event: Event<'_, S::Action>) {
        let error = Error::retry(MIGRATING);
        match event {
            Event::Connect { protocol, .. } => self.refuse(protocol, error),
            Event::Closed(slot) => {
                self.slots.remove(slot);
                self.dirty.remove(&slot);
                self.unknown.remove(&slot);
            }
            // The turn itself goes on with the migration.
            Event::Alarm
            | Event::AlarmAgain
            | Event::Frame(..)
            | Event::HookDone(_)
            | Event::Heard(_) => {}
        }
    }
}

/// What clients are told meanwhile.
pub(super) const MIGRATING: &str = "the room's data is being brought up to date";
