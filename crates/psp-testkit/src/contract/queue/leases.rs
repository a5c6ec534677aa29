use std::time::Duration;

use super::{QUEUE, receive, receive_after, receive_after_leases, receive_one, receive_one_after_leases, send};
use crate::Ports;

pub async fn what_is_sent_is_received_once_while_it_is_leased(ports: Ports) {
    let sent = send(&ports, "{\"a\":1}").await;
    let delivery = receive_one(&ports).await;
    assert_eq!((&delivery.message, delivery.receive_count), (&sent, 1));
    assert!(receive(&ports).await.is_empty());
    ports.queue.ack(&[delivery]).await.unwrap();
    assert!(receive_after_leases(&ports).await.is_empty());
    let depth = ports.queue.depths().await.unwrap().into_iter().find(|d| d.queue == QUEUE).unwrap();
    assert_eq!((depth.pending, depth.dead, depth.oldest), (0, 0, None));
}

pub async fn what_is_not_acknowledged_comes_again(ports: Ports) {
    send(&ports, "{}").await;
    receive_one(&ports).await;
    assert_eq!(receive_one_after_leases(&ports).await.receive_count, 2);
}

/// Longer than what a broker's clock may pass while a test does nothing.
const RETRY: Duration = Duration::from_secs(2);

pub async fn a_retry_comes_after_its_delay(ports: Ports) {
    send(&ports, "{}").await;
    let delivery = receive_one(&ports).await;
    ports.queue.retry(&delivery, RETRY, "later").await.unwrap();
    assert!(receive(&ports).await.is_empty());
    if ports.broker_latency.is_none() {
        ports.clock.advance(RETRY / 2);
        assert!(receive(&ports).await.is_empty());
    }
    let received = receive_after(&ports, Duration::from_secs(2)).await;
    assert_eq!(received.iter().map(|delivery| delivery.receive_count).collect::<Vec<_>>(), [2]);
}

pub async fn extending_keeps_a_message_invisible(ports: Ports) {
    send(&ports, "{}").await;
    let delivery = receive_one(&ports).await;
    for _ in 0..5 {
        ports.clock.advance(ports.queue.visibility_timeout() / 2);
        assert!(ports.queue.extend(&delivery).await.unwrap());
        assert!(receive(&ports).await.is_empty());
    }
    assert_eq!(receive_one_after_leases(&ports).await.receive_count, 2);
    assert!(!ports.queue.extend(&delivery).await.unwrap(), "the lease was lost");
}

pub async fn an_outdated_receipt_has_no_effect(ports: Ports) {
    send(&ports, "{}").await;
    let outdated = receive_one(&ports).await;
    let current = receive_one_after_leases(&ports).await;
    ports.queue.ack(std::slice::from_ref(&outdated)).await.unwrap();
    ports.queue.retry(&outdated, Duration::ZERO, "outdated").await.unwrap();
    ports.queue.dead_letter(&outdated, "outdated").await.unwrap();
    assert!(receive(&ports).await.is_empty(), "still leased");
    assert!(ports.queue.extend(&current).await.unwrap());
    ports.queue.ack(&[current]).await.unwrap();
    assert!(receive_after_leases(&ports).await.is_empty());
    assert!(ports.dead_letters.list(None, None, 10).await.unwrap().is_empty());
}

pub async fn an_acknowledgement_of_many_passes_over_outdated_receipts(ports: Ports) {
    for i in 0..3 {
        send(&ports, &i.to_string()).await;
    }
    let mut outdated = receive(&ports).await;
    ports.queue.ack(&outdated.split_off(2)).await.unwrap();
    let mut current = receive_after_leases(&ports).await;
    assert_eq!(current.len(), 2);
    let other = current.remove(1);
    ports.queue.ack(&[outdated.remove(0), current.remove(0), outdated.remove(0)]).await.unwrap();
    assert_eq!(receive_one_after_leases(&ports).await.message, other.message);
    ports.queue.ack(&[]).await.unwrap();
}
