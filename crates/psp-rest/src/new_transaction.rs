//! Reading a transaction that is asked for: the body field by field, so that every fault is found.

use axum::http::HeaderMap;
use psp_domain::{Currency, Installments, KnownFields, Money, Named, NewTransaction, TransactionKind};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::creation::{Asked, Reading};
use crate::fields::{CardFields, card_method, description, installments, minor_amount, minor_amount_schema};
use crate::problem::Problem;
use crate::request::{customer, parsed};
use crate::state::App;
use crate::transactions::FAMILY;

#[derive(ToSchema)]
#[schema(as = CardPaymentMethod, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's payment methods with a card")]
pub(crate) enum CardPaymentMethodSchema {
    CreditCard,
    DebitCard,
}

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
    country: Option<&'b RawValue>,
    gateway: Option<&'b RawValue>,
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
    #[schema(schema_with = minor_amount_schema)]
    amount: i64,
    /// ISO 4217; the configured one where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "BRL")]
    currency: Option<String>,
    #[schema(value_type = CardPaymentMethodSchema)]
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
    /// Where the payer is: ISO 3166-1 alpha-2.
    #[schema(min_length = 2, max_length = 2, pattern = "^[A-Z]{2}$", example = "BR")]
    country: Option<String>,
    /// The gateway to use, and no other.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9_-]*$")]
    gateway: Option<String>,
}

/// Reads a request, or tells every fault of its headers and body.
pub(crate) fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let mut reading = Reading::begin(app, &FAMILY, headers, customer(headers));
    let body: NewTransactionFields<'_> = reading.body(body)?;
    let fields = &mut reading.fields;
    let description = fields.required("description", body.description, description);
    let amount = fields.required("amount", body.amount, minor_amount);
    let currency = match body.currency {
        Some(_) => fields.optional("currency", body.currency, parsed::<Currency>),
        None => Some(app.options.default_currency),
    };
    let payment_method = fields.required("payment_method", body.payment_method, card_method);
    let card = CardFields {
        number: body.card_number,
        holder_name: body.card_holder_name,
        expiration_date: body.card_expiration_date,
        verification_code: body.card_verification_code,
    };
    let card = card.required(fields);
    let installments = match body.installments {
        Some(_) => fields.optional("installments", body.installments, installments),
        None => Some(Installments::ONE),
    };
    let country = fields.optional("country", body.country, parsed);
    let gateway = reading.gateway(body.gateway);
    reading.expiry(card.expiry);
    let known = KnownFields {
        // Rules across fields do not depend on the currency, so an unknown one hides nothing.
        amount: amount.map(|minor| Money::new(minor, currency.unwrap_or(app.options.default_currency))),
        description: description.as_deref(),
        payment_method,
        card_number: card.number.as_ref(),
        card_holder_name: card.holder_name.as_ref(),
        installments,
    };
    reading.rules(known.faults());
    reading.number(card.number.as_ref(), None);
    let new = |customer_id| {
        Some(NewTransaction {
            kind: TransactionKind::Payment,
            customer_id,
            description: description?,
            amount: Money::new(amount?, currency?),
            payment_method: payment_method?,
            card: Some(card.complete()?),
            installments: installments?,
            named: Named { country, gateway, ..Named::default() },
            order: None,
        })
    };
    reading.finish(new, None)
}
