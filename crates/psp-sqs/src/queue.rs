use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName,
    QueueAttributeName,
};
use backon::{ExponentialBuilder, Retryable};
use futures::stream::{self, StreamExt, TryStreamExt};
use psp_domain::ports::{Delivery, Message, Queue, QueueDepth, QueueError};
use psp_domain::{MessageId, QueueName};
use tokio::time::Instant;

use crate::connection::SqsQueue;
use crate::entry::{
    DEAD_AT, Entry, MAX_BYTES, MAX_ENTRIES, REASON, RECEIVE_COUNT, SENT_AT, attribute_text, batches, decode,
    system_attribute,
};

/// The most requests at once of one call.
const CONCURRENCY: usize = 8;
/// The longest that SQS lets a receive wait.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// The longest that SQS keeps a message invisible.
const MAX_INVISIBLE: Duration = Duration::from_hours(12);

/// Entries that SQS did not take though it took the request: a few more attempts, soon.
fn attempts() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(3)
        .with_jitter()
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let (mut refused, mut sends) = (Vec::new(), Vec::new());
        for queue in QueueName::ALL {
            let mut entries = Vec::new();
            for message in messages.iter().filter(|message| message.queue == queue) {
                let entry = Entry::of(message, &[]);
                if entry.size > MAX_BYTES {
                    refused.push((entry.id, format!("{} bytes are more than SQS takes", entry.size)));
                } else {
                    entries.push(entry);
                }
            }
            sends.extend(batches(entries).into_iter().map(|batch| (self.addresses(queue).live.as_str(), batch)));
        }
        let sends: Vec<_> = sends.into_iter().map(|(address, batch)| self.send_batch(address, batch)).collect();
        refused.extend(stream::iter(sends).buffer_unordered(CONCURRENCY).concat().await);
        if refused.is_empty() { Ok(()) } else { Err(QueueError::Refused(refused)) }
    }

    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        let mut deliveries = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.receive_some(queue, max, left).await?;
            if !received.is_empty() || Instant::now() >= deadline {
                break received;
            }
        };
        // A full answer says that there is more: fetch it with several requests at once.
        while deliveries.len() < max && deliveries.len().is_multiple_of(MAX_ENTRIES) && !deliveries.is_empty() {
            let requests = (max - deliveries.len()).div_ceil(MAX_ENTRIES).min(CONCURRENCY);
            let room = max - deliveries.len();
            let sizes = (0..requests).map(|n| (room - n * MAX_ENTRIES).min(MAX_ENTRIES));
            let receives: Vec<_> = sizes.map(|size| self.receive_some(queue, size, Duration::ZERO)).collect();
            let more: Vec<_> = stream::iter(receives).buffer_unordered(CONCURRENCY).collect().await;
            let asked = deliveries.len();
            // What came must be handed out, even if another request failed.
            deliveries.extend(more.into_iter().filter_map(Result::ok).flatten());
            if deliveries.len() < asked + requests * MAX_ENTRIES {
                break;
            }
        }
        deliveries.sort_unstable_by_key(|delivery| delivery.message.id);
        Ok(deliveries)
    }

    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        for queue in QueueName::ALL {
            let receipts: Vec<_> =
                deliveries.iter().filter(|d| d.message.queue == queue).map(|d| &*d.receipt).collect();
            let held: Vec<_> = receipts.into_iter().filter(|receipt| self.leases.end(receipt)).collect();
            let address = &self.addresses(queue).live;
            let deletes: Vec<_> = held.chunks(MAX_ENTRIES).map(|receipts| self.delete(address, receipts)).collect();
            stream::iter(deletes).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        }
        Ok(())
    }

    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        if delivery.receive_count >= QueueName::MAX_RECEIVES {
            // SQS would move it to the dead-letter queue at its next receive, without the reason.
            return self.dead_letter(delivery, reason).await;
        }
        if self.leases.end(&delivery.receipt) {
            self.change_visibility(delivery, after).await?;
        }
        Ok(())
    }

    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        if !self.leases.holds(&delivery.receipt) {
            return Ok(false);
        }
        let length = self.options.visibility_timeout;
        let begun = std::time::Instant::now();
        self.change_visibility(delivery, length).await?;
        self.leases.begin(&delivery.receipt, length.saturating_sub(begun.elapsed()));
        Ok(true)
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        if !self.leases.end(&delivery.receipt) {
            return Ok(());
        }
        let now = self.clock.now();
        let more = [
            (REASON, attribute_text(reason)),
            (RECEIVE_COUNT, delivery.receive_count.to_string()),
            (SENT_AT, now.to_rfc3339()),
            (DEAD_AT, now.to_rfc3339()),
        ];
        let addresses = self.addresses(delivery.message.queue);
        // First there, then gone from here: a crash in between makes a second dead letter, not a lost one.
        let refused = self.send_batch(&addresses.dead, vec![Entry::of(&delivery.message, &more)]).await;
        if let Some((_, reason)) = refused.into_iter().next() {
            return Err(QueueError::Unavailable(reason.into()));
        }
        self.delete(&addresses.live, &[&delivery.receipt]).await
    }

    fn visibility_timeout(&self) -> Duration {
        self.options.visibility_timeout
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let mut depths = Vec::with_capacity(QueueName::ALL.len());
        for queue in QueueName::ALL {
            let addresses = self.addresses(queue);
            let (pending, dead) = (self.depth(&addresses.live).await?, self.depth(&addresses.dead).await?);
            depths.push(QueueDepth { queue, pending, dead, oldest: None });
        }
        Ok(depths)
    }
}

impl SqsQueue {
    /// Sends a batch; what SQS does not take is tried a few times more. Returns what was not taken in the end, and why.
    pub(crate) async fn send_batch(&self, address: &str, batch: Vec<Entry>) -> Vec<(MessageId, String)> {
        let left = tokio::sync::Mutex::new((batch, Vec::new()));
        let send = || async {
            let (batch, refused) = &mut *left.lock().await;
            let request = self.client.send_message_batch().queue_url(address);
            let entries = batch.iter().enumerate().map(|(place, entry)| entry.at(place)).collect();
            let answer = match request.set_entries(Some(entries)).send().await {
                Ok(answer) => answer,
                Err(error) => return Err(broken(error).to_string()),
            };
            let mut failed: Vec<Option<&aws_sdk_sqs::types::BatchResultErrorEntry>> = vec![None; batch.len()];
            for failure in answer.failed() {
                if let Some(place) = failure.id().parse().ok().and_then(|place: usize| failed.get_mut(place)) {
                    *place = Some(failure);
                }
            }
            let mut again = Vec::new();
            for (entry, failure) in std::mem::take(batch).into_iter().zip(failed) {
                match failure {
                    None => {}
                    Some(failure) if failure.sender_fault() => refused.push((entry.id, describe(failure))),
                    Some(_) => again.push(entry),
                }
            }
            *batch = again;
            if batch.is_empty() { Ok(()) } else { Err("SQS did not take the message".to_owned()) }
        };
        // The SDK has repeated a request that failed as a whole.
        let outcome = send.retry(attempts()).when(|reason: &String| reason.starts_with("SQS did not")).await;
        let (batch, mut refused) = left.into_inner();
        if let Err(reason) = outcome {
            refused.extend(batch.into_iter().map(|entry| (entry.id, reason.clone())));
        }
        refused
    }

    async fn receive_some(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let wait = wait.min(MAX_WAIT);
        let (length, begun) = (self.options.visibility_timeout, std::time::Instant::now());
        let request = self
            .client
            .receive_message()
            .queue_url(&self.addresses(queue).live)
            .max_number_of_messages(i32::try_from(max.clamp(1, MAX_ENTRIES)).unwrap_or(1))
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(length))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_attribute_names("All");
        let received = request.customize().config_override(self.with_wait(wait)).send().await.map_err(broken)?;
        let delivery = |received: &aws_sdk_sqs::types::Message| {
            let receipt = received.receipt_handle()?.to_owned();
            // Long polls wait before the lease begins: the earliest possible end is after one attempt's wait.
            let waited = begun.elapsed().min(self.options.attempt_timeout);
            self.leases.begin(&receipt, length.saturating_sub(if wait.is_zero() { waited } else { Duration::ZERO }));
            let count = system_attribute(received, &MessageSystemAttributeName::ApproximateReceiveCount);
            let receive_count = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
            Some(Delivery { message: decode(received, queue), receipt, receive_count })
        };
        Ok(received.messages().iter().filter_map(delivery).collect())
    }

    pub(crate) async fn delete(&self, address: &str, receipts: &[&str]) -> Result<(), QueueError> {
        let entry = |(place, receipt): (usize, &&str)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(*receipt);
            entry.build().expect("id and receipt are set")
        };
        let mut left: Vec<_> = receipts.iter().enumerate().map(entry).collect();
        for _ in 0..3 {
            let request = self.client.delete_message_batch().queue_url(address).set_entries(Some(left.clone()));
            let answer = request.send().await.map_err(broken)?;
            let failed: Vec<_> =
                answer.failed().iter().filter(|f| !f.sender_fault()).map(|f| f.id().to_owned()).collect();
            left.retain(|entry| failed.contains(&entry.id));
            if left.is_empty() {
                return Ok(());
            }
        }
        Err(QueueError::Unavailable(format!("{} messages were not deleted", left.len()).into()))
    }

    async fn change_visibility(&self, delivery: &Delivery, after: Duration) -> Result<(), QueueError> {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
            .id("0")
            .receipt_handle(&delivery.receipt)
            .visibility_timeout(seconds(after.min(MAX_INVISIBLE)))
            .build()
            .expect("id and receipt are set");
        let address = &self.addresses(delivery.message.queue).live;
        let request = self.client.change_message_visibility_batch().queue_url(address).entries(entry);
        let answer = request.send().await.map_err(broken)?;
        match answer.failed().first() {
            Some(failure) => Err(QueueError::Unavailable(describe(failure).into())),
            None => Ok(()),
        }
    }

    async fn depth(&self, address: &str) -> Result<u64, QueueError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(address);
        let answer = request.set_attribute_names(Some(names.into())).send().await.map_err(broken)?;
        let counts = answer.attributes().into_iter().flat_map(|attributes| attributes.values());
        Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
    }
}

/// Whole seconds, rounded up: SQS knows no finer.
pub(crate) fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

fn describe(failure: &aws_sdk_sqs::types::BatchResultErrorEntry) -> String {
    format!("{}: {}", failure.code(), failure.message().unwrap_or_default())
}

pub(crate) fn broken<E: std::error::Error + Send + Sync + 'static>(error: E) -> QueueError {
    let text = aws_sdk_sqs::error::DisplayErrorContext(&error).to_string();
    tracing::debug!(error = text, "SQS failed");
    QueueError::Unavailable(Box::new(error))
}
