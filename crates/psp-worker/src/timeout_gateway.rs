use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError};

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
}

#[async_trait]
impl Gateway for TimeoutGateway {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let answer = tokio::time::timeout(self.limit, self.inner.authorize(request)).await;
        answer.unwrap_or(Err(GatewayError::TimedOut))
    }
}
