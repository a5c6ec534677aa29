use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::{Card, CardBrand, CustomerId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::creation::{Reading, tokenize_problem};
use crate::fields::CardFields;
use crate::page::JSON;
use crate::payments::FAMILY;
use crate::problem::{Problem, ProblemBody};
use crate::request::{JsonBytes, OptionalCustomerHeaders, customer_or_default};
use crate::state::App;

/// A card that is to be paid with once. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewCardToken, example = json!({
    "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
    "card_expiration_date": "10/25", "card_verification_code": "123"
}))]
#[expect(dead_code, clippy::struct_field_names, reason = "describes the body as it is; `CardFields` reads it")]
pub(crate) struct NewCardTokenSchema {
    /// 12 to 19 digits that pass Luhn. Encrypted until the token is spent or expires, then erased.
    #[schema(min_length = 12, max_length = 19, pattern = "^[0-9]{12,19}$", write_only)]
    card_number: String,
    #[schema(min_length = 1, max_length = 100)]
    card_holder_name: String,
    /// MM/YY or MM/YYYY.
    #[schema(pattern = "^(0[1-9]|1[0-2])/(20)?[0-9]{2}$")]
    card_expiration_date: String,
    /// 3 or 4 digits. Encrypted until the token is spent or expires, then erased.
    #[schema(min_length = 3, max_length = 4, pattern = "^[0-9]{3,4}$", write_only)]
    card_verification_code: String,
}

/// What stands for a card, once.
#[derive(Serialize, ToSchema)]
#[schema(as = CardToken)]
pub(crate) struct CardTokenBody<'c> {
    card_token: Uuid,
    #[schema(example = "1111")]
    card_last_four_numbers: &'c str,
    #[schema(value_type = String, example = "visa")]
    card_brand: CardBrand,
    /// Until when it can be paid with: 15 minutes.
    #[serde(serialize_with = "crate::time::serialize")]
    expires_at: DateTime<Utc>,
}

/// Put a card away, to pay with it once.
///
/// The token stands for the card in `POST /api/v1/payments` of the same customer, so that the card's number passes through fewer
/// systems. Asking again gives another token, with an `Idempotency-Key` or without: each can be paid with once, and none charges
/// anything by itself.
#[utoipa::path(
    post,
    path = "/card_tokens",
    tag = "payments",
    operation_id = "createCardToken",
    params(OptionalCustomerHeaders),
    request_body = NewCardTokenSchema,
    responses(
        (status = 201, description = "Kept", body = CardTokenBody),
        (status = 400, description = "Malformed JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body over 64 KiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Body not JSON by its content type", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid fields or headers, all of them", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let (customer, card) = read(&app, &headers, &body)?;
    let kept = app.ports.tokenize.keep(customer, &card).await.map_err(tokenize_problem)?;
    let body = CardTokenBody {
        card_token: kept.token.0,
        card_last_four_numbers: &kept.summary.last_four,
        card_brand: kept.summary.brand,
        expires_at: kept.expires_at,
    };
    let json = serde_json::to_vec(&body).map_err(|_| Problem::internal())?;
    Ok((StatusCode::CREATED, [(header::CONTENT_TYPE, JSON)], json).into_response())
}

/// Reads a card, or tells every fault of the headers and the body.
fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<(CustomerId, Card), Problem> {
    let mut reading = Reading::begin(app, &FAMILY, headers, customer_or_default(app, headers));
    let card: CardFields<'_> = reading.body(body)?;
    let card = card.required(&mut reading.fields);
    reading.expiry(card.expiry);
    let known = psp_domain::KnownFields {
        card_number: card.number.as_ref(),
        card_holder_name: card.holder_name.as_ref(),
        ..psp_domain::KnownFields::default()
    };
    reading.rules(known.faults());
    reading.number(card.number.as_ref(), None);
    reading.finish_now(|customer| Some((customer, card.complete()?)))
}
