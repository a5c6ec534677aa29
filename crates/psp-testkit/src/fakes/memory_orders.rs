use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{OrderProgress, OrderReader, PaymentProgress, StoreError};
use psp_domain::{
    CountSubject, CustomerId, Order, OrderId, OrderStatus, Page, PageRequest, RefundStatus, StatusCount, Transaction,
};

use super::Memory;
use super::memory_store::{State, page};

impl State {
    fn progress(&self, order: &Order) -> OrderProgress {
        let payment = order.payment_id.map(|id| &self.transactions[&id.0].0);
        let failed = |payment: &Transaction| {
            let own = self.refunds.values().filter(|refund| refund.transaction_id == payment.id);
            own.filter(|refund| refund.status == RefundStatus::Failed).count()
        };
        OrderProgress {
            id: order.id,
            status: order.status,
            is_created: order.is_created,
            is_cancel_requested: order.is_cancel_requested,
            correlation_id: order.correlation_id.clone(),
            payment: payment.map(|payment| PaymentProgress {
                id: payment.id,
                status: payment.status,
                refundable: payment.refundable().minor(),
                failed_refunds: failed(payment),
            }),
            updated_at: payment.map_or(order.updated_at, |payment| payment.updated_at.max(order.updated_at)),
        }
    }
}

#[async_trait]
impl OrderReader for Memory {
    async fn find_order(&self, customer: &CustomerId, id: OrderId) -> Result<Option<Order>, StoreError> {
        let found = self.state().orders.get(&id.0).cloned();
        Ok(found.filter(|order| order.customer_id == *customer))
    }

    async fn list_orders(&self, customer: &CustomerId, request: PageRequest) -> Result<Page<Order>, StoreError> {
        let state = self.state();
        let own = state.orders.values().rev().filter(|order| order.customer_id == *customer).cloned();
        Ok(page(own, request, |order| order.id.0))
    }

    async fn list_order_payments(
        &self,
        customer: &CustomerId,
        request: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        let state = self.state();
        let all = state.transactions.values().rev().map(|(transaction, _)| transaction);
        let own = all.filter(|t| t.customer_id == *customer && t.order.is_some()).cloned();
        Ok(page(own, request, |t| t.id.0))
    }

    async fn counts(&self, customer: &CustomerId, subject: CountSubject) -> Result<Vec<StatusCount>, StoreError> {
        let state = self.state();
        let own = state.counts.values().filter(|count| count.customer_id == *customer && count.subject == subject);
        Ok(own.filter(|count| count.count != 0 || count.amount != 0).cloned().collect())
    }

    async fn load_order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.state().orders.get(&id.0).cloned())
    }

    async fn waiting_orders(
        &self,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        let state = self.state();
        let waits = |order: &&Order| match order.status {
            OrderStatus::PendingPayment => true,
            OrderStatus::Paid => order.is_cancel_requested,
            OrderStatus::Cancelled | OrderStatus::Failed => false,
        };
        let waiting = state.orders.values().filter(waits);
        let found = waiting.filter(|order| order.created_at < before && Some(order.id) > after);
        Ok(found.take(limit as usize).map(|order| state.progress(order)).collect())
    }

    async fn cancelled_orders(
        &self,
        since: DateTime<Utc>,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        let state = self.state();
        let place = |order: &Order| (order.updated_at, order.id);
        let after = after.and_then(|id| state.orders.get(&id.0)).map(place);
        let cancelled = state.orders.values().filter(|o| o.status == OrderStatus::Cancelled && o.payment_id.is_some());
        let found = cancelled.filter(|o| (since..before).contains(&o.updated_at) && Some(place(o)) > after);
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|order| place(order));
        Ok(found.into_iter().take(limit as usize).map(|order| state.progress(order)).collect())
    }
}
