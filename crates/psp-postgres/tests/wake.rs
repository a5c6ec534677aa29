//! Receivers are woken by what ports other than the store send.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use psp_domain::ports::{
    AttemptStore, CallbackStore, Clock, Delivery, DeliveryClaim, DeliveryStore, EndpointStore, EndpointVerdict,
    IdGenerator, Queue, Store, Sweep, UuidV7Generator,
};
use psp_domain::{Attempt, Callback, CallbackId, ChangeSet, QueueName, Verdict};
use psp_postgres::{PgOptions, PgStore};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use psp_testkit::servers;

/// How long a receiver waits for what must wake it; nothing else does before.
const PATIENCE: Duration = Duration::from_secs(10);

/// After which nothing is woken any more by what was before.
const SETTLED: Duration = Duration::from_millis(300);

/// Receives one message, which is sent while it looks or waits.
async fn receive(store: &PgStore, queue: QueueName) -> Delivery {
    let begun = Instant::now();
    let received = Queue::receive(store, queue, 10, PATIENCE).await.unwrap();
    assert!(begun.elapsed() < PATIENCE, "nobody woke it");
    received.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_waits_is_woken_by_callbacks_and_sweeps() {
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let database = servers::database().await;
    let mut options = PgOptions::new(database.url.as_str());
    options.poll_interval = 2 * PATIENCE;
    let store = PgStore::open(options, clock).await.unwrap();
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), now);
    let attempt = Attempt { check_at: Some(now), ..fixtures::attempt(&transaction, 1, now) };
    let opens = ChangeSet::of_attempts(transaction.clone(), vec![attempt]);
    assert_eq!(store.apply_all(vec![created, opens]).await.unwrap(), [Verdict::Applied; 2]);
    // Opening the store and the commit have woken receivers, too: these take it.
    for (queue, count) in [(QueueName::Transactions, 1), (QueueName::GatewayCallbacks, 0)] {
        assert_eq!(Queue::receive(&*store, queue, 10, SETTLED).await.unwrap().len(), count);
        assert!(Queue::receive(&*store, queue, 10, SETTLED).await.unwrap().is_empty());
    }

    let callback = Callback {
        id: CallbackId(UuidV7Generator.next_id()),
        transaction_id: transaction.id,
        gateway: "test".parse().unwrap(),
        gateway_reference: "ref-1".into(),
        status: "completed".into(),
        amount: None,
        received_at: now,
        outcome: None,
    };
    let (delivery, is_new) =
        tokio::join!(receive(&store, QueueName::GatewayCallbacks), CallbackStore::receive(&*store, &callback));
    assert!(is_new.unwrap());
    assert_eq!(delivery.message.id.0, callback.id.0);

    let sweep = Sweep { now, limit: 10, least: TimeDelta::minutes(1), most: TimeDelta::hours(1) };
    let (delivery, swept) = tokio::join!(receive(&store, QueueName::Transactions), store.sweep(sweep));
    assert_eq!(swept.unwrap(), 1);
    assert_eq!(delivery.message.aggregate_id, transaction.id.0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_delivers_is_woken_by_the_commits_of_other_processes() {
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let database = servers::database().await;
    let store = PgStore::open(PgOptions::new(database.url.as_str()), clock.clone()).await.unwrap();
    let other = PgStore::open(PgOptions::new(database.url.as_str()), clock).await.unwrap();
    let endpoint = fixtures::endpoint("123", &[], now);
    assert_eq!(store.insert_endpoint(&endpoint, None).await.unwrap(), EndpointVerdict::Written);
    let claim = async || {
        let asked =
            DeliveryClaim { now, max: 10, per_endpoint: 10, except: &[], leased_until: now + TimeDelta::minutes(1) };
        other.claim_deliveries(asked).await.unwrap()
    };
    // It listens by now: listening wakes once.
    other.deliveries_wake(PATIENCE).await;
    let begun = Instant::now();
    let (_, created) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
    assert_eq!(store.apply(created).await.unwrap(), Verdict::Applied);
    while claim().await.is_empty() {
        other.deliveries_wake(PATIENCE).await;
        assert!(begun.elapsed() < PATIENCE, "nobody woke it");
    }
    store.close().await;
    other.close().await;
}
