use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Clock, DeliveryClaim};
use psp_domain::{DeliveryVerdict, EndpointStatus, Event, WebhookEndpoint};

use super::{LEASE, claim, claim_one, conclude, deliveries, endpoint, event, everything, find, places, set_status};
use crate::{Ports, fixtures};

/// Writes so many events of a customer at once.
async fn events(ports: &Ports, customer: &str, count: usize) -> Vec<Event> {
    let changes = (0..count).map(|_| fixtures::create(&fixtures::payment(customer, 2500, 1), ports.clock.now()).1);
    let changes: Vec<_> = changes.collect();
    let events = changes.iter().map(|change| change.events[0].clone()).collect();
    ports.store.apply_all(changes).await.unwrap();
    events
}

pub async fn one_busy_endpoint_leaves_room_for_the_others(ports: Ports) {
    let busy = endpoint(&ports, "busy", &[]).await;
    for _ in 0..4 {
        events(&ports, "busy", 250).await;
    }
    ports.clock.advance(Duration::from_secs(1));
    let mut others = HashSet::new();
    for number in 0..20 {
        let customer = format!("other-{number}");
        others.insert(endpoint(&ports, &customer, &[]).await.id);
        event(&ports, &customer).await;
    }
    let asked = DeliveryClaim { max: 100, per_endpoint: 10, ..everything(&ports) };
    let claimed = ports.deliveries.claim_deliveries(asked).await.unwrap();
    assert_eq!(claimed.iter().filter(|due| due.endpoint.id == busy.id).count(), 10);
    let first: HashSet<_> = claimed.iter().map(|due| due.endpoint.id).filter(|id| *id != busy.id).collect();
    assert_eq!((first, claimed.len()), (others, 30));
    let claimed = ports.deliveries.claim_deliveries(asked).await.unwrap();
    assert!(claimed.len() == 10 && claimed.iter().all(|due| due.endpoint.id == busy.id));
}

pub async fn the_longest_due_endpoint_comes_first(ports: Ports) {
    let mut order = Vec::new();
    for customer in ["3", "1", "2"] {
        order.push(endpoint(&ports, customer, &[]).await.id);
        event(&ports, customer).await;
        ports.clock.advance(Duration::from_secs(1));
    }
    event(&ports, "3").await;
    for id in order {
        let asked = DeliveryClaim { max: 1, except: &[], ..everything(&ports) };
        let claimed = ports.deliveries.claim_deliveries(asked).await.unwrap();
        assert_eq!(claimed.iter().map(|due| due.endpoint.id).collect::<Vec<_>>(), [id]);
    }
}

pub async fn a_claim_takes_no_more_than_it_asks_for(ports: Ports) {
    for customer in ["1", "2", "3"] {
        endpoint(&ports, customer, &[]).await;
        events(&ports, customer, 5).await;
    }
    for (max, per_endpoint, expected) in [(0, 5, 0), (4, 3, 4), (100, 1, 3), (100, 0, 0), (100, 100, 8)] {
        let asked = DeliveryClaim { max, per_endpoint, ..everything(&ports) };
        let claimed = ports.deliveries.claim_deliveries(asked).await.unwrap();
        assert_eq!(claimed.len(), expected, "{max} and {per_endpoint}");
    }
}

pub async fn excepted_endpoints_are_passed_over(ports: Ports) {
    let [first, second] = [endpoint(&ports, "1", &[]).await, endpoint(&ports, "2", &[]).await];
    events(&ports, "1", 3).await;
    ports.clock.advance(Duration::from_secs(1));
    events(&ports, "2", 3).await;
    let except = [first.id];
    let asked = DeliveryClaim { max: 3, except: &except, ..everything(&ports) };
    let claimed = ports.deliveries.claim_deliveries(asked).await.unwrap();
    assert!(claimed.len() == 3 && claimed.iter().all(|due| due.endpoint.id == second.id));
    let except = [first.id, second.id];
    let asked = DeliveryClaim { except: &except, ..everything(&ports) };
    assert!(ports.deliveries.claim_deliveries(asked).await.unwrap().is_empty());
    assert_eq!(claim(&ports).await.len(), 3);
}

pub async fn what_is_leased_is_claimed_again_after_its_lease(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    event(&ports, "123").await;
    let first = claim_one(&ports).await;
    assert!(claim(&ports).await.is_empty());
    ports.clock.advance(LEASE);
    let again = claim_one(&ports).await;
    assert!(again.lease > first.lease);
    assert_eq!((again.attempts, again.tries), (0, 0));
}

pub async fn nothing_is_claimed_before_it_is_due(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    event(&ports, "123").await;
    let retry_at = ports.clock.now() + Duration::from_hours(10);
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::RetryAt(retry_at)).await;
    ports.clock.advance(Duration::from_hours(10) - Duration::from_millis(1));
    assert!(claim(&ports).await.is_empty());
    ports.clock.advance(Duration::from_millis(1));
    claim_one(&ports).await;
}

pub async fn what_waits_for_a_disabled_endpoint_waits_on(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let waiting = event(&ports, "123").await;
    set_status(&ports, &own, EndpointStatus::Disabled).await;
    assert!(claim(&ports).await.is_empty());
    let enabled = set_status(&ports, &own, EndpointStatus::Enabled).await;
    let due = claim_one(&ports).await;
    assert_eq!((due.event, due.endpoint), (waiting, enabled));
}

pub async fn what_waits_for_a_deleted_endpoint_is_never_claimed(ports: Ports) {
    let [deleted, kept] = [endpoint(&ports, "123", &[]).await, endpoint(&ports, "123", &[]).await];
    let waiting = event(&ports, "123").await;
    assert!(ports.endpoints.delete_endpoint(&deleted.customer_id, deleted.id).await.unwrap());
    assert_eq!(places(&claim(&ports).await), [(waiting.id, kept.id)]);
    ports.clock.advance(LEASE);
    assert_eq!(places(&claim(&ports).await), [(waiting.id, kept.id)]);
}

pub async fn what_waits_for_a_deleted_endpoint_is_gone(ports: Ports) {
    let [deleted, kept] = [endpoint(&ports, "123", &[]).await, endpoint(&ports, "123", &[]).await];
    let ended = event(&ports, "123").await;
    for due in claim(&ports).await {
        conclude(&ports, &due, DeliveryVerdict::Delivered).await;
    }
    // More than go with one write.
    let written = events(&ports, "123", 2_100).await;
    let of_other = endpoint(&ports, "456", &[]).await;
    assert!(!ports.endpoints.delete_endpoint(&of_other.customer_id, deleted.id).await.unwrap());
    assert_eq!(deliveries(&ports, &written[0]).await.len(), 2);
    assert!(ports.endpoints.delete_endpoint(&deleted.customer_id, deleted.id).await.unwrap());
    assert!(!ports.endpoints.delete_endpoint(&deleted.customer_id, deleted.id).await.unwrap());
    for waiting in [&written[0], &written[2_099]] {
        let left = deliveries(&ports, waiting).await;
        assert_eq!(left.iter().map(|delivery| delivery.endpoint_id).collect::<Vec<_>>(), [kept.id]);
    }
    assert_eq!(deliveries(&ports, &ended).await.len(), 2, "what has ended is shown");
    let backlog = ports.deliveries.delivery_backlog(ports.clock.now()).await.unwrap();
    assert_eq!(backlog.pending, 2_100);
}

pub async fn claimers_at_once_never_get_the_same_delivery(ports: Ports) {
    let ports = Arc::new(ports);
    let mut endpoints: Vec<WebhookEndpoint> = Vec::new();
    for customer in ["1", "2", "3", "4"] {
        endpoints.push(endpoint(&ports, customer, &[]).await);
        events(&ports, customer, 100).await;
    }
    let claimers: Vec<_> = (0..8)
        .map(|_| {
            let ports = Arc::clone(&ports);
            tokio::spawn(async move {
                let mut own = Vec::new();
                // What others hold just now is passed over, so that nothing may be found before all is leased.
                for _ in 0..100 {
                    let asked = DeliveryClaim { max: 16, per_endpoint: 8, ..everything(&ports) };
                    own.extend(places(&ports.deliveries.claim_deliveries(asked).await.unwrap()));
                }
                own
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for claimer in claimers {
        claimed.extend(claimer.await.unwrap());
    }
    let distinct: HashSet<_> = claimed.iter().copied().collect();
    assert_eq!((claimed.len(), distinct.len()), (400, 400));
    assert_eq!(find(&ports, &endpoints[0]).await, endpoints[0]);
}
