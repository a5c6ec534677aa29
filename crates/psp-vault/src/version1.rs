//! The first format of sealed cards, which is opened and no longer written.
//!
//! `1 | key id (4) | salt (16) | nonce (12) | ciphertext | tag (16)`: each record has a key derived from the master key and the
//! salt, and the transaction's id is bound as additional data.

use psp_domain::ports::VaultError;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use crate::keys::VaultKeys;
use crate::local::{SALT_LEN, derived_cipher};

pub(crate) const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + SALT_LEN + NONCE_LEN;

/// Opens what was sealed with that additional data.
pub(crate) fn open(keys: &VaultKeys, bound: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (header, ciphertext) = sealed.split_at_checked(HEADER_LEN).ok_or(VaultError::Damaged)?;
    let (prefix, random) = header.split_at(1 + KEY_ID_LEN);
    let master = keys.by_id(&prefix[1..]).ok_or(VaultError::UnknownKey)?;
    let (salt, nonce) = random.split_at(SALT_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Damaged)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let cipher = derived_cipher(master, salt, b"psp sealed card v1")?;
    let length = cipher.open_in_place(nonce, Aad::from(bound), &mut buffer).map_err(|_| VaultError::Damaged)?.len();
    buffer.truncate(length);
    Ok(buffer)
}
