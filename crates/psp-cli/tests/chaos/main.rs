//! Two API processes, two workers and a scheduler on Postgres and SQS, while processes are killed, Postgres crashes, SQS fails
//! and repeats itself, and connections break at commits. Afterwards nothing that was answered is missing or doubled.
//!
//! `PSP_CHAOS_PAYMENTS` payments (300 where absent; `make chaos` takes 5000), and the seed of `PSP_CHAOS_SEED`.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod kept;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../e2e/support.rs"]
mod support;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use psp_testkit::servers::{Fault, FaultyProxy, PostgresServer};
use serde_json::{Value, json};

use kept::{Dice, Kept, start_ended};
use support::{Client, Place, example_with, pause};

/// What the processes under test run on.
const BACKEND: support::Backend = support::Backend::PostgresAndSqs;
/// Connections that post.
const CLIENTS: usize = 8;
/// The time between two payments of a connection: 25 a second in all, so that faults come in the middle of them.
const PACE: Duration = Duration::from_millis(320);
/// The time between two crashes of Postgres.
const CRASHES: Duration = Duration::from_secs(5);
/// Messages that no handler can take.
const POISON: usize = 5;
/// How long everything may take to settle down once the faults have ended.
const PATIENCE: Duration = Duration::from_mins(3);

/// A variable of the processes.
fn variable(place: &Place, name: &str) -> String {
    let command = place.command(&[]);
    let value = command.get_envs().find(|(other, _)| *other == name).and_then(|(_, value)| value).unwrap();
    value.to_str().unwrap().to_owned()
}

/// Whether faults are still made.
type Faults = Arc<AtomicBool>;

async fn before_postgres(server: &PostgresServer, dice: &Dice, faults: &Faults) -> FaultyProxy {
    let (dice, faults) = (dice.clone(), Arc::clone(faults));
    let decide = move |piece: &[u8]| {
        // Bind, with which a prepared statement is executed: payments, claims, plans, chunks, marks; and an explicit COMMIT.
        // Logins pass.
        let is_statement = piece.first() == Some(&b'B') || piece.windows(6).any(|window| window == b"COMMIT");
        match is_statement && faults.load(Ordering::Relaxed) {
            true if dice.one_in(40) => Fault::CutAfter,
            true if dice.one_in(60) => Fault::CutBefore,
            _ => Fault::None,
        }
    };
    FaultyProxy::start(&server.socket(), decide).await
}

async fn before_sqs(endpoint: &str, dice: &Dice, faults: &Faults) -> FaultyProxy {
    const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (dice, faults) = (dice.clone(), Arc::clone(faults));
    let decide = move |_: &[u8]| match faults.load(Ordering::Relaxed) {
        true if dice.one_in(30) => Fault::Answer(ERROR),
        true if dice.one_in(40) => Fault::Answer(BUSY),
        true if dice.one_in(25) => Fault::Twice,
        true if dice.one_in(60) => Fault::CutAfter,
        true if dice.one_in(200) => Fault::Silence,
        _ => Fault::None,
    };
    FaultyProxy::start(endpoint.trim_start_matches("http://"), decide).await
}

/// Kills and restarts processes, and crashes Postgres, until told to stop; then sees that all of them run.
async fn torment(
    place: Arc<Place>,
    mut server: PostgresServer,
    proxy: Arc<FaultyProxy>,
    mut kept: Vec<Kept>,
    dice: Dice,
    faults: Faults,
) -> (PostgresServer, Vec<Kept>) {
    let (mut kills, mut crashes, mut last_crash) = (0, 0, Instant::now());
    while faults.load(Ordering::Relaxed) {
        let victim = dice.below(kept.len());
        kept[victim].kill();
        kills += 1;
        if last_crash.elapsed() > CRASHES {
            server.crash().await;
            proxy.point_to(&server.socket());
            (crashes, last_crash) = (crashes + 1, Instant::now());
        }
        start_ended(&place, &mut kept);
        let wait = Duration::from_millis(200 + dice.below(900) as u64);
        let begun = Instant::now();
        while begun.elapsed() < wait && faults.load(Ordering::Relaxed) {
            pause().await;
        }
    }
    eprintln!("{kills} kills, {crashes} crashes of Postgres");
    assert!(kills > 5 && crashes > 0);
    start_ended(&place, &mut kept);
    (server, kept)
}

/// Posts payments with keys, each until it is answered, by whichever process answers. The ids, by their keys.
async fn post(addresses: Vec<String>, client: usize, left: Arc<AtomicUsize>) -> BTreeMap<String, Value> {
    let mut answered = BTreeMap::new();
    let mut connection: Option<Client> = None;
    let (mut number, mut pace) = (0, tokio::time::interval(PACE));
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        pace.tick().await;
        number += 1;
        let key = format!("{client}-{number}");
        let method = if number % 2 == 0 { "debit_card" } else { "credit_card" };
        let installments = if method == "credit_card" { 1 + number % 12 } else { 1 };
        let fields = json!({ "payment_method": method, "installments": installments, "amount": 1000 + number });
        let body = example_with(&fields);
        let begun = Instant::now();
        let mut attempt = client;
        let id = loop {
            assert!(begun.elapsed() < PATIENCE, "{key} is not answered");
            attempt += 1;
            let address = &addresses[attempt % addresses.len()];
            if connection.is_none() {
                connection = Client::connect(address).await.ok();
            }
            let Some(open) = &mut connection else {
                pause().await;
                continue;
            };
            match tokio::time::timeout(Duration::from_secs(5), open.post("chaos", &body, Some(&key))).await {
                Ok(Ok(answer)) if answer.status == 201 => break answer.json()["id"].clone(),
                Ok(Ok(answer)) => {
                    // In flight, overloaded, or an outcome that the server does not know: with the key, asked again.
                    assert!([409, 500, 503].contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.text);
                    pause().await;
                }
                Ok(Err(_)) | Err(_) => connection = None,
            }
        };
        assert!(answered.insert(key, id).is_none());
    }
    answered
}

/// Sends a message that is none of the product's.
async fn send_poison(endpoint: &str, prefix: &str, number: usize) {
    let config = psp_sqs::config().endpoint_url(endpoint).region(aws_sdk_sqs::config::Region::new("us-east-1"));
    let credentials = aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test");
    let client = aws_sdk_sqs::Client::new(&config.credentials_provider(credentials).load().await);
    let queue = client.get_queue_url().queue_name(format!("{prefix}transactions")).send().await.unwrap();
    let body = format!("poison {number}");
    client.send_message().queue_url(queue.queue_url.unwrap()).message_body(body).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_or_doubled_whatever_fails() {
    let payments = std::env::var("PSP_CHAOS_PAYMENTS").map_or(300, |count| count.parse().unwrap());
    let (dice, faults) = (Dice::new(), Faults::new(AtomicBool::new(true)));
    let server = PostgresServer::start(&[]).await;
    let database = server.database().await;
    let postgres = Arc::new(before_postgres(&server, &dice, &faults).await);
    let url = database.url.replacen(&server.socket(), &postgres.address.to_string(), 1);
    assert_ne!(url, database.url);

    let mut place = Place::new(&[
        ("PSP_VISIBILITY_TIMEOUT_MS", "3000"),
        ("PSP_RETRY_BASE_MS", "50"),
        ("PSP_RETRY_MAX_MS", "1000"),
        ("PSP_SETTLEMENT_CRON", "*/2 * * * * *"),
        ("PSP_SETTLEMENT_CHUNK_SIZE", "20"),
        ("PSP_LOG", "warn,psp=info"),
    ]);
    let (endpoint, prefix) = (variable(&place, "AWS_ENDPOINT_URL"), variable(&place, "PSP_SQS_PREFIX"));
    let sqs = before_sqs(&endpoint, &dice, &faults).await;
    place.set("DATABASE_URL", &url);
    place.set("AWS_ENDPOINT_URL", &format!("http://{}", sqs.address));
    // Debit is due at once and waits for settlement; credit is not due.
    let fees = "[fees.debit_card]\npercent = \"3\"\ndays = 0\ninitial_status = \"waiting_funds\"\n";
    std::fs::write(place.path().join("psp.toml"), fees).unwrap();
    let place = Arc::new(place);

    let mut kept = ["api", "api", "worker", "worker", "scheduler"].map(Kept::new).into_iter().collect::<Vec<_>>();
    start_ended(&place, &mut kept);
    let addresses: Vec<_> = kept[..2].iter().map(|process| process.address.clone()).collect();
    let left = Arc::new(AtomicUsize::new(payments));
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(post(addresses.clone(), client, Arc::clone(&left)))).collect();
    let tormentor = torment(Arc::clone(&place), server, Arc::clone(&postgres), kept, dice, Arc::clone(&faults));
    let tormentor = tokio::spawn(tormentor);
    for number in 0..POISON {
        send_poison(&endpoint, &prefix, number).await;
    }
    let mut answered = BTreeMap::new();
    for client in clients {
        answered.extend(client.await.unwrap());
    }
    assert_eq!(answered.len(), payments);
    faults.store(false, Ordering::Relaxed);
    let (server, kept) = tormentor.await.unwrap();

    let direct =
        database.url.replacen(database.url.split('@').nth(1).unwrap().split('/').next().unwrap(), &server.socket(), 1);
    verdict::await_quiet(&direct, PATIENCE).await;
    verdict::judge(&direct, &answered).await;
    let begun = Instant::now();
    loop {
        let letters: Value = serde_json::from_str(&place.run(&["dlq", "list", "--json"])).unwrap();
        let letters = letters.as_array().unwrap();
        let bodies: Vec<_> = letters.iter().map(|letter| letter["body"].to_string()).collect();
        assert!(bodies.iter().all(|body| body.contains("poison")), "{letters:#?}");
        if letters.len() == POISON {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {POISON} poison messages are dead letters", letters.len());
        pause().await;
    }
    drop(kept);
}
