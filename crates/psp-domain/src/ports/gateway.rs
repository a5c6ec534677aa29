use async_trait::async_trait;

use crate::{Card, Installments, Money, PaymentMethod, TransactionId};

/// What a gateway is asked to approve.
#[derive(Debug, Clone)]
pub struct AuthorizationRequest {
    /// Also the reference by which the gateway knows a repetition: at most one charge per transaction.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount: Money,
    /// How.
    pub payment_method: PaymentMethod,
    /// In how many parts.
    pub installments: Installments,
    /// The card.
    pub card: Card,
    /// The how-manieth time this is asked: from 1.
    pub attempt: u32,
}

/// A gateway's answer. Both are final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationResult {
    /// The money is the customer's.
    Approved {
        /// The gateway's reference.
        reference: String,
    },
    /// The issuer says no.
    Declined {
        /// A `snake_case` code such as `insufficient_funds`.
        reason: String,
    },
}

/// No answer: asking again may help. Never carries card data.
///
/// The difference is money: in doubt an adapter says [`GatewayError::TimedOut`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The gateway did not take this request: it has charged nothing for it and will not.
    #[error("gateway error: {0}")]
    Unavailable(String),
    /// The gateway may have charged: it did not answer in time, or its answer was lost or made no sense.
    #[error("gateway timed out")]
    TimedOut,
}

/// An acquirer or processor.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// The name under which approvals are recorded.
    fn name(&self) -> &str;

    /// Asks for approval. Asking again for the same transaction gives the same final answer and charges once.
    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError>;

    /// What the gateway answered for a transaction, so that it need not be asked again; `None` when it has decided nothing,
    /// or keeps nothing and charges nothing. Changes nothing; an error tells nothing about earlier requests.
    async fn find(&self, id: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError>;

    /// Takes a transaction back: once this has returned `Ok`, the gateway has charged nothing for it and never will, even if
    /// a request for it arrives late. Only then may it be given up, or another gateway be asked. After any error it may
    /// have charged or not. Voiding again changes nothing. A transaction that was undecided or approved is from then on
    /// declined with the reason [`VOIDED`].
    async fn void(&self, id: TransactionId) -> Result<(), GatewayError>;
}

/// The reason with which a voided transaction is declined when it is asked for afterwards.
pub const VOIDED: &str = "voided";
