//! Servers that misbehave, and gateways that ask them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use psp_domain::ports::{AuthorizationRequest, GatewayError, SystemClock};
use psp_gateways::{HttpGateway, HttpOptions, HttpProtocol, SigningKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const SECRET: &str = "a secret of the tests, which is long enough";
pub(crate) const NUMBER: &str = "4111111111111111";

pub(crate) fn key() -> SigningKey {
    SigningKey::new(SECRET.into()).unwrap()
}

/// A gateway at that address that calls nobody back.
pub(crate) fn options(protocol: HttpProtocol, url: &str) -> HttpOptions {
    let timeout = Duration::from_secs(10);
    HttpOptions {
        name: "acquirer".parse().unwrap(),
        protocol,
        url: url.parse().unwrap(),
        key: key(),
        callback_base: None,
        connect_timeout: timeout,
        timeout,
    }
}

pub(crate) fn gateway(protocol: HttpProtocol, url: &str) -> HttpGateway {
    HttpGateway::new(options(protocol, url), Arc::new(SystemClock)).unwrap()
}

/// A server that says the same to everybody, and then closes the connection.
pub(crate) struct Parrot {
    pub(crate) address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Parrot {
    pub(crate) async fn saying(answer: impl Into<String>) -> Self {
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

    pub(crate) async fn answering(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::saying(format!("HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\r\n{body}"))
            .await
    }

    pub(crate) fn gateway(&self, protocol: HttpProtocol) -> HttpGateway {
        gateway(protocol, &format!("http://{}/v1/", self.address))
    }

    pub(crate) fn heard(&self) -> Vec<String> {
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

/// A header of a request that was heard.
#[allow(dead_code, reason = "not every test program asks for it")]
pub(crate) fn header<'h>(heard: &'h str, name: &str) -> Option<&'h str> {
    let lines = heard.split_once("\r\n\r\n").unwrap().0.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(other, _)| *other == name).map(|(_, value)| value).next()
}

/// Whether the outcome is unknown, or nothing was taken. Either way the error shows nothing of the card.
#[allow(dead_code, reason = "not every test program asks for it")]
pub(crate) fn is_unknown<T: std::fmt::Debug>(answer: Result<T, GatewayError>, request: &AuthorizationRequest) -> bool {
    let error = answer.unwrap_err();
    let shown = format!("{error} {error:?}");
    let card = request.card.as_ref().unwrap();
    assert!(!card.number.appears_in(&shown) && !shown.contains("Skywalker"), "{shown}");
    error == GatewayError::TimedOut
}
