//! The outbox as relays see it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use psp_domain::QueueName;
use psp_domain::ports::{Clock, Delivery, IdGenerator, Outbox, Queue, UuidV7Generator};
use psp_postgres::{PgOptions, PgStore};
use psp_testkit::clock::FixedClock;
use psp_testkit::servers::{self, Database};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

const QUEUE: QueueName = QueueName::Transactions;

struct Case {
    store: Arc<PgStore>,
    clock: Arc<FixedClock>,
    database: Database,
}

async fn case() -> Case {
    let (database, clock) = (servers::database().await, Arc::new(FixedClock::default()));
    // Nobody looks again unless woken.
    let options = PgOptions { poll_interval: Duration::from_mins(1), ..PgOptions::new(database.url.as_str()) };
    let store = PgStore::open(options, clock.clone()).await.unwrap();
    Case { store, clock, database }
}

impl Case {
    /// Writes an event that waits to be sent, as a commit would.
    async fn event(&self, aggregate: Uuid, sequence: i64) {
        self.event_of(QUEUE, aggregate, sequence).await;
    }

    async fn event_of(&self, queue: QueueName, aggregate: Uuid, sequence: i64) {
        let mut connection = PgConnection::connect(&self.database.url).await.unwrap();
        let sql = "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at) \
                   VALUES ($1, 'transaction.created', $2, $3, '123', $4, $5, $6, $5)";
        let query = sqlx::query(sql).bind(UuidV7Generator.next_id()).bind(aggregate).bind(sequence);
        let query = query.bind(sequence.to_string()).bind(self.clock.now()).bind(queue.as_str());
        query.execute(&mut connection).await.unwrap();
    }

    async fn claim(&self) -> Vec<Delivery> {
        self.store.claim(QUEUE, 100, Duration::ZERO).await.unwrap()
    }
}

fn bodies(claimed: &[Delivery]) -> Vec<&str> {
    claimed.iter().map(|delivery| delivery.message.body.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_aggregate_are_claimed_one_after_the_other_and_others_meanwhile() {
    let case = case().await;
    let [one, other] = [UuidV7Generator.next_id(), UuidV7Generator.next_id()];
    // A clock that went back must not matter: the later event has the smaller id and time.
    for sequence in [3, 2, 1] {
        case.event(one, sequence).await;
    }
    for expected in ["1", "2", "3"] {
        let claimed = case.claim().await;
        assert_eq!(bodies(&claimed), [expected]);
        case.event(other, expected.parse().unwrap()).await;
        let meanwhile = case.claim().await;
        assert_eq!(bodies(&meanwhile), [expected], "another aggregate does not wait");
        assert!(case.claim().await.is_empty(), "the next ones wait");
        // Not sent: it comes again, and still before the next one.
        case.store.put_back(&claimed, Duration::from_secs(5), "the broker is down").await.unwrap();
        assert!(case.claim().await.is_empty());
        case.clock.advance(Duration::from_secs(6));
        let again = case.claim().await;
        assert_eq!(bodies(&again), [expected]);
        case.store.mark_sent(&again).await.unwrap();
        case.store.mark_sent(&meanwhile).await.unwrap();
    }
    assert!(case.claim().await.is_empty());
    let depths = case.store.depths().await.unwrap();
    assert!(depths.iter().all(|depth| (depth.pending, depth.dead, depth.oldest) == (0, 0, None)), "{depths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_relay_had_claimed_comes_back_and_never_becomes_poison() {
    let case = case().await;
    case.event(UuidV7Generator.next_id(), 1).await;
    for _ in 0..3 * QueueName::MAX_RECEIVES {
        let claimed = case.claim().await;
        assert_eq!((bodies(&claimed), claimed[0].receive_count), (vec!["1"], 0));
        assert!(case.claim().await.is_empty(), "leased");
        case.clock.advance(case.store.visibility_timeout() + Duration::from_millis(1));
    }
    let outdated = case.claim().await;
    case.clock.advance(case.store.visibility_timeout() + Duration::from_millis(1));
    let current = case.claim().await;
    case.store.mark_sent(&outdated).await.unwrap();
    case.clock.advance(case.store.visibility_timeout() + Duration::from_millis(1));
    assert_eq!(bodies(&case.claim().await), ["1"], "an outdated claim marks nothing");
    case.store.mark_sent(&current).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_at_once_never_claim_the_same_message() {
    let case = Arc::new(case().await);
    for _ in 0..100 {
        case.event(UuidV7Generator.next_id(), 1).await;
    }
    let relays = (0..8).map(|_| {
        let case = Arc::clone(&case);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            loop {
                let claimed = case.store.claim(QUEUE, 7, Duration::ZERO).await.unwrap();
                if claimed.is_empty() {
                    return ids;
                }
                ids.extend(claimed.iter().map(|delivery| delivery.message.id));
            }
        })
    });
    let mut ids = Vec::new();
    for relay in relays.collect::<Vec<_>>() {
        ids.extend(relay.await.unwrap());
    }
    let different: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_wakes_the_relay_of_the_queue_of_the_next_event() {
    let case = case().await;
    let aggregate = UuidV7Generator.next_id();
    case.event_of(QUEUE, aggregate, 1).await;
    case.event_of(QueueName::Orders, aggregate, 2).await;
    let first = case.claim().await;
    assert_eq!(bodies(&first), ["1"]);
    let store = Arc::clone(&case.store);
    let next = tokio::spawn(async move { store.claim(QueueName::Orders, 100, Duration::from_secs(30)).await.unwrap() });
    let begun = std::time::Instant::now();
    case.store.mark_sent(&first).await.unwrap();
    assert_eq!(bodies(&next.await.unwrap()), ["2"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "it was woken");
}
