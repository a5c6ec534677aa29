//! The binary `psp`: reads the configuration and puts adapters and entrypoints together.

mod cli;
mod commands;
mod cores;
mod gateways;
mod rds;
mod roles;
mod schedule;
mod settings;
mod telemetry;
mod wiring;

use std::io;
use std::process::ExitCode;

use cli::{Cli, Command};
use settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a wrong command line or configuration.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match cli.command.unwrap_or(Command::Serve) {
        // Documents are printed whatever the configuration.
        Command::Openapi => report(commands::documents::openapi()),
        Command::Completions { shell } => report(commands::documents::completions(shell)),
        command => {
            // Before the keys are read; told once there is a log.
            let cores = if command.has_cards() { cores::forbid() } else { Ok(()) };
            match Settings::load(&cli.settings, command.has_cards()) {
                Ok(settings) => run(command, settings, cores),
                Err(error) => {
                    eprintln!("psp: wrong configuration: {error}");
                    ExitCode::from(MISUSE)
                }
            }
        }
    }
}

/// Runs what needs settings. A role tells its failure in its log, any other command on standard error.
fn run(command: Command, settings: Settings, cores: io::Result<()>) -> ExitCode {
    let _flush_logs = telemetry::start(&settings);
    if let Err(error) = cores {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "a crash of this process may leave a core dump with cards and keys");
    }
    let is_role = command.is_role();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("psp: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::run(command, settings));
    // Blocking tasks of a failed stop must not hold the exit up.
    runtime.shutdown_background();
    if let Err(error) = &outcome
        && is_role
    {
        tracing::error!(error = format!("{error:#}"), "failed");
        return ExitCode::FAILURE;
    }
    report(outcome)
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("psp: {error:#}");
            ExitCode::FAILURE
        }
    }
}
