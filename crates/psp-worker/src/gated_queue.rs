use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::QueueName;
use psp_domain::ports::{Delivery, Health, Message, Queue, QueueDepth, QueueError};

/// A queue from which nothing is received while something else that its handlers need is down: a broker counts what it
/// hands out, and an outage of the database must not make dead letters of good messages.
pub struct GatedQueue {
    inner: Arc<dyn Queue>,
    needed: Arc<dyn Health>,
}

impl GatedQueue {
    /// The queue, and what its handlers need.
    pub fn new(inner: Arc<dyn Queue>, needed: Arc<dyn Health>) -> Self {
        Self { inner, needed }
    }
}

#[async_trait]
impl Queue for GatedQueue {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        self.inner.send(messages).await
    }

    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        self.needed.check().await.map_err(|error| QueueError::Unavailable(Box::new(error)))?;
        self.inner.receive(queue, max, wait).await
    }

    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        self.inner.ack(deliveries).await
    }

    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        self.inner.retry(delivery, after, reason).await
    }

    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        self.inner.extend(delivery).await
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        self.inner.dead_letter(delivery, reason).await
    }

    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout()
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        self.inner.depths().await
    }
}
