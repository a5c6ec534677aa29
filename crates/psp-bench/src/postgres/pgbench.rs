use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// Ids that grow with time, as UUIDv7 do: microseconds, then the client and a count.
macro_rules! id {
    ($salt:literal) => {
        concat!(
            "encode(int8send((extract(epoch FROM clock_timestamp()) * 1000000)::bigint) || int8send(:client_id * 1000000 + :n * 2 + ",
            $salt,
            "), 'hex')::uuid"
        )
    };
}

macro_rules! transaction {
    ($id:expr) => {
        concat!(
            "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry, \
             card_last_four, card_brand, installments, status, version, created_at, updated_at, sealed_card) SELECT ",
            $id,
            ", 'merchant-' || :client_id, 'Lightsaber 00000001', 2500, 'BRL', 'credit_card', 'Luke Skywalker', 202510, '1111', \
             'visa', 1, 'processing', 1, now(), now(), decode(repeat('ab', 129), 'hex')"
        )
    };
}

macro_rules! event {
    ($id:expr, $aggregate:expr) => {
        concat!(
            "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at) SELECT ",
            $id,
            ", 'transaction.created', ",
            $aggregate,
            ", 1, 'merchant-' || :client_id, '{\"status\":\"processing\",\"amount\":2500,\"currency\":\"BRL\"}', now(), \
             'transactions', now()"
        )
    };
}

/// As an ordinary service does it.
pub(super) const ORDINARY: &str =
    concat!("\\set n :n + 1\nBEGIN;\n", transaction!(id!("0")), ";\n", event!(id!("1"), id!("1")), ";\nCOMMIT;\n");

/// Both rows in one statement: the strongest form.
pub(super) const STRONGEST: &str = concat!(
    "\\set n :n + 1\nWITH ids AS MATERIALIZED (SELECT ",
    id!("0"),
    " AS t, ",
    id!("1"),
    " AS e), t AS (",
    transaction!("t"),
    " FROM ids) ",
    event!("e", "t"),
    " FROM ids;\n"
);

/// Transactions a second of a script.
pub(super) fn run(dir: &Path, url: &str, script: &str, clients: usize, duration: Duration) -> anyhow::Result<f64> {
    let file = dir.join("pgbench.sql");
    std::fs::write(&file, script)?;
    let (clients, seconds) = (clients.to_string(), duration.as_secs().max(1).to_string());
    let mut command = Command::new(program()?);
    command
        .args(["-n", "-M", "prepared", "-j", "2", "-D", "n=0", "-c", &clients, "-T", &seconds, "-f"])
        .arg(&file)
        .arg(url);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")).context("no rate")?;
    Ok(rate.split(' ').next().unwrap_or_default().parse()?)
}

fn program() -> anyhow::Result<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<_> =
        installed.map(|entry| entry.path().join("bin/pgbench")).filter(|path| path.is_file()).collect();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("pgbench")).find(|path| path.is_file());
    installed.pop().or(on_path).context("pgbench is not installed")
}
