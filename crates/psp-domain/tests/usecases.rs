//! The use cases over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{
    AuthorizationResult, Clock, GatewayError, PayableReader, SettlementChunk, Store, StoreError, TransactionReader,
    UnauthorizedTransaction, VaultError,
};
use psp_domain::usecases::{
    AuthorizeError, AuthorizeOutcome, AuthorizeTransaction, CreateError, CreateOutcome, CreateTransaction,
    IdempotentRequest, SettlePayables, Sources,
};
use psp_domain::{
    EventKind, FeeRules, Fingerprint, PageRequest, Payable, SealedCard, StoredAnswer, Transaction, TransactionId,
    TransactionStatus,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;

struct World {
    memory: Arc<Memory>,
    store: Arc<FailingStore>,
    gateway: Arc<ScriptedGateway>,
    clock: Arc<FixedClock>,
    create: CreateTransaction,
    authorize: AuthorizeTransaction,
}

fn world() -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let (vault, gateway) = (Arc::new(PlainVault), Arc::new(ScriptedGateway::default()));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    World {
        create: CreateTransaction::new(store.clone(), memory.clone(), vault.clone(), sources.clone()),
        authorize: AuthorizeTransaction::new(store.clone(), vault, gateway.clone(), FeeRules::default(), sources),
        memory,
        store,
        gateway,
        clock,
    }
}

fn lost() -> StoreError {
    StoreError::OutcomeUnknown("the connection broke".into())
}

fn answer(transaction: &Transaction) -> StoredAnswer {
    StoredAnswer { status: 201, body: transaction.id.to_string() }
}

fn keyed(fingerprint: u8) -> IdempotentRequest {
    IdempotentRequest { key: "key".parse().unwrap(), fingerprint: Fingerprint([fingerprint; 32]) }
}

impl World {
    async fn create(&self, key: Option<IdempotentRequest>) -> Result<CreateOutcome, CreateError> {
        self.create.execute(fixtures::new_transaction(), key, answer).await
    }

    async fn created(&self) -> TransactionId {
        match self.create(None).await.unwrap() {
            CreateOutcome::Created(answer) => answer.body.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn count(&self) -> usize {
        let page = PageRequest::default();
        TransactionReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items.len()
    }

    async fn load(&self, id: TransactionId) -> UnauthorizedTransaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0)
    }

    async fn attempt(&self, id: TransactionId, number: u32) -> Result<AuthorizeOutcome, AuthorizeError> {
        self.authorize.execute(self.load(id).await, number).await
    }

    async fn list_payables(&self) -> Vec<Payable> {
        let page = PageRequest::default();
        PayableReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items
    }

    async fn payables(&self) -> usize {
        self.list_payables().await.len()
    }
}

#[tokio::test]
async fn the_same_key_and_request_give_the_first_answer_and_one_effect() {
    let world = world();
    let CreateOutcome::Created(first) = world.create(Some(keyed(1))).await.unwrap() else { panic!("not created") };
    assert_eq!(world.create(Some(keyed(1))).await.unwrap(), CreateOutcome::Replayed(first));
    assert_eq!(world.create(Some(keyed(2))).await.unwrap(), CreateOutcome::KeyReused);
    assert_eq!(world.count().await, 1);
    world.clock.advance_days(1);
    assert!(matches!(world.create(Some(keyed(2))).await.unwrap(), CreateOutcome::Created(_)), "the key has expired");
}

#[tokio::test]
async fn a_lost_commit_answer_is_resolved_with_one_effect() {
    for after_writing in [true, false] {
        for key in [Some(keyed(1)), None] {
            let world = world();
            world.store.fail_next(lost(), after_writing);
            assert!(matches!(world.create(key).await.unwrap(), CreateOutcome::Created(_)));
            assert_eq!(world.count().await, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_with_one_key_have_one_effect() {
    let world = Arc::new(world());
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.create(Some(keyed(1))).await.unwrap() })
        })
        .collect();
    let (mut created, mut bodies) = (0, HashSet::new());
    for outcome in asked {
        let outcome = outcome.await.unwrap();
        created += usize::from(matches!(outcome, CreateOutcome::Created(_)));
        match outcome {
            CreateOutcome::Created(answer) | CreateOutcome::Replayed(answer) => bodies.insert(answer.body),
            CreateOutcome::KeyReused => panic!("it is the same request"),
        };
    }
    assert_eq!((created, bodies.len(), world.count().await), (1, 1, 1));
}

#[tokio::test]
async fn keys_of_different_customers_never_meet() {
    let world = world();
    for customer in ["123", "456"] {
        let outcome = world.create.execute(fixtures::payment(customer, 2500, 1), Some(keyed(1)), answer).await;
        assert!(matches!(outcome.unwrap(), CreateOutcome::Created(_)), "{customer}");
    }
}

#[tokio::test]
async fn what_stays_unknown_or_was_refused_is_told() {
    let world = world();
    world.store.fail_next(StoreError::Overloaded, false);
    assert!(matches!(world.create(None).await, Err(CreateError::Store(StoreError::Overloaded))));
    world.store.fail_next(lost(), false);
    world.store.fail_next(lost(), false);
    assert!(matches!(world.create(None).await, Err(CreateError::Store(StoreError::OutcomeUnknown(_)))));
    assert_eq!(world.count().await, 0);
    let mut invalid = fixtures::new_transaction();
    invalid.description = "x".repeat(501);
    invalid.amount = psp_domain::Money::new(0, psp_domain::Currency::BRL);
    match world.create.execute(invalid, None, answer).await {
        Err(CreateError::Invalid(faults)) => assert_eq!(faults.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_approval_is_written_with_its_payables() {
    let world = world();
    let id = world.created().await;
    let done = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);
    assert_eq!(world.attempt(id, 1).await.unwrap(), done);
    assert_eq!(world.attempt(id, 2).await.unwrap(), done, "again: nothing");
    assert_eq!((world.payables().await, world.gateway.asked().len()), (1, 1));
    let loaded = world.load(id).await;
    assert_eq!((loaded.transaction.gateway.unwrap().gateway.as_str(), loaded.card), ("scripted", None));
}

#[tokio::test]
async fn a_decline_and_a_gateway_that_never_answers_are_final() {
    let world = world();
    let declined = world.created().await;
    let no = AuthorizationResult::Declined { reason: "do_not_honor".into() };
    world.gateway.answer(Duration::ZERO, Ok(no));
    let outcome = world.attempt(declined, 1).await.unwrap();
    assert_eq!(outcome, AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert_eq!(world.load(declined).await.transaction.status_reason.as_deref(), Some("do_not_honor"));

    let failed = world.created().await;
    for number in 1..=5 {
        world.gateway.answer(Duration::ZERO, Err(GatewayError::TimedOut));
        let outcome = world.attempt(failed, number).await.unwrap();
        let retried = matches!(outcome, AuthorizeOutcome::Retry(_));
        assert_eq!(retried, number < AuthorizeTransaction::MAX_ATTEMPTS, "attempt {number}: {outcome:?}");
    }
    assert_eq!(world.load(failed).await.transaction.status_reason.as_deref(), Some("gateway_timeout"));
    assert_eq!(world.payables().await, 0);
    assert_eq!(world.gateway.voided(), [failed], "before the failure was written");
}

/// An approval as the scripted gateway gives it.
fn approval() -> AuthorizationResult {
    AuthorizationResult::Approved { reference: "ref-7".into() }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_and_written_without_asking_again() {
    let no = AuthorizationResult::Declined { reason: "do_not_honor".into() };
    for (answer, status) in [(approval(), TransactionStatus::PendingPayment), (no, TransactionStatus::Declined)] {
        let world = world();
        let id = world.created().await;
        world.gateway.answer(Duration::ZERO, Err(GatewayError::TimedOut));
        assert!(matches!(world.attempt(id, 1).await.unwrap(), AuthorizeOutcome::Retry(_)));
        assert!(world.gateway.found().is_empty(), "there is nothing to find before the first attempt");
        world.gateway.decide(id, answer);
        assert_eq!(world.attempt(id, 2).await.unwrap(), AuthorizeOutcome::Done(status));
        assert_eq!(world.gateway.asked(), [(id, 1)]);
        assert_eq!(world.payables().await, usize::from(status == TransactionStatus::PendingPayment));
    }
}

#[tokio::test]
async fn while_the_gateway_cannot_tell_what_it_answered_no_card_is_sent() {
    let world = world();
    let id = world.created().await;
    world.gateway.fail_next(GatewayError::Unavailable("out".into()));
    assert!(matches!(world.attempt(id, 2).await.unwrap(), AuthorizeOutcome::Retry(_)));
    assert_eq!((world.gateway.asked(), world.gateway.found()), (vec![], vec![id]));
    let done = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);
    assert_eq!(world.attempt(id, 3).await.unwrap(), done);
    assert_eq!(world.gateway.asked(), [(id, 3)], "it has decided nothing, so it is asked");
}

#[tokio::test]
async fn a_last_attempt_that_fails_is_failed_only_once_it_is_voided() {
    for error in [GatewayError::TimedOut, GatewayError::Unavailable("out".into())] {
        let world = world();
        let id = world.created().await;
        let last = AuthorizeTransaction::MAX_ATTEMPTS;
        world.gateway.answer(Duration::ZERO, Err(error.clone()));
        // It has charged, and cannot be told to take that back.
        world.gateway.decide(id, approval());
        world.gateway.fail_next(GatewayError::Unavailable("out".into()));
        world.gateway.fail_next(GatewayError::TimedOut);
        let outcome = world.attempt(id, last).await.unwrap();
        assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
        assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
        // Replayed as a dead letter, it begins again.
        assert!(matches!(world.attempt(id, 1).await.unwrap(), AuthorizeOutcome::Retry(_)));
        world.gateway.fail_next(error);
        let outcome = world.attempt(id, last).await.unwrap();
        assert_eq!(outcome, AuthorizeOutcome::Done(TransactionStatus::Failed));
        assert_eq!(world.gateway.voided(), [id, id]);
    }
}

#[tokio::test]
async fn a_voided_transaction_is_declined_when_its_failure_was_not_written() {
    let world = world();
    let id = world.created().await;
    psp_domain::ports::Gateway::void(&*world.gateway, id).await.unwrap();
    assert_eq!(world.attempt(id, 1).await.unwrap(), AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert_eq!(world.load(id).await.transaction.status_reason.as_deref(), Some("voided"));
}

#[tokio::test]
async fn a_gateway_that_recovers_is_asked_with_the_number_of_the_attempt() {
    let world = world();
    let id = world.created().await;
    world.gateway.answer(Duration::ZERO, Err(GatewayError::Unavailable("down for maintenance".into())));
    let AuthorizeOutcome::Retry(reason) = world.attempt(id, 1).await.unwrap() else { panic!("not retried") };
    assert!(reason.contains("down for maintenance"), "the reason is kept for the dead letter: {reason}");
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
    let done = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);
    assert_eq!(world.attempt(id, 2).await.unwrap(), done);
    assert_eq!(world.gateway.asked(), [(id, 1), (id, 2)]);
}

#[tokio::test]
async fn a_lost_commit_answer_of_an_approval_is_resolved_by_the_next_attempt() {
    for after_writing in [true, false] {
        let world = world();
        let id = world.created().await;
        world.store.fail_next(lost(), after_writing);
        let error = world.attempt(id, 1).await.unwrap_err();
        assert!(matches!(error, AuthorizeError::Store(StoreError::OutcomeUnknown(_))), "{error:?}");
        let done = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);
        assert_eq!(world.attempt(id, 2).await.unwrap(), done);
        assert_eq!((world.payables().await, world.gateway.asked().len()), (1, 1), "its answer is found");
    }
}

#[tokio::test]
async fn a_card_that_does_not_open_is_told_and_nothing_is_written() {
    let world = world();
    let id = world.created().await;
    let mut loaded = world.load(id).await;
    loaded.card = Some(SealedCard(vec![0xff; 10]));
    let error = world.authorize.execute(loaded, 5).await.unwrap_err();
    assert!(matches!(error, AuthorizeError::Vault(VaultError::Damaged)), "{error:?}");
    assert!(world.gateway.asked().is_empty());
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_at_once_make_each_payable_once() {
    let world = Arc::new(world());
    let CreateOutcome::Created(created) =
        world.create.execute(fixtures::payment("123", 1001, 12), None, answer).await.unwrap()
    else {
        panic!("not created")
    };
    let id: TransactionId = created.body.parse().unwrap();
    let deliveries: Vec<_> = (0..16)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.attempt(id, 1).await.unwrap() })
        })
        .collect();
    for delivery in deliveries {
        let outcome = delivery.await.unwrap();
        let done = outcome == AuthorizeOutcome::Done(TransactionStatus::PendingPayment);
        assert!(done || matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
    }
    assert_eq!(world.payables().await, 12);
    let events = world.memory.events();
    let approved = events.iter().filter(|event| event.kind == EventKind::TransactionApproved).count();
    assert_eq!((events.len(), approved), (2, 1));
}

#[tokio::test]
async fn what_is_written_in_the_clear_holds_no_card_data() {
    let world = world();
    let id = world.created().await;
    world.attempt(id, 1).await.unwrap();
    let (transaction, payables) = (world.load(id).await, world.list_payables().await);
    let written = format!("{transaction:?} {payables:?} {:?}", world.memory.events());
    assert!(!fixtures::card().number.appears_in(&written.replace(&id.to_string(), "")), "{written}");
}

#[tokio::test]
async fn settlement_pays_on_the_day_and_its_progress_is_told() {
    let world = world();
    let id = world.created().await;
    world.attempt(id, 1).await.unwrap();
    let sources = Sources { clock: world.clock.clone(), ..Sources::default() };
    let settle = SettlePayables::new(world.memory.clone(), sources);
    assert_eq!(settle.plan(None, SettlePayables::CHUNK_SIZE).await.unwrap().chunks, 0, "nothing is due today");
    let payment_date = world.list_payables().await[0].payment_date.date_naive();
    assert_eq!(settle.plan(payment_date.pred_opt(), 10).await.unwrap().chunks, 0, "nor the day before");
    let run = settle.plan(Some(payment_date), 10).await.unwrap();
    assert_eq!(run.chunks, 1);
    let settled = settle.settle(SettlementChunk { run_id: run.id, number: 1 }).await.unwrap().unwrap();
    assert_eq!((settled.payables, settled.transactions), (1, 1));
    let progress = settle.progress(run.id).await.unwrap().unwrap();
    assert_eq!((progress.settled_chunks, progress.amounts[0].minor()), (1, 2375));
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Paid);
}

#[tokio::test]
async fn a_slower_worker_writes_nothing() {
    let world = world();
    let id = world.created().await;
    let stale = world.load(id).await;
    let decline = fixtures::decline(&stale.transaction, world.clock.now());
    world.memory.apply(decline).await.unwrap();
    let outcome = world.authorize.execute(stale, 1).await.unwrap();
    assert!(matches!(outcome, AuthorizeOutcome::Retry(_)), "{outcome:?}");
    assert_eq!(world.attempt(id, 2).await.unwrap(), AuthorizeOutcome::Done(TransactionStatus::Declined));
    assert_eq!(world.payables().await, 0);
}

#[tokio::test]
async fn a_missing_card_is_told_and_nothing_is_written() {
    let world = world();
    let id = world.created().await;
    let mut loaded = world.load(id).await;
    loaded.card = None;
    assert!(matches!(world.authorize.execute(loaded, 1).await, Err(AuthorizeError::CardMissing)));
    assert!(world.gateway.asked().is_empty());
    assert_eq!(world.load(id).await.transaction.status, TransactionStatus::Processing);
}
