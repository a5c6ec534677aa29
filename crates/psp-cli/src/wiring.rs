//! The adapters behind the ports.

use std::sync::Arc;

use anyhow::Context;
use psp_batch::{BatchOptions, BatchingStore};
use psp_domain::ports::{Gateway, Health};
use psp_domain::usecases::{AuthorizeTransaction, CreateTransaction, SettlePayables, Sources};
use psp_gateways::SandboxGateway;
use psp_rest::{RestOptions, RestPorts};
use psp_sqlite::SqliteStore;
use psp_vault::AesGcmVault;
use psp_worker::{ConsumerOptions, RetryPolicy, TimeoutGateway};

use crate::settings::Settings;

/// The parts that roles and jobs are made of.
pub(crate) struct Wiring {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) batching: Arc<BatchingStore>,
    pub(crate) vault: Arc<AesGcmVault>,
    pub(crate) sources: Sources,
}

impl Wiring {
    /// Opens the database and the vault.
    pub(crate) async fn open(settings: Settings) -> anyhow::Result<Self> {
        let sources = Sources::default();
        let store = SqliteStore::open(settings.sqlite.clone(), Arc::clone(&sources.clock)).await;
        let store = store.with_context(|| format!("database {}", settings.database_file.display()))?;
        let vault = Arc::new(AesGcmVault::new(settings.vault_keys()?)?);
        let options = BatchOptions { max_batch: settings.max_batch, max_waiting: settings.max_waiting_writes };
        let batching = BatchingStore::new(Arc::clone(&store) as _, options).context("the batch writer")?;
        Ok(Self { settings, store, batching, vault, sources })
    }

    /// Writes what waits, then closes the database.
    pub(crate) async fn close(&self) {
        self.batching.close().await;
        self.store.close().await;
    }

    pub(crate) fn health(&self) -> Vec<(&'static str, Arc<dyn Health>)> {
        vec![("store", Arc::clone(&self.store) as _)]
    }

    pub(crate) fn settle(&self) -> SettlePayables {
        SettlePayables::new(Arc::clone(&self.store) as _, self.sources.clone())
    }

    pub(crate) fn authorize(&self) -> AuthorizeTransaction {
        let sandbox: Arc<dyn Gateway> = Arc::new(SandboxGateway::new(self.settings.sandbox_slow));
        let gateway = Arc::new(TimeoutGateway::new(sandbox, self.settings.gateway_timeout));
        let store = Arc::clone(&self.batching) as _;
        let vault = Arc::clone(&self.vault) as _;
        AuthorizeTransaction::new(store, vault, gateway, self.settings.fees.clone(), self.sources.clone())
    }

    pub(crate) fn consumer_options(&self) -> ConsumerOptions {
        ConsumerOptions {
            concurrency: self.settings.worker_concurrency,
            retry: RetryPolicy { base: self.settings.retry_base, max: self.settings.retry_max },
            grace: self.settings.shutdown_grace.mul_f32(0.8),
            ..ConsumerOptions::default()
        }
    }

    pub(crate) fn rest(&self) -> (RestPorts, RestOptions) {
        let create = CreateTransaction::new(
            Arc::clone(&self.batching) as _,
            Arc::clone(&self.store) as _,
            Arc::clone(&self.vault) as _,
            self.sources.clone(),
        );
        let ports = RestPorts {
            create: Arc::new(create),
            transactions: Arc::clone(&self.store) as _,
            payables: Arc::clone(&self.store) as _,
            balances: Arc::clone(&self.store) as _,
            fingerprints: Arc::clone(&self.vault) as _,
            health: self.health(),
        };
        let options = RestOptions {
            default_currency: self.settings.default_currency,
            refuse_expired_cards: self.settings.refuse_expired_cards,
            max_in_flight: self.settings.max_in_flight,
            request_timeout: self.settings.request_timeout,
            clock: Arc::clone(&self.sources.clock),
            ids: Arc::clone(&self.sources.ids),
        };
        (ports, options)
    }
}
