use async_trait::async_trait;
use psp_domain::ports::{OrderReader, StoreError};
use psp_domain::{CountSubject, CustomerId, Order, OrderId, Page, PageRequest, StatusCount, Transaction};

use super::Memory;
use super::memory_store::page;

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
}
