//! Orders, and their state machine. An order and its payment (a [`Transaction`]) change each by itself, in answer to the
//! events of the other one; nobody coordinates them.
//!
//! ```text
//! pending_payment ── payment.approved ──▶ paid ── order.cancel.requested, payment.refunded ──▶ cancelled
//!     │ payment.declined, payment.cancelled, order.cancel.requested ──▶ cancelled
//!     │ payment.failed ──▶ failed
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ports::IdGenerator;
use crate::{
    ChangeSet, CorrelationId, CountSubject, CustomerId, Event, EventKind, MessageId, Money, OrderId, OrderWrite,
    PaymentMethod, StatusCount, TransactionId, TransactionStatus, UserId,
};

#[cfg(doc)]
use crate::Transaction;

/// The states of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Waits for its payment.
    PendingPayment,
    /// Its payment was approved.
    Paid,
    /// It is cancelled, and its payment is or will be cancelled or given back: final.
    Cancelled,
    /// Its payment failed: final.
    Failed,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::PendingPayment, Self::Paid, Self::Cancelled, Self::Failed];

    /// The name in the database; the API shows it in capitals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PendingPayment => "pending_payment",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// What the order's side sees of the states of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderPaymentStatus {
    /// Waits for a gateway's answer.
    Processing,
    /// Approved, and not given back in full.
    Approved,
    /// Declined.
    Declined,
    /// No gateway could answer.
    Failed,
    /// All of it was given back.
    Refunded,
    /// Cancelled before approval.
    Cancelled,
}

impl OrderPaymentStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Processing, Self::Approved, Self::Declined, Self::Failed, Self::Refunded, Self::Cancelled];

    /// The name in the database; the API shows it in capitals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Approved => "approved",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::Refunded => "refunded",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<TransactionStatus> for OrderPaymentStatus {
    fn from(status: TransactionStatus) -> Self {
        match status {
            TransactionStatus::Processing => Self::Processing,
            TransactionStatus::PendingPayment | TransactionStatus::Paid | TransactionStatus::PendingRefund => {
                Self::Approved
            }
            TransactionStatus::Declined => Self::Declined,
            TransactionStatus::Failed => Self::Failed,
            TransactionStatus::Cancelled => Self::Cancelled,
            TransactionStatus::Refunded => Self::Refunded,
        }
    }
}

/// An order as a customer asks for it: every part already valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Who asks.
    pub customer_id: CustomerId,
    /// Whose order it is among the customer's users.
    pub user_id: UserId,
    /// How much: positive, at most [`Money::MAX_MINOR`].
    pub total: Money,
    /// How it is paid: by a method without a card.
    pub payment_method: PaymentMethod,
    /// The id of the request.
    pub correlation_id: CorrelationId,
}

/// A new order that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOrder {
    /// The total is not positive or too large.
    #[error("total must be from 1 to {} minor units", Money::MAX_MINOR)]
    Total,
    /// Orders keep no cards.
    #[error("an order cannot be paid by card")]
    Method,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// Whose it is among the customer's users.
    pub user_id: UserId,
    /// How much.
    pub total: Money,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// Its state.
    pub status: OrderStatus,
    /// Why it was cancelled or failed.
    pub status_reason: Option<String>,
    /// Whether `order.created` was said.
    pub is_created: bool,
    /// Whether `order.cancel.requested` was said.
    pub is_cancel_requested: bool,
    /// Its payment, once there is one.
    pub payment_id: Option<TransactionId>,
    /// The id of the request that placed it.
    pub correlation_id: CorrelationId,
    /// Moves on with every write: what an update expects to find.
    pub version: i64,
    /// The number of its events.
    pub sequence: i64,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A transition that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("order {id} is {from}, so it cannot become {to}", from = from.as_str(), to = to.as_str())]
pub struct IllegalOrderTransition {
    /// Which order.
    pub id: OrderId,
    /// Its state.
    pub from: OrderStatus,
    /// What was asked for.
    pub to: OrderStatus,
}

/// The result of a legal transition of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderTransition {
    /// It changed: what is to be written.
    Executed(Box<OrderTransitioned>),
    /// It is already there: nothing is to be written.
    AlreadyApplied,
}

/// A new state of an order with all that it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderTransitioned {
    /// The order in its new state.
    pub order: Order,
    /// The version that the store must still hold.
    pub expected_version: i64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// What is added to counts by status.
    pub counts: Vec<StatusCount>,
}

impl Order {
    /// A fresh order that waits for its payment, with its `order.create.requested`.
    ///
    /// # Errors
    /// Every rule that the request breaks.
    pub fn place(
        new: &NewOrder,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<(Self, ChangeSet), Vec<InvalidOrder>> {
        let mut faults = Vec::new();
        if !(1..=Money::MAX_MINOR).contains(&new.total.minor()) {
            faults.push(InvalidOrder::Total);
        }
        if new.payment_method.is_card() {
            faults.push(InvalidOrder::Method);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let order = Self {
            id: OrderId(ids.next_id()),
            customer_id: new.customer_id.clone(),
            user_id: new.user_id.clone(),
            total: new.total,
            payment_method: new.payment_method,
            status: OrderStatus::PendingPayment,
            status_reason: None,
            is_created: false,
            is_cancel_requested: false,
            payment_id: None,
            correlation_id: new.correlation_id.clone(),
            version: 1,
            sequence: 1,
            created_at: now,
            updated_at: now,
        };
        let requested = Event::of_order(MessageId(ids.next_id()), EventKind::OrderCreateRequested, &order);
        let change = ChangeSet {
            counts: order.counts_from(None),
            order: Some(OrderWrite::Insert(Box::new(order.clone()))),
            events: vec![requested],
            ..ChangeSet::default()
        };
        Ok((order, change))
    }

    /// Says `order.created`, once, unless the order has ended before.
    pub fn create(self, now: DateTime<Utc>, ids: &dyn IdGenerator) -> OrderTransition {
        if self.is_created || self.status != OrderStatus::PendingPayment {
            return OrderTransition::AlreadyApplied;
        }
        let status = self.status;
        self.step(status, Some(EventKind::OrderCreated), now, ids, |order| order.is_created = true)
    }

    /// Its payment is that transaction, which is created with this write; unless there is one, or the order has ended before.
    /// Says nothing: the payment's `transaction.created` does.
    pub fn pay_with(self, payment: TransactionId, now: DateTime<Utc>, ids: &dyn IdGenerator) -> OrderTransition {
        if self.payment_id.is_some() || self.status != OrderStatus::PendingPayment {
            return OrderTransition::AlreadyApplied;
        }
        let status = self.status;
        self.step(status, None, now, ids, |order| order.payment_id = Some(payment))
    }

    /// `pending_payment` → `paid`.
    ///
    /// # Errors
    /// When the order has ended otherwise.
    pub fn pay(self, now: DateTime<Utc>, ids: &dyn IdGenerator) -> Result<OrderTransition, IllegalOrderTransition> {
        match self.status {
            OrderStatus::PendingPayment => {
                Ok(self.step(OrderStatus::Paid, Some(EventKind::OrderPaid), now, ids, |_| {}))
            }
            OrderStatus::Paid => Ok(OrderTransition::AlreadyApplied),
            _ => Err(self.illegal(OrderStatus::Paid)),
        }
    }

    /// `pending_payment` → `failed`.
    ///
    /// # Errors
    /// When the order was paid or has ended otherwise.
    pub fn fail(
        self,
        reason: &str,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<OrderTransition, IllegalOrderTransition> {
        match self.status {
            OrderStatus::PendingPayment => {
                let change = |order: &mut Self| order.status_reason = Some(reason.to_owned());
                Ok(self.step(OrderStatus::Failed, Some(EventKind::OrderFailed), now, ids, change))
            }
            OrderStatus::Failed => Ok(OrderTransition::AlreadyApplied),
            _ => Err(self.illegal(OrderStatus::Failed)),
        }
    }

    /// Says `order.cancel.requested`, once, unless it is cancelled.
    ///
    /// # Errors
    /// When the order failed.
    pub fn request_cancel(
        self,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<OrderTransition, IllegalOrderTransition> {
        match self.status {
            OrderStatus::Failed => Err(self.illegal(OrderStatus::Cancelled)),
            OrderStatus::Cancelled => Ok(OrderTransition::AlreadyApplied),
            _ if self.is_cancel_requested => Ok(OrderTransition::AlreadyApplied),
            status => {
                let change = |order: &mut Self| order.is_cancel_requested = true;
                Ok(self.step(status, Some(EventKind::OrderCancelRequested), now, ids, change))
            }
        }
    }

    /// → `cancelled`, from `pending_payment` and from `paid`.
    ///
    /// # Errors
    /// When the order failed.
    pub fn cancel(
        self,
        reason: &str,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
    ) -> Result<OrderTransition, IllegalOrderTransition> {
        match self.status {
            OrderStatus::Failed => Err(self.illegal(OrderStatus::Cancelled)),
            OrderStatus::Cancelled => Ok(OrderTransition::AlreadyApplied),
            OrderStatus::PendingPayment | OrderStatus::Paid => {
                let change = |order: &mut Self| order.status_reason = Some(reason.to_owned());
                Ok(self.step(OrderStatus::Cancelled, Some(EventKind::OrderCancelled), now, ids, change))
            }
        }
    }

    fn step(
        self,
        to: OrderStatus,
        kind: Option<EventKind>,
        now: DateTime<Utc>,
        ids: &dyn IdGenerator,
        change: impl FnOnce(&mut Self),
    ) -> OrderTransition {
        let (expected_version, before) = (self.version, self.status);
        let mut order = self;
        change(&mut order);
        order.version += 1;
        order.status = to;
        order.updated_at = now;
        let event = kind.map(|kind| {
            order.sequence += 1;
            Event::of_order(MessageId(ids.next_id()), kind, &order)
        });
        let counts = order.counts_from(Some(before));
        let events = event.into_iter().collect();
        OrderTransition::Executed(Box::new(OrderTransitioned { order, expected_version, events, counts }))
    }

    fn counts_from(&self, before: Option<OrderStatus>) -> Vec<StatusCount> {
        if before == Some(self.status) {
            return Vec::new();
        }
        let count = |status: OrderStatus, sign| StatusCount {
            customer_id: self.customer_id.clone(),
            subject: CountSubject::Order,
            status: status.as_str().to_owned(),
            currency: self.total.currency(),
            count: sign,
            amount: sign * self.total.minor(),
        };
        before.map(|before| count(before, -1)).into_iter().chain([count(self.status, 1)]).collect()
    }

    fn illegal(&self, to: OrderStatus) -> IllegalOrderTransition {
        IllegalOrderTransition { id: self.id, from: self.status, to }
    }
}

impl From<OrderTransitioned> for ChangeSet {
    fn from(next: OrderTransitioned) -> Self {
        Self {
            order: Some(OrderWrite::Update { order: Box::new(next.order), expected_version: next.expected_version }),
            events: next.events,
            counts: next.counts,
            ..Self::default()
        }
    }
}
