use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use psp_domain::Fingerprint;
use psp_domain::ports::{FingerprintError, RequestFingerprint, VaultError, VaultKeyStore};
use ring::hmac;

use crate::keys::VaultKeys;
use crate::local::derive;
use crate::vault::EnvelopeVault;

/// [`RequestFingerprint`] with HMAC-SHA256.
pub struct FingerprintKey {
    key: OnceLock<hmac::Key>,
    /// Where the key comes from, unless it was there from the beginning.
    stored: Option<(Arc<EnvelopeVault>, Arc<dyn VaultKeyStore>)>,
}

impl FingerprintKey {
    /// The name of the stored key.
    pub const NAME: &str = "request-fingerprint";

    /// The key that belongs to the first of the local keys.
    ///
    /// # Errors
    /// [`VaultError::Provider`] when the derivation fails.
    pub fn derived(keys: &VaultKeys) -> Result<Self, VaultError> {
        let key = derive(keys.sealing(), b"", b"psp request fingerprint v1")?;
        Ok(Self { key: OnceLock::from(hmac_key(&*key)), stored: None })
    }

    /// The key that every process over one store has, whatever the master key: a random one, made and stored by the first. It
    /// is opened when it is needed first, and kept: until then the vault may be out of reach.
    pub fn stored(vault: Arc<EnvelopeVault>, keys: Arc<dyn VaultKeyStore>) -> Self {
        Self { key: OnceLock::new(), stored: Some((vault, keys)) }
    }

    /// Opens the key, where it was not. A failure is not remembered.
    ///
    /// # Errors
    /// [`FingerprintError`].
    pub async fn open(&self) -> Result<(), FingerprintError> {
        self.opened().await.map(drop)
    }

    async fn opened(&self) -> Result<&hmac::Key, FingerprintError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let (vault, keys) = self.stored.as_ref().ok_or(VaultError::Provider)?;
        let sealed = match keys.find(Self::NAME).await? {
            Some(sealed) => sealed,
            // Of two that make it at once, both have the key of the first.
            None => keys.load_or_insert(Self::NAME, &vault.new_key(Self::NAME).await?).await?,
        };
        let key = vault.open_key(Self::NAME, &sealed).await?;
        Ok(self.key.get_or_init(|| hmac_key(&key)))
    }
}

fn hmac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

#[async_trait]
impl RequestFingerprint for FingerprintKey {
    async fn fingerprint(&self, canonical: &[u8]) -> Result<Fingerprint, FingerprintError> {
        let tag = hmac::sign(self.opened().await?, canonical);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(tag.as_ref());
        Ok(Fingerprint(fingerprint))
    }
}
