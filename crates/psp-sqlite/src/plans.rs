//! No statement of the hot paths reads a whole table, however large it has grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use psp_domain::ports::{Clock, DeliveryBacklog, DeliveryStore, IdGenerator, SystemClock, UuidV7Generator};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::Bulk;
use crate::connection::{Durability, SqliteStore};
use crate::{
    SqliteOptions, attempts, callbacks, card_tokens, counts, deliveries, endpoints, events, idempotency, orders,
    payables, queue, refunds, sealed_cards, settlement, transactions,
};

/// Tables that grow with the business.
const GROWING: [&str; 17] = [
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
    // As statements call events, deliveries and endpoints where they join them.
    "e",
    "d",
    "w",
];

/// Statements over those.
const STATEMENTS: &[&str] = &[
    transactions::FIND,
    transactions::LIST,
    transactions::LOAD,
    payables::FIND,
    payables::LIST,
    payables::OF_TRANSACTION,
    transactions::LIST_OF_ORDERS,
    orders::FIND,
    orders::LOAD,
    orders::LIST,
    orders::WAITING,
    orders::CANCELLED,
    counts::LIST,
    refunds::LIST,
    refunds::FIND,
    refunds::SEND_CHECKS,
    refunds::MOVE_CHECKS,
    refunds::OVERDUE,
    idempotency::FIND,
    idempotency::TAKEN,
    idempotency::PURGE,
    queue::RECEIVE,
    queue::VISIBLE,
    queue::DEPTH,
    settlement::NTH_PLACE,
    settlement::LAST_PLACE,
    settlement::TAKE,
    settlement::PAY,
    settlement::PAYABLE_EVENTS[1],
    settlement::FINISH,
    settlement::TRANSACTION_EVENTS[1],
    settlement::MOVE_BALANCES,
    settlement::COUNT_AMOUNTS,
    attempts::EXISTS,
    attempts::LIST,
    attempts::SEND_CHECKS,
    attempts::MOVE_CHECKS,
    attempts::OVERDUE,
    attempts::STALLED,
    callbacks::INSERT,
    callbacks::KNOWN,
    callbacks::FIND,
    callbacks::CONCLUDE,
    callbacks::WITH_OUTCOME,
    card_tokens::FIND,
    card_tokens::IS_THERE,
    card_tokens::PURGE,
    sealed_cards::TRANSACTIONS.list,
    sealed_cards::TRANSACTIONS.replace,
    sealed_cards::TOKENS.list,
    sealed_cards::TOKENS.replace,
    sealed_cards::SHRED,
    events::FIND,
    events::OF_IDS,
    events::OF_CUSTOMER,
    events::OF_ALL,
    events::IDS_OF_CUSTOMER,
    events::IDS_OF_ALL,
    events::WALKED_BACK_TO[0],
    events::WALKED_BACK_TO[1],
    events::WALKED_ON_TO[0],
    events::WALKED_ON_TO[1],
    events::COUNT_MESSAGES,
    events::SEND_AGAIN,
    events::WALK,
    endpoints::INSERT,
    endpoints::UPDATE,
    endpoints::DELETE,
    endpoints::SILENCE,
    deliveries::FORGET,
    deliveries::COUNT_REDELIVERED,
    endpoints::EXISTS,
    endpoints::FIND,
    endpoints::LIST,
    endpoints::ALL,
    endpoints::OF_IDS,
    deliveries::IS_DUE,
    deliveries::CLAIM,
    deliveries::OF_EVENT,
    deliveries::REDELIVER,
    deliveries::COUNT_REPLAYED,
    deliveries::REPLAY,
    deliveries::BACKLOG,
];

/// Those that take many rows.
const BULKS: &[&Bulk] = &[
    &transactions::UPDATE,
    &transactions::LINK,
    &transactions::UPDATE_REFUNDS,
    &transactions::ARE_SETTLED,
    &orders::UPDATE,
    &refunds::WRITE,
    &attempts::WRITE,
    &card_tokens::SPEND,
    &idempotency::FREE,
    &queue::ACK,
    &queue::ACK_COMMANDS,
    &events::PURGE,
    &events::PURGE_DELIVERIES,
    &events::PURGE_ATTEMPTS,
    &deliveries::FAN_OUT,
    &deliveries::INSERT_ATTEMPTS,
    &deliveries::JUDGE_ENDPOINTS,
    &deliveries::CONCLUDE,
];

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url), Arc::new(SystemClock)).await.unwrap();
    let mut statements: Vec<String> = STATEMENTS.iter().copied().map(str::to_owned).collect();
    for bulk in BULKS {
        statements.extend([1, 8, 128].map(|rows| bulk.sql(rows)));
    }
    let mut writer = store.writer().await.unwrap();
    let mut database = writer.begin(Durability::Full).await.unwrap();
    for statement in statements {
        let statement = statement.trim_start_matches("PRAGMA synchronous = NORMAL; ");
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut *database).await.unwrap();
        for step in plan.iter().map(|row| row.get::<String, _>("detail")) {
            // A walk over a whole index is as bad.
            let scanned = step.strip_prefix("SCAN ").and_then(|scanned| scanned.split(' ').next());
            let scans = scanned.is_some_and(|table| GROWING.contains(&table));
            // This index holds what waits and no other.
            let scans = scans && !step.contains("transactions_processing");
            assert!(!scans && !step.contains("AUTOMATIC"), "{step}\nin {statement}");
        }
    }
    drop(database);
    drop(writer);
    store.close().await;
}

/// Fills so many deliveries that wait for an endpoint of a name of its own.
async fn fill(connection: &mut SqliteConnection, customer: &str, count: u32) -> Uuid {
    let sql = "INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, secret, version, sequence, \
               created_at, updated_at) VALUES (?, ?, '', '', '', 'enabled', x'', 1, 0, 0, 0)";
    let id = UuidV7Generator.next_id();
    sqlx::query(sql).bind(id).bind(customer).execute(&mut *connection).await.unwrap();
    let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2) \
               INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at) \
               SELECT randomblob(16), ?1, 'pending', n, 0, 0 FROM n";
    sqlx::query(sql).bind(id).bind(count).execute(&mut *connection).await.unwrap();
    id
}

/// How many steps of SQLite's machine a look for due deliveries takes, in tens.
async fn effort(connection: &mut SqliteConnection, except: &[Uuid]) -> (u32, bool) {
    let steps = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&steps);
    let mut handle = connection.lock_handle().await.unwrap();
    handle.set_progress_handler(10, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    drop(handle);
    let query = sqlx::query_scalar(deliveries::IS_DUE).bind(100_000).bind(100).bind(events::hex_ids(except));
    let is_due = query.fetch_one(&mut *connection).await.unwrap();
    connection.lock_handle().await.unwrap().remove_progress_handler();
    (steps.load(Ordering::Relaxed), is_due)
}

#[tokio::test]
async fn looking_for_due_deliveries_costs_the_same_however_many_wait_for_an_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url), Arc::new(SystemClock)).await.unwrap();
    let mut writer = store.writer().await.unwrap();
    let connection = writer.connection().unwrap();
    let busy = fill(connection, "busy", 10).await;
    let (few, is_due) = effort(connection, &[busy]).await;
    assert!(!is_due, "it is excepted");
    let sql = "UPDATE webhook_deliveries SET endpoint_id = ?";
    let busier = fill(connection, "busier", 50_000).await;
    sqlx::query(sql).bind(busier).execute(&mut *connection).await.unwrap();
    let (many, is_due) = effort(connection, &[busier]).await;
    assert!(!is_due, "it is excepted");
    assert!(many <= few + 5, "{many} after {few}");
    fill(connection, "other", 1).await;
    let (one_more, is_due) = effort(connection, &[busier]).await;
    assert!(is_due && one_more <= few + 50, "{one_more} after {few}");
    drop(writer);
    store.close().await;
}

#[tokio::test]
async fn the_backlog_is_counted_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url), Arc::new(SystemClock)).await.unwrap();
    let mut writer = store.writer().await.unwrap();
    let connection = writer.connection().unwrap();
    for customer in ["busy", "busier"] {
        fill(connection, customer, DeliveryBacklog::MAX_PENDING - 1).await;
    }
    drop(writer);
    let backlog = store.delivery_backlog(SystemClock.now()).await.unwrap();
    assert_eq!(backlog.pending, u64::from(DeliveryBacklog::MAX_PENDING));
    store.close().await;
}
