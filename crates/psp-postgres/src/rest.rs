//! What few change sets write: orders, refunds, counts by status. Statements of their own, so that the one that writes all
//! others stays as it is.

use chrono::{DateTime, Utc};
use psp_domain::{ChangeSet, TransactionWrite};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::{Counts, Links, Orders, Refunds, Totals};

/// Whether a change set has a part that the one statement does not write.
pub(crate) fn is_any(change: &ChangeSet) -> bool {
    let pays_order =
        matches!(&change.transaction, Some(TransactionWrite::Insert(transaction, _)) if transaction.order.is_some());
    pays_order || change.order.is_some() || !change.refunds.is_empty() || !change.counts.is_empty()
}

/// Writes the orders of a round: before all else, because they are locked first. Returns the places of the change sets whose
/// order has another version than expected, or is there already.
pub(crate) async fn write_orders(
    connection: &mut PgConnection,
    round: &[&ChangeSet],
) -> Result<Vec<usize>, sqlx::Error> {
    let mut writes: Vec<_> = (0..).zip(round).filter_map(|(n, change)| Some((n, change.order.as_ref()?))).collect();
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    // Others may lock the same orders: in the same order.
    writes.sort_unstable_by_key(|(_, write)| write.order().id);
    let mut o = Orders::default();
    for (n, write) in writes {
        o.push(n, write);
    }
    let refused = sqlx::query_scalar!(
        r#"WITH asked AS (
            SELECT * FROM UNNEST($1::int[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                    $8::text[], $9::text[], $10::text[], $11::bool[], $12::bool[], $13::uuid[], $14::text[],
                    $15::bigint[], $16::bigint[], $17::timestamptz[], $18::timestamptz[])
                AS o (n, id, expected, customer_id, user_id, total, currency, payment_method, status, status_reason,
                    is_created, is_cancel_requested, payment_id, correlation_id, version, sequence, created_at,
                    updated_at)
        ), updated AS (
            UPDATE orders AS o SET status = a.status, status_reason = a.status_reason, is_created = a.is_created,
                is_cancel_requested = a.is_cancel_requested, payment_id = a.payment_id, version = a.version,
                sequence = a.sequence, updated_at = a.updated_at
            FROM asked AS a WHERE o.id = ANY ($2) AND o.id = a.id AND o.version = a.expected
            RETURNING o.id
        ), inserted AS (
            INSERT INTO orders (id, customer_id, user_id, total, currency, payment_method, status, status_reason,
                is_created, is_cancel_requested, payment_id, correlation_id, version, sequence, created_at, updated_at)
            SELECT id, customer_id, user_id, total, currency, payment_method, status, status_reason, is_created,
                is_cancel_requested, payment_id, correlation_id, version, sequence, created_at, updated_at
            FROM asked WHERE expected IS NULL ORDER BY id
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        )
        SELECT n AS "n!" FROM asked
        WHERE id NOT IN (SELECT id FROM updated) AND id NOT IN (SELECT id FROM inserted) ORDER BY n"#,
        &o.n,
        &o.id,
        &o.expected as &[Option<i64>],
        &o.customer_id as &[&str],
        &o.user_id as &[&str],
        &o.total,
        &o.currency as &[&str],
        &o.payment_method as &[&str],
        &o.status as &[&str],
        &o.status_reason as &[Option<&str>],
        &o.is_created,
        &o.is_cancel_requested,
        &o.payment_id as &[Option<Uuid>],
        &o.correlation_id as &[&str],
        &o.version,
        &o.sequence,
        &o.created_at,
        &o.updated_at,
    );
    let refused = refused.fetch_all(connection).await?;
    Ok(refused.into_iter().filter_map(|n| usize::try_from(n).ok()).collect())
}

/// Writes the refunds of a round, and what of its transactions the one statement has left out; their rows are locked by it.
///
/// With a refund a transaction's waiting payables are counted anew: the release before, while it still settles, passes over
/// transactions that wait for a refund.
pub(crate) async fn write_refunds(connection: &mut PgConnection, round: &[&ChangeSet]) -> Result<(), sqlx::Error> {
    let (mut l, mut t, mut r) = (Links::default(), Totals::default(), Refunds::default());
    for (n, change) in (0..).zip(round) {
        match &change.transaction {
            Some(TransactionWrite::Insert(transaction, _)) => l.push(n, transaction),
            Some(TransactionWrite::Update { transaction, .. }) if !change.refunds.is_empty() => t.push(n, transaction),
            Some(TransactionWrite::Update { .. }) | None => {}
        }
        change.refunds.iter().for_each(|refund| r.push(n, refund));
    }
    if l.n.is_empty() && r.n.is_empty() {
        return Ok(());
    }
    let written = sqlx::query!(
        r#"WITH linked AS (
            UPDATE transactions AS t SET placed_order = l.placed_order, correlation_id = l.correlation_id
            FROM UNNEST($1::uuid[], $2::uuid[], $3::text[]) AS l (id, placed_order, correlation_id)
            WHERE t.id = ANY ($1) AND t.id = l.id
        ), totals AS (
            UPDATE transactions AS t SET refund_count = u.count, refund_pending = u.pending, refunded = u.done,
                waiting_payables = (SELECT count(*) FILTER (WHERE p.status = 'waiting_funds') FROM payables AS p
                    WHERE p.transaction_id = t.id)::smallint
            FROM UNNEST($4::uuid[], $5::smallint[], $6::bigint[], $7::bigint[]) AS u (id, count, pending, done)
            WHERE t.id = ANY ($4) AND t.id = u.id
        )
        INSERT INTO refunds AS old (id, transaction_id, number, customer_id, amount, currency, status, reason,
            gateway_reference, check_at, created_at, updated_at)
        SELECT * FROM UNNEST($8::uuid[], $9::uuid[], $10::smallint[], $11::text[], $12::bigint[], $13::text[],
            $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[])
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, reason = excluded.reason,
            gateway_reference = excluded.gateway_reference, check_at = excluded.check_at,
            updated_at = excluded.updated_at"#,
        &l.id,
        &l.placed_order,
        &l.correlation_id as &[&str],
        &t.id,
        &t.count,
        &t.pending,
        &t.done,
        &r.id,
        &r.transaction_id,
        &r.number,
        &r.customer_id as &[&str],
        &r.amount,
        &r.currency as &[&str],
        &r.status as &[&str],
        &r.reason as &[Option<&str>],
        &r.gateway_reference as &[Option<&str>],
        &r.check_at as &[Option<DateTime<Utc>>],
        &r.created_at,
        &r.updated_at,
    );
    written.execute(connection).await?;
    Ok(())
}

/// Adds to counts by status: one row for each customer, subject, status and currency, which many writes share. So they are
/// locked just before the commit.
pub(crate) async fn add_counts<'c>(
    connection: &mut PgConnection,
    applied: impl Iterator<Item = &'c ChangeSet>,
) -> Result<(), sqlx::Error> {
    let mut c = Counts::default();
    for (n, change) in (0..).zip(applied) {
        change.counts.iter().for_each(|count| c.push(n, count));
    }
    if c.n.is_empty() {
        return Ok(());
    }
    let added = sqlx::query!(
        "INSERT INTO status_counts AS old (customer_id, subject, status, currency, count, amount) \
         SELECT customer_id, subject, status, currency, sum(count)::bigint, sum(amount)::bigint \
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
         AS c (customer_id, subject, status, currency, count, amount) \
         GROUP BY customer_id, subject, status, currency ORDER BY customer_id, subject, status, currency \
         ON CONFLICT (customer_id, subject, status, currency) DO UPDATE SET count = old.count + excluded.count, \
         amount = old.amount + excluded.amount",
        &c.customer_id as &[&str],
        &c.subject as &[&str],
        &c.status as &[&str],
        &c.currency as &[&str],
        &c.count,
        &c.amount
    );
    added.execute(connection).await?;
    Ok(())
}
