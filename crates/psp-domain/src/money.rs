//! Money in integer minor units.
//!
//! No floating point anywhere: amounts are `i64` minor units of an ISO 4217 currency, rates are [`Decimal`].

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An ISO 4217 currency that is in circulation and has minor units.
///
/// ```
/// use psp_domain::Currency;
/// let yen: Currency = "JPY".parse()?;
/// assert_eq!((yen.code(), yen.exponent()), ("JPY", 0));
/// assert!("XAU".parse::<Currency>().is_err(), "gold has no minor unit");
/// # Ok::<(), psp_domain::MoneyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

/// Codes that ISO 4217 has withdrawn and that `iso_currency` still lists.
const WITHDRAWN: [&str; 6] = ["ANG", "BGN", "CUC", "HRK", "SLL", "ZWL"];

impl Currency {
    /// The Brazilian real, the default currency of the product.
    pub const BRL: Self = Self(iso_currency::Currency::BRL);

    /// The three-letter ISO 4217 code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// The number of decimal places of the minor unit (2 for BRL, 0 for JPY, 3 for KWD).
    pub fn exponent(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        iso_currency::Currency::from_code(code)
            .filter(|c| c.exponent().is_some() && !c.is_fund() && !WITHDRAWN.contains(&c.code()))
            .map(Self)
            .ok_or(MoneyError::UnknownCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

/// What can be wrong with an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// The result does not fit, or exceeds [`Money::MAX_MINOR`].
    #[error("the amount is out of range")]
    OutOfRange,
    /// Two currencies met in one operation.
    #[error("the currencies differ")]
    CurrencyMismatch,
    /// The code is not an ISO 4217 currency with minor units.
    #[error("must be an ISO 4217 currency code in use, such as BRL")]
    UnknownCurrency,
    /// More decimal places than the currency has.
    #[error("has more decimal places than the currency")]
    TooManyDecimals,
}

/// An amount: minor units and their currency.
///
/// ```
/// use psp_domain::{Currency, Money};
/// let price = Money::new(2500, Currency::BRL);
/// assert_eq!(price.checked_add(Money::new(1, Currency::BRL))?.minor(), 2501);
/// assert_eq!(price.to_string(), "25.00 BRL");
/// # Ok::<(), psp_domain::MoneyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// The largest amount of one transaction, in minor units: 10^12, exact in every JSON reader (below 2^53).
    pub const MAX_MINOR: i64 = 1_000_000_000_000;

    /// An amount of `minor` units.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The amount that a decimal number of major units stands for.
    ///
    /// # Errors
    /// [`MoneyError::TooManyDecimals`] where the currency has fewer decimals, [`MoneyError::OutOfRange`] beyond `i64`.
    pub fn from_major(major: Decimal, currency: Currency) -> Result<Self, MoneyError> {
        let scale = Decimal::from(10_u64.pow(currency.exponent()));
        let minor = major.checked_mul(scale).ok_or(MoneyError::OutOfRange)?;
        if !minor.fract().is_zero() {
            return Err(MoneyError::TooManyDecimals);
        }
        i64::try_from(minor.trunc()).map(|minor| Self::new(minor, currency)).map_err(|_| MoneyError::OutOfRange)
    }

    /// The amount in major units.
    pub fn to_major(self) -> Decimal {
        Decimal::new(self.minor, self.currency.exponent())
    }

    /// Minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The sum.
    ///
    /// # Errors
    /// When the currencies differ or the sum does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    /// The difference.
    ///
    /// # Errors
    /// When the currencies differ or the difference does not fit.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    fn combine(self, other: Self, op: fn(i64, i64) -> Option<i64>) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        op(self.minor, other.minor).map(|minor| Self::new(minor, self.currency)).ok_or(MoneyError::OutOfRange)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.to_major(), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_units_with_more_decimals_than_the_currency_are_refused() {
        let decimal = |s: &str| Decimal::from_str_exact(s).expect("a decimal");
        assert_eq!(Money::from_major(decimal("100.50"), Currency::BRL).map(Money::minor), Ok(10_050));
        assert_eq!(Money::from_major(decimal("0.001"), Currency::BRL), Err(MoneyError::TooManyDecimals));
        let yen: Currency = "JPY".parse().expect("yen");
        assert_eq!(Money::from_major(decimal("1.5"), yen), Err(MoneyError::TooManyDecimals));
        assert_eq!(Money::from_major(Decimal::MAX, Currency::BRL), Err(MoneyError::OutOfRange));
    }

    #[test]
    fn arithmetic_refuses_overflow_and_mixed_currencies() {
        let max = Money::new(i64::MAX, Currency::BRL);
        assert_eq!(max.checked_add(Money::new(1, Currency::BRL)), Err(MoneyError::OutOfRange));
        let dollar = Money::new(1, "USD".parse().expect("dollar"));
        assert_eq!(max.checked_sub(dollar), Err(MoneyError::CurrencyMismatch));
    }

    #[test]
    fn withdrawn_funds_metals_and_lowercase_codes_are_refused() {
        for code in ["HRK", "BGN", "XAU", "XXX", "brl", "", "BRLX", "CLF"] {
            assert!(code.parse::<Currency>().is_err(), "{code}");
        }
    }
}
