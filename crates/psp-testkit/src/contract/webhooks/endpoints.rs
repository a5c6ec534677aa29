use std::sync::Arc;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, EndpointVerdict};
use psp_domain::{DeliveryVerdict, EndpointStatus, EventKind, PageRequest, Position, SealedSecret, WebhookEndpoint};

use super::{claim_one, conclude, endpoint, event, find, set_status};
use crate::{Ports, fixtures};

pub async fn an_endpoint_is_read_as_it_was_written(ports: Ports) {
    let now = ports.clock.now();
    let kinds = [EventKind::TransactionCreated, EventKind::OrderPaid];
    let plain = endpoint(&ports, "123", &[]).await;
    let full = WebhookEndpoint {
        description: "Pedidos, devoluções".into(),
        status: EndpointStatus::Disabled,
        disabled_reason: Some("gone".into()),
        previous_secret: Some((SealedSecret(vec![0, 255]), now + TimeDelta::hours(24))),
        failing_since: Some(now - TimeDelta::days(5)),
        ..fixtures::endpoint("123", &kinds, now)
    };
    assert_eq!(ports.endpoints.insert_endpoint(&full, None).await.unwrap(), EndpointVerdict::Written);
    for written in [plain, full] {
        assert_eq!(find(&ports, &written).await, written);
    }
}

pub async fn a_customer_sees_its_own_endpoints_only(ports: Ports) {
    let (own, other) = (endpoint(&ports, "123", &[]).await, fixtures::customer("456"));
    assert_eq!(ports.endpoints.find_endpoint(&other, own.id).await.unwrap(), None);
    assert!(ports.endpoints.list_endpoints(&other, PageRequest::default()).await.unwrap().items.is_empty());
    assert!(!ports.endpoints.delete_endpoint(&other, own.id).await.unwrap());
    assert!(ports.endpoints.delete_endpoint(&own.customer_id, own.id).await.unwrap());
    assert!(!ports.endpoints.delete_endpoint(&own.customer_id, own.id).await.unwrap());
    assert_eq!(ports.endpoints.find_endpoint(&own.customer_id, own.id).await.unwrap(), None);
}

pub async fn pages_of_endpoints_are_newest_first(ports: Ports) {
    let mut written = Vec::new();
    for _ in 0..7 {
        written.insert(0, endpoint(&ports, "123", &[]).await);
        endpoint(&ports, "456", &[]).await;
    }
    let customer = fixtures::customer("123");
    let (mut read, mut position) = (Vec::new(), Position::Page(1));
    loop {
        let request = PageRequest::new(position, 3).unwrap();
        let page = ports.endpoints.list_endpoints(&customer, request).await.unwrap();
        read.extend(page.items);
        let Some(next) = page.next else { break };
        position = Position::After(next);
    }
    assert_eq!(read, written);
    let second = PageRequest::new(Position::Page(2), 3).unwrap();
    assert_eq!(ports.endpoints.list_endpoints(&customer, second).await.unwrap().items, written[3..6]);
}

pub async fn all_endpoints_are_walked_by_their_ids(ports: Ports) {
    let mut written = Vec::new();
    for customer in ["123", "456", "123", "789", "456"] {
        written.push(endpoint(&ports, customer, &[]).await);
    }
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = ports.endpoints.all_endpoints(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        read.extend(page);
    }
    assert_eq!(read, written);
}

pub async fn an_update_expects_a_version(ports: Ports) {
    let before = endpoint(&ports, "123", &[]).await;
    let after = WebhookEndpoint {
        url: "https://elsewhere.example/".into(),
        events: vec![EventKind::PayablePaid],
        description: String::new(),
        status: EndpointStatus::Disabled,
        disabled_reason: Some("failing".into()),
        secret: SealedSecret(vec![1]),
        previous_secret: Some((before.secret.clone(), ports.clock.now())),
        version: 2,
        sequence: 1,
        updated_at: ports.clock.now() + TimeDelta::seconds(1),
        ..before.clone()
    };
    let update =
        async |endpoint, expected| ports.endpoints.update_endpoint(endpoint, expected, &[], None).await.unwrap();
    assert_eq!(update(&after, 2).await, EndpointVerdict::Stale);
    assert_eq!(find(&ports, &before).await, before);
    assert_eq!(update(&after, 1).await, EndpointVerdict::Written);
    assert_eq!(find(&ports, &before).await, after);
    assert_eq!(update(&WebhookEndpoint { version: 2, ..before.clone() }, 1).await, EndpointVerdict::Stale);
    assert_eq!(find(&ports, &before).await, after);
}

pub async fn an_update_of_an_endpoint_that_is_gone_is_stale(ports: Ports) {
    let gone = endpoint(&ports, "123", &[]).await;
    assert!(ports.endpoints.delete_endpoint(&gone.customer_id, gone.id).await.unwrap());
    let verdict = ports.endpoints.update_endpoint(&gone, gone.version, &[], None).await.unwrap();
    assert_eq!(verdict, EndpointVerdict::Stale);
    assert_eq!(ports.endpoints.find_endpoint(&gone.customer_id, gone.id).await.unwrap(), None);
}

pub async fn a_race_of_updates_has_one_winner(ports: Ports) {
    let (ports, before) = (Arc::new(ports), fixtures::endpoint("123", &[], fixtures_now()));
    assert_eq!(ports.endpoints.insert_endpoint(&before, None).await.unwrap(), EndpointVerdict::Written);
    let racers: Vec<_> = (0..16)
        .map(|number| {
            let (ports, description) = (Arc::clone(&ports), number.to_string());
            let next = WebhookEndpoint { description, version: 2, ..before.clone() };
            tokio::spawn(async move { (ports.endpoints.update_endpoint(&next, 1, &[], None).await.unwrap(), next) })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        let (verdict, next) = racer.await.unwrap();
        winners.extend((verdict == EndpointVerdict::Written).then_some(next));
    }
    assert_eq!(winners, [find(&ports, &before).await]);
}

pub async fn a_customer_has_so_many_endpoints_and_no_more(ports: Ports) {
    let mut last = None;
    for _ in 0..WebhookEndpoint::MAX_PER_CUSTOMER {
        last = Some(endpoint(&ports, "123", &[]).await);
    }
    let insert = async || {
        let one_more = fixtures::endpoint("123", &[], ports.clock.now());
        ports.endpoints.insert_endpoint(&one_more, None).await.unwrap()
    };
    assert_eq!(insert().await, EndpointVerdict::TooMany);
    endpoint(&ports, "456", &[]).await;
    let last = last.expect("the last one");
    assert!(ports.endpoints.delete_endpoint(&last.customer_id, last.id).await.unwrap());
    assert_eq!(insert().await, EndpointVerdict::Written);
    assert_eq!(insert().await, EndpointVerdict::TooMany);
}

pub async fn a_race_of_new_endpoints_keeps_to_the_limit(ports: Ports) {
    let ports = Arc::new(ports);
    let racers: Vec<_> = (0..2 * WebhookEndpoint::MAX_PER_CUSTOMER)
        .map(|_| {
            let (ports, one) = (Arc::clone(&ports), fixtures::endpoint("123", &[], fixtures_now()));
            tokio::spawn(async move { ports.endpoints.insert_endpoint(&one, None).await.unwrap() })
        })
        .collect();
    let mut written = 0;
    for racer in racers {
        written += u32::from(racer.await.unwrap() == EndpointVerdict::Written);
    }
    assert_eq!(written, WebhookEndpoint::MAX_PER_CUSTOMER);
    let page = ports.endpoints.list_endpoints(&fixtures::customer("123"), PageRequest::default()).await.unwrap();
    assert_eq!(page.items.len(), WebhookEndpoint::MAX_PER_CUSTOMER as usize);
}

pub async fn enabling_clears_since_when_it_fails_and_disabling_does_not(ports: Ports) {
    let (own, now) = (endpoint(&ports, "123", &[]).await, ports.clock.now());
    event(&ports, "123").await;
    // The update was decided before the attempt failed.
    let read = find(&ports, &own).await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    let disabled = WebhookEndpoint { status: EndpointStatus::Disabled, version: 2, ..read };
    assert_eq!(ports.endpoints.update_endpoint(&disabled, 1, &[], None).await.unwrap(), EndpointVerdict::Written);
    assert_eq!(find(&ports, &own).await.failing_since, Some(now));
    set_status(&ports, &own, EndpointStatus::Enabled).await;
    assert_eq!(find(&ports, &own).await.failing_since, None);
}

pub async fn an_endpoint_fails_on_when_it_changes_unless_its_url_does(ports: Ports) {
    let (own, now) = (endpoint(&ports, "123", &[]).await, ports.clock.now());
    event(&ports, "123").await;
    conclude(&ports, &claim_one(&ports).await, DeliveryVerdict::Failed).await;
    let described = WebhookEndpoint { description: "other".into(), version: 2, failing_since: None, ..own.clone() };
    assert_eq!(ports.endpoints.update_endpoint(&described, 1, &[], None).await.unwrap(), EndpointVerdict::Written);
    assert_eq!(find(&ports, &own).await.failing_since, Some(now));
    let moved = WebhookEndpoint { url: "https://other.example/".into(), version: 3, ..described };
    assert_eq!(ports.endpoints.update_endpoint(&moved, 2, &[], None).await.unwrap(), EndpointVerdict::Written);
    assert_eq!(find(&ports, &own).await.failing_since, None);
}

/// The time of a clock that nobody has moved.
fn fixtures_now() -> chrono::DateTime<chrono::Utc> {
    crate::clock::FixedClock::default().now()
}
