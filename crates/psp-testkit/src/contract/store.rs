//! What every store does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Clock, SettlementChunk};
use psp_domain::usecases::{SettlePayables, due_before};
use psp_domain::{
    ChangeSet, Currency, PageRequest, Payable, PayableStatus, Position, QueueName, Transaction, TransactionId,
    TransactionStatus, Verdict,
};

use super::PATIENCE;
use crate::{Ports, fixtures};

/// Runs the store contract over the ports that an async function makes.
#[macro_export]
macro_rules! store_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::store,
            a_created_transaction_can_be_read_and_its_message_received
            a_batch_does_the_same_as_its_change_sets_one_at_a_time
            the_same_change_set_again_has_one_effect
            a_stale_version_writes_nothing
            change_sets_for_one_transaction_in_one_batch_are_taken_in_order
            a_refused_change_set_harms_no_other_of_its_batch
            an_idempotency_key_is_taken_once
            an_expired_idempotency_key_is_free_again
            the_sealed_card_is_gone_once_authorization_ended
            a_customer_sees_its_own_rows_only
            pages_are_newest_first_without_gaps_or_repeats
            balances_are_the_sums_of_the_payables
            a_race_of_outcomes_has_one_winner
            a_race_of_approvals_makes_each_payable_once
            settlement_pays_what_is_due_and_nothing_else
            settlement_finishes_a_transaction_with_its_last_installment
            two_runs_at_once_pay_once
            a_settlement_run_is_cut_into_chunks_with_a_message_each
        }
    };
}

async fn create(ports: &Ports, customer: &str, minor: i64, installments: u8) -> Transaction {
    let new = fixtures::payment(customer, minor, installments);
    let (transaction, change) = fixtures::create(&new, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    transaction
}

async fn approved(ports: &Ports, customer: &str, minor: i64, installments: u8) -> Transaction {
    let transaction = create(ports, customer, minor, installments).await;
    let change = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    transaction
}

async fn load(ports: &Ports, t: &Transaction) -> Transaction {
    ports.transactions.find(&t.customer_id, t.id).await.unwrap().expect("the transaction")
}

async fn payables(ports: &Ports, customer: &str) -> Vec<Payable> {
    let customer = fixtures::customer(customer);
    let mut all = Vec::new();
    let mut page = PageRequest::default();
    loop {
        let part = ports.payables.list(&customer, page).await.unwrap();
        all.extend(part.items);
        let Some(next) = part.next else { return all };
        page = PageRequest::new(Position::After(next), PageRequest::MAX_LIMIT).unwrap();
    }
}

async fn balance(ports: &Ports, customer: &str) -> (i64, i64) {
    let balance = ports.balances.balance(&fixtures::customer(customer), Currency::BRL).await.unwrap();
    (balance.available.minor(), balance.waiting_funds.minor())
}

/// The number of messages that can be received now.
async fn messages(ports: &Ports, queue: QueueName) -> usize {
    ports.queue.receive(queue, 1000, Duration::ZERO).await.unwrap().len()
}

/// Settles every chunk of a run for what is due in that many days.
async fn settle(ports: &Ports, days: u64, chunk_size: u32) -> psp_domain::ports::SettlementProgress {
    let date = (ports.clock.now() + chrono::Days::new(days)).date_naive();
    let settle = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let run = settle.plan(Some(date), chunk_size).await.unwrap();
    for number in 1..=run.chunks {
        let chunk = SettlementChunk { run_id: run.id, number };
        settle.settle(chunk).await.unwrap().expect("the chunk");
        assert_eq!(settle.settle(chunk).await.unwrap().expect("the chunk").payables, 0, "again: nothing");
    }
    settle.progress(run.id).await.unwrap().expect("the run")
}

pub async fn a_created_transaction_can_be_read_and_its_message_received(ports: Ports) {
    let transaction = create(&ports, "123", 2500, 1).await;
    assert_eq!(load(&ports, &transaction).await, transaction);
    let received = ports.queue.receive(QueueName::Transactions, 10, PATIENCE).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message.kind, "transaction.created");
    assert_eq!(received[0].message.aggregate_id, transaction.id.0);
}

pub async fn a_batch_does_the_same_as_its_change_sets_one_at_a_time(ports: Ports) {
    let now = ports.clock.now();
    let new = |i: i64| fixtures::payment(&format!("c{}", i % 7), 1000 + i, 1 + u8::try_from(i % 12).unwrap());
    let (transactions, changes): (Vec<_>, Vec<_>) = (0..300).map(|i| fixtures::create(&new(i), now)).unzip();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; 300]);
    let approvals = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
    assert_eq!(ports.store.apply_all(approvals).await.unwrap(), vec![Verdict::Applied; 300]);
    for (i, transaction) in transactions.iter().enumerate() {
        let loaded = load(&ports, transaction).await;
        assert_eq!(loaded.amount, transaction.amount);
        assert_eq!((loaded.status, loaded.version), (TransactionStatus::PendingPayment, 2), "{i}");
    }
    let all: i64 = (0..300).map(|i| 1 + i % 12).sum();
    let mut count = 0;
    for c in 0..7 {
        count += payables(&ports, &format!("c{c}")).await.len();
    }
    assert_eq!(i64::try_from(count).unwrap(), all);
}

pub async fn the_same_change_set_again_has_one_effect(ports: Ports) {
    let now = ports.clock.now();
    let (transaction, mut change) = fixtures::create(&fixtures::new_transaction(), now);
    change.idempotency = Some(fixtures::idempotency(&change, "key", now));
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::AlreadyApplied);
    let approval = fixtures::approve(&transaction, now);
    assert_eq!(ports.store.apply(approval.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(approval).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(payables(&ports, "123").await.len(), 1);
    assert_eq!(balance(&ports, "123").await, (0, 2375));
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
}

pub async fn a_stale_version_writes_nothing(ports: Ports) {
    let transaction = create(&ports, "123", 2500, 3).await;
    let declined = fixtures::decline(&transaction, ports.clock.now());
    let late = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(declined).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(late).await.unwrap(), Verdict::StaleVersion);
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Declined);
    assert!(payables(&ports, "123").await.is_empty());
    assert_eq!(balance(&ports, "123").await, (0, 0));
}

pub async fn change_sets_for_one_transaction_in_one_batch_are_taken_in_order(ports: Ports) {
    let now = ports.clock.now();
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), now);
    let batch = vec![
        created,
        fixtures::approve(&transaction, now),
        fixtures::decline(&transaction, now),
        fixtures::create(&fixtures::new_transaction(), now).1,
    ];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Applied, Verdict::StaleVersion, Verdict::Applied]);
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::PendingPayment);
}

pub async fn a_refused_change_set_harms_no_other_of_its_batch(ports: Ports) {
    let now = ports.clock.now();
    let old = create(&ports, "123", 2500, 1).await;
    let approval = fixtures::approve(&old, now);
    assert_eq!(ports.store.apply(approval.clone()).await.unwrap(), Verdict::Applied);
    let (fresh, create) = fixtures::create(&fixtures::new_transaction(), now);
    let batch = vec![fixtures::decline(&old, now), create, approval];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::StaleVersion, Verdict::Applied, Verdict::AlreadyApplied]);
    assert_eq!(load(&ports, &fresh).await, fresh);
    assert_eq!(payables(&ports, "123").await.len(), 1);
}

pub async fn an_idempotency_key_is_taken_once(ports: Ports) {
    let now = ports.clock.now();
    let keyed = |customer: &str, key: &str| {
        let (_, mut change) = fixtures::create(&fixtures::payment(customer, 2500, 1), now);
        change.idempotency = Some(fixtures::idempotency(&change, key, now));
        change
    };
    let first = keyed("123", "key");
    let batch = vec![first.clone(), keyed("123", "key"), keyed("456", "key"), keyed("123", "other")];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Duplicate, Verdict::Applied, Verdict::Applied]);
    let batch = vec![keyed("123", "key"), keyed("123", "fresh")];
    assert_eq!(ports.store.apply_all(batch).await.unwrap(), [Verdict::Duplicate, Verdict::Applied]);
    let key = "key".parse().unwrap();
    let record = ports.keys.find(&fixtures::customer("123"), &key, now).await.unwrap();
    assert_eq!(record, first.idempotency);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 4);
    let unknown = "unknown".parse().unwrap();
    assert_eq!(ports.keys.find(&fixtures::customer("123"), &unknown, now).await.unwrap(), None);
}

pub async fn an_expired_idempotency_key_is_free_again(ports: Ports) {
    let keyed = |now| {
        let (_, mut change) = fixtures::create(&fixtures::new_transaction(), now);
        change.idempotency = Some(fixtures::idempotency(&change, "key", now));
        change
    };
    let (customer, key) = (fixtures::customer("123"), "key".parse().unwrap());
    assert_eq!(ports.store.apply(keyed(ports.clock.now())).await.unwrap(), Verdict::Applied);
    ports.clock.advance_days(1);
    assert_eq!(ports.keys.find(&customer, &key, ports.clock.now()).await.unwrap(), None);
    let second = keyed(ports.clock.now());
    assert_eq!(ports.store.apply(second.clone()).await.unwrap(), Verdict::Applied);
    let now = ports.clock.now();
    assert_eq!(ports.keys.find(&customer, &key, now).await.unwrap(), second.idempotency);
    assert_eq!(ports.keys.purge_expired(now, 10).await.unwrap(), 0);
    ports.clock.advance_days(1);
    assert_eq!(ports.keys.purge_expired(ports.clock.now(), 10).await.unwrap(), 1);
}

pub async fn the_sealed_card_is_gone_once_authorization_ended(ports: Ports) {
    let card = async |id: TransactionId| {
        let loaded = ports.transactions.load_for_authorization(&[id]).await.unwrap();
        loaded.into_iter().next().expect("the transaction").card
    };
    for end in [fixtures::approve, fixtures::decline, fixtures::fail] {
        let transaction = create(&ports, "123", 2500, 1).await;
        assert!(card(transaction.id).await.is_some());
        assert_eq!(ports.store.apply(end(&transaction, ports.clock.now())).await.unwrap(), Verdict::Applied);
        assert_eq!(card(transaction.id).await, None);
    }
    let unknown = TransactionId(uuid::Uuid::max());
    assert!(ports.transactions.load_for_authorization(&[unknown]).await.unwrap().is_empty());
    assert!(ports.transactions.load_for_authorization(&[]).await.unwrap().is_empty());
}

pub async fn a_customer_sees_its_own_rows_only(ports: Ports) {
    let transaction = approved(&ports, "123", 2500, 1).await;
    let payable = payables(&ports, "123").await.remove(0);
    let (own, other) = (fixtures::customer("123"), fixtures::customer("1234"));
    assert!(ports.payables.find(&own, payable.id).await.unwrap().is_some());
    assert_eq!(ports.transactions.find(&other, transaction.id).await.unwrap(), None);
    assert_eq!(ports.payables.find(&other, payable.id).await.unwrap(), None);
    let page = PageRequest::default();
    assert!(ports.transactions.list(&other, page).await.unwrap().items.is_empty());
    assert!(ports.payables.list(&other, page).await.unwrap().items.is_empty());
    assert_eq!(balance(&ports, "1234").await, (0, 0));
}

pub async fn pages_are_newest_first_without_gaps_or_repeats(ports: Ports) {
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(create(&ports, "123", 2500, 1).await.id.0);
        create(&ports, "other", 2500, 1).await;
    }
    ids.reverse();
    let customer = fixtures::customer("123");
    let mut numbered = Vec::new();
    for number in 1..=3 {
        let page = PageRequest::new(Position::Page(number), 10).unwrap();
        let page = ports.transactions.list(&customer, page).await.unwrap();
        assert_eq!(page.next.is_some(), number < 3);
        numbered.extend(page.items.iter().map(|t| t.id.0));
    }
    assert_eq!(numbered, ids);
    let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 10).unwrap());
    loop {
        let part = ports.transactions.list(&customer, page).await.unwrap();
        walked.extend(part.items.iter().map(|t| t.id.0));
        // What arrives during the walk does not shift it.
        create(&ports, "123", 2500, 1).await;
        let Some(next) = part.next else { break };
        page = PageRequest::new(Position::After(next), 10).unwrap();
    }
    assert_eq!(walked, ids);
}

pub async fn balances_are_the_sums_of_the_payables(ports: Ports) {
    for (customer, minor, installments) in [("a", 1001, 12), ("a", 2500, 1), ("b", 7, 3), ("a", 1, 1)] {
        approved(&ports, customer, minor, installments).await;
    }
    let mut debit = fixtures::payment("a", 999, 1);
    debit.payment_method = psp_domain::PaymentMethod::DebitCard;
    let (transaction, change) = fixtures::create(&debit, ports.clock.now());
    ports.store.apply(change).await.unwrap();
    ports.store.apply(fixtures::approve(&transaction, ports.clock.now())).await.unwrap();
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Paid);
    for _ in 0..2 {
        for customer in ["a", "b", "c"] {
            let all = payables(&ports, customer).await;
            let sum = |status| all.iter().filter(|p| p.status == status).map(|p| p.receivable.minor()).sum::<i64>();
            let sums = (sum(PayableStatus::Paid), sum(PayableStatus::WaitingFunds));
            assert_eq!(balance(&ports, customer).await, sums, "{customer}");
        }
        settle(&ports, 100, 2).await;
    }
    let dollars = ports.balances.balance(&fixtures::customer("a"), "USD".parse().unwrap()).await.unwrap();
    assert_eq!((dollars.available.minor(), dollars.waiting_funds.minor()), (0, 0));
}

pub async fn a_race_of_outcomes_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for _ in 0..10 {
        let transaction = create(&ports, "123", 2500, 2).await;
        let before = payables(&ports, "123").await.len();
        let ends = [fixtures::approve, fixtures::decline, fixtures::fail];
        let race = (0..32).map(|i| {
            let change = ends[i % 3](&transaction, ports.clock.now());
            let ports = Arc::clone(&ports);
            tokio::spawn(async move {
                let status = change.transaction.transaction().status;
                (ports.store.apply(change).await.unwrap(), status)
            })
        });
        let mut winner = None;
        for racer in race.collect::<Vec<_>>() {
            let (verdict, status) = racer.await.unwrap();
            match verdict {
                Verdict::Applied => assert_eq!(winner.replace(status), None, "two winners"),
                verdict => assert_eq!(verdict, Verdict::StaleVersion),
            }
        }
        let winner = winner.expect("a winner");
        assert_eq!(load(&ports, &transaction).await.status, winner);
        let made = payables(&ports, "123").await.len() - before;
        assert_eq!(made, if winner == TransactionStatus::PendingPayment { 2 } else { 0 });
    }
}

pub async fn a_race_of_approvals_makes_each_payable_once(ports: Ports) {
    let ports = Arc::new(ports);
    let transaction = create(&ports, "123", 1001, 12).await;
    let race = (0..32).map(|_| {
        let (change, ports) = (fixtures::approve(&transaction, ports.clock.now()), Arc::clone(&ports));
        tokio::spawn(async move { ports.store.apply(change).await.unwrap() })
    });
    let mut applied = 0;
    for racer in race.collect::<Vec<_>>() {
        applied += usize::from(racer.await.unwrap() == Verdict::Applied);
    }
    assert_eq!(applied, 1);
    let made = payables(&ports, "123").await;
    let installments: HashSet<_> = made.iter().map(|p| p.installment).collect();
    assert_eq!((made.len(), installments.len()), (12, 12));
    assert_eq!(made.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum::<i64>(), 1001);
}

pub async fn settlement_pays_what_is_due_and_nothing_else(ports: Ports) {
    for i in 0..25 {
        approved(&ports, if i % 2 == 0 { "even" } else { "odd" }, 2500, 1).await;
    }
    assert_eq!(settle(&ports, 29, 10).await, psp_domain::ports::SettlementProgress::default());
    ports.clock.advance_days(20);
    approved(&ports, "even", 2500, 1).await;
    // Ten days later the first 25 are due, and missed days do not matter.
    ports.clock.advance_days(15);
    let progress = settle(&ports, 0, 10).await;
    assert_eq!((progress.chunks, progress.settled_chunks), (3, 3));
    assert_eq!((progress.payables, progress.transactions), (25, 25));
    assert_eq!(progress.amounts.iter().map(|m| m.minor()).collect::<Vec<_>>(), [25 * 2375]);
    assert_eq!(balance(&ports, "even").await, (13 * 2375, 2375));
    assert_eq!(balance(&ports, "odd").await, (12 * 2375, 0));
    let paid = payables(&ports, "odd").await;
    assert!(paid.iter().all(|p| p.status == PayableStatus::Paid && p.updated_at == ports.clock.now()));
    assert_eq!(settle(&ports, 0, 10).await.payables, 0);
}

pub async fn settlement_finishes_a_transaction_with_its_last_installment(ports: Ports) {
    let transaction = approved(&ports, "123", 1001, 3).await;
    for (days, status, version) in [
        (30, TransactionStatus::PendingPayment, 2),
        (60, TransactionStatus::PendingPayment, 2),
        (90, TransactionStatus::Paid, 3),
    ] {
        assert_eq!(settle(&ports, days, 1).await.payables, 1);
        let loaded = load(&ports, &transaction).await;
        assert_eq!((loaded.status, loaded.version), (status, version), "after {days} days");
    }
    let late = fixtures::decline(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(late).await.unwrap(), Verdict::StaleVersion, "paid is final");
}

pub async fn two_runs_at_once_pay_once(ports: Ports) {
    let ports = Arc::new(ports);
    let now = ports.clock.now();
    let new = fixtures::payment("123", 1000, 2);
    let (transactions, changes): (Vec<_>, Vec<_>) = (0..100).map(|_| fixtures::create(&new, now)).unzip();
    ports.store.apply_all(changes).await.unwrap();
    let approvals: Vec<ChangeSet> = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
    ports.store.apply_all(approvals).await.unwrap();
    let settle = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let date = (now + chrono::Days::new(60)).date_naive();
    let runs = [settle.plan(Some(date), 7).await.unwrap(), settle.plan(Some(date), 9).await.unwrap()];
    let mut racers = Vec::new();
    for run in runs {
        for number in (1..=run.chunks).chain(1..=run.chunks) {
            let settle = settle.clone();
            racers.push(tokio::spawn(async move {
                settle.settle(SettlementChunk { run_id: run.id, number }).await.unwrap().unwrap().payables
            }));
        }
    }
    let mut paid = 0;
    for racer in racers {
        paid += racer.await.unwrap();
    }
    assert_eq!(paid, 200);
    assert_eq!(balance(&ports, "123").await, (100 * 950, 0));
    let mut counted = 0;
    for run in runs {
        let progress = settle.progress(run.id).await.unwrap().unwrap();
        assert_eq!(progress.settled_chunks, progress.chunks);
        counted += progress.payables;
    }
    assert_eq!(counted, 200);
    for transaction in &transactions {
        assert_eq!(load(&ports, transaction).await.status, TransactionStatus::Paid);
    }
}

pub async fn a_settlement_run_is_cut_into_chunks_with_a_message_each(ports: Ports) {
    for _ in 0..5 {
        approved(&ports, "123", 2500, 1).await;
    }
    let settle = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let run = settle.plan(Some((ports.clock.now() + chrono::Days::new(30)).date_naive()), 2).await.unwrap();
    assert_eq!(run.chunks, 3);
    let received = ports.queue.receive(QueueName::PayablesSettlement, 10, PATIENCE).await.unwrap();
    let chunks: HashSet<u32> = received
        .iter()
        .map(|delivery| serde_json::from_str::<SettlementChunk>(&delivery.message.body).unwrap())
        .map(|chunk| {
            assert_eq!(chunk.run_id, run.id);
            chunk.number
        })
        .collect();
    assert_eq!(chunks, HashSet::from([1, 2, 3]));
    let unknown = SettlementChunk { run_id: run.id, number: 4 };
    assert_eq!(settle.settle(unknown).await.unwrap(), None);
    let nothing = ports.settlement.plan_run(
        psp_domain::SettlementRunId(uuid::Uuid::max()),
        due_before(ports.clock.now().date_naive()),
        2,
        ports.clock.now(),
    );
    assert_eq!(nothing.await.unwrap(), 0);
}
