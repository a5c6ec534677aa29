//! Writing change sets: see the crate's introduction.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, TransactionWrite, Verdict, batch};
use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::classify::{Failure, attempts, classify, unavailable};
use crate::columns::Columns;
use crate::connection::PgStore;

/// How long an answer may take beyond the time that the server gives the statement.
const ANSWER: Duration = Duration::from_secs(5);

#[async_trait]
impl Store for PgStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        use backon::BackoffBuilder;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let (mut delays, mut apart, mut unknown) = (attempts().build(), false, false);
        let verdicts = loop {
            let error = match self.write_all(&changes, apart).await {
                Ok(verdicts) => break verdicts,
                Err(error) => error,
            };
            let failure = classify(&error);
            unknown |= failure == Failure::Unknown;
            let delay = match failure {
                Failure::Conflict if !apart => {
                    apart = true;
                    continue;
                }
                Failure::Passing | Failure::Unknown => delays.next(),
                Failure::Conflict | Failure::Final => None,
            };
            let Some(delay) = delay else {
                // An earlier attempt may have been committed, whatever became of the later ones.
                return Err(if unknown { StoreError::OutcomeUnknown(Box::new(error)) } else { unavailable(error) });
            };
            tracing::warn!(error = &error as &dyn std::error::Error, ?delay, "the same batch is applied again");
            tokio::time::sleep(delay).await;
        };
        self.wake.wake(batch::queues(&changes, &verdicts));
        Ok(verdicts)
    }
}

impl PgStore {
    /// Writes the batch in one database transaction, together or one change set at a time. The connection is kept for the
    /// next batch, because giving one back to the pool costs a trip to the server. One that does not answer in time is
    /// given up: its server may have vanished without a word.
    async fn write_all(&self, changes: &[ChangeSet], apart: bool) -> Result<Vec<Verdict>, sqlx::Error> {
        let mut kept = self.writer.try_lock().ok();
        let mut connection = match kept.as_mut().and_then(|kept| kept.take()) {
            Some(connection) => connection,
            None => self.writes.acquire().await?,
        };
        let limit = self.options.statement_timeout + ANSWER;
        let written = timeout(limit, self.write_on(&mut connection, changes, apart)).await;
        let written = written.unwrap_or_else(|late| Err(sqlx::Error::Io(late.into())));
        match &written {
            Err(error) if classify(error) == Failure::Unknown => drop(connection.detach()),
            _ => {
                if let Some(mut kept) = kept {
                    *kept = Some(connection);
                }
            }
        }
        written
    }

    async fn write_on(
        &self,
        connection: &mut PgConnection,
        changes: &[ChangeSet],
        apart: bool,
    ) -> Result<Vec<Verdict>, sqlx::Error> {
        let rounds = batch::rounds(changes.iter());
        if let ([round], false) = (&*rounds, apart) {
            let refused = write(connection, round, self.now()).await?;
            let mut verdicts = vec![Verdict::Applied; changes.len()];
            // The batch is committed by now: whatever happens to the question why some were refused, asking again must be
            // by applying the same again.
            let explained = explain(connection, changes, &refused, &mut verdicts).await;
            explained.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            return Ok(verdicts);
        }
        let mut database = connection.begin().await?;
        let mut verdicts = vec![Verdict::Applied; changes.len()];
        let groups = if apart { changes.iter().map(|change| vec![change]).collect() } else { rounds };
        for group in groups {
            let places: Vec<_> = group.iter().map(|change| place(changes, change)).collect();
            let refused = if apart {
                write_apart(&mut database, &group, self.now()).await?
            } else {
                write(&mut database, &group, self.now()).await?
            };
            let refused: Vec<_> = refused.into_iter().map(|n| places[n]).collect();
            explain(&mut database, changes, &refused, &mut verdicts).await?;
        }
        database.commit().await?;
        Ok(verdicts)
    }
}

/// Where a change set stands in its batch.
fn place(changes: &[ChangeSet], change: &ChangeSet) -> usize {
    changes.iter().position(|other| std::ptr::eq(other, change)).unwrap_or_default()
}

/// Writes one change set in a savepoint; a unique violation refuses it.
async fn write_apart(
    connection: &mut PgConnection,
    change: &[&ChangeSet],
    now: DateTime<Utc>,
) -> Result<Vec<usize>, sqlx::Error> {
    let mut savepoint = connection.begin().await?;
    match write(&mut savepoint, change, now).await {
        Ok(refused) => {
            savepoint.commit().await?;
            Ok(refused)
        }
        Err(error) if classify(&error) == Failure::Conflict => {
            savepoint.rollback().await?;
            Ok(vec![0])
        }
        Err(error) => Err(error),
    }
}

/// Writes one round: one statement, whatever its size. Returns the places of the change sets of which nothing was written,
/// because their idempotency key is taken or their version is stale.
#[expect(clippy::too_many_lines, clippy::many_single_char_names, reason = "one statement with its columns")]
async fn write(
    connection: &mut PgConnection,
    round: &[&ChangeSet],
    now: DateTime<Utc>,
) -> Result<Vec<usize>, sqlx::Error> {
    let Columns { keys: k, inserts: t, updates: u, payables: p, events: e } = Columns::of(round);
    let refused = sqlx::query_scalar!(
        r#"WITH asked_keys AS (
            SELECT * FROM UNNEST($1::int[], $2::text[], $3::text[], $4::bytea[], $5::smallint[], $6::text[], $7::timestamptz[])
                AS k (n, customer_id, key, fingerprint, status, body, expires_at)
        ), taken_keys AS (
            INSERT INTO idempotency_keys AS old (customer_id, key, fingerprint, status, body, expires_at)
            SELECT customer_id, key, fingerprint, status, body, expires_at FROM asked_keys ORDER BY customer_id, key
            ON CONFLICT (customer_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
                body = excluded.body, expires_at = excluded.expires_at
            WHERE old.expires_at <= $8
            RETURNING old.customer_id, old.key
        ), updated AS (
            UPDATE transactions AS t SET status = u.status, status_reason = u.status_reason, gateway = u.gateway,
                gateway_reference = u.gateway_reference, waiting_payables = u.waiting_payables, version = u.version,
                updated_at = u.updated_at, sealed_card = NULL
            FROM UNNEST($9::int[], $10::uuid[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[],
                    $16::smallint[], $17::bigint[], $18::timestamptz[])
                AS u (n, id, expected, status, status_reason, gateway, gateway_reference, waiting_payables, version, updated_at)
            WHERE t.id = ANY ($10) AND t.id = u.id AND t.version = u.expected
            RETURNING u.n
        ), refused AS (
            SELECT n FROM asked_keys WHERE (customer_id, key) NOT IN (SELECT customer_id, key FROM taken_keys)
            UNION ALL (SELECT n FROM UNNEST($9::int[]) AS u (n) EXCEPT SELECT n FROM updated)
        ), inserted AS (
            INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name,
                card_expiry, card_last_four, card_brand, installments, status, version, created_at, updated_at, sealed_card)
            SELECT id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry,
                card_last_four, card_brand, installments, status, version, created_at, updated_at, sealed_card
            FROM UNNEST($19::int[], $20::uuid[], $21::text[], $22::text[], $23::bigint[], $24::text[], $25::text[],
                    $26::text[], $27::int[], $28::text[], $29::text[], $30::smallint[], $31::text[], $32::bigint[],
                    $33::timestamptz[], $34::timestamptz[], $35::bytea[])
                AS t (n, id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry,
                    card_last_four, card_brand, installments, status, version, created_at, updated_at, sealed_card)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
        ), new_payables AS (
            SELECT * FROM UNNEST($36::int[], $37::uuid[], $38::uuid[], $39::smallint[], $40::text[], $41::text[],
                    $42::numeric[], $43::bigint[], $44::bigint[], $45::text[], $46::timestamptz[], $47::timestamptz[],
                    $48::timestamptz[])
                AS p (n, id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
                    payment_date, created_at, updated_at)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
        ), moved AS (
            INSERT INTO balances AS old (customer_id, currency, available, waiting_funds)
            SELECT customer_id, currency, sum(CASE WHEN status = 'paid' THEN receivable ELSE 0 END)::bigint,
                sum(CASE WHEN status = 'paid' THEN 0 ELSE receivable END)::bigint
            FROM new_payables GROUP BY customer_id, currency ORDER BY customer_id, currency
            ON CONFLICT (customer_id, currency) DO UPDATE SET available = old.available + excluded.available,
                waiting_funds = old.waiting_funds + excluded.waiting_funds
        ), inserted_payables AS (
            INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable,
                status, payment_date, created_at, updated_at)
            SELECT id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
                payment_date, created_at, updated_at
            FROM new_payables
        ), events AS (
            INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
            SELECT id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at
            FROM UNNEST($49::int[], $50::uuid[], $51::text[], $52::uuid[], $53::bigint[], $54::text[], $55::text[],
                    $56::timestamptz[], $57::text[], $58::timestamptz[])
                AS e (n, id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
        )
        SELECT n AS "n!" FROM refused"#,
        &k.n,
        &k.customer_id as &[&str],
        &k.key as &[&str],
        &k.fingerprint as &[&[u8]],
        &k.status,
        &k.body as &[&str],
        &k.expires_at,
        now,
        &u.n,
        &u.id,
        &u.expected,
        &u.status as &[&str],
        &u.status_reason as &[Option<&str>],
        &u.gateway as &[Option<&str>],
        &u.gateway_reference as &[Option<&str>],
        &u.waiting_payables,
        &u.version,
        &u.updated_at,
        &t.n,
        &t.id,
        &t.customer_id as &[&str],
        &t.description as &[&str],
        &t.amount,
        &t.currency as &[&str],
        &t.payment_method as &[&str],
        &t.card_holder_name as &[&str],
        &t.card_expiry,
        &t.card_last_four as &[&str],
        &t.card_brand as &[&str],
        &t.installments,
        &t.status as &[&str],
        &t.version,
        &t.created_at,
        &t.updated_at,
        &t.sealed_card as &[&[u8]],
        &p.n,
        &p.id,
        &p.transaction_id,
        &p.installment,
        &p.customer_id as &[&str],
        &p.currency as &[&str],
        &p.fee_percent,
        &p.fee,
        &p.receivable,
        &p.status as &[&str],
        &p.payment_date,
        &p.created_at,
        &p.updated_at,
        &e.n,
        &e.id,
        &e.kind as &[&str],
        &e.aggregate_id,
        &e.sequence,
        &e.customer_id as &[&str],
        &e.body as &[&str],
        &e.sent_at,
        &e.queue as &[Option<&str>],
        &e.visible_at as &[Option<DateTime<Utc>>],
    );
    let refused = refused.fetch_all(connection).await?;
    Ok(refused.into_iter().filter_map(|n| usize::try_from(n).ok()).collect())
}

/// Gives refused change sets their verdicts. A second statement, because it must see what others have committed since.
async fn explain(
    connection: &mut PgConnection,
    changes: &[ChangeSet],
    refused: &[usize],
    verdicts: &mut [Verdict],
) -> Result<(), sqlx::Error> {
    if refused.is_empty() {
        return Ok(());
    }
    let event = |n: &usize| changes[*n].events.first().map_or(Uuid::nil(), |event| event.id.0);
    let events: Vec<_> = refused.iter().map(event).collect();
    let transactions: Vec<_> = refused.iter().map(|n| changes[*n].transaction_id().0).collect();
    let rows = sqlx::query!(
        r#"SELECT e.id IS NOT NULL AS "there!", t.version AS "version?"
        FROM UNNEST($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (event, transaction, place)
        LEFT JOIN outbox AS e ON e.id = asked.event AND e.id = ANY ($1)
        LEFT JOIN transactions AS t ON t.id = asked.transaction AND t.id = ANY ($2)
        ORDER BY place"#,
        &events,
        &transactions
    );
    let rows = rows.fetch_all(connection).await?;
    for (n, row) in refused.iter().zip(rows) {
        verdicts[*n] = match &changes[*n].transaction {
            _ if row.there => Verdict::AlreadyApplied,
            TransactionWrite::Update { expected_version, .. } if row.version != Some(*expected_version) => {
                Verdict::StaleVersion
            }
            _ => Verdict::Duplicate,
        };
    }
    Ok(())
}
