//! The format of what is sealed, version 2.
//!
//! `2 | length of the name (1) | name of the master key | length of the wrapped key (2) | wrapped key | nonce (12) | ciphertext |
//! tag (16)`. The lengths are big-endian. Additional data is the version and what the plaintext belongs to. The header needs
//! no part in it: another name or wrapped key gives no key, or one that does not open the rest.

use psp_domain::ports::VaultError;
use ring::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::master::{DataKey, NewDataKey, WrappedKey};

pub(crate) const VERSION: u8 = 2;

/// An envelope that was taken apart.
pub(crate) struct Envelope<'e> {
    pub(crate) key: WrappedKey,
    nonce: &'e [u8],
    ciphertext: &'e [u8],
}

impl<'e> Envelope<'e> {
    pub(crate) fn read(sealed: &'e [u8]) -> Option<Self> {
        let (&[version, name_len], rest) = sealed.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (wrapped, rest) = rest.split_at_checked(length)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN)?;
        if version != VERSION || length > WrappedKey::MAX_LEN {
            return None;
        }
        let master = std::str::from_utf8(name).ok()?.to_owned();
        Some(Self { key: WrappedKey { master, bytes: wrapped.to_vec() }, nonce, ciphertext })
    }

    /// Opens it with its data key.
    pub(crate) fn open(&self, key: &DataKey, belongs_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let nonce = Nonce::try_assume_unique_for_key(self.nonce).map_err(|_| VaultError::Damaged)?;
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        let opened = key.cipher()?.open_in_place(nonce, bound(belongs_to), &mut buffer);
        let length = opened.map_err(|_| VaultError::Damaged)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Seals a plaintext, in its own buffer, for what it belongs to. The nonce is random: a data key seals far fewer than 2^32.
pub(crate) fn seal(
    random: &SystemRandom,
    data_key: &NewDataKey,
    belongs_to: &[u8],
    mut plaintext: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, VaultError> {
    let (name, wrapped) = (data_key.wrapped.master.as_bytes(), &data_key.wrapped.bytes);
    let name_len = u8::try_from(name.len()).map_err(|_| VaultError::Provider)?;
    if wrapped.len() > WrappedKey::MAX_LEN {
        return Err(VaultError::Provider);
    }
    let wrapped_len = u16::try_from(wrapped.len()).map_err(|_| VaultError::Provider)?;
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).map_err(|_| VaultError::Provider)?;
    let tag = data_key
        .key
        .cipher()?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), bound(belongs_to), &mut plaintext)
        .map_err(|_| VaultError::Provider)?;
    let length = 4 + name.len() + wrapped.len() + NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len();
    let mut sealed = Vec::with_capacity(length);
    sealed.extend_from_slice(&[VERSION, name_len]);
    sealed.extend_from_slice(name);
    sealed.extend_from_slice(&wrapped_len.to_be_bytes());
    sealed.extend_from_slice(wrapped);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&plaintext);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn bound(belongs_to: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[VERSION][..], belongs_to].concat())
}
