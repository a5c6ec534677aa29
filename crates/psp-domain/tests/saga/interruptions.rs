//! Stops workers between any two steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, RefundRequest,
    Store, StoreError,
};
use psp_domain::{AttemptReference, ChangeSet, GatewayName, Verdict};
use psp_testkit::fakes::{Memory, ScriptedGateway};
use tokio::sync::Notify;

/// What comes between two steps of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// It is killed, and goes on no more.
    Kill,
    /// The store or the gateway fails it: before it has done what was asked, or after.
    Fail,
    /// Others do all that they can before it goes on.
    Others,
}

/// Counts the places before and after each write and each question to the gateway, and interrupts at some of them.
pub(crate) struct Places {
    passed: AtomicUsize,
    at: BTreeSet<usize>,
    pub(crate) interruption: Interruption,
    pub(crate) reached: Notify,
    pub(crate) go_on: Notify,
}

impl Places {
    pub(crate) fn new(interruption: Interruption, at: BTreeSet<usize>) -> Self {
        Self { passed: AtomicUsize::new(0), at, interruption, reached: Notify::new(), go_on: Notify::new() }
    }

    /// How many places there were.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Whether what was asked for fails here.
    async fn fails(&self) -> bool {
        let place = self.passed.fetch_add(1, Ordering::SeqCst);
        if !self.at.contains(&place) {
            return false;
        }
        if self.interruption != Interruption::Fail {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
        self.interruption == Interruption::Fail
    }
}

pub(crate) struct InterruptedStore(pub(crate) Arc<Memory>, pub(crate) Arc<Places>);

#[async_trait]
impl Store for InterruptedStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        if self.1.fails().await {
            return Err(StoreError::Overloaded);
        }
        let verdicts = self.0.apply_all(changes).await;
        if self.1.fails().await {
            return Err(StoreError::OutcomeUnknown("the connection broke".into()));
        }
        verdicts
    }
}

pub(crate) struct InterruptedGateway(pub(crate) Arc<ScriptedGateway>, pub(crate) Arc<Places>);

impl InterruptedGateway {
    async fn ask<T>(&self, question: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
        if self.1.fails().await {
            return Err(GatewayError::TimedOut);
        }
        let answer = question.await;
        if self.1.fails().await { Err(GatewayError::TimedOut) } else { answer }
    }
}

#[async_trait]
impl Gateway for InterruptedGateway {
    fn name(&self) -> &GatewayName {
        self.0.name()
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.ask(self.0.authorize(request)).await
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.ask(self.0.find(reference)).await
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.ask(self.0.void(reference)).await
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.ask(self.0.refund(request)).await
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        self.0.verify_callback(callback)
    }
}
