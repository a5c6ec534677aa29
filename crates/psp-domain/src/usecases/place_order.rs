use std::sync::Arc;

use crate::ports::{IdempotencyStore, Store, StoreError};
use crate::usecases::{CreateOutcome, CreateTransaction, IdempotentRequest, Sources, once};
use crate::{IdempotencyRecord, InvalidOrder, NewOrder, Order, StoredAnswer, Verdict};

/// Takes a customer's order: writes it with its `order.create.requested`, from which all else follows.
///
/// Cost: one write, which group commit shares with others; one read more when an idempotency key comes back.
pub struct PlaceOrder {
    store: Arc<dyn Store>,
    keys: Arc<dyn IdempotencyStore>,
    sources: Sources,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceOrderError {
    /// Every rule that the request breaks.
    #[error("the order is invalid")]
    Invalid(Vec<InvalidOrder>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PlaceOrder {
    /// The use case over its ports.
    pub fn new(store: Arc<dyn Store>, keys: Arc<dyn IdempotencyStore>, sources: Sources) -> Self {
        Self { store, keys, sources }
    }

    /// Places the order. `answer` renders what the customer is told; it is stored with the idempotency key.
    ///
    /// # Errors
    /// [`PlaceOrderError`]; nothing was written, except with [`StoreError::OutcomeUnknown`].
    pub async fn execute(
        &self,
        new: &NewOrder,
        idempotent: Option<IdempotentRequest>,
        answer: impl FnOnce(&Order) -> StoredAnswer + Send,
    ) -> Result<CreateOutcome, PlaceOrderError> {
        let now = self.sources.clock.now();
        let (order, mut change) =
            Order::place(new, now, self.sources.ids.as_ref()).map_err(PlaceOrderError::Invalid)?;
        let answer = answer(&order);
        change.idempotency = idempotent.as_ref().map(|request| IdempotencyRecord {
            customer_id: new.customer_id.clone(),
            key: request.key.clone(),
            fingerprint: request.fingerprint,
            answer: answer.clone(),
            expires_at: now + CreateTransaction::KEY_LIFETIME,
        });
        let refused = match once::apply(self.store.as_ref(), change).await? {
            Verdict::Applied | Verdict::AlreadyApplied => return Ok(CreateOutcome::Created(answer)),
            refused => refused,
        };
        let Some(request) = idempotent else {
            // A fresh id and no key: only a rule of the store's that the domain does not know can refuse it.
            return Err(StoreError::Damaged(format!("a new order was refused: {refused:?}")).into());
        };
        let (keys, clock) = (self.keys.as_ref(), self.sources.clock.as_ref());
        let replayed = once::replay(keys, clock, &new.customer_id, &request).await?;
        // The record expired between the write and this read: the client may simply ask again.
        replayed.ok_or_else(|| StoreError::Overloaded.into())
    }
}
