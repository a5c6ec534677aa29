use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// How to open a [`crate::SqliteStore`].
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// `sqlite://` and a path, relative or absolute.
    pub url: String,
    /// Whether the file is created when it is missing.
    pub create: bool,
    /// The number of connections that read.
    pub readers: u32,
    /// How long a received message stays invisible.
    pub visibility_timeout: Duration,
    /// How long a write waits for another process's.
    pub busy_timeout: Duration,
    /// How often an idle queue looks for messages of other processes and for retries that have become due.
    pub poll_interval: Duration,
}

/// The address names no database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be sqlite:// and the path of a file")]
pub struct InvalidAddress;

impl SqliteOptions {
    /// Pages of the write-ahead log (4 KiB each) after which a commit also checkpoints: 16 MiB.
    const CHECKPOINT_PAGES: &'static str = "4096";
    /// The page cache of the writer: 4 MiB (negative: KiB).
    const WRITER_CACHE: &'static str = "-4096";
    /// The page cache of a reader: 1 MiB.
    const READER_CACHE: &'static str = "-1024";
    /// Prepared statements that the writer keeps: each bulk statement in eight sizes, and the rest.
    const WRITER_STATEMENTS: usize = 256;

    /// The defaults for a file.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            create: true,
            readers: 3,
            visibility_timeout: Duration::from_secs(30),
            busy_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_millis(200),
        }
    }

    /// The database's file.
    ///
    /// # Errors
    /// When the address is not `sqlite://` and the path of a file.
    pub fn file(&self) -> Result<std::path::PathBuf, InvalidAddress> {
        let options: SqliteConnectOptions = self.url.parse().map_err(|_| InvalidAddress)?;
        let file = options.get_filename();
        // The driver gives a database in memory such a name; it could not be shared by several connections.
        let in_memory = self.url.contains(":memory:") || self.url.contains("mode=memory");
        if in_memory || file.as_os_str().is_empty() { Err(InvalidAddress) } else { Ok(file.to_owned()) }
    }

    pub(crate) fn writer(&self) -> Result<SqliteConnectOptions, sqlx::Error> {
        let options = self
            .common()?
            .create_if_missing(self.create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .statement_cache_capacity(Self::WRITER_STATEMENTS)
            .thread_name(|_| "sqlite-writer".into())
            .pragma("cache_size", Self::WRITER_CACHE)
            .pragma("wal_autocheckpoint", Self::CHECKPOINT_PAGES)
            .pragma("temp_store", "memory")
            // What is deleted is overwritten, so that no erased ciphertext stays in free pages.
            .pragma("secure_delete", "on");
        Ok(options)
    }

    pub(crate) fn reader(&self) -> Result<SqliteConnectOptions, sqlx::Error> {
        let options = self
            .common()?
            .thread_name(|n| format!("sqlite-read-{n}"))
            .pragma("cache_size", Self::READER_CACHE)
            .pragma("query_only", "on");
        Ok(options)
    }

    fn common(&self) -> Result<SqliteConnectOptions, sqlx::Error> {
        // The driver's statement log would repeat values that bound parameters keep out of ours.
        Ok(self.url.parse::<SqliteConnectOptions>()?.busy_timeout(self.busy_timeout).disable_statement_logging())
    }
}
