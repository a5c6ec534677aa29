//! Data keys that are used again, over master keys that count their calls.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use psp_domain::ports::VaultError;
use psp_testkit::clock::FixedClock;
use psp_vault::{DataKey, MasterKeys, NewDataKey, ReusedKeys, VaultKeys, WrappedKey};
use tokio::sync::Semaphore;

/// Local keys as a service that counts, fails and waits as told.
struct Service {
    keys: VaultKeys,
    generated: AtomicU32,
    unwrapped: AtomicU32,
    is_away: AtomicBool,
    /// A call takes one of these and gives it back.
    answers: Semaphore,
}

impl Service {
    async fn answer(&self, calls: &AtomicU32) -> Result<(), VaultError> {
        calls.fetch_add(1, Ordering::SeqCst);
        drop(self.answers.acquire().await.unwrap());
        if self.is_away.load(Ordering::SeqCst) { Err(VaultError::Unavailable) } else { Ok(()) }
    }

    fn calls(&self) -> (u32, u32) {
        (self.generated.load(Ordering::SeqCst), self.unwrapped.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl MasterKeys for Service {
    async fn data_key(&self) -> Result<Arc<NewDataKey>, VaultError> {
        self.answer(&self.generated).await?;
        self.keys.data_key().await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError> {
        self.answer(&self.unwrapped).await?;
        self.keys.unwrap_key(wrapped).await
    }
}

fn reused() -> (Arc<Service>, Arc<FixedClock>, ReusedKeys) {
    let keys = VaultKeys::parse(&STANDARD.encode([7; 32]).into()).unwrap();
    let (generated, unwrapped, is_away) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let service = Arc::new(Service { keys, generated, unwrapped, is_away, answers: Semaphore::new(1) });
    let clock = Arc::new(FixedClock::default());
    (Arc::clone(&service), clock.clone(), ReusedKeys::new(service, clock))
}

fn lifetime() -> Duration {
    ReusedKeys::LIFETIME.to_std().unwrap()
}

#[tokio::test]
async fn a_data_key_seals_no_more_records_than_allowed() {
    let (service, _, reused) = reused();
    let first = reused.data_key().await.unwrap();
    for _ in 1..ReusedKeys::MAX_USES {
        assert_eq!(reused.data_key().await.unwrap().wrapped, first.wrapped);
    }
    assert_eq!(service.calls(), (1, 0));
    assert_ne!(reused.data_key().await.unwrap().wrapped, first.wrapped);
    assert_eq!(service.calls(), (2, 0));
}

#[tokio::test]
async fn a_data_key_seals_no_longer_than_allowed() {
    let (service, clock, reused) = reused();
    let first = reused.data_key().await.unwrap();
    clock.advance(lifetime() / 2);
    assert_eq!(reused.data_key().await.unwrap().wrapped, first.wrapped);
    clock.advance(lifetime() / 2);
    assert_ne!(reused.data_key().await.unwrap().wrapped, first.wrapped);
    assert_eq!(service.calls(), (2, 0));
}

#[tokio::test]
async fn an_unwrapped_key_is_remembered_for_a_while() {
    let (service, clock, reused) = reused();
    let wrapped = service.keys.data_key().await.unwrap().wrapped.clone();
    for _ in 0..3 {
        reused.unwrap_key(&wrapped).await.unwrap();
    }
    assert_eq!(service.calls(), (0, 1));
    clock.advance(lifetime());
    reused.unwrap_key(&wrapped).await.unwrap();
    assert_eq!(service.calls(), (0, 2));
}

#[tokio::test]
async fn the_oldest_of_too_many_unwrapped_keys_is_forgotten() {
    let (service, clock, reused) = reused();
    let mut wrapped = Vec::new();
    for _ in 0..=ReusedKeys::MAX_OPENED {
        let key = service.keys.data_key().await.unwrap().wrapped.clone();
        reused.unwrap_key(&key).await.unwrap();
        clock.advance(Duration::from_millis(1));
        wrapped.push(key);
    }
    let calls = u32::try_from(wrapped.len()).unwrap();
    reused.unwrap_key(wrapped.last().unwrap()).await.unwrap();
    reused.unwrap_key(&wrapped[1]).await.unwrap();
    assert_eq!(service.calls(), (0, calls));
    reused.unwrap_key(&wrapped[0]).await.unwrap();
    assert_eq!(service.calls(), (0, calls + 1));
}

#[tokio::test]
async fn a_burst_costs_one_call_even_when_its_first_gives_up() {
    let (service, _, reused) = reused();
    let reused = Arc::new(reused);
    let held = service.answers.acquire().await.unwrap();
    let impatient = tokio::spawn({
        let reused = Arc::clone(&reused);
        async move { reused.data_key().await }
    });
    while service.calls() == (0, 0) {
        tokio::task::yield_now().await;
    }
    let burst: Vec<_> = (0..50)
        .map(|_| {
            let reused = Arc::clone(&reused);
            tokio::spawn(async move { reused.data_key().await.unwrap().wrapped.clone() })
        })
        .collect();
    tokio::task::yield_now().await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    drop(held);
    let mut keys = Vec::new();
    for one in burst {
        keys.push(one.await.unwrap());
    }
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(service.calls(), (1, 0));
}

#[tokio::test]
async fn a_failure_is_not_remembered_and_a_key_in_hand_outlasts_an_outage() {
    let (service, _, reused) = reused();
    service.is_away.store(true, Ordering::SeqCst);
    assert_eq!(reused.data_key().await.map(drop), Err(VaultError::Unavailable));
    service.is_away.store(false, Ordering::SeqCst);
    let key = reused.data_key().await.unwrap();
    reused.unwrap_key(&key.wrapped).await.unwrap();
    service.is_away.store(true, Ordering::SeqCst);
    reused.data_key().await.unwrap();
    reused.unwrap_key(&key.wrapped).await.unwrap();
    let damaged = WrappedKey { bytes: vec![0; 76], ..key.wrapped.clone() };
    assert_eq!(reused.unwrap_key(&damaged).await.map(drop), Err(VaultError::Unavailable));
    service.is_away.store(false, Ordering::SeqCst);
    assert_eq!(reused.unwrap_key(&damaged).await.map(drop), Err(VaultError::Damaged));
}
