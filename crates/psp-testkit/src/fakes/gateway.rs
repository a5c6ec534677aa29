use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, Candidate, ForgedCallback, Gateway, GatewayDirectory,
    GatewayError, RefundRequest, VOIDED,
};
use psp_domain::{AttemptReference, GatewayName, Transaction, TransactionId};

type Answer = (Duration, Result<AuthorizationResult, GatewayError>);

/// A gateway that gives the answers it was told to, in order, and approves after them. It finds what it decided, and voids. It
/// gives back what it charged and no more. Callbacks are its own when their signature is its name.
pub struct ScriptedGateway {
    name: GatewayName,
    answers: Mutex<VecDeque<Answer>>,
    faults: Mutex<VecDeque<GatewayError>>,
    decided: Mutex<HashMap<AttemptReference, AuthorizationResult>>,
    requests: Mutex<Vec<AuthorizationRequest>>,
    found: Mutex<Vec<AttemptReference>>,
    voided: Mutex<Vec<AttemptReference>>,
    void_faults: Mutex<VecDeque<GatewayError>>,
    refund_answers: Mutex<VecDeque<Result<AuthorizationResult, GatewayError>>>,
    refunds: Mutex<Vec<(RefundRequest, AuthorizationResult)>>,
    refund_requests: Mutex<Vec<RefundRequest>>,
}

impl Default for ScriptedGateway {
    fn default() -> Self {
        Self::named("scripted")
    }
}

impl ScriptedGateway {
    /// A gateway of that name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            answers: Mutex::default(),
            faults: Mutex::default(),
            decided: Mutex::default(),
            requests: Mutex::default(),
            found: Mutex::default(),
            voided: Mutex::default(),
            void_faults: Mutex::default(),
            refund_answers: Mutex::default(),
            refunds: Mutex::default(),
            refund_requests: Mutex::default(),
        }
    }

    /// One more answer, given after that time.
    pub fn answer(&self, after: Duration, answer: Result<AuthorizationResult, GatewayError>) {
        self.answers.lock().unwrap().push_back((after, answer));
    }

    /// One more answer to a refund that it has not decided.
    pub fn answer_refund(&self, answer: Result<AuthorizationResult, GatewayError>) {
        self.refund_answers.lock().unwrap().push_back(answer);
    }

    /// Decides a reference without telling: what a lost answer leaves behind.
    pub fn decide(&self, reference: AttemptReference, answer: AuthorizationResult) {
        self.decided.lock().unwrap().insert(reference, answer);
    }

    /// Approves a reference that is pending.
    pub fn decide_pending(&self, reference: AttemptReference) {
        if let Some(answer @ AuthorizationResult::Pending { .. }) = self.decided.lock().unwrap().get_mut(&reference) {
            *answer = AuthorizationResult::Approved { reference: reference.to_string(), amount: None };
        }
    }

    /// One more fault, which the next `find`, `void` or `refund` meets.
    pub fn fail_next(&self, fault: GatewayError) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// One more fault, which the next `void` meets.
    pub fn fail_next_void(&self, fault: GatewayError) {
        self.void_faults.lock().unwrap().push_back(fault);
    }

    /// What it was asked to authorize: transactions, in order.
    pub fn asked(&self) -> Vec<TransactionId> {
        self.requests.lock().unwrap().iter().map(|request| request.transaction_id).collect()
    }

    /// The references that it was asked to authorize, in order.
    pub fn references(&self) -> Vec<AttemptReference> {
        self.requests.lock().unwrap().iter().map(|request| request.reference).collect()
    }

    /// What it was asked to find, in order.
    pub fn found(&self) -> Vec<AttemptReference> {
        self.found.lock().unwrap().clone()
    }

    /// What it was asked to void, in order.
    pub fn voided(&self) -> Vec<AttemptReference> {
        self.voided.lock().unwrap().clone()
    }

    /// The references that it charges.
    pub fn charged(&self) -> Vec<AttemptReference> {
        let decided = self.decided.lock().unwrap();
        let approved = decided.iter().filter(|(_, answer)| matches!(answer, AuthorizationResult::Approved { .. }));
        approved.map(|(reference, _)| *reference).collect()
    }

    /// What it was asked to give back, in order.
    pub fn refund_requests(&self) -> Vec<RefundRequest> {
        self.refund_requests.lock().unwrap().clone()
    }

    /// What it gave back: once for each reference.
    pub fn given_back(&self) -> Vec<RefundRequest> {
        let refunds = self.refunds.lock().unwrap();
        let given = refunds.iter().filter(|(_, answer)| matches!(answer, AuthorizationResult::Approved { .. }));
        given.map(|(request, _)| request.clone()).collect()
    }

    /// What it says of a refund unless told otherwise.
    fn judge_refund(&self, request: &RefundRequest) -> AuthorizationResult {
        let declined = |reason: &str| AuthorizationResult::Declined { reason: reason.into() };
        if !self.charged().contains(&request.of) {
            return declined("not_charged");
        }
        let given: i64 = self.given_back().iter().filter(|r| r.of == request.of).map(|r| r.amount.minor()).sum();
        let requests = self.requests.lock().unwrap();
        let charge = requests.iter().find(|charge| charge.reference == request.of);
        if charge.is_some_and(|charge| given + request.amount.minor() > charge.amount.minor()) {
            return declined("exceeds_charge");
        }
        AuthorizationResult::Approved { reference: request.reference.to_string(), amount: Some(request.amount) }
    }

    fn fault(&self) -> Result<(), GatewayError> {
        self.faults.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Gateway for ScriptedGateway {
    fn name(&self) -> &GatewayName {
        &self.name
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let reference = request.reference;
        self.requests.lock().unwrap().push(request.clone());
        let decided = self.decided.lock().unwrap().get(&reference).cloned();
        let scripted = if decided.is_some() { None } else { self.answers.lock().unwrap().pop_front() };
        let approved = AuthorizationResult::Approved { reference: reference.to_string(), amount: Some(request.amount) };
        let (after, answer) = scripted.unwrap_or((Duration::ZERO, Ok(decided.unwrap_or(approved))));
        tokio::time::sleep(after).await;
        if let Ok(answer) = &answer {
            self.decided.lock().unwrap().entry(reference).or_insert_with(|| answer.clone());
        }
        answer
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.found.lock().unwrap().push(reference);
        self.fault()?;
        Ok(self.decided.lock().unwrap().get(&reference).cloned())
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.voided.lock().unwrap().push(reference);
        self.fault()?;
        self.void_faults.lock().unwrap().pop_front().map_or(Ok(()), Err)?;
        let voided = || AuthorizationResult::Declined { reason: VOIDED.to_owned() };
        if let Some((_, answer)) = self.refunds.lock().unwrap().iter_mut().find(|(r, _)| r.reference == reference) {
            if !matches!(answer, AuthorizationResult::Declined { .. }) {
                *answer = voided();
            }
            return Ok(());
        }
        let mut decided = self.decided.lock().unwrap();
        if !matches!(decided.get(&reference), Some(AuthorizationResult::Declined { .. })) {
            decided.insert(reference, voided());
        }
        Ok(())
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.refund_requests.lock().unwrap().push(request.clone());
        self.fault()?;
        let known = self.refunds.lock().unwrap().iter().find(|(r, _)| r.reference == request.reference).cloned();
        let is_decided = |answer: &AuthorizationResult| !matches!(answer, AuthorizationResult::Pending { .. });
        if let Some((_, answer)) = known.filter(|(_, answer)| is_decided(answer)) {
            return Ok(answer);
        }
        let scripted = self.refund_answers.lock().unwrap().pop_front();
        let answer = scripted.unwrap_or_else(|| Ok(self.judge_refund(request)))?;
        let mut refunds = self.refunds.lock().unwrap();
        refunds.retain(|(r, _)| r.reference != request.reference);
        refunds.push((request.clone(), answer.clone()));
        Ok(answer)
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        let own = callback.signature.is_none_or(|signature| signature == self.name.as_str());
        if own { Ok(()) } else { Err(ForgedCallback::Signature) }
    }
}

/// Gateways in a fixed order, for every transaction; those that are named otherwise are not there.
#[derive(Default)]
pub struct FixedDirectory {
    candidates: Mutex<Vec<Candidate>>,
}

impl FixedDirectory {
    /// A directory of those gateways, with which every decline is final.
    pub fn of(gateways: impl IntoIterator<Item = Arc<dyn Gateway>>) -> Self {
        let candidate = |gateway| Candidate { gateway, retry_declines: Arc::new([]) };
        Self { candidates: Mutex::new(gateways.into_iter().map(candidate).collect()) }
    }

    /// Lets a decline with that reason go on to the next gateway.
    pub fn retry_declines(&self, reason: &str) {
        for candidate in self.candidates.lock().unwrap().iter_mut() {
            candidate.retry_declines = Arc::new([reason.to_owned()]);
        }
    }

    /// Takes all gateways away, as if every breaker were open.
    pub fn close(&self) -> Vec<Candidate> {
        std::mem::take(&mut self.candidates.lock().unwrap())
    }

    /// Brings gateways back.
    pub fn open(&self, candidates: Vec<Candidate>) {
        *self.candidates.lock().unwrap() = candidates;
    }
}

impl GatewayDirectory for FixedDirectory {
    fn candidates(&self, transaction: &Transaction) -> Vec<Candidate> {
        let all = self.candidates.lock().unwrap().clone();
        let wanted = |candidate: &Candidate| {
            transaction.named.gateway.as_ref().is_none_or(|name| name == candidate.gateway.name())
        };
        all.into_iter().filter(wanted).collect()
    }

    fn find(&self, name: &GatewayName) -> Option<Arc<dyn Gateway>> {
        let candidates = self.candidates.lock().unwrap();
        candidates.iter().find(|candidate| candidate.gateway.name() == name).map(|c| Arc::clone(&c.gateway))
    }

    fn is_enabled(&self, name: &GatewayName) -> bool {
        self.find(name).is_some()
    }
}
