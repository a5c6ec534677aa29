use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use psp_domain::ports::{CallbackSignature, ForgedCallback};
use psp_domain::usecases::{Notice, Received};
use psp_domain::{Callback, Currency, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::answers::{AnyAnswer, AnyBody};
use crate::fields::{MajorAmount, major_amount_schema};
use crate::format::Body;
use crate::problem::{Problem, ProblemBody};
use crate::request::{Fields, PathId, no_card_number, object_after, parsed, text};
use crate::state::App;

const TIMESTAMP_HEADER: &str = "psp-timestamp";
const SIGNATURE_HEADER: &str = "psp-signature";
/// The element of requests and answers in XML.
const ROOT: &str = "callback";

#[derive(Deserialize)]
struct CallbackFields<'b> {
    #[serde(borrow)]
    gateway_txn_id: Option<&'b RawValue>,
    status: Option<&'b RawValue>,
    amount: Option<&'b RawValue>,
    currency: Option<&'b RawValue>,
}

/// The fields of [`CallbackFields`].
const FIELDS: [&str; 4] = ["gateway_txn_id", "status", "amount", "currency"];

/// What a gateway tells of a transaction: in XML an element `callback` with an element for each field. Unknown fields are
/// ignored, and so are attributes in XML.
#[derive(ToSchema)]
#[schema(as = Callback, example = json!({ "gateway_txn_id": "gw-tx-12345", "status": "completed" }))]
#[expect(dead_code, reason = "describes the body; `CallbackFields` reads it")]
pub(crate) struct CallbackSchema {
    /// The gateway's own reference: visible ASCII and no card number.
    #[schema(min_length = 1, max_length = 100, pattern = "^[!-~]+$")]
    gateway_txn_id: String,
    /// `completed`, `failed` and `rejected` end the transaction; any other is kept and changes nothing.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$")]
    status: String,
    /// Where it is told, it must be the transaction's, or nothing changes.
    #[schema(schema_with = major_amount_schema)]
    amount: Option<String>,
    /// ISO 4217; the transaction's where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
}

/// A callback that was taken.
#[derive(Serialize, ToSchema)]
#[schema(as = CallbackAccepted)]
pub(crate) struct AcceptedBody {
    transaction_id: Uuid,
    #[schema(example = "accepted")]
    status: &'static str,
}

/// How a gateway signs; see the protocol of gateways.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers; `receive` passes them on")]
pub(crate) struct SignatureHeaders {
    /// When it was signed, in seconds since 1970; at most five minutes from now. Not needed of the sandbox.
    #[param(rename = "psp-timestamp", nullable = false)]
    timestamp: Option<String>,
    /// `v1=` and the HMAC-SHA256, in hexadecimal digits, of the timestamp, `POST`, the path and the body, with line feeds
    /// between them, under the gateway's secret. Not needed of the sandbox.
    #[param(rename = "psp-signature", nullable = false)]
    signature: Option<String>,
    /// Names the request in the answer, in problems and in logs: visible ASCII. One is made where there is none.
    #[param(rename = "x-request-id", nullable = false, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    request_id: Option<String>,
}

/// Tell what became of a transaction: for gateways.
///
/// The answer 202 means that the callback is durable and will be applied in the background. The same again has one effect, and
/// an `Idempotency-Key` is ignored.
#[utoipa::path(
    post,
    path = "/callback/{transaction_id}",
    tag = "callbacks",
    operation_id = "receiveCallback",
    params(SignatureHeaders, ("transaction_id" = Uuid, Path, description = "The transaction")),
    request_body = CallbackSchema,
    responses(
        (status = 202, description = "Durable, or known already", body = AcceptedBody),
        (status = 401, description = "Not signed by the transaction's gateway, or too long ago; the problem's `type` tells which", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such transaction", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The transaction has ended, or has as many callbacks as are kept, and this was not known; the problem's `type` tells which", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields, all of them", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The transaction's gateway is not configured here: ask again later", body = ProblemBody, content_type = "application/problem+json"),
        AnyBody, AnyAnswer,
    )
)]
pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (wanted, bytes) = (body.wanted.0, body.bytes.clone());
    let notice = read(body)?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let signature = CallbackSignature {
        path: uri.path(),
        timestamp: header(TIMESTAMP_HEADER),
        signature: header(SIGNATURE_HEADER),
        body: &bytes,
    };
    match app.ports.callbacks.receive(TransactionId(id), notice, &signature).await? {
        Received::Stored => {
            wanted.respond(StatusCode::ACCEPTED, ROOT, &AcceptedBody { transaction_id: id, status: "accepted" })
        }
        Received::Unknown => Err(Problem::missing("there is no such transaction")),
        Received::Final(status) => {
            let detail = format!("the transaction is {}: nothing can follow", status.as_str());
            Err(Problem::new(StatusCode::CONFLICT, "already-final", detail))
        }
        Received::TooMany => {
            let detail =
                format!("{} callbacks of the transaction are kept, and no more", Callback::MAX_PER_TRANSACTION);
            Err(Problem::new(StatusCode::CONFLICT, "too-many-callbacks", detail))
        }
        Received::Unverifiable => {
            tracing::warn!(transaction_id = %id, "a callback came for a gateway that is not configured here");
            Err(Problem::unavailable(
                "unverifiable",
                "nobody can tell now whether this is from the transaction's gateway; nothing was kept",
            ))
        }
        Received::Forged(forged) => Err(Problem::new(StatusCode::UNAUTHORIZED, slug(forged), forged.to_string())),
    }
}

const fn slug(forged: ForgedCallback) -> &'static str {
    match forged {
        ForgedCallback::Signature => "bad-signature",
        ForgedCallback::Stale => "stale-signature",
    }
}

/// Reads what a gateway tells, or every fault of it.
fn read(body: Body) -> Result<Notice, Problem> {
    let mut fields = Fields::default();
    let (json, faults) = body.into_json(ROOT, &FIELDS)?;
    fields.faults = faults;
    let body: CallbackFields<'_> = object_after(&mut fields.faults, &json)?;
    let gateway_reference =
        fields.required("gateway_txn_id", body.gateway_txn_id, no_card_number(reference, String::as_str));
    let status = fields.required("status", body.status, no_card_number(status, String::as_str));
    let amount = fields.optional("amount", body.amount, MajorAmount::read);
    let currency = fields.optional("currency", body.currency, parsed::<Currency>);
    match (gateway_reference, status) {
        (Some(gateway_reference), Some(status)) if fields.faults.is_empty() => {
            Ok(Notice { gateway_reference, status, amount: amount.map(|amount| amount.major), currency })
        }
        _ => Err(Problem::invalid(fields.faults)),
    }
}

fn reference(json: &str) -> Result<String, String> {
    let text = text(json)?;
    let wrong = || format!("must be 1 to {} visible ASCII characters", Callback::MAX_REFERENCE_LEN);
    if Callback::is_reference(&text) { Ok(text.to_string()) } else { Err(wrong()) }
}

fn status(json: &str) -> Result<String, String> {
    let text = text(json)?;
    let wrong = || format!("must be 1 to {} of a-z, 0-9, _ and -", Callback::MAX_STATUS_LEN);
    if Callback::is_status(&text) { Ok(text.to_string()) } else { Err(wrong()) }
}
