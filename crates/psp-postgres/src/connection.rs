use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Clock, Health, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::PgOptions;
use crate::classify::unavailable;
use crate::wake::Wake;

/// Connections idle for longer are asked whether they are alive before they are used.
const FRESH: Duration = Duration::from_secs(30);
/// How long a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long closing waits for connections in use.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The production store and queue: implements every store port, the queue ports and the outbox.
pub struct PgStore {
    pub(crate) writes: PgPool,
    /// The connection of the latest batch of change sets.
    pub(crate) writer: Mutex<Option<PoolConnection<Postgres>>>,
    pub(crate) leases: PgPool,
    pub(crate) reads: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: PgOptions,
    pub(crate) wake: Arc<Wake>,
    /// Where the walk over events to purge goes on.
    pub(crate) purged_to: std::sync::Mutex<Uuid>,
    tasks: Vec<JoinHandle<()>>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address or the server.
    #[error("cannot open the Postgres database")]
    Open(#[source] sqlx::Error),
    /// The schema.
    #[error("cannot migrate the Postgres database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl PgStore {
    /// Opens the database and migrates it where needed; several processes may do so at once. A login that may not migrate
    /// can open a schema that is up to date.
    ///
    /// # Errors
    /// [`OpenError`], with the driver's error as its source.
    pub async fn open(options: PgOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        Self::migrate(&options).await?;
        let connect = options.connect().await.map_err(OpenError::Open)?;
        let quarter = (options.connections / 4).max(1);
        let kinds = [(Kind::Writes, 2 * quarter), (Kind::Leases, quarter + 1), (Kind::Reads, quarter)];
        // One of the leases' connections listens.
        let [writes, leases, reads] =
            kinds.map(|(kind, size)| pool(&options, kind, size).connect_lazy_with(kind.set(&connect)));
        let wake = Arc::new(Wake::default());
        let mut tasks = vec![
            tokio::spawn(Arc::clone(&wake).notify_others(leases.clone())),
            tokio::spawn(Arc::clone(&wake).listen(leases.clone())),
        ];
        if options.password_source.is_some() {
            let pools = [Kind::Writes, Kind::Leases, Kind::Reads].into_iter().zip([&writes, &leases, &reads]);
            let pools = pools.map(|(kind, pool)| (kind, pool.clone())).collect();
            tasks.push(tokio::spawn(refresh_password(options.clone(), pools)));
        }
        let purged_to = std::sync::Mutex::default();
        Ok(Arc::new(Self { writes, writer: Mutex::new(None), leases, reads, clock, options, wake, purged_to, tasks }))
    }

    /// Waits for statements under way, at most a few seconds, and closes every connection. Later calls of the ports answer
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        drop(self.writer.lock().await.take());
        let closing = async { tokio::join!(self.reads.close(), self.leases.close(), self.writes.close()) };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("connections to the database were still in use when they were closed");
        }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

impl Drop for PgStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What connections are for.
#[derive(Clone, Copy)]
enum Kind {
    Writes,
    Leases,
    Reads,
}

impl Kind {
    /// The options of a connection of this kind.
    fn set(self, connect: &PgConnectOptions) -> PgConnectOptions {
        // Every statement finds its rows by an index; the planner, which knows nothing of the sizes of arrays, and nothing of
        // a table that has just grown, must not choose to read a whole one.
        let connect = connect.clone().options([("enable_seqscan", "off"), ("jit", "off")]);
        // Writes do so at whatever values, so their plans are made once, perhaps while the tables are still empty. So every
        // statement names the rows of a growing table by a condition on an index (`id = ANY`), besides joining them: else a
        // plan for an empty table might walk its whole index.
        let fixed = ("plan_cache_mode", "force_generic_plan");
        match self {
            Self::Writes => connect.options([fixed]),
            Self::Leases => connect.options([fixed, ("synchronous_commit", "off")]),
            Self::Reads => connect.options([("default_transaction_read_only", "on")]),
        }
    }
}

fn pool(options: &PgOptions, kind: Kind, size: u32) -> PgPoolOptions {
    let pool = PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                if usage.idle_for > FRESH {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    // One connection of the writers stays open: a burst after a pause must not wait for a handshake.
    if matches!(kind, Kind::Writes) { pool.min_connections(1) } else { pool }
}

/// Gives the pools a new password before the old one runs out.
async fn refresh_password(options: PgOptions, pools: Vec<(Kind, PgPool)>) {
    let mut ticks = tokio::time::interval(PgOptions::PASSWORD_REFRESH);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match options.connect().await {
            Ok(connect) => pools.iter().for_each(|(kind, pool)| pool.set_connect_options(kind.set(&connect))),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no new password for the database");
            }
        }
    }
}

#[async_trait]
impl Health for PgStore {
    async fn check(&self) -> Result<(), StoreError> {
        let asked = timeout(HEALTH_TIMEOUT, sqlx::query("SELECT 1").execute(&self.writes)).await;
        asked.map_err(|late| StoreError::Unavailable(Box::new(late)))?.map_err(unavailable)?;
        Ok(())
    }
}
