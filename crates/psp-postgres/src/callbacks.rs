use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{CallbackStore, StoreError, callback_message};
use psp_domain::{Callback, CallbackId, CallbackOutcome, Money, TransactionId};
use uuid::Uuid;

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    transaction_id: Uuid,
    gateway: String,
    gateway_reference: String,
    status: String,
    amount: Option<i64>,
    currency: Option<String>,
    received_at: DateTime<Utc>,
    outcome: Option<String>,
}

impl TryFrom<Row> for Callback {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let currency = row.currency.map(|code| parse(&code, "currency")).transpose()?;
        let outcome = |name: String| CallbackOutcome::from_name(&name).ok_or_else(|| damaged("outcome"));
        Ok(Self {
            id: CallbackId(row.id),
            transaction_id: TransactionId(row.transaction_id),
            gateway: parse(&row.gateway, "gateway")?,
            gateway_reference: row.gateway_reference,
            status: row.status,
            amount: row.amount.zip(currency).map(|(minor, currency)| Money::new(minor, currency)),
            received_at: row.received_at,
            outcome: row.outcome.map(outcome).transpose()?,
        })
    }
}

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, transaction_id, gateway, gateway_reference, status, amount, currency, received_at, outcome \
             FROM gateway_callbacks " + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl CallbackStore for PgStore {
    /// One statement. Those that come at once do not see each other: together they may pass the limit by a few.
    async fn receive(&self, callback: &Callback) -> Result<bool, StoreError> {
        let message = callback_message(callback.id);
        let stored = repeat(|| {
            let query = sqlx::query!(
                "WITH stored AS ( \
                    INSERT INTO gateway_callbacks (id, transaction_id, gateway, gateway_reference, status, amount, \
                        currency, received_at) \
                    SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
                    WHERE (SELECT count(*) FROM gateway_callbacks WHERE transaction_id = $2) < $14 \
                    ON CONFLICT DO NOTHING RETURNING received_at \
                 ) \
                 INSERT INTO outbox (id, kind, aggregate_id, body, queue, sent_at, visible_at) \
                 SELECT $9, $10, $11, $12, $13, received_at, received_at FROM stored",
                callback.id.0,
                callback.transaction_id.0,
                callback.gateway.as_str(),
                callback.gateway_reference,
                callback.status,
                callback.amount.map(Money::minor),
                callback.amount.map(|amount| amount.currency().code()),
                callback.received_at,
                message.id.0,
                message.kind,
                message.aggregate_id,
                message.body,
                message.queue.as_str(),
                i64::from(Callback::MAX_PER_TRANSACTION)
            );
            query.execute(&self.writes)
        });
        let is_new = stored.await?.rows_affected() == 1;
        self.wake.wake(is_new.then_some(message.queue));
        Ok(is_new)
    }

    async fn is_known(&self, callback: &Callback) -> Result<bool, StoreError> {
        repeat(|| {
            let query = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM gateway_callbacks WHERE transaction_id = $1 AND gateway = $2
                    AND gateway_reference = $3 AND status = $4 AND amount IS NOT DISTINCT FROM $5
                    AND currency IS NOT DISTINCT FROM $6) AS "known!""#,
                callback.transaction_id.0,
                callback.gateway.as_str(),
                callback.gateway_reference,
                callback.status,
                callback.amount.map(Money::minor),
                callback.amount.map(|amount| amount.currency().code()) as Option<&str>
            );
            query.fetch_one(&self.reads)
        })
        .await
    }

    async fn find_callback(&self, id: CallbackId) -> Result<Option<Callback>, StoreError> {
        let row = repeat(|| select!("WHERE id = $1", id.0).fetch_optional(&self.reads));
        row.await?.map(Callback::try_from).transpose()
    }

    async fn conclude(&self, id: CallbackId, outcome: CallbackOutcome, now: DateTime<Utc>) -> Result<(), StoreError> {
        let concluded = repeat(|| {
            let query = sqlx::query!(
                "UPDATE gateway_callbacks SET outcome = $2, concluded_at = $3 WHERE id = $1 AND outcome IS NULL",
                id.0,
                outcome.as_str(),
                now
            );
            query.execute(&self.writes)
        });
        concluded.await?;
        Ok(())
    }

    async fn with_outcome(&self, outcome: CallbackOutcome, limit: u32) -> Result<Vec<Callback>, StoreError> {
        let rows = repeat(|| {
            let query = select!("WHERE outcome = $1 ORDER BY id DESC LIMIT $2", outcome.as_str(), i64::from(limit));
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(Callback::try_from).collect()
    }
}
