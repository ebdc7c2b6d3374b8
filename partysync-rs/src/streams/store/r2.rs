//! [`R2Archive`]: chunks in an R2 bucket.

use super::{Archive, Part};
use crate::{Code, Error, Result};
use worker::{Bucket, Range};

/// Chunks in an R2 bucket, of which reads take no more than they need.
#[derive(Debug)]
pub struct R2Archive {
    bucket: Bucket,
}

impl R2Archive {
    /// Chunks in this bucket.
    #[must_use]
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }
}

#[allow(clippy::needless_pass_by_value)]
fn unavailable(error: worker::Error) -> Error {
    Error::new(Code::Store, format!("R2: {error}"))
}

impl Archive for R2Archive {
    fn chunk_bytes(&self) -> usize {
        // Writes are what R2 charges for.
        4 * 1024 * 1024
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.bucket.put(key, bytes.to_vec()).execute().await.map(drop).map_err(unavailable)
    }

    async fn get(&self, key: &str, from: u64, to: u64) -> Result<Option<Part>> {
        let range = Range::OffsetWithLength { offset: from, length: to - from };
        let found = self.bucket.get(key).range(range).execute().await.map_err(unavailable)?;
        let Some(body) = found.as_ref().and_then(worker::Object::body) else { return Ok(None) };
        body.bytes().await.map(|bytes| Some(Part::Slice(bytes))).map_err(unavailable)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.bucket.delete(key).await.map_err(unavailable)
    }
}
