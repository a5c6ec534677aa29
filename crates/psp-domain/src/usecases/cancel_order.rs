use std::sync::Arc;

use crate::ports::{OrderReader, Store, StoreError};
use crate::usecases::Sources;
use crate::usecases::once::{MAX_TRIES, apply};
use crate::{
    ChangeSet, CustomerId, IdempotencyRecord, IllegalOrderTransition, Order, OrderId, OrderStatus, OrderTransition,
    Verdict,
};

/// Takes a customer's wish to cancel an order: writes it with its `order.cancel.requested`. What follows from that cancels the
/// order, and cancels its payment or gives it back.
///
/// Cost: one read and one write.
pub struct CancelOrder {
    store: Arc<dyn Store>,
    orders: Arc<dyn OrderReader>,
    sources: Sources,
}

/// What became of a request to cancel an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOrderOutcome {
    /// The order will be cancelled, or is.
    Requested(Box<Order>),
    /// It has ended otherwise.
    TooLate(OrderStatus),
    /// There is no such order of this customer.
    Unknown,
    /// The idempotency key was used meanwhile: its answer counts. Nothing was written.
    KeyTaken,
}

impl CancelOrder {
    /// The use case over its ports.
    pub fn new(store: Arc<dyn Store>, orders: Arc<dyn OrderReader>, sources: Sources) -> Self {
        Self { store, orders, sources }
    }

    /// Asks to cancel a customer's order, and writes with it the record of an idempotency key, which `record` makes of the outcome.
    /// Where nothing is to be written there is no record: the outcome is the same each time.
    ///
    /// # Errors
    /// Those of the store; asking again is safe.
    pub async fn execute(
        &self,
        customer: &CustomerId,
        id: OrderId,
        record: impl Fn(&CancelOrderOutcome) -> Option<IdempotencyRecord> + Send + Sync,
    ) -> Result<CancelOrderOutcome, StoreError> {
        for _ in 0..MAX_TRIES {
            if let Some(outcome) = self.try_once(customer, id, &record).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Overloaded)
    }

    /// `None` when the order changed meanwhile.
    async fn try_once(
        &self,
        customer: &CustomerId,
        id: OrderId,
        record: &(impl Fn(&CancelOrderOutcome) -> Option<IdempotencyRecord> + Send + Sync),
    ) -> Result<Option<CancelOrderOutcome>, StoreError> {
        let Some(order) = self.orders.find_order(customer, id).await? else {
            return Ok(Some(CancelOrderOutcome::Unknown));
        };
        let asked = order.clone().request_cancel(self.sources.clock.now(), self.sources.ids.as_ref());
        let next = match asked {
            Ok(OrderTransition::Executed(next)) => next,
            Ok(OrderTransition::AlreadyApplied) => return Ok(Some(CancelOrderOutcome::Requested(Box::new(order)))),
            Err(IllegalOrderTransition { from, .. }) => return Ok(Some(CancelOrderOutcome::TooLate(from))),
        };
        let outcome = CancelOrderOutcome::Requested(Box::new(next.order.clone()));
        let mut change = ChangeSet::from(*next);
        change.idempotency = record(&outcome);
        Ok(match apply(self.store.as_ref(), change).await? {
            Verdict::Applied | Verdict::AlreadyApplied => Some(outcome),
            Verdict::StaleVersion => None,
            Verdict::Duplicate => Some(CancelOrderOutcome::KeyTaken),
        })
    }
}
