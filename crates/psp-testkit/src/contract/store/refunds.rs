use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{
    CHECK_REFUND_MESSAGE_KIND, Clock, LoadedRefund, Message, SettlementChunk, Sweep, UuidV7Generator,
};
use psp_domain::usecases::SettlePayables;
use psp_domain::{
    ChangeSet, Payable, PayableStatus, QueueName, Refund, RefundFeePolicy, RefundId, RefundStatus, Transaction,
    TransactionId, TransactionStatus, Verdict,
};
use uuid::Uuid;

use super::races::race;
use super::{approved, balance, create, load, messages, payables, received, settle};
use crate::{Ports, fixtures};

const MINUTE: Duration = Duration::from_mins(1);

/// What a worker loads of a refund.
async fn loaded(ports: &Ports, id: RefundId) -> LoadedRefund {
    ports.refunds.load_refund(id).await.unwrap().expect("the refund")
}

/// Asks to give back that much, or all that is left; returns the refund.
async fn ask(ports: &Ports, transaction: &Transaction, minor: Option<i64>) -> Refund {
    let change = fixtures::ask_refund(&load(ports, transaction).await, minor, ports.clock.now());
    let refund = change.refunds[0].clone();
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    refund
}

/// The change set of a refund that the gateway gave back.
fn completion(of: LoadedRefund, ports: &Ports) -> ChangeSet {
    let policy = RefundFeePolicy::Kept;
    let next = of.transaction.complete_refund(of.refund, &of.payables, policy, ports.clock.now(), &UuidV7Generator);
    fixtures::executed(next.unwrap())
}

/// The change set of a refund that the gateway refused.
fn refusal(of: LoadedRefund, ports: &Ports) -> ChangeSet {
    let next = of.transaction.fail_refund(of.refund, "refused", &of.payables, ports.clock.now(), &UuidV7Generator);
    fixtures::executed(next.unwrap())
}

async fn complete(ports: &Ports, refund: &Refund) -> Transaction {
    let change = completion(loaded(ports, refund.id).await, ports);
    let written = fixtures::written(&change).clone();
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(load(ports, &written).await, written);
    written
}

/// The balance, which is the sum of the payables.
async fn summed_balance(ports: &Ports, customer: &str) -> (i64, i64) {
    let all = payables(ports, customer).await;
    let sum = |status| all.iter().filter(|p| p.status == status).map(|p| p.receivable.minor()).sum::<i64>();
    let sums = (sum(PayableStatus::Paid), sum(PayableStatus::WaitingFunds));
    assert_eq!(balance(ports, customer).await, sums);
    sums
}

pub async fn a_refund_goes_from_request_to_settlement(ports: Ports) {
    let transaction = approved(&ports, "123", 1001, 3).await;
    settle(&ports, 30, 10).await;
    let refund = ask(&ports, &transaction, Some(400)).await;
    let asked = load(&ports, &transaction).await;
    assert_eq!((asked.status, asked.version, asked.sequence), (TransactionStatus::PendingRefund, 3, 3));
    assert_eq!((asked.refunds.count, asked.refunds.pending.minor(), asked.refunds.done.minor()), (1, 400, 0));
    let sent = received(&ports, QueueName::Refunds).await;
    assert_eq!(sent.iter().map(|message| message.aggregate_id).collect::<Vec<_>>(), [transaction.id.0]);
    let before = summed_balance(&ports, "123").await;

    // Two instalments wait, of 333 and 334: the last is taken back whole, of the other a part.
    let refunded = complete(&ports, &refund).await;
    assert_eq!((refunded.status, refunded.version), (TransactionStatus::PendingPayment, 4));
    assert_eq!((refunded.refunds.pending.minor(), refunded.refunds.done.minor()), (0, 400));
    assert_eq!(summed_balance(&ports, "123").await, (before.0, before.1 - 400));
    let taken: Vec<Payable> = payables(&ports, "123").await.into_iter().filter(|p| p.refund == 1).collect();
    assert_eq!(taken.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum::<i64>(), -400);
    let found = loaded(&ports, refund.id).await.refund;
    assert_eq!((found.status, found.check_at), (RefundStatus::Succeeded, None));

    // What it takes back is settled with its instalments.
    assert_eq!(settle(&ports, 60, 1).await.payables, 2);
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::PendingPayment);
    let rest = ask(&ports, &transaction, None).await;
    assert_eq!((rest.number, rest.amount.minor()), (2, 601));
    let refunded = complete(&ports, &rest).await;
    assert_eq!((refunded.status, refunded.refunds.done.minor()), (TransactionStatus::Refunded, 1001));
    settle(&ports, 90, 10).await;
    let settled = load(&ports, &transaction).await;
    assert_eq!(settled, refunded, "a refunded transaction is final, and its payables are settled");
    let fees: i64 = payables(&ports, "123").await.iter().map(|p| p.fee.minor()).sum();
    assert_eq!(summed_balance(&ports, "123").await, (-fees, 0), "the fees are kept");
}

pub async fn a_failed_refund_changes_no_payable(ports: Ports) {
    let transaction = approved(&ports, "123", 1000, 2).await;
    let before = (payables(&ports, "123").await, balance(&ports, "123").await);
    let refund = ask(&ports, &transaction, None).await;
    let change = refusal(loaded(&ports, refund.id).await, &ports);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    assert_eq!((payables(&ports, "123").await, balance(&ports, "123").await), before);
    let after = load(&ports, &transaction).await;
    assert_eq!((after.status, after.refunds.count), (TransactionStatus::PendingPayment, 1));
    assert_eq!((after.refunds.pending.minor(), after.refundable().minor()), (0, 1000));
    let found = loaded(&ports, refund.id).await.refund;
    assert_eq!((found.status, found.reason.as_deref()), (RefundStatus::Failed, Some("refused")));
    // It is paid in the end as if nothing had happened.
    let progress = settle(&ports, 60, 1).await;
    assert_eq!((progress.payables, progress.transactions), (2, 1));
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Paid);
}

pub async fn a_refund_is_loaded_with_all_that_its_end_needs(ports: Ports) {
    let now = ports.clock.now();
    let other = approved(&ports, "123", 700, 1).await;
    ask(&ports, &other, None).await;
    let transaction = create(&ports, "123", 1000, 2).await;
    let attempt = fixtures::attempt(&transaction, 1, now);
    let change = fixtures::approve(&transaction, now).with_attempts([attempt.clone()]);
    let made = change.payables.clone();
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    let mut refund = ask(&ports, &transaction, Some(10)).await;
    let mut found = loaded(&ports, refund.id).await;
    found.payables.sort_by_key(|payable| payable.id);
    assert_eq!(found.transaction, load(&ports, &transaction).await);
    assert_eq!((&found.refund, found.attempts, found.payables), (&refund, vec![attempt], made));
    assert_eq!(ports.refunds.load_refund(RefundId(Uuid::max())).await.unwrap(), None);

    // What the gateway said of it is kept.
    refund.gateway_reference = Some("at the gateway".into());
    let loaded_again = LoadedRefund { refund: refund.clone(), ..loaded(&ports, refund.id).await };
    let change = completion(loaded_again, &ports);
    let ended = change.refunds.clone();
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.refunds.refunds(&transaction.customer_id, transaction.id).await.unwrap(), ended);
    assert_eq!(loaded(&ports, refund.id).await.payables.len(), 3, "with what it took back");
}

pub async fn a_customer_sees_its_own_refunds_only(ports: Ports) {
    let transaction = approved(&ports, "123", 1000, 1).await;
    let mut expected = Vec::new();
    for minor in [1, 20, 300] {
        expected.push(ask(&ports, &transaction, Some(minor)).await);
    }
    let (own, other) = (fixtures::customer("123"), fixtures::customer("1234"));
    let found = ports.refunds.refunds(&own, transaction.id).await.unwrap();
    assert_eq!(found, expected, "in their order");
    assert_eq!(found.iter().map(|refund| refund.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ports.refunds.refunds(&other, transaction.id).await.unwrap(), []);
    assert_eq!(ports.refunds.refunds(&own, TransactionId(Uuid::max())).await.unwrap(), []);
}

pub async fn a_refund_with_a_taken_key_writes_nothing(ports: Ports) {
    let now = ports.clock.now();
    let transaction = approved(&ports, "123", 1000, 1).await;
    let transaction = load(&ports, &transaction).await;
    let keyed = |minor| {
        let mut change = fixtures::ask_refund(&transaction, Some(minor), now);
        change.idempotency = Some(fixtures::idempotency(&change, "key", now));
        change
    };
    let (first, second) = (keyed(100), keyed(200));
    let (_, unrelated) = fixtures::create(&fixtures::new_transaction(), now);
    let batch = vec![first.clone(), second.clone(), unrelated];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert!(matches!(verdicts[..], [Verdict::Applied, Verdict::StaleVersion | Verdict::Duplicate, Verdict::Applied]));
    let current = load(&ports, &transaction).await;
    let mut third = fixtures::ask_refund(&current, Some(300), now);
    third.idempotency = Some(fixtures::idempotency(&third, "key", now));
    assert_eq!(ports.store.apply(third).await.unwrap(), Verdict::Duplicate);
    assert_eq!(ports.store.apply(first.clone()).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(ports.refunds.refunds(&transaction.customer_id, transaction.id).await.unwrap(), first.refunds);
    assert_eq!(load(&ports, &transaction).await, current);
    assert_eq!(messages(&ports, QueueName::Refunds).await, 1);
}

pub async fn refunds_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other(ports: Ports) {
    const COUNT: usize = 100;
    let now = ports.clock.now();
    let mut transactions = Vec::new();
    for _ in 0..COUNT {
        let transaction = approved(&ports, "123", 1000, 1).await;
        transactions.push(load(&ports, &transaction).await);
    }
    let mut batch: Vec<_> = transactions.iter().map(|t| fixtures::ask_refund(t, Some(100), now)).collect();
    // One has moved on, one comes twice, one is asked and refused at once, and some are no refunds.
    ask(&ports, &transactions[50], Some(10)).await;
    batch.push(batch[7].clone());
    let asked = fixtures::written(&batch[8]).clone();
    let refund = batch[8].refunds[0].clone();
    let of = LoadedRefund { refund, transaction: asked, attempts: Vec::new(), payables: Vec::new() };
    let refused = refusal(of, &ports);
    batch.push(refused.clone());
    batch.extend((0..3).map(|_| fixtures::create(&fixtures::new_transaction(), now).1));
    let mut expected = vec![Verdict::Applied; COUNT];
    expected[50] = Verdict::StaleVersion;
    expected.extend([Verdict::AlreadyApplied, Verdict::Applied]);
    expected.extend([Verdict::Applied; 3]);
    assert_eq!(ports.store.apply_all(batch.clone()).await.unwrap(), expected);
    for (n, transaction) in transactions.iter().enumerate() {
        let found = ports.refunds.refunds(&transaction.customer_id, transaction.id).await.unwrap();
        let amounts: Vec<_> = found.iter().map(|refund| refund.amount.minor()).collect();
        assert_eq!(amounts, if n == 50 { [10] } else { [100] }, "{n}");
        let written = if n == 8 { &refused } else { &batch[n] };
        if n != 50 {
            assert_eq!(&load(&ports, transaction).await, fixtures::written(written), "{n}");
        }
    }
    assert_eq!(messages(&ports, QueueName::Refunds).await, COUNT);
}

pub async fn a_refund_delivered_to_many_at_once_has_one_effect(ports: Ports) {
    let ports = Arc::new(ports);
    let transaction = approved(&ports, "123", 1000, 1).await;
    let request = fixtures::ask_refund(&load(&ports, &transaction).await, None, ports.clock.now());
    let refund = request.refunds[0].id;
    let verdicts = race(&ports, std::iter::repeat_n(request, 32)).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 31);
    let end = completion(loaded(&ports, refund).await, &ports);
    let verdicts = race(&ports, std::iter::repeat_n(end, 32)).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 31);
    assert_eq!(payables(&ports, "123").await.len(), 2);
    assert_eq!(summed_balance(&ports, "123").await, (0, -50), "the fee is kept");
    assert_eq!(messages(&ports, QueueName::Refunds).await, 1);
}

pub async fn a_race_of_refunds_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    let transaction = approved(&ports, "123", 1000, 1).await;
    let transaction = load(&ports, &transaction).await;
    let requests = (1..=32).map(|minor| fixtures::ask_refund(&transaction, Some(500 + minor), ports.clock.now()));
    let verdicts = race(&ports, requests).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::StaleVersion).count(), 31);
    let found = ports.refunds.refunds(&transaction.customer_id, transaction.id).await.unwrap();
    let after = load(&ports, &transaction).await;
    assert_eq!((found.len(), after.refunds.count), (1, 1));
    assert_eq!(found[0].amount, after.refunds.pending);
}

pub async fn a_race_to_end_a_refund_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for round in 0..10 {
        let transaction = approved(&ports, "123", 1000, 1).await;
        let refund = ask(&ports, &transaction, None).await;
        let of = loaded(&ports, refund.id).await;
        let end = |n: u32| {
            if (n + round).is_multiple_of(2) { completion(of.clone(), &ports) } else { refusal(of.clone(), &ports) }
        };
        let changes: Vec<_> = (0..16).map(end).collect();
        let verdicts = race(&ports, changes.iter().cloned()).await;
        let winners: Vec<_> = (0..16).filter(|n| verdicts[*n] == Verdict::Applied).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::StaleVersion).count(), 15);
        let winner = &changes[winners[0]];
        assert_eq!(&load(&ports, &transaction).await, fixtures::written(winner));
        assert_eq!(loaded(&ports, refund.id).await.refund, winner.refunds[0]);
        summed_balance(&ports, "123").await;
    }
}

pub async fn settlement_moves_the_version_of_what_waits_for_a_refund(ports: Ports) {
    let transaction = approved(&ports, "123", 1000, 2).await;
    let refund = ask(&ports, &transaction, Some(600)).await;
    let before = load(&ports, &transaction).await;
    let stale = completion(loaded(&ports, refund.id).await, &ports);
    let progress = settle(&ports, 30, 10).await;
    assert_eq!((progress.payables, progress.transactions), (1, 0));
    let after = load(&ports, &transaction).await;
    assert_eq!(after, Transaction { version: before.version + 1, ..before });
    // Whoever would end the refund has not seen what was paid.
    assert_eq!(ports.store.apply(stale).await.unwrap(), Verdict::StaleVersion);
    // Of the instalment that waits all is taken, and of the paid one the rest, at once.
    let refunded = complete(&ports, &refund).await;
    assert_eq!(refunded.status, TransactionStatus::PendingPayment);
    assert_eq!(summed_balance(&ports, "123").await, (475 - 100, 475 - 500));
    assert_eq!(settle(&ports, 60, 1).await.transactions, 1);
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Paid);
    assert_eq!(summed_balance(&ports, "123").await, (350, 0));

    // The last instalment is paid while a refund is pending: its end says that all is paid.
    let last = approved(&ports, "456", 1000, 1).await;
    let refund = ask(&ports, &last, Some(100)).await;
    assert_eq!(settle(&ports, 60, 10).await.transactions, 0);
    assert_eq!(load(&ports, &last).await.status, TransactionStatus::PendingRefund);
    assert_eq!(complete(&ports, &refund).await.status, TransactionStatus::Paid);
    assert_eq!(summed_balance(&ports, "456").await, (850, 0));
}

pub async fn refunds_and_settlement_at_once_lose_nothing(ports: Ports) {
    const COUNT: usize = 24;
    let ports = Arc::new(ports);
    let mut transactions = Vec::new();
    for _ in 0..COUNT {
        transactions.push(approved(&ports, "123", 1200, 12).await);
    }
    let use_case = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let date = (ports.clock.now() + chrono::Days::new(400)).date_naive();
    let run = use_case.plan(Some(date), 5).await.unwrap();
    let chunks = (1..=run.chunks).map(|number| {
        let settle = use_case.clone();
        tokio::spawn(async move {
            settle.settle(SettlementChunk { run_id: run.id, number }).await.unwrap().expect("the chunk");
        })
    });
    let mut tasks: Vec<_> = chunks.collect();
    for (n, transaction) in transactions.iter().cloned().enumerate() {
        let ports = Arc::clone(&ports);
        tasks.push(tokio::spawn(async move {
            let minor = (n % 3 != 0).then_some(500);
            let ask = async |minor| fixtures::ask_refund(&load(&ports, &transaction).await, minor, ports.clock.now());
            let mut request = ask(minor).await;
            while ports.store.apply(request.clone()).await.unwrap() == Verdict::StaleVersion {
                request = ask(minor).await;
            }
            let id = request.refunds[0].id;
            let mut end = completion(loaded(&ports, id).await, &ports);
            while ports.store.apply(end).await.unwrap() == Verdict::StaleVersion {
                end = completion(loaded(&ports, id).await, &ports);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    summed_balance(&ports, "123").await;
    // What refunds took back of payables that had not been settled waits for the next run.
    settle(&ports, 400, 50).await;
    let (available, waiting) = summed_balance(&ports, "123").await;
    let given_back = 8 * 1200 + 16 * 500;
    let fees: i64 = payables(&ports, "123").await.iter().map(|p| p.fee.minor()).sum();
    assert_eq!((available, waiting), (i64::try_from(COUNT).unwrap() * 1200 - fees - given_back, 0));
    for (n, transaction) in transactions.iter().enumerate() {
        let status = if n % 3 == 0 { TransactionStatus::Refunded } else { TransactionStatus::Paid };
        assert_eq!(load(&ports, transaction).await.status, status, "{n}");
    }
}

/// A sweep at this time, which asks again after one to sixty minutes.
fn sweep(ports: &Ports, limit: u32) -> Sweep {
    Sweep { now: ports.clock.now(), limit, least: TimeDelta::minutes(1), most: TimeDelta::hours(1) }
}

/// The messages of sweeps; those of requests are left out.
async fn checks(ports: &Ports) -> Vec<Message> {
    let received = received(ports, QueueName::Refunds).await;
    received.into_iter().filter(|message| message.kind == CHECK_REFUND_MESSAGE_KIND).collect()
}

/// A pending refund, due in a minute.
async fn pending(ports: &Ports) -> Refund {
    let transaction = approved(ports, "123", 1000, 1).await;
    ask(ports, &transaction, None).await
}

pub async fn a_sweep_asks_for_refunds_that_are_due_and_for_nothing_else(ports: Ports) {
    let due = pending(&ports).await;
    let ended = pending(&ports).await;
    complete(&ports, &ended).await;
    ports.clock.advance(MINUTE);
    pending(&ports).await;
    let before = loaded(&ports, due.id).await;
    assert_eq!(ports.refunds.sweep_refunds(sweep(&ports, 100)).await.unwrap(), 1);
    let messages = checks(&ports).await;
    assert_eq!(messages.iter().map(|message| message.aggregate_id).collect::<Vec<_>>(), [due.id.0]);
    assert!(messages.iter().all(|message| message.body == "{}" && message.queue == QueueName::Refunds));
    assert_eq!(ports.refunds.sweep_refunds(sweep(&ports, 100)).await.unwrap(), 0, "asked once");
    let after = loaded(&ports, due.id).await;
    assert_eq!(after.transaction, before.transaction, "a sweep moves no version");
    assert_eq!(ports.store.apply(completion(before, &ports)).await.unwrap(), Verdict::Applied);
    ports.clock.advance(600 * MINUTE);
    assert_eq!(ports.refunds.sweep_refunds(sweep(&ports, 100)).await.unwrap(), 1, "the other one");
}

pub async fn a_sweep_takes_the_longest_due_refunds_first_and_no_more_than_its_limit(ports: Ports) {
    let mut by_age = Vec::new();
    for _ in 0..5 {
        by_age.push(pending(&ports).await.id);
        ports.clock.advance(Duration::from_secs(1));
    }
    ports.clock.advance(MINUTE);
    for (taken, rest) in [(2, 3), (2, 1), (1, 0)] {
        assert_eq!(ports.refunds.sweep_refunds(sweep(&ports, 2)).await.unwrap(), taken);
        let mut waiting = Vec::new();
        for id in &by_age {
            let check_at = loaded(&ports, *id).await.refund.check_at;
            waiting.extend((check_at <= Some(ports.clock.now())).then_some(*id));
        }
        assert_eq!(waiting, by_age[5 - rest..]);
    }
    assert_eq!(checks(&ports).await.len(), 5);
}

pub async fn a_sweep_asks_again_after_as_long_as_the_refund_is_old_within_bounds(ports: Ports) {
    let refund = pending(&ports).await;
    for (minutes, until_next) in [(1, 1), (9, 10), (20, 30), (60, 60), (600, 60)] {
        ports.clock.advance(minutes * MINUTE);
        assert_eq!(ports.refunds.sweep_refunds(sweep(&ports, 10)).await.unwrap(), 1, "after {minutes} minutes");
        let check_at = Some(ports.clock.now() + TimeDelta::minutes(until_next));
        let found = loaded(&ports, refund.id).await.refund;
        assert_eq!(found, Refund { check_at, ..refund.clone() }, "after {minutes} minutes, and nothing else changes");
    }
}

pub async fn sweeps_at_once_take_each_refund_once(ports: Ports) {
    const REFUNDS: usize = 40;
    let ports = Arc::new(ports);
    let mut ids = HashSet::new();
    for _ in 0..REFUNDS {
        ids.insert(pending(&ports).await.id.0);
    }
    ports.clock.advance(MINUTE);
    let sweeps = (0..16).map(|_| {
        let ports = Arc::clone(&ports);
        tokio::spawn(async move { ports.refunds.sweep_refunds(sweep(&ports, 5)).await.unwrap() })
    });
    let mut taken = 0;
    for sweep in sweeps.collect::<Vec<_>>() {
        taken += sweep.await.unwrap();
    }
    assert_eq!(taken, REFUNDS as u64);
    let mut by_refund = BTreeMap::new();
    for message in checks(&ports).await {
        *by_refund.entry(message.aggregate_id).or_insert(0) += 1;
    }
    assert!(by_refund.values().all(|count| *count == 1), "{by_refund:?}");
    assert_eq!(by_refund.into_keys().collect::<HashSet<_>>(), ids);
}

pub async fn refunds_that_are_pending_are_counted_once_they_are_old(ports: Ports) {
    let asked = ports.clock.now();
    let ended = pending(&ports).await;
    pending(&ports).await;
    complete(&ports, &ended).await;
    ports.clock.advance(MINUTE);
    let later = ports.clock.now();
    pending(&ports).await;
    assert_eq!(ports.refunds.count_overdue_refunds(asked).await.unwrap(), 0);
    assert_eq!(ports.refunds.count_overdue_refunds(later).await.unwrap(), 1);
    ports.refunds.sweep_refunds(sweep(&ports, 10)).await.unwrap();
    assert_eq!(ports.refunds.count_overdue_refunds(later).await.unwrap(), 1, "to ask is not to be answered");
}
