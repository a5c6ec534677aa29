use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{
    CHECK_REFUND_MESSAGE_KIND, DeadLetters, GatewayError, IdGenerator, Queue, RefundStore, StoreError, Sweep,
    UuidV7Generator, check_refund_message,
};
use psp_domain::usecases::RefundRequestOutcome;
use psp_domain::{MessageId, QueueName, RefundId, RefundStatus, TransactionId, TransactionStatus};
use psp_testkit::fakes::FailingStore;
use psp_testkit::fixtures;

use crate::support::*;

impl World {
    /// A payment that is approved.
    async fn approved(&self) -> TransactionId {
        let id = self.create().await;
        self.start_transactions();
        self.until(id, TransactionStatus::PendingPayment).await;
        id
    }

    async fn ask_refund(&self, id: TransactionId) -> RefundId {
        let refunds = self.refunds_over(self.memory.clone());
        match refunds.request(&fixtures::customer("123"), id, None, |_| None).await.unwrap() {
            RefundRequestOutcome::Requested(_, refund) => refund.id,
            other => panic!("{other:?}"),
        }
    }

    async fn refund_status(&self, id: RefundId) -> RefundStatus {
        self.memory.load_refund(id).await.unwrap().unwrap().refund.status
    }

    async fn dead(&self, queue: QueueName) -> Vec<String> {
        let dead = DeadLetters::list(&*self.memory, Some(queue), None, 10).await.unwrap();
        dead.into_iter().map(|letter| letter.reason).collect()
    }
}

fn timed_out(world: &World, times: u32) {
    for _ in 0..times {
        world.gateway.answer_refund(Err(GatewayError::TimedOut));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refund_is_given_back_after_errors_and_its_message_is_done() {
    let world = world();
    let id = world.approved().await;
    timed_out(&world, 2);
    let refund = world.ask_refund(id).await;
    world.start_refunds(world.memory.clone());
    world.until(id, TransactionStatus::Refunded).await;
    world.until_idle(QueueName::Refunds).await;
    assert_eq!((world.gateway.refund_requests().len(), world.gateway.given_back().len()), (3, 1));
    // Asked for once more, by a sweep that was late.
    let message = check_refund_message(MessageId(UuidV7Generator.next_id()), refund);
    world.memory.send(vec![message]).await.unwrap();
    world.until_idle(QueueName::Refunds).await;
    assert_eq!(world.gateway.refund_requests().len(), 3);
    assert!(world.dead(QueueName::Refunds).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_refund_is_put_aside_with_its_reason_and_stops_no_other() {
    let world = world();
    let id = world.approved().await;
    let queue = QueueName::Refunds;
    let requested = "transaction.refund_requested";
    let poison = [
        message(queue, "other", "{}"),
        message(queue, requested, "not JSON"),
        message(queue, requested, r#"{"refund":{"id":7}}"#),
        message(queue, CHECK_REFUND_MESSAGE_KIND, "{}"),
    ];
    world.memory.send(poison.to_vec()).await.unwrap();
    world.ask_refund(id).await;
    world.start_refunds(world.memory.clone());
    world.until(id, TransactionStatus::Refunded).await;
    world.until_idle(queue).await;
    let reasons = world.dead(queue).await;
    let expected = ["not a message for this queue: other", "not an event", "names no refund", "no such refund"];
    assert_eq!(reasons.len(), expected.len());
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_last_delivery_does_not_learn_is_no_dead_letter_but_asked_for_by_sweeps() {
    let world = world();
    let id = world.approved().await;
    timed_out(&world, QueueName::MAX_RECEIVES);
    let refund = world.ask_refund(id).await;
    world.start_refunds(world.memory.clone());
    world.until_idle(QueueName::Refunds).await;
    assert_eq!(world.refund_status(refund).await, RefundStatus::Pending);
    assert!(world.dead(QueueName::Refunds).await.is_empty());
    world.clock.advance(Duration::from_mins(2));
    let (least, most) = (TimeDelta::minutes(1), TimeDelta::hours(1));
    let sweep = Sweep { now: world.sources.clock.now(), limit: 10, least, most };
    assert_eq!(world.memory.sweep_refunds(sweep).await.unwrap(), 1);
    world.until(id, TransactionStatus::Refunded).await;
    assert_eq!(world.gateway.given_back().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_does_not_make_the_gateway_be_asked_for_a_refund_again() {
    let world = world();
    let id = world.approved().await;
    world.ask_refund(id).await;
    let store = Arc::new(FailingStore::new(world.memory.clone()));
    store.fail_next(StoreError::Overloaded, false);
    store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), true);
    world.start_refunds(store);
    world.until(id, TransactionStatus::Refunded).await;
    world.until_idle(QueueName::Refunds).await;
    assert_eq!(world.gateway.refund_requests().len(), 1);
}
