//! What must hold in the database, and in the books of the gateways, when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use psp_domain::Money;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::front::Told;
use crate::support::pause;

/// A transaction as the database has it.
pub(crate) struct Transaction {
    is_payout: bool,
    pub(crate) amount: Money,
    pub(crate) is_approved: bool,
}

/// What a gateway says of itself: see `psp_simulator::Totals`.
type Totals = Value;

/// Sums in minor units, by ISO 4217 code.
type Sums = BTreeMap<String, i64>;

async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    let number: Option<i64> = sqlx::query_scalar(sql).fetch_one(connection).await.unwrap();
    number.unwrap_or_default()
}

/// Waits until every transaction has ended, every attempt is resolved and every message and callback is done with.
pub(crate) async fn await_quiet(url: &str, patience: Duration) {
    const RESTLESS: &str = "SELECT (SELECT count(*) FROM transactions WHERE status = 'processing') \
        + (SELECT count(*) FROM gateway_attempts WHERE check_at IS NOT NULL) \
        + (SELECT count(*) FROM gateway_callbacks WHERE outcome IS NULL) \
        + (SELECT count(*) FROM outbox WHERE visible_at IS NOT NULL)";
    let mut connection = PgConnection::connect(url).await.unwrap();
    let begun = Instant::now();
    loop {
        let left = number(&mut connection, RESTLESS).await;
        if left == 0 {
            return;
        }
        assert!(
            begun.elapsed() < patience,
            "{left} transactions, attempts, callbacks and messages do not come to rest"
        );
        pause().await;
    }
}

/// Every answered transaction, and no other; each ended in time, by one event, and with what it owes the customer.
pub(crate) async fn judge_database(
    url: &str,
    answered: &BTreeSet<Uuid>,
    longest: Duration,
) -> BTreeMap<Uuid, Transaction> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query("SELECT id, kind, amount, currency, status FROM transactions");
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    let read = |row: &sqlx::postgres::PgRow| {
        let (kind, currency): (String, String) = (row.get("kind"), row.get("currency"));
        let amount = Money::new(row.get("amount"), currency.trim().parse().unwrap());
        let status: String = row.get("status");
        let is_approved = ["pending_payment", "paid"].contains(&status.as_str());
        (row.get("id"), Transaction { is_payout: kind == "withdrawal", amount, is_approved })
    };
    let transactions: BTreeMap<Uuid, _> = rows.iter().map(read).collect();
    assert_eq!(transactions.keys().copied().collect::<BTreeSet<_>>(), *answered, "one transaction for each key");
    for (what, sql) in [
        (
            "transactions that ended more than once",
            "SELECT count(*) FROM (SELECT aggregate_id FROM outbox WHERE kind IN ('transaction.approved', \
             'transaction.declined', 'transaction.failed') GROUP BY aggregate_id HAVING count(*) > 1) AS twice",
        ),
        (
            "approved payments without exactly their payables, or others with some",
            "SELECT count(*) FROM transactions AS t WHERE CASE WHEN kind = 'payment' AND status IN ('pending_payment', 'paid') \
             THEN installments ELSE 0 END <> (SELECT count(*) FROM payables AS p WHERE p.transaction_id = t.id)",
        ),
        (
            "payments whose receivables and fees are not their amount",
            "SELECT count(*) FROM transactions AS t WHERE amount <> (SELECT sum(fee + receivable) FROM payables AS p \
             WHERE p.transaction_id = t.id)",
        ),
        (
            "transactions without exactly one approved attempt if approved, none otherwise",
            "SELECT count(*) FROM transactions AS t WHERE (status IN ('pending_payment', 'paid'))::int <> \
             (SELECT count(*) FROM gateway_attempts AS a WHERE a.transaction_id = t.id AND a.state = 'approved')",
        ),
        ("cards that are kept", "SELECT count(*) FROM transactions WHERE sealed_card IS NOT NULL"),
    ] {
        assert_eq!(number(&mut connection, sql).await, 0, "{what}");
    }
    let slowest = "SELECT (extract(epoch FROM max(updated_at - created_at)) * 1000)::bigint FROM transactions";
    let slowest = Duration::from_millis(number(&mut connection, slowest).await.unsigned_abs());
    assert!(slowest < longest, "one was processing for {slowest:?}");
    eprintln!("the slowest took {slowest:?}");
    transactions
}

/// What the gateways charged and paid out is what is approved here, transaction by transaction and currency by currency, and
/// each once.
pub(crate) fn judge_books(transactions: &BTreeMap<Uuid, Transaction>, gateways: &[Totals]) {
    let mut moved = BTreeMap::<Uuid, (u64, i64)>::new();
    for (id, of) in gateways.iter().flat_map(|totals| totals["transactions"].as_object().unwrap()) {
        let of_all = moved.entry(id.parse().unwrap()).or_default();
        of_all.0 += of["charges"].as_u64().unwrap();
        of_all.1 += of["charged"].as_i64().unwrap();
    }
    assert!(moved.keys().all(|id| transactions.contains_key(id)), "money moved for what is no transaction");
    for (id, transaction) in transactions {
        let approved = transaction.is_approved.then(|| (1, transaction.amount.minor()));
        assert_eq!(moved.get(id).copied(), approved, "{id}: times and amount at the gateways, and here");
    }
    for (what, is_payout) in [("sums", false), ("paid_out", true)] {
        let approved = transactions.values().filter(|of| of.is_approved && of.is_payout == is_payout);
        let mut here = Sums::new();
        for transaction in approved {
            *here.entry(transaction.amount.currency().code().to_owned()).or_default() += transaction.amount.minor();
        }
        let mut there = Sums::new();
        for (code, sum) in gateways.iter().flat_map(|totals| totals[what].as_object().unwrap()) {
            *there.entry(code.clone()).or_default() += sum.as_i64().unwrap();
        }
        // What was voided leaves a zero, or nothing.
        there.retain(|_, sum| *sum != 0);
        assert_eq!(there, here, "{what}");
    }
}

/// Every wrong amount that was taken is flagged; every other one came when the transaction had ended. How many were taken.
pub(crate) async fn judge_wrong_amounts(
    url: &str,
    transactions: &BTreeMap<Uuid, Transaction>,
    told: &[Told],
    gateways: &[Totals],
) -> usize {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let (mut seen, mut taken) = (0, BTreeSet::new());
    for Told { id, body, answered } in told {
        let text = |name: &str| body[name].as_str().unwrap();
        let amount = Money::from_major(text("amount").parse().unwrap(), text("currency").parse().unwrap()).unwrap();
        if amount == transactions[id].amount || answered.is_server_error() {
            continue;
        }
        seen += 1;
        if *answered == 409 {
            continue;
        }
        assert_eq!(*answered, 202, "{id}: {body}");
        let outcome = sqlx::query_scalar(
            "SELECT outcome FROM gateway_callbacks WHERE transaction_id = $1 AND gateway_reference = $2 AND amount = $3",
        );
        let outcome = outcome.bind(id).bind(text("gateway_txn_id")).bind(amount.minor());
        let outcomes: Vec<String> = outcome.fetch_all(&mut connection).await.unwrap();
        assert_eq!(outcomes, ["wrong_amount"], "{id}: {body}");
        taken.insert((*id, amount.minor()));
    }
    let delivered = gateways.iter().map(|totals| totals["callbacks"]["wrong_amounts"].as_u64().unwrap()).sum::<u64>();
    assert!(seen >= delivered, "the gateways delivered {delivered} wrong amounts, of which {seen} came by");
    let flagged = "SELECT count(*) FROM gateway_callbacks WHERE outcome = 'wrong_amount'";
    let flagged = usize::try_from(number(&mut connection, flagged).await).unwrap();
    assert_eq!(flagged, taken.len(), "none is flagged that is right");
    flagged
}
