//! Writing is a value: what a use case decided, to be written whole or not at all.

use chrono::{DateTime, Utc};

use crate::{
    Attempt, CardToken, Currency, CustomerId, Event, IdempotencyKey, Order, OrderId, Payable, Refund, Transaction,
    TransactionId, TransactionStatus, Transitioned,
};

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
    /// A new row, with its sealed card where there is one.
    Insert(Box<Transaction>, Option<SealedCard>),
    /// A new state, or new attempts. The sealed card is erased in the same write unless the transaction is still
    /// `processing`.
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

    /// Whether authorization goes on after it, so that the sealed card is kept.
    pub fn keeps_card(&self) -> bool {
        self.transaction().status == TransactionStatus::Processing
    }
}

/// The write of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderWrite {
    /// A new row.
    Insert(Box<Order>),
    /// A new state.
    Update {
        /// The new state.
        order: Box<Order>,
        /// The version that the row must still have; otherwise [`Verdict::StaleVersion`].
        expected_version: i64,
    },
}

impl OrderWrite {
    /// The order that is written.
    pub fn order(&self) -> &Order {
        match self {
            Self::Insert(order) | Self::Update { order, .. } => order,
        }
    }
}

/// What is counted by status, so that no statistic scans a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CountSubject {
    /// Orders, by the [names](crate::OrderStatus::as_str) of their statuses.
    Order,
    /// Their payments, by the [names](crate::OrderPaymentStatus::as_str) of theirs.
    Payment,
}

impl CountSubject {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }
}

/// A count and a sum; in a change set, what is added to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCount {
    /// Whose.
    pub customer_id: CustomerId,
    /// What is counted.
    pub subject: CountSubject,
    /// In which status.
    pub status: String,
    /// In which currency.
    pub currency: Currency,
    /// How many.
    pub count: i64,
    /// The sum of their amounts, in minor units.
    pub amount: i64,
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
/// ([`Verdict::AlreadyApplied`]). It writes a transaction, an order, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// The transaction.
    pub transaction: Option<TransactionWrite>,
    /// The order.
    pub order: Option<OrderWrite>,
    /// Attempts of the transaction that are new or changed, by their numbers.
    pub attempts: Vec<Attempt>,
    /// Refunds of the transaction that are new or changed, by their numbers.
    pub refunds: Vec<Refund>,
    /// New payables. Their receivables move the customer's balance in the same write.
    pub payables: Vec<Payable>,
    /// Events; those of a kind with a [queue](crate::EventKind::queue) are messages, too, and each is to be delivered to the
    /// customer's webhook endpoints that ask for it. Empty only where there are attempts.
    pub events: Vec<Event>,
    /// What is added to counts by status.
    pub counts: Vec<StatusCount>,
    /// The request's idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
    /// The token of the card that is paid with: spent with this write, or else nothing is written ([`Verdict::Duplicate`]).
    pub spends: Option<CardToken>,
}

impl ChangeSet {
    /// The change set of a new transaction.
    pub fn create(transaction: Transaction, card: Option<SealedCard>, created: Event) -> Self {
        let counts = transaction.counts_from(None);
        let transaction = Some(TransactionWrite::Insert(Box::new(transaction), card));
        Self { transaction, events: vec![created], counts, ..Self::default() }
    }

    /// The change set of attempts alone: the transaction keeps its state, and its version moves on.
    pub fn of_attempts(mut transaction: Transaction, attempts: Vec<Attempt>) -> Self {
        let expected_version = transaction.version;
        transaction.version += 1;
        let transaction = Some(TransactionWrite::Update { transaction: Box::new(transaction), expected_version });
        Self { transaction, attempts, ..Self::default() }
    }

    /// The same with attempts written beside it.
    #[must_use]
    pub fn with_attempts(mut self, attempts: impl IntoIterator<Item = Attempt>) -> Self {
        self.attempts.extend(attempts);
        self
    }

    /// Which transaction it writes.
    pub fn transaction_id(&self) -> Option<TransactionId> {
        self.transaction.as_ref().map(|write| write.transaction().id)
    }

    /// Which order it writes.
    pub fn order_id(&self) -> Option<OrderId> {
        self.order.as_ref().map(|write| write.order().id)
    }
}

impl From<Transitioned> for ChangeSet {
    fn from(next: Transitioned) -> Self {
        Self {
            transaction: Some(TransactionWrite::Update {
                transaction: Box::new(next.transaction),
                expected_version: next.expected_version,
            }),
            refunds: next.refunds,
            payables: next.payables,
            events: next.events,
            counts: next.counts,
            ..Self::default()
        }
    }
}

/// What became of one change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable.
    Applied,
    /// The very same change set was durable before: its first event is there or, where it has none, its last attempt with
    /// this reference and state.
    AlreadyApplied,
    /// The row has another version than expected: nothing was written; load, decide again.
    StaleVersion,
    /// A unique key is taken (the idempotency key, a payable's instalment), or the card's token is not there any more: nothing
    /// was written.
    Duplicate,
}
