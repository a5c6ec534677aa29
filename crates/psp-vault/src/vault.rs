use std::sync::Arc;

use async_trait::async_trait;
use psp_domain::ports::{CardVault, Resealer, SecretVault, VaultError};
use psp_domain::{Card, SealedCard, SealedSecret, TransactionId};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::envelope::{self, Envelope};
use crate::keys::VaultKeys;
use crate::master::{DataKey, MasterKeys};
use crate::{plaintext, version1};

/// [`CardVault`] with AES-256-GCM under data keys that travel with what they seal, wrapped under master keys.
pub struct EnvelopeVault {
    masters: Arc<dyn MasterKeys>,
    /// What opens version 1, which knew local keys only.
    local: Option<Arc<VaultKeys>>,
    random: SystemRandom,
}

impl EnvelopeVault {
    /// A vault under those master keys.
    pub fn new(masters: Arc<dyn MasterKeys>) -> Self {
        Self { masters, local: None, random: SystemRandom::new() }
    }

    /// A vault whose first key seals; all of them open, version 1 included.
    pub fn local(keys: VaultKeys) -> Self {
        let keys = Arc::new(keys);
        Self { local: Some(Arc::clone(&keys)), ..Self::new(keys) }
    }

    async fn seal_bytes(&self, belongs_to: &[u8], plaintext: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, VaultError> {
        let data_key = self.masters.data_key().await?;
        envelope::seal(&self.random, &data_key, belongs_to, plaintext)
    }

    async fn open_bytes(&self, belongs_to: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if sealed.first() == Some(&version1::VERSION) {
            let keys = self.local.as_ref().ok_or(VaultError::UnknownKey)?;
            return version1::open(keys, belongs_to, sealed);
        }
        let envelope = Envelope::read(sealed).ok_or(VaultError::Damaged)?;
        envelope.open(&*self.masters.unwrap_key(&envelope.key).await?, belongs_to)
    }

    /// The same plaintext under the current master key; `None` when it is under it already.
    async fn reseal_bytes(&self, belongs_to: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let current = self.masters.current().await?;
        if Envelope::read(sealed).is_some_and(|envelope| envelope.key.master == current) {
            return Ok(None);
        }
        let plaintext = self.open_bytes(belongs_to, sealed).await?;
        self.seal_bytes(belongs_to, plaintext).await.map(Some)
    }

    /// A sealed random key of that name.
    pub(crate) async fn new_key(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        let mut key = Zeroizing::new(vec![0; DataKey::LEN]);
        self.random.fill(&mut key).map_err(|_| VaultError::Provider)?;
        self.seal_bytes(&of_key(name), key).await
    }

    pub(crate) async fn open_key(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_bytes(&of_key(name), sealed).await
    }
}

/// What a key of that name is bound to: longer than the 16 bytes of a card's id.
fn of_key(name: &str) -> Vec<u8> {
    [b"psp key of the vault: ", name.as_bytes()].concat()
}

#[async_trait]
impl CardVault for EnvelopeVault {
    async fn seal(&self, transaction_id: TransactionId, card: &Card) -> Result<SealedCard, VaultError> {
        self.seal_bytes(transaction_id.0.as_bytes(), plaintext::write(card)).await.map(SealedCard)
    }

    async fn open(&self, transaction_id: TransactionId, sealed: &SealedCard) -> Result<Card, VaultError> {
        let bytes = self.open_bytes(transaction_id.0.as_bytes(), &sealed.0).await?;
        plaintext::read(&bytes).ok_or(VaultError::Damaged)
    }
}

/// Secrets are keys of the vault, so that they are resealed as those are.
#[async_trait]
impl SecretVault for EnvelopeVault {
    async fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        self.seal_bytes(&of_key(name), Zeroizing::new(secret.to_vec())).await.map(SealedSecret)
    }

    async fn open_secret(&self, name: &str, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_key(name, &sealed.0).await
    }
}

#[async_trait]
impl Resealer for EnvelopeVault {
    async fn current_key(&self) -> Result<String, VaultError> {
        self.masters.current().await
    }

    async fn reseal(&self, id: TransactionId, sealed: &SealedCard) -> Result<Option<SealedCard>, VaultError> {
        Ok(self.reseal_bytes(id.0.as_bytes(), &sealed.0).await?.map(SealedCard))
    }

    async fn reseal_key(&self, name: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        self.reseal_bytes(&of_key(name), sealed).await
    }
}
