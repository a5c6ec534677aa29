//! Circuit breakers: a gateway that fails again and again is left alone for a while.
//!
//! ```text
//! closed ── so many failures in a row ──▶ open ── its time is over ──▶ half open
//!    ▲                                     ▲                              │ one request is let through: the probe
//!    └──────────── it succeeds ────────────┼──────────────────────────────┤
//!                                          └────────── it fails ──────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, Gauge, Histogram};
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, RefundRequest,
};
use psp_domain::{AttemptReference, BreakerState, GatewayName};
use tokio::sync::Notify;
use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// How many failures in a row open it.
    pub failures: u32,
    /// How long it stays open before one request tries whether the gateway is back.
    pub open: Duration,
}

impl Default for BreakerOptions {
    /// 5 failures, 30 seconds.
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(30) }
    }
}

impl BreakerOptions {
    /// Of a breaker that counts and never opens.
    #[must_use]
    pub fn never(self) -> Self {
        Self { failures: u32::MAX, ..self }
    }
}

/// A gateway behind a circuit breaker, which counts and times what it is asked.
///
/// An error is a failure; an answer is a success, also when it is a decline. [`GatewayError::Refused`] is neither: it tells
/// about the request, and not how the gateway is. While the breaker is open, authorizations are
/// [`GatewayError::Unavailable`] without a call. Everything else always passes, because it resolves money that this gateway
/// alone knows of; while the breaker is not closed its outcome does not count. A call that is dropped counts as neither, so
/// the gateway inside must end its calls in time by itself.
pub struct BreakerGateway {
    inner: Arc<dyn Gateway>,
    breaker: Breaker,
    metrics: Metrics,
}

impl BreakerGateway {
    /// The gateway behind a closed breaker. `changed` is told whenever the breaker changes its state.
    pub fn new(inner: Arc<dyn Gateway>, options: BreakerOptions, changed: Arc<Notify>) -> Self {
        let name = inner.name().clone();
        let metrics = Metrics::of(&name);
        let breaker = Breaker::new(name, options, changed);
        Self { inner, breaker, metrics }
    }

    /// The breaker's state.
    pub fn state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.breaker.lock().failures
    }

    /// Whether an authorization would reach the gateway at that time.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.breaker.is_ready(now)
    }

    /// Sets the gauge to the state: a breaker becomes half open without an event.
    pub(crate) fn measure(&self) -> BreakerState {
        let state = self.state();
        self.breaker.gauge.set(level(state));
        state
    }

    /// Runs a call whatever the breaker says.
    async fn pass<T>(
        &self,
        metrics: &OperationMetrics,
        outcome: impl Fn(&T) -> Outcome,
        call: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        run(self.breaker.observe(), metrics, outcome, call).await
    }
}

/// Runs a call, and tells the breaker and the metrics how it ended.
async fn run<T>(
    permit: Option<Permit<'_>>,
    metrics: &OperationMetrics,
    outcome: impl Fn(&T) -> Outcome,
    call: impl Future<Output = Result<T, GatewayError>>,
) -> Result<T, GatewayError> {
    let begun = Instant::now();
    let answer = call.await;
    if let Some(permit) = permit {
        permit.end(&answer);
    }
    metrics.record(begun.elapsed(), answer.as_ref().map_or_else(Outcome::of_error, outcome));
    answer
}

#[async_trait]
impl Gateway for BreakerGateway {
    fn name(&self) -> &GatewayName {
        self.inner.name()
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let metrics = &self.metrics.authorize;
        let Some(permit) = self.breaker.admit(Instant::now()) else {
            metrics.count(Outcome::CircuitOpen);
            return Err(GatewayError::Unavailable("circuit open".into()));
        };
        run(Some(permit), metrics, Outcome::of_result, self.inner.authorize(request)).await
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        let outcome = |found: &Option<_>| found.as_ref().map_or(Outcome::Nothing, Outcome::of_result);
        self.pass(&self.metrics.find, outcome, self.inner.find(reference)).await
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.pass(&self.metrics.void, |()| Outcome::Voided, self.inner.void(reference)).await
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.pass(&self.metrics.refund, Outcome::of_result, self.inner.refund(request)).await
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        self.inner.verify_callback(callback)
    }
}

struct Breaker {
    gateway: GatewayName,
    options: BreakerOptions,
    inner: Mutex<Inner>,
    gauge: Gauge,
    changed: Arc<Notify>,
}

struct Inner {
    phase: Phase,
    /// Moves on with every change of phase: what was begun in another one does not count in this.
    era: u64,
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Until that time; then half open.
    Open(Instant),
    /// Half open, and the probe is under way.
    Probing,
}

impl Phase {
    fn state(self, now: Instant) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open(until) if now < until => BreakerState::Open,
            Self::Open(_) | Self::Probing => BreakerState::HalfOpen,
        }
    }
}

/// A call whose end counts. Without one that does, it gives its place as the probe back.
struct Permit<'b> {
    breaker: &'b Breaker,
    era: u64,
}

impl Permit<'_> {
    fn end<T>(self, answer: &Result<T, GatewayError>) {
        match answer {
            Ok(_) => self.breaker.end(self.era, true),
            Err(GatewayError::Refused(_)) => {}
            Err(GatewayError::Unavailable(_) | GatewayError::TimedOut) => self.breaker.end(self.era, false),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut inner = self.breaker.lock();
        if inner.era == self.era && inner.phase == Phase::Probing {
            self.breaker.change(&mut inner, Phase::Open(Instant::now()));
        }
    }
}

impl Breaker {
    fn new(gateway: GatewayName, options: BreakerOptions, changed: Arc<Notify>) -> Self {
        let gauge = metrics::gauge!("psp_gateway_breaker", "gateway" => gateway.to_string());
        gauge.set(level(BreakerState::Closed));
        let inner = Mutex::new(Inner { phase: Phase::Closed, era: 0, failures: 0 });
        Self { gateway, options, inner, gauge, changed }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, now: Instant) -> BreakerState {
        self.lock().phase.state(now)
    }

    fn is_ready(&self, now: Instant) -> bool {
        let phase = self.lock().phase;
        phase != Phase::Probing && phase.state(now) != BreakerState::Open
    }

    /// Lets a call through that may be refused: any while closed, one at a time while half open.
    fn admit(&self, now: Instant) -> Option<Permit<'_>> {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Closed => {}
            Phase::Open(until) if until <= now => self.change(&mut inner, Phase::Probing),
            Phase::Open(_) | Phase::Probing => return None,
        }
        Some(Permit { breaker: self, era: inner.era })
    }

    /// Of a call that is never refused: its end counts while the breaker is closed.
    fn observe(&self) -> Option<Permit<'_>> {
        let (phase, era) = {
            let inner = self.lock();
            (inner.phase, inner.era)
        };
        // Made after the lock is given back: dropping a permit takes it.
        (phase == Phase::Closed).then(|| Permit { breaker: self, era })
    }

    fn end(&self, era: u64, is_success: bool) {
        let mut inner = self.lock();
        if inner.era != era {
            return;
        }
        if is_success {
            inner.failures = 0;
            if inner.phase == Phase::Probing {
                self.change(&mut inner, Phase::Closed);
            }
            return;
        }
        inner.failures = inner.failures.saturating_add(1);
        if inner.phase == Phase::Probing || inner.failures >= self.options.failures {
            self.change(&mut inner, Phase::Open(Instant::now() + self.options.open));
        }
    }

    fn change(&self, inner: &mut Inner, phase: Phase) {
        (inner.phase, inner.era) = (phase, inner.era + 1);
        let (gateway, failures) = (self.gateway.as_str(), inner.failures);
        let state = phase.state(Instant::now());
        match state {
            BreakerState::Open => tracing::warn!(gateway, failures, "the breaker is open: the gateway is left alone"),
            BreakerState::HalfOpen => tracing::info!(gateway, "the breaker is half open"),
            BreakerState::Closed => tracing::info!(gateway, "the breaker is closed: the gateway is back"),
        }
        self.gauge.set(level(state));
        self.changed.notify_one();
    }
}

fn level(state: BreakerState) -> f64 {
    match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    }
}

/// How a call ended, in metrics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Approved,
    Declined,
    Pending,
    Nothing,
    Voided,
    Unavailable,
    Refused,
    TimedOut,
    CircuitOpen,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Approved,
        Self::Declined,
        Self::Pending,
        Self::Nothing,
        Self::Voided,
        Self::Unavailable,
        Self::Refused,
        Self::TimedOut,
        Self::CircuitOpen,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Declined => "declined",
            Self::Pending => "pending",
            Self::Nothing => "nothing",
            Self::Voided => "voided",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::CircuitOpen => "circuit_open",
        }
    }

    fn of_result(result: &AuthorizationResult) -> Self {
        match result {
            AuthorizationResult::Approved { .. } => Self::Approved,
            AuthorizationResult::Declined { .. } => Self::Declined,
            AuthorizationResult::Pending { .. } => Self::Pending,
        }
    }

    fn of_error(error: &GatewayError) -> Self {
        match error {
            GatewayError::Unavailable(_) => Self::Unavailable,
            GatewayError::Refused(_) => Self::Refused,
            GatewayError::TimedOut => Self::TimedOut,
        }
    }

    /// Whether a call of that operation can end so.
    fn is_of(self, operation: &str) -> bool {
        match self {
            Self::Unavailable | Self::Refused | Self::TimedOut => true,
            Self::Approved | Self::Declined | Self::Pending => operation != "void",
            Self::Nothing => operation == "find",
            Self::Voided => operation == "void",
            Self::CircuitOpen => operation == "authorize",
        }
    }
}

/// Handles of the metrics, resolved once: a call must look no name up.
struct Metrics {
    authorize: OperationMetrics,
    find: OperationMetrics,
    void: OperationMetrics,
    refund: OperationMetrics,
}

struct OperationMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    seconds: Histogram,
}

impl Metrics {
    fn of(gateway: &GatewayName) -> Self {
        let of = |operation| OperationMetrics::of(gateway, operation);
        Self { authorize: of("authorize"), find: of("find"), void: of("void"), refund: of("refund") }
    }
}

impl OperationMetrics {
    fn of(gateway: &GatewayName, operation: &'static str) -> Self {
        let counter = |outcome: Outcome| {
            if !outcome.is_of(operation) {
                return Counter::noop();
            }
            let (gateway, outcome) = (gateway.to_string(), outcome.as_str());
            metrics::counter!("psp_gateway_requests_total", "gateway" => gateway, "operation" => operation, "outcome" => outcome)
        };
        let seconds = metrics::histogram!("psp_gateway_duration_seconds", "gateway" => gateway.to_string(), "operation" => operation);
        Self { outcomes: Outcome::ALL.map(counter), seconds }
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    fn record(&self, duration: Duration, outcome: Outcome) {
        self.count(outcome);
        self.seconds.record(duration.as_secs_f64());
    }
}
