//! Payments through a gateway over HTTP that fails: the simulator, a process of its own.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use psp_testkit::servers::TlsFront;
use serde_json::{Value, json};

use crate::acquirers::{SECRET, await_charges, behave, start_simulator, totals};
use crate::support::{Api, PATIENCE, Place, Process, example_with, pause};

const NUMBER: &str = "4111111111111111";
const INSUFFICIENT: &str = "4000000000009995";
const PAYMENTS: usize = 200;

/// A place whose processes use a simulator that was started with these arguments, and no other gateway.
async fn place_with(simulated: &[&str], env: &[(&'static str, &str)]) -> (Place, Process) {
    let mut place = Place::new(&[("PSP_GATEWAY_SECRET", SECRET), ("PSP_LOG", "warn,psp=info")]);
    let quick = [("PSP_RETRY_BASE_MS", "10"), ("PSP_RETRY_MAX_MS", "100"), ("PSP_SWEEP_INTERVAL_MS", "200")];
    // One gateway has nobody to fall back on: a breaker would only slow the tests down.
    let patient = [("PSP_CHECK_AFTER_MS", "500"), ("PSP_BREAKER_FAILURES", "1000")];
    for (name, value) in quick.iter().chain(&patient).chain(env) {
        place.set(name, value);
    }
    let simulator = start_simulator(&place, simulated).await;
    place.set("PSP_GATEWAY_URL", &format!("http://{}", simulator.address));
    (place, simulator)
}

/// The payments once all are as wanted.
async fn all_until(api: &Api, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let payments = api.all("123", "/transactions").await;
        if payments.iter().all(&wanted) {
            return payments;
        }
        assert!(begun.elapsed() < 3 * PATIENCE, "some stay as they are: {payments:?}");
        pause().await;
    }
}

/// What the simulator charged is what we approved, payment by payment.
fn assert_same_books(payments: &[Value], totals: &Value) {
    let charged = totals["transactions"].as_object().unwrap();
    let (mut approved, mut sum) = (0, 0);
    for payment in payments {
        let of = charged.get(payment["id"].as_str().unwrap());
        assert_eq!(payment["status"] == "pending_payment", of.is_some(), "{payment}: {of:?}");
        if let Some(of) = of {
            assert_eq!((&of["charges"], &of["charged"]), (&json!(1), &payment["amount"]), "{payment}");
            approved += 1;
            sum += payment["amount"].as_i64().unwrap();
        }
    }
    let ids: HashSet<_> = payments.iter().map(|payment| payment["id"].as_str().unwrap()).collect();
    assert!(charged.keys().all(|id| ids.contains(id.as_str())), "it charged what is no payment");
    assert_eq!(totals["charges"].as_u64().unwrap() - totals["voided"].as_u64().unwrap(), approved);
    assert_eq!(totals["sums"]["BRL"].as_i64().unwrap_or(0), sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_and_whoever_is_killed_what_is_charged_is_what_is_approved() {
    let faults = ["--error-rate", "0.2", "--lost-rate", "0.2", "--latency-ms", "40", "--seed", "7"];
    let env = [("PSP_VISIBILITY_TIMEOUT_MS", "1000"), ("PSP_WORKER_CONCURRENCY", "16"), ("PSP_LOG", "info")];
    let (place, simulator) = place_with(&faults, &env).await;
    let api = place.start(&["api"]).await;
    let mut client = api.client().await;
    for n in 0..PAYMENTS {
        let number = if n % 10 == 0 { INSUFFICIENT } else { NUMBER };
        let body = example_with(&json!({ "card_number": number, "amount": (1000 + n).to_string() }));
        assert_eq!(client.post("123", &body, None).await.unwrap().status, 201);
    }
    let mut killed = place.start(&["worker"]).await;
    await_charges(&simulator, 60).await;
    killed.kill();
    let left = api.all("123", "/transactions").await;
    assert!(left.iter().any(|payment| payment["status"] == "processing"), "it was killed too late");
    let worker = place.start(&["worker"]).await;
    let payments = all_until(&api, |payment| payment["status"] != "processing").await;
    assert_eq!(payments.len(), PAYMENTS);
    assert_same_books(&payments, &totals(&simulator).await);
    let approved = payments.iter().filter(|payment| payment["status"] == "pending_payment").count();
    assert!(approved > PAYMENTS / 2, "{approved} approved");
    assert_eq!(api.all("123", "/payables").await.len(), approved);
    let log = killed.log() + &worker.log();
    assert!(log.contains("gateway timed out") && log.contains("answered 503"), "it had its faults");
    assert!(!log.contains(NUMBER) && !log.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_fails_payments_and_what_cannot_be_voided_waits_until_it_can() {
    let (place, simulator) = place_with(&["--outage"], &[]).await;
    let psp = place.serve().await;
    psp.post("123", &example_with(&json!({}))).await;
    let payments = all_until(&psp, |payment| payment["status"] == "failed").await;
    assert_eq!(payments[0]["status_reason"], "gateway_unavailable");
    assert_same_books(&payments, &totals(&simulator).await);

    // Every answer is lost, also that to the void.
    behave(&simulator, &json!({ "outage": false, "lost_rate": 1.0 })).await;
    psp.post("123", &example_with(&json!({ "amount": "700" }))).await;
    let begun = Instant::now();
    while !psp.log().contains("voiding failed") {
        assert!(begun.elapsed() < 2 * PATIENCE, "{}", psp.log());
        pause().await;
    }
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]", "nobody needs to be woken");
    assert_eq!(psp.all("123", "/transactions").await[0]["status"], "processing");
    behave(&simulator, &json!({ "lost_rate": 0.0 })).await;
    let payments = all_until(&psp, |payment| payment["status"] != "processing").await;
    assert_same_books(&payments, &totals(&simulator).await);

    // A gateway that errs for this card only: failed, and nothing charged.
    psp.post("123", &example_with(&json!({ "card_number": "4000000000000341" }))).await;
    let payments = all_until(&psp, |payment| payment["status"] != "processing").await;
    assert_eq!(payments[0]["status_reason"], "gateway_unavailable", "{payments:?}");
    assert_same_books(&payments, &totals(&simulator).await);
}

#[tokio::test]
async fn neither_card_nor_secret_is_in_any_log_of_either_side() {
    const CODE: &str = "9482";
    let (place, simulator) = place_with(&["--latency-ms", "5"], &[("PSP_LOG", "trace")]).await;
    let psp = place.serve().await;
    for number in ["5555555555554444", "4000000000000119"] {
        let body = json!({ "card_number": number, "card_verification_code": CODE });
        psp.post("123", &example_with(&body)).await;
    }
    psp.until("123", "/transactions", |list| {
        list.as_array().unwrap().iter().all(|payment| payment["status"] == "pending_payment")
    })
    .await;
    assert_eq!(totals(&simulator).await["charges"], 2);
    for (path, bytes) in place.files() {
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["5555555555554444", "4000000000000119", SECRET] {
            assert!(!text.contains(secret), "{secret} is in {}", path.display());
        }
        let is_log = path.extension().is_some_and(|extension| extension == "txt");
        assert!(!is_log || !text.contains(&format!("\"{CODE}\"")), "the code is in {}", path.display());
    }
    let config = place.run(&["config"]);
    assert!(config.contains("gateway_secret = \"***\"") && !config.contains(SECRET), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_behind_tls_is_paid_through_where_its_certificate_is_trusted_and_sent_nothing_elsewhere() {
    let (mut place, simulator) = place_with(&[], &[]).await;
    let front = TlsFront::start(&simulator.address).await;
    let port = front.address.port();
    place.set("PSP_GATEWAY_URL", &format!("https://localhost:{port}"));
    let authority = front.authority.to_str().unwrap();
    // Whose certificate is not trusted, or is for another name, is sent nothing.
    for (env, ends) in [
        (vec![], "failed"),
        (
            vec![("SSL_CERT_FILE", authority.to_owned()), ("PSP_GATEWAY_URL", format!("https://127.0.0.1:{port}"))],
            "failed",
        ),
        (vec![("SSL_CERT_FILE", authority.to_owned())], "pending_payment"),
    ] {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let psp = place.start_with(&["serve"], &env).await;
        let id = psp.post("123", &example_with(&json!({}))).await.json()["id"].clone();
        let path = format!("/transactions/{}", id.as_str().unwrap());
        psp.until("123", &path, |payment| payment["status"] == ends).await;
        assert_eq!(totals(&simulator).await["references"] == json!({}), ends == "failed");
    }
    assert_eq!(totals(&simulator).await["charges"], 1);
}

#[tokio::test]
async fn a_gateway_that_is_told_wrongly_stops_the_start() {
    let place = Place::new(&[]);
    for (name, value) in [("PSP_GATEWAY_URL", "http://acquirer.example"), ("PSP_GATEWAY_SECRET", "short")] {
        let output = place.command(&["serve"]).env(name, value).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(name) && !told.contains(value), "{told}");
    }
    let output = place.command(&["gateway-simulator"]).output().unwrap();
    assert!(!output.status.success(), "a simulator needs a secret");
    let output = place.command(&["gateway-simulator", "--lost-rate", "2"]).env("PSP_GATEWAY_SECRET", SECRET).output();
    assert!(!output.unwrap().status.success());
}

#[tokio::test]
async fn a_simulator_stops_when_it_is_told_to() {
    let (_place, mut simulator) = place_with(&[], &[]).await;
    let idle = simulator.client().await;
    let begun = Instant::now();
    simulator.terminate();
    assert!(simulator.ended().await.success(), "{}", simulator.log());
    assert!(begun.elapsed() < Duration::from_secs(5), "an idle connection held it up");
    drop(idle);
}
