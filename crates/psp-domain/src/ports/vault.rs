use async_trait::async_trait;

use crate::{Card, Fingerprint, SealedCard, TransactionId};

/// Why a card could not be sealed or opened. Never carries card data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The key that sealed it is not among ours.
    #[error("the card was sealed with a key that is not configured")]
    UnknownKey,
    /// The bytes are not what was sealed for this transaction.
    #[error("the sealed card is damaged or belongs to another transaction")]
    Damaged,
    /// The cryptographic provider failed.
    #[error("the cryptographic provider failed")]
    Provider,
}

/// Encrypts cards for the time between a 201 and the end of authorization.
#[async_trait]
pub trait CardVault: Send + Sync {
    /// Seals a card so that only [`open`](Self::open) for the same transaction reads it.
    async fn seal(&self, transaction_id: TransactionId, card: &Card) -> Result<SealedCard, VaultError>;

    /// Opens a sealed card.
    async fn open(&self, transaction_id: TransactionId, sealed: &SealedCard) -> Result<Card, VaultError>;
}

/// Hashes requests under a secret key.
pub trait RequestFingerprint: Send + Sync {
    /// The keyed hash of the canonical form of a request.
    fn fingerprint(&self, canonical: &[u8]) -> Fingerprint;
}
