//! Gateways: the sandbox, and acquirers that speak the protocol of `docs/gateway-protocol.md` over HTTP.

mod http;
mod sandbox;
mod signature;

pub use http::{GatewayUrl, HttpGateway, HttpOptions, InvalidUrl};
pub use sandbox::{Behaviour, SandboxGateway, TEST_CARDS, TestCard};
pub use signature::{BadSignature, SIGNATURE_HEADER, ShortSecret, Signed, SigningKey, TIMESTAMP_HEADER, WINDOW};
