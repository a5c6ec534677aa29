//! Measures the release binary `psp` from outside and prints one table, with baselines taken in the same run: the same rows
//! written into the same tables of the same database engine by raw SQL.
//!
//! Routing and the delivery of webhooks are measured in this process: routing answers from memory, and no request shows its
//! part; deliveries are measured against loops that only send.
//!
//! Everything runs on this machine: the product, the load generator and the disk share it.

mod baseline;
mod client;
mod embedded;
mod gateways;
mod load;
mod postgres;
mod product;
mod routing;
mod table;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use embedded::Embedded;
use postgres::Postgres;
use table::Table;
use tokio::runtime::Builder;

/// Print the benchmark table of the release binary
#[derive(Parser)]
struct Args {
    /// What is measured: the product on SQLite, or on the Postgres of `PSP_TEST_DATABASE_URL` and the SQS of
    /// `PSP_TEST_SQS_ENDPOINT`; routing alone; routing and what a dead gateway costs; or deliveries to webhook endpoints, on
    /// SQLite and on the Postgres of `PSP_TEST_DATABASE_URL` where there is one
    #[arg(value_enum, default_value = "sqlite")]
    subject: Subject,
    /// On Postgres, only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<postgres::Part>,
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

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    Sqlite,
    Postgres,
    Routing,
    Gateways,
    Webhooks,
}

/// That of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.seconds, args.settle) = (3, 20_000);
    }
    let mut builder = match args.subject {
        // What is measured in this process has the product's runtime.
        Subject::Webhooks => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(measure(args))
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let release = program.parent().context("this program is in no directory")?;
    let psp = args.psp.clone().unwrap_or_else(|| release.join("psp"));
    let parent = args.dir.clone().unwrap_or_else(|| release.with_file_name("bench"));
    std::fs::create_dir_all(&parent)?;
    let dir = tempfile::tempdir_in(&parent)?;
    let table = match args.subject {
        Subject::Sqlite => {
            let mut run = Embedded { args: &args, psp: &psp, dir: dir.path(), table: Table::new() };
            run.measure().await?;
            run.table
        }
        Subject::Postgres => Postgres::measure(&args, &psp, dir.path()).await?,
        Subject::Routing | Subject::Gateways => {
            let mut table = Table::new();
            routing::measure(&mut table).await?;
            if args.subject == Subject::Gateways {
                gateways::measure(&psp, dir.path(), args.seconds, &mut table).await?;
            }
            table
        }
        Subject::Webhooks => webhooks::measure(dir.path(), Duration::from_secs(args.seconds)).await?,
    };
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{}", if args.markdown { table.markdown() } else { table.text() });
    }
    Ok(())
}
