//! Writing change sets: see the crate's introduction.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, OrderWrite, TransactionWrite, Verdict, batch};
use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::attempts::stored_number;
use crate::classify::{Failure, attempts, classify, unavailable};
use crate::columns::Columns;
use crate::connection::PgStore;
use crate::rest;

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
        let mut has_deliveries = false;
        let verdicts = loop {
            let error = match self.write_all(&changes, apart, &mut has_deliveries).await {
                Ok(Some(verdicts)) => break verdicts,
                Ok(None) => {
                    apart = true;
                    continue;
                }
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
        self.wake.wake_deliverers(has_deliveries);
        Ok(verdicts)
    }
}

impl PgStore {
    /// Writes the batch in one database transaction, together or one change set at a time; `None`, and nothing written, where it
    /// must be the latter. The connection is kept for the
    /// next batch, because giving one back to the pool costs a trip to the server. One that does not answer in time is
    /// given up: its server may have vanished without a word.
    async fn write_all(
        &self,
        changes: &[ChangeSet],
        apart: bool,
        has_deliveries: &mut bool,
    ) -> Result<Option<Vec<Verdict>>, sqlx::Error> {
        let mut kept = self.writer.try_lock().ok();
        let mut connection = match kept.as_mut().and_then(|kept| kept.take()) {
            Some(connection) => connection,
            None => self.writes.acquire().await?,
        };
        let limit = self.options.statement_timeout + ANSWER;
        let written = timeout(limit, self.write_on(&mut connection, changes, apart, has_deliveries)).await;
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
        has_deliveries: &mut bool,
    ) -> Result<Option<Vec<Verdict>>, sqlx::Error> {
        let rounds = batch::rounds(changes.iter());
        let is_plain = |change| !may_refuse_a_part(change) && !rest::is_any(change);
        if let ([round], false) = (&*rounds, apart)
            && changes.iter().all(is_plain)
        {
            let refused = write(connection, round, self.now(), has_deliveries).await?;
            let mut verdicts = vec![Verdict::Applied; changes.len()];
            // The batch is committed by now: whatever happens to the question why some were refused, asking again must be
            // by applying the same again.
            let explained = explain(connection, changes, &refused, &mut verdicts).await;
            explained.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            return Ok(Some(verdicts));
        }
        let mut database = connection.begin().await?;
        let mut verdicts = vec![Verdict::Applied; changes.len()];
        let groups = if apart { changes.iter().map(Group::Apart).collect() } else { groups(rounds) };
        for group in groups {
            let (group, refused) = match group {
                Group::Apart(change) => {
                    (vec![change], write_apart(&mut database, change, self.now(), has_deliveries).await?)
                }
                Group::Together(round) => {
                    let Some(refused) = write_together(&mut database, &round, self.now(), has_deliveries).await? else {
                        database.rollback().await?;
                        return Ok(None);
                    };
                    (round, refused)
                }
            };
            let refused: Vec<_> = refused.into_iter().map(|n| place(changes, group[n])).collect();
            explain(&mut database, changes, &refused, &mut verdicts).await?;
        }
        let applied = changes.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Applied);
        rest::add_counts(&mut database, applied.map(|(change, _)| change)).await?;
        database.commit().await?;
        Ok(Some(verdicts))
    }
}

/// Where a change set stands in its batch.
fn place(changes: &[ChangeSet], change: &ChangeSet) -> usize {
    changes.iter().position(|other| std::ptr::eq(other, change)).unwrap_or_default()
}

/// Change sets that are written at once.
enum Group<'c> {
    /// One, in a savepoint.
    Apart(&'c ChangeSet),
    /// One or many, of which none can be refused after a part of it was written; else all are written apart.
    Together(Vec<&'c ChangeSet>),
}

/// The groups of some rounds. What is written apart goes first: it moves no balances, so that nobody who waits for one holds up
/// what the others of its round wait for.
fn groups(rounds: Vec<Vec<&ChangeSet>>) -> Vec<Group<'_>> {
    let mut groups = Vec::with_capacity(rounds.len());
    for round in rounds {
        let (apart, together): (Vec<_>, Vec<_>) = round.into_iter().partition(|change| may_refuse_a_part(change));
        groups.extend(apart.into_iter().map(Group::Apart));
        groups.extend((!together.is_empty()).then_some(Group::Together(together)));
    }
    groups
}

/// Whether a taken key can refuse it while its other parts are written, because no one statement holds them against each other:
/// requests with a key to change a transaction, or to place or change an order. Keys come back often enough that they must not
/// throw a whole batch apart.
fn may_refuse_a_part(change: &ChangeSet) -> bool {
    let is_update = matches!(change.transaction, Some(TransactionWrite::Update { .. }));
    change.idempotency.is_some() && (is_update || change.order.is_some())
}

/// Writes one change set in a savepoint, or nothing of it where it is refused or violates a unique key.
async fn write_apart(
    connection: &mut PgConnection,
    change: &ChangeSet,
    now: DateTime<Utc>,
    has_deliveries: &mut bool,
) -> Result<Vec<usize>, sqlx::Error> {
    let mut savepoint = connection.begin().await?;
    match write_together(&mut savepoint, &[change], now, has_deliveries).await {
        Ok(Some(refused)) if refused.is_empty() => {
            savepoint.commit().await?;
            Ok(refused)
        }
        Ok(_) => {
            savepoint.rollback().await?;
            Ok(vec![0])
        }
        Err(error) if classify(&error) == Failure::Conflict => {
            savepoint.rollback().await?;
            Ok(vec![0])
        }
        Err(error) => Err(error),
    }
}

/// Writes one round with the parts that few change sets have: one statement for each of these, whatever its size. Returns the
/// places of the change sets of which nothing was written; `None` where an order was written, and the others refuse the rest
/// of its change set: the caller rolls back.
async fn write_together(
    connection: &mut PgConnection,
    round: &[&ChangeSet],
    now: DateTime<Utc>,
    has_deliveries: &mut bool,
) -> Result<Option<Vec<usize>>, sqlx::Error> {
    let mut refused = rest::write_orders(connection, round).await?;
    let places: Vec<_> = (0..round.len()).filter(|n| !refused.contains(n)).collect();
    let left: Vec<_> = places.iter().map(|n| round[*n]).collect();
    let of_left = if left.is_empty() { Vec::new() } else { write(connection, &left, now, has_deliveries).await? };
    if of_left.iter().any(|n| left[*n].order.is_some()) {
        return Ok(None);
    }
    refused.extend(of_left.into_iter().map(|n| places[n]));
    let written: Vec<_> = (0..round.len()).filter(|n| !refused.contains(n)).map(|n| round[n]).collect();
    rest::write_refunds(connection, &written).await?;
    Ok(Some(refused))
}

/// Writes one round: one statement, whatever its size. Returns the places of the change sets of which nothing was written,
/// because their card's token is spent, their idempotency key is taken or their version is stale. Says whether its events made
/// deliveries to webhook endpoints.
#[expect(clippy::too_many_lines, clippy::many_single_char_names, reason = "one statement with its columns")]
async fn write(
    connection: &mut PgConnection,
    round: &[&ChangeSet],
    now: DateTime<Utc>,
    has_deliveries: &mut bool,
) -> Result<Vec<usize>, sqlx::Error> {
    let Columns { tokens: s, keys: k, inserts: t, updates: u, attempts: a, payables: p, events: e } =
        Columns::of(round);
    let refused = sqlx::query_scalar!(
        r#"WITH asked_tokens AS (
            SELECT * FROM UNNEST($1::int[], $2::uuid[]) AS s (n, token)
        ), held_tokens AS (
            SELECT token FROM card_tokens WHERE token = ANY ($2) ORDER BY token FOR UPDATE
        ), tokenless AS (
            SELECT n FROM asked_tokens WHERE token NOT IN (SELECT token FROM held_tokens)
        ), asked_keys AS (
            SELECT * FROM UNNEST($3::int[], $4::text[], $5::text[], $6::bytea[], $7::smallint[],
                    $8::text[], $9::timestamptz[])
                AS k (n, customer_id, key, fingerprint, status, body, expires_at)
        ), taken_keys AS (
            INSERT INTO idempotency_keys AS old (customer_id, key, fingerprint, status, body, expires_at)
            SELECT customer_id, key, fingerprint, status, body, expires_at FROM asked_keys
            WHERE n <> ALL (ARRAY (SELECT n FROM tokenless)) ORDER BY customer_id, key
            ON CONFLICT (customer_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
                body = excluded.body, expires_at = excluded.expires_at
            WHERE old.expires_at <= $10
            RETURNING old.customer_id, old.key
        ), updated AS (
            UPDATE transactions AS t SET status = u.status, status_reason = u.status_reason, gateway = u.gateway,
                gateway_reference = u.gateway_reference, waiting_payables = t.waiting_payables + u.waiting_payables,
                version = u.version, sequence = u.sequence, updated_at = u.updated_at,
                sealed_card = CASE WHEN u.keeps_card THEN t.sealed_card END
            FROM UNNEST($11::int[], $12::uuid[], $13::bigint[], $14::text[], $15::text[], $16::text[],
                    $17::text[], $18::smallint[], $19::bigint[], $20::bigint[], $21::timestamptz[],
                    $22::bool[])
                AS u (n, id, expected, status, status_reason, gateway, gateway_reference, waiting_payables, version,
                    sequence, updated_at, keeps_card)
            WHERE t.id = ANY ($12) AND t.id = u.id AND t.version = u.expected
            RETURNING u.n
        ), refused AS (
            SELECT n FROM asked_keys WHERE (customer_id, key) NOT IN (SELECT customer_id, key FROM taken_keys)
            UNION SELECT n FROM tokenless
            UNION (SELECT n FROM UNNEST($11::int[]) AS u (n) EXCEPT SELECT n FROM updated)
        ), spent AS (
            DELETE FROM card_tokens WHERE token = ANY (ARRAY (
                SELECT token FROM asked_tokens WHERE n <> ALL (ARRAY (SELECT n FROM refused))))
        ), inserted AS (
            INSERT INTO transactions (id, kind, customer_id, description, amount, currency, payment_method,
                card_holder_name, card_expiry, card_last_four, card_brand, installments, order_id, user_id, country,
                requested_gateway, status, version, sequence, created_at, updated_at, sealed_card)
            SELECT id, kind, customer_id, description, amount, currency, payment_method,
                card_holder_name, card_expiry, card_last_four, card_brand, installments, order_id, user_id, country,
                requested_gateway, status, version, sequence, created_at, updated_at, sealed_card
            FROM UNNEST($23::int[], $24::uuid[], $25::text[], $26::text[], $27::text[], $28::bigint[],
                    $29::text[], $30::text[], $31::text[], $32::int[], $33::text[],
                    $34::text[], $35::smallint[], $36::text[], $37::text[], $38::text[],
                    $39::text[], $40::text[], $41::bigint[], $42::bigint[], $43::timestamptz[],
                    $44::timestamptz[], $45::bytea[])
                AS t (n, id, kind, customer_id, description, amount, currency, payment_method,
                    card_holder_name, card_expiry, card_last_four, card_brand, installments, order_id, user_id, country,
                    requested_gateway, status, version, sequence, created_at, updated_at, sealed_card)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
        ), written_attempts AS (
            INSERT INTO gateway_attempts AS old (transaction_id, number, gateway, reference, state, gateway_reference,
                reason, check_at, created_at, updated_at)
            SELECT transaction_id, number, gateway, reference, state, gateway_reference, reason, check_at, created_at,
                updated_at
            FROM UNNEST($46::int[], $47::uuid[], $48::smallint[], $49::text[], $50::uuid[], $51::text[],
                    $52::text[], $53::text[], $54::timestamptz[], $55::timestamptz[], $56::timestamptz[])
                AS a (n, transaction_id, number, gateway, reference, state, gateway_reference, reason, check_at,
                    created_at, updated_at)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
            ON CONFLICT (transaction_id, number) DO UPDATE SET gateway = excluded.gateway,
                reference = excluded.reference, state = excluded.state, gateway_reference = excluded.gateway_reference,
                reason = excluded.reason, check_at = excluded.check_at, created_at = excluded.created_at,
                updated_at = excluded.updated_at
        ), new_payables AS (
            SELECT * FROM UNNEST($57::int[], $58::uuid[], $59::uuid[], $60::smallint[], $61::text[], $62::text[],
                    $63::numeric[], $64::bigint[], $65::bigint[], $66::text[], $67::timestamptz[],
                    $68::timestamptz[], $69::timestamptz[], $70::smallint[])
                AS p (n, id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
                    payment_date, created_at, updated_at, refund)
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
                status, payment_date, created_at, updated_at, refund)
            SELECT id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
                payment_date, created_at, updated_at, refund
            FROM new_payables
        ), new_events AS MATERIALIZED (
            SELECT * FROM UNNEST($71::int[], $72::uuid[], $73::text[], $74::uuid[], $75::bigint[], $76::text[], $77::text[],
                    $78::timestamptz[], $79::text[], $80::timestamptz[])
                AS e (n, id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
            WHERE n <> ALL (ARRAY (SELECT n FROM refused))
        ), events AS (
            INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
            SELECT id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at FROM new_events
        ), deliveries AS (
            INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
            SELECT e.id, w.id, 'pending', e.sent_at, e.sent_at, e.sent_at
            FROM new_events AS e JOIN webhook_endpoints AS w ON w.customer_id = e.customer_id
            WHERE w.customer_id = ANY ($76) AND w.status = 'enabled' AND (w.events = '{}' OR e.kind = ANY (w.events))
            RETURNING 1
        )
        SELECT n AS "n!" FROM refused UNION ALL (SELECT -1 WHERE EXISTS (SELECT FROM deliveries))"#,
        &s.n,
        &s.token,
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
        &u.sequence,
        &u.updated_at,
        &u.keeps_card,
        &t.n,
        &t.id,
        &t.kind as &[&str],
        &t.customer_id as &[&str],
        &t.description as &[&str],
        &t.amount,
        &t.currency as &[&str],
        &t.payment_method as &[&str],
        &t.card_holder_name as &[Option<&str>],
        &t.card_expiry as &[Option<i32>],
        &t.card_last_four as &[Option<&str>],
        &t.card_brand as &[Option<&str>],
        &t.installments,
        &t.order_id as &[Option<&str>],
        &t.user_id as &[Option<&str>],
        &t.country as &[Option<&str>],
        &t.requested_gateway as &[Option<&str>],
        &t.status as &[&str],
        &t.version,
        &t.sequence,
        &t.created_at,
        &t.updated_at,
        &t.sealed_card as &[Option<&[u8]>],
        &a.n,
        &a.transaction_id,
        &a.number,
        &a.gateway as &[&str],
        &a.reference,
        &a.state as &[&str],
        &a.gateway_reference as &[Option<&str>],
        &a.reason as &[Option<&str>],
        &a.check_at as &[Option<DateTime<Utc>>],
        &a.created_at,
        &a.updated_at,
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
        &p.refund,
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
    *has_deliveries |= refused.contains(&-1);
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
    let of_refused = || refused.iter().map(|n| &changes[*n]);
    let events: Vec<_> = of_refused().map(|c| c.events.first().map_or(Uuid::nil(), |event| event.id.0)).collect();
    let transactions: Vec<_> = of_refused().map(|c| c.transaction_id().map_or(Uuid::nil(), |id| id.0)).collect();
    let orders: Vec<_> = of_refused().map(|c| c.order_id().map_or(Uuid::nil(), |id| id.0)).collect();
    let attempts: Vec<_> = of_refused().map(|c| c.attempts.last().filter(|_| c.events.is_empty())).collect();
    let numbers: Vec<_> = attempts.iter().map(|a| a.map_or(0, stored_number)).collect();
    let references: Vec<_> = attempts.iter().map(|a| a.map_or(Uuid::nil(), |a| a.reference.0)).collect();
    let states: Vec<_> = attempts.iter().map(|a| a.map_or("", |a| a.state.as_str())).collect();
    let rows = sqlx::query!(
        r#"SELECT e.id IS NOT NULL OR a.number IS NOT NULL AS "there!", t.version AS "version?", o.version AS "of_order?"
        FROM UNNEST($1::uuid[], $2::uuid[], $3::smallint[], $4::uuid[], $5::text[], $6::uuid[])
            WITH ORDINALITY AS asked (event, transaction, number, reference, state, placed_order, place)
        LEFT JOIN outbox AS e ON e.id = asked.event AND e.id = ANY ($1)
        LEFT JOIN transactions AS t ON t.id = asked.transaction AND t.id = ANY ($2)
        LEFT JOIN orders AS o ON o.id = asked.placed_order AND o.id = ANY ($6)
        LEFT JOIN gateway_attempts AS a ON a.transaction_id = asked.transaction AND a.transaction_id = ANY ($2)
            AND a.number = asked.number AND a.reference = asked.reference AND a.state = asked.state
        ORDER BY place"#,
        &events,
        &transactions,
        &numbers,
        &references,
        &states as &[&str],
        &orders
    );
    let rows = rows.fetch_all(connection).await?;
    for (n, row) in refused.iter().zip(rows) {
        verdicts[*n] = match (&changes[*n].transaction, &changes[*n].order) {
            _ if row.there => Verdict::AlreadyApplied,
            (Some(TransactionWrite::Update { expected_version, .. }), _) if row.version != Some(*expected_version) => {
                Verdict::StaleVersion
            }
            (_, Some(OrderWrite::Update { expected_version, .. })) if row.of_order != Some(*expected_version) => {
                Verdict::StaleVersion
            }
            _ => Verdict::Duplicate,
        };
    }
    Ok(())
}
