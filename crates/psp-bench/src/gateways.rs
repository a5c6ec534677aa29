//! What a dead gateway costs a payment: two acquirers over HTTP, each a process of its own, of which the first is killed.
//!
//! A payment's duration is from its `created_at` to its `updated_at` as `GET /transactions` tells them: from the request to the
//! answer of the gateway that approves it, with every write between them. Nobody has to look for the approval meanwhile.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::time::{Instant, interval, sleep};

use crate::client::{Client, Payment, get};
use crate::product::{self, Product};
use crate::table::{Row, Table};

/// How long each gateway takes for an answer.
const LATENCY: Duration = Duration::from_millis(20);
/// The time from one payment to the next: slow enough that none waits for another.
const PERIOD: Duration = Duration::from_millis(20);
/// How long payments are made before they are measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Failures in a row that open a breaker which is to stay closed: the most that may be configured.
const MAX_FAILURES: u32 = 1_000;
/// The most payments that meet a dead gateway behind it.
const MAX_REFUSED: u32 = MAX_FAILURES * 9 / 10;
/// How much slower payments may be with a dead gateway and an open breaker.
const TARGET: f64 = 1.5;
/// How long simulators may take to start, and breakers to open.
const PATIENCE: Duration = Duration::from_secs(20);
/// The rows of a page.
const PAGE: usize = 200;

/// Measures payments while both gateways answer, and without the first: before its breaker opens, and afterwards.
pub(crate) async fn measure(psp: &Path, dir: &Path, seconds: u64, table: &mut Table) -> anyhow::Result<()> {
    let payments = u32::try_from(Duration::from_secs(seconds).as_nanos() / PERIOD.as_nanos())?;
    eprintln!("two gateways that take {} ms …", LATENCY.as_millis());
    let mut world = World::start(psp, &dir.join("breaker"), &[]).await?;
    let healthy = world.pay("healthy", payments).await?;
    eprintln!("the first of them is killed …");
    world.first.kill()?;
    let opening = world.pay_until_open().await?;
    let refused = world.refused().await?;
    let open = world.pay("open", payments).await?;
    eprintln!("the same, and its breaker does not open …");
    let never = [("PSP_BREAKER_FAILURES", MAX_FAILURES.to_string())];
    let mut world = World::start(psp, &dir.join("no-breaker"), &never).await?;
    world.first.kill()?;
    let payments = payments.min(MAX_REFUSED);
    let closed = world.pay("closed", payments).await?;
    ensure!(world.refused().await? == u64::from(payments), "not every payment met the dead gateway");

    let latency = LATENCY.as_millis();
    let name = format!("from created to approved, {} gateways of {latency} ms answer: p50 / p99", NAMES.len());
    table.add(Row::new(name, healthy.quantiles()));
    let name = "… the first is dead, its breaker is open: p50 / p99";
    let ratio = open.at(0.99) / healthy.at(0.99);
    let row = Row::new(name, format!("{}, {}", open.quantiles(), open.against(&healthy)));
    table.add(row.target("p99 ≤ 1.5 ×", ratio <= TARGET));
    let name = "… the first is dead, its breaker is not open yet: p50 / p99";
    table.add(Row::new(name, format!("{}, {}", closed.quantiles(), closed.against(&healthy))));
    let name = "… payments that met the dead gateway until its breaker opened, and the slowest of the time";
    table.add(Row::new(name, format!("{refused}, {:.0} ms", opening.at(1.0))));
    Ok(())
}

/// The gateways, by priority.
const NAMES: [&str; 2] = ["first", "second"];

/// What requests to a simulator are signed with.
fn secret_of(name: &str) -> String {
    format!("no secret: the simulator {name} charges nobody")
}

/// The product with two gateways.
struct World {
    product: Product,
    first: Simulator,
    _second: Simulator,
}

impl World {
    /// Starts everything in a new directory, and pays for a while.
    async fn start(psp: &Path, dir: &Path, settings: &[(&str, String)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        run(product::command(psp, dir, &[])?.arg("migrate"))?;
        let [first, second] = NAMES.map(|name| Simulator::spawn(psp, dir, name));
        let (first, second) = (first?, second?);
        for (priority, simulator) in ["1", "2"].into_iter().zip([&first, &second]) {
            simulator.await_start().await?;
            let (name, url) = (simulator.name, format!("http://{}", simulator.address));
            let add = ["gateways", "add", name, "--protocol", "json", "--url", &url];
            run(product::command(psp, dir, &[])?.args(add))?;
            run(product::command(psp, dir, &[])?.args(["gateways", "route", name, "--priority", priority]))?;
        }
        let secrets = NAMES.map(|name| format!("{name}={}", secret_of(name))).join(",");
        let settings = [settings, &[("PSP_GATEWAY_SECRETS", secrets)]].concat();
        let product = Product::start(psp, dir, "serve", &settings).await?;
        let world = Self { product, first, _second: second };
        world.pay("warm-up", u32::try_from(WARM_UP.as_nanos() / PERIOD.as_nanos())?).await?;
        Ok(world)
    }

    /// Pays at a steady pace, and waits for the approvals.
    async fn pay(&self, customer: &str, payments: u32) -> anyhow::Result<Durations> {
        let mut client = Client::connect(&self.product.address).await?;
        let (mut payment, mut pace) = (Payment::of(customer), interval(PERIOD));
        for _ in 0..payments {
            pace.tick().await;
            post(&mut client, &mut payment).await?;
        }
        let durations = self.durations(&mut client, customer).await?;
        ensure!(durations.0.len() == u64::from(payments), "payments are missing");
        Ok(durations)
    }

    /// Pays at a steady pace until the first gateway is left alone.
    async fn pay_until_open(&self) -> anyhow::Result<Durations> {
        let customer = "opening";
        let mut client = Client::connect(&self.product.address).await?;
        let (mut payment, mut pace, begun) = (Payment::of(customer), interval(PERIOD), Instant::now());
        while self.metric(&["psp_gateway_breaker{", "gateway=\"first\""]).await? != Some(2) {
            ensure!(begun.elapsed() < PATIENCE, "the breaker of a dead gateway does not open");
            pace.tick().await;
            post(&mut client, &mut payment).await?;
        }
        self.durations(&mut client, customer).await
    }

    /// How often the first gateway could not be asked.
    async fn refused(&self) -> anyhow::Result<u64> {
        let labels = ["gateway=\"first\"", "operation=\"authorize\"", "outcome=\"unavailable\""];
        let line = [&["psp_gateway_requests_total{"][..], &labels].concat();
        Ok(self.metric(&line).await?.unwrap_or_default())
    }

    /// The value of the metric whose line has all these parts.
    async fn metric(&self, parts: &[&str]) -> anyhow::Result<Option<u64>> {
        let mut client = Client::connect(&self.product.address).await?;
        let (status, body) = client.ask(&get("/metrics", "bench")).await?;
        ensure!(status == 200, "answered {status}");
        let text = std::str::from_utf8(body)?;
        let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.and_then(|line| line.rsplit(' ').next()).map(str::parse).transpose().context("a metric is no count")
    }

    /// How long every payment of a customer took, once none is under way.
    async fn durations(&self, client: &mut Client, customer: &str) -> anyhow::Result<Durations> {
        self.product.drain().await?;
        let mut durations = Durations(Histogram::new(3)?);
        for page in 1.. {
            let (status, body) = client.ask(&get(&format!("/transactions?limit={PAGE}&page={page}"), customer)).await?;
            ensure!(status == 200, "answered {status}");
            let rows: Vec<Value> = serde_json::from_slice(body)?;
            for row in &rows {
                ensure!(row["status"] == "pending_payment", "a payment is not approved: {row}");
                let took = time(&row["updated_at"])? - time(&row["created_at"])?;
                durations.0.record(u64::try_from(took.num_milliseconds())?)?;
            }
            if rows.len() < PAGE {
                break;
            }
        }
        Ok(durations)
    }
}

async fn post(client: &mut Client, payment: &mut Payment) -> anyhow::Result<()> {
    let (status, _) = client.ask(payment.next()).await?;
    ensure!(status == 201, "answered {status}");
    Ok(())
}

fn time(json: &Value) -> anyhow::Result<DateTime<Utc>> {
    Ok(json.as_str().context("no time")?.parse()?)
}

/// Runs a command of the product to its end.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How long payments took, in milliseconds.
struct Durations(Histogram<u64>);

impl Durations {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64
    }

    fn quantiles(&self) -> String {
        format!("{:.0} / {:.0} ms", self.at(0.5), self.at(0.99))
    }

    /// How many times as long as those.
    fn against(&self, others: &Self) -> String {
        let [p50, p99] = [0.5, 0.99].map(|quantile| self.at(quantile) / others.at(quantile));
        format!("{p50:.2} × and {p99:.2} ×")
    }
}

/// A process that plays an acquirer, killed on drop.
struct Simulator {
    name: &'static str,
    child: Child,
    address: String,
}

impl Simulator {
    fn spawn(psp: &Path, dir: &Path, name: &'static str) -> anyhow::Result<Self> {
        let (address, log) = (product::free_address()?, File::create(dir.join(format!("{name}.log")))?);
        let settings = [("PSP_GATEWAY_SECRET", secret_of(name)), ("PSP_LISTEN", address.clone())];
        let mut command = product::command(psp, dir, &settings)?;
        command.args(["gateway-simulator", "--latency-ms", &LATENCY.as_millis().to_string()]);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { name, child, address })
    }

    async fn await_start(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(&self.address).await {
                let (status, _) = client.ask(&get("/admin/behaviour", "bench")).await?;
                ensure!(status == 200, "the simulator answered {status}");
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the simulator does not start");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills it: who connects is refused from then on.
    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
