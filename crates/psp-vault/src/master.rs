use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use psp_domain::ports::VaultError;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

/// A key that encrypts data, in the clear. Boxed, so that moving it leaves no copy behind; zeroized on drop.
pub struct DataKey(Box<Zeroizing<[u8; DataKey::LEN]>>);

impl DataKey {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A key of those bytes; `None` when they are not [`Self::LEN`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Box::new(Zeroizing::new([0; Self::LEN]));
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &**self.0
    }

    pub(crate) fn cipher(&self) -> Result<LessSafeKey, VaultError> {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes()).map_err(|_| VaultError::Provider)?;
        Ok(LessSafeKey::new(key))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// A data key encrypted under a master key, as it travels with what it encrypts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WrappedKey {
    /// Names the master key: visible ASCII, at most [`Self::MAX_MASTER_LEN`] bytes. Tells nothing of it.
    pub master: String,
    /// The encrypted key, at most [`Self::MAX_LEN`] bytes.
    pub bytes: Vec<u8>,
}

impl WrappedKey {
    /// The longest name of a master key: room for the ARN of a key in KMS.
    pub const MAX_MASTER_LEN: usize = 255;
    /// The longest encrypted key.
    pub const MAX_LEN: usize = 1024;
}

/// A data key to encrypt with.
#[derive(Debug)]
pub struct NewDataKey {
    /// The key itself.
    pub key: DataKey,
    /// The same, to be stored.
    pub wrapped: WrappedKey,
}

/// Keys that encrypt data keys and nothing else. They never leave the adapter, which may be a service elsewhere.
#[async_trait]
pub trait MasterKeys: Send + Sync {
    /// A data key wrapped under the current master key: random, and perhaps given out before
    /// ([`ReusedKeys`](crate::ReusedKeys)).
    ///
    /// # Errors
    /// [`VaultError::Unavailable`], [`VaultError::Provider`].
    async fn data_key(&self) -> Result<Arc<NewDataKey>, VaultError>;

    /// The data key that was wrapped under any of the master keys.
    ///
    /// # Errors
    /// [`VaultError::UnknownKey`] when the master key is not among ours, [`VaultError::Damaged`] when it did not wrap this,
    /// [`VaultError::Unavailable`].
    async fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError>;

    /// The name of the current master key: that of the next data key.
    ///
    /// # Errors
    /// Those of [`data_key`](Self::data_key).
    async fn current(&self) -> Result<String, VaultError> {
        Ok(self.data_key().await?.wrapped.master.clone())
    }
}
