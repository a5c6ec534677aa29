//! Deliveries to webhook endpoints over one file in several processes.

use std::sync::Arc;
use std::time::Duration;

use psp_domain::Verdict;
use psp_domain::ports::{Clock, DeliveryClaim, DeliveryStore, EndpointStore, EndpointVerdict, Store};
use psp_sqlite::{SqliteOptions, SqliteStore};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use sqlx::{Connection, SqliteConnection};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_write_sees_an_endpoint_of_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(format!("sqlite://{}", dir.path().join("psp.db").display()));
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = SqliteStore::open(options.clone(), clock.clone()).await.unwrap();
    let other = SqliteStore::open(options, clock).await.unwrap();
    let write = async || {
        let (_, created) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
        assert_eq!(store.apply(created).await.unwrap(), Verdict::Applied);
    };
    let claim = async || {
        let leased_until = now + Duration::from_mins(1);
        let asked = DeliveryClaim { now, max: 10, per_endpoint: 10, except: &[], leased_until };
        other.claim_deliveries(asked).await.unwrap()
    };
    write().await;
    let endpoint = fixtures::endpoint("123", &[], now);
    assert_eq!(other.insert_endpoint(&endpoint, None).await.unwrap(), EndpointVerdict::Written);
    write().await;
    assert_eq!(claim().await.len(), 1);
    assert!(other.delete_endpoint(&endpoint.customer_id, endpoint.id).await.unwrap());
    write().await;
    assert!(claim().await.is_empty());
    store.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_for_what_is_due_waits_for_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = SqliteStore::open(SqliteOptions::new(&*url), clock).await.unwrap();
    let endpoint = fixtures::endpoint("123", &[], now);
    assert_eq!(store.insert_endpoint(&endpoint, None).await.unwrap(), EndpointVerdict::Written);
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let asked = DeliveryClaim { now, max: 10, per_endpoint: 10, except: &[], leased_until: now };
    // A writer would wait for as long as SQLite lets it, and then fail.
    assert!(store.claim_deliveries(asked).await.unwrap().is_empty());
    writing.rollback().await.unwrap();
    other.close().await.unwrap();
    store.close().await;
}
