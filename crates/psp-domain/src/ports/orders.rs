use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Message, QueueName, StoreError};
use crate::{
    CorrelationId, CountSubject, CustomerId, EventKind, MessageId, Order, OrderId, OrderStatus, Page, PageRequest,
    StatusCount, Transaction, TransactionId, TransactionStatus,
};

/// Reads orders and their payments; they are written by change sets.
#[async_trait]
pub trait OrderReader: Send + Sync {
    /// One order of a customer. `None` for another customer's.
    async fn find_order(&self, customer: &CustomerId, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// A page of a customer's orders, newest first.
    async fn list_orders(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Order>, StoreError>;

    /// A page of the payments of a customer's orders, newest first.
    async fn list_order_payments(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError>;

    /// A customer's counts by status and currency; one row each, however many are counted. Without the empty ones.
    async fn counts(&self, customer: &CustomerId, subject: CountSubject) -> Result<Vec<StatusCount>, StoreError>;

    /// One order, whoever's it is. For workers.
    async fn load_order(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Up to `limit` orders that were placed before `before` and wait: for their payment, or, paid, to be cancelled as it was asked
    /// for. By their ids, after the one named.
    async fn waiting_orders(
        &self,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError>;

    /// Up to `limit` orders with a payment that were cancelled at `since` or later and before `before`, in that order, after the one
    /// named.
    async fn cancelled_orders(
        &self,
        since: DateTime<Utc>,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError>;
}

/// How far an order and its payment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderProgress {
    /// The order.
    pub id: OrderId,
    /// Its state.
    pub status: OrderStatus,
    /// Whether `order.created` was said.
    pub is_created: bool,
    /// Whether `order.cancel.requested` was said.
    pub is_cancel_requested: bool,
    /// The id of the request that placed it.
    pub correlation_id: CorrelationId,
    /// Its payment, once there is one.
    pub payment: Option<PaymentProgress>,
    /// When it or its payment last changed.
    pub updated_at: DateTime<Utc>,
}

/// How far the payment of an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaymentProgress {
    /// The payment.
    pub id: TransactionId,
    /// Its state.
    pub status: TransactionStatus,
    /// What is left to give back when every refund that is pending succeeds, in minor units.
    pub refundable: i64,
    /// How many of its refunds failed.
    pub failed_refunds: usize,
}

/// The message on `orders` that says an event of an order, or of its payment, again.
pub fn order_message(id: MessageId, kind: EventKind, order: &OrderProgress) -> Message {
    let payment = order.payment.filter(|_| kind.as_str().starts_with("payment."));
    Message {
        id,
        queue: QueueName::Orders,
        kind: kind.as_str().to_owned(),
        aggregate_id: payment.map_or(order.id.0, |payment| payment.id.0),
        body: serde_json::json!({ "order_id": order.id, "correlation_id": order.correlation_id.as_str() }).to_string(),
    }
}
