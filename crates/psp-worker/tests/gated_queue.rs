//! Nothing is received, and so nothing counted, while the store is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::QueueName;
use psp_domain::ports::{Clock, Health, Queue, StoreError};
use psp_testkit::{fakes, fixtures};
use psp_worker::GatedQueue;

/// A store that is up or down.
struct Store(AtomicBool);

#[async_trait]
impl Health for Store {
    async fn check(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(StoreError::Unavailable("down".into())) }
    }
}

#[tokio::test]
async fn an_outage_of_the_store_counts_no_attempts() {
    let ports = fakes::ports().await;
    let (_, change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    ports.store.apply(change).await.unwrap();
    let store = Arc::new(Store(AtomicBool::new(false)));
    let queue = GatedQueue::new(ports.queue.clone(), store.clone());
    for _ in 0..3 * QueueName::MAX_RECEIVES {
        assert!(queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.is_err());
    }
    store.0.store(true, Ordering::Relaxed);
    let received = queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    assert_eq!(received.iter().map(|delivery| delivery.receive_count).collect::<Vec<_>>(), [1]);
    assert!(queue.extend(&received[0]).await.unwrap());
    queue.ack(&received).await.unwrap();
    assert_eq!(queue.depths().await.unwrap().iter().map(|depth| depth.pending).sum::<u64>(), 0);
}
