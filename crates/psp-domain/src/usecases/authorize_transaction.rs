use std::sync::Arc;

use crate::ports::{
    AuthorizationRequest, AuthorizationResult, CardVault, Gateway, GatewayError, QueueName, Store, StoreError,
    UnauthorizedTransaction, VaultError,
};
use crate::usecases::Sources;
use crate::{
    ChangeSet, FeeRules, GatewayReference, IllegalTransition, SealedCard, Transaction, TransactionStatus, Transition,
    Verdict,
};

/// Asks a gateway for approval and writes its answer: an approval together with the payables that the fee rules give, so
/// no payment is ever approved without them.
///
/// Cost: one gateway call, one write; two calls at later attempts, three at a last one that fails. Safe to repeat: the
/// gateway knows the transaction's id, and the write expects the version that was read. [`AuthorizeTransaction::ask`] and
/// [`AuthorizeTransaction::write`] are its two steps, for callers that repeat the second without the first.
///
/// No payment is `failed` here and charged there:
///
/// - Any attempt but the first asks what the gateway answered before, and writes that without sending the card again. While
///   the gateway cannot tell, nothing is sent.
/// - After the last attempt the gateway is told to void before the failure is written, whatever the last error was: an
///   earlier attempt may have charged, its answer lost with a connection or a killed worker. When voiding fails, too, the
///   transaction stays `processing` and its message becomes a dead letter; replaying that asks again.
pub struct AuthorizeTransaction {
    store: Arc<dyn Store>,
    vault: Arc<dyn CardVault>,
    gateway: Arc<dyn Gateway>,
    rules: FeeRules,
    sources: Sources,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizeOutcome {
    /// The answer is durable, or was before.
    Done(TransactionStatus),
    /// No answer yet: try again later, for this reason.
    Retry(String),
}

/// What the gateway's answer comes to.
#[derive(Debug)]
pub enum AuthorizeAnswer {
    /// To be written: the transaction's new state, with all that follows from it.
    Write(Box<ChangeSet>),
    /// Nothing is to be written.
    Nothing(AuthorizeOutcome),
}

/// Why an attempt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// The store failed; nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The card cannot be opened: no attempt will succeed until an operator acts.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The transaction waits for authorization, but its card is gone.
    #[error("the card of a processing transaction is missing")]
    CardMissing,
    /// The state machine does not have this transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

impl AuthorizeTransaction {
    /// How often a gateway is asked before the transaction fails.
    pub const MAX_ATTEMPTS: u32 = QueueName::MAX_RECEIVES;
    /// The most gateway calls of one attempt: find, authorize, void.
    pub const MAX_CALLS: u32 = 3;

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<dyn CardVault>,
        gateway: Arc<dyn Gateway>,
        rules: FeeRules,
        sources: Sources,
    ) -> Self {
        Self { store, vault, gateway, rules, sources }
    }

    /// Makes the attempt of that number (from 1).
    ///
    /// # Errors
    /// [`AuthorizeError`]; the transaction is as it was, except with [`StoreError::OutcomeUnknown`].
    pub async fn execute(
        &self,
        loaded: UnauthorizedTransaction,
        attempt: u32,
    ) -> Result<AuthorizeOutcome, AuthorizeError> {
        match self.ask(loaded, attempt).await? {
            AuthorizeAnswer::Write(change) => Ok(self.write(*change).await?),
            AuthorizeAnswer::Nothing(outcome) => Ok(outcome),
        }
    }

    /// Asks the gateway, as the attempt of that number (from 1).
    ///
    /// # Errors
    /// [`AuthorizeError`], except that of the store.
    pub async fn ask(&self, loaded: UnauthorizedTransaction, attempt: u32) -> Result<AuthorizeAnswer, AuthorizeError> {
        let UnauthorizedTransaction { transaction, card } = loaded;
        if transaction.status != TransactionStatus::Processing {
            return Ok(AuthorizeAnswer::Nothing(AuthorizeOutcome::Done(transaction.status)));
        }
        let sealed = card.ok_or(AuthorizeError::CardMissing)?;
        let answer = self.answer(&transaction, &sealed, attempt).await?;
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let transition = match answer {
            Ok(AuthorizationResult::Approved { reference }) => {
                let gateway = GatewayReference { gateway: self.gateway.name().to_owned(), reference };
                transaction.approve(gateway, &self.rules, now, ids)?
            }
            Ok(AuthorizationResult::Declined { reason }) => transaction.decline(&reason, now, ids)?,
            Err(error) if attempt < Self::MAX_ATTEMPTS => return Ok(nothing(error.to_string())),
            Err(error) => {
                if let Err(unsettled) = self.gateway.void(transaction.id).await {
                    return Ok(nothing(format!("{error}; it may have charged, and voiding failed: {unsettled}")));
                }
                let reason = match error {
                    GatewayError::Unavailable(_) => "gateway_unavailable",
                    GatewayError::TimedOut => "gateway_timeout",
                };
                transaction.fail(reason, self.sources.clock.now(), ids)?
            }
        };
        Ok(match transition {
            Transition::Executed(next) => AuthorizeAnswer::Write(Box::new((*next).into())),
            Transition::AlreadyApplied => nothing("the transaction changed meanwhile".into()),
        })
    }

    /// The gateway's answer: one that it gave before, or else a new one.
    async fn answer(
        &self,
        transaction: &Transaction,
        sealed: &SealedCard,
        attempt: u32,
    ) -> Result<Result<AuthorizationResult, GatewayError>, VaultError> {
        if attempt > 1 {
            match self.gateway.find(transaction.id).await {
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(Ok(answer)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let request = AuthorizationRequest {
            transaction_id: transaction.id,
            amount: transaction.amount,
            payment_method: transaction.payment_method,
            installments: transaction.installments,
            card: self.vault.open(transaction.id, sealed).await?,
            attempt,
        };
        Ok(self.gateway.authorize(&request).await)
    }

    /// Writes what the answer comes to. The same change set may be written again when the store fails.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write(&self, change: ChangeSet) -> Result<AuthorizeOutcome, StoreError> {
        let status = change.transaction.transaction().status;
        match self.store.apply(change).await? {
            Verdict::Applied | Verdict::AlreadyApplied => Ok(AuthorizeOutcome::Done(status)),
            Verdict::StaleVersion | Verdict::Duplicate => {
                Ok(AuthorizeOutcome::Retry("another worker was faster".into()))
            }
        }
    }
}

fn nothing(reason: String) -> AuthorizeAnswer {
    AuthorizeAnswer::Nothing(AuthorizeOutcome::Retry(reason))
}
