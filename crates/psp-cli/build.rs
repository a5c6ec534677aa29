//! Version and commit of `psp --version`: from the environment where a build without a repository gives them.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PSP_VERSION");
    println!("cargo:rerun-if-env-changed=PSP_COMMIT");
    let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let version = given("PSP_VERSION").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let commit = given("PSP_COMMIT").or_else(head).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=PSP_VERSION={version}");
    println!("cargo:rustc-env=PSP_COMMIT={commit}");
}

/// The commit of the repository, which is looked at again when it moves.
fn head() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    git(&["rev-parse", "--short=12", "HEAD"])
}
