//! Events: facts about an aggregate, immutable, ordered per aggregate.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{CustomerId, MessageId, Payable, QueueName, Transaction};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A merchant asked for a payment.
    TransactionCreated,
    /// A gateway approved it; its payables exist.
    TransactionApproved,
    /// A gateway declined it.
    TransactionDeclined,
    /// No gateway could answer.
    TransactionFailed,
    /// It was cancelled before approval.
    TransactionCancelled,
    /// All its payables are paid.
    TransactionPaid,
    /// One payable was paid.
    PayablePaid,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::TransactionCreated,
        Self::TransactionApproved,
        Self::TransactionDeclined,
        Self::TransactionFailed,
        Self::TransactionCancelled,
        Self::TransactionPaid,
        Self::PayablePaid,
    ];

    /// The name in the API, the database and on queues.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransactionCreated => "transaction.created",
            Self::TransactionApproved => "transaction.approved",
            Self::TransactionDeclined => "transaction.declined",
            Self::TransactionFailed => "transaction.failed",
            Self::TransactionCancelled => "transaction.cancelled",
            Self::TransactionPaid => "transaction.paid",
            Self::PayablePaid => "payable.paid",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The queue on which this event is also a message, if any.
    pub const fn queue(self) -> Option<QueueName> {
        match self {
            Self::TransactionCreated => Some(QueueName::Transactions),
            _ => None,
        }
    }
}

/// A fact about an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: MessageId,
    /// What happened.
    pub kind: EventKind,
    /// The transaction or payable that it is about.
    pub aggregate_id: Uuid,
    /// Its place among the events of its aggregate: from 1, without gaps.
    pub sequence: i64,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The facts, as JSON: what the ids above do not say. Never card data.
    pub data: String,
}

/// The data of every `transaction.*` event.
#[derive(Serialize)]
struct TransactionData<'a> {
    status: &'static str,
    amount: i64,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Event {
    /// An event about a transaction in its new state; its sequence is the transaction's.
    pub(crate) fn of_transaction(id: MessageId, kind: EventKind, transaction: &Transaction) -> Self {
        let data = TransactionData {
            status: transaction.status.as_str(),
            amount: transaction.amount.minor(),
            currency: transaction.amount.currency().code(),
            reason: transaction.status_reason.as_deref(),
        };
        Self {
            id,
            kind,
            aggregate_id: transaction.id.0,
            sequence: transaction.sequence,
            customer_id: transaction.customer_id.clone(),
            occurred_at: transaction.updated_at,
            data: serde_json::to_string(&data).expect("plain data is JSON"),
        }
    }

    /// `payable.paid`, the first and last event of a payable.
    pub(crate) fn of_payable_paid(id: MessageId, payable: &Payable) -> Self {
        let data = serde_json::json!({
            "transaction_id": payable.transaction_id,
            "installment": payable.installment,
            "receivable_amount": payable.receivable.minor(),
            "currency": payable.receivable.currency(),
        });
        Self {
            id,
            kind: EventKind::PayablePaid,
            aggregate_id: payable.id.0,
            sequence: 1,
            customer_id: payable.customer_id.clone(),
            occurred_at: payable.updated_at,
            data: data.to_string(),
        }
    }
}
