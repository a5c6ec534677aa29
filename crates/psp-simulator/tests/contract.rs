//! The contract, kept by the gateway over HTTP and the simulator at its other end.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use async_trait::async_trait;
use psp_domain::TransactionId;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError};
use psp_gateways::HttpGateway;
use psp_testkit::contract::gateway::GatewayCase;
use support::World;

/// The gateway with the simulator that it needs.
struct Both(HttpGateway, #[expect(dead_code, reason = "it serves until it is dropped")] World);

#[async_trait]
impl Gateway for Both {
    fn name(&self) -> &str {
        self.0.name()
    }
    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.0.authorize(request).await
    }
    async fn find(&self, id: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.0.find(id).await
    }
    async fn void(&self, id: TransactionId) -> Result<(), GatewayError> {
        self.0.void(id).await
    }
}

async fn simulated() -> GatewayCase<Both> {
    let world = World::new().await;
    GatewayCase {
        gateway: Both(world.gateway(), world),
        approved: "4111111111111111",
        declined: "4000000000009995",
        erring: "4000000000000341",
        keeps: true,
    }
}

psp_testkit::gateway_contract!(self::simulated);
