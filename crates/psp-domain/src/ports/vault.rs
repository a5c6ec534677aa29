use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::StoreError;
use crate::{Card, Fingerprint, SealedCard, SealedSecret, TransactionId};

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
    /// The service that has the master keys cannot be reached, or refuses: the same may succeed later.
    #[error("the service that has the master keys does not answer")]
    Unavailable,
    /// The service that has the master keys does not let this one be used, which says nothing of the others: it is disabled,
    /// or not for this identity. The same may succeed later.
    #[error("the card was sealed with a key that may not be used")]
    Refused,
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

/// Encrypts secrets that are kept: those of webhook endpoints. They are keys of the vault to a [`Resealer`].
#[async_trait]
pub trait SecretVault: Send + Sync {
    /// Seals a secret so that only [`open_secret`](Self::open_secret) for the same name reads it.
    async fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<SealedSecret, VaultError>;

    /// Opens a sealed secret.
    async fn open_secret(&self, name: &str, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, VaultError>;
}

/// Why a request could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    /// The vault does not open the key.
    #[error("the key for fingerprints of requests")]
    Vault(#[from] VaultError),
    /// The store of the vault's keys failed.
    #[error("the key for fingerprints of requests")]
    Store(#[from] StoreError),
}

/// Hashes requests under a secret key.
#[async_trait]
pub trait RequestFingerprint: Send + Sync {
    /// The keyed hash of the canonical form of a request.
    async fn fingerprint(&self, canonical: &[u8]) -> Result<Fingerprint, FingerprintError>;
}

/// Brings what is sealed under the current master key.
#[async_trait]
pub trait Resealer: Send + Sync {
    /// The name of the current master key. Tells nothing of the key.
    async fn current_key(&self) -> Result<String, VaultError>;

    /// The same card, sealed under the current master key. `None` when it is already.
    async fn reseal(&self, id: TransactionId, sealed: &SealedCard) -> Result<Option<SealedCard>, VaultError>;

    /// The same key of the vault, sealed under the current master key. `None` when it is already.
    async fn reseal_key(&self, name: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError>;
}

/// Where sealed cards are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CardPlace {
    /// With their transactions, until authorization ends.
    Transactions,
    /// With their tokens, until they are paid with or expire.
    Tokens,
}

impl CardPlace {
    /// Every place.
    pub const ALL: [Self; 2] = [Self::Transactions, Self::Tokens];
}

/// A sealed card where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCard {
    /// The id that it is sealed for: of its transaction, or its token.
    pub id: Uuid,
    /// The card.
    pub sealed: SealedCard,
}

/// The sealed cards that a store keeps, whoever's they are: to seal them anew, and to erase them.
#[async_trait]
pub trait SealedCards: Send + Sync {
    /// Up to `limit` cards of a place with an id above `after`, by their ids.
    async fn list(&self, place: CardPlace, after: Option<Uuid>, limit: u32) -> Result<Vec<KeptCard>, StoreError>;

    /// Puts another sealed card in the place of `old`, and says so. `false` when `old` is not there any more: it was erased or
    /// replaced meanwhile. The version of a transaction stays.
    async fn replace(&self, place: CardPlace, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError>;

    /// Erases up to `limit` cards of transactions that were created before that time; says how many.
    async fn shred(&self, created_before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError>;
}

/// Keys of the vault that outlive their master key, sealed.
#[async_trait]
pub trait VaultKeyStore: Send + Sync {
    /// The key of that name.
    async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores a key unless there is one of that name; the one that is there afterwards.
    async fn load_or_insert(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Puts another in the place of `old`; `false` when `old` is not there any more.
    async fn replace(&self, name: &str, old: &[u8], new: &[u8]) -> Result<bool, StoreError>;
}
