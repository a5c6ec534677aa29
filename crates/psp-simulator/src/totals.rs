use std::collections::BTreeMap;

use psp_domain::{AttemptReference, TransactionId};
use serde::{Deserialize, Serialize};

/// What was charged, paid out, given back and called back. Sums are in minor units, by ISO 4217 code, and leave out what was
/// voided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How often somebody was charged, also where that was voided later.
    pub charges: u64,
    /// How often somebody was paid out, also where that was voided later.
    pub payouts: u64,
    /// How many of those charges and payouts were voided.
    pub voided: u64,
    /// What is charged; refunds are not taken off.
    pub sums: BTreeMap<String, i64>,
    /// What is paid out.
    pub paid_out: BTreeMap<String, i64>,
    /// What is given back of charges that were not voided.
    pub refunded: BTreeMap<String, i64>,
    /// The callbacks.
    pub callbacks: CallbackTotals,
    /// Each transaction that is charged or paid out, and that not voided.
    pub transactions: BTreeMap<TransactionId, TransactionTotals>,
    /// Each reference that was asked for or voided.
    pub references: BTreeMap<AttemptReference, ReferenceTotals>,
}

/// What became of one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionTotals {
    /// In which currency.
    pub currency: String,
    /// How many charges or payouts stand: more than one took or gave money twice.
    pub charges: u32,
    /// Their sum, in minor units.
    pub charged: i64,
    /// What was given back of it, in minor units.
    pub refunded: i64,
}

/// What became of one reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceTotals {
    /// How often it was asked for.
    pub requests: u32,
    /// How often money moved under it: 0 or 1.
    pub charges: u32,
    /// Whether it was voided.
    pub voided: bool,
}

/// What became of callbacks. One is delivered when it is answered 2xx or 4xx.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackTotals {
    /// Delivered, all in all.
    pub delivered: u64,
    /// Delivered, and named a wrong amount.
    pub wrong_amounts: u64,
    /// Delivered once more.
    pub duplicates: u64,
    /// Never sent on purpose.
    pub forgotten: u64,
    /// Given up after the last try.
    pub undelivered: u64,
}
