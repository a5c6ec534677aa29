//! Consumers over fakes. Tokio's time is paused, so waiting costs nothing.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, DeadLetters, Delivery, Gateway, GatewayError, IdGenerator, Message,
    PayableReader, Queue, QueueDepth, QueueError, Store, StoreError, TransactionReader, UnauthorizedTransaction,
    UuidV7Generator,
};
use psp_domain::usecases::{AuthorizeTransaction, CreateTransaction, SettlePayables, Sources};
use psp_domain::{
    CustomerId, FeeRules, MessageId, Page, PageRequest, QueueName, StoredAnswer, Transaction, TransactionId,
    TransactionStatus,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;
use psp_worker::{
    ConsumerOptions, Disposition, Handler, Job, RetryPolicy, TimeoutGateway, consume, settlement_handler,
    transactions_handler,
};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The queue of the memory, which counts extensions and fails as told.
struct SpyQueue {
    memory: Arc<Memory>,
    extensions: AtomicU32,
    outages: AtomicU32,
    leases_are_lost: bool,
    /// What a lease is extended under, like the one connection that writes.
    turn: Arc<Mutex<()>>,
}

#[async_trait]
impl Queue for SpyQueue {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        self.memory.send(messages).await
    }
    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let out = self.outages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if out.is_ok() {
            return Err(QueueError::Unavailable("out".into()));
        }
        self.memory.receive(queue, max, wait).await
    }
    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        self.memory.ack(deliveries).await
    }
    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        self.memory.retry(delivery, after, reason).await
    }
    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let _turn = self.turn.lock().await;
        self.extensions.fetch_add(1, Ordering::SeqCst);
        if self.leases_are_lost { Ok(false) } else { self.memory.extend(delivery).await }
    }
    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        self.memory.dead_letter(delivery, reason).await
    }
    fn visibility_timeout(&self) -> Duration {
        self.memory.visibility_timeout()
    }
    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        self.memory.depths().await
    }
}

struct World {
    memory: Arc<Memory>,
    queue: Arc<SpyQueue>,
    gateway: Arc<ScriptedGateway>,
    clock: Arc<FixedClock>,
    sources: Sources,
    stop: CancellationToken,
}

fn world() -> World {
    world_where(false)
}

fn world_where(leases_are_lost: bool) -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let (extensions, outages, turn) = (AtomicU32::new(0), AtomicU32::new(0), Arc::default());
    let queue = SpyQueue { memory: memory.clone(), extensions, outages, leases_are_lost, turn };
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    let (queue, gateway) = (Arc::new(queue), Arc::new(ScriptedGateway::default()));
    World { memory, queue, gateway, clock, sources, stop: CancellationToken::new() }
}

impl World {
    async fn create(&self) -> TransactionId {
        let vault = Arc::new(PlainVault);
        let create = CreateTransaction::new(self.memory.clone(), self.memory.clone(), vault, self.sources.clone());
        let id = std::sync::Mutex::new(None);
        let answer = |t: &Transaction| {
            *id.lock().unwrap() = Some(t.id);
            StoredAnswer { status: 201, body: String::new() }
        };
        create.execute(fixtures::new_transaction(), None, answer).await.unwrap();
        id.into_inner().unwrap().unwrap()
    }

    fn start(&self, name: QueueName, handler: Arc<dyn Handler>) -> JoinHandle<()> {
        let retry = RetryPolicy { base: Duration::from_millis(10), max: Duration::from_millis(50) };
        let options = ConsumerOptions { retry, ..ConsumerOptions::default() };
        tokio::spawn(consume(self.queue.clone(), name, handler, options, self.stop.clone()))
    }

    fn start_transactions(&self) -> JoinHandle<()> {
        self.start_transactions_over(self.memory.clone(), self.memory.clone())
    }

    fn start_transactions_over(&self, store: Arc<dyn Store>, reader: Arc<dyn TransactionReader>) -> JoinHandle<()> {
        let gateway: Arc<dyn Gateway> = Arc::new(TimeoutGateway::new(self.gateway.clone(), Duration::from_secs(50)));
        let (vault, rules) = (Arc::new(PlainVault), FeeRules::default());
        let authorize = AuthorizeTransaction::new(store, vault, gateway, rules, self.sources.clone());
        self.start(QueueName::Transactions, transactions_handler(Arc::new(authorize), reader))
    }

    async fn transaction(&self, id: TransactionId) -> Transaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0).transaction
    }

    /// Moves the clock until the transaction has that status.
    async fn until(&self, id: TransactionId, status: TransactionStatus) {
        let begun = Instant::now();
        while self.transaction(id).await.status != status {
            assert!(begun.elapsed() < Duration::from_mins(10), "stays {:?}", self.transaction(id).await.status);
            self.tick().await;
        }
    }

    async fn tick(&self) {
        self.clock.advance(Duration::from_millis(100));
        sleep(Duration::from_millis(100)).await;
    }

    async fn pending(&self, queue: QueueName) -> u64 {
        self.memory.depths().await.unwrap().iter().find(|d| d.queue == queue).unwrap().pending
    }

    async fn until_idle(&self, queue: QueueName) {
        let begun = Instant::now();
        while self.pending(queue).await > 0 {
            assert!(begun.elapsed() < Duration::from_mins(10), "messages stay");
            self.tick().await;
        }
    }
}

fn message(queue: QueueName, kind: &str, body: &str) -> Message {
    let (id, aggregate_id) = (MessageId(UuidV7Generator.next_id()), UuidV7Generator.next_id());
    Message { id, queue, kind: kind.into(), aggregate_id, body: body.into() }
}

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
    assert_eq!(world.gateway.asked(), [(healed, 1), (healed, 2)]);
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
async fn poison_is_a_dead_letter_with_its_reason_and_stops_no_other() {
    let world = world();
    let poison = [
        message(QueueName::Transactions, "transaction.created", "{}"),
        message(QueueName::Transactions, "unknown.kind", "not JSON"),
    ];
    world.memory.send(poison.to_vec()).await.unwrap();
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    world.until_idle(QueueName::Transactions).await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| d.message.id).collect::<Vec<_>>(), [poison[0].id, poison[1].id]);
    assert!(dead[0].reason.contains("no such transaction") && dead[1].reason.contains("unknown.kind"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_gateway_holds_no_other_payment_back_and_keeps_its_lease() {
    let world = world();
    let reference = |text: &str| Ok(AuthorizationResult::Approved { reference: text.into() });
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
async fn a_lost_lease_leaves_the_message_to_its_new_owner() {
    let world = world_where(true);
    world.gateway.answer(Duration::from_secs(20), Err(GatewayError::TimedOut));
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!(world.gateway.asked(), [(id, 1), (id, 2)], "again after the visibility timeout, and not before");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_charged_and_cannot_be_voided_is_a_dead_letter_that_replays() {
    let world = world();
    world.gateway.answer(Duration::ZERO, Err(GatewayError::TimedOut));
    // Four more attempts that cannot find, and the void.
    for _ in 0..5 {
        world.gateway.fail_next(GatewayError::Unavailable("out".into()));
    }
    let id = world.create().await;
    world.start_transactions();
    let letter = loop {
        match DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().pop() {
            Some(letter) => break letter,
            None => world.tick().await,
        }
    };
    assert!(letter.reason.contains("voiding failed"), "{}", letter.reason);
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    assert_eq!((world.gateway.asked(), world.gateway.found().len()), (vec![(id, 1)], 4));
    assert!(DeadLetters::replay(&*world.memory, letter.message.id).await.unwrap());
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!(world.gateway.voided(), [id]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_comes_back_is_given_its_time_and_no_more() {
    /// Never answers.
    struct Silent;
    #[async_trait]
    impl Gateway for Silent {
        fn name(&self) -> &'static str {
            "silent"
        }
        async fn authorize(&self, _: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
            std::future::pending().await
        }
        async fn find(&self, _: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError> {
            std::future::pending().await
        }
        async fn void(&self, _: TransactionId) -> Result<(), GatewayError> {
            std::future::pending().await
        }
    }
    let (limit, begun) = (Duration::from_secs(7), Instant::now());
    let gateway = TimeoutGateway::new(Arc::new(Silent), limit);
    let request = psp_testkit::contract::gateway::request("4111111111111111", 1);
    assert_eq!(gateway.authorize(&request).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.find(request.transaction_id).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.void(request.transaction_id).await, Err(GatewayError::TimedOut));
    assert_eq!(begun.elapsed().as_secs(), 3 * limit.as_secs());
}

/// Needs what leases are extended under, again and again.
struct BusyHandler(Arc<Mutex<()>>);

#[async_trait]
impl Handler for BusyHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |_| -> Job {
            let turn = self.0.clone();
            Box::pin(async move {
                for _ in 0..8 {
                    let _turn = turn.lock().await;
                    sleep(Duration::from_secs(5)).await;
                }
                Disposition::Done
            })
        };
        deliveries.iter().map(job).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_needs_what_its_lease_needs_goes_on() {
    let world = world();
    let queue = QueueName::PayablesSettlement;
    for body in ["one", "two"] {
        world.memory.send(vec![message(queue, "test", body)]).await.unwrap();
    }
    world.start(queue, Arc::new(BusyHandler(world.queue.turn.clone())));
    world.until_idle(queue).await;
    assert!(world.queue.extensions.load(Ordering::SeqCst) >= 2);
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_outlives_its_grace_is_left_and_the_rest_acknowledged() {
    let world = world();
    world.gateway.answer(Duration::from_secs(45), Err(GatewayError::TimedOut));
    let (slow, quick) = (world.create().await, world.create().await);
    let consumer = world.start_transactions();
    while world.gateway.asked().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    world.stop.cancel();
    let begun = Instant::now();
    consumer.await.unwrap();
    let grace = ConsumerOptions::default().grace;
    assert!((grace..grace + Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let mut statuses = [world.transaction(slow).await.status, world.transaction(quick).await.status];
    statuses.sort_by_key(|status| status.as_str());
    assert_eq!(statuses, [TransactionStatus::PendingPayment, TransactionStatus::Processing]);
    assert_eq!(world.pending(QueueName::Transactions).await, 1);
}

/// Has one row that makes no sense.
struct DamagedReader(Arc<Memory>, TransactionId);

#[async_trait]
impl TransactionReader for DamagedReader {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        TransactionReader::find(&*self.0, customer, id).await
    }
    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Transaction>, StoreError> {
        TransactionReader::list(&*self.0, customer, page).await
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
    assert_eq!(world.gateway.asked(), [(id, 1)]);
}

struct PanickingHandler;

#[async_trait]
impl Handler for PanickingHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        assert!(deliveries.iter().all(|d| d.message.body != "prepare"), "as told");
        let job = |panics: bool| -> Job {
            Box::pin(async move {
                assert!(!panics, "as told");
                Disposition::Done
            })
        };
        deliveries.iter().map(|d| job(d.message.body == "run")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_message_only() {
    let world = world();
    let queue = QueueName::PayablesSettlement;
    for body in ["run", "prepare", "fine"] {
        world.memory.send(vec![message(queue, "test", body)]).await.unwrap();
    }
    world.start(queue, Arc::new(PanickingHandler));
    world.until_idle(queue).await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    assert!(dead.iter().any(|d| d.message.body == "run"));
    assert!(dead.iter().all(|d| d.reason.contains("panicked") && d.receive_count == QueueName::MAX_RECEIVES));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_hand_and_takes_no_more() {
    let world = world();
    let approved = Ok(AuthorizationResult::Approved { reference: "slow".into() });
    world.gateway.answer(Duration::from_secs(5), approved);
    let in_hand = world.create().await;
    let consumer = world.start_transactions();
    while world.gateway.asked().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    world.stop.cancel();
    // What was being claimed when the stop came may still arrive.
    sleep(Duration::from_secs(1)).await;
    let later = world.create().await;
    consumer.await.unwrap();
    assert_eq!(world.transaction(in_hand).await.status, TransactionStatus::PendingPayment);
    assert_eq!(world.transaction(later).await.status, TransactionStatus::Processing);
    assert_eq!(world.pending(QueueName::Transactions).await, 1, "the first was acknowledged");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_queue_is_waited_out() {
    let world = world();
    world.queue.outages.store(5, Ordering::SeqCst);
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!(world.queue.outages.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_delivered_twice_has_one_effect() {
    let world = world();
    let id = world.create().await;
    let again = Message { aggregate_id: id.0, ..message(QueueName::Transactions, "transaction.created", "{}") };
    world.memory.send(vec![again]).await.unwrap();
    world.start_transactions();
    world.until_idle(QueueName::Transactions).await;
    let page = PageRequest::default();
    let payables = PayableReader::list(&*world.memory, &fixtures::customer("123"), page).await.unwrap();
    assert_eq!(payables.items.len(), 1);
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn chunks_are_settled_from_the_queue_and_poison_is_put_aside() {
    let world = world();
    for _ in 0..10 {
        let (transaction, change) = fixtures::create(&fixtures::new_transaction(), world.sources.clock.now());
        world.memory.apply(change).await.unwrap();
        world.memory.apply(fixtures::approve(&transaction, world.sources.clock.now())).await.unwrap();
    }
    let settle = SettlePayables::new(world.memory.clone(), world.sources.clone());
    let date = (world.sources.clock.now() + chrono::Days::new(31)).date_naive();
    let run = settle.plan(Some(date), 3).await.unwrap();
    let queue = QueueName::PayablesSettlement;
    let unknown = format!("{{\"run_id\":\"{}\",\"number\":99}}", run.id);
    for (kind, body) in [("settle_payables", "{}"), ("settle_payables", unknown.as_str()), ("other", "{}")] {
        world.memory.send(vec![message(queue, kind, body)]).await.unwrap();
    }
    world.start(queue, settlement_handler(settle.clone()));
    world.until_idle(queue).await;
    let progress = settle.progress(run.id).await.unwrap().unwrap();
    assert_eq!((progress.chunks, progress.settled_chunks, progress.payables), (4, 4, 10));
    assert_eq!(DeadLetters::list(&*world.memory, Some(queue), None, 10).await.unwrap().len(), 3);
}
