use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// Where a password comes from that changes while the process runs, such as an RDS IAM token.
#[async_trait]
pub trait PasswordSource: Send + Sync {
    /// The password for connections opened from now on.
    async fn password(&self) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>>;
}

/// How to open a [`crate::PgStore`].
#[derive(Clone)]
pub struct PgOptions {
    /// `postgres://user:password@host:port/database`, with `sslmode` and `sslrootcert` as libpq has them.
    pub url: SecretString,
    /// A password that does not stand in the address.
    pub password: Option<SecretString>,
    /// A password that changes; stronger than the others. Asked at the start and then every [`Self::PASSWORD_REFRESH`].
    pub password_source: Option<Arc<dyn PasswordSource>>,
    /// The most connections of this process, from 4: half for writes, a quarter for leases, a quarter for reads. Listening
    /// and leading take one more each.
    pub connections: u32,
    /// How long a request waits for a connection.
    pub acquire_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How long a received message stays invisible.
    pub visibility_timeout: Duration,
    /// How often an idle queue looks for messages, besides being woken: for retries that have become due and for
    /// notifications that were lost with a connection.
    pub poll_interval: Duration,
}

impl std::fmt::Debug for PgOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgOptions").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// The address names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be postgres:// with user, host and database")]
pub struct InvalidAddress;

/// Who logs in where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database's user.
    pub user: String,
}

impl PgOptions {
    /// How often a [`PasswordSource`] is asked: RDS IAM tokens live for 15 minutes.
    pub const PASSWORD_REFRESH: Duration = Duration::from_mins(5);

    /// The defaults for an address.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            password: None,
            password_source: None,
            connections: 12,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            visibility_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
        }
    }

    /// Host, port and database, without user and password: for logs. `None` when the address names no database.
    pub fn address(&self) -> Option<String> {
        let options = self.parse().ok()?;
        Some(format!("postgres://{}:{}/{}", options.get_host(), options.get_port(), options.get_database()?))
    }

    /// Who logs in where. `None` when the address names no database.
    pub fn login(&self) -> Option<Login> {
        let options = self.parse().ok()?;
        let (host, user) = (options.get_host().to_owned(), options.get_username().to_owned());
        Some(Login { host, port: options.get_port(), user })
    }

    /// # Errors
    /// [`InvalidAddress`], which quotes nothing: the address may hold a password.
    pub fn check(&self) -> Result<(), InvalidAddress> {
        self.address().map(drop).ok_or(InvalidAddress)
    }

    fn parse(&self) -> Result<PgConnectOptions, InvalidAddress> {
        self.url.expose_secret().parse().map_err(|_| InvalidAddress)
    }

    /// The options of every connection: limits for statements and locks, and no statement logging, which would repeat
    /// values that bound parameters keep out of logs.
    pub(crate) async fn connect(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let mut options = self.parse().map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        if let Some(source) = &self.password_source {
            let password = source.password().await.map_err(sqlx::Error::Configuration)?;
            options = options.password(password.expose_secret());
        }
        let millis = |duration: Duration| duration.as_millis().to_string();
        let options = options
            .application_name("psp")
            .options([
                ("statement_timeout", millis(self.statement_timeout)),
                ("lock_timeout", millis(self.lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(self.statement_timeout)),
                ("TimeZone", "UTC".to_owned()),
            ])
            .disable_statement_logging();
        Ok(options)
    }
}
