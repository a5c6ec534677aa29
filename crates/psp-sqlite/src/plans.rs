//! No statement of the hot paths reads a whole table, however large it has grown.

use std::sync::Arc;

use psp_domain::ports::SystemClock;
use sqlx::{AssertSqlSafe, Row};

use crate::connection::{Durability, SqliteStore};
use crate::{
    SqliteOptions, attempts, callbacks, card_tokens, counts, idempotency, orders, payables, queue, refunds,
    sealed_cards, settlement, transactions,
};

/// Tables that grow with the business.
const GROWING: [&str; 12] = [
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
    "outbox AS e",
];

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url), Arc::new(SystemClock)).await.unwrap();
    let mut statements: Vec<String> = [
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
    ]
    .map(str::to_owned)
    .into();
    let bulks = [
        &transactions::UPDATE,
        &transactions::LINK,
        &transactions::UPDATE_REFUNDS,
        &orders::UPDATE,
        &refunds::WRITE,
        &attempts::WRITE,
        &card_tokens::SPEND,
        &idempotency::FREE,
        &queue::ACK,
        &queue::ACK_COMMANDS,
    ];
    for bulk in bulks {
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
            let scans = GROWING.iter().any(|table| step.starts_with(&format!("SCAN {table}")));
            // This index holds what waits and no other.
            let scans = scans && !step.contains("transactions_processing");
            assert!(!scans && !step.contains("AUTOMATIC"), "{step}\nin {statement}");
        }
    }
    drop(database);
    drop(writer);
    store.close().await;
}
