use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{StoreError, VaultError};
use crate::{
    ConcludedDelivery, CustomerId, DueDelivery, EndpointId, Event, IdempotencyRecord, MessageId, Page, PageRequest,
    WebhookDelivery, WebhookEndpoint, WebhookSecret,
};

/// Knows to which URLs events may be delivered.
pub trait UrlPolicy: Send + Sync {
    /// The URL as it is kept.
    ///
    /// # Errors
    /// What is wrong with it, for its customer; never the URL itself, which may hold a password.
    fn check(&self, url: &str) -> Result<String, String>;
}

/// Fresh secrets.
pub trait SecretSource: Send + Sync {
    /// A secret that nobody can guess.
    ///
    /// # Errors
    /// [`VaultError::Provider`] where there is nothing random.
    fn new_secret(&self) -> Result<WebhookSecret, VaultError>;
}

/// What became of a write of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointVerdict {
    /// It is durable.
    Written,
    /// The row has another version than expected, or is gone: nothing was written.
    Stale,
    /// The customer has [`WebhookEndpoint::MAX_PER_CUSTOMER`]: nothing was written.
    TooMany,
    /// The idempotency key is taken: nothing was written.
    KeyTaken,
}

/// Keeps webhook endpoints.
#[async_trait]
pub trait EndpointStore: Send + Sync {
    /// Writes a new endpoint, and in the same write the record of its request's idempotency key.
    async fn insert_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError>;

    /// Writes a new state where the row still has that version, with events about it, which are delivered like all others, and
    /// in the same write the record of its request's idempotency key.
    /// `failing_since` is cleared where the endpoint is enabled and was disabled or had another URL, and otherwise stays as it is in
    /// the row.
    async fn update_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError>;

    /// Deletes an endpoint of a customer with its pending deliveries; `false` when there is none. Where very many are pending, it is
    /// disabled and they go first, some with each write. Those that ended are deleted with their events.
    async fn delete_endpoint(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, StoreError>;

    /// One endpoint of a customer. `None` for another customer's.
    async fn find_endpoint(&self, customer: &CustomerId, id: EndpointId)
    -> Result<Option<WebhookEndpoint>, StoreError>;

    /// A page of a customer's endpoints, newest first.
    async fn list_endpoints(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<WebhookEndpoint>, StoreError>;

    /// Up to `limit` endpoints, whoever's they are, by their ids, after the one named. To seal their secrets anew.
    async fn all_endpoints(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<WebhookEndpoint>, StoreError>;
}

/// Which due deliveries are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryClaim<'c> {
    /// Now.
    pub now: DateTime<Utc>,
    /// The most of them.
    pub max: u32,
    /// The most for one endpoint.
    pub per_endpoint: u32,
    /// Endpoints that have enough in hand.
    pub except: &'c [EndpointId],
    /// Until when they are leased: unless they are concluded by then, they are due again.
    pub leased_until: DateTime<Utc>,
}

/// The deliveries to webhook endpoints: a queue of their own, fair among endpoints, with attempts hours apart. They come to be
/// with their events.
#[async_trait]
pub trait DeliveryStore: Send + Sync {
    /// Leases due deliveries to enabled endpoints. Endpoints whose earliest delivery has been due longest come first, and none
    /// has more than its share, however many wait for it.
    async fn claim_deliveries(&self, claim: DeliveryClaim<'_>) -> Result<Vec<DueDelivery>, StoreError>;

    /// Waits until a commit of this process has made deliveries, or others say so, or so long.
    async fn deliveries_wake(&self, wait: Duration);

    /// Writes attempts and what they come to, in one database transaction; passes over those whose lease was lost. `Delivered`
    /// clears the endpoint's `failing_since`, any other verdict sets it where it is not set, to the attempt's start. A lease ends
    /// with its conclusion: the same one again, because the answer was lost, has no effect.
    async fn conclude_deliveries(&self, concluded: &[ConcludedDelivery]) -> Result<(), StoreError>;

    /// The deliveries of a customer's event: at most [`WebhookDelivery::MAX_SHOWN`], those to the newest endpoints, with the last
    /// [`WebhookDelivery::MAX_ATTEMPTS_SHOWN`] attempts of each. None for another customer's.
    async fn deliveries_of(&self, customer: &CustomerId, event: MessageId) -> Result<Vec<WebhookDelivery>, StoreError>;

    /// Starts the deliveries of a customer's event anew, now: to that endpoint if it is enabled, or to every enabled one that asks
    /// for it, whether or not there was a delivery before. One that is due or attempted just now stays as it is. Returns to how
    /// many it is delivered.
    async fn redeliver(
        &self,
        customer: &CustomerId,
        event: MessageId,
        endpoint: Option<EndpointId>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError>;

    /// How many deliveries to enabled endpoints are pending, and since when the longest due one is due. Counts no more than
    /// [`DeliveryBacklog::MAX_PENDING`].
    async fn delivery_backlog(&self, now: DateTime<Utc>) -> Result<DeliveryBacklog, StoreError>;
}

/// How much waits to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryBacklog {
    /// Deliveries that are pending: due now, or later.
    pub pending: u64,
    /// Since when the longest due one is due.
    pub oldest_due: Option<DateTime<Utc>>,
}

impl DeliveryBacklog {
    /// Where counting ends: more are told as so many.
    pub const MAX_PENDING: u32 = 100_000;
}
