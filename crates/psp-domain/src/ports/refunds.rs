use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Message, QueueName, StoreError, Sweep};
use crate::{Attempt, CustomerId, MessageId, Payable, Refund, RefundId, Transaction, TransactionId};

/// A refund with what is needed to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedRefund {
    /// The refund.
    pub refund: Refund,
    /// Its transaction.
    pub transaction: Transaction,
    /// The transaction's attempts, in their order.
    pub attempts: Vec<Attempt>,
    /// The transaction's payables, read after the transaction.
    pub payables: Vec<Payable>,
}

/// Reads refunds and asks for the pending ones; they are written by change sets.
#[async_trait]
pub trait RefundStore: Send + Sync {
    /// The refunds of a customer's transaction, in their order. None for another customer's.
    async fn refunds(&self, customer: &CustomerId, transaction: TransactionId) -> Result<Vec<Refund>, StoreError>;

    /// One refund, whoever's it is. For workers. What it comes with is of one moment, or the transaction is read before all the
    /// rest: an end that is written meanwhile moves its version on, so nobody ends a refund that has ended.
    async fn load_refund(&self, id: RefundId) -> Result<Option<LoadedRefund>, StoreError>;

    /// For up to `limit` pending refunds whose `check_at` has come, the longest due first: sends a
    /// [`check message`](check_refund_message) and moves `check_at` on by as long as the refund is old, but at least
    /// `sweep.least` and at most `sweep.most`. One database transaction; moves no version. Returns how many there were.
    async fn sweep_refunds(&self, sweep: Sweep) -> Result<u64, StoreError>;

    /// How many refunds that were asked for before `overdue` are pending still. For operators.
    async fn count_overdue_refunds(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError>;
}

/// The kind of messages that ask for another look at a pending refund.
pub const CHECK_REFUND_MESSAGE_KIND: &str = "check_refund";

/// The message on `refunds` that asks for another look at a refund.
pub fn check_refund_message(id: MessageId, refund: RefundId) -> Message {
    Message {
        id,
        queue: QueueName::Refunds,
        kind: CHECK_REFUND_MESSAGE_KIND.to_owned(),
        aggregate_id: refund.0,
        body: "{}".to_owned(),
    }
}
