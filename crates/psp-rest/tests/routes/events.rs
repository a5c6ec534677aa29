//! Events, and their deliveries.

use std::time::Duration;

use axum::http::StatusCode;
use psp_domain::ports::{DeliveryClaim, DeliveryStore, Store};
use psp_domain::{ConcludedDelivery, DeliveryAttempt, DeliveryVerdict, Event};
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World, example};

const NOBODY: &str = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";

fn ids(answer: &Answer) -> Vec<String> {
    let rows = answer.json();
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// The path of the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.headers.get("link")?.to_str().unwrap();
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

/// A world in which customer 123 has four payments, an hour apart, of which every other one was approved.
async fn world() -> World {
    let world = World::new();
    for is_approved in [true, false, true, false] {
        let transaction = world.created(&example()).await;
        if is_approved {
            world.memory.apply(fixtures::approve(&transaction, world.now())).await.unwrap();
        }
        world.clock.advance(Duration::from_hours(1));
    }
    world
}

#[tokio::test]
async fn an_event_is_told_as_webhooks_tell_it() {
    let world = world().await;
    let event = world.memory.events().remove(0);
    let answer = world.get(&format!("/events/{}", event.id)).await;
    assert_eq!((answer.status, &answer.text), (StatusCode::OK, &event.to_json()));
    insta::assert_snapshot!(answer.hidden(), @r#"{"type":"transaction.created","timestamp":"2026-01-31T12:00:00.000Z","id":"[id]","aggregate_id":"[id]","sequence":1,"data":{"status":"processing","amount":2500,"currency":"BRL"}}"#);
    let list = world.get("/events").await;
    let newest_first: Vec<_> = world.memory.events().iter().rev().map(Event::to_json).collect();
    assert_eq!(list.text, format!("[{}]", newest_first.join(",")));
    for path in [format!("/events/{}", event.id), format!("/events/{}/deliveries", event.id)] {
        world.get_as("456", &path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    assert_eq!(world.get_as("456", "/events").await.text, "[]");
    // Without a header it is the default customer's.
    assert_eq!(world.get_with("/events", &[]).await.text, "[]");
}

#[tokio::test]
async fn events_are_filtered_by_type_aggregate_and_time() {
    let world = world().await;
    let events = world.memory.events();
    let count = |kind: &str| events.iter().filter(|event| event.kind.as_str().starts_with(kind)).count();
    let about = events[0].aggregate_id;
    for (query, expected) in [
        ("", events.len()),
        ("type=transaction.created", 4),
        ("type=transaction.created,transaction.approved", 6),
        ("type=transaction.created&type=transaction.approved", 6),
        ("type=transaction.approved&type=transaction.approved", 2),
        ("type=order.created", 0),
        (&format!("aggregate_id={about}"), 2),
        (&format!("aggregate_id={about}&type=transaction.approved"), 1),
        (&format!("aggregate_id={NOBODY}"), 0),
        ("from=2026-01-31T13:00:00Z", count("") - 2),
        ("from=2026-01-31T13:00:00Z&to=2026-01-31T14:00:00Z", 1),
        ("from=2026-01-31T15:00:00%2B02:00&to=2026-01-31T16:00:00%2B02:00", 1),
        ("to=2026-01-31T12:00:00Z", 0),
        ("unknown=1&unknown=2", events.len()),
    ] {
        let answer = world.get(&format!("/events?{query}")).await;
        assert_eq!(ids(&answer).len(), expected, "{query}");
    }
}

#[tokio::test]
async fn cursors_walk_a_filtered_list_newest_first() {
    let world = world().await;
    let query =
        "type=transaction.approved,transaction.created&from=2026-01-31T12:00:00.000Z&to=2027-01-01T00:00:00%2B01:00";
    let mut expected: Vec<_> = world.memory.events().iter().map(|event| event.id.to_string()).collect();
    expected.reverse();
    let (mut followed, mut path) = (Vec::new(), Some(format!("/events?limit=2&{query}")));
    while let Some(here) = path {
        let answer = world.get(&here).await;
        assert_eq!(answer.status, StatusCode::OK, "{here}");
        followed.extend(ids(&answer));
        path = next(&answer);
    }
    assert_eq!(followed, expected);
    let first = world.get(&format!("/events?limit=2&{query}")).await;
    let link = next(&first).unwrap().replace(&first_cursor(&first), "[cursor]");
    insta::assert_snapshot!(link, @"/events?type=transaction.created,transaction.approved&from=2026-01-31T12:00:00Z&to=2026-12-31T23:00:00Z&cursor=[cursor]&limit=2");
}

fn first_cursor(answer: &Answer) -> String {
    ids(answer).last().unwrap().replace('-', "")
}

#[tokio::test]
async fn bad_filters_are_refused_and_every_fault_is_told() {
    let world = World::new();
    for (query, faults) in [
        ("type=unknown", &["type"][..]),
        ("type=transaction.created,", &["type"]),
        ("type=", &["type"]),
        ("aggregate_id=x", &["aggregate_id"]),
        ("from=yesterday", &["from"]),
        ("from=2026-01-31", &["from"]),
        ("to=2026-01-31T16:00:00+02:00", &["to"]),
        ("from=2026-01-31T12:00:00Z&from=2026-01-31T12:00:00Z", &["query"]),
        ("limit=1&limit=2", &["query"]),
        ("page=1", &["page"]),
        ("page=0&limit=0&cursor=x", &["cursor", "limit", "page"]),
        ("type=x&aggregate_id=x&from=x&to=x&limit=x", &["aggregate_id", "from", "limit", "to", "type"]),
    ] {
        let answer = world.get(&format!("/events?{query}")).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.faults(), faults, "{query}");
    }
    assert_eq!(world.get_as("", "/events?type=x").await.faults(), ["type", "x-customer-id"]);
}

/// Adds a webhook endpoint and gives its id.
async fn endpoint(world: &World, events: &Value) -> String {
    let body = json!({ "url": "https://shop.example/webhooks", "events": events });
    let answer = world.call("POST", "/webhook_endpoints", &[("x-customer-id", "123")], Some(&body)).await;
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn redeliver(world: &World, event: &str, body: Option<&Value>) -> Answer {
    world.call("POST", &format!("/events/{event}/redeliver"), &[("x-customer-id", "123")], body).await
}

/// Concludes what is due as an endpoint answered it.
async fn conclude(world: &World, status: Option<u16>, verdict: DeliveryVerdict) {
    let now = world.now();
    let claim = DeliveryClaim {
        now,
        max: 100,
        per_endpoint: 100,
        except: &[],
        leased_until: now + chrono::TimeDelta::minutes(1),
    };
    for due in world.memory.claim_deliveries(claim).await.unwrap() {
        let attempt = DeliveryAttempt {
            number: due.attempts + 1,
            started_at: now,
            duration_ms: 42,
            status,
            error: status.is_none().then(|| "timeout".to_owned()),
            answer: status.map(|_| "ok".to_owned()).unwrap_or_default(),
        };
        let concluded = ConcludedDelivery {
            event_id: due.event.id,
            endpoint_id: due.endpoint.id,
            lease: due.lease,
            attempt,
            verdict,
        };
        world.memory.conclude_deliveries(&[concluded]).await.unwrap();
    }
}

#[tokio::test]
async fn the_deliveries_of_an_event_are_told_with_their_attempts() {
    let world = World::new();
    endpoint(&world, &json!(["transaction.created"])).await;
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id.to_string();
    let path = format!("/events/{event}/deliveries");
    insta::assert_snapshot!(world.get(&path).await.hidden(), @r#"[{"event_id":"[id]","endpoint_id":"[id]","status":"pending","next_attempt_at":"2026-01-31T12:00:00.000Z","attempts":[],"created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}]"#);
    let later = world.now() + chrono::TimeDelta::seconds(5);
    conclude(&world, None, DeliveryVerdict::RetryAt(later)).await;
    world.clock.advance(Duration::from_secs(5));
    conclude(&world, Some(200), DeliveryVerdict::Delivered).await;
    insta::assert_snapshot!(world.get(&path).await.hidden(), @r#"[{"event_id":"[id]","endpoint_id":"[id]","status":"delivered","attempts":[{"number":1,"started_at":"2026-01-31T12:00:00.000Z","duration_ms":42,"error":"timeout","answer":""},{"number":2,"started_at":"2026-01-31T12:00:05.000Z","duration_ms":42,"status":200,"answer":"ok"}],"created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:05.000Z"}]"#);
}

#[tokio::test]
async fn an_event_is_delivered_again_to_all_who_ask_for_it_or_to_one() {
    let world = World::new();
    let asks = endpoint(&world, &json!([])).await;
    let other = endpoint(&world, &json!(["order.paid"])).await;
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id.to_string();
    conclude(&world, Some(200), DeliveryVerdict::Delivered).await;
    let again = redeliver(&world, &event, None).await;
    assert_eq!((again.status, again.text.as_str()), (StatusCode::ACCEPTED, r#"{"deliveries":1}"#));
    let deliveries = world.get(&format!("/events/{event}/deliveries")).await.json();
    assert_eq!(
        (&deliveries[0]["status"], &deliveries[0]["endpoint_id"], deliveries.as_array().unwrap().len()),
        (&json!("pending"), &json!(asks), 1)
    );
    let one = redeliver(&world, &event, Some(&json!({ "endpoint_id": other }))).await;
    assert_eq!((one.status, one.text.as_str()), (StatusCode::ACCEPTED, r#"{"deliveries":1}"#));
    assert_eq!(world.get(&format!("/events/{event}/deliveries")).await.json().as_array().unwrap().len(), 2);
    for body in [json!({}), json!({ "endpoint_id": null })] {
        assert_eq!(redeliver(&world, &event, Some(&body)).await.status, StatusCode::ACCEPTED, "{body}");
    }
}

#[tokio::test]
async fn what_cannot_be_delivered_again_is_refused() {
    let world = World::new();
    world.created(&example()).await;
    let event = world.memory.events().remove(0).id.to_string();
    redeliver(&world, NOBODY, None).await.assert_problem(StatusCode::NOT_FOUND);
    redeliver(&world, "x", None).await.assert_problem(StatusCode::NOT_FOUND);
    let nobody_asks = redeliver(&world, &event, None).await;
    nobody_asks.assert_problem(StatusCode::CONFLICT);
    assert_eq!(nobody_asks.json()["type"], "urn:psp:problem:no-endpoint");
    for body in [json!({ "endpoint_id": NOBODY }), json!({ "endpoint_id": 1 }), json!({ "endpoint_id": "x" })] {
        let answer = redeliver(&world, &event, Some(&body)).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.faults(), ["endpoint_id"], "{body}");
    }
    let own = endpoint(&world, &json!([])).await;
    let path = format!("/events/{event}/redeliver");
    let body = json!({ "endpoint_id": own });
    let disable = json!({ "status": "disabled" });
    world.call("PATCH", &format!("/webhook_endpoints/{own}"), &[("x-customer-id", "123")], Some(&disable)).await;
    let disabled = redeliver(&world, &event, Some(&body)).await;
    disabled.assert_problem(StatusCode::CONFLICT);
    assert_eq!(disabled.json()["type"], "urn:psp:problem:endpoint-disabled");
    let none = redeliver(&world, &event, None).await;
    assert_eq!(none.json()["type"], "urn:psp:problem:no-endpoint");
    world.call("POST", &path, &[], Some(&body)).await.assert_problem(StatusCode::NOT_FOUND);
    let customer = ("x-customer-id", "123");
    world.send(&path, &[customer], "{}").await.assert_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    world
        .send(&path, &[customer, ("content-type", "application/json")], "{")
        .await
        .assert_problem(StatusCode::BAD_REQUEST);
}
