use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::{
    CardBrand, CustomerId, PaymentMethod, StoredAnswer, Transaction, TransactionId, TransactionKind, TransactionStatus,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{JsonBody, Keyed, Missing, Parameters};
use crate::creation::{self, Family, stored};
use crate::idempotency::IdempotencyHeader;
use crate::new_transaction;
use crate::page::{JSON, ListRequest, PageQuery};
use crate::problem::Problem;
use crate::request::{Customer, CustomerHeaders, JsonBytes, PathId};
use crate::state::App;

/// What is told of a transaction that was created.
pub(crate) static FAMILY: Family = Family { route: "POST /transactions", method_field: "payment_method", answer };

#[derive(ToSchema)]
#[schema(as = PaymentMethod, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's payment methods")]
pub(crate) enum PaymentMethodSchema {
    CreditCard,
    DebitCard,
    Upi,
    Netbanking,
    Wallet,
    BankTransfer,
    Pix,
    Boleto,
}

#[derive(ToSchema)]
#[schema(as = TransactionStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum TransactionStatusSchema {
    Processing,
    PendingPayment,
    Paid,
    Declined,
    Failed,
    Cancelled,
    PendingRefund,
    Refunded,
}

/// A transaction.
#[derive(Serialize, ToSchema)]
#[schema(as = Transaction)]
pub(crate) struct TransactionBody<'t> {
    id: Uuid,
    #[schema(example = "Lightsaber")]
    description: &'t str,
    #[schema(example = "123")]
    customer_id: &'t str,
    /// Minor units.
    #[schema(example = 2500)]
    amount: i64,
    #[schema(example = "BRL")]
    currency: &'static str,
    #[schema(value_type = PaymentMethodSchema)]
    payment_method: PaymentMethod,
    #[schema(value_type = TransactionStatusSchema)]
    status: TransactionStatus,
    /// The card's fields are there where it is paid with a card, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Luke Skywalker")]
    card_holder_name: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::time::serialize_some")]
    #[schema(nullable = false)]
    card_expiration_date: Option<DateTime<Utc>>,
    /// Always `***`: the code is never kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "***")]
    card_verification_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1111")]
    card_last_four_numbers: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = String, example = "visa")]
    card_brand: Option<CardBrand>,
    #[schema(example = 1)]
    installments: u8,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
    /// Why it was declined or failed; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "insufficient_funds")]
    status_reason: Option<&'t str>,
    /// What was given back, in minor units; absent unless a refund was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1000)]
    refunded_amount: Option<i64>,
}

impl<'t> From<&'t Transaction> for TransactionBody<'t> {
    fn from(t: &'t Transaction) -> Self {
        let card = t.card.as_ref();
        Self {
            id: t.id.0,
            description: &t.description,
            customer_id: t.customer_id.as_str(),
            amount: t.amount.minor(),
            currency: t.amount.currency().code(),
            payment_method: t.payment_method,
            status: t.status,
            card_holder_name: card.map(|card| card.holder_name.as_str()),
            card_expiration_date: card.map(|card| card.expiry.first_day()),
            card_verification_code: card.map(|_| "***"),
            card_last_four_numbers: card.map(|card| card.last_four.as_str()),
            card_brand: card.map(|card| card.brand),
            installments: t.installments.get(),
            created_at: t.created_at,
            updated_at: t.updated_at,
            status_reason: t.status_reason.as_deref(),
            refunded_amount: (t.refunds.count > 0).then(|| t.refunds.done.minor()),
        }
    }
}

/// Ask for a payment.
///
/// The answer 201 means that the transaction is durable and will be authorized in the background: look at its status, or
/// at the payables that an approval makes.
#[utoipa::path(
    post,
    path = "/transactions",
    tag = "transactions",
    operation_id = "createTransaction",
    params(CustomerHeaders, IdempotencyHeader),
    request_body = new_transaction::NewTransactionSchema,
    responses(
        (status = 201, description = "Durable", body = TransactionBody),
        JsonBody, Keyed,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let asked = new_transaction::read(&app, &headers, &body)?;
    creation::create(&app, asked).await?.into_json()
}

fn answer(transaction: &Transaction) -> StoredAnswer {
    stored(StatusCode::CREATED, &TransactionBody::from(transaction))
}

/// A customer's payments by any method, newest first.
#[utoipa::path(
    get,
    path = "/transactions",
    tag = "transactions",
    operation_id = "listTransactions",
    params(CustomerHeaders, PageQuery),
    responses(
        (status = 200, description = "A page", body = Vec<TransactionBody>),
        Parameters,
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: ListRequest) -> Result<Response, Problem> {
    let page = app.ports.transactions.list(&request.customer, TransactionKind::Payment, request.page).await?;
    let rows: Vec<_> = page.items.iter().map(TransactionBody::from).collect();
    Ok(request.respond(&rows, page.next))
}

/// One transaction.
#[utoipa::path(
    get,
    path = "/transactions/{id}",
    tag = "transactions",
    operation_id = "getTransaction",
    params(CustomerHeaders, ("id" = Uuid, Path, description = "The transaction")),
    responses(
        (status = 200, description = "The transaction", body = TransactionBody),
        Missing,
    )
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    Customer(customer): Customer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    one(&app, &customer, id).await
}

async fn one(app: &App, customer: &CustomerId, id: Uuid) -> Result<Response, Problem> {
    let found = app.ports.transactions.find(customer, TransactionId(id)).await?;
    let transaction = found.filter(|found| found.kind == TransactionKind::Payment);
    let transaction = transaction.ok_or_else(|| Problem::missing("there is no such transaction"))?;
    let json = serde_json::to_vec(&TransactionBody::from(&transaction)).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}
