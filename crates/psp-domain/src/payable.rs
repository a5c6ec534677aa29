//! Payables: what the PSP owes a customer for an approved payment, one per instalment.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Money, PayableId, TransactionId};

/// Whether a payable has been paid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayableStatus {
    /// The payment date has not come.
    WaitingFunds,
    /// Paid out: final.
    Paid,
}

impl PayableStatus {
    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WaitingFunds => "waiting_funds",
            Self::Paid => "paid",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::WaitingFunds, Self::Paid].into_iter().find(|s| s.as_str() == name)
    }
}

/// What is owed for one instalment: `receivable + fee` is the instalment's amount. Or what a refund takes back of it: then
/// neither is positive, and together they are what is given back of the instalment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// Its id.
    pub id: PayableId,
    /// The payment it comes from.
    pub transaction_id: TransactionId,
    /// To whom it is owed.
    pub customer_id: CustomerId,
    /// Which instalment: from 1.
    pub installment: u8,
    /// Which refund of the transaction takes back: from 1; 0 where this is what is owed. Unique with the transaction and the
    /// instalment.
    pub refund: u16,
    /// Whether it has been paid.
    pub status: PayableStatus,
    /// When it is due.
    pub payment_date: DateTime<Utc>,
    /// The fee's rate, in percent.
    pub fee_percent: Decimal,
    /// What the PSP keeps.
    pub fee: Money,
    /// What the customer gets.
    pub receivable: Money,
    /// When it came to be.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a customer is owed in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// The receivables of paid payables.
    pub available: Money,
    /// The receivables of payables that wait for their date.
    pub waiting_funds: Money,
}
