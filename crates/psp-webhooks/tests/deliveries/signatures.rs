//! Secrets and what they sign.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{EndpointStore, SecretVault, VaultError};
use psp_domain::{DeliveryStatus, SealedSecret, WebhookEndpoint, WebhookSecret};
use psp_testkit::fakes::PlainVault;
use psp_webhooks::SigningSecret;
use zeroize::Zeroizing;

use crate::receiver::{Heard, Receiver};
use crate::support::{Case, LEASE, customer, eventually};

fn signature_of(secret: &WebhookSecret, heard: &Heard) -> String {
    let timestamp = heard.header("webhook-timestamp").parse().unwrap();
    let secret = SigningSecret::parse(secret.expose()).unwrap();
    secret.sign(heard.header("webhook-id"), timestamp, &heard.body)
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let (case, receiver) = (Case::default(), Receiver::saying(200).await);
    let (endpoint, first) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    case.attempted(case.event().await, &endpoint, 1).await;
    let (_, second) = case.endpoints.rotate_secret(&customer(), endpoint.id).await.unwrap().unwrap();
    case.attempted(case.event().await, &endpoint, 1).await;
    case.clock.advance(Duration::from_hours(24) - Duration::from_millis(1));
    case.attempted(case.event().await, &endpoint, 1).await;
    case.clock.advance(Duration::from_millis(1));
    case.attempted(case.event().await, &endpoint, 1).await;
    let heard = receiver.heard();
    let signed: [&[&WebhookSecret]; 4] = [&[&first], &[&second, &first], &[&second, &first], &[&second]];
    for (heard, secrets) in heard.iter().zip(signed) {
        let expected: Vec<_> = secrets.iter().map(|secret| signature_of(secret, heard)).collect();
        assert_eq!(heard.header("webhook-signature"), expected.join(" "));
    }
    assert_eq!(heard.len(), 4);
}

/// Counts what it opens; fails for the first times.
struct CountingVault {
    opened: AtomicUsize,
    fails: usize,
}

#[async_trait]
impl SecretVault for CountingVault {
    async fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        PlainVault.seal_secret(name, secret).await
    }

    async fn open_secret(&self, name: &str, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if self.opened.fetch_add(1, Ordering::SeqCst) < self.fails {
            return Err(VaultError::Unavailable);
        }
        PlainVault.open_secret(name, sealed).await
    }
}

#[tokio::test]
async fn a_secret_is_opened_once_and_again_when_it_changes_or_after_a_while() {
    let (mut case, receiver) = (Case::default(), Receiver::saying(200).await);
    let vault = Arc::new(CountingVault { opened: AtomicUsize::new(0), fails: 0 });
    case.with_vault(vault.clone());
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let deliver = async || {
        case.attempted(case.event().await, &endpoint, 1).await;
        vault.opened.load(Ordering::SeqCst)
    };
    for _ in 0..3 {
        assert_eq!(deliver().await, 1);
    }
    case.endpoints.rotate_secret(&customer(), endpoint.id).await.unwrap();
    assert_eq!(deliver().await, 3, "both of them");
    case.clock.advance(Duration::from_mins(5));
    assert_eq!(deliver().await, 5);
}

#[tokio::test]
async fn while_the_vault_is_away_nothing_is_sent_and_no_attempt_is_counted() {
    let (mut case, receiver) = (Case::default(), Receiver::saying(200).await);
    let vault = Arc::new(CountingVault { opened: AtomicUsize::new(0), fails: 1 });
    case.with_vault(vault.clone());
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let id = case.event().await;
    eventually(async || vault.opened.load(Ordering::SeqCst) == 1).await;
    case.clock.advance(LEASE);
    let delivery = case.attempted(id, &endpoint, 1).await;
    assert_eq!((delivery.status, delivery.attempts.len(), receiver.count()), (DeliveryStatus::Delivered, 1, 1));
    assert_eq!(case.found(endpoint.id).await.failing_since, None);
}

#[tokio::test]
async fn a_rotation_repairs_a_secret_that_does_not_open_any_more() {
    let (case, receiver) = (Case::default(), Receiver::saying(200).await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let damaged = WebhookEndpoint { secret: SealedSecret(vec![1]), version: 2, ..endpoint.clone() };
    case.memory.update_endpoint(&damaged, 1, &[], None).await.unwrap();
    let _working = case.start();
    let id = case.event().await;
    let (_, secret) = case.endpoints.rotate_secret(&customer(), endpoint.id).await.unwrap().unwrap();
    case.clock.advance(LEASE);
    assert_eq!(case.attempted(id, &endpoint, 1).await.status, DeliveryStatus::Delivered);
    let heard = receiver.heard();
    assert_eq!(heard[0].header("webhook-signature"), signature_of(&secret, &heard[0]));
}
