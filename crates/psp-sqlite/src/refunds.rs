use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{LoadedRefund, RefundStore, StoreError, Sweep, TransactionReader, check_refund_message};
use psp_domain::{CustomerId, MessageId, Money, Refund, RefundId, RefundStatus, TransactionId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};
use crate::ids::{fresh_id, id_prefix};
use crate::payables;

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "id, transaction_id, number, customer_id, amount, currency, status, reason, gateway_reference, check_at, \
         created_at, updated_at"
    };
}

pub(crate) const WRITE: Bulk = Bulk::new(
    concat!(
        "INSERT INTO refunds (",
        columns!(),
        ") {values} ON CONFLICT (id) DO UPDATE SET status = excluded.status, reason = excluded.reason, \
         gateway_reference = excluded.gateway_reference, check_at = excluded.check_at, updated_at = excluded.updated_at"
    ),
    12,
);

pub(crate) const LIST: &str =
    concat!("SELECT ", columns!(), " FROM refunds WHERE transaction_id = ? AND customer_id = ? ORDER BY number");

pub(crate) const FIND: &str = concat!("SELECT ", columns!(), " FROM refunds WHERE id = ?");

/// The refunds that are due, the longest first. Their order is total, so that both statements of a sweep name the same.
macro_rules! due {
    () => {
        "SELECT id FROM refunds WHERE check_at <= ?1 ORDER BY check_at, id LIMIT ?2"
    };
}

pub(crate) const SEND_CHECKS: &str = concat!(
    "INSERT INTO outbox (id, kind, aggregate_id, body, sent_at, queue, visible_at) SELECT ",
    fresh_id!("?6"),
    ", ?3, id, ?4, ?1, ?5, ?1 FROM (",
    due!(),
    ")"
);

pub(crate) const MOVE_CHECKS: &str =
    concat!("UPDATE refunds SET check_at = ?1 + min(max(?1 - created_at, ?3), ?4) WHERE id IN (", due!(), ")");

pub(crate) const OVERDUE: &str = "SELECT count(*) FROM refunds WHERE status = 'pending' AND created_at < ?";

/// Writes refunds that are new or changed.
pub(crate) async fn write(connection: &mut SqliteConnection, rows: &[&Refund]) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, r: &&Refund| {
        values.push(r.id.0).push(r.transaction_id.0).push(i64::from(r.number)).push(r.customer_id.as_str());
        values.push(r.amount.minor()).push(r.amount.currency().code()).push(r.status.as_str());
        values.push(r.reason.as_deref()).push(r.gateway_reference.as_deref()).push(r.check_at.map(millis));
        values.push(millis(r.created_at)).push(millis(r.updated_at));
    };
    WRITE.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

#[async_trait]
impl RefundStore for SqliteStore {
    async fn refunds(&self, customer: &CustomerId, transaction: TransactionId) -> Result<Vec<Refund>, StoreError> {
        let query = sqlx::query(LIST).bind(transaction.0).bind(customer.as_str());
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode).collect()
    }

    /// What a write of the transaction changes, too, is read after it: what is newer than its version is refused as stale.
    async fn load_refund(&self, id: RefundId) -> Result<Option<LoadedRefund>, StoreError> {
        let Some(refund) = self.find_refund(id).await? else { return Ok(None) };
        let loaded = self.load_for_authorization(&[refund.transaction_id]).await?;
        let Some(loaded) = loaded.into_iter().next() else { return Ok(None) };
        let Some(refund) = self.find_refund(id).await? else { return Ok(None) };
        let payables = payables::of_transaction(&self.readers, refund.transaction_id).await?;
        Ok(Some(LoadedRefund { refund, transaction: loaded.transaction, attempts: loaded.attempts, payables }))
    }

    async fn sweep_refunds(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let message = check_refund_message(MessageId(Uuid::nil()), RefundId(Uuid::nil()));
        let now = millis(sweep.now);
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(SEND_CHECKS).bind(now).bind(sweep.limit).bind(message.kind).bind(message.body);
        let query = query.bind(message.queue.as_str()).bind(id_prefix(now));
        let count = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        if count == 0 {
            database.rollback().await.map_err(unavailable)?;
            return Ok(0);
        }
        let query = sqlx::query(MOVE_CHECKS).bind(now).bind(sweep.limit);
        let query = query.bind(sweep.least.num_milliseconds()).bind(sweep.most.num_milliseconds());
        query.execute(&mut *database).await.map_err(unavailable)?;
        commit(database).await?;
        drop(writer);
        self.wake([message.queue]);
        Ok(count)
    }

    async fn count_overdue_refunds(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar(OVERDUE).bind(millis(overdue));
        let count: i64 = query.fetch_one(&self.readers).await.map_err(unavailable)?;
        Ok(count.unsigned_abs())
    }
}

impl SqliteStore {
    async fn find_refund(&self, id: RefundId) -> Result<Option<Refund>, StoreError> {
        let row = sqlx::query(FIND).bind(id.0).fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }
}

fn decode(row: &SqliteRow) -> Result<Refund, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let check_at: Option<i64> = row.try_get(9).map_err(unavailable)?;
    Ok(Refund {
        id: RefundId(row.try_get(0).map_err(unavailable)?),
        transaction_id: TransactionId(row.try_get(1).map_err(unavailable)?),
        number: u16::try_from(number(2)?).map_err(|_| damaged("number"))?,
        customer_id: parse(text(3)?, "customer_id")?,
        amount: Money::new(number(4)?, parse(text(5)?, "currency")?),
        status: RefundStatus::from_name(text(6)?).ok_or_else(|| damaged("status"))?,
        reason: row.try_get(7).map_err(unavailable)?,
        gateway_reference: row.try_get(8).map_err(unavailable)?,
        check_at: check_at.map(time).transpose()?,
        created_at: time(number(10)?)?,
        updated_at: time(number(11)?)?,
    })
}
