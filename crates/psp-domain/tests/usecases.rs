//! The use cases over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{
    AuthorizationResult, Clock, GatewayError, PayableReader, Store, StoreError, TransactionReader,
    UnauthorizedTransaction,
};
use psp_domain::usecases::{
    AuthorizeError, AuthorizeOutcome, AuthorizeTransaction, CreateError, CreateOutcome, CreateTransaction,
    IdempotentRequest, Sources,
};
use psp_domain::{FeeRules, Fingerprint, PageRequest, StoredAnswer, Transaction, TransactionId, TransactionStatus};
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

    async fn payables(&self) -> usize {
        let page = PageRequest::default();
        PayableReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items.len()
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
