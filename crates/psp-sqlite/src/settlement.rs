//! Settlement in bulk. A chunk is a range of the index of waiting payables, so that settling it again finds nothing, and
//! what another run has settled meanwhile is passed over.
//!
//! Cost of a chunk: one database transaction of a fixed number of statements, each over the rows that the first one put
//! into a temporary table. The single writer decides every race; no further lock is needed.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{SettledChunk, SettlementChunk, SettlementProgress, SettlementStore, StoreError};
use psp_domain::{Money, QueueName, SettlementRunId};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, unavailable};
use crate::deliveries::{self, has_endpoints};
use crate::ids::{fresh_id, id_prefix};
use crate::queue::insert_messages;

/// A place in the index of waiting payables: payment date and id.
type Place = (i64, Uuid);

const INSERT_CHUNKS: Bulk =
    Bulk::new("INSERT INTO settlement_chunks (run_id, number, from_date, from_id, to_date, to_id) {values}", 6);

/// Walks the partial index from a place on.
pub(crate) const NTH_PLACE: &str = "SELECT payment_date, id FROM payables INDEXED BY payables_due WHERE status = 'waiting_funds' \
                   AND payment_date < ?1 AND (payment_date, id) > (?2, ?3) ORDER BY payment_date, id LIMIT 1 OFFSET ?4";

/// Walks the partial index from a place on.
pub(crate) const LAST_PLACE: &str = "SELECT payment_date, id FROM payables INDEXED BY payables_due WHERE status = 'waiting_funds' \
                    AND payment_date < ?1 AND (payment_date, id) > (?2, ?3) ORDER BY payment_date DESC, id DESC LIMIT 1";

/// The payables of the chunk `(?1, ?2) < (payment_date, id) <= (?3, ?4)` that still wait.
pub(crate) const TAKE: &str = "INSERT INTO temp.settling SELECT id, transaction_id, installment, customer_id, currency, receivable \
     FROM payables INDEXED BY payables_due WHERE status = 'waiting_funds' AND (payment_date, id) > (?1, ?2) \
     AND (payment_date, id) <= (?3, ?4)";

pub(crate) const PAY: &str =
    "UPDATE payables SET status = 'paid', updated_at = ?1 WHERE id IN (SELECT id FROM temp.settling)";

/// A statement that inserts events, and the same that returns them.
macro_rules! events {
    ($($part:expr),*) => {
        [concat!($($part),*), concat!($($part,)* " RETURNING id, customer_id, kind")]
    };
}

pub(crate) const PAYABLE_EVENTS: [&str; 2] = events!(
    "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at) SELECT ",
    fresh_id!("?1"),
    ", 'payable.paid', id, 1, customer_id, printf('{\"transaction_id\":\"%s-%s-%s-%s-%s\",\"installment\":%d,\
     \"receivable_amount\":%d,\"currency\":\"%s\"}', substr(t, 1, 8), substr(t, 9, 4), substr(t, 13, 4), \
     substr(t, 17, 4), substr(t, 21), installment, receivable, currency), ?2 \
     FROM (SELECT *, lower(hex(transaction_id)) AS t FROM temp.settling)"
);

/// Transactions whose last payable that was. Of one that waits for a refund the version moves on and nothing else: whoever ends
/// the refund must have seen what was paid meanwhile.
pub(crate) const FINISH: &str = "UPDATE transactions SET version = version + 1, \
     status = CASE status WHEN 'pending_payment' THEN 'paid' ELSE status END, \
     sequence = CASE status WHEN 'pending_payment' THEN sequence + 1 ELSE sequence END, \
     updated_at = CASE status WHEN 'pending_payment' THEN ?1 ELSE updated_at END \
     WHERE id IN (SELECT transaction_id FROM temp.settling) AND (status = 'pending_refund' OR status = 'pending_payment' AND NOT EXISTS \
     (SELECT 1 FROM payables WHERE transaction_id = transactions.id AND status = 'waiting_funds'))";

/// A transaction of the chunk that is paid now was finished just now: before, one of its payables waited.
pub(crate) const TRANSACTION_EVENTS: [&str; 2] = events!(
    "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at) SELECT ",
    fresh_id!("?1"),
    ", 'transaction.paid', id, sequence, customer_id, \
     printf('{\"status\":\"paid\",\"amount\":%d,\"currency\":\"%s\"', amount, currency) \
     || iif(order_id IS NULL, '', ',\"order_id\":' || json_quote(order_id)) \
     || iif(correlation_id IS NULL, '', ',\"correlation_id\":' || json_quote(correlation_id)) || '}', ?2 \
     FROM transactions WHERE id IN (SELECT transaction_id FROM temp.settling) AND status = 'paid'"
);

pub(crate) const MOVE_BALANCES: &str = "INSERT INTO balances (customer_id, currency, available, waiting_funds) \
     SELECT customer_id, currency, sum(receivable), -sum(receivable) FROM temp.settling \
     GROUP BY customer_id, currency ON CONFLICT (customer_id, currency) DO UPDATE \
     SET available = available + excluded.available, waiting_funds = waiting_funds + excluded.waiting_funds";

pub(crate) const COUNT_AMOUNTS: &str = "INSERT INTO settlement_amounts (run_id, currency, amount) \
     SELECT ?1, currency, sum(receivable) FROM temp.settling GROUP BY currency \
     ON CONFLICT (run_id, currency) DO UPDATE SET amount = amount + excluded.amount";

/// Creates what settlement needs on the writing connection.
pub(crate) async fn prepare(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let sql = "CREATE TEMP TABLE settling (id BLOB NOT NULL PRIMARY KEY, transaction_id BLOB NOT NULL, \
               installment INTEGER NOT NULL, customer_id TEXT NOT NULL, currency TEXT NOT NULL, \
               receivable INTEGER NOT NULL) STRICT, WITHOUT ROWID";
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

#[async_trait]
impl SettlementStore for SqliteStore {
    async fn plan_run(
        &self,
        run_id: SettlementRunId,
        due_before: DateTime<Utc>,
        chunk_size: u32,
        now: DateTime<Utc>,
    ) -> Result<u32, StoreError> {
        // Read outside the write lock: what changes meanwhile is settled by this run or left to the next.
        let places = self.boundaries(millis(due_before), chunk_size.max(1)).await.map_err(unavailable)?;
        let count = u32::try_from(places.len().saturating_sub(1)).map_err(|_| damaged("number of chunks"))?;
        let messages = (1..=count).map(|number| SettlementChunk { run_id, number }.message());
        let messages: Vec<_> = messages.collect();
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let write = async {
            let sql = "INSERT INTO settlement_runs (id, due_before, chunks, created_at) VALUES (?, ?, ?, ?)";
            let run = sqlx::query(sql).bind(run_id.0).bind(millis(due_before)).bind(count).bind(millis(now));
            run.execute(&mut *database).await?;
            let bind = |values: &mut Values, (number, places): (i64, &[Place])| {
                values.push(run_id.0).push(number);
                for (date, id) in places {
                    values.push(*date).push(*id);
                }
            };
            let pairs: Vec<_> = (1..).zip(places.windows(2)).collect();
            INSERT_CHUNKS.execute(&mut database, pairs.into_iter(), bind).await?;
            insert_messages(&mut database, &messages, millis(now)).await
        };
        write.await.map_err(unavailable)?;
        commit(database).await?;
        drop(writer);
        self.wake((count > 0).then_some(QueueName::PayablesSettlement));
        Ok(count)
    }

    async fn settle_chunk(
        &self,
        chunk: SettlementChunk,
        now: DateTime<Utc>,
    ) -> Result<Option<SettledChunk>, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let sql = "SELECT settled_at IS NOT NULL, from_date, from_id, to_date, to_id FROM settlement_chunks \
                   WHERE run_id = ? AND number = ?";
        let row = sqlx::query_as(sql).bind(chunk.run_id.0).bind(chunk.number).fetch_optional(&mut *database).await;
        let row: Option<(bool, i64, Uuid, i64, Uuid)> = row.map_err(unavailable)?;
        let (from, to) = match row {
            None => return Ok(None),
            Some((true, ..)) => return Ok(Some(SettledChunk::default())),
            Some((false, from_date, from_id, to_date, to_id)) => ((from_date, from_id), (to_date, to_id)),
        };
        let settled = self.settle_range(&mut database, chunk, from, to, millis(now)).await.map_err(unavailable)?;
        commit(database).await?;
        drop(writer);
        // A look that finds nothing costs little beside a chunk.
        self.wake_deliverers(settled.payables);
        Ok(Some(settled))
    }

    async fn progress(&self, run_id: SettlementRunId) -> Result<Option<SettlementProgress>, StoreError> {
        let sql = "SELECT r.chunks, count(c.settled_at), coalesce(sum(c.payables), 0), coalesce(sum(c.transactions), 0) \
                   FROM settlement_runs AS r LEFT JOIN settlement_chunks AS c ON c.run_id = r.id \
                   WHERE r.id = ? GROUP BY r.id";
        let row = sqlx::query_as(sql).bind(run_id.0).fetch_optional(&self.readers).await.map_err(unavailable)?;
        let Some((chunks, settled_chunks, payables, transactions)): Option<(u32, u32, i64, i64)> = row else {
            return Ok(None);
        };
        let sql = "SELECT amount, currency FROM settlement_amounts WHERE run_id = ? ORDER BY currency";
        let rows = sqlx::query(sql).bind(run_id.0).fetch_all(&self.readers).await.map_err(unavailable)?;
        let amount = |row: &sqlx::sqlite::SqliteRow| {
            let currency: &str = row.try_get(1).map_err(unavailable)?;
            let currency = currency.parse().map_err(|_| damaged("currency"))?;
            Ok(Money::new(row.try_get(0).map_err(unavailable)?, currency))
        };
        Ok(Some(SettlementProgress {
            chunks,
            settled_chunks,
            payables: payables.unsigned_abs(),
            transactions: transactions.unsigned_abs(),
            amounts: rows.iter().map(amount).collect::<Result<_, StoreError>>()?,
        }))
    }
}

impl SqliteStore {
    /// Where chunks begin and end: one place more than there are chunks; none where nothing is due.
    async fn boundaries(&self, due_before: i64, chunk_size: u32) -> Result<Vec<Place>, sqlx::Error> {
        let mut reader = self.readers.acquire().await?;
        let mut places: Vec<Place> = vec![(i64::MIN, Uuid::nil())];
        while places.len() <= SettlementChunk::MAX_PER_RUN as usize {
            let (date, id) = places.last().copied().unwrap_or((i64::MIN, Uuid::nil()));
            let query = sqlx::query_as::<_, Place>(NTH_PLACE).bind(due_before).bind(date).bind(id).bind(chunk_size - 1);
            if let Some(place) = query.fetch_optional(&mut *reader).await? {
                places.push(place);
                continue;
            }
            let query = sqlx::query_as::<_, Place>(LAST_PLACE).bind(due_before).bind(date).bind(id);
            places.extend(query.fetch_optional(&mut *reader).await?);
            break;
        }
        Ok(places)
    }

    async fn settle_range(
        &self,
        connection: &mut SqliteConnection,
        chunk: SettlementChunk,
        from: Place,
        to: Place,
        now: i64,
    ) -> Result<SettledChunk, sqlx::Error> {
        // The ids of a chunk's events start with the time of its turn, not of its arrival: chunks that arrived together would
        // scatter their rows over one another's pages.
        let prefix = id_prefix(millis(self.now()));
        let take = sqlx::query(TAKE).bind(from.0).bind(from.1).bind(to.0).bind(to.1);
        let payables = take.execute(&mut *connection).await?.rows_affected();
        sqlx::query(PAY).bind(now).execute(&mut *connection).await?;
        let is_heard: bool = sqlx::query_scalar(has_endpoints!()).fetch_one(&mut *connection).await?;
        insert_events(connection, PAYABLE_EVENTS, &prefix, now, is_heard).await?;
        sqlx::query(FINISH).bind(now).execute(&mut *connection).await?;
        let transactions = insert_events(connection, TRANSACTION_EVENTS, &prefix, now, is_heard).await?;
        sqlx::query(MOVE_BALANCES).execute(&mut *connection).await?;
        sqlx::query(COUNT_AMOUNTS).bind(chunk.run_id.0).execute(&mut *connection).await?;
        let sql = "UPDATE settlement_chunks SET settled_at = ?, payables = ?, transactions = ? \
                   WHERE run_id = ? AND number = ?";
        let figures = sqlx::query(sql).bind(now).bind(payables.cast_signed()).bind(transactions.cast_signed());
        figures.bind(chunk.run_id.0).bind(chunk.number).execute(&mut *connection).await?;
        sqlx::query("DELETE FROM temp.settling").execute(&mut *connection).await?;
        Ok(SettledChunk { payables, transactions })
    }
}

/// Writes the events of a chunk, and says how many; where someone may hear of them, reads them back to make their deliveries.
async fn insert_events(
    connection: &mut SqliteConnection,
    events: [&'static str; 2],
    prefix: &[u8],
    now: i64,
    is_heard: bool,
) -> Result<u64, sqlx::Error> {
    let [insert, insert_returning] = events;
    if !is_heard {
        return Ok(sqlx::query(insert).bind(prefix).bind(now).execute(connection).await?.rows_affected());
    }
    let query = sqlx::query_as(insert_returning).bind(prefix).bind(now);
    let rows: Vec<(Uuid, String, String)> = query.fetch_all(&mut *connection).await?;
    let new = rows.iter().map(|(id, customer, kind)| (*id, &**customer, &**kind, now));
    deliveries::fan_out(connection, new).await?;
    Ok(rows.len() as u64)
}
