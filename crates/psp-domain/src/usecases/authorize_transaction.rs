use std::sync::Arc;

use crate::ports::{
    AuthorizationRequest, AuthorizationResult, CardVault, Gateway, GatewayError, QueueName, Store, StoreError,
    UnauthorizedTransaction, VaultError,
};
use crate::usecases::Sources;
use crate::{FeeRules, GatewayReference, IllegalTransition, TransactionStatus, Transition, Verdict};

/// Asks a gateway for approval and writes its answer: an approval together with the payables that the fee rules give, so
/// no payment is ever approved without them.
///
/// Cost: one gateway call, one write. Safe to repeat: the gateway knows the transaction's id, and the write expects the
/// version that was read.
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
    /// [`AuthorizeError`]; the transaction is as it was.
    pub async fn execute(
        &self,
        loaded: UnauthorizedTransaction,
        attempt: u32,
    ) -> Result<AuthorizeOutcome, AuthorizeError> {
        let UnauthorizedTransaction { transaction, card } = loaded;
        if transaction.status != TransactionStatus::Processing {
            return Ok(AuthorizeOutcome::Done(transaction.status));
        }
        let sealed = card.ok_or(AuthorizeError::CardMissing)?;
        let request = AuthorizationRequest {
            transaction_id: transaction.id,
            amount: transaction.amount,
            payment_method: transaction.payment_method,
            installments: transaction.installments,
            card: self.vault.open(transaction.id, &sealed).await?,
            attempt,
        };
        let answer = self.gateway.authorize(&request).await;
        drop(request);
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let transition = match answer {
            Ok(AuthorizationResult::Approved { reference }) => {
                let gateway = GatewayReference { gateway: self.gateway.name().to_owned(), reference };
                transaction.approve(gateway, &self.rules, now, ids)?
            }
            Ok(AuthorizationResult::Declined { reason }) => transaction.decline(&reason, now, ids)?,
            Err(error) if attempt < Self::MAX_ATTEMPTS => return Ok(AuthorizeOutcome::Retry(error.to_string())),
            Err(GatewayError::Unavailable(_)) => transaction.fail("gateway_unavailable", now, ids)?,
            Err(GatewayError::TimedOut) => transaction.fail("gateway_timeout", now, ids)?,
        };
        self.write(transition).await
    }

    async fn write(&self, transition: Transition) -> Result<AuthorizeOutcome, AuthorizeError> {
        let Transition::Executed(next) = transition else {
            return Ok(AuthorizeOutcome::Retry("the transaction changed meanwhile".into()));
        };
        let status = next.transaction.status;
        match self.store.apply((*next).into()).await? {
            Verdict::Applied | Verdict::AlreadyApplied => Ok(AuthorizeOutcome::Done(status)),
            Verdict::StaleVersion | Verdict::Duplicate => {
                Ok(AuthorizeOutcome::Retry("another worker was faster".into()))
            }
        }
    }
}
