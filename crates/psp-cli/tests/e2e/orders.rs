//! Orders and their payments by the real binary, beside an acquirer that keeps books of its own: the two end alike.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::acquirers::{add_gateway, behave, place_of, post, restart_gateway, totals};
use crate::examples::ask;
use crate::support::{Answer, Api, PATIENCE, Place, Process, pause};

/// How an order and its payment may end; `NONE` where there is no payment.
const ALLOWED: [(&str, &str); 7] = [
    ("PAID", "APPROVED"),
    ("FAILED", "FAILED"),
    ("CANCELLED", "NONE"),
    ("CANCELLED", "CANCELLED"),
    ("CANCELLED", "DECLINED"),
    ("CANCELLED", "FAILED"),
    ("CANCELLED", "REFUNDED"),
];
/// What asks a gateway without a card to decline, and to fail.
const DECLINED: &str = "4000.02";
const FAILED: &str = "4003.41";
/// Orders that are placed while workers die, as often as there are rounds.
const ORDERS: usize = 60;
const ROUNDS: usize = 5;

/// A place with a gateway `acme`, which is asked for everything.
async fn place_with_acme(env: &[(&'static str, &str)]) -> (Place, Process) {
    let quick = [("PSP_CHECK_AFTER_MS", "1000"), ("PSP_SWEEP_INTERVAL_MS", "200"), ("PSP_BREAKER_OPEN_MS", "100")];
    let (mut place, _) = place_of(&["acme"], &quick);
    for (name, value) in env {
        place.set(name, value);
    }
    place.run(&["migrate"]);
    let acme = add_gateway(&place, "acme", "json", &[]).await;
    place.run(&["gateways", "route", "acme"]);
    (place, acme)
}

async fn place_order_named(psp: &Api, total: &str, request: &str) -> String {
    let body = json!({ "userId": "user", "total": total }).to_string();
    let answer = post(psp, "/api/orders", &[("x-customer-id", "123"), ("x-request-id", request)], &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()["orderId"].as_str().unwrap().to_owned()
}

async fn place_order(psp: &Api, total: &str) -> String {
    place_order_named(psp, total, "request-1").await
}

async fn cancel(psp: &Api, order: &str) -> Answer {
    ask(psp, Method::PATCH, &format!("/api/orders/{order}/cancel"), &[("x-customer-id", "123")], "").await
}

/// The statuses of an order and its payment.
async fn pair(psp: &Api, order: &str) -> (String, String) {
    let mut client = psp.client().await;
    let payment = client.get("123", &format!("/api/payments/order/{order}")).await.unwrap();
    let order = client.get("123", &format!("/api/orders/{order}")).await.unwrap().json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let payment = if payment.status == 404 { "NONE".into() } else { text(&payment.json()["status"]) };
    (text(&order["status"]), payment)
}

/// Waits until an order and its payment have ended so.
async fn await_pair(psp: &Api, order: &str, wanted: (&str, &str)) {
    let begun = Instant::now();
    loop {
        let (order, payment) = pair(psp, order).await;
        if (order.as_str(), payment.as_str()) == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "stays ({order}, {payment}), not {wanted:?}");
        pause().await;
    }
}

/// Everything that the lists of orders and their payments have: orders with their status, and the payment of each.
async fn ended(psp: &Api) -> (Vec<Value>, BTreeMap<String, Value>) {
    let mut client = psp.client().await;
    let mut all = Vec::new();
    for path in ["/api/orders", "/api/payments"] {
        let page = client.get("123", &format!("{path}?page=1&limit=200")).await.unwrap().json();
        let rows = page["data"].as_array().unwrap().clone();
        assert_eq!(page["meta"]["total"], rows.len(), "the count of {path}");
        all.push(rows);
    }
    let of = |payment: Value| (payment["orderId"].as_str().unwrap().to_owned(), payment);
    let payments = all.remove(1).into_iter().map(of).collect();
    (all.remove(0), payments)
}

/// Waits until every order and its payment have ended alike.
async fn await_ends(psp: &Api) -> (Vec<Value>, BTreeMap<String, Value>) {
    let begun = Instant::now();
    loop {
        let (orders, payments) = ended(psp).await;
        let pair_of = |order: &Value| {
            let payment = payments.get(order["id"].as_str().unwrap());
            let payment = payment.map_or("NONE", |payment| payment["status"].as_str().unwrap());
            (order["status"].as_str().unwrap().to_owned(), payment.to_owned())
        };
        let open: Vec<_> = orders.iter().map(pair_of).filter(|(o, p)| !ALLOWED.contains(&(o, p))).collect();
        if open.is_empty() {
            return (orders, payments);
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "these stay: {open:?}");
        pause().await;
    }
}

/// Sees that the acquirer's books say of every payment what ours do, and that what is counted is what there is.
async fn assert_same_books(psp: &Api, acquirer: &Api, payments: &BTreeMap<String, Value>) {
    let books = totals(acquirer).await;
    let mut counted = BTreeMap::<&str, (u64, f64)>::new();
    for payment in payments.values() {
        let (status, amount) = (payment["status"].as_str().unwrap(), payment["amount"].as_f64().unwrap());
        let count = counted.entry(status).or_default();
        *count = (count.0 + 1, count.1 + amount);
        let of = &books["transactions"][payment["id"].as_str().unwrap()];
        let book = (of["charges"].as_u64(), of["refunded"] == of["charged"]);
        let expected = match status {
            "APPROVED" => (Some(1), false),
            "REFUNDED" => (Some(1), true),
            _ => (None, true),
        };
        assert_eq!(book, expected, "{payment} {of}");
        if status == "APPROVED" {
            assert_eq!(of["refunded"], 0, "{payment} {of}");
        }
    }
    let known = |id: &String| payments.values().any(|payment| payment["id"] == **id);
    assert!(books["transactions"].as_object().unwrap().keys().all(known), "{books}");
    let stats = psp.get("123", "/api/payments/stats").await.json();
    let mut told = BTreeMap::new();
    for row in stats["byStatus"].as_array().unwrap().iter().filter(|row| row["count"] != 0) {
        let sum = (row["count"].as_u64().unwrap(), row["totalAmount"].as_f64().unwrap());
        told.insert(row["status"].as_str().unwrap(), sum);
    }
    assert_eq!(told, counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_as_its_payment_does_and_a_cancelled_one_keeps_no_money() {
    let (place, acme) = place_with_acme(&[("PSP_CHECK_AFTER_MS", "3600000")]).await;
    let psp = place.serve().await;
    let paid = place_order_named(&psp, "999", "the-request-7").await;
    let declined = place_order(&psp, DECLINED).await;
    let failed = place_order(&psp, FAILED).await;
    await_pair(&psp, &paid, ("PAID", "APPROVED")).await;
    await_pair(&psp, &declined, ("CANCELLED", "DECLINED")).await;
    await_pair(&psp, &failed, ("FAILED", "FAILED")).await;
    for (order, reason) in [(&declined, "payment_declined"), (&failed, "payment_failed")] {
        assert_eq!(psp.get("123", &format!("/api/orders/{order}")).await.json()["reason"], reason);
    }
    assert_eq!(cancel(&psp, &declined).await.status, 202, "it is cancelled");
    assert_eq!(cancel(&psp, &failed).await.status, 409);
    for _ in 0..2 {
        assert_eq!(cancel(&psp, &paid).await.status, 202);
    }
    await_pair(&psp, &paid, ("CANCELLED", "REFUNDED")).await;
    assert_eq!(totals(&acme).await["refunded"], json!({ "BRL": 99_900 }));
    assert_correlated(&psp, &paid, "the-request-7").await;

    // Pending at the gateway, which never calls back: it stays open until it is cancelled, and is voided then.
    behave(&acme, &json!({ "pending_rate": 1.0, "forget_rate": 1.0, "callback_delay_ms": 100_000 })).await;
    let pending = place_order(&psp, "10.50").await;
    let begun = Instant::now();
    while place.count("SELECT 1 FROM gateway_attempts WHERE state = 'pending'").await == 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", psp.log());
        pause().await;
    }
    await_pair(&psp, &pending, ("PENDING_PAYMENT", "PROCESSING")).await;
    assert_eq!(cancel(&psp, &pending).await.status, 202);
    await_pair(&psp, &pending, ("CANCELLED", "CANCELLED")).await;
    let (_, payments) = await_ends(&psp).await;
    assert_same_books(&psp, &acme, &payments).await;
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

/// Sees that the id of the request that placed an order is in all that followed from it, up to the last event, and in the log.
async fn assert_correlated(psp: &Process, order: &str, request: &str) {
    let payment = psp.get("123", &format!("/api/payments/order/{order}")).await.json()["id"].clone();
    let mut kinds = Vec::new();
    for of in [order, payment.as_str().unwrap()] {
        let events = psp.get("123", &format!("/events?aggregate_id={of}")).await.json();
        for event in events.as_array().unwrap() {
            assert_eq!(event["data"]["correlation_id"], request, "{event}");
            kinds.push(event["type"].as_str().unwrap().to_owned());
        }
    }
    assert!(["payment.refunded", "order.cancelled"].iter().all(|kind| kinds.iter().any(|k| k == kind)), "{kinds:?}");
    let log = psp.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for message in ["an order has a new status", "a refund has ended"] {
        let mut said = lines.iter().filter(|line| line["message"] == message);
        assert!(said.any(|line| line["correlation_id"] == request), "{message:?} is not in: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_fails_with_its_gateways_and_one_whose_money_is_kept_is_a_dead_letter() {
    let (place, mut acme) = place_with_acme(&[("PSP_AUTHORIZATION_BUDGET_MS", "1000")]).await;
    let psp = place.serve().await;
    behave(&acme, &json!({ "outage": true })).await;
    let failed = place_order(&psp, "999").await;
    await_pair(&psp, &failed, ("FAILED", "FAILED")).await;
    assert_eq!(totals(&acme).await["charges"], 0);
    behave(&acme, &json!({ "outage": false })).await;

    let kept = place_order(&psp, "999").await;
    await_pair(&psp, &kept, ("PAID", "APPROVED")).await;
    // An acquirer that knows nothing of the charge gives nothing back.
    let address = acme.address.clone();
    acme.kill();
    let _acme = restart_gateway(&place, "acme", &address).await;
    assert_eq!(cancel(&psp, &kept).await.status, 202);
    let list = ["dlq", "list", "--only", "orders", "--json"];
    let begun = Instant::now();
    let dead = loop {
        let dead: Value = serde_json::from_str(&place.run(&list)).unwrap();
        if dead[0].is_object() {
            break dead;
        }
        assert!(begun.elapsed() < PATIENCE, "no dead letter: {}", psp.log());
        pause().await;
    };
    assert_eq!((&dead[0]["queue"], &dead[0]["kind"]), (&json!("orders"), &json!("payment.refund_failed")));
    assert_eq!(dead[0]["reason"], "the money of a cancelled order is kept: 3 refunds failed");
    assert_eq!(pair(&psp, &kept).await, ("CANCELLED".into(), "APPROVED".into()));
    assert_eq!(place.run(&["dlq", "list", "--only", "refunds"]), "there are no dead letters\n");
    assert!(psp.log().contains("an order needs a look"), "{}", psp.log());
    assert_eq!(place.run(&["dlq", "discard", "--all", "orders"]), "1 discarded\n");
    assert_eq!(place.run(&["dlq", "list"]), "there are no dead letters\n");
}

/// Whether an order has a payment, and one that was charged.
async fn is_under_way(psp: &Api, acquirer: &Api, order: &str, is_charged: bool) -> bool {
    let payment = psp.get("123", &format!("/api/payments/order/{order}")).await.json();
    let Some(id) = payment["id"].as_str() else { return false };
    !is_charged || totals(acquirer).await["transactions"][id].is_object()
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_a_gateway_approves_ends_both_alike() {
    let (place, acme) = place_with_acme(&[]).await;
    let psp = place.serve().await;
    behave(&acme, &json!({ "latency_ms": 30 })).await;
    for n in 0..24 {
        let order = place_order(&psp, "999").await;
        // At once, once there is a payment, and once the acquirer has charged for it and not answered yet.
        let begun = Instant::now();
        while n % 3 > 0 && !is_under_way(&psp, &acme, &order, n % 3 == 2).await {
            assert!(begun.elapsed() < PATIENCE, "{:?}", pair(&psp, &order).await);
            pause().await;
        }
        assert_eq!(cancel(&psp, &order).await.status, 202);
    }
    let begun = Instant::now();
    while ended(&psp).await.0.iter().any(|order| order["status"] != "CANCELLED") {
        assert!(begun.elapsed() < PATIENCE, "an order is not cancelled");
        pause().await;
    }
    let (orders, payments) = await_ends(&psp).await;
    assert_eq!(orders.len(), 24);
    assert_same_books(&psp, &acme, &payments).await;
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_whose_workers_die_again_and_again_end_with_their_payments() {
    let (place, acme) = place_with_acme(&[("PSP_VISIBILITY_TIMEOUT_MS", "1000")]).await;
    let api = place.start(&["api"]).await;
    behave(&acme, &json!({ "latency_ms": 40 })).await;
    let mut orders = Vec::new();
    let written = "SELECT id FROM outbox WHERE sequence IS NOT NULL";
    for round in 0..ROUNDS {
        for n in 0..ORDERS / ROUNDS {
            orders.push(place_order(&api, if n == 9 { DECLINED } else { "999" }).await);
        }
        let before = place.count(written).await;
        let mut worker = place.start(&["worker"]).await;
        let begun = Instant::now();
        // Each of the new orders has five events to come, at least.
        while place.count(written).await < before + 20 {
            assert!(begun.elapsed() < PATIENCE, "nothing happens: {}", worker.log());
            pause().await;
        }
        for order in orders.iter().skip(round).step_by(7) {
            assert_eq!(cancel(&api, order).await.status, 202);
        }
        worker.kill();
    }
    let _worker = place.start(&["worker"]).await;
    let begun = Instant::now();
    for (n, order) in orders.iter().enumerate() {
        // Those that had come to be by the round that cancels them, and those that are declined.
        let is_cancelled = n % (ORDERS / ROUNDS) == 9 || (n % 7 < ROUNDS && n < (n % 7 + 1) * ORDERS / ROUNDS);
        let wanted = if is_cancelled { "CANCELLED" } else { "PAID" };
        api.until("123", &format!("/api/orders/{order}"), |order| order["status"] == wanted).await;
    }
    let (all, payments) = await_ends(&api).await;
    assert_eq!(all.len(), ORDERS);
    assert_same_books(&api, &acme, &payments).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "what was left took {:?}", begun.elapsed());

    // Every message once more: each was answered, and nothing follows from it again.
    let events = place.count(written).await;
    let kinds = "order.create.requested,order.created,order.cancel.requested,order.cancelled,payment.approved,\
                 payment.declined,payment.cancelled,payment.refunded,transaction.created,transaction.refund_requested";
    let replay = ["events", "replay", "--from", "2020-01-01T00:00:00Z", "--type", kinds, "--to", "queue", "--execute"];
    place.run(&replay);
    let begun = Instant::now();
    while place.count("SELECT id FROM outbox WHERE visible_at IS NOT NULL").await > 0 {
        assert!(begun.elapsed() < PATIENCE, "messages stay");
        pause().await;
    }
    let (again, same_payments) = ended(&api).await;
    assert_eq!((again, same_payments), (all, payments.clone()));
    assert_same_books(&api, &acme, &payments).await;
    assert_eq!(place.count(written).await, events);
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}
