use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{AttemptStore, StoreError, Sweep, check_message};
use psp_domain::{Attempt, AttemptReference, AttemptState, MessageId, TransactionId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};
use crate::ids::{fresh_id, id_prefix};

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "number, gateway, reference, state, gateway_reference, reason, check_at, created_at, updated_at"
    };
}

pub(crate) const WRITE: Bulk = Bulk::new(
    concat!(
        "INSERT INTO gateway_attempts (transaction_id, ",
        columns!(),
        ") {values} ON CONFLICT (transaction_id, number) DO UPDATE SET gateway = excluded.gateway, \
         reference = excluded.reference, state = excluded.state, gateway_reference = excluded.gateway_reference, \
         reason = excluded.reason, check_at = excluded.check_at, created_at = excluded.created_at, \
         updated_at = excluded.updated_at"
    ),
    10,
);

pub(crate) const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM gateway_attempts \
                      WHERE transaction_id = ? AND number = ? AND reference = ? AND state = ?)";

pub(crate) const LIST: &str =
    concat!("SELECT ", columns!(), " FROM gateway_attempts WHERE transaction_id = ? ORDER BY number");

/// The attempts that are due, the longest first. Their order is total, so that both statements of a sweep name the same.
macro_rules! due {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM gateway_attempts WHERE check_at <= ?1 ORDER BY check_at, transaction_id, number LIMIT ?2"
        )
    };
}

pub(crate) const SEND_CHECKS: &str = concat!(
    "INSERT INTO outbox (id, kind, aggregate_id, body, sent_at, queue, visible_at) SELECT ",
    fresh_id!("?6"),
    ", ?3, transaction_id, ?4, ?1, ?5, ?1 FROM (",
    due!("transaction_id"),
    ")"
);

pub(crate) const MOVE_CHECKS: &str = concat!(
    "UPDATE gateway_attempts SET check_at = ?1 + min(max(?1 - created_at, ?3), ?4) WHERE (transaction_id, number) IN (",
    due!("transaction_id, number"),
    ")"
);

pub(crate) const OVERDUE: &str =
    "SELECT count(*) FROM gateway_attempts WHERE state IN ('open', 'voiding') AND created_at < ?";

/// Walks the index of what is processing from a transaction on.
pub(crate) const STALLED: &str = "SELECT id FROM transactions INDEXED BY transactions_processing \
     WHERE status = 'processing' AND id > ?1 AND created_at < ?2 AND NOT EXISTS \
     (SELECT 1 FROM gateway_attempts WHERE transaction_id = transactions.id AND check_at IS NOT NULL) ORDER BY id LIMIT ?3";

/// Writes attempts that are new or changed.
pub(crate) async fn write(connection: &mut SqliteConnection, rows: &[&Attempt]) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, a: &&Attempt| {
        values.push(a.transaction_id.0).push(i64::from(a.number)).push(a.gateway.as_str()).push(a.reference.0);
        values.push(a.state.as_str()).push(a.gateway_reference.as_deref()).push(a.reason.as_deref());
        values.push(a.check_at.map(millis)).push(millis(a.created_at)).push(millis(a.updated_at));
    };
    WRITE.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Whether the attempt is there with the same reference and state.
pub(crate) async fn is_there(connection: &mut SqliteConnection, attempt: &Attempt) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar(EXISTS).bind(attempt.transaction_id.0).bind(i64::from(attempt.number));
    query.bind(attempt.reference.0).bind(attempt.state.as_str()).fetch_one(connection).await
}

#[async_trait]
impl AttemptStore for SqliteStore {
    async fn attempts(&self, transaction: TransactionId) -> Result<Vec<Attempt>, StoreError> {
        let rows = sqlx::query(LIST).bind(transaction.0).fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(|row| decode(row, transaction, 0)).collect()
    }

    async fn sweep(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let message = check_message(MessageId(Uuid::nil()), TransactionId(Uuid::nil()));
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

    async fn count_overdue(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar(OVERDUE).bind(millis(overdue));
        let count: i64 = query.fetch_one(&self.readers).await.map_err(unavailable)?;
        Ok(count.unsigned_abs())
    }

    async fn stalled(
        &self,
        created: DateTime<Utc>,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let query = sqlx::query_scalar(STALLED).bind(after).bind(millis(created)).bind(limit);
        let ids: Vec<Uuid> = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        Ok(ids.into_iter().map(TransactionId).collect())
    }
}

/// An attempt whose columns stand in the row from that one on.
pub(crate) fn decode(row: &SqliteRow, transaction_id: TransactionId, first: usize) -> Result<Attempt, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(first + i).map_err(unavailable);
    let optional = |i: usize| row.try_get::<Option<String>, _>(first + i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(first + i).map_err(unavailable);
    let check_at: Option<i64> = row.try_get(first + 6).map_err(unavailable)?;
    Ok(Attempt {
        transaction_id,
        number: u16::try_from(number(0)?).map_err(|_| damaged("number"))?,
        gateway: parse(text(1)?, "gateway")?,
        reference: AttemptReference(row.try_get(first + 2).map_err(unavailable)?),
        state: AttemptState::from_name(text(3)?).ok_or_else(|| damaged("state"))?,
        gateway_reference: optional(4)?,
        reason: optional(5)?,
        check_at: check_at.map(time).transpose()?,
        created_at: time(number(7)?)?,
        updated_at: time(number(8)?)?,
    })
}
