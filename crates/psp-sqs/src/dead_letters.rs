//! Dead letters on SQS. A dead-letter queue is read by receiving its messages and letting them go again, so two who look at
//! the same time may each see a part of it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, MessageSystemAttributeName};
use chrono::DateTime;
use psp_domain::ports::{DeadLetter, DeadLetters, QueueError};
use psp_domain::{MessageId, QueueName};

use crate::connection::SqsQueue;
use crate::entry::{DEAD_AT, Entry, REASON, RECEIVE_COUNT, SENT_AT, attribute, decode, system_attribute, time};
use crate::queue::{broken, seconds};

/// The most dead letters that one look takes in hand.
const MAX_LOOK: usize = 10_000;
/// How long they are in hand at most.
const IN_HAND: Duration = Duration::from_mins(1);

/// Dead letters in hand, by their ids, each with the receipts of its copies.
type InHand = BTreeMap<MessageId, (DeadLetter, Vec<String>)>;

#[async_trait]
impl DeadLetters for SqsQueue {
    async fn list(
        &self,
        queue: Option<QueueName>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let mut letters = Vec::new();
        for queue in QueueName::ALL.into_iter().filter(|name| queue.is_none_or(|queue| queue == *name)) {
            let in_hand = self.take_in_hand(queue, None).await?;
            self.let_go(queue, &in_hand).await?;
            letters.extend(in_hand.into_values().map(|(letter, _)| letter));
        }
        letters.retain(|letter| after.is_none_or(|after| letter.message.id > after));
        letters.sort_unstable_by_key(|letter| letter.message.id);
        letters.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(letters)
    }

    async fn find(&self, id: MessageId) -> Result<Option<DeadLetter>, QueueError> {
        for queue in QueueName::ALL {
            let mut in_hand = self.take_in_hand(queue, Some(id)).await?;
            self.let_go(queue, &in_hand).await?;
            if let Some((letter, _)) = in_hand.remove(&id) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    async fn replay(&self, id: MessageId) -> Result<bool, QueueError> {
        self.remove(id, true).await
    }

    async fn discard(&self, id: MessageId) -> Result<bool, QueueError> {
        self.remove(id, false).await
    }
}

impl SqsQueue {
    /// Takes a dead letter away; sends it to its queue first, if it is to be replayed.
    async fn remove(&self, id: MessageId, replay: bool) -> Result<bool, QueueError> {
        for queue in QueueName::ALL {
            let mut in_hand = self.take_in_hand(queue, Some(id)).await?;
            let wanted = in_hand.remove(&id);
            self.let_go(queue, &in_hand).await?;
            let Some((letter, receipts)) = wanted else { continue };
            let addresses = self.addresses(queue);
            if replay {
                let refused = self.send_batch(&addresses.live, vec![Entry::of(&letter.message, &[])]).await;
                if let Some((_, reason)) = refused.into_iter().next() {
                    return Err(QueueError::Unavailable(reason.into()));
                }
            }
            for receipts in receipts.chunks(crate::entry::MAX_ENTRIES) {
                let receipts: Vec<_> = receipts.iter().map(String::as_str).collect();
                self.delete(&addresses.dead, &receipts).await?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Receives dead letters until there are no more, or until the wanted one is there.
    async fn take_in_hand(&self, queue: QueueName, wanted: Option<MessageId>) -> Result<InHand, QueueError> {
        let mut in_hand = InHand::new();
        let mut count = 0;
        while count < MAX_LOOK && wanted.is_none_or(|wanted| !in_hand.contains_key(&wanted)) {
            let request = self
                .client
                .receive_message()
                .queue_url(&self.addresses(queue).dead)
                .max_number_of_messages(10)
                // A short poll asks a part of the servers only, and may come back empty though there are some.
                .wait_time_seconds(1)
                .visibility_timeout(seconds(IN_HAND))
                .message_system_attribute_names(MessageSystemAttributeName::All)
                .message_attribute_names("All");
            let received = request.send().await.map_err(broken)?;
            if received.messages().is_empty() {
                break;
            }
            for message in received.messages() {
                count += 1;
                let letter = self.letter(message, queue);
                let receipt = message.receipt_handle().unwrap_or_default().to_owned();
                in_hand.entry(letter.message.id).or_insert_with(|| (letter, Vec::new())).1.push(receipt);
            }
        }
        Ok(in_hand)
    }

    /// Lets dead letters be seen by others again.
    async fn let_go(&self, queue: QueueName, in_hand: &InHand) -> Result<(), QueueError> {
        let receipts: Vec<_> = in_hand.values().flat_map(|(_, receipts)| receipts).collect();
        for receipts in receipts.chunks(crate::entry::MAX_ENTRIES) {
            let entry = |(place, receipt): (usize, &&String)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(place.to_string());
                entry.receipt_handle(*receipt).visibility_timeout(0).build().expect("id and receipt are set")
            };
            let entries = receipts.iter().enumerate().map(entry).collect();
            let request = self.client.change_message_visibility_batch().queue_url(&self.addresses(queue).dead);
            request.set_entries(Some(entries)).send().await.map_err(broken)?;
        }
        Ok(())
    }

    /// What is known of a dead letter. One that SQS moved itself has no reason of ours.
    fn letter(&self, message: &aws_sdk_sqs::types::Message, queue: QueueName) -> DeadLetter {
        let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = sent.and_then(DateTime::from_timestamp_millis).unwrap_or_else(|| self.clock.now());
        let count = attribute(message, RECEIVE_COUNT).and_then(|count| count.parse().ok());
        DeadLetter {
            message: decode(message, queue),
            reason: attribute(message, REASON).unwrap_or("received too often without an answer").to_owned(),
            receive_count: count.unwrap_or(QueueName::MAX_RECEIVES),
            sent_at: time(attribute(message, SENT_AT)).unwrap_or(sent),
            dead_at: time(attribute(message, DEAD_AT)).unwrap_or(sent),
        }
    }
}
