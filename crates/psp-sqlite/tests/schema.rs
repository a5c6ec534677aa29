//! The schema as a database of an earlier release meets it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use chrono::{DateTime, Utc};
use psp_domain::ports::{
    AttemptStore, BalanceReader, Clock, PayableReader, RefundStore, SettlementChunk, SettlementStore, Store,
    TransactionReader, UuidV7Generator,
};
use psp_domain::{
    ChangeSet, Currency, Event, PageRequest, RefundFeePolicy, RefundId, RefundTotals, SealedCard, SettlementRunId,
    Transaction, TransactionKind, TransactionStatus, TransactionWrite, Verdict,
};
use psp_sqlite::{SqliteOptions, SqliteStore};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use sqlx::migrate::Migrator;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Writes a payment by card as the first release did.
async fn write(connection: &mut SqliteConnection, t: &Transaction, sealed: Option<&SealedCard>) {
    let (card, gateway) = (t.card.as_ref().unwrap(), t.gateway.as_ref());
    let sql = "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
               card_expiry, card_last_four, card_brand, installments, status, status_reason, gateway, gateway_reference, \
               version, created_at, updated_at, sealed_card) VALUES (?, ?, ?, ?, ?, ?, ?, 202510, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql)
        .bind(t.id.0)
        .bind(t.customer_id.as_str())
        .bind(&*t.description)
        .bind(t.amount.minor())
        .bind(t.amount.currency().code())
        .bind(t.payment_method.as_str())
        .bind(card.holder_name.as_str())
        .bind(&*card.last_four)
        .bind(card.brand.as_str())
        .bind(t.installments.get())
        .bind(t.status.as_str())
        .bind(t.status_reason.as_deref())
        .bind(gateway.map(|g| g.gateway.as_str()))
        .bind(gateway.map(|g| &*g.reference))
        .bind(t.version)
        .bind(t.created_at.timestamp_millis())
        .bind(t.updated_at.timestamp_millis())
        .bind(sealed.map(|card| &*card.0));
    query.execute(connection).await.unwrap();
}

/// Writes a new state of a payment as the first release did.
async fn update(connection: &mut SqliteConnection, t: &Transaction) {
    let sql = "WITH new AS (SELECT * FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL) UPDATE transactions \
               SET status = new.column3, status_reason = new.column4, gateway = new.column5, gateway_reference = new.column6, \
               version = new.column7, updated_at = new.column8, sealed_card = NULL \
               FROM new WHERE transactions.id = new.column1 AND transactions.version = new.column2";
    let gateway = t.gateway.as_ref();
    let query =
        sqlx::query(sql).bind(t.id.0).bind(t.version - 1).bind(t.status.as_str()).bind(t.status_reason.as_deref());
    let query = query.bind(gateway.map(|g| g.gateway.as_str())).bind(gateway.map(|g| &*g.reference));
    let query = query.bind(t.version).bind(t.updated_at.timestamp_millis());
    assert_eq!(query.execute(connection).await.unwrap().rows_affected(), 1);
}

async fn write_event(connection: &mut SqliteConnection, event: &Event) {
    let sql = "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql).bind(event.id.0).bind(event.kind.as_str()).bind(event.aggregate_id);
    let query = query.bind(event.sequence).bind(event.customer_id.as_str()).bind(&*event.data);
    query.bind(event.occurred_at.timestamp_millis()).execute(connection).await.unwrap();
}

/// Writes the payable of an approval as the first release did.
async fn write_payable(connection: &mut SqliteConnection, approval: &ChangeSet) {
    let p = &approval.payables[0];
    let sql = "INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, \
               payment_date, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql).bind(p.id.0).bind(p.transaction_id.0).bind(p.installment).bind(p.customer_id.as_str());
    let query = query.bind(p.receivable.currency().code()).bind(p.fee_percent.to_string()).bind(p.fee.minor());
    let query = query.bind(p.receivable.minor()).bind(p.status.as_str()).bind(p.payment_date.timestamp_millis());
    let query = query.bind(p.created_at.timestamp_millis()).bind(p.updated_at.timestamp_millis());
    query.execute(connection).await.unwrap();
}

/// The places of a transaction's events.
async fn sequences(url: &str, transaction: &Transaction) -> Vec<i64> {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let sql = "SELECT sequence FROM outbox WHERE aggregate_id = ? ORDER BY sequence";
    sqlx::query_scalar(sql).bind(transaction.id.0).fetch_all(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_of_the_first_release_are_read_back_and_go_on() {
    read_back_and_go_on(1, &["0002_gateways", "0003_events"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_of_the_release_before_are_read_back_and_go_on() {
    read_back_and_go_on(2, &["0003_events"]).await;
}

/// Payments of the release with that schema, in a database that these migrations bring up to date.
async fn read_back_and_go_on(schema: i64, missing: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
    MIGRATIONS.run_to(schema, &mut connection).await.unwrap();
    let (waiting, created) = fixtures::create(&fixtures::payment("123", 2500, 1), now);
    let Some(TransactionWrite::Insert(_, sealed)) = &created.transaction else { panic!("not an insert") };
    let (other, created_other) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
    let approval = fixtures::approve(&other, now);
    let approved = fixtures::written(&approval).clone();
    let (third, _) = fixtures::create(&fixtures::debit("123", 999), now);
    let declined = fixtures::written(&fixtures::decline(&third, now)).clone();
    write(&mut connection, &waiting, sealed.as_ref()).await;
    write(&mut connection, &approved, None).await;
    write(&mut connection, &declined, None).await;
    write_payable(&mut connection, &approval).await;
    for event in created.events.iter().chain(&created_other.events).chain(&approval.events) {
        write_event(&mut connection, event).await;
    }
    if schema > 1 {
        let sql = "UPDATE transactions SET sequence = version";
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();

    assert_eq!(SqliteStore::migrate(&url).await.unwrap(), missing);
    assert!(SqliteStore::migrate(&url).await.unwrap().is_empty());
    let store = SqliteStore::open(SqliteOptions::new(&*url), clock.clone()).await.unwrap();
    let customer = fixtures::customer("123");
    let page = PageRequest::default();
    let listed = TransactionReader::list(&*store, &customer, TransactionKind::Payment, page).await.unwrap().items;
    assert_eq!(listed, [declined, approved.clone(), waiting.clone()]);
    let loaded = store.load_for_authorization(&[waiting.id]).await.unwrap().remove(0);
    assert_eq!((loaded.card, loaded.attempts), (sealed.clone(), Vec::new()));
    assert_eq!(PayableReader::list(&*store, &customer, page).await.unwrap().items, approval.payables);

    // What waited is authorized, and what was authorized is settled.
    let opened = fixtures::attempt(&waiting, 1, now);
    let opens = ChangeSet::of_attempts(waiting, vec![opened.clone()]);
    let waiting = fixtures::written(&opens).clone();
    assert_eq!(store.apply(opens).await.unwrap(), Verdict::Applied);
    assert_eq!(store.attempts(waiting.id).await.unwrap(), [opened]);
    assert_eq!(store.apply(fixtures::approve(&waiting, now)).await.unwrap(), Verdict::Applied);
    assert_eq!(sequences(&url, &waiting).await, [1, 2]);
    let run_id = SettlementRunId(Uuid::from_u128(1));
    let due = now + chrono::Days::new(31);
    assert_eq!(store.plan_run(run_id, due, 10, now).await.unwrap(), 1);
    let settled = store.settle_chunk(SettlementChunk { run_id, number: 1 }, now).await.unwrap().unwrap();
    assert_eq!((settled.payables, settled.transactions), (2, 2));
    for (transaction, version) in [(&approved, 3), (&waiting, 4)] {
        let paid = TransactionReader::find(&*store, &customer, transaction.id).await.unwrap().unwrap();
        assert_eq!((paid.status, paid.version, paid.sequence), (TransactionStatus::Paid, version, 3));
        assert_eq!(sequences(&url, transaction).await, [1, 2, 3]);
        assert_eq!(paid.refunds, RefundTotals::none(paid.amount.currency()));
        // It is given back as one of this release.
        let refund = fixtures::ask_refund(&paid, None, now);
        assert_eq!(store.apply(refund.clone()).await.unwrap(), Verdict::Applied);
        end_refund(&store, refund.refunds[0].id, now).await;
        let refunded = TransactionReader::find(&*store, &customer, transaction.id).await.unwrap().unwrap();
        assert_eq!((refunded.status, refunded.refundable().minor()), (TransactionStatus::Refunded, 0));
    }
    store.close().await;
}

/// Gives back what is asked back.
async fn end_refund(store: &SqliteStore, id: RefundId, now: DateTime<Utc>) {
    let of = store.load_refund(id).await.unwrap().unwrap();
    let policy = RefundFeePolicy::Kept;
    let next = of.transaction.complete_refund(of.refund, &of.payables, policy, now, &UuidV7Generator).unwrap();
    assert_eq!(store.apply(fixtures::executed(next)).await.unwrap(), Verdict::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_release_writes_during_an_upgrade_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = SqliteStore::open(SqliteOptions::new(&*url), clock.clone()).await.unwrap();
    let mut connection = SqliteConnection::connect(&url).await.unwrap();

    // One that this release opened an attempt of, and the first one approves: it numbers events by the version.
    let (opened, created) = fixtures::create(&fixtures::payment("123", 2500, 1), now);
    let attempt = fixtures::attempt(&opened, 1, now);
    let opens = ChangeSet::of_attempts(opened, vec![attempt]);
    let opened = fixtures::written(&opens).clone();
    assert_eq!(store.apply_all(vec![created, opens]).await.unwrap(), [Verdict::Applied, Verdict::Applied]);
    let mut approval = fixtures::approve(&opened, now);
    approval.events[0].sequence = fixtures::written(&approval).version;
    update(&mut connection, fixtures::written(&approval)).await;
    write_payable(&mut connection, &approval).await;
    write_event(&mut connection, &approval.events[0]).await;
    // One that the first release created, and this one approves.
    let (old, created) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
    let Some(TransactionWrite::Insert(_, sealed)) = &created.transaction else { panic!("not an insert") };
    write(&mut connection, &old, sealed.as_ref()).await;
    write_event(&mut connection, &created.events[0]).await;
    assert_eq!(store.apply(fixtures::approve(&old, now)).await.unwrap(), Verdict::Applied);

    let run_id = SettlementRunId(Uuid::from_u128(1));
    assert_eq!(store.plan_run(run_id, now + chrono::Days::new(31), 10, now).await.unwrap(), 1);
    let settled = store.settle_chunk(SettlementChunk { run_id, number: 1 }, now).await.unwrap().unwrap();
    assert_eq!((settled.payables, settled.transactions), (2, 2));
    let customer = fixtures::customer("123");
    for (id, version, events) in [(opened.id, 4, [1, 3, 4]), (old.id, 3, [1, 2, 3])] {
        let paid = TransactionReader::find(&*store, &customer, id).await.unwrap().unwrap();
        assert_eq!((paid.kind, paid.status), (TransactionKind::Payment, TransactionStatus::Paid));
        assert_eq!((paid.version, paid.sequence), (version, version));
        assert_eq!(sequences(&url, &paid).await, events);
    }
    connection.close().await.unwrap();
    store.close().await;
}

/// What settles the payables with a payment date before `?2` in the release before.
const SETTLE: [&str; 5] = [
    "CREATE TEMP TABLE settling AS SELECT * FROM payables WHERE status = 'waiting_funds' AND payment_date < ?2 AND ?1 IS NOT NULL",
    "UPDATE payables SET status = 'paid', updated_at = ?1 WHERE id IN (SELECT id FROM temp.settling)",
    "UPDATE transactions SET status = 'paid', version = version + 1, sequence = sequence + 1, updated_at = ?1 \
     WHERE id IN (SELECT transaction_id FROM temp.settling) AND status = 'pending_payment' AND NOT EXISTS \
     (SELECT 1 FROM payables WHERE transaction_id = transactions.id AND status = 'waiting_funds')",
    "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at) \
     SELECT randomblob(16), 'transaction.paid', id, sequence, customer_id, '{}', ?1 \
     FROM transactions WHERE id IN (SELECT transaction_id FROM temp.settling) AND status = 'paid'",
    "INSERT INTO balances (customer_id, currency, available, waiting_funds) \
     SELECT customer_id, currency, sum(receivable), -sum(receivable) FROM temp.settling WHERE true \
     GROUP BY customer_id, currency ON CONFLICT (customer_id, currency) DO UPDATE \
     SET available = available + excluded.available, waiting_funds = waiting_funds + excluded.waiting_funds",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_settles_and_writes_payables_during_an_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = SqliteStore::open(SqliteOptions::new(&*url), clock.clone()).await.unwrap();
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let customer = fixtures::customer("123");

    // One that it approves, and two that wait for a refund while it settles.
    let (approved, created) = fixtures::create(&fixtures::payment("123", 2500, 1), now);
    assert_eq!(store.apply(created).await.unwrap(), Verdict::Applied);
    let approval = fixtures::approve(&approved, now);
    update(&mut connection, fixtures::written(&approval)).await;
    write_payable(&mut connection, &approval).await;
    write_event(&mut connection, &approval.events[0]).await;
    let (mut refunds, mut refunded) = (Vec::new(), Vec::new());
    for installments in [1, 2] {
        let (transaction, created) = fixtures::create(&fixtures::payment("456", 1000, installments), now);
        let approval = fixtures::approve(&transaction, now);
        let ask = fixtures::ask_refund(fixtures::written(&approval), Some(100), now);
        refunds.push(ask.refunds[0].id);
        assert_eq!(store.apply_all(vec![created, approval, ask]).await.unwrap(), [Verdict::Applied; 3]);
        refunded.push(transaction);
    }
    let run_id = SettlementRunId(Uuid::from_u128(1));
    assert_eq!(store.plan_run(run_id, now + chrono::Days::new(31), 10, now).await.unwrap(), 1);
    let due = (now + chrono::Days::new(31)).timestamp_millis();
    for sql in SETTLE {
        sqlx::query(sql).bind(now.timestamp_millis()).bind(due).execute(&mut connection).await.unwrap();
    }
    let paid = TransactionReader::find(&*store, &customer, approved.id).await.unwrap().unwrap();
    assert_eq!((paid.status, paid.version, paid.sequence), (TransactionStatus::Paid, 3, 3));

    // The end of a refund finds what was paid meanwhile, and the rest is settled as ever.
    for refund in refunds {
        end_refund(&store, refund, now).await;
    }
    let run_id = SettlementRunId(Uuid::from_u128(1 << 64));
    assert_eq!(store.plan_run(run_id, now + chrono::Days::new(61), 10, now).await.unwrap(), 1);
    let settled = store.settle_chunk(SettlementChunk { run_id, number: 1 }, now).await.unwrap().unwrap();
    assert_eq!((settled.payables, settled.transactions), (2, 1));
    for transaction in refunded {
        let paid = TransactionReader::find(&*store, &transaction.customer_id, transaction.id).await.unwrap().unwrap();
        assert_eq!((paid.status, paid.refunds.done.minor()), (TransactionStatus::Paid, 100));
    }
    let balance = store.balance(&fixtures::customer("456"), Currency::BRL).await.unwrap();
    assert_eq!((balance.available.minor(), balance.waiting_funds.minor()), (2 * (950 - 100), 0));
    connection.close().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_release_before_settles_while_a_refund_ends_is_seen_by_the_next_try() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = SqliteStore::open(SqliteOptions::new(&*url), clock.clone()).await.unwrap();
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let (transaction, created) = fixtures::create(&fixtures::payment("456", 1000, 1), now);
    let approval = fixtures::approve(&transaction, now);
    let ask = fixtures::ask_refund(fixtures::written(&approval), Some(100), now);
    let id = ask.refunds[0].id;
    assert_eq!(store.apply_all(vec![created, approval, ask]).await.unwrap(), [Verdict::Applied; 3]);
    let fail = async || {
        let of = store.load_refund(id).await.unwrap().unwrap();
        let next = of.transaction.fail_refund(of.refund, "no", &of.payables, now, &UuidV7Generator);
        fixtures::executed(next.unwrap())
    };
    let decided_before = fail().await;
    let run_id = SettlementRunId(Uuid::from_u128(1));
    assert_eq!(store.plan_run(run_id, now + chrono::Days::new(31), 10, now).await.unwrap(), 1);
    let due = (now + chrono::Days::new(31)).timestamp_millis();
    for sql in SETTLE {
        sqlx::query(sql).bind(now.timestamp_millis()).bind(due).execute(&mut connection).await.unwrap();
    }
    let find = || TransactionReader::find(&*store, &transaction.customer_id, transaction.id);

    // What was decided on a payable that waited is refused, and harms no other.
    let other = fixtures::create(&fixtures::new_transaction(), now).1;
    let verdicts = store.apply_all(vec![decided_before, other]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Duplicate, Verdict::Applied]);
    assert_eq!(find().await.unwrap().unwrap().status, TransactionStatus::PendingRefund);
    assert_eq!(store.apply(fail().await).await.unwrap(), Verdict::Applied);
    let paid = find().await.unwrap().unwrap();
    assert_eq!((paid.status, paid.refundable().minor()), (TransactionStatus::Paid, 1000));
    connection.close().await.unwrap();
    store.close().await;
}
