//! Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName};
use psp_domain::{CustomerId, IdempotencyKey};

use crate::problem::Fault;

pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, plain or as a quoted string (RFC 8941, section 3.3.3).
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Fault> {
    let path = "idempotency-key";
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::new(path, "must be given once"));
    }
    let text = value.to_str().unwrap_or_default();
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    unquoted.parse().map(Some).map_err(|error: psp_domain::InvalidName| Fault::new(path, error.to_string()))
}

/// The keys whose first request this process is still working on. Other processes are kept apart by the store's unique
/// key: they wait for the commit and replay its answer.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashSet<(CustomerId, IdempotencyKey)>>);

/// A key in flight; landed on drop.
pub(crate) struct Flight<'a> {
    keys: &'a InFlight,
    key: (CustomerId, IdempotencyKey),
}

impl InFlight {
    /// `None` when the key is in flight already.
    pub(crate) fn begin(&self, customer: &CustomerId, key: &IdempotencyKey) -> Option<Flight<'_>> {
        let key = (customer.clone(), key.clone());
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        fresh.then_some(Flight { keys: self, key })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
