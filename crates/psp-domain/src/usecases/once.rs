//! What gives a write one effect, however often it is asked for.

use crate::ports::{Clock, IdempotencyStore, Store, StoreError};
use crate::usecases::{CreateOutcome, IdempotentRequest};
use crate::{ChangeSet, CustomerId, Verdict};

/// How often a use case decides again because what it read changed meanwhile.
pub(super) const MAX_TRIES: usize = 5;

/// Applies, and applies the same change set once more when the answer to the first COMMIT was lost.
pub(super) async fn apply(store: &dyn Store, change: ChangeSet) -> Result<Verdict, StoreError> {
    match store.apply(change.clone()).await {
        // Whatever becomes of the second attempt: the first may have been written.
        Err(unknown @ StoreError::OutcomeUnknown(_)) => store.apply(change).await.map_err(|_| unknown),
        answered => answered,
    }
}

/// What a key comes to that was used before; `None` for a fresh one.
pub(super) async fn replay(
    keys: &dyn IdempotencyStore,
    clock: &dyn Clock,
    customer: &CustomerId,
    request: &IdempotentRequest,
) -> Result<Option<CreateOutcome>, StoreError> {
    let found = keys.find(customer, &request.key, clock.now()).await?;
    Ok(found.map(|record| {
        if record.fingerprint == request.fingerprint {
            CreateOutcome::Replayed(record.answer)
        } else {
            CreateOutcome::KeyReused
        }
    }))
}
