//! Reading a transaction that is asked for: the body field by field, so that every fault is found.

use axum::http::HeaderMap;
use psp_domain::{
    Card, CardExpiry, CardHolderName, CardNumber, Currency, IdempotencyKey, Installments, InvalidTransaction,
    KnownFields, Money, NewTransaction, PaymentMethod, Transaction,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use zeroize::Zeroizing;

use crate::idempotency;
use crate::problem::{Fault, Problem};
use crate::request::{Fields, customer, object, parsed, text};
use crate::state::App;
use crate::transactions::PaymentMethodSchema;

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
    #[schema(schema_with = amount_schema)]
    amount: i64,
    /// ISO 4217; the configured one where absent.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "BRL")]
    currency: Option<String>,
    #[schema(value_type = PaymentMethodSchema)]
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
}

/// An integer or a string of digits.
fn amount_schema() -> OneOfBuilder {
    let integer =
        ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    let integer = integer.minimum(Some(1)).maximum(Some(Money::MAX_MINOR));
    let digits = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^0*[1-9][0-9]*$"));
    OneOfBuilder::new()
        .item(integer)
        .item(digits)
        .description(Some("Minor units, as an integer or a string of digits."))
}

/// The fault of a rule across fields, at the field that is to be changed.
pub(crate) fn fault(invalid: InvalidTransaction) -> Fault {
    let path = match invalid {
        InvalidTransaction::Description => "description",
        InvalidTransaction::InstallmentsNeedCredit => "installments",
        InvalidTransaction::CardNumberInText => "card_number",
        _ => "amount",
    };
    Fault::new(path, invalid.to_string())
}

/// Reads a request, or tells every fault of its headers and body.
pub(crate) fn read(
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(NewTransaction, Option<IdempotencyKey>), Problem> {
    let mut fields = Fields::default();
    let customer = customer(headers).map_err(|fault| fields.faults.push(fault)).ok();
    let key = idempotency::key(headers).map_err(|fault| fields.faults.push(fault)).ok();
    let body: NewTransactionFields<'_> = match object(body) {
        Ok(body) => body,
        Err(mut problem) => {
            problem.errors.append(&mut fields.faults);
            return Err(problem);
        }
    };
    let description = fields.required("description", body.description, description);
    let amount = fields.required("amount", body.amount, amount);
    let currency = match body.currency {
        Some(_) => fields.optional("currency", body.currency, parsed::<Currency>),
        None => Some(app.options.default_currency),
    };
    let payment_method = fields.required("payment_method", body.payment_method, payment_method);
    let number: Option<CardNumber> = fields.required("card_number", body.card_number, parsed);
    let holder_name: Option<CardHolderName> = fields.required("card_holder_name", body.card_holder_name, parsed);
    let expiry = fields.required("card_expiration_date", body.card_expiration_date, |json| expiry(app, json));
    let verification_code = fields.required("card_verification_code", body.card_verification_code, parsed);
    let installments = match body.installments {
        Some(_) => fields.optional("installments", body.installments, installments),
        None => Some(Installments::ONE),
    };
    let known = KnownFields {
        // Rules across fields do not depend on the currency, so an unknown one hides nothing.
        amount: amount.map(|minor| Money::new(minor, currency.unwrap_or(app.options.default_currency))),
        description: description.as_deref(),
        payment_method,
        card_number: number.as_ref(),
        card_holder_name: holder_name.as_ref(),
        installments,
    };
    fields.faults.extend(known.faults().into_iter().map(fault));
    let texts = [
        ("x-customer-id", customer.as_ref().map(psp_domain::CustomerId::as_str)),
        ("idempotency-key", key.as_ref().and_then(Option::as_ref).map(IdempotencyKey::as_str)),
    ];
    for (header, text) in texts {
        if number.as_ref().zip(text).is_some_and(|(number, text)| number.appears_in(text)) {
            fields.faults.push(Fault::new(header, "must not hold the card number"));
        }
    }
    let new = (|| {
        Some(NewTransaction {
            customer_id: customer?,
            description: description?,
            amount: Money::new(amount?, currency?),
            payment_method: payment_method?,
            card: Card {
                number: number?,
                holder_name: holder_name?,
                expiry: expiry?,
                verification_code: verification_code?,
            },
            installments: installments?,
        })
    })();
    match (new, key) {
        (Some(new), Some(key)) if fields.faults.is_empty() => Ok((new, key)),
        _ => Err(Problem::invalid(fields.faults)),
    }
}

fn description(json: &str) -> Result<String, String> {
    let description = text(json)?;
    if !Transaction::is_description(&description) {
        return Err(InvalidTransaction::Description.to_string());
    }
    Ok(description.to_string())
}

fn amount(json: &str) -> Result<i64, String> {
    let quoted = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    let digits = quoted.unwrap_or(json);
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let minor = if all_digits { digits.parse().ok() } else { None };
    minor
        .filter(|minor| (1..=Money::MAX_MINOR).contains(minor))
        .ok_or_else(|| format!("must be an integer or a string of digits, from 1 to {}", Money::MAX_MINOR))
}

fn payment_method(json: &str) -> Result<PaymentMethod, &'static str> {
    let name: Option<String> = serde_json::from_str(json).ok();
    name.and_then(|name| PaymentMethod::from_name(&name)).ok_or("must be credit_card or debit_card")
}

fn expiry(app: &App, json: &str) -> Result<CardExpiry, String> {
    let expiry: CardExpiry = parsed(json)?;
    if app.options.refuse_expired_cards && expiry.is_past(app.options.clock.now()) {
        return Err("has passed".into());
    }
    Ok(expiry)
}

fn installments(json: &str) -> Result<Installments, String> {
    let number = serde_json::from_str(json).ok().and_then(Installments::new);
    number.ok_or_else(|| format!("must be an integer from 1 to {}", Installments::MAX))
}

/// A form of the request that equal requests share and different ones do not: every field with its length before it.
pub(crate) fn canonical(new: &NewTransaction) -> Zeroizing<Vec<u8>> {
    let (amount, parts) = (new.amount.minor().to_be_bytes(), [new.installments.get()]);
    let expiry = new.card.expiry.first_day().timestamp().to_be_bytes();
    let fields: [&[u8]; 10] = [
        b"POST /transactions",
        new.description.as_bytes(),
        &amount,
        new.amount.currency().code().as_bytes(),
        new.payment_method.as_str().as_bytes(),
        new.card.number.expose().as_bytes(),
        new.card.holder_name.as_str().as_bytes(),
        &expiry,
        new.card.verification_code.expose().as_bytes(),
        &parts,
    ];
    let length = fields.iter().map(|field| field.len() + 8).sum();
    let mut canonical = Zeroizing::new(Vec::with_capacity(length));
    for field in fields {
        canonical.extend_from_slice(&(field.len() as u64).to_be_bytes());
        canonical.extend_from_slice(field);
    }
    canonical
}
