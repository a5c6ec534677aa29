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
use utoipa::ToSchema;

use crate::problem::{Chain, Problem, ProblemBody, not_found};
use crate::state::App;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

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
    check(&app.ports.health).await
}

/// Asks all at once, so that one that hangs does not hide the others.
async fn check(health: &[(&'static str, Arc<dyn Health>)]) -> Result<Response, Problem> {
    let checks = health.iter().map(|(name, health)| async move {
        let failure = match tokio::time::timeout(CHECK_TIMEOUT, health.check()).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        tracing::warn!(check = name, error = failure, "not ready");
        Some(*name)
    });
    let failed: Vec<_> = join_all(checks).await.into_iter().flatten().collect();
    if failed.is_empty() {
        return Ok(axum::Json(OK).into_response());
    }
    let detail = format!("not ready: {}", failed.join(", "));
    Err(Problem { detail: detail.into(), ..Problem::unavailable("not-ready", "") })
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
    let health = Arc::new(health);
    let ready = move || {
        let health = Arc::clone(&health);
        async move { check(&health).await.map_err(|problem| (StatusCode::SERVICE_UNAVAILABLE, problem.detail)) }
    };
    Router::new()
        .route("/_liveness_check_", get(live))
        .route("/_readiness_check_", get(ready))
        .route("/metrics", get(move || async move { render(prometheus.as_ref()) }))
        .fallback(not_found)
}
