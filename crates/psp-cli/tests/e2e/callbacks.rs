//! Gateways that answer later, twice, wrongly or never.

use psp_domain::ports::{Clock, SystemClock};
use psp_gateways::{Signed, SigningKey};
use serde_json::{Value, json};

use crate::acquirers::{add_gateway, charges, place_of, post, secret_of, serve_at, totals, until};
use crate::support::{Answer, Api, Place, Process};

const DEPOSIT: &str = r#"{ "user_id": 123, "amount": "100.50", "currency": "USD" }"#;

/// The documentation's callback, with another status.
fn callback(status: &str) -> String {
    json!({ "gateway_txn_id": "gw-tx-12345", "status": status }).to_string()
}

async fn deposit(psp: &Api) -> String {
    let answer = post(psp, "/deposit", &[], DEPOSIT).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (202, &json!("pending")), "{}", answer.text);
    answer.json()["transaction_id"].as_str().unwrap().to_owned()
}

async fn call_back(psp: &Api, id: &str, body: &str) -> Answer {
    post(psp, &format!("/callback/{id}"), &[], body).await
}

async fn await_status(psp: &Api, id: &str, status: &str) -> Value {
    until(psp, &format!("/deposits/{id}"), |deposit| deposit["status"] == status).await
}

#[tokio::test]
async fn a_callback_completes_fails_or_rejects_and_a_custom_status_waits() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for (status, ends) in [("completed", "completed"), ("failed", "failed"), ("rejected", "failed")] {
        let id = deposit(&psp).await;
        let noted = call_back(&psp, &id, &callback("in_review")).await;
        assert_eq!(noted.status, 202, "{}", noted.text);
        assert_eq!(call_back(&psp, &id, &callback(status)).await.status, 202);
        await_status(&psp, &id, ends).await;
    }
}

#[tokio::test]
async fn twice_is_once_and_what_is_final_stays() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let id = deposit(&psp).await;
    for _ in 0..2 {
        assert_eq!(call_back(&psp, &id, &callback("completed")).await.status, 202);
    }
    await_status(&psp, &id, "completed").await;
    assert_eq!(call_back(&psp, &id, &callback("completed")).await.status, 202, "the same again, after the end");
    let late = call_back(&psp, &id, &callback("failed")).await;
    assert_eq!(
        (late.status.as_u16(), late.headers["content-type"].to_str().unwrap()),
        (409, "application/problem+json")
    );
    assert_eq!(await_status(&psp, &id, "completed").await["status"], "completed");
    let unknown = call_back(&psp, "01a1fc23-adfc-74b8-ab63-7bfa62344961", &callback("completed")).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_race_with_different_outcomes_one_wins() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for _ in 0..10 {
        let id = deposit(&psp).await;
        let (yes, no) = (callback("completed"), callback("failed"));
        let (one, other) = tokio::join!(call_back(&psp, &id, &yes), call_back(&psp, &id, &no));
        assert!([202, 409].contains(&one.status.as_u16()) && [202, 409].contains(&other.status.as_u16()));
        let ended = until(&psp, &format!("/deposits/{id}"), |deposit| deposit["status"] != "pending").await;
        let again = until(&psp, &format!("/deposits/{id}"), |deposit| deposit["status"] != "pending").await;
        assert_eq!(ended, again);
    }
    // Each of them was looked at, and no deposit ended twice.
    let twice = "SELECT aggregate_id FROM outbox WHERE kind IN ('transaction.approved', 'transaction.failed') \
                 GROUP BY aggregate_id HAVING count(*) > 1";
    assert_eq!(place.count(twice).await, 0);
}

/// A deposit that the simulator has taken and never calls back for, in a place of its own.
async fn forgotten() -> (Place, Process, Process, String) {
    let (place, address) = place_of(&["acme"], &[("PSP_CHECK_AFTER_MS", "3600000")]);
    place.run(&["migrate"]);
    let simulator = add_gateway(&place, "acme", "json", &["--forget-rate", "1"]).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let id = deposit(&psp).await;
    until(&psp, &format!("/deposits/{id}"), |deposit| deposit["status"] == "pending").await;
    (place, simulator, psp, id)
}

fn now() -> i64 {
    SystemClock.now().timestamp()
}

async fn signed(psp: &Api, id: &str, body: &str, secret: &str, timestamp: i64) -> Answer {
    let path = format!("/callback/{id}");
    let key = SigningKey::new(secret.to_owned().into()).unwrap();
    let signature = key.sign(&Signed { timestamp, method: "POST", path: &path, body: body.as_bytes() });
    let timestamp = timestamp.to_string();
    post(psp, &path, &[("psp-timestamp", &timestamp), ("psp-signature", &signature)], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_stale_callback_is_refused_and_changes_nothing() {
    let (place, _simulator, psp, id) = forgotten().await;
    let body = callback("in_review");
    let unsigned = call_back(&psp, &id, &body).await;
    assert_eq!(unsigned.status, 401, "{}", unsigned.text);
    let forged = signed(&psp, &id, &body, "somebody else's secret, as long as it", now()).await;
    assert_eq!(forged.status, 401, "{}", forged.text);
    let secret = secret_of("acme");
    for off in [-301, 301] {
        assert_eq!(signed(&psp, &id, &body, &secret, now() + off).await.status, 401, "{off} s");
    }
    assert_eq!(place.count("SELECT id FROM gateway_callbacks").await, 0);
    assert_eq!(signed(&psp, &id, &body, &secret, now()).await.status, 202);
    assert_eq!(place.count("SELECT id FROM gateway_callbacks").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_never_calls_back_is_asked() {
    let (place, address) = place_of(&["acme"], &[("PSP_CHECK_AFTER_MS", "100"), ("PSP_SWEEP_INTERVAL_MS", "100")]);
    place.run(&["migrate"]);
    let simulator = add_gateway(&place, "acme", "xml", &["--forget-rate", "1", "--callback-delay-ms", "200"]).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let id = deposit(&psp).await;
    await_status(&psp, &id, "completed").await;
    assert_eq!(place.count("SELECT id FROM gateway_callbacks").await, 0, "it never called back");
    assert_eq!(charges(&simulator).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_amount_is_flagged_and_the_right_one_counts() {
    let (place, address) = place_of(&["acme"], &[]);
    place.run(&["migrate"]);
    let faults = ["--wrong-amount-rate", "1", "--duplicate-rate", "1", "--callback-delay-ms", "50"];
    let simulator = add_gateway(&place, "acme", "json", &faults).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let id = deposit(&psp).await;
    await_status(&psp, &id, "completed").await;
    let flagged = place.run(&["callbacks", "list", "--outcome", "wrong_amount", "--json"]);
    let flagged: serde_json::Value = serde_json::from_str(&flagged).unwrap();
    assert_eq!((flagged.as_array().unwrap().len(), &flagged[0]["transaction_id"]), (1, &json!(id)), "{flagged}");
    assert!(place.run(&["callbacks", "list", "--outcome", "foreign"]).starts_with("there are no such callbacks"));
    assert!(psp.log().contains("a callback needs a look"), "{}", psp.log());
    let metrics = psp.get("", "/metrics").await.text;
    assert!(metrics.contains("psp_callbacks_total{outcome=\"wrong_amount\"} 1"), "{metrics}");
    assert_eq!(totals(&simulator).await["sums"]["USD"], 10_050);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_comes_before_the_answer_ends_the_payment() {
    let (place, address) = place_of(&["acme"], &[]);
    place.run(&["migrate"]);
    // The answer takes a second; the callback does not wait for it.
    let simulator = add_gateway(&place, "acme", "json", &["--latency-ms", "1000"]).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let id = deposit(&psp).await;
    await_status(&psp, &id, "completed").await;
    assert_eq!(charges(&simulator).await, 1);
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawals_and_payments_without_a_card_go_the_same_way() {
    let (place, address) = place_of(&["acme"], &[]);
    place.run(&["migrate"]);
    let simulator = add_gateway(&place, "acme", "json", &["--pending-rate", "1", "--callback-delay-ms", "20"]).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let paid_out = post(&psp, "/withdrawal", &[], r#"{ "user_id": 123, "amount": "50.25", "currency": "USD" }"#).await;
    let id = paid_out.json()["transaction_id"].as_str().unwrap().to_owned();
    until(&psp, &format!("/withdrawals/{id}"), |withdrawal| withdrawal["status"] == "completed").await;
    let payment = json!({ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" }).to_string();
    let payment = post(&psp, "/api/v1/payments", &[], &payment).await.json();
    let path = format!("/api/v1/payments/{}", payment["id"].as_str().unwrap());
    until(&psp, &path, |payment| payment["status"] == "SUCCESS").await;
    let totals = totals(&simulator).await;
    assert_eq!(totals["sums"]["INR"], 50_000, "{totals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_a_gateway_holds_is_voided_before_it_is_cancelled() {
    let (place, address) = place_of(&["acme"], &[("PSP_SWEEP_INTERVAL_MS", "100")]);
    place.run(&["migrate"]);
    let faults = ["--pending-rate", "1", "--forget-rate", "1", "--callback-delay-ms", "120000"];
    let simulator = add_gateway(&place, "acme", "json", &faults).await;
    place.run(&["gateways", "route", "acme"]);
    let psp = serve_at(&place, &address).await;
    let body = json!({ "order_id": "o-1", "amount": 700, "currency": "INR", "method": "upi" }).to_string();
    let payment = post(&psp, "/api/v1/payments", &[], &body).await.json();
    let id = payment["id"].as_str().unwrap();
    let begun = std::time::Instant::now();
    while totals(&simulator).await["references"].as_object().unwrap().is_empty() {
        assert!(begun.elapsed() < crate::support::PATIENCE);
        crate::support::pause().await;
    }
    let cancelled = post(&psp, &format!("/api/v1/payments/{id}/cancel"), &[], "").await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    until(&psp, &format!("/api/v1/payments/{id}"), |payment| payment["status"] == "CANCELLED").await;
    let again = post(&psp, &format!("/api/v1/payments/{id}/cancel"), &[], "").await;
    assert_eq!(again.status, 202, "{}", again.text);
    let totals = totals(&simulator).await;
    assert_eq!(totals["charges"].as_u64().unwrap(), totals["voided"].as_u64().unwrap(), "{totals}");
}
