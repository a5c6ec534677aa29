//! What a gateway is asked and what it says, whatever it speaks.

use http::StatusCode;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, GatewayError, RefundRequest, VOIDED};
use psp_domain::{AttemptReference, Callback, Currency, Money};
use serde::Deserialize;

/// The longest reason, in characters.
const MAX_REASON_LEN: usize = 64;
/// More than any request takes beside its callback's address, in bytes, so that no buffer with card data grows and leaves a
/// copy behind.
const REQUEST_BYTES: usize = 4 * 1024;
/// What a gateway says that has decided nothing under a reference.
pub(crate) const UNKNOWN_REFERENCE: &str = "unknown_reference";

/// What a gateway is asked.
#[derive(Clone, Copy)]
pub(crate) enum Question<'a> {
    /// To charge or to pay out, and whom to call back.
    Authorize(&'a AuthorizationRequest, Option<&'a str>),
    Refund(&'a RefundRequest),
    Find(AttemptReference),
    Void(AttemptReference),
}

impl Question<'_> {
    pub(crate) fn reference(&self) -> AttemptReference {
        match self {
            Self::Authorize(request, _) => request.reference,
            Self::Refund(request) => request.reference,
            Self::Find(reference) | Self::Void(reference) => *reference,
        }
    }

    /// Room for the request. A character of an address takes six bytes at most, however it is escaped.
    pub(crate) fn capacity(&self) -> usize {
        let address = if let Self::Authorize(_, Some(address)) = self { address.len() } else { 0 };
        REQUEST_BYTES + 6 * address
    }
}

/// How an answer is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Answer(Answer),
    /// Nothing was decided under the reference.
    UnknownReference,
    /// The gateway says that it takes nothing now: it did not take this request.
    Unavailable,
    /// The gateway says that it did not take this request.
    Refused,
    /// It tells nothing: the gateway may have charged.
    Senseless,
}

impl Reading {
    /// Of a refusal in the protocol's form: what its status says. Without that form somebody else may have answered, such as
    /// a server in front of a gateway that has charged.
    pub(crate) fn of_refusal(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            // In progress, or used before: it may hold a charge under the reference.
            StatusCode::CONFLICT => Self::Senseless,
            status if status.is_client_error() => Self::Refused,
            _ => Self::Senseless,
        }
    }

    /// The error, where an answer was needed and this is none.
    pub(crate) fn error(&self, status: StatusCode) -> GatewayError {
        let answered = || format!("answered {}", status.as_u16());
        match self {
            Self::Unavailable => GatewayError::Unavailable(answered()),
            Self::Refused | Self::UnknownReference => GatewayError::Refused(answered()),
            Self::Answer(_) | Self::Senseless => {
                tracing::warn!(status = status.as_u16(), "the gateway's answer is none: the outcome is unknown");
                GatewayError::TimedOut
            }
        }
    }
}

/// What a gateway says of a reference.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    pub(crate) reference: AttemptReference,
    pub(crate) status: Status,
    pub(crate) gateway_reference: Option<String>,
    pub(crate) reason: Option<String>,
    /// In minor units; with the currency, or neither.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<Currency>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Approved,
    Declined,
    Pending,
    Voided,
}

impl Status {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "approved" => Self::Approved,
            "declined" => Self::Declined,
            "pending" => Self::Pending,
            "voided" => Self::Voided,
            _ => return None,
        })
    }
}

impl Answer {
    /// Its meaning for that reference; what has none may have charged.
    pub(crate) fn decision(self, asked: AttemptReference) -> Option<AuthorizationResult> {
        if self.reference != asked {
            return None;
        }
        let amount = match (self.amount, self.currency) {
            (Some(minor), Some(currency)) => Some(Money::new(minor, currency)),
            (None, None) => None,
            _ => return None,
        };
        match (self.status, self.gateway_reference, self.reason) {
            (Status::Approved, Some(reference), _) if Callback::is_reference(&reference) => {
                Some(AuthorizationResult::Approved { reference, amount })
            }
            (Status::Declined, _, Some(reason)) if is_reason(&reason) => Some(AuthorizationResult::Declined { reason }),
            (Status::Pending, reference, _) if reference.as_deref().is_none_or(Callback::is_reference) => {
                Some(AuthorizationResult::Pending { reference })
            }
            (Status::Voided, _, _) => Some(AuthorizationResult::Declined { reason: VOIDED.to_owned() }),
            _ => None,
        }
    }

    /// Whether it says that this reference is voided.
    pub(crate) fn is_void_of(&self, asked: AttemptReference) -> bool {
        self.reference == asked && self.status == Status::Voided
    }
}

fn is_reason(text: &str) -> bool {
    (1..=MAX_REASON_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[cfg(test)]
mod tests {
    use psp_testkit::contract::gateway::request;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{json, xml};

    #[test]
    fn the_largest_request_fits_its_buffer_so_that_no_copy_of_the_card_is_left_behind() {
        let mut request = request("4111111111111111");
        let address = format!("https://psp.example/?{}", "&".repeat(5_000));
        for widest in ["&", "\"", "\\", "\u{1f600}"] {
            request.card.as_mut().unwrap().holder_name = widest.repeat(100).parse().unwrap();
            let question = Question::Authorize(&request, Some(&address));
            let is_unmoved = |body: &Zeroizing<Vec<u8>>| body.capacity() == question.capacity();
            assert!(is_unmoved(&json::write(&question).unwrap().body), "{widest}");
            assert!(is_unmoved(&xml::write(&question).body), "{widest}");
        }
    }
}
