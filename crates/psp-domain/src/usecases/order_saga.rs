use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::ports::{OrderProgress, OrderReader, RefundStore, Store, StoreError, TransactionReader};
use crate::usecases::once::{MAX_TRIES, apply};
use crate::usecases::{
    CancelError, CancelOutcome, CancelTransaction, RefundError, RefundRequestOutcome, RefundTransaction, Sources,
};
use crate::{
    ChangeSet, EventKind, Installments, Named, NewTransaction, Order, OrderId, OrderLink, OrderStatus, OrderTransition,
    RefundRefused, RefundStatus, Transaction, TransactionId, TransactionKind, TransactionStatus, Verdict,
};

/// Lets an order and its payment answer each other's events, until the two have ended alike: paid and approved, failed both,
/// or cancelled with a payment that never was, was not approved, or was given back.
///
/// Events may come more than once and in any order. Each is answered by one write at most, which expects the version that was
/// read, so a worker that is killed leaves either nothing or all of it, and the event comes again:
///
/// - The payment comes to be in the very write that gives it to its order, so there is one at most, and none once the order is
///   cancelled.
/// - Cancelling an order cancels its payment or asks for all of it back; a payment that is approved after its order was
///   cancelled is asked back by its approval. Whichever of the two comes later sees the other.
///
/// Cost of an event: one read and one write; where a cancelled order has a payment, two of each.
pub struct OrderSaga {
    store: Arc<dyn Store>,
    orders: Arc<dyn OrderReader>,
    transactions: Arc<dyn TransactionReader>,
    refunds: Arc<dyn RefundStore>,
    cancel: Arc<CancelTransaction>,
    refund: Arc<RefundTransaction>,
    sources: Sources,
}

/// What an event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutcome {
    /// The order has a new status, which is durable.
    Became(OrderStatus),
    /// All that follows from the event is durable, or was before.
    Done,
    /// Try again later, for this reason.
    Retry(String),
    /// Somebody must look at it, for this reason.
    NeedsAPerson(String),
    /// There is no such order, or this is no event that orders answer.
    Unknown,
}

/// Why an event could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum OrderSagaError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The payment could not be cancelled.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// The payment could not be asked back.
    #[error(transparent)]
    Refund(#[from] RefundError),
}

impl OrderSaga {
    /// How many refunds of a cancelled order's payment may fail before somebody must look at it.
    pub const MAX_FAILED_REFUNDS: usize = 3;

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        orders: Arc<dyn OrderReader>,
        transactions: Arc<dyn TransactionReader>,
        refunds: Arc<dyn RefundStore>,
        cancel: Arc<CancelTransaction>,
        refund: Arc<RefundTransaction>,
        sources: Sources,
    ) -> Self {
        Self { store, orders, transactions, refunds, cancel, refund, sources }
    }

    /// The event that nobody has answered, of an order where nothing has changed since `before`: its message was lost, or it was never
    /// said, because the release before ended the payment. `None` where all is as it should be, and where three refunds failed.
    pub fn unanswered(order: &OrderProgress, before: DateTime<Utc>) -> Option<EventKind> {
        if order.updated_at >= before {
            return None;
        }
        match (order.status, order.payment) {
            (OrderStatus::PendingPayment | OrderStatus::Paid, _) if order.is_cancel_requested => {
                Some(EventKind::OrderCancelRequested)
            }
            (OrderStatus::PendingPayment, None) if order.is_created => Some(EventKind::OrderCreated),
            (OrderStatus::PendingPayment, None) => Some(EventKind::OrderCreateRequested),
            (OrderStatus::PendingPayment, Some(payment)) => match payment.status {
                TransactionStatus::Processing => None,
                TransactionStatus::Declined => Some(EventKind::PaymentDeclined),
                TransactionStatus::Failed => Some(EventKind::PaymentFailed),
                TransactionStatus::Cancelled => Some(EventKind::PaymentCancelled),
                TransactionStatus::Refunded => Some(EventKind::PaymentRefunded),
                TransactionStatus::PendingPayment | TransactionStatus::Paid | TransactionStatus::PendingRefund => {
                    Some(EventKind::PaymentApproved)
                }
            },
            (OrderStatus::Cancelled, Some(payment)) => {
                let is_kept = matches!(payment.status, TransactionStatus::PendingPayment | TransactionStatus::Paid)
                    && payment.refundable > 0;
                match payment.failed_refunds {
                    0 if is_kept => Some(EventKind::OrderCancelled),
                    1..Self::MAX_FAILED_REFUNDS if is_kept => Some(EventKind::PaymentRefundFailed),
                    _ => None,
                }
            }
            (OrderStatus::Cancelled, None) | (OrderStatus::Paid | OrderStatus::Failed, _) => None,
        }
    }

    /// Answers an event of an order or of its payment.
    ///
    /// # Errors
    /// [`OrderSagaError`]; answering again is safe.
    pub async fn handle(&self, kind: EventKind, id: OrderId) -> Result<OrderOutcome, OrderSagaError> {
        let ids = self.sources.ids.as_ref();
        let now = self.sources.clock.now();
        match kind {
            EventKind::OrderCreateRequested => self.step(id, |order| order.create(now, ids)).await,
            EventKind::OrderCreated => self.create_payment(id).await,
            EventKind::OrderCancelRequested => self.cancelled_for(id, "requested").await,
            EventKind::OrderCancelled => self.end_payment(id).await,
            EventKind::PaymentApproved => self.approved(id).await,
            EventKind::PaymentDeclined => self.cancelled_for(id, "payment_declined").await,
            EventKind::PaymentCancelled => self.cancelled_for(id, "payment_cancelled").await,
            EventKind::PaymentRefunded => self.cancelled_for(id, "payment_refunded").await,
            EventKind::PaymentFailed => self.step(id, |order| or_ended(order.fail("payment_failed", now, ids))).await,
            EventKind::PaymentRefundFailed => self.ask_again(id).await,
            _ => Ok(OrderOutcome::Unknown),
        }
    }

    async fn cancelled_for(&self, id: OrderId, reason: &str) -> Result<OrderOutcome, OrderSagaError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        self.step(id, |order| or_ended(order.cancel(reason, now, ids))).await
    }

    /// The payment was approved: the order is paid or, where it is cancelled, gets its money back.
    async fn approved(&self, id: OrderId) -> Result<OrderOutcome, OrderSagaError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let pay = |order: Order| Ok(change_of(or_ended(order.pay(now, ids))));
        match self.write(id, pay).await? {
            (Some(order), OrderOutcome::Done) if order.status == OrderStatus::Cancelled => self.give_back(&order).await,
            (_, outcome) => Ok(outcome),
        }
    }

    /// Creates the payment in the write that gives it to the order.
    async fn create_payment(&self, id: OrderId) -> Result<OrderOutcome, OrderSagaError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let with_payment = |order: Order| {
            let (payment, created) = Transaction::create(&payment_of(&order)?, now, ids)
                .map_err(|faults| StoreError::Damaged(format!("the payment of an order is invalid: {faults:?}")))?;
            let OrderTransition::Executed(next) = order.pay_with(payment.id, now, ids) else { return Ok(None) };
            let (payment, mut change) = (ChangeSet::create(payment, None, created), ChangeSet::from(*next));
            change.transaction = payment.transaction;
            change.events.extend(payment.events);
            change.counts.extend(payment.counts);
            Ok(Some(change))
        };
        Ok(self.write(id, with_payment).await?.1)
    }

    /// The order is cancelled: so is its payment, unless it was approved, and then all that is left of it is given back.
    async fn end_payment(&self, id: OrderId) -> Result<OrderOutcome, OrderSagaError> {
        let Some(order) = self.orders.load_order(id).await? else { return Ok(OrderOutcome::Unknown) };
        let Some(payment) = order.payment_id else { return Ok(OrderOutcome::Done) };
        match self.cancel.execute(&order.customer_id, TransactionKind::Payment, payment).await? {
            CancelOutcome::TooLate(status) if status.is_approved() => self.give_back(&order).await,
            // No key is written with it.
            CancelOutcome::Cancelled(_)
            | CancelOutcome::Requested(_)
            | CancelOutcome::TooLate(_)
            | CancelOutcome::KeyTaken => Ok(OrderOutcome::Done),
            CancelOutcome::Unknown => Err(without_payment(payment).into()),
        }
    }

    /// The gateway did not give back: where the order is cancelled it is asked again, but not for ever.
    async fn ask_again(&self, id: OrderId) -> Result<OrderOutcome, OrderSagaError> {
        let Some(order) = self.orders.load_order(id).await? else { return Ok(OrderOutcome::Unknown) };
        let Some(payment) = order.payment_id.filter(|_| order.status == OrderStatus::Cancelled) else {
            return Ok(OrderOutcome::Done);
        };
        let found = self.transactions.find(&order.customer_id, payment).await?;
        if found.ok_or_else(|| without_payment(payment))?.refundable().minor() == 0 {
            return Ok(OrderOutcome::Done);
        }
        let refunds = self.refunds.refunds(&order.customer_id, payment).await?;
        let failed = refunds.iter().filter(|refund| refund.status == RefundStatus::Failed).count();
        if failed >= Self::MAX_FAILED_REFUNDS {
            return Ok(kept(&format!("{failed} refunds failed")));
        }
        self.give_back(&order).await
    }

    /// Asks for all that is left of the payment.
    async fn give_back(&self, order: &Order) -> Result<OrderOutcome, OrderSagaError> {
        let Some(payment) = order.payment_id else { return Ok(OrderOutcome::Done) };
        match self.refund.request(&order.customer_id, payment, None, |_| None).await? {
            RefundRequestOutcome::Requested(..)
            | RefundRequestOutcome::Refused(RefundRefused::Status(_) | RefundRefused::Exceeds(_)) => {
                Ok(OrderOutcome::Done)
            }
            RefundRequestOutcome::Refused(refused) => Ok(kept(&refused.to_string())),
            RefundRequestOutcome::Unknown => Err(without_payment(payment).into()),
            RefundRequestOutcome::KeyTaken => Ok(OrderOutcome::Retry("an idempotency key was taken".into())),
        }
    }

    async fn step(
        &self,
        id: OrderId,
        decide: impl Fn(Order) -> OrderTransition + Send + Sync,
    ) -> Result<OrderOutcome, OrderSagaError> {
        Ok(self.write(id, |order| Ok(change_of(decide(order)))).await?.1)
    }

    /// Loads the order, decides and writes; again where it changed meanwhile. Returns the order as it is then, and what the event
    /// came to.
    async fn write(
        &self,
        id: OrderId,
        decide: impl Fn(Order) -> Result<Option<ChangeSet>, StoreError> + Send + Sync,
    ) -> Result<(Option<Order>, OrderOutcome), StoreError> {
        for _ in 0..MAX_TRIES {
            let Some(order) = self.orders.load_order(id).await? else { return Ok((None, OrderOutcome::Unknown)) };
            let before = order.status;
            let Some(change) = decide(order.clone())? else { return Ok((Some(order), OrderOutcome::Done)) };
            let next = change.order.as_ref().map_or(order, |write| write.order().clone());
            match apply(self.store.as_ref(), change).await? {
                Verdict::Applied | Verdict::AlreadyApplied if next.status == before => {
                    return Ok((Some(next), OrderOutcome::Done));
                }
                Verdict::Applied | Verdict::AlreadyApplied => {
                    let became = OrderOutcome::Became(next.status);
                    return Ok((Some(next), became));
                }
                Verdict::StaleVersion | Verdict::Duplicate => {}
            }
        }
        Ok((None, OrderOutcome::Retry("the order changes too often".into())))
    }
}

/// The payment that an order asks for.
fn payment_of(order: &Order) -> Result<NewTransaction, StoreError> {
    let name = order.id.to_string().parse().map_err(|_| StoreError::Damaged("an order's id is no name".into()))?;
    Ok(NewTransaction {
        kind: TransactionKind::Payment,
        customer_id: order.customer_id.clone(),
        description: format!("Order {}", order.id),
        amount: order.total,
        payment_method: order.payment_method,
        card: None,
        installments: Installments::ONE,
        named: Named { order_id: Some(name), ..Named::default() },
        order: Some(OrderLink { id: order.id, correlation_id: order.correlation_id.clone() }),
    })
}

/// Where the order has ended otherwise there is nothing to do: the other side hears of that, too.
fn or_ended<E>(transition: Result<OrderTransition, E>) -> OrderTransition {
    transition.unwrap_or(OrderTransition::AlreadyApplied)
}

fn change_of(transition: OrderTransition) -> Option<ChangeSet> {
    match transition {
        OrderTransition::Executed(next) => Some(ChangeSet::from(*next)),
        OrderTransition::AlreadyApplied => None,
    }
}

fn kept(why: &str) -> OrderOutcome {
    OrderOutcome::NeedsAPerson(format!("the money of a cancelled order is kept: {why}"))
}

fn without_payment(payment: TransactionId) -> StoreError {
    StoreError::Damaged(format!("an order's payment {payment} is not there"))
}
