//! Workers that are killed after the gateway's yes and before our commit: hundreds of payments are then, and no book differs.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::acquirers::{add_gateway, behave, place_of, totals};
use crate::support::{Api, PATIENCE, Place, Process, example_with, pause};

const PAYMENTS: usize = 480;
/// How many must have been charged and not written when their worker was killed, each counted once.
const CAUGHT: usize = 300;
/// How many of them a kill waits for.
const AT_ONCE: usize = 60;
const MAX_KILLS: usize = 12;
const NUMBER: &str = "4111111111111111";
const INSUFFICIENT: &str = "4000000000009995";

/// What stands of each transaction over both gateways: how often it was charged, and how much.
async fn charged(simulators: &[&Process]) -> BTreeMap<String, (u64, i64)> {
    let mut charged = BTreeMap::<_, (u64, i64)>::new();
    for simulator in simulators {
        let totals = totals(simulator).await;
        for (id, of) in totals["transactions"].as_object().unwrap() {
            let sum = charged.entry(id.clone()).or_default();
            sum.0 += of["charges"].as_u64().unwrap();
            sum.1 += of["charged"].as_i64().unwrap();
        }
    }
    charged
}

/// The payments that a gateway has charged and that are not approved here.
async fn unwritten(api: &Api, simulators: &[&Process]) -> HashSet<String> {
    // In this order: what is not approved now was not when it was charged.
    let mut charged: HashSet<_> = charged(simulators).await.into_keys().collect();
    for payment in api.all("123", "/transactions").await {
        if payment["status"] != "processing" {
            charged.remove(payment["id"].as_str().unwrap());
        }
    }
    charged
}

/// Runs a worker until many payments that were not caught before are charged and not written, and kills it then.
async fn catch(place: &Place, api: &Api, simulators: &[&Process], caught: &mut HashSet<String>) -> usize {
    let mut worker = place.start(&["worker"]).await;
    let begun = Instant::now();
    while unwritten(api, simulators).await.difference(caught).count() < AT_ONCE {
        assert!(begun.elapsed() < PATIENCE, "too few are charged and not written: {}", worker.log());
        pause().await;
    }
    worker.kill();
    let before = caught.len();
    caught.extend(unwritten(api, simulators).await);
    caught.len() - before
}

async fn post_all(api: &Api) {
    let mut client = api.client().await;
    for n in 0..PAYMENTS {
        let number = if n % 10 == 9 { INSUFFICIENT } else { NUMBER };
        let country = if n % 2 == 0 { "BR" } else { "IN" };
        let body = example_with(&json!({ "card_number": number, "country": country, "amount": 1000 + n }));
        assert_eq!(client.post("123", &body, None).await.unwrap().status, 201);
    }
}

/// The payments once none is processing.
async fn ended(api: &Api) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let payments = api.all("123", "/transactions").await;
        let left = payments.iter().filter(|payment| payment["status"] == "processing").count();
        if left == 0 {
            return payments;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "{left} stay processing");
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_whose_worker_dies_between_a_yes_and_its_commit_are_charged_once() {
    let quick = [("PSP_VISIBILITY_TIMEOUT_MS", "3000"), ("PSP_WORKER_CONCURRENCY", "128")];
    let (place, _) = place_of(&["first", "second"], &quick);
    place.run(&["migrate"]);
    let first = add_gateway(&place, "first", "json", &["--latency-ms", "1500"]).await;
    let second = add_gateway(&place, "second", "xml", &["--latency-ms", "1500"]).await;
    for (country, best, other) in [("BR", "first", "second"), ("IN", "second", "first")] {
        place.run(&["gateways", "route", best, "--country", country, "--priority", "1"]);
        place.run(&["gateways", "route", other, "--country", country, "--priority", "2"]);
    }
    let simulators = [&first, &second];
    let api = place.start(&["api"]).await;
    post_all(&api).await;
    let (mut caught, mut of_kills) = (HashSet::new(), Vec::new());
    while caught.len() < CAUGHT {
        assert!(of_kills.len() < MAX_KILLS, "{} in {MAX_KILLS} kills: {of_kills:?}", caught.len());
        of_kills.push(catch(&place, &api, &simulators, &mut caught).await);
    }
    eprintln!("{} payments were charged and not written, at kills: {of_kills:?}", caught.len());
    assert!(totals(&first).await["charges"] != 0 && totals(&second).await["charges"] != 0);

    for simulator in simulators {
        behave(simulator, &json!({ "latency_ms": 0 })).await;
    }
    let begun = Instant::now();
    let _worker = place.start(&["worker"]).await;
    let payments = ended(&api).await;
    assert_eq!(payments.len(), PAYMENTS);
    assert_same_books(&payments, &charged(&simulators).await);
    assert!(caught.iter().all(|id| payments.iter().any(|payment| payment["id"] == **id)));
    let approved = payments.iter().filter(|payment| payment["status"] == "pending_payment").count();
    assert_eq!(approved, PAYMENTS - PAYMENTS / 10, "all but those without funds");
    assert_eq!(api.all("123", "/payables").await.len(), approved);
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
    assert!(begun.elapsed() < Duration::from_secs(30), "what was left took {:?}", begun.elapsed());
}

/// What both gateways charged is what we approved, payment by payment, and each of them once.
fn assert_same_books(payments: &[Value], charged: &BTreeMap<String, (u64, i64)>) {
    let mut sum = 0;
    for payment in payments {
        let of = charged.get(payment["id"].as_str().unwrap());
        let approved = (payment["status"] == "pending_payment").then(|| payment["amount"].as_i64().unwrap());
        assert_eq!(of.copied(), approved.map(|amount| (1, amount)), "{payment}");
        sum += approved.unwrap_or_default();
    }
    assert_eq!(charged.values().map(|(_, amount)| amount).sum::<i64>(), sum);
}
