use std::time::Duration;

use psp_domain::QueueName;
use psp_domain::ports::Clock;

use super::{QUEUE, receive, receive_after_leases, receive_one, receive_one_after_leases, send};
use crate::Ports;

pub async fn a_message_received_too_often_is_a_dead_letter(ports: Ports) {
    let sent = send(&ports, "{}").await;
    assert_eq!(receive_one(&ports).await.receive_count, 1);
    for count in 2..=QueueName::MAX_RECEIVES {
        assert_eq!(receive_one_after_leases(&ports).await.receive_count, count);
    }
    assert!(receive_after_leases(&ports).await.is_empty());
    let dead = ports.dead_letters.list(Some(QUEUE), None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| &d.message).collect::<Vec<_>>(), [&sent]);
    assert!(!dead[0].reason.is_empty());
    assert_eq!(dead[0].receive_count, QueueName::MAX_RECEIVES);
}

pub async fn a_message_retried_too_often_is_a_dead_letter_with_its_reason(ports: Ports) {
    let sent = send(&ports, "{}").await;
    for count in 1..=QueueName::MAX_RECEIVES {
        let delivery = receive_one(&ports).await;
        assert_eq!(delivery.receive_count, count);
        ports.queue.retry(&delivery, Duration::ZERO, "no luck").await.unwrap();
    }
    assert!(receive(&ports).await.is_empty());
    let dead = ports.dead_letters.list(Some(QUEUE), None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| &d.message).collect::<Vec<_>>(), [&sent]);
    assert_eq!((dead[0].reason.as_str(), dead[0].receive_count), ("no luck", QueueName::MAX_RECEIVES));
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
    assert!(receive_after_leases(&ports).await.is_empty());
}

pub async fn dead_letters_are_listed_oldest_first_a_page_at_a_time(ports: Ports) {
    let mut sent = Vec::new();
    for i in 0..5 {
        sent.push(send(&ports, &i.to_string()).await);
    }
    for delivery in receive(&ports).await {
        ports.queue.dead_letter(&delivery, &format!("bad {}", delivery.message.body)).await.unwrap();
    }
    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = ports.dead_letters.list(Some(QUEUE), after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.message.id);
        walked.extend(page);
    }
    assert_eq!(walked.iter().map(|d| &d.message).collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>());
    assert!(walked.iter().all(|d| d.reason == format!("bad {}", d.message.body)));
    assert!(walked.iter().all(|d| d.sent_at <= d.dead_at && d.dead_at == ports.clock.now()));
}

pub async fn depths_count_what_is_pending_and_what_is_dead(ports: Ports) {
    let started_at = ports.clock.now();
    for i in 0..4 {
        send(&ports, &i.to_string()).await;
        ports.clock.advance(Duration::from_secs(1));
    }
    let [acked, dead, retried, _leased] = receive(&ports).await.try_into().expect("four messages");
    ports.queue.ack(&[acked]).await.unwrap();
    ports.queue.dead_letter(&dead, "bad").await.unwrap();
    ports.queue.retry(&retried, Duration::from_mins(1), "later").await.unwrap();
    let depths = ports.queue.depths().await.unwrap();
    assert_eq!(depths.len(), QueueName::ALL.len());
    for depth in depths {
        let oldest = Some(started_at + Duration::from_secs(2));
        // A broker does not tell the age of its messages.
        let oldest = oldest.filter(|_| ports.broker_latency.is_none());
        let expected = if depth.queue == QUEUE { (2, 1, oldest) } else { (0, 0, None) };
        assert_eq!((depth.pending, depth.dead, depth.oldest), expected, "{}", depth.queue);
    }
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
