//! Gateways: the sandbox, and acquirers that speak the protocol of `docs/gateway-protocol.md` over HTTP; and the
//! directory that knows which of them to ask, and which of them to leave alone.

mod breaker;
mod directory;
mod http;
mod sandbox;
mod signature;

pub use breaker::{BreakerGateway, BreakerOptions};
pub use directory::{Directory, MakeGateway, OpenError};
pub use http::{GatewayUrl, HttpGateway, HttpOptions, InvalidUrl};
pub use sandbox::{Behaviour, SandboxGateway, TEST_CARDS, TestCard};
pub use signature::{BadSignature, SIGNATURE_HEADER, ShortSecret, Signed, SigningKey, TIMESTAMP_HEADER, WINDOW};
