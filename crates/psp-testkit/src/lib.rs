//! Fixtures, fakes, contract suites for every port, and real servers to test with; a dev-dependency only.
//!
//! A contract suite is a list of tests over a [`Ports`] that a factory makes; every adapter runs the same list:
//!
//! ```
//! mod store {
//!     psp_testkit::store_contract!(psp_testkit::fakes::ports);
//! }
//! ```

#![expect(clippy::unwrap_used, reason = "test code asserts")]

pub mod clock;
pub mod contract;
pub mod fakes;
pub mod fixtures;
pub mod servers;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::UuidV7Generator;
use psp_domain::ports::{
    AttemptStore, BalanceReader, CallbackStore, CardTokenStore, DeadLetters, DeliveryStore, EndpointStore, EventStore,
    GatewayStore, IdempotencyStore, OrderReader, PayableReader, Queue, RefundStore, SealedCards, SettlementStore,
    Store, TransactionReader, VaultKeyStore,
};
use psp_domain::usecases::Sources;

/// One adapter's ports over one fresh database, with a clock that the test moves.
pub struct Ports {
    /// Writes.
    pub store: Arc<dyn Store>,
    /// Reads transactions.
    pub transactions: Arc<dyn TransactionReader>,
    /// Reads payables.
    pub payables: Arc<dyn PayableReader>,
    /// Reads balances.
    pub balances: Arc<dyn BalanceReader>,
    /// Reads idempotency keys.
    pub keys: Arc<dyn IdempotencyStore>,
    /// Seals cards anew, and erases them.
    pub sealed_cards: Arc<dyn SealedCards>,
    /// Keeps the vault's keys.
    pub vault_keys: Arc<dyn VaultKeyStore>,
    /// Settles.
    pub settlement: Arc<dyn SettlementStore>,
    /// Reads and sweeps attempts.
    pub attempts: Arc<dyn AttemptStore>,
    /// Reads and sweeps refunds.
    pub refunds: Arc<dyn RefundStore>,
    /// Reads orders, their payments and counts.
    pub orders: Arc<dyn OrderReader>,
    /// Keeps callbacks.
    pub callbacks: Arc<dyn CallbackStore>,
    /// Keeps cards by their tokens.
    pub tokens: Arc<dyn CardTokenStore>,
    /// Keeps gateways and routes.
    pub gateways: Arc<dyn GatewayStore>,
    /// Reads, replays and purges events.
    pub events: Arc<dyn EventStore>,
    /// Keeps webhook endpoints.
    pub endpoints: Arc<dyn EndpointStore>,
    /// The deliveries to them.
    pub deliveries: Arc<dyn DeliveryStore>,
    /// The queue on which the store's messages appear.
    pub queue: Arc<dyn Queue>,
    /// Its dead letters.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The clock of all of them.
    pub clock: Arc<clock::FixedClock>,
    /// Where the queue is a broker with a clock of its own: how long a message may take to come once it is visible. A table
    /// moves with the test's clock.
    pub broker_latency: Option<Duration>,
    /// Whatever must live as long as the ports, such as a directory.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl Ports {
    /// The ports of one adapter that implements them all.
    pub fn of<A>(adapter: Arc<A>, clock: Arc<clock::FixedClock>, guard: impl Any + Send + Sync) -> Self
    where
        A: Store
            + TransactionReader
            + PayableReader
            + BalanceReader
            + IdempotencyStore
            + SealedCards
            + VaultKeyStore
            + SettlementStore
            + AttemptStore
            + RefundStore
            + OrderReader
            + CallbackStore
            + CardTokenStore
            + GatewayStore
            + EventStore
            + EndpointStore
            + DeliveryStore
            + Queue
            + DeadLetters
            + 'static,
    {
        Self {
            store: adapter.clone(),
            transactions: adapter.clone(),
            payables: adapter.clone(),
            balances: adapter.clone(),
            keys: adapter.clone(),
            sealed_cards: adapter.clone(),
            vault_keys: adapter.clone(),
            settlement: adapter.clone(),
            attempts: adapter.clone(),
            refunds: adapter.clone(),
            orders: adapter.clone(),
            callbacks: adapter.clone(),
            tokens: adapter.clone(),
            gateways: adapter.clone(),
            events: adapter.clone(),
            endpoints: adapter.clone(),
            deliveries: adapter.clone(),
            queue: adapter.clone(),
            dead_letters: adapter,
            clock,
            broker_latency: None,
            guard: Box::new(guard),
        }
    }

    /// The clock, and real ids.
    pub fn sources(&self) -> Sources {
        Sources { clock: self.clock.clone(), ids: Arc::new(UuidV7Generator) }
    }
}
