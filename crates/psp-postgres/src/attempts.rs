use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{AttemptStore, StoreError, Sweep, check_message};
use psp_domain::{Attempt, AttemptReference, AttemptState, MessageId, TransactionId};
use uuid::Uuid;

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;
use crate::ids::id_prefix;

pub(crate) struct Row {
    pub(crate) transaction_id: Uuid,
    pub(crate) number: i16,
    pub(crate) gateway: String,
    pub(crate) reference: Uuid,
    pub(crate) state: String,
    pub(crate) gateway_reference: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) check_at: Option<DateTime<Utc>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Attempt {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            transaction_id: TransactionId(row.transaction_id),
            number: u16::try_from(row.number).map_err(|_| damaged("number"))?,
            gateway: parse(&row.gateway, "gateway")?,
            reference: AttemptReference(row.reference),
            state: AttemptState::from_name(&row.state).ok_or_else(|| damaged("state"))?,
            gateway_reference: row.gateway_reference,
            reason: row.reason,
            check_at: row.check_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// An attempt's number as it is stored: far below the largest, by [`Attempt::MAX_PER_TRANSACTION`].
pub(crate) fn stored_number(attempt: &Attempt) -> i16 {
    i16::try_from(attempt.number).unwrap_or(i16::MAX)
}

#[async_trait]
impl AttemptStore for PgStore {
    async fn attempts(&self, transaction: TransactionId) -> Result<Vec<Attempt>, StoreError> {
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Row,
                "SELECT transaction_id, number, gateway, reference, state, gateway_reference, reason, check_at, created_at, \
                 updated_at FROM gateway_attempts WHERE transaction_id = $1 ORDER BY number",
                transaction.0
            );
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(Attempt::try_from).collect()
    }

    /// One statement. Attempts that another sweep or a write holds are passed over: theirs to take.
    async fn sweep(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let message = check_message(MessageId(Uuid::nil()), TransactionId(Uuid::nil()));
        let swept = repeat(|| {
            let query = sqlx::query!(
                "WITH due AS ( \
                    SELECT transaction_id, number FROM gateway_attempts WHERE check_at <= $1 \
                    ORDER BY check_at LIMIT $2 FOR UPDATE SKIP LOCKED \
                 ), moved AS ( \
                    UPDATE gateway_attempts AS a SET check_at = $1 + least(greatest($1 - a.created_at, $3), $4) FROM due \
                    WHERE a.transaction_id = ANY (ARRAY (SELECT transaction_id FROM due)) \
                        AND a.transaction_id = due.transaction_id AND a.number = due.number \
                    RETURNING a.transaction_id \
                 ) \
                 INSERT INTO outbox (id, kind, aggregate_id, body, queue, sent_at, visible_at) \
                 SELECT ($5 || substr(gen_random_uuid()::text, 16))::uuid, $6, transaction_id, $7, $8, $1, $1 FROM moved",
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

    async fn count_overdue(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let count = repeat(|| {
            let query = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM gateway_attempts
                WHERE state IN ('open', 'voiding') AND created_at < $1"#,
                overdue
            );
            query.fetch_one(&self.reads)
        });
        Ok(count.await?.unsigned_abs())
    }

    /// Attempts are looked up by their transaction: asking for `NOT EXISTS` would tempt the planner to read all that are due.
    async fn stalled(
        &self,
        created: DateTime<Utc>,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, StoreError> {
        let ids = repeat(|| {
            let query = sqlx::query_scalar!(
                "SELECT id FROM transactions AS t WHERE status = 'processing' AND id > $1 AND created_at < $2 \
                 AND 0 = (SELECT count(*) FROM gateway_attempts AS a WHERE a.transaction_id = t.id \
                 AND a.state IN ('open', 'pending', 'voiding')) ORDER BY id LIMIT $3",
                after.map_or(Uuid::nil(), |id| id.0),
                created,
                i64::from(limit)
            );
            query.fetch_all(&self.reads)
        });
        Ok(ids.await?.into_iter().map(TransactionId).collect())
    }
}
