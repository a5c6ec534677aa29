use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use psp_domain::QueueName;
use psp_domain::ports::{Clock, Health, StoreError};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{Connection, SqliteConnection, SqliteTransaction};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::timeout;
use uuid::Uuid;

use crate::SqliteOptions;

/// The migrations of this program. Those of a later one are no fault: a release that is rolled back finds the newer schema.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../../migrations/sqlite");
    migrations.set_ignore_missing(true);
    migrations
}

/// How long a look at the store's health waits for the connection that writes: less than who asks.
const WRITERS_TURN: Duration = Duration::from_millis(1500);

/// The embedded store and queue: implements every store port and the queue ports.
pub struct SqliteStore {
    /// The one connection that writes; `None` once closed.
    writer: Mutex<Option<SqliteConnection>>,
    pub(crate) readers: SqlitePool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: SqliteOptions,
    /// A write has failed, and none has been seen to succeed since.
    has_failed: AtomicBool,
    /// Wakes the receivers of a queue after a commit that sent to it.
    wake: [Notify; QueueName::ALL.len()],
    /// Wakes who delivers to webhook endpoints after a commit that made deliveries.
    pub(crate) deliverers: Notify,
    /// Where the walk over events to purge goes on.
    pub(crate) purged_to: std::sync::Mutex<Uuid>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address or the file.
    #[error("cannot open the SQLite database")]
    Open(#[source] sqlx::Error),
    /// The schema.
    #[error("cannot migrate the SQLite database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// How durable a commit is.
#[derive(Clone, Copy)]
pub(crate) enum Durability {
    /// On the disk when the commit returns.
    Full,
    /// On the disk with the next full commit: for leases, whose loss redelivers a message and nothing else.
    Lease,
}

impl SqliteStore {
    /// Opens the database, creating and migrating it where needed.
    ///
    /// # Errors
    /// [`OpenError`], with the driver's error as its source.
    pub async fn open(options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        let mut writer = connect(&options).await.map_err(OpenError::Open)?;
        migrate(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options.reader().map_err(OpenError::Open)?);
        let wake = QueueName::ALL.map(|_| Notify::new());
        let (writer, has_failed) = (Mutex::new(Some(writer)), AtomicBool::new(false));
        let (deliverers, purged_to) = (Notify::new(), std::sync::Mutex::default());
        Ok(Arc::new(Self { writer, readers, clock, options, has_failed, wake, deliverers, purged_to }))
    }

    /// Creates and migrates the database; returns the migrations that it applied.
    ///
    /// # Errors
    /// [`OpenError`], with the driver's error as its source.
    pub async fn migrate(url: &str) -> Result<Vec<String>, OpenError> {
        let mut connection = connect(&SqliteOptions::new(url)).await.map_err(OpenError::Open)?;
        let fresh = migrate(&mut connection).await?;
        connection.close().await.map_err(OpenError::Open)?;
        Ok(fresh)
    }

    /// Waits for the write under way, checkpoints the log into the file and closes every connection. Later calls of the
    /// ports answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "closing the SQLite database failed");
        }
    }

    /// The writer, once no other write is under way.
    pub(crate) async fn writer(&self) -> Result<Writer<'_>, StoreError> {
        let mut guard = self.writer.lock().await;
        let writer = guard.as_mut().ok_or_else(|| unavailable(sqlx::Error::PoolClosed))?;
        if !is_usable(writer).await {
            tracing::warn!("the connection that writes is replaced: a database transaction on it could not be ended");
            self.has_failed.store(true, Ordering::Relaxed);
            // The file that was opened, not a new one.
            let options = SqliteOptions { create: false, ..self.options.clone() };
            *writer = connect(&options).await.map_err(unavailable)?;
        }
        Ok(Writer(guard))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn notifier(&self, queue: QueueName) -> &Notify {
        &self.wake[queue as usize]
    }

    /// Wakes receivers of these queues; call it after the commit.
    pub(crate) fn wake(&self, queues: impl IntoIterator<Item = QueueName>) {
        for queue in queues {
            self.notifier(queue).notify_waiters();
            self.notifier(queue).notify_one();
        }
    }
}

/// A connection that writes.
async fn connect(options: &SqliteOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = SqliteConnection::connect_with(&options.writer()?).await?;
    crate::settlement::prepare(&mut connection).await?;
    Ok(connection)
}

/// Brings the schema up to date, after any other process that does; returns the migrations that it applied.
async fn migrate(connection: &mut SqliteConnection) -> Result<Vec<String>, OpenError> {
    let migrations = migrations();
    if missing(connection, &migrations).await.is_empty() {
        return Ok(Vec::new());
    }
    // The driver's own lock for migrations does nothing on SQLite.
    let mut turn = connection.begin_with("BEGIN IMMEDIATE").await.map_err(OpenError::Open)?;
    let fresh = missing(&mut turn, &migrations).await;
    migrations.run(&mut *turn).await.map_err(OpenError::Migrate)?;
    turn.commit().await.map_err(OpenError::Open)?;
    Ok(fresh)
}

/// The migrations that are not applied as they are here.
async fn missing(connection: &mut SqliteConnection, migrations: &Migrator) -> Vec<String> {
    // The table does not exist before the first migration.
    let rows = sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations").fetch_all(connection).await;
    let applied: HashSet<(i64, Vec<u8>)> = rows.unwrap_or_default().into_iter().collect();
    let fresh = migrations.iter().filter(|m| !applied.contains(&(m.version, m.checksum.to_vec())));
    fresh.map(|m| format!("{:04}_{}", m.version, m.description.replace(' ', "_"))).collect()
}

/// Whether a database transaction can begin on the connection. When the disk fails under one, SQLite ends it by itself; the
/// driver counts it as open from then on and refuses every other.
async fn is_usable(connection: &mut SqliteConnection) -> bool {
    if !connection.is_in_transaction() {
        return true;
    }
    // A transaction that was dropped is rolled back by the connection's thread, before it answers this.
    connection.ping().await.is_ok() && !connection.is_in_transaction()
}

/// The writing connection, held for one database transaction.
pub(crate) struct Writer<'a>(MutexGuard<'a, Option<SqliteConnection>>);

impl Writer<'_> {
    /// The connection itself, for one statement that is a database transaction of its own.
    pub(crate) fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.0.as_mut().ok_or_else(|| unavailable(sqlx::Error::PoolClosed))
    }

    /// Begins a database transaction that holds the write lock from its start, so that no later statement can fail for it.
    pub(crate) async fn begin(&mut self, durability: Durability) -> Result<SqliteTransaction<'_>, StoreError> {
        // The level cannot change inside a transaction; both statements go in one trip to the connection's thread.
        let begin = match durability {
            Durability::Full => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
            Durability::Lease => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        };
        self.connection()?.begin_with(begin).await.map_err(unavailable)
    }
}

/// Commits. After a failure that is not "busy", nobody can say whether the log reached the disk.
pub(crate) async fn commit(transaction: SqliteTransaction<'_>) -> Result<(), StoreError> {
    transaction.commit().await.map_err(|error| if is_busy(&error) { unavailable(error) } else { unknown(error) })
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY is 5; extended codes keep it in their low byte.
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn unknown(error: sqlx::Error) -> StoreError {
    StoreError::OutcomeUnknown(Box::new(error))
}

/// The database did not do what it was asked; the transaction, if any, is rolled back. Or it did, and the value makes no
/// sense.
pub(crate) fn unavailable(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => damaged(&index),
        error => StoreError::Unavailable(Box::new(error)),
    }
}

/// Milliseconds since 1970, as stored.
pub(crate) fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// The time of stored milliseconds.
pub(crate) fn time(millis: i64) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_millis(millis).ok_or_else(|| damaged("time"))
}

/// The value of a stored text.
pub(crate) fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(what))
}

/// A stored value that the domain refuses.
pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

#[async_trait::async_trait]
impl Health for SqliteStore {
    async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").execute(&self.readers).await.map_err(unavailable)?;
        let busy = |_| StoreError::Unavailable("the connection that writes is busy".into());
        let mut writer = timeout(WRITERS_TURN, self.writer()).await.map_err(busy)??;
        let mut database = writer.begin(Durability::Full).await?;
        if !self.has_failed.load(Ordering::Relaxed) {
            return database.rollback().await.map_err(unavailable);
        }
        // Only a write tells whether the disk has room again. Nobody reads this number.
        sqlx::query("PRAGMA user_version = 0").execute(&mut *database).await.map_err(unavailable)?;
        commit(database).await?;
        self.has_failed.store(false, Ordering::Relaxed);
        Ok(())
    }
}
