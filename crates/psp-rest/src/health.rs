use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use psp_domain::ports::Health;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use crate::problem::{Chain, Problem, ProblemBody, not_found};
use crate::state::App;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is good for: however many ask, what stands behind is asked this seldom.
const LIFETIME: Duration = Duration::from_secs(1);

/// What a process depends on.
pub(crate) struct Checks {
    checks: Vec<(&'static str, Arc<dyn Health>)>,
    /// When they were looked at, and which failed.
    last: Mutex<Option<(Instant, Vec<&'static str>)>>,
}

impl Checks {
    pub(crate) fn new(checks: Vec<(&'static str, Arc<dyn Health>)>) -> Self {
        Self { checks, last: Mutex::new(None) }
    }

    async fn answer(&self) -> Result<Response, Problem> {
        let mut last = self.last.lock().await;
        let failed = match last.take() {
            Some((when, failed)) if when.elapsed() < LIFETIME => last.insert((when, failed)),
            _ => last.insert((Instant::now(), self.failing().await)),
        };
        if failed.1.is_empty() {
            return Ok(axum::Json(OK).into_response());
        }
        let detail = format!("not ready: {}", failed.1.join(", "));
        Err(Problem { detail: detail.into(), ..Problem::unavailable("not-ready", "") })
    }

    /// Asks all at once, so that one that hangs does not hide the others.
    async fn failing(&self) -> Vec<&'static str> {
        let checks = self.checks.iter().map(|(name, health)| async move {
            let failure = match timeout(CHECK_TIMEOUT, health.check()).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => Chain(&error).to_string(),
                Err(_elapsed) => "no answer in time".to_owned(),
            };
            tracing::warn!(check = name, error = failure, "not ready");
            Some(*name)
        });
        join_all(checks).await.into_iter().flatten().collect()
    }
}

/// `ok`.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct HealthBody {
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: HealthBody = HealthBody { status: "ok" };

/// Whether the process answers.
#[utoipa::path(get, path = "/_liveness_check_", tag = "health", operation_id = "getLiveness", responses((status = 200, description = "It does", body = HealthBody)))]
pub(crate) async fn live() -> Response {
    axum::Json(OK).into_response()
}

/// Whether the process can do its work.
#[utoipa::path(
    get,
    path = "/_readiness_check_",
    tag = "health",
    operation_id = "getReadiness",
    responses(
        (status = 200, description = "It can", body = HealthBody),
        (status = 503, description = "It cannot; the detail names what fails", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.health.answer().await
}

/// Metrics in Prometheus' text format: for operators, so not part of the API's document.
pub(crate) fn metrics_route() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(|State(app): State<Arc<App>>| async move { render(app.prometheus.as_ref()) }))
}

fn render(prometheus: Option<&PrometheusHandle>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    prometheus.map_or_else(
        || Problem::missing("metrics are not recorded").into_response(),
        |prometheus| (content_type, prometheus.render()).into_response(),
    )
}

/// Health and metrics of a process without an API.
pub(crate) fn admin(health: Vec<(&'static str, Arc<dyn Health>)>, prometheus: Option<PrometheusHandle>) -> Router {
    let health = Arc::new(Checks::new(health));
    let ready = move || {
        let health = Arc::clone(&health);
        async move { health.answer().await.map_err(|problem| (StatusCode::SERVICE_UNAVAILABLE, problem.detail)) }
    };
    Router::new()
        .route("/_liveness_check_", get(live))
        .route("/_readiness_check_", get(ready))
        .route("/metrics", get(move || async move { render(prometheus.as_ref()) }))
        .fallback(not_found)
}
