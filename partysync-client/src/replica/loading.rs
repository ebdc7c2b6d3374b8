//! Reading the rows that were stored, so many at a time: the page goes on in between.

use super::frames::keyed;
use super::{Changed, Changes, Replica, Row, merge};
use crate::store::SavedChannel;
use partysync::{Action, Error, Key};
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

    /// Shows what was read.
    pub(crate) fn load(&mut self, mut loading: Loading) -> (Changes, Vec<Error>) {
        let mut changes = Changes::new();
        for table in self.tables.values_mut() {
            let name = table.schema.table;
            let Some(stored) = loading.channels.remove(name) else { continue };
            table.confirmed = loading.rows.remove(name).unwrap_or_default();
            // Rows of another epoch are shown until those of the room's are here.
            let epoch = self.epoch.get_or_insert_with(|| stored.epoch.clone());
            table.version = stored.version.filter(|_| *epoch == stored.epoch);
            table.complete = true;
            if !table.confirmed.is_empty() {
                changes.insert(name, Changed::All);
            }
        }
        self.reset_views(&changes);
        merge(&mut changes, self.replay());
        (changes, loading.errors)
    }
}
