//! Long-running roles: started together, stopped in order.
//!
//! At SIGTERM or SIGINT no more requests, messages and schedules are taken; those under way are finished; then waiting
//! writes are committed; then the database is closed. A second signal, or the end of the grace period, ends at once.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use metrics_exporter_prometheus::PrometheusHandle;
use psp_domain::QueueName;
use psp_domain::ports::{DeliveryBacklog, QueueDepth};
use psp_worker::RelayOptions;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::wiring::Wiring;
use crate::{schedule, telemetry};

/// How often queues are measured.
const MEASURE: Duration = Duration::from_secs(5);

/// What a process does.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each of them alone says what it means")]
pub(crate) struct Roles {
    pub(crate) api: bool,
    pub(crate) worker: bool,
    pub(crate) relay: bool,
    pub(crate) scheduler: bool,
}

impl Roles {
    pub(crate) const ALL: Self = Self { api: true, worker: true, relay: true, scheduler: true };
    pub(crate) const API: Self = Self { api: true, ..Self::NONE };
    pub(crate) const WORKER: Self = Self { worker: true, relay: true, ..Self::NONE };
    pub(crate) const RELAY: Self = Self { relay: true, ..Self::NONE };
    pub(crate) const SCHEDULER: Self = Self { scheduler: true, ..Self::NONE };
    const NONE: Self = Self { api: false, worker: false, relay: false, scheduler: false };

    /// Whether it talks to the broker, where there is one.
    fn needs_queue(self) -> bool {
        self.worker || self.relay
    }
}

/// A part of the process; it ends only when told to.
type Parts = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Runs the roles until a signal, or until one of them fails.
pub(crate) async fn run(settings: Settings, roles: Roles) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    // Before the adapters: a handle that they resolve without a recorder records nothing for ever.
    let metrics = telemetry::record_metrics().context("metrics")?;
    let wiring = Arc::new(Wiring::open(settings).await?);
    let (stop, mut parts) = (CancellationToken::new(), Parts::new());
    if roles.api || roles.worker {
        start_directory(&wiring, &stop, &mut parts).await?;
    }
    if roles.api {
        start_api(&wiring, &stop, &mut parts, metrics.clone()).await?;
    } else if let Some(address) = wiring.settings.admin_listen {
        let health = if roles.needs_queue() { wiring.worker_health().await? } else { wiring.health() };
        let router = psp_rest::admin_router(health, Some(metrics.clone()));
        listen(&wiring, &stop, &mut parts, "admin", address, router).await?;
    }
    if roles.worker {
        start_worker(&wiring, &stop, &mut parts).await?;
    }
    if roles.relay {
        let started = start_relay(&wiring, &stop, &mut parts).await?;
        ensure!(started || roles.worker, "there is nothing to relay: the queue is the database");
    }
    if roles.scheduler {
        start_scheduler(&wiring, &stop, &mut parts)?;
    }
    let meter = tokio::spawn(measure(Arc::clone(&wiring), roles));
    tracing::info!(?roles, database = %wiring.settings.database, version = crate::cli::VERSION, "started");

    let failure = tokio::select! {
        () = signals.first() => None,
        () = wiring.batching.ended() => Some(anyhow::anyhow!("the batch writer ended by itself")),
        Some(ended) = parts.join_next() => Some(describe(ended)),
    };
    tracing::info!("stopping");
    stop.cancel();
    meter.abort();
    let stopped = async {
        let mut failure = failure;
        while let Some(ended) = parts.join_next().await {
            if !matches!(ended, Ok((_, Ok(())))) {
                failure.get_or_insert(describe(ended));
            }
        }
        wiring.close().await;
        failure
    };
    let failure = tokio::select! {
        failure = stopped => failure,
        () = signals.first() => bail!("stopped at once by a second signal"),
        () = tokio::time::sleep(wiring.settings.shutdown_grace) => bail!("the grace period ended before everything had stopped"),
    };
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}

fn describe(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended by itself"),
        Ok((name, Err(error))) => error.context(name),
        // What a panic says may hold what a client sent.
        Err(_panic) => anyhow::anyhow!("a part panicked"),
    }
}

async fn start_api(
    wiring: &Arc<Wiring>,
    stop: &CancellationToken,
    parts: &mut Parts,
    metrics: PrometheusHandle,
) -> anyhow::Result<()> {
    let (rest, options) = wiring.rest().await?;
    let router = psp_rest::router(rest, options, Some(metrics));
    let address = wiring.settings.listen;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "PSP_AUTH=header trusts x-customer-id: let only an authenticating gateway reach this address");
    }
    listen(wiring, stop, parts, "api", address, router).await
}

async fn listen(
    wiring: &Arc<Wiring>,
    stop: &CancellationToken,
    parts: &mut Parts,
    name: &'static str,
    address: SocketAddr,
    router: axum::Router,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, name, "listening");
    if name == "api" && std::io::stderr().is_terminal() {
        eprintln!("{}", hint(address));
    }
    let (stop, grace) = (stop.clone().cancelled_owned(), wiring.settings.shutdown_grace.mul_f32(0.8));
    parts.spawn(async move { (name, psp_rest::serve(listener, router, stop, grace).await.map_err(Into::into)) });
    Ok(())
}

/// What a person at a terminal may do next.
fn hint(address: SocketAddr) -> String {
    format!(
        r#"
  psp is ready. Its documentation is at http://{address}/docs. A first payment, with a test card:

  curl -i http://{address}/transactions -H 'content-type: application/json' -H 'x-customer-id: 123' -d '{{
    "description": "Lightsaber", "amount": "2500", "payment_method": "credit_card",
    "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
    "card_expiration_date": "10/25", "card_verification_code": "123" }}'
  curl http://{address}/payables -H 'x-customer-id: 123'
"#
    )
}

/// Keeps the routes fresh, and tells the store how the gateways do.
async fn start_directory(wiring: &Arc<Wiring>, stop: &CancellationToken, parts: &mut Parts) -> anyhow::Result<()> {
    let (directory, stop) = (wiring.directory().await?, stop.clone());
    parts.spawn(async move {
        directory.run(stop).await;
        ("gateway directory", Ok(()))
    });
    Ok(())
}

async fn start_worker(wiring: &Arc<Wiring>, stop: &CancellationToken, parts: &mut Parts) -> anyhow::Result<()> {
    let queue = wiring.queue().await?;
    let transactions = Arc::clone(&wiring.store.transactions);
    let transactions = psp_worker::transactions_handler(Arc::new(wiring.authorize().await?), transactions);
    let handlers = [
        (QueueName::Transactions, transactions),
        (QueueName::PayablesSettlement, psp_worker::settlement_handler(wiring.settle())),
        (QueueName::GatewayCallbacks, psp_worker::callbacks_handler(Arc::new(wiring.callbacks().await?))),
        (QueueName::Refunds, psp_worker::refunds_handler(Arc::new(wiring.refund(wiring.retrying()).await?))),
        (QueueName::Orders, psp_worker::orders_handler(Arc::new(wiring.order_saga().await?))),
    ];
    for (name, handler) in handlers {
        let options = wiring.consumer_options(name);
        let consumer = psp_worker::consume(Arc::clone(&queue), name, handler, options, stop.clone());
        parts.spawn(async move {
            consumer.await;
            (name.as_str(), Ok(()))
        });
    }
    if let Some(deliverer) = wiring.deliverer().await? {
        let stop = stop.clone();
        parts.spawn(async move {
            deliverer.deliver_until(stop).await;
            ("webhook deliveries", Ok(()))
        });
    }
    let (sweeps, pause, stop) = (wiring.sweeps(), wiring.settings.sweep_interval, stop.clone());
    parts.spawn(async move {
        psp_jobs::sweep_until(&sweeps, pause, stop).await;
        ("sweeps", Ok(()))
    });
    Ok(())
}

/// `false` where the outbox is the queue.
async fn start_relay(wiring: &Arc<Wiring>, stop: &CancellationToken, parts: &mut Parts) -> anyhow::Result<bool> {
    let Some((outbox, broker)) = wiring.relay().await? else { return Ok(false) };
    for name in QueueName::ALL {
        let options = RelayOptions { retry: wiring.retry_policy(), ..RelayOptions::default() };
        let relay = psp_worker::relay(Arc::clone(&outbox), Arc::clone(&broker), name, options, stop.clone());
        parts.spawn(async move {
            relay.await;
            ("relay", Ok(()))
        });
    }
    Ok(true)
}

fn start_scheduler(wiring: &Arc<Wiring>, stop: &CancellationToken, parts: &mut Parts) -> anyhow::Result<()> {
    let jobs = schedule::jobs(wiring, stop)?;
    let (clock, stop) = (Arc::clone(&wiring.sources.clock), stop.clone());
    let (leadership, grace) = (wiring.store.leadership.clone(), wiring.settings.shutdown_grace.mul_f32(0.8));
    parts.spawn(async move {
        ("scheduler", psp_jobs::run_cron(jobs, clock, leadership, grace, stop).await.map_err(Into::into))
    });
    Ok(())
}

/// Keeps the gauges of the queues, and of the outbox before a broker: its age is the relay's lag.
async fn measure(wiring: Arc<Wiring>, roles: Roles) {
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        // Turned off, deliveries wait, and nobody is to be alarmed of that.
        if roles.worker
            && wiring.settings.webhook_reach.is_some()
            && let Ok(backlog) = wiring.store.deliveries.delivery_backlog(wiring.sources.clock.now()).await
        {
            record_backlog(&wiring, backlog);
        }
        let outbox = wiring.store.queue.depths().await.unwrap_or_default();
        if wiring.settings.sqs.is_none() {
            record(&wiring, &outbox, "psp_queue_depth", "psp_dead_letters", "psp_queue_oldest_seconds");
            continue;
        }
        record(&wiring, &outbox, "psp_outbox_depth", "psp_outbox_dead_letters", "psp_outbox_oldest_seconds");
        if roles.worker
            && let Ok(queue) = wiring.queue().await
        {
            let depths = queue.depths().await.unwrap_or_default();
            record(&wiring, &depths, "psp_queue_depth", "psp_dead_letters", "psp_queue_oldest_seconds");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts of deliveries and seconds fit 52 bits")]
fn record_backlog(wiring: &Wiring, backlog: DeliveryBacklog) {
    metrics::gauge!("psp_webhook_pending").set(backlog.pending as f64);
    let now = wiring.sources.clock.now();
    let seconds = backlog.oldest_due.map_or(0, |due| (now - due).num_seconds().max(0));
    metrics::gauge!("psp_webhook_oldest_due_seconds").set(seconds as f64);
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts of messages and seconds fit 52 bits")]
fn record(wiring: &Wiring, depths: &[QueueDepth], pending: &'static str, dead: &'static str, age: &'static str) {
    let now = wiring.sources.clock.now();
    for depth in depths {
        let queue = depth.queue.as_str();
        metrics::gauge!(pending, "queue" => queue).set(depth.pending as f64);
        metrics::gauge!(dead, "queue" => queue).set(depth.dead as f64);
        // A broker does not tell the age of its messages.
        if depth.oldest.is_some() || depth.pending == 0 {
            let seconds = depth.oldest.map_or(0, |oldest| (now - oldest).num_seconds().max(0));
            metrics::gauge!(age, "queue" => queue).set(seconds as f64);
        }
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<()>>);

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(tokio::sync::Mutex::new(receiver)))
    }

    /// The first signal that nobody waited for yet.
    pub(crate) async fn first(&self) {
        self.0.lock().await.recv().await;
    }
}
