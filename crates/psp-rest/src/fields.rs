//! Fields that several bodies share: how each is read, and what is wrong with it.

use psp_domain::{
    Card, CardExpiry, CardHolderName, CardNumber, CardVerificationCode, Currency, Installments, InvalidTransaction,
    Money, MoneyError, PaymentMethod, Transaction,
};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};

use crate::problem::Fault;
use crate::request::{Fields, no_card_number, parsed, text};

/// The schema of [`minor_amount`].
pub(crate) fn minor_amount_schema() -> OneOfBuilder {
    let integer =
        ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    let integer = integer.minimum(Some(1)).maximum(Some(Money::MAX_MINOR));
    let digits = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^0*[1-9][0-9]*$"));
    OneOfBuilder::new()
        .item(integer)
        .item(digits)
        .description(Some("Minor units, as an integer or a string of digits."))
}

/// The schema of [`MajorAmount`].
pub(crate) fn major_amount_schema() -> OneOfBuilder {
    let digits = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]+(\\.[0-9]+)?$"));
    let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
    OneOfBuilder::new().item(digits).item(number).description(Some(
        "Major units, as a string or a number in plain decimals; no more of them than the currency has.",
    ))
}

/// Integer or digits; minor units.
pub(crate) fn minor_amount(json: &str) -> Result<i64, String> {
    let digits = unquoted(json);
    let minor = if is_digits(digits) { digits.parse().ok() } else { None };
    minor
        .filter(|minor| (1..=Money::MAX_MINOR).contains(minor))
        .ok_or_else(|| format!("must be an integer or a string of digits, from 1 to {}", Money::MAX_MINOR))
}

/// A decimal number of major units as it is written: never a float, and no decimal is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MajorAmount {
    pub(crate) major: Decimal,
    /// Decimal places, zeros at the end among them.
    places: usize,
}

impl MajorAmount {
    /// The most digits: more than any amount has, and as many as a decimal keeps.
    const MAX_DIGITS: usize = 28;

    /// Reads a JSON number or a string, in plain decimals.
    pub(crate) fn read(json: &str) -> Result<Self, &'static str> {
        let wrong = "must be a decimal number of major units, such as \"100.50\", without sign or exponent";
        let plain = unquoted(json);
        let (whole, decimals) = plain.split_once('.').unwrap_or((plain, "0"));
        if !is_digits(whole) || !is_digits(decimals) || plain.len() > Self::MAX_DIGITS {
            return Err(wrong);
        }
        let places = plain.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        Decimal::from_str_exact(plain).map(|major| Self { major, places }).map_err(|_| wrong)
    }

    /// Tells what is wrong with it whatever the currency.
    pub(crate) fn of_any_currency(self) -> Result<(), String> {
        if self.major.is_zero() || self.major > Decimal::from(Money::MAX_MINOR) {
            return Err(format!("must be positive and at most {} minor units", Money::MAX_MINOR));
        }
        Ok(())
    }

    /// The money that it stands for.
    pub(crate) fn money(self, currency: Currency) -> Result<Money, String> {
        if self.places > currency.exponent() as usize {
            return Err(MoneyError::TooManyDecimals.to_string());
        }
        self.of_any_currency()?;
        let money = Money::from_major(self.major, currency).map_err(|error| error.to_string())?;
        if (1..=Money::MAX_MINOR).contains(&money.minor()) {
            Ok(money)
        } else {
            Err(format!("must be positive and at most {} minor units", Money::MAX_MINOR))
        }
    }
}

/// A decimal as a JSON number, without zeros at its end: no float comes near it.
pub(crate) fn number(decimal: Decimal) -> Option<Box<RawValue>> {
    RawValue::from_string(decimal.normalize().to_string()).ok()
}

fn unquoted(json: &str) -> &str {
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A name that may be written as an integer, too: as its digits.
pub(crate) fn name_or_integer<T: std::str::FromStr<Err: std::fmt::Display>>(json: &str) -> Result<T, String> {
    let read = if is_digits(json) { json.parse().map_err(|error: T::Err| error.to_string()) } else { parsed(json) };
    read.map_err(
        |message| if message == "must be a string" { "must be a string or an integer".into() } else { message },
    )
}

pub(crate) fn description(json: &str) -> Result<String, String> {
    let description = text(json)?;
    if !Transaction::is_description(&description) {
        return Err(InvalidTransaction::Description.to_string());
    }
    no_card_number(|_| Ok(description.to_string()), String::as_str)(json)
}

/// The methods that are paid with a card.
pub(crate) fn card_method(json: &str) -> Result<PaymentMethod, String> {
    method_where(json, PaymentMethod::is_card)
}

/// The methods that are paid without one.
pub(crate) fn cardless_method(json: &str) -> Result<PaymentMethod, String> {
    method_where(json, |method| !method.is_card())
}

/// Any method.
pub(crate) fn any_method(json: &str) -> Result<PaymentMethod, String> {
    method_where(json, |_| true)
}

fn method_where(json: &str, fits: impl Fn(PaymentMethod) -> bool) -> Result<PaymentMethod, String> {
    let name: Option<String> = serde_json::from_str(json).ok();
    let method = name.and_then(|name| PaymentMethod::from_name(&name)).filter(|method| fits(*method));
    method.ok_or_else(|| {
        let names: Vec<_> = PaymentMethod::ALL.into_iter().filter(|m| fits(*m)).map(PaymentMethod::as_str).collect();
        let (last, others) = names.split_last().unwrap_or((&"", &[]));
        format!("must be {} or {last}", others.join(", "))
    })
}

pub(crate) fn installments(json: &str) -> Result<Installments, String> {
    let number = serde_json::from_str(json).ok().and_then(Installments::new);
    number.ok_or_else(|| format!("must be an integer from 1 to {}", Installments::MAX))
}

/// A card's fields as they came.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct CardFields<'b> {
    #[serde(borrow, rename = "card_number")]
    pub(crate) number: Option<&'b RawValue>,
    #[serde(rename = "card_holder_name")]
    pub(crate) holder_name: Option<&'b RawValue>,
    #[serde(rename = "card_expiration_date")]
    pub(crate) expiration_date: Option<&'b RawValue>,
    #[serde(rename = "card_verification_code")]
    pub(crate) verification_code: Option<&'b RawValue>,
}

/// A card as far as it could be read.
#[derive(Default)]
pub(crate) struct ReadCard {
    pub(crate) number: Option<CardNumber>,
    pub(crate) holder_name: Option<CardHolderName>,
    pub(crate) expiry: Option<CardExpiry>,
    pub(crate) verification_code: Option<CardVerificationCode>,
}

impl<'b> CardFields<'b> {
    /// Each field with its name.
    fn named(&self) -> [(&'static str, Option<&'b RawValue>); 4] {
        [
            ("card_number", self.number),
            ("card_holder_name", self.holder_name),
            ("card_expiration_date", self.expiration_date),
            ("card_verification_code", self.verification_code),
        ]
    }

    /// Reads what is there, and tells what is wrong or missing.
    pub(crate) fn required(&self, fields: &mut Fields) -> ReadCard {
        for (path, value) in self.named() {
            if value.is_none() {
                fields.faults.push(Fault::new(path, "is required"));
            }
        }
        self.optional(fields)
    }

    /// Reads what is there, and tells what is wrong with it.
    pub(crate) fn optional(&self, fields: &mut Fields) -> ReadCard {
        let [number, holder_name, expiration_date, verification_code] = self.named();
        ReadCard {
            number: fields.optional(number.0, number.1, parsed),
            holder_name: fields.optional(holder_name.0, holder_name.1, parsed),
            expiry: fields.optional(expiration_date.0, expiration_date.1, parsed),
            verification_code: fields.optional(verification_code.0, verification_code.1, parsed),
        }
    }

    /// Tells every field that is there, where there must be none.
    pub(crate) fn refuse(&self, fields: &mut Fields, message: &'static str) {
        let given = self.named().into_iter().filter(|(_, value)| value.is_some());
        fields.faults.extend(given.map(|(path, _)| Fault::new(path, message)));
    }
}

impl ReadCard {
    /// The card, where all of it could be read.
    pub(crate) fn complete(self) -> Option<Card> {
        Some(Card {
            number: self.number?,
            holder_name: self.holder_name?,
            expiry: self.expiry?,
            verification_code: self.verification_code?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_units_are_read_to_the_digit() {
        let dollar: Currency = "USD".parse().expect("dollar");
        let yen: Currency = "JPY".parse().expect("yen");
        let read = |json: &str, currency| MajorAmount::read(json).ok().and_then(|amount| amount.money(currency).ok());
        for (json, minor) in [
            ("\"100.50\"", 10_050),
            ("100.50", 10_050),
            ("100.5", 10_050),
            ("100", 10_000),
            ("0.01", 1),
            ("\"007.10\"", 710),
            ("9999999999.99", 999_999_999_999),
            ("10000000000", Money::MAX_MINOR),
            // As a float it would be 10000000000.000000.
            ("9007199254.74", 900_719_925_474),
        ] {
            assert_eq!(read(json, dollar).map(Money::minor), Some(minor), "{json}");
        }
        for json in [
            "100.505",
            "100.500",
            "0",
            "0.00",
            "-1",
            "1e2",
            "1E2",
            "\"1e2\"",
            "\"+1\"",
            "\" 1\"",
            "\"1,5\"",
            "\"\"",
            "\".5\"",
            "\"1.\"",
            "\"1.2.3\"",
            "\"１\"",
            "true",
            "{}",
            "[1]",
            "10000000000.01",
            "99999999999999999999999999999999999",
            "\"0.0000000000000000000000000000000000001\"",
            "\"NaN\"",
            "\"\\u0031\"",
        ] {
            assert_eq!(read(json, dollar), None, "{json}");
        }
        assert_eq!(read("100", yen).map(Money::minor), Some(100));
        assert_eq!(read("100.0", yen), None);
    }
}
