use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::usecases::{CreateError, CreateOutcome, IdempotentRequest};
use psp_domain::{
    Card, CardBrand, CardExpiry, Currency, CustomerId, IdempotencyKey, Installments, InvalidTransaction, Money,
    NewTransaction, PaymentMethod, StoredAnswer, Transaction, TransactionId, TransactionStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::idempotency;
use crate::page::{JSON, ListRequest, PageQuery};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{Customer, Fields, JsonBytes, PathId, customer, parsed, text, unreadable};
use crate::state::App;

/// A card payment, as it is asked for. The schema says what each field takes; they are read one by one, so that every
/// fault is found.
#[derive(Deserialize)]
struct NewTransactionFields<'b> {
    #[serde(borrow)]
    description: Option<&'b RawValue>,
    amount: Option<&'b RawValue>,
    currency: Option<&'b RawValue>,
    payment_method: Option<&'b RawValue>,
    card_number: Option<&'b RawValue>,
    card_holder_name: Option<&'b RawValue>,
    card_expiration_date: Option<&'b RawValue>,
    card_verification_code: Option<&'b RawValue>,
    installments: Option<&'b RawValue>,
}

/// A card payment, as it is asked for. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewTransaction, example = json!({
    "description": "Lightsaber", "amount": "2500", "payment_method": "credit_card", "card_number": "4111111111111111",
    "card_holder_name": "Luke Skywalker", "card_expiration_date": "10/25", "card_verification_code": "123"
}))]
#[expect(dead_code, reason = "describes the body; `NewTransactionFields` reads it")]
pub(crate) struct NewTransactionSchema {
    /// The customer's words; may be empty.
    #[schema(max_length = 500)]
    description: String,
    /// Minor units, as an integer or a string of digits.
    #[schema(value_type = AmountSchema)]
    amount: i64,
    /// ISO 4217; the configured one where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "BRL")]
    currency: Option<String>,
    #[schema(value_type = PaymentMethodSchema)]
    payment_method: String,
    /// 12 to 19 digits that pass Luhn. Encrypted until authorization ends, then erased.
    #[schema(min_length = 12, max_length = 19, pattern = "^[0-9]{12,19}$", write_only)]
    card_number: String,
    #[schema(min_length = 1, max_length = 100)]
    card_holder_name: String,
    /// MM/YY or MM/YYYY.
    #[schema(pattern = "^(0[1-9]|1[0-2])/(20)?[0-9]{2}$")]
    card_expiration_date: String,
    /// 3 or 4 digits. Encrypted until authorization ends, then erased.
    #[schema(min_length = 3, max_length = 4, pattern = "^[0-9]{3,4}$", write_only)]
    card_verification_code: String,
    /// Above 1 for credit cards only.
    #[schema(minimum = 1, maximum = 12, default = 1)]
    installments: Option<u8>,
}

/// Minor units.
#[derive(ToSchema)]
#[schema(as = Amount)]
#[expect(dead_code, reason = "describes what `amount` reads")]
pub(crate) enum AmountSchema {
    #[schema(value_type = i64)]
    Integer(i64),
    #[schema(value_type = String)]
    Digits(String),
}

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
    params(
        ("x-customer-id" = String, Header, description = "The merchant: 1 to 128 visible ASCII characters"),
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters, kept 24 hours: \
         the same request again gives the first answer, with `idempotency-replayed: true`"),
    ),
    request_body = NewTransactionSchema,
    responses(
        (status = 201, description = "Durable", body = TransactionBody, headers(
            ("idempotency-replayed" = Option<String>, description = "`true` on an answer that was given before"),
            ("x-request-id" = String, description = "The request's id, given or made"),
        )),
        (status = 400, description = "Malformed JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 64 KiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Body not JSON by its content type", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Overloaded or unavailable", body = ProblemBody, content_type = "application/problem+json", headers(
            ("retry-after" = u32, description = "Seconds"),
        )),
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let (new, key) = read(&app, &headers, &body)?;
    let customer = new.customer_id.clone();
    let flight = key.as_ref().map(|key| app.keys_in_flight.begin(&customer, key));
    if matches!(flight, Some(None)) {
        let detail = "the first request with this Idempotency-Key is still in flight";
        return Err(Problem {
            retry_after_seconds: Some(1),
            ..Problem::new(StatusCode::CONFLICT, "in-flight", detail)
        });
    }
    let idempotent =
        key.map(|key| IdempotentRequest { key, fingerprint: app.ports.fingerprints.fingerprint(&canonical(&new)) });
    let outcome = app.ports.create.execute(new, idempotent, answer).await;
    drop(flight);
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
        CreateError::Vault(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "sealing a card failed");
            Problem::internal()
        }
        CreateError::Store(error) => error.into(),
    }
}

fn fault(invalid: InvalidTransaction) -> Fault {
    let path = match invalid {
        InvalidTransaction::Description => "description",
        InvalidTransaction::InstallmentsNeedCredit => "installments",
        InvalidTransaction::CardNumberInText => "card_number",
        _ => "amount",
    };
    Fault::new(path, invalid.to_string())
}

/// Reads a request, or tells every fault of its headers and body.
fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<(NewTransaction, Option<IdempotencyKey>), Problem> {
    let body: NewTransactionFields<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let mut fields = Fields::default();
    let customer = customer(headers).map_err(|fault| fields.faults.push(fault)).ok();
    let key = idempotency::key(headers).map_err(|fault| fields.faults.push(fault)).ok();
    let description = fields.required("description", body.description, description);
    let amount = fields.required("amount", body.amount, amount);
    let currency = match body.currency {
        Some(_) => fields.optional("currency", body.currency, parsed::<Currency>),
        None => Some(app.options.default_currency),
    };
    let method = fields.required("payment_method", body.payment_method, payment_method);
    let number = fields.required("card_number", body.card_number, parsed);
    let holder_name = fields.required("card_holder_name", body.card_holder_name, parsed);
    let expiry = fields.required("card_expiration_date", body.card_expiration_date, |json| expiry(app, json));
    let code = fields.required("card_verification_code", body.card_verification_code, parsed);
    let installments = match body.installments {
        Some(_) => fields.optional("installments", body.installments, installments),
        None => Some(Installments::ONE),
    };
    let new = (|| {
        Some(NewTransaction {
            customer_id: customer?,
            description: description?,
            amount: Money::new(amount?, currency?),
            payment_method: method?,
            card: Card { number: number?, holder_name: holder_name?, expiry: expiry?, verification_code: code? },
            installments: installments?,
        })
    })();
    match (new, key) {
        (Some(new), Some(key)) => {
            // Rules across fields are told here, so that a reused key does not hide them.
            let faults = new.faults();
            if faults.is_empty() {
                Ok((new, key))
            } else {
                Err(Problem::invalid(faults.into_iter().map(fault).collect()))
            }
        }
        _ => Err(Problem::invalid(fields.faults)),
    }
}

fn description(json: &str) -> Result<String, String> {
    let description = text(json)?;
    if description.chars().count() > Transaction::DESCRIPTION_MAX_CHARS {
        return Err(InvalidTransaction::Description.to_string());
    }
    Ok(description.to_string())
}

fn amount(json: &str) -> Result<i64, String> {
    let quoted = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    let digits = quoted.unwrap_or(json);
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let minor = if all_digits { digits.parse().ok() } else { None };
    minor
        .filter(|minor| (1..=Money::MAX_MINOR).contains(minor))
        .ok_or_else(|| format!("must be an integer or a string of digits, from 1 to {}", Money::MAX_MINOR))
}

fn payment_method(json: &str) -> Result<PaymentMethod, &'static str> {
    let name: Option<String> = serde_json::from_str(json).ok();
    name.and_then(|name| PaymentMethod::from_name(&name)).ok_or("must be credit_card or debit_card")
}

fn expiry(app: &App, json: &str) -> Result<CardExpiry, String> {
    let expiry: CardExpiry = parsed(json)?;
    if app.options.refuse_expired_cards && expiry.is_past(app.options.clock.now()) {
        return Err("has passed".into());
    }
    Ok(expiry)
}

fn installments(json: &str) -> Result<Installments, String> {
    let number = serde_json::from_str(json).ok().and_then(Installments::new);
    number.ok_or_else(|| format!("must be an integer from 1 to {}", Installments::MAX))
}

/// A form of the request that equal requests share and different ones do not: every field with its length before it.
fn canonical(new: &NewTransaction) -> Zeroizing<Vec<u8>> {
    let (amount, parts) = (new.amount.minor().to_be_bytes(), [new.installments.get()]);
    let expiry = new.card.expiry.first_day().timestamp().to_be_bytes();
    let fields: [&[u8]; 10] = [
        b"POST /transactions",
        new.description.as_bytes(),
        &amount,
        new.amount.currency().code().as_bytes(),
        new.payment_method.as_str().as_bytes(),
        new.card.number.expose().as_bytes(),
        new.card.holder_name.as_str().as_bytes(),
        &expiry,
        new.card.verification_code.expose().as_bytes(),
        &parts,
    ];
    let length = fields.iter().map(|field| field.len() + 8).sum();
    let mut canonical = Zeroizing::new(Vec::with_capacity(length));
    for field in fields {
        canonical.extend_from_slice(&(field.len() as u64).to_be_bytes());
        canonical.extend_from_slice(field);
    }
    canonical
}

/// A customer's transactions, newest first.
#[utoipa::path(
    get,
    path = "/transactions",
    tag = "transactions",
    params(("x-customer-id" = String, Header, description = "The merchant"), PageQuery),
    responses(
        (status = 200, description = "A page", body = Vec<TransactionBody>, headers(
            ("link" = Option<String>, description = "The next page, `rel=\"next\"`"),
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
    params(("x-customer-id" = String, Header, description = "The merchant"), ("id" = Uuid, Path, description = "The transaction")),
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
