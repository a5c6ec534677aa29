//! Lost connections, lost answers, deadlocks, restarts: applied once, answered truly.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use psp_domain::ports::{
    BalanceReader, Clock, Health, Leadership, OrderReader, PayableReader, Store, StoreError, SystemClock,
    TransactionReader,
};
use psp_domain::{ChangeSet, CountSubject, Currency, PageRequest, Transaction, TransactionKind, Verdict};
use psp_postgres::{PgLeadership, PgOptions, PgStore};
use psp_testkit::fixtures;
use psp_testkit::servers::{self, Database, Fault, FaultyProxy, PostgresServer};
use sqlx::{Connection, Executor, PgConnection};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The database's address through a proxy.
async fn through(
    database: &Database,
    decide: impl Fn(&[u8]) -> Fault + Send + Sync + 'static,
) -> (FaultyProxy, String) {
    let (before, rest) =
        database.url.split_once("127.0.0.1:").or_else(|| database.url.split_once("localhost:")).unwrap();
    let (port, rest) = rest.split_once('/').unwrap();
    let proxy = FaultyProxy::start(&format!("127.0.0.1:{port}"), decide).await;
    let url = format!("{before}{}/{rest}", proxy.address);
    (proxy, url)
}

async fn open(url: &str) -> Arc<PgStore> {
    PgStore::open(PgOptions::new(url), Arc::new(SystemClock)).await.unwrap()
}

fn payment() -> (Transaction, ChangeSet) {
    fixtures::create(&fixtures::new_transaction(), SystemClock.now())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_commit_is_asked_for_by_applying_the_same_again() {
    let database = servers::database().await;
    let direct = open(&database.url).await;
    // Every third statement that carries this customer's rows is executed, and its answer cut off.
    let count = AtomicU32::new(0);
    let decide = move |piece: &[u8]| {
        let is_write = piece.windows(10).any(|window| window == b"Lightsaber");
        let cut = is_write && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        if cut { Fault::CutAfter } else { Fault::None }
    };
    let (_proxy, url) = through(&database, decide).await;
    let store = open(&url).await;
    let (mut again, mut transactions) = (0, Vec::new());
    for round in 0..30 {
        let (transaction, mut change) = payment();
        if round % 2 == 0 {
            change.idempotency = Some(fixtures::idempotency(&change, &format!("key-{round}"), SystemClock.now()));
        }
        let verdict = store.apply(change).await.unwrap();
        assert!(matches!(verdict, Verdict::Applied | Verdict::AlreadyApplied), "{verdict:?}");
        again += u32::from(verdict == Verdict::AlreadyApplied);
        transactions.push(transaction);
    }
    assert!(again > 0, "no answer was lost");
    let customer = &transactions[0].customer_id;
    let there =
        TransactionReader::list(&*direct, customer, TransactionKind::Payment, PageRequest::default()).await.unwrap();
    assert_eq!(there.items.len(), transactions.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_whose_answer_is_lost_are_written_and_counted_once() {
    let database = servers::database().await;
    // Every third commit is executed, and its answer cut off.
    let count = AtomicU32::new(0);
    let decide = move |piece: &[u8]| {
        let is_commit = piece.windows(6).any(|window| window == b"COMMIT");
        let cut = is_commit && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        if cut { Fault::CutAfter } else { Fault::None }
    };
    let direct = open(&database.url).await;
    let (_proxy, url) = through(&database, decide).await;
    let store = open(&url).await;
    let (mut again, now) = (0, SystemClock.now());
    for round in 0..20 {
        let (order, mut placed) = fixtures::place(&fixtures::new_order("123", 1000), now);
        if round % 2 == 0 {
            placed.idempotency = Some(fixtures::idempotency(&placed, &format!("key-{round}"), now));
        }
        let (payment, created) = fixtures::pay_order(&order, now);
        let approval = fixtures::approve(&payment, now);
        for change in [placed, created, approval] {
            let verdict = store.apply(change).await.unwrap();
            assert!(matches!(verdict, Verdict::Applied | Verdict::AlreadyApplied), "{verdict:?}");
            again += u32::from(verdict == Verdict::AlreadyApplied);
        }
    }
    assert!(again > 0, "no answer was lost");
    for (subject, status) in [(CountSubject::Order, "pending_payment"), (CountSubject::Payment, "approved")] {
        let counts = direct.counts(&fixtures::customer("123"), subject).await.unwrap();
        assert_eq!(counts.len(), 1, "{counts:?}");
        assert_eq!((counts[0].status.as_str(), counts[0].count, counts[0].amount), (status, 20, 20_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_trip_and_a_few_more_where_it_holds_orders_or_refunds() {
    let database = servers::database().await;
    let trips = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&trips);
    let decide = move |piece: &[u8]| {
        // Those that wake other processes go beside.
        let is_wake = [&b"psp_queue"[..], b"pg_notify"].iter().any(|text| piece.windows(9).any(|w| w == *text));
        // Bind and Query: one for each statement, besides what its first time takes.
        let is_statement = matches!(piece[0], b'B' | b'Q') && !is_wake;
        count.fetch_add(u32::from(is_statement), Ordering::Relaxed);
        Fault::None
    };
    let (_proxy, url) = through(&database, decide).await;
    let store = open(&url).await;
    let now = SystemClock.now();
    let (transactions, created): (Vec<_>, Vec<_>) = (0..10).map(|_| payment()).unzip();
    let (orders, placed): (Vec<_>, Vec<_>) =
        (0..10).map(|_| fixtures::place(&fixtures::new_order("123", 1000), now)).unzip();
    let (payments, paid): (Vec<_>, Vec<_>) = orders.iter().map(|order| fixtures::pay_order(order, now)).unzip();
    let approvals: Vec<_> = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
    let of_orders: Vec<_> = payments.iter().map(|t| fixtures::approve(t, now)).collect();
    let refund = |approval: &ChangeSet| fixtures::ask_refund(fixtures::written(approval), None, now);
    let refunds: Vec<_> = approvals.iter().map(refund).collect();
    let with_key = |n: usize, change: ChangeSet| {
        let key = fixtures::idempotency(&change, &format!("key-{n}"), now);
        ChangeSet { idempotency: Some(key), ..change }
    };
    let place = |_: usize| fixtures::place(&fixtures::new_order("123", 1000), now).1;
    let key_taken = || with_key(0, place(0));
    let replayed: Vec<_> = std::iter::once(key_taken()).chain((0..10).map(place)).collect();
    let (mixed, plain): (Vec<_>, Vec<_>) = (0..10).map(|_| (payment().1, payment().1)).unzip();
    let mixed = mixed.into_iter().chain(placed).collect();
    for (what, batch, expected) in [
        ("payments", created, 1),
        ("approvals", approvals, 1),
        ("BEGIN, orders, all others, counts, COMMIT", mixed, 5),
        ("BEGIN, orders, payments, their orders, counts, COMMIT", paid, 6),
        ("BEGIN, approvals, counts, COMMIT", of_orders, 4),
        ("BEGIN, transactions, refunds, COMMIT", refunds, 4),
        ("payments again", plain, 1),
    ] {
        let (size, before) = (batch.len(), trips.load(Ordering::Relaxed));
        assert_eq!(store.apply_all(batch).await.unwrap(), vec![Verdict::Applied; size], "{what}");
        let taken = trips.load(Ordering::Relaxed) - before;
        assert_eq!(taken, expected, "trips of {what}");
    }

    // An order whose key comes back is told so by itself, and the others are written together.
    assert_eq!(store.apply(key_taken()).await.unwrap(), Verdict::Applied);
    let before = trips.load(Ordering::Relaxed);
    let mut expected = vec![Verdict::Applied; 11];
    expected[0] = Verdict::Duplicate;
    assert_eq!(store.apply_all(replayed).await.unwrap(), expected);
    // BEGIN; SAVEPOINT, its order, the rest, ROLLBACK, why; orders, all others, counts; COMMIT.
    assert_eq!(trips.load(Ordering::Relaxed) - before, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_answers_any_more_the_outcome_is_unknown_or_nothing_was_written() {
    let database = servers::database().await;
    let direct = open(&database.url).await;
    let (_proxy, url) = through(&database, |piece| {
        let is_write = piece.windows(10).any(|window| window == b"Lightsaber");
        if is_write { Fault::CutAfter } else { Fault::None }
    })
    .await;
    let store = open(&url).await;
    let (transaction, change) = payment();
    let error = store.apply(change.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown(_)), "{error:?}");
    // It was written, as applying it once more tells.
    assert_eq!(direct.apply(change).await.unwrap(), Verdict::AlreadyApplied);
    assert!(TransactionReader::find(&*direct, &transaction.customer_id, transaction.id).await.unwrap().is_some());

    let (_proxy, url) = through(&database, |piece| {
        let is_write = piece.windows(10).any(|window| window == b"Lightsaber");
        if is_write { Fault::CutBefore } else { Fault::None }
    })
    .await;
    let store = open(&url).await;
    let (transaction, change) = payment();
    assert!(store.apply(change).await.is_err());
    assert_eq!(TransactionReader::find(&*direct, &transaction.customer_id, transaction.id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up_and_asked_again() {
    let database = servers::database().await;
    let silent = AtomicU32::new(0);
    // The first write is never answered, as when its server lost power.
    let (_proxy, url) = through(&database, move |piece| {
        let is_write = piece.windows(10).any(|window| window == b"Lightsaber");
        let first = is_write && silent.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Fault::Silence } else { Fault::None }
    })
    .await;
    let mut options = PgOptions::new(url.as_str());
    options.statement_timeout = Duration::from_millis(100);
    let store = PgStore::open(options, Arc::new(SystemClock)).await.unwrap();
    let (_, change) = payment();
    let begun = Instant::now();
    assert_eq!(store.apply(change).await.unwrap(), Verdict::Applied);
    assert!(begun.elapsed() < PATIENCE);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_in_opposite_orders_deadlock_at_most_for_a_moment() {
    let database = servers::database().await;
    let stores = [open(&database.url).await, open(&database.url).await];
    let now = SystemClock.now();
    for _ in 0..10 {
        let (transactions, created): (Vec<_>, Vec<_>) = (0..20).map(|_| payment()).unzip();
        stores[0].apply_all(created).await.unwrap();
        let approvals: Vec<_> = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
        let backwards: Vec<_> = transactions.iter().rev().map(|t| fixtures::decline(t, now)).collect();
        let (one, other) = tokio::join!(stores[0].apply_all(approvals), stores[1].apply_all(backwards));
        let (one, mut other) = (one.unwrap(), other.unwrap());
        other.reverse();
        for (one, other) in one.iter().zip(&other) {
            assert_ne!(*one == Verdict::Applied, *other == Verdict::Applied, "{one:?} {other:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_server_comes_back_and_nothing_answered_is_lost() {
    let mut server = PostgresServer::start(&[]).await;
    let database = server.database().await;
    let store = open(&database.url).await;
    let (first, change) = payment();
    store.apply(change).await.unwrap();
    assert!(store.check().await.is_ok());
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut answered = Vec::new();
            let begun = Instant::now();
            // Through the crash and well beyond it.
            let mut after = 0;
            while after < 50 {
                assert!(begun.elapsed() < PATIENCE, "it does not write again");
                let (transaction, change) = payment();
                match store.apply(change).await {
                    Ok(verdict) => {
                        assert!(matches!(verdict, Verdict::Applied | Verdict::AlreadyApplied));
                        answered.push(transaction);
                        after += u32::from(answered.len() > 100);
                    }
                    Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            answered
        }
    });
    server.crash().await;
    let answered = writing.await.unwrap();
    assert!(TransactionReader::find(&*store, &first.customer_id, first.id).await.unwrap().is_some());
    for transaction in answered {
        let found = TransactionReader::find(&*store, &transaction.customer_id, transaction.id).await.unwrap();
        assert_eq!(found, Some(transaction));
    }
    let customer = &first.customer_id;
    assert!(PayableReader::list(&*store, customer, PageRequest::default()).await.unwrap().items.is_empty());
    assert_eq!(store.balance(customer, Currency::BRL).await.unwrap().waiting_funds.minor(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_another_takes_over_when_its_session_ends() {
    let database = servers::database().await;
    let candidates = [0; 3].map(|_| PgLeadership::new(PgOptions::new(database.url.as_str())));
    let [one, two, three] = &candidates;
    assert!(one.lead().await.unwrap());
    for _ in 0..3 {
        assert!(one.lead().await.unwrap(), "it still leads");
        assert!(!two.lead().await.unwrap() && !three.lead().await.unwrap());
    }
    one.resign().await;
    assert!(two.lead().await.unwrap());
    assert!(!one.lead().await.unwrap() && !three.lead().await.unwrap());
    // A session that the server ends, as in a failover.
    let mut admin = PgConnection::connect(&database.url).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = \
               (SELECT oid FROM pg_database WHERE datname = current_database())";
    admin.execute(end).await.unwrap();
    let begun = Instant::now();
    while !three.lead().await.unwrap() {
        assert!(begun.elapsed() < PATIENCE, "nobody leads");
    }
    assert!(!two.lead().await.unwrap(), "the old leader has noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_too_long_fails_the_write_and_writes_nothing() {
    let database = servers::database().await;
    let mut options = PgOptions::new(database.url.as_str());
    options.lock_timeout = Duration::from_millis(50);
    let store = PgStore::open(options, Arc::new(SystemClock)).await.unwrap();
    let (transaction, change) = payment();
    store.apply(change).await.unwrap();
    let mut holder = PgConnection::connect(&database.url).await.unwrap();
    holder.execute("BEGIN; SELECT 1 FROM transactions FOR UPDATE").await.unwrap();
    let error = store.apply(fixtures::approve(&transaction, SystemClock.now())).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(store.apply(fixtures::approve(&transaction, SystemClock.now())).await.unwrap(), Verdict::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_in_full() {
    let (server, authority) = PostgresServer::with_tls("localhost").await;
    let (_other, stranger) = PostgresServer::with_tls("localhost").await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &stranger));
    let by_name = server.url.replace("127.0.0.1", "localhost");
    let open = async |url: &str, mode: &str, root: &str| {
        PgStore::open(PgOptions::new(format!("{url}?sslmode={mode}&sslrootcert={root}")), Arc::new(SystemClock)).await
    };
    let store = open(&by_name, "verify-full", &right).await.unwrap();
    let (_, change) = payment();
    assert_eq!(store.apply(change).await.unwrap(), Verdict::Applied);
    let mut connection =
        PgConnection::connect(&format!("{by_name}?sslmode=verify-full&sslrootcert={right}")).await.unwrap();
    let ssl: bool = sqlx::query_scalar(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'psp'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert!(ssl, "every connection is encrypted");
    assert!(open(&by_name, "verify-full", &wrong).await.is_err(), "another authority");
    assert!(open(&server.url, "verify-full", &right).await.is_err(), "another name");
    assert!(open(&server.url, "verify-ca", &right).await.is_ok(), "the name is not asked for");
}
