use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{GatewayStore, StoreError};
use psp_domain::{
    BreakerState, GatewayHealth, GatewayProtocol, GatewayRecord, PaymentMethod, Route, RoutingTable, TransactionKind,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::page::JSON;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;

/// How long a process's word on a gateway is good for; it comes every few seconds.
const FRESH: TimeDelta = TimeDelta::seconds(30);

/// A gateway with its routes and its health.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gateway)]
pub struct GatewayBody {
    /// Its name.
    #[schema(example = "acquirer-a")]
    pub name: String,
    /// What it speaks.
    #[schema(value_type = GatewayProtocolSchema)]
    pub protocol: GatewayProtocol,
    /// Whether it is asked for new transactions.
    pub enabled: bool,
    /// Whether it is the built-in one, which is asked where no route fits.
    pub default: bool,
    /// Where it is; null for a sandbox.
    #[schema(required, example = "acquirer.example")]
    pub host: Option<String>,
    /// When it is asked, in the order of priority.
    pub routes: Vec<RouteBody>,
    /// How processes find it; null while none has told within 30 seconds.
    #[schema(required)]
    pub breaker: Option<BreakerBody>,
}

/// For which transactions a gateway is asked. A criterion that is null fits all.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayRoute)]
pub struct RouteBody {
    /// The order of attempts: the lowest first.
    #[schema(example = 10)]
    pub priority: u16,
    /// The payer's country: ISO 3166-1 alpha-2.
    #[schema(required, example = "BR")]
    pub country: Option<&'static str>,
    /// What the transaction is for.
    #[schema(required, value_type = Option<String>, example = "payment")]
    pub kind: Option<TransactionKind>,
    /// How it is paid.
    #[schema(required, value_type = Option<String>, example = "credit_card")]
    pub method: Option<PaymentMethod>,
    /// ISO 4217.
    #[schema(required, example = "BRL")]
    pub currency: Option<&'static str>,
    /// The reasons of a decline with which the next gateway is asked.
    pub retry_declines: Vec<String>,
}

/// The circuit breakers of a gateway, one in each process: the worst of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayBreaker)]
pub struct BreakerBody {
    /// Whether requests pass, one at a time tries, or none do.
    #[schema(value_type = BreakerStateSchema)]
    pub state: BreakerState,
    /// Failures since the last success, of the process with the most.
    #[schema(example = 0)]
    pub failures: u32,
    /// How many processes have told.
    #[schema(example = 1)]
    pub instances: usize,
    /// When the last of them did.
    #[serde(serialize_with = "crate::time::serialize")]
    pub reported_at: DateTime<Utc>,
}

#[derive(ToSchema)]
#[schema(as = GatewayProtocol, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's protocols")]
pub(crate) enum GatewayProtocolSchema {
    Sandbox,
    Json,
    Xml,
}

#[derive(ToSchema)]
#[schema(as = BreakerState, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum BreakerStateSchema {
    Closed,
    HalfOpen,
    Open,
}

/// Every gateway, the built-in one first, with what processes said of it of late.
///
/// # Errors
/// When the store cannot be read.
pub async fn gateways(
    store: &dyn GatewayStore,
    default: &GatewayRecord,
    now: DateTime<Utc>,
) -> Result<Vec<GatewayBody>, StoreError> {
    let table = store.routing().await?;
    let health = store.health(now - FRESH).await?;
    let others = table.gateways().iter().filter(|record| record.name != default.name);
    let mut bodies: Vec<_> = others.chain([default]).map(|record| body(record, default, &table, &health)).collect();
    bodies.sort_by(|a, b| (Reverse(a.default), &a.name).cmp(&(Reverse(b.default), &b.name)));
    Ok(bodies)
}

fn body(
    record: &GatewayRecord,
    default: &GatewayRecord,
    table: &RoutingTable,
    health: &[GatewayHealth],
) -> GatewayBody {
    let routes = table.routes().iter().filter(|route| route.gateway == record.name);
    let of_gateway: Vec<_> = health.iter().filter(|health| health.gateway == record.name).collect();
    GatewayBody {
        name: record.name.to_string(),
        protocol: record.protocol,
        enabled: record.enabled,
        default: record.name == default.name,
        // No more of the address: a path may tell what is nobody's business.
        host: record.url.parse::<Uri>().ok().and_then(|uri| uri.host().map(ToOwned::to_owned)),
        routes: routes.map(RouteBody::from).collect(),
        breaker: worst(&of_gateway),
    }
}

fn worst(health: &[&GatewayHealth]) -> Option<BreakerBody> {
    Some(BreakerBody {
        state: health.iter().map(|health| health.breaker).max()?,
        failures: health.iter().map(|health| health.failures).max()?,
        instances: health.len(),
        reported_at: health.iter().map(|health| health.reported_at).max()?,
    })
}

impl From<&Route> for RouteBody {
    fn from(route: &Route) -> Self {
        Self {
            priority: route.priority,
            country: route.country.map(psp_domain::Country::as_str),
            kind: route.kind,
            method: route.method,
            currency: route.currency.map(psp_domain::Currency::code),
            retry_declines: route.retry_declines.clone(),
        }
    }
}

/// The gateways, with their routes and circuit breakers.
#[utoipa::path(
    get,
    path = "/gateways",
    tag = "gateways",
    operation_id = "listGateways",
    responses(
        (status = 200, description = "Every gateway, the built-in one first", body = Vec<GatewayBody>),
        (status = 500, description = "A fault of ours: the log has it under the request's id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Overloaded, unavailable or too late: try again", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let now = app.options.clock.now();
    let bodies = gateways(&*app.ports.gateway_store, &app.options.default_gateway, now).await?;
    let json = serde_json::to_vec(&bodies).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}
