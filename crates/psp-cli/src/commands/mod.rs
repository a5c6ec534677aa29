//! One file per command.

pub(crate) mod config;
mod dlq;
pub(crate) mod documents;
pub(crate) mod healthcheck;
mod job;

use anyhow::Context;
use psp_sqlite::SqliteStore;

use crate::cli::Command;
use crate::roles::{self, Roles};
use crate::settings::Settings;
use crate::wiring::Wiring;

/// Runs a command that needs the database.
pub(crate) async fn run(command: Command, settings: Settings) -> anyhow::Result<()> {
    match command {
        Command::Migrate => migrate(&settings).await,
        Command::Job(job) => job::run(Wiring::open(settings).await?, job).await,
        Command::Dlq(dlq) => dlq::run(Wiring::open(settings).await?, dlq).await,
        Command::Api => roles::run(Wiring::open(settings).await?, Roles::API).await,
        Command::Worker => roles::run(Wiring::open(settings).await?, Roles::WORKER).await,
        Command::Scheduler => roles::run(Wiring::open(settings).await?, Roles::SCHEDULER).await,
        Command::Serve | Command::Config | Command::Openapi | Command::Completions { .. } | Command::Healthcheck => {
            roles::run(Wiring::open(settings).await?, Roles::ALL).await
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let applied = SqliteStore::migrate(&settings.sqlite.url).await.context("migration")?;
    if applied.is_empty() {
        println!("the database is up to date");
    }
    for migration in applied {
        println!("applied {migration}");
    }
    Ok(())
}
