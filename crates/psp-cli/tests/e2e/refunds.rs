//! Refunds by the real binary, beside acquirers that keep books of their own.

use std::time::Instant;

use serde_json::{Value, json};

use crate::acquirers::{add_gateway, behave, place_of, post, totals};
use crate::settlement::in_days;
use crate::support::{Answer, Api, PATIENCE, Place, Process, example_with, pause};

/// Payments that are given back while workers die.
const PAYMENTS: usize = 40;

/// A place with a gateway `acme`, which is asked for everything.
async fn place_with_acme(env: &[(&'static str, &str)]) -> (Place, Process) {
    let (place, _) = place_of(&["acme"], env);
    place.run(&["migrate"]);
    let acme = add_gateway(&place, "acme", "json", &[]).await;
    place.run(&["gateways", "route", "acme"]);
    (place, acme)
}

/// Pays, and waits until that is approved; the payment's id.
async fn pay(psp: &Api, fields: &Value) -> String {
    let answer = psp.post("123", &example_with(fields)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    become_of(psp, &id, "pending_payment").await;
    id
}

async fn become_of(psp: &Api, id: &str, status: &str) -> Value {
    psp.until("123", &format!("/transactions/{id}"), |payment| payment["status"] == status).await
}

/// Asks for a refund of that many minor units, or of all that is left.
async fn ask(psp: &Api, id: &str, amount: Option<i64>, key: Option<&str>) -> Answer {
    let body = amount.map_or_else(String::new, |amount| json!({ "amount": amount }).to_string());
    let mut headers = vec![("x-customer-id", "123")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    post(psp, &format!("/transactions/{id}/refund"), &headers, &body).await
}

/// Gives back, and waits until the payment has that status again.
async fn give_back(psp: &Api, id: &str, amount: Option<i64>, status: &str) -> Value {
    let answer = ask(psp, id, amount, None).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    become_of(psp, id, status).await
}

async fn refunds(psp: &Api, id: &str) -> Vec<Value> {
    psp.get("123", &format!("/transactions/{id}/refunds")).await.json().as_array().unwrap().clone()
}

async fn assert_balance(psp: &Api, available: i64, waiting_funds: i64) {
    let expected = json!({ "available": available, "waiting_funds": waiting_funds, "currency": "BRL" });
    assert_eq!(psp.get("123", "/balance").await.json(), expected);
}

/// Sees that payables and the acquirer say of each payment what was refunded of it.
async fn assert_same_books(psp: &Api, acquirer: &Api, ids: &[String]) {
    let (payables, books) = (psp.all("123", "/payables").await, totals(acquirer).await);
    for id in ids {
        let payment = psp.get("123", &format!("/transactions/{id}")).await.json();
        let refunded = payment["refunded_amount"].as_i64().unwrap_or_default();
        let left = payment["amount"].as_i64().unwrap() - refunded;
        let of_payment = payables.iter().filter(|payable| payable["transaction_id"] == **id);
        let owed: i64 = of_payment
            .map(|payable| payable["receivable_amount"].as_i64().unwrap() + payable["fee_amount"].as_i64().unwrap())
            .sum();
        assert_eq!(owed, left, "{payment}");
        let book = &books["transactions"][id.as_str()];
        let expected = (&json!(1), &payment["amount"], &json!(refunded));
        assert_eq!((&book["charges"], &book["charged"], &book["refunded"]), expected, "{payment}");
    }
}

fn settle(place: &Place, days: u64) -> u64 {
    let summary = place.run(&["job", "settle-payables", "--json", "--date", &in_days(days)]);
    serde_json::from_str::<Value>(&summary).unwrap()["payables"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_before_between_and_after_settlements_take_back_what_is_owed() {
    let (place, _) = place_of(&["first", "second"], &[]);
    place.run(&["migrate"]);
    let first = add_gateway(&place, "first", "json", &[]).await;
    let second = add_gateway(&place, "second", "xml", &[]).await;
    let psp = place.serve().await;
    let mut ids = Vec::new();
    for name in ["first", "second"] {
        ids.push(pay(&psp, &json!({ "amount": 3000, "installments": 2, "gateway": name })).await);
    }
    assert_balance(&psp, 0, 2 * 2850).await;
    // From the last instalment on; the fee stays.
    for id in &ids {
        assert_eq!(give_back(&psp, id, Some(600), "pending_payment").await["refunded_amount"], 600);
        assert_eq!(give_back(&psp, id, Some(400), "pending_payment").await["refunded_amount"], 1000);
    }
    assert_balance(&psp, 0, 2 * 1850).await;
    assert_eq!(settle(&place, 31), 2);
    assert_balance(&psp, 2 * 1425, 2 * 425).await;
    // 500 of the second instalment are left, so 200 are taken of the first, which was paid out.
    for id in &ids {
        give_back(&psp, id, Some(700), "pending_payment").await;
    }
    assert_balance(&psp, 2 * 1225, 2 * -75).await;
    assert_eq!(settle(&place, 62), 2 * 4, "with what three refunds took back of it");
    assert_balance(&psp, 2 * 1150, 0).await;
    for id in &ids {
        become_of(&psp, id, "paid").await;
        assert_eq!(give_back(&psp, id, Some(100), "paid").await["refunded_amount"], 1800);
        assert_eq!(give_back(&psp, id, None, "refunded").await["refunded_amount"], 3000);
        assert_eq!(ask(&psp, id, None, None).await.status, 409);
    }
    assert_balance(&psp, 2 * -150, 0).await;
    assert_same_books(&psp, &first, &ids[..1]).await;
    assert_same_books(&psp, &second, &ids[1..]).await;
    for acquirer in [&first, &second] {
        let totals = totals(acquirer).await;
        assert_eq!((&totals["refunded"], &totals["sums"]), (&json!({ "BRL": 3000 }), &json!({ "BRL": 3000 })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_that_race_repeat_or_are_refused_give_back_no_more_than_was_paid() {
    let (place, acme) = place_with_acme(&[]).await;
    let psp = place.serve().await;
    let repeated = pay(&psp, &json!({})).await;
    let first = ask(&psp, &repeated, Some(1000), Some("key-1")).await;
    assert_eq!(first.status, 202, "{}", first.text);
    become_of(&psp, &repeated, "pending_payment").await;
    let again = ask(&psp, &repeated, Some(1000), Some("key-1")).await;
    assert_eq!((again.status.as_u16(), &again.text), (202, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = ask(&psp, &repeated, Some(1001), Some("key-1")).await;
    assert_eq!((other.status.as_u16(), other.faults()), (422, vec!["idempotency-key".to_owned()]));
    assert_eq!(refunds(&psp, &repeated).await.len(), 1);

    let raced = pay(&psp, &json!({})).await;
    let thousand = || ask(&psp, &raced, Some(1000), None);
    let (a, b, c, d) = tokio::join!(thousand(), thousand(), thousand(), thousand());
    let mut statuses = [a, b, c, d].map(|answer| answer.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 202, 422, 422], "2000 of 2500");
    let (one, both) = tokio::join!(ask(&psp, &raced, None, None), ask(&psp, &raced, None, None));
    let mut statuses = [one, both].map(|answer| answer.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "all that is left, once");
    become_of(&psp, &raced, "refunded").await;

    let refused = pay(&psp, &json!({ "amount": 1_000_000 })).await;
    let kept = give_back(&psp, &refused, Some(400_002), "pending_payment").await;
    assert_eq!(kept["refunded_amount"], 0, "{kept}");
    let refund = &refunds(&psp, &refused).await[0];
    assert_eq!((&refund["status"], &refund["reason"]), (&json!("failed"), &json!("do_not_honor")));
    give_back(&psp, &refused, None, "refunded").await;
    assert_same_books(&psp, &acme, &[repeated, raced, refused]).await;
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_outlasts_a_gateway_that_is_down_for_longer_than_its_message_is_tried() {
    let sweeps = [("PSP_CHECK_AFTER_MS", "1000"), ("PSP_SWEEP_INTERVAL_MS", "200")];
    let (place, acme) = place_with_acme(&sweeps).await;
    let mut psp = place.serve().await;
    let id = pay(&psp, &json!({})).await;
    behave(&acme, &json!({ "outage": true })).await;
    assert_eq!(ask(&psp, &id, Some(1000), None).await.status, 202);
    psp.await_log("waits for its gateway").await;
    assert_eq!(become_of(&psp, &id, "pending_refund").await["refunded_amount"], 0);
    assert_balance(&psp, 0, 2375).await;
    behave(&acme, &json!({ "outage": false })).await;
    assert_eq!(become_of(&psp, &id, "pending_payment").await["refunded_amount"], 1000);
    assert_balance(&psp, 0, 1375).await;
    assert_same_books(&psp, &acme, &[id]).await;
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

/// How often the acquirer was asked for any of these refunds.
async fn asked_for(acquirer: &Api, refunds: &[Value]) -> u64 {
    let references = totals(acquirer).await["references"].clone();
    let asked = |refund: &Value| references[refund["id"].as_str().unwrap()]["requests"].as_u64().unwrap_or_default();
    refunds.iter().map(asked).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_whose_worker_dies_between_a_yes_and_its_commit_are_given_back_once() {
    let (place, acme) = place_with_acme(&[("PSP_VISIBILITY_TIMEOUT_MS", "1000")]).await;
    let api = place.start(&["api"]).await;
    let mut worker = place.start(&["worker"]).await;
    let (mut ids, mut client) = (Vec::new(), api.client().await);
    for _ in 0..PAYMENTS {
        let body = example_with(&json!({}));
        ids.push(client.post("123", &body, None).await.unwrap().json()["id"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        become_of(&api, id, "pending_payment").await;
    }
    worker.kill();
    behave(&acme, &json!({ "latency_ms": 1000 })).await;
    let mut asked = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let answer = ask(&api, id, (n % 2 == 0).then_some(1000), None).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        asked.push(answer.json()["refund"].clone());
    }
    for _ in 0..2 {
        let before = asked_for(&acme, &asked).await;
        let mut worker = place.start(&["worker"]).await;
        let begun = Instant::now();
        while asked_for(&acme, &asked).await < before + PAYMENTS as u64 / 2 {
            assert!(begun.elapsed() < PATIENCE, "too few are given back and not written: {}", worker.log());
            pause().await;
        }
        worker.kill();
        let caught = place.count("SELECT id FROM refunds WHERE status = 'pending'").await;
        assert!(caught >= PAYMENTS / 2, "only {caught} were not written");
    }
    behave(&acme, &json!({ "latency_ms": 0 })).await;
    let _worker = place.start(&["worker"]).await;
    for (n, id) in ids.iter().enumerate() {
        become_of(&api, id, if n % 2 == 0 { "pending_payment" } else { "refunded" }).await;
    }
    assert_same_books(&api, &acme, &ids).await;
    let references = totals(&acme).await["references"].clone();
    let of = |refund: &Value| references[refund["id"].as_str().unwrap()].clone();
    assert!(asked.iter().all(|refund| of(refund)["charges"] == 1 && of(refund)["voided"] == false));
    let repeated = asked.iter().filter(|refund| of(refund)["requests"].as_u64() > Some(1)).count();
    assert!(repeated >= PAYMENTS / 2, "{repeated}");
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}
