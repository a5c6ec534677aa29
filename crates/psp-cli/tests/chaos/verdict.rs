//! What must hold in the database when everything has come to rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::support::pause;

async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    let number: Option<i64> = sqlx::query_scalar(sql).fetch_one(connection).await.unwrap();
    number.unwrap_or_default()
}

/// Waits until every payment has ended and every due payable is paid.
pub(crate) async fn await_quiet(url: &str, patience: Duration) {
    const RESTLESS: &str = "SELECT (SELECT count(*) FROM transactions WHERE status = 'processing') \
        + (SELECT count(*) FROM payables WHERE status = 'waiting_funds' AND payment_date < now()) \
        + (SELECT count(*) FROM outbox WHERE visible_at IS NOT NULL)";
    let mut connection = PgConnection::connect(url).await.unwrap();
    let begun = Instant::now();
    loop {
        let left = number(&mut connection, RESTLESS).await;
        if left == 0 {
            return;
        }
        assert!(begun.elapsed() < patience, "{left} payments, payables and messages do not come to rest");
        pause().await;
    }
}

/// Every answered payment is there once, with exactly its payables; every sum is right; every event is there once.
pub(crate) async fn judge(url: &str, answered: &BTreeMap<String, Value>) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let there: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT id FROM transactions").fetch_all(&mut connection).await.unwrap();
    let there: std::collections::BTreeSet<_> = there.into_iter().map(|id| id.to_string()).collect();
    let missing: Vec<_> = answered.values().filter(|id| !there.contains(id.as_str().unwrap())).collect();
    assert!(missing.is_empty(), "answered and lost: {missing:?}");
    assert_eq!(there.len(), answered.len(), "one payment for each key");
    let keys = number(&mut connection, "SELECT count(*) FROM idempotency_keys").await;
    assert_eq!(usize::try_from(keys).unwrap(), answered.len());

    for (what, sql) in [
        (
            "approved payments without exactly one approved attempt, or with one that is unresolved",
            "SELECT count(*) FROM transactions AS t WHERE (SELECT count(*) FROM gateway_attempts AS a \
             WHERE a.transaction_id = t.id AND a.state = 'approved') <> 1 OR EXISTS (SELECT FROM gateway_attempts AS a \
             WHERE a.transaction_id = t.id AND a.state IN ('open', 'pending', 'voiding'))",
        ),
        (
            "payments that are not approved",
            "SELECT count(*) FROM transactions WHERE status NOT IN ('pending_payment', 'paid')",
        ),
        (
            "payments without exactly their payables",
            "SELECT count(*) FROM transactions AS t WHERE installments <> \
             (SELECT count(*) FROM payables AS p WHERE p.transaction_id = t.id)",
        ),
        (
            "payments whose receivables and fees are not their amount",
            "SELECT count(*) FROM transactions AS t WHERE amount <> \
             (SELECT sum(fee + receivable) FROM payables AS p WHERE p.transaction_id = t.id)",
        ),
        (
            "due payables that are not paid, or others that are",
            "SELECT count(*) FROM payables AS p JOIN transactions AS t ON t.id = p.transaction_id \
             WHERE (t.payment_method = 'debit_card') <> (p.status = 'paid')",
        ),
        (
            "payments whose state is not that of their payables",
            "SELECT count(*) FROM transactions AS t WHERE (status = 'paid') <> (NOT EXISTS \
             (SELECT 1 FROM payables AS p WHERE p.transaction_id = t.id AND p.status = 'waiting_funds')) \
             OR waiting_payables <> (SELECT count(*) FROM payables AS p WHERE p.transaction_id = t.id AND p.status = 'waiting_funds')",
        ),
        (
            "payables whose events are not one payable.paid if paid, none otherwise",
            "SELECT count(*) FROM payables AS p WHERE (SELECT count(*) FROM outbox AS o WHERE o.aggregate_id = p.id) \
             <> CASE WHEN status = 'paid' THEN 1 ELSE 0 END",
        ),
        (
            "payments whose events are not numbered up to their sequence",
            "SELECT count(*) FROM transactions AS t WHERE t.sequence <> (SELECT count(*) FROM outbox AS o \
             WHERE o.aggregate_id = t.id AND o.sequence IS NOT NULL) \
             OR t.sequence <> (SELECT max(o.sequence) FROM outbox AS o WHERE o.aggregate_id = t.id)",
        ),
        (
            "balances that are not the sums of their payables",
            "SELECT count(*) FROM balances AS b WHERE available <> (SELECT coalesce(sum(receivable), 0) FROM payables AS p \
             WHERE p.customer_id = b.customer_id AND p.currency = b.currency AND status = 'paid') \
             OR waiting_funds <> (SELECT coalesce(sum(receivable), 0) FROM payables AS p \
             WHERE p.customer_id = b.customer_id AND p.currency = b.currency AND status = 'waiting_funds')",
        ),
    ] {
        assert_eq!(number(&mut connection, sql).await, 0, "{what}");
    }
    let paid = number(&mut connection, "SELECT sum(receivable)::bigint FROM payables WHERE status = 'paid'").await;
    let settled = number(&mut connection, "SELECT sum(amount)::bigint FROM settlement_amounts").await;
    assert_eq!(settled, paid, "the settlement total is the sum of what was paid");
    let count = number(&mut connection, "SELECT count(*) FROM payables WHERE status = 'paid'").await;
    assert!(count > 0, "something was settled");
    assert_eq!(number(&mut connection, "SELECT sum(payables)::bigint FROM settlement_chunks").await, count);
    eprintln!("{} payments, {count} payables settled", answered.len());
}
