use std::sync::Arc;

use chrono::TimeDelta;

use crate::ports::{
    AuthorizationResult, Gateway, GatewayDirectory, GatewayError, LoadedRefund, RefundRequest, RefundStore, Store,
    StoreError, TransactionReader,
};
use crate::usecases::Sources;
use crate::usecases::authorize_transaction::WRONG_AMOUNT;
use crate::usecases::once::{MAX_TRIES, apply};
use crate::{
    AttemptReference, AttemptState, ChangeSet, CustomerId, IdempotencyRecord, IllegalTransition, Refund,
    RefundFeePolicy, RefundId, RefundRefused, RefundStatus, Transaction, TransactionId, Transition, Verdict,
};

/// Gives back what a gateway has approved, in part or whole: a customer asks for it, and a worker asks the gateway.
///
/// Cost: asking takes one read and one write; giving back, one read, one gateway call and one write.
///
/// Nothing is given back twice, and nothing that is not written here:
///
/// - The refund is durable before its gateway is asked, and its id is the reference under which the gateway gives back at most
///   once. Whoever finds it pending asks again under the same.
/// - What is pending counts as given back: refunds that are asked for at once are never more than the amount together.
/// - A refund ends only with the gateway's final word: yes, no, or a confirmed void. Any error leaves it pending, and sweeps
///   go on asking: the gateway may have given it back. That holds for a refused request, too, because an earlier one under the
///   same reference may have been taken. One that is refused still after [`RefundOptions::void_refused_after`] is voided.
/// - Each write expects the version that was read, so what was paid out meanwhile is seen before payables are taken back.
pub struct RefundTransaction {
    store: Arc<dyn Store>,
    transactions: Arc<dyn TransactionReader>,
    refunds: Arc<dyn RefundStore>,
    gateways: Arc<dyn GatewayDirectory>,
    options: RefundOptions,
    sources: Sources,
}

/// How refunds are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundOptions {
    /// Who bears the fee.
    pub fee_policy: RefundFeePolicy,
    /// How long after a refund was asked for a sweep asks the gateway for it.
    pub check_after: TimeDelta,
    /// How long after a refund was asked for its reference is voided where the gateway refuses the request itself, so that it
    /// ends.
    pub void_refused_after: TimeDelta,
}

impl Default for RefundOptions {
    /// The PSP keeps its fee; 1 minute; 24 hours.
    fn default() -> Self {
        Self {
            fee_policy: RefundFeePolicy::default(),
            check_after: TimeDelta::minutes(1),
            void_refused_after: TimeDelta::hours(24),
        }
    }
}

/// What became of a request to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundRequestOutcome {
    /// The refund is durable, and a worker asks the gateway for it.
    Requested(Box<Transaction>, Box<Refund>),
    /// It is not taken.
    Refused(RefundRefused),
    /// There is no such transaction of this customer.
    Unknown,
    /// The idempotency key was used meanwhile: its answer counts. Nothing was written.
    KeyTaken,
}

/// What became of asking the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundOutcome {
    /// Its end is durable, or was before.
    Done(RefundStatus),
    /// The gateway owes an answer: a sweep asks for it.
    Waiting(String),
    /// No answer yet: try again later, for this reason.
    Retry(String),
    /// Others write too often: try again later.
    Overtaken,
    /// There is no such refund.
    Unknown,
}

/// Why a refund could not be asked for or made.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine does not have this transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

/// A gateway's last word.
enum Word {
    /// It gave back, under its own reference.
    Given(String),
    /// It gave nothing back and never will, for this reason.
    Refused(String),
}

/// Why a refund failed whose request its gateway refused for long.
const GATEWAY_REFUSED: &str = "gateway_refused";

impl RefundTransaction {
    /// The most gateway calls of one try: the refund, and a void where another amount was given back or the request was refused
    /// for long.
    pub const MAX_CALLS: u32 = 2;

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        transactions: Arc<dyn TransactionReader>,
        refunds: Arc<dyn RefundStore>,
        gateways: Arc<dyn GatewayDirectory>,
        options: RefundOptions,
        sources: Sources,
    ) -> Self {
        Self { store, transactions, refunds, gateways, options, sources }
    }

    /// Asks for a refund of a customer's transaction: of that many minor units, or of all that is left. Writes with it the record
    /// of an idempotency key, which `record` makes of the outcome. Where nothing is to be written there is no record.
    ///
    /// The same request at once in another process may have taken what was left: who comes with a key looks it up again before it
    /// tells of a refusal.
    ///
    /// # Errors
    /// [`RefundError`]; nothing was written, except with [`StoreError::OutcomeUnknown`].
    pub async fn request(
        &self,
        customer: &CustomerId,
        id: TransactionId,
        amount_minor: Option<i64>,
        record: impl Fn(&RefundRequestOutcome) -> Option<IdempotencyRecord> + Send + Sync,
    ) -> Result<RefundRequestOutcome, RefundError> {
        for _ in 0..MAX_TRIES {
            if let Some(outcome) = self.try_request(customer, id, amount_minor, &record).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// `None` when the transaction changed meanwhile.
    async fn try_request(
        &self,
        customer: &CustomerId,
        id: TransactionId,
        amount_minor: Option<i64>,
        record: &(impl Fn(&RefundRequestOutcome) -> Option<IdempotencyRecord> + Send + Sync),
    ) -> Result<Option<RefundRequestOutcome>, RefundError> {
        let Some(transaction) = self.transactions.find(customer, id).await? else {
            return Ok(Some(RefundRequestOutcome::Unknown));
        };
        let amount = amount_minor.map(|minor| crate::Money::new(minor, transaction.amount.currency()));
        let now = self.sources.clock.now();
        let next = match transaction.ask_refund(amount, now + self.options.check_after, now, self.sources.ids.as_ref())
        {
            Ok(next) => next,
            Err(refused) => return Ok(Some(RefundRequestOutcome::Refused(refused))),
        };
        let refund = next.refunds.first().cloned().ok_or_else(|| damaged("a refund was asked for and is not there"))?;
        let outcome = RefundRequestOutcome::Requested(Box::new(next.transaction.clone()), Box::new(refund));
        let mut change = ChangeSet::from(next);
        change.idempotency = record(&outcome);
        let has_key = change.idempotency.is_some();
        match apply(self.store.as_ref(), change).await? {
            Verdict::Applied | Verdict::AlreadyApplied => Ok(Some(outcome)),
            Verdict::StaleVersion => Ok(None),
            Verdict::Duplicate if has_key => Ok(Some(RefundRequestOutcome::KeyTaken)),
            Verdict::Duplicate => Err(damaged("a new refund was refused").into()),
        }
    }

    /// Asks the gateway to give a pending refund back, and writes its answer. `is_last` when nobody will try again soon: sweeps
    /// go on then.
    ///
    /// A gateway that gave back another amount than it was asked for is told to take it back. Once it has confirmed that, the
    /// refund has failed, and nothing was given back; until then it is pending. A reference that is voided already has given
    /// nothing back either. So it goes with a request that the gateway refuses still when the refund is old.
    ///
    /// # Errors
    /// [`RefundError`]; trying again is safe.
    pub async fn perform(&self, id: RefundId, is_last: bool) -> Result<RefundOutcome, RefundError> {
        let Some(loaded) = self.refunds.load_refund(id).await? else { return Ok(RefundOutcome::Unknown) };
        if loaded.refund.status != RefundStatus::Pending {
            return Ok(RefundOutcome::Done(loaded.refund.status));
        }
        match self.ask(&loaded).await? {
            Ok(Some(word)) => self.end(loaded, &word).await,
            Ok(None) => Ok(RefundOutcome::Waiting("the gateway answers later".into())),
            Err(reason) if is_last => Ok(RefundOutcome::Waiting(reason)),
            Err(reason) => Ok(RefundOutcome::Retry(reason)),
        }
    }

    /// What the gateway says: its last word, `None` where it answers later, or why it said nothing.
    async fn ask(&self, loaded: &LoadedRefund) -> Result<Result<Option<Word>, String>, RefundError> {
        let (refund, transaction) = (&loaded.refund, &loaded.transaction);
        let Some(at) = &transaction.gateway else {
            return Err(damaged("a transaction is approved by no gateway").into());
        };
        let Some(gateway) = self.gateways.find(&at.gateway) else {
            return Ok(Err(format!("the gateway {} is not configured", at.gateway)));
        };
        let approved = loaded.attempts.iter().rev().find(|attempt| attempt.state == AttemptState::Approved);
        let request = RefundRequest {
            reference: AttemptReference(refund.id.0),
            // What was approved before there were attempts has its own id.
            of: approved.map_or(AttemptReference(transaction.id.0), |attempt| attempt.reference),
            amount: refund.amount,
        };
        let told = |error| format!("{}: {error}", at.gateway);
        Ok(match gateway.refund(&request).await {
            Ok(AuthorizationResult::Approved { amount: Some(amount), .. }) if amount != refund.amount => {
                take_back(&*gateway, request.reference, WRONG_AMOUNT).await.map(Some)
            }
            Ok(AuthorizationResult::Approved { reference, .. }) => Ok(Some(Word::Given(reference))),
            Ok(AuthorizationResult::Declined { reason }) => Ok(Some(Word::Refused(reason))),
            Ok(AuthorizationResult::Pending { .. }) => Ok(None),
            Err(GatewayError::Refused(_)) if self.is_old(refund) => {
                take_back(&*gateway, request.reference, GATEWAY_REFUSED).await.map(Some)
            }
            Err(error) => Err(told(error)),
        })
    }

    /// Whether a refund is so old that a refused request is its end.
    fn is_old(&self, refund: &Refund) -> bool {
        self.sources.clock.now() - refund.created_at >= self.options.void_refused_after
    }

    /// Writes a gateway's last word, and decides again where the transaction changed meanwhile.
    async fn end(&self, mut loaded: LoadedRefund, word: &Word) -> Result<RefundOutcome, RefundError> {
        let id = loaded.refund.id;
        for _ in 0..MAX_TRIES {
            if loaded.refund.status != RefundStatus::Pending {
                return Ok(RefundOutcome::Done(loaded.refund.status));
            }
            let (change, status) = self.ended(loaded, word)?;
            match apply(self.store.as_ref(), change).await? {
                Verdict::Applied | Verdict::AlreadyApplied => return Ok(RefundOutcome::Done(status)),
                Verdict::StaleVersion | Verdict::Duplicate => {}
            }
            let Some(again) = self.refunds.load_refund(id).await? else { return Ok(RefundOutcome::Unknown) };
            loaded = again;
        }
        Ok(RefundOutcome::Overtaken)
    }

    /// The write that ends a pending refund.
    fn ended(&self, loaded: LoadedRefund, word: &Word) -> Result<(ChangeSet, RefundStatus), RefundError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let LoadedRefund { mut refund, transaction, payables, .. } = loaded;
        let (transition, status) = match word {
            Word::Given(reference) => {
                refund.gateway_reference = Some(reference.clone());
                let policy = self.options.fee_policy;
                (transaction.complete_refund(refund, &payables, policy, now, ids)?, RefundStatus::Succeeded)
            }
            Word::Refused(reason) => {
                (transaction.fail_refund(refund, reason, &payables, now, ids)?, RefundStatus::Failed)
            }
        };
        match transition {
            Transition::Executed(next) => Ok((ChangeSet::from(*next), status)),
            Transition::AlreadyApplied => Err(damaged("a pending refund has ended").into()),
        }
    }
}

/// Has whatever was given back under a reference taken back: then the refund has failed, for that reason.
async fn take_back(gateway: &dyn Gateway, reference: AttemptReference, reason: &str) -> Result<Word, String> {
    match gateway.void(reference).await {
        Ok(()) => Ok(Word::Refused(reason.to_owned())),
        Err(error) => Err(format!("{}: {reason}, and voiding failed: {error}", gateway.name())),
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}
