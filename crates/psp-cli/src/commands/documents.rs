use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::answer;
use crate::cli::Cli;

/// Prints the OpenAPI document.
pub(crate) fn openapi() -> anyhow::Result<()> {
    answer(psp_rest::openapi().to_pretty_json()?)
}

/// Prints shell completions.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    // The generator panics when its writer fails, as a pipe may.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "psp", &mut script);
    answer(String::from_utf8(script).context("the completions are no text")?.trim_end())
}
