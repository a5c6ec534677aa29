//! SIGTERM and SIGINT: what is under way is finished, what is not is left to the next process.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Backend, Place, Process, example, example_with, pause, read_answer, wire};

/// Waits until the process says so of itself.
async fn await_metric(psp: &Process, line: &str) {
    let begun = std::time::Instant::now();
    while !psp.get("", "/metrics").await.text.lines().any(|found| found == line) {
        assert!(begun.elapsed() < crate::support::PATIENCE, "{line} does not come");
        pause().await;
    }
}

#[tokio::test]
async fn a_request_whose_body_is_still_coming_is_answered_and_no_other_is_taken() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new(&[]);
        let mut psp = place.serve().await;
        let request = wire("123", &example(), None);
        let (sent, rest) = request.split_at(request.len() - 20);
        let mut stream = TcpStream::connect(&psp.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        // This request, and the one that asks.
        await_metric(&psp, "psp_http_requests_in_flight 2").await;
        psp.signal(signal);
        psp.await_log("stopping").await;
        let begun = std::time::Instant::now();
        while TcpStream::connect(&psp.address).await.is_ok() {
            assert!(begun.elapsed() < crate::support::PATIENCE, "still accepts connections");
            pause().await;
        }
        stream.write_all(rest).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{signal}: {answer}");
        assert!(psp.ended().await.success(), "{signal}: {}", psp.log());
        assert!(psp.log().contains("stopped"), "{signal}: {}", psp.log());

        let psp = place.serve().await;
        psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    }
}

#[tokio::test]
async fn a_message_in_hand_is_finished_and_acknowledged_before_the_exit() {
    let place = Place::new(&[("PSP_SANDBOX_SLOW_MS", "1000")]);
    let mut psp = place.serve().await;
    psp.post("123", &example_with(&serde_json::json!({ "card_number": "4000000000003220" }))).await;
    await_metric(&psp, "psp_messages_in_flight{queue=\"transactions\"} 1").await;
    psp.signal("-TERM");
    assert!(psp.ended().await.success(), "{}", psp.log());
    let approved = place.count("SELECT 1 FROM transactions WHERE status = 'pending_payment'").await;
    let payables = place.count("SELECT 1 FROM payables").await;
    let pending = place.count("SELECT 1 FROM outbox WHERE queue IS NOT NULL AND visible_at IS NOT NULL").await;
    assert_eq!((approved, payables, pending), (1, 1, 0), "{}", psp.log());
}

#[tokio::test]
async fn a_message_whose_process_was_killed_comes_again_when_its_lease_ends() {
    let lease = ("PSP_VISIBILITY_TIMEOUT_MS", "1000");
    let place = Place::new(&[("PSP_SANDBOX_SLOW_MS", "60000"), ("PSP_GATEWAY_TIMEOUT_MS", "100000"), lease]);
    let mut psp = place.serve().await;
    psp.post("123", &example_with(&serde_json::json!({ "card_number": "4000000000003220" }))).await;
    await_metric(&psp, "psp_messages_in_flight{queue=\"transactions\"} 1").await;
    psp.kill();
    let psp = place.start(&["serve", "--sandbox-slow-ms", "0"]).await;
    let path = "/transactions";
    let list = psp.until("123", path, |list| list[0]["status"] == "pending_payment").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    if crate::BACKEND != Backend::PostgresAndSqs {
        let received = place.count("SELECT 1 FROM outbox WHERE receive_count = 2").await;
        assert_eq!(received, 1, "once by each process");
    }
    assert_eq!(psp.all("123", "/payables").await.len(), 1);
}

/// How long a stop may take that has nothing to wait for.
const PROMPT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn idle_roles_stop_promptly() {
    let place = Place::new(&[]);
    for role in ["serve", "api", "worker", "scheduler"] {
        let mut process = place.start(&[role]).await;
        let begun = std::time::Instant::now();
        process.signal("-TERM");
        assert!(process.ended().await.success(), "{role}: {}", process.log());
        assert!(begun.elapsed() < PROMPT, "{role} took {:?}", begun.elapsed());
    }
}
