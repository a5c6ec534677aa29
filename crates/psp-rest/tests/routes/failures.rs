//! Failures of what stands behind the routes.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use psp_domain::ports::StoreError;
use psp_testkit::fixtures;
use serde_json::json;
use tower::ServiceExt;

use crate::support::{Counting, Hanging, Panics, Sick, World, example, post_of};

/// What was logged, as JSON lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Gathers the log of this thread as long as the guard lives.
    fn gather() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn line(&self, containing: &str) -> serde_json::Value {
        let text = self.text();
        let line = text.lines().find(|line| line.contains(containing));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no line with {containing} in {text}"))).unwrap()
    }
}

#[tokio::test]
async fn failures_of_the_store_are_503_or_500_and_tell_nothing_of_it() {
    let world = World::new();
    let lost = || StoreError::OutcomeUnknown("secret detail".into());
    let failures = [
        (vec![StoreError::Overloaded], StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        (vec![StoreError::Unavailable("secret detail".into())], StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        (vec![lost(), lost()], StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown"),
        // The first attempt may have been written, whatever the second one says.
        (vec![lost(), StoreError::Overloaded], StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown"),
        (vec![lost(), StoreError::Unavailable("secret".into())], StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown"),
        (vec![StoreError::Damaged("secret detail".into())], StatusCode::INTERNAL_SERVER_ERROR, "internal-error"),
    ];
    for (failures, expected, kind) in failures {
        for failure in failures {
            world.failing.fail_next(failure, false);
        }
        let answer = world.post(example().to_string()).await;
        answer.assert_problem(expected);
        assert_eq!(answer.json()["type"], format!("urn:psp:problem:{kind}"));
        assert_eq!(answer.headers.contains_key("retry-after"), expected == StatusCode::SERVICE_UNAVAILABLE);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    assert_eq!(world.get("/transactions").await.text, "[]");
}

#[tokio::test]
async fn the_causes_of_a_failure_are_logged_under_its_request() {
    let (log, _guard) = Log::gather();
    let world = World::new();
    world.failing.fail_next(StoreError::Unavailable("disk is full".into()), false);
    let mut request = post_of("123", None, example().to_string());
    request.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    world.ask(request).await;
    let line = log.line("a request failed");
    assert_eq!((&line["request_id"], &line["status"]), (&json!("mine-1"), &json!(503)));
    assert_eq!(line["error"], "store unavailable: disk is full");
}

#[tokio::test]
async fn a_request_is_one_line_of_log_without_card_data() {
    let (log, _guard) = Log::gather();
    let world = World::new();
    let answer = world.post(example().to_string()).await;
    let line = log.line("\"request\"");
    for (field, expected) in [
        ("method", json!("POST")),
        ("route", json!("/transactions")),
        ("status", json!(201)),
        ("request_id", json!(answer.headers["x-request-id"].to_str().unwrap())),
        ("customer_id", json!("123")),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert!(line["duration_ms"].is_f64());
    world.get("/transactions/4111111111111111").await;
    assert_eq!(log.text().lines().count(), 2);
    assert!(!fixtures::card().number.appears_in(&log.text()), "{}", log.text());
}

#[tokio::test]
async fn a_card_number_in_a_header_is_refused_and_not_logged() {
    let (log, _guard) = Log::gather();
    let world = World::new();
    for text in ["4111-1111-1111-1111", "4111111111111111", "c4111111111111111", "pay/4111.1111.1111.1111-2024"] {
        let mut request = post_of(text, Some(text), example().to_string());
        request.headers_mut().insert("x-request-id", text.parse().unwrap());
        let answer = world.ask(request).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        let paths: Vec<_> = errors.iter().map(|error| error["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["x-customer-id", "idempotency-key"]);
        // A request id may hold four of its digits by chance.
        let number = fixtures::card().number;
        for shown in [answer.headers["x-request-id"].to_str().unwrap(), &answer.text, &log.text()] {
            assert!(!number.appears_in(shown), "{shown}");
        }
    }
    assert_eq!(log.text().lines().filter(|line| line.contains(r#""customer_id":"***""#)).count(), 4, "{}", log.text());
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_and_the_next_request_is_served() {
    let (log, _guard) = Log::gather();
    let world = World::with(|ports, _| ports.fingerprints = Arc::new(Panics));
    for _ in 0..2 {
        let answer = world.post_with_key("key-1", &example()).await;
        answer.assert_problem(StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.text.contains("tests ask for"), "{}", answer.text);
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(log.text().lines().any(|line| line.contains("a handler panicked") && line.contains(&id)));
    }
    assert_eq!(world.post(example().to_string()).await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_503() {
    let world = World::new();
    world.close_gate();
    let answer = world.post(example().to_string()).await;
    answer.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["type"], "urn:psp:problem:timeout");
}

#[tokio::test(start_paused = true)]
async fn readiness_names_what_fails_or_hangs_and_liveness_does_not_ask() {
    let world = World::with(|ports, options| {
        ports.health.extend([("queue", Arc::new(Sick) as _), ("vault", Arc::new(Hanging) as _)]);
        ports.health.extend([("cache", Arc::new(Hanging) as _)]);
        options.request_timeout = Duration::from_millis(2_500);
    });
    let answer = world.get("/_readiness_check_").await;
    answer.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["detail"], "not ready: queue, vault, cache");
    assert_eq!(world.get("/_liveness_check_").await.text, "{\"status\":\"ok\"}");
    assert_eq!(World::new().get("/_readiness_check_").await.text, "{\"status\":\"ok\"}");
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_for_readiness_it_is_looked_at_once_a_second() {
    let health = Arc::new(Counting::default());
    let world = World::with(|ports, _| ports.health.push(("counting", health.clone())));
    for seconds in 1..=3 {
        futures::future::join_all((0..100).map(|_| world.get("/_readiness_check_"))).await;
        assert_eq!(health.0.load(Ordering::SeqCst), seconds);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away_but_probes_are_answered() {
    let world = World::with(|_, options| options.max_in_flight = 1);
    world.close_gate();
    let slow = tokio::spawn(world.router.clone().oneshot(post_of("123", None, example().to_string())));
    world.gated.arrived.acquire().await.unwrap().forget();
    let refused = world.get("/transactions").await;
    refused.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    for probe in ["/_liveness_check_", "/_readiness_check_"] {
        assert_eq!(world.get(probe).await.status, StatusCode::OK);
    }
    world.gated.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(world.get("/transactions").await.status, StatusCode::OK, "the place is free again");
}

#[tokio::test]
async fn a_secret_of_a_webhook_endpoint_is_shown_and_not_logged() {
    let (log, _guard) = Log::gather();
    let world = World::new();
    let shop = json!({ "url": "https://user:password@shop.example/?token=1" });
    let created = world.post_to("/webhook_endpoints", &shop).await;
    let path = format!("/webhook_endpoints/{}/rotate_secret", created.json()["id"].as_str().unwrap());
    let rotated = world.send(&path, &[], "").await;
    assert!(created.text.contains("whsec_secret1") && rotated.text.contains("whsec_secret2"));
    let text = log.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains("whsec") && !text.contains("shop.example"), "{text}");
}
