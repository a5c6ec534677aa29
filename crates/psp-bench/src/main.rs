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

use table::{Row, Table};

/// Print the benchmark table of the release binary
#[derive(Parser)]
struct Args {
    /// The binary
    #[arg(long, default_value = "target/release/psp")]
    psp: PathBuf,
    /// Where databases are made: a real disk
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Payables to settle
    #[arg(long, default_value_t = 100_000)]
    settle: usize,
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.dir)?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let table = measure(&args, dir.path()).await?;
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{}", if args.markdown { table.markdown() } else { table.text() });
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn measure(args: &Args, dir: &Path) -> anyhow::Result<Table> {
    let duration = Duration::from_secs(args.seconds);
    let mut table = Table::new();
    eprintln!("baseline: single-row inserts, one commit each …");
    let raw = baseline::inserts_per_second(dir, duration.min(Duration::from_secs(5))).await?;
    table.add(Row::new("raw SQLite, two inserts and a commit", format!("{raw:.0}/s")));

    eprintln!("start-up …");
    let mut psp = product::Product::start(&args.psp, dir).await?;
    let started = psp.start_up.as_secs_f64() * 1e3;
    table.add(
        Row::new("start-up, to the first ready answer", format!("{started:.0} ms"))
            .target("≤ 200 ms", started <= 200.0),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    table.add(Row::new("RSS idle", mib(psp.memory("VmRSS")?)));

    eprintln!("{} connections for {} s, as fast as answered …", args.connections, args.seconds);
    load::run(&psp.address, args.connections, Duration::from_secs(2), None).await?;
    let peak = load::run(&psp.address, args.connections, duration, None).await?;
    let rate = peak.per_second();
    let name = format!("POST/s at {} connections, pipeline at work", args.connections);
    table.add(Row::new(name, format!("{rate:.0}/s, {:.1} × raw", rate / raw)).target("≥ 2 × raw", rate >= 2.0 * raw));
    table.add(Row::new("… latency p50 / p99 / p99.9", peak.latency()));
    table.add(Row::new("… from 201 to payable p50 / p99", peak.to_payable()));
    let memory = psp.memory("VmHWM")?;
    table.add(Row::new("… RSS, highest", mib(memory)).target("≤ 64 MiB", memory <= 64 << 20));

    eprintln!("half of that rate …");
    let half = load::run(&psp.address, args.connections, duration, Some(rate / 2.0)).await?;
    table.add(Row::new("POST/s at half of that rate", format!("{:.0}/s", half.per_second())));
    table.add(Row::new("… latency p50 / p99 / p99.9", half.latency()));
    table.add(Row::new("… from 201 to payable p50 / p99", half.to_payable()));

    let posted = peak.answers + half.answers;
    if posted < args.settle {
        eprintln!("more payments, to have {} …", args.settle);
        load::count(&psp.address, args.connections, args.settle - posted).await?;
    }
    psp.await_pipeline().await.context("payments still wait for approval")?;
    psp.stop().await?;
    eprintln!("settlement …");
    let (payables, seconds) = product::settle(&args.psp, dir)?;
    let settled = payables as f64 / seconds;
    let name = format!("settlement of {payables} payables, transactions and events");
    table.add(Row::new(name, format!("{settled:.0} payables/s")).target("≥ 50000/s", settled >= 50_000.0));
    let size = std::fs::metadata(&args.psp)?.len() as f64 / 1e6;
    table.add(Row::new("size of the binary", format!("{size:.1} MB")));
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
