//! The server's own limits, and its end.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{World, example};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

async fn serve(world: &World, grace: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        let _ = stopped.await;
    };
    let ended = tokio::spawn(psp_rest::serve(listener, world.router.clone(), stopped, grace));
    Server { address, stop, ended }
}

/// The request of the documentation on the wire, head and body.
fn wire() -> (String, String) {
    let body = example().to_string();
    let head = format!(
        "POST /transactions HTTP/1.1\r\nhost: psp\r\nx-customer-id: 123\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

async fn rest_of(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server ends it");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_stop_ends_silent_and_idle_connections_and_finishes_what_is_under_way() {
    let world = World::new();
    world.close_gate();
    let server = serve(&world, PATIENCE).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /_liveness_check_ HTTP/1.1\r\nhost: psp\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1]).await.unwrap() > 0);
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let (head, body) = wire();
    busy.write_all((head + &body).as_bytes()).await.unwrap();
    world.gated.arrived.acquire().await.unwrap().forget();

    server.stop.send(()).unwrap();
    assert_eq!(rest_of(&mut silent).await, "");
    rest_of(&mut idle).await;
    let refused = TcpStream::connect(server.address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(!server.ended.is_finished(), "a request is under way");
    world.gated.gate.add_permits(1);
    assert!(rest_of(&mut busy).await.starts_with("HTTP/1.1 201 "));
    tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_grace_period_ends_what_hangs() {
    let world = World::new();
    world.close_gate();
    let server = serve(&world, Duration::from_millis(50)).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let (head, body) = wire();
    busy.write_all((head + &body).as_bytes()).await.unwrap();
    world.gated.arrived.acquire().await.unwrap().forget();
    server.stop.send(()).unwrap();
    let ended = tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn headers_that_do_not_come_end_the_connection() {
    let server = serve(&World::new(), PATIENCE).await;
    for begun in ["", "POST /transactions HTTP/1.1\r\nhost: psp\r\nx-cust"] {
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_for_its_time_and_no_longer() {
    let server = serve(&World::new(), PATIENCE).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /_liveness_check_ HTTP/1.1\r\nhost: psp\r\n\r\n";
    let mut answer = [0; 1024];
    for _ in 0..2 {
        idle.write_all(request).await.unwrap();
        assert!(idle.read(&mut answer).await.unwrap() > 0);
        tokio::time::sleep(psp_rest::IDLE_TIMEOUT.mul_f32(0.95)).await;
    }
    assert_eq!(idle.read(&mut answer).await.unwrap(), 0, "it is closed in the end");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_and_never_reads_loses_its_connection() {
    let server = serve(&World::new(), PATIENCE).await;
    let mut greedy = TcpStream::connect(server.address).await.unwrap();
    let asking = async { while greedy.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: psp\r\n\r\n").await.is_ok() {} };
    // An hour of paused time: it passes at once when both sides wait for each other.
    tokio::time::timeout(Duration::from_hours(1), asking).await.expect("the server ends it");
}

#[tokio::test]
async fn headers_too_large_or_too_many_are_431_and_a_10_kb_customer_is_422() {
    let server = serve(&World::new(), PATIENCE).await;
    let answer_to = async |headers: String| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /balance HTTP/1.1\r\nhost: psp\r\nconnection: close\r\n{headers}\r\n");
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        rest_of(&mut stream).await
    };
    assert!(answer_to("x-customer-id: 123\r\n".into()).await.starts_with("HTTP/1.1 200 "));
    let long = answer_to(format!("x-customer-id: {}\r\n", "x".repeat(10_240))).await;
    assert!(long.starts_with("HTTP/1.1 422 "), "{long}");
    let many = answer_to("a: b\r\n".repeat(100)).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    let large = answer_to(format!("x-large: {}\r\n", "x".repeat(33_000))).await;
    assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
    let malformed = answer_to("no header\r\n".into()).await;
    assert!(malformed.starts_with("HTTP/1.1 400 "), "{malformed}");
    // What is left unread at the end may reset the connection and take the answer with it.
    let larger = answer_to(format!("x-large: {}\r\n", "x".repeat(200_000))).await;
    assert!(larger.is_empty() || larger.starts_with("HTTP/1.1 431 "), "{larger}");
}
