//! Deliveries of events to webhook endpoints.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::{DeliveryAttempt, EndpointId, MessageId, WebhookDelivery};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{Fields as InvalidFields, JsonBody, Missing, json};
use crate::events;
use crate::problem::{Fault, Problem};
use crate::request::{
    CustomerOrDefault, Fields, OptionalCustomerHeaders, OptionalJsonBytes, PathId, customer_or_default, object_after,
    parsed,
};
use crate::state::App;

#[derive(ToSchema)]
#[schema(as = DeliveryStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum DeliveryStatusSchema {
    /// It is attempted now or later.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// Every attempt failed: nobody tries again, unless it is asked for.
    Failed,
}

/// A delivery of an event to one webhook endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub(crate) struct DeliveryBody<'d> {
    event_id: Uuid,
    endpoint_id: Uuid,
    #[schema(value_type = DeliveryStatusSchema)]
    status: &'static str,
    /// When it is attempted next, at the earliest; absent unless it is pending.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::time::serialize_some")]
    #[schema(nullable = false)]
    next_attempt_at: Option<DateTime<Utc>>,
    /// Every attempt, in order.
    attempts: Vec<AttemptBody<'d>>,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
}

/// One attempt of a delivery, as it ended.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub(crate) struct AttemptBody<'d> {
    /// From 1.
    #[schema(example = 1)]
    number: u32,
    #[serde(serialize_with = "crate::time::serialize")]
    started_at: DateTime<Utc>,
    /// Milliseconds.
    #[schema(example = 42)]
    duration_ms: u32,
    /// The HTTP status; absent where there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 204)]
    status: Option<u16>,
    /// Why there was no answer, in a word; absent where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "timeout")]
    error: Option<&'d str>,
    /// The beginning of the answer's body.
    #[schema(max_length = 1024)]
    answer: &'d str,
}

impl<'d> From<&'d WebhookDelivery> for DeliveryBody<'d> {
    fn from(d: &'d WebhookDelivery) -> Self {
        Self {
            event_id: d.event_id.0,
            endpoint_id: d.endpoint_id.0,
            status: d.status.as_str(),
            next_attempt_at: d.next_attempt_at,
            attempts: d.attempts.iter().map(AttemptBody::from).collect(),
            created_at: d.created_at,
            updated_at: d.updated_at,
        }
    }
}

impl<'d> From<&'d DeliveryAttempt> for AttemptBody<'d> {
    fn from(a: &'d DeliveryAttempt) -> Self {
        Self {
            number: a.number,
            started_at: a.started_at,
            duration_ms: a.duration_ms,
            status: a.status,
            error: a.error.as_deref(),
            answer: &a.answer,
        }
    }
}

/// The deliveries of an event, one to each webhook endpoint, with their attempts.
#[utoipa::path(
    get,
    path = "/events/{id}/deliveries",
    tag = "webhooks",
    operation_id = "listDeliveries",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The event")),
    responses((status = 200, description = "Every delivery", body = Vec<DeliveryBody>), Missing)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let event = events::one(&app, &customer, MessageId(id)).await?;
    let deliveries = app.ports.deliveries.deliveries_of(&customer, event.id).await?;
    json(StatusCode::OK, &deliveries.iter().map(DeliveryBody::from).collect::<Vec<_>>())
}

#[derive(Deserialize)]
struct RedeliveryFields<'b> {
    #[serde(borrow)]
    endpoint_id: Option<&'b RawValue>,
}

/// Where an event is to be delivered anew. The body may be left out.
#[derive(ToSchema)]
#[schema(as = Redelivery)]
#[expect(dead_code, reason = "describes the body; `RedeliveryFields` reads it")]
pub(crate) struct RedeliverySchema {
    /// To this endpoint alone; to every enabled one that asks for it where absent.
    endpoint_id: Option<Uuid>,
}

/// How many deliveries start anew.
#[derive(Serialize, ToSchema)]
#[schema(as = RedeliveryAccepted)]
pub(crate) struct RedeliveredBody {
    #[schema(example = 1)]
    deliveries: u64,
}

/// Deliver an event again.
///
/// The schedule of attempts starts anew, at once, whether it was delivered before or not. An `Idempotency-Key` is ignored: a
/// receiver knows a repetition by the event's id.
#[utoipa::path(
    post,
    path = "/events/{id}/redeliver",
    tag = "webhooks",
    operation_id = "redeliverEvent",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The event")),
    request_body = Option<RedeliverySchema>,
    responses(
        (status = 202, description = "Durable", body = RedeliveredBody),
        (status = 409, description = "No enabled endpoint asks for it", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        JsonBody, InvalidFields, Missing,
    )
)]
pub(crate) async fn redeliver(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer_or_default(&app, &headers).map_err(|fault| fields.faults.push(fault)).ok();
    let body: RedeliveryFields<'_> = object_after(&mut fields.faults, &body)?;
    let endpoint: Option<EndpointId> =
        fields.optional("endpoint_id", body.endpoint_id, |json| parsed(json).map_err(|_: String| "must be an id"));
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let event = events::one(&app, &customer, MessageId(id)).await?;
    if let Some(endpoint) = endpoint
        && app.ports.endpoints.find_endpoint(&customer, endpoint).await?.is_none()
    {
        return Err(Problem::invalid(vec![Fault::new("endpoint_id", "must be a webhook endpoint of yours")]));
    }
    let now = app.options.clock.now();
    match app.ports.deliveries.redeliver(&customer, event.id, endpoint, now).await? {
        0 => Err(Problem::new(StatusCode::CONFLICT, "no-endpoint", "no enabled webhook endpoint asks for the event")),
        deliveries => json(StatusCode::ACCEPTED, &RedeliveredBody { deliveries }),
    }
}
