//! What an endpoint answers, and what comes of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use psp_domain::ports::EventStore;
use psp_domain::{DeliveryAttempt, DeliveryStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::receiver::{Receiver, with_body, with_header};
use crate::support::{Case, customer, eventually};

#[tokio::test]
async fn a_delivery_says_what_happened_and_is_recorded() {
    let (case, receiver) = (Case::default(), Receiver::saying(204).await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let id = case.event().await;
    let delivery = case.attempted(id, &endpoint, 1).await;
    assert_eq!((delivery.status, delivery.next_attempt_at), (DeliveryStatus::Delivered, None));
    let [attempt] = &delivery.attempts[..] else { panic!("{delivery:?}") };
    assert_eq!((attempt.number, attempt.status, attempt.error.as_deref()), (1, Some(204), None));
    let [heard] = &receiver.heard()[..] else { panic!("one request") };
    assert_eq!(heard.path, "/hook?shop=1");
    assert_eq!(heard.header("host"), receiver.address.to_string());
    assert_eq!(heard.header("content-type"), "application/json");
    assert_eq!(heard.header("user-agent"), concat!("psp/", env!("CARGO_PKG_VERSION")));
    assert_eq!(heard.header("webhook-id"), id.to_string());
    assert_eq!(heard.header("webhook-timestamp"), "1769860800");
    let event = case.memory.find_event(&customer(), id).await.unwrap().unwrap();
    let expected = json!({
        "type": "transaction.created",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "id": id,
        "aggregate_id": event.aggregate_id,
        "sequence": 1,
        "data": serde_json::from_str::<Value>(&event.data).unwrap(),
    });
    assert_eq!(serde_json::from_slice::<Value>(&heard.body).unwrap(), expected);
}

#[tokio::test]
async fn what_an_endpoint_says_is_kept_up_to_a_kibibyte() {
    let case = Case::default();
    let body = format!("\0{}{}", "é".repeat(300), "x".repeat(10_000));
    let receiver = Receiver::answering(move |_| {
        let body = body.clone();
        Box::pin(async move { with_body(400, body) })
    });
    let receiver = receiver.await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    let answer = &delivery.attempts[0].answer;
    let beginning = format!("\u{fffd}{}xxx", "é".repeat(300));
    assert!(answer.starts_with(&beginning) && answer.len() <= DeliveryAttempt::MAX_ANSWER_BYTES, "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced() {
    let case = Case::default();
    let receiver =
        Receiver::answering(|_| Box::pin(async { with_body(200, Bytes::from_static(&[0xff; 5_000])) })).await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    let answer = &delivery.attempts[0].answer;
    assert!(answer.chars().all(|c| c == '\u{fffd}') && answer.len() <= DeliveryAttempt::MAX_ANSWER_BYTES);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    for status in [301, 302, 307, 308] {
        let (case, other) = (Case::default(), Receiver::saying(200).await);
        let to = other.url();
        let receiver = Receiver::answering(move |_| {
            let to = to.clone();
            Box::pin(async move { with_header(status, "location", &to) })
        });
        let receiver = receiver.await;
        let (endpoint, _) = case.endpoint(&receiver.url()).await;
        let _working = case.start();
        let delivery = case.attempted(case.event().await, &endpoint, 1).await;
        assert_eq!((delivery.status, delivery.attempts[0].status), (DeliveryStatus::Pending, Some(status)));
        assert_eq!((receiver.count(), other.connections()), (1, 0));
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_given_up_in_time() {
    let mut case = Case::default();
    case.client.timeout = Duration::from_millis(200);
    let receiver = Receiver::hanging().await;
    let begun = Instant::now();
    assert_eq!(case.error_at(&receiver.url()).await.as_deref(), Some("timeout"));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_no_answer_is_named() {
    let huge_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    for (bytes, error) in [
        ("", "closed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", "closed"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "protocol"),
        (huge_head.as_str(), "protocol"),
    ] {
        let receiver = Receiver::raw(bytes.into()).await;
        let named = Case::default().error_at(&receiver.url()).await;
        assert_eq!(named.as_deref(), Some(error), "{}", &bytes[..bytes.len().min(40)]);
    }
}

#[tokio::test]
async fn the_status_counts_also_when_the_body_is_cut_off() {
    let case = Case::default();
    let receiver = Receiver::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok so f".to_vec()).await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    assert_eq!(delivery.attempts[0].answer, "ok so f");
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_and_the_status_counts() {
    let (case, receiver) = (Case::default(), Receiver::dripping().await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let begun = Instant::now();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "an attempt may take 30 s here");
    assert_eq!((delivery.status, delivery.attempts[0].status), (DeliveryStatus::Delivered, Some(200)));
    assert_eq!(delivery.attempts[0].answer, "drip");
    case.event().await;
    eventually(async || receiver.connections() == 2).await;
}

#[tokio::test]
async fn an_answer_of_a_gigabyte_is_cut() {
    const PIECES: usize = 16 * 1024;
    let (case, sent) = (Case::default(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&sent);
    let receiver = Receiver::answering(move |_| {
        let counted = Arc::clone(&counted);
        let pieces = futures::stream::iter(0..PIECES).map_piece(counted);
        Box::pin(async move { http::Response::new(BodyExt::boxed(StreamBody::new(pieces))) })
    });
    let receiver = receiver.await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let begun = Instant::now();
    let delivery = case.attempted(case.event().await, &endpoint, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    assert_eq!(delivery.attempts[0].answer, "x".repeat(DeliveryAttempt::MAX_ANSWER_BYTES));
    // What the network holds on its way, and no more.
    assert!(sent.load(Ordering::SeqCst) < PIECES / 4, "{} pieces of 64 KiB", sent.load(Ordering::SeqCst));
    // Its connection is of no use any more.
    case.event().await;
    eventually(async || receiver.connections() == 2).await;
}

/// Pieces of 64 KiB, counted.
trait MapPiece {
    fn map_piece(
        self,
        counted: Arc<AtomicUsize>,
    ) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static;
}

impl<S: futures::Stream<Item = usize> + Send + Sync + 'static> MapPiece for S {
    fn map_piece(
        self,
        counted: Arc<AtomicUsize>,
    ) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static {
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        futures::StreamExt::map(self, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Frame::data(piece.clone()))
        })
    }
}

#[tokio::test]
async fn deliveries_share_a_connection_and_one_that_was_closed_meanwhile_is_replaced() {
    let (case, receiver) = (Case::default(), Receiver::saying(200).await);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    for _ in 0..3 {
        case.attempted(case.event().await, &endpoint, 1).await;
    }
    assert_eq!((receiver.count(), receiver.connections()), (3, 1));

    // Closed while it waits, or while the next delivery is sent on it.
    let at_once = Receiver::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    for fickle in [at_once, Receiver::tiring().await] {
        let case = Case::default();
        let (endpoint, _) = case.endpoint(&fickle.url()).await;
        let _working = case.start();
        for connections in 1..=3 {
            let delivery = case.attempted(case.event().await, &endpoint, 1).await;
            assert_eq!((delivery.status, delivery.attempts.len()), (DeliveryStatus::Delivered, 1));
            assert_eq!(fickle.connections(), connections);
        }
    }
}

#[tokio::test]
async fn connections_beside_one_that_leads_nowhere_are_not_used_any_more() {
    let (mut case, receiver) = (Case::default(), Receiver::forgetting_two().await);
    case.client.timeout = Duration::from_secs(1);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let both = [case.event().await, case.event().await];
    let _working = case.start();
    for id in both {
        assert_eq!(case.attempted(id, &endpoint, 1).await.status, DeliveryStatus::Delivered);
    }
    let id = case.event().await;
    assert_eq!(case.attempted(id, &endpoint, 1).await.attempts[0].error.as_deref(), Some("timeout"));
    case.clock.advance(Duration::from_secs(5));
    assert_eq!(case.attempted(id, &endpoint, 2).await.status, DeliveryStatus::Delivered);
    assert_eq!(receiver.connections(), 3);
}
