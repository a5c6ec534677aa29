//! The binary under measurement.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::client::{Client, get};

/// How long starting, draining and stopping may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running `psp serve`, killed on drop.
pub(crate) struct Product {
    child: Child,
    pub(crate) address: String,
    /// From the start of the process to its first ready answer.
    pub(crate) start_up: Duration,
}

fn command(psp: &Path, dir: &Path) -> anyhow::Result<Command> {
    let psp: PathBuf = psp.canonicalize().with_context(|| format!("{} is not built", psp.display()))?;
    let mut command = Command::new(psp);
    command.current_dir(dir).env("DATABASE_URL", "sqlite://psp.db").stdin(Stdio::null());
    Ok(command)
}

impl Product {
    pub(crate) async fn start(psp: &Path, dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let log = File::create(dir.join("psp.log"))?;
        let mut command = command(psp, dir)?;
        command.env("PSP_LISTEN", &address).stdout(log.try_clone()?).stderr(log).arg("serve");
        let begun = Instant::now();
        let child = command.spawn()?;
        let mut product = Self { child, address, start_up: Duration::ZERO };
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
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line")?;
        let kilobytes: u64 = value.trim_matches([':', ' ', '\t', 'k', 'B']).trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Waits until no payment waits for approval.
    pub(crate) async fn await_pipeline(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut client = Client::connect(&self.address).await?;
        // The gauge is measured every few seconds: two zeros with that between them.
        let mut zeros = 0;
        while zeros < 2 {
            ensure!(begun.elapsed() < PATIENCE, "the queue does not empty");
            sleep(Duration::from_secs(6)).await;
            let (_, body) = client.ask(&get("/metrics", "bench")).await?;
            let empty = std::str::from_utf8(body)?.contains("psp_queue_depth{queue=\"transactions\"} 0\n");
            zeros = if empty { zeros + 1 } else { 0 };
        }
        Ok(())
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
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

fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Settles everything that is due in 31 days; payables and seconds.
pub(crate) fn settle(psp: &Path, dir: &Path) -> anyhow::Result<(u64, f64)> {
    let date = Command::new("date").args(["-u", "-d", "+31 days", "+%F"]).output()?;
    let date = String::from_utf8(date.stdout)?;
    let output = command(psp, dir)?.args(["job", "settle-payables", "--json", "--date", date.trim()]).output()?;
    ensure!(output.status.success(), "settlement failed: {}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok((summary["payables"].as_u64().context("payables")?, summary["seconds"].as_f64().context("seconds")?))
}
