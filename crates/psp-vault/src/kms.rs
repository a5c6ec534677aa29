//! Master keys in AWS KMS, which they never leave.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::generate_data_key::GenerateDataKeyError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, EncryptionAlgorithmSpec};
use psp_domain::ports::VaultError;
use zeroize::Zeroizing;

use crate::keys::MasterKey;
use crate::master::{DataKey, MasterKeys, NewDataKey, WrappedKey};

/// The code of an error that operations do not name themselves.
const ACCESS_DENIED: &str = "AccessDeniedException";

/// [`MasterKeys`] with `GenerateDataKey` and `Decrypt`: a call each, so put [`ReusedKeys`](crate::ReusedKeys) before it.
///
/// Every call names the encryption context [`Self::CONTEXT`], which policies can ask for.
pub struct KmsKeys {
    client: Client,
    key: String,
}

impl KmsKeys {
    /// The encryption context of every data key: its name and its value.
    pub const CONTEXT: (&str, &str) = ("psp-purpose", "card-vault");

    /// How long connecting may take.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// How long one attempt may take.
    const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
    /// How long a call may take with its repetitions.
    const CALL_TIMEOUT: Duration = Duration::from_secs(5);
    /// How often a call is attempted.
    const MAX_ATTEMPTS: u32 = 3;

    /// Wraps under that key: its id, its ARN, or an alias. Unwraps what any key has wrapped that this identity may use.
    pub fn new(config: &SdkConfig, key: impl Into<String>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .operation_attempt_timeout(Self::ATTEMPT_TIMEOUT)
            .operation_timeout(Self::CALL_TIMEOUT)
            .build();
        let config = aws_sdk_kms::config::Builder::from(config)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(Self::MAX_ATTEMPTS));
        Self { client: Client::from_conf(config.build()), key: key.into() }
    }
}

#[async_trait]
impl MasterKeys for KmsKeys {
    async fn data_key(&self) -> Result<Arc<NewDataKey>, VaultError> {
        let (name, value) = Self::CONTEXT;
        let asked = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let answer = asked.encryption_context(name, value).send().await.map_err(not_generated)?;
        let master = answer.key_id.ok_or(VaultError::Provider)?;
        let bytes = answer.ciphertext_blob.ok_or(VaultError::Provider)?.into_inner();
        let key = data_key(answer.plaintext).ok_or(VaultError::Provider)?;
        Ok(Arc::new(NewDataKey { key, wrapped: WrappedKey { master, bytes } }))
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError> {
        // KMS would have to be there to say so, and may refuse in other words.
        if wrapped.master.starts_with(MasterKey::NAMES) {
            return Err(VaultError::UnknownKey);
        }
        let (name, value) = Self::CONTEXT;
        let asked = self.client.decrypt().key_id(&wrapped.master).ciphertext_blob(Blob::new(wrapped.bytes.clone()));
        let asked = asked.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        let answer = asked.encryption_context(name, value).send().await.map_err(not_decrypted)?;
        if answer.key_id.as_deref() != Some(&wrapped.master) {
            return Err(VaultError::Damaged);
        }
        data_key(answer.plaintext).map(Arc::new).ok_or(VaultError::Damaged)
    }
}

fn data_key(plaintext: Option<Blob>) -> Option<DataKey> {
    DataKey::from_bytes(&Zeroizing::new(plaintext?.into_inner()))
}

/// What was refused for the key's sake needs an operator as much as what is out of reach, and passes as well.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it")]
fn not_generated(error: SdkError<GenerateDataKeyError>) -> VaultError {
    log(&error, "KMS gives no data key");
    VaultError::Unavailable
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it")]
fn not_decrypted(error: SdkError<DecryptError>) -> VaultError {
    match error.as_service_error() {
        Some(DecryptError::InvalidCiphertextException(_)) => return VaultError::Damaged,
        Some(DecryptError::NotFoundException(_) | DecryptError::IncorrectKeyException(_)) => {
            return VaultError::UnknownKey;
        }
        _ => log(&error, "KMS opens no data key"),
    }
    match error.as_service_error() {
        Some(DecryptError::DisabledException(_) | DecryptError::KmsInvalidStateException(_)) => VaultError::Refused,
        Some(other) if other.code() == Some(ACCESS_DENIED) => VaultError::Refused,
        _ => VaultError::Unavailable,
    }
}

/// The error of the port tells no details; the log does. Never in the form of `Debug`, nor with the sources of the error: they
/// may hold a body, and so a data key in the clear.
fn log<E: ProvideErrorMetadata>(error: &SdkError<E>, message: &'static str)
where
    SdkError<E>: RequestId + std::fmt::Display,
{
    let told = error.as_service_error();
    tracing::error!(
        kind = %error,
        code = told.and_then(E::code),
        told = told.and_then(E::message),
        request_id = error.request_id(),
        "{message}"
    );
}
