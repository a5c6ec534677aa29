//! The protocol in XML: SOAP 1.1, one operation per message, all at one address.

use http::{Method, StatusCode};
use psp_domain::ports::{AuthorizationRequest, RefundRequest};
use psp_domain::{Money, TransactionKind};

use crate::answer::{Answer, Question, Reading, Status, UNKNOWN_REFERENCE};
use crate::soap::{self, Envelope, Fault, Message, Writer};
use crate::transport::Outgoing;

/// What a fault of the server names that has not begun to process the message.
const TAKES_NOTHING: [&str; 2] = ["unavailable", "too_many_references"];

/// The element that asks a question.
fn operation(question: &Question<'_>) -> &'static str {
    match question {
        Question::Authorize(request, _) if request.kind == TransactionKind::Withdrawal => "payout",
        Question::Authorize(..) => "authorize",
        Question::Refund(_) => "refund",
        Question::Find(_) => "find",
        Question::Void(_) => "void",
    }
}

/// The request that asks a question.
pub(crate) fn write(question: &Question<'_>) -> Outgoing {
    let operation = operation(question);
    let mut writer = Writer::new(operation, question.capacity());
    writer.field("reference", &question.reference().to_string());
    match question {
        Question::Authorize(request, callback_url) => write_authorization(&mut writer, request, *callback_url),
        Question::Refund(RefundRequest { of, amount, .. }) => {
            writer.field("of", &of.to_string());
            write_amount(&mut writer, *amount);
        }
        Question::Find(_) | Question::Void(_) => {}
    }
    Outgoing {
        method: Method::POST,
        path: String::new(),
        content_type: Some(soap::CONTENT_TYPE),
        action: Some(soap::action(operation)),
        body: writer.finish(),
    }
}

fn write_amount(writer: &mut Writer, amount: Money) {
    writer.field("amount", &amount.minor().to_string());
    writer.field("currency", amount.currency().code());
}

fn write_authorization(writer: &mut Writer, request: &AuthorizationRequest, callback_url: Option<&str>) {
    writer.field("transaction_id", &request.transaction_id.to_string());
    writer.field("kind", request.kind.as_str());
    write_amount(writer, request.amount);
    writer.field("method", request.payment_method.as_str());
    writer.field("installments", &request.installments.get().to_string());
    if let Some(country) = request.country {
        writer.field("country", country.as_str());
    }
    if let Some(card) = &request.card {
        writer.open("card");
        writer.field("number", card.number.expose());
        writer.field("holder_name", card.holder_name.as_str());
        writer.field("expiry", &card.expiry.first_day().format("%m/%Y").to_string());
        writer.field("verification_code", card.verification_code.expose());
        writer.close("card");
    }
    if let Some(address) = callback_url {
        writer.field("callback_url", address);
    }
}

/// What an answer to a question says.
pub(crate) fn read(question: &Question<'_>, status: StatusCode, body: Option<&[u8]>) -> Reading {
    let envelope = body.and_then(|body| soap::read(body).ok());
    match (status, envelope) {
        (StatusCode::OK, Some(Envelope::Message(message))) => {
            let is_answer = message.operation.strip_suffix("Response") == Some(operation(question));
            answer(&message).filter(|_| is_answer).map_or(Reading::Senseless, Reading::Answer)
        }
        (status, Some(Envelope::Fault(fault))) => refusal(status, &fault),
        _ => Reading::Senseless,
    }
}

/// What a fault says. SOAP 1.1 has faults come with 500 (section 6.2), and `Client` say that the message was not processed
/// (4.4.1); `Server` may have begun to, unless it says otherwise.
fn refusal(status: StatusCode, fault: &Fault) -> Reading {
    let error = fault.error.as_deref().unwrap_or_default();
    match status {
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::NOT_FOUND if fault.is_client && error == UNKNOWN_REFERENCE => {
            Reading::UnknownReference
        }
        StatusCode::INTERNAL_SERVER_ERROR if fault.is_client => Reading::Refused,
        status if fault.is_client => Reading::of_refusal(status),
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            if TAKES_NOTHING.contains(&error) =>
        {
            Reading::Unavailable
        }
        _ => Reading::Senseless,
    }
}

fn answer(message: &Message) -> Option<Answer> {
    let text = |name| message.field(name).map(str::to_owned);
    let amount = message.field("amount").map(str::parse).transpose().ok()?;
    let currency = message.field("currency").map(str::parse).transpose().ok()?;
    Some(Answer {
        reference: message.field("reference")?.parse().ok()?,
        status: Status::from_name(message.field("status")?)?,
        gateway_reference: text("gateway_reference"),
        reason: text("reason"),
        amount,
        currency,
    })
}
