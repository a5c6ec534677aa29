//! What the gateway writes and reads in JSON.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use psp_domain::ports::{AuthorizationResult, Gateway, GatewayError, VOIDED};
use psp_domain::{Currency, Money, PaymentMethod, TransactionKind};
use psp_gateways::HttpProtocol;
use psp_testkit::contract::gateway::{cardless_request, refund_request, request};
use serde_json::{Value, json};
use support::{NUMBER, Parrot, is_unknown};

fn body_of(heard: &str) -> Value {
    serde_json::from_str(heard.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn every_operation_has_its_resource_and_its_fields() {
    let parrot = Parrot::answering(500, "").await;
    let (gateway, charge) = (parrot.gateway(HttpProtocol::Json), request(NUMBER));
    let mut deposit = cardless_request(TransactionKind::Deposit, PaymentMethod::Pix);
    deposit.country = Some("BR".parse().unwrap());
    let withdrawal = cardless_request(TransactionKind::Withdrawal, PaymentMethod::BankTransfer);
    let (id, refund) = (charge.reference, refund_request(charge.reference));
    for request in [&charge, &deposit, &withdrawal] {
        assert_eq!(gateway.authorize(request).await, Err(GatewayError::TimedOut));
    }
    assert_eq!(gateway.refund(&refund).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.find(id).await, Err(GatewayError::TimedOut));
    assert_eq!(gateway.void(id).await, Err(GatewayError::TimedOut));
    let heard = parrot.heard();
    let lines: Vec<_> = heard.iter().map(|heard| heard.lines().next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/authorizations HTTP/1.1",
            "POST /v1/authorizations HTTP/1.1",
            "POST /v1/payouts HTTP/1.1",
            "POST /v1/refunds HTTP/1.1",
            &format!("GET /v1/operations/{id} HTTP/1.1"),
            &format!("POST /v1/operations/{id}/void HTTP/1.1"),
        ]
    );
    let expected = [
        json!({
            "reference": id, "transaction_id": charge.transaction_id, "kind": "payment", "amount": 2500,
            "currency": "BRL", "method": "credit_card", "installments": 1,
            "card": {
                "number": NUMBER, "holder_name": "Luke Skywalker", "expiry": "10/2025", "verification_code": "123"
            }
        }),
        json!({
            "reference": deposit.reference, "transaction_id": deposit.transaction_id, "kind": "deposit",
            "amount": 2500, "currency": "BRL", "method": "pix", "installments": 1, "country": "BR"
        }),
        json!({
            "reference": withdrawal.reference, "transaction_id": withdrawal.transaction_id, "kind": "withdrawal",
            "amount": 2500, "currency": "BRL", "method": "bank_transfer", "installments": 1
        }),
        json!({ "reference": refund.reference, "of": id, "amount": 1000, "currency": "BRL" }),
    ];
    assert_eq!(heard[..4].iter().map(|heard| body_of(heard)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn only_a_gateway_that_does_not_know_the_reference_has_decided_nothing() {
    let request = request(NUMBER);
    let id = request.reference;
    let unknown = Parrot::answering(404, r#"{"error":"unknown_reference"}"#).await.gateway(HttpProtocol::Json);
    assert_eq!(unknown.find(id).await, Ok(None));
    assert!(!is_unknown(unknown.authorize(&request).await, &request));
    assert!(!is_unknown(unknown.void(id).await, &request), "nothing says that it is voided");
    let more = r#"{"error":"unknown_reference","path":"/v1"}"#;
    for (body, unknown) in [("", true), ("Not Found", true), (more, true), (r#"{"error":"no_such_route"}"#, false)] {
        let nobody = Parrot::answering(404, body).await;
        assert_eq!(is_unknown(nobody.gateway(HttpProtocol::Json).find(id).await, &request), unknown, "{body}");
    }
}

#[tokio::test]
async fn a_refusal_says_in_its_body_that_nothing_was_taken_and_in_its_status_why() {
    let request = request(NUMBER);
    let id = request.reference;
    let refusal = format!(r#"{{"error":"do not like {NUMBER} of Luke Skywalker"}}"#);
    let unavailable = |status| GatewayError::Unavailable(format!("answered {status}"));
    let refused = |status| GatewayError::Refused(format!("answered {status}"));
    let refusals = [400, 401, 404, 408, 413, 422].map(|status| (status, refused(status)));
    let busy = [429, 503].map(|status| (status, unavailable(status)));
    // In conflict with what the gateway has under the reference, it may have a charge there.
    let others = [200, 201, 302, 409, 500, 502, 504].map(|status| (status, GatewayError::TimedOut));
    for (status, expected) in refusals.into_iter().chain(busy).chain(others) {
        let gateway = Parrot::answering(status, &refusal).await.gateway(HttpProtocol::Json);
        assert_eq!(gateway.authorize(&request).await, Err(expected.clone()), "{status}");
        assert_eq!(gateway.refund(&refund_request(id)).await, Err(expected.clone()), "{status}");
        assert_eq!(gateway.find(id).await, Err(expected.clone()), "{status}");
        assert_eq!(gateway.void(id).await, Err(expected), "{status}");
    }
    for body in [
        r#"{"error":"Service Unavailable","status":503}"#,
        r#"{"error":{"code":503}}"#,
        r#"{"error":null}"#,
        r#"{"errors":["unavailable"]}"#,
        r#"["error"]"#,
        r#"{"error":"unavailable""#,
    ] {
        let gateway = Parrot::answering(503, body).await.gateway(HttpProtocol::Json);
        assert_eq!(gateway.authorize(&request).await, Err(GatewayError::TimedOut), "{body}");
    }
}

#[tokio::test]
async fn an_answer_is_a_decision_or_may_have_charged() {
    let (request, other) = (request(NUMBER), request(NUMBER));
    let id = request.reference;
    let approved = |amount| AuthorizationResult::Approved { reference: "a-1".into(), amount };
    let money = |minor| Some(Money::new(minor, Currency::BRL));
    let declined = |reason: &str| AuthorizationResult::Declined { reason: reason.into() };
    let pending = |reference: Option<&str>| AuthorizationResult::Pending { reference: reference.map(str::to_owned) };
    let long = format!(r#""status":"declined","reason":"{}""#, "x".repeat(65));
    for (text, expected) in [
        (r#""status":"approved","gateway_reference":"a-1""#, Some(approved(None))),
        (
            r#""status":"approved","gateway_reference":"a-1","amount":2500,"currency":"BRL""#,
            Some(approved(money(2500))),
        ),
        (
            r#""status":"approved","gateway_reference":"a-1","amount":1,"currency":"BRL","more":{}"#,
            Some(approved(money(1))),
        ),
        (r#""status":"declined","reason":"do_not_honor""#, Some(declined("do_not_honor"))),
        (r#""status":"pending""#, Some(pending(None))),
        (r#""status":"pending","gateway_reference":"a-1""#, Some(pending(Some("a-1")))),
        (r#""status":"voided""#, Some(declined(VOIDED))),
        (r#""status":"approved""#, None),
        (r#""status":"approved","gateway_reference":"""#, None),
        (r#""status":"approved","gateway_reference":"a b""#, None),
        (r#""status":"approved","gateway_reference":"a-1","amount":2500"#, None),
        (r#""status":"approved","gateway_reference":"a-1","currency":"BRL""#, None),
        (r#""status":"approved","gateway_reference":"a-1","amount":2500.5,"currency":"BRL""#, None),
        (r#""status":"approved","gateway_reference":"a-1","amount":"2500","currency":"BRL""#, None),
        (r#""status":"approved","gateway_reference":"a-1","amount":1,"currency":"XXX""#, None),
        (r#""status":"approved","gateway_reference":"a-1","amount":9223372036854775808,"currency":"BRL""#, None),
        (r#""status":"approved","status":"declined","gateway_reference":"a-1""#, None),
        (r#""status":"declined","gateway_reference":"a-1""#, None),
        (r#""status":"declined","reason":"4111111111111111""#, None),
        (&long, None),
        (r#""status":"pending","gateway_reference":"""#, None),
        (r#""status":"settled","gateway_reference":"a-1""#, None),
        (r#""gateway_reference":"a-1""#, None),
    ] {
        let parrot = Parrot::answering(200, &format!(r#"{{"reference":"{id}",{text}}}"#)).await;
        let gateway = parrot.gateway(HttpProtocol::Json);
        let expected = expected.ok_or(GatewayError::TimedOut);
        assert_eq!(gateway.authorize(&request).await, expected, "{text}");
        assert_eq!(gateway.find(id).await, expected.map(Some), "{text}");
        assert_eq!(gateway.authorize(&other).await, Err(GatewayError::TimedOut), "another reference: {text}");
        let is_void = text == r#""status":"voided""#;
        assert_eq!(gateway.void(id).await.is_ok(), is_void, "{text}");
        assert_eq!(gateway.void(other.reference).await, Err(GatewayError::TimedOut), "another reference: {text}");
    }
}
