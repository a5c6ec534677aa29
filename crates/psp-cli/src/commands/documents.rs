use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the OpenAPI document.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub(crate) fn openapi() -> ExitCode {
    match psp_rest::openapi().to_pretty_json() {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("psp: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints shell completions.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Cli::command(), "psp", &mut std::io::stdout());
    ExitCode::SUCCESS
}
