use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Clock, DeadLetter, DeadLetters, Delivery, Message, Queue, QueueDepth, QueueError};
use psp_domain::{Event, EventKind, MessageId, QueueName};
use tokio::time::{Instant, timeout_at};

use super::Memory;

/// A message with its state.
pub(super) struct Stored {
    message: Message,
    sent_at: DateTime<Utc>,
    visible_at: Option<DateTime<Utc>>,
    receive_count: u32,
    lease: u64,
    reason: Option<String>,
    dead_at: Option<DateTime<Utc>>,
}

impl Stored {
    pub(super) fn new(message: Message, now: DateTime<Utc>) -> Self {
        Self { message, sent_at: now, visible_at: Some(now), receive_count: 0, lease: 0, reason: None, dead_at: None }
    }

    pub(super) fn of_event(event: &Event, queue: QueueName, now: DateTime<Utc>) -> Self {
        let message = Message {
            id: event.id,
            queue,
            kind: event.kind.as_str().into(),
            aggregate_id: event.aggregate_id,
            body: event.data.clone(),
        };
        Self::new(message, now)
    }

    /// Whether nobody waits for it any more: neither is it pending, nor a dead letter.
    pub(super) fn is_done(&self) -> bool {
        self.visible_at.is_none() && self.dead_at.is_none()
    }

    fn dead_letter(&self) -> Option<DeadLetter> {
        Some(DeadLetter {
            message: self.message.clone(),
            reason: self.reason.clone().unwrap_or_else(|| "received too often without an answer".into()),
            receive_count: self.receive_count,
            sent_at: self.sent_at,
            dead_at: self.dead_at?,
        })
    }
}

const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a waiting receiver looks again: the clock may have been moved.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Memory {
    fn claim(&self, queue: QueueName, max: usize) -> Vec<Delivery> {
        let now = self.clock.now();
        let mut state = self.state();
        let visible = state.messages.values_mut().filter(|m| m.message.queue == queue && m.visible_at <= Some(now));
        let mut claimed = Vec::new();
        for stored in visible.filter(|m| m.visible_at.is_some()) {
            if stored.receive_count >= QueueName::MAX_RECEIVES {
                (stored.visible_at, stored.dead_at) = (None, Some(now));
            } else if claimed.len() < max {
                stored.visible_at = Some(now + VISIBILITY_TIMEOUT);
                stored.receive_count += 1;
                stored.lease += 1;
                claimed.push(Delivery {
                    message: stored.message.clone(),
                    receipt: stored.lease.to_string(),
                    receive_count: stored.receive_count,
                });
            }
        }
        claimed
    }

    /// Changes a message under its lease; `false` when the lease was lost.
    fn under_lease(&self, delivery: &Delivery, change: impl FnOnce(&mut Stored)) -> bool {
        let mut state = self.state();
        let stored = state.messages.get_mut(&delivery.message.id.0);
        let held = stored.filter(|m| m.visible_at.is_some() && m.lease.to_string() == delivery.receipt);
        held.map(change).is_some()
    }
}

#[async_trait]
impl Queue for Memory {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let now = self.clock.now();
        for message in messages {
            self.state().messages.entry(message.id.0).or_insert_with(|| Stored::new(message, now));
        }
        self.sent.notify_waiters();
        Ok(())
    }

    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            let sent = self.sent.notified();
            let claimed = self.claim(queue, max);
            if !claimed.is_empty() || Instant::now() >= deadline {
                return Ok(claimed);
            }
            let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), sent).await;
        }
    }

    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        for delivery in deliveries {
            let was_held = self.under_lease(delivery, |stored| stored.visible_at = None);
            // An event stays; a command goes.
            if was_held && EventKind::from_name(&delivery.message.kind).is_none() {
                self.state().messages.remove(&delivery.message.id.0);
            }
        }
        Ok(())
    }

    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        let at = self.clock.now() + after;
        self.under_lease(delivery, |m| (m.visible_at, m.reason) = (Some(at), Some(reason.to_owned())));
        Ok(())
    }

    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let until = self.clock.now() + VISIBILITY_TIMEOUT;
        Ok(self.under_lease(delivery, |m| m.visible_at = Some(until)))
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let now = self.clock.now();
        self.under_lease(delivery, |m| {
            (m.visible_at, m.dead_at, m.reason) = (None, Some(now), Some(reason.to_owned()));
        });
        Ok(())
    }

    fn visibility_timeout(&self) -> Duration {
        VISIBILITY_TIMEOUT
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let state = self.state();
        let depth = |queue: QueueName| {
            let own = state.messages.values().filter(move |m| m.message.queue == queue);
            QueueDepth {
                queue,
                pending: own.clone().filter(|m| m.visible_at.is_some()).count() as u64,
                dead: own.clone().filter(|m| m.dead_at.is_some()).count() as u64,
                oldest: own.filter(|m| m.visible_at.is_some()).map(|m| m.sent_at).min(),
            }
        };
        Ok(QueueName::ALL.map(depth).to_vec())
    }
}

#[async_trait]
impl DeadLetters for Memory {
    async fn list(
        &self,
        queue: Option<QueueName>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let state = self.state();
        let dead = state.messages.values().filter_map(Stored::dead_letter);
        let wanted = dead.filter(|d| queue.is_none_or(|q| d.message.queue == q) && Some(d.message.id) > after);
        Ok(wanted.take(limit as usize).collect())
    }

    async fn find(&self, id: MessageId) -> Result<Option<DeadLetter>, QueueError> {
        Ok(self.state().messages.get(&id.0).and_then(Stored::dead_letter))
    }

    async fn replay(&self, id: MessageId) -> Result<bool, QueueError> {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(stored) = state.messages.get_mut(&id.0).filter(|m| m.dead_at.is_some()) else { return Ok(false) };
        (stored.visible_at, stored.dead_at, stored.reason, stored.receive_count) = (Some(now), None, None, 0);
        drop(state);
        self.sent.notify_waiters();
        Ok(true)
    }

    async fn discard(&self, id: MessageId) -> Result<bool, QueueError> {
        let mut state = self.state();
        let dead = state.messages.get(&id.0).is_some_and(|m| m.dead_at.is_some());
        if dead {
            state.messages.remove(&id.0);
        }
        Ok(dead)
    }
}
