//! Endpoints that are not where they should be.

use std::time::Duration;

use psp_domain::ports::{EndpointStore, EndpointVerdict};
use psp_domain::{DeliveryStatus, WebhookEndpoint};
use psp_webhooks::Reach;
use tokio::net::TcpListener;

use crate::receiver::{Receiver, with_header};
use crate::support::Case;

/// For the public Internet only.
fn public() -> Case {
    let mut case = Case::default();
    case.client.reach = Reach::Public;
    case
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_told() {
    assert_eq!(public().error_at("https://shop.example/").await.as_deref(), Some("dns"));
    let case = public();
    case.names.set("shop.example", &[&[]]);
    assert_eq!(case.error_at("https://shop.example/").await.as_deref(), Some("dns"));
}

#[tokio::test]
async fn a_name_of_an_address_inside_is_refused_and_nothing_is_connected_to() {
    for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00:ec2::254", "0.0.0.0"] {
        let case = public();
        case.names.set("shop.example", &[&[address]]);
        let error = case.error_at("https://shop.example/").await;
        assert_eq!(error.as_deref(), Some("refused_address"), "{address}");
    }
    // The same over a port of this machine.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let case = Case::default();
    case.names.set("shop.localhost", &[&["0.0.0.0", "::"]]);
    let error = case.error_at(&format!("http://shop.localhost:{port}/")).await;
    assert_eq!(error.as_deref(), Some("refused_address"));
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
}

#[tokio::test]
async fn of_several_addresses_only_those_outside_are_connected_to() {
    let (case, receiver) = (Case::default(), Receiver::saying(200).await);
    case.names.set("shop.localhost", &[&["169.254.169.254", "10.0.0.1", "127.0.0.1"]]);
    let (endpoint, _) = case.endpoint(&format!("http://shop.localhost:{}/", receiver.address.port())).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!((delivery.status, receiver.count()), (DeliveryStatus::Delivered, 1));
    let port = receiver.address.port();
    assert_eq!(receiver.heard()[0].header("host"), format!("shop.localhost:{port}"), "the name stays");
}

#[tokio::test]
async fn a_name_that_changes_its_address_between_attempts_is_judged_again() {
    let mut case = Case::default();
    case.client.names_kept = Duration::ZERO;
    let receiver = Receiver::answering(|_| Box::pin(async { with_header(500, "connection", "close") })).await;
    case.names.set("shop.localhost", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let (endpoint, _) = case.endpoint(&format!("http://shop.localhost:{}/", receiver.address.port())).await;
    let id = case.event().await;
    let _working = case.start();
    case.attempted(id, &endpoint, 1).await;
    case.clock.advance(Duration::from_secs(5));
    let delivery = case.attempted(id, &endpoint, 2).await;
    assert_eq!(delivery.attempts[0].status, Some(500));
    assert_eq!(delivery.attempts[1].error.as_deref(), Some("refused_address"));
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let (case, receiver) = (Case::default(), Receiver::saying(200).await);
    // Whoever asked a second time, to connect, would be sent elsewhere.
    case.names.set("shop.localhost", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let (endpoint, _) = case.endpoint(&format!("http://shop.localhost:{}/", receiver.address.port())).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!((delivery.status, case.names.asked()), (DeliveryStatus::Delivered, 1));
}

#[tokio::test]
async fn an_endpoint_from_before_the_rules_is_refused_without_a_connection() {
    let receiver = Receiver::saying(200).await;
    let case = public();
    let (endpoint, _) = case.endpoint("https://shop.example/").await;
    let urls = [receiver.url(), format!("https://{}/", receiver.address), "https://[::ffff:7f00:1]/".into()];
    for (version, url) in (1..).zip(urls) {
        let old = WebhookEndpoint { url: url.clone(), version: version + 1, ..endpoint.clone() };
        let written = case.memory.update_endpoint(&old, version, &[], None).await.unwrap();
        assert_eq!(written, EndpointVerdict::Written);
        let _working = case.start();
        let delivery = case.attempted(case.event().await, &old, 1).await;
        assert_eq!(delivery.attempts[0].error.as_deref(), Some("refused_url"), "{url}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn where_nobody_listens_the_connection_fails() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let case = Case::default();
    assert_eq!(case.error_at(&format!("http://127.0.0.1:{port}/")).await.as_deref(), Some("connect"));
}
