use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{Leadership, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::PgOptions;
use crate::classify::unavailable;

/// The key of the schedulers' advisory lock: "pspsched" in ASCII.
const SCHEDULER: i64 = 0x7073_7073_6368_6564;
/// How long asking may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The lead among schedulers: an advisory lock of a session of its own, which the server gives up when the session ends.
pub struct PgLeadership {
    options: PgOptions,
    /// The session that holds the lock.
    session: Mutex<Option<PgConnection>>,
}

impl PgLeadership {
    /// Leads nobody until asked.
    pub fn new(options: PgOptions) -> Self {
        Self { options, session: Mutex::new(None) }
    }

    async fn take(&self) -> Result<Option<PgConnection>, sqlx::Error> {
        // A peer that vanished without a word is given up after a minute.
        let keepalives =
            [("tcp_keepalives_idle", "30"), ("tcp_keepalives_interval", "10"), ("tcp_keepalives_count", "3")];
        let connect = self.options.connect().await?.options(keepalives);
        let mut session = PgConnection::connect_with(&connect).await?;
        let taken = sqlx::query_scalar!("SELECT pg_try_advisory_lock($1)", SCHEDULER).fetch_one(&mut session).await?;
        if taken == Some(true) {
            return Ok(Some(session));
        }
        session.close().await?;
        Ok(None)
    }
}

#[async_trait]
impl Leadership for PgLeadership {
    async fn lead(&self) -> Result<bool, StoreError> {
        let mut held = self.session.lock().await;
        if let Some(mut session) = held.take()
            && matches!(timeout(TIMEOUT, session.ping()).await, Ok(Ok(())))
        {
            *held = Some(session);
            return Ok(true);
        }
        let taken = timeout(TIMEOUT, self.take()).await.map_err(|late| StoreError::Unavailable(Box::new(late)))?;
        *held = taken.map_err(unavailable)?;
        Ok(held.is_some())
    }

    async fn resign(&self) {
        if let Some(session) = self.session.lock().await.take() {
            // However the session ends, the lock ends with it.
            let _ = timeout(TIMEOUT, session.close()).await;
        }
    }
}
