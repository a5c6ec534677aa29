use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::TransactionId;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError, VOIDED};

type Answer = (Duration, Result<AuthorizationResult, GatewayError>);

/// A gateway that gives the answers it was told to, in order, and approves after them. It finds what it decided, and voids.
#[derive(Default)]
pub struct ScriptedGateway {
    answers: Mutex<VecDeque<Answer>>,
    faults: Mutex<VecDeque<GatewayError>>,
    decided: Mutex<HashMap<TransactionId, AuthorizationResult>>,
    asked: Mutex<Vec<(TransactionId, u32)>>,
    found: Mutex<Vec<TransactionId>>,
    voided: Mutex<Vec<TransactionId>>,
}

impl ScriptedGateway {
    /// One more answer, given after that time.
    pub fn answer(&self, after: Duration, answer: Result<AuthorizationResult, GatewayError>) {
        self.answers.lock().unwrap().push_back((after, answer));
    }

    /// Decides a transaction without telling: what a lost answer leaves behind.
    pub fn decide(&self, id: TransactionId, answer: AuthorizationResult) {
        self.decided.lock().unwrap().insert(id, answer);
    }

    /// One more fault, which the next `find` or `void` meets.
    pub fn fail_next(&self, fault: GatewayError) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// What it was asked to authorize: transactions and attempts, in order.
    pub fn asked(&self) -> Vec<(TransactionId, u32)> {
        self.asked.lock().unwrap().clone()
    }

    /// What it was asked to find, in order.
    pub fn found(&self) -> Vec<TransactionId> {
        self.found.lock().unwrap().clone()
    }

    /// What it was asked to void, in order.
    pub fn voided(&self) -> Vec<TransactionId> {
        self.voided.lock().unwrap().clone()
    }

    fn fault(&self) -> Result<(), GatewayError> {
        self.faults.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Gateway for ScriptedGateway {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let id = request.transaction_id;
        self.asked.lock().unwrap().push((id, request.attempt));
        let scripted = self.answers.lock().unwrap().pop_front();
        let otherwise = || {
            let approved = AuthorizationResult::Approved { reference: id.to_string() };
            Ok(self.decided.lock().unwrap().get(&id).cloned().unwrap_or(approved))
        };
        let (after, answer) = scripted.unwrap_or_else(|| (Duration::ZERO, otherwise()));
        tokio::time::sleep(after).await;
        if let Ok(answer) = &answer {
            self.decide(id, answer.clone());
        }
        answer
    }

    async fn find(&self, id: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.found.lock().unwrap().push(id);
        self.fault()?;
        Ok(self.decided.lock().unwrap().get(&id).cloned())
    }

    async fn void(&self, id: TransactionId) -> Result<(), GatewayError> {
        self.voided.lock().unwrap().push(id);
        self.fault()?;
        let mut decided = self.decided.lock().unwrap();
        if !matches!(decided.get(&id), Some(AuthorizationResult::Declined { .. })) {
            decided.insert(id, AuthorizationResult::Declined { reason: VOIDED.to_owned() });
        }
        Ok(())
    }
}
