//! Signed requests over HTTP/1.1, with limits on everything that could last or grow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use psp_domain::ports::{Clock, GatewayError};
use zeroize::Zeroizing;

use crate::signature::{SIGNATURE_HEADER, Signed, SigningKey, TIMESTAMP_HEADER};
use crate::soap::ACTION_HEADER;
use crate::url::GatewayUrl;

/// The largest answer, in bytes; a larger one makes no sense.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The most that the head of an answer may take, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Connections kept for the next requests, and how long: below the usual keep-alive times of servers.
const MAX_IDLE_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(20);

/// Whose certificates a client believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Those that this machine trusts, or of the file that `SSL_CERT_FILE` names.
    ThisMachine,
    /// None: what is asked is on this machine, without TLS.
    Nobody,
}

/// What is sent.
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Below the address, with a slash before it; or empty.
    pub path: String,
    /// The type of the body, where there is one.
    pub content_type: Option<&'static str>,
    /// The header `SOAPAction`, where there is one.
    pub action: Option<String>,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// What came back: the status, and the body where that is small enough.
#[derive(Debug)]
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Option<Bytes>,
}

/// A client whose requests are signed. Redirects are not followed, bodies neither logged nor kept.
pub struct SignedClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    key: SigningKey,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SignedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl SignedClient {
    /// A client; connects with the first request. Connecting may take so long, and a whole call.
    ///
    /// # Errors
    /// When the certificates that this machine trusts cannot be read.
    pub fn new(
        key: SigningKey,
        trust: Trust,
        (connect_timeout, timeout): (Duration, Duration),
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
        let tls = match trust {
            Trust::ThisMachine => tls.with_native_roots()?,
            Trust::Nobody => tls.with_root_certificates(rustls::RootCertStore::empty()),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
        let connector = connector.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        Ok(Self { client, key, timeout, clock })
    }

    /// The key that signs.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Now, in seconds since 1970.
    pub(crate) fn timestamp(&self) -> i64 {
        self.clock.now().timestamp()
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] where nothing was sent, [`GatewayError::TimedOut`] where no answer came.
    pub async fn call(&self, url: &GatewayUrl, outgoing: Outgoing) -> Result<Incoming, GatewayError> {
        let request = self.request(url, outgoing)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let is_connect = error.is_connect();
                tracing::warn!(
                    host = url.host(),
                    error = &error as &dyn std::error::Error,
                    sent = !is_connect,
                    "no answer came"
                );
                if is_connect { GatewayError::Unavailable("no connection".into()) } else { GatewayError::TimedOut }
            })?;
            let status = response.status();
            // Also of answers that tell nothing more: what is read to its end leaves the connection to the next request.
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok(Incoming { status, body: body.ok().map(http_body_util::Collected::to_bytes) })
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(GatewayError::TimedOut))
    }

    fn request(&self, url: &GatewayUrl, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, GatewayError> {
        let Outgoing { method, path, content_type, action, body } = outgoing;
        let (path, timestamp) = (url.path_of(&path), self.timestamp());
        let signature = self.key.sign(&Signed { timestamp, method: method.as_str(), path: &path, body: &body });
        let failed = || GatewayError::Unavailable("the request could not be made".into());
        let mut request = Request::builder().method(method).uri(url.with_path(&path).ok_or_else(failed)?);
        request = request.header(TIMESTAMP_HEADER, timestamp).header(SIGNATURE_HEADER, signature);
        if let Some(content_type) = content_type {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        if let Some(action) = action {
            request = request.header(ACTION_HEADER, action);
        }
        // The bytes are overwritten when the last holder lets go of them; copies that the connection makes to encrypt and
        // send them are not ours to overwrite.
        request.body(Full::new(Bytes::from_owner(body))).map_err(|_| failed())
    }
}
