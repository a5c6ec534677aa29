//! Gateways: the sandbox, and acquirers that speak the protocol of `docs/gateway-protocol.md` over HTTP, in JSON or XML; and
//! the directory that knows which of them to ask, and which of them to leave alone.
//!
//! What an acquirer is asked and answers (`answer`) stands apart from how it is written (`json`, `xml`) and sent
//! (`transport`).

mod answer;
mod breaker;
mod directory;
mod http;
mod json;
mod sandbox;
mod signature;
pub mod soap;
mod transport;
mod url;
mod xml;

pub use breaker::{BreakerGateway, BreakerOptions};
pub use directory::{Directory, MakeGateway, OpenError};
pub use http::{HttpGateway, HttpOptions, HttpProtocol};
pub use sandbox::{Behaviour, SandboxGateway, TEST_CARDS, TestCard};
pub use signature::{BadSignature, SIGNATURE_HEADER, ShortSecret, Signed, SigningKey, TIMESTAMP_HEADER, WINDOW};
pub use transport::{Incoming, Outgoing, SignedClient, Trust};
pub use url::{GatewayUrl, InvalidUrl};
