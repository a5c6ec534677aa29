//! The same key and the same request: one effect, one answer (I8).

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
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
