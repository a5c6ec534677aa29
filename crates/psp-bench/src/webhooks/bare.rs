//! Loops that send what deliveries send, and do nothing else.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use psp_webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookClient};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::CONCURRENCY;
use super::receiver::Receivers;

/// What is as long as the id of an event.
const ID: &str = "0198e8a0-0000-7000-8000-000000000000";
/// What is as long as a signature.
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

/// Requests per second of the deliverer's client.
pub(super) async fn client(
    client: &Arc<WebhookClient>,
    receivers: &Receivers,
    body: &Bytes,
    duration: Duration,
) -> anyhow::Result<f64> {
    let one = |number: usize, by: Instant| {
        let (client, url, body) = (Arc::clone(client), receivers.url(number), body.clone());
        async move {
            while Instant::now() < by {
                let sent = client.send(&url, ID.to_owned(), SIGNATURE.to_owned(), body.clone()).await;
                ensure!(sent == Ok(200), "{url}: {sent:?}");
            }
            Ok(())
        }
    };
    per_second(receivers, duration, one).await
}

/// Requests per second of hyper's connections, each kept by one loop.
pub(super) async fn connections(receivers: &Receivers, body: &Bytes, duration: Duration) -> anyhow::Result<f64> {
    let one = |number: usize, by: Instant| connection(receivers.addresses[number], body.clone(), by);
    per_second(receivers, duration, one).await
}

async fn connection(address: SocketAddr, body: Bytes, by: Instant) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, exchange) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(exchange);
    while Instant::now() < by {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/webhooks")
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "psp/0.1.0")
            .header(ID_HEADER, ID)
            .header(TIMESTAMP_HEADER, "1795000000")
            .header(SIGNATURE_HEADER, SIGNATURE)
            .body(Full::new(body.clone()))?;
        let response = sender.send_request(request).await?;
        ensure!(response.status() == 200, "{address}: {}", response.status());
        response.into_body().collect().await?;
        sender.ready().await?;
    }
    Ok(())
}

/// As many loops as deliveries are in hand; those of one receiver have its number.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn per_second<F>(
    receivers: &Receivers,
    duration: Duration,
    one: impl Fn(usize, Instant) -> F,
) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (begun, before, mut loops) = (Instant::now(), receivers.count(), JoinSet::new());
    for number in 0..CONCURRENCY {
        loops.spawn(one(number % receivers.addresses.len(), begun + duration));
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    Ok((receivers.count() - before) as f64 / begun.elapsed().as_secs_f64())
}
