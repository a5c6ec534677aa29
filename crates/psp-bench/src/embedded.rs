//! The embedded default, against raw SQLite.

use std::path::Path;
use std::time::Duration;

use crate::load::{self, Load, Options};
use crate::table::{Row, Table, mib};
use crate::{Args, baseline, product};

/// How long the product is loaded before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Into how many rounds the load is cut that is compared with the baseline.
const ROUNDS: u32 = 3;
/// How long the baseline is measured before the first round and after each.
const BASELINE: Duration = Duration::from_secs(2);

/// As fast as answers come, with a look at how long the pipeline takes.
const LOADED: Options = Options { rate: None, probe: true };

/// One run: what it measures with, and its figures so far.
pub(crate) struct Embedded<'a> {
    pub(crate) args: &'a Args,
    pub(crate) psp: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) table: Table,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Embedded<'_> {
    pub(crate) async fn measure(&mut self) -> anyhow::Result<()> {
        let mut psp = self.start_up().await?;
        let peak = self.peak(&psp).await?;
        let half = self.half(&psp, peak.per_second() / 2.0).await?;
        let posted = peak.answers + half.answers;
        if posted < self.args.settle {
            eprintln!("more payments, to have {} …", self.args.settle);
            load::count(&psp.address, self.args.connections, self.args.settle - posted).await?;
        }
        psp.drain().await?;
        psp.stop().await?;
        self.settle()?;
        let size = std::fs::metadata(self.psp)?.len() as f64 / 1e6;
        self.table.add(Row::new("size of the binary", format!("{size:.1} MB")).target("≤ 40 MB", size <= 40.0));
        Ok(())
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    async fn start_up(&mut self) -> anyhow::Result<product::Product> {
        eprintln!("start-up …");
        let psp = product::Product::start(self.psp, self.dir, "serve", &[]).await?;
        let took = psp.start_up.as_secs_f64() * 1e3;
        let row = Row::new("start-up, to the first ready answer", format!("{took:.0} ms"));
        self.table.add(row.target("≤ 200 ms", took <= 200.0));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = psp.memory("VmRSS")?;
        self.table.add(Row::new("RSS idle", mib(idle)).target("≤ 32 MiB", idle <= 32 << 20));
        Ok(psp)
    }

    /// As fast as answers come, in rounds with the baseline between them: a disk is not equally fast all the time.
    async fn peak(&mut self, psp: &product::Product) -> anyhow::Result<Load> {
        let connections = self.args.connections;
        eprintln!("{connections} connections for {} s, as fast as answered …", self.args.seconds);
        load::run(&psp.address, connections, WARM_UP, LOADED).await?;
        let mut raw = vec![baseline::inserts_per_second(self.dir, BASELINE).await?];
        let (mut peak, mut waiting, mut drained) = (Load::nothing()?, 0, Duration::ZERO);
        for _ in 0..ROUNDS {
            peak.add(&load::run(&psp.address, connections, self.seconds() / ROUNDS, LOADED).await?)?;
            let (left, took) = psp.drain().await?;
            (waiting, drained) = (waiting.max(left), drained.max(took));
            raw.push(baseline::inserts_per_second(self.dir, BASELINE).await?);
        }

        let (least, most) = raw.iter().fold((f64::MAX, 0.0), |(least, most), &r| (r.min(least), r.max(most)));
        let (raw, rate) = (raw.iter().sum::<f64>() / raw.len() as f64, peak.per_second());
        let name = "raw SQLite, two inserts and a commit: mean (least to most)";
        self.table.add(Row::new(name, format!("{raw:.0}/s ({least:.0} to {most:.0})")));
        let name = format!("POST/s at {connections} connections, pipeline at work");
        let row = Row::new(name, format!("{rate:.0}/s, {:.1} × raw", rate / raw));
        self.table.add(row.target("≥ 2 × raw", rate >= 2.0 * raw));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", peak.latency()));
        self.table.add(Row::new("… from 201 to payable p50 / p99", peak.to_payable()));
        let name = "… payments that wait for approval at its end, and how long";
        self.table.add(Row::new(name, format!("{waiting}, {} ms", drained.as_millis())));
        let memory = psp.memory("VmHWM")?;
        self.table.add(Row::new("… RSS, highest", mib(memory)).target("≤ 64 MiB", memory <= 64 << 20));
        Ok(peak)
    }

    async fn half(&mut self, psp: &product::Product, rate: f64) -> anyhow::Result<Load> {
        eprintln!("half of that rate …");
        let half =
            load::run(&psp.address, self.args.connections, self.seconds(), Options { rate: Some(rate), ..LOADED })
                .await?;
        self.table.add(Row::new("POST/s at half of that rate", format!("{:.0}/s", half.per_second())));
        self.table.add(Row::new("… latency p50 / p99 / p99.9", half.latency()));
        self.table.add(Row::new("… from 201 to payable p50 / p99", half.to_payable()));
        Ok(half)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        eprintln!("settlement …");
        let (payables, seconds) = product::settle(self.psp, self.dir)?;
        let settled = payables as f64 / seconds;
        let name = format!("settlement of {payables} payables, transactions and events");
        self.table.add(Row::new(name, format!("{settled:.0} payables/s")).target("≥ 50000/s", settled >= 50_000.0));
        Ok(())
    }
}
