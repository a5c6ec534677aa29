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

    async fn pass(&self) {
        let place = self.passed.fetch_add(1, Ordering::SeqCst);
        if self.at.contains(&place) {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
    }
}

pub(crate) struct InterruptedStore(pub(crate) Arc<Memory>, pub(crate) Arc<Places>);

#[async_trait]
impl Store for InterruptedStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        self.1.pass().await;
        let verdicts = self.0.apply_all(changes).await;
        self.1.pass().await;
        verdicts
    }
}

pub(crate) struct InterruptedGateway(pub(crate) Arc<ScriptedGateway>, pub(crate) Arc<Places>);

#[async_trait]
impl Gateway for InterruptedGateway {
    fn name(&self) -> &GatewayName {
        self.0.name()
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.1.pass().await;
        let answer = self.0.authorize(request).await;
        self.1.pass().await;
        answer
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.1.pass().await;
        self.0.find(reference).await
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.1.pass().await;
        let answer = self.0.void(reference).await;
        self.1.pass().await;
        answer
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.1.pass().await;
        let answer = self.0.refund(request).await;
        self.1.pass().await;
        answer
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        self.0.verify_callback(callback)
    }
}
