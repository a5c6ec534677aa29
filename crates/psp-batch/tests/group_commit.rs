//! Group commit over a store whose commits the test lets through one at a time.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use psp_batch::{BatchOptions, BatchingStore};
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, TransactionId, Verdict};
use psp_testkit::fixtures;
use tokio::sync::Semaphore;

/// Records the batches it was given; each commit waits for a permit.
struct GatedStore {
    gate: Semaphore,
    started: Semaphore,
    batches: Mutex<Vec<Vec<TransactionId>>>,
    fails: bool,
}

impl GatedStore {
    fn new(open_commits: usize, fails: bool) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(open_commits),
            started: Semaphore::new(0),
            batches: Mutex::default(),
            fails,
        })
    }

    fn sizes(&self) -> Vec<usize> {
        self.batches.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// Waits until another commit has begun.
    async fn commit_started(&self) {
        self.started.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl Store for GatedStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        self.started.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.batches.lock().unwrap().push(changes.iter().filter_map(ChangeSet::transaction_id).collect());
        if self.fails {
            Err(StoreError::Unavailable("no disk".into()))
        } else {
            Ok(vec![Verdict::Applied; changes.len()])
        }
    }
}

fn options(max_batch: usize, max_waiting: usize) -> BatchOptions {
    BatchOptions { max_batch, max_waiting }
}

type Write = Pin<Box<dyn Future<Output = Result<Verdict, StoreError>>>>;

/// A write that stands in the queue: its future was polled once.
async fn begin(store: &Arc<BatchingStore>) -> Write {
    let store = Arc::clone(store);
    let mut write: Write = Box::pin(async move { store.apply(fixtures::created_change()).await });
    let polled = poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    write
}

#[tokio::test]
async fn writes_that_arrive_during_a_commit_share_the_next_one() {
    let inner = GatedStore::new(0, false);
    let store = BatchingStore::new(inner.clone(), options(256, 4096)).unwrap();
    let mut writes = vec![begin(&store).await];
    inner.commit_started().await;
    for _ in 0..100 {
        writes.push(begin(&store).await);
    }
    inner.gate.add_permits(2);
    for write in writes {
        assert_eq!(write.await.unwrap(), Verdict::Applied);
    }
    assert_eq!(inner.sizes(), [1, 100]);
}

#[tokio::test]
async fn no_commit_takes_more_than_the_largest_batch() {
    let inner = GatedStore::new(0, false);
    let store = BatchingStore::new(inner.clone(), options(10, 4096)).unwrap();
    let mut writes = vec![begin(&store).await];
    inner.commit_started().await;
    for _ in 0..25 {
        writes.push(begin(&store).await);
    }
    inner.gate.add_permits(10);
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(inner.sizes(), [1, 10, 10, 5]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let inner = GatedStore::new(0, false);
    let store = BatchingStore::new(inner.clone(), options(256, 2)).unwrap();
    let mut writes = vec![begin(&store).await];
    inner.commit_started().await;
    writes.push(begin(&store).await);
    writes.push(begin(&store).await);
    assert!(matches!(store.apply(fixtures::created_change()).await, Err(StoreError::Overloaded)));
    let three = (0..3).map(|_| fixtures::created_change()).collect();
    assert!(matches!(store.apply_all(three).await, Err(StoreError::Overloaded)));
    inner.gate.add_permits(10);
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(store.apply(fixtures::created_change()).await.unwrap(), Verdict::Applied);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing() {
    let inner = GatedStore::new(0, false);
    let store = BatchingStore::new(inner.clone(), BatchOptions::default()).unwrap();
    drop(begin(&store).await);
    inner.commit_started().await;
    drop(begin(&store).await);
    inner.gate.add_permits(2);
    store.close().await;
    assert_eq!(inner.sizes(), [1, 1]);
}

#[tokio::test]
async fn closing_writes_what_waits_and_refuses_what_comes_later() {
    let inner = GatedStore::new(0, false);
    let store = BatchingStore::new(inner.clone(), BatchOptions::default()).unwrap();
    let first = begin(&store).await;
    inner.commit_started().await;
    let second = begin(&store).await;
    inner.gate.add_permits(2);
    store.close().await;
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Verdict::Applied, Verdict::Applied));
    let late = store.apply(fixtures::created_change()).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
}

#[tokio::test]
async fn every_caller_of_a_failed_commit_learns_of_it() {
    let inner = GatedStore::new(5, true);
    let store = BatchingStore::new(inner, BatchOptions::default()).unwrap();
    let both = (0..2).map(|_| fixtures::created_change()).collect();
    assert!(matches!(store.apply_all(both).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.apply(fixtures::created_change()).await, Err(StoreError::Unavailable(_))));
}
