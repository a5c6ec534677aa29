use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, RefundRequest,
};
use psp_domain::{AttemptReference, GatewayName};

/// Bounds every call of another gateway: the domain knows no timers.
pub struct TimeoutGateway {
    inner: Arc<dyn Gateway>,
    limit: Duration,
}

impl TimeoutGateway {
    /// The gateway, given that long for each answer.
    pub fn new(inner: Arc<dyn Gateway>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
        tokio::time::timeout(self.limit, call).await.unwrap_or(Err(GatewayError::TimedOut))
    }
}

#[async_trait]
impl Gateway for TimeoutGateway {
    fn name(&self) -> &GatewayName {
        self.inner.name()
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.within(self.inner.authorize(request)).await
    }

    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.within(self.inner.find(reference)).await
    }

    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.within(self.inner.void(reference)).await
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.within(self.inner.refund(request)).await
    }

    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        self.inner.verify_callback(callback)
    }
}
