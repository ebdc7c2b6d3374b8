//! The keys that sign webhooks (sections 6.5 and 7.1): Ed25519, kept in the store, replaced when
//! they are old, and published for as long as something may have been signed with them.

use super::{Known, random_text};
use crate::streams::{Change, Platform, Refusal, Store, Streams};
use crate::{Result, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const PREFIX: &str = "key/";

/// How long a key is published after another took its place: receivers refuse signatures that
/// are older than minutes.
const PUBLISHED_MILLIS: i64 = 24 * 3600 * 1000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    seed: [u8; 32],
    created: Timestamp,
    /// When another took its place.
    retired: Option<Timestamp>,
}

impl Kept {
    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }

    fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key().verifying_key().as_bytes())
    }

    /// Whether something that was signed with it may still be on its way.
    fn is_published(&self, now: Timestamp) -> bool {
        self.retired.is_none_or(|at| at.plus_millis(PUBLISHED_MILLIS) > now)
    }

    /// Its name: the thumbprint of RFC 7638.
    fn id(&self) -> String {
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.public());
        format!("ds_{}", URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)))
    }
}

impl<S: Store, P: Platform> Streams<S, P> {
    fn keys(&self) -> Result<Vec<Known<Kept>>> {
        super::known(self.store(), PREFIX)
    }

    /// The key that signs now; made if there is none, or none that is young enough.
    fn signing_key(&self) -> Result<Kept, Refusal> {
        let lifetime = i64::try_from(self.options().key_lifetime.as_millis()).unwrap_or(i64::MAX);
        let active = self.keys()?.into_iter().find(|known| known.value.retired.is_none());
        match active {
            Some(known) if known.value.created.plus_millis(lifetime) > self.now() => {
                Ok(known.value)
            }
            _ => self.next_key(),
        }
    }

    /// Takes a new key for signing webhooks. The old one stays published for a day, so that what
    /// it has signed can still be verified.
    ///
    /// # Errors
    /// What the store or the system's randomness says.
    pub fn rotate_keys(&self) -> Result<(), Refusal> {
        self.next_key().map(drop)
    }

    /// Takes a new key for signing webhooks, and publishes the old ones no longer: for when they
    /// have become known to others. Receivers may keep the set of keys for five minutes.
    ///
    /// # Errors
    /// What the store or the system's randomness says.
    pub fn revoke_keys(&self) -> Result<(), Refusal> {
        let revoked = self.keys()?.into_iter();
        let revoked = revoked.map(|Known { key, .. }| Change::Note { key, text: None });
        self.new_key(revoked.collect()).map(drop)
    }

    fn next_key(&self) -> Result<Kept, Refusal> {
        let now = self.now();
        let mut changes = Vec::new();
        for Known { key, value } in self.keys()? {
            let old = Kept { retired: value.retired.or(Some(now)), ..value };
            changes.push(if old.is_published(now) {
                super::note(key, &old)?
            } else {
                Change::Note { key, text: None }
            });
        }
        self.new_key(changes)
    }

    /// A new key, made with what becomes of the others.
    fn new_key(&self, mut changes: Vec<Change>) -> Result<Kept, Refusal> {
        let seed = self.inner.platform.random()?;
        let new = Kept { seed, created: self.now(), retired: None };
        let name = random_text(&self.inner.platform)?;
        changes.push(super::note(format!("{PREFIX}{name}"), &new)?);
        self.commit(changes)?;
        Ok(new)
    }

    /// The name of the key that signs now.
    pub(super) fn key_id(&self) -> Result<String, Refusal> {
        Ok(self.signing_key()?.id())
    }

    /// The public keys, as a JSON Web Key Set.
    pub(super) fn key_set(&self) -> Result<serde_json::Value, Refusal> {
        self.signing_key()?;
        let now = self.now();
        let public = |known: Known<Kept>| {
            serde_json::json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "kid": known.value.id(), "x": known.value.public(),
            })
        };
        let published = self.keys()?.into_iter().filter(|known| known.value.is_published(now));
        let keys: Vec<_> = published.map(public).collect();
        Ok(serde_json::json!({ "keys": keys }))
    }

    /// The header `Webhook-Signature` for a body that is sent now.
    pub(super) fn signature(&self, body: &[u8]) -> Result<String, Refusal> {
        let key = self.signing_key()?;
        let time = self.now().as_millis() / 1000;
        let mut message = format!("{time}.").into_bytes();
        message.extend_from_slice(body);
        let signature = URL_SAFE_NO_PAD.encode(key.key().sign(&message).to_bytes());
        Ok(format!("t={time},kid={},ed25519={signature}", key.id()))
    }
}
