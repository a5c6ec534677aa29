use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    BalanceReader, Clock, Health, IdempotencyStore, PayableReader, Store, StoreError, TokenizedCard, TransactionReader,
    UnauthorizedTransaction,
};
use psp_domain::{
    Attempt, Balance, Callback, ChangeSet, CountSubject, Currency, CustomerId, EndpointId, Event, GatewayHealth,
    GatewayRecord, IdempotencyKey, IdempotencyRecord, MessageId, Money, Order, OrderWrite, Page, PageRequest, Payable,
    PayableId, PayableStatus, Refund, Route, SealedCard, StatusCount, Transaction, TransactionId, TransactionKind,
    TransactionWrite, Verdict, WebhookEndpoint,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::memory_queue::Stored;
use super::memory_settlement::Run;
use super::memory_webhooks::Delivering;
use crate::clock::FixedClock;

/// Store and queue in memory.
pub struct Memory {
    pub(super) state: Mutex<State>,
    pub(super) clock: Arc<FixedClock>,
    pub(super) sent: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) transactions: BTreeMap<Uuid, (Transaction, Option<SealedCard>)>,
    pub(super) payables: BTreeMap<Uuid, Payable>,
    installments: HashSet<(TransactionId, u8, u16)>,
    pub(super) orders: BTreeMap<Uuid, Order>,
    pub(super) refunds: BTreeMap<Uuid, Refund>,
    pub(super) counts: BTreeMap<(CustomerId, CountSubject, String, &'static str), StatusCount>,
    pub(super) events: Vec<Event>,
    event_ids: HashSet<MessageId>,
    pub(super) keys: HashMap<(CustomerId, IdempotencyKey), IdempotencyRecord>,
    pub(super) messages: BTreeMap<Uuid, Stored>,
    pub(super) runs: HashMap<Uuid, Run>,
    pub(super) attempts: BTreeMap<(TransactionId, u16), Attempt>,
    pub(super) callbacks: BTreeMap<Uuid, Callback>,
    pub(super) tokens: BTreeMap<Uuid, TokenizedCard>,
    pub(super) gateways: BTreeMap<String, GatewayRecord>,
    pub(super) routes: Vec<Route>,
    pub(super) health: Vec<GatewayHealth>,
    pub(super) endpoints: BTreeMap<Uuid, WebhookEndpoint>,
    pub(super) deliveries: BTreeMap<(MessageId, EndpointId), Delivering>,
    pub(super) vault_keys: HashMap<String, Vec<u8>>,
}

impl Memory {
    /// An empty memory.
    pub fn new(clock: Arc<FixedClock>) -> Self {
        Self { state: Mutex::default(), clock, sent: Notify::new() }
    }

    /// Every event, in the order in which they were written.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// Wakes whoever waits for messages or deliveries.
    pub(super) fn wake(&self) {
        self.sent.notify_waiters();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn apply(&mut self, change: &ChangeSet, now: DateTime<Utc>) -> Verdict {
        if self.is_applied(change) {
            return Verdict::AlreadyApplied;
        }
        if change.spends.is_some_and(|token| !self.tokens.contains_key(&token.0)) {
            return Verdict::Duplicate;
        }
        if change.idempotency.as_ref().is_some_and(|record| self.is_key_taken(record, now)) {
            return Verdict::Duplicate;
        }
        let taken = |p: &Payable| self.installments.contains(&(p.transaction_id, p.installment, p.refund));
        match &change.transaction {
            Some(TransactionWrite::Insert(transaction, _)) if self.transactions.contains_key(&transaction.id.0) => {
                return Verdict::Duplicate;
            }
            Some(write @ TransactionWrite::Update { .. }) if !self.has_version(write) => return Verdict::StaleVersion,
            Some(TransactionWrite::Update { .. }) if change.payables.iter().any(taken) => return Verdict::Duplicate,
            _ => {}
        }
        match &change.order {
            Some(OrderWrite::Insert(order)) if self.orders.contains_key(&order.id.0) => return Verdict::Duplicate,
            Some(OrderWrite::Update { order, expected_version })
                if self.orders.get(&order.id.0).is_none_or(|o| o.version != *expected_version) =>
            {
                return Verdict::StaleVersion;
            }
            _ => {}
        }
        self.write(change, now);
        Verdict::Applied
    }

    /// Whether the row has the version that an update expects.
    fn has_version(&self, write: &TransactionWrite) -> bool {
        let TransactionWrite::Update { transaction, expected_version } = write else { return false };
        self.transactions.get(&transaction.id.0).is_some_and(|(t, _)| t.version == *expected_version)
    }

    fn is_applied(&self, change: &ChangeSet) -> bool {
        if let Some(first) = change.events.first() {
            return self.event_ids.contains(&first.id);
        }
        if change.transaction.as_ref().is_some_and(|write| self.has_version(write)) {
            return false;
        }
        let last = change.attempts.last().expect("a change set has events or attempts");
        let written = self.attempts.get(&(last.transaction_id, last.number));
        written.is_some_and(|attempt| attempt.reference == last.reference && attempt.state == last.state)
    }

    pub(super) fn attempts_of(&self, id: TransactionId) -> Vec<Attempt> {
        self.attempts.range((id, 0)..=(id, u16::MAX)).map(|(_, attempt)| attempt.clone()).collect()
    }

    /// Writes an event with its message and its deliveries.
    pub(super) fn write_event(&mut self, event: &Event, now: DateTime<Utc>) {
        if let Some(queue) = event.kind.queue() {
            self.messages.insert(event.id.0, Stored::of_event(event, queue, now));
        }
        self.event_ids.insert(event.id);
        self.events.push(event.clone());
        self.deliver(event, now);
    }

    /// Deletes an event with its deliveries.
    pub(super) fn forget_event(&mut self, id: MessageId) {
        self.event_ids.remove(&id);
        self.events.retain(|event| event.id != id);
        self.deliveries.retain(|(event, _), _| *event != id);
    }

    fn write(&mut self, change: &ChangeSet, now: DateTime<Utc>) {
        if let Some(write) = &change.transaction {
            let transaction = write.transaction();
            let card = match write {
                TransactionWrite::Insert(_, card) => card.clone(),
                TransactionWrite::Update { .. } => {
                    let kept = self.transactions.get(&transaction.id.0).and_then(|(_, card)| card.clone());
                    kept.filter(|_| write.keeps_card())
                }
            };
            self.transactions.insert(transaction.id.0, (transaction.clone(), card));
        }
        if let Some(write) = &change.order {
            self.orders.insert(write.order().id.0, write.order().clone());
        }
        if let Some(token) = change.spends {
            self.tokens.remove(&token.0);
        }
        self.attempts.extend(change.attempts.iter().map(|a| ((a.transaction_id, a.number), a.clone())));
        self.refunds.extend(change.refunds.iter().map(|r| (r.id.0, r.clone())));
        self.payables.extend(change.payables.iter().map(|p| (p.id.0, p.clone())));
        self.installments.extend(change.payables.iter().map(|p| (p.transaction_id, p.installment, p.refund)));
        for added in &change.counts {
            let key = (added.customer_id.clone(), added.subject, added.status.clone(), added.currency.code());
            let empty = StatusCount { count: 0, amount: 0, ..added.clone() };
            let sum = self.counts.entry(key).or_insert(empty);
            sum.count += added.count;
            sum.amount += added.amount;
        }
        for event in &change.events {
            self.write_event(event, now);
        }
        self.keep_key(change.idempotency.as_ref());
    }

    /// Whether another record of that key is there that has not expired.
    pub(super) fn is_key_taken(&self, record: &IdempotencyRecord, now: DateTime<Utc>) -> bool {
        let key = (record.customer_id.clone(), record.key.clone());
        self.keys.get(&key).is_some_and(|taken| taken.expires_at > now)
    }

    pub(super) fn keep_key(&mut self, record: Option<&IdempotencyRecord>) {
        if let Some(record) = record {
            self.keys.insert((record.customer_id.clone(), record.key.clone()), record.clone());
        }
    }
}

pub(super) fn page<T: Clone>(rows: impl Iterator<Item = T>, request: PageRequest, id: impl Fn(&T) -> Uuid) -> Page<T> {
    let after = request.after().unwrap_or(Uuid::max());
    let rows = rows.filter(|row| id(row) < after).skip(request.offset() as usize).take(request.limit() as usize + 1);
    Page::from_rows(rows.collect(), request, id)
}

#[async_trait]
impl Store for Memory {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let verdicts = changes.iter().map(|change| state.apply(change, now)).collect();
        drop(state);
        self.wake();
        Ok(verdicts)
    }
}

#[async_trait]
impl TransactionReader for Memory {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        let found = self.state().transactions.get(&id.0).map(|(t, _)| t.clone());
        Ok(found.filter(|t| t.customer_id == *customer))
    }

    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        request: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        let state = self.state();
        let all = state.transactions.values().rev().map(|(t, _)| t.clone());
        let own = all.filter(|t| t.customer_id == *customer && t.kind == kind);
        Ok(page(own, request, |t| t.id.0))
    }

    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        let state = self.state();
        let found = ids.iter().filter_map(|id| state.transactions.get(&id.0).cloned());
        let loaded = found.map(|(transaction, card)| {
            let attempts = state.attempts_of(transaction.id);
            UnauthorizedTransaction { transaction, card, attempts }
        });
        Ok(loaded.collect())
    }
}

#[async_trait]
impl PayableReader for Memory {
    async fn find(&self, customer: &CustomerId, id: PayableId) -> Result<Option<Payable>, StoreError> {
        let found = self.state().payables.get(&id.0).cloned();
        Ok(found.filter(|p| p.customer_id == *customer))
    }

    async fn list(&self, customer: &CustomerId, request: PageRequest) -> Result<Page<Payable>, StoreError> {
        let state = self.state();
        let own = state.payables.values().rev().filter(|p| p.customer_id == *customer).cloned();
        Ok(page(own, request, |p| p.id.0))
    }
}

#[async_trait]
impl BalanceReader for Memory {
    async fn balance(&self, customer: &CustomerId, currency: Currency) -> Result<Balance, StoreError> {
        let state = self.state();
        let own = state.payables.values().filter(|p| p.customer_id == *customer && p.receivable.currency() == currency);
        let sum = |status| own.clone().filter(|p| p.status == status).map(|p| p.receivable.minor()).sum();
        Ok(Balance {
            available: Money::new(sum(PayableStatus::Paid), currency),
            waiting_funds: Money::new(sum(PayableStatus::WaitingFunds), currency),
        })
    }
}

#[async_trait]
impl IdempotencyStore for Memory {
    async fn find(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let found = self.state().keys.get(&(customer.clone(), key.clone())).cloned();
        Ok(found.filter(|record| record.expires_at > now))
    }

    async fn keep(&self, record: &IdempotencyRecord) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        if state.is_key_taken(record, now) {
            return Ok(state.keys.values().any(|kept| kept == record));
        }
        state.keep_key(Some(record));
        Ok(true)
    }

    async fn purge_expired(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        let expired = state.keys.iter().filter(|(_, record)| record.expires_at <= now).map(|(key, _)| key.clone());
        let expired: Vec<_> = expired.take(limit as usize).collect();
        for key in &expired {
            state.keys.remove(key);
        }
        Ok(expired.len() as u64)
    }
}

#[async_trait]
impl Health for Memory {
    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store that fails as told, then does as its inner one.
pub struct FailingStore {
    inner: Arc<dyn Store>,
    /// What becomes of the next writes: `None` for one that does not fail.
    fates: Mutex<VecDeque<Option<(StoreError, bool)>>>,
}

impl FailingStore {
    /// Nothing fails yet.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, fates: Mutex::default() }
    }

    /// The next write fails like this, after it was written or instead.
    pub fn fail_next(&self, error: StoreError, after_writing: bool) {
        self.fail_after(0, error, after_writing);
    }

    /// The write after that many others fails like this.
    pub fn fail_after(&self, others: usize, error: StoreError, after_writing: bool) {
        let mut fates = self.fates.lock().unwrap();
        fates.extend((0..others).map(|_| None));
        fates.push_back(Some((error, after_writing)));
    }
}

#[async_trait]
impl Store for FailingStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        let fate = self.fates.lock().unwrap().pop_front().flatten();
        match fate {
            None => self.inner.apply_all(changes).await,
            Some((error, false)) => Err(error),
            Some((error, true)) => {
                self.inner.apply_all(changes).await?;
                Err(error)
            }
        }
    }
}
