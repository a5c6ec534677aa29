use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use psp_domain::ports::{Clock, Message};
use psp_domain::{QueueName, Verdict};

use super::{PATIENCE, QUEUE, message, receive, send};
use crate::{Ports, fixtures};

pub async fn messages_come_oldest_first_and_no_more_than_asked_for(ports: Ports) {
    let mut sent = Vec::new();
    for i in 0..6 {
        sent.push(send(&ports, &i.to_string()).await);
        ports.clock.advance(Duration::from_millis(1));
    }
    let first = ports.queue.receive(QUEUE, 4, PATIENCE).await.unwrap();
    assert_eq!(first.iter().map(|d| &d.message).collect::<Vec<_>>(), sent[..4].iter().collect::<Vec<_>>());
    let rest = receive(&ports).await;
    assert_eq!(rest.iter().map(|d| &d.message).collect::<Vec<_>>(), sent[4..].iter().collect::<Vec<_>>());
}

pub async fn receiving_from_an_empty_queue_waits_no_longer_than_told(ports: Ports) {
    let started = Instant::now();
    let wait = Duration::from_millis(50);
    assert!(ports.queue.receive(QUEUE, 10, wait).await.unwrap().is_empty());
    assert!((wait..PATIENCE).contains(&started.elapsed()));
}

/// Receives, does something else meanwhile, and gives the one message that came before patience ran out.
async fn woken_by<T>(ports: &Arc<Ports>, queue: QueueName, cause: impl Future<Output = T>) -> (Message, T) {
    let waiting = tokio::spawn({
        let ports = Arc::clone(ports);
        async move { ports.queue.receive(queue, 10, PATIENCE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let started = Instant::now();
    let done = cause.await;
    let mut received = waiting.await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "it waited to the end");
    assert_eq!(received.len(), 1);
    (received.remove(0).message, done)
}

pub async fn a_waiting_receiver_is_woken_by_a_send(ports: Ports) {
    let ports = Arc::new(ports);
    let (received, sent) = woken_by(&ports, QUEUE, send(&ports, "{}")).await;
    assert_eq!(received, sent);
}

pub async fn a_waiting_receiver_is_woken_by_a_commit(ports: Ports) {
    let ports = Arc::new(ports);
    let (transaction, change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    let (received, verdict) = woken_by(&ports, QueueName::Transactions, ports.store.apply(change)).await;
    assert_eq!(verdict.unwrap(), Verdict::Applied);
    assert_eq!(received.aggregate_id, transaction.id.0);
}

pub async fn receivers_at_once_never_get_the_same_message(ports: Ports) {
    let ports = Arc::new(ports);
    let messages: Vec<_> = (0..300).map(|i| message(&i.to_string())).collect();
    ports.queue.send(messages).await.unwrap();
    let receivers = (0..8).map(|_| {
        let ports = Arc::clone(&ports);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            loop {
                let received = ports.queue.receive(QUEUE, 7, Duration::ZERO).await.unwrap();
                if received.is_empty() {
                    return ids;
                }
                ids.extend(received.iter().map(|d| d.message.id));
            }
        })
    });
    let mut ids = Vec::new();
    for receiver in receivers.collect::<Vec<_>>() {
        ids.extend(receiver.await.unwrap());
    }
    assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (300, 300));
}

pub async fn the_same_message_sent_twice_is_there_once(ports: Ports) {
    let sent = send(&ports, "{}").await;
    ports.queue.send(vec![sent.clone(), message("\"other\"")]).await.unwrap();
    assert_eq!(receive(&ports).await.len(), 2);
    ports.queue.send(vec![sent]).await.unwrap();
    assert!(receive(&ports).await.is_empty(), "its lease holds");
}

pub async fn the_queues_do_not_mix(ports: Ports) {
    send(&ports, "{}").await;
    let other = ports.queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    assert!(other.is_empty());
    assert_eq!(receive(&ports).await.len(), 1);
}
