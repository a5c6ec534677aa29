//! The same key and the same request: one effect, one answer (I8).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use http_body_util::BodyExt;
use psp_domain::ports::{CardTokenStore, StoreError, TokenizedCard};
use psp_domain::usecases::{Sources, TokenizeCard};
use psp_domain::{CardToken, CustomerId, IdempotencyRecord};
use psp_rest::RestPorts;
use psp_testkit::fakes::{Memory, PlainVault};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::support::{World, example, example_with, post_of};

async fn count(world: &World) -> usize {
    world.get("/transactions").await.json().as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_request_again_gives_the_first_answer() {
    let world = World::new();
    let first = world.post_with_key("key-1", &example()).await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (StatusCode::CREATED, None));
    // Written otherwise, it asks for the same.
    let same = example_with(json!({ "amount": 2500, "card_expiration_date": "10/2025", "currency": "BRL", "new": 1 }));
    for (key, body) in [("key-1", example()), ("\"key-1\"", same)] {
        let again = world.post_with_key(key, &body).await;
        assert_eq!((again.status, again.text), (StatusCode::CREATED, first.text.clone()));
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert_eq!(count(&world).await, 1);
}

#[tokio::test]
async fn a_key_with_another_request_is_refused_whatever_differs() {
    let world = World::new();
    world.post_with_key("key-1", &example()).await;
    for (field, other) in [
        ("description", json!("Lightsabe")),
        ("amount", json!(2501)),
        ("currency", json!("USD")),
        ("payment_method", json!("debit_card")),
        ("card_number", json!("5555555555554444")),
        ("card_holder_name", json!("Leia")),
        ("card_expiration_date", json!("11/25")),
        ("card_verification_code", json!("124")),
        ("installments", json!(2)),
    ] {
        let answer = world.post_with_key("key-1", &example_with(json!({ field: other }))).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.faults(), ["idempotency-key"], "{field}");
    }
    assert_eq!(count(&world).await, 1);
}

#[tokio::test]
async fn keys_of_different_customers_do_not_meet_and_invalid_requests_take_none() {
    let world = World::new();
    let invalid = example_with(json!({ "amount": 0 }));
    assert_eq!(world.post_with_key("key-1", &invalid).await.faults(), ["amount"]);
    assert_eq!(world.post_with_key("key-1", &example()).await.status, StatusCode::CREATED);
    let stranger = world.ask(post_of("456", Some("key-1"), example().to_string())).await;
    assert_eq!((stranger.status, stranger.headers.get("idempotency-replayed")), (StatusCode::CREATED, None));
}

/// Finds tokens only when the test lets it.
struct GatedTokens {
    inner: OnceLock<Arc<Memory>>,
    /// One permit for each look.
    gate: Semaphore,
    /// One permit for each look that waits, or did.
    arrived: Semaphore,
}

impl GatedTokens {
    fn inner(&self) -> &Memory {
        self.inner.get().unwrap()
    }
}

#[async_trait]
impl CardTokenStore for GatedTokens {
    async fn put_token(&self, card: &TokenizedCard, record: Option<&IdempotencyRecord>) -> Result<bool, StoreError> {
        self.inner().put_token(card, record).await
    }

    async fn find_token(
        &self,
        customer: &CustomerId,
        token: CardToken,
        now: DateTime<Utc>,
    ) -> Result<Option<TokenizedCard>, StoreError> {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.inner().find_token(customer, token, now).await
    }

    async fn purge_tokens(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.inner().purge_tokens(now, limit).await
    }
}

#[tokio::test]
async fn of_two_processes_that_race_with_a_key_and_a_token_both_give_the_first_answer() {
    let (gate, arrived) = (Semaphore::new(0), Semaphore::new(0));
    let (tokens, mut other) = (Arc::new(GatedTokens { inner: OnceLock::new(), gate, arrived }), None);
    let world = World::with(|ports, options| {
        // The other process: the same store, and keys in flight of its own.
        let elsewhere = RestPorts { health: Vec::new(), ..ports.clone() };
        other = Some(psp_rest::router(elsewhere, options.clone(), None));
        let sources = Sources { clock: Arc::clone(&options.clock), ..Sources::default() };
        ports.tokenize = Arc::new(TokenizeCard::new(tokens.clone(), Arc::new(PlainVault), sources));
    });
    tokens.inner.set(world.memory.clone()).ok().unwrap();
    let mut card = example();
    let fields = card.as_object_mut().unwrap();
    fields.retain(|name, _| name.starts_with("card_"));
    let token = world.post_to("/card_tokens", &card).await.json()["card_token"].clone();
    let payment = |key: Option<&str>| {
        let body = json!({ "order_id": "order_123", "amount": 2500, "method": "credit_card", "card_token": token });
        let request = Request::post("/api/v1/payments").header("content-type", "application/json");
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        request.body(Body::from(body.to_string())).unwrap()
    };
    let slow = [Some("key-1"), Some("key-2"), None].map(|key| tokio::spawn(world.router.clone().oneshot(payment(key))));
    tokens.arrived.acquire_many(3).await.unwrap().forget();
    let first = other.unwrap().oneshot(payment(Some("key-1"))).await.unwrap();
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    tokens.gate.add_permits(3);
    let [same, other_key, no_key] = slow;
    let same = same.await.unwrap().unwrap();
    assert_eq!(
        (same.status(), &same.headers()["idempotency-replayed"]),
        (StatusCode::ACCEPTED, &"true".parse().unwrap())
    );
    let bytes = |response: Response| async { response.into_body().collect().await.unwrap().to_bytes() };
    assert_eq!(bytes(same).await, bytes(first).await);
    for refused in [other_key, no_key] {
        assert_eq!(refused.await.unwrap().unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_key_may_be_used_anew_after_a_day() {
    let world = World::new();
    let first: Value = world.post_with_key("key-1", &example()).await.json();
    world.clock.advance_days(1);
    let later = world.post_with_key("key-1", &example()).await;
    assert!(!later.headers.contains_key("idempotency-replayed") && later.json()["id"] != first["id"]);
}

#[tokio::test]
async fn a_key_in_flight_is_refused_until_the_write_ended() {
    let world = World::new();
    world.close_gate();
    let first = tokio::spawn(world.router.clone().oneshot(post_of("123", Some("key-1"), example().to_string())));
    world.gated.arrived.acquire().await.unwrap().forget();
    let second = world.post_with_key("key-1", &example()).await;
    second.assert_problem(StatusCode::CONFLICT);
    assert!(second.headers.contains_key("retry-after"));
    world.gated.gate.add_permits(9);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(world.post_with_key("key-1", &example()).await.headers["idempotency-replayed"], "true");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_cancels_nothing_and_frees_no_key() {
    let world = World::with(|_, options| options.request_timeout = Duration::from_secs(1));
    world.close_gate();
    let gone = tokio::spawn(world.router.clone().oneshot(post_of("123", Some("gone"), example().to_string())));
    world.gated.arrived.acquire().await.unwrap().forget();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let too_late = world.post_with_key("late", &example()).await;
    too_late.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    for key in ["gone", "late"] {
        world.post_with_key(key, &example()).await.assert_problem(StatusCode::CONFLICT);
    }
    world.gated.gate.add_permits(9);
    for key in ["gone", "late"] {
        let answer = loop {
            let answer = world.post_with_key(key, &example()).await;
            if answer.status != StatusCode::CONFLICT {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(answer.headers["idempotency-replayed"], "true", "{key}: {}", answer.text);
    }
    assert_eq!(count(&world).await, 2);
}
