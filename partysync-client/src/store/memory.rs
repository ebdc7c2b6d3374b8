//! [`MemoryStore`]: a replica that outlives its client, but not the process.

use super::{Saved, Store, Write};
use partysync::{Code, Error, Result};
use std::sync::{Arc, Mutex, MutexGuard};

/// Keeps a replica in memory. Clones share what they keep: a client that is made with one goes on
/// where the last one ended.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Option<Saved>>>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<Saved>>> {
        self.0.lock().map_err(|_| Error::new(Code::Internal, "the store broke in another thread"))
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Option<Saved>> {
        Ok(self.lock()?.clone())
    }

    fn write(&self, client: &str, writes: Vec<Write>) -> Result<()> {
        let mut saved = self.lock()?;
        let saved = saved.get_or_insert_with(|| Saved {
            client: client.to_owned(),
            next_seq: 1,
            ..Saved::default()
        });
        writes.into_iter().for_each(|write| saved.apply(write));
        Ok(())
    }
}
