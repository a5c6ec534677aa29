use std::sync::Arc;

use crate::ports::{Store, StoreError, TransactionReader};
use crate::usecases::Sources;
use crate::usecases::authorize_transaction::CANCELLED;
use crate::{
    AttemptState, ChangeSet, CustomerId, IdempotencyRecord, IllegalTransition, Transaction, TransactionId,
    TransactionKind, TransactionStatus, Transition, Verdict,
};

/// Cancels a transaction before its approval. One that no gateway holds is cancelled at once; one that a gateway may have
/// charged is taken back there first, by a worker.
///
/// Cost: two reads and one write.
pub struct CancelTransaction {
    store: Arc<dyn Store>,
    transactions: Arc<dyn TransactionReader>,
    sources: Sources,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is cancelled, or was before.
    Cancelled(Box<Transaction>),
    /// It will be, once the gateway has confirmed it.
    Requested(Box<Transaction>),
    /// It was approved, or has ended otherwise.
    TooLate(TransactionStatus),
    /// There is no such transaction of this customer and kind.
    Unknown,
    /// The idempotency key was used meanwhile: its answer counts. Nothing was written.
    KeyTaken,
}

/// Why nothing could be cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine does not have this transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

impl CancelTransaction {
    /// How often a request is decided again because the transaction changed meanwhile.
    const MAX_TRIES: usize = 5;

    /// The use case over its ports.
    pub fn new(store: Arc<dyn Store>, transactions: Arc<dyn TransactionReader>, sources: Sources) -> Self {
        Self { store, transactions, sources }
    }

    /// Cancels a customer's transaction.
    ///
    /// # Errors
    /// [`CancelError`]; asking again is safe.
    pub async fn execute(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        id: TransactionId,
    ) -> Result<CancelOutcome, CancelError> {
        self.execute_once(customer, kind, id, |_| None).await
    }

    /// Cancels a customer's transaction, and writes with it the record of an idempotency key, which `record` makes of the
    /// outcome. Where nothing is to be written there is no record: the outcome is the same each time.
    ///
    /// # Errors
    /// [`CancelError`]; asking again is safe.
    pub async fn execute_once(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        id: TransactionId,
        record: impl Fn(&CancelOutcome) -> Option<IdempotencyRecord> + Send + Sync,
    ) -> Result<CancelOutcome, CancelError> {
        for _ in 0..Self::MAX_TRIES {
            if let Some(outcome) = self.try_once(customer, kind, id, &record).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// `None` when the transaction changed meanwhile.
    async fn try_once(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        id: TransactionId,
        record: &(impl Fn(&CancelOutcome) -> Option<IdempotencyRecord> + Send + Sync),
    ) -> Result<Option<CancelOutcome>, CancelError> {
        let loaded = self.transactions.load_for_authorization(&[id]).await?.into_iter().next();
        let Some(loaded) = loaded.filter(|l| l.transaction.customer_id == *customer && l.transaction.kind == kind)
        else {
            return Ok(Some(CancelOutcome::Unknown));
        };
        let transaction = loaded.transaction;
        match transaction.status {
            TransactionStatus::Processing => {}
            TransactionStatus::Cancelled => return Ok(Some(CancelOutcome::Cancelled(Box::new(transaction)))),
            status => return Ok(Some(CancelOutcome::TooLate(status))),
        }
        let now = self.sources.clock.now();
        let held = loaded.attempts.into_iter().next_back().filter(|attempt| attempt.state.is_unresolved());
        let is_requested = held.as_ref().is_some_and(|attempt| {
            attempt.state == AttemptState::Voiding && attempt.reason.as_deref() == Some(CANCELLED)
        });
        if is_requested {
            return Ok(Some(CancelOutcome::Requested(Box::new(transaction))));
        }
        let (mut change, outcome) = if let Some(attempt) = held {
            let mut voiding = attempt.into_state(AttemptState::Voiding, Some(CANCELLED), now);
            voiding.check_at = Some(now);
            let change = ChangeSet::of_attempts(transaction.clone(), vec![voiding]);
            (change, CancelOutcome::Requested(Box::new(transaction)))
        } else {
            let Transition::Executed(next) = transaction.cancel(now, self.sources.ids.as_ref())? else {
                return Ok(None);
            };
            let cancelled = next.transaction.clone();
            (ChangeSet::from(*next), CancelOutcome::Cancelled(Box::new(cancelled)))
        };
        change.idempotency = record(&outcome);
        let has_key = change.idempotency.is_some();
        Ok(match self.store.apply(change).await? {
            Verdict::Applied => Some(outcome),
            Verdict::Duplicate if has_key => Some(CancelOutcome::KeyTaken),
            // What was applied before may be somebody else's, for another reason: it is looked at again.
            _ => None,
        })
    }
}
