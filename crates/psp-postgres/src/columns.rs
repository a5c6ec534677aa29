//! Rows as columns: what `UNNEST` takes.

use chrono::{DateTime, Datelike, Utc};
use psp_domain::{
    ChangeSet, Event, IdempotencyRecord, Payable, PayableStatus, QueueName, SealedCard, Transaction, TransactionWrite,
};
use rust_decimal::Decimal;
use uuid::Uuid;

/// The columns of one table's rows. `n` names the change set that a row belongs to.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name<'c> {
            pub(crate) n: Vec<i32>,
            $(pub(crate) $column: Vec<$type>,)*
        }
    };
}

columns! {
    /// Idempotency keys.
    Keys {
        customer_id: &'c str,
        key: &'c str,
        fingerprint: &'c [u8],
        status: i16,
        body: &'c str,
        expires_at: DateTime<Utc>,
    }
}

columns! {
    /// New transactions.
    Inserts {
        id: Uuid,
        customer_id: &'c str,
        description: &'c str,
        amount: i64,
        currency: &'c str,
        payment_method: &'c str,
        card_holder_name: &'c str,
        card_expiry: i32,
        card_last_four: &'c str,
        card_brand: &'c str,
        installments: i16,
        status: &'c str,
        version: i64,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
        sealed_card: &'c [u8],
    }
}

columns! {
    /// New states of transactions.
    Updates {
        id: Uuid,
        expected: i64,
        status: &'c str,
        status_reason: Option<&'c str>,
        gateway: Option<&'c str>,
        gateway_reference: Option<&'c str>,
        waiting_payables: i16,
        version: i64,
        updated_at: DateTime<Utc>,
    }
}

columns! {
    /// New payables.
    Payables {
        id: Uuid,
        transaction_id: Uuid,
        installment: i16,
        customer_id: &'c str,
        currency: &'c str,
        fee_percent: Decimal,
        fee: i64,
        receivable: i64,
        status: &'c str,
        payment_date: DateTime<Utc>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
    }
}

columns! {
    /// Events.
    Events {
        id: Uuid,
        kind: &'c str,
        aggregate_id: Uuid,
        sequence: i64,
        customer_id: &'c str,
        body: &'c str,
        sent_at: DateTime<Utc>,
        queue: Option<&'c str>,
        visible_at: Option<DateTime<Utc>>,
    }
}

/// Every row of some change sets.
#[derive(Default)]
pub(crate) struct Columns<'c> {
    pub(crate) keys: Keys<'c>,
    pub(crate) inserts: Inserts<'c>,
    pub(crate) updates: Updates<'c>,
    pub(crate) payables: Payables<'c>,
    pub(crate) events: Events<'c>,
}

impl<'c> Columns<'c> {
    /// The columns of these change sets; `n` counts them from 0.
    pub(crate) fn of(changes: &[&'c ChangeSet]) -> Self {
        let mut columns = Self::default();
        for (n, change) in (0..).zip(changes) {
            if let Some(record) = &change.idempotency {
                columns.keys.push(n, record);
            }
            match &change.transaction {
                TransactionWrite::Insert(transaction, card) => columns.inserts.push(n, transaction, card),
                TransactionWrite::Update { transaction, expected_version } => {
                    let waiting = change.payables.iter().filter(|p| p.status == PayableStatus::WaitingFunds).count();
                    columns.updates.push(n, transaction, *expected_version, waiting);
                }
            }
            change.payables.iter().for_each(|payable| columns.payables.push(n, payable));
            change.events.iter().for_each(|event| columns.events.push(n, event));
        }
        columns
    }
}

impl<'c> Keys<'c> {
    fn push(&mut self, n: i32, record: &'c IdempotencyRecord) {
        self.n.push(n);
        self.customer_id.push(record.customer_id.as_str());
        self.key.push(record.key.as_str());
        self.fingerprint.push(&record.fingerprint.0);
        self.status.push(record.answer.status.cast_signed());
        self.body.push(&record.answer.body);
        self.expires_at.push(record.expires_at);
    }
}

impl<'c> Inserts<'c> {
    fn push(&mut self, n: i32, t: &'c Transaction, card: &'c SealedCard) {
        let expiry = t.card.expiry.first_day();
        self.n.push(n);
        self.id.push(t.id.0);
        self.customer_id.push(t.customer_id.as_str());
        self.description.push(&t.description);
        self.amount.push(t.amount.minor());
        self.currency.push(t.amount.currency().code());
        self.payment_method.push(t.payment_method.as_str());
        self.card_holder_name.push(t.card.holder_name.as_str());
        self.card_expiry.push(expiry.year() * 100 + expiry.month().cast_signed());
        self.card_last_four.push(&t.card.last_four);
        self.card_brand.push(t.card.brand.as_str());
        self.installments.push(i16::from(t.installments.get()));
        self.status.push(t.status.as_str());
        self.version.push(t.version);
        self.created_at.push(t.created_at);
        self.updated_at.push(t.updated_at);
        self.sealed_card.push(&card.0);
    }
}

impl<'c> Updates<'c> {
    fn push(&mut self, n: i32, t: &'c Transaction, expected: i64, waiting: usize) {
        let gateway = t.gateway.as_ref();
        self.n.push(n);
        self.id.push(t.id.0);
        self.expected.push(expected);
        self.status.push(t.status.as_str());
        self.status_reason.push(t.status_reason.as_deref());
        self.gateway.push(gateway.map(|g| &*g.gateway));
        self.gateway_reference.push(gateway.map(|g| &*g.reference));
        self.waiting_payables.push(i16::try_from(waiting).unwrap_or(i16::MAX));
        self.version.push(t.version);
        self.updated_at.push(t.updated_at);
    }
}

impl<'c> Payables<'c> {
    fn push(&mut self, n: i32, p: &'c Payable) {
        self.n.push(n);
        self.id.push(p.id.0);
        self.transaction_id.push(p.transaction_id.0);
        self.installment.push(i16::from(p.installment));
        self.customer_id.push(p.customer_id.as_str());
        self.currency.push(p.receivable.currency().code());
        self.fee_percent.push(p.fee_percent);
        self.fee.push(p.fee.minor());
        self.receivable.push(p.receivable.minor());
        self.status.push(p.status.as_str());
        self.payment_date.push(p.payment_date);
        self.created_at.push(p.created_at);
        self.updated_at.push(p.updated_at);
    }
}

impl<'c> Events<'c> {
    fn push(&mut self, n: i32, e: &'c Event) {
        let queue = e.kind.queue();
        self.n.push(n);
        self.id.push(e.id.0);
        self.kind.push(e.kind.as_str());
        self.aggregate_id.push(e.aggregate_id);
        self.sequence.push(e.sequence);
        self.customer_id.push(e.customer_id.as_str());
        self.body.push(&e.data);
        self.sent_at.push(e.occurred_at);
        self.queue.push(queue.map(QueueName::as_str));
        self.visible_at.push(queue.map(|_| e.occurred_at));
    }
}
