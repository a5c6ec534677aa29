//! Clients that are slow, too many, or gone before they are answered.

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Place, Process, example, pause, read_answer, wire};

/// A connection on which most of a request was sent.
async fn unfinished(psp: &Process) -> (TcpStream, Vec<u8>) {
    let mut request = wire("slow", &example(), None);
    let rest = request.split_off(request.len() - 20);
    let mut stream = TcpStream::connect(&psp.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    (stream, rest)
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_keeps_nobody_waiting() {
    let place = Place::new(&[("PSP_REQUEST_TIMEOUT_MS", "500")]);
    let mut psp = place.serve().await;
    let (mut slow, _) = unfinished(&psp).await;
    let mut silent = TcpStream::connect(&psp.address).await.unwrap();
    assert_eq!(psp.post("123", &example()).await.status, StatusCode::CREATED);
    let answer = read_answer(&mut slow).await;
    let status: u16 = answer[9..12].parse().unwrap();
    assert!(StatusCode::from_u16(status).is_ok_and(|s| s == 408 || s == 503), "{answer}");
    assert!(psp.is_running() && !psp.log().contains("panicked"));
    silent.write_all(&wire("123", &example(), None)).await.unwrap();
    assert!(
        read_answer(&mut silent).await.starts_with("HTTP/1.1 201 "),
        "a connection may stay silent before its request"
    );
    assert_eq!(psp.all("slow", "/transactions").await.len(), 0, "half a request has no effect");
}

#[tokio::test]
async fn a_request_too_many_is_told_to_come_again_and_nothing_is_lost() {
    let place = Place::new(&[("PSP_MAX_IN_FLIGHT", "1")]);
    let psp = place.serve().await;
    let (mut slow, mut rest) = unfinished(&psp).await;
    let begun = std::time::Instant::now();
    let refused = loop {
        let answer = psp.get("123", "/transactions").await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            break answer;
        }
        assert!(begun.elapsed() < crate::support::PATIENCE, "the place is not taken");
        // The other way round, the slow one met this request in the only place, and was refused itself.
        if slow.try_read(&mut [0]).is_ok() {
            (slow, rest) = unfinished(&psp).await;
        }
        pause().await;
    };
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    slow.write_all(&rest).await.unwrap();
    assert!(read_answer(&mut slow).await.starts_with("HTTP/1.1 201 "));
    psp.until("slow", "/transactions", |list| list[0]["status"] == "pending_payment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_break_off_and_repeat_with_their_key_have_one_effect() {
    const KEYS: usize = 100;
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for number in 0..KEYS {
        let mut stream = TcpStream::connect(&psp.address).await.unwrap();
        stream.write_all(&wire("123", &example(), Some(&format!("key-{number}")))).await.unwrap();
        // Half of them break off at once, wherever the request is then; the others when the answer begins.
        if number % 2 == 1 {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 1);
        }
    }
    let mut client = psp.client().await;
    for number in 0..KEYS {
        let begun = std::time::Instant::now();
        loop {
            let answer = client.post("123", &example(), Some(&format!("key-{number}"))).await.unwrap();
            if answer.status == StatusCode::CREATED {
                let replayed = answer.headers.contains_key("idempotency-replayed");
                assert!(replayed || number % 2 == 0, "key-{number} was answered before");
                break;
            }
            assert_eq!(answer.status, StatusCode::CONFLICT, "the first one is still under way: {}", answer.text);
            assert!(begun.elapsed() < crate::support::PATIENCE, "key-{number} stays under way");
            pause().await;
        }
    }
    let waiting = 2375 * KEYS;
    psp.until("123", "/balance", |balance| balance["waiting_funds"] == waiting).await;
    assert_eq!(psp.all("123", "/transactions").await.len(), KEYS);
    assert_eq!(psp.all("123", "/payables").await.len(), KEYS);
}
