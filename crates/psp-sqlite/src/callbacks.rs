use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{CallbackStore, StoreError, callback_message};
use psp_domain::{Callback, CallbackId, CallbackOutcome, Money, TransactionId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};
use crate::queue::insert_messages;

/// Selects what [`decode`] takes.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, transaction_id, gateway, gateway_reference, status, amount, currency, received_at, outcome \
             FROM gateway_callbacks WHERE ",
            $rest
        )
    };
}

/// No more than the last parameter of one transaction.
pub(crate) const INSERT: &str = "INSERT INTO gateway_callbacks (id, transaction_id, gateway, gateway_reference, status, amount, \
                      currency, received_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
                      WHERE (SELECT count(*) FROM gateway_callbacks WHERE transaction_id = ?2) < ?9 \
                      ON CONFLICT DO NOTHING";

pub(crate) const KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM gateway_callbacks WHERE transaction_id = ? AND gateway = ? \
                     AND gateway_reference = ? AND status = ? AND amount IS ? AND currency IS ?)";

pub(crate) const FIND: &str = select!("id = ?");

pub(crate) const CONCLUDE: &str =
    "UPDATE gateway_callbacks SET outcome = ?2, concluded_at = ?3 WHERE id = ?1 AND outcome IS NULL";

pub(crate) const WITH_OUTCOME: &str = select!("outcome = ? ORDER BY id DESC LIMIT ?");

#[async_trait]
impl CallbackStore for SqliteStore {
    async fn receive(&self, callback: &Callback) -> Result<bool, StoreError> {
        let message = callback_message(callback.id);
        let queue = message.queue;
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(INSERT)
            .bind(callback.id.0)
            .bind(callback.transaction_id.0)
            .bind(callback.gateway.as_str())
            .bind(&*callback.gateway_reference)
            .bind(&*callback.status)
            .bind(callback.amount.map(Money::minor))
            .bind(callback.amount.map(|amount| amount.currency().code()))
            .bind(millis(callback.received_at))
            .bind(Callback::MAX_PER_TRANSACTION);
        let stored = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        if stored == 0 {
            database.rollback().await.map_err(unavailable)?;
            return Ok(false);
        }
        insert_messages(&mut database, &[message], millis(callback.received_at)).await.map_err(unavailable)?;
        commit(database).await?;
        drop(writer);
        self.wake([queue]);
        Ok(true)
    }

    async fn is_known(&self, callback: &Callback) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(KNOWN).bind(callback.transaction_id.0).bind(callback.gateway.as_str());
        let query = query.bind(&*callback.gateway_reference).bind(&*callback.status);
        let query = query.bind(callback.amount.map(Money::minor));
        let query = query.bind(callback.amount.map(|amount| amount.currency().code()));
        query.fetch_one(&self.readers).await.map_err(unavailable)
    }

    async fn find_callback(&self, id: CallbackId) -> Result<Option<Callback>, StoreError> {
        let row = sqlx::query(FIND).bind(id.0).fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn conclude(&self, id: CallbackId, outcome: CallbackOutcome, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(CONCLUDE).bind(id.0).bind(outcome.as_str()).bind(millis(now));
        query.execute(&mut *database).await.map_err(unavailable)?;
        commit(database).await
    }

    async fn with_outcome(&self, outcome: CallbackOutcome, limit: u32) -> Result<Vec<Callback>, StoreError> {
        let query = sqlx::query(WITH_OUTCOME).bind(outcome.as_str()).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode).collect()
    }
}

fn decode(row: &SqliteRow) -> Result<Callback, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let optional = |i: usize| row.try_get::<Option<&str>, _>(i).map_err(unavailable);
    let amount: Option<i64> = row.try_get(5).map_err(unavailable)?;
    let currency = optional(6)?.map(|code| parse(code, "currency")).transpose()?;
    let outcome = |name| CallbackOutcome::from_name(name).ok_or_else(|| damaged("outcome"));
    Ok(Callback {
        id: CallbackId(row.try_get(0).map_err(unavailable)?),
        transaction_id: TransactionId(row.try_get(1).map_err(unavailable)?),
        gateway: parse(text(2)?, "gateway")?,
        gateway_reference: text(3)?.to_owned(),
        status: text(4)?.to_owned(),
        amount: amount.zip(currency).map(|(minor, currency)| Money::new(minor, currency)),
        received_at: time(row.try_get(7).map_err(unavailable)?)?,
        outcome: optional(8)?.map(outcome).transpose()?,
    })
}
