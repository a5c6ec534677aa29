//! The binary under measurement.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tokio::time::{Instant, sleep};

use crate::client::{Client, get};

/// How long starting, draining and stopping may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running `psp`, killed on drop.
pub(crate) struct Product {
    child: Child,
    dir: PathBuf,
    pub(crate) address: String,
    /// From the start of the process to its first ready answer.
    pub(crate) start_up: Duration,
}

/// A command of `psp` with these settings; on SQLite where they name no database.
pub(crate) fn command(psp: &Path, dir: &Path, settings: &[(&str, String)]) -> anyhow::Result<Command> {
    let psp: PathBuf = psp.canonicalize().with_context(|| format!("{} is not built", psp.display()))?;
    let mut command = Command::new(psp);
    // Settings of whoever measures must not change what is measured.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PSP_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).env("DATABASE_URL", "sqlite://psp.db").stdin(Stdio::null());
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

impl Product {
    /// Starts a role and waits until it is ready.
    pub(crate) async fn start(psp: &Path, dir: &Path, role: &str, settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let log = File::create(dir.join("psp.log"))?;
        let mut command = command(psp, dir, settings)?;
        command.env("PSP_LISTEN", &address).env("PSP_ADMIN_LISTEN", &address);
        command.stdout(log.try_clone()?).stderr(log).arg(role);
        let begun = Instant::now();
        let child = command.spawn()?;
        let mut product = Self { child, dir: dir.to_owned(), address, start_up: Duration::ZERO };
        while !product.is_ready().await {
            ensure!(begun.elapsed() < PATIENCE, "psp does not become ready");
            sleep(Duration::from_millis(1)).await;
        }
        product.start_up = begun.elapsed();
        Ok(product)
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut client) = Client::connect(&self.address).await else { return false };
        matches!(client.ask(&get("/_readiness_check_", "bench")).await, Ok((200, _)))
    }

    /// A line of the process's status, in bytes: `VmRSS` is its memory now, `VmHWM` the most it ever had.
    pub(crate) fn memory(&self, line: &str) -> anyhow::Result<u64> {
        memory_of(self.child.id(), line)
    }

    /// Waits until no payment waits for approval; how many did, and for how long.
    pub(crate) async fn drain(&self) -> anyhow::Result<(i64, Duration)> {
        const PENDING: &str = "SELECT count(*) FROM outbox WHERE queue = 'transactions' AND visible_at IS NOT NULL";
        let begun = Instant::now();
        let options = SqliteConnectOptions::new().filename(self.dir.join("psp.db")).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let waiting: i64 = sqlx::query_scalar(PENDING).fetch_one(&mut connection).await?;
        let mut left = waiting;
        while left > 0 {
            ensure!(begun.elapsed() < PATIENCE, "{left} payments still wait for approval");
            sleep(Duration::from_millis(1)).await;
            left = sqlx::query_scalar(PENDING).fetch_one(&mut connection).await?;
        }
        let took = begun.elapsed();
        connection.close().await?;
        Ok((waiting, took))
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        // The shell's own `kill`: not every machine has one as a program.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status()?;
        ensure!(sent.success(), "psp cannot be stopped");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "psp ended with {status}");
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("psp does not stop");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a process's status, in bytes.
pub(crate) fn memory_of(process: u32, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line")?;
    let kilobytes: u64 = value.trim_matches([':', ' ', '\t', 'k', 'B']).trim().parse()?;
    Ok(kilobytes * 1024)
}

pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Settles everything that is due in 31 days; payables and seconds.
pub(crate) fn settle(psp: &Path, dir: &Path) -> anyhow::Result<(u64, f64)> {
    let date = Command::new("date").args(["-u", "-d", "+31 days", "+%F"]).output()?;
    let date = String::from_utf8(date.stdout)?;
    let output = command(psp, dir, &[])?.args(["job", "settle-payables", "--json", "--date", date.trim()]).output()?;
    ensure!(output.status.success(), "settlement failed: {}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok((summary["payables"].as_u64().context("payables")?, summary["seconds"].as_f64().context("seconds")?))
}
