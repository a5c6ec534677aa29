//! Refunds.

use std::time::Duration;

use axum::http::StatusCode;
use psp_domain::ports::{AuthorizationResult, Store, UuidV7Generator};
use psp_domain::{ChangeSet, FeeRules, GatewayReference, Transaction};
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World, example};

const NOBODY: &str = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
const CUSTOMER: (&str, &str) = ("x-customer-id", "123");

/// An approval by the scripted gateway.
fn approved(transaction: &Transaction, now: chrono::DateTime<chrono::Utc>) -> ChangeSet {
    let gateway = GatewayReference { gateway: "scripted".parse().unwrap(), reference: "ref-1".into() };
    fixtures::executed(transaction.clone().approve(gateway, &FeeRules::default(), now, &UuidV7Generator).unwrap())
}

/// A world with the example, approved.
async fn world() -> (World, Transaction) {
    let world = World::new();
    let transaction = world.created(&example()).await;
    world.memory.apply(approved(&transaction, world.now())).await.unwrap();
    (world, transaction)
}

async fn refund(world: &World, id: impl ToString, body: Option<&Value>) -> Answer {
    world.call("POST", &format!("/transactions/{}/refund", id.to_string()), &[CUSTOMER], body).await
}

/// Has the gateway answer every pending refund.
async fn settle(world: &World, transaction: &Transaction, answer: AuthorizationResult) {
    world.gateway.answer_refund(Ok(answer));
    world.settle_refunds("123", transaction.id).await;
}

fn given() -> AuthorizationResult {
    AuthorizationResult::Approved { reference: "gw-refund-1".into(), amount: None }
}

#[tokio::test]
async fn a_part_is_given_back_and_then_the_rest() {
    let (world, transaction) = world().await;
    let path = format!("/transactions/{}", transaction.id);
    assert!(!world.get(&path).await.text.contains("refund"), "as printed as long as there is no refund");
    let asked = refund(&world, transaction.id, Some(&json!({ "amount": "1000" }))).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(asked.hidden(), @r#"{"id":"[id]","description":"Lightsaber","customer_id":"123","amount":2500,"currency":"BRL","payment_method":"credit_card","status":"pending_refund","card_holder_name":"Luke Skywalker","card_expiration_date":"2025-10-01T00:00:00.000Z","card_verification_code":"***","card_last_four_numbers":"1111","card_brand":"visa","installments":1,"created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","refunded_amount":0,"refund":{"id":"[id]","transaction_id":"[id]","amount":1000,"currency":"BRL","status":"pending","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}}"#);
    let shown = world.get(&path).await.json();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("pending_refund"), &json!(0)));
    settle(&world, &transaction, given()).await;
    let shown = world.get(&path).await.json();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("pending_payment"), &json!(1000)));
    world.clock.advance(Duration::from_secs(1));
    let rest = refund(&world, transaction.id, None).await.json();
    assert_eq!(rest["refund"]["amount"], 1500);
    settle(&world, &transaction, given()).await;
    let shown = world.get(&path).await.json();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("refunded"), &json!(2500)));
    insta::assert_snapshot!(world.get(&format!("{path}/refunds")).await.hidden(), @r#"[{"id":"[id]","transaction_id":"[id]","amount":1000,"currency":"BRL","status":"succeeded","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"},{"id":"[id]","transaction_id":"[id]","amount":1500,"currency":"BRL","status":"succeeded","created_at":"2026-01-31T12:00:01.000Z","updated_at":"2026-01-31T12:00:01.000Z"}]"#);
    let payment = world.get(&format!("/api/v1/payments/{}", transaction.id)).await.json();
    assert_eq!(payment["status"], "REFUNDED");
}

#[tokio::test]
async fn what_a_refund_takes_back_of_payables_is_shown_with_its_number() {
    let (world, transaction) = world().await;
    let owed = world.get("/payables").await.json()[0].clone();
    assert!(owed.get("refund").is_none());
    refund(&world, transaction.id, Some(&json!({ "amount": 1000 }))).await;
    settle(&world, &transaction, given()).await;
    let payables = world.get("/payables").await;
    insta::assert_snapshot!(payables.hidden(), @r#"[{"id":"[id]","customer_id":"123","status":"waiting_funds","payment_date":"2026-03-02T12:00:00.000Z","fee":5,"receivable_amount":-1000,"installment":1,"transaction_id":"[id]","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","fee_amount":0,"amount":-1000,"currency":"BRL","refund":1},{"id":"[id]","customer_id":"123","status":"waiting_funds","payment_date":"2026-03-02T12:00:00.000Z","fee":5,"receivable_amount":2375,"installment":1,"transaction_id":"[id]","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","fee_amount":125,"amount":2500,"currency":"BRL"}]"#);
    assert_eq!(world.get("/balance").await.json()["waiting_funds"], 1375);
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_tells_why_and_another_may_be_asked_for() {
    let (world, transaction) = world().await;
    refund(&world, transaction.id, None).await;
    settle(&world, &transaction, AuthorizationResult::Declined { reason: "refund_window_closed".into() }).await;
    let refunds = world.get(&format!("/transactions/{}/refunds", transaction.id)).await.json();
    assert_eq!((&refunds[0]["status"], &refunds[0]["reason"]), (&json!("failed"), &json!("refund_window_closed")));
    let shown = world.get(&format!("/transactions/{}", transaction.id)).await.json();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("pending_payment"), &json!(0)));
    assert_eq!(refund(&world, transaction.id, None).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn amounts_that_cannot_be_given_back_are_refused() {
    let (world, transaction) = world().await;
    for amount in [json!(0), json!(-1), json!(1.5), json!("x"), json!([1]), json!(2501)] {
        let answer = refund(&world, transaction.id, Some(&json!({ "amount": amount }))).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.faults(), ["amount"], "{amount}");
    }
    assert_eq!(refund(&world, transaction.id, Some(&json!({ "amount": 2000 }))).await.status, StatusCode::ACCEPTED);
    let too_much = refund(&world, transaction.id, Some(&json!({ "amount": 501 }))).await.json();
    assert_eq!(too_much["errors"], json!([{ "path": "amount", "message": "at most 500 is left to refund" }]));
    let path = format!("/transactions/{}/refund", transaction.id);
    let nobody = world.call("POST", &path, &[], Some(&json!({ "amount": 0 }))).await;
    assert_eq!(nobody.faults(), ["amount", "x-customer-id"]);
}

#[tokio::test]
async fn a_body_that_may_mean_a_part_gives_nothing_back() {
    let (world, transaction) = world().await;
    let refused = async |body: &str| {
        let headers = [CUSTOMER, ("content-type", "application/json")];
        let answer = world.send(&format!("/transactions/{}/refund", transaction.id), &headers, body.to_owned()).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        answer
    };
    for (body, faults) in [
        (r#"{"amount":null}"#, &["amount"][..]),
        (r#"{"amout":100}"#, &["amout"]),
        (r#"{"Amount":100,"amount":0,"amount_":1}"#, &["Amount", "amount", "amount_"]),
        (r#"{"amount":100,"reason":"broken"}"#, &["reason"]),
        // Neither a number nor a long text is repeated.
        (r#"{"4111111111111111":1,"am\u006funt":0}"#, &["", "amount"]),
        (&format!(r#"{{"{}":1}}"#, "a".repeat(65)), &[""]),
        // A field twice, or no object.
        (r#"{"amount":100,"amount":100}"#, &[""]),
        (r#"{"amout":100,"amout":100}"#, &[""]),
        ("[100]", &[""]),
        ("100", &[""]),
        ("null", &[""]),
    ] {
        assert_eq!(refused(body).await.faults(), faults, "{body}");
    }
    let crowd: Vec<_> = (0..2_000).map(|number| format!(r#""{number}":1"#)).collect();
    assert_eq!(refused(&format!("{{{}}}", crowd.join(","))).await.faults().len(), 20);
    assert_eq!(world.get(&format!("/transactions/{}/refunds", transaction.id)).await.text, "[]");
    let whole = refund(&world, transaction.id, Some(&json!({}))).await;
    assert_eq!(whole.json()["refund"]["amount"], 2500);
}

#[tokio::test]
async fn what_is_not_approved_or_was_given_back_cannot_be_refunded() {
    let (world, transaction) = world().await;
    let processing = world.created(&example()).await;
    let conflict = refund(&world, processing.id, None).await;
    conflict.assert_problem(StatusCode::CONFLICT);
    assert_eq!(conflict.json()["type"], "urn:psp:problem:not-refundable");
    assert_eq!(conflict.json()["detail"], "the transaction is processing: nothing can be refunded");
    refund(&world, transaction.id, None).await;
    let pending = refund(&world, transaction.id, None).await;
    pending.assert_problem(StatusCode::CONFLICT);
    assert_eq!(pending.json()["detail"], "all of the transaction is being refunded");
    settle(&world, &transaction, given()).await;
    refund(&world, transaction.id, None).await.assert_problem(StatusCode::CONFLICT);
    let transfer = json!({ "user_id": 123, "amount": "100.50", "currency": "USD" });
    let deposit = world.call("POST", "/deposit", &[CUSTOMER], Some(&transfer)).await.json();
    for id in [NOBODY, "x", deposit["transaction_id"].as_str().unwrap()] {
        refund(&world, id, None).await.assert_problem(StatusCode::NOT_FOUND);
        world.get(&format!("/transactions/{id}/refunds")).await.assert_problem(StatusCode::NOT_FOUND);
    }
    let path = format!("/transactions/{}/refund", transaction.id);
    world.call("POST", &path, &[("x-customer-id", "456")], None).await.assert_problem(StatusCode::NOT_FOUND);
    world.get_as("456", &format!("{path}s")).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_same_key_asks_for_one_refund_even_after_it_was_given_back() {
    let (world, transaction) = world().await;
    let path = format!("/transactions/{}/refund", transaction.id);
    let keyed = [CUSTOMER, ("idempotency-key", "key-1")];
    let first = world.call("POST", &path, &keyed, None).await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (StatusCode::ACCEPTED, None));
    settle(&world, &transaction, given()).await;
    let again = world.call("POST", &path, &keyed, Some(&json!({}))).await;
    assert_eq!((again.status, &again.text), (StatusCode::ACCEPTED, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = world.call("POST", &path, &keyed, Some(&json!({ "amount": 1 }))).await;
    assert_eq!(other.json()["type"], "urn:psp:problem:idempotency-key-reused");
    assert_eq!(world.get(&format!("{path}s")).await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_whose_first_refund_is_under_way_is_in_flight() {
    let (world, transaction) = world().await;
    let path = format!("/transactions/{}/refund", transaction.id);
    let keyed = [CUSTOMER, ("idempotency-key", "key-1")];
    world.close_gate();
    let (first, second) = tokio::join!(world.call("POST", &path, &keyed, None), async {
        world.gated.arrived.acquire_many(2).await.unwrap().forget();
        let second = world.call("POST", &path, &keyed, None).await;
        world.gated.gate.add_permits(1);
        second
    });
    assert_eq!(first.status, StatusCode::ACCEPTED);
    second.assert_problem(StatusCode::CONFLICT);
    assert_eq!(second.json()["type"], "urn:psp:problem:in-flight");
}

#[tokio::test]
async fn refunds_that_are_asked_for_at_once_give_back_no_more_than_there_is() {
    let (world, transaction) = world().await;
    let half = json!({ "amount": 1500 });
    let (one, other) =
        tokio::join!(refund(&world, transaction.id, Some(&half)), refund(&world, transaction.id, Some(&half)));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 422]);
}
