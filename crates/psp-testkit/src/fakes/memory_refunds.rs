use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    IdGenerator, LoadedRefund, RefundStore, StoreError, Sweep, UuidV7Generator, check_refund_message,
};
use psp_domain::{CustomerId, MessageId, Refund, RefundId, RefundStatus, TransactionId};

use super::Memory;
use super::memory_queue::Stored;

#[async_trait]
impl RefundStore for Memory {
    async fn refunds(&self, customer: &CustomerId, transaction: TransactionId) -> Result<Vec<Refund>, StoreError> {
        let state = self.state();
        let own = state.refunds.values().filter(|r| r.transaction_id == transaction && r.customer_id == *customer);
        let mut refunds: Vec<_> = own.cloned().collect();
        refunds.sort_by_key(|refund| refund.number);
        Ok(refunds)
    }

    async fn load_refund(&self, id: RefundId) -> Result<Option<LoadedRefund>, StoreError> {
        let state = self.state();
        let Some(refund) = state.refunds.get(&id.0).cloned() else { return Ok(None) };
        let (transaction, _) = state.transactions.get(&refund.transaction_id.0).cloned().expect("transactions stay");
        let attempts = state.attempts_of(transaction.id);
        let payables = state.payables.values().filter(|payable| payable.transaction_id == transaction.id);
        let payables = payables.cloned().collect();
        Ok(Some(LoadedRefund { refund, transaction, attempts, payables }))
    }

    async fn sweep_refunds(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut due: Vec<_> =
            state.refunds.values_mut().filter(|r| r.check_at.is_some_and(|at| at <= sweep.now)).collect();
        due.sort_by_key(|refund| refund.check_at);
        due.truncate(sweep.limit as usize);
        for refund in &mut due {
            let age = sweep.now - refund.created_at;
            refund.check_at = Some(sweep.now + age.clamp(sweep.least, sweep.most));
            let message = check_refund_message(MessageId(UuidV7Generator.next_id()), refund.id);
            state.messages.insert(message.id.0, Stored::new(message, sweep.now));
        }
        let count = due.len() as u64;
        drop(guard);
        self.sent.notify_waiters();
        Ok(count)
    }

    async fn count_overdue_refunds(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let state = self.state();
        let is_overdue = |r: &&Refund| r.status == RefundStatus::Pending && r.created_at < overdue;
        Ok(state.refunds.values().filter(is_overdue).count() as u64)
    }
}
