use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MessageId;

/// The queues of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueName {
    /// Transactions that wait for authorization.
    Transactions,
    /// Chunks of due payables that wait for settlement.
    PayablesSettlement,
    /// Callbacks of gateways that wait to be applied.
    GatewayCallbacks,
    /// Refunds that wait for their gateway.
    Refunds,
    /// What happened to orders and their payments, and the other side waits to hear.
    Orders,
}

impl QueueName {
    /// Every queue.
    pub const ALL: [Self; 5] =
        [Self::Transactions, Self::PayablesSettlement, Self::GatewayCallbacks, Self::Refunds, Self::Orders];
    /// How often a message is received before it counts as poison.
    pub const MAX_RECEIVES: u32 = 5;

    /// The name on brokers and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::PayablesSettlement => "payables-settlement",
            Self::GatewayCallbacks => "gateway-callbacks",
            Self::Refunds => "refunds",
            Self::Orders => "orders",
        }
    }

    /// The queue of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.as_str() == name)
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event or a command on a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id: the event's, where it is one. Sending it twice stores it once where the queue is a table.
    pub id: MessageId,
    /// Where it goes.
    pub queue: QueueName,
    /// An event's name or a command's.
    pub kind: String,
    /// What it is about: a transaction, a settlement run.
    pub aggregate_id: Uuid,
    /// JSON.
    pub body: String,
}

/// One attempt to hand a message to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Names this attempt. A receipt of an earlier attempt has no effect once the message was received again.
    pub receipt: String,
    /// The how-manieth attempt this is: from 1.
    pub receive_count: u32,
}

/// A failure of the queue itself.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached or does not answer; asking again may help.
    #[error("queue unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took the other messages of the request, but not these.
    #[error("{} messages were not taken, the first because: {}", .0.len(), .0.first().map_or("", |(_, reason)| reason))]
    Refused(Vec<(MessageId, String)>),
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue.
    pub queue: QueueName,
    /// Messages that can be received now, or later, or are being handled.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest pending message was sent.
    pub oldest: Option<DateTime<Utc>>,
}

/// At-least-once queues with leases: a received message stays invisible for the queue's visibility timeout, and comes back
/// unless it is acknowledged by then. Handlers are idempotent.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores messages durably: all of them, or an error. A table takes all or none; a broker may take some and name the
    /// others ([`QueueError::Refused`]).
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError>;

    /// Takes up to `max` messages, oldest first; waits up to `wait` for the first one. A message that was received
    /// [`QueueName::MAX_RECEIVES`] times is not delivered again: it becomes a dead letter.
    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError>;

    /// The messages are done. An outdated receipt is passed over.
    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError>;

    /// Makes a message visible again `after` that time, with the reason kept for its dead letter.
    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError>;

    /// Keeps a message invisible for another visibility timeout. `false` when the lease was lost.
    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError>;

    /// Puts a message aside for an operator, with the reason.
    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError>;

    /// How long a received message stays invisible.
    fn visibility_timeout(&self) -> Duration;

    /// How full every queue is.
    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError>;
}

/// A message that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Why.
    pub reason: String,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: DateTime<Utc>,
    /// When it was put aside.
    pub dead_at: DateTime<Utc>,
}

/// What operators do with dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Up to `limit` dead letters, oldest first, after the one named.
    async fn list(
        &self,
        queue: Option<QueueName>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, QueueError>;

    /// One of them.
    async fn find(&self, id: MessageId) -> Result<Option<DeadLetter>, QueueError>;

    /// Back to its queue with a fresh count. `false` when there is no such dead letter.
    async fn replay(&self, id: MessageId) -> Result<bool, QueueError>;

    /// Gives it up: it is no dead letter any more. `false` when there is no such dead letter.
    async fn discard(&self, id: MessageId) -> Result<bool, QueueError>;
}
