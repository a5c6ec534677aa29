//! Payments of orders: camel case, and decimals of major units.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::{
    CountSubject, CustomerId, Money, OrderId, OrderPaymentStatus, StatusCount, Transaction, TransactionId,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{Missing, Parameters, json};
use crate::fields::number;
use crate::orders::{self, total, unless_default};
use crate::page::{ListRequestOrDefault, PageMeta, PageQuery};
use crate::problem::Problem;
use crate::request::{CustomerOrDefault, OptionalCustomerHeaders, PathId};
use crate::state::App;

#[derive(ToSchema)]
#[schema(as = OrderPaymentStatus, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes what `status` gives")]
pub(crate) enum OrderPaymentStatusSchema {
    /// Waits for a gateway's answer.
    Processing,
    /// Approved, and not given back in full.
    Approved,
    /// Declined.
    Declined,
    /// No gateway could answer.
    Failed,
    /// All of it was given back.
    Refunded,
    /// Cancelled before approval.
    Cancelled,
}

/// The payment of an order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderPayment)]
pub(crate) struct OrderPaymentBody<'t> {
    id: Uuid,
    order_id: Uuid,
    /// Major units.
    #[schema(value_type = f64, format = "decimal", example = 999)]
    amount: Option<Box<RawValue>>,
    #[schema(value_type = OrderPaymentStatusSchema)]
    status: String,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
    /// ISO 4217; absent where it is the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "USD")]
    currency: Option<&'static str>,
    /// Why it was declined or failed; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "insufficient_funds")]
    reason: Option<&'t str>,
}

impl<'t> OrderPaymentBody<'t> {
    /// `None` where no order is paid with it.
    fn new(app: &App, payment: &'t Transaction) -> Option<Self> {
        let order = payment.order.as_ref()?;
        Some(Self {
            id: payment.id.0,
            order_id: order.id.0,
            amount: number(payment.amount.to_major()),
            status: OrderPaymentStatus::from(payment.status).as_str().to_ascii_uppercase(),
            created_at: payment.created_at,
            updated_at: payment.updated_at,
            currency: unless_default(app, payment.amount.currency()),
            reason: payment.status_reason.as_deref(),
        })
    }
}

/// A page of the payments of orders.
#[derive(ToSchema)]
#[schema(as = OrderPaymentPage)]
#[expect(dead_code, reason = "describes what `respond_counted` gives")]
pub(crate) struct OrderPaymentPageSchema<'t> {
    data: Vec<OrderPaymentBody<'t>>,
    meta: PageMeta,
}

/// The payments of a customer's orders, newest first.
#[utoipa::path(
    get,
    path = "/api/payments",
    tag = "orders",
    operation_id = "listOrderPayments",
    params(OptionalCustomerHeaders, PageQuery),
    responses((status = 200, description = "A page", body = OrderPaymentPageSchema), Parameters)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ListRequestOrDefault(request): ListRequestOrDefault,
) -> Result<Response, Problem> {
    let orders = &app.ports.orders;
    let page = orders.list_order_payments(&request.customer, request.page).await?;
    let counts = orders.counts(&request.customer, CountSubject::Payment).await?;
    let rows = page.items.iter().filter_map(|payment| OrderPaymentBody::new(&app, payment)).collect::<Vec<_>>();
    Ok(request.respond_counted(rows, total(&counts), page.next))
}

/// One payment of an order.
#[utoipa::path(
    get,
    path = "/api/payments/{id}",
    tag = "orders",
    operation_id = "getOrderPayment",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The payment")),
    responses((status = 200, description = "The payment", body = OrderPaymentBody), Missing)
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    one(&app, &customer, TransactionId(id)).await
}

/// The payment of an order. There is none until the order is `created`, which takes a moment.
#[utoipa::path(
    get,
    path = "/api/payments/order/{orderId}",
    tag = "orders",
    operation_id = "getPaymentOfOrder",
    params(OptionalCustomerHeaders, ("orderId" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The payment", body = OrderPaymentBody), Missing)
)]
pub(crate) async fn of_order(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let order = app.ports.orders.find_order(&customer, OrderId(id)).await?.ok_or_else(orders::missing)?;
    let payment = order.payment_id.ok_or_else(|| Problem::missing("the order has no payment yet"))?;
    one(&app, &customer, payment).await
}

async fn one(app: &App, customer: &CustomerId, id: TransactionId) -> Result<Response, Problem> {
    let found = app.ports.transactions.find(customer, id).await?;
    let body = found.as_ref().and_then(|payment| OrderPaymentBody::new(app, payment));
    json(StatusCode::OK, &body.ok_or_else(|| Problem::missing("there is no such payment"))?)
}

/// The payments of orders by status.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderPaymentStats)]
pub(crate) struct StatsBody {
    /// A row for each status and currency that there are payments of.
    by_status: Vec<StatusBody>,
}

/// How many payments are in a status, and the sum of their amounts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderPaymentCount)]
pub(crate) struct StatusBody {
    #[schema(value_type = OrderPaymentStatusSchema)]
    status: String,
    #[schema(example = 2)]
    count: i64,
    /// Major units.
    #[schema(value_type = f64, format = "decimal", example = 1998)]
    total_amount: Option<Box<RawValue>>,
    /// ISO 4217; absent where it is the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "USD")]
    currency: Option<&'static str>,
}

impl StatusBody {
    fn new(app: &App, count: &StatusCount) -> Self {
        Self {
            status: count.status.to_ascii_uppercase(),
            count: count.count,
            total_amount: number(Money::new(count.amount, count.currency).to_major()),
            currency: unless_default(app, count.currency),
        }
    }
}

/// How many payments of a customer's orders are in which status, and the sums of their amounts.
#[utoipa::path(
    get,
    path = "/api/payments/stats",
    tag = "orders",
    operation_id = "getOrderPaymentStats",
    params(OptionalCustomerHeaders),
    responses((status = 200, description = "By status", body = StatsBody))
)]
pub(crate) async fn stats(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
) -> Result<Response, Problem> {
    let mut counts = app.ports.orders.counts(&customer, CountSubject::Payment).await?;
    let place = |name: &str| OrderPaymentStatus::ALL.iter().position(|status| status.as_str() == name);
    counts.sort_by_key(|count| (place(&count.status), count.currency.code()));
    let by_status = counts.iter().map(|count| StatusBody::new(&app, count)).collect();
    json(StatusCode::OK, &StatsBody { by_status })
}
