use bytes::Bytes;
use chrono::SecondsFormat;
use psp_domain::{Event, MessageId};
use serde::Serialize;
use serde_json::value::RawValue;

/// The data of an event is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the data of event {0} is not JSON")]
pub struct DamagedEvent(MessageId);

#[derive(Serialize)]
struct Body<'e, A> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    id: MessageId,
    aggregate_id: A,
    sequence: i64,
    data: &'e RawValue,
}

/// What is delivered of an event: the same bytes to every endpoint, at every attempt.
///
/// # Errors
/// [`DamagedEvent`].
pub fn body_of(event: &Event) -> Result<Bytes, DamagedEvent> {
    let damaged = |_| DamagedEvent(event.id);
    let body = Body {
        kind: event.kind.as_str(),
        timestamp: event.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        id: event.id,
        aggregate_id: event.aggregate_id,
        sequence: event.sequence,
        data: serde_json::from_str(&event.data).map_err(damaged)?,
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(damaged)
}
