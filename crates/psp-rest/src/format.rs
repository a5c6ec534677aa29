//! JSON or XML: what a body is sent as, and what the answer is wanted as.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::problem::Problem;
use crate::request::{is_json, read_bytes};
use crate::state::App;
use crate::xml;

/// The routes that take and give XML beside JSON, and the element that holds their bodies.
pub(crate) const SPEAK_XML: [(&str, &str); 5] = [
    ("/deposit", "deposit"),
    ("/deposits/{id}", "deposit"),
    ("/withdrawal", "withdrawal"),
    ("/withdrawals/{id}", "withdrawal"),
    ("/callback/{transaction_id}", "callback"),
];

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Xml,
    /// XML under its other name.
    TextXml,
}

impl Format {
    /// Every format, the one first that is given to those who take any.
    const ALL: [Self; 3] = [Self::Json, Self::Xml, Self::TextXml];

    /// The content type of bodies that are no problems.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
            Self::TextXml => "text/xml",
        }
    }

    /// The content type of problems (RFC 9457).
    pub(crate) const fn problem_type(self) -> &'static str {
        match self {
            Self::Json => "application/problem+json",
            Self::Xml | Self::TextXml => "application/problem+xml",
        }
    }

    /// What a body is by its content type; `None` for what is not taken.
    fn sent(headers: &HeaderMap) -> Option<Self> {
        if is_json(headers) {
            return Some(Self::Json);
        }
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())?;
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next()?;
        let found =
            [Self::Xml, Self::TextXml].into_iter().find(|xml| essence.eq_ignore_ascii_case(xml.media_type()))?;
        let mut charsets = parts.filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then_some(value.trim().trim_matches('"'))
        });
        charsets.all(|charset| charset.eq_ignore_ascii_case("utf-8")).then_some(found)
    }

    /// What the answer is wanted as: what `Accept` likes best and, where it does not tell, as the body was sent. `None` where
    /// nothing fits.
    fn wanted(headers: &HeaderMap, sent: Self) -> Option<Self> {
        Self::best(headers, sent, |format, accept| quality(accept, format.media_type()))
    }

    /// What the problems of a request to that route are written as, whatever is wrong with its headers.
    pub(crate) fn of_problems(route: &str, headers: &HeaderMap) -> Self {
        if SPEAK_XML.iter().all(|(path, _)| *path != route) {
            return Self::Json;
        }
        let sent = Self::sent(headers).unwrap_or(Self::Json);
        let of = |format: Self, accept: &str| {
            quality(accept, format.problem_type()).max(quality(accept, format.media_type()))
        };
        Self::best(headers, sent, of).unwrap_or(sent)
    }

    fn best(headers: &HeaderMap, sent: Self, quality: impl Fn(Self, &str) -> u16) -> Option<Self> {
        let values: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accept = values.join(",");
        if accept.trim().is_empty() {
            return Some(sent);
        }
        let mut best = (0, None);
        for format in std::iter::once(sent).chain(Self::ALL) {
            let quality = quality(format, &accept);
            if quality > best.0 {
                best = (quality, Some(format));
            }
        }
        best.1
    }

    /// An answer in this format. XML has it in an element of that name.
    pub(crate) fn respond(self, status: StatusCode, root: &str, body: &impl Serialize) -> Result<Response, Problem> {
        let text = match self {
            Self::Json => serde_json::to_string(body).map_err(|_| Problem::internal())?,
            Self::Xml | Self::TextXml => xml::element(root, body).ok_or_else(Problem::internal)?,
        };
        let content_type = HeaderValue::from_static(self.media_type());
        Ok((status, [(header::CONTENT_TYPE, content_type)], text).into_response())
    }
}

/// How much an `Accept` header likes a media type, in thousandths: the most special range that fits it tells
/// (RFC 9110, section 12.5.1).
fn quality(accept: &str, media_type: &str) -> u16 {
    let any_subtype = media_type.split_once('/').map(|(kind, _)| format!("{kind}/*")).unwrap_or_default();
    let mut found = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let specificity = match range {
            range if range.eq_ignore_ascii_case(media_type) => 3,
            range if range.eq_ignore_ascii_case(&any_subtype) => 2,
            "*/*" => 1,
            _ => continue,
        };
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")));
        let weight = weight.map_or(1_000, |weight| thousandths(weight).unwrap_or(0));
        if specificity > found.0 {
            found = (specificity, weight);
        }
    }
    found.1
}

/// A weight from 0 to 1, with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let number: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (decimals.len() <= 3 && number <= 1_000).then_some(number)
}

/// A body in either format, no larger than the limit, and what the answer is wanted as.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) sent: Format,
    pub(crate) wanted: Wanted,
}

impl FromRequest<Arc<App>> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let sent = Format::sent(request.headers()).ok_or_else(|| {
            let detail = "the body must be JSON or XML in UTF-8, with content-type: application/json, application/xml or text/xml";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
        })?;
        let wanted = Wanted(Format::wanted(request.headers(), sent).ok_or_else(not_acceptable)?);
        Ok(Self { bytes: read_bytes(request, app).await?, sent, wanted })
    }
}

impl Body {
    /// The body as JSON, whatever it was sent as, so that one reader takes both; and the faults that only XML can have.
    pub(crate) fn into_json(
        self,
        root: &str,
        known: &'static [&'static str],
    ) -> Result<(Bytes, Vec<crate::problem::Fault>), Problem> {
        match self.sent {
            Format::Json => Ok((self.bytes, Vec::new())),
            Format::Xml | Format::TextXml => {
                let read = xml::read(&self.bytes, root, known)?;
                Ok((read.json.into(), read.faults))
            }
        }
    }
}

/// What the answer to a request without a body is wanted as.
#[derive(Clone, Copy)]
pub(crate) struct Wanted(pub(crate) Format);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Format::wanted(&parts.headers, Format::Json).map(Self).ok_or_else(not_acceptable)
    }
}

fn not_acceptable() -> Problem {
    let detail = "the answer can be application/json, application/xml or text/xml; Accept takes none of them";
    Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn accept_wins_and_what_was_sent_decides_between_equals() {
        for (accept, sent, wanted) in [
            ("", Format::TextXml, Some(Format::TextXml)),
            ("*/*", Format::Xml, Some(Format::Xml)),
            ("application/json", Format::Xml, Some(Format::Json)),
            ("application/*", Format::TextXml, Some(Format::Json)),
            ("text/*", Format::Json, Some(Format::TextXml)),
            ("application/json;q=0.5, application/xml", Format::Json, Some(Format::Xml)),
            ("application/json, application/xml", Format::Xml, Some(Format::Xml)),
            ("Application/XML; charset=utf-8; q=0.001", Format::Json, Some(Format::Xml)),
            ("*/*, application/json;q=0", Format::Json, Some(Format::Xml)),
            ("text/html", Format::Json, None),
            ("application/json;q=0", Format::Json, None),
            ("application/json;q=2", Format::Json, None),
            ("garbage", Format::Json, None),
        ] {
            assert_eq!(Format::wanted(&headers(header::ACCEPT, accept), sent), wanted, "{accept}");
        }
    }

    #[test]
    fn content_types_are_taken_in_utf_8_only() {
        for (content_type, sent) in [
            ("application/json", Some(Format::Json)),
            ("application/xml", Some(Format::Xml)),
            ("Text/XML; Charset=\"UTF-8\"", Some(Format::TextXml)),
            ("application/xml;charset=iso-8859-1", None),
            ("text/xml; charset=utf-16", None),
            ("application/soap+xml", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Format::sent(&headers(header::CONTENT_TYPE, content_type)), sent, "{content_type}");
        }
    }
}
