use async_trait::async_trait;

use super::StoreError;
use crate::{CountSubject, CustomerId, Order, OrderId, Page, PageRequest, StatusCount, Transaction};

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
}
