//! Card numbers where no card is asked for: refused, because they would be stored in the clear.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, World, example_with};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// Card numbers as a whole, spaces and hyphens aside.
const NUMBERS: [&str; 5] =
    ["4111111111111111", "378282246310005", "3622-7206-2716-67", "5555-5555-5555-4444", "6200000000000000000"];
/// What a merchant may well call an order: digits that no brand begins with, that fail Luhn or are few, or that are a part.
const NAMES: [&str; 7] = [
    "1764000000000004",
    "9999999999999995",
    "4111111111111112",
    "4222222222222",
    "20251121093004",
    "order-4111111111111111",
    "4111111111111111/1",
];

fn payment() -> Value {
    json!({ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" })
}

fn transfer() -> Value {
    json!({ "user_id": 123, "amount": "100.50", "currency": "USD" })
}

fn order() -> Value {
    json!({ "userId": "user-1", "total": 999 })
}

fn with(mut body: Value, field: &str, value: &Value) -> Value {
    body[field] = value.clone();
    body
}

/// Only that path is at fault, and the number is not repeated.
fn assert_refused(answer: &Answer, path: &str) {
    answer.assert_problem(UNPROCESSABLE);
    let fault = json!({ "path": path, "message": "must not be a card number" });
    assert_eq!(answer.json()["errors"], json!([fault]), "{}", answer.text);
}

async fn deposited(world: &World) -> String {
    let answer = world.post_to("/deposit", &transfer()).await;
    answer.json()["transaction_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn fields_that_are_stored_in_the_clear_take_no_card_number() {
    let world = World::new();
    let callback = format!("/callback/{}", deposited(&world).await);
    let told = json!({ "gateway_txn_id": "gw-1", "status": "completed" });
    let events = world.memory.events().len();
    for number in NUMBERS {
        let number = json!(number);
        for (path, body, field) in [
            ("/api/v1/payments", payment(), "order_id"),
            ("/api/v1/payments", payment(), "description"),
            ("/deposit", transfer(), "user_id"),
            ("/withdrawal", transfer(), "user_id"),
            ("/api/orders", order(), "userId"),
            (callback.as_str(), told.clone(), "gateway_txn_id"),
            (callback.as_str(), told.clone(), "status"),
        ] {
            assert_refused(&world.post_to(path, &with(body, field, &number)).await, field);
        }
    }
    let number = json!(4_111_111_111_111_111_u64);
    assert_refused(&world.post_to("/deposit", &with(transfer(), "user_id", &number)).await, "user_id");
    let spaced = json!(" 4111 1111 1111 1111");
    assert_refused(&world.post_to("/api/v1/payments", &with(payment(), "description", &spaced)).await, "description");
    let other = example_with(json!({ "description": "5555555555554444" }));
    assert_refused(&world.post(other.to_string()).await, "description");
    let xml = "<withdrawal><user_id>4111111111111111</user_id><amount>1</amount><currency>USD</currency></withdrawal>";
    let answer = world.send("/withdrawal", &[("content-type", "application/xml")], xml).await;
    let fault = "<i><path>user_id</path><message>must not be a card number</message></i>";
    assert!(answer.status == UNPROCESSABLE && answer.text.contains(fault), "{}", answer.text);
    assert_eq!(world.memory.events().len(), events, "nothing was written");
}

#[tokio::test]
async fn headers_that_are_stored_in_the_clear_take_no_card_number() {
    let world = World::new();
    let created = world.post_to("/api/v1/payments", &payment()).await;
    let cancel = format!("/api/v1/payments/{}/cancel", created.json()["id"].as_str().unwrap());
    for number in NUMBERS {
        for (path, body) in [
            ("/transactions", example_with(json!({}))),
            ("/api/v1/payments", payment()),
            ("/deposit", transfer()),
            ("/withdrawal", transfer()),
            ("/api/orders", order()),
        ] {
            for (header, other) in [("x-customer-id", "idempotency-key"), ("idempotency-key", "x-customer-id")] {
                let headers = [JSON, (header, number), (other, "123")];
                let answer = world.send(path, &headers, body.to_string()).await;
                assert_refused(&answer, header);
            }
        }
        let headers = [JSON, ("idempotency-key", number)];
        assert_refused(&world.send(&cancel, &headers, "").await, "idempotency-key");
        let refund = format!("/transactions/{}/refund", created.json()["id"].as_str().unwrap());
        let headers = [("x-customer-id", "123"), ("idempotency-key", number)];
        assert_refused(&world.send(&refund, &headers, "").await, "idempotency-key");
    }
}

#[tokio::test]
async fn other_numbers_are_names_as_any() {
    let world = World::new();
    let callback = format!("/callback/{}", deposited(&world).await);
    for name in NAMES {
        let order = with(with(payment(), "order_id", &json!(name)), "description", &json!(name));
        for (path, body) in [("/api/v1/payments", order), ("/deposit", with(transfer(), "user_id", &json!(name)))] {
            let customer = format!("{name}-{path}");
            let keyed = [JSON, ("x-customer-id", customer.as_str()), ("idempotency-key", name)];
            let answer = world.send(path, &keyed, body.to_string()).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{name}: {}", answer.text);
            let headers = [JSON, ("x-customer-id", name)];
            let answer = world.send(path, &headers, body.to_string()).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{name}: {}", answer.text);
        }
        let told = json!({ "gateway_txn_id": name, "status": "half_way" });
        assert_eq!(world.post_to(&callback, &told).await.status, StatusCode::ACCEPTED, "{name}");
    }
}
