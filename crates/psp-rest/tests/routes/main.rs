//! The routes over fakes: what needs no process.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use psp_domain::Currency;
use psp_domain::ports::{Health, Store, StoreError};
use psp_domain::usecases::{CreateTransaction, Sources};
use psp_rest::{RestOptions, RestPorts, openapi, router};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, Memory, PlainVault};
use psp_testkit::fixtures;
use serde_json::{Value, json};
use tower::ServiceExt;

struct World {
    memory: Arc<Memory>,
    store: Arc<FailingStore>,
    clock: Arc<FixedClock>,
    router: Router,
}

struct Sick;

#[async_trait::async_trait]
impl Health for Sick {
    async fn check(&self) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("a detail that stays inside".into()))
    }
}

fn world() -> World {
    world_with(|_| {}, vec![])
}

fn world_with(change: impl FnOnce(&mut RestOptions), mut health: Vec<(&'static str, Arc<dyn Health>)>) -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    let vault = Arc::new(PlainVault);
    let create = CreateTransaction::new(store.clone(), memory.clone(), vault.clone(), sources.clone());
    health.push(("memory", memory.clone()));
    let ports = RestPorts {
        create: Arc::new(create),
        transactions: memory.clone(),
        payables: memory.clone(),
        balances: memory.clone(),
        fingerprints: vault,
        health,
    };
    let mut options = RestOptions {
        default_currency: Currency::BRL,
        refuse_expired_cards: false,
        max_in_flight: 100,
        request_timeout: Duration::from_secs(10),
        clock: sources.clock,
        ids: sources.ids,
    };
    change(&mut options);
    World { router: router(ports, options, None), memory, store, clock }
}

impl World {
    async fn ask(&self, request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, axum::http::HeaderMap, String) {
        let request = Request::post("/transactions").header("x-customer-id", "123");
        let request = request.header("content-type", "application/json; charset=utf-8");
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).header("x-customer-id", "123").body(Body::empty()).unwrap();
        let (status, _, body) = self.ask(request).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

fn example() -> Value {
    json!({
        "description": "Lightsaber", "amount": "2500", "payment_method": "credit_card",
        "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
        "card_expiration_date": "10/25", "card_verification_code": "123"
    })
}

#[tokio::test]
async fn the_bodies_of_the_api_are_as_recorded() {
    let world = world();
    let (status, _, created) = world.post(example().to_string()).await;
    assert_eq!(status, StatusCode::CREATED);
    let hidden = |body: &str| -> Value { serde_json::from_str(body).unwrap() };
    insta::assert_json_snapshot!("transaction", hidden(&created), { ".id" => "[id]" });
    let id: psp_domain::TransactionId = hidden(&created)["id"].as_str().unwrap().parse().unwrap();
    let customer = fixtures::customer("123");
    let found = psp_domain::ports::TransactionReader::find(&*world.memory, &customer, id).await.unwrap().unwrap();
    world.memory.apply(fixtures::approve(&found, psp_domain::ports::Clock::now(&*world.clock))).await.unwrap();
    let (_, payables) = world.get("/payables").await;
    insta::assert_json_snapshot!("payables", payables, { "[].id" => "[id]", "[].transaction_id" => "[id]" });
    let (_, balance) = world.get("/balance").await;
    insta::assert_json_snapshot!("balance", balance);
    let (_, _, problem) = world.post("{\"amount\":0}").await;
    insta::assert_json_snapshot!("problem", hidden(&problem), { ".instance" => "[request]" });
}

#[tokio::test]
async fn failures_of_the_store_are_503_or_500_and_tell_nothing_of_it() {
    let world = world();
    let failures = [
        (StoreError::Overloaded, StatusCode::SERVICE_UNAVAILABLE),
        (StoreError::Unavailable("secret detail".into()), StatusCode::SERVICE_UNAVAILABLE),
        (StoreError::Damaged("secret detail".into()), StatusCode::INTERNAL_SERVER_ERROR),
    ];
    for (failure, expected) in failures {
        world.store.fail_next(failure, false);
        let (status, headers, body) = world.post(example().to_string()).await;
        assert_eq!((status, headers.contains_key("retry-after")), (expected, expected.as_u16() == 503));
        assert!(!body.contains("secret") && headers["content-type"] == "application/problem+json", "{body}");
    }
    assert_eq!(world.get("/transactions").await.1, json!([]));
}

#[tokio::test]
async fn readiness_names_what_fails_and_liveness_does_not_ask() {
    let world = world_with(|_| {}, vec![("queue", Arc::new(Sick))]);
    let (status, body) = world.get("/_readiness_check_").await;
    assert_eq!((status, &body["detail"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not ready: queue")));
    assert_eq!(world.get("/_liveness_check_").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_expired_card_is_refused_where_configured() {
    let world = world_with(|options| options.refuse_expired_cards = true, vec![]);
    let (status, _, body) = world.post(example().to_string()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.contains("card_expiration_date"), "{body}");
    let mut valid = example();
    valid["card_expiration_date"] = json!("01/2026");
    assert_eq!(world.post(valid.to_string()).await.0, StatusCode::CREATED, "good through the month");
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let world = world_with(|options| options.max_in_flight = 0, vec![]);
    let (status, headers, _) = world.post(example().to_string()).await;
    assert_eq!((status, &headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
}

#[tokio::test]
async fn every_documented_route_exists_and_says_what_it_takes() {
    let document = serde_json::to_value(openapi()).unwrap();
    let paths: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/transactions",
        "/transactions/{id}",
        "/payables",
        "/payables/{id}",
        "/balance",
        "/_liveness_check_",
        "/_readiness_check_",
    ];
    assert_eq!(paths, BTreeSet::from(expected));
    let world = world();
    for path in expected {
        let found = world.get(&path.replace("{id}", "01a1fc08-5b46-770d-81ce-6b6e95afa0a3")).await;
        assert!(
            found.0 == StatusCode::OK || found.1["detail"].as_str().unwrap().contains("no such"),
            "{path}: {found:?}"
        );
    }
    let schema = &document["components"]["schemas"]["NewTransaction"];
    let required: BTreeSet<_> = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let (_, _, problem) = world.post("{}").await;
    let problem: Value = serde_json::from_str(&problem).unwrap();
    let named: BTreeSet<_> = problem["errors"].as_array().unwrap().iter().filter_map(|e| e["path"].as_str()).collect();
    assert_eq!(required, named, "the document requires what the code requires");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_body_is_a_server_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, _, _) = runtime.block_on(async { world().post(bytes).await });
        prop_assert!(status.is_client_error(), "{status}");
    }

    #[test]
    fn no_value_of_any_field_is_a_server_error(
        values in prop::collection::vec((0_usize..9, any_json()), 1..4),
    ) {
        let fields = ["description", "amount", "currency", "payment_method", "card_number", "card_holder_name",
            "card_expiration_date", "card_verification_code", "installments"];
        let mut body = example();
        for (field, value) in values {
            body[fields[field]] = value;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, _, text) = runtime.block_on(async { world().post(body.to_string()).await });
        prop_assert!(status == 201 || status == 422, "{status}: {text}");
    }
}
