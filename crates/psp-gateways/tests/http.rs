//! The gateway over HTTP against servers that misbehave, whatever it speaks.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use psp_domain::ports::{CallbackSignature, Clock, ForgedCallback, Gateway, SystemClock};
use psp_gateways::{HttpGateway, HttpOptions, HttpProtocol, SIGNATURE_HEADER, Signed, SigningKey, TIMESTAMP_HEADER};
use psp_testkit::clock::FixedClock;
use psp_testkit::contract::gateway::{refund_request, request};
use support::{NUMBER, Parrot, gateway, header, is_unknown, key, options};
use tokio::net::TcpListener;

const PROTOCOLS: [HttpProtocol; 2] = [HttpProtocol::Json, HttpProtocol::Xml];

#[tokio::test]
async fn who_is_not_there_took_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for protocol in PROTOCOLS {
        let (gateway, request) = (gateway(protocol, &format!("http://{address}")), request(NUMBER));
        assert!(!is_unknown(gateway.authorize(&request).await, &request));
        assert!(!is_unknown(gateway.find(request.reference).await, &request));
        assert!(!is_unknown(gateway.void(request.reference).await, &request));
        assert!(!is_unknown(gateway.refund(&refund_request(request.reference)).await, &request));
    }
}

#[tokio::test]
async fn no_card_is_sent_to_who_has_no_certificate() {
    for protocol in PROTOCOLS {
        let parrot = Parrot::saying("HTTP/1.1 200 OK\r\n\r\n").await;
        let (gateway, request) = (gateway(protocol, &format!("https://{}", parrot.address)), request(NUMBER));
        let asked = tokio::time::timeout(Duration::from_secs(1), gateway.authorize(&request)).await;
        assert!(!matches!(asked, Ok(Ok(_))), "{asked:?}");
        assert!(parrot.heard().iter().all(|heard| !heard.contains(NUMBER)));
    }
}

#[tokio::test]
async fn silence_and_a_broken_connection_may_have_charged() {
    let request = request(NUMBER);
    for protocol in PROTOCOLS {
        for words in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "220 mail.example ESMTP\r\n"] {
            let parrot = Parrot::saying(words).await;
            assert!(is_unknown(parrot.gateway(protocol).authorize(&request).await, &request), "{words:?}");
            assert_eq!(parrot.heard().len(), 1, "the card is not sent again by itself");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = HttpOptions { timeout: Duration::from_millis(200), ..options(protocol, &url) };
        let (gateway, begun) = (HttpGateway::new(options, Arc::new(SystemClock)).unwrap(), Instant::now());
        assert!(is_unknown(gateway.authorize(&request).await, &request));
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait longer than it may");
    }
}

#[tokio::test]
async fn whatever_status_a_server_in_front_answers_with_the_gateway_may_have_charged() {
    let request = request(NUMBER);
    for body in ["", "<html><body>Service Unavailable</body></html>", r#"{"message":"no healthy upstream"}"#] {
        for status in [200, 201, 302, 307, 400, 401, 403, 404, 408, 409, 413, 425, 429, 500, 502, 503, 504] {
            let parrot = Parrot::answering(status, body).await;
            for protocol in PROTOCOLS {
                let (gateway, reference) = (parrot.gateway(protocol), request.reference);
                assert!(is_unknown(gateway.authorize(&request).await, &request), "{status} {body}");
                assert!(is_unknown(gateway.find(reference).await, &request), "{status} {body}");
                assert!(is_unknown(gateway.void(reference).await, &request), "{status} {body}");
                assert!(is_unknown(gateway.refund(&refund_request(reference)).await, &request), "{status} {body}");
            }
            assert!(parrot.heard().iter().all(|heard| !heard.contains("/elsewhere")), "redirects are not followed");
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let request = request(NUMBER);
    let id = request.reference;
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
        for protocol in PROTOCOLS {
            assert!(is_unknown(parrot.gateway(protocol).authorize(&request).await, &request));
        }
    }
}

#[tokio::test]
async fn every_request_is_signed_and_the_secret_is_not_shown() {
    for protocol in PROTOCOLS {
        let (parrot, request) = (Parrot::answering(500, "").await, request(NUMBER));
        let (gateway, reference) = (parrot.gateway(protocol), request.reference);
        let failed = [
            gateway.authorize(&request).await.is_err(),
            gateway.find(reference).await.is_err(),
            gateway.void(reference).await.is_err(),
            gateway.refund(&refund_request(reference)).await.is_err(),
        ];
        assert_eq!((failed, parrot.heard().len()), ([true; 4], 4));
        for heard in parrot.heard() {
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            let [method, path] = [0, 1].map(|word| head.split(' ').nth(word).unwrap());
            assert!(body.is_empty() != head.contains("content-type: "), "{head}");
            let timestamp = header(&heard, TIMESTAMP_HEADER).unwrap().parse().unwrap();
            let signed = Signed { timestamp, method, path, body: body.as_bytes() };
            key().verify(&signed, header(&heard, SIGNATURE_HEADER).unwrap(), timestamp).unwrap();
        }
        assert!(!format!("{gateway:?}").contains("tests"), "{gateway:?}");
        assert_eq!(gateway.name().as_str(), "acquirer");
    }
}

#[tokio::test]
async fn an_acquirer_is_told_where_to_call_back_only_where_that_is_known() {
    for protocol in PROTOCOLS {
        let (parrot, request) = (Parrot::answering(500, "").await, request(NUMBER));
        let url = format!("http://{}", parrot.address);
        for base in [None, Some("https://psp.example/payments/")] {
            let callback_base = base.map(|base| base.parse().unwrap());
            let options = HttpOptions { callback_base, ..options(protocol, &url) };
            let gateway = HttpGateway::new(options, Arc::new(SystemClock)).unwrap();
            assert!(gateway.authorize(&request).await.is_err());
        }
        let told = format!("https://psp.example/payments/callback/{}", request.transaction_id);
        let heard: Vec<_> = parrot.heard().iter().map(|heard| heard.contains("callback")).collect();
        assert_eq!((heard, parrot.heard()[1].contains(&told)), (vec![false, true], true));
    }
}

#[test]
fn a_callback_is_believed_for_five_minutes_and_only_as_it_was_signed() {
    const PATH: &str = "/callback/01a1fc23-adfc-74b8-ab63-7bfa62344961";
    const BODY: &[u8] = br#"{"gateway_txn_id":"a-1","status":"completed"}"#;
    let clock = Arc::new(FixedClock::default());
    let options = options(HttpProtocol::Json, "http://127.0.0.1:1");
    let gateway = HttpGateway::new(options, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let now = clock.now().timestamp();
    let stranger = SigningKey::new("another secret, which is long enough, too".into()).unwrap();
    let verify = |key: &SigningKey, method, timestamp: i64, shown: &str, body: &[u8]| {
        let signature = key.sign(&Signed { timestamp, method, path: PATH, body: BODY });
        let (timestamp, signature) = (Some(shown), Some(signature.as_str()));
        gateway.verify_callback(&CallbackSignature { path: PATH, timestamp, signature, body })
    };
    for (seconds, expected) in [
        (-301, Err(ForgedCallback::Stale)),
        (-300, Ok(())),
        (0, Ok(())),
        (300, Ok(())),
        (301, Err(ForgedCallback::Stale)),
    ] {
        let timestamp = now + seconds;
        assert_eq!(verify(&key(), "POST", timestamp, &timestamp.to_string(), BODY), expected, "{seconds} s");
    }
    let shown = now.to_string();
    let forged = Err(ForgedCallback::Signature);
    assert_eq!(verify(&stranger, "POST", now, &shown, BODY), forged);
    assert_eq!(verify(&key(), "PUT", now, &shown, BODY), forged);
    assert_eq!(verify(&key(), "POST", now, &(now + 1).to_string(), BODY), forged);
    assert_eq!(verify(&key(), "POST", now, &shown, b"{}"), forged);
    assert_eq!(verify(&key(), "POST", now, "now", BODY), Err(ForgedCallback::Stale));
    let signature = key().sign(&Signed { timestamp: now, method: "POST", path: PATH, body: BODY });
    let signed = CallbackSignature { path: PATH, timestamp: Some(&shown), signature: Some(&signature), body: BODY };
    assert_eq!(gateway.verify_callback(&signed), Ok(()));
    assert_eq!(gateway.verify_callback(&CallbackSignature { path: "/callback/2", ..signed }), forged);
    assert_eq!(gateway.verify_callback(&CallbackSignature { signature: None, ..signed }), forged);
    assert_eq!(gateway.verify_callback(&CallbackSignature { timestamp: None, ..signed }), Err(ForgedCallback::Stale));
}
