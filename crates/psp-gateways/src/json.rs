//! The protocol in JSON: one resource per operation.

use http::{Method, StatusCode};
use psp_domain::ports::{AuthorizationRequest, GatewayError, RefundRequest};
use psp_domain::{AttemptReference, PaymentMethod, TransactionId, TransactionKind};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answer::{Question, Reading, UNKNOWN_REFERENCE};
use crate::transport::Outgoing;

const CONTENT_TYPE: &str = "application/json";

/// The body of an authorization or a payout.
#[derive(Serialize)]
struct AuthorizationBody<'a> {
    reference: AttemptReference,
    transaction_id: TransactionId,
    kind: TransactionKind,
    amount: i64,
    currency: &'static str,
    method: PaymentMethod,
    installments: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<CardBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
}

#[derive(Serialize)]
struct CardBody<'a> {
    number: &'a str,
    holder_name: &'a str,
    expiry: String,
    verification_code: &'a str,
}

#[derive(Serialize)]
struct RefundBody {
    reference: AttemptReference,
    of: AttemptReference,
    amount: i64,
    currency: &'static str,
}

/// The body of a refusal: nothing but that, because what others answer may have an `error`, too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    error: String,
}

impl<'a> AuthorizationBody<'a> {
    fn of(request: &'a AuthorizationRequest, callback_url: Option<&'a str>) -> Self {
        Self {
            reference: request.reference,
            transaction_id: request.transaction_id,
            kind: request.kind,
            amount: request.amount.minor(),
            currency: request.amount.currency().code(),
            method: request.payment_method,
            installments: request.installments.get(),
            country: request.country.map(psp_domain::Country::as_str),
            card: request.card.as_ref().map(|card| CardBody {
                number: card.number.expose(),
                holder_name: card.holder_name.as_str(),
                expiry: card.expiry.first_day().format("%m/%Y").to_string(),
                verification_code: card.verification_code.expose(),
            }),
            callback_url,
        }
    }
}

impl RefundBody {
    fn of(request: &RefundRequest) -> Self {
        let RefundRequest { reference, of, amount } = *request;
        Self { reference, of, amount: amount.minor(), currency: amount.currency().code() }
    }
}

/// The request that asks a question.
pub(crate) fn write(question: &Question<'_>) -> Result<Outgoing, GatewayError> {
    let (path, body) = match question {
        Question::Authorize(request, callback_url) => {
            let path = if request.kind == TransactionKind::Withdrawal { "/payouts" } else { "/authorizations" };
            let body = AuthorizationBody::of(request, *callback_url);
            (path.to_owned(), written(&body, question.capacity())?)
        }
        Question::Refund(request) => ("/refunds".to_owned(), written(&RefundBody::of(request), question.capacity())?),
        Question::Void(reference) => (format!("/operations/{reference}/void"), Zeroizing::default()),
        Question::Find(reference) => {
            let (path, body) = (format!("/operations/{reference}"), Zeroizing::default());
            return Ok(Outgoing { method: Method::GET, path, content_type: None, action: None, body });
        }
    };
    let content_type = (!body.is_empty()).then_some(CONTENT_TYPE);
    Ok(Outgoing { method: Method::POST, path, content_type, action: None, body })
}

fn written(content: &impl Serialize, capacity: usize) -> Result<Zeroizing<Vec<u8>>, GatewayError> {
    let mut body = Zeroizing::new(Vec::with_capacity(capacity));
    // The error of a serializer may quote what it was given.
    serde_json::to_writer(&mut *body, content)
        .map_err(|_| GatewayError::Unavailable("the request could not be written".into()))?;
    Ok(body)
}

/// What an answer says.
pub(crate) fn read(status: StatusCode, body: Option<&[u8]>) -> Reading {
    if status == StatusCode::OK {
        return parsed(body).map_or(Reading::Senseless, Reading::Answer);
    }
    match parsed(body) {
        Some(Refusal { error }) if status == StatusCode::NOT_FOUND && error == UNKNOWN_REFERENCE => {
            Reading::UnknownReference
        }
        Some(Refusal { .. }) => Reading::of_refusal(status),
        None => Reading::Senseless,
    }
}

/// An object; an array is none, though it could be read as the values of one.
fn parsed<T: for<'de> Deserialize<'de>>(body: Option<&[u8]>) -> Option<T> {
    let body = body.filter(|body| body.trim_ascii_start().starts_with(b"{"))?;
    serde_json::from_slice(body).ok()
}
