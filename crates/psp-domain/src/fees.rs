//! Fee rules and instalments: what an approved payment owes the customer, and when.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Days, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;

use crate::{Money, PayableStatus, PaymentMethod};

/// The fee of one payment method and the time until it is paid out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeRule {
    /// Percent of the amount that the PSP keeps: 0 to 100.
    pub percent: Decimal,
    /// Days from approval to the payment of the first instalment; instalment `k` is due `k` times as late.
    pub days: u16,
    /// The status of a fresh payable.
    pub initial_status: PayableStatus,
}

/// Why a set of fee rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fee rule of {method}: {fault}")]
pub struct InvalidFeeRule {
    method: PaymentMethod,
    fault: &'static str,
}

/// Payment method → fee rule. Every method has a rule; one that names none has [`FeeRules::fallback`].
///
/// ```
/// use psp_domain::{Currency, FeeRules, Money, PaymentMethod};
/// let rules = FeeRules::default();
/// let share = rules.rule(PaymentMethod::CreditCard).split_fee(Money::new(2500, Currency::BRL));
/// assert_eq!((share.receivable.minor(), share.fee.minor()), (2375, 125));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeeRules(BTreeMap<PaymentMethod, FeeRule>);

impl Default for FeeRules {
    /// Credit card 5 %, D+30, waiting; debit card 3 %, D+0, paid at once.
    fn default() -> Self {
        let rule =
            |percent: i64, days, initial_status| FeeRule { percent: Decimal::from(percent), days, initial_status };
        Self(BTreeMap::from([
            (PaymentMethod::CreditCard, rule(5, 30, PayableStatus::WaitingFunds)),
            (PaymentMethod::DebitCard, rule(3, 0, PayableStatus::Paid)),
        ]))
    }
}

impl FeeRules {
    /// The default rules with some of them replaced.
    ///
    /// # Errors
    /// Names the first rule whose percent is outside 0 to 100, has over 4 decimal places, or whose days exceed 366.
    pub fn with(overrides: BTreeMap<PaymentMethod, FeeRule>) -> Result<Self, InvalidFeeRule> {
        let mut rules = Self::default();
        for (method, rule) in overrides {
            let fault = if rule.percent < Decimal::ZERO || rule.percent > Decimal::ONE_HUNDRED {
                Some("percent must be from 0 to 100")
            } else if rule.percent.normalize().scale() > 4 {
                Some("percent may have at most 4 decimal places")
            } else if rule.days > 366 {
                Some("days must be at most 366")
            } else {
                None
            };
            if let Some(fault) = fault {
                return Err(InvalidFeeRule { method, fault });
            }
            rules.0.insert(method, rule);
        }
        Ok(rules)
    }

    /// The rule of a method.
    pub fn rule(&self, method: PaymentMethod) -> FeeRule {
        self.0.get(&method).cloned().unwrap_or_else(Self::fallback)
    }

    /// The rule of a method that has none of its own: 0 %, D+1, waiting.
    pub fn fallback() -> FeeRule {
        FeeRule { percent: Decimal::ZERO, days: 1, initial_status: PayableStatus::WaitingFunds }
    }
}

/// An amount divided between the customer and the PSP. The two parts always add up to the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeSplit {
    /// What the customer gets.
    pub receivable: Money,
    /// What the PSP keeps.
    pub fee: Money,
}

impl FeeRule {
    /// Receivable = ceil(amount × (100 − percent) / 100) in minor units; fee = amount − receivable.
    pub fn split_fee(&self, amount: Money) -> FeeSplit {
        // Exact: an i64 has 19 digits and the rate at most 7, so the product fits the 28 digits of a Decimal.
        let exact = Decimal::from(amount.minor()) * (Decimal::ONE_HUNDRED - self.percent) / Decimal::ONE_HUNDRED;
        let rounded = exact.round_dp_with_strategy(0, RoundingStrategy::ToPositiveInfinity);
        let receivable = i64::try_from(rounded).map_or(amount.minor(), |minor| minor.min(amount.minor()));
        FeeSplit {
            receivable: Money::new(receivable, amount.currency()),
            fee: Money::new(amount.minor() - receivable, amount.currency()),
        }
    }

    /// When instalment `number` (from 1) is paid: `number` × `days` after approval.
    pub fn payment_date(&self, approved_at: DateTime<Utc>, number: u8) -> DateTime<Utc> {
        let days = u64::from(self.days) * u64::from(number);
        approved_at.checked_add_days(Days::new(days)).unwrap_or(approved_at)
    }
}

/// The number of instalments of a payment: 1 to 12.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Installments(u8);

impl Installments {
    /// The most that a payment can be divided into.
    pub const MAX: u8 = 12;
    /// A single payment.
    pub const ONE: Self = Self(1);

    /// That number, where it is 1 to 12.
    pub fn new(number: u8) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The amount of each instalment, in order. The units that do not divide go to the first.
    ///
    /// ```
    /// use psp_domain::{Currency, Installments, Money};
    /// let parts = Installments::new(12).map(|n| n.divide(Money::new(1001, Currency::BRL)));
    /// let minor: Vec<i64> = parts.into_iter().flatten().map(Money::minor).collect();
    /// assert_eq!((minor[0], minor[1], minor.iter().sum::<i64>()), (88, 83, 1001));
    /// ```
    pub fn divide(self, amount: Money) -> impl Iterator<Item = Money> {
        let count = i64::from(self.0);
        let (each, rest) = (amount.minor() / count, amount.minor() % count);
        (0..count).map(move |i| Money::new(if i == 0 { each + rest } else { each }, amount.currency()))
    }
}

impl fmt::Debug for Installments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
