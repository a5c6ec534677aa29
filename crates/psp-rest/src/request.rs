//! Reading requests: headers and bodies, with every fault gathered.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use chrono::{DateTime, Utc};
use psp_domain::{CardNumber, CorrelationId, CustomerId};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use crate::problem::{Fault, Problem};
use crate::state::App;

pub(crate) const CUSTOMER_HEADER: HeaderName = HeaderName::from_static("x-customer-id");

/// What every request of a customer carries.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers; `customer` and the middleware read them")]
pub(crate) struct CustomerHeaders {
    /// The merchant: visible ASCII; no card number where something is created.
    #[param(rename = "x-customer-id", min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = "123")]
    customer_id: String,
    /// Names the request in the answer, in problems and in logs: visible ASCII. One is made where there is none.
    #[param(rename = "x-request-id", nullable = false, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    request_id: Option<String>,
}

/// What a request carries that may belong to the configured customer.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers; `customer_or_default` and the middleware read them")]
pub(crate) struct OptionalCustomerHeaders {
    /// The merchant: visible ASCII; no card number where something is created; the configured one where absent.
    #[param(
        rename = "x-customer-id",
        nullable = false,
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]+$",
        example = "123"
    )]
    customer_id: Option<String>,
    /// Names the request in the answer, in problems and in logs: visible ASCII. One is made where there is none.
    #[param(rename = "x-request-id", nullable = false, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    request_id: Option<String>,
}

/// Whose request it is.
pub(crate) fn customer(headers: &HeaderMap) -> Result<CustomerId, Fault> {
    let path = "x-customer-id";
    let mut values = headers.get_all(CUSTOMER_HEADER).iter();
    let value = values.next().ok_or_else(|| Fault::new(path, "the header is required"))?;
    if values.next().is_some() {
        return Err(Fault::new(path, "must be given once"));
    }
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|error: psp_domain::InvalidName| Fault::new(path, error.to_string()))
}

/// Whose request it is, where it need not say so: the configured customer's, then.
pub(crate) fn customer_or_default(app: &App, headers: &HeaderMap) -> Result<CustomerId, Fault> {
    if headers.contains_key(CUSTOMER_HEADER) { customer(headers) } else { Ok(app.options.default_customer.clone()) }
}

/// The customer of a request that has no other faults.
pub(crate) struct Customer(pub(crate) CustomerId);

impl<S: Sync> FromRequestParts<S> for Customer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        customer(&parts.headers).map(Self).map_err(|fault| Problem::invalid(vec![fault]))
    }
}

/// The customer of a request that has no other faults and need not name one.
pub(crate) struct CustomerOrDefault(pub(crate) CustomerId);

impl FromRequestParts<Arc<App>> for CustomerOrDefault {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        customer_or_default(app, &parts.headers).map(Self).map_err(|fault| Problem::invalid(vec![fault]))
    }
}

/// An id in the path. What is no UUID names nothing.
pub(crate) struct PathId(pub(crate) uuid::Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let missing = || Problem::missing("there is no such resource");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| missing())?;
        text.parse().map(Self).map_err(|_| missing())
    }
}

/// The id of a request, given or made; the middleware leaves it with the request.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

/// What joins all that a request causes: its id.
pub(crate) struct Correlation(pub(crate) CorrelationId);

impl<S: Send + Sync> FromRequestParts<S> for Correlation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let id = parts.extensions.get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok()?.parse().ok());
        id.map(Self).ok_or_else(Problem::internal)
    }
}

/// The bytes of a JSON body, no larger than the limit.
pub(crate) struct JsonBytes(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        read_bytes(request, state).await.map(Self)
    }
}

/// The bytes of a JSON body that may be left out: an empty object, then.
pub(crate) struct OptionalJsonBytes(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = read_bytes(request, state).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) => Ok(Self(Bytes::from_static(b"{}"))),
            (false, true) => Ok(Self(bytes)),
            (false, false) => Err(not_json()),
        }
    }
}

fn not_json() -> Problem {
    let detail = "the body must be JSON, with content-type: application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
}

/// The bytes of a body, no larger than the limit.
pub(crate) async fn read_bytes(request: Request, state: &(impl Send + Sync)) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body must be at most {} bytes", crate::MAX_BODY_BYTES);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "bad-request", "the body could not be read")
        }
    })
}

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence.to_ascii_lowercase().starts_with("application/") && essence.ends_with("+json"))
}

/// The fields of a body that is a JSON object.
pub(crate) fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    // Serde would take an array for a struct: its elements in the order of the fields.
    if body.trim_ascii_start().first() == Some(&b'[') {
        let array: Result<IgnoredAny, _> = serde_json::from_slice(body);
        return Err(array.err().map_or_else(no_object, |error| unreadable(&error)));
    }
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Problem {
    if error.classify() == serde_json::error::Category::Data {
        no_object()
    } else {
        let detail = format!("the body is not JSON (line {}, column {})", error.line(), error.column());
        Problem::new(StatusCode::BAD_REQUEST, "malformed-json", detail)
    }
}

fn no_object() -> Problem {
    Problem::invalid(vec![Fault::new("", "must be a JSON object that names no field twice")])
}

/// The fields of a body that is a JSON object; where it is none, the faults that were found before are told with it.
pub(crate) fn object_after<'b, T: Deserialize<'b>>(faults: &mut Vec<Fault>, body: &'b [u8]) -> Result<T, Problem> {
    object(body).map_err(|mut problem| {
        problem.errors.append(faults);
        problem
    })
}

/// Takes the fields of an object apart and gathers their faults.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) faults: Vec<Fault>,
}

impl Fields {
    /// A field that must be there, in the form that `read` takes.
    pub(crate) fn required<T, E: Into<std::borrow::Cow<'static, str>>>(
        &mut self,
        path: &'static str,
        value: Option<&RawValue>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if value.is_none() {
            self.faults.push(Fault::new(path, "is required"));
        }
        self.optional(path, value, read)
    }

    /// A field that may be absent or null.
    pub(crate) fn optional<T, E: Into<std::borrow::Cow<'static, str>>>(
        &mut self,
        path: &'static str,
        value: Option<&RawValue>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(value?.get()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.faults.push(Fault::new(path, message));
                None
            }
        }
    }
}

/// The text of a JSON string.
pub(crate) fn text(json: &str) -> Result<zeroize::Zeroizing<String>, String> {
    serde_json::from_str(json).map(zeroize::Zeroizing::new).map_err(|_| "must be a string".to_owned())
}

/// What is told of a card number where none is asked for.
const CARD_NUMBER: &str = "must not be a card number";

/// Refuses a value that is stored in the clear and is a card number.
pub(crate) fn not_a_card_number(path: &'static str, text: &str) -> Result<(), Fault> {
    if CardNumber::is_all_of(text) { Err(Fault::new(path, CARD_NUMBER)) } else { Ok(()) }
}

/// What `read` takes of a text, unless that is a card number: it is stored in the clear.
pub(crate) fn no_card_number<T>(
    read: impl FnOnce(&str) -> Result<T, String>,
    text_of: impl FnOnce(&T) -> &str,
) -> impl FnOnce(&str) -> Result<T, String> {
    move |json| {
        let value = read(json)?;
        if CardNumber::is_all_of(text_of(&value)) { Err(CARD_NUMBER.to_owned()) } else { Ok(value) }
    }
}

/// A JSON string that a type of the domain takes.
pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(json: &str) -> Result<T, String> {
    text(json)?.parse().map_err(|error: T::Err| error.to_string())
}

/// A time of RFC 3339.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| "must be a time of RFC 3339, such as 2026-01-31T12:00:00Z")
}
