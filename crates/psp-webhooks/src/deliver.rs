use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    DeliveryClaim, DeliveryStore, EndpointStore, EndpointVerdict, SecretVault, StoreError, VaultError,
};
use psp_domain::usecases::Sources;
use psp_domain::{
    ConcludedDelivery, DeliveryAttempt, DeliveryVerdict, DueDelivery, EndpointStatus, WebhookEndpoint, WebhookPolicy,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Failure, Outgoing, WebhookClient};
use crate::conclude::conclude;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::secrets::Secrets;

/// What a deliverer may use.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryOptions {
    /// The most deliveries in hand.
    pub concurrency: usize,
    /// The most of one endpoint. A customer has an eighth of all, or half as much again as one endpoint where that is more.
    pub per_endpoint: u32,
    /// How often it looks for what has become due, where nobody wakes it.
    pub poll: Duration,
    /// How long deliveries in hand may take after the stop; then they are left to their leases.
    pub grace: Duration,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { concurrency: 256, per_endpoint: 10, poll: Duration::from_secs(1), grace: Duration::from_secs(20) }
    }
}

/// What a deliverer works with.
#[derive(Clone)]
pub struct DeliveryPorts {
    /// What is due.
    pub deliveries: Arc<dyn DeliveryStore>,
    /// Where endpoints are disabled.
    pub endpoints: Arc<dyn EndpointStore>,
    /// Opens their secrets.
    pub vault: Arc<dyn SecretVault>,
    /// The clock and the ids.
    pub sources: Sources,
}

/// Delivers events to webhook endpoints.
pub struct Deliverer {
    ports: DeliveryPorts,
    client: WebhookClient,
    policy: WebhookPolicy,
    options: DeliveryOptions,
    secrets: Secrets,
    random: SystemRandom,
    metrics: Metrics,
}

/// How long a claim that is under way when the stop comes may take to arrive.
const LAST_CLAIM: Duration = Duration::from_millis(200);
/// What part of the grace period the last writes may take after it.
const LAST_PART: u32 = 8;
/// The longest pause after claims that fail.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How much longer than the wait for a place, the opening of secrets and an attempt a lease is: what writing may take.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// How often an endpoint is judged again because it changed meanwhile.
const MAX_TRIES: usize = 5;

impl Deliverer {
    /// A deliverer. Its leases are longer than an attempt of the client can be.
    pub fn new(ports: DeliveryPorts, client: WebhookClient, policy: WebhookPolicy, options: DeliveryOptions) -> Self {
        let secrets = Secrets::new(Arc::clone(&ports.vault));
        Self { ports, client, policy, options, secrets, random: SystemRandom::new(), metrics: Metrics::new() }
    }

    /// Delivers until stopped. Then claims no more, ends the attempts in hand within the grace period, and writes what came of
    /// them.
    pub async fn deliver_until(self, stop: CancellationToken) {
        let grace = self.options.grace;
        let (done, ended) = mpsc::channel(self.options.concurrency.max(1));
        let concluder = tokio::spawn(conclude(Arc::clone(&self.ports.deliveries), ended));
        let (deliverer, abandon, tasks) = (Arc::new(self), CancellationToken::new(), TaskTracker::new());
        let round = Round { deliverer, done, abandon: abandon.clone(), tasks: tasks.clone() };
        round.claim_until(&stop).await;
        // The channel closes with the last delivery in hand.
        drop(round);
        tasks.close();
        if timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(left = tasks.len(), "deliveries in hand are left to their leases");
            abandon.cancel();
            tasks.wait().await;
        }
        if timeout(grace / LAST_PART, concluder).await.is_err() {
            tracing::warn!("what became of deliveries was not written in time: they will be made again");
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.ports.sources.clock.now()
    }

    async fn claim(&self, places: &Places, max: u32) -> Result<Vec<DueDelivery>, StoreError> {
        let (now, except) = (self.now(), places.full());
        let leased_until = now + (Places::PATIENCE + Secrets::PATIENCE + self.client.timeout() + LEASE_MARGIN);
        let claim = DeliveryClaim { now, max, per_endpoint: places.share(), except: &except, leased_until };
        self.ports.deliveries.claim_deliveries(claim).await
    }

    /// Makes one attempt, hands over what came of it, and disables the endpoint where that is due.
    async fn deliver(&self, due: DueDelivery, done: mpsc::Sender<ConcludedDelivery>) {
        let Some(concluded) = self.attempt(&due).await else { return };
        let attempt = concluded.attempt.clone();
        // The receiver lives as long as there are senders.
        let _ = done.send(concluded).await;
        if self.policy.gives_up(&due.endpoint, &attempt, self.now()).is_none() {
            return;
        }
        if let Err(error) = self.give_up(&due.endpoint, &attempt).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(endpoint = %due.endpoint.id, error, "not disabled: the next attempt judges again");
        }
    }

    /// `None` where nothing can be sent, which is no fault of the endpoint: the delivery comes again when its lease ends.
    async fn attempt(&self, due: &DueDelivery) -> Option<ConcludedDelivery> {
        let (event, endpoint) = (&due.event, &due.endpoint);
        let unsent = |error: &VaultError| {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::error!(event = %event.id, endpoint = %endpoint.id, error, "a delivery cannot be sent");
        };
        let secrets = self.secrets.of(endpoint, self.now()).await.inspect_err(unsent).ok()?;
        let (started_at, begun, id) = (self.now(), Instant::now(), event.id.to_string());
        let body = Bytes::from(event.to_json());
        let signatures = secrets.sign(&id, &body, started_at);
        let outgoing = Outgoing { url: &endpoint.url, id, timestamp: started_at.timestamp(), signatures, body };
        let answered = self.client.post(outgoing, started_at).await;
        if matches!(answered, Err(Failure::Busy)) {
            tracing::warn!(event = %event.id, endpoint = %endpoint.id, "a delivery waits: too many names are asked for");
            return None;
        }
        let (took, retry_after) = (begun.elapsed(), answered.as_ref().ok().and_then(|answer| answer.retry_after));
        let attempt = DeliveryAttempt {
            number: due.attempts + 1,
            started_at,
            duration_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            status: answered.as_ref().ok().map(|answer| answer.status),
            error: answered.as_ref().err().map(|failure| failure.as_str().to_owned()),
            answer: answered.map(|answer| answer.text).unwrap_or_default(),
        };
        let verdict = self.policy.judge(due.tries, &attempt, retry_after, self.random_millionths(), self.now());
        self.report(due, &attempt, verdict, took);
        Some(ConcludedDelivery { event_id: event.id, endpoint_id: endpoint.id, lease: due.lease, attempt, verdict })
    }

    fn report(&self, due: &DueDelivery, attempt: &DeliveryAttempt, verdict: DeliveryVerdict, took: Duration) {
        self.metrics.count(verdict);
        self.metrics.seconds.record(took.as_secs_f64());
        if due.attempts == 0 && verdict == DeliveryVerdict::Delivered {
            let latency = (self.now() - due.event.occurred_at).to_std().unwrap_or_default();
            self.metrics.latency.record(latency.as_secs_f64());
        }
        let (event, endpoint, number) = (due.event.id, due.endpoint.id, attempt.number);
        let (status, error) = (attempt.status, attempt.error.as_deref());
        match verdict {
            DeliveryVerdict::Delivered => tracing::debug!(%event, %endpoint, number, status, "delivered"),
            DeliveryVerdict::RetryAt(at) => {
                tracing::info!(%event, %endpoint, number, status, error, %at, "not delivered: attempted again then");
            }
            DeliveryVerdict::Failed => tracing::warn!(%event, %endpoint, number, status, error, "not delivered"),
        }
    }

    /// From 0 to 1, in millionths.
    fn random_millionths(&self) -> u32 {
        let mut bytes = [0; 4];
        // Without randomness, attempts that failed together come back together.
        let _ = self.random.fill(&mut bytes);
        u32::from_be_bytes(bytes) % 1_000_001
    }

    /// Disables an endpoint, as it is by now: one that was changed after the attempt began is judged by its next.
    async fn give_up(&self, attempted: &WebhookEndpoint, attempt: &DeliveryAttempt) -> Result<(), StoreError> {
        let (store, ids) = (&self.ports.endpoints, self.ports.sources.ids.as_ref());
        for _ in 0..MAX_TRIES {
            let Some(mut found) = store.find_endpoint(&attempted.customer_id, attempted.id).await? else {
                return Ok(());
            };
            let is_other = found.status == EndpointStatus::Disabled || found.updated_at > attempt.started_at;
            let reason = self.policy.gives_up(&found, attempt, self.now());
            let Some(reason) = reason.filter(|_| !is_other) else { return Ok(()) };
            let expected = found.version;
            // The attempt may not be written yet.
            found.failing_since = found.failing_since.or(Some(attempt.started_at));
            let (disabled, event) = found.disable(reason, self.now(), ids);
            if store.update_endpoint(&disabled, expected, &[event], None).await? == EndpointVerdict::Written {
                tracing::warn!(endpoint = %disabled.id, customer = %disabled.customer_id, reason, "webhook endpoint disabled");
                return Ok(());
            }
        }
        Err(StoreError::Overloaded)
    }
}

/// What the loop of claims needs.
struct Round {
    deliverer: Arc<Deliverer>,
    done: mpsc::Sender<ConcludedDelivery>,
    /// Ends the attempts in hand, wherever they are.
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Round {
    async fn claim_until(&self, stop: &CancellationToken) {
        let options = self.deliverer.options;
        let places = Arc::new(Places::new(options.concurrency, options.per_endpoint));
        let mut failures = 0;
        while let Some(max) = stop.run_until_cancelled(places.free()).await {
            match self.claim(&places, max, stop).await {
                Ok(claimed) if claimed.is_empty() => {
                    self.deliverer.client.close_idle();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = places.freed() => {}
                        () = self.deliverer.ports.deliveries.deliveries_wake(options.poll) => {}
                    }
                    failures = 0;
                }
                Ok(claimed) => {
                    self.spawn(claimed, &places);
                    failures = 0;
                }
                Err(error) => {
                    let pause = (options.poll * 2u32.saturating_pow(failures)).min(MAX_PAUSE);
                    failures += 1;
                    tracing::error!(error = &error as &dyn std::error::Error, ?pause, "claiming deliveries failed");
                    let _ = timeout(pause, stop.cancelled()).await;
                }
            }
        }
    }

    async fn claim(&self, places: &Places, max: u32, stop: &CancellationToken) -> Result<Vec<DueDelivery>, StoreError> {
        let mut claim = Box::pin(self.deliverer.claim(places, max));
        tokio::select! {
            claimed = &mut claim => claimed,
            // Deliveries that are just being claimed would wait for the end of their leases if nobody took them.
            () = stop.cancelled() => timeout(LAST_CLAIM, claim).await.unwrap_or(Ok(Vec::new())),
        }
    }

    fn spawn(&self, claimed: Vec<DueDelivery>, places: &Arc<Places>) {
        for due in claimed {
            let claimed = places.count(&due.endpoint);
            let (deliverer, done) = (Arc::clone(&self.deliverer), self.done.clone());
            let delivery = async move {
                let Some(_place) = claimed.placed().await else {
                    tracing::debug!(event = %due.event.id, endpoint = %due.endpoint.id, "left to its lease: no place");
                    return;
                };
                let _in_flight = InFlight::new(&deliverer.metrics);
                deliverer.deliver(due, done).await;
            };
            self.tasks.spawn(self.abandon.clone().run_until_cancelled_owned(delivery));
        }
    }
}

/// Counted while it is held, however it ends.
struct InFlight<'m>(&'m Metrics);

impl<'m> InFlight<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.in_flight.increment(1.0);
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.decrement(1.0);
    }
}
