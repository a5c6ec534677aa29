use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Clock, Store, StoreError, VaultError};
use psp_domain::usecases::{AuthorizeError, AuthorizeOutcome};
use psp_domain::{AttemptState, EventKind, PaymentMethod, SealedCard, TransactionKind, TransactionStatus};
use psp_testkit::fixtures;

use crate::support::*;

#[tokio::test]
async fn an_approval_is_written_with_its_payables_and_its_attempt() {
    let world = world();
    let id = world.created().await;
    assert_eq!(world.round(id).await, APPROVED);
    assert_eq!(world.round(id).await, APPROVED, "again: nothing");
    assert_eq!((world.payables().await, world.first.asked()), (1, vec![id]));
    let loaded = world.load(id).await;
    assert_eq!((loaded.transaction.gateway.unwrap().gateway.as_str(), loaded.card), ("first", None));
    assert_eq!(world.attempts(id).await, states(&[("first", AttemptState::Approved)]));
    let attempt = world.attempt(id).await;
    assert_eq!(world.first.references(), [attempt.reference]);
    assert_eq!((attempt.gateway_reference, attempt.check_at), (Some(attempt.reference.to_string()), None));
}

#[tokio::test]
async fn an_attempt_is_durable_before_its_gateway_is_asked() {
    let world = world();
    let id = world.created().await;
    world.store.fail_next(StoreError::Overloaded, false);
    let error = world.authorize.execute(world.load(id).await, false).await.unwrap_err();
    assert!(matches!(error, AuthorizeError::Store(StoreError::Overloaded)), "{error:?}");
    assert!(world.first.asked().is_empty() && world.attempts(id).await.is_empty());
}

#[tokio::test]
async fn a_gateway_that_is_down_is_passed_over_for_the_next() {
    let world = world();
    let id = world.created().await;
    world.first.answer(Duration::ZERO, Err(down()));
    assert_eq!(world.round(id).await, APPROVED);
    let expected = [("first", AttemptState::NotTaken), ("second", AttemptState::Approved)];
    assert_eq!(world.attempts(id).await, states(&expected));
    assert!(world.first.voided().is_empty(), "it took nothing");
}

#[tokio::test]
async fn a_decline_is_final_unless_the_route_says_otherwise() {
    for elsewhere in [false, true] {
        let world = world();
        let id = world.created().await;
        if elsewhere {
            world.directory.retry_declines("issuer_unavailable");
        }
        world.first.answer(Duration::ZERO, Ok(decline("issuer_unavailable")));
        let expected = if elsewhere { APPROVED } else { AuthorizeOutcome::Done(TransactionStatus::Declined) };
        assert_eq!(world.round(id).await, expected);
        assert_eq!(world.second.asked().len(), usize::from(elsewhere));
        let declined = world.created().await;
        world.first.answer(Duration::ZERO, Ok(decline("do_not_honor")));
        assert_eq!(world.round(declined).await, AuthorizeOutcome::Done(TransactionStatus::Declined));
        assert_eq!(world.reason(declined).await.as_deref(), Some("do_not_honor"));
    }
}

#[tokio::test]
async fn a_decline_that_nobody_else_could_better_stays_a_decline() {
    let world = world();
    let id = world.created().await;
    world.directory.retry_declines("issuer_unavailable");
    for gateway in [&world.first, &world.second] {
        gateway.answer(Duration::ZERO, Ok(decline("issuer_unavailable")));
    }
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Declined));
    let expected = [("first", AttemptState::Declined), ("second", AttemptState::Declined)];
    assert_eq!(world.attempts(id).await, states(&expected));
}

#[tokio::test]
async fn when_all_are_down_the_next_round_begins_anew_and_the_last_one_fails() {
    let world = world();
    let id = world.created().await;
    for _ in 0..2 {
        for gateway in [&world.first, &world.second] {
            gateway.answer(Duration::ZERO, Err(down()));
        }
    }
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert!(world.attempt(id).await.check_at.is_none(), "nothing is open");
    assert_eq!(world.last_round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
    assert_eq!(world.reason(id).await.as_deref(), Some("gateway_unavailable"));
    assert_eq!(world.attempts(id).await.len(), 4);
    let references: std::collections::HashSet<_> = world.first.references().into_iter().collect();
    assert_eq!(references.len(), 2, "each attempt has a reference of its own");
}

#[tokio::test]
async fn a_transaction_whose_time_is_over_gets_one_round_and_fails() {
    let world = world();
    let id = world.created().await;
    world.clock.advance_days(1);
    for gateway in [&world.first, &world.second] {
        gateway.answer(Duration::ZERO, Err(down()));
    }
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
}

#[tokio::test]
async fn without_a_gateway_to_ask_it_is_tried_again_and_failed_at_last() {
    let world = world();
    let id = world.created().await;
    let gateways = world.directory.close();
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert!(world.attempts(id).await.is_empty());
    world.directory.open(gateways);
    assert_eq!(world.round(id).await, APPROVED);
    let lonely = world.created().await;
    world.directory.close();
    assert_eq!(world.last_round(lonely).await, AuthorizeOutcome::Done(TransactionStatus::Failed));
}

#[tokio::test]
async fn deposits_and_withdrawals_end_paid_without_payables() {
    for kind in [TransactionKind::Deposit, TransactionKind::Withdrawal] {
        let world = world();
        let id = world.create(&fixtures::cardless(kind, PaymentMethod::BankTransfer, 10_050)).await;
        assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Paid));
        assert_eq!(world.payables().await, 0);
    }
}

#[tokio::test]
async fn a_named_gateway_is_the_only_one_that_is_asked() {
    let world = world();
    let mut new = fixtures::new_transaction();
    new.named.gateway = Some("second".parse().unwrap());
    let id = world.create(&new).await;
    world.second.answer(Duration::ZERO, Err(down()));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!((world.first.asked().len(), world.second.asked().len()), (0, 1));
}

#[tokio::test]
async fn a_card_that_does_not_open_is_told_and_nothing_is_written() {
    let world = world();
    let id = world.created().await;
    let mut loaded = world.load(id).await;
    loaded.card = Some(SealedCard(vec![0xff; 10]));
    let error = world.authorize.execute(loaded, false).await.unwrap_err();
    assert!(matches!(error, AuthorizeError::Vault(VaultError::Damaged)), "{error:?}");
    assert!(world.first.asked().is_empty() && world.attempts(id).await.is_empty());
}

#[tokio::test]
async fn a_transaction_whose_card_was_erased_fails() {
    let world = world();
    let id = world.created().await;
    let mut loaded = world.load(id).await;
    loaded.card = None;
    let outcome = world.authorize.execute(loaded, false).await.unwrap();
    assert_eq!(outcome, AuthorizeOutcome::Done(TransactionStatus::Failed));
    assert_eq!(world.reason(id).await.as_deref(), Some("card_erased"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_at_once_charge_once() {
    let world = Arc::new(world());
    let id = world.create(&fixtures::payment("123", 1001, 12)).await;
    let deliveries: Vec<_> = (0..16)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.round(id).await })
        })
        .collect();
    for delivery in deliveries {
        let outcome = delivery.await.unwrap();
        assert!([APPROVED, AuthorizeOutcome::Overtaken].contains(&outcome), "{outcome:?}");
    }
    assert_eq!((world.payables().await, world.first.charged().len()), (12, 1));
    let events = world.memory.events();
    let approved = events.iter().filter(|event| event.kind == EventKind::TransactionApproved).count();
    assert_eq!((events.len(), approved, events[1].sequence), (2, 1, 2));
}

#[tokio::test]
async fn a_slower_worker_writes_nothing_and_asks_nobody() {
    let world = world();
    let id = world.created().await;
    let stale = world.load(id).await;
    world.memory.apply(fixtures::decline(&stale.transaction, world.clock.now())).await.unwrap();
    let outcome = world.authorize.execute(stale, false).await.unwrap();
    assert_eq!(outcome, AuthorizeOutcome::Overtaken);
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert!(world.first.asked().is_empty());
}

#[tokio::test]
async fn a_gateway_that_declined_is_not_asked_again_and_its_decline_is_the_last_word() {
    let world = world();
    let id = world.created().await;
    world.directory.retry_declines("issuer_unavailable");
    world.first.answer(Duration::ZERO, Ok(decline("issuer_unavailable")));
    for _ in 0..2 {
        world.second.answer(Duration::ZERO, Err(down()));
    }
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.last_round(id).await, AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert_eq!((world.first.asked().len(), world.second.asked().len()), (1, 2));
    assert_eq!(world.reason(id).await.as_deref(), Some("issuer_unavailable"));
}
