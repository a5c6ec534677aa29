use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{IdempotencyStore, StoreError};
use psp_domain::{CustomerId, Fingerprint, IdempotencyKey, IdempotencyRecord, StoredAnswer};

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;

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
