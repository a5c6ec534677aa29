//! Events: what happened, as webhooks tell it.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use psp_domain::{CustomerId, Event, EventFilter, EventKind, MessageId, PageRequest};
use serde::Deserialize;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::answers::{Missing, Parameters};
use crate::page::{JSON, linked, named_twice, page_by_cursor};
use crate::problem::{Fault, Problem};
use crate::request::{CustomerOrDefault, OptionalCustomerHeaders, PathId, customer_or_default, time};
use crate::state::App;

/// The path of the list.
const PATH: &str = "/events";

/// An event. Webhooks deliver the same JSON, to the byte.
#[derive(ToSchema)]
#[schema(as = Event)]
#[expect(dead_code, reason = "describes what `Event::to_json` gives")]
pub(crate) struct EventSchema {
    /// What happened.
    #[schema(schema_with = kind_schema)]
    r#type: String,
    /// When it happened.
    timestamp: DateTime<Utc>,
    id: Uuid,
    /// The transaction, payable, order or webhook endpoint that it is about.
    aggregate_id: Uuid,
    /// Its place among the events of what it is about: from 1, without gaps. They may arrive in any order.
    #[schema(minimum = 1, example = 1)]
    sequence: i64,
    /// The facts; which fields there are depends on the type.
    #[schema(value_type = Object)]
    data: String,
}

/// The schema of the name of an event type.
pub(crate) fn kind_schema() -> ObjectBuilder {
    let names = EventKind::ALL.map(EventKind::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names))
}

/// The schema of names of event types.
pub(crate) fn kinds_schema() -> ArrayBuilder {
    ArrayBuilder::new().items(kind_schema())
}

/// Which events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `EventsRequest` reads them")]
pub(crate) struct EventsQuery {
    /// Of these types: the parameter may come again, and may name several between commas. Of all where it is absent.
    #[param(schema_with = kinds_schema, nullable = false)]
    r#type: Option<Vec<String>>,
    /// About this transaction, payable, order or webhook endpoint.
    #[param(nullable = false)]
    aggregate_id: Option<Uuid>,
    /// Not before that time (RFC 3339).
    #[param(nullable = false)]
    from: Option<DateTime<Utc>>,
    /// Before that time (RFC 3339).
    #[param(nullable = false)]
    to: Option<DateTime<Utc>>,
    /// The most rows.
    #[param(minimum = 1, maximum = 200, default = 100, nullable = false)]
    limit: Option<u32>,
    /// Goes on where the page that named it ended.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// The parameters that may come once.
#[derive(Deserialize)]
struct Once {
    aggregate_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// The events that a request asks for: all faults are told together.
pub(crate) struct EventsRequest {
    filter: EventFilter,
    page: PageRequest,
}

impl FromRequestParts<Arc<App>> for EventsRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let mut faults = Vec::new();
        let customer = customer_or_default(app, &parts.headers).map_err(|fault| faults.push(fault)).ok();
        let filter = filter(customer, &parts.uri, &mut faults);
        match page_by_cursor(&parts.uri) {
            Ok(page) if faults.is_empty() => Ok(Self { filter, page }),
            read => {
                faults.extend(read.err().unwrap_or_default());
                faults.dedup();
                Err(Problem::invalid(faults))
            }
        }
    }
}

/// The filter as far as it can be read.
fn filter(customer_id: Option<CustomerId>, uri: &Uri, faults: &mut Vec<Fault>) -> EventFilter {
    let mut filter = EventFilter { customer_id, ..EventFilter::default() };
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    let named = pairs.iter().filter(|(name, _)| name == "type").flat_map(|(_, value)| value.split(','));
    let kinds: Option<Vec<_>> = named.map(|name| EventKind::from_name(name.trim())).collect();
    match kinds {
        Some(kinds) => filter.kinds = kinds,
        None => faults.push(Fault::new("type", "must name types of events, each as docs/events.md has it")),
    }
    filter.kinds.sort_unstable();
    filter.kinds.dedup();
    let Ok(Query(once)) = Query::<Once>::try_from_uri(uri) else {
        faults.push(named_twice());
        return filter;
    };
    let mut read_time = |path, text: Option<String>| {
        let read = text.map(|text| time(&text)).transpose();
        read.map_err(|message| faults.push(Fault::new(path, message))).ok().flatten()
    };
    (filter.from, filter.to) = (read_time("from", once.from), read_time("to", once.to));
    let id = once.aggregate_id.map(|text| Uuid::try_parse(&text)).transpose();
    filter.aggregate_id = id.map_err(|_| faults.push(Fault::new("aggregate_id", "must be an id"))).ok().flatten();
    filter
}

/// The path of a list with that filter. None of its values needs to be encoded.
fn path_of(filter: &EventFilter) -> String {
    let mut path = PATH.to_owned();
    let mut add = |name: &str, value: String| {
        let and = if path == PATH { '?' } else { '&' };
        let _ = write!(path, "{and}{name}={value}");
    };
    if !filter.kinds.is_empty() {
        add("type", filter.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(","));
    }
    if let Some(id) = filter.aggregate_id {
        add("aggregate_id", id.to_string());
    }
    for (name, time) in [("from", filter.from), ("to", filter.to)] {
        if let Some(time) = time {
            add(name, time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        }
    }
    path
}

/// A customer's events, newest first.
///
/// One page examines at most 10,000 events: where a filter passes over most of them it may be short, even empty, and still have a
/// next one. The list has ended where there is no `Link`.
#[utoipa::path(
    get,
    path = "/events",
    tag = "webhooks",
    operation_id = "listEvents",
    params(OptionalCustomerHeaders, EventsQuery),
    responses(
        (status = 200, description = "A page; short, maybe, though there is a next one", body = Vec<EventSchema>),
        Parameters,
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: EventsRequest) -> Result<Response, Problem> {
    let page = app.ports.events.list_events(&request.filter, request.page).await?;
    let rows: Vec<_> = page.items.iter().map(Event::to_json).collect();
    let path = path_of(&request.filter);
    Ok(linked(format!("[{}]", rows.join(",")), request.page, page.next.map(|next| (path.as_str(), next))))
}

/// One event.
#[utoipa::path(
    get,
    path = "/events/{id}",
    tag = "webhooks",
    operation_id = "getEvent",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The event")),
    responses((status = 200, description = "The event", body = EventSchema), Missing)
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let event = one(&app, &customer, MessageId(id)).await?;
    Ok(([(header::CONTENT_TYPE, JSON)], event.to_json()).into_response())
}

/// A customer's event, or 404.
pub(crate) async fn one(app: &App, customer: &CustomerId, id: MessageId) -> Result<Event, Problem> {
    let found = app.ports.events.find_event(customer, id).await?;
    found.ok_or_else(|| Problem::missing("there is no such event"))
}
