use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::usecases::{CreateError, CreateOutcome, IdempotentRequest};
use psp_domain::{
    CardBrand, CustomerId, IdempotencyKey, NewTransaction, PaymentMethod, StoredAnswer, Transaction, TransactionId,
    TransactionStatus,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::idempotency::{self, IdempotencyHeader};
use crate::new_transaction::{self, canonical, fault};
use crate::page::{JSON, ListRequest, PageQuery};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{Customer, CustomerHeaders, JsonBytes, PathId};
use crate::state::App;

#[derive(ToSchema)]
#[schema(as = PaymentMethod, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's payment methods")]
pub(crate) enum PaymentMethodSchema {
    CreditCard,
    DebitCard,
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
    #[schema(example = "Luke Skywalker")]
    card_holder_name: &'t str,
    #[serde(serialize_with = "crate::time::serialize")]
    card_expiration_date: DateTime<Utc>,
    /// Always `***`: the code is never kept.
    #[schema(example = "***")]
    card_verification_code: &'static str,
    #[schema(example = "1111")]
    card_last_four_numbers: &'t str,
    #[schema(value_type = String, example = "visa")]
    card_brand: CardBrand,
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
}

impl<'t> From<&'t Transaction> for TransactionBody<'t> {
    fn from(t: &'t Transaction) -> Self {
        Self {
            id: t.id.0,
            description: &t.description,
            customer_id: t.customer_id.as_str(),
            amount: t.amount.minor(),
            currency: t.amount.currency().code(),
            payment_method: t.payment_method,
            status: t.status,
            card_holder_name: t.card.holder_name.as_str(),
            card_expiration_date: t.card.expiry.first_day(),
            card_verification_code: "***",
            card_last_four_numbers: &t.card.last_four,
            card_brand: t.card.brand,
            installments: t.installments.get(),
            created_at: t.created_at,
            updated_at: t.updated_at,
            status_reason: t.status_reason.as_deref(),
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
        (status = 201, description = "Durable", body = TransactionBody, headers(
            ("idempotency-replayed" = bool, description = "`true` on an answer that was given before; absent otherwise"),
        )),
        (status = 400, description = "Malformed JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 64 KiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Body not JSON by its content type", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let (new, key) = new_transaction::read(&app, &headers, &body)?;
    let outcome = match key {
        None => app.ports.create.execute(new, None, answer).await,
        Some(key) => execute_once(&app, new, key).await?,
    };
    match outcome.map_err(problem)? {
        CreateOutcome::Created(answer) => respond(answer),
        CreateOutcome::Replayed(answer) => {
            metrics::counter!("psp_idempotency_replays_total").increment(1);
            let mut response = respond(answer)?;
            response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        CreateOutcome::KeyReused => {
            let fault = Fault::new("idempotency-key", "was used before with another request");
            Err(Problem { slug: "idempotency-key-reused", ..Problem::invalid(vec![fault]) })
        }
    }
}

/// Creates the transaction in a task of its own: a client that goes away, or the end of the request's time, must not land
/// the key while the write is under way.
async fn execute_once(
    app: &App,
    new: NewTransaction,
    key: IdempotencyKey,
) -> Result<Result<CreateOutcome, CreateError>, Problem> {
    let Some(flight) = app.keys_in_flight.begin(&new.customer_id, &key) else {
        let detail = "the first request with this Idempotency-Key is still in flight";
        let problem = Problem::new(StatusCode::CONFLICT, "in-flight", detail);
        return Err(Problem { retry_after_seconds: Some(1), ..problem });
    };
    let fingerprint = app.ports.fingerprints.fingerprint(&canonical(&new));
    let create = Arc::clone(&app.ports.create);
    let task = tokio::spawn(async move {
        let _flight = flight;
        create.execute(new, Some(IdempotentRequest { key, fingerprint }), answer).await
    });
    task.await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Problem::internal().because(cancelled),
    })
}

fn answer(transaction: &Transaction) -> StoredAnswer {
    let body = serde_json::to_string(&TransactionBody::from(transaction)).unwrap_or_default();
    StoredAnswer { status: StatusCode::CREATED.as_u16(), body }
}

fn respond(answer: StoredAnswer) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| Problem::internal())?;
    Ok((status, [(header::CONTENT_TYPE, JSON)], answer.body).into_response())
}

fn problem(error: CreateError) -> Problem {
    match error {
        CreateError::Invalid(faults) => Problem::invalid(faults.into_iter().map(fault).collect()),
        CreateError::Vault(error) => Problem::internal().because(error),
        CreateError::Store(error) => error.into(),
    }
}

/// A customer's transactions, newest first.
#[utoipa::path(
    get,
    path = "/transactions",
    tag = "transactions",
    operation_id = "listTransactions",
    params(CustomerHeaders, PageQuery),
    responses(
        (status = 200, description = "A page", body = Vec<TransactionBody>, headers(
            ("link" = String, description = "The next page, `rel=\"next\"`; absent on the last one"),
        )),
        (status = 422, description = "Invalid parameters, all of them", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: ListRequest) -> Result<Response, Problem> {
    let page = app.ports.transactions.list(&request.customer, request.page).await?;
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
        (status = 404, description = "None of this customer's", body = ProblemBody, content_type = "application/problem+json"),
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
    let transaction = found.ok_or_else(|| Problem::missing("there is no such transaction"))?;
    let json = serde_json::to_vec(&TransactionBody::from(&transaction)).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}
