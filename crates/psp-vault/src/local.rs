//! Master keys in this process: from the environment or a key file.

use std::sync::Arc;

use async_trait::async_trait;
use psp_domain::ports::VaultError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::keys::{MasterKey, VaultKeys};
use crate::master::{DataKey, MasterKeys, NewDataKey, WrappedKey};

pub(crate) const SALT_LEN: usize = 16;
/// What a wrapped key is for: it opens as nothing else.
const PURPOSE: &[u8] = b"psp data key v2";

/// A wrapped key is `salt (16) | nonce (12) | ciphertext (32) | tag (16)`. The key that wraps is derived from the master key
/// and the salt, so that no key meets more than one nonce: the limit of 2^32 random nonces of a key (NIST SP 800-38D, section
/// 8.3) does not bind.
#[async_trait]
impl MasterKeys for VaultKeys {
    async fn data_key(&self) -> Result<Arc<NewDataKey>, VaultError> {
        let (random, master) = (SystemRandom::new(), self.sealing());
        let mut bytes = Zeroizing::new([0; DataKey::LEN]);
        random.fill(&mut *bytes).map_err(|_| VaultError::Provider)?;
        let key = DataKey::from_bytes(&*bytes).ok_or(VaultError::Provider)?;
        let mut salt_and_nonce = [0; SALT_LEN + NONCE_LEN];
        random.fill(&mut salt_and_nonce).map_err(|_| VaultError::Provider)?;
        let (salt, nonce) = salt_and_nonce.split_at(SALT_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Provider)?;
        let tag = derived_cipher(master, salt, PURPOSE)?
            .seal_in_place_separate_tag(nonce, Aad::from(PURPOSE), &mut *bytes)
            .map_err(|_| VaultError::Provider)?;
        let wrapped = [&salt_and_nonce[..], &*bytes, tag.as_ref()].concat();
        Ok(Arc::new(NewDataKey { key, wrapped: WrappedKey { master: master.name(), bytes: wrapped } }))
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError> {
        let master = self.by_name(&wrapped.master).ok_or(VaultError::UnknownKey)?;
        let (salt, rest) = wrapped.bytes.split_at_checked(SALT_LEN).ok_or(VaultError::Damaged)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN).ok_or(VaultError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Damaged)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let cipher = derived_cipher(master, salt, PURPOSE)?;
        let key = cipher.open_in_place(nonce, Aad::from(PURPOSE), &mut buffer).map_err(|_| VaultError::Damaged)?;
        DataKey::from_bytes(key).map(Arc::new).ok_or(VaultError::Damaged)
    }

    async fn current(&self) -> Result<String, VaultError> {
        Ok(self.sealing().name())
    }
}

/// AES-256-GCM under 32 bytes derived for one purpose.
pub(crate) fn derived_cipher(master: &MasterKey, salt: &[u8], purpose: &[u8]) -> Result<LessSafeKey, VaultError> {
    let key = derive(master, salt, purpose)?;
    let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| VaultError::Provider)?;
    Ok(LessSafeKey::new(key))
}

/// 32 bytes of key for one purpose, by HKDF-SHA256 (RFC 5869).
pub(crate) fn derive(master: &MasterKey, salt: &[u8], purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(master.bytes());
    let info = [purpose];
    let output = secret.expand(&info, hkdf::HKDF_SHA256).map_err(|_| VaultError::Provider)?;
    output.fill(&mut *key).map_err(|_| VaultError::Provider)?;
    Ok(key)
}
