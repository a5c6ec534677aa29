//! Webhook endpoints and deliveries to them: when an attempt is made again, and when an endpoint is given up.
//!
//! A delivery is one event for one endpoint. Each event that is written becomes a delivery to every endpoint of its customer
//! that is enabled and asks for its kind, in the same write.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ports::IdGenerator;
use crate::{CustomerId, EndpointId, Event, EventKind, MessageId};

/// A secret of an endpoint, encrypted by a [`crate::ports::SecretVault`]. Opaque to everyone else.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret(pub Vec<u8>);

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSecret({} bytes)", self.0.len())
    }
}

/// A secret of an endpoint as its customer has it: what signs deliveries. `Debug` does not show it, and it is overwritten when
/// it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Zeroizing<String>);

impl WebhookSecret {
    /// The secret of that text.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text: for its customer's eyes, and for the vault.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(***)")
    }
}

/// Whether an endpoint receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointStatus {
    /// It receives.
    Enabled,
    /// It receives nothing, by the customer's wish or because it failed for too long. What waits for it waits on.
    Disabled,
}

impl EndpointStatus {
    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled].into_iter().find(|status| status.as_str() == name)
    }
}

/// Where a customer wants events delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// Where to.
    pub url: String,
    /// The kinds of events that it asks for; empty for all.
    pub events: Vec<EventKind>,
    /// The customer's words; may be empty.
    pub description: String,
    /// Whether it receives.
    pub status: EndpointStatus,
    /// Why it was disabled, where that was not the customer's wish: `gone` or `failing`.
    pub disabled_reason: Option<String>,
    /// The secret that signs.
    pub secret: SealedSecret,
    /// The one before it, which signs, too, until that time.
    pub previous_secret: Option<(SealedSecret, DateTime<Utc>)>,
    /// Since when every attempt failed; nothing while they succeed.
    pub failing_since: Option<DateTime<Utc>>,
    /// Moves on with every write but that of `failing_since`: what an update expects to find.
    pub version: i64,
    /// The number of its events.
    pub sequence: i64,
    /// When it came to be.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl WebhookEndpoint {
    /// The most endpoints of one customer.
    pub const MAX_PER_CUSTOMER: u32 = 20;
    /// The longest URL, in bytes.
    pub const URL_MAX_LEN: usize = 2_048;
    /// The longest description, in characters.
    pub const DESCRIPTION_MAX_CHARS: usize = 500;

    /// Whether a text may be a description: not too long, and without U+0000, which Postgres does not store.
    pub fn is_description(text: &str) -> bool {
        text.chars().count() <= Self::DESCRIPTION_MAX_CHARS && !text.contains('\0')
    }

    /// The name that its secrets are sealed for.
    pub fn secret_name(id: EndpointId) -> String {
        format!("webhook endpoint {id}")
    }

    /// Whether it asks for events of that kind.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }

    /// The scheme, the host and the port of its URL: what may be shown to others than its customer.
    pub fn origin(&self) -> &str {
        let host = self.url.find("://").map_or(0, |scheme| scheme + "://".len());
        let end = self.url[host..].find(['/', '\\', '?', '#']).map_or(self.url.len(), |length| host + length);
        &self.url[..end]
    }

    /// Disabled for that reason, with its `webhook_endpoint.disabled`.
    #[must_use]
    pub fn disable(mut self, reason: &str, now: DateTime<Utc>, ids: &dyn IdGenerator) -> (Self, Event) {
        self.status = EndpointStatus::Disabled;
        self.disabled_reason = Some(reason.to_owned());
        self.version += 1;
        self.sequence += 1;
        self.updated_at = now;
        let event = Event::of_endpoint_disabled(MessageId(ids.next_id()), &self, reason);
        (self, event)
    }
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// It is attempted now or later.
    Pending,
    /// The endpoint took it: final, unless it is asked for again.
    Delivered,
    /// Every attempt of the schedule failed: nobody tries again, unless it is asked for.
    Failed,
}

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// One attempt of a delivery, as it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The how-manieth of its delivery: from 1.
    pub number: u32,
    /// When it was made.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// Why there was none, as a short `snake_case` word: `timeout`, `refused_address`, `dns`, `connect`, `tls`, `closed`, …
    pub error: Option<String>,
    /// The beginning of the answer's body: at most [`Self::MAX_ANSWER_BYTES`], what is not UTF-8 replaced.
    pub answer: String,
}

impl DeliveryAttempt {
    /// How much of an answer is kept.
    pub const MAX_ANSWER_BYTES: usize = 1_024;

    /// Whether the endpoint took it: a status of the 2xx class.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, Some(200..=299))
    }
}

/// A delivery as its customer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// Of which event.
    pub event_id: MessageId,
    /// To which endpoint.
    pub endpoint_id: EndpointId,
    /// How far it is.
    pub status: DeliveryStatus,
    /// While it is pending: when it is attempted next, at the earliest.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// The last attempts, in order.
    pub attempts: Vec<DeliveryAttempt>,
    /// When it came to be.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl WebhookDelivery {
    /// The most deliveries of one event that are shown.
    pub const MAX_SHOWN: u32 = 100;
    /// The most attempts of one delivery that are shown.
    pub const MAX_ATTEMPTS_SHOWN: u32 = 50;
}

/// A delivery whose time has come, leased to one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDelivery {
    /// What is delivered.
    pub event: Event,
    /// Where to, as it was when it was leased.
    pub endpoint: WebhookEndpoint,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// How many attempts were made since it was last asked for: where in the schedule it is.
    pub tries: u32,
    /// Names the lease.
    pub lease: i64,
}

/// When deliveries are attempted, and endpoints given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPolicy {
    /// The pauses before the second attempt, the third and so on; the first is made at once.
    pub pauses: Vec<Duration>,
    /// How much of a pause is random at most, in percent: the pause is that much longer.
    pub jitter_percent: u8,
    /// How long an endpoint may fail before it is disabled.
    pub disable_after: TimeDelta,
}

impl Default for WebhookPolicy {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h; up to 20 % longer; five days.
    fn default() -> Self {
        let minutes = [5, 30, 120, 300, 600, 600].map(Duration::from_mins);
        Self {
            pauses: std::iter::once(Duration::from_secs(5)).chain(minutes).collect(),
            jitter_percent: 20,
            disable_after: TimeDelta::days(5),
        }
    }
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryVerdict {
    /// The endpoint took it.
    Delivered,
    /// It is attempted again then.
    RetryAt(DateTime<Utc>),
    /// The schedule is over.
    Failed,
}

/// An attempt that ended, and what it comes to: what a [`crate::ports::DeliveryStore`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcludedDelivery {
    /// Of which event.
    pub event_id: MessageId,
    /// To which endpoint.
    pub endpoint_id: EndpointId,
    /// The lease under which it was made.
    pub lease: i64,
    /// The attempt.
    pub attempt: DeliveryAttempt,
    /// What becomes of it.
    pub verdict: DeliveryVerdict,
}

impl WebhookPolicy {
    /// The longest that an endpoint may ask to be left alone with `Retry-After`.
    pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

    /// What becomes of a delivery with that attempt, which was its `tries + 1`st. `random` is from 0 to 1, both included, in
    /// millionths, and `retry_after` what the endpoint asked for: the next attempt is not made before.
    pub fn judge(
        &self,
        tries: u32,
        attempt: &DeliveryAttempt,
        retry_after: Option<Duration>,
        random_millionths: u32,
        now: DateTime<Utc>,
    ) -> DeliveryVerdict {
        if attempt.is_success() {
            return DeliveryVerdict::Delivered;
        }
        let Some(pause) = self.pauses.get(tries as usize) else { return DeliveryVerdict::Failed };
        let jitter = *pause * u32::from(self.jitter_percent) / 100;
        let pause = *pause + jitter * random_millionths.min(1_000_000) / 1_000_000;
        let pause = pause.max(retry_after.unwrap_or_default().min(Self::MAX_RETRY_AFTER));
        DeliveryVerdict::RetryAt(now + pause)
    }

    /// Why the endpoint is to be disabled after that attempt, if it is: it is `gone` (410), or `failing` for too long.
    pub fn gives_up(
        &self,
        endpoint: &WebhookEndpoint,
        attempt: &DeliveryAttempt,
        now: DateTime<Utc>,
    ) -> Option<&'static str> {
        if attempt.status == Some(410) {
            return Some("gone");
        }
        let is_old = endpoint.failing_since.is_some_and(|since| now - since >= self.disable_after);
        (is_old && !attempt.is_success()).then_some("failing")
    }
}

/// Which events are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Whose; everybody's where nobody is named.
    pub customer_id: Option<CustomerId>,
    /// Of these kinds; of all where none is named.
    pub kinds: Vec<EventKind>,
    /// About this transaction, payable, order or endpoint.
    pub aggregate_id: Option<Uuid>,
    /// Not before that time.
    pub from: Option<DateTime<Utc>>,
    /// Before that time.
    pub to: Option<DateTime<Utc>>,
}

impl EventFilter {
    /// The most events that one page or one step of a replay examines to find those that are meant.
    pub const MAX_EXAMINED: u32 = 10_000;
    /// How much earlier or later than its event an id may have been made: clocks are set.
    const SLACK_MS: i64 = 24 * 60 * 60 * 1_000;

    /// Whether it passes over events of its customer.
    pub const fn is_selective(&self) -> bool {
        !self.kinds.is_empty() || self.aggregate_id.is_some() || self.from.is_some() || self.to.is_some()
    }

    /// The ids that its events may have: from the first on, and before the second.
    pub fn id_bounds(&self) -> (Uuid, Uuid) {
        let first_at = |at: DateTime<Utc>, slack_ms| first_id(at.timestamp_millis().saturating_add(slack_ms));
        (
            self.from.map_or(Uuid::nil(), |from| first_at(from, -Self::SLACK_MS)),
            self.to.map_or(Uuid::max(), |to| first_at(to, Self::SLACK_MS)),
        )
    }
}

/// The least `UUIDv7` of that millisecond since 1970; of the first or the last that one can name, where it is none of those.
fn first_id(at_ms: i64) -> Uuid {
    const MAX_MS: u64 = (1 << 48) - 1;
    let at_ms = u64::try_from(at_ms).unwrap_or(0).min(MAX_MS);
    uuid::Builder::from_unix_timestamp_millis(at_ms, &[0; 10]).into_uuid()
}
