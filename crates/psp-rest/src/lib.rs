//! REST entrypoint on axum: one file per resource, errors as problem details (RFC 9457).
//!
//! Every response passes [`middleware`]: request id, limits, metrics, one line of log, the body of problems.

mod answers;
mod balance;
mod callbacks;
mod card_tokens;
mod creation;
mod deliveries;
mod events;
mod fields;
mod format;
mod gateways;
mod health;
mod idempotency;
mod middleware;
mod new_payment;
mod new_transaction;
mod openapi;
mod order_payments;
mod orders;
mod page;
mod payables;
mod payments;
mod problem;
mod refunds;
mod request;
mod server;
mod state;
mod time;
mod transactions;
mod transfers;
mod webhook_endpoints;
mod xml;

pub use gateways::{BreakerBody, GatewayBody, RouteBody, gateways};
pub use openapi::openapi;
pub use server::{IDLE_TIMEOUT, serve};
pub use state::{RestOptions, RestPorts};

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::state::App;

/// The largest request body, in bytes: 64 KiB.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// All routes over the given ports. `metrics` is rendered at `GET /metrics`, which is 404 without it.
pub fn router(ports: RestPorts, options: RestOptions, metrics: Option<PrometheusHandle>) -> Router {
    let app = Arc::new(App::new(ports, options, metrics));
    let (routes, _) = openapi::routes().split_for_parts();
    routes
        .merge(openapi::docs())
        .merge(health::metrics_route())
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::observe))
        .with_state(app)
}

/// Liveness, readiness and metrics only: for processes without an API.
pub fn admin_router(
    health: Vec<(&'static str, Arc<dyn psp_domain::ports::Health>)>,
    metrics: Option<PrometheusHandle>,
) -> Router {
    health::admin(health, metrics)
}
