//! Real servers for tests: a Postgres, and an SQS that is a KMS, too.
//!
//! Where they come from, the first that applies:
//!
//! 1. `PSP_TEST_DATABASE_URL`, `PSP_TEST_SQS_ENDPOINT`: somebody runs them. `make test` does, once for all its tests, with the
//!    program `with-servers`.
//! 2. A Docker engine that answers: `testcontainers`.
//! 3. Native: the machine's `initdb` and `postgres` in a temporary directory (as an unprivileged user when root), and moto
//!    from the project's `target/test-venv`, which `make tools` installs.
//!
//! Every test has a database and a prefix of queue names of its own. A native server ends with the process that started
//! it, however that ends: a shell beside it waits for its standard input to close.

mod native;
mod postgres;
mod proxy;
mod sqs;
mod tls;

pub use postgres::{Database, PostgresServer};
pub use proxy::{Fault, FaultyProxy};
pub use sqs::{SqsPrefix, SqsServer};
pub use tls::TlsFront;

use tokio::sync::OnceCell;

/// The variable that names a Postgres to test with.
pub const DATABASE_URL: &str = "PSP_TEST_DATABASE_URL";
/// The variable that names an SQS to test with.
pub const SQS_ENDPOINT: &str = "PSP_TEST_SQS_ENDPOINT";

/// A fresh database on this process's Postgres.
pub async fn database() -> Database {
    static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
    SERVER.get_or_init(PostgresServer::find).await.database().await
}

/// A fresh prefix for queues on this process's SQS.
pub async fn sqs() -> SqsPrefix {
    static SERVER: OnceCell<SqsServer> = OnceCell::const_new();
    SERVER.get_or_init(SqsServer::find).await.prefix()
}

/// The address of this process's server that speaks KMS: the one that speaks SQS.
pub async fn kms() -> String {
    sqs().await.endpoint
}

/// Whether testcontainers failed for want of an engine rather than for a fault of the image.
fn is_no_engine(error: &testcontainers::TestcontainersError) -> bool {
    matches!(error, testcontainers::TestcontainersError::Client(_))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
