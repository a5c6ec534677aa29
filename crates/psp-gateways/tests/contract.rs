//! The contract, kept by the sandbox.

use std::time::Duration;

use psp_gateways::SandboxGateway;
use psp_testkit::contract::gateway::GatewayCase;

async fn sandbox() -> GatewayCase<SandboxGateway> {
    GatewayCase {
        gateway: SandboxGateway::new(Duration::ZERO),
        approved: "4111111111111111",
        declined: "4000000000009995",
        erring: "4000000000000341",
        keeps: false,
        signs: false,
    }
}

psp_testkit::gateway_contract!(self::sandbox);
