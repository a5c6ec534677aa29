//! An acquirer over HTTP; the protocol is `docs/gateway-protocol.md`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Clock, Gateway, GatewayError};
use psp_domain::{PaymentMethod, TransactionId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::signature::{SIGNATURE_HEADER, Signed, SigningKey, TIMESTAMP_HEADER};

/// The largest answer, in bytes; a larger one makes no sense.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The most that the head of an answer may take, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// More than any request takes, so that no buffer with card data grows and leaves a copy behind.
const REQUEST_BYTES: usize = 2 * 1024;
/// Connections kept for the next requests, and how long: below the usual keep-alive times of servers.
const MAX_IDLE_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(20);
/// The longest reference of a gateway, and the longest reason, in characters.
const MAX_REFERENCE_LEN: usize = 100;
const MAX_REASON_LEN: usize = 64;

/// Where a gateway is: `https`, or `http` on this machine, because a card goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    uri: Uri,
    /// Without the slash at its end.
    path: String,
}

/// Not the address of a gateway. Never carries the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be https:// and a host, perhaps with a port and a path; http:// only for this machine (127.0.0.1)")]
pub struct InvalidUrl;

impl FromStr for GatewayUrl {
    type Err = InvalidUrl;

    fn from_str(s: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = s.parse().map_err(|_| InvalidUrl)?;
        let host = uri.host().ok_or(InvalidUrl)?;
        let scheme = uri.scheme().ok_or(InvalidUrl)?;
        let safe = *scheme == Scheme::HTTPS || (*scheme == Scheme::HTTP && is_this_machine(host));
        let plain = uri.query().is_none() && !s.contains(['@', '#']) && !host.is_empty();
        if !safe || !plain {
            return Err(InvalidUrl);
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, path })
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// How to reach a gateway.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where it is.
    pub url: GatewayUrl,
    /// What signs the requests.
    pub key: SigningKey,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a whole call may take.
    pub timeout: Duration,
}

/// A gateway that speaks HTTP. Requests are signed, redirects not followed, bodies neither logged nor kept.
///
/// An answer that says that the request was not taken is [`GatewayError::Unavailable`]: no connection, 429, 503, any other
/// 4xx. Everything else that is no decision is [`GatewayError::TimedOut`].
pub struct HttpGateway {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    options: HttpOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpGateway").field(&self.options).finish()
    }
}

/// The body of an authorization.
#[derive(Serialize)]
struct AuthorizationBody<'a> {
    reference: TransactionId,
    amount: i64,
    currency: &'static str,
    method: PaymentMethod,
    installments: u8,
    card: CardBody<'a>,
}

#[derive(Serialize)]
struct CardBody<'a> {
    number: &'a str,
    holder_name: &'a str,
    expiry: String,
    verification_code: &'a str,
}

/// The body of every answer with status 200.
#[derive(Deserialize)]
struct Answer {
    reference: TransactionId,
    status: Status,
    gateway_reference: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Status {
    Approved,
    Declined,
    Voided,
}

/// The body of a 404 that means that nothing was decided, and not that nobody is there.
#[derive(Deserialize)]
struct Unknown {
    error: UnknownReference,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnknownReference {
    UnknownReference,
}

impl HttpGateway {
    /// A gateway at that address; connects with the first request.
    ///
    /// # Errors
    /// When the certificates that this machine trusts cannot be read, of `https` only.
    pub fn new(options: HttpOptions, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
        let is_https = options.url.uri.scheme() == Some(&Scheme::HTTPS);
        let tls = if is_https {
            tls.with_native_roots()?
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty())
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
        let connector = connector.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        Ok(Self { client, options, clock })
    }

    /// Asks, and reads the answer: its status, and its body where that is small enough.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<(StatusCode, Option<Bytes>), GatewayError> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let is_connect = error.is_connect();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    sent = !is_connect,
                    "the gateway did not answer"
                );
                if is_connect { GatewayError::Unavailable("no connection".into()) } else { GatewayError::TimedOut }
            })?;
            let status = response.status();
            // Also of answers that tell nothing more: what is read to its end leaves the connection to the next request.
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.ok().map(http_body_util::Collected::to_bytes)))
        };
        tokio::time::timeout(self.options.timeout, exchange).await.unwrap_or(Err(GatewayError::TimedOut))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, GatewayError> {
        let (url, timestamp) = (&self.options.url, self.clock.now().timestamp());
        let path = format!("{}{path}", url.path);
        let signed = Signed { timestamp, method: method.as_str(), path: &path, body: &body };
        let signature = self.options.key.sign(&signed);
        let mut parts = url.uri.clone().into_parts();
        let failed = || GatewayError::Unavailable("the request could not be made".into());
        parts.path_and_query = Some(path.parse().map_err(|_| failed())?);
        let uri = Uri::from_parts(parts).map_err(|_| failed())?;
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header(TIMESTAMP_HEADER, timestamp).header(SIGNATURE_HEADER, signature);
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        // The bytes are overwritten when the last holder lets go of them; copies that the connection makes to encrypt and
        // send them are not ours to overwrite.
        request.body(Full::new(Bytes::from_owner(body))).map_err(|_| failed())
    }
}

/// The answer's meaning; what is none may have charged.
fn decision(id: TransactionId, answer: Answer) -> Option<AuthorizationResult> {
    if answer.reference != id {
        return None;
    }
    match (answer.status, answer.gateway_reference, answer.reason) {
        (Status::Approved, Some(reference), _)
            if (1..=MAX_REFERENCE_LEN).contains(&reference.len())
                && reference.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Some(AuthorizationResult::Approved { reference })
        }
        (Status::Declined, _, Some(reason))
            if (1..=MAX_REASON_LEN).contains(&reason.len())
                && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            Some(AuthorizationResult::Declined { reason })
        }
        _ => None,
    }
}

/// Of an answer that is no decision: whether it says that nothing was taken.
fn refusal(status: StatusCode) -> GatewayError {
    if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
        return GatewayError::Unavailable(format!("answered {}", status.as_u16()));
    }
    tracing::warn!(status = status.as_u16(), "the gateway's answer is none: the outcome is unknown");
    GatewayError::TimedOut
}

fn parsed<T: for<'de> Deserialize<'de>>(body: Option<Bytes>) -> Option<T> {
    serde_json::from_slice(&body?).ok()
}

#[async_trait]
impl Gateway for HttpGateway {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let (id, card) = (request.transaction_id, &request.card);
        let content = AuthorizationBody {
            reference: id,
            amount: request.amount.minor(),
            currency: request.amount.currency().code(),
            method: request.payment_method,
            installments: request.installments.get(),
            card: CardBody {
                number: card.number.expose(),
                holder_name: card.holder_name.as_str(),
                expiry: card.expiry.first_day().format("%m/%Y").to_string(),
                verification_code: card.verification_code.expose(),
            },
        };
        let mut body = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES));
        // The error of a serializer may quote what it was given.
        serde_json::to_writer(&mut *body, &content)
            .map_err(|_| GatewayError::Unavailable("the request could not be written".into()))?;
        match self.call(Method::POST, "/authorizations", body).await? {
            (StatusCode::OK, body) => {
                parsed(body).and_then(|answer| decision(id, answer)).ok_or_else(|| refusal(StatusCode::OK))
            }
            (status, _) => Err(refusal(status)),
        }
    }

    async fn find(&self, id: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError> {
        match self.call(Method::GET, &format!("/authorizations/{id}"), Zeroizing::default()).await? {
            (StatusCode::OK, body) => {
                let found = parsed(body).and_then(|answer| decision(id, answer));
                found.map(Some).ok_or_else(|| refusal(StatusCode::OK))
            }
            (StatusCode::NOT_FOUND, body) => match parsed(body) {
                Some(Unknown { error: UnknownReference::UnknownReference }) => Ok(None),
                None => Err(refusal(StatusCode::NOT_FOUND)),
            },
            (status, _) => Err(refusal(status)),
        }
    }

    async fn void(&self, id: TransactionId) -> Result<(), GatewayError> {
        match self.call(Method::POST, &format!("/authorizations/{id}/void"), Zeroizing::default()).await? {
            (StatusCode::OK, body) => match parsed::<Answer>(body) {
                Some(answer) if answer.reference == id && answer.status == Status::Voided => Ok(()),
                _ => Err(refusal(StatusCode::OK)),
            },
            (status, _) => Err(refusal(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_go_over_tls_or_stay_on_this_machine() {
        for right in [
            "https://acquirer.example",
            "https://acquirer.example:8443/v1/",
            "http://127.0.0.1:8080",
            "http://[::1]:1/x",
        ] {
            assert!(right.parse::<GatewayUrl>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "acquirer.example",
            "/v1",
            "ftp://127.0.0.1",
            "http://acquirer.example",
            "http://127.0.0.1.acquirer.example",
            "http://localhost.acquirer.example",
            "https://user:password@acquirer.example",
            "https://acquirer.example/?key=1",
            "https://",
        ] {
            assert_eq!(wrong.parse::<GatewayUrl>(), Err(InvalidUrl), "{wrong}");
        }
    }

    #[test]
    fn an_answer_about_something_else_or_with_parts_that_make_no_sense_is_none() {
        let id: TransactionId = "01a1fc23-adfc-74b8-ab63-7bfa62344961".parse().unwrap();
        let read = |rest: &str| {
            let text = format!(r#"{{"reference":"{id}",{rest}}}"#);
            parsed(Some(Bytes::from(text))).and_then(|answer| decision(id, answer))
        };
        assert!(read(r#""status":"approved","gateway_reference":"a-1""#).is_some());
        assert!(read(r#""status":"declined","reason":"do_not_honor""#).is_some());
        for wrong in [
            r#""status":"approved""#,
            r#""status":"approved","gateway_reference":"""#,
            r#""status":"approved","gateway_reference":"a b""#,
            r#""status":"declined","gateway_reference":"a-1""#,
            r#""status":"declined","reason":"4111111111111111""#,
            r#""status":"voided","reason":"voided""#,
            r#""status":"pending","gateway_reference":"a-1""#,
            r#""gateway_reference":"a-1""#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let text =
            r#"{"reference":"01a1fc23-adfc-74b8-ab63-7bfa62344962","status":"approved","gateway_reference":"a-1"}"#;
        assert_eq!(parsed(Some(Bytes::from(text))).and_then(|answer| decision(id, answer)), None);
    }
}
