use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use psp_domain::ports::{StoreError, TokenizedCard};
use psp_domain::usecases::{CreateTransaction, IdempotentRequest};
use psp_domain::{Card, CardBrand, CustomerId, IdempotencyKey, IdempotencyRecord, StoredAnswer};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::answers::{JsonBody, Keyed};
use crate::creation::{self, Answered, Reading, in_task, lengths_and, stored, tokenize_problem};
use crate::fields::CardFields;
use crate::idempotency::IdempotencyHeader;
use crate::payments::FAMILY;
use crate::problem::{Fault, Problem};
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
    /// 12 to 19 digits that pass Luhn. Encrypted; erased when the token is spent or, once it has expired, by an hourly job.
    #[schema(min_length = 12, max_length = 19, pattern = "^[0-9]{12,19}$", write_only)]
    card_number: String,
    #[schema(min_length = 1, max_length = 100)]
    card_holder_name: String,
    /// MM/YY or MM/YYYY.
    #[schema(pattern = "^(0[1-9]|1[0-2])/(20)?[0-9]{2}$")]
    card_expiration_date: String,
    /// 3 or 4 digits. Encrypted; erased when the token is spent or, once it has expired, by an hourly job.
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
/// systems. Asking again gives another token, unless the `Idempotency-Key` is the same: then it gives the first one, though it
/// was spent or has expired since.
#[utoipa::path(
    post,
    path = "/card_tokens",
    tag = "payments",
    operation_id = "createCardToken",
    params(OptionalCustomerHeaders, IdempotencyHeader),
    request_body = NewCardTokenSchema,
    responses(
        (status = 201, description = "Kept", body = CardTokenBody),
        JsonBody, Keyed,
    )
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let asked = read(&app, &headers, &body)?;
    if let Some(key) = asked.key.clone() {
        return keep_once(&app, asked, key).await?.into_json();
    }
    asked.refuse_faults()?;
    let kept = app.ports.tokenize.keep(asked.customer, &asked.card).await.map_err(tokenize_problem)?;
    Answered { answer: answer(&kept), is_replayed: false }.into_json()
}

/// A card that has no faults of its own.
struct Asked {
    customer: CustomerId,
    card: Card,
    key: Option<IdempotencyKey>,
    /// Faults that depend on more than the request: a repetition gets its first answer in spite of them.
    passing: Vec<Fault>,
}

impl Asked {
    fn refuse_faults(&self) -> Result<(), Problem> {
        if self.passing.is_empty() { Ok(()) } else { Err(Problem::invalid(self.passing.clone())) }
    }

    /// A form of the request that equal requests share and different ones do not.
    fn canonical(&self) -> Zeroizing<Vec<u8>> {
        let card = &self.card;
        lengths_and(&[
            b"POST /card_tokens",
            card.number.expose().as_bytes(),
            card.holder_name.as_str().as_bytes(),
            &card.expiry.first_day().timestamp().to_be_bytes(),
            card.verification_code.expose().as_bytes(),
        ])
    }
}

/// Reads a card, or tells every fault of the headers and the body.
fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
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
    let ((customer, card), key, passing) = reading.end(|customer| Some((customer, card.complete()?)))?;
    Ok(Asked { customer, card, key, passing })
}

/// Keeps the card in a task of its own, and the answer with its key.
async fn keep_once(app: &App, asked: Asked, key: IdempotencyKey) -> Result<Answered, Problem> {
    let flight = app.keys_in_flight.begin_key(&asked.customer, &key)?;
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(&asked.canonical()).await?, key };
    let expires_at = app.options.clock.now() + CreateTransaction::KEY_LIFETIME;
    let (create, tokenize) = (Arc::clone(&app.ports.create), Arc::clone(&app.ports.tokenize));
    in_task(flight, async move {
        let replay = async || create.replay(&asked.customer, &request).await.map_err(creation::problem(&FAMILY));
        if let Some(outcome) = replay().await? {
            return creation::answered(outcome);
        }
        asked.refuse_faults()?;
        let record = |kept: &TokenizedCard| IdempotencyRecord {
            customer_id: kept.customer_id.clone(),
            key: request.key.clone(),
            fingerprint: request.fingerprint,
            answer: answer(kept),
            expires_at,
        };
        let kept = tokenize.keep_once(asked.customer.clone(), &asked.card, record).await.map_err(tokenize_problem)?;
        if let Some(kept) = kept {
            return Ok(Answered { answer: answer(&kept), is_replayed: false });
        }
        // Another process was first. Its record may expire before this read: the client may simply ask again.
        creation::answered(replay().await?.ok_or(StoreError::Overloaded)?)
    })
    .await
}

fn answer(kept: &TokenizedCard) -> StoredAnswer {
    let body = CardTokenBody {
        card_token: kept.token.0,
        card_last_four_numbers: &kept.summary.last_four,
        card_brand: kept.summary.brand,
        expires_at: kept.expires_at,
    };
    stored(StatusCode::CREATED, &body)
}
