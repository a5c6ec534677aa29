//! What webhooks may not do: deliver here, where they are turned off, or more at once than payments bear.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use psp_domain::ports::{EventStore, Replay, Replayed, StoreError};
use psp_domain::{CustomerId, Event, EventFilter, MessageId, Page, PageRequest};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use uuid::Uuid;

use crate::support::{Answer, World, example};

const ROOT: &str = "/webhook_endpoints";
const CUSTOMER: (&str, &str) = ("x-customer-id", "123");

async fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.call("POST", path, &[CUSTOMER], Some(body)).await
}

async fn added(world: &World, customer: &str) -> String {
    let body = json!({ "url": "https://shop.example" });
    let answer = world.call("POST", ROOT, &[("x-customer-id", customer)], Some(&body)).await;
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn since() -> Value {
    json!({ "since": "2026-01-01T00:00:00Z" })
}

#[tokio::test]
async fn a_delivery_is_taken_by_no_route_but_those_of_health() {
    let world = World::new();
    let id = [("webhook-id", "01a1fc23-adfc-74b8-ab63-7bfa62344961"), ("content-type", "application/json")];
    for (method, path) in [
        ("POST", "/api/v1/payments"),
        ("POST", "/deposit"),
        ("POST", "/callback/01a1fc23-adfc-74b8-ab63-7bfa62344961"),
        ("GET", "/events"),
        ("GET", "/no/such/path"),
        ("DELETE", "/balance"),
    ] {
        let refused = world.call(method, path, &id[..1], None).await;
        refused.assert_problem(StatusCode::FORBIDDEN);
        assert_eq!(refused.json()["type"], "urn:psp:problem:webhook-delivery", "{path}");
    }
    let payment = json!({ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" });
    assert_eq!(world.send("/api/v1/payments", &id, payment.to_string()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.get_with("/api/v1/payments", &[]).await.text, "[]");
    for path in ["/_liveness_check_", "/_readiness_check_"] {
        assert_eq!(world.get_with(path, &id[..1]).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn where_webhooks_are_turned_off_nothing_new_is_begun() {
    let world = World::with(|_, options| options.webhooks = false);
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id;
    let nobody = Uuid::nil();
    for (path, body) in [
        (ROOT.to_owned(), json!({ "url": "https://shop.example" })),
        (format!("{ROOT}/{nobody}/redeliver"), since()),
        (format!("/events/{event}/redeliver"), json!({})),
    ] {
        let refused = post(&world, &path, &body).await;
        refused.assert_problem(StatusCode::CONFLICT);
        assert_eq!(refused.json()["type"], "urn:psp:problem:webhooks-off", "{path}");
        assert_eq!(refused.json()["detail"], "webhooks are turned off here");
    }
    assert_eq!(post(&world, ROOT, &json!({})).await.faults(), ["url"]);
    assert_eq!(world.get(ROOT).await.text, "[]");
}

/// Has events without end, and replays them when the test lets it.
struct Endless {
    /// One permit for each write.
    gate: Semaphore,
    /// One permit for each write that waits, or did.
    arrived: Semaphore,
    /// After which event, and how many, each write was asked for.
    asked: Mutex<Vec<(Option<MessageId>, u32)>>,
}

#[async_trait]
impl EventStore for Endless {
    async fn find_event(&self, _: &CustomerId, _: MessageId) -> Result<Option<Event>, StoreError> {
        Ok(None)
    }

    async fn list_events(&self, _: &EventFilter, _: PageRequest) -> Result<Page<Event>, StoreError> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn replay_events(
        &self,
        _: &EventFilter,
        _: Replay,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Replayed, StoreError> {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        let mut asked = self.asked.lock().unwrap();
        asked.push((after, limit));
        let last = MessageId(Uuid::from_u128(asked.len() as u128));
        Ok(Replayed { events: limit.into(), replayed: 1, last: Some(last) })
    }

    async fn purge_events(&self, _: chrono::DateTime<chrono::Utc>, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn endless(permits: usize) -> (World, Arc<Endless>) {
    let (gate, arrived) = (Semaphore::new(permits), Semaphore::new(0));
    let events = Arc::new(Endless { gate, arrived, asked: Mutex::default() });
    (World::with(|ports, _| ports.events = events.clone()), events)
}

#[tokio::test]
async fn what_happened_since_is_delivered_anew_in_small_writes_and_only_so_many() {
    let (world, events) = endless(100);
    let path = format!("{ROOT}/{}/redeliver", added(&world, "123").await);
    let answer = post(&world, &path, &since()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let next = Uuid::from_u128(10);
    assert_eq!(answer.json(), json!({ "events": 10_000, "deliveries": 10, "next": next }));
    post(&world, &path, &json!({ "since": "2026-01-01T00:00:00Z", "after": next })).await;
    let asked = events.asked.lock().unwrap().clone();
    let expected = (0..20_u128).map(|before| ((before > 0).then(|| MessageId(Uuid::from_u128(before))), 1_000));
    assert!(asked.iter().copied().eq(expected), "{asked:?}");
}

#[tokio::test]
async fn a_customer_has_one_recovery_at_a_time_though_its_client_goes_away() {
    let (world, events) = endless(0);
    let (path, other) = (
        format!("{ROOT}/{}/redeliver", added(&world, "123").await),
        format!("{ROOT}/{}/redeliver", added(&world, "123").await),
    );
    let foreign = format!("{ROOT}/{}/redeliver", added(&world, "456").await);
    let request = |customer: &str, path: &str| {
        let request = Request::post(path).header("x-customer-id", customer).header("content-type", "application/json");
        request.body(Body::from(since().to_string())).unwrap()
    };
    let gone = tokio::spawn(world.router.clone().oneshot(request("123", &path)));
    events.arrived.acquire().await.unwrap().forget();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    for path in [&path, &other] {
        let refused = post(&world, path, &since()).await;
        refused.assert_problem(StatusCode::CONFLICT);
        assert_eq!(refused.json()["type"], "urn:psp:problem:redelivery-in-flight");
        assert!(refused.headers.contains_key("retry-after"));
    }
    let stranger = tokio::spawn(world.router.clone().oneshot(request("456", &foreign)));
    events.arrived.acquire().await.unwrap().forget();
    events.gate.add_permits(100);
    assert_eq!(stranger.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
    while post(&world, &path, &since()).await.status != StatusCode::ACCEPTED {
        tokio::task::yield_now().await;
    }
}
