//! An acquirer over HTTP; the protocol is `docs/gateway-protocol.md`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, Clock, ForgedCallback, Gateway, GatewayError,
    RefundRequest,
};
use psp_domain::{AttemptReference, GatewayName};

use crate::answer::{Question, Reading};
use crate::signature::{BadSignature, Signed, SigningKey};
use crate::transport::{SignedClient, Trust};
use crate::url::GatewayUrl;
use crate::{json, xml};

/// How a gateway is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// JSON: one resource per operation.
    Json,
    /// XML in SOAP 1.1 envelopes: all operations at one address.
    Xml,
}

/// How to reach a gateway.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Its name.
    pub name: GatewayName,
    /// What it speaks.
    pub protocol: HttpProtocol,
    /// Where it is.
    pub url: GatewayUrl,
    /// What signs the requests, and its callbacks.
    pub key: SigningKey,
    /// Where it calls back: it is told this address and `/callback/{transaction_id}`. Where absent it is told none.
    pub callback_base: Option<GatewayUrl>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a whole call may take.
    pub timeout: Duration,
}

/// A gateway that speaks HTTP. Requests are signed, redirects not followed, bodies neither logged nor kept.
///
/// Only what says in the protocol's form that the request was not taken is believed: with 429 and 503 it is
/// [`GatewayError::Unavailable`], as is no connection; with any other 4xx, and in XML as a fault of the client, it is
/// [`GatewayError::Refused`]. Everything else that is no decision is [`GatewayError::TimedOut`], also a bare 503: whoever
/// stands in front of the gateway may have sent it after the gateway charged.
pub struct HttpGateway {
    client: SignedClient,
    options: HttpOptions,
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpGateway").field(&self.options).finish()
    }
}

impl HttpGateway {
    /// A gateway at that address; connects with the first request.
    ///
    /// # Errors
    /// When the certificates that this machine trusts cannot be read, of `https` only.
    pub fn new(options: HttpOptions, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let trust = if options.url.is_https() { Trust::ThisMachine } else { Trust::Nobody };
        let limits = (options.connect_timeout, options.timeout);
        let client = SignedClient::new(options.key.clone(), trust, limits, clock)?;
        Ok(Self { client, options })
    }

    async fn ask(&self, question: Question<'_>) -> Result<(Reading, StatusCode), GatewayError> {
        let outgoing = match self.options.protocol {
            HttpProtocol::Json => json::write(&question)?,
            HttpProtocol::Xml => xml::write(&question),
        };
        let incoming = self.client.call(&self.options.url, outgoing).await?;
        let (status, body) = (incoming.status, incoming.body.as_deref());
        let reading = match self.options.protocol {
            HttpProtocol::Json => json::read(status, body),
            HttpProtocol::Xml => xml::read(&question, status, body),
        };
        Ok((reading, status))
    }

    /// Asks for a decision, which `None` is none of: the gateway does not know the reference.
    async fn decide(&self, question: Question<'_>) -> Result<Option<AuthorizationResult>, GatewayError> {
        match self.ask(question).await? {
            (Reading::UnknownReference, _) if matches!(question, Question::Find(_)) => Ok(None),
            (Reading::Answer(answer), status) => {
                let decision = answer.decision(question.reference());
                decision.map(Some).ok_or_else(|| Reading::Senseless.error(status))
            }
            (reading, status) => Err(reading.error(status)),
        }
    }

    async fn decided(&self, question: Question<'_>) -> Result<AuthorizationResult, GatewayError> {
        self.decide(question).await?.ok_or(GatewayError::TimedOut)
    }
}

#[async_trait]
impl Gateway for HttpGateway {
    fn name(&self) -> &GatewayName {
        &self.options.name
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let path = || format!("/callback/{}", request.transaction_id);
        let callback_url = self.options.callback_base.as_ref().map(|base| base.join(&path()));
        self.decided(Question::Authorize(request, callback_url.as_deref())).await
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.decide(Question::Find(reference)).await
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        match self.ask(Question::Void(reference)).await? {
            (Reading::Answer(answer), _) if answer.is_void_of(reference) => Ok(()),
            (reading, status) => Err(reading.error(status)),
        }
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.decided(Question::Refund(request)).await
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        let signature = callback.signature.ok_or(ForgedCallback::Signature)?;
        let timestamp = callback.timestamp.and_then(|text| text.parse().ok()).ok_or(ForgedCallback::Stale)?;
        let signed = Signed { timestamp, method: "POST", path: callback.path, body: callback.body };
        self.client.key().verify(&signed, signature, self.client.timestamp()).map_err(|error| match error {
            BadSignature::Stale => ForgedCallback::Stale,
            BadSignature::Forged => ForgedCallback::Signature,
        })
    }
}
