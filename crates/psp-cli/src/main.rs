//! The binary `psp`: reads the configuration and puts adapters and entrypoints together.

mod cli;
mod commands;
mod roles;
mod settings;
mod telemetry;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a wrong command line or configuration.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = match Settings::load(&cli.settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("psp: wrong configuration: {error}");
            return ExitCode::from(MISUSE);
        }
    };
    match cli.command.unwrap_or(Command::Serve) {
        Command::Config => commands::config::print(&settings),
        Command::Openapi => commands::documents::openapi(),
        Command::Completions { shell } => commands::documents::completions(shell),
        Command::Healthcheck => commands::healthcheck::run(&settings),
        command => run(command, settings),
    }
}

/// Runs what needs the runtime.
fn run(command: Command, settings: Settings) -> ExitCode {
    let _flush_logs = telemetry::start(&settings);
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
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed");
            eprintln!("psp: {error:#}");
            ExitCode::FAILURE
        }
    }
}
