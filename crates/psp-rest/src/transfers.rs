//! Deposits and withdrawals: the same fields both ways, in JSON or XML.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::{
    Currency, CustomerId, Installments, Named, NewTransaction, PaymentMethod, StoredAnswer, Transaction, TransactionId,
    TransactionKind, TransactionStatus, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{AnyAnswer, AnyBody, Keyed, Missing};
use crate::creation::{self, Asked, Family, Reading, marked, stored};
use crate::fields::{MajorAmount, cardless_method, major_amount_schema, name_or_integer};
use crate::format::{Body, Wanted};
use crate::idempotency::IdempotencyHeader;
use crate::problem::{Fault, Problem};
use crate::request::{CustomerOrDefault, OptionalCustomerHeaders, PathId, customer_or_default, no_card_number, parsed};
use crate::state::App;

/// What is told of a deposit that was created.
static DEPOSITS: Family = Family { route: "POST /deposit", method_field: "method", answer };
/// What is told of a withdrawal that was created.
static WITHDRAWALS: Family = Family { route: "POST /withdrawal", method_field: "method", answer };

const fn family(kind: TransactionKind) -> &'static Family {
    if matches!(kind, TransactionKind::Withdrawal) { &WITHDRAWALS } else { &DEPOSITS }
}

#[derive(Deserialize)]
struct NewTransferFields<'b> {
    #[serde(borrow)]
    user_id: Option<&'b RawValue>,
    amount: Option<&'b RawValue>,
    currency: Option<&'b RawValue>,
    country: Option<&'b RawValue>,
    method: Option<&'b RawValue>,
    gateway: Option<&'b RawValue>,
}

/// The fields of [`NewTransferFields`].
const FIELDS: [&str; 6] = ["user_id", "amount", "currency", "country", "method", "gateway"];

#[derive(ToSchema)]
#[schema(as = TransferMethod, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's payment methods without a card")]
pub(crate) enum TransferMethodSchema {
    Upi,
    Netbanking,
    Wallet,
    BankTransfer,
    Pix,
    Boleto,
}

/// A deposit or withdrawal, as it is asked for: in XML an element `deposit` or `withdrawal` with an element for each field.
/// Unknown fields are ignored, and so are attributes in XML.
#[derive(ToSchema)]
#[schema(as = NewTransfer, example = json!({ "user_id": 123, "amount": "100.50", "currency": "USD" }))]
#[expect(dead_code, reason = "describes the body; `NewTransferFields` reads it")]
pub(crate) struct NewTransferSchema {
    /// The customer's user: visible ASCII, or an integer, which is taken as its digits; no card number.
    #[schema(schema_with = user_id_schema)]
    user_id: String,
    #[schema(schema_with = major_amount_schema)]
    amount: String,
    /// ISO 4217.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$")]
    currency: String,
    /// Where the user is: ISO 3166-1 alpha-2.
    #[schema(min_length = 2, max_length = 2, pattern = "^[A-Z]{2}$", example = "US")]
    country: Option<String>,
    /// `bank_transfer` where absent.
    #[schema(value_type = Option<TransferMethodSchema>)]
    method: Option<String>,
    /// The gateway to use, and no other.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9_-]*$")]
    gateway: Option<String>,
}

fn user_id_schema() -> utoipa::openapi::OneOfBuilder {
    use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Type};
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]+$"));
    let text = text.min_length(Some(1)).max_length(Some(UserId::MAX_LEN));
    let integer = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let description =
        "The customer's user: visible ASCII, or an integer, which is taken as its digits; no card number.";
    OneOfBuilder::new().item(text).item(integer).description(Some(description))
}

#[derive(ToSchema)]
#[schema(as = TransferStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `status` gives")]
pub(crate) enum TransferStatusSchema {
    Pending,
    Completed,
    Failed,
}

const fn status(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Processing => "pending",
        // They have no payables and are not refunded: once approved, they are paid.
        status if status.is_approved() => "completed",
        _ => "failed",
    }
}

/// A deposit or withdrawal that was taken.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = TransferAccepted)]
pub(crate) struct AcceptedBody {
    transaction_id: Uuid,
    #[schema(value_type = TransferStatusSchema)]
    status: String,
}

/// A deposit or withdrawal.
#[derive(Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(crate) struct TransferBody<'t> {
    transaction_id: Uuid,
    #[schema(example = "123")]
    user_id: &'t str,
    /// Major units, with as many decimals as the currency has.
    #[schema(example = "100.50")]
    amount: String,
    #[schema(example = "USD")]
    currency: &'static str,
    #[schema(value_type = TransferStatusSchema)]
    status: &'static str,
    /// Why it failed; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "rejected")]
    reason: Option<&'t str>,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
}

impl<'t> From<&'t Transaction> for TransferBody<'t> {
    fn from(t: &'t Transaction) -> Self {
        Self {
            transaction_id: t.id.0,
            user_id: t.named.user_id.as_ref().map_or("", UserId::as_str),
            amount: t.amount.to_major().to_string(),
            currency: t.amount.currency().code(),
            status: status(t.status),
            reason: t.status_reason.as_deref(),
            created_at: t.created_at,
            updated_at: t.updated_at,
        }
    }
}

fn answer(transaction: &Transaction) -> StoredAnswer {
    let body = AcceptedBody { transaction_id: transaction.id.0, status: status(transaction.status).to_owned() };
    stored(StatusCode::ACCEPTED, &body)
}

/// Pay a user's money in.
///
/// The answer 202 means that the deposit is durable; a callback of the gateway ends it. The answer is in the format of the body,
/// or in the one that `Accept` asks for.
#[utoipa::path(
    post,
    path = "/deposit",
    tag = "deposits and withdrawals",
    operation_id = "createDeposit",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = NewTransferSchema,
    responses(
        (status = 202, description = "Durable", body = AcceptedBody),
        AnyBody, AnyAnswer, Keyed,
    )
)]
pub(crate) async fn create_deposit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    create(&app, TransactionKind::Deposit, &headers, body).await
}

/// Pay a user's money out.
///
/// The answer 202 means that the withdrawal is durable; a callback of the gateway ends it. The answer is in the format of the
/// body, or in the one that `Accept` asks for.
#[utoipa::path(
    post,
    path = "/withdrawal",
    tag = "deposits and withdrawals",
    operation_id = "createWithdrawal",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = NewTransferSchema,
    responses(
        (status = 202, description = "Durable", body = AcceptedBody),
        AnyBody, AnyAnswer, Keyed,
    )
)]
pub(crate) async fn create_withdrawal(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    create(&app, TransactionKind::Withdrawal, &headers, body).await
}

/// One deposit.
#[utoipa::path(
    get,
    path = "/deposits/{id}",
    tag = "deposits and withdrawals",
    operation_id = "getDeposit",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The deposit")),
    responses(
        (status = 200, description = "The deposit", body = TransferBody),
        AnyAnswer, Missing,
    )
)]
pub(crate) async fn find_deposit(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    wanted: Wanted,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    find(&app, TransactionKind::Deposit, &customer, wanted, id).await
}

/// One withdrawal.
#[utoipa::path(
    get,
    path = "/withdrawals/{id}",
    tag = "deposits and withdrawals",
    operation_id = "getWithdrawal",
    params(OptionalCustomerHeaders, ("id" = Uuid, Path, description = "The withdrawal")),
    responses(
        (status = 200, description = "The withdrawal", body = TransferBody),
        AnyAnswer, Missing,
    )
)]
pub(crate) async fn find_withdrawal(
    State(app): State<Arc<App>>,
    CustomerOrDefault(customer): CustomerOrDefault,
    wanted: Wanted,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    find(&app, TransactionKind::Withdrawal, &customer, wanted, id).await
}

async fn create(app: &App, kind: TransactionKind, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let wanted = body.wanted.0;
    let answered = creation::create(app, read(app, kind, headers, body)?).await?;
    // It was stored in JSON, and may be asked for again in XML.
    let accepted: AcceptedBody = serde_json::from_str(&answered.answer.body).map_err(|_| Problem::internal())?;
    let response = wanted.respond(answered.status()?, kind.as_str(), &accepted)?;
    Ok(marked(response, answered.is_replayed))
}

async fn find(
    app: &App,
    kind: TransactionKind,
    customer: &CustomerId,
    Wanted(wanted): Wanted,
    id: Uuid,
) -> Result<Response, Problem> {
    let found = app.ports.transactions.find(customer, TransactionId(id)).await?;
    let transfer = found.filter(|found| found.kind == kind).ok_or_else(|| match kind {
        TransactionKind::Withdrawal => Problem::missing("there is no such withdrawal"),
        _ => Problem::missing("there is no such deposit"),
    })?;
    wanted.respond(StatusCode::OK, kind.as_str(), &TransferBody::from(&transfer))
}

/// Reads a request, or tells every fault of its headers and body.
fn read(app: &App, kind: TransactionKind, headers: &HeaderMap, body: Body) -> Result<Asked, Problem> {
    let mut reading = Reading::begin(app, family(kind), headers, customer_or_default(app, headers));
    let json = reading.json(body, kind.as_str(), &FIELDS)?;
    let body: NewTransferFields<'_> = reading.body(&json)?;
    let fields = &mut reading.fields;
    let user_id = fields.required("user_id", body.user_id, no_card_number(name_or_integer, UserId::as_str));
    let amount = fields.required("amount", body.amount, MajorAmount::read);
    let currency = fields.required("currency", body.currency, parsed::<Currency>);
    let country = fields.optional("country", body.country, parsed);
    let payment_method = match body.method {
        Some(_) => fields.optional("method", body.method, cardless_method),
        None => Some(PaymentMethod::BankTransfer),
    };
    let amount = amount.and_then(|amount| {
        let money = currency.map_or_else(|| amount.of_any_currency().map(|()| None), |of| amount.money(of).map(Some));
        money.map_err(|message| fields.faults.push(Fault::new("amount", message))).ok().flatten()
    });
    let gateway = reading.gateway(body.gateway);
    let new = |customer_id| {
        Some(NewTransaction {
            kind,
            customer_id,
            description: String::new(),
            amount: amount?,
            payment_method: payment_method?,
            card: None,
            installments: Installments::ONE,
            named: Named { user_id: Some(user_id?), country, gateway, ..Named::default() },
            order: None,
        })
    };
    reading.finish(new, None)
}
