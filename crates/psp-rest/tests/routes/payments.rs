//! Payments by any method: their bodies, states, faults, and cancelling.

use axum::http::StatusCode;
use psp_domain::ports::{Store, StoreError, TransactionReader};
use psp_domain::{AttemptState, ChangeSet, Transaction, TransactionStatus};
use psp_testkit::fixtures;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Answer, World, example};

const PATH: &str = "/api/v1/payments";
const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// The documentation's example.
fn upi() -> Value {
    json!({ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" })
}

/// A payment with some fields replaced.
fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

/// A payment by credit card.
fn by_card() -> Value {
    let card = json!({
        "method": "credit_card", "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
        "card_expiration_date": "10/25", "card_verification_code": "123"
    });
    with(upi(), card)
}

async fn keyed(world: &World, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    world.send(PATH, &headers, body.to_string()).await
}

async fn created(world: &World, body: &Value) -> Transaction {
    let answer = world.post_to(PATH, body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
    TransactionReader::find(&*world.memory, &fixtures::customer("default"), id).await.unwrap().unwrap()
}

async fn status_of(world: &World, id: impl std::fmt::Display) -> Value {
    world.get_with(&format!("{PATH}/{id}"), &[]).await.json()["status"].clone()
}

#[tokio::test]
async fn a_payment_is_as_printed_in_the_documentation() {
    let world = World::new();
    let answer = world.post_to(PATH, &upi()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.hidden(), @r#"{"message":"Payment initiated successfully","status":"PENDING","id":"[id]","order_id":"order_123"}"#);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let found = world.get_with(&format!("{PATH}/{id}"), &[]).await;
    insta::assert_snapshot!(found.hidden(), @r#"{"id":"[id]","order_id":"order_123","amount":50000,"currency":"INR","method":"upi","status":"PENDING","description":"","installments":1,"created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
    assert_eq!(world.get_with(PATH, &[]).await.text, format!("[{}]", found.text));
}

#[tokio::test]
async fn a_card_payment_shows_what_may_be_shown_of_the_card() {
    let world = World::new();
    let whole = json!({ "description": "Lightsaber", "country": "BR", "gateway": "scripted", "installments": 3 });
    let payment = created(&world, &with(by_card(), whole)).await;
    insta::assert_snapshot!(world.get_with(&format!("{PATH}/{}", payment.id), &[]).await.hidden(), @r#"{"id":"[id]","order_id":"order_123","amount":50000,"currency":"INR","method":"credit_card","status":"PENDING","description":"Lightsaber","country":"BR","gateway":"scripted","installments":3,"card_last_four_numbers":"1111","card_brand":"visa","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
}

#[tokio::test]
async fn a_payment_of_either_family_is_seen_by_both() {
    let world = World::new();
    let card = world.created(&example()).await;
    let shown = world.get(&format!("{PATH}/{}", card.id)).await;
    assert_eq!((shown.status, shown.json().get("order_id")), (StatusCode::OK, None));
    let payment = created(&world, &upi()).await;
    let shown = world.get_as("default", &format!("/transactions/{}", payment.id)).await;
    assert_eq!(shown.json()["payment_method"], "upi");
    assert!(!shown.text.contains("card_"), "{}", shown.text);
}

/// What ends a payment at a time.
type Ending = fn(&Transaction, chrono::DateTime<chrono::Utc>) -> ChangeSet;

#[tokio::test]
async fn every_state_has_its_word() {
    let world = World::new();
    let ids = psp_domain::ports::UuidV7Generator;
    for (ending, expected) in
        [(fixtures::approve as Ending, "SUCCESS"), (fixtures::decline, "FAILED"), (fixtures::fail, "FAILED")]
    {
        let payment = created(&world, &upi()).await;
        assert_eq!(status_of(&world, payment.id).await, "PENDING");
        world.memory.apply(ending(&payment, world.now())).await.unwrap();
        assert_eq!(status_of(&world, payment.id).await, expected);
    }
    let payment = created(&world, &upi()).await;
    let cancelled = fixtures::executed(payment.clone().cancel(world.now(), &ids).unwrap());
    world.memory.apply(cancelled).await.unwrap();
    assert_eq!(status_of(&world, payment.id).await, "CANCELLED");
}

#[tokio::test]
async fn every_method_is_taken() {
    let world = World::new();
    for method in ["upi", "netbanking", "wallet", "bank_transfer", "pix", "boleto"] {
        assert_eq!(created(&world, &with(upi(), json!({ "method": method }))).await.payment_method.as_str(), method);
    }
    for method in ["credit_card", "debit_card"] {
        let payment = created(&world, &with(by_card(), json!({ "method": method }))).await;
        assert_eq!((payment.payment_method.as_str(), payment.card.unwrap().last_four.as_str()), (method, "1111"));
    }
}

#[tokio::test]
async fn every_fault_is_told_at_once() {
    let world = World::new();
    let nothing = world.post_to(PATH, &json!({})).await;
    assert_eq!(nothing.faults(), ["amount", "method", "order_id"]);
    let all_wrong = json!({
        "order_id": "two words", "amount": 1.5, "currency": "XXX", "method": "cash", "description": 1, "country": "XX",
        "gateway": "No", "installments": 13, "card_token": "x", "card_number": "4111111111111112",
        "card_holder_name": "", "card_expiration_date": "13/25", "card_verification_code": "x"
    });
    let headers = [("content-type", "application/json"), ("x-customer-id", "a b"), ("idempotency-key", "two words")];
    let answer = world.send(PATH, &headers, all_wrong.to_string()).await;
    answer.assert_problem(UNPROCESSABLE);
    assert_eq!(
        answer.faults(),
        [
            "amount",
            "card_expiration_date",
            "card_holder_name",
            "card_number",
            "card_token",
            "card_verification_code",
            "country",
            "currency",
            "description",
            "gateway",
            "idempotency-key",
            "installments",
            "method",
            "order_id",
            "x-customer-id"
        ]
    );
    assert!(!answer.text.contains("4111"), "{}", answer.text);
    let array = world.send(PATH, &headers, "[]").await;
    assert_eq!(array.faults(), ["", "idempotency-key", "x-customer-id"]);
}

#[tokio::test]
async fn a_card_is_there_where_the_method_needs_one_and_nowhere_else() {
    let world = World::new();
    let token = uuid::Uuid::nil();
    for (body, faults) in [
        (
            with(upi(), json!({ "method": "debit_card" })),
            &["card_expiration_date", "card_holder_name", "card_number", "card_verification_code"][..],
        ),
        (with(by_card(), json!({ "card_verification_code": null })), &["card_verification_code"]),
        (
            with(by_card(), json!({ "method": "pix" })),
            &["card_expiration_date", "card_holder_name", "card_number", "card_verification_code"],
        ),
        (with(upi(), json!({ "card_token": token })), &["card_token"]),
        (
            with(by_card(), json!({ "card_token": token })),
            &["card_expiration_date", "card_holder_name", "card_number", "card_verification_code"],
        ),
        (with(upi(), json!({ "installments": 2 })), &["installments"]),
        (with(by_card(), json!({ "order_id": "4111-1111-1111-1111" })), &["order_id"]),
        (with(by_card(), json!({ "description": "4111 1111 1111 1111" })), &["description"]),
        (with(by_card(), json!({ "description": "my 4111 1111 1111 1111" })), &["card_number"]),
        (with(upi(), json!({ "gateway": "unknown" })), &["gateway"]),
    ] {
        let answer = world.post_to(PATH, &body).await;
        answer.assert_problem(UNPROCESSABLE);
        assert_eq!(answer.faults(), faults, "{body}");
    }
    assert_eq!(world.get_with(PATH, &[]).await.text, "[]", "nothing was written");
}

#[tokio::test]
async fn a_transaction_may_name_country_and_gateway() {
    let world = World::new();
    let named = json!({ "country": "BR", "gateway": "scripted" });
    let transaction = world.created(&with(example(), named)).await;
    assert_eq!(transaction.named.country.map(|country| country.to_string()).as_deref(), Some("BR"));
    assert_eq!(transaction.named.gateway.map(|name| name.to_string()).as_deref(), Some("scripted"));
    let wrong = with(example(), json!({ "country": "BRA", "gateway": "unknown" }));
    assert_eq!(world.post(wrong.to_string()).await.faults(), ["country", "gateway"]);
}

#[tokio::test]
async fn payments_belong_to_the_customer_that_is_named_or_to_the_configured_one() {
    let world = World::with(|_, options| options.default_customer = fixtures::customer("shop"));
    let id = world.post_to(PATH, &upi()).await.json()["id"].as_str().unwrap().to_owned();
    let headers = [("content-type", "application/json"), ("x-customer-id", "123")];
    let other = world.send(PATH, &headers, upi().to_string()).await.json()["id"].as_str().unwrap().to_owned();
    for (customer, own, foreign) in [("shop", &id, &other), ("123", &other, &id)] {
        assert_eq!(world.get_as(customer, &format!("{PATH}/{own}")).await.status, StatusCode::OK);
        world.get_as(customer, &format!("{PATH}/{foreign}")).await.assert_problem(StatusCode::NOT_FOUND);
        assert_eq!(world.get_as(customer, PATH).await.json().as_array().unwrap().len(), 1);
    }
    assert_eq!(world.get_with(&format!("{PATH}/{id}"), &[]).await.status, StatusCode::OK);
    let empty = world.get_as("", PATH).await;
    assert_eq!(
        (empty.status, empty.faults()),
        (UNPROCESSABLE, vec!["x-customer-id".to_owned()]),
        "it is no absent one"
    );
    for path in ["/transactions", "/payables"] {
        assert_eq!(world.get_with(path, &[]).await.status, UNPROCESSABLE, "{path}");
    }
}

#[tokio::test]
async fn the_list_has_pages_and_names_every_fault_of_them() {
    let world = World::new();
    for _ in 0..3 {
        created(&world, &upi()).await;
    }
    let first = world.get_with(&format!("{PATH}?limit=2"), &[]).await;
    let link = first.headers["link"].to_str().unwrap().to_owned();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    assert_eq!(world.get_with(next, &[]).await.json().as_array().unwrap().len(), 1);
    let wrong = world.get_as("", &format!("{PATH}?limit=0&page=x")).await;
    assert_eq!(wrong.faults(), ["limit", "page", "x-customer-id"]);
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_and_another_request_is_refused() {
    let world = World::new();
    let first = keyed(&world, "key-1", &upi()).await;
    let again = keyed(&world, "key-1", &upi()).await;
    assert_eq!((again.status, &again.text), (StatusCode::ACCEPTED, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    for other in [
        json!({ "order_id": "order_124" }),
        json!({ "amount": 50001 }),
        json!({ "method": "pix" }),
        json!({ "country": "IN" }),
        json!({ "gateway": "scripted" }),
        json!({ "description": "x" }),
    ] {
        let answer = keyed(&world, "key-1", &with(upi(), other.clone())).await;
        assert_eq!((answer.status, answer.faults()), (UNPROCESSABLE, vec!["idempotency-key".to_owned()]), "{other}");
    }
    // Another route with the same customer and key.
    let mut request = crate::support::post_of("default", Some("key-1"), example().to_string());
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    assert_eq!(world.ask(request).await.faults(), ["idempotency-key"]);
    assert_eq!(world.get_with(PATH, &[]).await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repetition_gets_its_answer_though_the_gateway_was_disabled_since() {
    let world = World::new();
    let body = with(upi(), json!({ "gateway": "scripted" }));
    let first = keyed(&world, "key-1", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    world.gateways.close();
    let again = keyed(&world, "key-1", &body).await;
    assert_eq!((again.status, again.text), (StatusCode::ACCEPTED, first.text));
    assert_eq!(keyed(&world, "key-2", &body).await.faults(), ["gateway"]);
}

async fn cancel(world: &World, id: impl std::fmt::Display, headers: &[(&str, &str)]) -> Answer {
    world.send(&format!("{PATH}/{id}/cancel"), headers, "").await
}

#[tokio::test]
async fn what_no_gateway_holds_is_cancelled_at_once_and_cancelling_again_changes_nothing() {
    let world = World::new();
    let payment = created(&world, &by_card()).await;
    let answer = cancel(&world, payment.id, &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.hidden(), @r#"{"id":"[id]","status":"CANCELLED","message":"Payment cancelled"}"#);
    assert_eq!(status_of(&world, payment.id).await, "CANCELLED");
    assert_eq!(cancel(&world, payment.id, &[]).await.text, answer.text);
}

#[tokio::test]
async fn what_a_gateway_may_have_charged_is_taken_back_there_first() {
    let world = World::new();
    let payment = created(&world, &upi()).await;
    let open = fixtures::attempt(&payment, 1, world.now());
    world.memory.apply(ChangeSet::of_attempts(payment.clone(), vec![open])).await.unwrap();
    let answer = cancel(&world, payment.id, &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.hidden(), @r#"{"id":"[id]","status":"PENDING","message":"Payment cancellation requested"}"#);
    let loaded = world.memory.load_for_authorization(&[payment.id]).await.unwrap().remove(0);
    assert_eq!(loaded.attempts[0].state, AttemptState::Voiding);
    assert_eq!(loaded.transaction.status, TransactionStatus::Processing);
}

#[tokio::test]
async fn what_has_ended_cannot_be_cancelled_and_what_is_not_there_neither() {
    let world = World::new();
    let payment = created(&world, &upi()).await;
    world.memory.apply(fixtures::approve(&payment, world.now())).await.unwrap();
    let answer = cancel(&world, payment.id, &[]).await;
    answer.assert_problem(StatusCode::CONFLICT);
    assert_eq!(answer.json()["detail"], "the payment is SUCCESS, so it cannot be cancelled");
    cancel(&world, uuid::Uuid::nil(), &[]).await.assert_problem(StatusCode::NOT_FOUND);
    cancel(&world, payment.id, &[("x-customer-id", "123")]).await.assert_problem(StatusCode::NOT_FOUND);
    cancel(&world, "1", &[]).await.assert_problem(StatusCode::NOT_FOUND);
    let wrong = cancel(&world, payment.id, &[("x-customer-id", ""), ("idempotency-key", "")]).await;
    assert_eq!(wrong.faults(), ["idempotency-key", "x-customer-id"]);
    let deposit = json!({ "user_id": 1, "amount": "1", "currency": "USD" });
    let deposit = world.post_to("/deposit", &deposit).await.json()["transaction_id"].as_str().unwrap().to_owned();
    cancel(&world, deposit, &[]).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_key_of_a_cancellation_gives_its_first_answer_and_is_good_for_no_other_payment() {
    let world = World::new();
    let (payment, other) = (created(&world, &upi()).await, created(&world, &upi()).await);
    let open = fixtures::attempt(&payment, 1, world.now());
    world.memory.apply(ChangeSet::of_attempts(payment.clone(), vec![open])).await.unwrap();
    let key = [("idempotency-key", "cancel-1")];
    let first = cancel(&world, payment.id, &key).await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (StatusCode::ACCEPTED, None));
    // The gateway has confirmed since.
    let loaded = world.memory.load_for_authorization(&[payment.id]).await.unwrap().remove(0).transaction;
    let cancelled = loaded.cancel(world.now(), &psp_domain::ports::UuidV7Generator).unwrap();
    world.memory.apply(fixtures::executed(cancelled)).await.unwrap();
    let again = cancel(&world, payment.id, &key).await;
    assert_eq!((again.status, again.text), (StatusCode::ACCEPTED, first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let reused = cancel(&world, other.id, &key).await;
    assert_eq!((reused.status, reused.faults()), (UNPROCESSABLE, vec!["idempotency-key".to_owned()]));
    assert_eq!(status_of(&world, other.id).await, "PENDING");
}

#[tokio::test]
async fn a_cancellation_in_flight_keeps_its_key_and_failures_of_the_store_are_told_as_such() {
    let world = World::new();
    let payment = created(&world, &upi()).await;
    world.failing.fail_next(StoreError::Overloaded, false);
    cancel(&world, payment.id, &[("idempotency-key", "k")]).await.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    world.close_gate();
    let path = format!("{PATH}/{}/cancel", payment.id);
    let request = axum::http::Request::post(&path).header("idempotency-key", "k").body(axum::body::Body::empty());
    let arrived = world.gated.arrived.available_permits();
    let first = tokio::spawn(world.router.clone().oneshot(request.unwrap()));
    world.gated.arrived.acquire_many(u32::try_from(arrived + 1).unwrap()).await.unwrap().forget();
    cancel(&world, payment.id, &[("idempotency-key", "k")]).await.assert_problem(StatusCode::CONFLICT);
    world.gated.gate.add_permits(9);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
}
