use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, DeliveryBacklog};
use psp_domain::{DeliveryStatus, DeliveryVerdict, EndpointStatus};

use super::{
    LEASE, claim, claim_one, conclude, conclusion, conclusion_at, deliveries, delivery, endpoint, event, find,
    is_pending, set_status,
};
use crate::{Ports, fixtures};

pub async fn a_delivered_event_is_final_and_shows_its_attempt(ports: Ports) {
    let (own, created_at) = (endpoint(&ports, "123", &[]).await, ports.clock.now());
    let written = event(&ports, "123").await;
    let before = delivery(&ports, &written).await;
    assert_eq!((before.event_id, before.endpoint_id, before.status), (written.id, own.id, DeliveryStatus::Pending));
    assert_eq!((before.next_attempt_at, before.created_at), (Some(created_at), created_at));
    assert!(before.attempts.is_empty());
    let due = claim_one(&ports).await;
    ports.clock.advance(Duration::from_secs(1));
    let attempt = conclude(&ports, &due, DeliveryVerdict::Delivered).await;
    let after = delivery(&ports, &written).await;
    assert_eq!((after.status, after.next_attempt_at), (DeliveryStatus::Delivered, None));
    assert_eq!((after.attempts, after.created_at, after.updated_at), (vec![attempt], created_at, ports.clock.now()));
    ports.clock.advance_days(1);
    assert!(claim(&ports).await.is_empty());
}

pub async fn a_failed_attempt_is_made_again_when_it_is_due(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let retry_at = ports.clock.now() + TimeDelta::seconds(5);
    let attempt = conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::RetryAt(retry_at)).await;
    let waiting = delivery(&ports, &written).await;
    assert_eq!((waiting.status, waiting.next_attempt_at), (DeliveryStatus::Pending, Some(retry_at)));
    assert_eq!(waiting.attempts, [attempt]);
    ports.clock.advance(Duration::from_secs(5));
    let due = claim_one(&ports).await;
    assert_eq!((due.attempts, due.tries), (1, 1));
}

pub async fn attempts_are_numbered_and_tries_counted(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let mut attempts = Vec::new();
    for tries in 0..12 {
        let due = claim_one(&ports).await;
        assert_eq!((due.attempts, due.tries), (tries, tries));
        attempts.push(conclude(&ports, &due, DeliveryVerdict::RetryAt(ports.clock.now())).await);
        ports.clock.advance(Duration::from_millis(1));
    }
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    assert_eq!(delivery(&ports, &written).await.attempts, attempts);
}

pub async fn the_end_of_the_schedule_is_final(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    let failed = delivery(&ports, &written).await;
    assert_eq!((failed.status, failed.next_attempt_at), (DeliveryStatus::Failed, None));
    ports.clock.advance_days(10);
    assert!(claim(&ports).await.is_empty());
}

pub async fn concluding_under_a_lost_lease_changes_nothing(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let lost = claim_one(&ports).await;
    ports.clock.advance(LEASE);
    let current = claim_one(&ports).await;
    let before = delivery(&ports, &written).await;
    for verdict in [DeliveryVerdict::Failed, DeliveryVerdict::Delivered] {
        conclude(&ports, &lost, verdict).await;
        assert_eq!(delivery(&ports, &written).await, before);
        assert_eq!(find(&ports, &own).await, own);
    }
    let attempt = conclude(&ports, &current, DeliveryVerdict::Delivered).await;
    assert_eq!(delivery(&ports, &written).await.attempts, [attempt]);
}

pub async fn concluding_twice_counts_once(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let due = claim_one(&ports).await;
    let again_at = ports.clock.now() + TimeDelta::seconds(5);
    let attempt = conclude(&ports, &due, DeliveryVerdict::RetryAt(again_at)).await;
    conclude(&ports, &due, DeliveryVerdict::Failed).await;
    let once = delivery(&ports, &written).await;
    assert!(is_pending(&once));
    assert_eq!((once.attempts, once.next_attempt_at), (vec![attempt], Some(again_at)));
}

pub async fn a_batch_of_conclusions_is_taken_one_by_one(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let mut written = Vec::new();
    for _ in 0..200 {
        written.push(event(&ports, "123").await);
    }
    let (claimed, now) = (claim(&ports).await, ports.clock.now());
    assert_eq!(claimed.len(), 200);
    let verdicts = [DeliveryVerdict::Delivered, DeliveryVerdict::RetryAt(now + LEASE), DeliveryVerdict::Failed];
    let mut concluded: Vec<_> =
        claimed.iter().zip(verdicts.iter().cycle()).map(|(due, verdict)| conclusion(&ports, due, *verdict)).collect();
    // One that was lost holds no other up.
    concluded[100].lease += 1;
    ports.deliveries.conclude_deliveries(&concluded).await.unwrap();
    ports.deliveries.conclude_deliveries(&[]).await.unwrap();
    for (number, one) in concluded.iter().enumerate() {
        let event = written.iter().find(|event| event.id == one.event_id).expect("the event");
        let after = delivery(&ports, event).await;
        let (status, attempts) = match (number, one.verdict) {
            (100, _) => (DeliveryStatus::Pending, vec![]),
            (_, DeliveryVerdict::Delivered) => (DeliveryStatus::Delivered, vec![one.attempt.clone()]),
            (_, DeliveryVerdict::RetryAt(_)) => (DeliveryStatus::Pending, vec![one.attempt.clone()]),
            (_, DeliveryVerdict::Failed) => (DeliveryStatus::Failed, vec![one.attempt.clone()]),
        };
        assert_eq!((after.status, after.attempts), (status, attempts), "{number}");
    }
}

pub async fn an_endpoint_fails_since_its_first_failure_after_a_success(ports: Ports) {
    let (own, other) = (endpoint(&ports, "123", &[]).await, endpoint(&ports, "456", &[]).await);
    event(&ports, "456").await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    let begun = ports.clock.now();
    for _ in 0..6 {
        event(&ports, "123").await;
    }
    let claimed = claim(&ports).await;
    let at = |seconds| begun + TimeDelta::seconds(seconds);
    let conclude_all = async |verdicts: &[(usize, DeliveryVerdict, i64)]| {
        let concluded = verdicts.iter().map(|(n, verdict, second)| conclusion_at(&claimed[*n], *verdict, at(*second)));
        ports.deliveries.conclude_deliveries(&concluded.collect::<Vec<_>>()).await.unwrap();
        find(&ports, &own).await.failing_since
    };
    let (failed, delivered) = (DeliveryVerdict::Failed, DeliveryVerdict::Delivered);
    assert_eq!(conclude_all(&[(0, failed, 1)]).await, Some(at(1)));
    assert_eq!(conclude_all(&[(1, failed, 2)]).await, Some(at(1)));
    assert_eq!(conclude_all(&[(2, delivered, 3)]).await, None);
    assert_eq!(conclude_all(&[(3, failed, 4), (4, delivered, 5), (5, failed, 6)]).await, Some(at(6)));
    assert_eq!(find(&ports, &other).await.failing_since, Some(begun));
}

pub async fn the_last_word_of_a_large_batch_says_since_when_an_endpoint_fails(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let begun = ports.clock.now();
    for last in [DeliveryVerdict::Delivered, DeliveryVerdict::Failed] {
        for _ in 0..300 {
            event(&ports, "123").await;
        }
        let claimed = claim(&ports).await;
        assert_eq!(claimed.len(), 300);
        // The latest comes first in the batch, and one before it was a success.
        let at = |age: i64| begun + TimeDelta::seconds(1_000 - age);
        let verdict = |age| match age {
            0 => last,
            1 => DeliveryVerdict::Delivered,
            _ => DeliveryVerdict::Failed,
        };
        let concluded = (0..).zip(&claimed).map(|(age, due)| conclusion_at(due, verdict(age), at(age)));
        ports.deliveries.conclude_deliveries(&concluded.collect::<Vec<_>>()).await.unwrap();
        let expected = (last == DeliveryVerdict::Failed).then_some(at(0));
        assert_eq!(find(&ports, &own).await.failing_since, expected, "{last:?}");
    }
}

pub async fn conclusions_leave_the_version_of_endpoints_alone(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    event(&ports, "123").await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    let failing = find(&ports, &own).await;
    assert_eq!(failing.failing_since, Some(ports.clock.now()));
    assert_eq!(psp_domain::WebhookEndpoint { failing_since: None, ..failing }, own);
}

pub async fn a_customer_sees_its_own_deliveries_only(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    assert_eq!(deliveries(&ports, &written).await.len(), 1);
    let other = fixtures::customer("456");
    assert!(ports.deliveries.deliveries_of(&other, written.id).await.unwrap().is_empty());
}

pub async fn the_backlog_counts_what_waits_for_enabled_endpoints(ports: Ports) {
    let backlog = async || ports.deliveries.delivery_backlog(ports.clock.now()).await.unwrap();
    assert_eq!(backlog().await, DeliveryBacklog::default());
    let begun = ports.clock.now();
    let off = endpoint(&ports, "456", &[]).await;
    event(&ports, "456").await;
    set_status(&ports, &off, EndpointStatus::Disabled).await;
    endpoint(&ports, "123", &[]).await;
    event(&ports, "123").await;
    ports.clock.advance(Duration::from_secs(1));
    event(&ports, "123").await;
    assert_eq!(backlog().await, DeliveryBacklog { pending: 2, oldest_due: Some(begun) });
    let claimed = claim(&ports).await;
    assert_eq!(backlog().await, DeliveryBacklog { pending: 2, oldest_due: None }, "leased ones are due later");
    conclude(&ports, &claimed[0], DeliveryVerdict::Delivered).await;
    conclude(&ports, &claimed[1], DeliveryVerdict::RetryAt(ports.clock.now() + TimeDelta::hours(1))).await;
    assert_eq!(backlog().await, DeliveryBacklog { pending: 1, oldest_due: None });
    let due = ports.clock.now() + TimeDelta::hours(1);
    ports.clock.advance(Duration::from_hours(2));
    assert_eq!(backlog().await, DeliveryBacklog { pending: 1, oldest_due: Some(due) });
}
