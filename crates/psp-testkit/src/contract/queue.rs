//! What every queue does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Delivery, IdGenerator, Message, UuidV7Generator};
use psp_domain::{MessageId, QueueName};

use super::PATIENCE;
use crate::Ports;

const QUEUE: QueueName = QueueName::PayablesSettlement;

/// Runs the queue contract over the ports that an async function makes.
#[macro_export]
macro_rules! queue_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::queue,
            what_is_sent_is_received_once_while_it_is_leased
            what_is_not_acknowledged_comes_again
            a_retry_comes_after_its_delay
            extending_keeps_a_message_invisible
            an_outdated_receipt_has_no_effect
            a_message_received_too_often_is_a_dead_letter_with_its_reason
            a_dead_letter_can_be_listed_replayed_and_discarded
            poison_stops_no_other_message
            a_waiting_receiver_is_woken_by_a_send
            receivers_at_once_never_get_the_same_message
            the_same_message_sent_twice_is_there_once
            the_queues_do_not_mix
        }
    };
}

fn message(body: &str) -> Message {
    Message {
        id: MessageId(UuidV7Generator.next_id()),
        queue: QUEUE,
        kind: "test".into(),
        aggregate_id: UuidV7Generator.next_id(),
        body: body.into(),
    }
}

async fn send(ports: &Ports, body: &str) -> Message {
    let message = message(body);
    ports.queue.send(vec![message.clone()]).await.unwrap();
    message
}

async fn receive(ports: &Ports) -> Vec<Delivery> {
    ports.queue.receive(QUEUE, 10, Duration::ZERO).await.unwrap()
}

async fn receive_one(ports: &Ports) -> Delivery {
    let mut received = receive(ports).await;
    assert_eq!(received.len(), 1);
    received.remove(0)
}

fn pass_visibility_timeout(ports: &Ports) {
    ports.clock.advance(ports.queue.visibility_timeout() + Duration::from_millis(1));
}

pub async fn what_is_sent_is_received_once_while_it_is_leased(ports: Ports) {
    let sent = send(&ports, "{\"a\":1}").await;
    let delivery = receive_one(&ports).await;
    assert_eq!((&delivery.message, delivery.receive_count), (&sent, 1));
    assert!(receive(&ports).await.is_empty());
    ports.queue.ack(&[delivery]).await.unwrap();
    pass_visibility_timeout(&ports);
    assert!(receive(&ports).await.is_empty());
    let depth = ports.queue.depths().await.unwrap().into_iter().find(|d| d.queue == QUEUE).unwrap();
    assert_eq!((depth.pending, depth.dead, depth.oldest), (0, 0, None));
}

pub async fn what_is_not_acknowledged_comes_again(ports: Ports) {
    send(&ports, "{}").await;
    receive_one(&ports).await;
    pass_visibility_timeout(&ports);
    assert_eq!(receive_one(&ports).await.receive_count, 2);
}

pub async fn a_retry_comes_after_its_delay(ports: Ports) {
    send(&ports, "{}").await;
    let delivery = receive_one(&ports).await;
    ports.queue.retry(&delivery, Duration::from_secs(5), "later").await.unwrap();
    assert!(receive(&ports).await.is_empty());
    ports.clock.advance(Duration::from_secs(4));
    assert!(receive(&ports).await.is_empty());
    ports.clock.advance(Duration::from_secs(2));
    assert_eq!(receive_one(&ports).await.receive_count, 2);
}

pub async fn extending_keeps_a_message_invisible(ports: Ports) {
    send(&ports, "{}").await;
    let delivery = receive_one(&ports).await;
    for _ in 0..5 {
        ports.clock.advance(ports.queue.visibility_timeout() / 2);
        assert!(ports.queue.extend(&delivery).await.unwrap());
        assert!(receive(&ports).await.is_empty());
    }
    pass_visibility_timeout(&ports);
    assert_eq!(receive_one(&ports).await.receive_count, 2);
    assert!(!ports.queue.extend(&delivery).await.unwrap(), "the lease was lost");
}

pub async fn an_outdated_receipt_has_no_effect(ports: Ports) {
    send(&ports, "{}").await;
    let outdated = receive_one(&ports).await;
    pass_visibility_timeout(&ports);
    let current = receive_one(&ports).await;
    ports.queue.ack(std::slice::from_ref(&outdated)).await.unwrap();
    ports.queue.retry(&outdated, Duration::ZERO, "outdated").await.unwrap();
    ports.queue.dead_letter(&outdated, "outdated").await.unwrap();
    assert!(receive(&ports).await.is_empty(), "still leased");
    assert!(ports.queue.extend(&current).await.unwrap());
    ports.queue.ack(&[current]).await.unwrap();
    pass_visibility_timeout(&ports);
    assert!(receive(&ports).await.is_empty());
    assert!(ports.dead_letters.list(None, None, 10).await.unwrap().is_empty());
}

pub async fn a_message_received_too_often_is_a_dead_letter_with_its_reason(ports: Ports) {
    let (explained, silent) = (send(&ports, "\"explained\"").await, send(&ports, "\"silent\"").await);
    for count in 1..=QueueName::MAX_RECEIVES {
        let received = receive(&ports).await;
        assert_eq!(received.len(), 2);
        for delivery in received {
            assert_eq!(delivery.receive_count, count);
            if delivery.message.id == explained.id {
                ports.queue.retry(&delivery, Duration::ZERO, "no luck").await.unwrap();
            }
        }
        pass_visibility_timeout(&ports);
    }
    assert!(receive(&ports).await.is_empty());
    let dead = ports.dead_letters.list(Some(QUEUE), None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| &d.message).collect::<Vec<_>>(), [&explained, &silent]);
    assert_eq!(dead[0].reason, "no luck");
    assert!(!dead[1].reason.is_empty());
    assert!(dead.iter().all(|d| d.receive_count == QueueName::MAX_RECEIVES));
}

pub async fn a_dead_letter_can_be_listed_replayed_and_discarded(ports: Ports) {
    let sent = send(&ports, "{}").await;
    let delivery = receive_one(&ports).await;
    ports.queue.dead_letter(&delivery, "bad body").await.unwrap();
    let other = Some(QueueName::Transactions);
    assert!(ports.dead_letters.list(other, None, 10).await.unwrap().is_empty());
    assert!(ports.dead_letters.list(None, Some(sent.id), 10).await.unwrap().is_empty());
    let dead = ports.dead_letters.find(sent.id).await.unwrap().expect("the dead letter");
    assert_eq!((&dead.message, dead.reason.as_str(), dead.receive_count), (&sent, "bad body", 1));
    assert!(ports.dead_letters.replay(sent.id).await.unwrap());
    assert!(!ports.dead_letters.replay(sent.id).await.unwrap());
    let again = receive_one(&ports).await;
    assert_eq!(again.receive_count, 1, "a fresh count");
    ports.queue.ack(&[delivery]).await.unwrap();
    assert!(ports.queue.extend(&again).await.unwrap(), "a receipt from before the replay is outdated");
    ports.queue.dead_letter(&again, "still bad").await.unwrap();
    assert!(ports.dead_letters.discard(sent.id).await.unwrap());
    assert!(!ports.dead_letters.discard(sent.id).await.unwrap());
    assert_eq!(ports.dead_letters.find(sent.id).await.unwrap(), None);
    pass_visibility_timeout(&ports);
    assert!(receive(&ports).await.is_empty());
}

pub async fn poison_stops_no_other_message(ports: Ports) {
    send(&ports, "\"poison\"").await;
    for i in 0..20 {
        send(&ports, &i.to_string()).await;
    }
    let mut done = 0;
    for _ in 0..10 {
        for delivery in receive(&ports).await {
            if delivery.message.body == "\"poison\"" {
                ports.queue.retry(&delivery, Duration::ZERO, "poison").await.unwrap();
            } else {
                done += 1;
                ports.queue.ack(&[delivery]).await.unwrap();
            }
        }
    }
    assert_eq!(done, 20);
    let dead = ports.dead_letters.list(None, None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| d.reason.as_str()).collect::<Vec<_>>(), ["poison"]);
}

pub async fn a_waiting_receiver_is_woken_by_a_send(ports: Ports) {
    let ports = Arc::new(ports);
    let receiver = tokio::spawn({
        let ports = Arc::clone(&ports);
        async move { ports.queue.receive(QUEUE, 10, PATIENCE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let sent = send(&ports, "{}").await;
    assert_eq!(receiver.await.unwrap()[0].message, sent);
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
}

pub async fn the_queues_do_not_mix(ports: Ports) {
    send(&ports, "{}").await;
    let other = ports.queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    assert!(other.is_empty());
    assert_eq!(receive(&ports).await.len(), 1);
}
