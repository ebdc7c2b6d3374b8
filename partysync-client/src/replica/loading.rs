//! Reading the rows that were stored, so many at a time: the page goes on in between.

use super::frames::keyed;
use super::{Changed, Changes, Replica, Row, merge};
use crate::store::SavedChannel;
use partysync::wire::snapshot::Snapshot;
use partysync::{Action, Error, Key, Result};
use std::collections::BTreeMap;

/// Rows that were stored, on their way into a replica.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    channels: BTreeMap<String, SavedChannel>,
    rows: BTreeMap<&'static str, BTreeMap<Key, Row>>,
    errors: Vec<Error>,
}

impl Loading {
    pub(crate) fn new(channels: BTreeMap<String, SavedChannel>) -> Self {
        Self { channels, ..Self::default() }
    }
}

impl<A: Action> Replica<A> {
    /// Reads at most so many rows of what was stored; `false` when there are more. What cannot be
    /// used is given back as an error in the end, and fetched anew.
    pub(crate) fn read(&self, loading: &mut Loading, mut most: usize) -> bool {
        for table in self.tables.values() {
            let name = table.schema.table;
            let Some(stored) = loading.channels.get_mut(name) else { continue };
            if stored.schema != table.schema.hash() {
                loading.channels.remove(name);
                continue;
            }
            let rows = loading.rows.entry(name).or_default();
            while let Some(entry) = stored.rows.first_entry() {
                if most == 0 {
                    return false;
                }
                most -= 1;
                match keyed(table.schema, &entry.remove()) {
                    Ok((key, row)) => drop(rows.insert(key, row)),
                    Err(error) => {
                        loading.errors.push(error.context(format_args!("stored `{name}`")));
                        loading.channels.remove(name);
                        break;
                    }
                }
            }
        }
        true
    }

    /// Shows rows that it was given to begin with.
    pub(crate) fn begin_with(&mut self, snapshot: Snapshot) -> Changes {
        let mut changes = Changes::new();
        if self.epoch.is_some() || self.pending() > 0 {
            return changes;
        }
        let Snapshot { epoch, mut channels, .. } = snapshot;
        for table in self.tables.values_mut() {
            let Some(channel) = channels.remove(table.schema.table) else { continue };
            let rows = channel.rows.iter().map(|json| keyed(table.schema, json));
            let rows = rows.collect::<Result<BTreeMap<_, _>>>();
            if let Ok(rows) = rows
                && channel.schema == table.schema.hash()
            {
                table.put_all(rows);
                (table.version, table.view) = (Some(channel.version), channel.view);
                table.complete = true;
                changes.insert(table.schema.table, Changed::All);
            }
        }
        if !changes.is_empty() {
            (self.epoch, self.given) = (Some(epoch), true);
        }
        self.reset_views(&changes);
        changes
    }

    /// Whether the rows are those that it was given to begin with.
    pub(crate) fn has_begun_with_rows(&self) -> bool {
        self.given
    }

    /// Shows what was read. Of rows that it was given, those are kept that the store has not, or
    /// not as new: they are stored.
    pub(crate) fn load(&mut self, mut loading: Loading) -> (Changes, Vec<Error>) {
        let mut changes = Changes::new();
        if std::mem::take(&mut self.given) {
            for table in self.tables.values() {
                let Some(version) = table.version else { continue };
                let name = table.schema.table;
                let newer = loading.channels.get(name).is_some_and(|stored| {
                    Some(&stored.epoch) == self.epoch.as_ref() && stored.version >= Some(version)
                });
                if newer {
                    continue;
                }
                // Which of two epochs is the room's is not known yet.
                match loading.channels.remove(name) {
                    Some(stored) if Some(&stored.epoch) != self.epoch.as_ref() => self.held = true,
                    _ => self.writes.extend(table.whole(self.epoch.as_deref())),
                }
            }
        }
        for table in self.tables.values_mut() {
            let name = table.schema.table;
            let Some(stored) = loading.channels.remove(name) else { continue };
            let had = !table.confirmed.is_empty();
            table.put_all(loading.rows.remove(name).unwrap_or_default());
            // Rows of another epoch are shown until those of the room's are here.
            let epoch = self.epoch.get_or_insert_with(|| stored.epoch.clone());
            table.version = stored.version.filter(|_| *epoch == stored.epoch);
            table.view = stored.view;
            table.complete = true;
            if had || !table.confirmed.is_empty() {
                changes.insert(name, Changed::All);
            }
        }
        self.reset_views(&changes);
        merge(&mut changes, self.replay());
        (changes, loading.errors)
    }
}
