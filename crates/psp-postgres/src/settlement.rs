//! Settlement in bulk. A chunk is a range of the index of waiting payables, so that settling it again finds nothing, and
//! what another run has settled meanwhile is passed over.
//!
//! Cost of a chunk: one statement, which is its own database transaction. It locks the chunk, its payables, their
//! transactions (whose count of waiting payables decides which instalment was the last, whoever settles the others; while one
//! waits for a refund, its version moves on, because whoever ends the refund must have seen what was paid meanwhile), and
//! at its very end the balances and the run's figures, which chunks share.

use async_trait::async_trait;
use backon::Retryable;
use chrono::{DateTime, Utc};
use psp_domain::ports::{SettledChunk, SettlementChunk, SettlementProgress, SettlementStore, StoreError};
use psp_domain::{Money, QueueName, SettlementRunId};

use crate::classify::{Failure, attempts, classify, damaged, repeat, unavailable};
use crate::connection::PgStore;
use crate::ids::id_prefix;

#[async_trait]
impl SettlementStore for PgStore {
    async fn plan_run(
        &self,
        run_id: SettlementRunId,
        due_before: DateTime<Utc>,
        chunk_size: u32,
        now: DateTime<Utc>,
    ) -> Result<u32, StoreError> {
        // Ends are read without a lock: what changes meanwhile is settled by this run or left to the next.
        let size = i64::from(chunk_size.max(1));
        let ends = repeat(|| {
            let query = sqlx::query!(
                r#"SELECT payment_date, id FROM (
                    SELECT payment_date, id, row_number() OVER due AS n, lead(id) OVER due AS next
                    FROM (SELECT payment_date, id FROM payables WHERE status = 'waiting_funds' AND payment_date < $1
                        ORDER BY payment_date, id LIMIT $2) AS payables
                    WINDOW due AS (ORDER BY payment_date, id)) AS numbered
                WHERE n % $3 = 0 OR next IS NULL ORDER BY n"#,
                due_before,
                size * i64::from(SettlementChunk::MAX_PER_RUN),
                size
            );
            query.fetch_all(&self.reads)
        });
        let (dates, ids): (Vec<_>, Vec<_>) = ends.await?.into_iter().map(|end| (end.payment_date, end.id)).unzip();
        let count = u32::try_from(ids.len()).map_err(|_| damaged("number of chunks"))?;
        let messages: Vec<_> = (1..=count).map(|number| SettlementChunk { run_id, number }.message()).collect();
        let message_ids: Vec<_> = messages.iter().map(|message| message.id.0).collect();
        let bodies: Vec<_> = messages.into_iter().map(|message| message.body).collect();
        let planned = repeat(|| {
            let query = sqlx::query!(
                r#"WITH run AS (
                    INSERT INTO settlement_runs (id, due_before, chunks, created_at) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (id) DO NOTHING
                    RETURNING id
                ), ends AS (
                    SELECT run.id AS run_id, e.* FROM run, UNNEST($5::timestamptz[], $6::uuid[], $7::uuid[], $8::text[])
                    WITH ORDINALITY AS e (to_date, to_id, message_id, body, number)
                ), chunks AS (
                    INSERT INTO settlement_chunks (run_id, number, from_date, from_id, to_date, to_id)
                    SELECT run_id, number, lag(to_date, 1, '-infinity') OVER (ORDER BY number),
                        lag(to_id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY number), to_date, to_id
                    FROM ends
                )
                INSERT INTO outbox (id, kind, aggregate_id, body, queue, sent_at, visible_at)
                SELECT message_id, $9, run_id, body, $10, $4, $4 FROM ends"#,
                run_id.0,
                due_before,
                count.cast_signed(),
                now,
                &dates,
                &ids,
                &message_ids,
                &bodies,
                SettlementChunk::MESSAGE_KIND,
                QueueName::PayablesSettlement.as_str()
            );
            query.execute(&self.writes)
        });
        planned.await?;
        self.wake.wake((count > 0).then_some(QueueName::PayablesSettlement));
        Ok(count)
    }

    async fn settle_chunk(
        &self,
        chunk: SettlementChunk,
        now: DateTime<Utc>,
    ) -> Result<Option<SettledChunk>, StoreError> {
        let settle = || self.settle(chunk, now);
        let may_repeat = |error: &sqlx::Error| matches!(classify(error), Failure::Passing | Failure::Unknown);
        if let Some(settled) = settle.retry(attempts()).when(may_repeat).await.map_err(unavailable)? {
            // A look that finds nothing costs little beside a chunk.
            self.wake.wake_deliverers(settled.payables > 0);
            return Ok(Some(settled));
        }
        let exists = repeat(|| {
            let query = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM settlement_chunks WHERE run_id = $1 AND number = $2) AS "exists!""#,
                chunk.run_id.0,
                chunk.number.cast_signed()
            );
            query.fetch_one(&self.writes)
        });
        Ok(exists.await?.then(SettledChunk::default))
    }

    async fn progress(&self, run_id: SettlementRunId) -> Result<Option<SettlementProgress>, StoreError> {
        let run = repeat(|| {
            let query = sqlx::query!(
                r#"SELECT r.chunks, count(c.settled_at) AS "settled!", coalesce(sum(c.payables), 0)::bigint AS "payables!",
                coalesce(sum(c.transactions), 0)::bigint AS "transactions!"
                FROM settlement_runs AS r LEFT JOIN settlement_chunks AS c ON c.run_id = r.id
                WHERE r.id = $1 GROUP BY r.id"#,
                run_id.0
            );
            query.fetch_optional(&self.reads)
        });
        let Some(run) = run.await? else { return Ok(None) };
        let amounts = repeat(|| {
            let query = sqlx::query!(
                "SELECT amount, currency FROM settlement_amounts WHERE run_id = $1 ORDER BY currency",
                run_id.0
            );
            query.fetch_all(&self.reads)
        });
        let money =
            |amount: i64, currency: String| Ok(Money::new(amount, currency.parse().map_err(|_| damaged("currency"))?));
        let amounts = amounts.await?.into_iter().map(|row| money(row.amount, row.currency));
        Ok(Some(SettlementProgress {
            chunks: run.chunks.cast_unsigned(),
            settled_chunks: u32::try_from(run.settled).map_err(|_| damaged("number of chunks"))?,
            payables: run.payables.unsigned_abs(),
            transactions: run.transactions.unsigned_abs(),
            amounts: amounts.collect::<Result<_, StoreError>>()?,
        }))
    }
}

impl PgStore {
    /// Settles a chunk; `None` when it is settled or does not exist.
    async fn settle(&self, chunk: SettlementChunk, now: DateTime<Utc>) -> Result<Option<SettledChunk>, sqlx::Error> {
        // Parts of a statement that nothing refers to run last, and the later one first: so the rows that chunks share,
        // balances and amounts, are locked just before the commit.
        let query = sqlx::query!(
            r#"WITH chunk AS (
                SELECT run_id, number, from_date, from_id, to_date, to_id FROM settlement_chunks
                WHERE run_id = $1 AND number = $2 AND settled_at IS NULL FOR UPDATE
            ), paid AS (
                UPDATE payables AS p SET status = 'paid', updated_at = $3 FROM chunk AS c
                WHERE p.status = 'waiting_funds' AND (p.payment_date, p.id) > (c.from_date, c.from_id)
                    AND (p.payment_date, p.id) <= (c.to_date, c.to_id)
                RETURNING p.id, p.transaction_id, p.installment, p.customer_id, p.currency, p.receivable
            ), counted AS (
                UPDATE transactions AS t SET waiting_payables = t.waiting_payables - d.paid,
                    status = CASE WHEN t.status = 'pending_payment' AND t.waiting_payables = d.paid
                        THEN 'paid' ELSE t.status END,
                    version = CASE WHEN t.status = 'pending_payment' AND t.waiting_payables = d.paid
                        OR t.status = 'pending_refund' THEN t.version + 1 ELSE t.version END,
                    sequence = CASE WHEN t.status = 'pending_payment' AND t.waiting_payables = d.paid
                        THEN t.sequence + 1 ELSE t.sequence END,
                    updated_at = CASE WHEN t.status = 'pending_payment' AND t.waiting_payables = d.paid
                        THEN $3 ELSE t.updated_at END
                FROM (SELECT transaction_id, count(*)::smallint AS paid FROM paid GROUP BY transaction_id) AS d
                WHERE t.id = ANY (ARRAY (SELECT transaction_id FROM paid)) AND t.id = d.transaction_id
                    AND t.status IN ('pending_payment', 'pending_refund', 'refunded')
                RETURNING t.id, t.customer_id, t.sequence, t.amount, t.currency, t.status, t.order_id, t.correlation_id
            ), moved AS (
                INSERT INTO balances AS old (customer_id, currency, available, waiting_funds)
                SELECT customer_id, currency, sum(receivable)::bigint, -sum(receivable)::bigint FROM paid
                GROUP BY customer_id, currency ORDER BY customer_id, currency
                ON CONFLICT (customer_id, currency) DO UPDATE SET available = old.available + excluded.available,
                    waiting_funds = old.waiting_funds + excluded.waiting_funds
            ), amounts AS (
                INSERT INTO settlement_amounts AS old (run_id, currency, amount)
                SELECT $1, currency, sum(receivable)::bigint FROM paid GROUP BY currency ORDER BY currency
                ON CONFLICT (run_id, currency) DO UPDATE SET amount = old.amount + excluded.amount
            ), payable_events AS (
                INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at)
                SELECT ($4 || substr(gen_random_uuid()::text, 16))::uuid, 'payable.paid', id, 1, customer_id,
                    '{"transaction_id":"' || transaction_id || '","installment":' || installment
                    || ',"receivable_amount":' || receivable || ',"currency":"' || currency || '"}', $3
                FROM paid
                RETURNING id, customer_id, kind
            ), transaction_events AS (
                INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at)
                SELECT ($4 || substr(gen_random_uuid()::text, 16))::uuid, 'transaction.paid', id, sequence, customer_id,
                    '{"status":"paid","amount":' || amount || ',"currency":"' || currency || '"'
                    || coalesce(',"order_id":' || to_json(order_id), '')
                    || coalesce(',"correlation_id":' || to_json(correlation_id), '') || '}', $3
                FROM counted WHERE status = 'paid'
                RETURNING id, customer_id, kind
            ), new_events AS MATERIALIZED (
                SELECT id, customer_id, kind FROM payable_events
                UNION ALL SELECT id, customer_id, kind FROM transaction_events
            ), deliveries AS (
                INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
                SELECT e.id, w.id, 'pending', $3, $3, $3
                FROM new_events AS e JOIN webhook_endpoints AS w ON w.customer_id = e.customer_id
                WHERE w.customer_id = ANY (ARRAY (SELECT DISTINCT customer_id FROM paid)) AND w.status = 'enabled'
                    AND (w.events = '{}' OR e.kind = ANY (w.events))
            )
            UPDATE settlement_chunks AS s SET settled_at = $3, payables = (SELECT count(*) FROM paid),
                transactions = (SELECT count(*) FROM counted WHERE status = 'paid')
            WHERE s.run_id = $1 AND s.number = $2 AND EXISTS (SELECT FROM chunk)
            RETURNING s.payables, s.transactions"#,
            chunk.run_id.0,
            chunk.number.cast_signed(),
            now,
            id_prefix(self.now())
        );
        let settled = query.fetch_optional(&self.writes).await?;
        Ok(settled.map(|row| SettledChunk {
            payables: row.payables.unsigned_abs(),
            transactions: row.transactions.unsigned_abs(),
        }))
    }
}
