use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Message, QueueName, StoreError};
use crate::{Attempt, MessageId, TransactionId};

/// Reads attempts and asks for the unresolved ones; they are written by change sets.
#[async_trait]
pub trait AttemptStore: Send + Sync {
    /// The attempts of a transaction, in their order.
    async fn attempts(&self, transaction: TransactionId) -> Result<Vec<Attempt>, StoreError>;

    /// For up to `limit` unresolved attempts whose `check_at` has come, the longest due first: sends a
    /// [`check message`](check_message) and moves `check_at` on by as long as the attempt is old, but at least `sweep.least`
    /// and at most `sweep.most`. One database transaction; moves no version. Returns how many there were.
    async fn sweep(&self, sweep: Sweep) -> Result<u64, StoreError>;

    /// How many attempts that were opened before `overdue` are `open` or `voiding` still: the gateway may have charged, and
    /// does not say. For operators.
    async fn count_overdue(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError>;

    /// Up to `limit` transactions that were created before `created`, are `processing`, and have no unresolved attempt, so that
    /// no sweep asks for them: their message was lost to the dead letters. Oldest first, after the one named.
    async fn stalled(
        &self,
        created: DateTime<Utc>,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, StoreError>;
}

/// One round of asking for unresolved attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Now.
    pub now: DateTime<Utc>,
    /// The most attempts.
    pub limit: u32,
    /// The shortest time until the next question.
    pub least: TimeDelta,
    /// The longest.
    pub most: TimeDelta,
}

/// The kind of messages that ask for another look at an unresolved attempt.
pub const CHECK_MESSAGE_KIND: &str = "check_transaction";

/// The message on `transactions` that asks for another look at a transaction.
pub fn check_message(id: MessageId, transaction: TransactionId) -> Message {
    Message {
        id,
        queue: QueueName::Transactions,
        kind: CHECK_MESSAGE_KIND.to_owned(),
        aggregate_id: transaction.0,
        body: "{}".to_owned(),
    }
}
