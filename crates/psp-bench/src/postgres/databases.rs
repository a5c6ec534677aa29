use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::Mutex;

/// How long a queue may take to empty.
const PATIENCE: Duration = Duration::from_mins(5);

/// Segments of the write-ahead log (16 MiB each) that are made before anything is measured.
const SEGMENTS: usize = 160;

/// Databases on the server of `PSP_TEST_DATABASE_URL`.
pub(crate) struct Databases {
    url: String,
    admin: Mutex<PgConnection>,
}

impl Databases {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let url =
            std::env::var("PSP_TEST_DATABASE_URL").context("PSP_TEST_DATABASE_URL; `make bench` starts a server")?;
        let mut admin = PgConnection::connect(&url).await?;
        // A server that has run for a while writes into recycled segments of its log; a new one fills each with zeros first,
        // which stops commits for as long.
        eprintln!("segments of the log …");
        for _ in 0..SEGMENTS {
            admin.execute("SELECT pg_logical_emit_message(false, 'bench', ''); SELECT pg_switch_wal()").await?;
        }
        admin.execute("CHECKPOINT").await?;
        Ok(Self { url, admin: Mutex::new(admin) })
    }

    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let sql = "SELECT 'PostgreSQL ' || current_setting('server_version') || ', fsync ' || current_setting('fsync') \
                   || ', synchronous_commit ' || current_setting('synchronous_commit') || ', shared_buffers ' \
                   || current_setting('shared_buffers')";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut *self.admin.lock().await).await?)
    }

    /// A fresh one; its address.
    pub(crate) async fn create(&self) -> anyhow::Result<String> {
        self.create_like("template1").await
    }

    /// A copy of another, to which nobody is connected.
    pub(crate) async fn copy(&self, url: &str) -> anyhow::Result<String> {
        self.create_like(&name(url)?).await
    }

    #[expect(clippy::disallowed_methods, reason = "a name that nobody else takes")]
    async fn create_like(&self, template: &str) -> anyhow::Result<String> {
        let name = format!("psp_bench_{}", uuid::Uuid::now_v7().simple());
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        self.admin.lock().await.execute(AssertSqlSafe(sql)).await?;
        let (server, _) = self.url.rsplit_once('/').context("the address ends with a database")?;
        Ok(format!("{server}/{name}"))
    }

    pub(crate) async fn drop(&self, url: &str) -> anyhow::Result<()> {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", name(url)?);
        self.admin.lock().await.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }

    /// Writes dirty pages now, so that they do not have to be written while something is measured.
    pub(crate) async fn checkpoint(&self) -> anyhow::Result<()> {
        self.admin.lock().await.execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Waits until nothing waits in the outbox.
    pub(crate) async fn drain(&self, url: &str) -> anyhow::Result<Duration> {
        let mut connection = PgConnection::connect(url).await?;
        let begun = Instant::now();
        loop {
            let sql = "SELECT count(*) FROM outbox WHERE visible_at IS NOT NULL";
            let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
            if left == 0 {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < PATIENCE, "{left} messages are left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn name(url: &str) -> anyhow::Result<String> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.get_database().context("a database")?.to_owned())
}
