//! The router over fakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusHandle;
use psp_domain::ports::{
    Clock, FingerprintError, Health, RefundStore, RequestFingerprint, SecretSource, Store, StoreError,
    TransactionReader, UrlPolicy, VaultError,
};
use psp_domain::usecases::{
    Callbacks, CancelOrder, CancelTransaction, CreateTransaction, OrderSaga, PlaceOrder, RefundOptions,
    RefundTransaction, Sources, TokenizeCard, WebhookEndpoints,
};
use psp_domain::{
    ChangeSet, Currency, FeeRules, Fingerprint, GatewayProtocol, GatewayRecord, OrderId, Transaction, TransactionId,
    Verdict, WebhookSecret,
};
use psp_rest::{RestOptions, RestPorts, router};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// Writes only when the test lets it.
pub(crate) struct GatedStore {
    inner: Arc<dyn Store>,
    /// One permit for each write.
    pub(crate) gate: Semaphore,
    /// One permit for each write that waits, or did.
    pub(crate) arrived: Semaphore,
}

#[async_trait::async_trait]
impl Store for GatedStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.inner.apply_all(changes).await
    }
}

/// A handler that panics wherever it takes a key's fingerprint.
pub(crate) struct Panics;

#[async_trait::async_trait]
impl RequestFingerprint for Panics {
    async fn fingerprint(&self, _: &[u8]) -> Result<Fingerprint, FingerprintError> {
        panic!("a panic that the tests ask for")
    }
}

/// An adapter that cannot do its work.
/// Is well, and counts how often it is asked.
#[derive(Default)]
pub(crate) struct Counting(pub(crate) AtomicUsize);

#[async_trait::async_trait]
impl Health for Counting {
    async fn check(&self) -> Result<(), StoreError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub(crate) struct Sick;

#[async_trait::async_trait]
impl Health for Sick {
    async fn check(&self) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("a detail that stays inside".into()))
    }
}

/// An adapter that does not answer.
pub(crate) struct Hanging;

#[async_trait::async_trait]
impl Health for Hanging {
    async fn check(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

/// Takes every address that begins as those of the web do with TLS.
struct HttpsOnly;

impl UrlPolicy for HttpsOnly {
    fn check(&self, url: &str) -> Result<String, String> {
        if url.starts_with("https://") { Ok(url.to_owned()) } else { Err("must be an https URL".to_owned()) }
    }
}

/// Numbers its secrets.
#[derive(Default)]
struct NumberedSecrets(AtomicUsize);

impl SecretSource for NumberedSecrets {
    fn new_secret(&self) -> Result<WebhookSecret, VaultError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(WebhookSecret::new(format!("whsec_secret{number}").into()))
    }
}

pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    pub(crate) failing: Arc<FailingStore>,
    pub(crate) gated: Arc<GatedStore>,
    pub(crate) clock: Arc<FixedClock>,
    /// Where every transaction goes: the gateway `scripted`.
    pub(crate) gateways: Arc<FixedDirectory>,
    /// The gateway.
    pub(crate) gateway: Arc<ScriptedGateway>,
    saga: OrderSaga,
    refund: Arc<RefundTransaction>,
    pub(crate) router: Router,
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The text with its ids replaced.
    pub(crate) fn hidden(&self) -> String {
        let mut text = self.text.clone();
        let is_id = |part: &str| uuid::Uuid::try_parse(part).is_ok();
        let id_in = |text: &str| (0..text.len()).find(|at| text.get(*at..at + 36).is_some_and(is_id));
        while let Some(at) = id_in(&text) {
            text.replace_range(at..at + 36, "[id]");
        }
        text
    }

    /// The paths of the faults, in order of the alphabet.
    pub(crate) fn faults(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().unwrap();
        let mut paths: Vec<_> = errors.iter().map(|error| error["path"].as_str().unwrap().to_owned()).collect();
        paths.sort();
        paths
    }

    /// A problem as RFC 9457 has it.
    pub(crate) fn assert_problem(&self, status: StatusCode) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status.as_u16());
        for field in ["type", "title", "detail", "instance"] {
            assert!(problem[field].is_string(), "{field}: {}", self.text);
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A world whose ports and options are changed before the router is made. Writes pass the gate unless it is closed.
    pub(crate) fn with(change: impl FnOnce(&mut RestPorts, &mut RestOptions)) -> Self {
        Self::measured(change, None)
    }

    /// A world that shows its metrics.
    pub(crate) fn measured(
        change: impl FnOnce(&mut RestPorts, &mut RestOptions),
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        let clock = Arc::new(FixedClock::default());
        let memory = Arc::new(Memory::new(clock.clone()));
        let failing = Arc::new(FailingStore::new(memory.clone()));
        let (gate, arrived) = (Semaphore::new(Semaphore::MAX_PERMITS), Semaphore::new(0));
        let gated = Arc::new(GatedStore { inner: failing.clone(), gate, arrived });
        let sources = Sources { clock: clock.clone(), ..Sources::default() };
        let vault = Arc::new(PlainVault);
        let create = CreateTransaction::new(gated.clone(), memory.clone(), vault.clone(), sources.clone());
        let gateway = Arc::new(ScriptedGateway::default());
        let gateways = Arc::new(FixedDirectory::of([gateway.clone() as _]));
        let cancel = CancelTransaction::new(gated.clone(), memory.clone(), sources.clone());
        let callbacks = Callbacks::new(
            gated.clone(),
            memory.clone(),
            memory.clone(),
            gateways.clone(),
            FeeRules::default(),
            sources.clone(),
        );
        let refund = Arc::new(RefundTransaction::new(
            gated.clone(),
            memory.clone(),
            memory.clone(),
            gateways.clone(),
            RefundOptions::default(),
            sources.clone(),
        ));
        let endpoints = WebhookEndpoints::new(
            memory.clone(),
            memory.clone(),
            vault.clone(),
            Arc::new(HttpsOnly),
            Arc::new(NumberedSecrets::default()),
            sources.clone(),
        );
        let (cancel, reader) = (Arc::new(cancel), memory.clone());
        let (refunder, canceller) = (refund.clone(), cancel.clone());
        let saga =
            OrderSaga::new(gated.clone(), reader.clone(), reader.clone(), reader, canceller, refunder, sources.clone());
        let mut ports = RestPorts {
            create: Arc::new(create),
            cancel,
            refund: refund.clone(),
            place_order: Arc::new(PlaceOrder::new(gated.clone(), memory.clone(), sources.clone())),
            cancel_order: Arc::new(CancelOrder::new(gated.clone(), memory.clone(), sources.clone())),
            orders: memory.clone(),
            refunds: memory.clone(),
            events: memory.clone(),
            deliveries: memory.clone(),
            endpoints: memory.clone(),
            keep_endpoints: Arc::new(endpoints),
            tokenize: Arc::new(TokenizeCard::new(memory.clone(), vault.clone(), sources.clone())),
            callbacks: Arc::new(callbacks),
            gateways: gateways.clone(),
            transactions: memory.clone(),
            payables: memory.clone(),
            balances: memory.clone(),
            gateway_store: memory.clone(),
            fingerprints: vault,
            health: vec![("memory", memory.clone())],
        };
        let mut options = RestOptions {
            default_currency: Currency::BRL,
            default_gateway: sandbox(clock.now()),
            default_customer: fixtures::customer("default"),
            webhooks: true,
            refuse_expired_cards: false,
            max_in_flight: 100,
            request_timeout: Duration::from_secs(10),
            clock: sources.clock,
            ids: sources.ids,
        };
        change(&mut ports, &mut options);
        let router = router(ports, options, metrics);
        Self { memory, failing, gated, clock, gateways, gateway, saga, refund, router }
    }

    /// Lets no write through until the test adds permits to the gate.
    pub(crate) fn close_gate(&self) {
        self.gated.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn post(&self, body: impl Into<Body>) -> Answer {
        self.ask(post_of("123", None, body)).await
    }

    pub(crate) async fn post_with_key(&self, key: &str, body: &Value) -> Answer {
        self.ask(post_of("123", Some(key), body.to_string())).await
    }

    /// Posts JSON to a path, without a customer.
    pub(crate) async fn post_to(&self, path: &str, body: &Value) -> Answer {
        self.send(path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Posts a body with those headers.
    pub(crate) async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        self.ask(request.body(body.into()).unwrap()).await
    }

    /// Gets a path with those headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_as("123", path).await
    }

    pub(crate) async fn get_as(&self, customer: &str, path: &str) -> Answer {
        self.ask(Request::get(path).header("x-customer-id", customer).body(Body::empty()).unwrap()).await
    }

    /// Creates the example's transaction and loads it.
    pub(crate) async fn created(&self, body: &Value) -> Transaction {
        let created = self.post(body.to_string()).await;
        let id = created.json()["id"].as_str().unwrap().parse().unwrap();
        TransactionReader::find(&*self.memory, &fixtures::customer("123"), id).await.unwrap().unwrap()
    }

    /// Answers events as the workers of orders do, until nothing new happens.
    pub(crate) async fn settle_orders(&self) {
        let mut seen = 0;
        while let Some(event) = self.memory.events().get(seen).cloned() {
            seen += 1;
            let order = match event.kind {
                kind if kind.as_str().starts_with("order.") => OrderId(event.aggregate_id),
                kind if kind.as_str().starts_with("payment.") => {
                    let data: Value = serde_json::from_str(&event.data).unwrap();
                    data["order_id"].as_str().unwrap().parse().unwrap()
                }
                _ => continue,
            };
            self.saga.handle(event.kind, order).await.unwrap();
        }
    }

    /// Asks the gateway for every refund of a transaction, as the worker of refunds does.
    pub(crate) async fn settle_refunds(&self, customer: &str, id: TransactionId) {
        for refund in self.memory.refunds(&fixtures::customer(customer), id).await.unwrap() {
            self.refund.perform(refund.id, false).await.unwrap();
        }
    }

    /// Sends a request with a method and those headers, and JSON where there is a body.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.ask(request.unwrap()).await
    }

    /// A transaction of any customer.
    pub(crate) async fn loaded(&self, id: &str) -> Transaction {
        self.memory.load_for_authorization(&[id.parse().unwrap()]).await.unwrap().remove(0).transaction
    }

    pub(crate) fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.clock.now()
    }
}

/// The built-in gateway.
fn sandbox(now: chrono::DateTime<chrono::Utc>) -> GatewayRecord {
    GatewayRecord {
        name: "sandbox".parse().unwrap(),
        protocol: GatewayProtocol::Sandbox,
        url: String::new(),
        enabled: true,
        created_at: now,
        updated_at: now,
    }
}

/// A `POST /transactions`.
pub(crate) fn post_of(customer: &str, key: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/transactions").header("x-customer-id", customer);
    let request = request.header("content-type", "application/json; charset=utf-8");
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    request.body(body.into()).unwrap()
}

/// The documentation's example.
pub(crate) fn example() -> Value {
    json!({
        "description": "Lightsaber", "amount": "2500", "payment_method": "credit_card",
        "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
        "card_expiration_date": "10/25", "card_verification_code": "123"
    })
}

/// The example with some fields replaced.
pub(crate) fn example_with(fields: Value) -> Value {
    let mut body = example();
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}
