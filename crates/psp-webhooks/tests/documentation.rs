//! Holds docs/webhooks.md to what is sent.

use chrono::DateTime;
use psp_domain::{Event, EventKind, MessageId};
use psp_webhooks::{SigningSecret, body_of};

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
    let body = body_of(&event).unwrap();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signature = SigningSecret::parse(secret).unwrap().sign(&event.id.to_string(), 1_769_860_800, &body);
    for part in [secret, std::str::from_utf8(&body).unwrap(), &format!("webhook-signature: {signature}\n")] {
        assert!(PAGE.contains(part), "docs/webhooks.md must have {part}");
    }
}

#[test]
fn the_documented_version_is_ours() {
    assert!(PAGE.contains(concat!("user-agent: psp/", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn an_event_whose_data_is_not_json_is_not_sent() {
    let (_, change) = psp_testkit::fixtures::create(&psp_testkit::fixtures::new_transaction(), DateTime::UNIX_EPOCH);
    let damaged = Event { data: "{".into(), ..change.events[0].clone() };
    assert!(body_of(&damaged).is_err());
}
