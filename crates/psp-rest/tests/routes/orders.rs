//! Orders and their payments.

use axum::http::StatusCode;
use psp_domain::ports::Store;
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World};

const NOBODY: &str = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
const USER: &str = "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f";

fn order(total: &Value) -> Value {
    json!({ "userId": USER, "total": total })
}

/// Places an order and gives its id.
async fn placed(world: &World, body: &Value) -> String {
    let answer = world.post_to("/api/orders", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    answer.json()["orderId"].as_str().unwrap().to_owned()
}

async fn get(world: &World, path: &str) -> Answer {
    world.get_with(path, &[]).await
}

async fn cancel(world: &World, id: &str) -> Answer {
    world.call("PATCH", &format!("/api/orders/{id}/cancel"), &[], None).await
}

/// Has the payment of an order end, and the order hear of it.
async fn end_payment(
    world: &World,
    order: &str,
    end: impl Fn(&psp_domain::Transaction, chrono::DateTime<chrono::Utc>) -> psp_domain::ChangeSet,
) {
    world.settle_orders().await;
    let payment = get(world, &format!("/api/payments/order/{order}")).await.json();
    let payment = world.loaded(payment["id"].as_str().unwrap()).await;
    world.memory.apply(end(&payment, world.now())).await.unwrap();
    world.settle_orders().await;
}

#[tokio::test]
async fn an_order_is_taken_listed_and_found_as_printed_in_the_documentation() {
    let world = World::new();
    let taken = world.post_to("/api/orders", &order(&json!(999))).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(taken.hidden(), @r#"{"orderId":"[id]","message":"Order creation request accepted","status":"PENDING_PAYMENT"}"#);
    let id = taken.json()["orderId"].as_str().unwrap().to_owned();
    let second = placed(&world, &order(&json!("1998.50"))).await;
    let list = get(&world, "/api/orders?page=1&limit=10").await;
    insta::assert_snapshot!(list.hidden().replace(USER, "[user]"), @r#"{"data":[{"id":"[id]","userId":"[id]","total":1998.5,"status":"PENDING_PAYMENT","createdAt":"2026-01-31T12:00:00.000Z","updatedAt":"2026-01-31T12:00:00.000Z"},{"id":"[id]","userId":"[id]","total":999,"status":"PENDING_PAYMENT","createdAt":"2026-01-31T12:00:00.000Z","updatedAt":"2026-01-31T12:00:00.000Z"}],"meta":{"page":1,"limit":10,"total":2,"totalPages":1}}"#);
    let data = list.json()["data"].clone();
    assert_eq!((&data[0]["id"], &data[1]["id"]), (&json!(second), &json!(id)), "newest first");
    let found = get(&world, &format!("/api/orders/{id}")).await;
    assert_eq!((found.status, found.json()), (StatusCode::OK, data[1].clone()));
}

#[tokio::test]
async fn the_payment_of_an_order_is_shown_as_printed_in_the_documentation() {
    let world = World::new();
    let ids = [placed(&world, &order(&json!(999))).await, placed(&world, &order(&json!(999))).await];
    get(&world, &format!("/api/payments/order/{}", ids[0])).await.assert_problem(StatusCode::NOT_FOUND);
    for id in &ids {
        end_payment(&world, id, fixtures::approve).await;
    }
    let third = placed(&world, &order(&json!(0.5))).await;
    world.settle_orders().await;
    let payment = get(&world, &format!("/api/payments/order/{third}")).await;
    insta::assert_snapshot!(payment.hidden(), @r#"{"id":"[id]","orderId":"[id]","amount":0.5,"status":"PROCESSING","createdAt":"2026-01-31T12:00:00.000Z","updatedAt":"2026-01-31T12:00:00.000Z"}"#);
    assert_eq!(payment.json()["orderId"], json!(third));
    let found = get(&world, &format!("/api/payments/{}", payment.json()["id"].as_str().unwrap())).await;
    assert_eq!(found.text, payment.text);
    let list = get(&world, "/api/payments?page=1&limit=2").await.json();
    assert_eq!(list["data"][0], payment.json());
    assert_eq!(list["meta"], json!({ "page": 1, "limit": 2, "total": 3, "totalPages": 2 }));
    insta::assert_snapshot!(get(&world, "/api/payments/stats").await.text, @r#"{"byStatus":[{"status":"PROCESSING","count":1,"totalAmount":0.5},{"status":"APPROVED","count":2,"totalAmount":1998}]}"#);
    assert_eq!(get(&world, &format!("/api/orders/{}", ids[0])).await.json()["status"], "PAID");
}

#[tokio::test]
async fn what_becomes_of_a_payment_becomes_of_its_order() {
    let world = World::new();
    let ends: [(fn(&_, _) -> _, _, _); 3] = [
        (fixtures::approve, "PAID", "APPROVED"),
        (fixtures::decline, "CANCELLED", "DECLINED"),
        (fixtures::fail, "FAILED", "FAILED"),
    ];
    for (end, order_status, payment_status) in ends {
        let id = placed(&world, &order(&json!(10))).await;
        end_payment(&world, &id, end).await;
        let found = get(&world, &format!("/api/orders/{id}")).await.json();
        let payment = get(&world, &format!("/api/payments/order/{id}")).await.json();
        assert_eq!((&found["status"], &payment["status"]), (&json!(order_status), &json!(payment_status)));
    }
    let stats = get(&world, "/api/payments/stats").await.json();
    let statuses: Vec<_> = stats["byStatus"].as_array().unwrap().iter().map(|row| row["status"].clone()).collect();
    assert_eq!(statuses, ["APPROVED", "DECLINED", "FAILED"]);
}

#[tokio::test]
async fn an_order_is_cancelled_with_its_payment() {
    let world = World::new();
    let id = placed(&world, &order(&json!(10))).await;
    world.settle_orders().await;
    let answer = cancel(&world, &id).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_snapshot!(answer.hidden(), @r#"{"orderId":"[id]","message":"Order cancellation request accepted"}"#);
    assert_eq!(cancel(&world, &id).await.text, answer.text, "again changes nothing");
    world.settle_orders().await;
    let found = get(&world, &format!("/api/orders/{id}")).await.json();
    assert_eq!((&found["status"], &found["reason"]), (&json!("CANCELLED"), &json!("requested")));
    assert_eq!(get(&world, &format!("/api/payments/order/{id}")).await.json()["status"], "CANCELLED");
    assert_eq!(cancel(&world, &id).await.text, answer.text);
    cancel(&world, NOBODY).await.assert_problem(StatusCode::NOT_FOUND);
    let failed = placed(&world, &order(&json!(10))).await;
    end_payment(&world, &failed, fixtures::fail).await;
    let too_late = cancel(&world, &failed).await;
    too_late.assert_problem(StatusCode::CONFLICT);
    assert_eq!(too_late.json()["type"], "urn:psp:problem:too-late");
}

#[tokio::test]
async fn lists_are_numbered_and_go_on_by_cursor() {
    let world = World::new();
    let mut newest_first = Vec::new();
    for total in 1..=5 {
        newest_first.insert(0, json!(placed(&world, &order(&json!(total))).await));
    }
    world.settle_orders().await;
    for list in ["/api/orders", "/api/payments"] {
        let key = if list == "/api/orders" { "id" } else { "orderId" };
        let ids = |answer: &Answer| -> Vec<Value> {
            answer.json()["data"].as_array().unwrap().iter().map(|row| row[key].clone()).collect()
        };
        let page = get(&world, &format!("{list}?page=2&limit=2")).await;
        assert_eq!(ids(&page), newest_first[2..4]);
        assert_eq!(page.json()["meta"], json!({ "page": 2, "limit": 2, "total": 5, "totalPages": 3 }));
        let link = page.headers["link"].to_str().unwrap();
        let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        let last = get(&world, next).await;
        assert_eq!(ids(&last), newest_first[4..]);
        assert_eq!(last.json()["meta"], json!({ "limit": 2, "total": 5, "totalPages": 3 }));
        assert!(last.headers.get("link").is_none());
        let beyond = get(&world, &format!("{list}?page=9&limit=2")).await;
        assert_eq!((beyond.status, ids(&beyond)), (StatusCode::OK, Vec::new()));
        for bad in ["page=0", "page=1001", "limit=0", "limit=201"] {
            get(&world, &format!("{list}?{bad}")).await.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        }
        let nobody = world.get_as("456", list).await.json();
        assert_eq!(nobody, json!({ "data": [], "meta": { "page": 1, "limit": 100, "total": 0, "totalPages": 0 } }));
    }
}

#[tokio::test]
async fn a_total_is_exact_and_its_currency_is_told_unless_it_is_the_configured_one() {
    let world = World::new();
    for (total, currency, shown) in [
        (json!(1998.5), None, "1998.5"),
        (json!("0.01"), None, "0.01"),
        (json!("1000.00"), None, "1000"),
        (json!("9007199254.74"), None, "9007199254.74"),
        (json!(1000), Some("JPY"), "1000"),
        (json!("1.234"), Some("KWD"), "1.234"),
    ] {
        let mut body = order(&total);
        body["currency"] = json!(currency);
        body["method"] = json!("pix");
        let id = placed(&world, &body).await;
        let found = get(&world, &format!("/api/orders/{id}")).await;
        assert!(found.text.contains(&format!(r#""total":{shown},"#)), "{}", found.text);
        assert_eq!(found.json()["currency"], json!(currency));
    }
    world.settle_orders().await;
    let stats = get(&world, "/api/payments/stats").await;
    insta::assert_snapshot!(stats.text, @r#"{"byStatus":[{"status":"PROCESSING","count":4,"totalAmount":9007202253.25},{"status":"PROCESSING","count":1,"totalAmount":1000,"currency":"JPY"},{"status":"PROCESSING","count":1,"totalAmount":1.234,"currency":"KWD"}]}"#);
}

#[tokio::test]
async fn every_fault_of_an_order_is_told_at_once() {
    let world = World::new();
    for (body, faults) in [
        (json!({}), &["total", "userId"][..]),
        (
            json!({ "userId": "", "total": 0, "currency": "XXX", "method": "credit_card" }),
            &["currency", "method", "total", "userId"],
        ),
        (json!({ "userId": "4111111111111111", "total": 1 }), &["userId"]),
        (json!({ "userId": 1, "total": 1 }), &["userId"]),
        (json!({ "userId": USER, "total": -1 }), &["total"]),
        (json!({ "userId": USER, "total": "1.001" }), &["total"]),
        (json!({ "userId": USER, "total": 1, "currency": "JPY", "method": "cash" }), &["method"]),
        (json!({ "userId": USER, "total": "1.5", "currency": "JPY" }), &["total"]),
    ] {
        let answer = world.post_to("/api/orders", &body).await;
        answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.faults(), faults, "{body}");
    }
    assert!(world.memory.events().is_empty());
}

#[tokio::test]
async fn the_same_key_places_one_order() {
    let world = World::new();
    let keyed = |key| [("idempotency-key", key)];
    let first = world.call("POST", "/api/orders", &keyed("key-1"), Some(&order(&json!(10)))).await;
    let again = world.call("POST", "/api/orders", &keyed("key-1"), Some(&order(&json!("10.00")))).await;
    assert_eq!((again.status, &again.text), (StatusCode::ACCEPTED, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = world.call("POST", "/api/orders", &keyed("key-1"), Some(&order(&json!(11)))).await;
    assert_eq!(other.json()["type"], "urn:psp:problem:idempotency-key-reused");
    assert_eq!(get(&world, "/api/orders").await.json()["meta"]["total"], 1);
}

#[tokio::test]
async fn all_that_a_request_causes_has_its_id() {
    let world = World::new();
    let named = world.call("POST", "/api/orders", &[("x-request-id", "request-7")], Some(&order(&json!(10)))).await;
    assert_eq!(named.headers["x-request-id"], "request-7");
    world.settle_orders().await;
    let events = world.memory.events();
    assert!(events.len() > 2);
    for event in events {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["correlation_id"], "request-7", "{}", event.kind.as_str());
    }
}

#[tokio::test]
async fn a_customer_sees_no_order_of_another() {
    let world = World::new();
    let id = placed(&world, &order(&json!(10))).await;
    world.settle_orders().await;
    let payment = get(&world, &format!("/api/payments/order/{id}")).await.json()["id"].as_str().unwrap().to_owned();
    for path in [format!("/api/orders/{id}"), format!("/api/payments/order/{id}"), format!("/api/payments/{payment}")] {
        assert_eq!(get(&world, &path).await.status, StatusCode::OK);
        world.get_as("456", &path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    let stolen = world.call("PATCH", &format!("/api/orders/{id}/cancel"), &[("x-customer-id", "456")], None).await;
    stolen.assert_problem(StatusCode::NOT_FOUND);
    assert_eq!(world.get_as("456", "/api/payments/stats").await.text, r#"{"byStatus":[]}"#);
    // A payment without an order is none of these.
    let plain =
        world.post_to("/api/v1/payments", &json!({ "order_id": "o", "amount": 1, "method": "pix" })).await.json();
    let path = format!("/api/payments/{}", plain["id"].as_str().unwrap());
    get(&world, &path).await.assert_problem(StatusCode::NOT_FOUND);
}
