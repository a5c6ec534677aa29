//! Two API processes and two workers on Postgres, before two gateways that fail, forget, repeat themselves and name wrong
//! amounts, one in JSON and one in XML, while workers are killed. Afterwards the gateways have moved exactly the money that is
//! approved.
//!
//! `PSP_CHAOS_PAYMENTS` transactions (300 where absent; `make chaos` takes 5000), and the seed of `PSP_CHAOS_SEED`.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../e2e/acquirers.rs"]
mod acquirers;
mod front;
#[allow(dead_code, reason = "shared with the other chaos test")]
#[path = "../chaos/kept.rs"]
mod kept;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../e2e/support.rs"]
mod support;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use acquirers::{place_of, totals};
use front::Front;
use kept::{Dice, Kept, start_ended};
use support::{Answer, Client, Place, Process, example_with, pause};

/// What the processes under test run on.
const BACKEND: support::Backend = support::Backend::Postgres;
/// Connections that post.
const CLIENTS: usize = 8;
/// The time between two transactions of a connection: 25 a second in all, so that kills come in the middle of them.
const PACE: Duration = Duration::from_millis(320);
/// How old a transaction may be that no gateway answers for, and how long a gateway may leave one undecided.
const BUDGET: Duration = Duration::from_secs(20);
/// How long sweeps may take to notice that: each asks after twice the time of the one before, and a question may fail.
const SLACK: Duration = Duration::from_secs(30);
/// How long everything may take to settle down once the kills have ended.
const PATIENCE: Duration = Duration::from_secs(90);
/// What every tenth card has.
const INSUFFICIENT: &str = "4000000000009995";
const FAULTS: [&str; 16] = [
    "--error-rate",
    "0.2",
    "--lost-rate",
    "0.05",
    "--pending-rate",
    "0.3",
    "--duplicate-rate",
    "0.05",
    "--wrong-amount-rate",
    "0.01",
    "--forget-rate",
    "0.05",
    "--latency-ms",
    "100",
    "--callback-delay-ms",
    "200",
];

/// What is posted, and where to.
struct Post {
    path: &'static str,
    content_type: &'static str,
    body: String,
}

impl Post {
    /// The transaction of that number: a payment by card, one without, a deposit, a withdrawal, and so on; each second four
    /// of them begin at the other gateway.
    fn of(number: usize) -> Self {
        let country = ["BR", "IN"][number / 4 % 2];
        let currency = ["BRL", "USD", "INR"][number / 8 % 3];
        let minor = 1000 + number;
        let major = format!("{}.{:02}", minor / 100, minor % 100);
        let transfer = json!({ "user_id": number, "amount": major, "currency": currency, "country": country });
        let json = |path, body: String| Self { path, content_type: "application/json", body };
        match number % 4 {
            0 => {
                let card = if number.is_multiple_of(40) { INSUFFICIENT } else { "4111111111111111" };
                let named = json!({ "currency": currency, "country": country, "card_number": card });
                let mut body = example_with(&named);
                (body["amount"], body["installments"]) = (json!(minor), json!(1 + number / 4 % 12));
                json("/transactions", body.to_string())
            }
            1 => {
                let order = format!("order_{number}");
                let body = json!({
                    "order_id": order, "amount": minor, "currency": currency, "method": "upi", "country": country
                });
                json("/api/v1/payments", body.to_string())
            }
            2 => json("/deposit", transfer.to_string()),
            _ if number % 8 == 3 => json("/withdrawal", transfer.to_string()),
            _ => {
                let body = format!(
                    "<withdrawal><user_id>{number}</user_id><amount>{major}</amount><currency>{currency}</currency>\
                     <country>{country}</country></withdrawal>"
                );
                Self { path: "/withdrawal", content_type: "application/xml", body }
            }
        }
    }

    fn request(&self, key: usize) -> Request<Full<Bytes>> {
        let request = Request::post(self.path).header("host", "psp").header("x-customer-id", "chaos");
        let request = request.header("content-type", self.content_type).header("idempotency-key", key.to_string());
        request.body(Full::from(self.body.clone())).unwrap()
    }
}

/// The id in an answer, whatever its family and format call it.
fn id_in(answer: &Answer) -> Uuid {
    let json = answer.json();
    let id = json["id"].as_str().or(json["transaction_id"].as_str());
    let in_xml = || answer.text.split("<transaction_id>").nth(1).unwrap().split('<').next().unwrap();
    id.unwrap_or_else(in_xml).parse().unwrap()
}

/// Posts transactions until none is left, each with a key until it is taken. Their ids.
async fn post(address: String, next: Arc<AtomicUsize>, end: usize) -> Vec<Uuid> {
    let (mut ids, mut pace) = (Vec::new(), tokio::time::interval(PACE));
    let mut client = Client::connect(&address).await.unwrap();
    loop {
        pace.tick().await;
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return ids;
        }
        let (post, begun) = (Post::of(number), Instant::now());
        loop {
            let answer = client.send(post.request(number)).await.unwrap();
            if [201, 202].contains(&answer.status.as_u16()) {
                ids.push(id_in(&answer));
                break;
            }
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(begun.elapsed() < PATIENCE, "{number} is not taken: {}", answer.text);
            pause().await;
        }
    }
}

/// Kills one of the workers about every second until told to stop; then sees that both run.
async fn torment(place: Arc<Place>, mut workers: Vec<Kept>, dice: Dice, stop: Arc<AtomicBool>) -> Vec<Kept> {
    let mut kills = 0;
    while !stop.load(Ordering::Relaxed) {
        let wait = Duration::from_millis(700 + dice.below(600) as u64);
        let begun = Instant::now();
        while begun.elapsed() < wait && !stop.load(Ordering::Relaxed) {
            pause().await;
        }
        let victim = dice.below(workers.len());
        workers[victim].kill();
        kills += 1;
        start_ended(&place, &mut workers);
    }
    eprintln!("{kills} kills of workers");
    assert!(kills > 5);
    workers
}

/// Starts a gateway with a secret of its own, which comes first for one country and second for the other.
async fn add_gateway(place: &Place, name: &str, secret: &str, first_in: &str, dice: &Dice) -> Process {
    let seed = dice.below(1_000_000).to_string();
    let args = [&["gateway-simulator", "--listen", "127.0.0.1:0", "--seed", &seed], &FAULTS[..]].concat();
    let simulator = place.start_with(&args, &[("PSP_GATEWAY_SECRET", secret)]).await;
    let path = if name == "xml" { "/soap" } else { "" };
    let url = format!("http://{}{path}", simulator.address);
    place.run(&["gateways", "add", name, "--protocol", name, "--url", &url]);
    for country in ["BR", "IN"] {
        let priority = if country == first_in { "1" } else { "2" };
        place.run(&["gateways", "route", name, "--country", country, "--priority", priority]);
    }
    simulator
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_gateways_do_the_money_that_they_moved_is_what_is_approved() {
    let count = std::env::var("PSP_CHAOS_PAYMENTS").map_or(300, |count| count.parse().unwrap());
    let dice = Dice::new();
    let budget = BUDGET.as_millis().to_string();
    let (mut place, _) = place_of(
        &[],
        &[
            ("PSP_VISIBILITY_TIMEOUT_MS", "2000"),
            ("PSP_RETRY_BASE_MS", "50"),
            ("PSP_RETRY_MAX_MS", "1000"),
            ("PSP_GATEWAY_TIMEOUT_MS", "2000"),
            ("PSP_BREAKER_OPEN_MS", "500"),
            ("PSP_CHECK_AFTER_MS", "500"),
            ("PSP_SWEEP_INTERVAL_MS", "500"),
            ("PSP_AUTHORIZATION_BUDGET_MS", &budget),
            ("PSP_PENDING_BUDGET_MS", &budget),
        ],
    );
    let secrets = ["json", "xml"].map(|name| (name, format!("the secret of the gateway that speaks {name}")));
    place.set("PSP_GATEWAY_SECRETS", &secrets.each_ref().map(|(name, secret)| format!("{name}={secret}")).join(","));
    let mut apis = [Kept::new("api"), Kept::new("api")];
    let addresses: Vec<_> = apis.iter().map(|api| api.address.clone()).collect();
    let front = Front::start(addresses.clone()).await;
    place.set("PSP_PUBLIC_URL", &format!("http://{}", front.address));
    place.run(&["migrate"]);
    let in_json = add_gateway(&place, "json", &secrets[0].1, "BR", &dice).await;
    let in_xml = add_gateway(&place, "xml", &secrets[1].1, "IN", &dice).await;

    let place = Arc::new(place);
    start_ended(&place, &mut apis);
    let mut workers = vec![Kept::new("worker"), Kept::new("worker")];
    start_ended(&place, &mut workers);
    await_listening(&addresses).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tormentor = tokio::spawn(torment(Arc::clone(&place), workers, dice, Arc::clone(&stop)));
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(post(addresses[client % addresses.len()].clone(), Arc::clone(&next), count)))
        .collect();
    let mut answered = BTreeSet::new();
    for client in clients {
        answered.extend(client.await.unwrap());
    }
    assert_eq!(answered.len(), count);
    stop.store(true, Ordering::Relaxed);
    let _workers = tormentor.await.unwrap();

    let url = place.command(&[]).get_envs().find(|(name, _)| *name == "DATABASE_URL").unwrap().1.unwrap().to_owned();
    let url = url.to_str().unwrap();
    verdict::await_quiet(url, PATIENCE).await;
    replay(&place, count / 100);
    verdict::await_quiet(url, PATIENCE).await;
    let gateways = [totals(&in_json).await, totals(&in_xml).await];
    let transactions = verdict::judge_database(url, &answered, 2 * BUDGET + SLACK).await;
    verdict::judge_books(&transactions, &gateways);
    let flagged = verdict::judge_wrong_amounts(url, &transactions, &front.told(), &gateways).await;
    let approved = transactions.values().filter(|transaction| transaction.is_approved).count();
    let sum = |read: fn(&Value) -> &Value| gateways.iter().map(|totals| read(totals).as_u64().unwrap()).sum::<u64>();
    let (voided, forgotten) = (sum(|totals| &totals["voided"]), sum(|totals| &totals["callbacks"]["forgotten"]));
    let duplicates = sum(|totals| &totals["callbacks"]["duplicates"]);
    eprintln!("{approved} of {count} approved, {voided} voided, {flagged} wrong amounts flagged");
    eprintln!("{forgotten} callbacks forgotten, {duplicates} repeated");
    assert!(forgotten > 0 && duplicates > 0, "they had their faults");
    assert!(approved > count * 8 / 10, "most are approved");
    assert_eq!(dead_letters(&place), Vec::<Value>::new());
}

fn dead_letters(place: &Place) -> Vec<Value> {
    serde_json::from_str(&place.run(&["dlq", "list", "--json"])).unwrap()
}

/// Replays dead letters as an operator would. A message whose worker is killed at its last delivery becomes one, and so does
/// one that loses a race then; their transactions have ended all the same, which the caller has seen.
fn replay(place: &Place, most: usize) {
    let letters = dead_letters(place);
    let reasons: Vec<_> = letters.iter().map(|letter| letter["reason"].to_string()).collect();
    assert!(letters.len() <= most, "{reasons:#?}\n{}", lines_of(place, &letters));
    eprintln!("{} dead letters: {reasons:?}", letters.len());
    for letter in &letters {
        place.run(&["dlq", "replay", letter["id"].as_str().unwrap()]);
    }
}

/// What the workers logged of the transactions and callbacks of these letters.
fn lines_of(place: &Place, letters: &[Value]) -> String {
    let logs = place.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "log"));
    let logs: Vec<_> = logs.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect();
    let is_of = |line: &&str| letters.iter().any(|letter| line.contains(letter["aggregate_id"].as_str().unwrap()));
    logs.iter().flat_map(|log| log.lines()).filter(is_of).collect::<Vec<_>>().join("\n")
}

async fn await_listening(addresses: &[String]) {
    let begun = Instant::now();
    for address in addresses {
        while Client::connect(address).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "{address} does not listen");
            pause().await;
        }
    }
}
