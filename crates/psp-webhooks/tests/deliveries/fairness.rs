//! Many endpoints, some of which hang.

use std::time::Duration;

use psp_domain::DeliveryStatus;
use psp_domain::ports::DeliveryStore;
use psp_testkit::fixtures;

use crate::receiver::{Receiver, Reply, status};
use crate::support::{Case, LEASE, eventually};

/// Answers when others had their turns.
async fn slowly(code: u16) -> Reply {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    status(code)
}

#[tokio::test]
async fn an_endpoint_that_hangs_does_not_delay_the_others() {
    let mut case = Case::default();
    case.options.concurrency = 16;
    let (hanging, good) = (Receiver::hanging().await, Receiver::saying(200).await);
    let (slow, _) = case.endpoint(&hanging.url()).await;
    let mut events = Vec::new();
    for _ in 0..50 {
        events.push(case.event().await);
    }
    // All that waits for the one that hangs has been due for longer.
    case.clock.advance(Duration::from_secs(1));
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(case.endpoint(&good.url()).await.0);
    }
    for _ in 0..20 {
        events.push(case.event().await);
    }
    let _working = case.start();
    eventually(async || good.count() == 60).await;
    for (event, endpoint) in events[50..].iter().flat_map(|event| others.iter().map(move |e| (event, e))) {
        assert_eq!(case.attempted(*event, endpoint, 1).await.status, DeliveryStatus::Delivered);
    }
    assert!((5..=10).contains(&hanging.in_hand()), "{}", hanging.in_hand());
    assert_eq!(case.delivery(events[0], &slow).await.status, DeliveryStatus::Pending);
}

#[tokio::test]
async fn no_more_are_in_hand_than_allowed_and_all_are_delivered_once() {
    let mut case = Case::default();
    (case.options.concurrency, case.options.per_endpoint) = (8, 3);
    let receiver = || Receiver::answering(|_| Box::pin(slowly(200)));
    let receivers = [receiver().await, receiver().await];
    for receiver in &receivers {
        case.endpoint(&receiver.url()).await;
    }
    for _ in 0..100 {
        case.event().await;
    }
    let working = case.start();
    eventually(async || receivers.iter().all(|receiver| receiver.count() >= 100)).await;
    working.stop.cancel();
    working.task.await.unwrap();
    for receiver in &receivers {
        assert!((1..=3).contains(&receiver.most_in_hand()), "{}", receiver.most_in_hand());
        assert_eq!(receiver.count(), 100);
    }
}

#[tokio::test]
async fn a_customer_whose_endpoints_hang_or_drip_delays_nobody_else() {
    for (slow, is_answered) in [(Receiver::hanging().await, false), (Receiver::dripping().await, true)] {
        let (mut case, good) = (Case::default(), Receiver::saying(200).await);
        case.options.concurrency = 64;
        for _ in 0..20 {
            case.endpoint_of("456", &slow.url()).await;
        }
        for _ in 0..50 {
            case.event_of("456").await;
        }
        // All of it has been due for longer.
        case.clock.advance(Duration::from_secs(1));
        case.endpoint(&good.url()).await;
        for _ in 0..50 {
            case.event().await;
        }
        let _working = case.start();
        // Sooner than an attempt may take.
        eventually(async || good.count() == 50).await;
        assert!((1..=15).contains(&slow.most_in_hand()), "{}", slow.most_in_hand());
        // What is cut leaves its place to the next.
        eventually(async || slow.count() > 15 || !is_answered).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_attempted_once_at_a_time() {
    let case = Case::default();
    let receiver = Receiver::answering(|_| Box::pin(slowly(500))).await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let first = case.event().await;
    let _working = case.start();
    case.attempted(first, &endpoint, 1).await;
    for id in [case.event().await, case.event().await, case.event().await, case.event().await] {
        case.attempted(id, &endpoint, 1).await;
    }
    assert_eq!((receiver.count(), receiver.most_in_hand()), (5, 1));
}

#[tokio::test]
async fn names_whose_servers_are_silent_cost_the_others_no_attempt() {
    const PLACES: usize = 64;
    let (mut case, good) = (Case::default(), Receiver::saying(200).await);
    case.client.connect_timeout = Duration::from_secs(1);
    case.names.silence(true);
    let mut silent = Vec::new();
    for customer in ["1", "2", "3", "4"] {
        for number in 0..20 {
            case.endpoint_of(customer, &format!("http://silent{number}.of{customer}.localhost:1/")).await;
        }
        silent.push((fixtures::customer(customer), case.event_of(customer).await));
    }
    case.clock.advance(Duration::from_secs(1));
    case.names.set("shop.localhost", &[&["127.0.0.1"]]);
    let (endpoint, _) = case.endpoint(&format!("http://shop.localhost:{}/", good.address.port())).await;
    let id = case.event().await;
    let _working = case.start();
    eventually(async || {
        let mut attempts = Vec::new();
        for (customer, event) in &silent {
            let deliveries = case.memory.deliveries_of(customer, *event).await.unwrap();
            attempts.extend(deliveries.into_iter().flat_map(|delivery| delivery.attempts));
        }
        assert!(attempts.iter().all(|attempt| attempt.error.as_deref() == Some("timeout")), "{attempts:?}");
        attempts.len() == PLACES
    })
    .await;
    assert_eq!(case.names.asked(), PLACES);
    case.names.silence(false);
    case.clock.advance(LEASE);
    let delivery = case.attempted(id, &endpoint, 1).await;
    assert_eq!((delivery.status, delivery.attempts.len()), (DeliveryStatus::Delivered, 1));
}
