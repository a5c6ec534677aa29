//! The contract's examples of orders, refunds and webhooks, as printed, against a freshly started server with the default
//! settings; webhooks may be on this machine.

use hyper::Method;
use serde_json::{Value, json};

use crate::acquirers::{post, until};
use crate::examples::ask;
use crate::support::{Answer, Api, Place, example};

const ORDER: &str = r#"{ "userId": "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f", "total": 999 }"#;
const USER: &str = "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f";
const NOBODY: &str = "01a1fc23-adfc-74b8-ab63-7bfa62344961";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn get(api: &Api, path: &str) -> Answer {
    ask(api, Method::GET, path, &[], "").await
}

/// Places the printed order, and waits until it is paid; the order and its payment.
async fn pay_order(psp: &Api) -> (Value, Value) {
    let answer = post(psp, "/api/orders", &[], ORDER).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (202, &"application/json".parse().unwrap()));
    let id = answer.json()["orderId"].as_str().unwrap().to_owned();
    let printed = format!(
        "{{\"orderId\":\"{id}\",\"message\":\"Order creation request accepted\",\"status\":\"PENDING_PAYMENT\"}}"
    );
    assert_eq!(answer.text, printed);
    let order = until(psp, &format!("/api/orders/{id}"), |order| order["status"] != "PENDING_PAYMENT").await;
    let (created, updated) = (&order["createdAt"], &order["updatedAt"]);
    let expected = format!(
        "{{\"id\":\"{id}\",\"userId\":\"{USER}\",\"total\":999,\"status\":\"PAID\",\"createdAt\":{created},\
         \"updatedAt\":{updated}}}"
    );
    assert_eq!(get(psp, &format!("/api/orders/{id}")).await.text, expected);
    let payment = get(psp, &format!("/api/payments/order/{id}")).await;
    let seen = payment.json();
    let (created, updated) = (&seen["createdAt"], &seen["updatedAt"]);
    let expected = format!(
        "{{\"id\":{},\"orderId\":\"{id}\",\"amount\":999,\"status\":\"APPROVED\",\"createdAt\":{created},\
         \"updatedAt\":{updated}}}",
        seen["id"]
    );
    assert_eq!(payment.text, expected);
    assert_eq!(get(psp, &format!("/api/payments/{}", seen["id"].as_str().unwrap())).await.text, expected);
    (order, seen)
}

/// The kinds of the events of that order or payment, oldest first.
async fn kinds(psp: &Api, of: &str) -> Vec<String> {
    let events = get(psp, &format!("/events?aggregate_id={of}")).await.json();
    let mut kinds: Vec<_> =
        events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    kinds.reverse();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_placed_listed_counted_and_cancelled_as_printed() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    assert_eq!(get(&psp, "/api/payments/stats").await.text, r#"{"byStatus":[]}"#);
    let (first, paid_first) = pay_order(&psp).await;
    let (second, paid_second) = pay_order(&psp).await;
    let meta = json!({ "page": 1, "limit": 10, "total": 2, "totalPages": 1 });
    let orders = get(&psp, "/api/orders?page=1&limit=10").await.json();
    assert_eq!(orders, json!({ "data": [second, first], "meta": meta }));
    let payments = get(&psp, "/api/payments?page=1&limit=10").await.json();
    assert_eq!(payments, json!({ "data": [paid_second, paid_first], "meta": meta }));
    let stats = get(&psp, "/api/payments/stats").await.text;
    assert_eq!(stats, r#"{"byStatus":[{"status":"APPROVED","count":2,"totalAmount":1998}]}"#);

    let id = first["id"].as_str().unwrap();
    let cancelled = ask(&psp, Method::PATCH, &format!("/api/orders/{id}/cancel"), &[], "").await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    assert_eq!(cancelled.text, format!("{{\"orderId\":\"{id}\",\"message\":\"Order cancellation request accepted\"}}"));
    let payment = paid_first["id"].as_str().unwrap();
    until(&psp, &format!("/api/payments/{payment}"), |payment| payment["status"] == "REFUNDED").await;
    assert_eq!(get(&psp, &format!("/api/orders/{id}")).await.json()["status"], "CANCELLED");
    let stats = get(&psp, "/api/payments/stats").await.json();
    let (approved, refunded) = (row("APPROVED", 1, 999), row("REFUNDED", 1, 999));
    assert_eq!(stats, json!({ "byStatus": [approved, refunded] }));

    let said = ["order.create.requested", "order.created", "order.paid", "order.cancel.requested", "order.cancelled"];
    assert_eq!(kinds(&psp, id).await, said);
    let said = kinds(&psp, payment).await;
    let of_order: Vec<_> = said.iter().filter(|kind| kind.starts_with("payment.")).collect();
    assert_eq!(of_order.first().unwrap().as_str(), "payment.approved");
    assert_eq!(of_order.last().unwrap().as_str(), "payment.refunded");
    for path in [format!("/api/orders/{NOBODY}"), format!("/api/payments/order/{NOBODY}")] {
        assert_eq!(get(&psp, &path).await.status, 404);
    }
    assert_eq!(psp.get("123", &format!("/api/orders/{id}")).await.status, 404, "another customer's");
}

fn row(status: &str, count: u32, total_amount: u32) -> Value {
    json!({ "status": status, "count": count, "totalAmount": total_amount })
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_make_no_sense_are_refused_and_the_same_again_is_one() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let wrong = json!({ "userId": [], "total": "-1", "currency": "brl", "method": "credit_card" }).to_string();
    let key = [("idempotency-key", "key-1")];
    for (headers, body, status, faults) in [
        (&[][..], "{", 400, &[][..]),
        (&[], "{}", 422, &["total", "userId"]),
        (&[], &wrong, 422, &["currency", "method", "total", "userId"]),
        (&[("content-type", "text/plain")], ORDER, 415, &[]),
        (&[("x-customer-id", "")], ORDER, 422, &["x-customer-id"]),
    ] {
        let answer = post(&psp, "/api/orders", headers, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.faults()),
            (status, faults.iter().map(ToString::to_string).collect())
        );
    }
    let first = post(&psp, "/api/orders", &key, ORDER).await;
    let again = post(&psp, "/api/orders", &key, ORDER).await;
    assert_eq!((first.status.as_u16(), first.text), (202, again.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = post(&psp, "/api/orders", &key, &ORDER.replace("999", "998")).await;
    assert_eq!((other.status.as_u16(), other.faults()), (422, vec!["idempotency-key".to_owned()]));
    assert_eq!(get(&psp, "/api/orders").await.json()["meta"]["total"], 1);
    let cancel = format!("/api/orders/{NOBODY}/cancel");
    assert_eq!(ask(&psp, Method::PATCH, &cancel, &[], "").await.status, 404);
    let posted = post(&psp, &cancel, &[], "").await;
    assert_eq!((posted.status.as_u16(), &posted.headers["allow"]), (405, &"PATCH".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_given_back_in_part_and_then_whole() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let id = psp.post("123", &example()).await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/transactions/{id}");
    psp.until("123", &path, |payment| payment["status"] == "pending_payment").await;
    let customer = ("x-customer-id", "123");
    let refund = format!("{path}/refund");
    let answer = ask(&psp, Method::POST, &refund, &[customer, JSON[0]], r#"{ "amount": 1000 }"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["id"], &body["status"], &body["amount"]), (&json!(id), &json!("pending_refund"), &json!(2500)));
    let asked = &body["refund"];
    assert_eq!(
        (&asked["amount"], &asked["status"], &asked["transaction_id"]),
        (&json!(1000), &json!("pending"), &json!(id))
    );
    let part = psp.until("123", &path, |payment| payment["status"] == "pending_payment").await;
    assert_eq!(part["refunded_amount"], 1000);
    let more = ask(&psp, Method::POST, &refund, &[customer, JSON[0]], r#"{ "amount": 1501 }"#).await;
    assert_eq!((more.status.as_u16(), more.faults()), (422, vec!["amount".to_owned()]), "{}", more.text);
    // All that is left, without a body.
    let answer = ask(&psp, Method::POST, &refund, &[customer], "").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["refund"]["amount"]), (202, &json!(1500)), "{}", answer.text);
    let whole = psp.until("123", &path, |payment| payment["status"] == "refunded").await;
    assert_eq!(whole["refunded_amount"], 2500);
    assert_eq!(ask(&psp, Method::POST, &refund, &[customer], "").await.status, 409, "nothing is left");
    let refunds = psp.get("123", &format!("{path}/refunds")).await.json();
    let ended: Vec<_> = refunds.as_array().unwrap().iter().map(|r| (&r["amount"], &r["status"])).collect();
    assert_eq!(ended, [(&json!(1000), &json!("succeeded")), (&json!(1500), &json!("succeeded"))]);
    // The fee is kept: the customer gives back 2500 of which it got 2375.
    let balance = json!({ "available": 0, "waiting_funds": -125, "currency": "BRL" });
    assert_eq!(psp.get("123", "/balance").await.json(), balance);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_webhooks_is_there_as_printed() {
    let place = Place::new(&[("PSP_WEBHOOK_REACH", "loopback")]);
    let psp = place.serve().await;
    let url = "http://127.0.0.1:1/webhooks";
    let asked = json!({ "url": url, "events": ["transaction.approved", "transaction.declined"] });
    let created = post(&psp, "/webhook_endpoints", &[], &asked.to_string()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let endpoint = created.json();
    assert!(endpoint["secret"].as_str().unwrap().starts_with("whsec_"), "{endpoint}");
    assert_eq!((&endpoint["url"], &endpoint["events"]), (&json!(url), &asked["events"]));
    let path = format!("/webhook_endpoints/{}", endpoint["id"].as_str().unwrap());
    let seen = get(&psp, &path).await;
    assert!(seen.json()["status"] == "enabled" && !seen.text.contains("secret"), "{}", seen.text);
    assert_eq!(get(&psp, "/webhook_endpoints").await.json(), json!([seen.json()]));

    let id =
        post(&psp, "/transactions", &[("x-customer-id", "default")], &example().to_string()).await.json()["id"].clone();
    let list = format!("/events?aggregate_id={}&type=transaction.approved", id.as_str().unwrap());
    let events = until(&psp, &list, |events| events[0].is_object()).await;
    let event = format!("/events/{}", events[0]["id"].as_str().unwrap());
    assert_eq!(get(&psp, &event).await.json(), events[0]);
    let deliveries = format!("{event}/deliveries");
    let tried = until(&psp, &deliveries, |list| list[0]["attempts"][0].is_object()).await;
    let attempt = &tried[0]["attempts"][0];
    assert_eq!((&tried[0]["status"], &attempt["error"]), (&json!("pending"), &json!("connect")), "{tried}");
    let redelivered = post(&psp, &format!("{event}/redeliver"), &[], "").await;
    assert_eq!((redelivered.status.as_u16(), redelivered.text), (202, r#"{"deliveries":1}"#.to_owned()));

    let disabled = ask(&psp, Method::PATCH, &path, &JSON, r#"{ "status": "disabled" }"#).await;
    assert_eq!((disabled.status.as_u16(), &disabled.json()["status"]), (200, &json!("disabled")));
    assert_eq!(post(&psp, &format!("{event}/redeliver"), &[], "").await.status, 409, "nobody is there");
    assert_eq!(ask(&psp, Method::DELETE, &path, &[], "").await.status, 204);
    assert_eq!(get(&psp, &path).await.status, 404);
    assert_eq!(get(&psp, &event).await.json(), events[0], "the event stays");
}
