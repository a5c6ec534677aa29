//! One file per command.

mod callbacks;
mod config;
mod dlq;
pub(crate) mod documents;
mod events;
mod gateways;
mod healthcheck;
mod job;
mod queues;
mod simulator;
mod vault;

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

use crate::cli::{Callbacks, Command, Events, Queues};
use crate::roles::{self, Roles};
use crate::settings::Settings;
use crate::wiring::Wiring;

/// Runs a command.
pub(crate) async fn run(command: Command, settings: Settings) -> anyhow::Result<()> {
    match command {
        Command::Migrate { service_login } => migrate(&settings, service_login.as_deref()).await,
        Command::Job(job) => job::run(Wiring::open_existing(settings).await?, job).await,
        Command::Dlq(dlq) => dlq::run(Wiring::open_existing(settings).await?, dlq).await,
        Command::Callbacks(Callbacks::List { outcome, limit, json }) => {
            callbacks::list(Wiring::open_existing(settings).await?, outcome, limit, json).await
        }
        Command::Events(Events::Replay(args)) => events::replay(Wiring::open_existing(settings).await?, args).await,
        Command::Gateways(command) => gateways::run(Wiring::open_existing(settings).await?, command).await,
        Command::Vault(vault) => vault::run(Wiring::open_existing(settings).await?, vault).await,
        Command::Api => roles::run(settings, Roles::API).await,
        Command::Worker => roles::run(settings, Roles::WORKER).await,
        Command::Relay => roles::run(settings, Roles::RELAY).await,
        Command::Scheduler => roles::run(settings, Roles::SCHEDULER).await,
        Command::Serve => roles::run(settings, Roles::ALL).await,
        Command::Queues(Queues::Create) => queues::create(&settings).await,
        Command::GatewaySimulator(simulated) => simulator::run(&settings, &simulated).await,
        Command::Config => config::print(&settings),
        Command::Healthcheck { live } => healthcheck::run(&settings, live),
        Command::Openapi => documents::openapi(),
        Command::Completions { shell } => documents::completions(shell),
    }
}

/// Prints a command's answer as lines. A reader that goes away early, such as `head`, is no failure.
fn answer(text: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

async fn migrate(settings: &Settings, service_login: Option<&str>) -> anyhow::Result<()> {
    let applied = Wiring::migrate(settings).await?;
    let mut lines: Vec<_> = applied.iter().map(|migration| format!("applied {migration}")).collect();
    if lines.is_empty() {
        lines.push("the database is up to date".to_owned());
    }
    if let Some(login) = service_login {
        Wiring::grant(settings, login).await?;
        lines.push(format!("{login} may use the tables"));
    }
    answer(lines.join("\n"))
}
