use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{AuthorizationResult, BalanceReader, GatewayError, SettlementChunk, Store, StoreError, VOIDED};
use psp_domain::usecases::{RefundOutcome, SettlePayables};
use psp_domain::{
    ChangeSet, Currency, EventKind, Money, PayableStatus, RefundId, RefundStatus, TransactionStatus, Verdict,
};
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;

use crate::support::*;

const GIVEN: RefundOutcome = RefundOutcome::Done(RefundStatus::Succeeded);
const FAILED: RefundOutcome = RefundOutcome::Done(RefundStatus::Failed);

impl World {
    async fn perform(&self, id: RefundId) -> RefundOutcome {
        self.refund.perform(id, false).await.unwrap()
    }

    async fn last_perform(&self, id: RefundId) -> RefundOutcome {
        self.refund.perform(id, true).await.unwrap()
    }
}

fn declined(reason: &str) -> AuthorizationResult {
    AuthorizationResult::Declined { reason: reason.into() }
}

#[tokio::test]
async fn the_gateway_gives_back_once_and_the_balance_follows() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, Some(1_000)).await;
    assert_eq!(world.perform(refund).await, GIVEN);
    assert_eq!(world.perform(refund).await, GIVEN, "again");
    let given = world.first.given_back();
    assert_eq!((given.len(), given[0].reference.0, given[0].amount.minor()), (1, refund.0, 1_000));
    assert_eq!(given[0].of, world.first.references()[0], "the charge that was approved");
    let transaction = world.transaction(id).await;
    assert_eq!((transaction.status, transaction.refunds.done.minor()), (TransactionStatus::Paid, 1_000));
    let balance = world.memory.balance(&customer(), Currency::BRL).await.unwrap();
    // 3 % of 25.00 are kept.
    assert_eq!(balance.available.minor(), 2_425 - 1_000);
    assert_eq!(world.refund(refund).await.gateway_reference, Some(refund.to_string()));
    let rest = world.requested(id, None).await;
    assert_eq!(world.perform(rest).await, GIVEN);
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Refunded);
    assert_eq!(world.perform(RefundId(id.0)).await, RefundOutcome::Unknown);
}

#[tokio::test]
async fn it_is_asked_back_where_it_was_approved_and_under_that_reference() {
    let world = world();
    world.first.answer(Duration::ZERO, Err(GatewayError::Unavailable("out".into())));
    let id = world.approved().await;
    let refund = world.requested(id, None).await;
    assert_eq!(world.perform(refund).await, GIVEN);
    assert!(world.first.refund_requests().is_empty());
    assert_eq!(world.second.given_back()[0].of, world.second.references()[0]);
    assert_ne!(world.second.references()[0].0, id.0, "the second attempt has a reference of its own");
}

#[tokio::test]
async fn any_error_leaves_it_pending_and_it_is_asked_for_again_under_the_same_reference() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, None).await;
    let errors = || {
        [GatewayError::TimedOut, GatewayError::Unavailable("out".into()), GatewayError::Refused("answered 400".into())]
    };
    for error in errors() {
        world.first.answer_refund(Err(error));
        assert!(matches!(world.perform(refund).await, RefundOutcome::Retry(_)));
    }
    for error in errors() {
        world.first.answer_refund(Err(error));
        assert!(matches!(world.last_perform(refund).await, RefundOutcome::Waiting(_)), "sweeps go on");
    }
    assert_eq!(world.transaction(id).await.status, TransactionStatus::PendingRefund);
    assert_eq!(world.perform(refund).await, GIVEN);
    assert!(world.first.refund_requests().iter().all(|asked| asked.reference.0 == refund.0));
}

#[tokio::test]
async fn a_gateway_that_answers_later_is_waited_for_and_one_that_is_not_there_any_more_too() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, None).await;
    world.first.answer_refund(Ok(AuthorizationResult::Pending { reference: None }));
    assert!(matches!(world.perform(refund).await, RefundOutcome::Waiting(_)));
    let gateways = world.directory.close();
    assert!(matches!(world.perform(refund).await, RefundOutcome::Retry(_)));
    assert!(matches!(world.last_perform(refund).await, RefundOutcome::Waiting(_)));
    world.directory.open(gateways);
    assert_eq!(world.perform(refund).await, GIVEN);
}

#[tokio::test]
async fn what_the_gateway_refuses_changes_no_payable_and_may_be_asked_for_again() {
    let world = world();
    let id = world.approved().await;
    for reason in ["not_refundable", VOIDED] {
        let before = world.payables().await;
        let refund = world.requested(id, Some(1_000)).await;
        world.first.answer_refund(Ok(declined(reason)));
        assert_eq!(world.perform(refund).await, FAILED);
        assert_eq!(world.refund(refund).await.reason.as_deref(), Some(reason));
        assert_eq!(world.payables().await, before);
        let transaction = world.transaction(id).await;
        assert_eq!((transaction.status, transaction.refundable().minor()), (TransactionStatus::Paid, 2_500));
        assert!(world.memory.events().iter().any(|event| event.kind == EventKind::TransactionRefundFailed));
    }
    let refund = world.requested(id, None).await;
    assert_eq!(world.perform(refund).await, GIVEN);
}

#[tokio::test]
async fn another_amount_is_taken_back_before_the_refund_has_failed() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, Some(1_000)).await;
    let too_much = Some(Money::new(1_001, Currency::BRL));
    world.first.answer_refund(Ok(AuthorizationResult::Approved { reference: "r".into(), amount: too_much }));
    world.first.fail_next_void(GatewayError::TimedOut);
    assert!(matches!(world.perform(refund).await, RefundOutcome::Retry(_)));
    assert_eq!(world.refund(refund).await.status, RefundStatus::Pending, "it may have been given back");
    assert_eq!(world.first.given_back().len(), 1);
    assert_eq!(world.perform(refund).await, FAILED);
    assert_eq!(world.refund(refund).await.reason.as_deref(), Some("wrong_amount"));
    assert!(world.first.given_back().is_empty(), "it was taken back");
    assert_eq!(world.transaction(id).await.refundable().minor(), 2_500);
}

#[tokio::test]
async fn a_request_that_is_refused_for_a_day_is_voided_before_the_refund_has_failed() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, Some(1_000)).await;
    let refused = || Err(GatewayError::Refused("answered 400".into()));
    world.clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    world.first.answer_refund(refused());
    assert!(matches!(world.perform(refund).await, RefundOutcome::Retry(_)));
    assert!(world.first.voided().is_empty(), "not yet");
    world.clock.advance(Duration::from_secs(1));
    for error in [GatewayError::TimedOut, GatewayError::Unavailable("out".into())] {
        world.first.answer_refund(Err(error));
        assert!(matches!(world.last_perform(refund).await, RefundOutcome::Waiting(_)), "no answer is no refusal");
    }
    assert!(world.first.voided().is_empty(), "an answer may come");
    world.first.answer_refund(refused());
    world.first.fail_next_void(GatewayError::TimedOut);
    assert!(matches!(world.last_perform(refund).await, RefundOutcome::Waiting(_)));
    assert_eq!(world.refund(refund).await.status, RefundStatus::Pending, "an earlier request may have been taken");
    world.first.answer_refund(refused());
    assert_eq!(world.perform(refund).await, FAILED);
    assert!(world.first.voided().iter().all(|reference| reference.0 == refund.0));
    assert_eq!(world.refund(refund).await.reason.as_deref(), Some("gateway_refused"));
    assert!(world.memory.events().iter().any(|event| event.kind == EventKind::TransactionRefundFailed));
    let again = world.requested(id, None).await;
    assert_eq!(world.perform(again).await, GIVEN);
    assert_eq!(world.first.given_back().len(), 1);
}

/// Pays out what waits, before the first write of whoever asks.
struct PaidOutMeanwhile {
    memory: Arc<Memory>,
    settle: SettlePayables,
    is_done: AtomicBool,
}

#[async_trait]
impl Store for PaidOutMeanwhile {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        if !self.is_done.swap(true, Ordering::SeqCst) {
            let later = self.settle.plan(Some("2027-12-31".parse().unwrap()), 10).await.unwrap();
            self.settle.settle(SettlementChunk { run_id: later.id, number: 1 }).await.unwrap();
        }
        self.memory.apply_all(changes).await
    }
}

#[tokio::test]
async fn what_is_paid_out_while_the_gateway_is_asked_is_seen_and_the_gateway_is_not_asked_again() {
    let world = world();
    let id = world.approve(&fixtures::payment("123", 3_000, 3)).await;
    let refund = world.requested(id, Some(1_000)).await;
    let settle = SettlePayables::new(world.memory.clone(), world.sources.clone());
    let store = PaidOutMeanwhile { memory: world.memory.clone(), settle, is_done: AtomicBool::new(false) };
    let meanwhile = refund_over(Arc::new(store), &world.memory, &world.directory, &world.sources);
    assert_eq!(meanwhile.perform(refund, false).await.unwrap(), GIVEN);
    assert_eq!(world.first.refund_requests().len(), 1);
    assert!(world.payables().await.iter().all(|payable| payable.status == PayableStatus::Paid));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Paid);
}

#[tokio::test]
async fn a_lost_commit_answer_ends_the_refund_once() {
    for after_writing in [true, false] {
        let world = world();
        let id = world.approved().await;
        let refund = world.requested(id, Some(1_000)).await;
        world.store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), after_writing);
        assert_eq!(world.perform(refund).await, GIVEN);
        assert_eq!(world.transaction(id).await.refunds.done.minor(), 1_000);
        assert_eq!(world.payables().await.len(), 2);
    }
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_refund_to_the_next_try() {
    let world = world();
    let id = world.approved().await;
    let refund = world.requested(id, None).await;
    world.store.fail_next(StoreError::Overloaded, false);
    assert!(world.refund.perform(refund, false).await.is_err());
    assert_eq!(world.perform(refund).await, GIVEN);
    assert_eq!(world.first.given_back().len(), 1);
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Refunded);
}
