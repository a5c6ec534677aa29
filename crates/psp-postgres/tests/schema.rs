//! The schema as several releases and several logins meet it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use chrono::{DateTime, Utc};
use psp_domain::ports::{
    AttemptStore, BalanceReader, Clock, OrderReader, PayableReader, RefundStore, SettlementChunk, SettlementStore,
    Store, TransactionReader, UuidV7Generator,
};
use psp_domain::{
    ChangeSet, CountSubject, Currency, Event, PageRequest, RefundFeePolicy, RefundId, RefundTotals, SealedCard,
    SettlementRunId, Transaction, TransactionKind, TransactionStatus, TransactionWrite, Verdict,
};
use psp_postgres::{OpenError, PgOptions, PgStore};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use psp_testkit::servers::{self, PostgresServer};
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

#[tokio::test]
async fn a_release_that_is_rolled_back_opens_the_newer_schema_but_no_changed_one() {
    let database = servers::database().await;
    let options = PgOptions::new(&*database.url);
    PgStore::migrate(&options).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of a later release', true, 'x', 0)";
    connection.execute(newer).await.unwrap();
    assert!(PgStore::migrate(&options).await.unwrap().is_empty());
    connection.execute("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1").await.unwrap();
    assert!(matches!(PgStore::migrate(&options).await, Err(OpenError::Migrate(_))));
}

#[tokio::test]
async fn a_service_login_may_use_the_tables_and_not_change_the_schema() {
    // Logins belong to the whole server.
    let server = PostgresServer::start(&["fsync=off"]).await;
    let options = PgOptions::new(&*server.url);
    PgStore::migrate(&options).await.unwrap();
    let mut owner = PgConnection::connect(&server.url).await.unwrap();
    // As on RDS, where members of this role log in with IAM tokens.
    owner.execute("CREATE ROLE rds_iam").await.unwrap();
    let name = r#"o'clock"psp"#;
    for _ in 0..2 {
        PgStore::grant(&options, name).await.unwrap();
    }
    let member: bool = sqlx::query_scalar("SELECT pg_has_role($1, 'rds_iam', 'member')")
        .bind(name)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert!(member);

    let url = server.url.replace("postgres@", "o%27clock%22psp@");
    PgStore::migrate(&PgOptions::new(&*url)).await.unwrap();
    let mut service = PgConnection::connect(&url).await.unwrap();
    for allowed in ["DELETE FROM transactions", "SELECT * FROM _sqlx_migrations"] {
        service.execute(allowed).await.unwrap();
    }
    // A write that the trigger of the schema adds to.
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), FixedClock::default().now());
    let Some(TransactionWrite::Insert(_, sealed)) = &created.transaction else { panic!("not an insert") };
    write(&mut service, &transaction, sealed.as_ref()).await;
    update(&mut service, fixtures::written(&fixtures::fail(&transaction, transaction.created_at))).await;
    let sequence: i64 = sqlx::query_scalar("SELECT sequence FROM transactions").fetch_one(&mut service).await.unwrap();
    assert_eq!(sequence, 2);
    for denied in [
        "CREATE TABLE t ()",
        "DROP TABLE payables",
        "DROP FUNCTION transactions_number_events",
        "TRUNCATE payables",
        "DELETE FROM _sqlx_migrations",
    ] {
        let error = service.execute(denied).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{denied}: {error}");
    }
}

/// Writes a payment by card as the first release did.
async fn write(connection: &mut PgConnection, t: &Transaction, sealed: Option<&SealedCard>) {
    let (card, gateway) = (t.card.as_ref().unwrap(), t.gateway.as_ref());
    let sql = "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
               card_expiry, card_last_four, card_brand, installments, status, status_reason, gateway, gateway_reference, \
               version, created_at, updated_at, sealed_card, waiting_payables) VALUES ($1, $2, $3, $4, $5, $6, $7, 202510, $8, $9, \
               $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";
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
        .bind(i16::from(t.installments.get()))
        .bind(t.status.as_str())
        .bind(t.status_reason.as_deref())
        .bind(gateway.map(|g| g.gateway.as_str()))
        .bind(gateway.map(|g| &*g.reference))
        .bind(t.version)
        .bind(t.created_at)
        .bind(t.updated_at)
        .bind(sealed.map(|card| &*card.0))
        .bind(i16::from(t.status == TransactionStatus::PendingPayment));
    query.execute(connection).await.unwrap();
}

/// Writes a new state of a payment as the first release did.
async fn update(connection: &mut PgConnection, t: &Transaction) {
    let sql = "UPDATE transactions AS t SET status = u.status, status_reason = u.status_reason, gateway = u.gateway, \
               gateway_reference = u.gateway_reference, waiting_payables = u.waiting_payables, version = u.version, \
               updated_at = u.updated_at, sealed_card = NULL \
               FROM (SELECT $1::uuid, $2::bigint, $3::text, $4::text, $5::text, $6::text, $7::smallint, $8::bigint, $9::timestamptz) \
               AS u (id, expected, status, status_reason, gateway, gateway_reference, waiting_payables, version, updated_at) \
               WHERE t.id = u.id AND t.version = u.expected";
    let gateway = t.gateway.as_ref();
    let query =
        sqlx::query(sql).bind(t.id.0).bind(t.version - 1).bind(t.status.as_str()).bind(t.status_reason.as_deref());
    let query = query.bind(gateway.map(|g| g.gateway.as_str())).bind(gateway.map(|g| &*g.reference));
    let query = query.bind(i16::from(t.status == TransactionStatus::PendingPayment)).bind(t.version).bind(t.updated_at);
    assert_eq!(query.execute(connection).await.unwrap().rows_affected(), 1);
}

async fn write_event(connection: &mut PgConnection, event: &Event) {
    let sql = "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let query = sqlx::query(sql).bind(event.id.0).bind(event.kind.as_str()).bind(event.aggregate_id);
    let query = query.bind(event.sequence).bind(event.customer_id.as_str()).bind(&*event.data);
    query.bind(event.occurred_at).execute(connection).await.unwrap();
}

/// Writes the payable of an approval as the first release did.
async fn write_payable(connection: &mut PgConnection, approval: &ChangeSet) {
    let p = &approval.payables[0];
    let sql = "INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, \
               payment_date, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6::numeric, $7, $8, $9, $10, $11, $12)";
    let query = sqlx::query(sql)
        .bind(p.id.0)
        .bind(p.transaction_id.0)
        .bind(i16::from(p.installment))
        .bind(p.customer_id.as_str());
    let query = query.bind(p.receivable.currency().code()).bind(p.fee_percent.to_string()).bind(p.fee.minor());
    let query = query.bind(p.receivable.minor()).bind(p.status.as_str()).bind(p.payment_date);
    let query = query.bind(p.created_at).bind(p.updated_at);
    query.execute(connection).await.unwrap();
}

/// The places of a transaction's events.
async fn sequences(url: &str, transaction: &Transaction) -> Vec<i64> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sql = "SELECT sequence FROM outbox WHERE aggregate_id = $1 ORDER BY sequence";
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
    let database = servers::database().await;
    let options = PgOptions::new(&*database.url);
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
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
        connection.execute("UPDATE transactions SET sequence = version").await.unwrap();
    }
    connection.close().await.unwrap();

    assert_eq!(PgStore::migrate(&options).await.unwrap(), missing);
    assert!(PgStore::migrate(&options).await.unwrap().is_empty());
    let store = PgStore::open(options, clock.clone()).await.unwrap();
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
    assert_eq!(sequences(&database.url, &waiting).await, [1, 2]);
    let run_id = SettlementRunId(Uuid::from_u128(1));
    let due = now + chrono::Days::new(31);
    assert_eq!(store.plan_run(run_id, due, 10, now).await.unwrap(), 1);
    let settled = store.settle_chunk(SettlementChunk { run_id, number: 1 }, now).await.unwrap().unwrap();
    assert_eq!((settled.payables, settled.transactions), (2, 2));
    for (transaction, version) in [(&approved, 3), (&waiting, 4)] {
        let paid = TransactionReader::find(&*store, &customer, transaction.id).await.unwrap().unwrap();
        assert_eq!((paid.status, paid.version, paid.sequence), (TransactionStatus::Paid, version, 3));
        assert_eq!(sequences(&database.url, transaction).await, [1, 2, 3]);
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
async fn end_refund(store: &PgStore, id: RefundId, now: DateTime<Utc>) {
    let of = store.load_refund(id).await.unwrap().unwrap();
    let policy = RefundFeePolicy::Kept;
    let next = of.transaction.complete_refund(of.refund, &of.payables, policy, now, &UuidV7Generator).unwrap();
    assert_eq!(store.apply(fixtures::executed(next)).await.unwrap(), Verdict::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_release_writes_during_an_upgrade_goes_on() {
    let database = servers::database().await;
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = PgStore::open(PgOptions::new(&*database.url), clock.clone()).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();

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
        assert_eq!(sequences(&database.url, &paid).await, events);
    }
    connection.close().await.unwrap();
    store.close().await;
}

/// What settles the payables of the first chunk of a run in the release before.
const SETTLE: &str = "WITH chunk AS (
        SELECT run_id, number, from_date, from_id, to_date, to_id FROM settlement_chunks
        WHERE run_id = $1 AND number = 1 AND settled_at IS NULL FOR UPDATE
    ), paid AS (
        UPDATE payables AS p SET status = 'paid', updated_at = $2 FROM chunk AS c
        WHERE p.status = 'waiting_funds' AND (p.payment_date, p.id) > (c.from_date, c.from_id)
            AND (p.payment_date, p.id) <= (c.to_date, c.to_id)
        RETURNING p.id, p.transaction_id, p.installment, p.customer_id, p.currency, p.receivable
    ), counted AS (
        UPDATE transactions AS t SET waiting_payables = t.waiting_payables - d.paid,
            status = CASE WHEN t.waiting_payables = d.paid THEN 'paid' ELSE t.status END,
            version = CASE WHEN t.waiting_payables = d.paid THEN t.version + 1 ELSE t.version END,
            sequence = CASE WHEN t.waiting_payables = d.paid THEN t.sequence + 1 ELSE t.sequence END,
            updated_at = CASE WHEN t.waiting_payables = d.paid THEN $2 ELSE t.updated_at END
        FROM (SELECT transaction_id, count(*)::smallint AS paid FROM paid GROUP BY transaction_id) AS d
        WHERE t.id = ANY (ARRAY (SELECT transaction_id FROM paid)) AND t.id = d.transaction_id
            AND t.status = 'pending_payment'
        RETURNING t.id, t.customer_id, t.sequence, t.amount, t.currency, t.status
    ), moved AS (
        INSERT INTO balances AS old (customer_id, currency, available, waiting_funds)
        SELECT customer_id, currency, sum(receivable)::bigint, -sum(receivable)::bigint FROM paid
        GROUP BY customer_id, currency ORDER BY customer_id, currency
        ON CONFLICT (customer_id, currency) DO UPDATE SET available = old.available + excluded.available,
            waiting_funds = old.waiting_funds + excluded.waiting_funds
    ), transaction_events AS (
        INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at)
        SELECT gen_random_uuid(), 'transaction.paid', id, sequence, customer_id, '{}', $2 FROM counted WHERE status = 'paid'
    )
    UPDATE settlement_chunks AS s SET settled_at = $2, payables = (SELECT count(*) FROM paid),
        transactions = (SELECT count(*) FROM counted WHERE status = 'paid')
    WHERE s.run_id = $1 AND s.number = 1 AND EXISTS (SELECT FROM chunk)";

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_settles_and_writes_payables_during_an_upgrade() {
    let database = servers::database().await;
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = PgStore::open(PgOptions::new(&*database.url), clock.clone()).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
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
    sqlx::query(SETTLE).bind(run_id.0).bind(now).execute(&mut connection).await.unwrap();
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
    let database = servers::database().await;
    let clock = Arc::new(FixedClock::default());
    let now = clock.now();
    let store = PgStore::open(PgOptions::new(&*database.url), clock.clone()).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
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
    sqlx::query(SETTLE).bind(run_id.0).bind(now).execute(&mut connection).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_wrong_are_counted_anew_as_the_operations_say() {
    let database = servers::database().await;
    let store = PgStore::open(PgOptions::new(&*database.url), Arc::new(FixedClock::default())).await.unwrap();
    let now = FixedClock::default().now();
    for approves in [true, true, false] {
        let (order, placed) = fixtures::place(&fixtures::new_order("123", 1000), now);
        let (payment, paid) = fixtures::pay_order(&order, now);
        let mut changes = vec![placed, paid];
        if approves {
            changes.push(fixtures::approve(&payment, now));
        }
        let applied = vec![Verdict::Applied; changes.len()];
        assert_eq!(store.apply_all(changes).await.unwrap(), applied);
    }
    let (customer, mut expected) = (fixtures::customer("123"), Vec::new());
    for subject in [CountSubject::Order, CountSubject::Payment] {
        expected.push(store.counts(&customer, subject).await.unwrap());
    }
    assert_eq!(expected.iter().map(Vec::len).sum::<usize>(), 3, "orders that wait; payments of two statuses");
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let spoil = "UPDATE status_counts SET count = count + 7, amount = 0, status = status || '?'";
    connection.execute(spoil).await.unwrap();
    let (_, recount) = include_str!("../../../docs/operations.md").split_once("```sql\nBEGIN;").expect("the statement");
    let (recount, _) = recount.split_once("```").unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("BEGIN;{recount}"))).await.unwrap();
    for (subject, expected) in [CountSubject::Order, CountSubject::Payment].into_iter().zip(expected) {
        assert_eq!(store.counts(&customer, subject).await.unwrap(), expected);
    }
    connection.close().await.unwrap();
    store.close().await;
}
