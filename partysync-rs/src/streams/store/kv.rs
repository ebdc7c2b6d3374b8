//! [`KvArchive`]: chunks in Workers KV.

use super::{Archive, Part};
use crate::{Code, Error, Result};
use worker::KvStore;

/// Chunks in Workers KV.
///
/// KV shows a write everywhere only after a while, and may remember for as long that a key was not
/// there. Chunks bear that: each key is written once, and a chunk counts as sealed only when it
/// could be read back. A read from elsewhere that comes too early is answered with 503.
#[derive(Debug)]
pub struct KvArchive {
    kv: KvStore,
}

impl KvArchive {
    /// Chunks in this namespace.
    #[must_use]
    pub fn new(kv: KvStore) -> Self {
        Self { kv }
    }
}

fn unavailable(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Store, format!("KV: {error}"))
}

impl Archive for KvArchive {
    fn chunk_bytes(&self) -> usize {
        // A read takes the whole value: about a page of a catch-up.
        1024 * 1024
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let put = self.kv.put_bytes(key, bytes).map_err(unavailable)?;
        put.execute().await.map_err(unavailable)
    }

    async fn get(&self, key: &str, _: u64, _: u64) -> Result<Option<Part>> {
        Ok(self.kv.get(key).bytes().await.map_err(unavailable)?.map(Part::Whole))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.kv.delete(key).await.map_err(unavailable)
    }
}
