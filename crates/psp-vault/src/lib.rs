//! Seals cards for the time between a 201 and the end of authorization, in envelopes.
//!
//! A sealed card carries the data key that opens it, encrypted ("wrapped") under a master key that it names. [`MasterKeys`]
//! wrap and unwrap: [`VaultKeys`] in this process, with a data key for every card, or `KmsKeys` in AWS KMS (feature `kms`), behind
//! [`ReusedKeys`], which uses a data key for a bounded number of cards and a bounded time. The transaction's id is bound as
//! additional data: a sealed card opens for its own transaction only. The plaintext is padded to one length for usual names
//! and one for very long ones, so the ciphertext does not tell the length of the number or of the code.
//!
//! To rotate is to [reseal](psp_domain::ports::Resealer): a new data key under the current master key, which asks of KMS nothing
//! but `GenerateDataKey` and `Decrypt`.
//!
//! With local keys, sealing or opening costs some ten microseconds and no input or output.
//!
//! ```
//! # futures::executor::block_on(async {
//! use psp_domain::ports::RequestFingerprint;
//! use psp_vault::{EnvelopeVault, FingerprintKey, VaultKeys};
//! let keys = VaultKeys::parse(&"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into())?;
//! let fingerprints = FingerprintKey::derived(&keys)?;
//! let vault = EnvelopeVault::local(keys);
//! assert_eq!(fingerprints.fingerprint(b"request").await?, fingerprints.fingerprint(b"request").await?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod envelope;
mod fingerprint;
mod keys;
#[cfg(feature = "kms")]
mod kms;
mod local;
mod master;
mod plaintext;
mod reuse;
mod vault;
mod version1;

pub use fingerprint::FingerprintKey;
pub use keys::{InvalidKeys, VaultKeys};
#[cfg(feature = "kms")]
pub use kms::KmsKeys;
pub use master::{DataKey, MasterKeys, NewDataKey, WrappedKey};
pub use reuse::ReusedKeys;
pub use vault::EnvelopeVault;
