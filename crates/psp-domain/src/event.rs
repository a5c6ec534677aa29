//! Events: facts about an aggregate, immutable, ordered per aggregate.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    CorrelationId, CustomerId, MessageId, Order, OrderName, Payable, QueueName, Refund, RefundId, Transaction,
    TransactionId, UserId, WebhookEndpoint,
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// All its payables are paid; also after a part of it was refunded.
    TransactionPaid,
    /// The customer asked to give back all or a part of it.
    TransactionRefundRequested,
    /// A part of it was given back.
    TransactionPartiallyRefunded,
    /// The whole of it was given back.
    TransactionRefunded,
    /// The gateway did not give back what was asked for.
    TransactionRefundFailed,
    /// One payable was paid.
    PayablePaid,
    /// A customer asked for an order.
    OrderCreateRequested,
    /// The order stands, and waits for its payment.
    OrderCreated,
    /// Its payment was approved.
    OrderPaid,
    /// Its payment failed.
    OrderFailed,
    /// The customer asked to cancel it.
    OrderCancelRequested,
    /// It is cancelled: on request, or because its payment was declined, cancelled or given back.
    OrderCancelled,
    /// The payment of an order was approved.
    PaymentApproved,
    /// The payment of an order was declined.
    PaymentDeclined,
    /// The payment of an order failed.
    PaymentFailed,
    /// The payment of an order was cancelled.
    PaymentCancelled,
    /// The whole payment of an order was given back.
    PaymentRefunded,
    /// The gateway did not give back the payment of an order.
    PaymentRefundFailed,
    /// Deliveries to a webhook endpoint failed for too long, or it said that it is gone.
    WebhookEndpointDisabled,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 24] = [
        Self::TransactionCreated,
        Self::TransactionApproved,
        Self::TransactionDeclined,
        Self::TransactionFailed,
        Self::TransactionCancelled,
        Self::TransactionPaid,
        Self::TransactionRefundRequested,
        Self::TransactionPartiallyRefunded,
        Self::TransactionRefunded,
        Self::TransactionRefundFailed,
        Self::PayablePaid,
        Self::OrderCreateRequested,
        Self::OrderCreated,
        Self::OrderPaid,
        Self::OrderFailed,
        Self::OrderCancelRequested,
        Self::OrderCancelled,
        Self::PaymentApproved,
        Self::PaymentDeclined,
        Self::PaymentFailed,
        Self::PaymentCancelled,
        Self::PaymentRefunded,
        Self::PaymentRefundFailed,
        Self::WebhookEndpointDisabled,
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
            Self::TransactionRefundRequested => "transaction.refund_requested",
            Self::TransactionPartiallyRefunded => "transaction.partially_refunded",
            Self::TransactionRefunded => "transaction.refunded",
            Self::TransactionRefundFailed => "transaction.refund_failed",
            Self::PayablePaid => "payable.paid",
            Self::OrderCreateRequested => "order.create.requested",
            Self::OrderCreated => "order.created",
            Self::OrderPaid => "order.paid",
            Self::OrderFailed => "order.failed",
            Self::OrderCancelRequested => "order.cancel.requested",
            Self::OrderCancelled => "order.cancelled",
            Self::PaymentApproved => "payment.approved",
            Self::PaymentDeclined => "payment.declined",
            Self::PaymentFailed => "payment.failed",
            Self::PaymentCancelled => "payment.cancelled",
            Self::PaymentRefunded => "payment.refunded",
            Self::PaymentRefundFailed => "payment.refund_failed",
            Self::WebhookEndpointDisabled => "webhook_endpoint.disabled",
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
            Self::TransactionRefundRequested => Some(QueueName::Refunds),
            Self::OrderCreateRequested
            | Self::OrderCreated
            | Self::OrderCancelRequested
            | Self::OrderCancelled
            | Self::PaymentApproved
            | Self::PaymentDeclined
            | Self::PaymentFailed
            | Self::PaymentCancelled
            | Self::PaymentRefunded
            | Self::PaymentRefundFailed => Some(QueueName::Orders),
            Self::TransactionApproved
            | Self::TransactionDeclined
            | Self::TransactionFailed
            | Self::TransactionCancelled
            | Self::TransactionPaid
            | Self::TransactionPartiallyRefunded
            | Self::TransactionRefunded
            | Self::TransactionRefundFailed
            | Self::PayablePaid
            | Self::OrderPaid
            | Self::OrderFailed
            | Self::WebhookEndpointDisabled => None,
        }
    }

    /// The same said of the payment of an order, as the order's side waits for it.
    pub(crate) const fn of_order_payment(self) -> Option<Self> {
        match self {
            Self::TransactionApproved => Some(Self::PaymentApproved),
            Self::TransactionDeclined => Some(Self::PaymentDeclined),
            Self::TransactionFailed => Some(Self::PaymentFailed),
            Self::TransactionCancelled => Some(Self::PaymentCancelled),
            Self::TransactionRefunded => Some(Self::PaymentRefunded),
            Self::TransactionRefundFailed => Some(Self::PaymentRefundFailed),
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
    /// The transaction, payable, order or webhook endpoint that it is about.
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

/// An event as everyone outside sees it: the API and webhooks alike.
#[derive(Serialize)]
struct Envelope<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    id: MessageId,
    aggregate_id: Uuid,
    sequence: i64,
    data: &'e RawValue,
}

/// The data of every `transaction.*` and `payment.*` event. The settlement of payables in bulk writes the same in SQL.
#[derive(Serialize)]
struct TransactionData<'a> {
    status: &'static str,
    amount: i64,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The customer's name of the order; of an order placed here, its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<RefundData>,
}

/// The refund of which an event tells.
#[derive(Serialize)]
struct RefundData {
    id: RefundId,
    amount: i64,
    /// What was given back in all by now.
    refunded_amount: i64,
}

/// The data of every `order.*` event.
#[derive(Serialize)]
struct OrderData<'a> {
    status: &'static str,
    total: i64,
    currency: &'static str,
    user_id: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<TransactionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    correlation_id: &'a CorrelationId,
}

impl Event {
    /// The event as JSON: `type`, `timestamp` (RFC 3339, milliseconds), `id`, `aggregate_id`, `sequence` and `data`. The same to
    /// the byte wherever it is told, so that a receiver of webhooks finds in the API what it was sent.
    pub fn to_json(&self) -> String {
        to_json(&Envelope {
            kind: self.kind.as_str(),
            timestamp: self.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            id: self.id,
            aggregate_id: self.aggregate_id,
            sequence: self.sequence,
            data: serde_json::from_str(&self.data).unwrap_or(RawValue::NULL),
        })
    }

    /// An event about a transaction in its new state; its sequence is the transaction's.
    pub(crate) fn of_transaction(id: MessageId, kind: EventKind, transaction: &Transaction) -> Self {
        Self::of_refund(id, kind, transaction, None)
    }

    /// An event about a refund of a transaction.
    pub(crate) fn of_refund(
        id: MessageId,
        kind: EventKind,
        transaction: &Transaction,
        refund: Option<&Refund>,
    ) -> Self {
        let data = TransactionData {
            status: transaction.status.as_str(),
            amount: transaction.amount.minor(),
            currency: transaction.amount.currency().code(),
            reason: refund.and_then(|refund| refund.reason.as_deref()).or(transaction.status_reason.as_deref()),
            order_id: transaction.named.order_id.as_ref().map(OrderName::as_str),
            correlation_id: transaction.order.as_ref().map(|order| order.correlation_id.as_str()),
            refund: refund.map(|refund| RefundData {
                id: refund.id,
                amount: refund.amount.minor(),
                refunded_amount: transaction.refunds.done.minor(),
            }),
        };
        Self {
            id,
            kind,
            aggregate_id: transaction.id.0,
            sequence: transaction.sequence,
            customer_id: transaction.customer_id.clone(),
            occurred_at: transaction.updated_at,
            data: to_json(&data),
        }
    }

    /// An event about an order in its new state; its sequence is the order's.
    pub(crate) fn of_order(id: MessageId, kind: EventKind, order: &Order) -> Self {
        let data = OrderData {
            status: order.status.as_str(),
            total: order.total.minor(),
            currency: order.total.currency().code(),
            user_id: &order.user_id,
            payment_id: order.payment_id,
            reason: order.status_reason.as_deref(),
            correlation_id: &order.correlation_id,
        };
        Self {
            id,
            kind,
            aggregate_id: order.id.0,
            sequence: order.sequence,
            customer_id: order.customer_id.clone(),
            occurred_at: order.updated_at,
            data: to_json(&data),
        }
    }

    /// `webhook_endpoint.disabled`. Other receivers hear it: of the URL it tells the origin, because the rest may be secret.
    pub(crate) fn of_endpoint_disabled(id: MessageId, endpoint: &WebhookEndpoint, reason: &str) -> Self {
        let data = serde_json::json!({
            "url": endpoint.origin(),
            "reason": reason,
            "failing_since": endpoint.failing_since.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        });
        Self {
            id,
            kind: EventKind::WebhookEndpointDisabled,
            aggregate_id: endpoint.id.0,
            sequence: endpoint.sequence,
            customer_id: endpoint.customer_id.clone(),
            occurred_at: endpoint.updated_at,
            data: data.to_string(),
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

fn to_json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("plain data is JSON")
}
