//! Seals cards for the time between a 201 and the end of authorization.
//!
//! A sealed card is `version (1) | key id (4) | salt (16) | nonce (12) | ciphertext | tag (16)`. Each record has a key of
//! its own, HKDF-SHA256 (RFC 5869) of the master key and a random salt, so that no AES-GCM key meets more than one nonce;
//! the limit of 2^32 random nonces per key (NIST SP 800-38D, section 8.3) does not bind: with 28 random bytes of salt and
//! nonce together, two of 2^64 records share both with a probability of 2^-97. The transaction's id is bound as
//! additional data: a sealed card opens for its own transaction only. The plaintext is padded to one length for usual names
//! and one for very long ones, so the ciphertext does not tell the length of the number or of the code.
//!
//! Sealing or opening costs a few microseconds and no input or output.
//!
//! ```
//! use psp_vault::{AesGcmVault, VaultKeys};
//! use psp_domain::ports::RequestFingerprint;
//! let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into();
//! let vault = AesGcmVault::new(VaultKeys::parse(&key)?)?;
//! assert_eq!(vault.fingerprint(b"request"), vault.fingerprint(b"request"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod keys;
mod plaintext;

pub use keys::{InvalidKeys, VaultKeys};

use async_trait::async_trait;
use psp_domain::ports::{CardVault, RequestFingerprint, VaultError};
use psp_domain::{Card, Fingerprint, SealedCard, TransactionId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use keys::MasterKey;

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const SALT_LEN: usize = 16;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + SALT_LEN + NONCE_LEN;

/// [`CardVault`] and [`RequestFingerprint`] with AES-256-GCM and HMAC-SHA256 under keys held in memory.
pub struct AesGcmVault {
    keys: VaultKeys,
    fingerprint_key: hmac::Key,
    random: SystemRandom,
}

impl AesGcmVault {
    /// A vault whose first key seals and fingerprints; all of them open.
    ///
    /// # Errors
    /// [`VaultError::Provider`] when the key derivation fails.
    pub fn new(keys: VaultKeys) -> Result<Self, VaultError> {
        let derived = derive(keys.sealing(), b"", b"psp request fingerprint v1")?;
        let fingerprint_key = hmac::Key::new(hmac::HMAC_SHA256, &*derived);
        Ok(Self { keys, fingerprint_key, random: SystemRandom::new() })
    }

    fn record_key(master: &MasterKey, salt: &[u8]) -> Result<LessSafeKey, VaultError> {
        let key = derive(master, salt, b"psp sealed card v1")?;
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| VaultError::Provider)?;
        Ok(LessSafeKey::new(key))
    }
}

/// 32 bytes of key for one purpose.
fn derive(master: &MasterKey, salt: &[u8], purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(master.bytes());
    let info = [purpose];
    let output = secret.expand(&info, hkdf::HKDF_SHA256).map_err(|_| VaultError::Provider)?;
    output.fill(&mut *key).map_err(|_| VaultError::Provider)?;
    Ok(key)
}

#[async_trait]
impl CardVault for AesGcmVault {
    async fn seal(&self, transaction_id: TransactionId, card: &Card) -> Result<SealedCard, VaultError> {
        let master = self.keys.sealing();
        let mut random = [0; SALT_LEN + NONCE_LEN];
        self.random.fill(&mut random).map_err(|_| VaultError::Provider)?;
        let (salt, nonce) = random.split_at(SALT_LEN);
        let mut plaintext = plaintext::write(card);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Provider)?;
        let tag = Self::record_key(master, salt)?
            .seal_in_place_separate_tag(nonce, Aad::from(transaction_id.0.as_bytes()), &mut plaintext)
            .map_err(|_| VaultError::Provider)?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + plaintext.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&master.id());
        sealed.extend_from_slice(&random);
        sealed.extend_from_slice(&plaintext);
        sealed.extend_from_slice(tag.as_ref());
        Ok(SealedCard(sealed))
    }

    async fn open(&self, transaction_id: TransactionId, sealed: &SealedCard) -> Result<Card, VaultError> {
        let (header, ciphertext) = sealed.0.split_at_checked(HEADER_LEN).ok_or(VaultError::Damaged)?;
        let (prefix, random) = header.split_at(1 + KEY_ID_LEN);
        if prefix[0] != VERSION {
            return Err(VaultError::Damaged);
        }
        let master = self.keys.by_id(&prefix[1..]).ok_or(VaultError::UnknownKey)?;
        let (salt, nonce) = random.split_at(SALT_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Damaged)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plaintext = Self::record_key(master, salt)?
            .open_in_place(nonce, Aad::from(transaction_id.0.as_bytes()), &mut buffer)
            .map_err(|_| VaultError::Damaged)?;
        plaintext::read(plaintext).ok_or(VaultError::Damaged)
    }
}

impl RequestFingerprint for AesGcmVault {
    fn fingerprint(&self, canonical: &[u8]) -> Fingerprint {
        let tag = hmac::sign(&self.fingerprint_key, canonical);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(tag.as_ref());
        Fingerprint(fingerprint)
    }
}
