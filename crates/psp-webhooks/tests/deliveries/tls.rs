//! Endpoints over TLS.

use std::sync::Arc;

use psp_domain::DeliveryStatus;
use rustls::pki_types::PrivateKeyDer;

use crate::receiver::Receiver;
use crate::support::{Case, tls_of};

/// A certificate for that name, and a server that has it.
async fn server(name: &str) -> (Receiver, rustls::RootCertStore) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (Receiver::over_tls(config).await, roots)
}

#[tokio::test]
async fn an_endpoint_with_a_certificate_for_its_name_is_delivered_to() {
    let (receiver, roots) = server("shop.localhost").await;
    let case = Case { tls: tls_of(roots), ..Case::default() };
    case.names.set("shop.localhost", &[&["127.0.0.1"]]);
    let (endpoint, _) = case.endpoint(&format!("https://shop.localhost:{}/", receiver.address.port())).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!((delivery.status, receiver.count()), (DeliveryStatus::Delivered, 1));
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_nobody_we_trust_is_refused() {
    let (receiver, roots) = server("other.example").await;
    let url = format!("https://shop.localhost:{}/", receiver.address.port());
    for trusts in [false, true] {
        let mut case = Case::default();
        if trusts {
            case.tls = tls_of(roots.clone());
        }
        case.names.set("shop.localhost", &[&["127.0.0.1"]]);
        assert_eq!(case.error_at(&url).await.as_deref(), Some("tls"));
    }
    let plain = Receiver::saying(200).await;
    let url = format!("https://127.0.0.1:{}/", plain.address.port());
    assert_eq!(Case::default().error_at(&url).await.as_deref(), Some("tls"));
    assert_eq!(receiver.count() + plain.count(), 0);
}
