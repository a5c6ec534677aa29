use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use psp_domain::ports::{Clock, SettlementChunk, SettlementProgress};
use psp_domain::usecases::SettlePayables;
use psp_domain::{
    ChangeSet, Money, PayableStatus, QueueName, SettlementRunId, Transaction, TransactionStatus, Verdict,
};

use super::{PATIENCE, approved, balance, load, payables, settle};
use crate::{Ports, fixtures};

/// Creates and approves that many payments at once.
async fn approve_many(ports: &Ports, count: usize, minor: i64, installments: u8) -> Vec<Transaction> {
    let (now, new) = (ports.clock.now(), fixtures::payment("123", minor, installments));
    let (transactions, changes): (Vec<_>, Vec<_>) = (0..count).map(|_| fixtures::create(&new, now)).unzip();
    let approvals: Vec<ChangeSet> = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; count]);
    assert_eq!(ports.store.apply_all(approvals).await.unwrap(), vec![Verdict::Applied; count]);
    transactions
}

pub async fn settlement_pays_what_is_due_and_nothing_else(ports: Ports) {
    for i in 0..25 {
        approved(&ports, if i % 2 == 0 { "even" } else { "odd" }, 2500, 1).await;
    }
    assert_eq!(settle(&ports, 29, 10).await, SettlementProgress::default());
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
        let found = (loaded.status, loaded.version, loaded.sequence);
        assert_eq!(found, (status, version, version), "after {days} days");
    }
    let late = fixtures::decline(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(late).await.unwrap(), Verdict::StaleVersion, "paid is final");
}

pub async fn settlement_counts_each_currency(ports: Ports) {
    let now = ports.clock.now();
    for (code, minor) in [("USD", 2000), ("BRL", 1000), ("JPY", 3000), ("USD", 100)] {
        let mut new = fixtures::payment("123", minor, 1);
        new.amount = Money::new(minor, code.parse().unwrap());
        let (transaction, change) = fixtures::create(&new, now);
        ports.store.apply_all(vec![change, fixtures::approve(&transaction, now)]).await.unwrap();
    }
    let progress = settle(&ports, 30, 1).await;
    let mut amounts: Vec<_> = progress.amounts.iter().map(ToString::to_string).collect();
    amounts.sort();
    assert_eq!(amounts, ["19.95 USD", "2850 JPY", "9.50 BRL"]);
    let balance = ports.balances.balance(&fixtures::customer("123"), "USD".parse().unwrap()).await.unwrap();
    assert_eq!((balance.available.minor(), balance.waiting_funds.minor()), (1995, 0));
}

pub async fn two_runs_at_once_pay_once(ports: Ports) {
    let ports = Arc::new(ports);
    let now = ports.clock.now();
    let transactions = approve_many(&ports, 100, 1000, 2).await;
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
    let none = SettlementChunk { run_id: run.id, number: 0 };
    assert_eq!(settle.settle(none).await.unwrap(), None, "chunks are numbered from 1");
}

pub async fn a_settlement_run_has_a_bounded_number_of_chunks(ports: Ports) {
    let (now, most) = (ports.clock.now(), SettlementChunk::MAX_PER_RUN);
    approve_many(&ports, (most / 12 + 1) as usize, 1200, 12).await;
    let run_id = SettlementRunId(uuid::Uuid::from_u128(1 << 64));
    let due_before = now + chrono::Days::new(12 * 30 + 1);
    assert_eq!(ports.settlement.plan_run(run_id, due_before, 1, now).await.unwrap(), most);
    // A relay may have to bring them first.
    let begun = Instant::now();
    loop {
        let depths = ports.queue.depths().await.unwrap();
        let sent = depths.iter().find(|depth| depth.queue == QueueName::PayablesSettlement).unwrap().pending;
        if sent == u64::from(most) {
            break;
        }
        assert!(sent < u64::from(most) && begun.elapsed() < 3 * PATIENCE, "{sent} of {most} messages");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What did not fit is left to the next run.
    let next = SettlementRunId(uuid::Uuid::from_u128(2 << 64));
    assert_eq!(ports.settlement.plan_run(next, due_before, most, now).await.unwrap(), 2);
}

pub async fn chunks_settled_by_many_at_once_finish_each_transaction_once(ports: Ports) {
    const COPIES: usize = 4;
    let transactions = approve_many(&ports, 10, 1200, 12).await;
    let use_case = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let date = (ports.clock.now() + chrono::Days::new(400)).date_naive();
    let run = use_case.plan(Some(date), 1).await.unwrap();
    assert_eq!(run.chunks, 120);
    // Neighbours settle instalments of the same transactions at the same time.
    let chunks = (1..=run.chunks).flat_map(|number| [number; COPIES]).map(|number| {
        let settle = use_case.clone();
        tokio::spawn(async move { settle.settle(SettlementChunk { run_id: run.id, number }).await.unwrap().unwrap() })
    });
    let (mut paid, mut finished) = (0, 0);
    for chunk in chunks.collect::<Vec<_>>() {
        let settled = chunk.await.unwrap();
        paid += settled.payables;
        finished += settled.transactions;
    }
    assert_eq!((paid, finished), (120, 10));
    for transaction in &transactions {
        let settled = load(&ports, transaction).await;
        assert_eq!((settled.status, settled.version), (TransactionStatus::Paid, 3));
    }
    assert_eq!(balance(&ports, "123").await, (120 * 95, 0));
    let progress = use_case.progress(run.id).await.unwrap().expect("the run");
    assert_eq!((progress.payables, progress.transactions), (120, 10));
}

pub async fn a_settlement_run_that_does_not_exist_is_none(ports: Ports) {
    let (now, run_id) = (ports.clock.now(), SettlementRunId(uuid::Uuid::max()));
    let chunk = SettlementChunk { run_id, number: 1 };
    assert_eq!(ports.settlement.progress(run_id).await.unwrap(), None);
    assert_eq!(ports.settlement.settle_chunk(chunk, now).await.unwrap(), None);
    // A run without chunks is a run.
    assert_eq!(ports.settlement.plan_run(run_id, now, 2, now).await.unwrap(), 0);
    assert_eq!(ports.settlement.progress(run_id).await.unwrap(), Some(SettlementProgress::default()));
    assert_eq!(ports.settlement.settle_chunk(chunk, now).await.unwrap(), None);
}
