//! The circuit breaker around a gateway, on a clock that stands still until a test moves it.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, IdGenerator,
    RefundRequest, UuidV7Generator,
};
use psp_domain::{
    AttemptReference, BreakerState, Currency, Installments, Money, PaymentMethod, TransactionId, TransactionKind,
};
use psp_gateways::{BreakerGateway, BreakerOptions};
use psp_testkit::fakes::ScriptedGateway;
use tokio::sync::Notify;

const OPEN: Duration = Duration::from_secs(30);
const ALMOST_OPEN: Duration = Duration::from_millis(29_999);

struct World {
    scripted: Arc<ScriptedGateway>,
    gateway: Arc<BreakerGateway>,
    changed: Arc<Notify>,
}

impl World {
    /// A gateway whose breaker opens after three failures in a row.
    fn new() -> Self {
        let (scripted, changed) = (Arc::new(ScriptedGateway::default()), Arc::new(Notify::new()));
        let options = BreakerOptions { failures: 3, open: OPEN };
        let gateway = BreakerGateway::new(scripted.clone(), options, Arc::clone(&changed));
        Self { scripted, gateway: Arc::new(gateway), changed }
    }

    /// A gateway whose breaker has opened just now.
    async fn opened() -> Self {
        let world = Self::new();
        for _ in 0..3 {
            world.fail().await;
        }
        world.assert(BreakerState::Open, 3);
        world
    }

    async fn ask(&self) -> Result<AuthorizationResult, GatewayError> {
        self.gateway.authorize(&request()).await
    }

    async fn fail(&self) {
        self.scripted.answer(Duration::ZERO, Err(GatewayError::TimedOut));
        assert_eq!(self.ask().await, Err(GatewayError::TimedOut));
    }

    #[track_caller]
    fn assert(&self, state: BreakerState, failures: u32) {
        assert_eq!((self.gateway.state(), self.gateway.failures()), (state, failures));
    }
}

fn reference() -> AttemptReference {
    AttemptReference(UuidV7Generator.next_id())
}

fn request() -> AuthorizationRequest {
    AuthorizationRequest {
        reference: reference(),
        transaction_id: TransactionId(UuidV7Generator.next_id()),
        kind: TransactionKind::Payment,
        amount: Money::new(2500, Currency::BRL),
        payment_method: PaymentMethod::Pix,
        installments: Installments::ONE,
        country: None,
        card: None,
    }
}

fn refused() -> Result<AuthorizationResult, GatewayError> {
    Err(GatewayError::Unavailable("circuit open".into()))
}

fn declined() -> AuthorizationResult {
    AuthorizationResult::Declined { reason: "do_not_honor".into() }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_the_breaker_and_then_nothing_is_asked() {
    let world = World::new();
    for failures in 1..=2 {
        world.fail().await;
        world.assert(BreakerState::Closed, failures);
    }
    world.fail().await;
    world.assert(BreakerState::Open, 3);
    assert_eq!(world.ask().await, refused());
    tokio::time::advance(ALMOST_OPEN).await;
    assert_eq!(world.ask().await, refused());
    assert_eq!(world.scripted.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_between_failures_begins_the_row_anew_also_when_it_is_a_decline() {
    let world = World::new();
    for answer in [Ok(declined()), Ok(AuthorizationResult::Pending { reference: None })] {
        world.fail().await;
        world.fail().await;
        world.scripted.answer(Duration::ZERO, answer.clone());
        assert_eq!(world.ask().await, answer);
        world.assert(BreakerState::Closed, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_operation_counts() {
    let world = World::new();
    let unavailable = || GatewayError::Unavailable("answered 503".into());
    for fault in [unavailable(), GatewayError::TimedOut] {
        world.scripted.fail_next(fault);
    }
    world.gateway.find(reference()).await.unwrap_err();
    world.gateway.void(reference()).await.unwrap_err();
    world.assert(BreakerState::Closed, 2);
    assert_eq!(world.gateway.find(reference()).await, Ok(None));
    world.assert(BreakerState::Closed, 0);
    world.fail().await;
    world.scripted.fail_next(unavailable());
    world.gateway.void(reference()).await.unwrap_err();
    world.scripted.fail_next(unavailable());
    let refund = RefundRequest { reference: reference(), of: reference(), amount: Money::new(1, Currency::BRL) };
    world.gateway.refund(&refund).await.unwrap_err();
    world.assert(BreakerState::Open, 3);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_lets_pass_what_resolves_money_and_does_not_count_it() {
    let world = World::opened().await;
    let known = reference();
    world.scripted.decide(known, declined());
    assert_eq!(world.gateway.find(known).await, Ok(Some(declined())));
    assert_eq!(world.gateway.void(known).await, Ok(()));
    let refund = RefundRequest { reference: reference(), of: known, amount: Money::new(1, Currency::BRL) };
    world.gateway.refund(&refund).await.unwrap();
    world.assert(BreakerState::Open, 3);
    world.scripted.fail_next(GatewayError::TimedOut);
    world.gateway.find(known).await.unwrap_err();
    tokio::time::advance(OPEN).await;
    world.assert(BreakerState::HalfOpen, 3);
    assert_eq!((world.scripted.found().len(), world.scripted.voided().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_succeeds_closes_the_breaker() {
    let world = World::opened().await;
    tokio::time::advance(OPEN).await;
    world.assert(BreakerState::HalfOpen, 3);
    world.ask().await.unwrap();
    world.assert(BreakerState::Closed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_the_breaker_for_as_long_again() {
    let world = World::opened().await;
    tokio::time::advance(OPEN).await;
    world.fail().await;
    world.assert(BreakerState::Open, 4);
    tokio::time::advance(ALMOST_OPEN).await;
    assert_eq!(world.ask().await, refused());
    tokio::time::advance(Duration::from_millis(1)).await;
    world.ask().await.unwrap();
    world.assert(BreakerState::Closed, 0);
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_is_the_probe_however_many_come_at_once() {
    let world = World::opened().await;
    tokio::time::advance(OPEN).await;
    world.scripted.answer(Duration::from_secs(1), Err(GatewayError::TimedOut));
    let answers = futures::future::join_all((0..50).map(|_| world.ask())).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Err(GatewayError::TimedOut)).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == refused()).count(), 49);
    assert_eq!(world.scripted.asked().len(), 4);
    world.assert(BreakerState::Open, 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_request_is_neither_a_failure_nor_a_success() {
    let world = World::new();
    let refusal = GatewayError::Refused("answered 422".into());
    world.fail().await;
    world.fail().await;
    for _ in 0..5 {
        world.scripted.answer(Duration::ZERO, Err(refusal.clone()));
        assert_eq!(world.ask().await, Err(refusal.clone()));
        world.scripted.fail_next(refusal.clone());
        assert_eq!(world.gateway.void(reference()).await, Err(refusal.clone()));
    }
    world.assert(BreakerState::Closed, 2);
    world.fail().await;
    tokio::time::advance(OPEN).await;
    world.scripted.answer(Duration::ZERO, Err(refusal.clone()));
    assert_eq!(world.ask().await, Err(refusal), "as the probe");
    world.assert(BreakerState::HalfOpen, 3);
    world.ask().await.unwrap();
    world.assert(BreakerState::Closed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_makes_way_for_the_next() {
    let world = World::opened().await;
    tokio::time::advance(OPEN).await;
    world.scripted.answer(Duration::from_hours(1), Err(GatewayError::TimedOut));
    tokio::time::timeout(Duration::from_secs(1), world.ask()).await.unwrap_err();
    world.assert(BreakerState::HalfOpen, 3);
    world.ask().await.unwrap();
    world.assert(BreakerState::Closed, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_breaker_opened_does_not_count_afterwards() {
    let world = World::new();
    world.scripted.answer(Duration::from_secs(1), Ok(declined()));
    world.scripted.answer(OPEN + Duration::from_secs(1), Err(GatewayError::TimedOut));
    let late = |world: &World| {
        let gateway = Arc::clone(&world.gateway);
        tokio::spawn(async move { gateway.authorize(&request()).await })
    };
    let (success, failure) = (late(&world), late(&world));
    tokio::task::yield_now().await;
    for _ in 0..3 {
        world.fail().await;
    }
    success.await.unwrap().unwrap();
    world.assert(BreakerState::Open, 3);
    tokio::time::advance(Duration::from_secs(29)).await;
    world.ask().await.unwrap();
    world.assert(BreakerState::Closed, 0);
    failure.await.unwrap().unwrap_err();
    world.assert(BreakerState::Closed, 0);
}

#[tokio::test(start_paused = true)]
async fn every_change_of_state_is_told() {
    let world = World::opened().await;
    let told = || tokio::time::timeout(Duration::ZERO, world.changed.notified());
    told().await.unwrap();
    told().await.unwrap_err();
    tokio::time::advance(OPEN).await;
    world.ask().await.unwrap();
    told().await.unwrap();
}

#[test]
fn calls_are_counted_by_operation_and_outcome_and_the_state_is_a_gauge() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::opened().await;
        world.ask().await.unwrap_err();
        world.gateway.find(reference()).await.unwrap();
        world.gateway.void(reference()).await.unwrap();
        let text = handle.render();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        has(r#"psp_gateway_requests_total{gateway="scripted",operation="authorize",outcome="timed_out"} 3"#);
        has(r#"psp_gateway_requests_total{gateway="scripted",operation="authorize",outcome="circuit_open"} 1"#);
        has(r#"psp_gateway_requests_total{gateway="scripted",operation="find",outcome="nothing"} 1"#);
        has(r#"psp_gateway_requests_total{gateway="scripted",operation="void",outcome="voided"} 1"#);
        has(r#"psp_gateway_duration_seconds_count{gateway="scripted",operation="authorize"} 3"#);
        has(r#"psp_gateway_breaker{gateway="scripted"} 2"#);
        tokio::time::advance(OPEN).await;
        world.ask().await.unwrap();
        assert!(handle.render().contains("psp_gateway_breaker{gateway=\"scripted\"} 0\n"));
    });
}

#[tokio::test]
async fn callbacks_are_verified_by_the_gateway_itself() {
    let world = World::new();
    let callback = CallbackSignature { path: "/", timestamp: None, signature: Some("another"), body: b"" };
    assert_eq!(world.gateway.verify_callback(&callback), Err(ForgedCallback::Signature));
    assert_eq!(world.gateway.name().as_str(), "scripted");
}
