use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::TransactionId;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError};

type Answer = (Duration, Result<AuthorizationResult, GatewayError>);

/// A gateway that gives the answers it was told to, in order, and approves after them.
#[derive(Default)]
pub struct ScriptedGateway {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(TransactionId, u32)>>,
}

impl ScriptedGateway {
    /// One more answer, given after that time.
    pub fn answer(&self, after: Duration, answer: Result<AuthorizationResult, GatewayError>) {
        self.answers.lock().unwrap().push_back((after, answer));
    }

    /// What it was asked: transactions and attempts, in order.
    pub fn asked(&self) -> Vec<(TransactionId, u32)> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Gateway for ScriptedGateway {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.asked.lock().unwrap().push((request.transaction_id, request.attempt));
        let scripted = self.answers.lock().unwrap().pop_front();
        let approved = || Ok(AuthorizationResult::Approved { reference: request.transaction_id.to_string() });
        let (after, answer) = scripted.unwrap_or_else(|| (Duration::ZERO, approved()));
        tokio::time::sleep(after).await;
        answer
    }
}
