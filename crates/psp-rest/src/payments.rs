use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::ports::StoreError;
use psp_domain::usecases::{CancelError, CancelOutcome, CreateTransaction, IdempotentRequest};
use psp_domain::{
    CardBrand, CustomerId, IdempotencyKey, IdempotencyRecord, PaymentMethod, StoredAnswer, Transaction, TransactionId,
    TransactionKind, TransactionStatus,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{JsonBody, Missing, Parameters};
use crate::creation::{self, Answered, Family, in_task, lengths_and, stored};
use crate::idempotency::{self, IdempotencyHeader};
use crate::new_payment;
use crate::page::{JSON, ListRequestOrDefault, PageQuery};
use crate::problem::{Problem, ProblemBody};
use crate::request::{CustomerOrDefault, JsonBytes, OptionalCustomerHeaders, PathId, customer_or_default};
use crate::state::App;
use crate::transactions::PaymentMethodSchema;

/// What is told of a payment that was created.
pub(crate) static FAMILY: Family = Family { route: "POST /api/v1/payments", method_field: "method", answer };

/// The states of a payment.
#[derive(ToSchema)]
#[schema(as = PaymentStatus, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes what `status` gives")]
pub(crate) enum PaymentStatusSchema {
    /// Waits for a gateway's answer.
    Pending,
    /// Approved.
    Success,
    /// Declined, or no gateway could answer.
    Failed,
    /// Given back.
    Refunded,
    /// Cancelled before approval.
    Cancelled,
}

const fn status(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Processing => "PENDING",
        TransactionStatus::PendingPayment | TransactionStatus::Paid | TransactionStatus::PendingRefund => "SUCCESS",
        TransactionStatus::Declined | TransactionStatus::Failed => "FAILED",
        TransactionStatus::Cancelled => "CANCELLED",
        TransactionStatus::Refunded => "REFUNDED",
    }
}

/// A payment that was taken.
#[derive(Serialize, ToSchema)]
#[schema(as = PaymentAccepted)]
pub(crate) struct AcceptedBody<'t> {
    #[schema(example = "Payment initiated successfully")]
    message: &'static str,
    #[schema(value_type = PaymentStatusSchema)]
    status: &'static str,
    id: Uuid,
    #[schema(example = "order_123")]
    order_id: &'t str,
}

/// A payment.
#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
pub(crate) struct PaymentBody<'t> {
    id: Uuid,
    /// The customer's order; absent where the payment came by `POST /transactions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order_123")]
    order_id: Option<&'t str>,
    /// Minor units.
    #[schema(example = 50000)]
    amount: i64,
    #[schema(example = "INR")]
    currency: &'static str,
    #[schema(value_type = PaymentMethodSchema)]
    method: PaymentMethod,
    #[schema(value_type = PaymentStatusSchema)]
    status: &'static str,
    /// Why it failed; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "insufficient_funds")]
    reason: Option<&'t str>,
    #[schema(example = "")]
    description: &'t str,
    /// Absent where it was not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "IN")]
    country: Option<&'static str>,
    /// The gateway that approved it or, before, the one that was asked for; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "sandbox")]
    gateway: Option<&'t str>,
    #[schema(example = 1)]
    installments: u8,
    /// Absent where no card is paid with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1111")]
    card_last_four_numbers: Option<&'t str>,
    /// Absent where no card is paid with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = String, example = "visa")]
    card_brand: Option<CardBrand>,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
}

impl<'t> From<&'t Transaction> for PaymentBody<'t> {
    fn from(t: &'t Transaction) -> Self {
        let (card, approved) = (t.card.as_ref(), t.gateway.as_ref());
        let gateway = approved.map(|at| &at.gateway).or(t.named.gateway.as_ref());
        Self {
            id: t.id.0,
            order_id: t.named.order_id.as_ref().map(psp_domain::OrderName::as_str),
            amount: t.amount.minor(),
            currency: t.amount.currency().code(),
            method: t.payment_method,
            status: status(t.status),
            reason: t.status_reason.as_deref(),
            description: &t.description,
            country: t.named.country.map(psp_domain::Country::as_str),
            gateway: gateway.map(psp_domain::GatewayName::as_str),
            installments: t.installments.get(),
            card_last_four_numbers: card.map(|card| card.last_four.as_str()),
            card_brand: card.map(|card| card.brand),
            created_at: t.created_at,
            updated_at: t.updated_at,
        }
    }
}

fn answer(transaction: &Transaction) -> StoredAnswer {
    let body = AcceptedBody {
        message: "Payment initiated successfully",
        status: status(transaction.status),
        id: transaction.id.0,
        order_id: transaction.named.order_id.as_ref().map_or("", psp_domain::OrderName::as_str),
    };
    stored(StatusCode::ACCEPTED, &body)
}

/// Ask for a payment by any method.
///
/// The answer 202 means that the payment is durable and will be authorized in the background: look at its status.
#[utoipa::path(
    post,
    path = "/api/v1/payments",
    tag = "payments",
    operation_id = "createPayment",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = new_payment::NewPaymentSchema,
    responses(
        (status = 202, description = "Durable", body = AcceptedBody),
        (status = 409, description = "The first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them, or a token that is spent; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let asked = new_payment::read(&app, &headers, &body)?;
    creation::create(&app, asked).await?.into_json()
}

/// A customer's payments, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/payments",
    tag = "payments",
    operation_id = "listPayments",
    params(OptionalCustomerHeaders, PageQuery),
    responses(
        (status = 200, description = "A page", body = Vec<PaymentBody>),
        Parameters,
    )
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ListRequestOrDefault(request): ListRequestOrDefault,
) -> Result<Response, Problem> {
    let page = app.ports.transactions.list(&request.customer, TransactionKind::Payment, request.page).await?;
    let rows: Vec<_> = page.items.iter().map(PaymentBody::from).collect();
    Ok(request.respond(&rows, page.next))
}

/// One payment.
#[utoipa::path(
    get,
    path = "/api/v1/payments/{id}",
    tag = "payments",
    operation_id = "getPayment",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 200, description = "The payment", body = PaymentBody),
        Missing,
    )
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let found = app.ports.transactions.find(&customer, TransactionId(id)).await?;
    let payment = found.filter(|found| found.kind == TransactionKind::Payment).ok_or_else(missing)?;
    let json = serde_json::to_vec(&PaymentBody::from(&payment)).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}

fn missing() -> Problem {
    Problem::missing("there is no such payment")
}

/// What became of a request to cancel a payment.
#[derive(Serialize, ToSchema)]
#[schema(as = PaymentCancellation)]
pub(crate) struct CancellationBody {
    id: Uuid,
    #[schema(value_type = PaymentStatusSchema)]
    status: &'static str,
    #[schema(example = "Payment cancelled")]
    message: &'static str,
}

/// Cancel a payment before its approval.
///
/// One that no gateway holds is `CANCELLED` at once. One that a gateway may have charged stays `PENDING` until the gateway has
/// taken it back. Cancelling again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/payments/{id}/cancel",
    tag = "payments",
    operation_id = "cancelPayment",
    params(OptionalCustomerHeaders, IdempotencyHeader, ("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 202, description = "Cancelled, or to be cancelled once the gateway has confirmed it", body = CancellationBody),
        (status = 409, description = "It was approved or has ended otherwise; or the first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        Missing,
    )
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let mut faults = Vec::new();
    let customer = customer_or_default(&app, &headers).map_err(|fault| faults.push(fault)).ok();
    let key = idempotency::key(&headers).map_err(|fault| faults.push(fault)).ok();
    let (Some(customer), Some(key)) = (customer, key) else { return Err(Problem::invalid(faults)) };
    let id = TransactionId(id);
    let Some(key) = key else {
        let outcome = app.ports.cancel.execute(&customer, TransactionKind::Payment, id).await;
        let answer = cancellation(&outcome.map_err(cancel_problem)?)?;
        return Answered { answer, is_replayed: false }.into_json();
    };
    cancel_once(&app, customer, id, key).await?.into_json()
}

/// Cancels in a task of its own, and keeps the answer with the key.
async fn cancel_once(
    app: &App,
    customer: CustomerId,
    id: TransactionId,
    key: IdempotencyKey,
) -> Result<Answered, Problem> {
    let flight = app.keys_in_flight.begin_key(&customer, &key)?;
    let canonical = lengths_and(&[b"POST /api/v1/payments/{id}/cancel", id.0.as_bytes()]);
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&canonical).await?, key };
    let expires_at = app.options.clock.now() + CreateTransaction::KEY_LIFETIME;
    let (create, cancel) = (Arc::clone(&app.ports.create), Arc::clone(&app.ports.cancel));
    in_task(flight, async move {
        let replay = async || create.replay(&customer, &request).await.map_err(creation::problem(&FAMILY));
        if let Some(outcome) = replay().await? {
            return creation::answered(outcome);
        }
        let record = |outcome: &CancelOutcome| {
            let (customer_id, key) = (customer.clone(), request.key.clone());
            let answer = cancellation(outcome).ok()?;
            Some(IdempotencyRecord { customer_id, key, fingerprint: request.fingerprint, answer, expires_at })
        };
        let outcome = cancel.execute_once(&customer, TransactionKind::Payment, id, record).await;
        match cancellation(&outcome.map_err(cancel_problem)?) {
            Ok(answer) => Ok(Answered { answer, is_replayed: false }),
            // Another process may have been first.
            Err(refused) => replay().await?.map_or(Err(refused), creation::answered),
        }
    })
    .await
}

fn cancellation(outcome: &CancelOutcome) -> Result<StoredAnswer, Problem> {
    let (transaction, message) = match outcome {
        CancelOutcome::Cancelled(transaction) => (transaction, "Payment cancelled"),
        CancelOutcome::Requested(transaction) => (transaction, "Payment cancellation requested"),
        CancelOutcome::TooLate(now) => {
            let detail = format!("the payment is {}, so it cannot be cancelled", status(*now));
            return Err(Problem::new(StatusCode::CONFLICT, "too-late", detail));
        }
        CancelOutcome::Unknown => return Err(missing()),
        // Its record may expire before it is read: the client may simply ask again.
        CancelOutcome::KeyTaken => return Err(StoreError::Overloaded.into()),
    };
    let body = CancellationBody { id: transaction.id.0, status: status(transaction.status), message };
    Ok(stored(StatusCode::ACCEPTED, &body))
}

fn cancel_problem(error: CancelError) -> Problem {
    match error {
        CancelError::Store(error) => error.into(),
        CancelError::Illegal(error) => Problem::internal().because(error),
    }
}
