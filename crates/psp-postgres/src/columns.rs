//! Rows as columns: what `UNNEST` takes.

use chrono::{DateTime, Utc};
use psp_domain::{
    Attempt, CardToken, ChangeSet, Country, Event, GatewayName, IdempotencyRecord, OrderName, OrderWrite, Payable,
    PayableStatus, QueueName, Refund, SealedCard, StatusCount, Transaction, TransactionWrite, UserId,
};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::attempts::stored_number;
use crate::transactions::stored_expiry;

/// The columns of one table's rows. `n` names the change set that a row belongs to.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($column:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name $(<$life>)? {
            pub(crate) n: Vec<i32>,
            $(pub(crate) $column: Vec<$type>,)*
        }
    };
}

columns! {
    /// Tokens of cards that are spent.
    Tokens {
        token: Uuid,
    }
}

columns! {
    /// Idempotency keys.
    Keys<'c> {
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
    Inserts<'c> {
        id: Uuid,
        kind: &'c str,
        customer_id: &'c str,
        description: &'c str,
        amount: i64,
        currency: &'c str,
        payment_method: &'c str,
        card_holder_name: Option<&'c str>,
        card_expiry: Option<i32>,
        card_last_four: Option<&'c str>,
        card_brand: Option<&'c str>,
        installments: i16,
        order_id: Option<&'c str>,
        user_id: Option<&'c str>,
        country: Option<&'c str>,
        requested_gateway: Option<&'c str>,
        status: &'c str,
        version: i64,
        sequence: i64,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
        sealed_card: Option<&'c [u8]>,
    }
}

columns! {
    /// New states of transactions.
    Updates<'c> {
        id: Uuid,
        expected: i64,
        status: &'c str,
        status_reason: Option<&'c str>,
        gateway: Option<&'c str>,
        gateway_reference: Option<&'c str>,
        waiting_payables: i16,
        version: i64,
        sequence: i64,
        updated_at: DateTime<Utc>,
        keeps_card: bool,
    }
}

columns! {
    /// Attempts that are new or changed.
    Attempts<'c> {
        transaction_id: Uuid,
        number: i16,
        gateway: &'c str,
        reference: Uuid,
        state: &'c str,
        gateway_reference: Option<&'c str>,
        reason: Option<&'c str>,
        check_at: Option<DateTime<Utc>>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
    }
}

columns! {
    /// New payables.
    Payables<'c> {
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
        refund: i16,
    }
}

columns! {
    /// Events.
    Events<'c> {
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

columns! {
    /// Orders that are new, without an expected version, or changed.
    Orders<'c> {
        id: Uuid,
        expected: Option<i64>,
        customer_id: &'c str,
        user_id: &'c str,
        total: i64,
        currency: &'c str,
        payment_method: &'c str,
        status: &'c str,
        status_reason: Option<&'c str>,
        is_created: bool,
        is_cancel_requested: bool,
        payment_id: Option<Uuid>,
        correlation_id: &'c str,
        version: i64,
        sequence: i64,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
    }
}

columns! {
    /// New transactions with the orders that they pay.
    Links<'c> {
        id: Uuid,
        placed_order: Uuid,
        correlation_id: &'c str,
    }
}

columns! {
    /// What was asked back of transactions, and given.
    Totals {
        id: Uuid,
        count: i16,
        pending: i64,
        done: i64,
    }
}

columns! {
    /// Refunds that are new or changed.
    Refunds<'c> {
        id: Uuid,
        transaction_id: Uuid,
        number: i16,
        customer_id: &'c str,
        amount: i64,
        currency: &'c str,
        status: &'c str,
        reason: Option<&'c str>,
        gateway_reference: Option<&'c str>,
        check_at: Option<DateTime<Utc>>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
    }
}

columns! {
    /// What is added to counts by status.
    Counts<'c> {
        customer_id: &'c str,
        subject: &'c str,
        status: &'c str,
        currency: &'c str,
        count: i64,
        amount: i64,
    }
}

/// Every row of some change sets that the one statement writes.
#[derive(Default)]
pub(crate) struct Columns<'c> {
    pub(crate) tokens: Tokens,
    pub(crate) keys: Keys<'c>,
    pub(crate) inserts: Inserts<'c>,
    pub(crate) updates: Updates<'c>,
    pub(crate) attempts: Attempts<'c>,
    pub(crate) payables: Payables<'c>,
    pub(crate) events: Events<'c>,
}

impl<'c> Columns<'c> {
    /// The columns of these change sets; `n` counts them from 0.
    pub(crate) fn of(changes: &[&'c ChangeSet]) -> Self {
        let mut columns = Self::default();
        for (n, change) in (0..).zip(changes) {
            if let Some(token) = change.spends {
                columns.tokens.push(n, token);
            }
            if let Some(record) = &change.idempotency {
                columns.keys.push(n, record);
            }
            match &change.transaction {
                Some(TransactionWrite::Insert(transaction, card)) => {
                    columns.inserts.push(n, transaction, card.as_ref());
                }
                Some(write @ TransactionWrite::Update { expected_version, .. }) => {
                    let waiting = change.payables.iter().filter(|p| p.status == PayableStatus::WaitingFunds).count();
                    columns.updates.push(n, write, *expected_version, waiting);
                }
                None => {}
            }
            change.attempts.iter().for_each(|attempt| columns.attempts.push(n, attempt));
            change.payables.iter().for_each(|payable| columns.payables.push(n, payable));
            change.events.iter().for_each(|event| columns.events.push(n, event));
        }
        columns
    }
}

impl Tokens {
    fn push(&mut self, n: i32, token: CardToken) {
        self.n.push(n);
        self.token.push(token.0);
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
    fn push(&mut self, n: i32, t: &'c Transaction, sealed: Option<&'c SealedCard>) {
        let (card, named) = (t.card.as_ref(), &t.named);
        self.n.push(n);
        self.id.push(t.id.0);
        self.kind.push(t.kind.as_str());
        self.customer_id.push(t.customer_id.as_str());
        self.description.push(&t.description);
        self.amount.push(t.amount.minor());
        self.currency.push(t.amount.currency().code());
        self.payment_method.push(t.payment_method.as_str());
        self.card_holder_name.push(card.map(|c| c.holder_name.as_str()));
        self.card_expiry.push(card.map(stored_expiry));
        self.card_last_four.push(card.map(|c| &*c.last_four));
        self.card_brand.push(card.map(|c| c.brand.as_str()));
        self.installments.push(i16::from(t.installments.get()));
        self.order_id.push(named.order_id.as_ref().map(OrderName::as_str));
        self.user_id.push(named.user_id.as_ref().map(UserId::as_str));
        self.country.push(named.country.map(Country::as_str));
        self.requested_gateway.push(named.gateway.as_ref().map(GatewayName::as_str));
        self.status.push(t.status.as_str());
        self.version.push(t.version);
        self.sequence.push(t.sequence);
        self.created_at.push(t.created_at);
        self.updated_at.push(t.updated_at);
        self.sealed_card.push(sealed.map(|card| &*card.0));
    }
}

impl<'c> Updates<'c> {
    fn push(&mut self, n: i32, write: &'c TransactionWrite, expected: i64, waiting: usize) {
        let t = write.transaction();
        let gateway = t.gateway.as_ref();
        self.n.push(n);
        self.id.push(t.id.0);
        self.expected.push(expected);
        self.status.push(t.status.as_str());
        self.status_reason.push(t.status_reason.as_deref());
        self.gateway.push(gateway.map(|g| g.gateway.as_str()));
        self.gateway_reference.push(gateway.map(|g| &*g.reference));
        self.waiting_payables.push(i16::try_from(waiting).unwrap_or(i16::MAX));
        self.version.push(t.version);
        self.sequence.push(t.sequence);
        self.updated_at.push(t.updated_at);
        self.keeps_card.push(write.keeps_card());
    }
}

impl<'c> Attempts<'c> {
    fn push(&mut self, n: i32, a: &'c Attempt) {
        self.n.push(n);
        self.transaction_id.push(a.transaction_id.0);
        self.number.push(stored_number(a));
        self.gateway.push(a.gateway.as_str());
        self.reference.push(a.reference.0);
        self.state.push(a.state.as_str());
        self.gateway_reference.push(a.gateway_reference.as_deref());
        self.reason.push(a.reason.as_deref());
        self.check_at.push(a.check_at);
        self.created_at.push(a.created_at);
        self.updated_at.push(a.updated_at);
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
        self.refund.push(p.refund.cast_signed());
    }
}

impl<'c> Events<'c> {
    pub(crate) fn push(&mut self, n: i32, e: &'c Event) {
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

impl<'c> Orders<'c> {
    pub(crate) fn push(&mut self, n: i32, write: &'c OrderWrite) {
        let o = write.order();
        self.n.push(n);
        self.id.push(o.id.0);
        self.expected.push(match write {
            OrderWrite::Insert(_) => None,
            OrderWrite::Update { expected_version, .. } => Some(*expected_version),
        });
        self.customer_id.push(o.customer_id.as_str());
        self.user_id.push(o.user_id.as_str());
        self.total.push(o.total.minor());
        self.currency.push(o.total.currency().code());
        self.payment_method.push(o.payment_method.as_str());
        self.status.push(o.status.as_str());
        self.status_reason.push(o.status_reason.as_deref());
        self.is_created.push(o.is_created);
        self.is_cancel_requested.push(o.is_cancel_requested);
        self.payment_id.push(o.payment_id.map(|id| id.0));
        self.correlation_id.push(o.correlation_id.as_str());
        self.version.push(o.version);
        self.sequence.push(o.sequence);
        self.created_at.push(o.created_at);
        self.updated_at.push(o.updated_at);
    }
}

impl<'c> Links<'c> {
    pub(crate) fn push(&mut self, n: i32, t: &'c Transaction) {
        let Some(order) = &t.order else { return };
        self.n.push(n);
        self.id.push(t.id.0);
        self.placed_order.push(order.id.0);
        self.correlation_id.push(order.correlation_id.as_str());
    }
}

impl Totals {
    pub(crate) fn push(&mut self, n: i32, t: &Transaction) {
        self.n.push(n);
        self.id.push(t.id.0);
        self.count.push(t.refunds.count.cast_signed());
        self.pending.push(t.refunds.pending.minor());
        self.done.push(t.refunds.done.minor());
    }
}

impl<'c> Refunds<'c> {
    pub(crate) fn push(&mut self, n: i32, r: &'c Refund) {
        self.n.push(n);
        self.id.push(r.id.0);
        self.transaction_id.push(r.transaction_id.0);
        self.number.push(r.number.cast_signed());
        self.customer_id.push(r.customer_id.as_str());
        self.amount.push(r.amount.minor());
        self.currency.push(r.amount.currency().code());
        self.status.push(r.status.as_str());
        self.reason.push(r.reason.as_deref());
        self.gateway_reference.push(r.gateway_reference.as_deref());
        self.check_at.push(r.check_at);
        self.created_at.push(r.created_at);
        self.updated_at.push(r.updated_at);
    }
}

impl<'c> Counts<'c> {
    pub(crate) fn push(&mut self, n: i32, c: &'c StatusCount) {
        self.n.push(n);
        self.customer_id.push(c.customer_id.as_str());
        self.subject.push(c.subject.as_str());
        self.status.push(&c.status);
        self.currency.push(c.currency.code());
        self.count.push(c.count);
        self.amount.push(c.amount);
    }
}
