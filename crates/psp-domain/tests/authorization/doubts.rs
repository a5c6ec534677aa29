use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{AuthorizationResult, GatewayError, StoreError};
use psp_domain::usecases::{AuthorizeError, AuthorizeOutcome, CancelOutcome};
use psp_domain::{AttemptState, Currency, Money, TransactionKind, TransactionStatus};
use psp_testkit::fixtures;

use crate::support::*;

#[tokio::test]
async fn a_gateway_that_does_not_answer_in_time_is_voided_before_the_next_is_asked() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    assert_eq!(world.round(id).await, APPROVED);
    let expected = [("first", AttemptState::Voided), ("second", AttemptState::Approved)];
    assert_eq!(world.attempts(id).await, states(&expected));
    assert_eq!(world.first.voided(), world.first.references());
}

#[tokio::test]
async fn no_other_gateway_is_asked_while_one_may_have_charged() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.first.fail_next(down());
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Voiding)]));
    assert!(world.second.asked().is_empty());
    // Whatever it says by now: the void was written, so the void it is.
    world.first.decide(world.attempt(id).await.reference, approval());
    assert_eq!(world.round(id).await, APPROVED);
    let expected = [("first", AttemptState::Voided), ("second", AttemptState::Approved)];
    assert_eq!(world.attempts(id).await, states(&expected));
    assert!(world.first.charged().is_empty() && world.second.charged().len() == 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_and_written_without_asking_again() {
    let (no, yes) = (decline("do_not_honor"), approval());
    for (answer, status) in [(yes, TransactionStatus::PendingPayment), (no, TransactionStatus::Declined)] {
        let world = world_of(1);
        let id = world.created().await;
        world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
        assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
        assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Open)]));
        world.first.decide(world.attempt(id).await.reference, answer);
        assert_eq!(world.round(id).await, AuthorizeOutcome::Done(status));
        assert_eq!(world.first.asked(), [id]);
        assert_eq!(world.payables().await, usize::from(status == TransactionStatus::PendingPayment));
    }
}

#[tokio::test]
async fn what_never_arrived_is_sent_again_under_the_same_reference() {
    let world = world_of(1);
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.round(id).await, APPROVED);
    let references = world.first.references();
    assert_eq!((references.len(), references[0]), (2, references[1]));
    assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Approved)]));
}

#[tokio::test]
async fn a_second_request_that_is_not_taken_does_not_prove_that_the_first_was_not() {
    let world = world_of(1);
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.first.answer(Duration::ZERO, Err(down()));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Open)]), "it may still arrive");
    assert_eq!(world.last_round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
    assert_eq!(world.first.voided().len(), 1);
    assert_eq!(world.reason(id).await.as_deref(), Some("gateway_timeout"));
}

#[tokio::test]
async fn what_cannot_be_voided_is_not_failed_but_asked_for_again() {
    let world = world_of(1);
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.first.fail_next(down());
    let outcome = world.last_round(id).await;
    assert!(matches!(&outcome, AuthorizeOutcome::Waiting(reason) if reason.contains("voiding failed")), "{outcome:?}");
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
    assert!(world.attempt(id).await.check_at.is_some(), "a sweep asks for it");
    assert_eq!(world.last_round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
}

#[tokio::test]
async fn a_gateway_that_is_not_configured_any_more_holds_its_attempts() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.first.fail_next(down());
    world.round(id).await;
    world.directory.close();
    let AuthorizeOutcome::Retry(reason) = world.last_round(id).await else { panic!("it is given up") };
    assert!(reason.contains("first is not configured"), "{reason}");
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
}

#[tokio::test]
async fn an_approval_of_another_amount_is_taken_back_and_failed() {
    let world = world();
    let id = world.created().await;
    let amount = Some(Money::new(2501, Currency::BRL));
    world.first.answer(Duration::ZERO, Ok(AuthorizationResult::Approved { reference: "r".into(), amount }));
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
    assert_eq!(world.reason(id).await.as_deref(), Some("wrong_amount"));
    assert!(world.first.charged().is_empty() && world.second.asked().is_empty());
}

#[tokio::test]
async fn a_pending_answer_is_waited_for_and_taken_back_when_its_time_is_over() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference: Some("p-1".into()) }));
    for _ in 0..2 {
        assert!(matches!(world.round(id).await, AuthorizeOutcome::Waiting(_)));
    }
    let attempt = world.attempt(id).await;
    assert_eq!((attempt.state, attempt.gateway_reference.as_deref()), (AttemptState::Pending, Some("p-1")));
    // Past the time for an answer, but not for a decision.
    world.clock.advance(Duration::from_mins(5));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Waiting(_)));
    world.first.fail_next(down());
    assert!(matches!(world.last_round(id).await, AuthorizeOutcome::Waiting(_)), "it cannot tell now");
    world.clock.advance_days(3);
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
    assert_eq!(world.first.voided().len(), 1);
}

#[tokio::test]
async fn a_lost_commit_answer_is_resolved_by_the_next_round() {
    for skipped in 0..2 {
        for after_writing in [true, false] {
            let world = world();
            let id = world.created().await;
            world.store.fail_after(skipped, StoreError::OutcomeUnknown("the connection broke".into()), after_writing);
            let error = world.authorize.execute(world.load(id).await, false).await.unwrap_err();
            assert!(matches!(error, AuthorizeError::Store(StoreError::OutcomeUnknown(_))), "{error:?}");
            assert_eq!(world.round(id).await, APPROVED);
            assert_eq!((world.payables().await, world.first.charged().len()), (1, 1));
        }
    }
}

/// One worker has an approval in hand; another one writes that it is to be voided before the first writes it.
#[tokio::test]
async fn an_approval_that_was_on_its_way_is_not_written_once_its_void_is() {
    let world = world_of(1);
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.round(id).await;
    let (slow, fast) = (world.load(id).await, world.load(id).await);
    world.first.decide(slow.attempts[0].reference, approval());
    world.first.fail_next(GatewayError::TimedOut);
    assert_eq!(world.authorize.execute(fast, true).await.unwrap(), AuthorizeOutcome::Done(TransactionStatus::Failed));
    let outcome = world.authorize.execute(slow, false).await.unwrap();
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_) | AuthorizeOutcome::Overtaken), "{outcome:?}");
    assert!(world.first.charged().is_empty() && world.payables().await == 0);
}

/// One worker's request was not taken; before it has written so, another one has sent the same reference again.
#[tokio::test]
async fn what_was_sent_again_meanwhile_is_not_written_as_not_taken() {
    let world = world();
    let id = world.created().await;
    let slow_refusal = Duration::from_millis(50);
    world.first.answer(slow_refusal, Err(down()));
    let world = Arc::new(world);
    let slow = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.round(id).await }
    });
    while world.first.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    // Taken and charged, and its worker is killed before it writes that.
    let again = world.load(id).await;
    world.store.fail_after(1, StoreError::Overloaded, false);
    let error = world.authorize.execute(again, false).await.unwrap_err();
    assert!(matches!(error, AuthorizeError::Store(StoreError::Overloaded)), "{error:?}");
    assert_eq!(world.first.charged().len(), 1);
    let outcome = slow.await.unwrap();
    assert_eq!(outcome, AuthorizeOutcome::Overtaken);
    assert!(world.second.asked().is_empty(), "the first has charged");
    assert_eq!(world.round(id).await, APPROVED);
    assert_eq!((world.first.charged().len(), world.second.charged().len()), (1, 0));
}

#[tokio::test]
async fn a_cancellation_during_a_call_that_times_out_is_not_lost_to_the_next_gateway() {
    let world = Arc::new(world());
    let id = world.created().await;
    world.first.answer(Duration::from_millis(50), Err(GatewayError::TimedOut));
    let hanging = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.round(id).await }
    });
    while world.first.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let outcome = world.cancel.execute(&CUSTOMER, TransactionKind::Payment, id).await.unwrap();
    assert!(matches!(outcome, CancelOutcome::Requested(_)), "{outcome:?}");
    let outcome = hanging.await.unwrap();
    assert_eq!(outcome, AuthorizeOutcome::Overtaken);
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Cancelled));
    assert!(world.second.asked().is_empty());
}

#[tokio::test]
async fn a_cancellation_is_not_lost_where_the_attempt_is_being_voided_for_another_reason() {
    let world = world_of(1);
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    world.first.fail_next(down());
    world.last_round(id).await;
    assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Voiding)]));
    for _ in 0..2 {
        let outcome = world.cancel.execute(&CUSTOMER, TransactionKind::Payment, id).await.unwrap();
        assert!(matches!(outcome, CancelOutcome::Requested(_)), "{outcome:?}");
    }
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Cancelled));
}

#[tokio::test]
async fn a_transaction_that_no_gateway_holds_is_cancelled_at_once() {
    let world = world();
    let id = world.created().await;
    let cancel = || world.cancel.execute(&CUSTOMER, TransactionKind::Payment, id);
    for _ in 0..2 {
        assert!(matches!(cancel().await.unwrap(), CancelOutcome::Cancelled(_)));
    }
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Cancelled));
    assert!(world.first.asked().is_empty());
    let other = fixtures::customer("456");
    let outcome = world.cancel.execute(&other, TransactionKind::Payment, id).await.unwrap();
    assert_eq!(outcome, CancelOutcome::Unknown);
    let outcome = world.cancel.execute(&CUSTOMER, TransactionKind::Deposit, id).await.unwrap();
    assert_eq!(outcome, CancelOutcome::Unknown);
}

#[tokio::test]
async fn a_transaction_that_a_gateway_holds_is_voided_before_it_is_cancelled() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference: None }));
    world.round(id).await;
    let outcome = world.cancel.execute(&CUSTOMER, TransactionKind::Payment, id).await.unwrap();
    assert!(matches!(outcome, CancelOutcome::Requested(_)), "{outcome:?}");
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Cancelled));
    assert_eq!(world.first.voided().len(), 1);
    let approved = world.created().await;
    world.round(approved).await;
    let outcome = world.cancel.execute(&CUSTOMER, TransactionKind::Payment, approved).await.unwrap();
    assert_eq!(outcome, CancelOutcome::TooLate(TransactionStatus::PendingPayment));
}
