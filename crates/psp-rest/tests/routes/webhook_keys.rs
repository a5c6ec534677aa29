//! Idempotency keys of the routes of webhooks.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use psp_domain::ports::{FingerprintError, IdempotencyStore, RequestFingerprint};
use psp_domain::{Fingerprint, IdempotencyRecord, StoredAnswer};
use psp_testkit::fakes::PlainVault;
use psp_testkit::fixtures;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::support::{Answer, World, example};

const ROOT: &str = "/webhook_endpoints";
const CUSTOMER: (&str, &str) = ("x-customer-id", "123");

fn new() -> Value {
    json!({ "url": "https://shop.example/webhooks", "events": ["order.paid", "transaction.created"] })
}

async fn keyed(world: &World, key: &str, path: &str, body: Option<&Value>) -> Answer {
    world.call("POST", path, &[CUSTOMER, ("idempotency-key", key)], body).await
}

/// Adds a webhook endpoint and gives its id.
async fn added(world: &World) -> String {
    world.call("POST", ROOT, &[CUSTOMER], Some(&new())).await.json()["id"].as_str().unwrap().to_owned()
}

fn assert_replayed(again: &Answer, first: &Answer) {
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["content-type"], "application/json");
    assert!(!first.headers.contains_key("idempotency-replayed"));
}

fn assert_reused(answer: &Answer) {
    answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.faults(), ["idempotency-key"]);
}

/// What is kept with a key.
async fn kept(world: &World, key: &str) -> IdempotencyRecord {
    let (customer, key) = (fixtures::customer("123"), key.parse().unwrap());
    IdempotencyStore::find(&*world.memory, &customer, &key, world.now()).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_same_request_again_shows_the_same_endpoint_with_its_secret() {
    let world = World::new();
    let first = keyed(&world, "key-1", ROOT, Some(&new())).await;
    assert_eq!((first.status, &first.json()["secret"]), (StatusCode::CREATED, &json!("whsec_secret1")));
    // Written otherwise, it asks for the same.
    let same = json!({
        "events": ["transaction.created", "order.paid", "order.paid"], "description": "",
        "url": "https://shop.example/webhooks",
    });
    for body in [new(), same] {
        assert_replayed(&keyed(&world, "key-1", ROOT, Some(&body)).await, &first);
    }
    for (field, other) in
        [("url", json!("https://other.example")), ("events", json!(["order.paid"])), ("description", json!("The shop"))]
    {
        let mut body = new();
        body[field] = other;
        assert_reused(&keyed(&world, "key-1", ROOT, Some(&body)).await);
    }
    assert_eq!(world.get(ROOT).await.json().as_array().unwrap().len(), 1);
    // Refused for another reason, it takes no key.
    assert_eq!(keyed(&world, "key-2", ROOT, Some(&json!({}))).await.faults(), ["url"]);
    assert_eq!(keyed(&world, "", ROOT, Some(&json!({}))).await.faults(), ["idempotency-key", "url"]);
    assert_eq!(keyed(&world, "key-2", ROOT, Some(&new())).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_rotation_with_a_key_makes_one_secret() {
    let world = World::new();
    let (id, other) = (added(&world).await, added(&world).await);
    let path = format!("{ROOT}/{id}/rotate_secret");
    let first = keyed(&world, "key-1", &path, None).await;
    assert_eq!((first.status, &first.json()["secret"]), (StatusCode::OK, &json!("whsec_secret3")));
    assert_replayed(&keyed(&world, "key-1", &path, None).await, &first);
    assert_reused(&keyed(&world, "key-1", &format!("{ROOT}/{other}/rotate_secret"), None).await);
    assert_reused(&keyed(&world, "key-1", ROOT, Some(&new())).await);
    assert_eq!(keyed(&world, "key-2", &path, None).await.json()["secret"], "whsec_secret4");
    let nobody = format!("{ROOT}/{}/rotate_secret", uuid::Uuid::nil());
    keyed(&world, "key-3", &nobody, None).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_kept_with_a_key_shows_no_secret() {
    let world = World::new();
    keyed(&world, "key-1", ROOT, Some(&new())).await;
    let id = added(&world).await;
    keyed(&world, "key-2", &format!("{ROOT}/{id}/rotate_secret"), None).await;
    for (key, status) in [("key-1", 201), ("key-2", 200)] {
        let answer = kept(&world, key).await.answer;
        assert_eq!(answer.status, status);
        assert!(!answer.body.contains("whsec") && !answer.body.contains("shop"), "{}", answer.body);
        assert!(answer.body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
    }
}

#[tokio::test]
async fn an_answer_that_does_not_open_is_told_to_be_one() {
    let world = World::new();
    keyed(&world, "key-1", ROOT, Some(&new())).await;
    let record = kept(&world, "key-1").await;
    let damaged = StoredAnswer { status: 201, body: "AAAA".to_owned() };
    let elsewhere = World::new();
    assert!(elsewhere.memory.keep(&IdempotencyRecord { answer: damaged, ..record.clone() }).await.unwrap());
    // Sealed for another customer's key, it does not open either.
    let foreign = IdempotencyRecord { key: "key-2".parse().unwrap(), ..record };
    assert!(elsewhere.memory.keep(&foreign).await.unwrap());
    for key in ["key-1", "key-2"] {
        let answer = keyed(&elsewhere, key, ROOT, Some(&new())).await;
        answer.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["type"], "urn:psp:problem:sealed-answer");
    }
    assert_eq!(elsewhere.get(ROOT).await.text, "[]");
}

#[tokio::test]
async fn redelivering_with_a_key_is_done_once() {
    let world = World::new();
    let id = added(&world).await;
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id;
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    let later = json!({ "since": "2026-01-01T00:00:01Z" });
    let to = json!({ "endpoint_id": id });
    for (key, path, body, other) in [
        ("key-1", format!("/events/{event}/redeliver"), None, Some(&to)),
        ("key-2", format!("{ROOT}/{id}/redeliver"), Some(&since), Some(&later)),
    ] {
        let first = keyed(&world, key, &path, body).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
        assert_replayed(&keyed(&world, key, &path, body).await, &first);
        assert_reused(&keyed(&world, key, &path, other).await);
    }
    let nobody = format!("/events/{}/redeliver", uuid::Uuid::nil());
    keyed(&world, "key-3", &nobody, None).await.assert_problem(StatusCode::NOT_FOUND);
    assert_eq!(keyed(&world, "", &nobody, None).await.faults(), ["idempotency-key"]);
}

/// Takes fingerprints only when the test lets it.
struct Gated {
    /// One permit for each.
    gate: Semaphore,
    /// One permit for each that waits, or did.
    arrived: Semaphore,
}

#[async_trait]
impl RequestFingerprint for Gated {
    async fn fingerprint(&self, canonical: &[u8]) -> Result<Fingerprint, FingerprintError> {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        PlainVault.fingerprint(canonical).await
    }
}

#[tokio::test]
async fn a_key_in_flight_is_refused() {
    let gated = Arc::new(Gated { gate: Semaphore::new(0), arrived: Semaphore::new(0) });
    let world = World::with(|ports, _| ports.fingerprints = gated.clone());
    let id = added(&world).await;
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id;
    for (path, body) in [
        (ROOT.to_owned(), new()),
        (format!("{ROOT}/{id}/rotate_secret"), json!({})),
        (format!("{ROOT}/{id}/redeliver"), json!({ "since": "2026-01-01T00:00:00Z" })),
        (format!("/events/{event}/redeliver"), json!({})),
    ] {
        let request = Request::post(&path).header("x-customer-id", "123").header("idempotency-key", &path[1..]);
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string()));
        let first = tokio::spawn(world.router.clone().oneshot(request.unwrap()));
        gated.arrived.acquire().await.unwrap().forget();
        let second = keyed(&world, &path[1..], &path, Some(&body)).await;
        second.assert_problem(StatusCode::CONFLICT);
        assert_eq!(second.json()["type"], "urn:psp:problem:in-flight");
        gated.gate.add_permits(1);
        assert!(first.await.unwrap().unwrap().status().is_success());
    }
}
