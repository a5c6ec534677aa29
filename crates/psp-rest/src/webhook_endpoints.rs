//! Webhook endpoints: where a customer wants events delivered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::usecases::{EndpointError, EndpointPatch, IdempotentRequest, InvalidEndpoint, NewEndpoint};
use psp_domain::{
    CustomerId, EndpointId, EndpointStatus, EventKind, IdempotencyKey, StoredAnswer, WebhookEndpoint, WebhookSecret,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::answers::{Fields as InvalidFields, JsonBody, Keyed, Missing, Parameters, json};
use crate::creation::{Answered, answered, in_task, lengths_and, stored};
use crate::deliveries;
use crate::events::kinds_schema;
use crate::idempotency::{self, IdempotencyHeader};
use crate::page::{ListRequestOrDefault, PageQuery};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{
    CustomerOrDefault, Fields, JsonBytes, OptionalCustomerHeaders, PathId, customer_or_default, not_a_card_number,
    object_after, text,
};
use crate::state::App;

#[derive(Clone, Copy, Deserialize)]
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
/// Its secret is shown in this answer and never again, but to the same request with the same `Idempotency-Key`: the answer is kept
/// with it, sealed.
#[utoipa::path(
    post,
    path = "/webhook_endpoints",
    tag = "webhooks",
    operation_id = "createWebhookEndpoint",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = NewEndpointSchema,
    responses(
        (status = 201, description = "Durable", body = EndpointBody),
        (status = 409, description = "There are 20 webhook endpoints; or webhooks are turned off here; or the first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (customer, key) = customer_and_key(&app, &headers, &mut fields);
    let body: EndpointFields<'_> = object_after(&mut fields.faults, &body)?;
    if body.url.is_none() {
        fields.faults.push(Fault::new("url", "is required"));
    }
    let asked = EndpointPatch { enabled: None, ..read(&app, &mut fields, EndpointFields { status: None, ..body }) };
    let (Some(customer), Some(url), true) = (customer, asked.url, fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    deliveries::refuse_where_turned_off(&app)?;
    let (events, description) = (asked.events.unwrap_or_default(), asked.description.unwrap_or_default());
    let new = NewEndpoint { url, events, description };
    let answer = shown_once(&app, StatusCode::CREATED);
    let Some(key) = key else {
        let (endpoint, secret) = app.ports.keep_endpoints.create(customer, new).await.map_err(problem)?;
        return Answered { answer: answer(&endpoint, &secret), is_replayed: false }.into_json();
    };
    let flight = app.keys_in_flight.begin_key(&customer, &key)?;
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&canonical(&new)).await?, key };
    let endpoints = Arc::clone(&app.ports.keep_endpoints);
    let created =
        in_task(flight, async move { endpoints.create_once(&customer, new, &request, &answer).await.map_err(problem) });
    answered(created.await?)?.into_json()
}

/// Renders an answer that shows a new secret.
fn shown_once(app: &App, status: StatusCode) -> impl Fn(&WebhookEndpoint, &WebhookSecret) -> StoredAnswer + use<> {
    let now = app.options.clock.now();
    move |endpoint, secret| stored(status, &EndpointBody::new(endpoint, now).with_secret(secret))
}

/// A form of the request that equal requests share and different ones do not.
fn canonical(new: &NewEndpoint) -> Zeroizing<Vec<u8>> {
    let mut kinds = new.events.clone();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",");
    let texts = [new.url.as_bytes(), kinds.as_bytes(), new.description.as_bytes()];
    lengths_and(&[&[b"POST /webhook_endpoints".as_slice()], &texts[..]].concat())
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
/// It is shown in this answer and never again, but to the same request with the same `Idempotency-Key`. The one before it signs,
/// too, for 24 hours.
#[utoipa::path(
    post,
    path = "/webhook_endpoints/{id}/rotate_secret",
    tag = "webhooks",
    operation_id = "rotateWebhookSecret",
    params(OptionalCustomerHeaders, IdempotencyHeader, ("id" = Uuid, Path, description = "The webhook endpoint")),
    responses((status = 200, description = "Durable", body = EndpointBody), Keyed, Missing)
)]
pub(crate) async fn rotate_secret(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (customer, key) = customer_and_key(&app, &headers, &mut fields);
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let (id, answer) = (EndpointId(id), shown_once(&app, StatusCode::OK));
    let Some(key) = key else {
        let rotated = app.ports.keep_endpoints.rotate_secret(&customer, id).await.map_err(problem)?;
        let (endpoint, secret) = rotated.ok_or_else(missing)?;
        return Answered { answer: answer(&endpoint, &secret), is_replayed: false }.into_json();
    };
    let flight = app.keys_in_flight.begin_key(&customer, &key)?;
    let canonical = lengths_and(&[b"POST /webhook_endpoints/{id}/rotate_secret", id.0.as_bytes()]);
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&canonical).await?, key };
    let endpoints = Arc::clone(&app.ports.keep_endpoints);
    let rotated = in_task(flight, async move {
        endpoints.rotate_secret_once(&customer, id, &request, &answer).await.map_err(problem)
    });
    answered(rotated.await?.ok_or_else(missing)?)?.into_json()
}

/// Whose request it is, and its key.
pub(crate) fn customer_and_key(
    app: &App,
    headers: &HeaderMap,
    fields: &mut Fields,
) -> (Option<CustomerId>, Option<IdempotencyKey>) {
    let customer = customer_or_default(app, headers).and_then(|customer| {
        not_a_card_number("x-customer-id", customer.as_str())?;
        Ok(customer)
    });
    let customer = customer.map_err(|fault| fields.faults.push(fault)).ok();
    (customer, idempotency::key(headers).map_err(|fault| fields.faults.push(fault)).ok().flatten())
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
    fields.faults.extend(app.ports.keep_endpoints.faults(patch.clone()).iter().map(fault));
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
        if let Some(kind) = name.and_then(|name| EventKind::from_name(&name)) {
            kinds.push(kind);
        } else {
            let message = "must be a type of event, as docs/events.md has it".into();
            fields.faults.push(Fault { path: format!("events[{index}]").into(), message });
        }
    }
    Some(kinds)
}

fn is_enabled(json: &str) -> Result<bool, &'static str> {
    let name: Option<String> = serde_json::from_str(json).ok();
    let status = name.and_then(|name| EndpointStatus::from_name(&name));
    status.map(|status| status == EndpointStatus::Enabled).ok_or("must be enabled or disabled")
}

fn fault(invalid: &InvalidEndpoint) -> Fault {
    Fault::new(invalid.field(), invalid.to_string())
}

fn problem(error: EndpointError) -> Problem {
    match error {
        EndpointError::Invalid(faults) => Problem::invalid(faults.iter().map(fault).collect()),
        EndpointError::TooMany => Problem::new(StatusCode::CONFLICT, "too-many-endpoints", error.to_string()),
        EndpointError::Vault(error) => error.into(),
        EndpointError::SealedAnswer(error) => {
            let detail = "the request was carried out before, and its answer, which holds a secret, does not open now; rotate the \
                          endpoint's secret for another one";
            Problem::unavailable("sealed-answer", detail).because(error)
        }
        EndpointError::Store(error) => error.into(),
    }
}

pub(crate) fn missing() -> Problem {
    Problem::missing("there is no such webhook endpoint")
}
