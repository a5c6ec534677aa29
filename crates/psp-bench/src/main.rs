//! Measures the release binary `psp` from outside and prints one table, with a baseline taken in the same run: the same two
//! rows inserted into the same tables of the same database engine, one commit each.
//!
//! Everything runs on this machine: the product, the load generator and the disk share it.

mod baseline;
mod client;
mod load;
mod product;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use load::Load;
use table::{Row, Table};

/// Print the benchmark table of the release binary
#[derive(Parser)]
struct Args {
    /// The binary; `psp` beside this program where absent
    #[arg(long)]
    psp: Option<PathBuf>,
    /// Where databases are made, on a real disk; `bench` beside this program's directory where absent
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Payables to settle, at least
    #[arg(long, default_value_t = 100_000)]
    settle: usize,
    /// A short run: 3 seconds of each load, 20,000 payables
    #[arg(long, conflicts_with_all = ["seconds", "settle"])]
    quick: bool,
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
}

/// How long the product is loaded before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Into how many rounds the load is cut that is compared with the baseline.
const ROUNDS: u32 = 3;
/// How long the baseline is measured before the first round and after each.
const BASELINE: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.seconds, args.settle) = (3, 20_000);
    }
    let program = std::env::current_exe()?;
    let release = program.parent().context("this program is in no directory")?;
    let psp = args.psp.clone().unwrap_or_else(|| release.join("psp"));
    let parent = args.dir.clone().unwrap_or_else(|| release.with_file_name("bench"));
    std::fs::create_dir_all(&parent)?;
    let dir = tempfile::tempdir_in(&parent)?;
    let mut run = Run { args: &args, psp: &psp, dir: dir.path(), table: Table::new() };
    run.measure().await?;
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{}", if args.markdown { run.table.markdown() } else { run.table.text() });
    }
    Ok(())
}

/// One run: what it measures with, and its figures so far.
struct Run<'a> {
    args: &'a Args,
    psp: &'a Path,
    dir: &'a Path,
    table: Table,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Run<'_> {
    async fn measure(&mut self) -> anyhow::Result<()> {
        let mut psp = self.start_up().await?;
        let peak = self.peak(&psp).await?;
        let half = self.half(&psp, peak.per_second() / 2.0).await?;
        let posted = peak.answers + half.answers;
        if posted < self.args.settle {
            eprintln!("more payments, to have {} …", self.args.settle);
            load::count(&psp.address, self.args.connections, self.args.settle - posted).await?;
        }
        psp.drain().await?;
        psp.stop().await?;
        self.settle()?;
        let size = std::fs::metadata(self.psp)?.len() as f64 / 1e6;
        self.table.add(Row::new("size of the binary", format!("{size:.1} MB")));
        Ok(())
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    async fn start_up(&mut self) -> anyhow::Result<product::Product> {
        eprintln!("start-up …");
        let psp = product::Product::start(self.psp, self.dir).await?;
        let took = psp.start_up.as_secs_f64() * 1e3;
        let row = Row::new("start-up, to the first ready answer", format!("{took:.0} ms"));
        self.table.add(row.target("≤ 200 ms", took <= 200.0));
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.table.add(Row::new("RSS idle", mib(psp.memory("VmRSS")?)));
        Ok(psp)
    }

    /// As fast as answers come, in rounds with the baseline between them: a disk is not equally fast all the time.
    async fn peak(&mut self, psp: &product::Product) -> anyhow::Result<Load> {
        let connections = self.args.connections;
        eprintln!("{connections} connections for {} s, as fast as answered …", self.args.seconds);
        load::run(&psp.address, connections, WARM_UP, None).await?;
        let mut raw = vec![baseline::inserts_per_second(self.dir, BASELINE).await?];
        let (mut peak, mut waiting, mut drained) = (Load::nothing()?, 0, Duration::ZERO);
        for _ in 0..ROUNDS {
            peak.add(&load::run(&psp.address, connections, self.seconds() / ROUNDS, None).await?)?;
            let (left, took) = psp.drain().await?;
            (waiting, drained) = (waiting.max(left), drained.max(took));
            raw.push(baseline::inserts_per_second(self.dir, BASELINE).await?);
        }

        let (least, most) = raw.iter().fold((f64::MAX, 0.0), |(least, most), &r| (r.min(least), r.max(most)));
        let (raw, rate) = (raw.iter().sum::<f64>() / raw.len() as f64, peak.per_second());
        let name = "raw SQLite, two inserts and a commit: mean (least to most)";
        self.table.add(Row::new(name, format!("{raw:.0}/s ({least:.0} to {most:.0})")));
        let name = format!("POST/s at {connections} connections, pipeline at work");
        let row = Row::new(name, format!("{rate:.0}/s, {:.1} × raw", rate / raw));
        self.table.add(row.target("≥ 2 × raw", rate >= 2.0 * raw));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", peak.latency()));
        self.table.add(Row::new("… from 201 to payable p50 / p99", peak.to_payable()));
        let name = "… payments that wait for approval at its end, and how long";
        self.table.add(Row::new(name, format!("{waiting}, {} ms", drained.as_millis())));
        let memory = psp.memory("VmHWM")?;
        self.table.add(Row::new("… RSS, highest", mib(memory)).target("≤ 64 MiB", memory <= 64 << 20));
        Ok(peak)
    }

    async fn half(&mut self, psp: &product::Product, rate: f64) -> anyhow::Result<Load> {
        eprintln!("half of that rate …");
        let half = load::run(&psp.address, self.args.connections, self.seconds(), Some(rate)).await?;
        self.table.add(Row::new("POST/s at half of that rate", format!("{:.0}/s", half.per_second())));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", half.latency()));
        self.table.add(Row::new("… from 201 to payable p50 / p99", half.to_payable()));
        Ok(half)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        eprintln!("settlement …");
        let (payables, seconds) = product::settle(self.psp, self.dir)?;
        let settled = payables as f64 / seconds;
        let name = format!("settlement of {payables} payables, transactions and events");
        self.table.add(Row::new(name, format!("{settled:.0} payables/s")).target("≥ 50000/s", settled >= 50_000.0));
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
