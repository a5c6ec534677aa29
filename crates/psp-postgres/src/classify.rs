//! What a failure of the driver means.

use std::str::FromStr;
use std::time::Duration;

use backon::ExponentialBuilder;
use psp_domain::ports::{QueueError, StoreError};
use sqlx::error::DatabaseError;
use tokio::time::timeout;

/// What is known after a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A row that must be free is taken, or a row would not be as it must: rolled back, and doing the same again fails again.
    Conflict,
    /// Rolled back for the sake of others: doing the same again may succeed.
    Passing,
    /// The connection was lost, perhaps after the commit.
    Unknown,
    /// Not written; no use in repeating.
    Final,
}

/// What a failure of the driver means.
pub(crate) fn classify(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => of_code(error.as_ref()),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Failure::Unknown
        }
        // No connection could be had, so nothing was sent.
        sqlx::Error::PoolTimedOut => Failure::Passing,
        _ => Failure::Final,
    }
}

fn of_code(error: &dyn DatabaseError) -> Failure {
    match error.code().as_deref().unwrap_or_default() {
        // serialization_failure, deadlock_detected, lock_not_available; and cannot_connect_now, too_many_connections, which
        // refuse before anything was sent.
        "40001" | "40P01" | "55P03" | "57P03" | "53300" => Failure::Passing,
        // unique_violation; check_violation: of what the release before has settled while it was decided.
        "23505" | "23514" => Failure::Conflict,
        // admin_shutdown, crash_shutdown, connection exceptions: may come after the commit, instead of its answer.
        code if code.starts_with("57P") || code.starts_with("08") => Failure::Unknown,
        _ => Failure::Final,
    }
}

/// After that time without an answer a server is taken to have vanished; statements have shorter limits of the server's.
const NO_ANSWER: Duration = Duration::from_mins(1);

/// A few attempts within about three seconds: a failover of a replicated database takes longer and is for the caller.
pub(crate) fn attempts() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(6)
        .with_jitter()
}

/// Whether a read that failed so may succeed on another connection.
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    matches!(classify(error), Failure::Passing | Failure::Unknown) && !matches!(error, sqlx::Error::PoolTimedOut)
}

/// Runs a statement that may be repeated: a read, or a write that says the same twice.
pub(crate) async fn repeat<T, F>(run: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    use backon::Retryable;
    let mut run = run;
    let attempt = || {
        let run = run();
        async { timeout(NO_ANSWER, run).await.unwrap_or_else(|late| Err(sqlx::Error::Io(late.into()))) }
    };
    attempt.retry(attempts()).when(is_passing).await.map_err(unavailable)
}

/// The database did not do what it was asked. Or it did, and the value makes no sense.
pub(crate) fn unavailable(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => damaged(&index),
        error => StoreError::Unavailable(Box::new(error)),
    }
}

/// The value of a stored text.
pub(crate) fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(what))
}

/// A stored value that the domain refuses.
pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

/// A failure of the store where the queue is asked.
pub(crate) fn broken(error: StoreError) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}
