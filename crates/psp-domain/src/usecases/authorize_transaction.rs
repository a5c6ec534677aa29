use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ports::{
    AuthorizationRequest, AuthorizationResult, Candidate, CardVault, Gateway, GatewayDirectory, GatewayError, Store,
    StoreError, UnauthorizedTransaction, VOIDED, VaultError,
};
use crate::usecases::Sources;
use crate::{
    Attempt, AttemptReference, AttemptState, Card, ChangeSet, FeeRules, GatewayName, GatewayReference,
    IllegalTransition, SealedCard, Transaction, TransactionStatus, Transition, Verdict,
};

/// Asks gateways for approval, one after the other, and writes the answer: an approval together with the payables that the
/// fee rules give, so no payment is ever approved without them.
///
/// Cost of the usual way: two writes, which group commit shares with others, and one gateway call between them. Each further
/// gateway of a round costs a call and a write, or two of each where the one before may have charged.
///
/// Nobody is charged twice, and nothing is charged that is not approved here:
///
/// - The attempt is durable before its gateway is asked, under a reference that is charged at most once. Whoever finds it
///   unresolved later asks the gateway what became of it before anything else.
/// - Another gateway is asked only when the one before has charged nothing and never will: it did not take the only request
///   that was made under the reference, it declined, or it confirmed a void.
/// - A void is written before it is sent, and every write expects the version that was read: an approval that was on its way
///   meanwhile is not written, and the void takes it back.
pub struct AuthorizeTransaction {
    store: Arc<dyn Store>,
    vault: Arc<dyn CardVault>,
    gateways: Arc<dyn GatewayDirectory>,
    rules: FeeRules,
    options: AuthorizeOptions,
    sources: Sources,
}

/// How long is waited for gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorizeOptions {
    /// How old a transaction may be that no gateway answers for; then it fails.
    pub budget: TimeDelta,
    /// How old an attempt may be that a gateway has taken and not decided; then it is taken back.
    pub pending_budget: TimeDelta,
    /// How long after an attempt was opened, or taken to be decided later, a sweep asks for it.
    pub check_after: TimeDelta,
}

impl Default for AuthorizeOptions {
    /// 15 minutes, 72 hours, 1 minute.
    fn default() -> Self {
        Self {
            budget: TimeDelta::minutes(15),
            pending_budget: TimeDelta::hours(72),
            check_after: TimeDelta::minutes(1),
        }
    }
}

/// How one round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizeOutcome {
    /// The answer is durable, or was before.
    Done(TransactionStatus),
    /// A gateway owes an answer: a callback brings it, or a sweep asks for it.
    Waiting(String),
    /// No answer yet: try again later, for this reason.
    Retry(String),
    /// Somebody else wrote meanwhile: load it again.
    Overtaken,
}

/// Why a round could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The card cannot be opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The state machine does not have this transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

/// Why an attempt came to nothing, having charged nothing.
enum Next {
    /// Nobody answered: the reason that a failure has, and what is told of a retry.
    Unanswered(&'static str, String),
    Declined(String),
}

/// What a step leads to.
enum Step {
    Ended(AuthorizeOutcome),
    Next(Next),
}

/// A transaction on its way through a round.
struct Round {
    transaction: Transaction,
    sealed: Option<SealedCard>,
    number: u16,
    /// The attempt that is resolved and not written as that yet: it goes with the next write.
    resolved: Option<Attempt>,
    tried: HashSet<GatewayName>,
    /// With which reason a gateway declined, whose decline others may better.
    declined: Option<String>,
    /// With which declines of the gateway that is asked the next one may be.
    retry_declines: Arc<[String]>,
    is_last: bool,
    /// Whether gateways may be asked anew: also late, where none was asked in time.
    opens: bool,
    now: DateTime<Utc>,
}

impl AuthorizeTransaction {
    /// The most gateways of one round.
    pub const MAX_GATEWAYS: usize = 4;
    /// The most gateway calls of one round: three for an attempt that was found, two for each gateway.
    pub const MAX_CALLS: u32 = 3 + 2 * 4;

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<dyn CardVault>,
        gateways: Arc<dyn GatewayDirectory>,
        rules: FeeRules,
        options: AuthorizeOptions,
        sources: Sources,
    ) -> Self {
        Self { store, vault, gateways, rules, options, sources }
    }

    /// Makes one round over the gateways. `is_last` when nobody will try again soon: what was not answered is then taken back
    /// and failed, as it is when the transaction's time is over.
    ///
    /// # Errors
    /// [`AuthorizeError`]; making another round is safe.
    pub async fn execute(
        &self,
        loaded: UnauthorizedTransaction,
        is_last: bool,
    ) -> Result<AuthorizeOutcome, AuthorizeError> {
        let UnauthorizedTransaction { transaction, card, attempts } = loaded;
        if transaction.status != TransactionStatus::Processing {
            return Ok(AuthorizeOutcome::Done(transaction.status));
        }
        let now = self.sources.clock.now();
        let is_over = now >= transaction.created_at + self.options.budget;
        let mut round = Round {
            is_last: is_last || is_over,
            opens: !is_over || attempts.is_empty(),
            number: attempts.last().map_or(0, |attempt| attempt.number),
            transaction,
            sealed: card,
            resolved: None,
            tried: HashSet::new(),
            declined: None,
            retry_declines: Arc::default(),
            now,
        };
        let declined = attempts.iter().filter(|attempt| attempt.state == AttemptState::Declined);
        for attempt in declined {
            round.tried.insert(attempt.gateway.clone());
            round.declined.clone_from(&attempt.reason);
        }
        let mut reason = Next::Unanswered(UNAVAILABLE, "no gateway can be asked now".into());
        if let Some(attempt) = attempts.into_iter().next_back().filter(|attempt| attempt.state.is_unresolved()) {
            match self.resume(&mut round, attempt).await? {
                Step::Ended(outcome) => return Ok(outcome),
                Step::Next(next) => reason = next,
            }
        }
        while let Some(candidate) = self.next_candidate(&round) {
            if round.needs_card() && round.sealed.is_none() {
                return self.fail(&mut round, "card_erased").await;
            }
            let card = self.open_card(&round).await?;
            match self.attempt(&mut round, &candidate, card).await? {
                Step::Ended(outcome) => return Ok(outcome),
                Step::Next(next) => reason = next,
            }
        }
        self.end(&mut round, reason).await
    }

    /// The next gateway to ask in this round.
    fn next_candidate(&self, round: &Round) -> Option<Candidate> {
        if !round.opens || round.tried.len() >= Self::MAX_GATEWAYS || round.number >= Attempt::MAX_PER_TRANSACTION {
            return None;
        }
        let candidates = self.gateways.candidates(&round.transaction);
        candidates.into_iter().find(|candidate| !round.tried.contains(candidate.gateway.name()))
    }

    /// Opens an attempt, which is durable then, and asks its gateway.
    async fn attempt(
        &self,
        round: &mut Round,
        candidate: &Candidate,
        card: Option<Card>,
    ) -> Result<Step, AuthorizeError> {
        let now = self.sources.clock.now();
        let attempt = Attempt {
            transaction_id: round.transaction.id,
            number: round.number + 1,
            gateway: candidate.gateway.name().clone(),
            // The first one has the transaction's own id: releases before this one knew no other, and may be running beside it.
            reference: AttemptReference(match round.number {
                0 => round.transaction.id.0,
                _ => self.sources.ids.next_id(),
            }),
            state: AttemptState::Open,
            gateway_reference: None,
            reason: None,
            check_at: Some(now + self.options.check_after),
            created_at: now,
            updated_at: now,
        };
        round.tried.insert(attempt.gateway.clone());
        round.number = attempt.number;
        round.retry_declines = Arc::clone(&candidate.retry_declines);
        if let Some(outcome) = self.write_attempt(round, attempt.clone()).await? {
            return Ok(Step::Ended(outcome));
        }
        let request = request(&round.transaction, attempt.reference, card);
        match candidate.gateway.authorize(&request).await {
            Ok(answer) => self.take_answer(round, attempt, &*candidate.gateway, answer).await,
            // The only request under this reference.
            Err(error @ (GatewayError::Unavailable(_) | GatewayError::Refused(_))) => {
                let (now, told) = (self.sources.clock.now(), format!("{}: {error}", attempt.gateway));
                round.resolved = Some(attempt.into_state(AttemptState::NotTaken, Some(&told), now));
                Ok(Step::Next(Next::Unanswered(UNAVAILABLE, told)))
            }
            Err(GatewayError::TimedOut) => self.give_up_or_wait(round, attempt, &*candidate.gateway).await,
        }
    }

    /// Goes on with an attempt that an earlier round left unresolved.
    async fn resume(&self, round: &mut Round, attempt: Attempt) -> Result<Step, AuthorizeError> {
        round.tried.insert(attempt.gateway.clone());
        let candidates = self.gateways.candidates(&round.transaction);
        if let Some(asked) = candidates.into_iter().find(|candidate| *candidate.gateway.name() == attempt.gateway) {
            round.retry_declines = asked.retry_declines;
        }
        let Some(gateway) = self.gateways.find(&attempt.gateway) else {
            let reason = format!("the gateway {} is not configured", attempt.gateway);
            return Ok(Step::Ended(AuthorizeOutcome::Retry(reason)));
        };
        if attempt.state == AttemptState::Voiding {
            return self.void(round, attempt, &*gateway).await;
        }
        match gateway.find(attempt.reference).await {
            Ok(Some(answer)) => self.take_answer(round, attempt, &*gateway, answer).await,
            Ok(None) | Err(_) if attempt.state == AttemptState::Pending => self.wait(round, attempt, &*gateway).await,
            Ok(None) if !round.is_last && (round.sealed.is_some() || !round.needs_card()) => {
                // It may be on its way still: under the same reference it is charged once. Written first, so that whoever sent
                // it before cannot write any more that nothing was taken.
                let card = self.open_card(round).await?;
                let mut attempt = attempt;
                (attempt.updated_at, attempt.check_at) = (round.now, Some(round.now + self.options.check_after));
                if let Some(outcome) = self.write_attempt(round, attempt.clone()).await? {
                    return Ok(Step::Ended(outcome));
                }
                let request = request(&round.transaction, attempt.reference, card);
                match gateway.authorize(&request).await {
                    Ok(answer) => self.take_answer(round, attempt, &*gateway, answer).await,
                    Err(_) => self.give_up_or_wait(round, attempt, &*gateway).await,
                }
            }
            Ok(None) | Err(_) => self.give_up_or_wait(round, attempt, &*gateway).await,
        }
    }

    /// Writes what an answer comes to.
    async fn take_answer(
        &self,
        round: &mut Round,
        attempt: Attempt,
        gateway: &dyn Gateway,
        answer: AuthorizationResult,
    ) -> Result<Step, AuthorizeError> {
        let now = self.sources.clock.now();
        match answer {
            AuthorizationResult::Approved { amount: Some(amount), .. } if amount != round.transaction.amount => {
                self.take_back(round, attempt, gateway, WRONG_AMOUNT).await
            }
            AuthorizationResult::Approved { reference, .. } => {
                let at = GatewayReference { gateway: attempt.gateway.clone(), reference: reference.clone() };
                let transition = round.transaction.clone().approve(at, &self.rules, now, self.sources.ids.as_ref())?;
                let mut approved = attempt.into_state(AttemptState::Approved, None, now);
                approved.gateway_reference = Some(reference);
                round.resolved = Some(approved);
                self.write(round, transition).await.map(Step::Ended)
            }
            AuthorizationResult::Declined { reason } if reason == VOIDED => {
                let told = format!("{} had voided it", attempt.gateway);
                round.resolved = Some(attempt.into_state(AttemptState::Voided, None, now));
                Ok(Step::Next(Next::Unanswered(TIMED_OUT, told)))
            }
            AuthorizationResult::Declined { reason } => {
                let elsewhere = round.retry_declines.contains(&reason);
                round.resolved = Some(attempt.into_state(AttemptState::Declined, Some(&reason), now));
                if elsewhere {
                    round.declined = Some(reason.clone());
                    return Ok(Step::Next(Next::Declined(reason)));
                }
                self.decline(round, &reason).await.map(Step::Ended)
            }
            AuthorizationResult::Pending { reference } => {
                if attempt.state == AttemptState::Pending {
                    return self.wait(round, attempt, gateway).await;
                }
                let mut pending = attempt.into_state(AttemptState::Pending, None, now);
                pending.gateway_reference = reference;
                pending.check_at = Some(now + self.options.check_after);
                let failed = self.write_attempt(round, pending).await?;
                Ok(Step::Ended(failed.unwrap_or_else(waiting)))
            }
        }
    }

    /// Waits for a gateway that will answer later, until its time is over.
    async fn wait(&self, round: &mut Round, attempt: Attempt, gateway: &dyn Gateway) -> Result<Step, AuthorizeError> {
        if round.now < attempt.created_at + self.options.pending_budget {
            return Ok(Step::Ended(waiting()));
        }
        self.take_back(round, attempt, gateway, TIMED_OUT).await
    }

    /// After a lost answer: takes the attempt back when another gateway can be asked or nobody will try again; otherwise
    /// leaves it to the next round, which asks what became of it.
    async fn give_up_or_wait(
        &self,
        round: &mut Round,
        attempt: Attempt,
        gateway: &dyn Gateway,
    ) -> Result<Step, AuthorizeError> {
        if round.is_last || self.next_candidate(round).is_some() {
            return self.take_back(round, attempt, gateway, TIMED_OUT).await;
        }
        Ok(Step::Ended(AuthorizeOutcome::Retry(format!("{}: {}", attempt.gateway, GatewayError::TimedOut))))
    }

    /// Writes that the attempt is to be voided, and voids it.
    async fn take_back(
        &self,
        round: &mut Round,
        attempt: Attempt,
        gateway: &dyn Gateway,
        reason: &str,
    ) -> Result<Step, AuthorizeError> {
        let voiding = attempt.into_state(AttemptState::Voiding, Some(reason), self.sources.clock.now());
        let attempts = round.resolved.take().into_iter().chain([voiding.clone()]).collect();
        let change = ChangeSet::of_attempts(round.transaction.clone(), attempts);
        // What was applied before may be somebody else's void, for another reason: the next round looks at it.
        if self.store.apply(change).await? != Verdict::Applied {
            return Ok(Step::Ended(AuthorizeOutcome::Overtaken));
        }
        round.transaction.version += 1;
        self.void(round, voiding, gateway).await
    }

    async fn void(&self, round: &mut Round, attempt: Attempt, gateway: &dyn Gateway) -> Result<Step, AuthorizeError> {
        if let Err(error) = gateway.void(attempt.reference).await {
            let reason = format!("{} may have charged, and voiding failed: {error}", attempt.gateway);
            // A sweep goes on asking when nobody else does.
            let outcome = if round.is_last { AuthorizeOutcome::Waiting } else { AuthorizeOutcome::Retry };
            return Ok(Step::Ended(outcome(reason)));
        }
        let (reason, told) =
            (attempt.reason.clone(), format!("{}: {}, and voided", attempt.gateway, GatewayError::TimedOut));
        round.resolved = Some(attempt.into_state(AttemptState::Voided, None, self.sources.clock.now()));
        match reason.as_deref() {
            Some(CANCELLED) => self.cancel(round).await.map(Step::Ended),
            Some(WRONG_AMOUNT) => self.fail(round, WRONG_AMOUNT).await.map(Step::Ended),
            _ => Ok(Step::Next(Next::Unanswered(TIMED_OUT, told))),
        }
    }

    /// Ends a round in which nobody approved.
    async fn end(&self, round: &mut Round, reason: Next) -> Result<AuthorizeOutcome, AuthorizeError> {
        match reason {
            Next::Declined(reason) => self.decline(round, &reason).await,
            Next::Unanswered(reason, _) if round.is_last => match round.declined.take() {
                Some(declined) => self.decline(round, &declined).await,
                None => self.fail(round, reason).await,
            },
            Next::Unanswered(_, told) => {
                if let Some(resolved) = round.resolved.take()
                    && let Some(outcome) = self.write_attempt(round, resolved).await?
                {
                    return Ok(outcome);
                }
                Ok(AuthorizeOutcome::Retry(told))
            }
        }
    }

    async fn decline(&self, round: &mut Round, reason: &str) -> Result<AuthorizeOutcome, AuthorizeError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let transition = round.transaction.clone().decline(reason, now, ids)?;
        self.write(round, transition).await
    }

    async fn fail(&self, round: &mut Round, reason: &str) -> Result<AuthorizeOutcome, AuthorizeError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let transition = round.transaction.clone().fail(reason, now, ids)?;
        self.write(round, transition).await
    }

    async fn cancel(&self, round: &mut Round) -> Result<AuthorizeOutcome, AuthorizeError> {
        let (now, ids) = (self.sources.clock.now(), self.sources.ids.as_ref());
        let transition = round.transaction.clone().cancel(now, ids)?;
        self.write(round, transition).await
    }

    /// Writes a new state with the attempt that led to it.
    async fn write(&self, round: &mut Round, transition: Transition) -> Result<AuthorizeOutcome, AuthorizeError> {
        let Transition::Executed(next) = transition else { return Ok(AuthorizeOutcome::Overtaken) };
        let status = next.transaction.status;
        let change = ChangeSet::from(*next).with_attempts(round.resolved.take());
        Ok(if is_written(self.store.apply(change).await?) {
            AuthorizeOutcome::Done(status)
        } else {
            AuthorizeOutcome::Overtaken
        })
    }

    /// Writes an attempt beside the one that is resolved; returns how the round ends where somebody else was faster.
    async fn write_attempt(
        &self,
        round: &mut Round,
        attempt: Attempt,
    ) -> Result<Option<AuthorizeOutcome>, AuthorizeError> {
        let attempts = round.resolved.take().into_iter().chain([attempt]).collect();
        let change = ChangeSet::of_attempts(round.transaction.clone(), attempts);
        if !is_written(self.store.apply(change).await?) {
            return Ok(Some(AuthorizeOutcome::Overtaken));
        }
        round.transaction.version += 1;
        Ok(None)
    }

    async fn open_card(&self, round: &Round) -> Result<Option<Card>, VaultError> {
        match &round.sealed {
            Some(sealed) if round.needs_card() => self.vault.open(round.transaction.id, sealed).await.map(Some),
            _ => Ok(None),
        }
    }
}

/// Why an attempt is taken back that a customer cancelled: its transaction is cancelled then, and not failed.
pub(crate) const CANCELLED: &str = "cancelled";
/// Why a transaction fails: no gateway took it, or one took it and could not be heard in time.
const UNAVAILABLE: &str = "gateway_unavailable";
const TIMED_OUT: &str = "gateway_timeout";
/// The gateway approved another amount than it was asked for.
pub(super) const WRONG_AMOUNT: &str = "wrong_amount";

impl Round {
    fn needs_card(&self) -> bool {
        self.transaction.payment_method.is_card()
    }
}

fn request(transaction: &Transaction, reference: AttemptReference, card: Option<Card>) -> AuthorizationRequest {
    AuthorizationRequest {
        reference,
        transaction_id: transaction.id,
        kind: transaction.kind,
        amount: transaction.amount,
        payment_method: transaction.payment_method,
        installments: transaction.installments,
        country: transaction.named.country,
        card,
    }
}

fn is_written(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Applied | Verdict::AlreadyApplied)
}

fn waiting() -> AuthorizeOutcome {
    AuthorizeOutcome::Waiting("the gateway answers later".into())
}
