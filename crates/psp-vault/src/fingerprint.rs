use psp_domain::Fingerprint;
use psp_domain::ports::{RequestFingerprint, VaultError, VaultKeyStore};
use ring::hmac;

use crate::keys::VaultKeys;
use crate::local::derive;
use crate::vault::EnvelopeVault;

/// [`RequestFingerprint`] with HMAC-SHA256.
pub struct FingerprintKey(hmac::Key);

/// Why there is no key for fingerprints.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintKeyError {
    /// The vault does not open it.
    #[error("the key for fingerprints of requests")]
    Vault(#[from] VaultError),
    /// The store of the vault's keys failed.
    #[error("the key for fingerprints of requests")]
    Store(#[from] psp_domain::ports::StoreError),
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
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*key)))
    }

    /// The key that every process over one store has, whatever the master key: a random one, made and stored by the first.
    ///
    /// # Errors
    /// [`FingerprintKeyError`].
    pub async fn stored(vault: &EnvelopeVault, keys: &dyn VaultKeyStore) -> Result<Self, FingerprintKeyError> {
        let sealed = match keys.find(Self::NAME).await? {
            Some(sealed) => sealed,
            // Of two that start at once, both have the key of the first.
            None => keys.load_or_insert(Self::NAME, &vault.new_key(Self::NAME).await?).await?,
        };
        let key = vault.open_key(Self::NAME, &sealed).await?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }
}

impl RequestFingerprint for FingerprintKey {
    fn fingerprint(&self, canonical: &[u8]) -> Fingerprint {
        let tag = hmac::sign(&self.0, canonical);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(tag.as_ref());
        Fingerprint(fingerprint)
    }
}
