//! What every request passes: its id, the limits, metrics, one line of log, and the rendering of problems.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use metrics::{Counter, Gauge, Histogram};
use psp_domain::CardNumber;

use crate::format::Format;
use crate::problem::{Chain, Problem};
use crate::request::{CUSTOMER_HEADER, RequestId};
use crate::state::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over from the client, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// The longest customer id that is logged, in bytes.
const MAX_LOGGED_CUSTOMER: usize = psp_domain::CustomerId::MAX_LEN;

pub(crate) async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&app, &request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let customer = request.headers().get(CUSTOMER_HEADER).cloned();
    let format = Format::of_problems(route, request.headers());
    let response = match InFlightPlace::take(&app, is_probe(route)) {
        _ if is_delivery(&request) && !is_probe(route) => delivered().into_response(),
        Some(_place) => run(&app, request, next, &id).await,
        None => Problem::unavailable("overloaded", "too many requests at once").into_response(),
    };
    let response = finish(response, &id, format);

    let elapsed = begun.elapsed().as_secs_f64();
    app.metrics.record(&method, route, response.status(), elapsed);
    let customer = customer.as_ref().and_then(|c| c.to_str().ok()).filter(|c| c.len() <= MAX_LOGGED_CUSTOMER);
    let customer = customer.map(|c| if CardNumber::may_stand_in(c) { "***" } else { c });
    tracing::info!(
        method = %method,
        route,
        status = response.status().as_u16(),
        duration_ms = (elapsed * 1e6).round() / 1e3,
        request_id = text(&id),
        customer_id = customer,
        "request"
    );
    response
}

/// Probes are answered however many requests there are: a busy process must not be restarted for being busy.
fn is_probe(route: &str) -> bool {
    matches!(route, "/_liveness_check_" | "/_readiness_check_" | "/metrics")
}

/// Whether the request is the delivery of a webhook. A webhook endpoint that points here would have psp act in the name of the
/// configured customer, and deliver to itself again and again what that brings about.
fn is_delivery(request: &Request) -> bool {
    request.headers().contains_key("webhook-id")
}

fn delivered() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "webhook-delivery", "deliveries of webhooks (`webhook-id`) are not taken here")
}

/// Runs the request within its time; a panic is a 500.
async fn run(app: &App, request: Request, next: Next, id: &HeaderValue) -> Response {
    let run = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(app.options.request_timeout, run).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            // What it says may hold what the client sent, so it stays out of the log.
            tracing::error!(request_id = text(id), "a handler panicked");
            Problem::internal().into_response()
        }
        Err(_elapsed) => Problem::unavailable(
            "timeout",
            "no answer in time; repeat the request with the same Idempotency-Key, or look it up",
        )
        .into_response(),
    }
}

/// A request id as text.
fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// The client's request id where it is short visible ASCII and no card number, or a new one.
fn request_id(app: &App, request: &Request) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
            && !CardNumber::may_stand_in(text(value))
    };
    request.headers().get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let text: &str = app.options.ids.next_id().as_hyphenated().encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// Renders a problem, ours or axum's own, and sets the headers of every response.
fn finish(mut response: Response, id: &HeaderValue, format: Format) -> Response {
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| foreign_problem(&response));
    if let Some(problem) = problem {
        if let Some(cause) = &problem.cause {
            let status = problem.status.as_u16();
            tracing::error!(request_id = text(id), status, error = %Chain(cause.as_ref()), "a request failed");
        }
        let body = problem.render(text(id), format);
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.problem_type()));
        *response.body_mut() = Body::from(body);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The problem of an error that axum answered by itself.
fn foreign_problem(response: &Response) -> Option<Problem> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    Some(match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(status, "method-not-allowed", "this path does not take this method; see Allow")
        }
        StatusCode::NOT_FOUND => Problem::missing("there is no such path"),
        status if status.is_server_error() => Problem::internal(),
        status => Problem::new(status, "bad-request", "the request cannot be understood"),
    })
}

/// A request under way. Given back on drop, because a client that goes away drops its request anywhere.
struct InFlightPlace<'a> {
    app: &'a App,
    probe: bool,
}

impl<'a> InFlightPlace<'a> {
    /// `None` when all places are taken; probes are counted, but take none.
    fn take(app: &'a App, probe: bool) -> Option<Self> {
        app.metrics.in_flight.increment(1.0);
        let before = if probe { 0 } else { app.requests_in_flight.fetch_add(1, Ordering::Relaxed) };
        let place = Self { app, probe };
        (probe || before < app.options.max_in_flight).then_some(place)
    }
}

impl Drop for InFlightPlace<'_> {
    fn drop(&mut self) {
        self.app.metrics.in_flight.decrement(1.0);
        if !self.probe {
            self.app.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Handles of the request metrics, resolved once for each label set: recording a request must look no name up.
pub(crate) struct RequestMetrics {
    in_flight: Gauge,
    routes: Vec<RouteMetrics>,
}

struct RouteMetrics {
    method: Method,
    route: &'static str,
    seconds: Histogram,
    /// One for each of [`STATUSES`], and one for all others.
    statuses: [OnceLock<Counter>; STATUSES.len() + 1],
}

/// The documented routes have handles of their own; everything else is counted together.
const ROUTES: [(Method, &str); 40] = [
    (Method::POST, "/transactions"),
    (Method::GET, "/transactions"),
    (Method::GET, "/transactions/{id}"),
    (Method::POST, "/transactions/{id}/refund"),
    (Method::GET, "/transactions/{id}/refunds"),
    (Method::GET, "/payables"),
    (Method::GET, "/payables/{id}"),
    (Method::GET, "/balance"),
    (Method::GET, "/gateways"),
    (Method::POST, "/api/v1/payments"),
    (Method::GET, "/api/v1/payments"),
    (Method::GET, "/api/v1/payments/{id}"),
    (Method::POST, "/api/v1/payments/{id}/cancel"),
    (Method::POST, "/card_tokens"),
    (Method::POST, "/deposit"),
    (Method::GET, "/deposits/{id}"),
    (Method::POST, "/withdrawal"),
    (Method::GET, "/withdrawals/{id}"),
    (Method::POST, "/callback/{transaction_id}"),
    (Method::POST, "/api/orders"),
    (Method::GET, "/api/orders"),
    (Method::GET, "/api/orders/{id}"),
    (Method::PATCH, "/api/orders/{id}/cancel"),
    (Method::GET, "/api/payments"),
    (Method::GET, "/api/payments/{id}"),
    (Method::GET, "/api/payments/order/{orderId}"),
    (Method::GET, "/api/payments/stats"),
    (Method::GET, "/events"),
    (Method::GET, "/events/{id}"),
    (Method::GET, "/events/{id}/deliveries"),
    (Method::POST, "/events/{id}/redeliver"),
    (Method::POST, "/webhook_endpoints"),
    (Method::GET, "/webhook_endpoints"),
    (Method::GET, "/webhook_endpoints/{id}"),
    (Method::PATCH, "/webhook_endpoints/{id}"),
    (Method::DELETE, "/webhook_endpoints/{id}"),
    (Method::POST, "/webhook_endpoints/{id}/rotate_secret"),
    (Method::POST, "/webhook_endpoints/{id}/redeliver"),
    (Method::GET, "/_liveness_check_"),
    (Method::GET, "/_readiness_check_"),
];

const STATUSES: [u16; 18] = [200, 201, 202, 204, 307, 400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 431, 500, 503];

/// The method as a label; the row of everything else stands for all of them.
fn label(method: &Method) -> String {
    if *method == Method::TRACE { "any".to_owned() } else { method.to_string() }
}

impl RequestMetrics {
    pub(crate) fn new() -> Self {
        let other = (Method::TRACE, "other");
        let of = |(method, route): (Method, &'static str)| RouteMetrics {
            seconds: metrics::histogram!("psp_http_request_duration_seconds", "route" => route, "method" => label(&method)),
            method,
            route,
            statuses: Default::default(),
        };
        let routes = ROUTES.into_iter().chain([other]).map(of).collect();
        Self { in_flight: metrics::gauge!("psp_http_requests_in_flight"), routes }
    }

    fn record(&self, method: &Method, route: &str, status: StatusCode, seconds: f64) {
        let known = self.routes.iter().find(|r| r.method == *method && r.route == route);
        let Some(metrics) = known.or(self.routes.last()) else { return };
        metrics.seconds.record(seconds);
        let index = STATUSES.iter().position(|s| *s == status.as_u16()).unwrap_or(STATUSES.len());
        let counter = || {
            let status = STATUSES.get(index).map_or_else(|| "other".to_owned(), u16::to_string);
            let (method, route) = (label(&metrics.method), metrics.route);
            metrics::counter!("psp_http_requests_total", "route" => route, "method" => method, "status" => status)
        };
        metrics.statuses[index].get_or_init(counter).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_route_has_metrics_of_its_own() {
        let document = crate::openapi();
        let count = document.paths.paths.iter().map(|(path, item)| {
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            let documented = operations.into_iter().filter(|(_, operation)| operation.is_some());
            documented.map(|(method, _)| assert!(ROUTES.contains(&(method, path.as_str())), "{path}")).count()
        });
        assert_eq!(count.sum::<usize>(), ROUTES.len());
    }
}
