//! Requests over HTTP/1.1 to endpoints that nobody knows, with limits on everything that could last or grow. No redirect is
//! followed, and no proxy asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use psp_domain::DeliveryAttempt;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::Reach;
use crate::connect::{Connector, Resolve};
use crate::idle::{Connection, IdleConnections};
use crate::names::Names;
use crate::retry_after;
use crate::secret::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::url::EndpointUrl;

/// The most that the head of an answer may take, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How much of an answer is read, in bytes, so that its connection can be used again; beyond, it is closed.
const MAX_READ_BYTES: usize = 16 * 1024;
/// How long that may take after the head: what drips is cut.
const BODY_PATIENCE: Duration = Duration::from_secs(1);

/// How a client sends.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Where endpoints may be.
    pub reach: Reach,
    /// How long connecting may take: the name, the connection, TLS.
    pub connect_timeout: Duration,
    /// How long the addresses of a name are used before they are asked for again.
    pub names_kept: Duration,
    /// How long one attempt may take, connecting and the answer included.
    pub timeout: Duration,
    /// The header `user-agent`.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            reach: Reach::Public,
            connect_timeout: Duration::from_secs(5),
            names_kept: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            user_agent: concat!("psp/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Sends deliveries.
pub struct WebhookClient {
    connector: Connector,
    idle: IdleConnections,
    timeout: Duration,
    reach: Reach,
    user_agent: HeaderValue,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing<'o> {
    pub(crate) url: &'o str,
    pub(crate) id: String,
    pub(crate) timestamp: i64,
    pub(crate) signatures: String,
    pub(crate) body: Bytes,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing may be delivered to this URL, by now.
    RefusedUrl,
    /// The host has no address that may be reached.
    RefusedAddress,
    Dns,
    Connect,
    Tls,
    /// Closed before the answer.
    Closed,
    /// What came is not HTTP/1.1, or its head is too large.
    Protocol,
    Timeout,
    /// Too many names are asked for: nothing was attempted, which is no fault of the endpoint.
    Busy,
}

impl Failure {
    /// Every failure of an endpoint.
    #[cfg(test)]
    const ALL: [Self; 8] = [
        Self::RefusedUrl,
        Self::RefusedAddress,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Closed,
        Self::Protocol,
        Self::Timeout,
    ];

    /// The word in the API and the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RefusedUrl => "refused_url",
            Self::RefusedAddress => "refused_address",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The beginning of the body.
    pub(crate) text: String,
    pub(crate) retry_after: Option<Duration>,
}

impl WebhookClient {
    /// A client; connects with the first delivery.
    ///
    /// # Errors
    /// When the user agent is not the value of a header.
    pub fn new(
        options: &ClientOptions,
        tls: ClientConfig,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, header::InvalidHeaderValue> {
        let &ClientOptions { reach, connect_timeout, names_kept, timeout, .. } = options;
        let user_agent = HeaderValue::from_str(&options.user_agent)?;
        let names = Names::new(resolver, names_kept);
        let connector = Connector { names, reach, tls: Arc::new(tls), timeout: connect_timeout };
        Ok(Self { connector, idle: IdleConnections::default(), timeout, reach, user_agent })
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends once, and says the status of the answer: what of a delivery remains without the store, for measurements.
    ///
    /// # Errors
    /// Why there was none, as [`DeliveryAttempt::error`] has it.
    pub async fn send(&self, url: &str, id: String, signatures: String, body: Bytes) -> Result<u16, &'static str> {
        let outgoing = Outgoing { url, id, timestamp: 0, signatures, body };
        self.post(outgoing, DateTime::UNIX_EPOCH).await.map(|answer| answer.status).map_err(Failure::as_str)
    }

    /// Closes connections that nobody has needed for a while.
    pub(crate) fn close_idle(&self) {
        self.idle.close_old();
    }

    /// Sends, and reads the beginning of the answer. The status decides: once it is there, nothing that the body does changes it.
    pub(crate) async fn post(&self, outgoing: Outgoing<'_>, now: DateTime<Utc>) -> Result<Answer, Failure> {
        let by = Instant::now() + self.timeout;
        let url = EndpointUrl::parse(outgoing.url, self.reach).map_err(|_| Failure::RefusedUrl)?;
        let request = self.request(&url, outgoing).ok_or(Failure::RefusedUrl)?;
        let exchanged = timeout_at(by, self.exchange(&url, request)).await;
        let Ok(exchanged) = exchanged else {
            // Those beside it may lead nowhere, too.
            self.idle.close(&url.origin());
            return Err(Failure::Timeout);
        };
        let (response, connection) = exchanged?;
        let status = response.status().as_u16();
        let retry_after = retry_after::parse(response.headers(), now);
        let mut kept = BytesMut::new();
        let by = by.min(Instant::now() + BODY_PATIENCE);
        let whole = timeout_at(by, read(response.into_body(), &mut kept)).await.unwrap_or(false);
        if whole {
            self.idle.put(url.origin(), connection);
        }
        // A database takes no NUL in a text.
        let text = String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}");
        Ok(Answer { status, text: shortened(text), retry_after })
    }

    /// The head of the answer, and the connection that its body comes on. A connection that waited may have been closed
    /// meanwhile: then another is made, because receivers tell by the id what they have.
    async fn exchange(
        &self,
        url: &EndpointUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        if let Some(mut waiting) = self.idle.take(&url.origin())
            && waiting.sender.ready().await.is_ok()
            && let Ok(response) = waiting.sender.send_request(request.clone()).await
        {
            return Ok((response, waiting));
        }
        let stream = TokioIo::new(self.connector.connect(url).await?);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_BYTES);
        let (sender, exchange) = builder.handshake(stream).await.map_err(|_| Failure::Closed)?;
        let task = tokio::spawn(async move {
            // Whoever waits for the answer learns of it.
            let _ = exchange.await;
        });
        let mut connection = Connection { sender, made_at: Instant::now(), _task: AbortOnDropHandle::new(task) };
        match connection.sender.send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(error) if error.is_parse() => Err(Failure::Protocol),
            Err(_) => Err(Failure::Closed),
        }
    }

    fn request(&self, url: &EndpointUrl, outgoing: Outgoing<'_>) -> Option<Request<Full<Bytes>>> {
        let Outgoing { id, timestamp, signatures, body, .. } = outgoing;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.path().parse().ok()?;
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert(header::HOST, url.authority().parse().ok()?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(ID_HEADER, id.parse().ok()?);
        headers.insert(TIMESTAMP_HEADER, timestamp.into());
        headers.insert(SIGNATURE_HEADER, signatures.parse().ok()?);
        Some(request)
    }
}

/// Keeps the beginning of a body; whether it was read to its end.
async fn read(mut body: Incoming, kept: &mut BytesMut) -> bool {
    let mut read = 0;
    while read <= MAX_READ_BYTES {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                read += data.len();
                let room = DeliveryAttempt::MAX_ANSWER_BYTES - kept.len();
                kept.extend_from_slice(&data[..room.min(data.len())]);
            }
        }
    }
    false
}

/// The text, with what replaced bytes no longer than what is kept.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(DeliveryAttempt::MAX_ANSWER_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_documented() {
        let page = include_str!("../../../docs/webhooks.md");
        for failure in Failure::ALL {
            let row = format!("\n| `{}` | ", failure.as_str());
            assert!(page.contains(&row), "docs/webhooks.md must have {row}");
        }
    }
}
