//! Messages as SQS carries them: the body is the body, and everything else is in message attributes.

use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeName, SendMessageBatchRequestEntry};
use chrono::{DateTime, Utc};
use psp_domain::ports::Message;
use psp_domain::{MessageId, QueueName};
use uuid::Uuid;

/// The most entries of one request.
pub(crate) const MAX_ENTRIES: usize = 10;
/// The most bytes of one request: what SQS has always taken, and emulators take.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// The most characters of a reason.
const MAX_REASON: usize = 1_024;

pub(crate) const REASON: &str = "reason";
pub(crate) const RECEIVE_COUNT: &str = "receive_count";
pub(crate) const SENT_AT: &str = "sent_at";
pub(crate) const DEAD_AT: &str = "dead_at";

/// A message as an entry of a batch, with its size.
pub(crate) struct Entry {
    pub(crate) id: MessageId,
    pub(crate) size: usize,
    builder: aws_sdk_sqs::types::builders::SendMessageBatchRequestEntryBuilder,
}

impl Entry {
    pub(crate) fn of(message: &Message, more: &[(&str, String)]) -> Self {
        let own = [
            ("id", message.id.to_string()),
            ("kind", message.kind.clone()),
            ("aggregate_id", message.aggregate_id.to_string()),
            ("traceparent", traceparent(message)),
        ];
        let mut size = message.body.len();
        let mut builder = SendMessageBatchRequestEntry::builder().message_body(&message.body);
        let more = more.iter().map(|(name, value)| (*name, value.clone()));
        for (name, value) in own.into_iter().chain(more) {
            size += name.len() + "String".len() + value.len();
            let attribute = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            builder = builder.message_attributes(name, attribute.expect("its type is set"));
        }
        Self { id: message.id, size, builder }
    }

    /// The entry at that place of its batch.
    pub(crate) fn at(&self, place: usize) -> SendMessageBatchRequestEntry {
        self.builder.clone().id(place.to_string()).build().expect("its id and body are set")
    }
}

/// W3C Trace Context: the trace of a message is its aggregate, so that everything about one transaction is one trace, and
/// the parent is the message.
fn traceparent(message: &Message) -> String {
    let (_, parent) = message.id.0.as_u64_pair();
    format!("00-{}-{parent:016x}-01", message.aggregate_id.simple())
}

/// Divides entries into batches that SQS takes.
pub(crate) fn batches(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_ENTRIES && bytes + entry.size <= MAX_BYTES => {
                bytes += entry.size;
                batch.push(entry);
            }
            _ => {
                bytes = entry.size;
                batches.push(vec![entry]);
            }
        }
    }
    batches
}

/// Text that an attribute can hold: not empty, not long, and without control characters.
pub(crate) fn attribute_text(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The message in what was received. One that did not come from this product has an unknown kind, which no handler takes.
pub(crate) fn decode(received: &aws_sdk_sqs::types::Message, queue: QueueName) -> Message {
    let uuid = |text: Option<&str>| text.and_then(|text| text.parse::<Uuid>().ok());
    Message {
        id: MessageId(uuid(attribute(received, "id")).or(uuid(received.message_id())).unwrap_or_default()),
        queue,
        kind: attribute(received, "kind").unwrap_or("unknown").to_owned(),
        aggregate_id: uuid(attribute(received, "aggregate_id")).unwrap_or_default(),
        body: received.body().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn attribute<'m>(received: &'m aws_sdk_sqs::types::Message, name: &str) -> Option<&'m str> {
    received.message_attributes()?.get(name)?.string_value()
}

pub(crate) fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text?).ok().map(|time| time.to_utc())
}

/// How often SQS has delivered the message, and when it was sent.
pub(crate) fn system_attribute(
    received: &aws_sdk_sqs::types::Message,
    name: &MessageSystemAttributeName,
) -> Option<i64> {
    received.attributes()?.get(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            id: MessageId(Uuid::from_u128(0x0102_0304_0506_7708_890a_0b0c_0d0e_0f10)),
            queue: QueueName::Transactions,
            kind: "test".into(),
            aggregate_id: Uuid::from_u128(0xa1a2_a3a4_a5a6_a7a8_a9aa_abac_adae_afb0),
            body: "x".repeat(bytes),
        }
    }

    #[test]
    fn a_batch_has_at_most_ten_entries_and_256_kib() {
        let sizes = |bodies: &[usize]| -> Vec<usize> {
            let entries = bodies.iter().map(|bytes| Entry::of(&message(*bytes), &[])).collect();
            batches(entries).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[]), [0_usize; 0]);
        assert_eq!(sizes(&[10; 10]), [10]);
        assert_eq!(sizes(&[10; 21]), [10, 10, 1]);
        assert_eq!(sizes(&[100_000; 5]), [2, 2, 1]);
        assert_eq!(sizes(&[MAX_BYTES + 1, 10, 10]), [1, 2], "one that is too large stands alone");
    }

    #[test]
    fn the_trace_of_a_message_is_its_aggregate() {
        assert_eq!(traceparent(&message(1)), "00-a1a2a3a4a5a6a7a8a9aaabacadaeafb0-890a0b0c0d0e0f10-01");
    }

    #[test]
    fn reasons_fit_an_attribute() {
        assert_eq!(attribute_text(""), "-");
        assert_eq!(attribute_text("a\u{0}b\nc"), "abc");
        assert_eq!(attribute_text(&"é".repeat(5_000)).chars().count(), MAX_REASON);
    }
}
