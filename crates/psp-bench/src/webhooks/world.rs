use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use psp_batch::{BatchOptions, BatchingStore};
use psp_domain::ports::{DeliveryStore, EndpointStore, IdempotencyStore, Store};
use psp_domain::usecases::{NewEndpoint, Sources, WebhookEndpoints};
use psp_domain::{
    ChangeSet, Currency, CustomerId, Event, Installments, Money, Named, NewTransaction, PaymentMethod, Transaction,
    TransactionKind, Verdict, WebhookPolicy,
};
use psp_postgres::{PgOptions, PgStore};
use psp_sqlite::{SqliteOptions, SqliteStore};
use psp_vault::{EnvelopeVault, VaultKeys};
use psp_webhooks::{
    ClientOptions, Deliverer, DeliveryOptions, DeliveryPorts, RandomSecrets, Reach, SystemResolver, UrlRules,
    WebhookClient,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::CONCURRENCY;
use super::receiver::Receivers;
use crate::postgres::CARD_KEY;
use crate::postgres::databases::Databases;

/// Events of one write while deliveries are prepared.
const BATCH: usize = 1_000;

/// Where deliveries are kept.
pub(super) enum Engine {
    Sqlite,
    Postgres(Databases),
}

impl Engine {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "Postgres",
        }
    }
}

/// A store with one endpoint of one customer for each receiver, put together as the product does.
pub(super) struct World {
    pub(super) batching: Arc<BatchingStore>,
    store: Arc<dyn Store>,
    ports: DeliveryPorts,
    opened: Opened,
    customers: Vec<CustomerId>,
}

enum Opened {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PgStore>, String),
}

/// One store, by its ports.
struct Stores {
    store: Arc<dyn Store>,
    deliveries: Arc<dyn DeliveryStore>,
    endpoints: Arc<dyn EndpointStore>,
}

impl Stores {
    fn of<S: Store + DeliveryStore + EndpointStore + 'static>(store: &Arc<S>) -> Self {
        Self { store: store.clone(), deliveries: store.clone(), endpoints: store.clone() }
    }
}

/// The client of a deliverer.
pub(super) fn client() -> anyhow::Result<WebhookClient> {
    let options = ClientOptions { reach: Reach::Loopback, ..ClientOptions::default() };
    let tls = psp_webhooks::native_tls().context("the certificates that this machine trusts")?;
    Ok(WebhookClient::new(&options, tls, Arc::new(SystemResolver))?)
}

impl World {
    /// In a new database.
    pub(super) async fn open(engine: &Engine, dir: &Path, receivers: &Receivers) -> anyhow::Result<Self> {
        let sources = Sources::default();
        let clock = Arc::clone(&sources.clock);
        let (stores, opened) = match engine {
            Engine::Sqlite => {
                let file = sources.ids.next_id();
                let url = format!("sqlite://{}/{file}.db", dir.display());
                let store = SqliteStore::open(SqliteOptions::new(url), clock).await?;
                (Stores::of(&store), Opened::Sqlite(store))
            }
            Engine::Postgres(databases) => {
                let url = databases.create().await?;
                let store = PgStore::open(PgOptions::new(url.clone()), clock).await?;
                (Stores::of(&store), Opened::Postgres(store, url))
            }
        };
        let Stores { store, deliveries, endpoints } = stores;
        let vault = Arc::new(EnvelopeVault::local(VaultKeys::parse(&CARD_KEY.into())?));
        let batching = BatchingStore::new(Arc::clone(&store), BatchOptions::default())?;
        let ports = DeliveryPorts { deliveries, endpoints, vault, sources };
        let mut world = Self { batching, store, ports, opened, customers: Vec::new() };
        world.add_endpoints(receivers).await?;
        Ok(world)
    }

    async fn add_endpoints(&mut self, receivers: &Receivers) -> anyhow::Result<()> {
        let DeliveryPorts { endpoints, vault, sources, .. } = self.ports.clone();
        let (rules, secrets) = (UrlRules { reach: Reach::Loopback }, RandomSecrets::default());
        let keys: Arc<dyn IdempotencyStore> = match &self.opened {
            Opened::Sqlite(store) => store.clone(),
            Opened::Postgres(store, _) => store.clone(),
        };
        let (rules, secrets) = (Arc::new(rules), Arc::new(secrets));
        let endpoints = WebhookEndpoints::new(endpoints, keys, vault, rules, secrets, sources);
        for number in 0..receivers.addresses.len() {
            let customer: CustomerId = format!("customer-{number}").parse()?;
            let new = NewEndpoint { url: receivers.url(number), ..NewEndpoint::default() };
            endpoints.create(customer.clone(), new).await?;
            self.customers.push(customer);
        }
        Ok(())
    }

    /// A new payment of the customer of that receiver, with its event: one delivery.
    pub(super) fn payment(&self, number: usize) -> anyhow::Result<ChangeSet> {
        let (transaction, event) = create(self.customers[number].clone(), &self.ports.sources)?;
        Ok(ChangeSet::create(transaction, None, event))
    }

    /// Writes so many events, of all customers in turns.
    pub(super) async fn prepare(&self, deliveries: usize) -> anyhow::Result<()> {
        for first in (0..deliveries).step_by(BATCH) {
            let numbers = first..deliveries.min(first + BATCH);
            let changes =
                numbers.map(|n| self.payment(n % self.customers.len())).collect::<anyhow::Result<Vec<_>>>()?;
            let verdicts = self.store.apply_all(changes).await?;
            ensure!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied), "an event was not written");
        }
        Ok(())
    }

    /// A deliverer with the product's defaults, at work until it is stopped.
    pub(super) fn deliver(&self, grace: Duration) -> anyhow::Result<(CancellationToken, JoinHandle<()>)> {
        let options = DeliveryOptions { concurrency: CONCURRENCY, grace, ..DeliveryOptions::default() };
        let deliverer = Deliverer::new(self.ports.clone(), client()?, WebhookPolicy::default(), options);
        let stop = CancellationToken::new();
        Ok((stop.clone(), tokio::spawn(deliverer.deliver_until(stop))))
    }

    /// How many deliveries are not made.
    pub(super) async fn pending(&self) -> anyhow::Result<u64> {
        Ok(self.ports.deliveries.delivery_backlog(self.ports.sources.clock.now()).await?.pending)
    }

    pub(super) async fn close(self, engine: &Engine) -> anyhow::Result<()> {
        self.batching.close().await;
        match self.opened {
            Opened::Sqlite(store) => store.close().await,
            Opened::Postgres(store, url) => {
                store.close().await;
                if let Engine::Postgres(databases) = engine {
                    databases.drop(&url).await?;
                }
            }
        }
        Ok(())
    }
}

/// An event such as those that are delivered.
pub(super) fn example() -> anyhow::Result<Event> {
    Ok(create("customer-0".parse()?, &Sources::default())?.1)
}

fn create(customer_id: CustomerId, sources: &Sources) -> anyhow::Result<(Transaction, Event)> {
    let new = NewTransaction {
        kind: TransactionKind::Payment,
        customer_id,
        description: "Lightsaber".into(),
        amount: Money::new(2500, Currency::BRL),
        payment_method: PaymentMethod::Pix,
        card: None,
        installments: Installments::ONE,
        named: Named::default(),
        order: None,
    };
    let created = Transaction::create(&new, sources.clock.now(), sources.ids.as_ref());
    created.map_err(|faults| anyhow::anyhow!("{faults:?}"))
}
