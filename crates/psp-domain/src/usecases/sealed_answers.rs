//! Answers that show a secret, kept with the idempotency keys of their requests: sealed, so that a store never has the secret
//! in the clear.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::ports::{Clock, IdempotencyStore, SecretVault, VaultError};
use crate::usecases::{CreateOutcome, CreateTransaction, EndpointError, IdempotentRequest, once};
use crate::{CustomerId, IdempotencyKey, IdempotencyRecord, SealedSecret, StoredAnswer};

/// Keeps and opens them. The body is sealed under a name that binds it to its customer and key, and written in base64.
pub(super) struct SealedAnswers {
    keys: Arc<dyn IdempotencyStore>,
    vault: Arc<dyn SecretVault>,
    clock: Arc<dyn Clock>,
}

impl SealedAnswers {
    pub(super) fn new(keys: Arc<dyn IdempotencyStore>, vault: Arc<dyn SecretVault>, clock: Arc<dyn Clock>) -> Self {
        Self { keys, vault, clock }
    }

    /// What a key comes to that was used before, with the answer opened; `None` for a fresh one.
    pub(super) async fn replay(
        &self,
        customer: &CustomerId,
        request: &IdempotentRequest,
    ) -> Result<Option<CreateOutcome>, EndpointError> {
        match once::replay(self.keys.as_ref(), self.clock.as_ref(), customer, request).await? {
            Some(CreateOutcome::Replayed(answer)) => {
                let opened = self.open(customer, &request.key, answer).await.map_err(EndpointError::SealedAnswer)?;
                Ok(Some(CreateOutcome::Replayed(opened)))
            }
            outcome => Ok(outcome),
        }
    }

    /// The record of a key with its answer sealed.
    pub(super) async fn record(
        &self,
        customer: &CustomerId,
        request: &IdempotentRequest,
        answer: &StoredAnswer,
    ) -> Result<IdempotencyRecord, VaultError> {
        let sealed = self.vault.seal_secret(&name(customer, &request.key), answer.body.as_bytes()).await?;
        Ok(IdempotencyRecord {
            customer_id: customer.clone(),
            key: request.key.clone(),
            fingerprint: request.fingerprint,
            answer: StoredAnswer { status: answer.status, body: STANDARD.encode(sealed.0) },
            expires_at: self.clock.now() + CreateTransaction::KEY_LIFETIME,
        })
    }

    async fn open(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
        answer: StoredAnswer,
    ) -> Result<StoredAnswer, VaultError> {
        let sealed = SealedSecret(STANDARD.decode(answer.body).map_err(|_| VaultError::Damaged)?);
        let body = self.vault.open_secret(&name(customer, key), &sealed).await?;
        let body = std::str::from_utf8(&body).map_err(|_| VaultError::Damaged)?.to_owned();
        Ok(StoredAnswer { status: answer.status, body })
    }
}

/// The name that an answer is sealed for. Neither part has a space in it, so no other pair has the same.
fn name(customer: &CustomerId, key: &IdempotencyKey) -> String {
    format!("answer to {customer} {}", key.as_str())
}
