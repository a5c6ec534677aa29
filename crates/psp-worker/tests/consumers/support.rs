use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    Delivery, Gateway, IdGenerator, Message, Queue, QueueDepth, QueueError, Store, TransactionReader, UuidV7Generator,
};
use psp_domain::usecases::{
    AuthorizeOptions, AuthorizeTransaction, Callbacks, CancelTransaction, CreateTransaction, OrderSaga, RefundOptions,
    RefundTransaction, Sources,
};
use psp_domain::{FeeRules, MessageId, QueueName, StoredAnswer, Transaction, TransactionId, TransactionStatus};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;
use psp_worker::{
    ConsumerOptions, Handler, RetryPolicy, RetryingStore, TimeoutGateway, callbacks_handler, consume, orders_handler,
    refunds_handler, transactions_handler,
};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The queue of the memory, which counts extensions and fails as told.
pub(crate) struct SpyQueue {
    pub(crate) memory: Arc<Memory>,
    pub(crate) extensions: AtomicU32,
    pub(crate) outages: AtomicU32,
    /// How many extensions still fail.
    pub(crate) failing_extensions: AtomicU32,
    pub(crate) leases_are_lost: bool,
    /// What a lease is extended under, like the one connection that writes.
    pub(crate) turn: Arc<Mutex<()>>,
}

#[async_trait]
impl Queue for SpyQueue {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        self.memory.send(messages).await
    }
    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        if is_one_left(&self.outages) {
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
        if is_one_left(&self.failing_extensions) {
            return Err(QueueError::Unavailable("out".into()));
        }
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

/// Counts one down; `false` at zero.
fn is_one_left(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    pub(crate) queue: Arc<SpyQueue>,
    pub(crate) gateway: Arc<ScriptedGateway>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) sources: Sources,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn world() -> World {
    world_where(false)
}

pub(crate) fn world_where(leases_are_lost: bool) -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let queue = SpyQueue {
        memory: memory.clone(),
        extensions: AtomicU32::new(0),
        outages: AtomicU32::new(0),
        failing_extensions: AtomicU32::new(0),
        leases_are_lost,
        turn: Arc::default(),
    };
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    let (queue, gateway) = (Arc::new(queue), Arc::new(ScriptedGateway::default()));
    World { memory, queue, gateway, clock, sources, stop: CancellationToken::new() }
}

impl World {
    pub(crate) async fn create(&self) -> TransactionId {
        let vault = Arc::new(PlainVault);
        let create = CreateTransaction::new(self.memory.clone(), self.memory.clone(), vault, self.sources.clone());
        let id = std::sync::Mutex::new(None);
        let answer = |t: &Transaction| {
            *id.lock().unwrap() = Some(t.id);
            StoredAnswer { status: 201, body: String::new() }
        };
        create.execute(fixtures::new_transaction(), None, None, answer).await.unwrap();
        id.into_inner().unwrap().unwrap()
    }

    pub(crate) fn start(&self, name: QueueName, handler: Arc<dyn Handler>) -> JoinHandle<()> {
        let retry = RetryPolicy { base: Duration::from_millis(10), max: Duration::from_millis(50) };
        let options = ConsumerOptions { retry, ..ConsumerOptions::default() };
        tokio::spawn(consume(self.queue.clone(), name, handler, options, self.stop.clone()))
    }

    pub(crate) fn start_transactions(&self) -> JoinHandle<()> {
        self.start_transactions_over(self.memory.clone(), self.memory.clone())
    }

    pub(crate) fn start_transactions_over(
        &self,
        store: Arc<dyn Store>,
        reader: Arc<dyn TransactionReader>,
    ) -> JoinHandle<()> {
        let gateway: Arc<dyn Gateway> = Arc::new(TimeoutGateway::new(self.gateway.clone(), Duration::from_secs(50)));
        let authorize = AuthorizeTransaction::new(
            Arc::new(RetryingStore::new(store)),
            Arc::new(PlainVault),
            Arc::new(FixedDirectory::of([gateway])),
            FeeRules::default(),
            AuthorizeOptions::default(),
            self.sources.clone(),
        );
        self.start(QueueName::Transactions, transactions_handler(Arc::new(authorize), reader))
    }

    pub(crate) fn refunds_over(&self, store: Arc<dyn Store>) -> Arc<RefundTransaction> {
        let directory = Arc::new(FixedDirectory::of([self.gateway.clone() as Arc<dyn Gateway>]));
        let (memory, options) = (&self.memory, RefundOptions::default());
        let sources = self.sources.clone();
        Arc::new(RefundTransaction::new(store, memory.clone(), memory.clone(), directory, options, sources))
    }

    pub(crate) fn start_refunds(&self, store: Arc<dyn Store>) -> JoinHandle<()> {
        let refunds = self.refunds_over(Arc::new(RetryingStore::new(store)));
        self.start(QueueName::Refunds, refunds_handler(refunds))
    }

    pub(crate) fn start_orders(&self, store: Arc<dyn Store>) -> JoinHandle<()> {
        let store: Arc<dyn Store> = Arc::new(RetryingStore::new(store));
        let cancel = CancelTransaction::new(store.clone(), self.memory.clone(), self.sources.clone());
        let saga = OrderSaga::new(
            store.clone(),
            self.memory.clone(),
            self.memory.clone(),
            self.memory.clone(),
            Arc::new(cancel),
            self.refunds_over(store),
            self.sources.clone(),
        );
        self.start(QueueName::Orders, orders_handler(Arc::new(saga)))
    }

    pub(crate) fn callbacks(&self) -> Arc<Callbacks> {
        let directory = Arc::new(FixedDirectory::of([self.gateway.clone() as Arc<dyn Gateway>]));
        let (memory, sources) = (&self.memory, self.sources.clone());
        let callbacks =
            Callbacks::new(memory.clone(), memory.clone(), memory.clone(), directory, FeeRules::default(), sources);
        Arc::new(callbacks)
    }

    pub(crate) fn start_callbacks(&self) -> JoinHandle<()> {
        self.start(QueueName::GatewayCallbacks, callbacks_handler(self.callbacks()))
    }

    pub(crate) async fn transaction(&self, id: TransactionId) -> Transaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0).transaction
    }

    /// Moves the clock until the transaction has that status.
    pub(crate) async fn until(&self, id: TransactionId, status: TransactionStatus) {
        let begun = Instant::now();
        while self.transaction(id).await.status != status {
            assert!(begun.elapsed() < Duration::from_mins(10), "stays {:?}", self.transaction(id).await.status);
            self.tick().await;
        }
    }

    pub(crate) async fn tick(&self) {
        self.clock.advance(Duration::from_millis(100));
        sleep(Duration::from_millis(100)).await;
    }

    pub(crate) async fn pending(&self, queue: QueueName) -> u64 {
        self.memory.depths().await.unwrap().iter().find(|d| d.queue == queue).unwrap().pending
    }

    pub(crate) async fn until_idle(&self, queue: QueueName) {
        let begun = Instant::now();
        while self.pending(queue).await > 0 {
            assert!(begun.elapsed() < Duration::from_mins(10), "messages stay");
            self.tick().await;
        }
    }
}

pub(crate) fn message(queue: QueueName, kind: &str, body: &str) -> Message {
    let (id, aggregate_id) = (MessageId(UuidV7Generator.next_id()), UuidV7Generator.next_id());
    Message { id, queue, kind: kind.into(), aggregate_id, body: body.into() }
}
