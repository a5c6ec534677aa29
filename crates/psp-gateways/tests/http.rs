//! The gateway over HTTP against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError, SystemClock};
use psp_gateways::{HttpGateway, HttpOptions, SIGNATURE_HEADER, Signed, SigningKey, TIMESTAMP_HEADER};
use psp_testkit::contract::gateway::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "a secret of the tests, which is long enough";
const NUMBER: &str = "4111111111111111";

fn key() -> SigningKey {
    SigningKey::new(SECRET.into()).unwrap()
}

fn gateway(url: &str) -> HttpGateway {
    let timeout = Duration::from_secs(10);
    let options = HttpOptions { url: url.parse().unwrap(), key: key(), connect_timeout: timeout, timeout };
    HttpGateway::new(options, Arc::new(SystemClock)).unwrap()
}

/// A server that says the same to everybody, and then closes the connection.
struct Parrot {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Parrot {
    async fn saying(answer: impl Into<String>) -> Self {
        let (listener, answer) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), answer.into());
        let address = listener.local_addr().unwrap().to_string();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = hear(&mut stream).await;
                notes.lock().unwrap().push(request);
                // The client may have gone when it has enough.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, heard }
    }

    async fn answering(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::saying(format!("HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\r\n{body}"))
            .await
    }

    fn gateway(&self) -> HttpGateway {
        gateway(&format!("http://{}/v1/", self.address))
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Reads a request to its end.
async fn hear(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

/// Whether the outcome is unknown, or nothing was taken. Either way the error shows nothing of the card.
fn is_unknown<T: std::fmt::Debug>(answer: Result<T, GatewayError>, request: &AuthorizationRequest) -> bool {
    let error = answer.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!request.card.number.appears_in(&shown) && !shown.contains("Skywalker"), "{shown}");
    error == GatewayError::TimedOut
}

#[tokio::test]
async fn who_is_not_there_took_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (gateway, request) = (gateway(&format!("http://{address}")), request(NUMBER, 1));
    assert!(!is_unknown(gateway.authorize(&request).await, &request));
    assert!(!is_unknown(gateway.find(request.transaction_id).await, &request));
    assert!(!is_unknown(gateway.void(request.transaction_id).await, &request));
}

#[tokio::test]
async fn no_card_is_sent_to_who_has_no_certificate() {
    let parrot = Parrot::saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let (gateway, request) = (gateway(&format!("https://{}", parrot.address)), request(NUMBER, 1));
    let asked = tokio::time::timeout(Duration::from_secs(1), gateway.authorize(&request)).await;
    assert!(!matches!(asked, Ok(Ok(_))), "{asked:?}");
    assert!(parrot.heard().iter().all(|heard| !heard.contains(NUMBER)));
}

#[tokio::test]
async fn silence_and_a_broken_connection_may_have_charged() {
    let request = request(NUMBER, 1);
    for words in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "220 mail.example ESMTP\r\n"] {
        let parrot = Parrot::saying(words).await;
        assert!(is_unknown(parrot.gateway().authorize(&request).await, &request), "{words:?}");
        assert_eq!(parrot.heard().len(), 1, "the card is not sent again by itself");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = HttpOptions {
        url: format!("http://{}", listener.local_addr().unwrap()).parse().unwrap(),
        key: key(),
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_millis(200),
    };
    let (gateway, begun) = (HttpGateway::new(options, Arc::new(SystemClock)).unwrap(), Instant::now());
    assert!(is_unknown(gateway.authorize(&request).await, &request));
    assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait longer than it may");
}

#[tokio::test]
async fn a_status_tells_whether_the_request_was_taken() {
    let request = request(NUMBER, 1);
    let garbage = format!(r#"{{"error":"do not like {NUMBER} of Luke Skywalker"}}"#);
    for (status, unknown) in [
        (400, false),
        (401, false),
        (404, false),
        (409, false),
        (429, false),
        (503, false),
        (500, true),
        (502, true),
        (504, true),
        (201, true),
        (302, true),
        (307, true),
        (200, true),
    ] {
        let parrot = Parrot::answering(status, &garbage).await;
        assert_eq!(is_unknown(parrot.gateway().authorize(&request).await, &request), unknown, "{status}");
        assert_eq!(is_unknown(parrot.gateway().find(request.transaction_id).await, &request), unknown, "{status}");
        assert_eq!(is_unknown(parrot.gateway().void(request.transaction_id).await, &request), unknown, "{status}");
        assert!(parrot.heard().iter().all(|heard| !heard.contains("/elsewhere")), "redirects are not followed");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let request = request(NUMBER, 1);
    let id = request.transaction_id;
    let body = format!(
        r#"{{"reference":"{id}","status":"approved","gateway_reference":"a-1","x":"{}"}}"#,
        "x".repeat(1 << 20)
    );
    for answer in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\n{{}}", "x".repeat(1 << 20)),
    ] {
        let parrot = Parrot::saying(answer).await;
        assert!(is_unknown(parrot.gateway().authorize(&request).await, &request));
    }
}

#[tokio::test]
async fn only_a_gateway_that_does_not_know_the_reference_has_decided_nothing() {
    let request = request(NUMBER, 1);
    let id = request.transaction_id;
    let unknown = Parrot::answering(404, r#"{"error":"unknown_reference"}"#).await;
    assert_eq!(unknown.gateway().find(id).await, Ok(None));
    for body in ["", "Not Found", r#"{"error":"no_such_route"}"#] {
        let nobody = Parrot::answering(404, body).await;
        assert!(!is_unknown(nobody.gateway().find(id).await, &request), "{body}");
    }
}

#[tokio::test]
async fn a_decision_about_another_reference_is_none() {
    let (asked, other) = (request(NUMBER, 1), request(NUMBER, 1));
    let id = other.transaction_id;
    let parrot =
        Parrot::answering(200, &format!(r#"{{"reference":"{id}","status":"approved","gateway_reference":"a-1"}}"#))
            .await;
    assert!(is_unknown(parrot.gateway().authorize(&asked).await, &asked));
    let approved = AuthorizationResult::Approved { reference: "a-1".into() };
    assert_eq!(parrot.gateway().authorize(&other).await, Ok(approved));
    let parrot = Parrot::answering(200, &format!(r#"{{"reference":"{id}","status":"voided"}}"#)).await;
    assert!(is_unknown(parrot.gateway().void(asked.transaction_id).await, &asked));
    assert_eq!(parrot.gateway().void(id).await, Ok(()));
}

#[tokio::test]
async fn what_is_sent_is_signed_and_names_the_transaction() {
    let (parrot, request) = (Parrot::answering(500, "").await, request(NUMBER, 1));
    let id = request.transaction_id;
    let (authorize, find) = (parrot.gateway(), parrot.gateway());
    assert!(
        authorize.authorize(&request).await.is_err() && find.find(id).await.is_err() && find.void(id).await.is_err()
    );
    let expected = [("POST", "/v1/authorizations".to_owned()), ("GET", format!("/v1/authorizations/{id}"))];
    let expected = expected.into_iter().chain([("POST", format!("/v1/authorizations/{id}/void"))]);
    for (heard, (method, path)) in parrot.heard().iter().zip(expected) {
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{head}");
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(other, _)| *other == name).map(|(_, value)| value).next().unwrap()
        };
        let timestamp = header(TIMESTAMP_HEADER).parse().unwrap();
        let signed = Signed { timestamp, method, path: &path, body: body.as_bytes() };
        key().verify(&signed, header(SIGNATURE_HEADER), timestamp).unwrap();
    }
    let heard = parrot.heard();
    let body: serde_json::Value = serde_json::from_str(heard[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = serde_json::json!({
        "reference": id, "amount": 2500, "currency": "BRL", "method": "credit_card", "installments": 1,
        "card": {
            "number": NUMBER, "holder_name": "Luke Skywalker", "expiry": "10/2025", "verification_code": "123"
        }
    });
    assert_eq!(body, expected);
    assert!(!format!("{authorize:?}").contains("tests"), "the secret is not shown");
}
