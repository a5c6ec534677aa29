//! The bodies of the API, to the byte.

use psp_domain::ports::Store;
use psp_testkit::fixtures;
use serde_json::json;

use crate::support::{World, example, example_with};

#[tokio::test]
async fn a_created_transaction_is_as_printed_in_the_documentation() {
    let world = World::new();
    let created = world.post(example().to_string()).await;
    assert_eq!(
        (created.status.as_u16(), &created.headers["content-type"]),
        (201, &"application/json".parse().unwrap())
    );
    insta::assert_snapshot!(created.hidden(), @r#"{"id":"[id]","description":"Lightsaber","customer_id":"123","amount":2500,"currency":"BRL","payment_method":"credit_card","status":"processing","card_holder_name":"Luke Skywalker","card_expiration_date":"2025-10-01T00:00:00.000Z","card_verification_code":"***","card_last_four_numbers":"1111","card_brand":"visa","installments":1,"created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&format!("/transactions/{id}")).await.text, created.text);
    assert_eq!(world.get("/transactions").await.text, format!("[{}]", created.text));
}

#[tokio::test]
async fn a_payable_and_the_balance_are_as_printed_in_the_documentation() {
    let world = World::new();
    let transaction = world.created(&example()).await;
    world.memory.apply(fixtures::approve(&transaction, world.now())).await.unwrap();
    let payables = world.get("/payables").await;
    insta::assert_snapshot!(payables.hidden(), @r#"[{"id":"[id]","customer_id":"123","status":"waiting_funds","payment_date":"2026-03-02T12:00:00.000Z","fee":5,"receivable_amount":2375,"installment":1,"transaction_id":"[id]","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","fee_amount":125,"amount":2500,"currency":"BRL"}]"#);
    let id = payables.json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(format!("[{}]", world.get(&format!("/payables/{id}")).await.text), payables.text);
    insta::assert_snapshot!(world.get("/balance").await.text, @r#"{"available":0,"waiting_funds":2375,"currency":"BRL"}"#);
    insta::assert_snapshot!(world.get("/balance?currency=JPY").await.text, @r#"{"available":0,"waiting_funds":0,"currency":"JPY"}"#);
}

#[tokio::test]
async fn the_reason_of_a_decline_is_told_and_only_then() {
    let world = World::new();
    let transaction = world.created(&example()).await;
    let path = format!("/transactions/{}", transaction.id);
    assert!(!world.get(&path).await.text.contains("status_reason"));
    world.memory.apply(fixtures::decline(&transaction, world.now())).await.unwrap();
    let declined = world.get(&path).await.json();
    assert_eq!((&declined["status"], &declined["status_reason"]), (&json!("declined"), &json!("do_not_honor")));
}

#[tokio::test]
async fn every_form_that_a_field_may_take_is_taken() {
    let world = World::new();
    for (field, given, shown) in [
        ("amount", json!(2500), json!(2500)),
        ("amount", json!("0001"), json!(1)),
        ("amount", json!(1_000_000_000_000_i64), json!(1_000_000_000_000_i64)),
        ("currency", json!("JPY"), json!("JPY")),
        ("currency", json!(null), json!("BRL")),
        ("description", json!(""), json!("")),
        ("description", json!("ünï\u{1F680}".repeat(125)), json!("ünï\u{1F680}".repeat(125))),
        ("card_expiration_date", json!("02/2031"), json!("2031-02-01T00:00:00.000Z")),
        ("card_holder_name", json!(" Leia "), json!("Leia")),
        ("card_verification_code", json!("1234"), json!("***")),
        ("payment_method", json!("debit_card"), json!("debit_card")),
        ("installments", json!(12), json!(12)),
        ("installments", json!(null), json!(1)),
        ("unknown", json!({ "amount": [0, "x"] }), json!(null)),
    ] {
        let answer = world.post(example_with(json!({ field: given })).to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()[field]), (201, &shown), "{field}: {given}");
    }
}
