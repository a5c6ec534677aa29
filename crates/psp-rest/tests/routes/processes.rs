//! Two processes over one store: a request with a key that both have at once has one effect and one answer.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use psp_domain::ports::{Store, StoreError, TransactionReader, UnauthorizedTransaction, UuidV7Generator};
use psp_domain::usecases::{CancelTransaction, RefundOptions, RefundTransaction, Sources};
use psp_domain::{
    ChangeSet, CustomerId, FeeRules, GatewayReference, Page, PageRequest, Transaction, TransactionId, TransactionKind,
    Verdict,
};
use psp_rest::RestPorts;
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;
use serde_json::json;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::support::{World, example};

/// The memory, which reads transactions only when the test lets it.
struct GatedReader {
    inner: OnceLock<Arc<Memory>>,
    /// One permit for each look.
    gate: Semaphore,
    /// One permit for each look that waits, or did.
    arrived: Semaphore,
}

impl GatedReader {
    async fn pass(&self) -> &Memory {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.inner.get().unwrap()
    }
}

#[async_trait]
impl Store for GatedReader {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        self.inner.get().unwrap().apply_all(changes).await
    }
}

#[async_trait]
impl TransactionReader for GatedReader {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        TransactionReader::find(self.pass().await, customer, id).await
    }

    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        TransactionReader::list(self.pass().await, customer, kind, page).await
    }

    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        self.pass().await.load_for_authorization(ids).await
    }
}

/// A slow process, which reads transactions only when the test lets it, and a fast one.
struct Processes {
    world: World,
    slow: Arc<GatedReader>,
    fast: Router,
}

fn processes() -> Processes {
    let (gate, arrived) = (Semaphore::new(0), Semaphore::new(0));
    let (slow, mut fast) = (Arc::new(GatedReader { inner: OnceLock::new(), gate, arrived }), None);
    let world = World::with(|ports, options| {
        // The same store, and keys in flight of its own.
        let elsewhere = RestPorts { health: Vec::new(), ..ports.clone() };
        fast = Some(psp_rest::router(elsewhere, options.clone(), None));
        let sources = Sources { clock: Arc::clone(&options.clock), ..Sources::default() };
        ports.cancel = Arc::new(CancelTransaction::new(slow.clone(), slow.clone(), sources.clone()));
        let (refunds, gateways) = (ports.refunds.clone(), ports.gateways.clone());
        let options = RefundOptions::default();
        let refund = RefundTransaction::new(slow.clone(), slow.clone(), refunds, gateways, options, sources);
        ports.refund = Arc::new(refund);
    });
    slow.inner.set(world.memory.clone()).ok().unwrap();
    Processes { world, slow, fast: fast.unwrap() }
}

fn keyed(path: &str, body: &str) -> Request<Body> {
    let request = Request::post(path).header("x-customer-id", "123").header("idempotency-key", "key-1");
    request.header("content-type", "application/json").body(Body::from(body.to_owned())).unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Has the slow process look for the key, the fast one do what is asked for, and then the slow one go on. Both give the one answer.
async fn race(processes: &Processes, path: &str, body: &str, meanwhile: impl AsyncFnOnce()) {
    let Processes { world, slow, fast } = processes;
    let overtaken = tokio::spawn(world.router.clone().oneshot(keyed(path, body)));
    slow.arrived.acquire().await.unwrap().forget();
    let first = fast.clone().oneshot(keyed(path, body)).await.unwrap();
    assert_eq!((first.status(), first.headers().get("idempotency-replayed")), (StatusCode::ACCEPTED, None));
    meanwhile().await;
    slow.gate.add_permits(9);
    let overtaken = overtaken.await.unwrap().unwrap();
    let status = overtaken.status();
    let is_replayed = overtaken.headers().contains_key("idempotency-replayed");
    let told = text(overtaken).await;
    assert_eq!((status, is_replayed, &told), (StatusCode::ACCEPTED, true, &text(first).await));
}

fn approval(transaction: &Transaction, now: chrono::DateTime<chrono::Utc>) -> ChangeSet {
    let gateway = GatewayReference { gateway: "scripted".parse().unwrap(), reference: "ref-1".into() };
    fixtures::executed(transaction.clone().approve(gateway, &FeeRules::default(), now, &UuidV7Generator).unwrap())
}

async fn approved(world: &World) -> Transaction {
    let transaction = world.created(&example()).await;
    world.memory.apply(approval(&transaction, world.now())).await.unwrap();
    transaction
}

#[tokio::test]
async fn a_refund_that_another_process_has_asked_for_is_not_refused() {
    for body in ["", r#"{"amount":2500}"#, r#"{"amount":1000}"#] {
        let processes = processes();
        let transaction = approved(&processes.world).await;
        race(&processes, &format!("/transactions/{}/refund", transaction.id), body, async || {}).await;
        let refunds = processes.world.get(&format!("/transactions/{}/refunds", transaction.id)).await.json();
        assert_eq!(refunds.as_array().unwrap().len(), 1, "{body}");
    }
}

#[tokio::test]
async fn a_payment_that_another_process_has_asked_to_cancel_is_not_told_to_be_too_late() {
    let processes = processes();
    let payment = processes.world.created(&example()).await;
    let open = fixtures::attempt(&payment, 1, processes.world.now());
    processes.world.memory.apply(ChangeSet::of_attempts(payment.clone(), vec![open])).await.unwrap();
    let (world, id) = (&processes.world, payment.id);
    let approve = async || {
        // The gateway approved it all the same.
        let loaded = world.loaded(&id.to_string()).await;
        world.memory.apply(approval(&loaded, world.now())).await.unwrap();
    };
    race(&processes, &format!("/api/v1/payments/{id}/cancel"), "", approve).await;
}

#[tokio::test]
async fn a_cancellation_whose_key_was_taken_meanwhile_gives_the_first_answer() {
    let mut other = None;
    let world = World::with(|ports, options| {
        let elsewhere = RestPorts { health: Vec::new(), ..ports.clone() };
        other = Some(psp_rest::router(elsewhere, options.clone(), None));
    });
    let payment = world.created(&example()).await;
    let before = world.gated.arrived.available_permits();
    world.gated.arrived.forget_permits(before);
    world.close_gate();
    let path = format!("/api/v1/payments/{}/cancel", payment.id);
    let both = [world.router.clone(), other.unwrap()].map(|app| tokio::spawn(app.oneshot(keyed(&path, ""))));
    world.gated.arrived.acquire_many(2).await.unwrap().forget();
    world.gated.gate.add_permits(9);
    let (mut texts, mut replayed) = (Vec::new(), 0);
    for one in both {
        let answer = one.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        replayed += usize::from(answer.headers().contains_key("idempotency-replayed"));
        texts.push(text(answer).await);
    }
    assert_eq!((replayed, &texts[0]), (1, &texts[1]));
}

#[tokio::test]
async fn the_last_endpoint_that_there_may_be_is_made_once() {
    let mut other = None;
    let world = World::with(|ports, options| {
        let elsewhere = RestPorts { health: Vec::new(), ..ports.clone() };
        other = Some(psp_rest::router(elsewhere, options.clone(), None));
    });
    let body = json!({ "url": "https://shop.example" });
    for _ in 1..psp_domain::WebhookEndpoint::MAX_PER_CUSTOMER {
        world.call("POST", "/webhook_endpoints", &[("x-customer-id", "123")], Some(&body)).await;
    }
    let request = || keyed("/webhook_endpoints", &body.to_string());
    let first = other.unwrap().oneshot(request()).await.unwrap();
    let again = world.router.clone().oneshot(request()).await.unwrap();
    assert_eq!((first.status(), again.status()), (StatusCode::CREATED, StatusCode::CREATED));
    assert!(again.headers().contains_key("idempotency-replayed"));
    assert_eq!(text(again).await, text(first).await);
}
