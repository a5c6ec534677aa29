//! Webhook endpoints: where a customer wants events delivered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::ports::{Replay, ReplayTo};
use psp_domain::usecases::{EndpointError, EndpointPatch, InvalidEndpoint, NewEndpoint};
use psp_domain::{
    CustomerId, EndpointId, EndpointStatus, EventFilter, EventKind, MessageId, WebhookEndpoint, WebhookSecret,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{Fields as InvalidFields, JsonBody, Missing, Parameters, json};
use crate::events::kinds_schema;
use crate::page::{ListRequestOrDefault, PageQuery};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{
    CustomerOrDefault, Fields, JsonBytes, OptionalCustomerHeaders, PathId, customer_or_default, not_a_card_number,
    object_after, parsed, text, time,
};
use crate::state::App;

/// The most events that one request delivers anew.
const REDELIVER_MAX: u32 = 10_000;

#[derive(Deserialize)]
struct EndpointFields<'b> {
    #[serde(borrow)]
    url: Option<&'b RawValue>,
    events: Option<&'b RawValue>,
    description: Option<&'b RawValue>,
    status: Option<&'b RawValue>,
}

/// A webhook endpoint, as it is asked for. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewWebhookEndpoint, example = json!({ "url": "https://shop.example/webhooks", "events": ["transaction.approved"] }))]
#[expect(dead_code, reason = "describes the body; `EndpointFields` reads it")]
pub(crate) struct NewEndpointSchema {
    /// HTTPS, and publicly reachable.
    #[schema(max_length = 2048, format = "uri")]
    url: String,
    /// The types of events that it asks for; empty or absent for all.
    #[schema(schema_with = kinds_schema)]
    events: Option<Vec<String>>,
    /// The customer's words; no card number.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// What is changed of a webhook endpoint: what is absent stays as it is.
#[derive(ToSchema)]
#[schema(as = WebhookEndpointPatch, example = json!({ "status": "disabled" }))]
#[expect(dead_code, reason = "describes the body; `EndpointFields` reads it")]
pub(crate) struct EndpointPatchSchema {
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
    #[schema(schema_with = kinds_schema)]
    events: Option<Vec<String>>,
    #[schema(max_length = 500)]
    description: Option<String>,
    #[schema(value_type = Option<EndpointStatusSchema>)]
    status: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = WebhookEndpointStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum EndpointStatusSchema {
    Enabled,
    Disabled,
}

/// A webhook endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
pub(crate) struct EndpointBody<'e> {
    id: Uuid,
    #[schema(example = "https://shop.example/webhooks")]
    url: &'e str,
    /// The types of events that it asks for; empty for all.
    #[schema(schema_with = kinds_schema)]
    events: Vec<&'static str>,
    #[schema(example = "")]
    description: &'e str,
    #[schema(value_type = EndpointStatusSchema)]
    status: &'static str,
    /// Why it was disabled, where that was not the customer's wish: `gone` or `failing`; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "failing")]
    disabled_reason: Option<&'e str>,
    /// Since when every attempt failed; absent while they succeed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::time::serialize_some")]
    #[schema(nullable = false)]
    failing_since: Option<DateTime<Utc>>,
    /// Until when the secret before this one signs, too; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::time::serialize_some")]
    #[schema(nullable = false)]
    previous_secret_valid_until: Option<DateTime<Utc>>,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
    /// What signs deliveries. Shown once, when it was made, and absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<&'e str>,
}

impl<'e> EndpointBody<'e> {
    fn new(endpoint: &'e WebhookEndpoint, now: DateTime<Utc>) -> Self {
        let previous = endpoint.previous_secret.as_ref().map(|(_, until)| *until);
        Self {
            id: endpoint.id.0,
            url: &endpoint.url,
            events: endpoint.events.iter().map(|kind| kind.as_str()).collect(),
            description: &endpoint.description,
            status: endpoint.status.as_str(),
            disabled_reason: endpoint.disabled_reason.as_deref(),
            failing_since: endpoint.failing_since,
            previous_secret_valid_until: previous.filter(|until| *until > now),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            secret: None,
        }
    }

    fn with_secret(self, secret: &'e WebhookSecret) -> Self {
        Self { secret: Some(secret.expose()), ..self }
    }
}

/// Add a webhook endpoint.
///
/// Its secret is shown in this answer and never again. An `Idempotency-Key` is refused: the answer would be kept with it, and
/// its secret in the clear. Of an answer that was lost, delete the endpoint or rotate its secret.
#[utoipa::path(
    post,
    path = "/webhook_endpoints",
    tag = "webhooks",
    operation_id = "createWebhookEndpoint",
    params(OptionalCustomerHeaders),
    request_body = NewEndpointSchema,
    responses(
        (status = 201, description = "Durable", body = EndpointBody),
        (status = 409, description = "There are 20 webhook endpoints", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody, InvalidFields,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer_of_secret(&app, &headers, &mut fields);
    let body: EndpointFields<'_> = object_after(&mut fields.faults, &body)?;
    if body.url.is_none() {
        fields.faults.push(Fault::new("url", "is required"));
    }
    let asked = EndpointPatch { enabled: None, ..read(&app, &mut fields, EndpointFields { status: None, ..body }) };
    let (Some(customer), Some(url), true) = (customer, asked.url, fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let (events, description) = (asked.events.unwrap_or_default(), asked.description.unwrap_or_default());
    let new = NewEndpoint { url, events, description };
    let (endpoint, secret) = app.ports.keep_endpoints.create(customer, new).await.map_err(problem)?;
    json(StatusCode::CREATED, &EndpointBody::new(&endpoint, app.options.clock.now()).with_secret(&secret))
}

/// A customer's webhook endpoints, newest first.
#[utoipa::path(
    get,
    path = "/webhook_endpoints",
    tag = "webhooks",
    operation_id = "listWebhookEndpoints",
    params(OptionalCustomerHeaders, PageQuery),
    responses((status = 200, description = "A page", body = Vec<EndpointBody>), Parameters)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ListRequestOrDefault(request): ListRequestOrDefault,
) -> Result<Response, Problem> {
    let page = app.ports.endpoints.list_endpoints(&request.customer, request.page).await?;
    let now = app.options.clock.now();
    let rows: Vec<_> = page.items.iter().map(|endpoint| EndpointBody::new(endpoint, now)).collect();
    Ok(request.respond(&rows, page.next))
}

/// One webhook endpoint.
#[utoipa::path(
    get,
    path = "/webhook_endpoints/{id}",
    tag = "webhooks",
    operation_id = "getWebhookEndpoint",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The webhook endpoint")),
    responses((status = 200, description = "The webhook endpoint", body = EndpointBody), Missing)
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let endpoint = app.ports.endpoints.find_endpoint(&customer, EndpointId(id)).await?.ok_or_else(missing)?;
    json(StatusCode::OK, &EndpointBody::new(&endpoint, app.options.clock.now()))
}

/// Change a webhook endpoint: what is absent stays as it is.
///
/// A disabled one receives nothing; what waits for it waits until it is enabled.
#[utoipa::path(
    patch,
    path = "/webhook_endpoints/{id}",
    tag = "webhooks",
    operation_id = "changeWebhookEndpoint",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The webhook endpoint")),
    request_body = EndpointPatchSchema,
    responses((status = 200, description = "Durable", body = EndpointBody), JsonBody, InvalidFields, Missing)
)]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer_or_default(&app, &headers).map_err(|fault| fields.faults.push(fault)).ok();
    let body: EndpointFields<'_> = object_after(&mut fields.faults, &body)?;
    let patch = read(&app, &mut fields, body);
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let changed = app.ports.keep_endpoints.update(&customer, EndpointId(id), patch).await.map_err(problem)?;
    json(StatusCode::OK, &EndpointBody::new(&changed.ok_or_else(missing)?, app.options.clock.now()))
}

/// Delete a webhook endpoint. What waits for it is not delivered any more.
#[utoipa::path(
    delete,
    path = "/webhook_endpoints/{id}",
    tag = "webhooks",
    operation_id = "deleteWebhookEndpoint",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The webhook endpoint")),
    responses((status = 204, description = "Deleted"), Missing)
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let is_deleted = app.ports.keep_endpoints.delete(&customer, EndpointId(id)).await.map_err(problem)?;
    if is_deleted { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(missing()) }
}

/// Give a webhook endpoint another secret.
///
/// It is shown in this answer and never again. The one before it signs, too, for 24 hours. An `Idempotency-Key` is refused, as by
/// the endpoint's creation.
#[utoipa::path(
    post,
    path = "/webhook_endpoints/{id}/rotate_secret",
    tag = "webhooks",
    operation_id = "rotateWebhookSecret",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The webhook endpoint")),
    responses((status = 200, description = "Durable", body = EndpointBody), InvalidFields, Missing)
)]
pub(crate) async fn rotate_secret(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer_of_secret(&app, &headers, &mut fields);
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let rotated = app.ports.keep_endpoints.rotate_secret(&customer, EndpointId(id)).await.map_err(problem)?;
    let (endpoint, secret) = rotated.ok_or_else(missing)?;
    json(StatusCode::OK, &EndpointBody::new(&endpoint, app.options.clock.now()).with_secret(&secret))
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
pub(crate) async fn redeliver(
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
    let endpoint = app.ports.endpoints.find_endpoint(&customer, EndpointId(id)).await?.ok_or_else(missing)?;
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

/// The customer of a request whose answer holds a secret, which must not be kept with an idempotency key.
fn customer_of_secret(app: &App, headers: &HeaderMap, fields: &mut Fields) -> Option<CustomerId> {
    if headers.contains_key("idempotency-key") {
        let message = "is not taken here: the answer, which holds a secret, would be kept with it";
        fields.faults.push(Fault::new("idempotency-key", message));
    }
    let customer = customer_or_default(app, headers).and_then(|customer| {
        not_a_card_number("x-customer-id", customer.as_str())?;
        Ok(customer)
    });
    customer.map_err(|fault| fields.faults.push(fault)).ok()
}

/// What a body asks for as far as it can be read; its faults are gathered.
fn read(app: &App, fields: &mut Fields, body: EndpointFields<'_>) -> EndpointPatch {
    let plain = |json: &str| text(json).map(|text| text.to_string());
    let patch = EndpointPatch {
        url: fields.optional("url", body.url, plain),
        events: kinds(fields, body.events),
        description: fields.optional("description", body.description, plain),
        enabled: fields.optional("status", body.status, is_enabled),
    };
    fields.faults.extend(app.ports.keep_endpoints.faults(patch.clone()).into_iter().map(fault));
    patch
}

/// The types of events of a body. Each that is unknown is a fault, by its place: the value itself is not repeated.
fn kinds(fields: &mut Fields, value: Option<&RawValue>) -> Option<Vec<EventKind>> {
    let most = EventKind::ALL.len();
    let items = fields.optional("events", value, |json| {
        let items: Option<Vec<Box<RawValue>>> = serde_json::from_str(json).ok();
        items
            .filter(|items| items.len() <= most)
            .ok_or_else(|| format!("must be an array of at most {most} types of events"))
    })?;
    let mut kinds = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let name: Option<String> = serde_json::from_str(item.get()).ok();
        match name.and_then(|name| EventKind::from_name(&name)) {
            Some(kind) => kinds.push(kind),
            None => {
                let message = "must be a type of event, as docs/events.md has it".into();
                fields.faults.push(Fault { path: format!("events[{index}]").into(), message });
            }
        }
    }
    Some(kinds)
}

fn is_enabled(json: &str) -> Result<bool, &'static str> {
    let name: Option<String> = serde_json::from_str(json).ok();
    let status = name.and_then(|name| EndpointStatus::from_name(&name));
    status.map(|status| status == EndpointStatus::Enabled).ok_or("must be enabled or disabled")
}

fn fault(invalid: InvalidEndpoint) -> Fault {
    Fault::new(invalid.field(), invalid.to_string())
}

fn problem(error: EndpointError) -> Problem {
    match error {
        EndpointError::Invalid(faults) => Problem::invalid(faults.into_iter().map(fault).collect()),
        EndpointError::TooMany => Problem::new(StatusCode::CONFLICT, "too-many-endpoints", error.to_string()),
        EndpointError::Vault(error) => error.into(),
        EndpointError::Store(error) => error.into(),
    }
}

fn missing() -> Problem {
    Problem::missing("there is no such webhook endpoint")
}
