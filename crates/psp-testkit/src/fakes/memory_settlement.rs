use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    IdGenerator, Message, SettledChunk, SettlementChunk, SettlementProgress, SettlementStore, StoreError,
    UuidV7Generator,
};
use psp_domain::{
    Event, EventKind, MessageId, Money, Payable, PayableStatus, QueueName, SettlementRunId, TransactionStatus,
    Transition,
};
use uuid::Uuid;

use super::Memory;
use super::memory_queue::Stored;

/// The payables of each chunk; `None` once it is settled.
#[derive(Default)]
pub(super) struct Run {
    chunks: Vec<Option<Vec<Uuid>>>,
    payables: u64,
    transactions: u64,
    amounts: BTreeMap<&'static str, Money>,
}

#[async_trait]
impl SettlementStore for Memory {
    async fn plan_run(
        &self,
        run_id: SettlementRunId,
        due_before: DateTime<Utc>,
        chunk_size: u32,
        now: DateTime<Utc>,
    ) -> Result<u32, StoreError> {
        let mut state = self.state();
        let waiting = state.payables.values().filter(|p| p.status == PayableStatus::WaitingFunds);
        let mut due: Vec<_> =
            waiting.filter(|p| p.payment_date < due_before).map(|p| (p.payment_date, p.id.0)).collect();
        due.sort_unstable();
        let ids: Vec<_> = due.into_iter().map(|(_, id)| id).collect();
        let chunks = ids.chunks(chunk_size.max(1) as usize).take(SettlementChunk::MAX_PER_RUN as usize);
        let chunks: Vec<_> = chunks.map(|chunk| Some(chunk.to_vec())).collect();
        let count = u32::try_from(chunks.len()).unwrap();
        for number in 1..=count {
            let message = Message {
                id: MessageId(UuidV7Generator.next_id()),
                queue: QueueName::PayablesSettlement,
                kind: SettlementChunk::MESSAGE_KIND.into(),
                aggregate_id: run_id.0,
                body: serde_json::to_string(&SettlementChunk { run_id, number }).unwrap(),
            };
            state.messages.insert(message.id.0, Stored::new(message, now));
        }
        state.runs.insert(run_id.0, Run { chunks, ..Run::default() });
        drop(state);
        self.sent.notify_waiters();
        Ok(count)
    }

    async fn settle_chunk(
        &self,
        chunk: SettlementChunk,
        now: DateTime<Utc>,
    ) -> Result<Option<SettledChunk>, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let run = state.runs.get_mut(&chunk.run_id.0);
        let Some((run, index)) = run.zip(chunk.number.checked_sub(1)) else { return Ok(None) };
        let Some(slot) = run.chunks.get_mut(index as usize) else { return Ok(None) };
        let (mut settled, mut events) = (SettledChunk::default(), Vec::new());
        for id in slot.take().unwrap_or_default() {
            let payable = state.payables.get_mut(&id).expect("payables stay");
            if payable.status == PayableStatus::Paid {
                continue;
            }
            (payable.status, payable.updated_at) = (PayableStatus::Paid, now);
            settled.payables += 1;
            events.push(payable_paid(payable));
            let sum = run.amounts.entry(payable.receivable.currency().code());
            sum.and_modify(|sum| *sum = sum.checked_add(payable.receivable).unwrap()).or_insert(payable.receivable);
            let transaction_id = payable.transaction_id;
            let mut siblings = state.payables.values().filter(|p| p.transaction_id == transaction_id);
            let (transaction, _) = state.transactions.get_mut(&transaction_id.0).expect("transactions stay");
            if transaction.status == TransactionStatus::PendingPayment
                && siblings.all(|p| p.status == PayableStatus::Paid)
                && let Ok(Transition::Executed(next)) = transaction.clone().settle(now, &UuidV7Generator)
            {
                settled.transactions += 1;
                events.extend(next.events);
                *transaction = next.transaction;
            } else if transaction.status == TransactionStatus::PendingRefund {
                // Whoever ends the refund must have seen it.
                transaction.version += 1;
            }
        }
        run.payables += settled.payables;
        run.transactions += settled.transactions;
        for event in &events {
            state.write_event(event, now);
        }
        drop(guard);
        self.wake();
        Ok(Some(settled))
    }

    async fn progress(&self, run_id: SettlementRunId) -> Result<Option<SettlementProgress>, StoreError> {
        let state = self.state();
        Ok(state.runs.get(&run_id.0).map(|run| SettlementProgress {
            chunks: u32::try_from(run.chunks.len()).unwrap(),
            settled_chunks: u32::try_from(run.chunks.iter().filter(|c| c.is_none()).count()).unwrap(),
            payables: run.payables,
            transactions: run.transactions,
            amounts: run.amounts.values().copied().collect(),
        }))
    }
}

/// The event as the domain makes it for a payable that is paid at once.
fn payable_paid(payable: &Payable) -> Event {
    let data = serde_json::json!({
        "transaction_id": payable.transaction_id,
        "installment": payable.installment,
        "receivable_amount": payable.receivable.minor(),
        "currency": payable.receivable.currency(),
    });
    Event {
        id: MessageId(UuidV7Generator.next_id()),
        kind: EventKind::PayablePaid,
        aggregate_id: payable.id.0,
        sequence: 1,
        customer_id: payable.customer_id.clone(),
        occurred_at: payable.updated_at,
        data: data.to_string(),
    }
}
