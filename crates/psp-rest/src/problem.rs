//! Errors as problem details (RFC 9457).

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use psp_domain::ports::{FingerprintError, StoreError, VaultError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::format::Format;
use crate::xml;

/// The namespace of problems in XML (RFC 9457, appendix B).
pub(crate) const XML_NAMESPACE: &str = "urn:ietf:rfc:7807";
/// How a request without a good signature is to be made: as `docs/gateway-protocol.md` has it.
const CHALLENGE: HeaderValue = HeaderValue::from_static("psp-signature");

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// The field, header or parameter.
    #[schema(example = "amount")]
    pub(crate) path: Cow<'static, str>,
    /// What is wrong. Never the rejected value.
    #[schema(example = "must be an integer or a string of digits, from 1 to 1000000000000")]
    pub(crate) message: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn new(path: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// A problem, before it is known which request it answers. The middleware renders it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) slug: &'static str,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) errors: Vec<Fault>,
    pub(crate) retry_after_seconds: Option<u32>,
    /// What an operator must learn of: logged with the request's id, never sent.
    pub(crate) cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// An error with its causes, in one line. Logs in JSON show only the outermost of an error's messages by themselves.
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// A problem as it is sent: `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Names the kind of problem; stable.
    #[serde(rename = "type")]
    #[schema(example = "urn:psp:problem:invalid-request")]
    kind: String,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong with this request.
    detail: &'a str,
    /// The request that failed: its id, as in the `x-request-id` header and the logs.
    #[schema(example = "urn:psp:request:0199f0a0-0000-7000-8000-000000000000")]
    instance: String,
    /// Every fault of the request.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

/// A problem as it is sent: `application/problem+xml`. An array is an element with an `i` for each item.
#[derive(Serialize)]
struct ProblemElement<'a> {
    #[serde(rename = "@xmlns")]
    namespace: &'static str,
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: String,
    #[serde(skip_serializing_if = "FaultElements::is_empty")]
    errors: FaultElements<'a>,
}

#[derive(Serialize)]
struct FaultElements<'a> {
    i: &'a [Fault],
}

impl FaultElements<'_> {
    const fn is_empty(&self) -> bool {
        self.i.is_empty()
    }
}

impl<'a> From<ProblemBody<'a>> for ProblemElement<'a> {
    fn from(body: ProblemBody<'a>) -> Self {
        let ProblemBody { kind, title, status, detail, instance, errors } = body;
        let errors = FaultElements { i: errors };
        Self { namespace: XML_NAMESPACE, kind, title, status, detail, instance, errors }
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, slug: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, slug, detail: detail.into(), ..Self::default() }
    }

    /// 422 with every fault.
    pub(crate) fn invalid(errors: Vec<Fault>) -> Self {
        let detail = "the request has faults; `errors` names each of them";
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail) }
    }

    /// 503 for a passing reason.
    pub(crate) fn unavailable(slug: &'static str, detail: &'static str) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, detail) }
    }

    /// 500 without details.
    pub(crate) fn internal() -> Self {
        let detail = "an internal error; the log has it under this request's id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error", detail)
    }

    /// The same problem, with what is to be logged of it.
    pub(crate) fn because(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }

    /// 404.
    pub(crate) fn missing(what: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", what)
    }

    /// The body of this problem for a request.
    pub(crate) fn render(&self, request_id: &str, format: Format) -> Vec<u8> {
        let body = ProblemBody {
            kind: format!("urn:psp:problem:{}", self.slug),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: format!("urn:psp:request:{request_id}"),
            errors: &self.errors,
        };
        match format {
            Format::Json => serde_json::to_vec(&body).unwrap_or_default(),
            Format::Xml | Format::TextXml => {
                xml::element("problem", &ProblemElement::from(body)).unwrap_or_default().into_bytes()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match error {
            // Expected under load, and counted by its status: a line for each would only add to it.
            StoreError::Overloaded => {
                return Self::unavailable("overloaded", "too many writes are waiting; nothing was written");
            }
            StoreError::Unavailable(_) => {
                Self::unavailable("unavailable", "the store is unavailable; nothing was written")
            }
            StoreError::OutcomeUnknown(_) => Self::unavailable(
                "outcome-unknown",
                "the write may or may not have happened; repeat the request with the same Idempotency-Key, or look it up",
            ),
            StoreError::Damaged(_) => Self::internal(),
        };
        problem.because(error)
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        let problem = match error {
            VaultError::Unavailable | VaultError::Refused => {
                Self::unavailable("unavailable", "the vault cannot be used for the moment; nothing was written")
            }
            _ => Self::internal(),
        };
        problem.because(error)
    }
}

impl From<FingerprintError> for Problem {
    fn from(error: FingerprintError) -> Self {
        match error {
            FingerprintError::Vault(error) => error.into(),
            FingerprintError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) async fn not_found() -> Problem {
    Problem::missing("there is no such path")
}
