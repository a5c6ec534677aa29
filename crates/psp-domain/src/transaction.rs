//! Transactions and their one state machine.
//!
//! ```text
//! processing ── approved ──▶ pending_payment ── last payable paid ──▶ paid
//!     │ declined ──▶ declined        │                                 │
//!     │ all gateways failed ──▶ failed  └──────── refund asked ────────┘
//!     │ cancelled before approval ──▶ cancelled        ▼
//!                                               pending_refund ── all given back ──▶ refunded
//!                                                      └── a part, or refused ──▶ pending_payment | paid
//! ```
//!
//! A transition consumes the old state. An illegal one is an [`IllegalTransition`]; the same one again is
//! [`Transition::AlreadyApplied`]. Each transition raises `version` by one, and `sequence` by one per event.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ports::IdGenerator;
use crate::{
    CardSummary, CorrelationId, CountSubject, Country, CustomerId, Event, EventKind, FeeRules, GatewayName,
    Installments, InvalidTransaction, MessageId, Money, NewTransaction, OrderId, OrderName, OrderPaymentStatus,
    Payable, PayableId, PayableStatus, PaymentMethod, Refund, RefundTotals, StatusCount, TransactionId,
    TransactionKind, UserId,
};

/// The states of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionStatus {
    /// Waits for a gateway's answer.
    Processing,
    /// Approved; payables wait for their date.
    PendingPayment,
    /// All payables are paid.
    Paid,
    /// A gateway declined it: final.
    Declined,
    /// No gateway could answer: final.
    Failed,
    /// Cancelled before approval: final.
    Cancelled,
    /// Approved, and a gateway is asked to give back all or a part of it.
    PendingRefund,
    /// All of it was given back: final.
    Refunded,
}

impl TransactionStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Processing,
        Self::PendingPayment,
        Self::Paid,
        Self::Declined,
        Self::Failed,
        Self::Cancelled,
        Self::PendingRefund,
        Self::Refunded,
    ];

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::PendingPayment => "pending_payment",
            Self::Paid => "paid",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::PendingRefund => "pending_refund",
            Self::Refunded => "refunded",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Declined | Self::Failed | Self::Cancelled | Self::Refunded)
    }

    /// Whether a gateway has approved it, whatever came later.
    pub const fn is_approved(self) -> bool {
        matches!(self, Self::PendingPayment | Self::Paid | Self::PendingRefund | Self::Refunded)
    }
}

/// One movement of money asked for by a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub id: TransactionId,
    /// What it is for.
    pub kind: TransactionKind,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// The customer's words; may be empty.
    pub description: String,
    /// How much.
    pub amount: Money,
    /// How.
    pub payment_method: PaymentMethod,
    /// What may be kept of the card, where there is one.
    pub card: Option<CardSummary>,
    /// In how many parts it becomes payable.
    pub installments: Installments,
    /// What the customer named beside the money.
    pub named: Named,
    /// The order that is paid with it, where it was placed here.
    pub order: Option<OrderLink>,
    /// Its state.
    pub status: TransactionStatus,
    /// Why it was declined or failed.
    pub status_reason: Option<String>,
    /// The gateway's name and its reference of the approval.
    pub gateway: Option<GatewayReference>,
    /// What of the amount was asked back, and given.
    pub refunds: RefundTotals,
    /// Moves on with every write of it or of its attempts: what an update expects to find.
    pub version: i64,
    /// The number of its events.
    pub sequence: i64,
    /// When it came to be.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a customer may name beside the money.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// The customer's order.
    pub order_id: Option<OrderName>,
    /// The customer's user, of deposits and withdrawals.
    pub user_id: Option<UserId>,
    /// Where the payer is.
    pub country: Option<Country>,
    /// The gateway to use, and no other.
    pub gateway: Option<GatewayName>,
}

/// How the payment of an order is joined to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLink {
    /// The order.
    pub id: OrderId,
    /// The correlation id of the request that placed it.
    pub correlation_id: CorrelationId,
}

/// Where a gateway keeps its side of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayReference {
    /// The gateway's name.
    pub gateway: GatewayName,
    /// Its reference.
    pub reference: String,
}

/// A transition that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("transaction {id} is {from}, so it cannot become {to}", from = from.as_str(), to = to.as_str())]
pub struct IllegalTransition {
    /// Which transaction.
    pub id: TransactionId,
    /// Its state.
    pub from: TransactionStatus,
    /// What was asked for.
    pub to: TransactionStatus,
}

/// The result of a legal transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The state changed: what is to be written.
    Executed(Box<Transitioned>),
    /// The transaction is already there: nothing is to be written.
    AlreadyApplied,
}

/// A new state with all that it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transitioned {
    /// The transaction in its new state.
    pub transaction: Transaction,
    /// The version that the store must still hold.
    pub expected_version: i64,
    /// The refunds that are new or changed.
    pub refunds: Vec<Refund>,
    /// The payables that come to be.
    pub payables: Vec<Payable>,
    /// The events, in order.
    pub events: Vec<Event>,
    /// What is added to counts by status.
    pub counts: Vec<StatusCount>,
}

impl Transaction {
    /// The longest description, in characters.
    pub const DESCRIPTION_MAX_CHARS: usize = 500;

    /// Whether a text can be a description.
    pub fn is_description(text: &str) -> bool {
        text.chars().count() <= Self::DESCRIPTION_MAX_CHARS && !text.contains('\0')
    }

    /// A fresh transaction, `processing`, with its `transaction.created`.
    ///
    /// # Errors
    /// Every rule that the request breaks.
    pub fn create(
        new: &NewTransaction,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<(Self, Event), Vec<InvalidTransaction>> {
        let faults = new.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let transaction = Self {
            id: TransactionId(ids.next_id()),
            kind: new.kind,
            customer_id: new.customer_id.clone(),
            description: new.description.clone(),
            amount: new.amount,
            payment_method: new.payment_method,
            card: new.card.as_ref().map(crate::Card::summary),
            installments: new.installments,
            named: new.named.clone(),
            order: new.order.clone(),
            status: TransactionStatus::Processing,
            status_reason: None,
            gateway: None,
            refunds: RefundTotals::none(new.amount.currency()),
            version: 1,
            sequence: 1,
            created_at: now,
            updated_at: now,
        };
        let event = Event::of_transaction(MessageId(ids.next_id()), EventKind::TransactionCreated, &transaction);
        Ok((transaction, event))
    }

    /// `processing` → `pending_payment`, with the payables that the fee rules give; on to `paid` where all of those are
    /// paid at once. Deposits and withdrawals owe the customer nothing, so they have none and are `paid`.
    ///
    /// # Errors
    /// When the transaction has ended otherwise.
    pub fn approve(
        self,
        gateway: GatewayReference,
        rules: &FeeRules,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        match self.status {
            TransactionStatus::Processing => {}
            status if status.is_approved() => return Ok(Transition::AlreadyApplied),
            _ => return Err(self.illegal(TransactionStatus::PendingPayment)),
        }
        let payables = self.payables(rules, now, ids);
        let mut next = self.step(TransactionStatus::PendingPayment, EventKind::TransactionApproved, now, ids, |t| {
            t.gateway = Some(gateway);
        });
        let paid = payables.iter().filter(|p| p.status == PayableStatus::Paid);
        next.events.extend(paid.map(|p| Event::of_payable_paid(MessageId(ids.next_id()), p)));
        if payables.iter().all(|p| p.status == PayableStatus::Paid) {
            next = next.then_of(None, TransactionStatus::Paid, EventKind::TransactionPaid, now, ids);
        }
        next.payables = payables;
        Ok(Transition::Executed(Box::new(next)))
    }

    /// `processing` → `declined`.
    ///
    /// # Errors
    /// When the transaction has ended otherwise.
    pub fn decline(
        self,
        reason: &str,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        self.end(TransactionStatus::Declined, EventKind::TransactionDeclined, Some(reason), now, ids)
    }

    /// `processing` → `failed`.
    ///
    /// # Errors
    /// When the transaction has ended otherwise.
    pub fn fail(
        self,
        reason: &str,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        self.end(TransactionStatus::Failed, EventKind::TransactionFailed, Some(reason), now, ids)
    }

    /// `processing` → `cancelled`.
    ///
    /// # Errors
    /// When the transaction was approved or has ended otherwise.
    pub fn cancel(self, now: DateTime<Utc>, ids: &dyn IdGenerator) -> Result<Transition, IllegalTransition> {
        self.end(TransactionStatus::Cancelled, EventKind::TransactionCancelled, None, now, ids)
    }

    /// `pending_payment` → `paid`, once its last payable is paid.
    ///
    /// Settlement in bulk does the same in the store (see [`crate::ports::SettlementStore`]).
    ///
    /// # Errors
    /// When the transaction was not approved.
    pub fn settle(self, now: DateTime<Utc>, ids: &dyn IdGenerator) -> Result<Transition, IllegalTransition> {
        match self.status {
            TransactionStatus::PendingPayment => {
                let next = self.step(TransactionStatus::Paid, EventKind::TransactionPaid, now, ids, |_| {});
                Ok(Transition::Executed(Box::new(next)))
            }
            TransactionStatus::Paid => Ok(Transition::AlreadyApplied),
            _ => Err(self.illegal(TransactionStatus::Paid)),
        }
    }

    fn end(
        self,
        to: TransactionStatus,
        kind: EventKind,
        reason: Option<&str>,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<Transition, IllegalTransition> {
        if self.status == to {
            return Ok(Transition::AlreadyApplied);
        }
        if self.status != TransactionStatus::Processing {
            return Err(self.illegal(to));
        }
        let next = self.step(to, kind, now, ids, |t| t.status_reason = reason.map(str::to_owned));
        Ok(Transition::Executed(Box::new(next)))
    }

    fn step(
        self,
        to: TransactionStatus,
        kind: EventKind,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
        change: impl FnOnce(&mut Self),
    ) -> Transitioned {
        self.write(change).then_of(None, to, kind, now, ids)
    }

    /// The beginning of a write: the version moves on.
    pub(crate) fn write(mut self, change: impl FnOnce(&mut Self)) -> Transitioned {
        let expected_version = self.version;
        self.version += 1;
        change(&mut self);
        Transitioned {
            transaction: self,
            expected_version,
            refunds: Vec::new(),
            payables: Vec::new(),
            events: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn payables(&self, rules: &FeeRules, now: DateTime<Utc>, ids: &dyn IdGenerator) -> Vec<Payable> {
        if self.kind != TransactionKind::Payment {
            return Vec::new();
        }
        let rule = rules.rule(self.payment_method);
        let parts = (1..=self.installments.get()).zip(self.installments.divide(self.amount));
        parts
            .map(|(installment, amount)| {
                let split = rule.split_fee(amount);
                Payable {
                    id: PayableId(ids.next_id()),
                    transaction_id: self.id,
                    customer_id: self.customer_id.clone(),
                    installment,
                    refund: 0,
                    status: rule.initial_status,
                    payment_date: rule.payment_date(now, installment),
                    fee_percent: rule.percent,
                    fee: split.fee,
                    receivable: split.receivable,
                    created_at: now,
                    updated_at: now,
                }
            })
            .collect()
    }

    /// What counts by status gain and lose when it comes to be, or comes from another status; only payments of orders count.
    pub(crate) fn counts_from(&self, before: Option<TransactionStatus>) -> Vec<StatusCount> {
        let (before, after) = (before.map(OrderPaymentStatus::from), OrderPaymentStatus::from(self.status));
        if self.order.is_none() || before == Some(after) {
            return Vec::new();
        }
        let count = |status: OrderPaymentStatus, sign| StatusCount {
            customer_id: self.customer_id.clone(),
            subject: CountSubject::Payment,
            status: status.as_str().to_owned(),
            currency: self.amount.currency(),
            count: sign,
            amount: sign * self.amount.minor(),
        };
        before.map(|before| count(before, -1)).into_iter().chain([count(after, 1)]).collect()
    }

    pub(crate) fn illegal(&self, to: TransactionStatus) -> IllegalTransition {
        IllegalTransition { id: self.id, from: self.status, to }
    }
}

impl Transitioned {
    /// One more step of the same write, because of a refund where there is one. The payment of an order says it twice: as a
    /// transaction, and as what the order's side waits for.
    pub(crate) fn then_of(
        mut self,
        refund: Option<&Refund>,
        to: TransactionStatus,
        kind: EventKind,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Self {
        let before = std::mem::replace(&mut self.transaction.status, to);
        self.transaction.updated_at = now;
        let twin = kind.of_order_payment().filter(|_| self.transaction.order.is_some());
        for kind in [Some(kind), twin].into_iter().flatten() {
            self.transaction.sequence += 1;
            self.events.push(Event::of_refund(MessageId(ids.next_id()), kind, &self.transaction, refund));
        }
        self.counts.extend(self.transaction.counts_from(Some(before)));
        self
    }
}
