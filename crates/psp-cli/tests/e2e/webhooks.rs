//! Webhooks by the real binary, at a merchant's server that keeps what it hears.

use std::collections::BTreeSet;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};

use crate::acquirers::post;
use crate::examples::ask;
use crate::receiver::Receiver;
use crate::settlement::in_days;
use crate::support::{Answer, Api, PATIENCE, Place, example, pause};

/// Webhooks on this machine, attempted three times at most.
const QUICK: [(&str, &str); 3] =
    [("PSP_WEBHOOK_REACH", "loopback"), ("PSP_WEBHOOK_PAUSES_S", "1,1"), ("PSP_LOG", "info,psp=trace")];
const CUSTOMER: [(&str, &str); 2] = [("x-customer-id", "123"), ("content-type", "application/json")];
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

async fn get(psp: &Api, path: &str) -> Answer {
    ask(psp, Method::GET, path, &CUSTOMER[..1], "").await
}

/// Adds an endpoint; it with its secret.
async fn add_endpoint(psp: &Api, url: &str, events: &[&str]) -> Value {
    let asked = json!({ "url": url, "events": events });
    let answer = post(psp, "/webhook_endpoints", &CUSTOMER, &asked.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

async fn change(psp: &Api, endpoint: &Value, change: &Value) -> Answer {
    ask(psp, Method::PATCH, &path_of(endpoint), &CUSTOMER, &change.to_string()).await
}

fn path_of(endpoint: &Value) -> String {
    format!("/webhook_endpoints/{}", text(&endpoint["id"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Pays, and waits until that is approved; the payment's id.
async fn pay(psp: &Api) -> String {
    let id = text(&psp.post("123", &example()).await.json()["id"]).to_owned();
    psp.until("123", &format!("/transactions/{id}"), |payment| payment["status"] == "pending_payment").await;
    id
}

/// The id of the approval of a payment that is made now.
async fn approval(psp: &Api) -> String {
    let events = get(psp, &format!("/events?type=transaction.approved&aggregate_id={}", pay(psp).await)).await.json();
    text(&events[0]["id"]).to_owned()
}

/// The ids of all events of that customer.
async fn events(psp: &Api) -> BTreeSet<String> {
    psp.all("123", "/events").await.iter().map(|event| text(&event["id"]).to_owned()).collect()
}

/// Waits until the first delivery of an event has that status; it.
async fn delivery(psp: &Api, event: &str, status: &str) -> Value {
    psp.until("123", &format!("/events/{event}/deliveries"), |list| list[0]["status"] == status).await[0].clone()
}

fn answers(delivery: &Value) -> Vec<u64> {
    delivery["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["status"].as_u64().unwrap_or_default())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_delivered_once_signed_and_again_where_that_fails_or_is_asked_for() {
    let (place, receiver) = (Place::new(&QUICK), Receiver::start().await);
    let mut psp = place.serve().await;
    let endpoint = add_endpoint(&psp, &receiver.url, &[]).await;
    let secret = text(&endpoint["secret"]);
    let paid = pay(&psp).await;
    let refund = post(&psp, &format!("/transactions/{paid}/refund"), &CUSTOMER, r#"{ "amount": 100 }"#).await;
    assert_eq!(refund.status, 202, "{}", refund.text);
    let order = r#"{ "userId": "user", "total": 999 }"#;
    let order = post(&psp, "/api/orders", &CUSTOMER, order).await.json()["orderId"].clone();
    psp.until("123", &format!("/api/orders/{}", text(&order)), |order| order["status"] == "PAID").await;
    psp.until("123", &format!("/transactions/{paid}"), |payment| payment["refunded_amount"] == 100).await;
    let written = events(&psp).await;
    // created, approved, refund requested, partially refunded; the order's three; its payment's three.
    assert_eq!(written.len(), 10, "{written:?}");
    // Settlement writes its events by itself: three payables, and what they are paid for.
    place.run(&["job", "settle-payables", "--date", &in_days(31)]);
    let written = events(&psp).await;
    assert_eq!(written.len(), 15, "{written:?}");
    let heard = receiver.await_heard(written.len()).await;
    for heard in &heard {
        assert_eq!(heard.signed_by(secret), Some(0));
        assert_eq!(heard.body, get(&psp, &format!("/events/{}", heard.id())).await.text);
        assert_eq!(delivery(&psp, &heard.id(), "delivered").await["attempts"][0]["answer"], "answered 200");
    }
    assert_eq!((heard.len(), receiver.ids()), (written.len(), written), "each once");

    receiver.answer(500);
    let event = approval(&psp).await;
    receiver.await_event(&event, 1).await;
    receiver.answer(200);
    assert_eq!(answers(&delivery(&psp, &event, "delivered").await), [500, 200]);
    let [one, other] = &receiver.heard().into_iter().filter(|heard| heard.id() == event).collect::<Vec<_>>()[..] else {
        panic!("heard twice")
    };
    assert_eq!(one.body, other.body);

    let again = post(&psp, &format!("/events/{event}/redeliver"), &CUSTOMER, "").await;
    assert_eq!((again.status.as_u16(), again.json()), (202, json!({ "deliveries": 1 })));
    assert_eq!(receiver.await_event(&event, 3).await.signed_by(secret), Some(0));
    assert_eq!(answers(&delivery(&psp, &event, "delivered").await), [500, 200, 200]);

    let rotated = post(&psp, &format!("{}/rotate_secret", path_of(&endpoint)), &CUSTOMER, "").await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    let (rotated, event) = (rotated.json(), approval(&psp).await);
    let heard = receiver.await_event(&event, 1).await;
    let next = text(&rotated["secret"]);
    assert_eq!((heard.signed_by(next), heard.signed_by(secret)), (Some(0), Some(1)));
    assert!(next != secret && rotated["previous_secret_valid_until"].is_string(), "{rotated}");

    for secret in [secret, next] {
        assert_hidden(&place, secret).await;
    }
    psp.kill();
    assert_hidden(&place, next).await;
    assert!(!psp.log().contains("ERROR"), "{}", psp.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_anew_when_the_master_key_changes_and_sign_as_before() {
    const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (mut place, receiver) = (Place::new(&QUICK), Receiver::start().await);
    place.set("PSP_CARD_KEYS", OLD);
    let mut psp = place.serve().await;
    let endpoint = add_endpoint(&psp, &receiver.url, &["transaction.approved"]).await;
    psp.kill();
    place.set("PSP_CARD_KEYS", &format!("{NEW},{OLD}"));
    for secrets in [1, 0] {
        let rotation: Value = serde_json::from_str(&place.run(&["vault", "rotate", "--json"])).unwrap();
        assert_eq!((&rotation["secrets"], &rotation["unopened"]), (&json!(secrets), &json!(0)), "{rotation}");
    }
    place.set("PSP_CARD_KEYS", NEW);
    let psp = place.serve().await;
    let event = approval(&psp).await;
    assert_eq!(receiver.await_event(&event, 1).await.signed_by(text(&endpoint["secret"])), Some(0));
}

/// Sees that a secret is in no file, log or table, neither as its customer has it nor as bytes.
async fn assert_hidden(place: &Place, secret: &str) {
    let text = secret.strip_prefix("whsec_").unwrap();
    let bytes = STANDARD.decode(text).unwrap();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    for (path, content) in place.files() {
        let holds = |part: &[u8]| content.windows(part.len()).any(|window| window == part);
        let found = holds(text.as_bytes()) || holds(&bytes) || holds(hex.as_bytes());
        assert!(!found, "a secret is in {}", path.display());
    }
    for row in place.dump().await {
        assert!(!row.contains(text) && !row.contains(&hex), "a secret is in a table");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_disabled_and_the_others_are_told() {
    let (place, gone, other) = (Place::new(&QUICK), Receiver::start().await, Receiver::start().await);
    let psp = place.serve().await;
    let endpoint = add_endpoint(&psp, &gone.url, &["transaction.approved"]).await;
    add_endpoint(&psp, &other.url, &["webhook_endpoint.disabled"]).await;
    gone.answer(410);
    let event = approval(&psp).await;
    let told = other.await_heard(1).await.remove(0).json();
    assert_eq!((&told["type"], &told["aggregate_id"]), (&json!("webhook_endpoint.disabled"), &endpoint["id"]));
    // The path may be a secret of that receiver.
    let origin = gone.url.trim_end_matches("/webhooks");
    assert_eq!((&told["data"]["reason"], &told["data"]["url"]), (&json!("gone"), &json!(origin)));
    let disabled = get(&psp, &path_of(&endpoint)).await.json();
    assert_eq!((&disabled["status"], &disabled["disabled_reason"]), (&json!("disabled"), &json!("gone")));
    approval(&psp).await;
    assert_eq!(post(&psp, &format!("/events/{event}/redeliver"), &CUSTOMER, "").await.status, 409);

    gone.answer(200);
    let enabled = change(&psp, &endpoint, &json!({ "status": "enabled" })).await.json();
    assert_eq!((&enabled["status"], enabled.get("disabled_reason")), (&json!("enabled"), None));
    let since = json!({ "since": LONG_AGO }).to_string();
    let recovered = post(&psp, &format!("{}/redeliver", path_of(&endpoint)), &CUSTOMER, &since).await;
    assert_eq!(recovered.status, 202, "{}", recovered.text);
    let approved = psp.all("123", "/events").await;
    let approved = approved.iter().filter(|event| event["type"] == "transaction.approved");
    for event in approved {
        assert!([200, 410].contains(&answers(&delivery(&psp, text(&event["id"]), "delivered").await)[0]));
    }
    assert_eq!(gone.ids().len(), 2, "what happened while it was disabled, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_lose_no_delivery() {
    const PAYMENTS: usize = 60;
    let (place, receiver) = (Place::new(&QUICK), Receiver::start().await);
    place.run(&["migrate"]);
    let short = [("PSP_VISIBILITY_TIMEOUT_MS", "1000"), ("PSP_LOG", "info")];
    let api = place.start(&["api"]).await;
    add_endpoint(&api, &receiver.url, &[]).await;
    let mut client = api.client().await;
    for _ in 0..PAYMENTS {
        assert_eq!(client.post("123", &example(), None).await.unwrap().status, 201);
    }
    for round in 1..=3 {
        let mut worker = place.start_with(&["worker"], &short).await;
        receiver.await_heard(30 * round).await;
        worker.kill();
        // The leases of what it had in hand end: nobody waits here until they do.
        let ended = [
            "UPDATE webhook_deliveries SET due_at = 0 WHERE due_at IS NOT NULL",
            "UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL",
        ];
        place.execute(&ended).await;
    }
    let _worker = place.start_with(&["worker"], &short).await;
    let begun = Instant::now();
    while place.count("SELECT event_id FROM webhook_deliveries WHERE status = 'delivered'").await < 2 * PAYMENTS {
        assert!(begun.elapsed() < PATIENCE, "{} were heard", receiver.heard().len());
        pause().await;
    }
    let written = events(&api).await;
    assert_eq!((written.len(), receiver.ids()), (2 * PAYMENTS, written), "created and approved");
    let left = place.count("SELECT event_id FROM webhook_deliveries WHERE status <> 'delivered'").await;
    assert_eq!(left, 0);
}

/// What `psp events replay` says of approvals.
fn replay(place: &Place, more: &[&str]) -> Value {
    let args = ["events", "replay", "--from", LONG_AGO, "--type", "transaction.approved", "--json"];
    serde_json::from_str(&place.run(&[&args, more].concat())).unwrap()
}

fn replayed(events: u64, replayed: u64, is_dry_run: bool) -> Value {
    json!({ "events": events, "replayed": replayed, "dry_run": is_dry_run })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_replayed_once_and_only_when_it_is_told_to() {
    let mut place = Place::new(&QUICK);
    place.set("PSP_WEBHOOK_PAUSES_S", "1");
    let receiver = Receiver::start().await;
    let psp = place.serve().await;
    pay(&psp).await;
    add_endpoint(&psp, &receiver.url, &["transaction.approved"]).await;
    receiver.answer(500);
    let event = approval(&psp).await;
    assert_eq!(answers(&delivery(&psp, &event, "failed").await), [500, 500]);
    receiver.answer(200);
    let heard = receiver.heard().len();
    // One failed, and one is from before there was an endpoint.
    assert_eq!(replay(&place, &[]), replayed(2, 2, true));
    assert_eq!(replay(&place, &["--customer", "456", "--execute"]), replayed(0, 0, false));
    assert_eq!(replay(&place, &["--until", LONG_AGO, "--execute"]), replayed(0, 0, false));
    assert_eq!(replay(&place, &["--customer", "123", "--execute"]), replayed(2, 2, false));
    assert_eq!(answers(&delivery(&psp, &event, "delivered").await), [500, 500, 200]);
    assert_eq!(receiver.await_heard(heard + 2).await.len(), heard + 2);
    assert_eq!(receiver.ids().len(), 2);
    let delivered = "SELECT event_id FROM webhook_deliveries WHERE status = 'delivered'";
    let begun = Instant::now();
    while place.count(delivered).await < 2 {
        assert!(begun.elapsed() < PATIENCE, "the deliveries are not written");
        pause().await;
    }
    assert_eq!(replay(&place, &["--execute"]), replayed(2, 0, false), "again: nothing");
    assert_eq!(replay(&place, &["--execute", "--delivered"]), replayed(2, 2, false));
    receiver.await_heard(heard + 4).await;
    assert_eq!(receiver.ids().len(), 2);

    // To queues: handlers have answered these before, and nothing changes.
    let (transactions, payables) = (psp.all("123", "/transactions").await, psp.all("123", "/payables").await);
    let args = ["events", "replay", "--from", LONG_AGO, "--type", "transaction.created", "--to", "queue", "--json"];
    let to_queue = |more: &[&str]| serde_json::from_str::<Value>(&place.run(&[&args, more].concat())).unwrap();
    assert_eq!(to_queue(&[]), replayed(2, 2, true));
    assert_eq!(to_queue(&["--execute"]), replayed(2, 2, false));
    let begun = Instant::now();
    while place.count("SELECT id FROM outbox WHERE visible_at IS NOT NULL").await > 0 {
        assert!(begun.elapsed() < PATIENCE, "the messages stay");
        pause().await;
    }
    pay(&psp).await;
    assert_eq!(psp.all("123", "/transactions").await[1..], transactions);
    assert_eq!(psp.all("123", "/payables").await[1..], payables);
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_purged_with_their_deliveries_once_they_are_old() {
    let (place, receiver) = (Place::new(&QUICK), Receiver::start().await);
    let psp = place.serve().await;
    add_endpoint(&psp, &receiver.url, &[]).await;
    pay(&psp).await;
    receiver.await_heard(2).await;
    for event in events(&psp).await {
        delivery(&psp, &event, "delivered").await;
    }
    assert_eq!(place.run(&["job", "purge-events"]), "0 events deleted\n");
    let settled = "SELECT id FROM outbox WHERE visible_at IS NOT NULL";
    let begun = Instant::now();
    while place.count(settled).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "a message stays");
        pause().await;
    }
    place.execute(&["UPDATE outbox SET sent_at = 0", "UPDATE outbox SET sent_at = 'epoch'"]).await;
    assert_eq!(place.run(&["job", "purge-events"]), "2 events deleted\n");
    assert_eq!(get(&psp, "/events").await.text, "[]");
    assert_eq!(place.count("SELECT event_id FROM webhook_deliveries").await, 0);
    assert_eq!(psp.all("123", "/transactions").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_is_reached_that_is_not_public() {
    let mut place = Place::new(&[("PSP_WEBHOOK_PAUSES_S", "1")]);
    let receiver = Receiver::start().await;
    let port = receiver.url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/webhooks").to_owned();
    let psp = place.serve().await;
    let hosts =
        ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "localhost"];
    let https = hosts.iter().map(|host| format!("https://{host}:{port}/webhooks"));
    for url in https.chain([receiver.url.clone(), "http://shop.example/".into(), "https://169.254.169.254/".into()]) {
        let answer = post(&psp, "/webhook_endpoints", &CUSTOMER, &json!({ "url": url }).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.faults()), (422, vec!["url".to_owned()]), "{url}: {}", answer.text);
    }
    drop(psp);

    // What was taken once, and is refused since.
    place.set("PSP_WEBHOOK_REACH", "loopback");
    let psp = place.serve().await;
    add_endpoint(&psp, &receiver.url, &["transaction.approved"]).await;
    drop(psp);
    place.set("PSP_WEBHOOK_REACH", "public");
    let psp = place.serve().await;
    // This machine's own name, whose addresses nobody knows before they are asked for.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "nobody.invalid".to_owned());
    add_endpoint(&psp, &format!("https://{}/", name.trim()), &["transaction.approved"]).await;
    let event = approval(&psp).await;
    let is_over = |list: &Value| list.as_array().unwrap().iter().all(|delivery| delivery["status"] == "failed");
    let deliveries = psp.until("123", &format!("/events/{event}/deliveries"), is_over).await;
    assert_eq!(deliveries.as_array().unwrap().len(), 2);
    for attempt in deliveries.as_array().unwrap().iter().flat_map(|delivery| delivery["attempts"].as_array().unwrap()) {
        assert!(["refused_url", "refused_address", "dns"].contains(&text(&attempt["error"])), "{deliveries}");
    }
    assert!(receiver.heard().is_empty());
}
