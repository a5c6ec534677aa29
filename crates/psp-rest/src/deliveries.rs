//! Deliveries of events to webhook endpoints.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Replay, ReplayTo};
use psp_domain::{DeliveryAttempt, EndpointId, EndpointStatus, EventFilter, MessageId, WebhookDelivery};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{Fields as InvalidFields, JsonBody, Missing, json};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{
    CustomerOrDefault, Fields, JsonBytes, OptionalCustomerHeaders, OptionalJsonBytes, PathId, customer_or_default,
    object_after, parsed, text, time,
};
use crate::state::App;
use crate::{events, webhook_endpoints};

/// The most events that one request delivers anew.
const REDELIVER_MAX: u32 = 10_000;

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
        (status = 409, description = "No enabled endpoint asks for it", body = ProblemBody, content_type = "application/problem+json"),
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

#[derive(Deserialize)]
struct RecoveryFields<'b> {
    #[serde(borrow)]
    since: Option<&'b RawValue>,
    after: Option<&'b RawValue>,
}

/// Which events are to be delivered anew to a webhook endpoint.
#[derive(ToSchema)]
#[schema(as = WebhookRecovery, example = json!({ "since": "2026-01-31T12:00:00Z" }))]
#[expect(dead_code, reason = "describes the body; `RecoveryFields` reads it")]
pub(crate) struct RecoverySchema {
    /// Those that happened since then.
    since: DateTime<Utc>,
    /// Of those, the ones after this event: the `next` of the answer before.
    after: Option<Uuid>,
}

/// What is delivered anew.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookRecoveryAccepted)]
pub(crate) struct RecoveredBody {
    /// Events that were looked at, at most 10000.
    #[schema(example = 3)]
    events: u64,
    /// Deliveries that start anew.
    #[schema(example = 2)]
    deliveries: u64,
    /// Where there are more: to be given as `after`, with the same `since`; null otherwise.
    #[schema(required)]
    next: Option<Uuid>,
}

/// Deliver to a webhook endpoint again what happened since then.
///
/// Every event that it asks for, oldest first, whether it was delivered or not; but what waits to be delivered stays as it is.
/// At most 10,000 events a request. An `Idempotency-Key` is ignored: a receiver knows a repetition by the event's id.
#[utoipa::path(
    post,
    path = "/webhook_endpoints/{id}/redeliver",
    tag = "webhooks",
    operation_id = "recoverWebhookEndpoint",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The webhook endpoint")),
    request_body = RecoverySchema,
    responses(
        (status = 202, description = "Durable", body = RecoveredBody),
        (status = 409, description = "It is disabled", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody, InvalidFields, Missing,
    )
)]
pub(crate) async fn recover(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer_or_default(&app, &headers).map_err(|fault| fields.faults.push(fault)).ok();
    let body: RecoveryFields<'_> = object_after(&mut fields.faults, &body)?;
    let since = fields.required("since", body.since, |json| text(json).and_then(|text| Ok(time(&text)?)));
    let after: Option<MessageId> =
        fields.optional("after", body.after, |json| parsed(json).map_err(|_: String| "must be the id of an event"));
    let (Some(customer), Some(since), true) = (customer, since, fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let endpoint =
        app.ports.endpoints.find_endpoint(&customer, EndpointId(id)).await?.ok_or_else(webhook_endpoints::missing)?;
    if endpoint.status == EndpointStatus::Disabled {
        let detail = "the webhook endpoint is disabled: enable it first";
        return Err(Problem::new(StatusCode::CONFLICT, "endpoint-disabled", detail));
    }
    let filter = EventFilter {
        customer_id: Some(customer),
        kinds: endpoint.events,
        from: Some(since),
        ..EventFilter::default()
    };
    let to = ReplayTo::Webhooks { delivered: true, endpoint_id: Some(endpoint.id) };
    let replay = Replay { to, is_dry_run: false, now: app.options.clock.now() };
    let replayed = app.ports.events.replay_events(&filter, replay, after, REDELIVER_MAX).await?;
    let next = replayed.last.map(|last| last.0);
    json(StatusCode::ACCEPTED, &RecoveredBody { events: replayed.events, deliveries: replayed.replayed, next })
}
