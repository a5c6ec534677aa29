use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AttemptStore, AuthorizationRequest, AuthorizationResult, CallbackSignature, DeadLetters, ForgedCallback, Gateway,
    GatewayError, RefundRequest, StoreError, Sweep, TransactionReader, UnauthorizedTransaction,
};
use psp_domain::usecases::{CancelOutcome, CancelTransaction};
use psp_domain::{
    AttemptReference, CustomerId, GatewayName, Page, PageRequest, QueueName, Transaction, TransactionId,
    TransactionKind, TransactionStatus,
};
use psp_testkit::fakes::{FailingStore, Memory};
use psp_testkit::fixtures;
use psp_worker::TimeoutGateway;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn payments_are_approved_and_their_messages_done() {
    let world = world();
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(world.create().await);
    }
    world.start_transactions();
    for id in ids {
        world.until(id, TransactionStatus::PendingPayment).await;
    }
    world.until_idle(QueueName::Transactions).await;
    assert_eq!(world.gateway.asked().len(), 300, "each asked once");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_error_is_retried_and_ends_approved_or_failed() {
    let world = world();
    let healed = world.create().await;
    world.gateway.answer(Duration::ZERO, Err(GatewayError::Unavailable("out".into())));
    world.start_transactions();
    world.until(healed, TransactionStatus::PendingPayment).await;
    assert_eq!(world.gateway.asked(), [healed, healed]);
    for _ in 0..5 {
        world.gateway.answer(Duration::from_mins(5), Err(GatewayError::Unavailable("never heard".into())));
    }
    let failed = world.create().await;
    world.until(failed, TransactionStatus::Failed).await;
    assert_eq!(world.transaction(failed).await.status_reason.as_deref(), Some("gateway_timeout"));
    world.until_idle(QueueName::Transactions).await;
    assert!(
        DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty(),
        "it ended, so it is no dead letter"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_gateway_holds_no_other_payment_back_and_keeps_its_lease() {
    let world = world();
    let reference = |text: &str| Ok(AuthorizationResult::Approved { reference: text.into(), amount: None });
    world.gateway.answer(Duration::from_secs(45), reference("slow"));
    let (slow, quick) = (world.create().await, world.create().await);
    world.start_transactions();
    let begun = Instant::now();
    let first_of_both = async {
        loop {
            for id in [slow, quick] {
                if world.transaction(id).await.status == TransactionStatus::PendingPayment {
                    return;
                }
            }
            world.tick().await;
        }
    };
    first_of_both.await;
    assert!(begun.elapsed() < Duration::from_secs(1), "the quick one waited for the slow one");
    for id in [slow, quick] {
        world.until(id, TransactionStatus::PendingPayment).await;
    }
    world.until_idle(QueueName::Transactions).await;
    assert!(begun.elapsed() >= Duration::from_secs(45));
    // The lease is 30 s and the clock went on: without extensions the message would have come twice.
    assert_eq!(world.gateway.asked().len(), 2);
    assert!(world.queue.extensions.load(Ordering::SeqCst) >= 2);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_charged_and_cannot_be_voided_is_no_dead_letter_but_asked_for_by_sweeps() {
    let world = world();
    world.gateway.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    // Four more deliveries that cannot find, and the void.
    for _ in 0..5 {
        world.gateway.fail_next(GatewayError::Unavailable("out".into()));
    }
    let id = world.create().await;
    world.start_transactions();
    world.until_idle(QueueName::Transactions).await;
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    assert_eq!((world.gateway.asked(), world.gateway.found().len()), (vec![id], 4));
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
    world.clock.advance(Duration::from_mins(2));
    let (least, most) = (chrono::TimeDelta::minutes(1), chrono::TimeDelta::hours(1));
    let sweep = Sweep { now: world.sources.clock.now(), limit: 10, least, most };
    assert_eq!(world.memory.sweep(sweep).await.unwrap(), 1);
    // Voided at last, and asked anew, because its time is not over.
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!((world.gateway.asked(), world.gateway.voided().len()), (vec![id, id], 2));
    assert_eq!(world.gateway.charged().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_comes_back_is_given_its_time_and_no_more() {
    /// Never answers.
    struct Silent;
    #[async_trait]
    impl Gateway for Silent {
        fn name(&self) -> &GatewayName {
            unreachable!("it is asked for answers only")
        }
        async fn authorize(&self, _: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
            std::future::pending().await
        }
        async fn find(&self, _: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
            std::future::pending().await
        }
        async fn void(&self, _: AttemptReference) -> Result<(), GatewayError> {
            std::future::pending().await
        }
        async fn refund(&self, _: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
            std::future::pending().await
        }
        fn verify_callback(&self, _: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
            Ok(())
        }
    }
    let (limit, begun) = (Duration::from_secs(7), Instant::now());
    let gateway = TimeoutGateway::new(Arc::new(Silent), limit);
    let request = psp_testkit::contract::gateway::request("4111111111111111");
    assert_eq!(gateway.authorize(&request).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.find(request.reference).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.void(request.reference).await, Err(GatewayError::TimedOut));
    assert_eq!(begun.elapsed().as_secs(), 3 * limit.as_secs());
}

/// Has one row that makes no sense.
struct DamagedReader(Arc<Memory>, TransactionId);

#[async_trait]
impl TransactionReader for DamagedReader {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        TransactionReader::find(&*self.0, customer, id).await
    }
    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        TransactionReader::list(&*self.0, customer, kind, page).await
    }
    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        if ids.contains(&self.1) {
            return Err(StoreError::Damaged("status".into()));
        }
        self.0.load_for_authorization(ids).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_is_a_dead_letter_and_holds_no_other_back() {
    let world = world();
    let (sound, damaged, another) = (world.create().await, world.create().await, world.create().await);
    world.start_transactions_over(world.memory.clone(), Arc::new(DamagedReader(world.memory.clone(), damaged)));
    for id in [sound, another] {
        world.until(id, TransactionStatus::PendingPayment).await;
    }
    world.until_idle(QueueName::Transactions).await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| d.message.aggregate_id).collect::<Vec<_>>(), [damaged.0]);
    assert!(dead[0].reason.contains("damaged row: status"), "{}", dead[0].reason);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_does_not_make_the_gateway_be_asked_again() {
    let world = world();
    let id = world.create().await;
    let store = Arc::new(FailingStore::new(world.memory.clone()));
    store.fail_next(StoreError::Overloaded, false);
    store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), true);
    world.start_transactions_over(store, world.memory.clone());
    world.until(id, TransactionStatus::PendingPayment).await;
    world.until_idle(QueueName::Transactions).await;
    assert_eq!((world.gateway.asked(), world.gateway.found().len()), (vec![id], 0));
}

/// Cancels a payment while its gateway is asked for it the last time.
#[tokio::test(start_paused = true)]
async fn a_last_delivery_that_was_overtaken_is_not_lost() {
    let world = world();
    let id = world.create().await;
    for _ in 1..QueueName::MAX_RECEIVES {
        world.gateway.answer(Duration::ZERO, Err(GatewayError::Unavailable("out".into())));
    }
    world.gateway.answer(Duration::from_secs(30), Err(GatewayError::TimedOut));
    world.start_transactions();
    while world.gateway.asked().len() < QueueName::MAX_RECEIVES as usize {
        world.tick().await;
    }
    let cancel = CancelTransaction::new(world.memory.clone(), world.memory.clone(), world.sources.clone());
    let customer = fixtures::customer("123");
    let outcome = cancel.execute(&customer, TransactionKind::Payment, id).await.unwrap();
    assert!(matches!(outcome, CancelOutcome::Requested(_)), "{outcome:?}");
    world.until(id, TransactionStatus::Cancelled).await;
    world.until_idle(QueueName::Transactions).await;
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}
