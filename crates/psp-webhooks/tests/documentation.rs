//! Holds docs/webhooks.md to what is sent.

use chrono::DateTime;
use psp_domain::{Event, EventKind, MessageId};
use psp_webhooks::SigningSecret;

const PAGE: &str = include_str!("../../../docs/webhooks.md");

#[test]
fn the_documented_request_is_made_and_signed_as_documented() {
    let event = Event {
        id: MessageId("01a1fc23-adfc-74b8-ab63-7bfa62344961".parse().unwrap()),
        kind: EventKind::TransactionApproved,
        aggregate_id: "01a1fc23-7d5c-7ab3-8f2e-bb1f6d0a8f0e".parse().unwrap(),
        sequence: 2,
        customer_id: "123".parse().unwrap(),
        occurred_at: DateTime::from_timestamp(1_769_860_800, 0).unwrap(),
        data: r#"{"status":"pending_payment","amount":2500,"currency":"BRL"}"#.into(),
    };
    let body = event.to_json();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signature = SigningSecret::parse(secret).unwrap().sign(&event.id.to_string(), 1_769_860_800, body.as_bytes());
    for part in [secret, &body, &format!("webhook-signature: {signature}\n")] {
        assert!(PAGE.contains(part), "docs/webhooks.md must have {part}");
    }
}

#[test]
fn the_documented_version_is_ours() {
    assert!(PAGE.contains(concat!("user-agent: psp/", env!("CARGO_PKG_VERSION"), "\n")));
}
