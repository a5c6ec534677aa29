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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The gateway said that it cannot answer.
    #[error("gateway error: {0}")]
    Unavailable(String),
    /// The gateway did not answer in time.
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
}
