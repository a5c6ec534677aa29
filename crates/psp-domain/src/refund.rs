//! Refunds: what of an approved payment is given back, and what that takes back of its payables.
//!
//! ```text
//! pending ── the gateway gave it back ──▶ succeeded
//!    └── the gateway refused ──▶ failed
//! ```

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ports::IdGenerator;
use crate::{
    Currency, CustomerId, Event, EventKind, FeeRule, FeeRules, IllegalTransition, MessageId, Money, Payable, PayableId,
    PayableStatus, RefundId, Transaction, TransactionId, TransactionKind, TransactionStatus, Transition, Transitioned,
};

/// How far a refund is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefundStatus {
    /// The gateway is asked for it.
    Pending,
    /// The gateway gave it back: final.
    Succeeded,
    /// The gateway refused: final. Another one may be asked for.
    Failed,
}

impl RefundStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Succeeded, Self::Failed];

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// One refund of a transaction, in part or whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Its id, under which the gateway gives back at most once.
    pub id: RefundId,
    /// Of which transaction.
    pub transaction_id: TransactionId,
    /// The how-manieth of it: from 1.
    pub number: u16,
    /// Whose.
    pub customer_id: CustomerId,
    /// How much.
    pub amount: Money,
    /// How far it is.
    pub status: RefundStatus,
    /// Why the gateway refused.
    pub reason: Option<String>,
    /// The gateway's own reference, once it gave one.
    pub gateway_reference: Option<String>,
    /// While it is pending: when the gateway is asked again at the latest.
    pub check_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Refund {
    /// The most refunds of one transaction.
    pub const MAX_PER_TRANSACTION: u16 = 100;
}

/// What of a transaction's amount was asked back, and given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundTotals {
    /// How many refunds there are, failed ones among them.
    pub count: u16,
    /// The sum of the pending ones.
    pub pending: Money,
    /// The sum of those that succeeded.
    pub done: Money,
}

impl RefundTotals {
    /// Nothing.
    pub const fn none(currency: Currency) -> Self {
        Self { count: 0, pending: Money::new(0, currency), done: Money::new(0, currency) }
    }
}

/// Who bears the fee of what is refunded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundFeePolicy {
    /// The PSP keeps its fee: the customer gives back the refunded amount in full.
    #[default]
    Kept,
    /// The PSP returns its fee: afterwards each instalment owes what it would if it had been that much smaller.
    Returned,
}

/// Why a refund is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefundRefused {
    /// Only payments are given back.
    #[error("a {0} cannot be refunded")]
    Kind(TransactionKind),
    /// It is not approved, or all of it was given back.
    #[error("the transaction is {}", .0.as_str())]
    Status(TransactionStatus),
    /// The amount is not positive.
    #[error("amount must be positive")]
    Amount,
    /// Less than that is left to give back: the amount in minor units.
    #[error("at most {} is left to refund", .0.minor())]
    Exceeds(Money),
    /// There were as many refunds of it as there may be.
    #[error("a transaction has at most {} refunds", Refund::MAX_PER_TRANSACTION)]
    TooMany,
}

impl Transaction {
    /// What is left of the amount when every refund that is pending succeeds.
    pub fn refundable(&self) -> Money {
        let minor = self.amount.minor() - self.refunds.pending.minor() - self.refunds.done.minor();
        Money::new(minor, self.amount.currency())
    }

    /// → `pending_refund`, with a new pending refund of that amount, or of all that is left.
    ///
    /// # Errors
    /// [`RefundRefused`].
    pub fn ask_refund(
        self,
        amount: Option<Money>,
        check_at: DateTime<Utc>,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transitioned, RefundRefused> {
        if self.kind != TransactionKind::Payment {
            return Err(RefundRefused::Kind(self.kind));
        }
        if !self.status.is_approved() || self.status == TransactionStatus::Refunded {
            return Err(RefundRefused::Status(self.status));
        }
        let left = self.refundable();
        let amount = amount.unwrap_or(left);
        if left.minor() == 0 || amount.currency() != left.currency() || amount.minor() > left.minor() {
            return Err(RefundRefused::Exceeds(left));
        }
        if amount.minor() <= 0 {
            return Err(RefundRefused::Amount);
        }
        if self.refunds.count >= Refund::MAX_PER_TRANSACTION {
            return Err(RefundRefused::TooMany);
        }
        let refund = Refund {
            id: RefundId(ids.next_id()),
            transaction_id: self.id,
            number: self.refunds.count + 1,
            customer_id: self.customer_id.clone(),
            amount,
            status: RefundStatus::Pending,
            reason: None,
            gateway_reference: None,
            check_at: Some(check_at),
            created_at: now,
            updated_at: now,
        };
        let mut next = self.write(|t| {
            t.refunds.count += 1;
            t.refunds.pending = add(t.refunds.pending, amount.minor());
        });
        let kind = EventKind::TransactionRefundRequested;
        next = next.then_of(Some(&refund), TransactionStatus::PendingRefund, kind, now, ids);
        next.refunds.push(refund);
        Ok(next)
    }

    /// The gateway gave a pending refund back. `payables` are all of the transaction's, read after the transaction. What it
    /// takes back of them is due when they are: at once, and `paid`, where they are paid already. From the last instalment on
    /// to the first, so that what has not been paid out goes before what has.
    ///
    /// → `refunded` when all was given back; otherwise `pending_refund` while another refund is pending, and then
    /// `pending_payment` or `paid`, as its payables are.
    ///
    /// # Errors
    /// When nothing is pending, or this refund has failed.
    pub fn complete_refund(
        self,
        refund: Refund,
        payables: &[Payable],
        policy: RefundFeePolicy,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        if self.has_ended(&refund, RefundStatus::Succeeded)? {
            return Ok(Transition::AlreadyApplied);
        }
        let taken = taken_back(&refund, payables, policy, now, ids);
        let kind = if self.refunds.done.minor() + refund.amount.minor() == self.amount.minor() {
            EventKind::TransactionRefunded
        } else {
            EventKind::TransactionPartiallyRefunded
        };
        let refund = Refund { status: RefundStatus::Succeeded, ..refund };
        let waits = payables.iter().chain(&taken).any(|payable| payable.status == PayableStatus::WaitingFunds);
        let mut next = self.end_refund(refund, kind, waits, now, ids)?;
        if let Transition::Executed(next) = &mut next {
            let paid = taken.iter().filter(|payable| payable.status == PayableStatus::Paid);
            next.events.extend(paid.map(|payable| Event::of_payable_paid(MessageId(ids.next_id()), payable)));
            next.payables = taken;
        }
        Ok(next)
    }

    /// The gateway refused a pending refund: what was paid stays paid.
    ///
    /// # Errors
    /// When nothing is pending, or this refund has succeeded.
    pub fn fail_refund(
        self,
        refund: Refund,
        reason: &str,
        payables: &[Payable],
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        if self.has_ended(&refund, RefundStatus::Failed)? {
            return Ok(Transition::AlreadyApplied);
        }
        let waits = payables.iter().any(|payable| payable.status == PayableStatus::WaitingFunds);
        let refund = Refund { status: RefundStatus::Failed, reason: Some(reason.to_owned()), ..refund };
        self.end_refund(refund, EventKind::TransactionRefundFailed, waits, now, ids)
    }

    /// Whether a refund has that end already.
    fn has_ended(&self, refund: &Refund, end: RefundStatus) -> Result<bool, IllegalTransition> {
        match refund.status {
            RefundStatus::Pending => Ok(false),
            status if status == end => Ok(true),
            _ => Err(self.illegal(TransactionStatus::Refunded)),
        }
    }

    fn end_refund(
        self,
        mut refund: Refund,
        kind: EventKind,
        waits: bool,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        if self.status != TransactionStatus::PendingRefund {
            return Err(self.illegal(TransactionStatus::Refunded));
        }
        (refund.check_at, refund.updated_at) = (None, now);
        let amount = refund.amount.minor();
        let mut next = self.write(|t| {
            t.refunds.pending = add(t.refunds.pending, -amount);
            if refund.status == RefundStatus::Succeeded {
                t.refunds.done = add(t.refunds.done, amount);
            }
        });
        let to = match kind {
            EventKind::TransactionRefunded => TransactionStatus::Refunded,
            _ if next.transaction.refunds.pending.minor() > 0 => TransactionStatus::PendingRefund,
            _ if waits => TransactionStatus::PendingPayment,
            _ => TransactionStatus::Paid,
        };
        next = next.then_of(Some(&refund), to, kind, now, ids);
        if to == TransactionStatus::Paid {
            // Its last payable may have been paid meanwhile, and nobody said so.
            next = next.then_of(None, to, EventKind::TransactionPaid, now, ids);
        }
        next.refunds.push(refund);
        Ok(Transition::Executed(Box::new(next)))
    }
}

/// What a refund takes back of a transaction's payables. Together it is the refund's amount, whoever bears the fee.
fn taken_back(
    refund: &Refund,
    payables: &[Payable],
    policy: RefundFeePolicy,
    now: DateTime<Utc>,
    ids: &dyn IdGenerator,
) -> Vec<Payable> {
    let mut left: BTreeMap<u8, (i64, Option<&Payable>)> = BTreeMap::new();
    for payable in payables {
        let (amount, owed) = left.entry(payable.installment).or_default();
        *amount += payable.receivable.minor() + payable.fee.minor();
        if payable.refund == 0 {
            *owed = Some(payable);
        }
    }
    let (mut wanted, mut taken) = (refund.amount.minor(), Vec::new());
    for (amount, owed) in left.into_values().rev() {
        let Some(owed) = owed else { continue };
        let part = wanted.min(amount);
        if part <= 0 {
            continue;
        }
        wanted -= part;
        let fee = match policy {
            RefundFeePolicy::Kept => 0,
            RefundFeePolicy::Returned => fee_on(owed, amount) - fee_on(owed, amount - part),
        };
        let is_paid = owed.status == PayableStatus::Paid;
        let currency = refund.amount.currency();
        taken.push(Payable {
            id: PayableId(ids.next_id()),
            refund: refund.number,
            payment_date: if is_paid { now } else { owed.payment_date },
            fee: Money::new(-fee, currency),
            receivable: Money::new(fee - part, currency),
            created_at: now,
            updated_at: now,
            ..owed.clone()
        });
    }
    taken
}

/// The fee that an instalment of that amount would have at the rate of this one, in minor units.
fn fee_on(payable: &Payable, amount: i64) -> i64 {
    let rule = FeeRule { percent: payable.fee_percent, ..FeeRules::fallback() };
    rule.split_fee(Money::new(amount, payable.fee.currency())).fee.minor()
}

/// Sums of parts of one amount: they do not overflow.
fn add(sum: Money, minor: i64) -> Money {
    Money::new(sum.minor() + minor, sum.currency())
}
