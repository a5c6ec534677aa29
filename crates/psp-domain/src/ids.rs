//! Typed identifiers. Ids are UUIDv7 (RFC 9562), so their order is the order of creation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

uuid_id!(
    /// Names a transaction.
    TransactionId
);
uuid_id!(
    /// Names a payable.
    PayableId
);
uuid_id!(
    /// Names an outbox row: an event, a command, and the message either becomes.
    MessageId
);
uuid_id!(
    /// Names one run of the settlement job.
    SettlementRunId
);

uuid_id!(
    /// Names an order that was placed here.
    OrderId
);
uuid_id!(
    /// Names a refund: the reference under which the gateway gives back at most once.
    RefundId
);
uuid_id!(
    /// Names a webhook endpoint.
    EndpointId
);
uuid_id!(
    /// Names one attempt at a gateway: the reference under which the gateway charges at most once.
    AttemptReference
);
uuid_id!(
    /// Names a callback that was received.
    CallbackId
);
uuid_id!(
    /// Names a card that waits to be paid with: what a customer holds instead of its number.
    CardToken
);

/// Why a text is not a [`CustomerId`], an [`IdempotencyKey`], an [`OrderName`], a [`UserId`] or a [`CorrelationId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {max} visible ASCII characters")]
pub struct InvalidName {
    /// The largest length, in bytes.
    pub max: usize,
}

macro_rules! ascii_name {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The largest length, in bytes.
            pub const MAX_LEN: usize = $max;

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                let fits = !s.is_empty() && s.len() <= Self::MAX_LEN && s.bytes().all(|b| b.is_ascii_graphic());
                if fits { Ok(Self(s.into())) } else { Err(InvalidName { max: Self::MAX_LEN }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

ascii_name!(
    /// Names a customer (the merchant): 1 to 128 visible ASCII characters, from the `x-customer-id` header.
    ///
    /// ```
    /// use psp_domain::CustomerId;
    /// assert!("123".parse::<CustomerId>().is_ok());
    /// assert!("".parse::<CustomerId>().is_err());
    /// ```
    CustomerId, 128
);
ascii_name!(
    /// An idempotency key: 1 to 255 visible ASCII characters (draft-ietf-httpapi-idempotency-key-header).
    IdempotencyKey, 255
);
ascii_name!(
    /// Names an order as the customer does: 1 to 128 visible ASCII characters.
    OrderName, 128
);
ascii_name!(
    /// Names a customer's user: 1 to 128 visible ASCII characters.
    UserId, 128
);
ascii_name!(
    /// Joins all that one request caused, to the last event and log line: the request's id, 1 to 128 visible ASCII characters.
    CorrelationId, 128
);
