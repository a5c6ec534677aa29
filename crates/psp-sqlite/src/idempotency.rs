use std::collections::HashSet;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{IdempotencyStore, StoreError};
use psp_domain::{CustomerId, Fingerprint, IdempotencyKey, IdempotencyRecord, StoredAnswer};
use sqlx::{Row, SqliteConnection};

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, time, unavailable};

const INSERT: Bulk =
    Bulk::new("INSERT INTO idempotency_keys (customer_id, key, fingerprint, status, body, expires_at) {values}", 6);

/// An expired key is free again.
pub(crate) const FREE: Bulk = Bulk::new(
    "WITH asked AS ({values}) DELETE FROM idempotency_keys \
     WHERE (customer_id, key) IN (SELECT column1, column2 FROM asked) AND expires_at <= (SELECT column3 FROM asked)",
    3,
);

pub(crate) const TAKEN: &str = "SELECT k.customer_id, k.key FROM json_each(?) AS asked CROSS JOIN idempotency_keys AS k \
               ON k.customer_id = asked.value ->> 0 AND k.key = asked.value ->> 1 WHERE k.expires_at > ?";

pub(crate) const FIND: &str = "SELECT fingerprint, status, body, expires_at FROM idempotency_keys \
                   WHERE customer_id = ? AND key = ? AND expires_at > ?";

pub(crate) const PURGE: &str = "DELETE FROM idempotency_keys WHERE (customer_id, key) IN \
                   (SELECT customer_id, key FROM idempotency_keys WHERE expires_at <= ? LIMIT ?)";

/// Writes keys. One that is taken violates the primary key.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    rows: &[&IdempotencyRecord],
    now: i64,
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, r: &&IdempotencyRecord| {
        values.push(r.customer_id.as_str()).push(r.key.as_str()).push(now);
    };
    FREE.execute(connection, rows.iter(), bind).await?;
    let bind = |values: &mut Values, r: &&IdempotencyRecord| {
        values.push(r.customer_id.as_str()).push(r.key.as_str()).push(&r.fingerprint.0[..]);
        values.push(i64::from(r.answer.status)).push(&*r.answer.body).push(millis(r.expires_at));
    };
    INSERT.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Which of these keys are taken.
pub(crate) async fn taken(
    connection: &mut SqliteConnection,
    records: &[&IdempotencyRecord],
    now: i64,
) -> Result<HashSet<(String, String)>, sqlx::Error> {
    if records.is_empty() {
        return Ok(HashSet::new());
    }
    let asked: Vec<_> = records.iter().map(|r| (r.customer_id.as_str(), r.key.as_str())).collect();
    let rows = sqlx::query_as(TAKEN).bind(sqlx::types::Json(asked)).bind(now).fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

/// Takes a key, if one is given; `false` where it is taken.
pub(crate) async fn take(
    connection: &mut SqliteConnection,
    record: Option<&IdempotencyRecord>,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let Some(record) = record else { return Ok(true) };
    let is_free = taken(connection, &[record], now).await?.is_empty();
    if is_free {
        insert(connection, &[record], now).await?;
    }
    Ok(is_free)
}

#[async_trait]
impl IdempotencyStore for SqliteStore {
    async fn find(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let query = sqlx::query(FIND).bind(customer.as_str()).bind(key.as_str()).bind(millis(now));
        let Some(row) = query.fetch_optional(&self.readers).await.map_err(unavailable)? else { return Ok(None) };
        let fingerprint: &[u8] = row.try_get(0).map_err(unavailable)?;
        Ok(Some(IdempotencyRecord {
            customer_id: customer.clone(),
            key: key.clone(),
            fingerprint: Fingerprint(fingerprint.try_into().map_err(|_| damaged("fingerprint"))?),
            answer: StoredAnswer {
                status: row.try_get(1).map_err(unavailable)?,
                body: row.try_get(2).map_err(unavailable)?,
            },
            expires_at: time(row.try_get(3).map_err(unavailable)?)?,
        }))
    }

    async fn keep(&self, record: &IdempotencyRecord) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        if take(&mut database, Some(record), millis(self.now())).await.map_err(unavailable)? {
            commit(database).await?;
            return Ok(true);
        }
        database.rollback().await.map_err(unavailable)?;
        drop(writer);
        let kept = self.find(&record.customer_id, &record.key, self.now()).await?;
        Ok(kept.as_ref() == Some(record))
    }

    async fn purge_expired(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Lease).await?;
        let query = sqlx::query(PURGE).bind(millis(now)).bind(limit);
        let purged = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(purged)
    }
}
