//! What the gateway writes and reads in XML.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use psp_domain::ports::{AuthorizationResult, Gateway, GatewayError, VOIDED};
use psp_domain::{Currency, Money, PaymentMethod, TransactionKind};
use psp_gateways::HttpProtocol;
use psp_gateways::soap::{Envelope, Fault, Message, NAMESPACE, Writer, read};
use psp_testkit::contract::gateway::{cardless_request, refund_request, request};
use support::{NUMBER, Parrot, header, is_unknown};

fn message_of(heard: &str) -> Message {
    match read(heard.split_once("\r\n\r\n").unwrap().1.as_bytes()) {
        Ok(Envelope::Message(message)) => message,
        other => panic!("{heard}: {other:?}"),
    }
}

fn envelope(operation: &str, fields: &[(&str, &str)]) -> String {
    let mut writer = Writer::new(operation, 0);
    for (name, text) in fields {
        writer.field(name, text);
    }
    String::from_utf8(writer.finish().to_vec()).unwrap()
}

fn fault(is_client: bool, error: &str) -> String {
    String::from_utf8(Writer::fault(&Fault { is_client, error: Some(error.into()) }).to_vec()).unwrap()
}

#[tokio::test]
async fn every_operation_is_an_envelope_that_names_it_twice() {
    let parrot = Parrot::answering(500, "").await;
    let (gateway, mut charge) = (parrot.gateway(HttpProtocol::Xml), request(NUMBER));
    charge.card.as_mut().unwrap().holder_name = "Luke & <Leia>".parse().unwrap();
    let mut withdrawal = cardless_request(TransactionKind::Withdrawal, PaymentMethod::Pix);
    withdrawal.country = Some("BR".parse().unwrap());
    let (id, refund) = (charge.reference, refund_request(charge.reference));
    assert!(gateway.authorize(&charge).await.is_err() && gateway.authorize(&withdrawal).await.is_err());
    assert!(gateway.refund(&refund).await.is_err());
    assert!(gateway.find(id).await.is_err() && gateway.void(id).await.is_err());
    let heard = parrot.heard();
    for (heard, operation) in heard.iter().zip(["authorize", "payout", "refund", "find", "void"]) {
        assert!(heard.starts_with("POST /v1 HTTP/1.1\r\n"), "{heard}");
        assert_eq!(header(heard, "content-type"), Some("text/xml; charset=utf-8"));
        assert_eq!(header(heard, "soapaction"), Some(&*format!("\"{NAMESPACE}#{operation}\"")));
        assert_eq!(message_of(heard).operation, operation);
    }
    let fields = |place: usize| {
        let message = message_of(&heard[place]);
        message.fields().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>()
    };
    let (transaction, paid_out) = (charge.transaction_id, withdrawal.transaction_id);
    let expected = [
        "amount=2500",
        "card.expiry=10/2025",
        "card.holder_name=Luke & <Leia>",
        &format!("card.number={NUMBER}"),
        "card.verification_code=123",
        "currency=BRL",
        "installments=1",
        "kind=payment",
        "method=credit_card",
        &format!("reference={id}"),
        &format!("transaction_id={transaction}"),
    ];
    assert_eq!(fields(0), expected);
    let expected = [
        "amount=2500",
        "country=BR",
        "currency=BRL",
        "installments=1",
        "kind=withdrawal",
        "method=pix",
        &format!("reference={}", withdrawal.reference),
        &format!("transaction_id={paid_out}"),
    ];
    assert_eq!(fields(1), expected);
    let expected = ["amount=1000", "currency=BRL", &format!("of={id}"), &format!("reference={}", refund.reference)];
    assert_eq!(fields(2), expected);
    assert_eq!((fields(3), fields(4)), (vec![format!("reference={id}")], vec![format!("reference={id}")]));
}

#[tokio::test]
async fn an_answer_is_a_decision_or_may_have_charged() {
    let (request, other) = (request(NUMBER), request(NUMBER));
    let id = request.reference.to_string();
    let approved = |amount| AuthorizationResult::Approved { reference: "a-1".into(), amount };
    let declined = |reason: &str| AuthorizationResult::Declined { reason: reason.into() };
    let money = Some(Money::new(2500, Currency::BRL));
    let answers: [(&[(&str, &str)], _); 12] = [
        (&[("status", "approved"), ("gateway_reference", "a-1")], Some(approved(None))),
        (
            &[("status", "approved"), ("gateway_reference", "a-1"), ("amount", "2500"), ("currency", "BRL")],
            Some(approved(money)),
        ),
        (&[("status", "declined"), ("reason", "expired_card"), ("more", "1")], Some(declined("expired_card"))),
        (&[("status", "pending")], Some(AuthorizationResult::Pending { reference: None })),
        (&[("status", "voided")], Some(declined(VOIDED))),
        (&[("status", "approved")], None),
        (&[("status", " approved "), ("gateway_reference", "a-1")], None),
        (&[("status", "approved"), ("gateway_reference", "a-1"), ("amount", "2500")], None),
        (&[("status", "approved"), ("gateway_reference", "a-1"), ("amount", "25.00"), ("currency", "BRL")], None),
        (&[("status", "approved"), ("status", "declined"), ("gateway_reference", "a-1")], None),
        (&[("status", "declined"), ("reason", "4111111111111111")], None),
        (&[], None),
    ];
    for (fields, expected) in answers {
        let fields = [&[("reference", id.as_str())], fields].concat();
        let expected = expected.ok_or(GatewayError::TimedOut);
        let parrot = Parrot::answering(200, &envelope("authorizeResponse", &fields)).await;
        let gateway = parrot.gateway(HttpProtocol::Xml);
        assert_eq!(gateway.authorize(&request).await, expected, "{fields:?}");
        assert_eq!(gateway.authorize(&other).await, Err(GatewayError::TimedOut), "another reference: {fields:?}");
        assert_eq!(gateway.find(request.reference).await, Err(GatewayError::TimedOut), "to another question");
        let parrot = Parrot::answering(200, &envelope("findResponse", &fields)).await;
        assert_eq!(parrot.gateway(HttpProtocol::Xml).find(request.reference).await, expected.map(Some), "{fields:?}");
    }
    let voided = envelope("voidResponse", &[("reference", &id), ("status", "voided")]);
    let parrot = Parrot::answering(200, &voided).await;
    assert_eq!(parrot.gateway(HttpProtocol::Xml).void(request.reference).await, Ok(()));
    assert_eq!(parrot.gateway(HttpProtocol::Xml).void(other.reference).await, Err(GatewayError::TimedOut));
}

#[tokio::test]
async fn a_fault_of_the_client_took_nothing_and_any_other_may_have_unless_it_says_so() {
    let request = request(NUMBER);
    let unavailable = |status: u16| GatewayError::Unavailable(format!("answered {status}"));
    let refused = |status: u16| GatewayError::Refused(format!("answered {status}"));
    for (status, is_client, error, expected) in [
        (500, true, "wrong amount", refused(500)),
        (401, true, "signature_required", refused(401)),
        (413, true, "body_too_large", refused(413)),
        (429, true, "slow_down", unavailable(429)),
        (503, true, "slow_down", unavailable(503)),
        (503, false, "unavailable", unavailable(503)),
        (503, false, "too_many_references", unavailable(503)),
        (429, false, "unavailable", unavailable(429)),
        (500, false, "unavailable", unavailable(500)),
        (500, false, "wrong amount", GatewayError::TimedOut),
        (503, false, "wrong amount", GatewayError::TimedOut),
        (401, false, "signature_required", GatewayError::TimedOut),
        (200, true, "wrong amount", GatewayError::TimedOut),
        (200, false, "unavailable", GatewayError::TimedOut),
        (502, true, "wrong amount", GatewayError::TimedOut),
        (504, false, "unavailable", GatewayError::TimedOut),
    ] {
        let gateway = Parrot::answering(status, &fault(is_client, error)).await.gateway(HttpProtocol::Xml);
        assert_eq!(gateway.authorize(&request).await, Err(expected.clone()), "{status} {is_client} {error}");
        assert_eq!(gateway.find(request.reference).await, Err(expected.clone()), "{status} {is_client} {error}");
        assert_eq!(gateway.void(request.reference).await, Err(expected), "{status} {is_client} {error}");
    }
}

#[tokio::test]
async fn only_a_gateway_that_does_not_know_the_reference_has_decided_nothing() {
    let request = request(NUMBER);
    for (status, is_client, expected) in [(500, true, true), (404, true, true), (500, false, false), (200, true, false)]
    {
        let parrot = Parrot::answering(status, &fault(is_client, "unknown_reference")).await;
        let gateway = parrot.gateway(HttpProtocol::Xml);
        assert_eq!(gateway.find(request.reference).await == Ok(None), expected, "{status} {is_client}");
        assert!(gateway.authorize(&request).await.is_err() && gateway.void(request.reference).await.is_err());
    }
}

#[tokio::test]
async fn an_approval_inside_an_attack_is_none() {
    let request = request(NUMBER);
    let id = request.reference.to_string();
    let fields = [("reference", id.as_str()), ("status", "approved"), ("gateway_reference", "a-1")];
    let good = envelope("authorizeResponse", &fields);
    let declaration = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
    let with_type = |kind: &str| good.replace(declaration, &format!("{declaration}<!DOCTYPE x {kind}>"));
    let bomb = "<!ENTITY a \"haha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">";
    let deep = format!("{}{}", "<x>".repeat(2_000), "</x>".repeat(2_000));
    for attack in [
        with_type(""),
        with_type("SYSTEM \"http://127.0.0.1:1/x.dtd\""),
        with_type("[<!ENTITY e SYSTEM \"file:///etc/passwd\">]").replace("a-1", "&e;"),
        with_type(&format!("[{bomb}]")).replace("a-1", "&c;"),
        good.replace("a-1", "&e;"),
        good.replace("<status>", &format!("{deep}<status>")),
        good.replace("<status>", &format!("<pad>{}</pad><status>", "x".repeat(16 * 1024))),
        good.replace("<status>", "<?run this?><status>"),
        good.replace("<status>", "<status>declined</status><status>"),
        good.replace(NAMESPACE, "urn:other"),
        format!("{good}{good}"),
    ] {
        let parrot = Parrot::answering(200, &attack).await;
        assert!(is_unknown(parrot.gateway(HttpProtocol::Xml).authorize(&request).await, &request), "{attack}");
    }
    let parrot = Parrot::answering(200, &good).await;
    assert!(parrot.gateway(HttpProtocol::Xml).authorize(&request).await.is_ok());
}
