//! The use cases over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashSet;
use std::sync::Arc;

use psp_domain::ports::{PayableReader, SettlementChunk, StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::usecases::{
    AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction, CreateError, CreateOutcome, CreateTransaction,
    IdempotentRequest, SettlePayables, Sources,
};
use psp_domain::{
    FeeRules, Fingerprint, PageRequest, Payable, StoredAnswer, Transaction, TransactionId, TransactionKind,
    TransactionStatus,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;

struct World {
    memory: Arc<Memory>,
    store: Arc<FailingStore>,
    clock: Arc<FixedClock>,
    create: CreateTransaction,
    authorize: AuthorizeTransaction,
}

fn scripted() -> Arc<ScriptedGateway> {
    Arc::default()
}

fn world() -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let (vault, gateways) = (Arc::new(PlainVault), Arc::new(FixedDirectory::of([scripted() as _])));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    World {
        create: CreateTransaction::new(store.clone(), memory.clone(), vault.clone(), sources.clone()),
        authorize: AuthorizeTransaction::new(
            store.clone(),
            vault,
            gateways,
            FeeRules::default(),
            AuthorizeOptions::default(),
            sources,
        ),
        memory,
        store,
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
        self.create.execute(fixtures::new_transaction(), None, key, answer).await
    }

    async fn created(&self) -> TransactionId {
        match self.create(None).await.unwrap() {
            CreateOutcome::Created(answer) => answer.body.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn count(&self) -> usize {
        let page = PageRequest::default();
        TransactionReader::list(&*self.memory, &fixtures::customer("123"), TransactionKind::Payment, page)
            .await
            .unwrap()
            .items
            .len()
    }

    async fn load(&self, id: TransactionId) -> UnauthorizedTransaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0)
    }

    async fn authorize(&self, id: TransactionId) -> AuthorizeOutcome {
        self.authorize.execute(self.load(id).await, false).await.unwrap()
    }

    async fn list_payables(&self) -> Vec<Payable> {
        let page = PageRequest::default();
        PayableReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items
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
            other => panic!("{other:?}"),
        };
    }
    assert_eq!((created, bodies.len(), world.count().await), (1, 1, 1));
}

#[tokio::test]
async fn keys_of_different_customers_never_meet() {
    let world = world();
    for customer in ["123", "456"] {
        let outcome = world.create.execute(fixtures::payment(customer, 2500, 1), None, Some(keyed(1)), answer).await;
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
    match world.create.execute(invalid, None, None, answer).await {
        Err(CreateError::Invalid(faults)) => assert_eq!(faults.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_written_in_the_clear_holds_no_card_data() {
    let world = world();
    let id = world.created().await;
    world.authorize(id).await;
    let (transaction, payables) = (world.load(id).await, world.list_payables().await);
    let written = format!("{transaction:?} {payables:?} {:?}", world.memory.events());
    assert!(!fixtures::card().number.appears_in(&written.replace(&id.to_string(), "")), "{written}");
}

#[tokio::test]
async fn settlement_pays_on_the_day_and_its_progress_is_told() {
    let world = world();
    let id = world.created().await;
    world.authorize(id).await;
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
