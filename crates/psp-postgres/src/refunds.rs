use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{LoadedRefund, RefundStore, StoreError, Sweep, TransactionReader, check_refund_message};
use psp_domain::{CustomerId, MessageId, Money, Refund, RefundId, RefundStatus, TransactionId};
use uuid::Uuid;

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;
use crate::ids::id_prefix;

struct Row {
    id: Uuid,
    transaction_id: Uuid,
    number: i16,
    customer_id: String,
    amount: i64,
    currency: String,
    status: String,
    reason: Option<String>,
    gateway_reference: Option<String>,
    check_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Refund {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: RefundId(row.id),
            transaction_id: TransactionId(row.transaction_id),
            number: u16::try_from(row.number).map_err(|_| damaged("number"))?,
            customer_id: parse(&row.customer_id, "customer_id")?,
            amount: Money::new(row.amount, parse(&row.currency, "currency")?),
            status: RefundStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            reason: row.reason,
            gateway_reference: row.gateway_reference,
            check_at: row.check_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, transaction_id, number, customer_id, amount, currency, status, reason, gateway_reference, check_at, \
             created_at, updated_at FROM refunds " + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl RefundStore for PgStore {
    async fn refunds(&self, customer: &CustomerId, transaction: TransactionId) -> Result<Vec<Refund>, StoreError> {
        let rows = repeat(|| {
            let query = select!(
                "WHERE transaction_id = $1 AND customer_id = $2 ORDER BY number",
                transaction.0,
                customer.as_str()
            );
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(Refund::try_from).collect()
    }

    /// What a write of the transaction changes, too, is read after it: what is newer than its version is refused as stale.
    async fn load_refund(&self, id: RefundId) -> Result<Option<LoadedRefund>, StoreError> {
        let Some(refund) = self.find_refund(id).await? else { return Ok(None) };
        let loaded = self.load_for_authorization(&[refund.transaction_id]).await?;
        let Some(loaded) = loaded.into_iter().next() else { return Ok(None) };
        let Some(refund) = self.find_refund(id).await? else { return Ok(None) };
        let payables = self.payables_of(refund.transaction_id).await?;
        Ok(Some(LoadedRefund { refund, transaction: loaded.transaction, attempts: loaded.attempts, payables }))
    }

    /// One statement. Refunds that another sweep or a write holds are passed over: theirs to take.
    async fn sweep_refunds(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let message = check_refund_message(MessageId(Uuid::nil()), RefundId(Uuid::nil()));
        let swept = repeat(|| {
            let query = sqlx::query!(
                "WITH due AS ( \
                    SELECT id FROM refunds WHERE check_at <= $1 ORDER BY check_at LIMIT $2 FOR UPDATE SKIP LOCKED \
                 ), moved AS ( \
                    UPDATE refunds AS r SET check_at = $1 + least(greatest($1 - r.created_at, $3), $4) \
                    WHERE r.id = ANY (ARRAY (SELECT id FROM due)) RETURNING r.id \
                 ) \
                 INSERT INTO outbox (id, kind, aggregate_id, body, queue, sent_at, visible_at) \
                 SELECT ($5 || substr(gen_random_uuid()::text, 16))::uuid, $6, id, $7, $8, $1, $1 FROM moved",
                sweep.now,
                i64::from(sweep.limit),
                sweep.least as _,
                sweep.most as _,
                id_prefix(sweep.now),
                message.kind,
                message.body,
                message.queue.as_str()
            );
            query.execute(&self.writes)
        });
        let count = swept.await?.rows_affected();
        self.wake.wake((count > 0).then_some(message.queue));
        Ok(count)
    }

    async fn count_overdue_refunds(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let count = repeat(|| {
            let query = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM refunds WHERE status = 'pending' AND created_at < $1"#,
                overdue
            );
            query.fetch_one(&self.reads)
        });
        Ok(count.await?.unsigned_abs())
    }
}

impl PgStore {
    async fn find_refund(&self, id: RefundId) -> Result<Option<Refund>, StoreError> {
        let row = repeat(|| select!("WHERE id = $1", id.0).fetch_optional(&self.reads));
        row.await?.map(Refund::try_from).transpose()
    }
}
