//! Deliveries of events to webhook endpoints.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Replay, ReplayTo};
use psp_domain::{
    CustomerId, DeliveryAttempt, EndpointId, EndpointStatus, EventFilter, MessageId, StoredAnswer, WebhookDelivery,
    WebhookEndpoint,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::answers::{JsonBody, Missing, json};
use crate::creation::{Answered, do_once, in_task, lengths_and, stored};
use crate::events;
use crate::idempotency::IdempotencyHeader;
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{
    CustomerOrDefault, Fields, JsonBytes, OptionalCustomerHeaders, OptionalJsonBytes, PathId, object_after, parsed,
    text, time,
};
use crate::state::App;
use crate::webhook_endpoints::{self, customer_and_key};

/// How many events are delivered anew with one write: other writes come in between.
const RECOVERED_AT_ONCE: u32 = 1_000;
/// The most such writes of one request.
const RECOVERING_WRITES: u32 = 10;

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

/// The deliveries of an event, one to each webhook endpoint, with their last 50 attempts.
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
/// The schedule of attempts starts anew, at once, whether it was delivered before or not; what is due or attempted just now stays
/// as it is.
#[utoipa::path(
    post,
    path = "/events/{id}/redeliver",
    tag = "webhooks",
    operation_id = "redeliverEvent",
    params(OptionalCustomerHeaders, IdempotencyHeader, ("id" = Uuid, Path, description = "The event")),
    request_body = Option<RedeliverySchema>,
    responses(
        (status = 202, description = "Durable", body = RedeliveredBody),
        (status = 409, description = "No enabled endpoint asks for it, or the one that is named is disabled, or webhooks are turned off here: the problem's `type` tells which; or the first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody, Missing,
    )
)]
pub(crate) async fn redeliver(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (customer, key) = customer_and_key(&app, &headers, &mut fields);
    let body: RedeliveryFields<'_> = object_after(&mut fields.faults, &body)?;
    let endpoint_id: Option<EndpointId> =
        fields.optional("endpoint_id", body.endpoint_id, |json| parsed(json).map_err(|_: String| "must be an id"));
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let asked = Redelivery { customer, event_id: MessageId(id), endpoint_id };
    let Some(key) = key else {
        return Answered { answer: asked.begin(&app).await?, is_replayed: false }.into_json();
    };
    let (keyed, canonical, work) = ((asked.customer.clone(), key), asked.canonical(), Arc::clone(&app));
    do_once(&app, keyed, &canonical, async move { asked.begin(&work).await }).await?.into_json()
}

/// 409 where nothing is delivered from here.
pub(crate) fn refuse_where_turned_off(app: &App) -> Result<(), Problem> {
    let refused = || Problem::new(StatusCode::CONFLICT, "webhooks-off", "webhooks are turned off here");
    app.options.webhooks.then_some(()).ok_or_else(refused)
}

/// A redelivery that has no faults of its own.
struct Redelivery {
    customer: CustomerId,
    event_id: MessageId,
    endpoint_id: Option<EndpointId>,
}

impl Redelivery {
    /// A form of the request that equal requests share and different ones do not.
    fn canonical(&self) -> Zeroizing<Vec<u8>> {
        let endpoint = self.endpoint_id.as_ref().map_or(&[][..], |id| id.0.as_bytes());
        lengths_and(&[b"POST /events/{id}/redeliver", self.event_id.0.as_bytes(), endpoint])
    }

    async fn begin(&self, app: &App) -> Result<StoredAnswer, Problem> {
        refuse_where_turned_off(app)?;
        let event = events::one(app, &self.customer, self.event_id).await?;
        if let Some(id) = self.endpoint_id {
            let Some(endpoint) = app.ports.endpoints.find_endpoint(&self.customer, id).await? else {
                return Err(Problem::invalid(vec![Fault::new("endpoint_id", "must be a webhook endpoint of yours")]));
            };
            refuse_disabled(&endpoint)?;
        }
        let now = app.options.clock.now();
        match app.ports.deliveries.redeliver(&self.customer, event.id, self.endpoint_id, now).await? {
            0 => {
                let detail = "no enabled webhook endpoint asks for the event";
                Err(Problem::new(StatusCode::CONFLICT, "no-endpoint", detail))
            }
            deliveries => Ok(stored(StatusCode::ACCEPTED, &RedeliveredBody { deliveries })),
        }
    }
}

/// 409 where nothing is delivered to an endpoint.
fn refuse_disabled(endpoint: &WebhookEndpoint) -> Result<(), Problem> {
    let detail = "the webhook endpoint is disabled: enable it first";
    let refused = || Problem::new(StatusCode::CONFLICT, "endpoint-disabled", detail);
    (endpoint.status == EndpointStatus::Enabled).then_some(()).ok_or_else(refused)
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
/// At most 10,000 events a request, and one such request of a customer at a time.
#[utoipa::path(
    post,
    path = "/webhook_endpoints/{id}/redeliver",
    tag = "webhooks",
    operation_id = "recoverWebhookEndpoint",
    params(OptionalCustomerHeaders, IdempotencyHeader, ("id" = Uuid, Path, description = "The webhook endpoint")),
    request_body = RecoverySchema,
    responses(
        (status = 202, description = "Durable", body = RecoveredBody),
        (status = 409, description = "It is disabled, or another such request of the customer is under way, or webhooks are turned off here: the problem's `type` tells which; or the first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody, Missing,
    )
)]
pub(crate) async fn recover(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (customer, key) = customer_and_key(&app, &headers, &mut fields);
    let body: RecoveryFields<'_> = object_after(&mut fields.faults, &body)?;
    let since = fields.required("since", body.since, |json| text(json).and_then(|text| Ok(time(&text)?)));
    let after: Option<MessageId> =
        fields.optional("after", body.after, |json| parsed(json).map_err(|_: String| "must be the id of an event"));
    let (Some(customer), Some(since), true) = (customer, since, fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let asked = Recovery { customer, endpoint_id: EndpointId(id), since, after };
    let (customer, canonical, work) = (asked.customer.clone(), asked.canonical(), Arc::clone(&app));
    let recovering = async move { asked.begin(&work).await };
    let answered = match key {
        Some(key) => do_once(&app, (customer, key), &canonical, recovering).await?,
        // A client that goes away, and comes again, must not have it done twice at once.
        None => Answered { answer: in_task((), recovering).await?, is_replayed: false },
    };
    answered.into_json()
}

/// A recovery that has no faults of its own.
struct Recovery {
    customer: CustomerId,
    endpoint_id: EndpointId,
    since: DateTime<Utc>,
    after: Option<MessageId>,
}

impl Recovery {
    /// A form of the request that equal requests share and different ones do not.
    fn canonical(&self) -> Zeroizing<Vec<u8>> {
        let since = self.since.to_rfc3339();
        let after = self.after.as_ref().map_or(&[][..], |id| id.0.as_bytes());
        let route = b"POST /webhook_endpoints/{id}/redeliver";
        lengths_and(&[route, self.endpoint_id.0.as_bytes(), since.as_bytes(), after])
    }

    /// Writes in small parts, and for each customer in one place of the process: payments must not wait for it.
    async fn begin(self, app: &App) -> Result<StoredAnswer, Problem> {
        refuse_where_turned_off(app)?;
        let found = app.ports.endpoints.find_endpoint(&self.customer, self.endpoint_id).await?;
        let endpoint = found.ok_or_else(webhook_endpoints::missing)?;
        refuse_disabled(&endpoint)?;
        let _place = app.recoveries.begin(self.customer.clone()).ok_or_else(recovery_in_flight)?;
        let filter = EventFilter {
            customer_id: Some(self.customer),
            kinds: endpoint.events,
            from: Some(self.since),
            ..EventFilter::default()
        };
        let to = ReplayTo::Webhooks { delivered: true, endpoint_id: Some(endpoint.id) };
        let replay = Replay { to, is_dry_run: false, now: app.options.clock.now() };
        let (mut body, mut after) = (RecoveredBody { events: 0, deliveries: 0, next: None }, self.after);
        for _ in 0..RECOVERING_WRITES {
            let replayed = app.ports.events.replay_events(&filter, replay, after, RECOVERED_AT_ONCE).await?;
            body.events += replayed.events;
            body.deliveries += replayed.replayed;
            after = replayed.last;
            if after.is_none() {
                break;
            }
        }
        body.next = after.map(|last| last.0);
        Ok(stored(StatusCode::ACCEPTED, &body))
    }
}

/// 409: the customer has this done already.
fn recovery_in_flight() -> Problem {
    let detail =
        "what happened is being delivered anew to an endpoint of yours just now; ask again when that has ended";
    let problem = Problem::new(StatusCode::CONFLICT, "redelivery-in-flight", detail);
    Problem { retry_after_seconds: Some(1), ..problem }
}
