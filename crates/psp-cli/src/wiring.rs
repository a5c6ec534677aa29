//! The adapters behind the ports.

mod requests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use psp_batch::{BatchOptions, BatchingStore};
use psp_domain::ports::{
    AttemptStore, BalanceReader, CallbackStore, CardTokenStore, DeadLetters, DeliveryStore, EndpointStore, EventStore,
    GatewayStore, Health, IdempotencyStore, Leadership, OrderReader, Outbox, PayableReader, Queue, RefundStore,
    SealedCards, SettlementStore, Store, TransactionReader, VaultKeyStore,
};
use psp_domain::usecases::{
    AuthorizeTransaction, Callbacks, CancelTransaction, OrderSaga, RefundOptions, RefundTransaction, SettlePayables,
    Sources,
};
use psp_domain::{GatewayRecord, QueueName};
use psp_gateways::Directory;
use psp_jobs::Sweeps;
use psp_postgres::{PgLeadership, PgOptions, PgStore};
use psp_sqlite::SqliteStore;
use psp_sqs::SqsQueue;
use psp_vault::{EnvelopeVault, KmsKeys, ReusedKeys};
use psp_webhooks::{ClientOptions, Deliverer, DeliveryOptions, DeliveryPorts, SystemResolver, WebhookClient};
use psp_worker::{ConsumerOptions, GatedQueue, RetryPolicy, RetryingStore};
use tokio::sync::OnceCell;

use crate::gateways::{self, GatewayFactory};
use crate::rds::RdsTokens;
use crate::settings::{Database, Settings};

/// The most settlement chunks in hand: each keeps a connection of the database busy.
const MAX_CHUNKS_AT_ONCE: usize = 3;

/// What handling a message may take beside the gateway's answers.
const BESIDE_THE_GATEWAY: Duration = Duration::from_mins(1);

/// The parts that roles and jobs are made of.
pub(crate) struct Wiring {
    pub(crate) settings: Settings,
    pub(crate) store: StorePorts,
    pub(crate) batching: Arc<BatchingStore>,
    pub(crate) sources: Sources,
    opened: Opened,
    /// The vault, once it was asked for: only what seals or opens cards has keys.
    vault: OnceCell<Arc<EnvelopeVault>>,
    /// The gateways, once they were asked for.
    directory: OnceCell<Arc<Directory>>,
    /// SQS, once it was asked for: what only writes to the outbox works without it.
    sqs: OnceCell<Arc<SqsQueue>>,
}

/// The ports of the database.
pub(crate) struct StorePorts {
    store: Arc<dyn Store>,
    pub(crate) transactions: Arc<dyn TransactionReader>,
    payables: Arc<dyn PayableReader>,
    balances: Arc<dyn BalanceReader>,
    pub(crate) keys: Arc<dyn IdempotencyStore>,
    pub(crate) sealed_cards: Arc<dyn SealedCards>,
    pub(crate) vault_keys: Arc<dyn VaultKeyStore>,
    settlement: Arc<dyn SettlementStore>,
    pub(crate) attempts: Arc<dyn AttemptStore>,
    pub(crate) callbacks: Arc<dyn CallbackStore>,
    refunds: Arc<dyn RefundStore>,
    orders: Arc<dyn OrderReader>,
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) endpoints: Arc<dyn EndpointStore>,
    pub(crate) deliveries: Arc<dyn DeliveryStore>,
    pub(crate) tokens: Arc<dyn CardTokenStore>,
    pub(crate) gateways: Arc<dyn GatewayStore>,
    health: Arc<dyn Health>,
    /// The outbox as a queue.
    pub(crate) queue: Arc<dyn Queue>,
    dead_letters: Arc<dyn DeadLetters>,
    /// Who leads among schedulers; everybody where there is none.
    pub(crate) leadership: Option<Arc<dyn Leadership>>,
}

impl StorePorts {
    fn of<A>(adapter: &Arc<A>, leadership: Option<Arc<dyn Leadership>>) -> Self
    where
        A: Store + TransactionReader + PayableReader + BalanceReader + IdempotencyStore + SettlementStore,
        A: AttemptStore + CallbackStore + CardTokenStore + GatewayStore + SealedCards + VaultKeyStore,
        A: RefundStore + OrderReader + EventStore + EndpointStore + DeliveryStore,
        A: Health + Queue + DeadLetters + 'static,
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
            callbacks: adapter.clone(),
            refunds: adapter.clone(),
            orders: adapter.clone(),
            events: adapter.clone(),
            endpoints: adapter.clone(),
            deliveries: adapter.clone(),
            tokens: adapter.clone(),
            gateways: adapter.clone(),
            health: adapter.clone(),
            queue: adapter.clone(),
            dead_letters: adapter.clone(),
            leadership,
        }
    }
}

/// The open database.
enum Opened {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PgStore>),
}

impl Wiring {
    /// Opens the database, which must be there: a command given in the wrong directory must not find nothing to do in an
    /// empty one.
    pub(crate) async fn open_existing(mut settings: Settings) -> anyhow::Result<Self> {
        if let Database::Sqlite(options, file) = &mut settings.database {
            ensure!(file.exists(), "there is no database {}: `psp` and `psp migrate` make one", file.display());
            options.create = false;
        }
        Box::pin(Self::open(settings)).await
    }

    /// Opens the database, which is created where it may be missing.
    pub(crate) async fn open(settings: Settings) -> anyhow::Result<Self> {
        let sources = Sources::default();
        let clock = Arc::clone(&sources.clock);
        let failed = || format!("database {}", settings.database);
        let (opened, store) = match &settings.database {
            Database::Sqlite(options, _) => {
                let store = SqliteStore::open(options.clone(), clock).await.with_context(failed)?;
                let ports = StorePorts::of(&store, None);
                (Opened::Sqlite(store), ports)
            }
            Database::Postgres(options) => {
                let options = with_login(options, &settings).await?;
                let leadership = Arc::new(PgLeadership::new(options.clone()));
                let store = PgStore::open(options, clock).await.with_context(failed)?;
                let ports = StorePorts::of(&store, Some(leadership));
                (Opened::Postgres(store), ports)
            }
        };
        let options = BatchOptions { max_batch: settings.max_batch, max_waiting: settings.max_waiting_writes };
        let batching = BatchingStore::new(Arc::clone(&store.store), options).context("the batch writer")?;
        Ok(Self {
            settings,
            store,
            batching,
            sources,
            opened,
            vault: OnceCell::new(),
            directory: OnceCell::new(),
            sqs: OnceCell::new(),
        })
    }

    /// Creates or updates the schema; returns the migrations that were applied.
    pub(crate) async fn migrate(settings: &Settings) -> anyhow::Result<Vec<String>> {
        let failed = || format!("database {}", settings.database);
        match &settings.database {
            Database::Sqlite(options, _) => SqliteStore::migrate(&options.url).await.with_context(failed),
            Database::Postgres(options) => {
                PgStore::migrate(&with_login(options, settings).await?).await.with_context(failed)
            }
        }
    }

    /// Lets a login use the tables.
    pub(crate) async fn grant(settings: &Settings, login: &str) -> anyhow::Result<()> {
        let Database::Postgres(options) = &settings.database else { bail!("SQLite knows no logins") };
        let failed = || format!("login {login} for database {}", settings.database);
        PgStore::grant(&with_login(options, settings).await?, login).await.with_context(failed)
    }

    /// Writes what waits, then closes the database.
    pub(crate) async fn close(&self) {
        self.batching.close().await;
        if let Some(leadership) = &self.store.leadership {
            leadership.resign().await;
        }
        match &self.opened {
            Opened::Sqlite(store) => store.close().await,
            Opened::Postgres(store) => store.close().await,
        }
    }

    /// The queue that consumers receive from.
    pub(crate) async fn queue(&self) -> anyhow::Result<Arc<dyn Queue>> {
        Ok(match self.sqs().await? {
            Some(sqs) => Arc::new(GatedQueue::new(sqs, Arc::clone(&self.store.health))),
            None => Arc::clone(&self.store.queue),
        })
    }

    pub(crate) async fn dead_letters(&self) -> anyhow::Result<Arc<dyn DeadLetters>> {
        Ok(match self.sqs().await? {
            Some(sqs) => sqs,
            None => Arc::clone(&self.store.dead_letters),
        })
    }

    /// The outbox and the broker to which a relay moves it; `None` where the outbox is the queue.
    pub(crate) async fn relay(&self) -> anyhow::Result<Option<(Arc<dyn Outbox>, Arc<dyn Queue>)>> {
        match (self.sqs().await?, &self.opened) {
            (Some(sqs), Opened::Postgres(store)) => Ok(Some((Arc::clone(store) as _, sqs))),
            _ => Ok(None),
        }
    }

    async fn sqs(&self) -> anyhow::Result<Option<Arc<SqsQueue>>> {
        let Some(options) = &self.settings.sqs else { return Ok(None) };
        let open = || async {
            let config = psp_sqs::config().load().await;
            SqsQueue::open(&config, options.clone(), Arc::clone(&self.sources.clock)).await
        };
        Ok(Some(Arc::clone(self.sqs.get_or_try_init(open).await?)))
    }

    /// What requests depend on.
    pub(crate) fn health(&self) -> Vec<(&'static str, Arc<dyn Health>)> {
        vec![("store", Arc::clone(&self.store.health))]
    }

    /// What workers depend on.
    pub(crate) async fn worker_health(&self) -> anyhow::Result<Vec<(&'static str, Arc<dyn Health>)>> {
        let mut health = self.health();
        if let Some(sqs) = self.sqs().await? {
            health.push(("queue", sqs));
        }
        Ok(health)
    }

    pub(crate) fn settle(&self) -> SettlePayables {
        SettlePayables::new(Arc::clone(&self.store.settlement), self.sources.clone())
    }

    pub(crate) async fn vault(&self) -> anyhow::Result<Arc<EnvelopeVault>> {
        let open = || async {
            let Some(key) = &self.settings.card_kms_key else {
                return Ok::<_, anyhow::Error>(Arc::new(EnvelopeVault::local(self.settings.vault_keys()?)));
            };
            let config = psp_sqs::config().load().await;
            config.region().context("PSP_CARD_KMS_KEY needs AWS_REGION")?;
            let masters = ReusedKeys::new(Arc::new(KmsKeys::new(&config, key)), Arc::clone(&self.sources.clock));
            Ok(Arc::new(EnvelopeVault::new(Arc::new(masters))))
        };
        Ok(Arc::clone(self.vault.get_or_try_init(open).await?))
    }

    pub(crate) async fn authorize(&self) -> anyhow::Result<AuthorizeTransaction> {
        Ok(AuthorizeTransaction::new(
            self.retrying(),
            self.vault().await?,
            self.directory().await?,
            self.settings.fees.clone(),
            self.settings.authorize,
            self.sources.clone(),
        ))
    }

    pub(crate) async fn callbacks(&self) -> anyhow::Result<Callbacks> {
        Ok(Callbacks::new(
            Arc::clone(&self.batching) as _,
            Arc::clone(&self.store.callbacks),
            Arc::clone(&self.store.transactions),
            self.directory().await?,
            self.settings.fees.clone(),
            self.sources.clone(),
        ))
    }

    /// Refunds: asked for by requests, which are answered when the store fails, and made by workers, which try again in place.
    pub(crate) async fn refund(&self, store: Arc<dyn Store>) -> anyhow::Result<RefundTransaction> {
        let options = RefundOptions {
            fee_policy: self.settings.refund_fee,
            check_after: self.settings.authorize.check_after,
            ..RefundOptions::default()
        };
        Ok(RefundTransaction::new(
            store,
            Arc::clone(&self.store.transactions),
            Arc::clone(&self.store.refunds),
            self.directory().await?,
            options,
            self.sources.clone(),
        ))
    }

    /// Writes for workers.
    pub(crate) fn retrying(&self) -> Arc<dyn Store> {
        Arc::new(RetryingStore::new(Arc::clone(&self.batching) as _))
    }

    fn cancel(&self, store: Arc<dyn Store>) -> CancelTransaction {
        CancelTransaction::new(store, Arc::clone(&self.store.transactions), self.sources.clone())
    }

    /// Delivers events to webhook endpoints; `None` where there are none.
    pub(crate) async fn deliverer(&self) -> anyhow::Result<Option<Deliverer>> {
        let Some(reach) = self.settings.webhook_reach else { return Ok(None) };
        let defaults = ClientOptions::default();
        let options = ClientOptions {
            reach,
            timeout: self.settings.webhook_timeout,
            connect_timeout: defaults.connect_timeout.min(self.settings.webhook_timeout),
            ..defaults
        };
        let tls = psp_webhooks::native_tls().context("the certificates that this machine trusts")?;
        let client = WebhookClient::new(&options, tls, Arc::new(SystemResolver))?;
        let ports = DeliveryPorts {
            deliveries: Arc::clone(&self.store.deliveries),
            endpoints: Arc::clone(&self.store.endpoints),
            vault: self.vault().await?,
            sources: self.sources.clone(),
        };
        let options = DeliveryOptions {
            concurrency: self.settings.webhook_concurrency,
            per_endpoint: self.settings.webhook_endpoint_concurrency,
            grace: self.settings.shutdown_grace.mul_f32(0.7),
            ..DeliveryOptions::default()
        };
        Ok(Some(Deliverer::new(ports, client, self.settings.webhook_policy.clone(), options)))
    }

    pub(crate) async fn order_saga(&self) -> anyhow::Result<OrderSaga> {
        let store = self.retrying();
        Ok(OrderSaga::new(
            Arc::clone(&store),
            Arc::clone(&self.store.orders),
            Arc::clone(&self.store.transactions),
            Arc::clone(&self.store.refunds),
            Arc::new(self.cancel(Arc::clone(&store))),
            Arc::new(self.refund(store).await?),
            self.sources.clone(),
        ))
    }

    /// The gateways of the store, and the one of the settings.
    pub(crate) async fn directory(&self) -> anyhow::Result<Arc<Directory>> {
        let open = || async {
            let factory = GatewayFactory::new(&self.settings, Arc::clone(&self.sources.clock));
            let make = Box::new(move |record: &GatewayRecord| factory.make(record));
            let (store, breaker) = (Arc::clone(&self.store.gateways), self.settings.breaker);
            let directory = Directory::open(store, self.built_in(), make, breaker, self.sources.clone()).await;
            anyhow::Ok(Arc::new(directory.context("the gateways")?))
        };
        Ok(Arc::clone(self.directory.get_or_try_init(open).await?))
    }

    /// The gateway that is there without any in the store.
    pub(crate) fn built_in(&self) -> GatewayRecord {
        gateways::built_in(&self.settings, self.sources.clock.now())
    }

    pub(crate) fn sweeps(&self) -> Sweeps {
        Sweeps {
            attempts: Arc::clone(&self.store.attempts),
            refunds: Arc::clone(&self.store.refunds),
            orders: Arc::clone(&self.store.orders),
            queue: Arc::clone(&self.store.queue),
            clock: Arc::clone(&self.sources.clock),
            least: self.settings.authorize.check_after,
            budget: self.settings.authorize.budget,
        }
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { base: self.settings.retry_base, max: self.settings.retry_max }
    }

    pub(crate) fn consumer_options(&self, queue: QueueName) -> ConsumerOptions {
        let most = if queue == QueueName::PayablesSettlement { MAX_CHUNKS_AT_ONCE } else { usize::MAX };
        ConsumerOptions {
            concurrency: self.settings.worker_concurrency.min(most),
            handler_timeout: self.settings.gateway_timeout * AuthorizeTransaction::MAX_CALLS + BESIDE_THE_GATEWAY,
            retry: self.retry_policy(),
            grace: self.settings.shutdown_grace.mul_f32(0.7),
            ..ConsumerOptions::default()
        }
    }
}

/// The options of Postgres with the tokens of the AWS identity, where it logs in with them.
async fn with_login(options: &PgOptions, settings: &Settings) -> anyhow::Result<PgOptions> {
    let mut options = options.clone();
    if settings.rds_iam {
        options.password_source = Some(Arc::new(RdsTokens::new(&options, Sources::default().clock).await?));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[tokio::test]
    async fn a_message_may_take_longer_than_a_round_over_gateways() {
        for timeout_ms in ["1", "10000", "120000"] {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", dir.path().join("psp.db").display());
            let line = ["psp", "--database-url", &url, "--gateway-timeout-ms", timeout_ms];
            let settings = Settings::load(&Cli::try_parse_from(line).unwrap().settings, true).unwrap();
            let wiring = Wiring::open(settings).await.unwrap();
            let round = wiring.settings.gateway_timeout * AuthorizeTransaction::MAX_CALLS;
            assert_eq!(wiring.settings.gateway_timeout.as_millis().to_string(), timeout_ms);
            for queue in QueueName::ALL {
                let options = wiring.consumer_options(queue);
                assert!(options.handler_timeout > round, "{queue}: {:?} for {round:?}", options.handler_timeout);
            }
            wiring.close().await;
        }
    }
}
