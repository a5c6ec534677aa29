//! docs/gateway-protocol.md says what is written and read.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use std::sync::Arc;

use psp_domain::ports::{
    AuthorizationRequest, CallbackSignature, Clock, Gateway, GatewayError, RefundRequest, SystemClock,
};
use psp_domain::{AttemptReference, Currency, Money};
use psp_gateways::soap::{Envelope, Fault, Message, read};
use psp_gateways::{HttpGateway, HttpOptions, HttpProtocol, SIGNATURE_HEADER, SigningKey, TIMESTAMP_HEADER};
use psp_testkit::clock::FixedClock;
use psp_testkit::contract::gateway::request;
use serde_json::Value;
use support::{NUMBER, Parrot, header, options};

const PAGE: &str = include_str!("../../../docs/gateway-protocol.md");
const REFERENCE: &str = "01a1fc23-adfc-74b8-ab63-7bfa62344961";

/// The blocks of code in a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    PAGE.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

fn example() -> (AuthorizationRequest, RefundRequest) {
    let charge = AuthorizationRequest {
        reference: REFERENCE.parse().unwrap(),
        transaction_id: "01a1fc23-adfb-7d10-9b2a-4de1a0c4f1c2".parse().unwrap(),
        country: Some("BR".parse().unwrap()),
        ..request(NUMBER)
    };
    let refund = RefundRequest {
        reference: "01a1fc23-b1d4-7f00-8a55-1c9be4a1d0f3".parse().unwrap(),
        of: charge.reference,
        amount: Money::new(1000, Currency::BRL),
    };
    (charge, refund)
}

/// What is heard of the examples.
async fn heard(protocol: HttpProtocol, path: &str) -> Vec<String> {
    let parrot = Parrot::answering(500, "").await;
    let url = format!("http://{}{path}", parrot.address);
    let callback_base = Some("https://psp.example".parse().unwrap());
    let options = HttpOptions { callback_base, ..options(protocol, &url) };
    let gateway = HttpGateway::new(options, Arc::new(SystemClock)).unwrap();
    let (charge, refund) = example();
    assert!(gateway.authorize(&charge).await.is_err() && gateway.refund(&refund).await.is_err());
    assert!(gateway.find(charge.reference).await.is_err() && gateway.void(charge.reference).await.is_err());
    parrot.heard()
}

#[tokio::test]
async fn requests_in_json_are_written_as_documented() {
    let heard = heard(HttpProtocol::Json, "").await;
    let documented: Vec<_> = blocks("http").into_iter().take(4).collect();
    assert_eq!((heard.len(), documented.len()), (4, 4));
    for (heard, documented) in heard.iter().zip(documented) {
        let (line, body) = documented.split_once("\n\n").unwrap_or((documented, ""));
        assert!(heard.starts_with(&format!("{line} HTTP/1.1\r\n")), "{line}: {heard}");
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let written = heard.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(parse(body), parse(written), "{line}");
        assert_eq!(body.is_empty(), written.is_empty(), "{line}");
    }
}

fn message(text: &str) -> Message {
    match read(text.as_bytes()) {
        Ok(Envelope::Message(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[tokio::test]
async fn requests_in_xml_are_written_as_documented() {
    let heard = heard(HttpProtocol::Xml, "/soap").await;
    let documented = blocks("http").into_iter().find(|block| block.contains("soapaction")).unwrap();
    let mut lines = documented.lines();
    assert!(heard[0].starts_with(&format!("{} HTTP/1.1\r\n", lines.next().unwrap())));
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(header(&heard[0], name), Some(value));
    }
    assert_eq!(message(blocks("xml")[0]), message(heard[0].split_once("\r\n\r\n").unwrap().1));
}

#[tokio::test]
async fn answers_are_read_as_documented() {
    let (charge, _) = example();
    let statuses = ["Approved", "Approved", "Declined", "Pending", "Declined"];
    let answers: Vec<_> = blocks("json")[0].lines().collect();
    assert_eq!(answers.len(), statuses.len());
    for (answer, status) in answers.iter().zip(statuses) {
        let parrot = Parrot::answering(200, answer).await;
        let decided = parrot.gateway(HttpProtocol::Json).authorize(&charge).await.unwrap();
        assert!(format!("{decided:?}").starts_with(status), "{answer}: {decided:?}");
    }
    let parrot = Parrot::answering(422, blocks("json")[1]).await;
    let refused = parrot.gateway(HttpProtocol::Json).authorize(&charge).await;
    assert_eq!(refused, Err(GatewayError::Refused("answered 422".into())));
    let [_, approval, fault] = blocks("xml").try_into().unwrap();
    let parrot = Parrot::answering(200, approval).await;
    assert!(parrot.gateway(HttpProtocol::Xml).authorize(&charge).await.is_ok());
    let expected = Fault { is_client: true, error: Some("unknown_reference".into()) };
    assert_eq!(read(fault.as_bytes()), Ok(Envelope::Fault(expected)));
    let parrot = Parrot::answering(500, fault).await;
    let reference: AttemptReference = charge.reference;
    assert_eq!(parrot.gateway(HttpProtocol::Xml).find(reference).await, Ok(None));
}

#[test]
fn a_callback_is_signed_as_documented() {
    let callback = blocks("http").into_iter().find(|block| block.starts_with("POST /callback/")).unwrap();
    let heard = callback.replace('\n', "\r\n");
    let key = SigningKey::new("an example: take openssl rand -base64 32".into()).unwrap();
    let clock = FixedClock::default();
    assert_eq!(header(&heard, TIMESTAMP_HEADER), Some(clock.now().timestamp().to_string().as_str()));
    let options = HttpOptions { key, ..options(HttpProtocol::Json, "http://127.0.0.1:1") };
    let gateway = HttpGateway::new(options, Arc::new(clock)).unwrap();
    let signature = CallbackSignature {
        path: callback.lines().next().unwrap().strip_prefix("POST ").unwrap(),
        timestamp: header(&heard, TIMESTAMP_HEADER),
        signature: header(&heard, SIGNATURE_HEADER),
        body: callback.split_once("\n\n").unwrap().1.as_bytes(),
    };
    assert_eq!(gateway.verify_callback(&signature), Ok(()));
}
