use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    AttemptReference, Card, Country, GatewayName, Installments, Money, PaymentMethod, Transaction, TransactionId,
    TransactionKind,
};

/// What a gateway is asked to approve.
#[derive(Debug, Clone)]
pub struct AuthorizationRequest {
    /// By which the gateway knows a repetition: at most one charge per reference.
    pub reference: AttemptReference,
    /// The transaction: what callbacks name.
    pub transaction_id: TransactionId,
    /// What for: payments and deposits are charged, withdrawals paid out.
    pub kind: TransactionKind,
    /// How much.
    pub amount: Money,
    /// How.
    pub payment_method: PaymentMethod,
    /// In how many parts.
    pub installments: Installments,
    /// Where the payer is, where known.
    pub country: Option<Country>,
    /// The card, for the methods that need one.
    pub card: Option<Card>,
}

/// A gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationResult {
    /// The money is the customer's, or is paid out: final.
    Approved {
        /// The gateway's reference.
        reference: String,
        /// How much the gateway says it was, where it says so.
        amount: Option<Money>,
    },
    /// The issuer says no: final.
    Declined {
        /// A `snake_case` code such as `insufficient_funds`.
        reason: String,
    },
    /// Taken, and answered later by a callback, or when asked.
    Pending {
        /// The gateway's reference, where it gave one: its callbacks must name it then.
        reference: Option<String>,
    },
}

/// What a gateway is asked to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundRequest {
    /// By which the gateway knows a repetition: at most one refund per reference.
    pub reference: AttemptReference,
    /// The charge: the reference of the attempt that was approved.
    pub of: AttemptReference,
    /// How much of it.
    pub amount: Money,
}

/// No answer: asking again may help. Never carries card data.
///
/// The difference is money: in doubt an adapter says [`GatewayError::TimedOut`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The gateway cannot take requests now: it has charged nothing for this one and will not.
    #[error("gateway error: {0}")]
    Unavailable(String),
    /// The gateway refused this very request, and may take others: it has charged nothing for it and will not.
    #[error("gateway refused: {0}")]
    Refused(String),
    /// The gateway may have charged: it did not answer in time, or its answer was lost or made no sense.
    #[error("gateway timed out")]
    TimedOut,
}

/// An acquirer or processor.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Its name.
    fn name(&self) -> &GatewayName;

    /// Asks for approval. Asking again under the same reference gives the same answer, or a final one after a pending one,
    /// and charges once.
    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError>;

    /// What the gateway answers for a reference by now, so that it need not be asked again; `None` when it has decided
    /// nothing, or keeps nothing and charges nothing. Changes nothing; an error tells nothing about earlier requests.
    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError>;

    /// Takes a reference back: once this has returned `Ok`, the gateway has charged nothing for it and never will, even if
    /// a request for it arrives late. Only then may it be given up, or another gateway be asked. After any error it may
    /// have charged or not. Voiding again changes nothing. What was undecided, pending or approved is from then on declined
    /// with the reason [`VOIDED`].
    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError>;

    /// Gives a charge back, in part or whole. Asking again under the same reference gives the same answer and gives back
    /// once.
    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError>;

    /// Whether a callback is this gateway's; one without a secret takes all.
    ///
    /// # Errors
    /// [`ForgedCallback`].
    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback>;
}

/// What a callback is signed with, as it came.
#[derive(Debug, Clone, Copy)]
pub struct CallbackSignature<'c> {
    /// The path of the request.
    pub path: &'c str,
    /// The header `psp-timestamp`.
    pub timestamp: Option<&'c str>,
    /// The header `psp-signature`.
    pub signature: Option<&'c str>,
    /// The body's bytes.
    pub body: &'c [u8],
}

/// A callback that is not the gateway's, or is too old to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForgedCallback {
    /// There is no signature, or it is not the gateway's.
    #[error("the signature is missing or wrong")]
    Signature,
    /// The timestamp is outside the window.
    #[error("the timestamp is missing or too far from now")]
    Stale,
}

/// The reason with which a voided reference is declined when it is asked for afterwards.
pub const VOIDED: &str = "voided";

/// A gateway that may be asked for a transaction.
#[derive(Clone)]
pub struct Candidate {
    /// The gateway.
    pub gateway: Arc<dyn Gateway>,
    /// The reasons of a decline with which the next one may be asked.
    pub retry_declines: Arc<[String]>,
}

/// The gateways there are, with their breakers and routes. Answers from memory.
pub trait GatewayDirectory: Send + Sync {
    /// Those to ask for a transaction, in order: the one that it names; or else those of its routes; or else the default.
    /// Disabled ones and those whose breaker is open are left out, so it may be empty.
    fn candidates(&self, transaction: &Transaction) -> Vec<Candidate>;

    /// The gateway of that name, also when it is disabled or its breaker is open.
    fn find(&self, name: &GatewayName) -> Option<Arc<dyn Gateway>>;

    /// Whether a new transaction may name that gateway.
    fn is_enabled(&self, name: &GatewayName) -> bool;
}
