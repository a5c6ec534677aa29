use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Message, QueueName};
use crate::{
    Attempt, Balance, ChangeSet, Currency, CustomerId, IdempotencyKey, IdempotencyRecord, MessageId, Money, Page,
    PageRequest, Payable, PayableId, SealedCard, SettlementRunId, Transaction, TransactionId, TransactionKind, Verdict,
};

/// A failure of the store itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or does not answer. Nothing was written.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Too many writes wait already. Nothing was written.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The answer to a COMMIT was lost: apply the same change set again to learn whether it was written.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row does not make sense.
    #[error("damaged row: {0}")]
    Damaged(String),
}

/// Writes change sets.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes each change set whole or not at all, all that succeed in one database transaction; one verdict per input, in
    /// order. When it returns `Ok`, what is `Applied` is durable. Two change sets for one transaction are taken in order.
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError>;

    /// Writes one change set: a batch of one.
    async fn apply(&self, change: ChangeSet) -> Result<Verdict, StoreError> {
        let verdicts = self.apply_all(vec![change]).await?;
        verdicts.first().copied().ok_or_else(|| StoreError::Damaged("no verdict for a change set".into()))
    }
}

/// A transaction that waits for authorization, with what is needed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnauthorizedTransaction {
    /// The transaction, in whatever state it is by now.
    pub transaction: Transaction,
    /// Its card; gone once authorization ended, and never there for methods without one.
    pub card: Option<SealedCard>,
    /// Its attempts, in their order.
    pub attempts: Vec<Attempt>,
}

/// Reads transactions.
#[async_trait]
pub trait TransactionReader: Send + Sync {
    /// One transaction of a customer. `None` for another customer's.
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError>;

    /// A page of a customer's transactions of one kind, newest first.
    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError>;

    /// The transactions of those ids, in any order, whoever's they are; ids that do not exist are left out. For workers.
    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError>;
}

/// Reads payables.
#[async_trait]
pub trait PayableReader: Send + Sync {
    /// One payable of a customer. `None` for another customer's.
    async fn find(&self, customer: &CustomerId, id: PayableId) -> Result<Option<Payable>, StoreError>;

    /// A page of a customer's payables, newest first.
    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Payable>, StoreError>;
}

/// Reads balances.
#[async_trait]
pub trait BalanceReader: Send + Sync {
    /// A customer's balance: zero for one without payables. One row, however many payables there are.
    async fn balance(&self, customer: &CustomerId, currency: Currency) -> Result<Balance, StoreError>;
}

/// Keeps idempotency keys; most are written with what their requests write.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// The record of a key that has not expired at `now`.
    async fn find(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Stores a record, unless one of its key is there that has not expired: `false`, and that one stays. The same record again
    /// has one effect and is `true`.
    async fn keep(&self, record: &IdempotencyRecord) -> Result<bool, StoreError>;

    /// Deletes up to `limit` records that expired before `now`; says how many it deleted.
    async fn purge_expired(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError>;
}

/// One chunk of a settlement run: the body of a `settle_payables` message on `payables-settlement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlementChunk {
    /// The run.
    pub run_id: SettlementRunId,
    /// Which chunk of it: from 1.
    pub number: u32,
}

impl SettlementChunk {
    /// The kind of its messages.
    pub const MESSAGE_KIND: &str = "settle_payables";
    /// The most chunks of one run.
    pub const MAX_PER_RUN: u32 = 10_000;

    /// The message that asks for its settlement. Its id follows from the chunk, so planning a run again sends nothing twice.
    pub fn message(self) -> Message {
        let mut id = *self.run_id.0.as_bytes();
        for (byte, number) in id[12..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        Message {
            id: MessageId(Uuid::from_bytes(id)),
            queue: QueueName::PayablesSettlement,
            kind: Self::MESSAGE_KIND.to_owned(),
            aggregate_id: self.run_id.0,
            body: serde_json::to_string(&self).expect("plain data is JSON"),
        }
    }
}

/// What settling one chunk did. Zero of everything when it was settled before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettledChunk {
    /// Payables that became `paid`.
    pub payables: u64,
    /// Transactions that became `paid`.
    pub transactions: u64,
}

/// How far a settlement run is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettlementProgress {
    /// Chunks it was cut into.
    pub chunks: u32,
    /// Chunks settled.
    pub settled_chunks: u32,
    /// Payables that it made `paid`.
    pub payables: u64,
    /// Transactions that it made `paid`.
    pub transactions: u64,
    /// The receivables that it paid, one per currency.
    pub amounts: Vec<Money>,
}

/// Settles in bulk: never loads rows to write them back.
#[async_trait]
pub trait SettlementStore: Send + Sync {
    /// Cuts the waiting payables with a payment date before `due_before` into chunks of `chunk_size` and stores, in one
    /// database transaction, the run, its chunks and one message per chunk. At most [`SettlementChunk::MAX_PER_RUN`]; later payables are
    /// left to the next run. Returns the number of chunks; a run without chunks is stored, too.
    async fn plan_run(
        &self,
        run_id: SettlementRunId,
        due_before: DateTime<Utc>,
        chunk_size: u32,
        now: DateTime<Utc>,
    ) -> Result<u32, StoreError>;

    /// Settles one chunk in one database transaction: its waiting payables and the transactions whose last payable that
    /// was become `paid`, with events, balances and the run's figures. Again: nothing. `None` when there is no such chunk.
    async fn settle_chunk(
        &self,
        chunk: SettlementChunk,
        now: DateTime<Utc>,
    ) -> Result<Option<SettledChunk>, StoreError>;

    /// How far a run is. `None` when there is no such run.
    async fn progress(&self, run_id: SettlementRunId) -> Result<Option<SettlementProgress>, StoreError>;
}

/// Whether an adapter can do its work.
#[async_trait]
pub trait Health: Send + Sync {
    /// Asks the server for something cheap.
    async fn check(&self) -> Result<(), StoreError>;
}
