//! Callbacks of gateways.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, CallbackStore, Candidate, ForgedCallback, Gateway,
    GatewayError, Queue, RefundRequest, Store,
};
use psp_domain::{AttemptReference, Callback, CallbackId, GatewayName, QueueName};
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World};

fn completed() -> Value {
    json!({ "gateway_txn_id": "gw-tx-12345", "status": "completed" })
}

async fn deposited(world: &World) -> String {
    let deposit = json!({ "user_id": 123, "amount": "100.50", "currency": "USD" });
    world.post_to("/deposit", &deposit).await.json()["transaction_id"].as_str().unwrap().to_owned()
}

/// The callbacks that are kept and wait to be applied.
async fn kept(world: &World) -> Vec<Callback> {
    let memory = &world.memory;
    let deliveries = Queue::receive(&**memory, QueueName::GatewayCallbacks, 10, Duration::ZERO).await.unwrap();
    let ids = deliveries.iter().map(|delivery| CallbackId(delivery.message.aggregate_id));
    let found = ids.map(|id| async move { memory.find_callback(id).await.unwrap().unwrap() });
    futures::future::join_all(found).await
}

async fn call_back(world: &World, id: &str, body: &Value) -> Answer {
    world.post_to(&format!("/callback/{id}"), body).await
}

#[tokio::test]
async fn a_callback_is_as_printed_in_the_documentation_and_kept_once() {
    let world = World::new();
    let id = deposited(&world).await;
    let answer = call_back(&world, &id, &completed()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    insta::assert_snapshot!(answer.hidden(), @r#"{"transaction_id":"[id]","status":"accepted"}"#);
    let again = call_back(&world, &id, &completed()).await;
    assert_eq!((again.status, again.text), (StatusCode::ACCEPTED, answer.text));
    let xml = "<callback><gateway_txn_id>gw-tx-12345</gateway_txn_id><status>completed</status></callback>";
    let answer = world.send(&format!("/callback/{id}"), &[("content-type", "application/xml")], xml).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.hidden(), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <callback><transaction_id>[id]</transaction_id><status>accepted</status></callback>
    "#);
    assert_eq!(kept(&world).await.len(), 1);
}

#[tokio::test]
async fn what_it_tells_is_kept_to_the_digit() {
    let world = World::new();
    let id = deposited(&world).await;
    let body = r#"{"gateway_txn_id":"gw-1","status":"half_way","amount":100.50,"currency":"USD"}"#;
    let answer = world.send(&format!("/callback/{id}"), &[("content-type", "application/json")], body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let kept = kept(&world).await.remove(0);
    assert_eq!((kept.gateway_reference.as_str(), kept.status.as_str()), ("gw-1", "half_way"));
    assert_eq!(kept.amount.map(|amount| amount.to_string()).as_deref(), Some("100.50 USD"));
}

#[tokio::test]
async fn an_unknown_transaction_is_404_and_one_that_has_ended_409() {
    let world = World::new();
    for id in ["01a1fc08-5b46-770d-81ce-6b6e95afa0a3", "1"] {
        call_back(&world, id, &completed()).await.assert_problem(StatusCode::NOT_FOUND);
    }
    let id = deposited(&world).await;
    let transaction = world.loaded(&id).await;
    world.memory.apply(fixtures::decline(&transaction, world.now())).await.unwrap();
    for (status, count) in [("failed", 0), ("completed", 1)] {
        let answer = call_back(&world, &id, &json!({ "gateway_txn_id": "gw-tx-12345", "status": status })).await;
        answer.assert_problem(StatusCode::CONFLICT);
        assert_eq!(answer.json()["type"], "urn:psp:problem:already-final");
        assert!(!answer.headers.contains_key("retry-after"), "it stays so");
        assert_eq!(kept(&world).await.len(), count, "money that we do not know of is kept for somebody to look at");
    }
}

#[tokio::test]
async fn no_more_callbacks_are_kept_of_a_transaction_than_allowed() {
    let world = World::new();
    let id = deposited(&world).await;
    let told = |number: u32| json!({ "gateway_txn_id": format!("gw-{number}"), "status": "half_way" });
    for number in 0..Callback::MAX_PER_TRANSACTION {
        assert_eq!(call_back(&world, &id, &told(number)).await.status, StatusCode::ACCEPTED);
    }
    let refused = call_back(&world, &id, &told(Callback::MAX_PER_TRANSACTION)).await;
    refused.assert_problem(StatusCode::CONFLICT);
    assert_eq!(refused.json()["type"], "urn:psp:problem:too-many-callbacks");
    assert!(!refused.headers.contains_key("retry-after"), "it stays so");
    assert_eq!(call_back(&world, &id, &told(0)).await.status, StatusCode::ACCEPTED, "what is known is taken");
    let other = deposited(&world).await;
    assert_eq!(call_back(&world, &other, &completed()).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn every_fault_is_told_at_once() {
    let world = World::new();
    let id = deposited(&world).await;
    assert_eq!(call_back(&world, &id, &json!({})).await.faults(), ["gateway_txn_id", "status"]);
    let wrong = json!({ "gateway_txn_id": "two words", "status": "DONE", "amount": "-1", "currency": "XXX" });
    let answer = call_back(&world, &id, &wrong).await;
    answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.faults(), ["amount", "currency", "gateway_txn_id", "status"]);
    for (field, value) in [("gateway_txn_id", json!("x".repeat(101))), ("status", json!("x".repeat(65)))] {
        let mut body = completed();
        body[field] = value;
        assert_eq!(call_back(&world, &id, &body).await.faults(), [field]);
    }
    assert!(kept(&world).await.is_empty());
}

#[tokio::test]
async fn without_its_gateway_a_callback_is_to_come_again() {
    let world = World::new();
    let id = deposited(&world).await;
    world.gateways.close();
    let answer = call_back(&world, &id, &completed()).await;
    answer.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
}

/// What a callback was signed with.
type Seen = (String, Option<String>, Option<String>, Vec<u8>);

/// Refuses callbacks, and keeps what they were signed with.
struct Suspicious(GatewayName, ForgedCallback, Mutex<Vec<Seen>>);

#[async_trait]
impl Gateway for Suspicious {
    fn name(&self) -> &GatewayName {
        &self.0
    }

    async fn authorize(&self, _: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        Err(GatewayError::TimedOut)
    }

    async fn find(&self, _: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        Err(GatewayError::TimedOut)
    }

    async fn void(&self, _: AttemptReference) -> Result<(), GatewayError> {
        Err(GatewayError::TimedOut)
    }

    async fn refund(&self, _: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        Err(GatewayError::TimedOut)
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let seen =
            (callback.path.to_owned(), text(callback.timestamp), text(callback.signature), callback.body.to_vec());
        self.2.lock().unwrap().push(seen);
        Err(self.1)
    }
}

#[tokio::test]
async fn a_forged_callback_is_401_and_what_is_verified_is_what_came() {
    for (forged, kind) in [(ForgedCallback::Signature, "bad-signature"), (ForgedCallback::Stale, "stale-signature")] {
        let gateway = Arc::new(Suspicious("suspicious".parse().unwrap(), forged, Mutex::default()));
        let world = World::new();
        world.gateways.open(vec![Candidate { gateway: gateway.clone(), retry_declines: Arc::new([]) }]);
        let id = deposited(&world).await;
        let body = "{ \"status\":\"completed\",\n\"gateway_txn_id\" : \"gw-1\"}\n";
        let headers =
            [("content-type", "application/json"), ("psp-timestamp", "1764000000"), ("psp-signature", "v1=00")];
        let answer = world.send(&format!("/callback/{}?a=b", id.to_uppercase()), &headers, body).await;
        answer.assert_problem(StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["type"], format!("urn:psp:problem:{kind}"));
        assert_eq!(answer.headers["www-authenticate"], "psp-signature");
        let path = format!("/callback/{}", id.to_uppercase());
        let seen = (path, Some("1764000000".to_owned()), Some("v1=00".to_owned()), body.as_bytes().to_vec());
        assert_eq!(*gateway.2.lock().unwrap(), [seen]);
        assert!(kept(&world).await.is_empty());
    }
}
