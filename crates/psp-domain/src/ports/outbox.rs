use std::time::Duration;

use async_trait::async_trait;

use super::{Delivery, QueueError, QueueName};

/// The store's outbox as a relay sees it: messages that wait to be sent to a broker.
///
/// Any number of relays may claim at once. Of one aggregate only the earliest unsent event is handed out, so its events
/// reach the broker in order; what a crashed relay had claimed comes back when the lease runs out.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Leases up to `max` messages of a queue, oldest first; waits up to `wait` for the first one, and is woken by commits.
    async fn claim(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError>;

    /// The broker has them.
    async fn mark_sent(&self, deliveries: &[Delivery]) -> Result<(), QueueError>;

    /// The broker did not take them: they can be claimed again `after` that time.
    async fn put_back(&self, deliveries: &[Delivery], after: Duration, reason: &str) -> Result<(), QueueError>;
}
