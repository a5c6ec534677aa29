//! Sweeps over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{
    CHECK_MESSAGE_KIND, CHECK_REFUND_MESSAGE_KIND, Clock, DeadLetters, Delivery, Queue, RefundStore, Store,
    UuidV7Generator,
};
use psp_domain::{AttemptState, ChangeSet, QueueName, RefundId, TransactionId};
use psp_jobs::{Stalled, Sweeps, Swept, Unanswered, ask_for_stalled, sweep_unanswered, sweep_until};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_mins(1);
const BUDGET: Duration = Duration::from_mins(15);

fn world() -> (Arc<FixedClock>, Arc<Memory>, Sweeps) {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let sweeps = Sweeps {
        attempts: memory.clone(),
        refunds: memory.clone(),
        orders: memory.clone(),
        queue: memory.clone(),
        clock: clock.clone(),
        least: TimeDelta::minutes(1),
        budget: TimeDelta::minutes(15),
    };
    (clock, memory, sweeps)
}

/// Creates transactions, the oldest first, and loses their messages.
async fn lose(memory: &Memory, clock: &FixedClock, count: usize) -> Vec<TransactionId> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let (transaction, created) = fixtures::create(&fixtures::new_transaction(), clock.now());
        memory.apply(created).await.unwrap();
        ids.push(transaction.id);
    }
    drain(memory).await;
    ids
}

/// Does away with every message.
async fn drain(memory: &Memory) {
    memory.ack(&received(memory).await).await.unwrap();
}

async fn open(memory: &Memory, clock: &FixedClock, state: AttemptState) {
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), clock.now());
    let attempt = fixtures::attempt(&transaction, 1, clock.now());
    memory.apply(created).await.unwrap();
    let attempt = attempt.into_state(state, None, clock.now());
    memory.apply(ChangeSet::of_attempts(transaction, vec![attempt])).await.unwrap();
}

/// Asks for a refund of a payment that was approved.
async fn ask_refund(memory: &Memory, clock: &FixedClock) -> RefundId {
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), clock.now());
    memory.apply(created).await.unwrap();
    let approved = fixtures::approve(&transaction, clock.now());
    let transaction = fixtures::written(&approved).clone();
    memory.apply(approved).await.unwrap();
    let check_at = clock.now() + TimeDelta::minutes(1);
    let next = transaction.ask_refund(None, check_at, clock.now(), &UuidV7Generator).unwrap();
    let id = next.refunds[0].id;
    memory.apply(next.into()).await.unwrap();
    id
}

async fn received(memory: &Memory) -> Vec<Delivery> {
    memory.receive(QueueName::Transactions, usize::MAX, Duration::ZERO).await.unwrap()
}

fn aggregates(deliveries: &[Delivery]) -> HashSet<TransactionId> {
    deliveries.iter().map(|delivery| TransactionId(delivery.message.aggregate_id)).collect()
}

#[tokio::test]
async fn a_sweep_asks_for_every_attempt_whose_time_has_come_and_for_no_other() {
    let (clock, memory, sweeps) = world();
    for _ in 0..1_500 {
        open(&memory, &clock, AttemptState::Open).await;
    }
    let asked = async || sweep_unanswered(&sweeps, Unanswered::Attempts).await.unwrap();
    assert_eq!(asked().await, Swept::default(), "their time has not come");
    clock.advance(MINUTE);
    assert_eq!(asked().await, Swept { asked: 1_500, overdue: 0 });
    assert_eq!(asked().await, Swept::default(), "they were asked for");
    clock.advance(15 * MINUTE);
    assert_eq!(asked().await, Swept { asked: 1_500, overdue: 1_500 });
}

#[tokio::test]
async fn a_sweep_asks_for_every_refund_whose_time_has_come_until_it_has_ended() {
    let (clock, memory, sweeps) = world();
    let refund = ask_refund(&memory, &clock).await;
    let first = memory.receive(QueueName::Refunds, usize::MAX, Duration::ZERO).await.unwrap();
    assert_eq!(first.len(), 1, "the event is the first message");
    memory.ack(&first).await.unwrap();
    let asked = async || sweep_unanswered(&sweeps, Unanswered::Refunds).await.unwrap();
    assert_eq!(asked().await, Swept::default(), "its time has not come");
    clock.advance(MINUTE);
    assert_eq!(asked().await, Swept { asked: 1, overdue: 0 });
    assert_eq!(asked().await, Swept::default(), "it was asked for");
    let sent = memory.receive(QueueName::Refunds, usize::MAX, Duration::ZERO).await.unwrap();
    let messages: Vec<_> = sent.iter().map(|sent| (sent.message.kind.as_str(), sent.message.aggregate_id)).collect();
    assert_eq!(messages, [(CHECK_REFUND_MESSAGE_KIND, refund.0)]);
    clock.advance_days(1);
    assert_eq!(asked().await, Swept { asked: 1, overdue: 1 });
    let loaded = memory.load_refund(refund).await.unwrap().unwrap();
    let failed = loaded.transaction.fail_refund(loaded.refund, "no", &loaded.payables, clock.now(), &UuidV7Generator);
    memory.apply(fixtures::executed(failed.unwrap())).await.unwrap();
    clock.advance_days(1);
    assert_eq!(asked().await, Swept::default(), "it has ended");
}

#[tokio::test]
async fn transactions_whose_message_was_lost_are_asked_for_after_twice_the_budget() {
    let (clock, memory, sweeps) = world();
    let lost = lose(&memory, &clock, 3).await;
    open(&memory, &clock, AttemptState::Pending).await;
    drain(&memory).await;
    clock.advance(2 * BUDGET);
    assert_eq!(ask_for_stalled(&sweeps, None).await.unwrap(), Stalled::default(), "not older");
    clock.advance(MINUTE);
    assert_eq!(ask_for_stalled(&sweeps, None).await.unwrap(), Stalled { count: 3, last: None });
    let asked = received(&memory).await;
    assert_eq!((asked.len(), aggregates(&asked)), (3, lost.into_iter().collect()));
    assert!(asked.iter().all(|delivery| delivery.message.kind == CHECK_MESSAGE_KIND));
}

#[tokio::test]
async fn what_was_asked_for_is_asked_for_again_only_once_its_message_is_gone() {
    let (clock, memory, sweeps) = world();
    lose(&memory, &clock, 2).await;
    clock.advance(3 * BUDGET);
    for _ in 0..3 {
        assert_eq!(ask_for_stalled(&sweeps, None).await.unwrap().count, 2);
    }
    let first = received(&memory).await;
    assert_eq!(first.len(), 2, "one each");
    memory.ack(&first[..1]).await.unwrap();
    memory.dead_letter(&first[1], "in vain").await.unwrap();
    ask_for_stalled(&sweeps, None).await.unwrap();
    let again = received(&memory).await;
    assert_eq!(aggregates(&again), aggregates(&first[..1]), "a dead letter waits for a person");
    assert!(memory.discard(first[1].message.id).await.unwrap());
    ask_for_stalled(&sweeps, None).await.unwrap();
    assert_eq!(aggregates(&received(&memory).await), aggregates(&first[1..]));
}

#[tokio::test]
async fn looks_go_on_where_the_one_before_ended() {
    let (clock, memory, sweeps) = world();
    let lost = lose(&memory, &clock, 2_000).await;
    clock.advance(3 * BUDGET);
    let mut after = None;
    for part in [&lost[..1_000], &lost[1_000..]] {
        let stalled = ask_for_stalled(&sweeps, after).await.unwrap();
        assert_eq!(stalled, Stalled { count: 1_000, last: part.last().copied() });
        assert_eq!(aggregates(&received(&memory).await), part.iter().copied().collect());
        after = stalled.last;
    }
    assert_eq!(ask_for_stalled(&sweeps, after).await.unwrap(), Stalled::default(), "the next one begins anew");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Gathers the log of this thread as long as the guard lives.
    fn gather() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_is_told_at_once_and_every_tenth_sweep_and_what_is_lost_once_per_budget() {
    let (clock, memory, sweeps) = world();
    let (log, _logging) = Log::gather();
    open(&memory, &clock, AttemptState::Voiding).await;
    ask_refund(&memory, &clock).await;
    clock.advance_days(1);
    let lost = lose(&memory, &clock, 1).await;
    memory.apply(fixtures::place(&fixtures::new_order("123", 1), clock.now()).1).await.unwrap();
    clock.advance(3 * BUDGET);

    // Sweeps after 0 to 29 minutes, looks after 0 and 15.
    let stop = CancellationToken::new();
    let stopping = async {
        tokio::time::sleep(29 * MINUTE + MINUTE / 2).await;
        stop.cancel();
    };
    tokio::join!(sweep_until(&sweeps, MINUTE, stop.clone()), stopping);
    assert_eq!(log.count("attempts are overdue count=1"), 3);
    assert_eq!(log.count("refunds are overdue count=1"), 3);
    assert_eq!(log.count("transactions whose message was lost are asked for transactions=1"), 2);
    assert_eq!(log.count("orders whose message was lost are asked for orders=1"), 2);
    assert!(aggregates(&received(&memory).await).contains(&lost[0]));
}

#[tokio::test(start_paused = true)]
async fn where_all_is_well_nothing_is_told() {
    let (clock, memory, sweeps) = world();
    let (log, _logging) = Log::gather();
    open(&memory, &clock, AttemptState::Pending).await;
    open(&memory, &clock, AttemptState::Approved).await;
    let stop = CancellationToken::new();
    let stopping = async {
        tokio::time::sleep(30 * MINUTE).await;
        stop.cancel();
    };
    tokio::join!(sweep_until(&sweeps, MINUTE, stop.clone()), stopping);
    assert_eq!(log.count("\n"), 0);
}
