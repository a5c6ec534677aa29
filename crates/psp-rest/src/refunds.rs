use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::ports::StoreError;
use psp_domain::usecases::{
    CreateTransaction, IdempotentRequest, RefundError, RefundRequestOutcome, RefundTransaction,
};
use psp_domain::{
    CustomerId, IdempotencyKey, IdempotencyRecord, Refund, RefundRefused, StoredAnswer, TransactionId, TransactionKind,
};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{JsonBody, Missing, json};
use crate::creation::{self, Answered, in_task, lengths_and, stored};
use crate::fields::{minor_amount, minor_amount_schema};
use crate::idempotency::{self, IdempotencyHeader};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::request::{Customer, CustomerHeaders, Fields, OptionalJsonBytes, PathId, customer, object_after};
use crate::state::App;
use crate::transactions::{FAMILY, TransactionBody};

/// The fields of the body. Where a field is unknown, or `amount` is null, all that is left must not be given back by mistake.
#[derive(Default)]
struct NewRefundFields<'b> {
    amount: Option<&'b RawValue>,
    /// The names that are no field's.
    unknown: BTreeSet<Cow<'b, str>>,
}

/// Borrows a name where it can: derived, text within options and tuples is copied.
#[derive(Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);

impl<'de: 'b, 'b> Deserialize<'de> for NewRefundFields<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NewRefundFields::default())
    }
}

impl<'de: 'b, 'b> Visitor<'de> for NewRefundFields<'b> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Self, A::Error> {
        while let Some(Name(name)) = fields.next_key::<Name<'b>>()? {
            let value: &'b RawValue = fields.next_value()?;
            let is_new =
                if name == "amount" { self.amount.replace(value).is_none() } else { self.unknown.insert(name) };
            if !is_new {
                return Err(A::Error::custom("a field comes twice"));
            }
        }
        Ok(self)
    }
}

/// The longest name of an unknown field that is repeated.
const MAX_NAME_LEN: usize = 64;
/// The most unknown fields that are told.
const MAX_UNKNOWN: usize = 20;

/// The fault of an unknown field, named where its name may be repeated.
fn unknown(name: &str) -> Fault {
    let is_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let path = if name.len() <= MAX_NAME_LEN && name.bytes().all(is_name) { name } else { "" };
    Fault { path: path.to_owned().into(), message: "is no field of a refund".into() }
}

/// How much is to be given back. The body may be left out. Unknown fields are refused.
#[derive(ToSchema)]
#[schema(as = NewRefund, example = json!({ "amount": 1000 }))]
#[expect(dead_code, reason = "describes the body; `NewRefundFields` reads it")]
pub(crate) struct NewRefundSchema {
    /// All that is left where absent.
    #[schema(schema_with = minor_amount_schema)]
    amount: Option<i64>,
}

#[derive(ToSchema)]
#[schema(as = RefundStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum RefundStatusSchema {
    /// The gateway is asked for it.
    Pending,
    /// The gateway gave it back.
    Succeeded,
    /// The gateway refused. Another one may be asked for.
    Failed,
}

/// A refund.
#[derive(Serialize, ToSchema)]
#[schema(as = Refund)]
pub(crate) struct RefundBody<'r> {
    id: Uuid,
    transaction_id: Uuid,
    /// Minor units.
    #[schema(example = 1000)]
    amount: i64,
    #[schema(example = "BRL")]
    currency: &'static str,
    #[schema(value_type = RefundStatusSchema)]
    status: &'static str,
    /// Why the gateway refused; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "refund_window_closed")]
    reason: Option<&'r str>,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
}

impl<'r> From<&'r Refund> for RefundBody<'r> {
    fn from(r: &'r Refund) -> Self {
        Self {
            id: r.id.0,
            transaction_id: r.transaction_id.0,
            amount: r.amount.minor(),
            currency: r.amount.currency().code(),
            status: r.status.as_str(),
            reason: r.reason.as_deref(),
            created_at: r.created_at,
            updated_at: r.updated_at,
        }
    }
}

/// A transaction with the refund that was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = RefundedTransaction)]
pub(crate) struct RefundedBody<'r> {
    #[serde(flatten)]
    transaction: TransactionBody<'r>,
    refund: RefundBody<'r>,
}

/// Give a payment back, in part or whole.
///
/// The answer 202 means that the refund is durable; the gateway is asked in the background. Until it has answered, the refund is
/// `pending` and the transaction `pending_refund`.
#[utoipa::path(
    post,
    path = "/transactions/{id}/refund",
    tag = "transactions",
    operation_id = "refundTransaction",
    params(CustomerHeaders, IdempotencyHeader, ("id" = Uuid, Path, description = "The transaction")),
    request_body = Option<NewRefundSchema>,
    responses(
        (status = 202, description = "Durable", body = RefundedBody),
        (status = 409, description = "Not approved, or nothing is left, or as many refunds as there may be: the problem's `type` tells which; or the first request with this key is still in flight", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them, or more than is left; or the key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
        JsonBody, Missing,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    PathId(id): PathId,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let customer = customer(&headers).map_err(|fault| fields.faults.push(fault)).ok();
    let key = idempotency::key(&headers).map_err(|fault| fields.faults.push(fault)).ok().flatten();
    let body: NewRefundFields<'_> = object_after(&mut fields.faults, &body)?;
    let amount_minor = fields.optional("amount", body.amount, minor_amount);
    fields.faults.extend(body.unknown.iter().take(MAX_UNKNOWN).map(|name| unknown(name)));
    let Some(customer) = customer.filter(|_| fields.faults.is_empty()) else {
        return Err(Problem::invalid(fields.faults));
    };
    let asked = Asked { customer, id: TransactionId(id), amount_minor };
    match key {
        Some(key) => create_once(&app, asked, key).await?.into_json(),
        None => asked.refund(&app.ports.refund, |_| None).await?.into_json(),
    }
}

/// A refund that has no faults of its own.
struct Asked {
    customer: CustomerId,
    id: TransactionId,
    amount_minor: Option<i64>,
}

impl Asked {
    /// A form of the request that equal requests share and different ones do not.
    fn canonical(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let amount = self.amount_minor.map(i64::to_be_bytes);
        let amount = amount.as_ref().map_or(&[][..], |amount| amount);
        lengths_and(&[b"POST /transactions/{id}/refund", self.id.0.as_bytes(), amount])
    }

    async fn refund(
        &self,
        refund: &RefundTransaction,
        record: impl Fn(StoredAnswer) -> Option<IdempotencyRecord> + Send + Sync,
    ) -> Result<Answered, Problem> {
        let record = |outcome: &RefundRequestOutcome| record(self.answer(outcome).ok()?);
        let outcome = refund.request(&self.customer, self.id, self.amount_minor, record).await;
        let answer = self.answer(&outcome.map_err(problem)?)?;
        Ok(Answered { answer, is_replayed: false })
    }

    fn answer(&self, outcome: &RefundRequestOutcome) -> Result<StoredAnswer, Problem> {
        match outcome {
            RefundRequestOutcome::Requested(transaction, refund) => {
                let body = RefundedBody { transaction: (&**transaction).into(), refund: (&**refund).into() };
                Ok(stored(StatusCode::ACCEPTED, &body))
            }
            RefundRequestOutcome::Refused(refused) => Err(self.refusal(*refused)),
            RefundRequestOutcome::Unknown => Err(missing()),
            // Its record may expire before it is read: the client may simply ask again.
            RefundRequestOutcome::KeyTaken => Err(StoreError::Overloaded.into()),
        }
    }

    fn refusal(&self, refused: RefundRefused) -> Problem {
        let conflict = |slug, detail: String| Problem::new(StatusCode::CONFLICT, slug, detail);
        match refused {
            // Deposits and withdrawals are not shown here.
            RefundRefused::Kind(_) => missing(),
            RefundRefused::Status(status) => {
                conflict("not-refundable", format!("the transaction is {}: nothing can be refunded", status.as_str()))
            }
            RefundRefused::Exceeds(_) if self.amount_minor.is_none() => {
                conflict("not-refundable", "all of the transaction is being refunded".to_owned())
            }
            RefundRefused::Amount | RefundRefused::Exceeds(_) => {
                Problem::invalid(vec![Fault::new("amount", refused.to_string())])
            }
            _ => conflict("too-many-refunds", refused.to_string()),
        }
    }
}

/// Asks for the refund in a task of its own, and keeps the answer with the key.
async fn create_once(app: &App, asked: Asked, key: IdempotencyKey) -> Result<Answered, Problem> {
    let flight = app.keys_in_flight.begin_key(&asked.customer, &key)?;
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&asked.canonical()).await?, key };
    let expires_at = app.options.clock.now() + CreateTransaction::KEY_LIFETIME;
    let (create, refund) = (Arc::clone(&app.ports.create), Arc::clone(&app.ports.refund));
    in_task(flight, async move {
        let replay = async || create.replay(&asked.customer, &request).await.map_err(creation::problem(&FAMILY));
        if let Some(outcome) = replay().await? {
            return creation::answered(outcome);
        }
        let record = |answer| {
            let (customer_id, key) = (asked.customer.clone(), request.key.clone());
            Some(IdempotencyRecord { customer_id, key, fingerprint: request.fingerprint, answer, expires_at })
        };
        let refused = match asked.refund(&refund, record).await {
            Ok(answered) => return Ok(answered),
            Err(refused) => refused,
        };
        // Another process may have been first, and have left nothing to refund.
        replay().await?.map_or(Err(refused), creation::answered)
    })
    .await
}

fn missing() -> Problem {
    Problem::missing("there is no such transaction")
}

fn problem(error: RefundError) -> Problem {
    match error {
        RefundError::Store(error) => error.into(),
        RefundError::Illegal(error) => Problem::internal().because(error),
    }
}

/// The refunds of a transaction, in their order.
#[utoipa::path(
    get,
    path = "/transactions/{id}/refunds",
    tag = "transactions",
    operation_id = "listRefunds",
    params(CustomerHeaders, ("id" = Uuid, Path, description = "The transaction")),
    responses((status = 200, description = "Every refund", body = Vec<RefundBody>), Missing)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Customer(customer): Customer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let found = app.ports.transactions.find(&customer, TransactionId(id)).await?;
    let transaction = found.filter(|found| found.kind == TransactionKind::Payment).ok_or_else(missing)?;
    let refunds = app.ports.refunds.refunds(&customer, transaction.id).await?;
    json(StatusCode::OK, &refunds.iter().map(RefundBody::from).collect::<Vec<_>>())
}
