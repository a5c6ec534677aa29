//! Payments over several gateways that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use psp_testkit::servers::{Fault, FaultyProxy};
use serde_json::{Value, json};

use crate::acquirers::{add_gateway, behave, charges, place_of, serve_at, start_simulator, totals, until};
use crate::support::{Api, Place, Process, example_with, pause};

/// Two simulators, of which `first` has the better priority everywhere, and everything else in one process.
async fn world(env: &[(&'static str, &str)]) -> (Place, Process, Process, Process) {
    let (place, address) = place_of(&["first", "second"], env);
    place.run(&["migrate"]);
    let first = add_gateway(&place, "first", "json", &[]).await;
    let second = add_gateway(&place, "second", "xml", &[]).await;
    place.run(&["gateways", "route", "first", "--priority", "1"]);
    place.run(&["gateways", "route", "second", "--priority", "2"]);
    let psp = serve_at(&place, &address).await;
    (place, first, second, psp)
}

/// Pays, and waits for that status.
async fn pay(psp: &Api, fields: &Value, status: &str) -> Value {
    let answer = psp.post("123", &example_with(fields)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let path = format!("/transactions/{}", answer.json()["id"].as_str().unwrap());
    psp.until("123", &path, |payment| payment["status"] == status).await
}

async fn breaker(psp: &Api, name: &str, state: &str) {
    let is_so = |list: &Value| {
        let named = list.as_array().unwrap().iter().find(|gateway| gateway["name"] == name);
        named.is_some_and(|gateway| gateway["breaker"]["state"] == state)
    };
    until(psp, "/gateways", is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_gateway_is_asked_and_the_second_one_when_it_is_down() {
    let (_place, first, second, psp) = world(&[]).await;
    pay(&psp, &json!({}), "pending_payment").await;
    assert_eq!((charges(&first).await, charges(&second).await), (1, 0));
    behave(&first, &json!({ "outage": true })).await;
    pay(&psp, &json!({}), "pending_payment").await;
    assert_eq!((charges(&first).await, charges(&second).await), (1, 1));
    // A decline is final: the other one is not asked.
    behave(&first, &json!({ "outage": false })).await;
    pay(&psp, &json!({ "card_number": "4000000000009995" }), "declined").await;
    assert_eq!(charges(&second).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_too_slow_is_voided_and_the_next_one_charges() {
    let (_place, first, second, psp) = world(&[("PSP_GATEWAY_TIMEOUT_MS", "1000")]).await;
    // It charges, and would answer after the time-out; what it is asked afterwards it answers at once.
    behave(&first, &json!({ "latency_ms": 60_000 })).await;
    let begun = Instant::now();
    let answer = psp.post("123", &example_with(&json!({}))).await.json();
    while charges(&first).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        pause().await;
    }
    behave(&first, &json!({ "latency_ms": 0 })).await;
    let path = format!("/transactions/{}", answer["id"].as_str().unwrap());
    psp.until("123", &path, |payment| payment["status"] == "pending_payment").await;
    let (at_first, at_second) = (totals(&first).await, totals(&second).await);
    assert_eq!((&at_first["charges"], &at_first["voided"]), (&json!(1), &json!(1)), "{at_first}");
    assert_eq!((&at_second["charges"], &at_second["voided"]), (&json!(1), &json!(0)), "{at_second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_503_may_have_charged_so_the_gateway_is_voided_before_the_next_one_is_asked() {
    const BARE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (place, first, second, psp) = world(&[("PSP_BREAKER_FAILURES", "1000")]).await;
    drop(psp);
    // What stands in front of the first one answers in its place: to authorizations always, to voids until it is told.
    let lets_void = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&lets_void);
    let front = FaultyProxy::start(&first.address, move |piece| {
        let is_void = piece.windows(6).any(|part| part == b"/void ");
        let passes = is_void && told.load(Ordering::SeqCst);
        if passes || piece.starts_with(b"GET ") { Fault::None } else { Fault::Answer(BARE) }
    })
    .await;
    place.run(&["gateways", "add", "first", "--protocol", "json", "--url", &format!("http://{}", front.address)]);
    let psp = place.serve().await;
    let answer = psp.post("123", &example_with(&json!({}))).await.json();
    let begun = Instant::now();
    while !psp.log().contains("voiding failed") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", psp.log());
        pause().await;
    }
    assert_eq!(charges(&second).await, 0, "the first one may have charged");
    lets_void.store(true, Ordering::SeqCst);
    let path = format!("/transactions/{}", answer["id"].as_str().unwrap());
    psp.until("123", &path, |payment| payment["status"] == "pending_payment").await;
    let voided = totals(&first).await["references"].as_object().unwrap().clone();
    assert!(voided.len() == 1 && voided.values().all(|reference| reference["voided"] == true), "{voided:?}");
    assert_eq!((charges(&first).await, charges(&second).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_down_it_is_tried_again_with_growing_delays_and_fails() {
    let env = [("PSP_RETRY_BASE_MS", "50"), ("PSP_RETRY_MAX_MS", "5000"), ("PSP_BREAKER_FAILURES", "1000")];
    let (place, first, second, psp) = world(&env).await;
    for gateway in [&first, &second] {
        behave(gateway, &json!({ "outage": true })).await;
    }
    let failed = pay(&psp, &json!({}), "failed").await;
    assert_eq!(failed["status_reason"], "gateway_unavailable");
    assert_eq!((charges(&first).await, charges(&second).await), (0, 0));
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]", "it ended, so it is no dead letter");
    let log = psp.log();
    let retries = log.lines().filter(|line| line.contains("will be retried")).count();
    assert_eq!(retries, 4, "five rounds: {log}");
    // Each delay is at least twice the one before, without its random part.
    let created: chrono::DateTime<chrono::Utc> = failed["created_at"].as_str().unwrap().parse().unwrap();
    let updated: chrono::DateTime<chrono::Utc> = failed["updated_at"].as_str().unwrap().parse().unwrap();
    assert!(updated - created >= chrono::TimeDelta::milliseconds(50 + 100 + 200 + 400), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_after_the_failures_that_are_configured_and_closes_by_a_probe() {
    let env = [("PSP_BREAKER_FAILURES", "3"), ("PSP_BREAKER_OPEN_MS", "1500")];
    let (_place, first, second, psp) = world(&env).await;
    breaker(&psp, "first", "closed").await;
    behave(&first, &json!({ "outage": true })).await;
    for _ in 0..3 {
        pay(&psp, &json!({}), "pending_payment").await;
    }
    breaker(&psp, "first", "open").await;
    let metrics = psp.get("", "/metrics").await.text;
    assert!(metrics.contains("psp_gateway_breaker{gateway=\"first\"} 2"), "{metrics}");
    assert_eq!(charges(&second).await, 3);
    behave(&first, &json!({ "outage": false })).await;
    // Once its time is over a payment is the probe that closes it.
    let begun = Instant::now();
    while charges(&first).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody tries whether it is back");
        pay(&psp, &json!({}), "pending_payment").await;
    }
    breaker(&psp, "first", "closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_country_has_its_gateway_and_one_without_a_route_the_default() {
    let (mut place, address) = place_of(&["brazil", "rupees"], &[]);
    let others = start_simulator(&place, &[]).await;
    place.set("PSP_GATEWAY_URL", &format!("http://{}", others.address));
    place.run(&["migrate"]);
    let brazil = add_gateway(&place, "brazil", "json", &[]).await;
    let rupees = add_gateway(&place, "rupees", "xml", &[]).await;
    place.run(&["gateways", "route", "brazil", "--country", "BR"]);
    place.run(&["gateways", "route", "rupees", "--currency", "INR", "--method", "credit_card"]);
    let psp = serve_at(&place, &address).await;
    for (fields, at_brazil, at_rupees, at_others) in [
        (json!({ "country": "BR" }), 1, 0, 0),
        (json!({ "currency": "INR" }), 1, 1, 0),
        // The default.
        (json!({ "country": "AR" }), 1, 1, 1),
        (json!({}), 1, 1, 2),
        // The one that is asked for.
        (json!({ "gateway": "rupees" }), 1, 2, 2),
        (json!({ "country": "BR", "gateway": "http" }), 1, 2, 3),
    ] {
        pay(&psp, &fields, "pending_payment").await;
        let charged = (charges(&brazil).await, charges(&rupees).await, charges(&others).await);
        assert_eq!(charged, (at_brazil, at_rupees, at_others), "{fields}");
    }
    let refused = psp.post("123", &example_with(&json!({ "gateway": "nobody", "country": "XX" }))).await;
    assert_eq!((refused.status.as_u16(), refused.faults()), (422, vec!["country".to_owned(), "gateway".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pays_at_a_sandbox_once_there_is_a_real_gateway() {
    let (place, address) = place_of(&["acme"], &[]);
    place.run(&["migrate"]);
    place.run(&["gateways", "add", "playground", "--protocol", "sandbox"]);
    let psp = serve_at(&place, &address).await;
    for fields in [json!({}), json!({ "gateway": "sandbox" }), json!({ "gateway": "playground" })] {
        pay(&psp, &fields, "pending_payment").await;
    }
    let acme = add_gateway(&place, "acme", "json", &[]).await;
    place.run(&["gateways", "route", "acme", "--country", "BR"]);
    drop(psp);
    let psp = serve_at(&place, &address).await;
    pay(&psp, &json!({ "country": "BR" }), "pending_payment").await;
    for sandbox in ["sandbox", "playground"] {
        let refused = psp.post("123", &example_with(&json!({ "gateway": sandbox }))).await;
        assert_eq!((refused.status.as_u16(), refused.faults()), (422, vec!["gateway".to_owned()]), "{sandbox}");
    }
    // Nor is it the default.
    let failed = pay(&psp, &json!({ "country": "AR" }), "failed").await;
    assert_eq!(failed["status_reason"], "gateway_unavailable");
    assert_eq!(charges(&acme).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_added_routed_disabled_and_listed() {
    let (place, address) = place_of(&["acme"], &[]);
    place.run(&["migrate"]);
    let acme = add_gateway(&place, "acme", "json", &[]).await;
    place.run(&["gateways", "route", "acme", "--retry-declines", "issuer_unavailable"]);
    let listed: Value = serde_json::from_str(&place.run(&["gateways", "list", "--json"])).unwrap();
    assert!(listed.to_string().contains("issuer_unavailable") && !listed.to_string().contains("secret"), "{listed}");
    let psp = serve_at(&place, &address).await;
    pay(&psp, &json!({}), "pending_payment").await;
    place.run(&["gateways", "disable", "acme"]);
    until(&psp, "/gateways", |list| {
        list.as_array().unwrap().iter().any(|gateway| gateway["name"] == "acme" && gateway["enabled"] == false)
    })
    .await;
    // The table says so at once; processes read it every few seconds. A route to a disabled gateway is no reason to go to the
    // default.
    let begun = Instant::now();
    loop {
        let before = charges(&acme).await;
        let answer = psp.post("123", &example_with(&json!({}))).await;
        let path = format!("/transactions/{}", answer.json()["id"].as_str().unwrap());
        let payment = psp.until("123", &path, |payment| payment["status"] != "processing").await;
        assert_eq!(payment["status"] == "failed", charges(&acme).await == before);
        if payment["status"] == "failed" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it is still asked");
    }
    for wrong in [
        vec!["gateways", "add", "acme", "--protocol", "json", "--url", "http://acquirer.example"],
        vec!["gateways", "add", "acme", "--protocol", "sandbox"],
        vec!["gateways", "enable", "nobody"],
        vec!["gateways", "route", "nobody"],
        vec!["gateways", "route", "acme", "--country", "XX"],
    ] {
        assert!(!place.command(&wrong).output().unwrap().status.success(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_sandbox_that_is_no_default_any_more_is_told_once_at_the_start() {
    let (place, _) = place_of(&["first"], &[]);
    place.run(&["migrate"]);
    let warnings = async |role, env: &[(&str, &str)]| {
        let mut psp = place.start_with(&[role], env).await;
        psp.terminate();
        assert!(psp.ended().await.success(), "{}", psp.log());
        psp.log().lines().filter(|line| line.contains("no route fits will fail")).count()
    };
    assert_eq!(warnings("serve", &[]).await, 0, "there is nothing but the sandbox");
    place.run(&["gateways", "add", "first", "--protocol", "json", "--url", "http://127.0.0.1:9"]);
    for role in ["serve", "api", "worker"] {
        assert_eq!(warnings(role, &[]).await, 1, "{role}");
    }
    place.run(&["gateways", "disable", "first"]);
    assert_eq!(warnings("serve", &[]).await, 1, "somebody means to charge");
    assert_eq!(warnings("serve", &[("PSP_GATEWAY_URL", "http://127.0.0.1:9")]).await, 0, "the default charges");
}
