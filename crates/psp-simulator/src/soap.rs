//! The protocol in SOAP 1.1: every operation at one address.

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use psp_gateways::soap::{self, ACTION_HEADER, Envelope, Fault, Message, Writer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::Simulator;
use crate::ledger::Movement;
use crate::operations::{Operation, Refusal, Told, refusal};
use crate::routes::{SignedBody, header};

pub(crate) async fn ask(
    Shared(simulator): Shared<Simulator>,
    headers: HeaderMap,
    body: Result<SignedBody, Refusal>,
) -> Response {
    let asked = body.and_then(|body| {
        let message = message_of(&headers, &body.0)?;
        let told = simulator.operate(operation_of(&message)?)?;
        Ok((message, told))
    });
    match asked {
        Ok((message, (fate, told))) => fate.answer(envelope_of(&message, &told)).await,
        Err(refusal) => fault_of(&refusal),
    }
}

fn message_of(headers: &HeaderMap, body: &[u8]) -> Result<Message, Refusal> {
    let content_type = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    if !content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/xml") {
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "text_xml_required"));
    }
    match soap::read(body) {
        Ok(Envelope::Message(message)) if header(headers, ACTION_HEADER) == Some(&soap::action(&message.operation)) => {
            Ok(message)
        }
        Ok(Envelope::Message(_)) => Err(refusal(StatusCode::BAD_REQUEST, "wrong SOAPAction")),
        Ok(Envelope::Fault(_)) | Err(_) => Err(refusal(StatusCode::BAD_REQUEST, "malformed")),
    }
}

fn operation_of(message: &Message) -> Result<Operation, Refusal> {
    let fields = fields_of(message);
    match message.operation.as_str() {
        "authorize" => Operation::authorize(fields, Movement::Charge),
        "payout" => Operation::authorize(fields, Movement::Payout),
        "refund" => Operation::refund(fields),
        "find" => Operation::find(fields),
        "void" => Operation::void(fields),
        _ => Err(refusal(StatusCode::BAD_REQUEST, "unknown_operation")),
    }
}

/// The same fields as in JSON; numbers are numbers where they can be read as such.
fn fields_of(message: &Message) -> Value {
    let (mut fields, mut card) = (Map::new(), Map::new());
    for (name, text) in message.fields() {
        let number = matches!(name, "amount" | "installments").then(|| text.parse::<i64>().ok()).flatten();
        let value = number.map_or_else(|| Value::from(text), Value::from);
        match name.strip_prefix("card.") {
            Some(name) => card.insert(name.to_owned(), value),
            None => fields.insert(name.to_owned(), value),
        };
    }
    if !card.is_empty() {
        fields.insert("card".to_owned(), Value::Object(card));
    }
    Value::Object(fields)
}

fn envelope_of(message: &Message, told: &Told) -> Response {
    let Some(fields) = told.fields() else {
        return fault_of(&refusal(StatusCode::NOT_FOUND, "unknown_reference"));
    };
    let mut writer = Writer::new(&format!("{}Response", message.operation), 0);
    for (name, value) in fields {
        writer.field(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    xml(StatusCode::OK, &writer.finish())
}

/// SOAP 1.1 has faults come with 500; what a server in front could answer as well keeps its status.
fn fault_of(refusal: &Refusal) -> Response {
    let status = match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::UNAUTHORIZED
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => refusal.status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let is_client = refusal.status.is_client_error();
    xml(status, &Writer::fault(&Fault { is_client, error: Some(refusal.error.clone()) }))
}

fn xml(status: StatusCode, envelope: &Zeroizing<Vec<u8>>) -> Response {
    (status, [(CONTENT_TYPE, soap::CONTENT_TYPE)], envelope.to_vec()).into_response()
}
