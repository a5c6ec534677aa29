use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{IdempotencyStore, StoreError};
use psp_domain::{CustomerId, Fingerprint, IdempotencyKey, IdempotencyRecord, StoredAnswer};

use sqlx::PgConnection;

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;

/// Takes a key; `false` where it is taken. An expired one is free again.
pub(crate) async fn take(
    connection: &mut PgConnection,
    record: &IdempotencyRecord,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query!(
        "INSERT INTO idempotency_keys AS old (customer_id, key, fingerprint, status, body, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (customer_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status, \
            body = excluded.body, expires_at = excluded.expires_at WHERE old.expires_at <= $7",
        record.customer_id.as_str(),
        record.key.as_str(),
        &record.fingerprint.0[..],
        record.answer.status.cast_signed(),
        &*record.answer.body,
        record.expires_at,
        now
    );
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

#[async_trait]
impl IdempotencyStore for PgStore {
    async fn find(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let row = repeat(|| {
            let query = sqlx::query!(
                "SELECT fingerprint, status, body, expires_at FROM idempotency_keys \
                 WHERE customer_id = $1 AND key = $2 AND expires_at > $3",
                customer.as_str(),
                key.as_str(),
                now
            );
            query.fetch_optional(&self.reads)
        });
        let Some(row) = row.await? else { return Ok(None) };
        Ok(Some(IdempotencyRecord {
            customer_id: customer.clone(),
            key: key.clone(),
            fingerprint: Fingerprint(row.fingerprint.try_into().map_err(|_| damaged("fingerprint"))?),
            answer: StoredAnswer { status: row.status.cast_unsigned(), body: row.body },
            expires_at: row.expires_at,
        }))
    }

    async fn keep(&self, record: &IdempotencyRecord) -> Result<bool, StoreError> {
        let now = self.now();
        let kept = repeat(|| async { take(&mut *self.writes.acquire().await?, record, now).await });
        // It is its own where the answer to an earlier attempt was lost.
        Ok(kept.await? || self.find(&record.customer_id, &record.key, now).await?.as_ref() == Some(record))
    }

    async fn purge_expired(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let purged = repeat(|| {
            let query = sqlx::query!(
                "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY (SELECT ctid FROM idempotency_keys \
                 WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
                now,
                i64::from(limit)
            );
            query.execute(&self.leases)
        });
        Ok(purged.await?.rows_affected())
    }
}
