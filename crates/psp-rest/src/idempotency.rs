//! Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07).

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, StatusCode};
use psp_domain::{CustomerId, IdempotencyKey};
use utoipa::IntoParams;

use crate::problem::{Fault, Problem};
use crate::request::not_a_card_number;

pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Makes a POST safe to repeat.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header; `key` reads it")]
pub(crate) struct IdempotencyHeader {
    /// Visible ASCII, plain or as a quoted string; no card number; kept 24 hours. The same request again gives the first
    /// answer, with `idempotency-replayed: true`; another request is refused.
    #[param(rename = "idempotency-key", nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// The key of a request, plain or as a quoted string (RFC 8941, section 3.3.3). It is stored in the clear.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Fault> {
    let path = "idempotency-key";
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::new(path, "must be given once"));
    }
    let text = value.to_str().unwrap_or_default();
    let key = if text.starts_with('"') { unquoted(text).unwrap_or_default() } else { text.into() };
    let key: IdempotencyKey =
        key.parse().map_err(|error: psp_domain::InvalidName| Fault::new(path, error.to_string()))?;
    not_a_card_number(path, key.as_str())?;
    Ok(Some(key))
}

/// 422: the key came with another request before.
pub(crate) fn reused() -> Problem {
    let fault = Fault::new("idempotency-key", "was used before with another request");
    Problem { slug: "idempotency-key-reused", ..Problem::invalid(vec![fault]) }
}

/// 409: this process is still working on the key's first request.
fn in_flight() -> Problem {
    let detail = "the first request with this Idempotency-Key is still in flight";
    let problem = Problem::new(StatusCode::CONFLICT, "in-flight", detail);
    Problem { retry_after_seconds: Some(1), ..problem }
}

/// The content of a quoted string; `None` where it does not end properly.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(inner.into());
    }
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(next) = chars.next() {
        match next {
            '"' => return None,
            // Only quotes and backslashes are escaped.
            '\\' => content.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            plain => content.push(plain),
        }
    }
    Some(content.into())
}

/// What this process is still working on, such as the first requests of keys. Other processes are kept apart by the store's unique
/// key: they wait for the commit and replay its answer.
pub(crate) struct InFlight<K: Eq + Hash>(Arc<Mutex<HashSet<K>>>);

impl<K: Eq + Hash> Default for InFlight<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Work in flight; landed on drop.
pub(crate) struct Flight<K: Eq + Hash> {
    all: Arc<Mutex<HashSet<K>>>,
    one: K,
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    /// `None` when it is in flight already.
    pub(crate) fn begin(&self, one: K) -> Option<Flight<K>> {
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(one.clone());
        fresh.then(|| Flight { all: Arc::clone(&self.0), one })
    }
}

/// The keys whose first request this process is still working on.
pub(crate) type KeysInFlight = InFlight<(CustomerId, IdempotencyKey)>;

impl KeysInFlight {
    /// The key in flight, or the 409 of one that is already.
    pub(crate) fn begin_key(
        &self,
        customer: &CustomerId,
        key: &IdempotencyKey,
    ) -> Result<Flight<(CustomerId, IdempotencyKey)>, Problem> {
        self.begin((customer.clone(), key.clone())).ok_or_else(in_flight)
    }
}

impl<K: Eq + Hash> Drop for Flight<K> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_plain_or_as_quoted_strings() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", axum::http::HeaderValue::from_static(text));
            key(&headers).ok().flatten().map(|key| key.as_str().to_owned())
        };
        for (text, expected) in [
            ("key-1", Some("key-1")),
            ("\"key-1\"", Some("key-1")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r"a\b", Some(r"a\b")),
            ("", None),
            ("\"", None),
            ("\"\"", None),
            ("\"key-1", None),
            (r#""a"b""#, None),
            (r#""a\""#, None),
            (r#""a\n""#, None),
            ("two words", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
