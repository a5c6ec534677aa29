use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;
use tokio::time::{Instant, interval_at, sleep};

use crate::client::{Client, Payment, get};

/// The pause between two looks of the probe for its payable.
const LOOK: Duration = Duration::from_micros(500);

/// Significant digits of latencies.
const PRECISION: u8 = 3;

/// What a load gave.
pub(crate) struct Load {
    pub(crate) answers: usize,
    elapsed: Duration,
    micros: Histogram<u64>,
    micros_to_payable: Histogram<u64>,
}

impl Load {
    pub(crate) fn nothing() -> anyhow::Result<Self> {
        let (micros, micros_to_payable) = (Histogram::new(PRECISION)?, Histogram::new(PRECISION)?);
        Ok(Self { answers: 0, elapsed: Duration::ZERO, micros, micros_to_payable })
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.answers += other.answers;
        self.elapsed += other.elapsed;
        self.micros.add(&other.micros)?;
        self.micros_to_payable.add(&other.micros_to_payable)?;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn latency(&self) -> String {
        quantiles(&self.micros, &[0.5, 0.99, 0.999])
    }

    /// A quantile of the latency, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn millis_at(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn to_payable(&self) -> String {
        quantiles(&self.micros_to_payable, &[0.5, 0.99])
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn quantiles(micros: &Histogram<u64>, quantiles: &[f64]) -> String {
    let texts = quantiles.iter().map(|q| format!("{:.1}", micros.value_at_quantile(*q) as f64 / 1e3));
    format!("{} ms", texts.collect::<Vec<_>>().join(" / "))
}

/// What the connections share; all of them are on one thread.
struct Shared {
    answers: Cell<usize>,
    micros: RefCell<Histogram<u64>>,
    micros_to_payable: RefCell<Histogram<u64>>,
    stop: Cell<bool>,
}

/// How to load.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Payments a second, all connections together; as fast as answers come where there is none.
    pub(crate) rate: Option<f64>,
    /// Whether one connection more posts, and looks for its payable: needs a worker.
    pub(crate) probe: bool,
}

/// Posts on that many connections for that long.
pub(crate) async fn run(
    address: &str,
    connections: usize,
    duration: Duration,
    Options { rate, probe: probes }: Options,
) -> anyhow::Result<Load> {
    let shared = Rc::new(Shared {
        answers: Cell::new(0),
        micros: RefCell::new(Histogram::new(PRECISION)?),
        micros_to_payable: RefCell::new(Histogram::new(PRECISION)?),
        stop: Cell::new(false),
    });
    let local = LocalSet::new();
    let begun = Instant::now();
    local
        .run_until(async {
            let mut tasks = Vec::new();
            for number in 0..connections {
                let client = Client::connect(address).await?;
                tasks.push(tokio::task::spawn_local(connection(client, number, connections, rate, Rc::clone(&shared))));
            }
            if probes {
                tasks.push(tokio::task::spawn_local(probe(Client::connect(address).await?, Rc::clone(&shared))));
            }
            sleep(duration).await;
            shared.stop.set(true);
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    let elapsed = begun.elapsed();
    Ok(Load {
        answers: shared.answers.get(),
        elapsed,
        micros: shared.micros.borrow().clone(),
        micros_to_payable: shared.micros_to_payable.borrow().clone(),
    })
}

async fn connection(
    mut client: Client,
    number: usize,
    connections: usize,
    rate: Option<f64>,
    shared: Rc<Shared>,
) -> anyhow::Result<()> {
    let mut payment = Payment::of(&format!("merchant-{number}"));
    #[expect(clippy::cast_precision_loss, reason = "a pace need not be exact")]
    let mut pace = rate.map(|rate| {
        let period = Duration::from_secs_f64(connections as f64 / rate);
        interval_at(Instant::now() + period.mul_f64(number as f64 / connections as f64), period)
    });
    while !shared.stop.get() {
        // At a given rate, latency counts from when the request was due: a stall must not hide the requests it held up.
        let begun = match &mut pace {
            Some(pace) => pace.tick().await,
            None => Instant::now(),
        };
        let (status, _) = client.ask(payment.next()).await?;
        ensure!(status == 201, "answered {status}");
        shared.micros.borrow_mut().record(u64::try_from(begun.elapsed().as_micros())?)?;
        shared.answers.set(shared.answers.get() + 1);
    }
    Ok(())
}

/// From the 201 of a payment to its approval with payables, as its merchant sees it.
async fn probe(mut client: Client, shared: Rc<Shared>) -> anyhow::Result<()> {
    let mut payment = Payment::of("probe");
    while !shared.stop.get() {
        let (status, body) = client.ask(payment.next()).await?;
        ensure!(status == 201, "answered {status}");
        let created = Instant::now();
        let body: serde_json::Value = serde_json::from_slice(body)?;
        let id = body["id"].as_str().context("no id")?;
        let look = get(&format!("/transactions/{id}"), "probe");
        loop {
            let (status, body) = client.ask(&look).await?;
            ensure!(status == 200, "answered {status}");
            if body.windows(15).any(|window| window == b"pending_payment") {
                break;
            }
            sleep(LOOK).await;
        }
        shared.micros_to_payable.borrow_mut().record(u64::try_from(created.elapsed().as_micros())?)?;
    }
    Ok(())
}

/// Posts that many payments.
pub(crate) async fn count(address: &str, connections: usize, count: usize) -> anyhow::Result<()> {
    let left = Rc::new(Cell::new(count));
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut tasks = Vec::new();
            for number in 0..connections {
                let (mut client, left) = (Client::connect(address).await?, Rc::clone(&left));
                tasks.push(tokio::task::spawn_local(async move {
                    let mut payment = Payment::of(&format!("merchant-{number}"));
                    while left.get() > 0 {
                        left.set(left.get() - 1);
                        let (status, _) = client.ask(payment.next()).await?;
                        ensure!(status == 201, "answered {status}");
                    }
                    Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await
}
