use std::time::Duration;

use psp_domain::ports::Clock;
use psp_domain::{DeliveryVerdict, EndpointStatus, EventKind};

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

pub async fn redelivering_takes_a_delivery_from_whoever_attempts_it(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let written = event(&ports, "123").await;
    let held = claim_one(&ports).await;
    ports.deliveries.redeliver(&own.customer_id, written.id, Some(own.id), ports.clock.now()).await.unwrap();
    conclude(&ports, &held, DeliveryVerdict::Delivered).await;
    assert!(is_pending(&delivery(&ports, &written).await));
    claim_one(&ports).await;
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
