use std::sync::Arc;

use crate::ports::{
    CallbackSignature, CallbackStore, ForgedCallback, Gateway, GatewayDirectory, Store, StoreError, TransactionReader,
    UnauthorizedTransaction,
};
use crate::usecases::Sources;
use crate::{
    Attempt, AttemptState, Callback, CallbackId, CallbackOutcome, CallbackStatus, ChangeSet, Currency, FeeRules,
    GatewayReference, IllegalTransition, Money, TransactionId, TransactionStatus, Transition, Verdict,
};

/// Takes callbacks of gateways: stores them before anything else, and applies them later.
///
/// Receiving costs one read and one write, applying one read and two writes. Applying again changes nothing: the transaction
/// ends with the write that expects the version that was read, and a callback has one outcome.
pub struct Callbacks {
    store: Arc<dyn Store>,
    received: Arc<dyn CallbackStore>,
    transactions: Arc<dyn TransactionReader>,
    gateways: Arc<dyn GatewayDirectory>,
    rules: FeeRules,
    sources: Sources,
}

/// How often a callback is judged again because its transaction changed meanwhile.
const MAX_TRIES: usize = 3;

/// What a gateway tells, as far as its words have the right form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The gateway's reference: see [`Callback::is_reference`].
    pub gateway_reference: String,
    /// The gateway's word: see [`Callback::is_status`].
    pub status: String,
    /// How much, in major units, where it says so.
    pub amount: Option<rust_decimal::Decimal>,
    /// In which currency; the transaction's where absent.
    pub currency: Option<Currency>,
}

/// What became of a callback that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is stored, or was before.
    Stored,
    /// There is no such transaction.
    Unknown,
    /// The transaction has ended, and this was not known.
    Final(TransactionStatus),
    /// It is not the gateway's.
    Forged(ForgedCallback),
    /// The transaction has as many as are kept.
    TooMany,
    /// The gateway that the transaction is with is not configured here, so nobody can tell whose it is.
    Unverifiable,
}

/// What applying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is concluded.
    Concluded(CallbackOutcome),
    /// There is no such callback.
    Unknown,
    /// Try again later, for this reason.
    Retry(String),
}

/// Why a callback could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine does not have this transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

impl Callbacks {
    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        received: Arc<dyn CallbackStore>,
        transactions: Arc<dyn TransactionReader>,
        gateways: Arc<dyn GatewayDirectory>,
        rules: FeeRules,
        sources: Sources,
    ) -> Self {
        Self { store, received, transactions, gateways, rules, sources }
    }

    /// Stores a callback for a transaction.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn receive(
        &self,
        id: TransactionId,
        notice: Notice,
        signature: &CallbackSignature<'_>,
    ) -> Result<Received, StoreError> {
        let Some(loaded) = self.load(id).await? else { return Ok(Received::Unknown) };
        let transaction = &loaded.transaction;
        let gateway = match self.signer(&loaded, signature) {
            Ok(gateway) => gateway,
            Err(refused) => return Ok(refused),
        };
        let currency = notice.currency.unwrap_or(transaction.amount.currency());
        let no_amount = Money::new(-1, currency);
        let callback = Callback {
            id: CallbackId(self.sources.ids.next_id()),
            transaction_id: id,
            gateway: gateway.name().clone(),
            gateway_reference: notice.gateway_reference,
            status: notice.status,
            // What is no amount of the currency is not the amount that was asked for, nor is another currency alone.
            amount: match notice.amount {
                Some(major) => Some(Money::from_major(major, currency).unwrap_or(no_amount)),
                None => (currency != transaction.amount.currency()).then_some(no_amount),
            },
            received_at: self.sources.clock.now(),
            outcome: None,
        };
        if transaction.status != TransactionStatus::Processing {
            if self.received.is_known(&callback).await? {
                return Ok(Received::Stored);
            }
            // The gateway has money that we do not know of: refused, and kept for somebody to look at.
            if CallbackStatus::of(&callback.status) == CallbackStatus::Completed && !transaction.status.is_approved() {
                self.received.receive(&callback).await?;
            }
            return Ok(Received::Final(transaction.status));
        }
        if !self.received.receive(&callback).await? && !self.received.is_known(&callback).await? {
            return Ok(Received::TooMany);
        }
        Ok(Received::Stored)
    }

    /// Whose callback it is: that of a gateway that was asked, the latest first. Before the first attempt only the gateway that
    /// will be asked first can know of the transaction.
    fn signer(
        &self,
        loaded: &UnauthorizedTransaction,
        signature: &CallbackSignature<'_>,
    ) -> Result<Arc<dyn Gateway>, Received> {
        let mut names: Vec<_> = Vec::new();
        for attempt in loaded.attempts.iter().rev() {
            if !names.contains(&&attempt.gateway) {
                names.push(&attempt.gateway);
            }
        }
        let gateways: Vec<_> = if names.is_empty() {
            let candidates = self.gateways.candidates(&loaded.transaction);
            candidates.into_iter().take(1).map(|candidate| candidate.gateway).collect()
        } else {
            names.into_iter().filter_map(|name| self.gateways.find(name)).collect()
        };
        let mut refused = Received::Unverifiable;
        for gateway in gateways {
            match gateway.verify_callback(signature) {
                Ok(()) => return Ok(gateway),
                Err(forged) if refused == Received::Unverifiable => refused = Received::Forged(forged),
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// Applies a callback that was stored.
    ///
    /// # Errors
    /// [`CallbackError`]; applying again is safe.
    pub async fn apply(&self, id: CallbackId) -> Result<Applied, CallbackError> {
        let Some(callback) = self.received.find_callback(id).await? else { return Ok(Applied::Unknown) };
        if let Some(outcome) = callback.outcome {
            return Ok(Applied::Concluded(outcome));
        }
        for _ in 0..MAX_TRIES {
            let Some(loaded) = self.load(callback.transaction_id).await? else { return Ok(Applied::Unknown) };
            let outcome = match self.judge(&callback, loaded)? {
                Judgement::Concluded(outcome) => outcome,
                Judgement::Retry(reason) => return Ok(Applied::Retry(reason.to_owned())),
                Judgement::Write(change) => match self.store.apply(*change).await? {
                    Verdict::Applied | Verdict::AlreadyApplied => CallbackOutcome::Applied,
                    // The transaction changed meanwhile: it is judged again.
                    Verdict::StaleVersion | Verdict::Duplicate => continue,
                },
            };
            self.received.conclude(id, outcome, self.sources.clock.now()).await?;
            return Ok(Applied::Concluded(outcome));
        }
        Ok(Applied::Retry("the transaction changes too often".into()))
    }

    async fn load(&self, id: TransactionId) -> Result<Option<UnauthorizedTransaction>, StoreError> {
        Ok(self.transactions.load_for_authorization(&[id]).await?.into_iter().next())
    }

    /// What a callback comes to, for the transaction as it is.
    fn judge(&self, callback: &Callback, loaded: UnauthorizedTransaction) -> Result<Judgement, CallbackError> {
        let UnauthorizedTransaction { transaction, mut attempts, .. } = loaded;
        let Some(attempt) = attempts.pop() else { return Ok(Judgement::Retry("no gateway was asked yet")) };
        // It may be of an earlier charge, which was voided: only the gateway can tell.
        let is_ambiguous =
            attempt.gateway_reference.is_none() && attempts.iter().any(|earlier| earlier.gateway == attempt.gateway);
        let is_of = |attempt: &Attempt| {
            let named = attempt.gateway_reference.as_ref();
            attempt.gateway == callback.gateway && named.is_none_or(|named| *named == callback.gateway_reference)
        };
        let status = CallbackStatus::of(&callback.status);
        let wrong_amount = callback.amount.is_some_and(|amount| amount != transaction.amount);
        let outcome = match (attempt.state, status) {
            _ if !is_of(&attempt) => CallbackOutcome::Foreign,
            _ if wrong_amount => CallbackOutcome::WrongAmount,
            (_, CallbackStatus::Other) => CallbackOutcome::Noted,
            (state, _) if is_ambiguous && state.is_unresolved() => CallbackOutcome::Noted,
            (AttemptState::Open | AttemptState::Pending, _) => return self.end(callback, transaction, attempt, status),
            (AttemptState::Approved, CallbackStatus::Completed)
            | (AttemptState::Declined, CallbackStatus::Failed | CallbackStatus::Rejected) => CallbackOutcome::Applied,
            _ => CallbackOutcome::TooLate,
        };
        Ok(Judgement::Concluded(outcome))
    }

    /// The write that ends a transaction.
    fn end(
        &self,
        callback: &Callback,
        transaction: crate::Transaction,
        attempt: Attempt,
        status: CallbackStatus,
    ) -> Result<Judgement, CallbackError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let (transition, state) = match status {
            CallbackStatus::Completed => {
                let reference = callback.gateway_reference.clone();
                let at = GatewayReference { gateway: attempt.gateway.clone(), reference };
                (transaction.approve(at, &self.rules, now, ids)?, AttemptState::Approved)
            }
            CallbackStatus::Failed => (transaction.fail("gateway_failed", now, ids)?, AttemptState::Declined),
            _ => (transaction.decline("rejected", now, ids)?, AttemptState::Declined),
        };
        let Transition::Executed(next) = transition else {
            return Ok(Judgement::Concluded(CallbackOutcome::Applied));
        };
        let mut ended = attempt.into_state(state, next.transaction.status_reason.as_deref(), now);
        ended.gateway_reference = Some(callback.gateway_reference.clone());
        Ok(Judgement::Write(Box::new(ChangeSet::from(*next).with_attempts([ended]))))
    }
}

enum Judgement {
    Write(Box<ChangeSet>),
    Concluded(CallbackOutcome),
    Retry(&'static str),
}
