//! On filled tables, every statement of the adapter finds its rows by an index.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::path::Path;
use std::sync::Arc;

use psp_domain::ports::{Clock, DeliveryBacklog, DeliveryStore, SystemClock};
use psp_postgres::{PgOptions, PgStore};
use psp_testkit::servers;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

/// Tables that grow with the business.
const GROWING: [&str; 14] = [
    "transactions",
    "payables",
    "outbox",
    "idempotency_keys",
    "balances",
    "settlement_chunks",
    "gateway_attempts",
    "gateway_callbacks",
    "card_tokens",
    "refunds",
    "orders",
    "status_counts",
    "webhook_deliveries",
    "webhook_attempts",
];

/// Indexes that may be read whole: of what is pending or due, where a limit ends it, and of small tables.
const WHOLE: [&str; 7] = [
    "outbox_pending",
    "outbox_dead",
    "payables_due",
    "transactions_processing",
    "gateways_pkey",
    "gateway_routes_pkey",
    "gateway_health_pkey",
];

/// 50,000 payments of 100 customers, some of them processing, two thirds settled, some messages pending; an attempt, a callback,
/// a card and a refund for each; as many orders.
const FILL: &str = "
INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry,
    card_last_four, card_brand, installments, waiting_payables, status, version, created_at, updated_at, sealed_card)
SELECT gen_random_uuid(), 'customer-' || n % 100, 'Lightsaber', 2500, 'BRL', 'credit_card', 'Luke', 202510, '1111', 'visa', 1,
    1, CASE WHEN n % 50 = 0 THEN 'processing' ELSE 'pending_payment' END, 2, now(), now(), CASE WHEN n % 50 = 0 THEN 'x'::bytea END
FROM generate_series(1, 50000) AS n;
INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
    payment_date, created_at, updated_at)
SELECT gen_random_uuid(), id, 1, customer_id, 'BRL', 5, 125, 2375,
    CASE WHEN random() < 0.67 THEN 'paid' ELSE 'waiting_funds' END, now() - random() * interval '60 days', now(), now()
FROM transactions;
INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
SELECT gen_random_uuid(), 'transaction.created', id, 1, customer_id, '{}', now(), 'transactions',
    CASE WHEN random() < 0.02 THEN now() END FROM transactions;
INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at)
SELECT gen_random_uuid(), 'transaction.approved', id, 2, customer_id, '{}', now() FROM transactions;
INSERT INTO idempotency_keys SELECT customer_id, id::text, sha256('x'), 201, '{}', now() + random() * interval '1 day'
FROM transactions;
INSERT INTO balances SELECT 'customer-' || n, 'BRL', 0, 0 FROM generate_series(1, 5000) AS n;
INSERT INTO settlement_runs SELECT gen_random_uuid(), now(), 100, now() FROM generate_series(1, 50);
INSERT INTO settlement_chunks (run_id, number, from_date, from_id, to_date, to_id)
SELECT id, n, now(), id, now(), id FROM settlement_runs, generate_series(1, 100) AS n;
INSERT INTO gateway_attempts (transaction_id, number, gateway, reference, state, check_at, created_at, updated_at)
SELECT id, 1, 'sandbox', gen_random_uuid(), state, CASE state WHEN 'open' THEN now() END, now(), now()
FROM (SELECT id, CASE WHEN random() < 0.02 THEN 'open' ELSE 'approved' END AS state FROM transactions) AS transactions;
INSERT INTO gateway_callbacks (id, transaction_id, gateway, gateway_reference, status, received_at, outcome)
SELECT gen_random_uuid(), id, 'sandbox', 'reference', 'completed', now(),
    CASE WHEN random() < 0.98 THEN 'applied' END FROM transactions;
INSERT INTO card_tokens (token, customer_id, card_holder_name, card_expiry, card_last_four, card_brand, sealed_card, created_at,
    expires_at)
SELECT id, customer_id, 'Luke', 202510, '1111', 'visa', 'x', now(), now() + random() * interval '15 minutes'
FROM transactions;
INSERT INTO refunds (id, transaction_id, number, customer_id, amount, currency, status, check_at, created_at, updated_at)
SELECT gen_random_uuid(), id, 1, customer_id, 1, 'BRL', status, CASE status WHEN 'pending' THEN now() END, now(), now()
FROM (SELECT id, customer_id, CASE WHEN random() < 0.02 THEN 'pending' ELSE 'succeeded' END AS status FROM transactions) AS t;
INSERT INTO orders (id, customer_id, user_id, total, currency, payment_method, status, is_created, is_cancel_requested,
    correlation_id, version, sequence, created_at, updated_at)
SELECT gen_random_uuid(), customer_id, 'user', 1, 'BRL', 'pix', 'paid', true, false, 'request', 1, 1, now(), now()
FROM transactions;
UPDATE transactions SET placed_order = id, correlation_id = 'request' WHERE random() < 0.1;
INSERT INTO status_counts
SELECT 'customer-' || n, 'order', status, 'BRL', 1, 1
FROM generate_series(1, 5000) AS n, unnest('{pending_payment,paid,cancelled,failed}'::text[]) AS status;
INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, secret, version, sequence, created_at,
    updated_at)
SELECT gen_random_uuid(), 'customer-' || n % 100, '', '{}', '', 'enabled', '', 1, 0, now(), now()
FROM generate_series(1, 200) AS n;
INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
SELECT o.id, w.id, state, CASE state WHEN 'pending' THEN now() END, now(), now()
FROM (SELECT *, CASE WHEN random() < 0.02 THEN 'pending' ELSE 'delivered' END AS state FROM outbox) AS o
JOIN webhook_endpoints AS w ON w.customer_id = o.customer_id;
INSERT INTO webhook_attempts (event_id, endpoint_id, number, started_at, duration_ms, answer)
SELECT event_id, endpoint_id, 1, now(), 1, '' FROM webhook_deliveries;
ANALYZE;";

/// A value of a parameter's type, as SQL.
fn sample(kind: &str) -> &'static str {
    match kind {
        "Text" => "'customer-1'",
        "Uuid" => "'80000000-0000-7000-8000-000000000000'",
        "Int8" => "100",
        "Int4" | "Int2" => "1",
        "Bool" => "true",
        "Bytea" => "'x'",
        "Interval" => "'1 minute'",
        "Timestamptz" => "now()",
        "UuidArray" => "'{80000000-0000-7000-8000-000000000000}'",
        "Int8Array" | "Int4Array" | "Int2Array" | "NumericArray" => "'{1}'",
        "BoolArray" => "'{true}'",
        "TextArray" => "'{transactions}'",
        "ByteaArray" => "'{x}'",
        "TimestamptzArray" => "'{2026-11-21}'",
        other => panic!("no sample of {other}"),
    }
}

/// The recorded statements with their parameters' types.
fn statements() -> Vec<(String, Vec<String>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let read = |path: std::path::PathBuf| {
        let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let kinds = recorded["describe"]["parameters"]["Left"].as_array().unwrap().iter();
        let kinds = kinds.map(|kind| kind.as_str().unwrap().to_owned()).collect();
        (recorded["query"].as_str().unwrap().to_owned(), kinds)
    };
    std::fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

/// Reads of whole tables in a plan.
fn table_scans(plan: &Value, found: &mut Vec<String>) {
    if plan["Node Type"] == "Seq Scan" && GROWING.contains(&plan["Relation Name"].as_str().unwrap_or_default()) {
        found.push(plan["Relation Name"].to_string());
    }
    // A whole index read without a condition is as bad, unless a limit ends it or its table stays small.
    let by_index = ["Index Scan", "Index Only Scan", "Bitmap Index Scan"].iter().any(|kind| plan["Node Type"] == *kind);
    if by_index && plan["Index Cond"].is_null() && WHOLE.iter().all(|index| plan["Index Name"] != *index) {
        found.push(plan["Index Name"].to_string());
    }
    plan["Plans"].as_array().into_iter().flatten().for_each(|plan| table_scans(plan, found));
}

/// Explains every recorded statement as the pools run it: reads are planned for their values, writes once for all.
async fn assert_plans(connection: &mut PgConnection, when: &str) {
    let statements = statements();
    assert!(statements.len() > 25, "they are recorded");
    connection.execute("SET enable_seqscan = off; DEALLOCATE ALL").await.unwrap();
    for (number, (sql, kinds)) in statements.iter().enumerate() {
        let mode = if sql.trim_start().starts_with("SELECT") { "force_custom_plan" } else { "force_generic_plan" };
        connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
        connection.execute(AssertSqlSafe(format!("PREPARE s{number} AS {sql}"))).await.unwrap();
        let samples: Vec<_> = kinds.iter().map(|kind| sample(kind)).collect();
        let arguments = if samples.is_empty() { String::new() } else { format!("({})", samples.join(", ")) };
        let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE s{number}{arguments}"));
        let row = sqlx::raw_sql(explain).fetch_one(&mut *connection).await.unwrap();
        let plan: Value = row.get(0);
        let mut scans = Vec::new();
        table_scans(&plan[0]["Plan"], &mut scans);
        assert!(scans.is_empty(), "{when}: {scans:?} in {sql}\n{plan:#}");
        // The primary key from the first row on is the whole table, too; the payments of a customer are more than those of its
        // orders, and orders more than those that wait or were cancelled lately.
        for (condition, index) in [
            ("status = 'processing'", "transactions_processing"),
            ("placed_order IS NOT NULL", "transactions_of_orders"),
            ("o.is_cancel_requested)", "orders_waiting"),
            ("o.status = 'cancelled'", "orders_cancelled"),
        ] {
            let is_of_few = !sql.contains(condition) || plan.to_string().contains(index);
            assert!(is_of_few, "{when}: {sql}\n{plan:#}");
        }
    }
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let database = servers::database().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::migrate!("../../migrations/postgres").run(&mut connection).await.unwrap();
    // A plan that is made while the tables are empty is kept while they grow.
    assert_plans(&mut connection, "on empty tables").await;
    connection.execute(FILL).await.unwrap();
    assert_plans(&mut connection, "on filled tables").await;
}

/// Rows of a table that a plan has read, as `EXPLAIN ANALYZE` counts them.
fn rows_read(plan: &Value, table: &str) -> f64 {
    let of_table = plan["Relation Name"] == table;
    let rows = ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"];
    let own: f64 = rows.iter().map(|rows| plan[*rows].as_f64().unwrap_or(0.0)).sum();
    let own = if of_table { own * plan["Actual Loops"].as_f64().unwrap_or(0.0) } else { 0.0 };
    own + plan["Plans"].as_array().into_iter().flatten().map(|plan| rows_read(plan, table)).sum::<f64>()
}

#[tokio::test]
async fn a_claim_reads_its_share_however_many_wait_for_an_endpoint() {
    let database = servers::database().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::migrate!("../../migrations/postgres").run(&mut connection).await.unwrap();
    let (claim, _) = statements().into_iter().find(|(sql, _)| sql.contains("share.endpoint_id")).expect("the claim");
    connection
        .execute("SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    // Planned once, while the tables are empty.
    connection.execute(AssertSqlSafe(format!("PREPARE claim AS {claim}"))).await.unwrap();
    let run = "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE claim(now(), 100, %, 10, now() + interval '1 minute')";
    connection.execute(AssertSqlSafe(run.replace('%', "'{}'"))).await.unwrap();
    connection.execute(
        "INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, secret, version, sequence,
            created_at, updated_at)
        SELECT lpad(n::text, 32, '0')::uuid, 'customer-' || n, '', '{}', '', 'enabled', '', 1, 0, now(), now()
        FROM generate_series(1, 20) AS n;
        INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
        SELECT gen_random_uuid(), lpad(n::text, 32, '0')::uuid, 'pending', now(), now(), now()
        FROM generate_series(1, 20) AS n, generate_series(1, CASE WHEN n < 3 THEN 50000 ELSE 1 END);",
    ).await.unwrap();
    let busy = "'{00000000-0000-0000-0000-000000000001}'";
    for analyzed in [false, true] {
        if analyzed {
            connection.execute("UPDATE webhook_deliveries SET due_at = now(); ANALYZE").await.unwrap();
        }
        let explain = AssertSqlSafe(run.replace('%', busy));
        let plan: Value = sqlx::raw_sql(explain).fetch_one(&mut connection).await.unwrap().get(0);
        let read = rows_read(&plan[0]["Plan"], "webhook_deliveries");
        // One for each endpoint that waits, one for the first that is due, its share, and the rows that are leased.
        assert!(read <= 20.0 * 2.0 + 2.0 * (10.0 + 18.0) + 20.0, "{read} rows, analyzed: {analyzed}\n{plan:#}");
    }
}

#[tokio::test]
async fn the_backlog_is_counted_up_to_a_limit() {
    let database = servers::database().await;
    let store = PgStore::open(PgOptions::new(database.url.as_str()), Arc::new(SystemClock)).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    connection.execute(
        "INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, secret, version, sequence,
            created_at, updated_at)
        SELECT lpad(n::text, 32, '0')::uuid, 'customer-' || n, '', '{}', '', 'enabled', '', 1, 0, now(), now()
        FROM generate_series(1, 2) AS n;
        INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
        SELECT gen_random_uuid(), lpad(n::text, 32, '0')::uuid, 'pending', now(), now(), now()
        FROM generate_series(1, 2) AS n, generate_series(1, 60000);",
    ).await.unwrap();
    let backlog = store.delivery_backlog(SystemClock.now()).await.unwrap();
    assert_eq!(backlog.pending, u64::from(DeliveryBacklog::MAX_PENDING));
    store.close().await;
}
