//! Postgres and SQS, against pgbench, raw SQL and a bare loop of requests on the same servers.

pub(crate) mod databases;
mod growth;
mod pgbench;
mod relay;
mod settlement;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use crate::Args;
use crate::load::{self, Load, Options};
use crate::product::Product;
use crate::table::{Row, Table, mib};
use databases::Databases;

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// POST/s against pgbench
    Post,
    /// The whole pipeline, over the database queue and over SQS
    Pipeline,
    /// Settlement against raw SQL
    Settlement,
    /// Reads and writes as tables grow
    Growth,
    /// The relay against a bare loop
    Relay,
}

/// How long the product is loaded before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Into how many rounds a comparison is cut.
const ROUNDS: u32 = 2;
/// The key of cards: of nothing that is worth anything.
pub(crate) const CARD_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) struct Postgres<'a> {
    args: &'a Args,
    psp: &'a Path,
    dir: &'a Path,
    databases: Databases,
    table: Table,
}

impl<'a> Postgres<'a> {
    pub(crate) async fn measure(args: &'a Args, psp: &'a Path, dir: &'a Path) -> anyhow::Result<Table> {
        let databases = Databases::connect().await?;
        let mut run = Self { args, psp, dir, databases, table: Table::new() };
        let version = run.databases.version().await?;
        run.table.add(Row::new("server", version));
        let wants = |part| args.only.is_empty() || args.only.contains(&part);
        if wants(Part::Post) {
            run.post().await?;
        }
        if wants(Part::Pipeline) {
            run.pipeline().await?;
        }
        if wants(Part::Settlement) {
            run.settlement().await?;
        }
        if wants(Part::Growth) {
            run.growth().await?;
        }
        if wants(Part::Relay) {
            run.relay().await?;
        }
        Ok(run.table)
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    /// The settings of a process on that database.
    fn settings(url: &str) -> Vec<(&'static str, String)> {
        vec![("DATABASE_URL", url.to_owned()), ("PSP_CARD_KEYS", CARD_KEY.to_owned())]
    }

    /// The settings of a process on that database with SQS as its queue, and its queues.
    fn settings_with_sqs(&self, url: &str, prefix: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
        let endpoint = std::env::var("PSP_TEST_SQS_ENDPOINT").context("PSP_TEST_SQS_ENDPOINT")?;
        let mut settings = Self::settings(url);
        settings.extend([("PSP_QUEUE", "sqs".to_owned()), ("PSP_SQS_PREFIX", prefix.to_owned())]);
        settings.extend([("AWS_ENDPOINT_URL", endpoint), ("AWS_REGION", "us-east-1".to_owned())]);
        settings.extend([("AWS_ACCESS_KEY_ID", "bench".to_owned()), ("AWS_SECRET_ACCESS_KEY", "bench".to_owned())]);
        let created = crate::product::command(self.psp, self.dir, &settings)?.args(["queues", "create"]).output()?;
        anyhow::ensure!(created.status.success(), "queues: {}", String::from_utf8_lossy(&created.stderr));
        Ok(settings)
    }

    /// A database with the product's schema.
    async fn migrated(&self) -> anyhow::Result<String> {
        let url = self.databases.create().await?;
        let migrated = crate::product::command(self.psp, self.dir, &Self::settings(&url))?.arg("migrate").output()?;
        anyhow::ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        Ok(url)
    }

    /// `psp api` against pgbench on the same tables, taking turns.
    async fn post(&mut self) -> anyhow::Result<()> {
        let url = self.migrated().await?;
        let mut psp = Product::start(self.psp, self.dir, "api", &Self::settings(&url)).await?;
        let mut at_64 = 0.0;
        for connections in [8, 64, 256] {
            eprintln!("{connections} connections …");
            load::run(&psp.address, connections, WARM_UP, Options::default()).await?;
            let (mut load, mut ordinary, mut strongest) = (Load::nothing()?, 0.0, 0.0);
            for _ in 0..ROUNDS {
                self.databases.checkpoint().await?;
                ordinary +=
                    pgbench::run(self.dir, &url, pgbench::ORDINARY, connections, self.seconds() / (2 * ROUNDS))?;
                load.add(&load::run(&psp.address, connections, self.seconds() / ROUNDS, Options::default()).await?)?;
                strongest +=
                    pgbench::run(self.dir, &url, pgbench::STRONGEST, connections, self.seconds() / (2 * ROUNDS))?;
            }
            let (ordinary, strongest) = (ordinary / f64::from(ROUNDS), strongest / f64::from(ROUNDS));
            let rate = load.per_second();
            let row = |name: String, value| Row::new(name, value);
            let name = format!("pgbench, {connections} clients: BEGIN, INSERT, INSERT, COMMIT");
            self.table.add(row(name, format!("{ordinary:.0}/s")));
            let name = format!("pgbench, {connections} clients: both rows in one statement");
            self.table.add(row(name, format!("{strongest:.0}/s")));
            let (a, b) = (rate / ordinary, rate / strongest);
            let value = format!("{rate:.0}/s, {a:.2} × and {b:.2} ×");
            let post = row(format!("POST/s at {connections} connections"), value);
            self.table.add(if connections == 64 {
                post.target("≥ 2.5 × and ≥ 1.5 ×", a >= 2.5 && b >= 1.5)
            } else {
                post
            });
            let latency = row("… latency p50 / p99 / p99.9".to_owned(), load.latency());
            let p99 = load.millis_at(0.99);
            self.table.add(if connections == 64 { latency.target("p99 ≤ 5 ms", p99 <= 5.0) } else { latency });
            if connections == 64 {
                at_64 = rate;
            }
        }
        let half = Options { rate: Some(at_64 / 2.0), probe: false };
        let half = load::run(&psp.address, 64, self.seconds(), half).await?;
        self.table.add(Row::new("POST/s at 64 connections, half of that rate", format!("{:.0}/s", half.per_second())));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", half.latency()));
        self.table.add(Row::new("… RSS of the API, highest", mib(psp.memory("VmHWM")?)));
        psp.stop().await?;
        self.databases.drop(&url).await
    }

    /// `psp serve`: with its worker at work, over the database queue and over SQS.
    async fn pipeline(&mut self) -> anyhow::Result<()> {
        eprintln!("the whole pipeline …");
        let url = self.migrated().await?;
        let mut psp = Product::start(self.psp, self.dir, "serve", &Self::settings(&url)).await?;
        let loaded = Options { rate: None, probe: true };
        load::run(&psp.address, 64, WARM_UP, loaded).await?;
        let peak = load::run(&psp.address, 64, self.seconds(), loaded).await?;
        self.table.add(Row::new("POST/s at 64 connections, pipeline at work", format!("{:.0}/s", peak.per_second())));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", peak.latency()));
        self.databases.drain(&url).await?;
        let half = Options { rate: Some(peak.per_second() / 4.0), probe: true };
        let half = load::run(&psp.address, 64, self.seconds(), half).await?;
        let name = format!("from 201 to payable at {:.0}/s, database queue: p50 / p99", half.per_second());
        self.table.add(Row::new(name, half.to_payable()));
        self.table.add(Row::new("… RSS of the process, highest", mib(psp.memory("VmHWM")?)));
        psp.stop().await?;
        self.databases.drop(&url).await?;

        let url = self.migrated().await?;
        let settings = self.settings_with_sqs(&url, "bench-pipeline-")?;
        let mut psp = Product::start(self.psp, self.dir, "serve", &settings).await?;
        // The server in Python sets the pace.
        let slow = Options { rate: Some(200.0), probe: true };
        let load = load::run(&psp.address, 16, self.seconds(), slow).await?;
        let name = format!("from 201 to payable at {:.0}/s, SQS (moto): p50 / p99", load.per_second());
        self.table.add(Row::new(name, load.to_payable()));
        psp.stop().await?;
        self.databases.drop(&url).await
    }
}
