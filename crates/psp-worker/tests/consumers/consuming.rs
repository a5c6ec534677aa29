use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationResult, DeadLetters, Delivery, GatewayError, Message, PayableReader, Queue, Store,
};
use psp_domain::usecases::SettlePayables;
use psp_domain::{PageRequest, QueueName, TransactionStatus};
use psp_testkit::fixtures;
use psp_worker::{ConsumerOptions, Disposition, Handler, Job, settlement_handler};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn poison_is_a_dead_letter_with_its_reason_and_stops_no_other() {
    let world = world();
    let poison = [
        message(QueueName::Transactions, "transaction.created", "{}"),
        message(QueueName::Transactions, "unknown.kind", "not JSON"),
    ];
    world.memory.send(poison.to_vec()).await.unwrap();
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    world.until_idle(QueueName::Transactions).await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| d.message.id).collect::<Vec<_>>(), [poison[0].id, poison[1].id]);
    assert!(dead[0].reason.contains("no such transaction") && dead[1].reason.contains("unknown.kind"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_leaves_the_message_to_its_new_owner() {
    let world = world_where(true);
    world.gateway.answer(Duration::from_secs(20), Err(GatewayError::TimedOut));
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!(world.gateway.asked(), [id, id], "again after the visibility timeout, and not before");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_could_not_be_extended_is_extended_again_before_it_ends() {
    let world = world();
    let approved = AuthorizationResult::Approved { reference: "slow".into(), amount: None };
    world.gateway.answer(Duration::from_secs(45), Ok(approved));
    world.queue.failing_extensions.store(3, Ordering::SeqCst);
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    world.until_idle(QueueName::Transactions).await;
    assert_eq!(world.gateway.asked(), [id], "the lease of 30 s has ended before an extension came");
    // After 15 s, then every 3.75 s while it fails, and 15 s after the first that succeeds.
    assert_eq!(world.queue.extensions.load(Ordering::SeqCst), 5);
}

/// Needs what leases are extended under, again and again.
struct BusyHandler(Arc<Mutex<()>>);

#[async_trait]
impl Handler for BusyHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |_| -> Job {
            let turn = self.0.clone();
            Box::pin(async move {
                for _ in 0..8 {
                    let _turn = turn.lock().await;
                    sleep(Duration::from_secs(5)).await;
                }
                Disposition::Done
            })
        };
        deliveries.iter().map(job).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_needs_what_its_lease_needs_goes_on() {
    let world = world();
    let queue = QueueName::PayablesSettlement;
    for body in ["one", "two"] {
        world.memory.send(vec![message(queue, "test", body)]).await.unwrap();
    }
    world.start(queue, Arc::new(BusyHandler(world.queue.turn.clone())));
    world.until_idle(queue).await;
    assert!(world.queue.extensions.load(Ordering::SeqCst) >= 2);
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_outlives_its_grace_is_left_and_the_rest_acknowledged() {
    let world = world();
    world.gateway.answer(Duration::from_secs(45), Err(GatewayError::TimedOut));
    let (slow, quick) = (world.create().await, world.create().await);
    let consumer = world.start_transactions();
    while world.gateway.asked().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    world.stop.cancel();
    let begun = Instant::now();
    consumer.await.unwrap();
    let grace = ConsumerOptions::default().grace;
    assert!((grace..grace + Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let mut statuses = [world.transaction(slow).await.status, world.transaction(quick).await.status];
    statuses.sort_by_key(|status| status.as_str());
    assert_eq!(statuses, [TransactionStatus::PendingPayment, TransactionStatus::Processing]);
    assert_eq!(world.pending(QueueName::Transactions).await, 1);
}

struct PanickingHandler;

#[async_trait]
impl Handler for PanickingHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        assert!(deliveries.iter().all(|d| d.message.body != "prepare"), "as told");
        let job = |panics: bool| -> Job {
            Box::pin(async move {
                assert!(!panics, "as told");
                Disposition::Done
            })
        };
        deliveries.iter().map(|d| job(d.message.body == "run")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_message_only() {
    let world = world();
    let queue = QueueName::PayablesSettlement;
    for body in ["run", "prepare", "fine"] {
        world.memory.send(vec![message(queue, "test", body)]).await.unwrap();
    }
    world.start(queue, Arc::new(PanickingHandler));
    world.until_idle(queue).await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    assert!(dead.iter().any(|d| d.message.body == "run"));
    assert!(dead.iter().all(|d| d.reason.contains("panicked") && d.receive_count == QueueName::MAX_RECEIVES));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_hand_and_takes_no_more() {
    let world = world();
    let approved = Ok(AuthorizationResult::Approved { reference: "slow".into(), amount: None });
    world.gateway.answer(Duration::from_secs(5), approved);
    let in_hand = world.create().await;
    let consumer = world.start_transactions();
    while world.gateway.asked().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    world.stop.cancel();
    // What was being claimed when the stop came may still arrive.
    sleep(Duration::from_secs(1)).await;
    let later = world.create().await;
    consumer.await.unwrap();
    assert_eq!(world.transaction(in_hand).await.status, TransactionStatus::PendingPayment);
    assert_eq!(world.transaction(later).await.status, TransactionStatus::Processing);
    assert_eq!(world.pending(QueueName::Transactions).await, 1, "the first was acknowledged");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_queue_is_waited_out() {
    let world = world();
    world.queue.outages.store(5, Ordering::SeqCst);
    let id = world.create().await;
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
    assert_eq!(world.queue.outages.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_delivered_twice_has_one_effect() {
    let world = world();
    let id = world.create().await;
    let again = Message { aggregate_id: id.0, ..message(QueueName::Transactions, "transaction.created", "{}") };
    world.memory.send(vec![again]).await.unwrap();
    world.start_transactions();
    world.until_idle(QueueName::Transactions).await;
    let page = PageRequest::default();
    let payables = PayableReader::list(&*world.memory, &fixtures::customer("123"), page).await.unwrap();
    assert_eq!(payables.items.len(), 1);
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn chunks_are_settled_from_the_queue_and_poison_is_put_aside() {
    let world = world();
    for _ in 0..10 {
        let (transaction, change) = fixtures::create(&fixtures::new_transaction(), world.sources.clock.now());
        world.memory.apply(change).await.unwrap();
        world.memory.apply(fixtures::approve(&transaction, world.sources.clock.now())).await.unwrap();
    }
    let settle = SettlePayables::new(world.memory.clone(), world.sources.clone());
    let date = (world.sources.clock.now() + chrono::Days::new(31)).date_naive();
    let run = settle.plan(Some(date), 3).await.unwrap();
    let queue = QueueName::PayablesSettlement;
    let unknown = format!("{{\"run_id\":\"{}\",\"number\":99}}", run.id);
    for (kind, body) in [("settle_payables", "{}"), ("settle_payables", unknown.as_str()), ("other", "{}")] {
        world.memory.send(vec![message(queue, kind, body)]).await.unwrap();
    }
    world.start(queue, settlement_handler(settle.clone()));
    world.until_idle(queue).await;
    let progress = settle.progress(run.id).await.unwrap().unwrap();
    assert_eq!((progress.chunks, progress.settled_chunks, progress.payables), (4, 4, 10));
    assert_eq!(DeadLetters::list(&*world.memory, Some(queue), None, 10).await.unwrap().len(), 3);
}
