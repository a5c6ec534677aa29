//! Webhook endpoints.

use axum::http::StatusCode;
use psp_domain::WebhookEndpoint;
use psp_domain::ports::{Clock, EndpointStore, UuidV7Generator};
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World, example};

const NOBODY: &str = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
const ROOT: &str = "/webhook_endpoints";
const CUSTOMER: (&str, &str) = ("x-customer-id", "123");

fn new() -> Value {
    json!({ "url": "https://shop.example/webhooks", "events": ["transaction.approved"], "description": "The shop" })
}

async fn post(world: &World, path: &str, body: Option<&Value>) -> Answer {
    world.call("POST", path, &[CUSTOMER], body).await
}

async fn patch(world: &World, id: &str, body: &Value) -> Answer {
    world.call("PATCH", &format!("{ROOT}/{id}"), &[CUSTOMER], Some(body)).await
}

/// Adds a webhook endpoint and gives its id.
async fn added(world: &World, body: &Value) -> String {
    let answer = post(world, ROOT, Some(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_endpoint_shows_its_secret_once() {
    let world = World::new();
    let created = post(&world, ROOT, Some(&new())).await;
    assert_eq!(created.status, StatusCode::CREATED);
    insta::assert_snapshot!(created.hidden(), @r#"{"id":"[id]","url":"https://shop.example/webhooks","events":["transaction.approved"],"description":"The shop","status":"enabled","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","secret":"whsec_secret1"}"#);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let found = world.get(&format!("{ROOT}/{id}")).await;
    insta::assert_snapshot!(found.hidden(), @r#"{"id":"[id]","url":"https://shop.example/webhooks","events":["transaction.approved"],"description":"The shop","status":"enabled","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
    assert_eq!(world.get(ROOT).await.text, format!("[{}]", found.text));
    for text in [patch(&world, &id, &json!({ "description": "x" })).await.text, world.get(ROOT).await.text] {
        assert!(!text.contains("whsec"), "{text}");
    }
    assert_eq!(world.get_as("456", ROOT).await.text, "[]");
    world.get_as("456", &format!("{ROOT}/{id}")).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_endpoint_asks_for_every_event_unless_it_names_some() {
    let world = World::new();
    for events in [json!(null), json!([])] {
        let body = json!({ "url": "https://shop.example", "events": events });
        let created = post(&world, ROOT, Some(&body)).await.json();
        assert_eq!((&created["events"], &created["description"]), (&json!([]), &json!("")));
    }
    let twice = json!({ "url": "https://shop.example", "events": ["order.paid", "order.paid"] });
    assert_eq!(post(&world, ROOT, Some(&twice)).await.json()["events"], json!(["order.paid"]));
}

#[tokio::test]
async fn every_fault_of_an_endpoint_is_told_at_once() {
    let world = World::new();
    let id = added(&world, &new()).await;
    let faulty = json!({
        "url": "http://shop.example", "events": ["order.paid", "order.eaten", 1], "description": "x".repeat(501),
    });
    let told = ["description", "events[1]", "events[2]", "url"];
    let refused = post(&world, ROOT, Some(&faulty)).await;
    refused.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.faults(), told);
    assert!(!refused.text.contains("eaten"), "no value is repeated");
    assert_eq!(patch(&world, &id, &faulty).await.faults(), told);
    let many: Vec<_> = std::iter::repeat_n("order.paid", 25).collect();
    for (field, value) in [
        ("url", json!(1)),
        ("url", json!("https:/x")),
        ("events", json!("order.paid")),
        ("events", json!(many)),
        ("description", json!(["x"])),
        ("description", json!("4111111111111111")),
        ("description", json!("a\u{0}b")),
        ("status", json!("gone")),
    ] {
        assert_eq!(patch(&world, &id, &json!({ field: value })).await.faults(), [field], "{value}");
    }
    assert_eq!(post(&world, ROOT, Some(&json!({}))).await.faults(), ["url"]);
    let nobody = world.call("POST", ROOT, &[("x-customer-id", "")], Some(&json!({}))).await;
    assert_eq!(nobody.faults(), ["url", "x-customer-id"]);
    let carded = world.call("POST", ROOT, &[("x-customer-id", "4111111111111111")], Some(&new())).await;
    assert_eq!(carded.faults(), ["x-customer-id"]);
}

#[tokio::test]
async fn a_customer_has_so_many_endpoints_and_no_more() {
    let world = World::new();
    for _ in 0..WebhookEndpoint::MAX_PER_CUSTOMER {
        added(&world, &new()).await;
    }
    let refused = post(&world, ROOT, Some(&new())).await;
    refused.assert_problem(StatusCode::CONFLICT);
    assert_eq!(refused.json()["type"], "urn:psp:problem:too-many-endpoints");
    assert_eq!(world.call("POST", ROOT, &[], Some(&new())).await.status, StatusCode::CREATED, "another customer");
}

#[tokio::test]
async fn an_endpoint_is_changed_disabled_and_enabled() {
    let world = World::new();
    let id = added(&world, &new()).await;
    let changed = json!({ "url": "https://other.example/", "events": [], "description": "", "status": "disabled" });
    let answer = patch(&world, &id, &changed).await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    for field in ["url", "events", "description", "status"] {
        assert_eq!(body[field], changed[field]);
    }
    let unchanged = patch(&world, &id, &json!({})).await;
    assert_eq!(unchanged.text, answer.text);
    assert_eq!(patch(&world, &id, &json!({ "status": "enabled" })).await.json()["status"], "enabled");
    patch(&world, NOBODY, &json!({})).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn why_an_endpoint_was_disabled_is_told_until_it_is_enabled() {
    let world = World::new();
    let id = added(&world, &new()).await;
    let customer = fixtures::customer("123");
    let found = world.memory.find_endpoint(&customer, id.parse().unwrap()).await.unwrap().unwrap();
    let version = found.version;
    let failing = WebhookEndpoint { failing_since: Some(world.clock.now()), ..found };
    let (disabled, event) = failing.disable("failing", world.clock.now(), &UuidV7Generator);
    world.memory.update_endpoint(&disabled, version, &[event], None).await.unwrap();
    assert_eq!(world.get(&format!("{ROOT}/{id}")).await.json()["disabled_reason"], "failing");
    let enabled = patch(&world, &id, &json!({ "status": "enabled" })).await;
    assert!(!enabled.text.contains("disabled_reason") && !enabled.text.contains("failing_since"), "{}", enabled.text);
}

#[tokio::test]
async fn a_deleted_endpoint_is_gone() {
    let world = World::new();
    let path = format!("{ROOT}/{}", added(&world, &new()).await);
    world.call("DELETE", &path, &[], None).await.assert_problem(StatusCode::NOT_FOUND);
    let deleted = world.call("DELETE", &path, &[CUSTOMER], None).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (StatusCode::NO_CONTENT, ""));
    world.call("DELETE", &path, &[CUSTOMER], None).await.assert_problem(StatusCode::NOT_FOUND);
    assert_eq!(world.get(ROOT).await.text, "[]");
}

#[tokio::test]
async fn a_rotated_secret_is_shown_once_and_the_one_before_signs_for_a_day() {
    let world = World::new();
    let path = format!("{ROOT}/{}", added(&world, &new()).await);
    let rotated = post(&world, &format!("{path}/rotate_secret"), None).await;
    assert_eq!(rotated.status, StatusCode::OK);
    insta::assert_snapshot!(rotated.hidden(), @r#"{"id":"[id]","url":"https://shop.example/webhooks","events":["transaction.approved"],"description":"The shop","status":"enabled","previous_secret_valid_until":"2026-02-01T12:00:00.000Z","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z","secret":"whsec_secret2"}"#);
    let found = world.get(&path).await;
    assert_eq!(found.json()["previous_secret_valid_until"], "2026-02-01T12:00:00.000Z");
    assert!(!found.text.contains("whsec"), "{}", found.text);
    world.clock.advance_days(1);
    assert!(!world.get(&path).await.text.contains("previous_secret"));
    post(&world, &format!("{ROOT}/{NOBODY}/rotate_secret"), None).await.assert_problem(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_endpoint_is_told_again_what_happened_since_and_no_other_is() {
    let world = World::new();
    for _ in 0..3 {
        world.created(&example()).await;
        world.clock.advance_days(1);
    }
    let wanted = json!({ "url": "https://shop.example", "events": ["transaction.created"] });
    let id = added(&world, &wanted).await;
    let other = added(&world, &wanted).await;
    let path = format!("{ROOT}/{id}/redeliver");
    let answer = post(&world, &path, Some(&json!({ "since": "2026-02-01T00:00:00Z" }))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.text, r#"{"events":2,"deliveries":2,"next":null}"#);
    let events = world.memory.events();
    for (event, expected) in events.iter().zip([0, 1, 1]) {
        let deliveries = world.get(&format!("/events/{}/deliveries", event.id)).await;
        assert_eq!(deliveries.json().as_array().unwrap().len(), expected);
        assert!(!deliveries.text.contains(&other));
    }
    let rest = json!({ "since": "2026-01-01T00:00:00Z", "after": events[0].id });
    assert_eq!(post(&world, &path, Some(&rest)).await.json()["events"], 2);
    for (body, faults) in [
        (json!({}), &["since"][..]),
        (json!({ "since": "yesterday" }), &["since"]),
        (json!({ "since": 1, "after": "x" }), &["after", "since"]),
    ] {
        assert_eq!(post(&world, &path, Some(&body)).await.faults(), faults, "{body}");
    }
    patch(&world, &id, &json!({ "status": "disabled" })).await;
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    post(&world, &path, Some(&since)).await.assert_problem(StatusCode::CONFLICT);
    let nobody = format!("{ROOT}/{NOBODY}/redeliver");
    post(&world, &nobody, Some(&since)).await.assert_problem(StatusCode::NOT_FOUND);
}
