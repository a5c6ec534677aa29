//! Orders: camel case, and decimals of major units.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::usecases::{CancelOrderOutcome, CreateOutcome, IdempotentRequest, PlaceOrderError};
use psp_domain::{
    CorrelationId, CountSubject, Currency, IdempotencyKey, InvalidOrder, Money, NewOrder, Order, OrderId, OrderStatus,
    PaymentMethod, StatusCount, StoredAnswer, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::answers::{JsonBody, Keyed, Missing, Parameters, json};
use crate::creation::{Reading, answered, in_task, lengths_and, stored};
use crate::fields::{MajorAmount, cardless_method, major_amount_schema, number};
use crate::idempotency::IdempotencyHeader;
use crate::page::{ListRequestOrDefault, PageMeta, PageQuery};
use crate::payments::FAMILY;
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{
    Correlation, CustomerOrDefault, JsonBytes, OptionalCustomerHeaders, PathId, customer_or_default, no_card_number,
    parsed,
};
use crate::state::App;
use crate::transfers::TransferMethodSchema;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrderFields<'b> {
    #[serde(borrow)]
    user_id: Option<&'b RawValue>,
    total: Option<&'b RawValue>,
    currency: Option<&'b RawValue>,
    method: Option<&'b RawValue>,
}

/// An order, as it is asked for. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewOrder, rename_all = "camelCase", example = json!({ "userId": "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f", "total": 999 }))]
#[expect(dead_code, reason = "describes the body; `NewOrderFields` reads it")]
pub(crate) struct NewOrderSchema {
    /// The customer's user: visible ASCII; no card number.
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    user_id: String,
    #[schema(schema_with = major_amount_schema)]
    total: String,
    /// ISO 4217; the configured one where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// How it is paid; `wallet` where absent.
    #[schema(value_type = Option<TransferMethodSchema>)]
    method: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = OrderStatus, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes what `status` gives")]
pub(crate) enum OrderStatusSchema {
    /// Waits for its payment.
    PendingPayment,
    /// Its payment was approved.
    Paid,
    /// It is cancelled, and its payment is or will be cancelled or given back.
    Cancelled,
    /// Its payment failed.
    Failed,
}

fn status(status: OrderStatus) -> String {
    status.as_str().to_ascii_uppercase()
}

/// An order that was taken.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderAccepted)]
pub(crate) struct AcceptedBody {
    order_id: Uuid,
    #[schema(example = "Order creation request accepted")]
    message: &'static str,
    #[schema(value_type = OrderStatusSchema)]
    status: String,
}

/// A wish to cancel an order that was taken.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderCancellation)]
pub(crate) struct CancellationBody {
    order_id: Uuid,
    #[schema(example = "Order cancellation request accepted")]
    message: &'static str,
}

/// An order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub(crate) struct OrderBody<'o> {
    id: Uuid,
    #[schema(example = "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f")]
    user_id: &'o str,
    /// Major units.
    #[schema(value_type = f64, format = "decimal", example = 999)]
    total: Option<Box<RawValue>>,
    #[schema(value_type = OrderStatusSchema)]
    status: String,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
    /// ISO 4217; absent where it is the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "USD")]
    currency: Option<&'static str>,
    /// Why it was cancelled or failed; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "payment_declined")]
    reason: Option<&'o str>,
}

impl<'o> OrderBody<'o> {
    fn new(app: &App, order: &'o Order) -> Self {
        Self {
            id: order.id.0,
            user_id: order.user_id.as_str(),
            total: number(order.total.to_major()),
            status: status(order.status),
            created_at: order.created_at,
            updated_at: order.updated_at,
            currency: unless_default(app, order.total.currency()),
            reason: order.status_reason.as_deref(),
        }
    }
}

/// A currency where it is not the configured one, which need not be named in requests either.
pub(crate) fn unless_default(app: &App, currency: Currency) -> Option<&'static str> {
    (currency != app.options.default_currency).then(|| currency.code())
}

/// How many rows counts are of.
pub(crate) fn total(counts: &[StatusCount]) -> u64 {
    u64::try_from(counts.iter().map(|count| count.count).sum::<i64>()).unwrap_or_default()
}

/// Place an order.
///
/// The answer 202 means that the order is durable; its payment is made in the background: look at its status.
#[utoipa::path(
    post,
    path = "/api/orders",
    tag = "orders",
    operation_id = "createOrder",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = NewOrderSchema,
    responses((status = 202, description = "Durable", body = AcceptedBody), JsonBody, Keyed)
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Correlation(correlation_id): Correlation,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let (new, key) = read(&app, &headers, correlation_id, &body)?;
    let outcome = match key {
        None => app.ports.place_order.execute(&new, None, answer).await.map_err(problem)?,
        Some(key) => create_once(&app, new, key).await?,
    };
    answered(outcome)?.into_json()
}

/// Places the order in a task of its own, and keeps the answer with the key.
async fn create_once(app: &App, new: NewOrder, key: IdempotencyKey) -> Result<CreateOutcome, Problem> {
    let flight = app.keys_in_flight.begin_key(&new.customer_id, &key)?;
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&canonical(&new)).await?, key };
    let place = Arc::clone(&app.ports.place_order);
    in_task(flight, async move { place.execute(&new, Some(request), answer).await.map_err(problem) }).await
}

/// A form of the request that equal requests share and different ones do not.
fn canonical(new: &NewOrder) -> Zeroizing<Vec<u8>> {
    lengths_and(&[
        b"POST /api/orders",
        new.user_id.as_str().as_bytes(),
        &new.total.minor().to_be_bytes(),
        new.total.currency().code().as_bytes(),
        new.payment_method.as_str().as_bytes(),
    ])
}

fn answer(order: &Order) -> StoredAnswer {
    let message = "Order creation request accepted";
    let body = AcceptedBody { order_id: order.id.0, message, status: status(order.status) };
    stored(StatusCode::ACCEPTED, &body)
}

fn problem(error: PlaceOrderError) -> Problem {
    let fault = |invalid: InvalidOrder| match invalid {
        InvalidOrder::Method => Fault::new("method", invalid.to_string()),
        _ => Fault::new("total", invalid.to_string()),
    };
    match error {
        PlaceOrderError::Invalid(faults) => Problem::invalid(faults.into_iter().map(fault).collect()),
        PlaceOrderError::Store(error) => error.into(),
    }
}

/// Reads an order, or tells every fault of its headers and body.
fn read(
    app: &App,
    headers: &HeaderMap,
    correlation_id: CorrelationId,
    body: &[u8],
) -> Result<(NewOrder, Option<IdempotencyKey>), Problem> {
    let mut reading = Reading::begin(app, &FAMILY, headers, customer_or_default(app, headers));
    let body: NewOrderFields<'_> = reading.body(body)?;
    let fields = &mut reading.fields;
    let user_id = fields.required("userId", body.user_id, no_card_number(parsed, UserId::as_str));
    let total = fields.required("total", body.total, MajorAmount::read);
    let currency = match body.currency {
        Some(_) => fields.optional("currency", body.currency, parsed::<Currency>),
        None => Some(app.options.default_currency),
    };
    let payment_method = match body.method {
        Some(_) => fields.optional("method", body.method, cardless_method),
        None => Some(PaymentMethod::Wallet),
    };
    let total =
        total.and_then(|total| money(total, currency).map_err(|fault| fields.faults.push(fault)).ok().flatten());
    let new = |customer_id| {
        let (user_id, total, payment_method) = (user_id?, total?, payment_method?);
        Some(NewOrder { customer_id, user_id, total, payment_method, correlation_id })
    };
    let (new, key, _) = reading.end(new)?;
    Ok((new, key))
}

/// The money of an order, where its currency is known; what is wrong with it in any currency otherwise.
fn money(total: MajorAmount, currency: Option<Currency>) -> Result<Option<Money>, Fault> {
    let money = currency.map_or_else(|| total.of_any_currency().map(|()| None), |of| total.money(of).map(Some));
    money.map_err(|message| Fault::new("total", message))
}

/// A page of orders.
#[derive(ToSchema)]
#[schema(as = OrderPage)]
#[expect(dead_code, reason = "describes what `respond_counted` gives")]
pub(crate) struct OrderPageSchema<'o> {
    data: Vec<OrderBody<'o>>,
    meta: PageMeta,
}

/// A customer's orders, newest first.
#[utoipa::path(
    get,
    path = "/api/orders",
    tag = "orders",
    operation_id = "listOrders",
    params(OptionalCustomerHeaders, PageQuery),
    responses((status = 200, description = "A page", body = OrderPageSchema), Parameters)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ListRequestOrDefault(request): ListRequestOrDefault,
) -> Result<Response, Problem> {
    let orders = &app.ports.orders;
    let page = orders.list_orders(&request.customer, request.page).await?;
    let counts = orders.counts(&request.customer, CountSubject::Order).await?;
    let rows = page.items.iter().map(|order| OrderBody::new(&app, order)).collect::<Vec<_>>();
    Ok(request.respond_counted(rows, total(&counts), page.next))
}

/// One order.
#[utoipa::path(
    get,
    path = "/api/orders/{id}",
    tag = "orders",
    operation_id = "getOrder",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The order", body = OrderBody), Missing)
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let order = app.ports.orders.find_order(&customer, OrderId(id)).await?.ok_or_else(missing)?;
    json(StatusCode::OK, &OrderBody::new(&app, &order))
}

/// Cancel an order.
///
/// The answer 202 means that the wish is durable. In the background the order is cancelled, and then its payment: one that is
/// processing is cancelled, one that was approved is given back. Cancelling again changes nothing.
#[utoipa::path(
    patch,
    path = "/api/orders/{id}/cancel",
    tag = "orders",
    operation_id = "cancelOrder",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 202, description = "Durable, or it is cancelled", body = CancellationBody),
        (status = 409, description = "The order has failed", body = ProblemBody, content_type = "application/problem+json"),
        Missing,
    )
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    match app.ports.cancel_order.execute(&customer, OrderId(id), |_| None).await? {
        CancelOrderOutcome::Requested(order) => {
            let message = "Order cancellation request accepted";
            json(StatusCode::ACCEPTED, &CancellationBody { order_id: order.id.0, message })
        }
        CancelOrderOutcome::TooLate(now) => {
            let detail = format!("the order is {}, so it cannot be cancelled", status(now));
            Err(Problem::new(StatusCode::CONFLICT, "too-late", detail))
        }
        CancelOrderOutcome::Unknown => Err(missing()),
        // No key is written with it.
        CancelOrderOutcome::KeyTaken => Err(Problem::internal()),
    }
}

pub(crate) fn missing() -> Problem {
    Problem::missing("there is no such order")
}
