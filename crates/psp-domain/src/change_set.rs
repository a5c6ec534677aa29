//! Writing is a value: what a use case decided, to be written whole or not at all.

use chrono::{DateTime, Utc};

use crate::{CustomerId, Event, IdempotencyKey, Payable, Transaction, TransactionId, Transitioned};

/// The card of a transaction, encrypted by a [`crate::ports::CardVault`]. Opaque to everyone else.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCard(pub Vec<u8>);

impl std::fmt::Debug for SealedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedCard({} bytes)", self.0.len())
    }
}

/// The write of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionWrite {
    /// A new row, with its sealed card.
    Insert(Box<Transaction>, SealedCard),
    /// A new state. Authorization has ended with it, so the sealed card is erased in the same write.
    Update {
        /// The new state.
        transaction: Box<Transaction>,
        /// The version that the row must still have; otherwise [`Verdict::StaleVersion`].
        expected_version: i64,
    },
}

impl TransactionWrite {
    /// The transaction that is written.
    pub fn transaction(&self) -> &Transaction {
        match self {
            Self::Insert(transaction, _) | Self::Update { transaction, .. } => transaction,
        }
    }
}

/// A keyed hash of a request, to tell whether an idempotency key comes back with the same body. Keyed, because the body
/// holds a card number (PCI DSS 3.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// The answer to a request, as the entrypoint gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// An idempotency key with the answer of the request that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Whose key. Keys of different customers never meet.
    pub customer_id: CustomerId,
    /// The key.
    pub key: IdempotencyKey,
    /// The request.
    pub fingerprint: Fingerprint,
    /// The answer.
    pub answer: StoredAnswer,
    /// Until when the key is kept.
    pub expires_at: DateTime<Utc>,
}

/// Everything that one decision writes: in one database transaction, or not at all.
///
/// Ids and times in it are fixed when it is built, so writing the same change set again has one effect
/// ([`Verdict::AlreadyApplied`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// The transaction.
    pub transaction: TransactionWrite,
    /// New payables. Their receivables move the customer's balance in the same write.
    pub payables: Vec<Payable>,
    /// Events; those of a kind with a [queue](crate::EventKind::queue) are messages, too. Never empty.
    pub events: Vec<Event>,
    /// The request's idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
}

impl ChangeSet {
    /// The change set of a new transaction.
    pub fn create(transaction: Transaction, card: SealedCard, created: Event) -> Self {
        Self {
            transaction: TransactionWrite::Insert(Box::new(transaction), card),
            payables: Vec::new(),
            events: vec![created],
            idempotency: None,
        }
    }

    /// Which transaction it writes.
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction.transaction().id
    }
}

impl From<Transitioned> for ChangeSet {
    fn from(next: Transitioned) -> Self {
        Self {
            transaction: TransactionWrite::Update {
                transaction: Box::new(next.transaction),
                expected_version: next.expected_version,
            },
            payables: next.payables,
            events: next.events,
            idempotency: None,
        }
    }
}

/// What became of one change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable.
    Applied,
    /// The very same change set was durable before.
    AlreadyApplied,
    /// The row has another version than expected: nothing was written; load, decide again.
    StaleVersion,
    /// A unique key is taken (the idempotency key, a payable's instalment): nothing was written.
    Duplicate,
}
