use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    Clock, DeliveryBacklog, DeliveryClaim, DeliveryStore, EndpointStore, EndpointVerdict, StoreError,
};
use psp_domain::{
    ConcludedDelivery, CustomerId, DeliveryAttempt, DeliveryStatus, DeliveryVerdict, DueDelivery, EndpointId,
    EndpointStatus, Event, IdempotencyRecord, MessageId, Page, PageRequest, WebhookDelivery, WebhookEndpoint,
};
use tokio::time::timeout;

use super::Memory;
use super::memory_store::{State, page};

/// A delivery with its state.
pub(super) struct Delivering {
    pub(super) status: DeliveryStatus,
    due_at: Option<DateTime<Utc>>,
    attempts: Vec<DeliveryAttempt>,
    tries: u32,
    lease: i64,
    is_leased: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

const MAX_ATTEMPTS_SHOWN: usize = WebhookDelivery::MAX_ATTEMPTS_SHOWN as usize;

/// How often a waiting worker looks again: the clock may have been moved.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Delivering {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            status: DeliveryStatus::Pending,
            due_at: Some(now),
            attempts: Vec::new(),
            tries: 0,
            lease: 0,
            is_leased: false,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether it is due, or attempted just now.
    fn is_on_its_way(&self, now: DateTime<Utc>) -> bool {
        self.due_at.is_some_and(|due| due <= now || self.is_leased)
    }

    /// Starts anew.
    fn start_anew(&mut self, now: DateTime<Utc>) {
        (self.status, self.due_at, self.tries, self.updated_at) = (DeliveryStatus::Pending, Some(now), 0, now);
        self.lease += 1;
        self.is_leased = false;
    }

    fn shown(&self, event_id: MessageId, endpoint_id: EndpointId) -> WebhookDelivery {
        WebhookDelivery {
            event_id,
            endpoint_id,
            status: self.status,
            next_attempt_at: self.due_at,
            attempts: self.attempts[self.attempts.len().saturating_sub(MAX_ATTEMPTS_SHOWN)..].to_vec(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

impl State {
    /// The enabled endpoints that an event is delivered to.
    pub(super) fn endpoints_for(&self, event: &Event) -> Vec<EndpointId> {
        let own = self.endpoints.values().filter(|e| e.customer_id == event.customer_id && is_enabled(e));
        own.filter(|e| e.wants(event.kind)).map(|e| e.id).collect()
    }

    /// The deliveries of a new event.
    pub(super) fn deliver(&mut self, event: &Event, now: DateTime<Utc>) {
        for endpoint in self.endpoints_for(event) {
            self.deliveries.insert((event.id, endpoint), Delivering::new(now));
        }
    }

    /// A delivery that starts, or starts anew.
    pub(super) fn deliver_again(&mut self, event: MessageId, endpoint: EndpointId, now: DateTime<Utc>) {
        let delivery = self.deliveries.entry((event, endpoint)).or_insert_with(|| Delivering::new(now));
        delivery.start_anew(now);
    }

    /// What is due of each endpoint that may be delivered to, longest due first.
    fn due(&self, claim: &DeliveryClaim<'_>) -> Vec<Vec<(DateTime<Utc>, MessageId, EndpointId)>> {
        let mut by_endpoint: HashMap<_, Vec<_>> = HashMap::new();
        for ((event, endpoint), delivery) in &self.deliveries {
            let receives = self.endpoints.get(&endpoint.0).is_some_and(is_enabled) && !claim.except.contains(endpoint);
            if let Some(due) = delivery.due_at.filter(|due| receives && *due <= claim.now) {
                by_endpoint.entry(*endpoint).or_default().push((due, *event, *endpoint));
            }
        }
        let mut due: Vec<_> = by_endpoint.into_values().collect();
        for own in &mut due {
            own.sort_unstable();
        }
        due.sort_unstable();
        due
    }

    fn lease(&mut self, event: MessageId, endpoint: EndpointId, until: DateTime<Utc>) -> DueDelivery {
        let delivery = self.deliveries.get_mut(&(event, endpoint)).expect("it is due");
        delivery.due_at = Some(until);
        delivery.lease += 1;
        delivery.is_leased = true;
        DueDelivery {
            event: self.events.iter().find(|e| e.id == event).expect("events with deliveries stay").clone(),
            endpoint: self.endpoints[&endpoint.0].clone(),
            attempts: u32::try_from(delivery.attempts.len()).unwrap(),
            tries: delivery.tries,
            lease: delivery.lease,
        }
    }

    fn conclude(&mut self, concluded: &ConcludedDelivery, now: DateTime<Utc>) {
        let delivery = self.deliveries.get_mut(&(concluded.event_id, concluded.endpoint_id));
        let held = delivery.filter(|d| d.status == DeliveryStatus::Pending && d.lease == concluded.lease);
        let Some(delivery) = held else { return };
        (delivery.status, delivery.due_at) = match concluded.verdict {
            DeliveryVerdict::Delivered => (DeliveryStatus::Delivered, None),
            DeliveryVerdict::RetryAt(at) => (DeliveryStatus::Pending, Some(at)),
            DeliveryVerdict::Failed => (DeliveryStatus::Failed, None),
        };
        delivery.attempts.push(concluded.attempt.clone());
        delivery.tries += 1;
        // The lease ends with it.
        delivery.lease += 1;
        delivery.is_leased = false;
        delivery.updated_at = now;
        if let Some(endpoint) = self.endpoints.get_mut(&concluded.endpoint_id.0) {
            endpoint.failing_since = match concluded.verdict {
                DeliveryVerdict::Delivered => None,
                _ => endpoint.failing_since.or(Some(concluded.attempt.started_at)),
            };
        }
    }
}

pub(super) fn is_enabled(endpoint: &WebhookEndpoint) -> bool {
    endpoint.status == EndpointStatus::Enabled
}

#[async_trait]
impl EndpointStore for Memory {
    async fn insert_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        if idempotency.is_some_and(|record| state.is_key_taken(record, now)) {
            return Ok(EndpointVerdict::KeyTaken);
        }
        let own = state.endpoints.values().filter(|e| e.customer_id == endpoint.customer_id).count();
        if own >= WebhookEndpoint::MAX_PER_CUSTOMER as usize {
            return Ok(EndpointVerdict::TooMany);
        }
        if state.endpoints.contains_key(&endpoint.id.0) {
            return Ok(EndpointVerdict::Stale);
        }
        state.endpoints.insert(endpoint.id.0, endpoint.clone());
        state.keep_key(idempotency);
        Ok(EndpointVerdict::Written)
    }

    async fn update_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        if idempotency.is_some_and(|record| state.is_key_taken(record, now)) {
            return Ok(EndpointVerdict::KeyTaken);
        }
        let Some(row) = state.endpoints.get_mut(&endpoint.id.0).filter(|row| row.version == expected_version) else {
            return Ok(EndpointVerdict::Stale);
        };
        let starts_anew = is_enabled(endpoint) && (!is_enabled(row) || row.url != endpoint.url);
        let failing_since = row.failing_since.filter(|_| !starts_anew);
        *row = WebhookEndpoint { failing_since, ..endpoint.clone() };
        for event in events {
            state.write_event(event, now);
        }
        state.keep_key(idempotency);
        drop(state);
        self.wake();
        Ok(EndpointVerdict::Written)
    }

    async fn delete_endpoint(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, StoreError> {
        let mut state = self.state();
        let is_own = state.endpoints.get(&id.0).is_some_and(|e| e.customer_id == *customer);
        if is_own {
            state.deliveries.retain(|(_, to), delivery| *to != id || delivery.status != DeliveryStatus::Pending);
            state.endpoints.remove(&id.0);
        }
        Ok(is_own)
    }

    async fn find_endpoint(
        &self,
        customer: &CustomerId,
        id: EndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        Ok(self.state().endpoints.get(&id.0).filter(|e| e.customer_id == *customer).cloned())
    }

    async fn list_endpoints(
        &self,
        customer: &CustomerId,
        request: PageRequest,
    ) -> Result<Page<WebhookEndpoint>, StoreError> {
        let state = self.state();
        let own = state.endpoints.values().rev().filter(|e| e.customer_id == *customer).cloned();
        Ok(page(own, request, |e| e.id.0))
    }

    async fn all_endpoints(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let state = self.state();
        let rest = state.endpoints.values().filter(|e| after.is_none_or(|after| e.id > after));
        Ok(rest.take(limit as usize).cloned().collect())
    }
}

#[async_trait]
impl DeliveryStore for Memory {
    async fn claim_deliveries(&self, claim: DeliveryClaim<'_>) -> Result<Vec<DueDelivery>, StoreError> {
        let mut state = self.state();
        let due = state.due(&claim);
        let shares = due.into_iter().flat_map(|own| own.into_iter().take(claim.per_endpoint as usize));
        let taken = shares.take(claim.max as usize);
        Ok(taken.map(|(_, event, endpoint)| state.lease(event, endpoint, claim.leased_until)).collect())
    }

    async fn deliveries_wake(&self, wait: Duration) {
        let _ = timeout(wait.min(LOOK_AGAIN), self.sent.notified()).await;
    }

    async fn conclude_deliveries(&self, concluded: &[ConcludedDelivery]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        // By their time, so that the last word counts.
        let mut concluded: Vec<_> = concluded.iter().collect();
        concluded.sort_by_key(|one| (one.attempt.started_at, one.verdict == DeliveryVerdict::Delivered));
        for one in concluded {
            state.conclude(one, now);
        }
        Ok(())
    }

    async fn deliveries_of(&self, customer: &CustomerId, event: MessageId) -> Result<Vec<WebhookDelivery>, StoreError> {
        let state = self.state();
        if !state.events.iter().any(|e| e.id == event && e.customer_id == *customer) {
            return Ok(Vec::new());
        }
        let own = state.deliveries.iter().filter(|((id, _), _)| *id == event);
        let mut shown: Vec<_> = own.map(|((event, to), delivery)| delivery.shown(*event, *to)).collect();
        shown.sort_unstable_by_key(|delivery| delivery.endpoint_id);
        let hidden = shown.len().saturating_sub(WebhookDelivery::MAX_SHOWN as usize);
        Ok(shown.split_off(hidden))
    }

    async fn redeliver(
        &self,
        customer: &CustomerId,
        event: MessageId,
        endpoint: Option<EndpointId>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        let found = state.events.iter().find(|e| e.id == event && e.customer_id == *customer);
        let Some(event) = found.cloned() else { return Ok(0) };
        let to = match endpoint {
            None => state.endpoints_for(&event),
            Some(id) => {
                let own = state.endpoints.get(&id.0).filter(|e| e.customer_id == *customer && is_enabled(e));
                own.map(|e| e.id).into_iter().collect()
            }
        };
        for id in &to {
            if state.deliveries.get(&(event.id, *id)).is_none_or(|delivery| !delivery.is_on_its_way(now)) {
                state.deliver_again(event.id, *id, now);
            }
        }
        drop(state);
        self.wake();
        Ok(to.len() as u64)
    }

    async fn delivery_backlog(&self, now: DateTime<Utc>) -> Result<DeliveryBacklog, StoreError> {
        let state = self.state();
        let enabled = |id: &EndpointId| state.endpoints.get(&id.0).is_some_and(is_enabled);
        let due: Vec<_> =
            state.deliveries.iter().filter(|((_, id), _)| enabled(id)).filter_map(|(_, d)| d.due_at).collect();
        let oldest_due = due.iter().min().copied().filter(|due| *due <= now);
        let pending = (due.len() as u64).min(u64::from(DeliveryBacklog::MAX_PENDING));
        Ok(DeliveryBacklog { pending, oldest_due })
    }
}
