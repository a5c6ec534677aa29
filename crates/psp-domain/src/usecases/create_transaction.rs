use std::sync::Arc;

use chrono::TimeDelta;

use crate::ports::{CardVault, IdempotencyStore, Store, StoreError, VaultError};
use crate::usecases::{Sources, once};
use crate::{
    CardToken, ChangeSet, CustomerId, Fingerprint, IdempotencyKey, IdempotencyRecord, InvalidTransaction,
    NewTransaction, StoredAnswer, Transaction, Verdict,
};

/// Takes a customer's payment: writes the transaction and its `transaction.created`, in one database transaction.
///
/// Cost: one write, which group commit shares with others; one read more when an idempotency key comes back.
pub struct CreateTransaction {
    store: Arc<dyn Store>,
    keys: Arc<dyn IdempotencyStore>,
    vault: Arc<dyn CardVault>,
    sources: Sources,
}

/// An idempotency key with its request.
pub struct IdempotentRequest {
    /// The key.
    pub key: IdempotencyKey,
    /// The request.
    pub fingerprint: Fingerprint,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The transaction is durable.
    Created(StoredAnswer),
    /// The key was used before with the same request: the first answer.
    Replayed(StoredAnswer),
    /// The key was used before with another request. Nothing was written.
    KeyReused,
    /// The card's token was spent meanwhile. Nothing was written.
    TokenSpent,
}

/// Why a transaction was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Every rule that the request breaks.
    #[error("the transaction is invalid")]
    Invalid(Vec<InvalidTransaction>),
    /// The card could not be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CreateTransaction {
    /// How long an idempotency key is kept.
    pub const KEY_LIFETIME: TimeDelta = TimeDelta::hours(24);

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<dyn IdempotencyStore>,
        vault: Arc<dyn CardVault>,
        sources: Sources,
    ) -> Self {
        Self { store, keys, vault, sources }
    }

    /// Creates the transaction, and spends the token that its card came from. `answer` renders what the customer is told; it
    /// is stored with the idempotency key.
    ///
    /// # Errors
    /// [`CreateError`]; nothing was written, except with [`StoreError::OutcomeUnknown`].
    pub async fn execute(
        &self,
        new: NewTransaction,
        spends: Option<CardToken>,
        idempotent: Option<IdempotentRequest>,
        answer: impl FnOnce(&Transaction) -> StoredAnswer + Send,
    ) -> Result<CreateOutcome, CreateError> {
        let now = self.sources.clock.now();
        let (transaction, created) =
            Transaction::create(&new, now, self.sources.ids.as_ref()).map_err(CreateError::Invalid)?;
        let card = match &new.card {
            Some(card) => Some(self.vault.seal(transaction.id, card).await?),
            None => None,
        };
        let answer = answer(&transaction);
        let mut change = ChangeSet { spends, ..ChangeSet::create(transaction, card, created) };
        let Some(request) = idempotent else {
            return match once::apply(self.store.as_ref(), change).await? {
                Verdict::Applied | Verdict::AlreadyApplied => Ok(CreateOutcome::Created(answer)),
                Verdict::Duplicate if spends.is_some() => Ok(CreateOutcome::TokenSpent),
                // A fresh id and no key: only a rule of the store's that the domain does not know can refuse it.
                refused => Err(StoreError::Damaged(format!("a new transaction was refused: {refused:?}")).into()),
            };
        };
        change.idempotency = Some(IdempotencyRecord {
            customer_id: new.customer_id.clone(),
            key: request.key.clone(),
            fingerprint: request.fingerprint,
            answer: answer.clone(),
            expires_at: now + Self::KEY_LIFETIME,
        });
        match once::apply(self.store.as_ref(), change).await? {
            Verdict::Applied | Verdict::AlreadyApplied => Ok(CreateOutcome::Created(answer)),
            Verdict::Duplicate | Verdict::StaleVersion => match self.replay(&new.customer_id, &request).await? {
                Some(outcome) => Ok(outcome),
                None if spends.is_some() => Ok(CreateOutcome::TokenSpent),
                // The record expired between the write and this read: the client may simply ask again.
                None => Err(StoreError::Overloaded.into()),
            },
        }
    }

    /// What a key comes to that was used before; `None` for a fresh one. For requests that cannot be read again, because the
    /// token that they name is spent.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn replay(
        &self,
        customer: &CustomerId,
        request: &IdempotentRequest,
    ) -> Result<Option<CreateOutcome>, CreateError> {
        Ok(once::replay(self.keys.as_ref(), self.sources.clock.as_ref(), customer, request).await?)
    }

    /// Keeps the answer to a request that has had its effect, and gives what is to be told: the answer, or what another process
    /// kept for that key meanwhile. For requests whose effect is written by itself: where the process ends in between, the same
    /// request has the effect again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn keep(
        &self,
        customer: &CustomerId,
        request: &IdempotentRequest,
        answer: StoredAnswer,
    ) -> Result<CreateOutcome, StoreError> {
        let record = IdempotencyRecord {
            customer_id: customer.clone(),
            key: request.key.clone(),
            fingerprint: request.fingerprint,
            answer: answer.clone(),
            expires_at: self.sources.clock.now() + Self::KEY_LIFETIME,
        };
        if self.keys.keep(&record).await? {
            return Ok(CreateOutcome::Created(answer));
        }
        let replayed = once::replay(self.keys.as_ref(), self.sources.clock.as_ref(), customer, request).await?;
        Ok(replayed.unwrap_or(CreateOutcome::Created(answer)))
    }
}
