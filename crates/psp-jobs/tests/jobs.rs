//! Jobs over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use psp_domain::ports::{Clock, SettlementChunk, Store, SystemClock};
use psp_domain::usecases::{SettlePayables, Sources};
use psp_jobs::{CronJob, JobError, purge_idempotency_keys, run_cron, settle_payables};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

async fn approved(count: usize) -> (Arc<Memory>, SettlePayables, chrono::NaiveDate) {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    for _ in 0..count {
        let (transaction, change) = fixtures::create(&fixtures::new_transaction(), clock.now());
        memory.apply(change).await.unwrap();
        memory.apply(fixtures::approve(&transaction, clock.now())).await.unwrap();
    }
    let date = (clock.now() + chrono::Days::new(30)).date_naive();
    let settle = SettlePayables::new(memory.clone(), Sources { clock, ..Sources::default() });
    (memory, settle, date)
}

#[tokio::test(start_paused = true)]
async fn a_settlement_ends_with_a_summary_once_all_chunks_are_settled() {
    let (memory, settle, date) = approved(5).await;
    let (worker, seen) = (settle.clone(), AtomicU32::new(0));
    let summary = settle_payables(&settle, Some(date), 2, |progress| {
        seen.fetch_max(progress.settled_chunks, Ordering::SeqCst);
    });
    let (run, runs) = tokio::sync::oneshot::channel();
    let consumer = async {
        // The run's id is on the queue.
        let queue: &dyn psp_domain::ports::Queue = &*memory;
        let name = psp_domain::QueueName::PayablesSettlement;
        let received = queue.receive(name, 10, PATIENCE).await.unwrap();
        for delivery in &received {
            let chunk: SettlementChunk = serde_json::from_str(&delivery.message.body).unwrap();
            worker.settle(chunk).await.unwrap().unwrap();
        }
        run.send(received.len()).unwrap();
    };
    let (summary, ()) = tokio::join!(summary, consumer);
    let summary = summary.unwrap();
    assert_eq!((summary.chunks, summary.payables, summary.transactions), (3, 5, 5));
    assert_eq!((runs.await.unwrap(), seen.load(Ordering::SeqCst)), (3, 3));
    assert!(summary.to_string().contains("amount        118.75 BRL"), "{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_nobody_works_on_is_told_with_its_run() {
    let (_memory, settle, date) = approved(1).await;
    match settle_payables(&settle, Some(date), 1, |_| {}).await {
        Err(error @ JobError::Stalled { settled: 0, chunks: 1, .. }) => assert!(error.to_string().contains("run")),
        other => panic!("{other:?}"),
    }
    let nothing = settle_payables(&settle, Some("2020-01-01".parse().unwrap()), 1, |_| {}).await.unwrap();
    assert_eq!((nothing.chunks, nothing.payables), (0, 0));
}

#[tokio::test]
async fn expired_keys_are_purged_to_the_last() {
    let clock = Arc::new(FixedClock::default());
    let memory = Memory::new(clock.clone());
    for i in 0..5_001 {
        let (_, mut change) = fixtures::create(&fixtures::new_transaction(), clock.now());
        change.idempotency = Some(fixtures::idempotency(&change, &format!("key-{i}"), clock.now()));
        memory.apply(change).await.unwrap();
    }
    assert_eq!(purge_idempotency_keys(&memory, &*clock).await.unwrap(), 0);
    clock.advance_days(1);
    assert_eq!(purge_idempotency_keys(&memory, &*clock).await.unwrap(), 5_001);
}

#[test]
fn wrong_schedules_are_refused() {
    for good in ["5 0 * * *", "* * * * * *", "*/15 * * * MON-FRI", " 0  0 1 * * "] {
        assert!(CronJob::new("test", good, || async { Ok(()) }).is_ok(), "{good}");
    }
    for bad in ["", "daily", "60 * * * *", "* * * *", "* * * * * * * *", "5 25 * * *"] {
        let error = CronJob::new("test", bad, || async { Ok(()) }).map(drop).unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_never_overlap_failures_end_nothing_and_stopping_waits() {
    let (running, runs, overlaps) =
        (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let job = {
        let (running, runs, overlaps) = (running.clone(), runs.clone(), overlaps.clone());
        move || {
            let (running, runs, overlaps) = (running.clone(), runs.clone(), overlaps.clone());
            async move {
                overlaps.fetch_add(running.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                // Longer than the second between two ticks.
                sleep(Duration::from_millis(1_500)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                match runs.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("the first run fails".into()),
                    1 => panic!("the second run panics"),
                    _ => Ok(()),
                }
            }
        }
    };
    let stop = CancellationToken::new();
    let jobs = vec![CronJob::new("test", "* * * * * *", job).unwrap()];
    let cron = tokio::spawn(run_cron(jobs, Arc::new(SystemClock), None, PATIENCE, stop.clone()));
    let begun = Instant::now();
    while runs.load(Ordering::SeqCst) < 3 || running.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < PATIENCE, "only {} runs", runs.load(Ordering::SeqCst));
        sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    cron.await.unwrap().unwrap();
    assert_eq!((running.load(Ordering::SeqCst), overlaps.load(Ordering::SeqCst)), (0, 0));
    assert!(runs.load(Ordering::SeqCst) >= 4, "the run under way was waited for");
}
