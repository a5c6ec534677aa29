//! Authorization over several gateways, with fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{
    AttemptStore, AuthorizationResult, Clock, Gateway, GatewayError, PayableReader, Store, StoreError,
    TransactionReader, UnauthorizedTransaction, VaultError,
};
use psp_domain::usecases::{
    AuthorizeError, AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction, CancelOutcome, CancelTransaction, Sources,
};
use psp_domain::{
    Attempt, AttemptState, Currency, EventKind, FeeRules, Money, NewTransaction, PageRequest, PaymentMethod,
    SealedCard, TransactionId, TransactionKind, TransactionStatus,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;

struct World {
    memory: Arc<Memory>,
    store: Arc<FailingStore>,
    first: Arc<ScriptedGateway>,
    second: Arc<ScriptedGateway>,
    directory: Arc<FixedDirectory>,
    clock: Arc<FixedClock>,
    authorize: AuthorizeTransaction,
    cancel: CancelTransaction,
}

/// A world with two gateways, of which the first is asked first.
fn world() -> World {
    world_of(2)
}

fn world_of(gateways: usize) -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let (first, second) = (Arc::new(ScriptedGateway::named("first")), Arc::new(ScriptedGateway::named("second")));
    let all: [Arc<dyn Gateway>; 2] = [first.clone(), second.clone()];
    let directory = Arc::new(FixedDirectory::of(all.into_iter().take(gateways)));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    World {
        authorize: AuthorizeTransaction::new(
            store.clone(),
            Arc::new(PlainVault),
            directory.clone(),
            FeeRules::default(),
            AuthorizeOptions::default(),
            sources.clone(),
        ),
        cancel: CancelTransaction::new(store.clone(), memory.clone(), sources),
        memory,
        store,
        first,
        second,
        directory,
        clock,
    }
}

const APPROVED: AuthorizeOutcome = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);

fn approval() -> AuthorizationResult {
    AuthorizationResult::Approved { reference: "ref-7".into(), amount: None }
}

fn decline(reason: &str) -> AuthorizationResult {
    AuthorizationResult::Declined { reason: reason.into() }
}

fn down() -> GatewayError {
    GatewayError::Unavailable("down for maintenance".into())
}

impl World {
    async fn create(&self, new: &NewTransaction) -> TransactionId {
        let (transaction, mut change) = fixtures::create(new, self.clock.now());
        if let (Some(card), psp_domain::TransactionWrite::Insert(_, sealed)) = (&new.card, &mut change.transaction) {
            let vault: &dyn psp_domain::ports::CardVault = &PlainVault;
            *sealed = Some(vault.seal(transaction.id, card).await.unwrap());
        }
        self.memory.apply(change).await.unwrap();
        transaction.id
    }

    async fn created(&self) -> TransactionId {
        self.create(&fixtures::new_transaction()).await
    }

    async fn load(&self, id: TransactionId) -> UnauthorizedTransaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0)
    }

    async fn round(&self, id: TransactionId) -> AuthorizeOutcome {
        self.authorize.execute(self.load(id).await, false).await.unwrap()
    }

    async fn last_round(&self, id: TransactionId) -> AuthorizeOutcome {
        self.authorize.execute(self.load(id).await, true).await.unwrap()
    }

    async fn reason(&self, id: TransactionId) -> Option<String> {
        self.load(id).await.transaction.status_reason
    }

    async fn attempts(&self, id: TransactionId) -> Vec<(String, AttemptState)> {
        let attempts = self.memory.attempts(id).await.unwrap();
        attempts.into_iter().map(|attempt| (attempt.gateway.to_string(), attempt.state)).collect()
    }

    async fn attempt(&self, id: TransactionId) -> Attempt {
        self.memory.attempts(id).await.unwrap().pop().unwrap()
    }

    async fn payables(&self) -> usize {
        let page = PageRequest::default();
        PayableReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items.len()
    }
}

fn states(list: &[(&str, AttemptState)]) -> Vec<(String, AttemptState)> {
    list.iter().map(|(gateway, state)| ((*gateway).to_owned(), *state)).collect()
}

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
        assert!(outcome == APPROVED || matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
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
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert!(world.first.asked().is_empty());
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
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
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
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
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
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::Cancelled));
    assert!(world.second.asked().is_empty());
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

static CUSTOMER: std::sync::LazyLock<psp_domain::CustomerId> = std::sync::LazyLock::new(|| fixtures::customer("123"));
