//! How long events take to arrive, and what an endpoint that never answers changes about that for the others.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use psp_domain::ports::Store;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::receiver::Receivers;
use super::world::{Engine, World};
use super::{ROUNDS, median};
use crate::table::{Row, Table};

/// The time from one event to the next, of all customers together.
const PERIOD: Duration = Duration::from_millis(2);
/// How long events are written before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what hangs is waited for at the end.
const GRACE: Duration = Duration::from_millis(100);
/// How much slower the others may be beside an endpoint that never answers.
const TARGET: f64 = 1.1;

pub(super) async fn measure(
    engine: &Engine,
    dir: &Path,
    receivers: &Receivers,
    seconds: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    let name = engine.name();
    eprintln!("from event to arrival on {name} …");
    let mut all = [const { [const { Vec::new() }; 2] }; 2];
    for _ in 0..ROUNDS {
        for (is_silent, quantiles) in [false, true].into_iter().zip(&mut all) {
            receivers.silence_first(is_silent);
            let took = round(engine, dir, receivers, seconds).await?;
            for (values, quantile) in quantiles.iter_mut().zip([0.5, 0.99]) {
                values.push(millis(took.value_at_quantile(quantile)));
            }
        }
    }
    receivers.silence_first(false);
    let [healthy, silent] = all.map(|quantiles| quantiles.map(median));
    let count = receivers.addresses.len();
    let rate = 1.0 / PERIOD.as_secs_f64();
    let title = format!("from event to arrival, {name}, {rate:.0} events/s to {count} endpoints: p50 / p99");
    table.add(Row::new(title, format!("{:.1} / {:.1} ms", healthy[0], healthy[1])));
    let [p50, p99] = [0, 1].map(|n| silent[n] / healthy[n]);
    let value = format!("{:.1} / {:.1} ms, {p50:.2} × and {p99:.2} ×", silent[0], silent[1]);
    let row = Row::new("… one endpoint takes what comes and never answers; to the others", value);
    table.add(row.target("p99 < 1.1 ×", p99 < TARGET));
    Ok(())
}

/// Nanoseconds from the events of all endpoints but the first to their arrivals.
async fn round(
    engine: &Engine,
    dir: &Path,
    receivers: &Receivers,
    duration: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let world = World::open(engine, dir, receivers).await?;
    let (stop, deliverer) = world.deliver(GRACE)?;
    write(&world, receivers, WARM_UP).await?;
    receivers.record();
    let mut written = write(&world, receivers, duration).await?;
    let (mut took, begun) = (Histogram::new(3)?, Instant::now());
    while !written.is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "{} events did not arrive", written.len());
        for (id, arrived) in receivers.arrivals() {
            if let Some(at) = written.remove(&id) {
                took.record(u64::try_from((arrived - at).as_nanos())?)?;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    deliverer.await?;
    world.close(engine).await?;
    Ok(took)
}

/// Writes events at a steady pace; when those of all customers but the first came to be.
async fn write(world: &World, receivers: &Receivers, duration: Duration) -> anyhow::Result<HashMap<Uuid, Instant>> {
    let count = usize::try_from(duration.as_nanos() / PERIOD.as_nanos())?;
    let (mut pace, mut writes, mut written) = (tokio::time::interval(PERIOD), JoinSet::new(), HashMap::new());
    for n in 0..count {
        pace.tick().await;
        let number = n % receivers.addresses.len();
        let change = world.payment(number)?;
        if number > 0 {
            written.insert(change.events.first().context("an event")?.id.0, Instant::now());
        }
        let store = world.batching.clone();
        writes.spawn(async move { store.apply(change).await });
    }
    for done in writes.join_all().await {
        done?;
    }
    Ok(written)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
