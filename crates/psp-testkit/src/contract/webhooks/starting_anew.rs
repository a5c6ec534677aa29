use std::time::Duration;

use psp_domain::ports::Clock;
use psp_domain::{DeliveryStatus, DeliveryVerdict, EndpointStatus, EventKind, WebhookDelivery};

use super::{claim, claim_one, conclude, deliveries, delivery, endpoint, event, is_pending, places, set_status};
use crate::{Ports, fixtures};

pub async fn redelivering_starts_anew_whatever_became_of_it(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let mut attempts = Vec::new();
    for verdict in [DeliveryVerdict::Delivered, DeliveryVerdict::Failed, DeliveryVerdict::Delivered] {
        let due = claim_one(&ports).await;
        assert_eq!((due.attempts as usize, due.tries), (attempts.len(), 0));
        attempts.push(conclude(&ports, &due, verdict).await);
        ports.clock.advance(Duration::from_hours(1));
        let count = ports.deliveries.redeliver(&own.customer_id, written.id, None, ports.clock.now()).await.unwrap();
        assert_eq!(count, 1);
        let anew = delivery(&ports, &written).await;
        assert!(is_pending(&anew));
        assert_eq!((anew.next_attempt_at, &anew.attempts), (Some(ports.clock.now()), &attempts));
    }
}

pub async fn redelivering_leaves_what_is_due_or_attempted_just_now_alone(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let redeliver =
        async || ports.deliveries.redeliver(&own.customer_id, written.id, None, ports.clock.now()).await.unwrap();
    let due = delivery(&ports, &written).await;
    ports.clock.advance(Duration::from_secs(1));
    assert_eq!(redeliver().await, 1, "it is delivered anyway");
    assert_eq!(delivery(&ports, &written).await, due);
    let held = claim_one(&ports).await;
    assert_eq!(redeliver().await, 1);
    assert!(claim(&ports).await.is_empty(), "nobody makes a second attempt beside it");
    let attempt = conclude(&ports, &held, DeliveryVerdict::Delivered).await;
    let ended = delivery(&ports, &written).await;
    assert_eq!((ended.status, ended.attempts), (DeliveryStatus::Delivered, vec![attempt]));
}

pub async fn redelivering_starts_what_waits_for_a_later_attempt(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let later = ports.clock.now() + Duration::from_hours(10);
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::RetryAt(later)).await;
    assert!(claim(&ports).await.is_empty());
    let count = ports.deliveries.redeliver(&own.customer_id, written.id, Some(own.id), ports.clock.now()).await;
    assert_eq!(count.unwrap(), 1);
    let due = claim_one(&ports).await;
    assert_eq!((due.attempts, due.tries), (1, 0));
    // A lease that ran out is due, and its attempt may still be concluded.
    ports.clock.advance(Duration::from_hours(1));
    ports.deliveries.redeliver(&own.customer_id, written.id, None, ports.clock.now()).await.unwrap();
    conclude(&ports, &due, DeliveryVerdict::Delivered).await;
    assert_eq!(delivery(&ports, &written).await.attempts.len(), 2);
}

pub async fn redelivering_passes_over_disabled_endpoints(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    set_status(&ports, &own, EndpointStatus::Disabled).await;
    let failed = delivery(&ports, &written).await;
    for endpoint in [None, Some(own.id)] {
        let count = ports.deliveries.redeliver(&own.customer_id, written.id, endpoint, ports.clock.now()).await;
        assert_eq!(count.unwrap(), 0);
        assert_eq!(delivery(&ports, &written).await, failed);
    }
}

pub async fn the_last_attempts_and_the_newest_deliveries_are_shown(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    for _ in 0..WebhookDelivery::MAX_ATTEMPTS_SHOWN + 2 {
        conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::RetryAt(ports.clock.now())).await;
    }
    let numbers: Vec<_> = delivery(&ports, &written).await.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (3..=WebhookDelivery::MAX_ATTEMPTS_SHOWN + 2).collect::<Vec<_>>());
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Delivered).await;
    assert!(ports.endpoints.delete_endpoint(&own.customer_id, own.id).await.unwrap());
    let mut last = None;
    for _ in 0..WebhookDelivery::MAX_SHOWN {
        let other = endpoint(&ports, "123", &[]).await;
        ports.deliveries.redeliver(&other.customer_id, written.id, None, ports.clock.now()).await.unwrap();
        conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Delivered).await;
        assert!(ports.endpoints.delete_endpoint(&other.customer_id, other.id).await.unwrap());
        last = Some(other.id);
    }
    let shown = deliveries(&ports, &written).await;
    assert_eq!(shown.len(), WebhookDelivery::MAX_SHOWN as usize);
    assert!(shown.iter().all(|delivery| delivery.endpoint_id != own.id && delivery.attempts.len() == 1));
    assert_eq!(shown.last().map(|delivery| delivery.endpoint_id), last);
}

pub async fn redelivering_to_one_endpoint_leaves_the_others_alone(ports: Ports) {
    let before = event(&ports, "123").await;
    let all = endpoint(&ports, "123", &[]).await;
    let paid = endpoint(&ports, "123", &[EventKind::TransactionPaid]).await;
    let off = endpoint(&ports, "123", &[]).await;
    set_status(&ports, &off, EndpointStatus::Disabled).await;
    let other = endpoint(&ports, "456", &[]).await;
    let redeliver = async |endpoint| {
        ports.deliveries.redeliver(&all.customer_id, before.id, endpoint, ports.clock.now()).await.unwrap()
    };
    // It never was delivered: to all that ask for it, or to the one that is named.
    assert_eq!(redeliver(None).await, 1);
    assert_eq!(places(&claim(&ports).await), [(before.id, all.id)]);
    assert_eq!(redeliver(Some(paid.id)).await, 1);
    assert_eq!(places(&claim(&ports).await), [(before.id, paid.id)]);
    assert_eq!(redeliver(Some(other.id)).await, 0);
    assert_eq!(deliveries(&ports, &before).await.len(), 2);
}

pub async fn another_customers_event_is_not_redelivered(ports: Ports) {
    let (own, other) = (endpoint(&ports, "123", &[]).await, endpoint(&ports, "456", &[]).await);
    let written = event(&ports, "123").await;
    let unknown = psp_domain::MessageId(uuid::Uuid::max());
    for (customer, event) in [("456", written.id), ("123", unknown)] {
        for endpoint in [None, Some(own.id), Some(other.id)] {
            let customer = fixtures::customer(customer);
            let count = ports.deliveries.redeliver(&customer, event, endpoint, ports.clock.now()).await.unwrap();
            assert_eq!(count, 0);
        }
    }
    assert_eq!(claim(&ports).await.len(), 1);
}
