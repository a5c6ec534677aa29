//! Reading a payment that is asked for: by any method, with a card, with a card's token, or without either.

use axum::http::HeaderMap;
use psp_domain::{
    CardToken, Currency, Installments, KnownFields, Money, Named, NewTransaction, OrderName, PaymentMethod,
    TransactionKind,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::creation::{Asked, Reading};
use crate::fields::{CardFields, ReadCard, any_method, description, installments, minor_amount, minor_amount_schema};
use crate::payments::FAMILY;
use crate::problem::{Fault, Problem};
use crate::request::{Fields, customer_or_default, no_card_number, parsed};
use crate::state::App;
use crate::transactions::PaymentMethodSchema;

#[derive(Deserialize)]
struct NewPaymentFields<'b> {
    #[serde(borrow)]
    order_id: Option<&'b RawValue>,
    amount: Option<&'b RawValue>,
    currency: Option<&'b RawValue>,
    method: Option<&'b RawValue>,
    description: Option<&'b RawValue>,
    country: Option<&'b RawValue>,
    gateway: Option<&'b RawValue>,
    installments: Option<&'b RawValue>,
    card_token: Option<&'b RawValue>,
    card_number: Option<&'b RawValue>,
    card_holder_name: Option<&'b RawValue>,
    card_expiration_date: Option<&'b RawValue>,
    card_verification_code: Option<&'b RawValue>,
}

/// A payment, as it is asked for. `credit_card` and `debit_card` need a `card_token` or the card's four fields; other methods
/// must have neither. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewPayment, example = json!({ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" }))]
#[expect(dead_code, reason = "describes the body; `NewPaymentFields` reads it")]
pub(crate) struct NewPaymentSchema {
    /// The customer's order: visible ASCII and no card number. Not unique: one order may be paid in several payments.
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    order_id: String,
    #[schema(schema_with = minor_amount_schema)]
    amount: i64,
    /// ISO 4217; the configured one where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "BRL")]
    currency: Option<String>,
    #[schema(value_type = PaymentMethodSchema)]
    method: String,
    /// The customer's words, and no card number; empty where absent.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Where the payer is: ISO 3166-1 alpha-2.
    #[schema(min_length = 2, max_length = 2, pattern = "^[A-Z]{2}$", example = "IN")]
    country: Option<String>,
    /// The gateway to use, and no other.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9_-]*$")]
    gateway: Option<String>,
    /// Above 1 for credit cards only.
    #[schema(minimum = 1, maximum = 12, default = 1)]
    installments: Option<u8>,
    /// A token of `POST /card_tokens`, in place of the card's fields. It is spent with the payment.
    #[schema(format = Uuid, write_only)]
    card_token: Option<String>,
    /// 12 to 19 digits that pass Luhn. Encrypted until authorization ends, then erased.
    #[schema(min_length = 12, max_length = 19, pattern = "^[0-9]{12,19}$", write_only)]
    card_number: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    card_holder_name: Option<String>,
    /// MM/YY or MM/YYYY.
    #[schema(pattern = "^(0[1-9]|1[0-2])/(20)?[0-9]{2}$")]
    card_expiration_date: Option<String>,
    /// 3 or 4 digits. Encrypted until authorization ends, then erased.
    #[schema(min_length = 3, max_length = 4, pattern = "^[0-9]{3,4}$", write_only)]
    card_verification_code: Option<String>,
}

/// Reads a request, or tells every fault of its headers and body.
pub(crate) fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let mut reading = Reading::begin(app, &FAMILY, headers, customer_or_default(app, headers));
    let body: NewPaymentFields<'_> = reading.body(body)?;
    let fields = &mut reading.fields;
    let order_id: Option<OrderName> =
        fields.required("order_id", body.order_id, no_card_number(parsed, OrderName::as_str));
    let amount = fields.required("amount", body.amount, minor_amount);
    let currency = match body.currency {
        Some(_) => fields.optional("currency", body.currency, parsed::<Currency>),
        None => Some(app.options.default_currency),
    };
    let method = fields.required("method", body.method, any_method);
    let description = match body.description {
        Some(_) => fields.optional("description", body.description, description),
        None => Some(String::new()),
    };
    let country = fields.optional("country", body.country, parsed);
    let installments = match body.installments {
        Some(_) => fields.optional("installments", body.installments, installments),
        None => Some(Installments::ONE),
    };
    let token = fields.optional("card_token", body.card_token, card_token);
    let card = card(fields, method, &body);
    let gateway = reading.gateway(body.gateway);
    reading.expiry(card.expiry);
    let known = KnownFields {
        amount: amount.map(|minor| Money::new(minor, currency.unwrap_or(app.options.default_currency))),
        description: description.as_deref(),
        payment_method: method,
        card_number: card.number.as_ref(),
        card_holder_name: card.holder_name.as_ref(),
        installments,
    };
    reading.rules(known.faults());
    reading.number(card.number.as_ref(), order_id.as_ref().map(OrderName::as_str));
    let new = |customer_id| {
        Some(NewTransaction {
            kind: TransactionKind::Payment,
            customer_id,
            description: description?,
            amount: Money::new(amount?, currency?),
            payment_method: method?,
            // Where it is needed and missing, there is a fault.
            card: card.complete(),
            installments: installments?,
            named: Named { order_id: Some(order_id?), country, gateway, ..Named::default() },
            order: None,
        })
    };
    reading.finish(new, token)
}

fn card_token(json: &str) -> Result<CardToken, &'static str> {
    parsed(json).map_err(|_: String| "must be a token that POST /card_tokens gave")
}

/// The card, where the method needs one that no token stands for. Where the method is not known, only what is there is told.
fn card(fields: &mut Fields, method: Option<PaymentMethod>, body: &NewPaymentFields<'_>) -> ReadCard {
    let card = CardFields {
        number: body.card_number,
        holder_name: body.card_holder_name,
        expiration_date: body.card_expiration_date,
        verification_code: body.card_verification_code,
    };
    let needless = "must be absent unless method is credit_card or debit_card";
    match method.map(PaymentMethod::is_card) {
        None => card.optional(fields),
        Some(true) if body.card_token.is_none() => card.required(fields),
        Some(true) => {
            card.refuse(fields, "must be absent where there is a card_token");
            ReadCard::default()
        }
        Some(false) => {
            if body.card_token.is_some() {
                fields.faults.push(Fault::new("card_token", needless));
            }
            card.refuse(fields, needless);
            ReadCard::default()
        }
    }
}
