use std::sync::Arc;

use psp_domain::ports::{RefundStore, Store, StoreError};
use psp_domain::usecases::{RefundError, RefundRequestOutcome};
use psp_domain::{
    EventKind, Fingerprint, IdempotencyRecord, PaymentMethod, RefundRefused, RefundStatus, StoredAnswer,
    TransactionKind, TransactionStatus,
};
use psp_testkit::fixtures;

use crate::support::*;

#[tokio::test]
async fn a_request_is_durable_with_its_message_and_counts_at_once() {
    let world = world();
    let id = world.approved().await;
    let RefundRequestOutcome::Requested(transaction, refund) = world.request(id, Some(1_000)).await else {
        panic!("not requested")
    };
    assert_eq!((transaction.status, transaction.refundable().minor()), (TransactionStatus::PendingRefund, 1_500));
    assert_eq!(world.transaction(id).await, *transaction);
    assert_eq!(world.refund(refund.id).await, *refund);
    assert_eq!((refund.status, refund.number, refund.amount.minor()), (RefundStatus::Pending, 1, 1_000));
    let asked = world.memory.events().pop().unwrap();
    assert_eq!(asked.kind, EventKind::TransactionRefundRequested);
    assert!(asked.data.contains(&refund.id.to_string()), "{}", asked.data);
    assert!(world.first.refund_requests().is_empty(), "a worker asks the gateway");
    match world.request(id, Some(1_501)).await {
        RefundRequestOutcome::Refused(RefundRefused::Exceeds(left)) => assert_eq!(left.minor(), 1_500),
        other => panic!("{other:?}"),
    }
    world.requested(id, None).await;
    assert_eq!(world.transaction(id).await.refundable().minor(), 0);
}

#[tokio::test]
async fn what_is_not_the_customers_or_not_an_approved_payment_is_told_apart() {
    let world = world();
    let id = world.approved().await;
    let others = world.refund.request(&fixtures::customer("456"), id, None, |_| None).await.unwrap();
    assert_eq!(others, RefundRequestOutcome::Unknown);
    let deposit = fixtures::cardless(TransactionKind::Deposit, PaymentMethod::BankTransfer, 500);
    let deposit = world.approve(&deposit).await;
    let refused = world.request(deposit, None).await;
    assert_eq!(refused, RefundRequestOutcome::Refused(RefundRefused::Kind(TransactionKind::Deposit)));
    let (fresh, change) = fixtures::create(&fixtures::new_transaction(), world.sources.clock.now());
    world.memory.apply(change).await.unwrap();
    let refused = world.request(fresh.id, None).await;
    assert_eq!(refused, RefundRequestOutcome::Refused(RefundRefused::Status(TransactionStatus::Processing)));
    assert!(world.memory.refunds(&customer(), fresh.id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_never_ask_for_more_than_the_amount() {
    let world = Arc::new(world());
    let id = world.approved().await;
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.refund.request(&customer(), id, Some(400), |_| None).await })
        })
        .collect();
    let mut taken = 0;
    for outcome in asked {
        match outcome.await.unwrap() {
            Ok(RefundRequestOutcome::Requested(..)) => taken += 1,
            Ok(RefundRequestOutcome::Refused(RefundRefused::Exceeds(_)))
            | Err(RefundError::Store(StoreError::Overloaded)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=6).contains(&taken), "{taken}");
    let refunds = world.memory.refunds(&customer(), id).await.unwrap();
    assert_eq!(refunds.iter().map(|refund| refund.number).collect::<Vec<_>>(), (1..=taken).collect::<Vec<u16>>());
    assert_eq!(world.transaction(id).await.refunds.pending.minor(), 400 * i64::from(taken));
}

#[tokio::test]
async fn a_lost_commit_answer_is_resolved_with_one_refund() {
    for after_writing in [true, false] {
        let world = world();
        let id = world.approved().await;
        world.store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), after_writing);
        world.requested(id, Some(2_500)).await;
        assert_eq!(world.memory.refunds(&customer(), id).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_key_that_was_used_meanwhile_writes_nothing_and_is_told() {
    let world = world();
    let id = world.approved().await;
    let expires_at = world.sources.clock.now() + chrono::TimeDelta::hours(24);
    let record = |outcome: &RefundRequestOutcome| {
        let RefundRequestOutcome::Requested(_, refund) = outcome else { return None };
        let answer = StoredAnswer { status: 202, body: refund.id.to_string() };
        let (key, fingerprint) = ("key".parse().unwrap(), Fingerprint([1; 32]));
        Some(IdempotencyRecord { customer_id: customer(), key, fingerprint, answer, expires_at })
    };
    let first = world.refund.request(&customer(), id, Some(100), record).await.unwrap();
    assert!(matches!(first, RefundRequestOutcome::Requested(..)), "{first:?}");
    let second = world.refund.request(&customer(), id, Some(100), record).await.unwrap();
    assert_eq!(second, RefundRequestOutcome::KeyTaken);
    assert_eq!(world.memory.refunds(&customer(), id).await.unwrap().len(), 1);
}
