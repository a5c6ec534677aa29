//! Deliveries to webhook endpoints: how many a second beside loops that only send, and how long events take to arrive.
//!
//! The deliverer, the loops and the store run in this process on the product's runtime, the receivers on a thread of their own.

mod bare;
mod fairness;
mod receiver;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::postgres::databases::Databases;
use crate::table::{Row, Table};
use receiver::Receivers;
use world::{Engine, World};

/// Endpoints, each of a customer of its own: so many that the limit of one endpoint holds nothing back.
const ENDPOINTS: usize = 100;
/// Deliveries in hand, as the product has by default.
const CONCURRENCY: usize = 256;
/// How long receivers take for an answer: no time at all, and what a near one takes over the Internet.
const LATENCIES_MS: [u64; 2] = [0, 50];
/// Into how many rounds a comparison is cut.
const ROUNDS: u32 = 3;
/// How long requests are made before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// What part of the rate of bare requests deliveries reach.
const TARGET: f64 = 0.7;
/// How long the prepared deliveries may take.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long deliveries in hand may take at the end.
const GRACE: Duration = Duration::from_secs(14);

/// Measures deliveries on SQLite, and on the Postgres of `PSP_TEST_DATABASE_URL` where there is one.
pub(crate) async fn measure(dir: &Path, seconds: Duration) -> anyhow::Result<Table> {
    let (mut table, receivers) = (Table::new(), Receivers::start(ENDPOINTS)?);
    let mut engines = vec![Engine::Sqlite];
    if std::env::var_os("PSP_TEST_DATABASE_URL").is_some() {
        let databases = Databases::connect().await?;
        table.add(Row::new("server", databases.version().await?));
        engines.push(Engine::Postgres(databases));
    }
    for latency_ms in LATENCIES_MS {
        throughput(&engines, dir, &receivers, latency_ms, seconds / ROUNDS, &mut table).await?;
    }
    receivers.set_latency_ms(0);
    for engine in &engines {
        fairness::measure(engine, dir, &receivers, seconds / ROUNDS, &mut table).await?;
    }
    Ok(table)
}

/// Everything in turns: a machine is not equally fast all the time.
async fn throughput(
    engines: &[Engine],
    dir: &Path,
    receivers: &Receivers,
    latency_ms: u64,
    round: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    receivers.set_latency_ms(latency_ms);
    let (body, client) = (bytes::Bytes::from(world::example()?.to_json()), Arc::new(world::client()?));
    let warm = bare::client(&client, receivers, &body, WARM_UP).await?;
    let deliveries = count_for(warm * TARGET, round);
    eprintln!("{deliveries} deliveries of {} bytes, answers after {latency_ms} ms …", body.len());
    let mut worlds = Vec::new();
    for engine in engines {
        worlds.push((engine, World::open(engine, dir, receivers).await?, Vec::new()));
    }
    let (mut connections, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        connections.push(bare::connections(receivers, &body, round).await?);
        clients.push(bare::client(&client, receivers, &body, round).await?);
        for (engine, world, rates) in &mut worlds {
            rates.push(deliver(engine, world, receivers, deliveries).await?);
        }
    }
    let (connections, clients) = (median(connections), median(clients));
    let name = format!(
        "bare loops on {CONCURRENCY} connections of hyper to {ENDPOINTS} receivers, answers after {latency_ms} ms"
    );
    table.add(Row::new(name, format!("{connections:.0} requests/s")));
    let name = format!("… of the deliverer's client, {CONCURRENCY} at once");
    table.add(Row::new(name, format!("{clients:.0} requests/s")));
    for (engine, world, rates) in worlds {
        let rate = median(rates);
        let (a, b) = (rate / clients, rate / connections);
        let name = format!("… {deliveries} deliveries from {}, each signed and concluded", engine.name());
        let row = Row::new(name, format!("{rate:.0}/s, {a:.2} × the client and {b:.2} × the connections"));
        table.add(row.target("≥ 0.7 × the client", a >= TARGET));
        world.close(engine).await?;
    }
    Ok(())
}

/// Deliveries per second, from the start of a deliverer to its end: with every conclusion written.
async fn deliver(engine: &Engine, world: &World, receivers: &Receivers, deliveries: u32) -> anyhow::Result<f64> {
    world.prepare(usize::try_from(deliveries)?).await?;
    if let Engine::Postgres(databases) = engine {
        databases.checkpoint().await?;
    }
    let (begun, before) = (Instant::now(), receivers.count());
    let (stop, deliverer) = world.deliver(GRACE)?;
    receivers.await_count(before + u64::from(deliveries), PATIENCE).await?;
    stop.cancel();
    deliverer.await?;
    let took = begun.elapsed();
    let pending = world.pending().await?;
    ensure!(pending == 0, "{pending} deliveries are not concluded");
    Ok(f64::from(deliveries) / took.as_secs_f64())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some tens of thousands")]
fn count_for(per_second: f64, duration: Duration) -> u32 {
    (per_second * duration.as_secs_f64()) as u32
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
