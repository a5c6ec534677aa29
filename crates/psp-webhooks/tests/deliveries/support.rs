//! A memory with endpoints and events, and deliverers over it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{Clock, DeliveryStore, EndpointStore, SecretVault, Store, UuidV7Generator};
use psp_domain::usecases::{NewEndpoint, Sources, WebhookEndpoints};
use psp_domain::{
    CustomerId, DeliveryStatus, EndpointId, EventKind, MessageId, WebhookDelivery, WebhookEndpoint, WebhookPolicy,
    WebhookSecret,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{Memory, PlainVault};
use psp_testkit::fixtures;
use psp_webhooks::{
    ClientOptions, Deliverer, DeliveryOptions, DeliveryPorts, RandomSecrets, Reach, Resolve, UrlRules, WebhookClient,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a lease is with the client's options of [`Case`].
pub(crate) const LEASE: Duration = Duration::from_secs(80);

pub(crate) struct Case {
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) endpoints: WebhookEndpoints,
    pub(crate) names: Arc<Names>,
    pub(crate) client: ClientOptions,
    pub(crate) options: DeliveryOptions,
    pub(crate) policy: WebhookPolicy,
    pub(crate) tls: rustls::ClientConfig,
    pub(crate) ports: DeliveryPorts,
}

/// A deliverer that works until it is dropped or stopped.
pub(crate) struct Working {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    _stops: DropGuard,
}

/// Gives each name the addresses that it is told, one answer after the other; the last one again and again. Those that begin
/// with `silent` wait for as long as they are to.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
    is_silent: watch::Sender<bool>,
}

impl Names {
    pub(crate) fn set(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), answers.iter().map(parse).collect());
    }

    pub(crate) fn silence(&self, is_silent: bool) {
        self.is_silent.send_replace(is_silent);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        if host.starts_with("silent") {
            self.is_silent.subscribe().wait_for(|is_silent| !is_silent).await.unwrap();
        }
        let mut answers = self.answers.lock().unwrap();
        let Some(left) = answers.get_mut(host) else { return Err(std::io::Error::other("no such name")) };
        let next = if left.len() > 1 { left.pop_front() } else { left.front().cloned() };
        Ok(next.unwrap())
    }
}

/// TLS that believes nobody.
pub(crate) fn no_tls() -> rustls::ClientConfig {
    tls_of(rustls::RootCertStore::empty())
}

pub(crate) fn tls_of(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    tls.with_root_certificates(roots).with_no_client_auth()
}

impl Default for Case {
    /// By the test's clock.
    fn default() -> Self {
        let clock = Arc::new(FixedClock::default());
        Self::of(clock.clone(), clock)
    }
}

impl Case {
    /// By another clock than the memory's, which is far behind: what it keeps is due.
    pub(crate) fn by(clock: Arc<dyn Clock>) -> Self {
        Self::of(Arc::default(), clock)
    }

    /// On this machine, without jitter.
    fn of(clock: Arc<FixedClock>, others: Arc<dyn Clock>) -> Self {
        let memory = Arc::new(Memory::new(clock.clone()));
        let sources = Sources { clock: others, ids: Arc::new(UuidV7Generator) };
        let (vault, rules) = (Arc::new(PlainVault), UrlRules { reach: Reach::Loopback });
        let endpoints = WebhookEndpoints::new(
            memory.clone(),
            memory.clone(),
            vault.clone(),
            Arc::new(rules),
            Arc::new(RandomSecrets::default()),
            sources.clone(),
        );
        let client =
            ClientOptions { reach: Reach::Loopback, timeout: Duration::from_secs(30), ..ClientOptions::default() };
        let options = DeliveryOptions { poll: Duration::from_millis(10), ..DeliveryOptions::default() };
        let ports = DeliveryPorts { deliveries: memory.clone(), endpoints: memory.clone(), vault, sources };
        Self {
            clock,
            memory,
            endpoints,
            names: Arc::default(),
            client,
            options,
            policy: WebhookPolicy { jitter_percent: 0, ..WebhookPolicy::default() },
            tls: no_tls(),
            ports,
        }
    }
}

pub(crate) fn customer() -> CustomerId {
    fixtures::customer("123")
}

impl Case {
    /// An endpoint for every kind of event.
    pub(crate) async fn endpoint(&self, url: &str) -> (WebhookEndpoint, WebhookSecret) {
        self.endpoint_for(url, &[]).await
    }

    pub(crate) async fn endpoint_for(&self, url: &str, events: &[EventKind]) -> (WebhookEndpoint, WebhookSecret) {
        let new = NewEndpoint { url: url.to_owned(), events: events.to_vec(), ..NewEndpoint::default() };
        self.endpoints.create(customer(), new).await.unwrap()
    }

    /// An endpoint of another customer.
    pub(crate) async fn endpoint_of(&self, customer: &str, url: &str) -> WebhookEndpoint {
        let new = NewEndpoint { url: url.to_owned(), ..NewEndpoint::default() };
        self.endpoints.create(fixtures::customer(customer), new).await.unwrap().0
    }

    /// A `transaction.created`.
    pub(crate) async fn event(&self) -> MessageId {
        self.event_of("123").await
    }

    pub(crate) async fn event_of(&self, customer: &str) -> MessageId {
        let (_, change) = fixtures::create(&fixtures::payment(customer, 2_500, 1), self.clock.now());
        let id = change.events[0].id;
        self.memory.apply(change).await.unwrap();
        id
    }

    pub(crate) fn start(&self) -> Working {
        let client = WebhookClient::new(&self.client, self.tls.clone(), self.names.clone()).unwrap();
        let deliverer = Deliverer::new(self.ports.clone(), client, self.policy.clone(), self.options);
        let stop = CancellationToken::new();
        let task = tokio::spawn(deliverer.deliver_until(stop.clone()));
        Working { _stops: stop.clone().drop_guard(), stop, task }
    }

    pub(crate) async fn delivery(&self, event: MessageId, endpoint: &WebhookEndpoint) -> WebhookDelivery {
        let all = self.memory.deliveries_of(&customer(), event).await.unwrap();
        all.into_iter().find(|delivery| delivery.endpoint_id == endpoint.id).expect("it came to be with its event")
    }

    /// The delivery once so many attempts were made.
    pub(crate) async fn attempted(
        &self,
        event: MessageId,
        endpoint: &WebhookEndpoint,
        attempts: usize,
    ) -> WebhookDelivery {
        eventually(async || self.delivery(event, endpoint).await.attempts.len() >= attempts).await;
        self.delivery(event, endpoint).await
    }

    /// One event to one endpoint: its first attempt's error.
    pub(crate) async fn error_at(&self, url: &str) -> Option<String> {
        let (endpoint, _) = self.endpoint(url).await;
        let _working = self.start();
        let delivery = self.attempted(self.event().await, &endpoint, 1).await;
        let [attempt] = &delivery.attempts[..] else { panic!("{delivery:?}") };
        assert_eq!((delivery.status, attempt.status), (DeliveryStatus::Pending, None));
        attempt.error.clone()
    }

    pub(crate) async fn memory_deliveries(&self, event: MessageId) -> Vec<WebhookDelivery> {
        self.memory.deliveries_of(&customer(), event).await.unwrap()
    }

    pub(crate) async fn found(&self, id: EndpointId) -> WebhookEndpoint {
        self.memory.find_endpoint(&customer(), id).await.unwrap().unwrap()
    }

    pub(crate) fn with_vault(&mut self, vault: Arc<dyn SecretVault>) {
        self.ports.vault = vault;
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "it never came to be");
        sleep(Duration::from_millis(2)).await;
    }
}
