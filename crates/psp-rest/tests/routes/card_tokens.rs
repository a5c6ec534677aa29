//! Tokens of cards: paid with once, by their customer, for a while.

use std::time::Duration;

use axum::http::StatusCode;
use psp_domain::ports::{CardTokenStore, TransactionReader};
use serde_json::{Value, json};

use crate::support::{Answer, World};

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

fn card() -> Value {
    json!({
        "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker", "card_expiration_date": "10/25",
        "card_verification_code": "123"
    })
}

async fn token(world: &World) -> String {
    let answer = world.post_to("/card_tokens", &card()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["card_token"].as_str().unwrap().to_owned()
}

async fn tokenize(world: &World, key: &str, body: &Value) -> Answer {
    world
        .send("/card_tokens", &[("content-type", "application/json"), ("idempotency-key", key)], body.to_string())
        .await
}

fn payment(token: &str) -> Value {
    json!({ "order_id": "order_123", "amount": 2500, "method": "credit_card", "card_token": token })
}

async fn pay(world: &World, key: Option<&str>, body: &Value) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    world.send("/api/v1/payments", &headers, body.to_string()).await
}

#[tokio::test]
async fn a_token_is_as_printed_in_the_documentation_and_shows_no_card() {
    let world = World::new();
    let answer = world.post_to("/card_tokens", &card()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    insta::assert_snapshot!(answer.hidden(), @r#"{"card_token":"[id]","card_last_four_numbers":"1111","card_brand":"visa","expires_at":"2026-01-31T12:15:00.000Z"}"#);
}

#[tokio::test]
async fn a_payment_with_a_token_is_a_payment_with_its_card() {
    let world = World::new();
    let answer = pay(&world, None, &payment(&token(&world).await)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
    let loaded = world.memory.load_for_authorization(&[id]).await.unwrap().remove(0);
    assert!(loaded.card.is_some(), "sealed for the transaction");
    assert_eq!(loaded.transaction.card.unwrap().last_four, "1111");
}

#[tokio::test]
async fn a_token_that_is_spent_unknown_expired_or_of_another_is_refused() {
    let world = World::new();
    let spent = token(&world).await;
    assert_eq!(pay(&world, None, &payment(&spent)).await.status, StatusCode::ACCEPTED);
    let expired = token(&world).await;
    world.clock.advance_days(1);
    let foreign = world
        .send("/card_tokens", &[("content-type", "application/json"), ("x-customer-id", "123")], card().to_string())
        .await;
    let foreign = foreign.json()["card_token"].as_str().unwrap().to_owned();
    for token in [&spent, &expired, &foreign, "01a1fc08-5b46-770d-81ce-6b6e95afa0a3", "x"] {
        let answer = pay(&world, None, &payment(token)).await;
        answer.assert_problem(UNPROCESSABLE);
        assert_eq!(answer.faults(), ["card_token"], "{token}");
    }
}

#[tokio::test]
async fn a_key_gives_the_first_answer_though_the_token_is_spent() {
    let world = World::new();
    let body = payment(&token(&world).await);
    let first = pay(&world, Some("key-1"), &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let again = pay(&world, Some("key-1"), &body).await;
    assert_eq!((again.status, again.text), (StatusCode::ACCEPTED, first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = payment(&token(&world).await);
    assert_eq!(
        pay(&world, Some("key-1"), &other).await.faults(),
        ["idempotency-key"],
        "another token, another request"
    );
    assert_eq!(pay(&world, Some("key-2"), &body).await.faults(), ["card_token"]);
    assert_eq!(world.get_with("/api/v1/payments", &[]).await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_token_pays_once_however_many_ask_at_the_same_time() {
    let world = World::new();
    let body = payment(&token(&world).await);
    let answers = futures::future::join_all((0..8).map(|_| pay(&world, None, &body))).await;
    let accepted = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    assert_eq!(accepted, 1);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == UNPROCESSABLE).collect();
    assert!(refused.len() == 7 && refused.iter().all(|answer| answer.faults() == ["card_token"]));
}

#[tokio::test]
async fn what_is_refused_spends_no_token() {
    let world = World::new();
    let token = token(&world).await;
    let mut body = payment(&token);
    for (field, wrong) in [
        ("amount", json!(0)),
        ("gateway", json!("unknown")),
        ("order_id", json!("4111111111111111")),
        ("description", json!("4111 1111 1111 1111")),
    ] {
        let before = body.clone();
        body[field] = wrong;
        pay(&world, Some("key-1"), &body).await.assert_problem(UNPROCESSABLE);
        body = before;
    }
    let kept = world.memory.find_token(&"default".parse().unwrap(), token.parse().unwrap(), world.now()).await.unwrap();
    assert!(kept.is_some());
    assert_eq!(pay(&world, Some("key-1"), &body).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn every_fault_of_a_card_is_told_at_once_and_no_digit_is_repeated() {
    let world = World::new();
    let nothing = world.post_to("/card_tokens", &json!({})).await;
    nothing.assert_problem(UNPROCESSABLE);
    assert_eq!(nothing.faults(), ["card_expiration_date", "card_holder_name", "card_number", "card_verification_code"]);
    let headers =
        [("content-type", "application/json"), ("x-customer-id", "4111111111111111"), ("idempotency-key", "")];
    let mut named = card();
    named["card_holder_name"] = json!("4111111111111111");
    let answer = world.send("/card_tokens", &headers, named.to_string()).await;
    assert_eq!(answer.faults(), ["card_number", "idempotency-key", "x-customer-id"]);
    assert!(!answer.text.contains("4111"), "{}", answer.text);
}

#[tokio::test]
async fn an_expired_card_gets_no_token_where_configured() {
    let world = World::with(|_, options| options.refuse_expired_cards = true);
    assert_eq!(world.post_to("/card_tokens", &card()).await.faults(), ["card_expiration_date"]);
}

#[tokio::test]
async fn a_key_gives_the_first_token_though_it_is_spent_or_has_expired() {
    let world = World::new();
    let first = tokenize(&world, "key-1", &card()).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let token = first.json()["card_token"].as_str().unwrap().to_owned();
    assert_eq!(pay(&world, None, &payment(&token)).await.status, StatusCode::ACCEPTED);
    for _ in 0..2 {
        let again = tokenize(&world, "\"key-1\"", &card()).await;
        assert_eq!((again.status, &again.text), (StatusCode::CREATED, &first.text));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        world.clock.advance(Duration::from_mins(16));
    }
    assert_ne!(tokenize(&world, "key-2", &card()).await.text, first.text);
    world.clock.advance_days(1);
    assert_ne!(tokenize(&world, "key-1", &card()).await.text, first.text, "the key is free again");
}

#[tokio::test]
async fn a_key_with_another_card_or_on_another_route_is_refused() {
    let world = World::new();
    assert_eq!(tokenize(&world, "key-1", &card()).await.status, StatusCode::CREATED);
    for (field, other) in [
        ("card_number", "5555555555554444"),
        ("card_holder_name", "Leia Organa"),
        ("card_expiration_date", "11/25"),
        ("card_verification_code", "124"),
    ] {
        let mut body = card();
        body[field] = json!(other);
        let answer = tokenize(&world, "key-1", &body).await;
        answer.assert_problem(UNPROCESSABLE);
        assert_eq!(answer.faults(), ["idempotency-key"], "{field}");
    }
    let mut body = card();
    body.as_object_mut().unwrap().extend([
        ("amount".to_owned(), json!(2500)),
        ("order_id".to_owned(), json!("order_123")),
        ("method".to_owned(), json!("credit_card")),
    ]);
    assert_eq!(pay(&world, Some("key-1"), &body).await.faults(), ["idempotency-key"]);
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1"), ("x-customer-id", "another")];
    let foreign = world.send("/card_tokens", &headers, card().to_string()).await;
    assert_eq!(foreign.status, StatusCode::CREATED, "keys of different customers never meet");
}

#[tokio::test]
async fn requests_with_one_key_at_the_same_time_get_one_token() {
    let world = World::new();
    let body = card();
    let answers = futures::future::join_all((0..8).map(|_| tokenize(&world, "key-1", &body))).await;
    let token = tokenize(&world, "key-1", &card()).await.text;
    for answer in answers {
        assert!(answer.status == StatusCode::CONFLICT || answer.text == token, "{}", answer.text);
    }
}

#[tokio::test]
async fn what_is_refused_takes_no_key() {
    let world = World::new();
    let mut wrong = card();
    wrong["card_number"] = json!("4111111111111112");
    assert_eq!(tokenize(&world, "key-1", &wrong).await.faults(), ["card_number"]);
    assert_eq!(tokenize(&world, "key-1", &card()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_card_that_has_expired_since_gets_its_first_answer() {
    let world = World::with(|_, options| options.refuse_expired_cards = true);
    let mut body = card();
    body["card_expiration_date"] = json!("01/26");
    let first = tokenize(&world, "key-1", &body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    world.clock.advance(Duration::from_hours(13));
    assert_eq!(tokenize(&world, "key-1", &body).await.text, first.text);
    assert_eq!(tokenize(&world, "key-2", &body).await.faults(), ["card_expiration_date"]);
}
