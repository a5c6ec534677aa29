//! When deliveries are attempted again.

use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::Clock;
use psp_domain::{DeliveryStatus, WebhookPolicy};

use crate::receiver::{Receiver, status, with_header};
use crate::support::Case;

/// The pauses of the documentation, in seconds.
const PAUSES: [u64; 7] = [5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 10 * 3_600];

#[tokio::test]
async fn attempts_are_made_at_the_times_of_the_schedule_and_never_before() {
    let (case, receiver) = (Case::default(), Receiver::saying(500).await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let id = case.event().await;
    let _working = case.start();
    for (made, pause) in (1..).zip(PAUSES) {
        let delivery = case.attempted(id, &endpoint, made).await;
        let at = case.clock.now() + TimeDelta::seconds(i64::try_from(pause).unwrap());
        assert_eq!((delivery.status, delivery.next_attempt_at), (DeliveryStatus::Pending, Some(at)));
        // Another delivery, which comes after it would have, shows that it was not attempted.
        case.clock.advance(Duration::from_secs(pause).saturating_sub(Duration::from_millis(1)));
        case.attempted(case.event().await, &endpoint, 1).await;
        assert_eq!(case.delivery(id, &endpoint).await.attempts.len(), made);
        case.clock.advance(Duration::from_millis(1));
    }
    let delivery = case.attempted(id, &endpoint, 8).await;
    assert_eq!((delivery.status, delivery.next_attempt_at), (DeliveryStatus::Failed, None));
    assert!(delivery.attempts.iter().map(|attempt| attempt.number).eq(1..=8));
    assert!(delivery.attempts.iter().all(|attempt| attempt.status == Some(500)));

    let all = receiver.heard();
    let own: Vec<_> = all.iter().filter(|heard| heard.header("webhook-id") == id.to_string()).collect();
    assert!(own.iter().all(|heard| heard.body == own[0].body), "the same bytes each time");
    let mut times: Vec<_> = own.iter().map(|heard| heard.header("webhook-timestamp")).collect();
    times.dedup();
    assert_eq!(times.len(), 8, "each attempt has a time of its own");
}

#[tokio::test]
async fn pauses_are_longer_by_chance_and_by_no_more_than_the_jitter() {
    let case = Case { policy: WebhookPolicy::default(), ..Case::default() };
    let receiver = Receiver::saying(503).await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let delivery = case.attempted(case.event().await, &endpoint, 1).await;
        let pause = delivery.next_attempt_at.unwrap() - case.clock.now();
        assert!((TimeDelta::seconds(5)..=TimeDelta::seconds(6)).contains(&pause), "{pause}");
        seen.insert(pause);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test]
async fn an_endpoint_is_left_alone_as_long_as_it_asks() {
    for (asked, pause) in [
        ("120", TimeDelta::seconds(120)),
        ("Sat, 31 Jan 2026 12:10:00 GMT", TimeDelta::minutes(10)),
        ("1", TimeDelta::seconds(5)),
        ("99999999", TimeDelta::hours(24)),
        ("whenever", TimeDelta::seconds(5)),
    ] {
        let case = Case::default();
        let receiver = Receiver::answering(move |number| {
            Box::pin(async move { if number == 0 { with_header(429, "retry-after", asked) } else { status(200) } })
        });
        let receiver = receiver.await;
        let (endpoint, _) = case.endpoint(&receiver.url()).await;
        let id = case.event().await;
        let _working = case.start();
        let delivery = case.attempted(id, &endpoint, 1).await;
        assert_eq!(delivery.next_attempt_at, Some(case.clock.now() + pause), "{asked}");
        case.clock.advance(pause.to_std().unwrap());
        assert_eq!(case.attempted(id, &endpoint, 2).await.status, DeliveryStatus::Delivered);
    }
}
