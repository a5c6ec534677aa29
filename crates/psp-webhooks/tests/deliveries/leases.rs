//! Leases that are lost, and writes that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{DeliveryBacklog, DeliveryClaim, DeliveryStore, StoreError};
use psp_domain::{ConcludedDelivery, CustomerId, DeliveryStatus, DueDelivery, EndpointId, MessageId, WebhookDelivery};
use psp_testkit::fakes::Memory;
use tokio::sync::Semaphore;

use crate::receiver::{Receiver, status};
use crate::support::{Case, LEASE, eventually};

#[tokio::test]
async fn what_comes_of_an_attempt_whose_lease_was_lost_is_passed_over() {
    let (case, gate) = (Case::default(), Arc::new(Semaphore::new(0)));
    let held = Arc::clone(&gate);
    let receiver = Receiver::answering(move |number| {
        let held = Arc::clone(&held);
        Box::pin(async move {
            if number == 0 {
                held.acquire().await.unwrap().forget();
                return status(500);
            }
            status(200)
        })
    });
    let receiver = receiver.await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let working = case.start();
    let id = case.event().await;
    eventually(async || receiver.count() == 1).await;
    case.clock.advance(LEASE.saturating_sub(Duration::from_millis(1)));
    case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!(case.delivery(id, &endpoint).await.attempts.len(), 0, "the lease holds");
    case.clock.advance(Duration::from_millis(1));
    let delivered = case.attempted(id, &endpoint, 1).await;
    assert_eq!(delivered.status, DeliveryStatus::Delivered);
    gate.add_permits(1);
    working.stop.cancel();
    working.task.await.unwrap();
    assert_eq!(case.delivery(id, &endpoint).await, delivered);
}

/// A store whose first writes of conclusions fail, written or not.
struct Failing {
    memory: Arc<Memory>,
    failures: AtomicUsize,
    claims: AtomicUsize,
    after_writing: bool,
}

fn lost() -> StoreError {
    StoreError::OutcomeUnknown("the connection was lost".into())
}

fn is_left(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl DeliveryStore for Failing {
    async fn claim_deliveries(&self, claim: DeliveryClaim<'_>) -> Result<Vec<DueDelivery>, StoreError> {
        if is_left(&self.claims) { Err(lost()) } else { self.memory.claim_deliveries(claim).await }
    }

    async fn deliveries_wake(&self, wait: Duration) {
        self.memory.deliveries_wake(wait).await;
    }

    async fn conclude_deliveries(&self, concluded: &[ConcludedDelivery]) -> Result<(), StoreError> {
        let fails = is_left(&self.failures);
        if !fails || self.after_writing {
            self.memory.conclude_deliveries(concluded).await?;
        }
        if fails { Err(lost()) } else { Ok(()) }
    }

    async fn deliveries_of(&self, customer: &CustomerId, event: MessageId) -> Result<Vec<WebhookDelivery>, StoreError> {
        self.memory.deliveries_of(customer, event).await
    }

    async fn redeliver(
        &self,
        customer: &CustomerId,
        event: MessageId,
        endpoint: Option<EndpointId>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.memory.redeliver(customer, event, endpoint, now).await
    }

    async fn delivery_backlog(&self, now: DateTime<Utc>) -> Result<DeliveryBacklog, StoreError> {
        self.memory.delivery_backlog(now).await
    }
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_costs_no_second_delivery() {
    for after_writing in [false, true] {
        let (mut case, receiver) = (Case::default(), Receiver::saying(500).await);
        let (failures, claims) = (AtomicUsize::new(2), AtomicUsize::new(2));
        let memory = case.memory.clone();
        case.ports.deliveries = Arc::new(Failing { memory, failures, claims, after_writing });
        let (endpoint, _) = case.endpoint(&receiver.url()).await;
        let working = case.start();
        let id = case.event().await;
        case.attempted(id, &endpoint, 1).await;
        working.stop.cancel();
        working.task.await.unwrap();
        let delivery = case.delivery(id, &endpoint).await;
        assert_eq!((delivery.attempts.len(), receiver.count()), (1, 1));
    }
}
