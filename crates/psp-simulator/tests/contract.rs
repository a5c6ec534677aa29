//! The contract, kept by the gateway over HTTP and the simulator at its other end, in both protocols.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, RefundRequest,
};
use psp_domain::{AttemptReference, GatewayName};
use psp_gateways::HttpGateway;
use psp_testkit::contract::gateway::GatewayCase;
use support::World;

/// The gateway with the simulator that it needs.
struct Both(HttpGateway, #[expect(dead_code, reason = "it serves until it is dropped")] World);

#[async_trait]
impl Gateway for Both {
    fn name(&self) -> &GatewayName {
        self.0.name()
    }
    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        self.0.authorize(request).await
    }
    async fn find(&self, reference: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        self.0.find(reference).await
    }
    async fn void(&self, reference: AttemptReference) -> Result<(), GatewayError> {
        self.0.void(reference).await
    }
    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        self.0.refund(request).await
    }
    fn verify_callback(&self, callback: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        self.0.verify_callback(callback)
    }
}

async fn simulated(gateway: impl FnOnce(&World) -> HttpGateway) -> GatewayCase<Both> {
    let world = World::new().await;
    GatewayCase {
        gateway: Both(gateway(&world), world),
        approved: "4111111111111111",
        declined: "4000000000009995",
        erring: "4000000000000341",
        keeps: true,
        signs: true,
    }
}

async fn simulated_in_json() -> GatewayCase<Both> {
    simulated(World::gateway).await
}

async fn simulated_in_xml() -> GatewayCase<Both> {
    simulated(World::soap_gateway).await
}

mod json {
    psp_testkit::gateway_contract!(super::simulated_in_json);
}

mod xml {
    psp_testkit::gateway_contract!(super::simulated_in_xml);
}
