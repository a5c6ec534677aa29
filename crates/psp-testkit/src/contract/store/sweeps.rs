use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{CHECK_MESSAGE_KIND, Clock, Message, Sweep};
use psp_domain::{Attempt, AttemptState, ChangeSet, QueueName, Transaction, TransactionId, Verdict};
use uuid::Uuid;

use super::attempts::{loaded, open};
use super::{approved, create, received};
use crate::{Ports, fixtures};

const MINUTE: Duration = Duration::from_mins(1);

/// A sweep at this time, which asks again after one to sixty minutes.
fn sweep(ports: &Ports, limit: u32) -> Sweep {
    Sweep { now: ports.clock.now(), limit, least: TimeDelta::minutes(1), most: TimeDelta::hours(1) }
}

/// Writes a transaction with an attempt in that state, to be checked at that time.
async fn with_attempt(ports: &Ports, state: AttemptState, check_at: Option<DateTime<Utc>>) -> Transaction {
    let transaction = create(ports, "123", 2500, 1).await;
    let attempt = Attempt { state, check_at, ..fixtures::attempt(&transaction, 1, ports.clock.now()) };
    let change = ChangeSet::of_attempts(transaction, vec![attempt]);
    let written = fixtures::written(&change).clone();
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    written
}

async fn check_at(ports: &Ports, id: TransactionId) -> Option<DateTime<Utc>> {
    ports.attempts.attempts(id).await.unwrap()[0].check_at
}

/// The messages of sweeps; those of new transactions are left out.
async fn checks(ports: &Ports) -> Vec<Message> {
    let received = received(ports, QueueName::Transactions).await;
    received.into_iter().filter(|message| message.kind == CHECK_MESSAGE_KIND).collect()
}

fn sorted(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids
}

pub async fn a_sweep_asks_for_what_is_due_and_for_nothing_else(ports: Ports) {
    let now = ports.clock.now();
    let mut due = Vec::new();
    for state in AttemptState::ALL {
        if !state.is_unresolved() {
            with_attempt(&ports, state, None).await;
            continue;
        }
        for (seconds, is_due) in [(-60, true), (0, true), (1, false)] {
            let transaction = with_attempt(&ports, state, Some(now + TimeDelta::seconds(seconds))).await;
            due.extend(is_due.then_some(transaction.id.0));
        }
    }
    assert_eq!(ports.attempts.sweep(sweep(&ports, 100)).await.unwrap(), 6);
    let messages = checks(&ports).await;
    assert_eq!(sorted(messages.iter().map(|message| message.aggregate_id)), sorted(due.iter().copied()));
    let ids: HashSet<_> = messages.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 6, "ids are unique");
    assert!(messages.iter().all(|message| message.body == "{}" && message.queue == QueueName::Transactions));
    assert_eq!(ports.attempts.sweep(sweep(&ports, 100)).await.unwrap(), 0, "asked once");
    assert!(checks(&ports).await.is_empty());
}

pub async fn a_sweep_takes_the_longest_due_first_and_no_more_than_its_limit(ports: Ports) {
    let now = ports.clock.now();
    let mut by_age = Vec::new();
    for seconds in [30, 10, 50, 20, 40] {
        let transaction = with_attempt(&ports, AttemptState::Open, Some(now - TimeDelta::seconds(seconds))).await;
        by_age.push((seconds, transaction.id));
    }
    by_age.sort_by_key(|(seconds, _)| -seconds);
    for (taken, rest) in [(2, 3), (2, 1), (1, 0)] {
        assert_eq!(ports.attempts.sweep(sweep(&ports, 2)).await.unwrap(), taken);
        let mut waiting = Vec::new();
        for (_, id) in &by_age {
            waiting.extend((check_at(&ports, *id).await <= Some(now)).then_some(*id));
        }
        let youngest: Vec<_> = by_age.iter().skip(by_age.len() - rest).map(|(_, id)| *id).collect();
        assert_eq!(waiting, youngest);
    }
    assert_eq!(ports.attempts.sweep(sweep(&ports, 2)).await.unwrap(), 0);
    assert_eq!(checks(&ports).await.len(), 5);
}

pub async fn a_sweep_asks_again_after_as_long_as_the_attempt_is_old_within_bounds(ports: Ports) {
    let mut transaction = create(&ports, "123", 2500, 1).await;
    let opened = open(&ports, &mut transaction, 1).await;
    for (minutes, until_next) in [(1, 1), (9, 10), (20, 30), (60, 60), (600, 60)] {
        ports.clock.advance(minutes * MINUTE);
        assert_eq!(ports.attempts.sweep(sweep(&ports, 10)).await.unwrap(), 1, "after {minutes} minutes");
        let next = ports.clock.now() + TimeDelta::minutes(until_next);
        assert_eq!(check_at(&ports, transaction.id).await, Some(next), "after {minutes} minutes");
    }
    // One that is younger than the bound.
    let other = with_attempt(&ports, AttemptState::Pending, Some(ports.clock.now())).await;
    ports.clock.advance(Duration::from_secs(10));
    assert_eq!(ports.attempts.sweep(sweep(&ports, 10)).await.unwrap(), 1);
    assert_eq!(check_at(&ports, other.id).await, Some(ports.clock.now() + TimeDelta::minutes(1)));
    let found = ports.attempts.attempts(transaction.id).await.unwrap();
    assert_eq!(found, [Attempt { check_at: found[0].check_at, ..opened }], "nothing else changes");
}

pub async fn a_sweep_moves_no_version(ports: Ports) {
    let now = ports.clock.now();
    let transaction = with_attempt(&ports, AttemptState::Open, Some(now)).await;
    let before = loaded(&ports, transaction.id).await;
    assert_eq!(ports.attempts.sweep(sweep(&ports, 10)).await.unwrap(), 1);
    let after = loaded(&ports, transaction.id).await;
    assert_eq!((&after.transaction, &after.card), (&before.transaction, &before.card));
    // A worker that loaded it before the sweep writes what it found out.
    let approval = fixtures::approve(&before.transaction, now);
    let approved = before.attempts[0].clone().into_state(AttemptState::Approved, None, now);
    let approval = approval.with_attempts([approved.clone()]);
    assert_eq!(ports.store.apply(approval).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.attempts.attempts(transaction.id).await.unwrap(), [approved]);
}

pub async fn sweeps_at_once_take_each_attempt_once(ports: Ports) {
    const ATTEMPTS: usize = 60;
    let ports = Arc::new(ports);
    let now = ports.clock.now();
    let mut ids = HashSet::new();
    for _ in 0..ATTEMPTS {
        ids.insert(with_attempt(&ports, AttemptState::Open, Some(now)).await.id.0);
    }
    let sweeps = (0..16).map(|_| {
        let ports = Arc::clone(&ports);
        tokio::spawn(async move { ports.attempts.sweep(sweep(&ports, 5)).await.unwrap() })
    });
    let mut taken = 0;
    for sweep in sweeps.collect::<Vec<_>>() {
        let count = sweep.await.unwrap();
        assert!(count <= 5);
        taken += count;
    }
    assert_eq!(taken, ATTEMPTS as u64);
    let mut by_transaction = BTreeMap::new();
    for message in checks(&ports).await {
        *by_transaction.entry(message.aggregate_id).or_insert(0) += 1;
    }
    assert!(by_transaction.values().all(|count| *count == 1), "{by_transaction:?}");
    assert_eq!(by_transaction.into_keys().collect::<HashSet<_>>(), ids);
}

pub async fn attempts_that_may_have_charged_are_counted_once_they_are_old(ports: Ports) {
    let opened = ports.clock.now();
    for state in AttemptState::ALL {
        with_attempt(&ports, state, state.is_unresolved().then_some(opened)).await;
    }
    ports.clock.advance(MINUTE);
    let later = ports.clock.now();
    with_attempt(&ports, AttemptState::Open, Some(later)).await;
    assert_eq!(ports.attempts.count_overdue(opened).await.unwrap(), 0);
    assert_eq!(ports.attempts.count_overdue(later).await.unwrap(), 2, "open and voiding");
    assert_eq!(ports.attempts.sweep(sweep(&ports, 10)).await.unwrap(), 4);
    assert_eq!(ports.attempts.count_overdue(later).await.unwrap(), 2, "to ask is not to be answered");
}

pub async fn transactions_whose_message_was_lost_are_found_oldest_first(ports: Ports) {
    let begun = ports.clock.now();
    let mut lost = Vec::new();
    for state in [None, Some(AttemptState::NotTaken), None, Some(AttemptState::Voided), None] {
        lost.push(match state {
            None => create(&ports, "123", 2500, 1).await.id,
            Some(state) => with_attempt(&ports, state, None).await.id,
        });
        ports.clock.advance(MINUTE);
        approved(&ports, "123", 2500, 1).await;
        for state in [AttemptState::Open, AttemptState::Pending, AttemptState::Voiding] {
            with_attempt(&ports, state, Some(begun)).await;
        }
    }
    ports.clock.advance(MINUTE);
    let now = ports.clock.now();
    create(&ports, "123", 2500, 1).await;
    let stalled = async |created, after, limit| ports.attempts.stalled(created, after, limit).await.unwrap();
    assert_eq!(stalled(now, None, 100).await, lost);
    assert_eq!(stalled(now, None, 2).await, lost[..2]);
    assert_eq!(stalled(now, Some(lost[1]), 2).await, lost[2..4]);
    assert_eq!(stalled(now, Some(lost[4]), 2).await, []);
    assert_eq!(stalled(begun + TimeDelta::minutes(2), None, 100).await, lost[..2]);
    assert_eq!(stalled(begun, None, 100).await, []);
}
