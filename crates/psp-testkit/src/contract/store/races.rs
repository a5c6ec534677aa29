use std::collections::HashSet;
use std::sync::Arc;

use psp_domain::ports::Clock;
use psp_domain::{ChangeSet, QueueName, TransactionStatus, Verdict};

use super::{balance, create, load, messages, payables};
use crate::{Ports, fixtures};

/// Applies each change set in a task of its own, all at once.
pub(super) async fn race(ports: &Arc<Ports>, changes: impl Iterator<Item = ChangeSet>) -> Vec<Verdict> {
    let racers: Vec<_> = changes
        .map(|change| {
            let ports = Arc::clone(ports);
            tokio::spawn(async move { ports.store.apply(change).await.unwrap() })
        })
        .collect();
    let mut verdicts = Vec::with_capacity(racers.len());
    for racer in racers {
        verdicts.push(racer.await.unwrap());
    }
    verdicts
}

pub async fn a_race_of_outcomes_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    let ends = [fixtures::approve, fixtures::decline, fixtures::fail];
    for round in 0..10 {
        let transaction = create(&ports, "123", 2500, 2).await;
        let before = payables(&ports, "123").await.len();
        let changes: Vec<_> = (0..32).map(|i| ends[(i + round) % 3](&transaction, ports.clock.now())).collect();
        let verdicts = race(&ports, changes.iter().cloned()).await;
        let mut winners = verdicts.iter().zip(&changes).filter(|(verdict, _)| **verdict == Verdict::Applied);
        let (_, winner) = winners.next().expect("a winner");
        assert_eq!(winners.next(), None, "two winners");
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::StaleVersion).count(), 31);
        assert_eq!(&load(&ports, &transaction).await, fixtures::written(winner));
        let made = payables(&ports, "123").await.len() - before;
        let is_approved = fixtures::written(winner).status == TransactionStatus::PendingPayment;
        assert_eq!(made, if is_approved { 2 } else { 0 });
    }
}

pub async fn a_race_of_approvals_makes_each_payable_once(ports: Ports) {
    let ports = Arc::new(ports);
    let transaction = create(&ports, "123", 1001, 12).await;
    let now = ports.clock.now();
    let verdicts = race(&ports, (0..32).map(|_| fixtures::approve(&transaction, now))).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    let made = payables(&ports, "123").await;
    let installments: HashSet<_> = made.iter().map(|p| p.installment).collect();
    assert_eq!((made.len(), installments.len()), (12, 12));
    assert_eq!(made.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum::<i64>(), 1001);
}

pub async fn a_change_set_delivered_to_many_at_once_has_one_effect(ports: Ports) {
    let ports = Arc::new(ports);
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    let approval = fixtures::approve(&transaction, ports.clock.now());
    for change in [created, approval] {
        let verdicts = race(&ports, std::iter::repeat_n(change, 32)).await;
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 31);
    }
    assert_eq!(balance(&ports, "123").await, (0, 2375));
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
}

pub async fn a_race_for_an_idempotency_key_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    let now = ports.clock.now();
    let keyed = |_| {
        let (_, mut change) = fixtures::create(&fixtures::new_transaction(), now);
        change.idempotency = Some(fixtures::idempotency(&change, "key", now));
        change
    };
    let changes: Vec<_> = (0..32).map(keyed).collect();
    let verdicts = race(&ports, changes.iter().cloned()).await;
    let applied: Vec<_> = (0..32).filter(|i| verdicts[*i] == Verdict::Applied).collect();
    assert_eq!(applied.len(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Duplicate).count(), 31);
    let record = ports.keys.find(&fixtures::customer("123"), &"key".parse().unwrap(), now).await.unwrap();
    assert_eq!(record, changes[applied[0]].idempotency);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
}
