//! Endpoints that are given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{Clock, EndpointStore, EndpointVerdict, StoreError};
use psp_domain::usecases::EndpointPatch;
use psp_domain::{
    CustomerId, DeliveryStatus, EndpointId, EndpointStatus, Event, EventKind, IdempotencyRecord, Page, PageRequest,
    WebhookEndpoint,
};
use psp_testkit::fakes::Memory;
use serde_json::Value;

use crate::receiver::{Receiver, status};
use crate::support::{Case, customer, eventually};

async fn disabled(case: &Case, id: EndpointId) -> WebhookEndpoint {
    eventually(async || case.found(id).await.status == EndpointStatus::Disabled).await;
    case.found(id).await
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_others_are_told_and_it_can_come_back() {
    let case = Case::default();
    let gone = Receiver::answering(|n| Box::pin(async move { status(if n == 0 { 410 } else { 200 }) })).await;
    let other = Receiver::saying(200).await;
    let (endpoint, _) = case.endpoint(&gone.url()).await;
    let (watching, _) = case.endpoint_for(&other.url(), &[EventKind::WebhookEndpointDisabled]).await;
    let _working = case.start();
    let id = case.event().await;
    let found = disabled(&case, endpoint.id).await;
    assert_eq!((found.disabled_reason.as_deref(), found.sequence, found.version), (Some("gone"), 1, 2));
    eventually(async || other.count() == 1).await;
    let told: Value = serde_json::from_slice(&other.heard()[0].body).unwrap();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&"webhook_endpoint.disabled".into(), &"gone".into()));
    assert_eq!(told["aggregate_id"], endpoint.id.to_string());
    assert_eq!(told["data"]["failing_since"], "2026-01-31T12:00:00.000Z");
    assert_eq!(told["data"]["url"], format!("http://{}", gone.address), "path and query may be secret");

    // What waits for it waits on, however late it is, and new events do not wait for it at all.
    case.clock.advance_days(1);
    let later = case.event().await;
    assert!(case.memory_deliveries(later).await.is_empty());
    assert_eq!((gone.count(), case.delivery(id, &endpoint).await.status), (1, DeliveryStatus::Pending));
    let patch = EndpointPatch { enabled: Some(true), ..EndpointPatch::default() };
    case.endpoints.update(&customer(), endpoint.id, patch).await.unwrap().unwrap();
    assert_eq!(case.attempted(id, &endpoint, 2).await.status, DeliveryStatus::Delivered);
    assert_eq!(case.found(watching.id).await.status, EndpointStatus::Enabled);
}

#[tokio::test]
async fn an_endpoint_that_fails_for_five_days_is_disabled_and_no_sooner() {
    let (case, receiver) = (Case::default(), Receiver::saying(500).await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    case.attempted(case.event().await, &endpoint, 1).await;
    let since = case.clock.now();
    assert_eq!(case.found(endpoint.id).await.failing_since, Some(since));
    case.clock.advance(Duration::from_hours(5 * 24) - Duration::from_millis(1));
    case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!(case.found(endpoint.id).await.status, EndpointStatus::Enabled);
    case.clock.advance(Duration::from_millis(1));
    case.event().await;
    let found = disabled(&case, endpoint.id).await;
    assert_eq!((found.disabled_reason.as_deref(), found.failing_since), (Some("failing"), Some(since)));
    let events = case.memory.events();
    let told: Vec<_> = events.iter().filter(|event| event.kind == EventKind::WebhookEndpointDisabled).collect();
    assert_eq!((told.len(), told[0].sequence), (1, 1));
}

#[tokio::test]
async fn one_success_begins_the_five_days_anew() {
    let case = Case::default();
    let receiver = Receiver::answering(|n| Box::pin(async move { status(if n == 1 { 200 } else { 500 }) })).await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    for days in [0, 4, 4] {
        case.clock.advance_days(days);
        let before = receiver.count();
        case.attempted(case.event().await, &endpoint, 1).await;
        eventually(async || receiver.count() > before && receiver.in_hand() == 0).await;
        if receiver.count() >= 3 {
            break;
        }
    }
    assert_eq!(case.found(endpoint.id).await.status, EndpointStatus::Enabled);
}

/// Changes an endpoint just before it is written for the first time.
struct Meddling {
    memory: Arc<Memory>,
    change: fn(WebhookEndpoint) -> WebhookEndpoint,
    done: AtomicBool,
}

#[async_trait]
impl EndpointStore for Meddling {
    async fn insert_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        self.memory.insert_endpoint(endpoint, idempotency).await
    }

    async fn update_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        idempotency: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        if !self.done.swap(true, Ordering::SeqCst) {
            let found = self.memory.find_endpoint(&endpoint.customer_id, endpoint.id).await?.unwrap();
            let version = found.version;
            let changed = WebhookEndpoint { version: version + 1, ..(self.change)(found) };
            self.memory.update_endpoint(&changed, version, &[], None).await?;
        }
        self.memory.update_endpoint(endpoint, expected_version, events, idempotency).await
    }

    async fn delete_endpoint(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, StoreError> {
        self.memory.delete_endpoint(customer, id).await
    }

    async fn find_endpoint(
        &self,
        customer: &CustomerId,
        id: EndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        self.memory.find_endpoint(customer, id).await
    }

    async fn list_endpoints(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<WebhookEndpoint>, StoreError> {
        self.memory.list_endpoints(customer, page).await
    }

    async fn all_endpoints(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<WebhookEndpoint>, StoreError> {
        self.memory.all_endpoints(after, limit).await
    }
}

/// An endpoint that is gone, while that happens to it: as it is then, and how many events tell of it.
async fn gone_while(change: fn(WebhookEndpoint) -> WebhookEndpoint) -> (WebhookEndpoint, usize) {
    let (mut case, receiver) = (Case::default(), Receiver::saying(410).await);
    let meddling = Arc::new(Meddling { memory: case.memory.clone(), change, done: AtomicBool::new(false) });
    case.ports.endpoints = meddling.clone();
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let working = case.start();
    case.attempted(case.event().await, &endpoint, 1).await;
    eventually(async || meddling.done.load(Ordering::SeqCst)).await;
    working.stop.cancel();
    working.task.await.unwrap();
    let told = case.memory.events().iter().filter(|e| e.kind == EventKind::WebhookEndpointDisabled).count();
    (case.found(endpoint.id).await, told)
}

#[tokio::test]
async fn an_endpoint_that_changes_meanwhile_is_judged_as_it_is_by_then() {
    let rotated = |found| WebhookEndpoint { description: "other".into(), ..found };
    let (found, told) = gone_while(rotated).await;
    assert_eq!((found.status, found.description.as_str(), told), (EndpointStatus::Disabled, "other", 1));

    let disabled = |found| WebhookEndpoint { status: EndpointStatus::Disabled, ..found };
    let (found, told) = gone_while(disabled).await;
    assert_eq!((found.disabled_reason, told), (None, 0), "the customer's own wish stays");

    let moved = |found: WebhookEndpoint| {
        let updated_at = found.updated_at + Duration::from_secs(1);
        WebhookEndpoint { url: "http://127.0.0.1:1/".into(), updated_at, ..found }
    };
    let (found, told) = gone_while(moved).await;
    assert_eq!((found.status, told), (EndpointStatus::Enabled, 0), "what is gone is not what it has now");
}
